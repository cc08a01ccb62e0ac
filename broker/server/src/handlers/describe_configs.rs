//! DescribeConfigs: the effective configuration of topics, brokers, groups and client metrics subscriptions, with the
//! source of each value; and the broker's log level.

use std::collections::{BTreeMap, BTreeSet};

use brokkr_env::Env;
use brokkr_metadata::config::resolve::{Layers, Resolved, Source, Synonym};
use brokkr_metadata::config::{
    BROKER_KEYS, CLIENT_METRICS_KEYS, GROUP_KEYS, Key, TOPIC_KEYS, Update, broker_key,
};
use brokkr_metadata::controller::ROOT_LOGGER;
use brokkr_metadata::image::Configs;
use brokkr_metadata::image::resource_type::{BROKER, BROKER_LOGGER, CLIENT_METRICS, GROUP, TOPIC};
use brokkr_metadata::{ApiError, ConfigResource, Image, topic_name};
use brokkr_wire::messages::describe_configs_request::DescribeConfigsResource;
use brokkr_wire::messages::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResult, DescribeConfigsSynonym,
};
use brokkr_wire::messages::{DescribeConfigsRequest, DescribeConfigsResponse};
use brokkr_wire::{ErrorCode, Str};
use futures_util::future::BoxFuture;

use super::common::{EntryOutcome, ListedEntries};
use crate::config::{BrokerConfig, layers};
use crate::coop::Steps;
use crate::ctx::{Ctx, Peer};

/// Upper bounds of a key's entry with its synonyms, and of its documentation, in bytes.
const KEY_BYTES: usize = 400;
const DOCUMENTATION_BYTES: usize = 600;
/// Upper bound of a rejected resource, without its name, which is a slice of the request.
const REFUSED_BYTES: usize = 200;

/// Upper bound of the response, in bytes.
pub fn bytes<'a, E: Env>(ctx: &'a mut Ctx<E>, request: &'a DescribeConfigsRequest) -> BoxFuture<'a, usize> {
    Box::pin(async {
        let image = ctx.image().clone();
        let resource_bytes = resource_bytes(&ctx.config, &image, request);
        let (mut bytes, mut steps, mut listed) = (0, Steps::default(), ListedEntries::new());
        for r in &request.resources {
            steps.step().await;
            let answer_bytes = resource_bytes(r);
            bytes += match admit(&image, &mut listed, r, answer_bytes) {
                EntryOutcome::Answer => answer_bytes,
                EntryOutcome::TooManyUnknown => REFUSED_BYTES,
                EntryOutcome::TooManyRepeated => 0,
            };
        }
        bytes
    })
}

/// The fields of a request's resource that determine the result.
type ResourceKey<'a> = (i8, &'a Str, &'a Option<Vec<Str>>);

/// How the response answers the next resource, whose result takes up to `bytes`. Every name is a valid group or client
/// metrics subscription: without a configuration it has the defaults.
fn admit<'a>(
    image: &Image,
    listed: &mut ListedEntries<ResourceKey<'a>>,
    r: &'a DescribeConfigsResource,
    bytes: usize,
) -> EntryOutcome {
    let identity = (r.resource_type, &r.resource_name, &r.configuration_keys);
    let exists = !matches!(r.resource_type, GROUP | CLIENT_METRICS) || own(image, r).is_some();
    listed.admit(identity, exists, bytes)
}

/// The configuration of the resource itself, without defaults.
fn own<'a>(image: &'a Image, r: &DescribeConfigsResource) -> Option<&'a Configs> {
    let (kind, name) = (r.resource_type, r.resource_name.clone());
    image.configs(&ConfigResource { kind, name })
}

/// Upper bound of each resource's result, in bytes.
fn resource_bytes<'a>(
    config: &BrokerConfig,
    image: &'a Image,
    request: &DescribeConfigsRequest,
) -> impl Fn(&DescribeConfigsResource) -> usize + use<'a> {
    // A broker's result contains all names that were set, unknown ones too.
    let layers = layers(config, image);
    let set = [layers.broker, layers.cluster].into_iter().flatten();
    let shown = |(name, value): (&Str, &Str)| 3 * (name.len() + value.len());
    let set_bytes: usize = set.flatten().map(|entry| KEY_BYTES + shown(entry)).sum();
    // Values have any length, and appear twice.
    let own_bytes = move |r: &DescribeConfigsResource| -> usize {
        own(image, r).map_or(0, |own| own.iter().map(shown).sum())
    };
    let key_bytes = KEY_BYTES + usize::from(request.include_documentation) * DOCUMENTATION_BYTES;
    let bytes = move |kind| match kind {
        BROKER => key_bytes * BROKER_KEYS.len() + set_bytes,
        TOPIC => key_bytes * TOPIC_KEYS.len(),
        GROUP => key_bytes * GROUP_KEYS.len(),
        CLIENT_METRICS => key_bytes * CLIENT_METRICS_KEYS.len(),
        _ => key_bytes,
    };
    move |r| bytes(r.resource_type) + own_bytes(r)
}

/// Returns the response. Resources are in the order of the request, keys in the order of their names.
pub async fn handle<E: Env>(
    mut ctx: Ctx<E>,
    request: DescribeConfigsRequest,
    _version: i16,
    _peer: Peer,
) -> DescribeConfigsResponse {
    let image = ctx.image().clone();
    let describe = ConfigDescriber {
        image: &image,
        layers: layers(&ctx.config, &image),
        node_id: ctx.identity.node_id,
        synonyms: request.include_synonyms,
        documentation: request.include_documentation,
    };
    let resource_bytes = resource_bytes(&ctx.config, &image, &request);
    let (mut results, mut steps, mut listed) = (Vec::new(), Steps::default(), ListedEntries::new());
    for requested in &request.resources {
        match admit(&image, &mut listed, requested, resource_bytes(requested)) {
            EntryOutcome::Answer => {
                results.push(describe.result(requested));
                // All keys of the resource are resolved, whichever are requested.
                steps.steps(BROKER_KEYS.len()).await;
            }
            EntryOutcome::TooManyUnknown => {
                results.push(too_many(requested));
                steps.step().await;
            }
            EntryOutcome::TooManyRepeated => steps.step().await,
        }
    }
    DescribeConfigsResponse {
        results,
        ..DescribeConfigsResponse::default()
    }
}

fn too_many(requested: &DescribeConfigsResource) -> DescribeConfigsResult {
    DescribeConfigsResult {
        error_code: ErrorCode::INVALID_REQUEST.0,
        error_message: Some(Str::from_static(
            "too many groups or subscriptions for one response",
        )),
        resource_type: requested.resource_type,
        resource_name: requested.resource_name.clone(),
        ..DescribeConfigsResult::default()
    }
}

struct ConfigDescriber<'a> {
    image: &'a Image,
    layers: Layers<'a>,
    node_id: i32,
    synonyms: bool,
    documentation: bool,
}

impl ConfigDescriber<'_> {
    fn result(&self, requested: &DescribeConfigsResource) -> DescribeConfigsResult {
        let outcome = self.resource(requested.resource_type, &requested.resource_name);
        let (code, message) = match &outcome {
            Ok(_) => (ErrorCode::NONE, None),
            Err(e) => (e.code, e.message_str()),
        };
        // As in Kafka: without an error the message is empty, not null.
        let message = message.or(Some(Str::default()));
        let wanted = requested
            .configuration_keys
            .as_ref()
            .filter(|keys| !keys.is_empty());
        let wanted: Option<BTreeSet<&Str>> = wanted.map(|keys| keys.iter().collect());
        let mut configs = outcome.unwrap_or_default();
        configs.retain(|entry| wanted.as_ref().is_none_or(|keys| keys.contains(&entry.name)));
        DescribeConfigsResult {
            error_code: code.0,
            error_message: message,
            resource_type: requested.resource_type,
            resource_name: requested.resource_name.clone(),
            configs,
            ..DescribeConfigsResult::default()
        }
    }

    fn resource(&self, kind: i8, name: &Str) -> Result<Vec<DescribeConfigsResourceResult>, ApiError> {
        let empty = |what: &str| refuse(format!("{what} must not be empty"));
        match kind {
            TOPIC => self.topic(name),
            BROKER if name.is_empty() => Ok(self.cluster()),
            BROKER => {
                self.check_is_this_broker(name, " or empty string,")?;
                Ok(self.broker())
            }
            BROKER_LOGGER if name.is_empty() => empty("Broker id"),
            BROKER_LOGGER => {
                self.check_is_this_broker(name, "")?;
                Ok(vec![logger()])
            }
            CLIENT_METRICS if name.is_empty() => empty("Client metrics subscription name"),
            CLIENT_METRICS => {
                let own = self.own(kind, name);
                Ok(self.over(Source::ClientMetrics, CLIENT_METRICS_KEYS, own))
            }
            GROUP if name.is_empty() => empty("Group name"),
            GROUP => Ok(self.over(Source::Group, GROUP_KEYS, self.own(kind, name))),
            other => refuse(format!("Unsupported resource type: {other}")),
        }
    }

    /// Checks that a broker resource is this broker: each broker describes only itself.
    fn check_is_this_broker(&self, name: &Str, or: &str) -> Result<(), ApiError> {
        match name.parse::<i32>() {
            Ok(id) if id == self.node_id => Ok(()),
            Ok(_) => refuse(format!(
                "Unexpected broker id, expected {}{or} but received {name}",
                self.node_id
            )),
            Err(_) => refuse(format!("Broker id must be an integer, but it is: {name}")),
        }
    }

    fn topic(&self, name: &Str) -> Result<Vec<DescribeConfigsResourceResult>, ApiError> {
        if let Some(why) = topic_name::invalid(name) {
            return Err(ApiError::new(ErrorCode::INVALID_TOPIC_EXCEPTION, why));
        }
        if self.image.topics.by_name(name).is_none() {
            return Err(ApiError::bare(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION));
        }
        let own = self.image.topic_configs(name);
        Ok(self.over(Source::DynamicTopic, TOPIC_KEYS, own))
    }

    /// The configuration of the resource itself, without defaults.
    fn own(&self, kind: i8, name: &Str) -> Option<&Configs> {
        let name = name.clone();
        self.image.configs(&ConfigResource { kind, name })
    }

    /// Entries of all `keys`, for a resource with the configuration `own`.
    fn over(
        &self,
        source: Source,
        keys: &'static [Key],
        own: Option<&Configs>,
    ) -> Vec<DescribeConfigsResourceResult> {
        let entry = |key| {
            let synonyms = self.layers.synonyms_over(source, key, own);
            self.entry(self.layers.value_over(source, key, own), false, synonyms)
        };
        keys.iter().map(entry).collect()
    }

    fn broker(&self) -> Vec<DescribeConfigsResourceResult> {
        let values = BROKER_KEYS.iter().map(|key| self.layers.broker_value(key));
        let known = values
            .filter(|resolved| is_static(resolved.key.name) || resolved.source != Source::Default)
            .map(|resolved| {
                let synonyms = self.layers.broker_synonyms(resolved.key.name);
                let read_only = resolved.key.update == Update::ReadOnly;
                self.entry(resolved, read_only, synonyms)
            });
        let mut all: Vec<_> = known.chain(self.unknown()).collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    /// Names set for this broker or for all that no table of keys has. As in Kafka, they are treated as secrets.
    fn unknown(&self) -> impl Iterator<Item = DescribeConfigsResourceResult> {
        let mut sources: BTreeMap<&Str, Vec<Source>> = BTreeMap::new();
        for (configs, source) in [
            (self.layers.broker, Source::DynamicBroker),
            (self.layers.cluster, Source::DynamicDefaultBroker),
        ] {
            let names = configs.into_iter().flat_map(|configs| configs.keys());
            for name in names.filter(|name| broker_key(name).is_none()) {
                sources.entry(name).or_default().push(source);
            }
        }
        sources.into_iter().map(|(name, sources)| {
            let synonyms = sources.iter().map(|source| DescribeConfigsSynonym {
                name: name.clone(),
                value: None,
                source: source.id(),
                ..DescribeConfigsSynonym::default()
            });
            DescribeConfigsResourceResult {
                name: name.clone(),
                value: None,
                read_only: true,
                config_source: sources[0].id(),
                is_sensitive: true,
                synonyms: if self.synonyms {
                    synonyms.collect()
                } else {
                    Vec::new()
                },
                ..DescribeConfigsResourceResult::default()
            }
        })
    }

    /// The cluster-wide default configuration of brokers, and nothing else.
    fn cluster(&self) -> Vec<DescribeConfigsResourceResult> {
        let Some(set) = self.image.configs(&ConfigResource::cluster()) else {
            return Vec::new();
        };
        let entry = |(name, value): (&Str, &Str)| {
            let key = broker_key(name);
            let sensitive = key.is_none_or(|key| key.is_sensitive());
            let shown = (!sensitive).then(|| value.clone());
            let synonym = DescribeConfigsSynonym {
                name: name.clone(),
                value: shown.clone(),
                source: Source::DynamicDefaultBroker.id(),
                ..DescribeConfigsSynonym::default()
            };
            DescribeConfigsResourceResult {
                name: name.clone(),
                value: shown,
                read_only: key.is_none_or(|key| key.update == Update::ReadOnly),
                config_source: Source::DynamicDefaultBroker.id(),
                is_sensitive: sensitive,
                synonyms: if self.synonyms { vec![synonym] } else { Vec::new() },
                config_type: key.map_or(0, |key| key.ty.id()),
                documentation: key.and_then(|key| self.documentation(key)),
                ..DescribeConfigsResourceResult::default()
            }
        };
        set.iter().map(entry).collect()
    }

    fn documentation(&self, key: &Key) -> Option<Str> {
        self.documentation.then(|| Str::from(key.documentation()))
    }

    fn entry(
        &self,
        resolved: Resolved,
        read_only: bool,
        synonyms: Vec<Synonym>,
    ) -> DescribeConfigsResourceResult {
        let key = resolved.key;
        // As in Kafka, the source is that of the first synonym.
        let source = synonyms.first().map_or(Source::Default, |s| s.source);
        let synonyms = synonyms.into_iter().map(|s| DescribeConfigsSynonym {
            name: Str::from_static(s.name),
            value: s.value.map(Str::from),
            source: s.source.id(),
            ..DescribeConfigsSynonym::default()
        });
        DescribeConfigsResourceResult {
            name: Str::from_static(key.name),
            value: resolved
                .value
                .filter(|_| !key.is_sensitive())
                .map(|v| Str::from(v.to_string())),
            read_only,
            config_source: source.id(),
            is_sensitive: key.is_sensitive(),
            synonyms: if self.synonyms {
                synonyms.collect()
            } else {
                Vec::new()
            },
            config_type: key.ty.id(),
            documentation: self.documentation(key),
            ..DescribeConfigsResourceResult::default()
        }
    }
}

fn refuse<T>(message: String) -> Result<T, ApiError> {
    Err(ApiError::new(ErrorCode::INVALID_REQUEST, message))
}

/// The root logger with its level; there is no other.
fn logger() -> DescribeConfigsResourceResult {
    let level = tracing::level_filters::LevelFilter::current().to_string();
    DescribeConfigsResourceResult {
        name: Str::from_static(ROOT_LOGGER),
        value: Some(Str::from(level.to_ascii_uppercase())),
        config_source: Source::BrokerLogger.id(),
        // As in Kafka: no type and no documentation.
        documentation: Some(Str::default()),
        ..DescribeConfigsResourceResult::default()
    }
}

/// Whether the key can be in a configuration file. The others belong to a broker only once they are set.
fn is_static(name: &str) -> bool {
    !matches!(
        name,
        "follower.replication.throttled.rate"
            | "leader.replication.throttled.rate"
            | "replica.alter.log.dirs.io.max.bytes.per.second"
    )
}

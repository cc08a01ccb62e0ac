//! Changes of the configurations of topics, brokers, groups and client metrics subscriptions.

use std::collections::{BTreeMap, BTreeSet};

use brokkr_wire::messages::alter_configs_response::AlterConfigsResourceResponse as Response;
use brokkr_wire::messages::incremental_alter_configs_request::AlterableConfig;
use brokkr_wire::messages::incremental_alter_configs_response::AlterConfigsResourceResponse as IncrementalResponse;
use brokkr_wire::messages::{
    AlterConfigsRequest, AlterConfigsResponse, ConfigRecord, IncrementalAlterConfigsRequest,
    IncrementalAlterConfigsResponse, MetadataRecord,
};
use brokkr_wire::{ErrorCode, Str};

use super::{ApiError, Budget, Controller, Outcome, code_and_message};
use crate::config::resolve::Configs;
use crate::config::{
    ClientMetricsError, ConfigError, Key, Type, broker_key, topic_key, validate_applied,
    validate_broker_values, validate_client_metrics, validate_group_values, validate_topic_values,
};
use crate::image::{ConfigResource, resource_type};
use crate::topic_name;

/// Memory limit for the configurations of groups and client metrics subscriptions: about ten thousand of them.
pub(super) const OF_ANY_NAME_BYTES_MAX: usize = 32 << 20;
/// Longest value that fits a record.
const VALUE_LEN_MAX: usize = i16::MAX as usize;

impl ConfigResource {
    /// The record that sets or deletes a key.
    pub(super) fn record(&self, name: &Str, value: Option<&Str>) -> MetadataRecord {
        ConfigRecord {
            resource_type: self.kind,
            resource_name: self.name.clone(),
            name: name.clone(),
            value: value.cloned(),
            ..ConfigRecord::default()
        }
        .into()
    }

    /// The key of this name if it is a list, which APPEND and SUBTRACT need. Kafka's controller knows only the types of
    /// topic and broker keys.
    fn list_key(&self, name: &str) -> Option<&'static Key> {
        let key = match self.kind {
            resource_type::TOPIC => topic_key(name),
            resource_type::BROKER => broker_key(name),
            _ => None,
        };
        key.filter(|key| key.ty == Type::List)
    }
}

fn refuse<T>(code: ErrorCode, message: impl Into<String>) -> Outcome<T> {
    Err(ApiError::new(code, message))
}

impl From<ConfigError> for ApiError {
    fn from(e: ConfigError) -> Self {
        Self::new(ErrorCode::INVALID_CONFIG, e.0)
    }
}

/// Whether two resources have the same name.
fn has_duplicates<'a>(names: impl Iterator<Item = &'a Str>) -> bool {
    let mut names: Vec<&Str> = names.collect();
    names.sort();
    names.windows(2).any(|w| w[0] == w[1])
}

/// The result of changing a resource's configuration.
struct ConfigChange {
    resource: ConfigResource,
    code: i16,
    message: Option<Str>,
}

/// Changes the configuration of each resource that the request names once, as far as one batch holds the records. With
/// `validate_only` nothing is written.
fn change_each<A>(
    validate_only: bool,
    asked: Vec<(ConfigResource, A)>,
    change: impl Fn(&ConfigResource, A) -> Outcome<Vec<MetadataRecord>>,
) -> (Vec<MetadataRecord>, Vec<ConfigChange>) {
    let mut times: BTreeMap<ConfigResource, usize> = BTreeMap::new();
    for (resource, _) in &asked {
        *times.entry(resource.clone()).or_default() += 1;
    }
    let (mut records, mut all, mut budget) = (Vec::new(), Vec::new(), Budget::new());
    for (resource, asked) in asked {
        let outcome = match times[&resource] {
            1 => change(&resource, asked),
            _ => refuse(
                ErrorCode::INVALID_REQUEST,
                "Each resource must appear at most once.",
            ),
        };
        let outcome = budget.spend(outcome, Vec::as_slice);
        let (code, message) = code_and_message(&outcome);
        records.extend(outcome.into_iter().flatten());
        all.push(ConfigChange {
            resource,
            code,
            message,
        });
    }
    if validate_only {
        records.clear();
    }
    (records, all)
}

impl Controller {
    pub(super) fn alter_configs(
        &self,
        r: &AlterConfigsRequest,
    ) -> (Vec<MetadataRecord>, AlterConfigsResponse) {
        let asked = r.resources.iter().map(|asked| {
            let resource = ConfigResource {
                kind: asked.resource_type,
                name: asked.resource_name.clone(),
            };
            (resource, asked)
        });
        let (records, responses) = change_each(r.validate_only, asked.collect(), |resource, asked| {
            let pairs: Vec<(Str, Option<Str>)> = asked
                .configs
                .iter()
                .map(|c| (c.name.clone(), c.value.clone()))
                .collect();
            self.replace_configs(resource, &pairs)
        });
        let responses = responses.into_iter().map(|changed| Response {
            error_code: changed.code,
            error_message: changed.message,
            resource_type: changed.resource.kind,
            resource_name: changed.resource.name,
            ..Response::default()
        });
        let response = AlterConfigsResponse {
            responses: responses.collect(),
            ..AlterConfigsResponse::default()
        };
        (records, response)
    }

    pub(super) fn incremental_alter_configs(
        &self,
        r: &IncrementalAlterConfigsRequest,
    ) -> (Vec<MetadataRecord>, IncrementalAlterConfigsResponse) {
        let asked = r.resources.iter().map(|asked| {
            let resource = ConfigResource {
                kind: asked.resource_type,
                name: asked.resource_name.clone(),
            };
            (resource, asked)
        });
        let (records, responses) = change_each(r.validate_only, asked.collect(), |resource, asked| {
            self.change_configs(resource, &asked.configs)
        });
        let responses = responses.into_iter().map(|changed| IncrementalResponse {
            error_code: changed.code,
            error_message: changed.message,
            resource_type: changed.resource.kind,
            resource_name: changed.resource.name,
            ..IncrementalResponse::default()
        });
        let response = IncrementalAlterConfigsResponse {
            responses: responses.collect(),
            ..IncrementalAlterConfigsResponse::default()
        };
        (records, response)
    }

    /// Replaces the configuration of a resource (AlterConfigs).
    fn replace_configs(
        &self,
        resource: &ConfigResource,
        pairs: &[(Str, Option<Str>)],
    ) -> Outcome<Vec<MetadataRecord>> {
        if has_duplicates(pairs.iter().map(|(name, _)| name)) {
            return refuse(ErrorCode::INVALID_REQUEST, "Error due to duplicate config keys");
        }
        let nulls: Vec<&str> = pairs
            .iter()
            .filter(|(_, v)| v.is_none())
            .map(|(n, _)| n.as_str())
            .collect();
        refuse_nulls(&nulls)?;
        self.check_resource(resource)?;
        let new: Configs = pairs
            .iter()
            .filter_map(|(n, v)| Some((n.clone(), v.clone()?)))
            .collect();
        self.check_values(resource, &new)?;
        self.check_exists(resource)?;
        self.check_room(resource, &new)?;
        Ok(self.difference(resource, &new, new.keys()))
    }

    /// Changes keys of a resource (IncrementalAlterConfigs).
    fn change_configs(
        &self,
        resource: &ConfigResource,
        ops: &[AlterableConfig],
    ) -> Outcome<Vec<MetadataRecord>> {
        if has_duplicates(ops.iter().map(|op| &op.name)) {
            return refuse(ErrorCode::INVALID_REQUEST, "Error due to duplicate config keys");
        }
        let nulls: Vec<&str> = ops
            .iter()
            .filter(|op| op.config_operation != operation::DELETE && op.value.is_none())
            .map(|op| op.name.as_str())
            .collect();
        refuse_nulls(&nulls)?;
        if resource.kind == resource_type::BROKER_LOGGER {
            return self.set_levels(&resource.name, ops);
        }
        // As in Kafka: only for these the operations are checked before the names.
        let names_later = [
            resource_type::TOPIC,
            resource_type::CLIENT_METRICS,
            resource_type::GROUP,
        ];
        if !names_later.contains(&resource.kind) {
            self.check_resource(resource)?;
        }
        let mut new = self.image().configs(resource).cloned().unwrap_or_default();
        for op in ops {
            let value = op.value.as_ref().map_or("", |v| v.as_str());
            match op.config_operation {
                operation::SET => drop(new.insert(op.name.clone(), Str::copied(value))),
                operation::DELETE => drop(new.remove(op.name.as_str())),
                operation::APPEND | operation::SUBTRACT => {
                    let append = op.config_operation == operation::APPEND;
                    let list = self.list_changed(resource, &new, &op.name, value, append)?;
                    new.insert(op.name.clone(), Str::from(list));
                }
                other => {
                    return refuse(
                        ErrorCode::INVALID_REQUEST,
                        format!("Unknown operations type {other}"),
                    );
                }
            }
        }
        self.check_resource(resource)?;
        self.check_values(resource, &new)?;
        self.check_exists(resource)?;
        self.check_room(resource, &new)?;
        Ok(self.difference(resource, &new, ops.iter().map(|op| &op.name)))
    }

    /// Appends elements to a list, unless it has them, or removes them, once each.
    fn list_changed(
        &self,
        resource: &ConfigResource,
        configs: &Configs,
        name: &Str,
        value: &str,
        append: bool,
    ) -> Outcome<String> {
        let Some(key) = resource.list_key(name) else {
            return refuse(ErrorCode::INVALID_CONFIG, no_list(resource, name, append));
        };
        let current = configs
            .get(name.as_str())
            .map(|v| v.as_str())
            .or(key.default)
            .unwrap_or_default();
        let mut list: Vec<&str> = current.split(',').filter(|element| !element.is_empty()).collect();
        if append {
            let mut have: BTreeSet<&str> = list.iter().copied().collect();
            list.extend(value.split(',').filter(|element| have.insert(element)));
        } else {
            let mut leaving: BTreeMap<&str, usize> = BTreeMap::new();
            for element in value.split(',') {
                *leaving.entry(element).or_default() += 1;
            }
            list.retain(|element| match leaving.get_mut(element) {
                None | Some(0) => true,
                Some(times) => {
                    *times -= 1;
                    false
                }
            });
        }
        Ok(list.join(","))
    }

    /// The records that change the configuration to `new`. For the broker keys named in the request (`requested`), records are
    /// written even if the values are unchanged: brokers then reload the files that they name (KAFKA-14136).
    fn difference<'a>(
        &self,
        resource: &ConfigResource,
        new: &Configs,
        requested: impl Iterator<Item = &'a Str>,
    ) -> Vec<MetadataRecord> {
        let old = self.image().configs(resource).cloned().unwrap_or_default();
        let again = resource.kind == resource_type::BROKER;
        let mut records = Vec::new();
        let mut names: Vec<(&Str, bool)> = requested.map(|name| (name, true)).collect();
        let mentioned: BTreeSet<&Str> = names.iter().map(|(name, _)| *name).collect();
        let others = old.keys().filter(|name| !mentioned.contains(name));
        names.extend(others.map(|name| (name, false)));
        for (name, mentioned) in names {
            let (before, after) = (old.get(name.as_str()), new.get(name.as_str()));
            if before != after || (again && mentioned) {
                records.push(resource.record(name, after));
            }
        }
        records
    }

    /// Whether there is memory for the configuration of a group or client metrics subscription. A change that makes it
    /// smaller is always accepted.
    fn check_room(&self, resource: &ConfigResource, new: &Configs) -> Outcome<()> {
        let image = self.image();
        let old_bytes = image.configs(resource).map_or(0, |old| resource.bytes(old));
        let grows = !new.is_empty() && resource.bytes(new) > old_bytes;
        if grows && resource.is_of_any_name() && image.of_any_name_bytes() >= OF_ANY_NAME_BYTES_MAX {
            return refuse(
                ErrorCode::POLICY_VIOLATION,
                "Too many groups and client metrics subscriptions are configured.",
            );
        }
        Ok(())
    }

    fn check_resource(&self, resource: &ConfigResource) -> Outcome<()> {
        let name = &resource.name;
        match resource.kind {
            resource_type::TOPIC if name.is_empty() => refuse(
                ErrorCode::INVALID_REQUEST,
                "Default topic resources are not allowed.",
            ),
            resource_type::TOPIC => match topic_name::invalid(name) {
                Some(why) => refuse(ErrorCode::INVALID_TOPIC_EXCEPTION, why),
                None => Ok(()),
            },
            resource_type::BROKER if name.is_empty() => Ok(()),
            resource_type::BROKER => match name.parse::<i32>() {
                Ok(id) if id == self.settings.node_id => Ok(()),
                Ok(_) => refuse(
                    ErrorCode::INVALID_REQUEST,
                    format!(
                        "Unexpected broker id, expected {}, but received {name}",
                        self.settings.node_id
                    ),
                ),
                Err(_) => refuse(
                    ErrorCode::INVALID_REQUEST,
                    format!("Node id must be an integer, but it is: {name}"),
                ),
            },
            resource_type::CLIENT_METRICS if name.is_empty() => {
                refuse(ErrorCode::INVALID_REQUEST, "Subscription name can't be empty")
            }
            resource_type::GROUP if name.is_empty() => refuse(
                ErrorCode::INVALID_REQUEST,
                "Default group resources are not allowed.",
            ),
            resource_type::CLIENT_METRICS | resource_type::GROUP => Ok(()),
            other => refuse(
                ErrorCode::INVALID_REQUEST,
                format!("Unknown resource type {other}"),
            ),
        }
    }

    /// Validates a resource's configuration. Kafka's error code for brokers differs from the one for topics.
    pub(super) fn check_values(&self, resource: &ConfigResource, configs: &Configs) -> Outcome<()> {
        if configs.values().any(|value| value.len() > VALUE_LEN_MAX) {
            let message = format!(
                "The configuration value cannot be added because it exceeds the maximum value size of {VALUE_LEN_MAX} bytes."
            );
            return refuse(ErrorCode::INVALID_CONFIG, message);
        }
        let values = configs
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()));
        match resource.kind {
            resource_type::TOPIC => Ok(validate_topic_values(values, &self.layers())?),
            resource_type::GROUP => Ok(validate_group_values(values, &self.layers())?),
            resource_type::CLIENT_METRICS => validate_client_metrics(values).map_err(|e| match e {
                ClientMetricsError::Request(why) => ApiError::new(ErrorCode::INVALID_REQUEST, why),
                ClientMetricsError::Config(e) => e.into(),
            }),
            _ => {
                // A value that is already configured, by another broker version, is kept until it is changed.
                let old = self.image().configs(resource);
                let changed = values
                    .clone()
                    .filter(|(name, text)| old.and_then(|old| old.get(*name)).is_none_or(|v| v != text));
                validate_broker_values(values, !resource.name.is_empty())
                    .and_then(|()| validate_applied(changed))
                    .map_err(|e| ApiError::new(ErrorCode::INVALID_REQUEST, e.0))
            }
        }
    }

    fn check_exists(&self, resource: &ConfigResource) -> Outcome<()> {
        if resource.kind == resource_type::TOPIC && self.image().topics.by_name(&resource.name).is_none() {
            let message = format!("The topic '{}' does not exist.", resource.name);
            return refuse(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, message);
        }
        Ok(())
    }
}

/// The error for APPEND or SUBTRACT on an unsupported key. Kafka's messages for broker keys differ from those for topic
/// keys.
fn no_list(resource: &ConfigResource, name: &Str, append: bool) -> String {
    if resource.kind != resource_type::BROKER {
        let what = if append { "APPEND" } else { "SUBTRACT" };
        return format!("Can't {what} to key {name} because its type is not LIST.");
    }
    let what = if append { "append" } else { "subtract" };
    match broker_key(name) {
        Some(_) => format!("Config value {what} is not allowed for config key: {name}"),
        None => format!("Unknown config name: {name}"),
    }
}

fn refuse_nulls(nulls: &[&str]) -> Outcome<()> {
    if nulls.is_empty() {
        return Ok(());
    }
    let message = format!("Null value not supported for : {}", nulls.join(", "));
    refuse(ErrorCode::INVALID_REQUEST, message)
}

/// IncrementalAlterConfigs' operations.
pub(super) mod operation {
    pub const SET: i8 = 0;
    pub const DELETE: i8 = 1;
    pub const APPEND: i8 = 2;
    pub const SUBTRACT: i8 = 3;
}

//! The broker's configuration.

use std::collections::BTreeMap;
use std::sync::Arc;

use brokkr_log::LogLimits;
use brokkr_metadata::config::resolve::Layers;
use brokkr_metadata::config::{BROKER_KEYS, ConfigError, broker_key};

use super::error::StartupError;
use super::limits::{self, Limits};
use super::listeners::{self, ListenerConfig};
use super::nearest::nearest;
use super::value::{FromValue, list, text, value};
use super::{log_dirs, metrics};

/// The memory budget where `queued.max.request.bytes` is unlimited: there is always one.
pub const MEMORY_DEFAULT_BYTES: usize = 256 << 20;

macro_rules! fields {
    ($($field:ident: $ty:ident = $key:literal,)*) => {
        /// A broker's configuration: a field for each key that the running broker reads. Topic defaults are in
        /// [`super::TopicConfig`].
        #[derive(Clone, Debug)]
        pub struct BrokerConfig {
            $(
                #[doc = concat!("`", $key, "`")]
                pub $field: $ty,
            )*
            /// `listeners`, without those of controllers.
            pub listeners: Vec<ListenerConfig>,
            /// `advertised.listeners`, one for each of `listeners`, in their order; by default the listener itself.
            pub advertised_listeners: Vec<ListenerConfig>,
            /// `node.id`, or `broker.id`.
            pub node_id: i32,
            /// `broker.rack`.
            pub broker_rack: Option<String>,
            /// `metrics.listen`: host and port; `None` for `none`.
            pub metrics_listen: Option<(String, u16)>,
            /// `log.dirs`, or `log.dir`.
            log_dirs: Vec<String>,
            /// `metadata.log.dir`, or the first of `log_dirs`.
            metadata_log_dir: String,
            /// Limits that are not Kafka's keys.
            pub limits: Arc<Limits>,
            /// Limits of logs.
            pub log_limits: LogLimits,
            /// The explicitly set values, by key.
            pub set: BTreeMap<String, String>,
        }

        #[cfg(test)]
        const FIELD_KEYS: &[&str] = &[$($key,)*];

        impl BrokerConfig {
            fn read(set: BTreeMap<String, String>) -> Result<Self, StartupError> {
                let layers = Layers { file: Some(&set), ..Layers::default() };
                $(let $field = $ty::from_value(value(&layers, $key)?);)*
                let (listeners, advertised_listeners) = listeners::listeners(&layers)?;
                let node_id = node_id(&set, &layers)?;
                let broker_rack = text(&layers, "broker.rack");
                let metrics_listen = metrics::listen(&layers)?;
                let (log_dirs, metadata_log_dir) = log_dirs::log_dirs(&set, &layers)?;
                let (limits, log_limits) = limits::read(&set)?;
                Ok(Self {
                    $($field,)*
                    limits: Arc::new(limits),
                    log_limits,
                    listeners,
                    advertised_listeners,
                    node_id,
                    broker_rack,
                    metrics_listen,
                    log_dirs,
                    metadata_log_dir,
                    set,
                })
            }
        }
    };
}

fields! {
    auto_create_topics_enable: bool = "auto.create.topics.enable",
    connections_max_idle_ms: i64 = "connections.max.idle.ms",
    default_replication_factor: i32 = "default.replication.factor",
    delete_topic_enable: bool = "delete.topic.enable",
    fetch_max_bytes: i32 = "fetch.max.bytes",
    log_retention_check_interval_ms: i64 = "log.retention.check.interval.ms",
    max_connections: i32 = "max.connections",
    max_connections_per_ip: i32 = "max.connections.per.ip",
    max_incremental_fetch_session_cache_slots: i32 = "max.incremental.fetch.session.cache.slots",
    max_request_partition_size_limit: i32 = "max.request.partition.size.limit",
    metadata_log_max_record_bytes_between_snapshots: i64 = "metadata.log.max.record.bytes.between.snapshots",
    metadata_log_segment_bytes: i32 = "metadata.log.segment.bytes",
    num_io_threads: i32 = "num.io.threads",
    socket_send_buffer_bytes: i32 = "socket.send.buffer.bytes",
    socket_receive_buffer_bytes: i32 = "socket.receive.buffer.bytes",
    num_partitions: i32 = "num.partitions",
    producer_id_expiration_ms: i32 = "producer.id.expiration.ms",
    queued_max_request_bytes: i64 = "queued.max.request.bytes",
    socket_request_max_bytes: i32 = "socket.request.max.bytes",
}

/// `node.id`, or `broker.id`, which is the same under its old name.
fn node_id(set: &BTreeMap<String, String>, layers: &Layers<'_>) -> Result<i32, StartupError> {
    let id = i32::from_value(value(layers, "node.id")?);
    let refuse = |why: String| Err(StartupError::Value(ConfigError(why)));
    if id < 0 {
        return refuse(format!("node.id is {id}; it must be at least 0"));
    }
    if set.contains_key("broker.id") && i32::from_value(value(layers, "broker.id")?) != id {
        return refuse(format!(
            "node.id is {id}; broker.id must be the same, or not be set"
        ));
    }
    Ok(id)
}

impl BrokerConfig {
    /// Parses the configuration, and returns warnings for Kafka's keys that have no effect in this broker.
    pub fn new(mut set: BTreeMap<String, String>) -> Result<(Self, Vec<String>), StartupError> {
        let mut warnings = Vec::new();
        for (name, text) in &set {
            match broker_key(name) {
                Some(key) => drop(key.parse(text).map_err(StartupError::Value)?),
                None if is_internal(name) => {}
                // Read with all others.
                None if limits::is_key(name) => continue,
                None => {
                    let names = BROKER_KEYS.iter().map(|key| key.name.to_owned());
                    let (key, nearest) = (name.clone(), nearest(name, names));
                    return Err(StartupError::UnknownKey { key, nearest });
                }
            }
            if !broker_key(name).is_some_and(|key| key.implemented) {
                warnings.push(format!("{name} has no effect: it is not implemented yet"));
            }
        }
        check_roles(&set)?;
        // As Kafka shows them: one id under both names.
        for (name, other) in [("node.id", "broker.id"), ("broker.id", "node.id")] {
            if let Some(id) = set.get(name).cloned() {
                set.entry(other.to_owned()).or_insert(id);
            }
        }
        Ok((Self::read(set)?, warnings))
    }

    /// Sets the host that listeners on every address advertise unless `advertised.listeners` is set.
    pub fn advertise_host(&mut self, host: &str) {
        for listener in self.advertised_listeners.iter_mut().filter(|l| l.is_wildcard()) {
            host.clone_into(&mut listener.host);
        }
    }

    /// The memory budget: `queued.max.request.bytes`, or [`MEMORY_DEFAULT_BYTES`].
    pub fn memory_bytes(&self) -> usize {
        match usize::try_from(self.queued_max_request_bytes) {
            Ok(0) | Err(_) => MEMORY_DEFAULT_BYTES,
            Ok(bytes) => bytes,
        }
    }

    /// The directories of partitions, in their order: at least one.
    pub fn log_dirs(&self) -> &[String] {
        &self.log_dirs
    }

    /// The directory of the metadata log: one of [`BrokerConfig::log_dirs`], or a separate one.
    pub fn metadata_log_dir(&self) -> &str {
        &self.metadata_log_dir
    }
}

/// Checks that the node is both a broker and its controller; nothing else is supported yet.
fn check_roles(set: &BTreeMap<String, String>) -> Result<(), StartupError> {
    let layers = Layers {
        file: Some(set),
        ..Layers::default()
    };
    let roles = list(&layers, "process.roles");
    if ["broker", "controller"]
        .iter()
        .all(|role| roles.iter().any(|have| have == role))
    {
        return Ok(());
    }
    let why = format!(
        "process.roles is {}: only broker,controller is served yet",
        roles.join(",")
    );
    Err(StartupError::Value(ConfigError(why)))
}

/// Whether Kafka accepts the name though its documented keys don't contain it: internal keys, and those of listeners and
/// plugins.
fn is_internal(name: &str) -> bool {
    const PREFIXES: [&str; 4] = [
        "listener.name.",
        "config.providers.",
        "rsm.config.",
        "rlmm.config.",
    ];
    INTERNAL_KEYS.contains(&name) || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// Kafka's undocumented keys. None of them has an effect in Brokkr.
const INTERNAL_KEYS: &[&str] = &[
    "controller.performance.always.log.threshold.ms",
    "controller.performance.sample.period.ms",
    "group.consumer.regex.refresh.interval.ms",
    "group.share.initialize.retry.interval.ms",
    "group.share.persister.class.name",
    "internal.metadata.delete.delay.millis",
    "internal.metadata.log.segment.bytes",
    "internal.metadata.max.batch.size.in.bytes",
    "log.initial.task.delay.ms",
    "producer.id.expiration.check.interval.ms",
    "remote.log.index.file.cache.ttl.ms",
    "remote.log.manager.task.retry.backoff.max.ms",
    "remote.log.manager.task.retry.backoff.ms",
    "remote.log.manager.task.retry.jitter",
    "server.max.startup.time.ms",
    "share.coordinator.cold.partition.snapshot.interval.ms",
    "share.coordinator.state.topic.prune.interval.ms",
    "unclean.leader.election.interval.ms",
    "unstable.api.versions.enable",
    "unstable.feature.versions.enable",
];

#[cfg(test)]
mod tests {
    use brokkr_metadata::config::TOPIC_KEYS;

    use super::super::properties;
    use super::*;

    fn set(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect()
    }

    #[test]
    fn defaults_are_kafkas_except_for_loopback() {
        let (config, warnings) = BrokerConfig::new(set(&[])).expect("defaults are valid");
        assert!(warnings.is_empty());
        assert_eq!(config.listeners[0].host, "127.0.0.1");
        assert_eq!(
            (
                config.listeners[0].port,
                config.num_partitions,
                config.fetch_max_bytes
            ),
            (9092, 1, 57_671_680)
        );
    }

    #[test]
    fn an_unknown_key_is_reported_with_the_nearest_one() {
        let error = BrokerConfig::new(set(&[("log.retention.hour", "1")])).expect_err("the key is unknown");
        assert_eq!(
            error.to_string(),
            "unknown configuration key log.retention.hour; did you mean log.retention.hours?"
        );
        let error = BrokerConfig::new(set(&[("zzz", "1")])).expect_err("the key is unknown");
        assert_eq!(error.to_string(), "unknown configuration key zzz");
        let error =
            BrokerConfig::new(set(&[("brokkr.limit.partition.que", "4")])).expect_err("the key is unknown");
        assert_eq!(
            error.to_string(),
            "unknown configuration key brokkr.limit.partition.que; did you mean brokkr.limit.partition.queue?"
        );
        assert!(BrokerConfig::new(set(&[("num.partitions", "many")])).is_err());
        assert!(BrokerConfig::new(set(&[("listeners", "SSL://:1")])).is_err());
    }

    #[test]
    fn keys_without_effect_give_a_warning() {
        let (_, warnings) = BrokerConfig::new(set(&[("background.threads", "3")])).expect("Kafka knows it");
        assert_eq!(
            warnings,
            ["background.threads has no effect: it is not implemented yet"]
        );
    }

    #[test]
    fn implemented_keys_are_read() {
        let special = [
            "broker.id",
            "broker.rack",
            "controller.listener.names",
            "listener.security.protocol.map",
            "listeners",
            "advertised.listeners",
            "log.dir",
            "log.dirs",
            "metadata.log.dir",
            "metrics.listen",
            "node.id",
            "process.roles",
        ];
        let of_topics: Vec<&str> = TOPIC_KEYS
            .iter()
            .filter(|t| t.implemented)
            .flat_map(|t| t.synonyms)
            .map(|(name, _)| *name)
            .collect();
        for key in BROKER_KEYS {
            let is_read = FIELD_KEYS.contains(&key.name)
                || special.contains(&key.name)
                || of_topics.contains(&key.name);
            assert_eq!(is_read, key.implemented, "{}", key.name);
        }
    }

    #[test]
    fn kafkas_own_server_properties_are_valid() {
        let file = "process.roles=broker,controller\nnode.id=1\ncontroller.quorum.bootstrap.servers=localhost:9093\n\
            listeners=PLAINTEXT://:9092,CONTROLLER://:9093\ninter.broker.listener.name=PLAINTEXT\n\
            advertised.listeners=PLAINTEXT://localhost:9092,CONTROLLER://localhost:9093\n\
            controller.listener.names=CONTROLLER\nnum.network.threads=3\nnum.io.threads=8\nlog.retention.hours=168\n\
            log.dirs=/somewhere\nunstable.api.versions.enable=true\nlistener.name.internal.ssl.key.password=x\n";
        let (config, warnings) =
            BrokerConfig::new(properties::parse(file).expect("well formed")).expect("valid");
        assert_eq!(
            (config.log_dirs(), config.listeners.len()),
            (&["/somewhere".to_owned()][..], 1)
        );
        let warned = [
            "controller.quorum.bootstrap.servers",
            "inter.broker.listener.name",
            "listener.name.internal.ssl.key.password",
            "num.network.threads",
            "unstable.api.versions.enable",
        ];
        assert_eq!(
            warnings,
            warned.map(|key| format!("{key} has no effect: it is not implemented yet"))
        );
    }

    #[test]
    fn a_node_has_one_id_under_two_names() {
        let id = |pairs: &[(&str, &str)]| {
            let config = BrokerConfig::new(set(pairs)).map_err(|e| e.to_string())?.0;
            let shown = ["node.id", "broker.id"].map(|key| config.set.get(key).cloned().unwrap_or_default());
            Ok::<_, String>((config.node_id, shown))
        };
        let both = |n: i32| Ok((n, [n.to_string(), n.to_string()]));
        assert_eq!(id(&[]), Ok((1, [String::new(), String::new()])));
        assert_eq!(id(&[("node.id", "5")]), both(5));
        assert_eq!(id(&[("broker.id", "5")]), both(5));
        assert_eq!(id(&[("node.id", "5"), ("broker.id", "5")]), both(5));
        let why = "node.id is 5; broker.id must be the same, or not be set";
        assert_eq!(id(&[("node.id", "5"), ("broker.id", "6")]), Err(why.to_owned()));
        assert!(id(&[("broker.id", "-1")]).is_err());
    }

    #[test]
    fn only_a_broker_with_its_controller_is_served() {
        let error = BrokerConfig::new(set(&[("process.roles", "broker")])).expect_err("no controller");
        assert_eq!(
            error.to_string(),
            "process.roles is broker: only broker,controller is served yet"
        );
    }
}

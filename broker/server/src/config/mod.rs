//! What a broker was told: Kafka's keys from a file and the command line, as typed fields.
//!
//! [`BrokerConfig`] has a field for each key that Brokkr does what it says of, named as the key (`queued.max.request.bytes`:
//! `queued_max_request_bytes`). Other keys of Kafka's are accepted with a warning; a key that nobody knows is an error, with
//! the name that is nearest. [`TopicConfig`] is what holds for one topic.

mod listeners;
pub mod properties;
mod topic;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use brokkr_metadata::config::{BROKER_KEYS, Key, Value, broker_key, resolve::Layers};
use brokkr_metadata::image::{ConfigResource, Image};

pub use listeners::ListenerConfig;
pub use topic::TopicConfig;

/// A configuration that can't be: one line for whoever started the broker. Exit code 2.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConfigError(pub String);

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ConfigError {}

/// A field's type, from a value of its key's.
trait FromValue: Sized {
    fn from_value(value: Option<Value>) -> Option<Self>;
}

impl FromValue for bool {
    fn from_value(value: Option<Value>) -> Option<Self> {
        value?.as_bool()
    }
}

impl FromValue for i32 {
    fn from_value(value: Option<Value>) -> Option<Self> {
        value?.as_integer()?.try_into().ok()
    }
}

impl FromValue for i64 {
    fn from_value(value: Option<Value>) -> Option<Self> {
        value?.as_integer()
    }
}

impl FromValue for String {
    fn from_value(value: Option<Value>) -> Option<Self> {
        Some(value?.as_text()?.to_owned())
    }
}

impl FromValue for Vec<String> {
    fn from_value(value: Option<Value>) -> Option<Self> {
        Some(value?.as_list()?.to_vec())
    }
}

impl<T: FromValue> FromValue for Option<T> {
    fn from_value(value: Option<Value>) -> Option<Self> {
        match value {
            None => Some(None),
            value => T::from_value(value).map(Some),
        }
    }
}

macro_rules! broker_config {
    ($($field:ident: $ty:ty = $key:literal,)*) => {
        /// A broker's configuration. Durations and sizes are in their key's unit; each field's doc names the key.
        #[derive(Clone, PartialEq, Debug)]
        pub struct BrokerConfig {
            $(#[doc = concat!("`", $key, "`.")] pub $field: $ty,)*
            /// `node.id`, or `broker.id` in its stead.
            pub node_id: i32,
            /// `listeners`, without the controller's.
            pub listeners: Vec<ListenerConfig>,
            /// `advertised.listeners`, one for each of `listeners`, in their order. Port 0 is the one that was bound; an empty
            /// host is [`BrokerConfig::advertise_host`]'s.
            pub advertised_listeners: Vec<ListenerConfig>,
            /// `log.dirs`, or `log.dir` in its stead.
            pub log_dirs: Vec<String>,
            /// All that was set, as it was set.
            pub set: Arc<BTreeMap<String, String>>,
            /// What was set but isn't done, a sentence each.
            pub warnings: Vec<String>,
        }

        impl BrokerConfig {
            fn from_checked(set: BTreeMap<String, String>) -> Result<Self, ConfigError> {
                let layers = Layers { file: Some(&set), ..Layers::default() };
                let (listeners, advertised_listeners) = listeners::listeners(&layers)?;
                Ok(Self {
                    $($field: field(&layers, $key),)*
                    node_id: node_id(&layers)?,
                    listeners,
                    advertised_listeners,
                    log_dirs: log_dirs(&layers)?,
                    warnings: warnings(&set),
                    set: Arc::new(set),
                })
            }
        }

        #[cfg(test)]
        const FIELD_KEYS: &[&str] = &[$($key,)* "node.id", "broker.id", "listeners", "advertised.listeners", "log.dirs",
            "log.dir", "controller.listener.names", "listener.security.protocol.map"];
    };
}

broker_config! {
    auto_create_topics_enable: bool = "auto.create.topics.enable",
    broker_rack: Option<String> = "broker.rack",
    compression_gzip_level: i32 = "compression.gzip.level",
    compression_lz4_level: i32 = "compression.lz4.level",
    compression_type: String = "compression.type",
    compression_zstd_level: i32 = "compression.zstd.level",
    connections_max_idle_ms: i64 = "connections.max.idle.ms",
    default_replication_factor: i32 = "default.replication.factor",
    delete_topic_enable: bool = "delete.topic.enable",
    fetch_max_bytes: i32 = "fetch.max.bytes",
    log_cleanup_policy: Vec<String> = "log.cleanup.policy",
    log_flush_interval_messages: i64 = "log.flush.interval.messages",
    log_flush_interval_ms: Option<i64> = "log.flush.interval.ms",
    log_flush_scheduler_interval_ms: i64 = "log.flush.scheduler.interval.ms",
    log_index_interval_bytes: i32 = "log.index.interval.bytes",
    log_index_size_max_bytes: i32 = "log.index.size.max.bytes",
    log_message_timestamp_after_max_ms: i64 = "log.message.timestamp.after.max.ms",
    log_message_timestamp_before_max_ms: i64 = "log.message.timestamp.before.max.ms",
    log_message_timestamp_type: String = "log.message.timestamp.type",
    log_retention_bytes: i64 = "log.retention.bytes",
    log_retention_check_interval_ms: i64 = "log.retention.check.interval.ms",
    log_retention_hours: i32 = "log.retention.hours",
    log_retention_minutes: Option<i32> = "log.retention.minutes",
    log_retention_ms: Option<i64> = "log.retention.ms",
    log_roll_hours: i32 = "log.roll.hours",
    log_roll_jitter_hours: i32 = "log.roll.jitter.hours",
    log_roll_jitter_ms: Option<i64> = "log.roll.jitter.ms",
    log_roll_ms: Option<i64> = "log.roll.ms",
    log_segment_bytes: i32 = "log.segment.bytes",
    log_segment_delete_delay_ms: i64 = "log.segment.delete.delay.ms",
    max_connections: i32 = "max.connections",
    max_connections_per_ip: i32 = "max.connections.per.ip",
    max_incremental_fetch_session_cache_slots: i32 = "max.incremental.fetch.session.cache.slots",
    max_request_partition_size_limit: i32 = "max.request.partition.size.limit",
    message_max_bytes: i32 = "message.max.bytes",
    metadata_log_max_record_bytes_between_snapshots: i64 = "metadata.log.max.record.bytes.between.snapshots",
    metadata_log_segment_bytes: i32 = "metadata.log.segment.bytes",
    min_insync_replicas: i32 = "min.insync.replicas",
    num_io_threads: i32 = "num.io.threads",
    num_partitions: i32 = "num.partitions",
    process_roles: Vec<String> = "process.roles",
    producer_id_expiration_ms: i32 = "producer.id.expiration.ms",
    queued_max_request_bytes: i64 = "queued.max.request.bytes",
    queued_max_requests: i32 = "queued.max.requests",
    socket_request_max_bytes: i32 = "socket.request.max.bytes",
    unclean_leader_election_enable: bool = "unclean.leader.election.enable",
}

/// Producer ids come from the controller in blocks of so many, as Kafka's.
pub const PRODUCER_ID_BLOCK_SIZE: i32 = 1000;

/// Keys that Kafka knows but doesn't tell of. None is implemented.
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

/// Names that begin so are listeners', plugins' or quotas' own.
const PREFIXES: &[&str] = &[
    "listener.name.",
    "config.providers.",
    "rsm.config.",
    "rlmm.config.",
];

impl Default for BrokerConfig {
    /// What holds when nothing is set.
    fn default() -> Self {
        Self::from_checked(BTreeMap::new()).expect("the defaults are valid")
    }
}

impl BrokerConfig {
    /// The configuration that these keys and values make; of a key that comes twice the last holds.
    ///
    /// # Errors
    /// A key that nobody knows, a value that can't be.
    pub fn new<K: Into<String>, V: Into<String>>(
        set: impl IntoIterator<Item = (K, V)>,
    ) -> Result<Self, ConfigError> {
        let set: BTreeMap<String, String> = set.into_iter().map(|(k, v)| (k.into(), v.into())).collect();
        for (name, text) in &set {
            match broker_key(name) {
                Some(key) => {
                    key.parse(text).map_err(|e| ConfigError(e.0))?;
                }
                None if INTERNAL_KEYS.contains(&name.as_str()) => {}
                None if PREFIXES.iter().any(|prefix| name.starts_with(prefix)) => {}
                None => return Err(unknown(name)),
            }
        }
        Self::from_checked(set)
    }

    /// Says under which name this machine is found, for listeners on all of its addresses that advertise none.
    pub fn advertise_host(&mut self, host: &str) {
        for listener in &mut self.advertised_listeners {
            if listener.host.is_empty() {
                host.clone_into(&mut listener.host);
            }
        }
    }

    /// What is configured for this broker by the file and by the log.
    pub fn layers<'a>(&'a self, image: &'a Image) -> Layers<'a> {
        Layers {
            broker: image.configs(&ConfigResource::broker(self.node_id)),
            cluster: image.configs(&ConfigResource::cluster()),
            file: Some(&self.set),
        }
    }
}

fn unknown(name: &str) -> ConfigError {
    let nearest = BROKER_KEYS
        .iter()
        .map(|key| (strsim::damerau_levenshtein(key.name, name), key.name))
        .min();
    match nearest {
        // Further away than that it isn't a slip of the hand.
        Some((distance, nearest)) if distance <= name.len().max(6) / 2 => ConfigError(format!(
            "unknown configuration key {name:?}; did you mean {nearest:?}?"
        )),
        _ => ConfigError(format!("unknown configuration key {name:?}")),
    }
}

fn warnings(set: &BTreeMap<String, String>) -> Vec<String> {
    set.keys()
        .filter(|name| !broker_key(name).is_some_and(|key| key.implemented))
        .map(|name| format!("configuration key {name} is known but has no effect yet"))
        .collect()
}

fn known(name: &str) -> &'static Key {
    broker_key(name).unwrap_or_else(|| panic!("{name} is in the table"))
}

fn field<T: FromValue>(layers: &Layers<'_>, name: &str) -> T {
    let value = layers.broker_value(known(name)).value;
    T::from_value(value).unwrap_or_else(|| panic!("the field of {name} has its type"))
}

fn node_id(layers: &Layers<'_>) -> Result<i32, ConfigError> {
    let set = |name| {
        layers
            .file
            .is_some_and(|file| file.contains_key(name))
            .then(|| field::<i32>(layers, name))
    };
    match (set("node.id"), set("broker.id")) {
        (Some(node), Some(broker)) if broker >= 0 && node != broker => Err(ConfigError(format!(
            "node.id is {node}, but broker.id is {broker}"
        ))),
        (None, Some(broker)) if broker >= 0 => Ok(broker),
        (node, _) => Ok(node.unwrap_or_else(|| field(layers, "node.id"))),
    }
}

fn log_dirs(layers: &Layers<'_>) -> Result<Vec<String>, ConfigError> {
    let dirs: Option<Vec<String>> = field(layers, "log.dirs");
    let dirs = dirs.unwrap_or_else(|| field(layers, "log.dir"));
    match dirs.len() {
        1 => Ok(dirs),
        n => Err(ConfigError(format!(
            "log.dirs names {n} directories; one is supported so far"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(set: &[(&str, &str)]) -> String {
        match BrokerConfig::new(set.iter().copied()) {
            Ok(_) => "ok".to_owned(),
            Err(e) => e.to_string(),
        }
    }

    #[test]
    fn there_is_a_field_for_each_implemented_key() {
        for key in BROKER_KEYS {
            assert_eq!(FIELD_KEYS.contains(&key.name), key.implemented, "{}", key.name);
        }
    }

    #[test]
    fn defaults() {
        let config = BrokerConfig::default();
        assert_eq!(config.node_id, 1);
        assert_eq!(config.listeners, [ListenerConfig::plaintext("127.0.0.1", 9092)]);
        assert_eq!(config.log_dirs, ["./data"]);
        assert_eq!(config.log_flush_interval_messages, 1);
        assert_eq!(config.log_retention_ms, None);
        assert_eq!(config.queued_max_request_bytes, -1);
        assert_eq!(config.warnings, [] as [&str; 0]);
    }

    #[test]
    fn what_is_set_holds_and_what_is_not_done_is_told() {
        let config = BrokerConfig::new([
            ("num.partitions", " 6 "),
            ("broker.id", "7"),
            ("num.network.threads", "3"),
            ("unstable.api.versions.enable", "true"),
            ("listener.name.internal.ssl.key.password", "x"),
        ])
        .expect("valid");
        assert_eq!((config.num_partitions, config.node_id), (6, 7));
        assert_eq!(
            config.warnings,
            [
                "configuration key listener.name.internal.ssl.key.password is known but has no effect yet",
                "configuration key num.network.threads is known but has no effect yet",
                "configuration key unstable.api.versions.enable is known but has no effect yet",
            ]
        );
    }

    #[test]
    fn refusals_are_one_line_each() {
        assert_eq!(
            refusal(&[("log.retenton.ms", "1")]),
            "unknown configuration key \"log.retenton.ms\"; did you mean \"log.retention.ms\"?"
        );
        assert_eq!(refusal(&[("zzz", "1")]), "unknown configuration key \"zzz\"");
        assert_eq!(
            refusal(&[("num.partitions", "0")]),
            "Invalid value 0 for configuration num.partitions: Value must be at least 1"
        );
        assert_eq!(
            refusal(&[("log.dirs", "/a,/b")]),
            "log.dirs names 2 directories; one is supported so far"
        );
        assert_eq!(
            refusal(&[("node.id", "1"), ("broker.id", "2")]),
            "node.id is 1, but broker.id is 2"
        );
    }
}

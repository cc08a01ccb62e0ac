//! What a broker was started with, and what that makes of a topic.

pub mod properties;
mod topic;

use std::collections::BTreeMap;
use std::fmt;

use brokkr_metadata::config::resolve::Layers;
use brokkr_metadata::config::{BROKER_KEYS, ConfigError, Value, broker_key};

pub use topic::{TopicConfig, layers};

/// A socket to listen on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ListenerConfig {
    /// `PLAINTEXT`, or a name that `listener.security.protocol.map` maps to it.
    pub name: String,
    /// The host to bind.
    pub host: String,
    /// The port; 0 takes a free one.
    pub port: u16,
}

/// What can't be started with. The operator's fault; one line says what to change.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum StartupError {
    /// Nobody knows this key.
    UnknownKey {
        /// The key.
        key: String,
        /// A key that is called alike.
        nearest: Option<&'static str>,
    },
    /// A value that its key can't have.
    Value(ConfigError),
    /// A listener that can't be read.
    Listener(String),
}

impl fmt::Display for StartupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownKey {
                key,
                nearest: Some(nearest),
            } => {
                write!(f, "unknown configuration key {key}; did you mean {nearest}?")
            }
            Self::UnknownKey { key, nearest: None } => write!(f, "unknown configuration key {key}"),
            Self::Value(e) => e.fmt(f),
            Self::Listener(what) => f.write_str(what),
        }
    }
}

impl std::error::Error for StartupError {}

macro_rules! fields {
    ($($field:ident: $ty:ident = $key:literal,)*) => {
        /// A broker's configuration: a field for each key that is looked at while it runs. Topic defaults are in
        /// [`TopicConfig`].
        #[derive(Clone, Debug)]
        pub struct BrokerConfig {
            $(
                #[doc = concat!("`", $key, "`")]
                pub $field: $ty,
            )*
            /// `listeners`.
            pub listeners: Vec<ListenerConfig>,
            /// `advertised.listeners`; where none, `listeners`.
            pub advertised_listeners: Vec<ListenerConfig>,
            /// `node.id`, or `broker.id`.
            pub node_id: i32,
            /// `broker.rack`.
            pub broker_rack: Option<String>,
            /// `log.dir`, or the first of `log.dirs`.
            log_dir: String,
            /// What was set, by key.
            pub set: BTreeMap<String, String>,
        }

        impl BrokerConfig {
            fn read(set: BTreeMap<String, String>) -> Result<Self, StartupError> {
                let layers = Layers { file: Some(&set), ..Layers::default() };
                $(let $field = $ty::from_value(value(&layers, $key)?);)*
                let listeners = listeners(&layers, "listeners")?;
                let advertised = listeners_or(&layers, "advertised.listeners", &listeners)?;
                let node_id = node_id(&set, &layers)?;
                let broker_rack = text(&layers, "broker.rack");
                let log_dir = log_dir(&set, &layers);
                Ok(Self { $($field,)* listeners, advertised_listeners: advertised, node_id, broker_rack, log_dir, set })
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
    metadata_log_max_record_bytes_between_snapshots: i64 = "metadata.log.max.record.bytes.between.snapshots",
    num_io_threads: i32 = "num.io.threads",
    num_partitions: i32 = "num.partitions",
    producer_id_expiration_ms: i32 = "producer.id.expiration.ms",
    queued_max_request_bytes: i64 = "queued.max.request.bytes",
    socket_request_max_bytes: i32 = "socket.request.max.bytes",
}

trait FromValue {
    fn from_value(value: Value) -> Self;
}

impl FromValue for bool {
    fn from_value(value: Value) -> Self {
        value.as_bool().expect("the key is a boolean")
    }
}

impl FromValue for i64 {
    fn from_value(value: Value) -> Self {
        value.as_integer().expect("the key is a number")
    }
}

impl FromValue for i32 {
    fn from_value(value: Value) -> Self {
        value
            .as_integer()
            .and_then(|n| n.try_into().ok())
            .expect("the key is a number of 32 bits")
    }
}

/// The value of a key that has a default.
fn value(layers: &Layers<'_>, name: &'static str) -> Result<Value, StartupError> {
    let key = broker_key(name).unwrap_or_else(|| panic!("{name} is in the table"));
    if let Some(text) = layers.file.and_then(|f| f.get(name)) {
        return key.parse(text).map_err(StartupError::Value);
    }
    Ok(key
        .default_value()
        .unwrap_or_else(|| panic!("{name} has a default")))
}

fn text(layers: &Layers<'_>, name: &'static str) -> Option<String> {
    let key = broker_key(name).unwrap_or_else(|| panic!("{name} is in the table"));
    layers
        .broker_value(key)
        .value
        .and_then(|v| v.as_text().map(str::to_owned))
        .filter(|t| !t.is_empty())
}

fn list(layers: &Layers<'_>, name: &'static str) -> Vec<String> {
    let key = broker_key(name).unwrap_or_else(|| panic!("{name} is in the table"));
    layers
        .broker_value(key)
        .value
        .and_then(|v| v.as_list().map(<[String]>::to_vec))
        .unwrap_or_default()
}

fn listeners(layers: &Layers<'_>, name: &'static str) -> Result<Vec<ListenerConfig>, StartupError> {
    let parsed: Result<Vec<_>, _> = list(layers, name).iter().map(|l| listener(l)).collect();
    match parsed? {
        none if none.is_empty() => Err(StartupError::Listener(format!("{name} is empty"))),
        some => Ok(some),
    }
}

fn listeners_or(
    layers: &Layers<'_>,
    name: &'static str,
    or: &[ListenerConfig],
) -> Result<Vec<ListenerConfig>, StartupError> {
    if list(layers, name).is_empty() {
        Ok(or.to_vec())
    } else {
        listeners(layers, name)
    }
}

/// Reads `NAME://host:port`. A host in brackets is an IPv6 address; none is every address.
pub fn listener(text: &str) -> Result<ListenerConfig, StartupError> {
    let bad = |why: &str| StartupError::Listener(format!("listener {text}: {why}"));
    let (name, rest) = text
        .split_once("://")
        .ok_or_else(|| bad("not of the form NAME://host:port"))?;
    if !name.eq_ignore_ascii_case("PLAINTEXT") {
        return Err(bad("only PLAINTEXT is served yet"));
    }
    let (host, port) = host_port(rest).ok_or_else(|| bad("not of the form NAME://host:port"))?;
    let host = if host.is_empty() { "0.0.0.0" } else { host };
    Ok(ListenerConfig {
        name: name.to_ascii_uppercase(),
        host: host.to_owned(),
        port,
    })
}

/// Splits `host:port`.
pub fn host_port(text: &str) -> Option<(&str, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    let host = host
        .strip_prefix('[')
        .and_then(|h| h.strip_suffix(']'))
        .unwrap_or(host);
    Some((host, port.parse().ok()?))
}

fn node_id(set: &BTreeMap<String, String>, layers: &Layers<'_>) -> Result<i32, StartupError> {
    let name = if set.contains_key("node.id") || !set.contains_key("broker.id") {
        "node.id"
    } else {
        "broker.id"
    };
    let id = i32::from_value(value(layers, name)?);
    if id < 0 {
        return Err(StartupError::Value(ConfigError(format!(
            "{name} is {id}; it must be at least 0"
        ))));
    }
    Ok(id)
}

fn log_dir(set: &BTreeMap<String, String>, layers: &Layers<'_>) -> String {
    let name = if set.contains_key("log.dirs") {
        "log.dirs"
    } else {
        "log.dir"
    };
    list(layers, name)
        .into_iter()
        .next()
        .unwrap_or_else(|| panic!("{name} is not empty"))
}

impl BrokerConfig {
    /// The configuration that `set` makes, and warnings: of keys that Kafka has and this broker doesn't do.
    pub fn new(set: BTreeMap<String, String>) -> Result<(Self, Vec<String>), StartupError> {
        let mut warnings = Vec::new();
        for (name, text) in &set {
            let key = broker_key(name).ok_or_else(|| StartupError::UnknownKey {
                key: name.clone(),
                nearest: nearest(name),
            })?;
            key.parse(text).map_err(StartupError::Value)?;
            if !key.implemented {
                warnings.push(format!("{name} has no effect: it is not implemented yet"));
            }
        }
        if ["log.dirs", "log.dir"]
            .iter()
            .any(|key| set.get(*key).is_some_and(|dirs| dirs.contains(',')))
        {
            let why = "Invalid value for configuration log.dirs: only one log directory is served yet";
            return Err(StartupError::Value(ConfigError(why.to_owned())));
        }
        Ok((Self::read(set)?, warnings))
    }

    /// The log directory.
    pub fn log_dir(&self) -> &str {
        &self.log_dir
    }
}

/// The key that is called most alike, if any is.
fn nearest(name: &str) -> Option<&'static str> {
    const ALIKE: f64 = 0.75;
    let score = |k: &'static str| (strsim::normalized_damerau_levenshtein(name, k), k);
    let best = BROKER_KEYS
        .iter()
        .map(|k| score(k.name))
        .max_by(|a, b| a.0.total_cmp(&b.0))?;
    (best.0 >= ALIKE).then_some(best.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect()
    }

    #[test]
    fn defaults_are_kafkas_but_for_loopback() {
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
    fn a_key_nobody_knows_is_told_with_the_nearest_one() {
        let error = BrokerConfig::new(set(&[("log.retention.hour", "1")])).expect_err("nobody knows it");
        assert_eq!(
            error.to_string(),
            "unknown configuration key log.retention.hour; did you mean log.retention.hours?"
        );
        let error = BrokerConfig::new(set(&[("zzz", "1")])).expect_err("nobody knows it");
        assert_eq!(error.to_string(), "unknown configuration key zzz");
        assert!(BrokerConfig::new(set(&[("num.partitions", "many")])).is_err());
        assert!(BrokerConfig::new(set(&[("listeners", "SSL://:1")])).is_err());
    }

    #[test]
    fn what_is_not_done_is_warned_of() {
        let (_, warnings) = BrokerConfig::new(set(&[("background.threads", "3")])).expect("Kafka knows it");
        assert_eq!(
            warnings,
            ["background.threads has no effect: it is not implemented yet"]
        );
    }
}

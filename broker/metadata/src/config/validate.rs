//! Validation of a resource's whole configuration.

use std::collections::BTreeMap;

use super::group_keys::{INTERVAL_MS, MATCHED};
use super::resolve::Layers;
use super::{
    ConfigError, Key, Scale, TOPIC_KEYS, Update, Value, broker_key, client_metrics_key, group_key, topic_key,
};

/// Validates a topic's complete configuration, over the values it inherits from `layers`.
pub fn validate_topic_values<'a>(
    values: impl IntoIterator<Item = (&'a str, &'a str)>,
    layers: &Layers<'_>,
) -> Result<(), ConfigError> {
    let mut parsed = BTreeMap::new();
    for (name, text) in values {
        let key = topic_key(name).ok_or_else(|| ConfigError(format!("Unknown topic config name: {name}")))?;
        parsed.insert(key.name, key.parse(text)?);
    }
    let long = |name: &str| match parsed.get(name) {
        Some(value) => value.as_integer().unwrap_or_default(),
        None => topic_key(name).map_or(0, |key| layers.topic_integer(key)),
    };
    let (min, max) = (long("min.compaction.lag.ms"), long("max.compaction.lag.ms"));
    if min > max {
        return Err(ConfigError(format!(
            "conflict topic config setting min.compaction.lag.ms ({min}) > max.compaction.lag.ms ({max})"
        )));
    }
    if parsed.get("remote.storage.enable") == Some(&Value::Boolean(true)) {
        return Err(ConfigError(
            "Tiered Storage functionality is disabled in the broker. Topic cannot be configured with remote log storage."
                .to_owned(),
        ));
    }
    Ok(())
}

/// Kafka's reconfigurable TLS keys. Kafka updates them dynamically only with a listener's prefix.
const PER_LISTENER: [&str; 10] = [
    "ssl.key.password",
    "ssl.keystore.certificate.chain",
    "ssl.keystore.key",
    "ssl.keystore.location",
    "ssl.keystore.password",
    "ssl.keystore.type",
    "ssl.truststore.certificates",
    "ssl.truststore.location",
    "ssl.truststore.password",
    "ssl.truststore.type",
];

/// A name in a broker's dynamic configuration, with its key if it has one.
struct BrokerValue<'a> {
    name: &'a str,
    text: &'a str,
    key: Option<&'static Key>,
    /// Whether the name is the key's name with a listener prefix.
    prefixed: bool,
}

impl<'a> BrokerValue<'a> {
    fn new((name, text): (&'a str, &'a str)) -> Self {
        let of_listener = name
            .strip_prefix("listener.name.")
            .and_then(|rest| rest.split_once('.'));
        let key = match of_listener {
            // A SASL mechanism may precede the key.
            Some((_, base)) => {
                broker_key(base).or_else(|| base.split_once('.').and_then(|(_, base)| broker_key(base)))
            }
            None => broker_key(name),
        };
        let prefixed = of_listener.is_some();
        Self {
            name,
            text,
            key,
            prefixed,
        }
    }

    fn updates(&self, update: Update) -> bool {
        self.key.is_some_and(|key| key.update == update)
    }
}

/// Validates a broker's complete dynamic configuration (the cluster-wide one if `per_broker` is false), in Kafka's order.
/// Names unknown to Kafka are accepted: they may belong to a plugin.
pub fn validate_broker_values<'a>(
    values: impl IntoIterator<Item = (&'a str, &'a str)>,
    per_broker: bool,
) -> Result<(), ConfigError> {
    let values: Vec<_> = values.into_iter().map(BrokerValue::new).collect();
    refuse_names(&values, "Cannot update these configs dynamically", |v| {
        !v.prefixed && v.updates(Update::ReadOnly)
    })?;
    let what =
        "These security configs can be dynamically updated only per-listener using the listener prefix";
    refuse_names(&values, what, |v| PER_LISTENER.contains(&v.name))?;
    for value in values.iter().filter(|v| !v.prefixed) {
        value.key.map_or(Ok(()), |key| key.parse(value.text).map(drop))?;
    }
    if !per_broker {
        let what = "Cannot update these configs at default cluster level, broker id must be specified";
        refuse_names(&values, what, |v| v.updates(Update::PerBroker))?;
    }
    Ok(())
}

/// Refuses keys that Kafka updates dynamically but this broker applies only at a start, or not at all.
pub fn validate_applied<'a>(
    changed: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> Result<(), ConfigError> {
    let values: Vec<_> = changed.into_iter().map(BrokerValue::new).collect();
    refuse_names(
        &values,
        "This broker does not apply these configs while it runs yet",
        |v| !is_applied(v.name),
    )
}

/// Whether a dynamic value under this name has an effect wherever it would in Kafka. Of the broker's values, those that are
/// topic defaults do.
pub fn is_applied(name: &str) -> bool {
    let value = BrokerValue::new((name, ""));
    value.key.is_none()
        || value.prefixed && value.updates(Update::ReadOnly)
        || TOPIC_KEYS
            .iter()
            .any(|topic| topic.implemented && topic.synonyms.iter().any(|(synonym, _)| *synonym == name))
}

/// Validates a group's complete configuration, within the bounds set by the broker's keys in `layers`.
pub fn validate_group_values<'a>(
    values: impl IntoIterator<Item = (&'a str, &'a str)>,
    layers: &Layers<'_>,
) -> Result<(), ConfigError> {
    let mut parsed = BTreeMap::new();
    for (name, text) in values {
        let key = group_key(name).ok_or_else(|| ConfigError(format!("Unknown group config name: {name}")))?;
        parsed.insert(key.name, key.parse(text)?);
    }
    for (name, value) in &parsed {
        let (Some((kind, what)), Some(value)) = (name.split_once('.'), value.as_integer()) else {
            continue;
        };
        for (bound, is_past, words) in [
            ("min", i64::lt as fn(&i64, &i64) -> bool, "greater"),
            ("max", i64::gt, "less"),
        ] {
            let bound = format!("group.{kind}.{bound}.{what}");
            if broker_integer(layers, &bound).is_some_and(|bound| is_past(&value, &bound)) {
                return Err(ConfigError(format!(
                    "{name} must be {words} than or equal to {bound}"
                )));
            }
        }
    }
    for kind in ["consumer", "share", "streams"] {
        let (session, heartbeat) = (
            format!("{kind}.session.timeout.ms"),
            format!("{kind}.heartbeat.interval.ms"),
        );
        let long = |name: &str| match parsed.get(name) {
            Some(value) => value.as_integer(),
            None => broker_integer(layers, &format!("group.{name}")),
        };
        if long(&session) <= long(&heartbeat) {
            return Err(ConfigError(format!("{session} must be greater than {heartbeat}")));
        }
    }
    Ok(())
}

fn broker_integer(layers: &Layers<'_>, name: &str) -> Option<i64> {
    layers.broker_value(broker_key(name)?).value?.as_integer()
}

/// An invalid client metrics subscription. Kafka has two codes for it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ClientMetricsError {
    /// INVALID_REQUEST: an unknown key, or a number out of range.
    Request(String),
    /// INVALID_CONFIG.
    Config(ConfigError),
}

impl From<ConfigError> for ClientMetricsError {
    fn from(e: ConfigError) -> Self {
        Self::Config(e)
    }
}

/// Validates a client metrics subscription's complete configuration. Does not check whether a pattern is a valid Java
/// regular expression: no code uses it yet.
pub fn validate_client_metrics<'a>(
    values: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> Result<(), ClientMetricsError> {
    for (name, text) in values {
        let unknown = || ClientMetricsError::Request(format!("Unknown client metrics configuration: {name}"));
        let key = client_metrics_key(name).ok_or_else(unknown)?;
        match key.parse(text)? {
            Value::Integer(n) if !INTERVAL_MS.contains(&n) => {
                let (min, max) = (INTERVAL_MS.start(), INTERVAL_MS.end());
                return Err(ClientMetricsError::Request(format!(
                    "Invalid value {n} for {name}, interval must be between {min} and {max} (1 hour)"
                )));
            }
            Value::List(patterns) if key.name == "match" => {
                let is_pattern = |p: &&String| {
                    p.split_once('=').is_some_and(|(of, pattern)| {
                        MATCHED.contains(&of.trim()) && !pattern.trim().is_empty()
                    })
                };
                if let Some(bad) = patterns.iter().find(|p| !is_pattern(p)) {
                    return Err(ConfigError(format!("Illegal client matching pattern: {bad}")).into());
                }
            }
            _ => {}
        }
    }
    Ok(())
}

fn refuse_names(
    values: &[BrokerValue<'_>],
    what: &str,
    refused: impl Fn(&BrokerValue<'_>) -> bool,
) -> Result<(), ConfigError> {
    let names: Vec<&str> = values.iter().filter(|v| refused(v)).map(|v| v.name).collect();
    if names.is_empty() {
        return Ok(());
    }
    Err(ConfigError(format!("{what}: [{}]", names.join(", "))))
}

impl Scale {
    /// Converts a broker key's value to the topic key's.
    pub(super) fn apply(self, value: Value) -> Value {
        match value {
            Value::Integer(n) if self != Self::ONE => Value::Integer(n.saturating_mul(self.0)),
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_can_not_change_at_runtime_are_refused() {
        let refusal = |name, value, per_broker| {
            validate_broker_values([(name, value)], per_broker).map_err(|e| e.to_string())
        };
        assert_eq!(
            refusal("node.id", "2", true),
            Err("Cannot update these configs dynamically: [node.id]".to_owned())
        );
        assert_eq!(
            refusal("listeners", "PLAINTEXT://:1", false),
            Err(
                "Cannot update these configs at default cluster level, broker id must be specified: [listeners]"
                    .to_owned()
            )
        );
        assert_eq!(refusal("listeners", "PLAINTEXT://:1", true), Ok(()));
        let tls =
            "These security configs can be dynamically updated only per-listener using the listener prefix";
        for name in PER_LISTENER {
            for per_broker in [true, false] {
                assert_eq!(refusal(name, "x", per_broker), Err(format!("{tls}: [{name}]")));
            }
            let prefixed = format!("listener.name.external.{name}");
            let judge = |per_broker| validate_broker_values([(prefixed.as_str(), "x")], per_broker);
            assert!(judge(true).is_ok() && judge(false).is_err());
        }
        assert_eq!(refusal("log.retention.ms", "60000", false), Ok(()));
        assert!(refusal("log.retention.ms", "soon", false).is_err());
        assert_eq!(refusal("my.plugin.setting", "1", false), Ok(()));
    }

    #[test]
    fn keys_without_effect_at_runtime_are_refused() {
        let refused = |name| validate_applied([(name, "1")]).is_err();
        for name in [
            "listeners",
            "background.threads",
            "max.connections",
            "num.io.threads",
            "leader.replication.throttled.rate",
            "listener.name.plaintext.max.connections",
            "listener.name.external.ssl.keystore.location",
            "listener.name.external.plain.sasl.jaas.config",
        ] {
            assert!(refused(name), "{name}");
        }
        for name in ["log.retention.ms", "compression.type", "my.plugin.setting"] {
            assert!(!refused(name), "{name}");
        }
        assert_eq!(
            validate_applied([("listeners", "x"), ("max.connections", "1")]).map_err(|e| e.0),
            Err(
                "This broker does not apply these configs while it runs yet: [listeners, max.connections]"
                    .to_owned()
            )
        );
    }

    #[test]
    fn a_topics_values_must_fit_each_other() {
        let none = Layers::default();
        let judge = |values: &[(&str, &str)]| {
            validate_topic_values(values.iter().copied(), &none).map_err(|e| e.to_string())
        };
        assert_eq!(judge(&[("retention.ms", "1000")]), Ok(()));
        assert_eq!(
            judge(&[("retention", "1000")]),
            Err("Unknown topic config name: retention".to_owned())
        );
        assert_eq!(
            judge(&[("min.compaction.lag.ms", "10"), ("max.compaction.lag.ms", "9")]),
            Err(
                "conflict topic config setting min.compaction.lag.ms (10) > max.compaction.lag.ms (9)"
                    .to_owned()
            )
        );
        assert!(judge(&[("remote.storage.enable", "true")]).is_err());
    }

    #[test]
    fn a_groups_values_lie_within_the_brokers_bounds() {
        let file = BTreeMap::from([(
            "group.consumer.max.session.timeout.ms".to_owned(),
            "50000".to_owned(),
        )]);
        let layers = Layers {
            file: Some(&file),
            ..Layers::default()
        };
        let judge = |name, value| validate_group_values([(name, value)], &layers).map_err(|e| e.to_string());
        assert_eq!(judge("consumer.session.timeout.ms", "50000"), Ok(()));
        let past =
            "consumer.session.timeout.ms must be less than or equal to group.consumer.max.session.timeout.ms";
        assert_eq!(
            judge("consumer.session.timeout.ms", "50001"),
            Err(past.to_owned())
        );
        let below = "streams.heartbeat.interval.ms must be greater than or equal to \
                     group.streams.min.heartbeat.interval.ms";
        assert_eq!(
            judge("streams.heartbeat.interval.ms", "4999"),
            Err(below.to_owned())
        );
        assert_eq!(
            judge("retention.ms", "1"),
            Err("Unknown group config name: retention.ms".to_owned())
        );
        assert!(judge("share.delivery.count.limit", "1").is_err());
        assert_eq!(judge("share.auto.offset.reset", "by_duration:P1D"), Ok(()));
        assert!(judge("share.auto.offset.reset", "by_duration:1D").is_err());
        let file = BTreeMap::from([("group.share.min.session.timeout.ms".to_owned(), "1".to_owned())]);
        let layers = Layers {
            file: Some(&file),
            ..Layers::default()
        };
        let short = validate_group_values([("share.session.timeout.ms", "5000")], &layers);
        let why = "share.session.timeout.ms must be greater than share.heartbeat.interval.ms";
        assert_eq!(short, Err(ConfigError(why.to_owned())));
    }

    #[test]
    fn a_subscription_names_what_it_matches() {
        let judge = |name, value| validate_client_metrics([(name, value)]);
        for (name, good) in [
            ("interval.ms", "100"),
            ("interval.ms", "3600000"),
            ("metrics", "a,b"),
            ("metrics", ""),
            ("match", "client_id=x.*,client_source_port=1"),
        ] {
            assert_eq!(judge(name, good), Ok(()), "{name}={good}");
        }
        let request = |why: &str| Err(ClientMetricsError::Request(why.to_owned()));
        let config = |why: &str| Err(ClientMetricsError::Config(ConfigError(why.to_owned())));
        for n in ["99", "3600001"] {
            let why = format!(
                "Invalid value {n} for interval.ms, interval must be between 100 and 3600000 (1 hour)"
            );
            assert_eq!(judge("interval.ms", n), request(&why));
        }
        assert_eq!(
            judge("interval", "1"),
            request("Unknown client metrics configuration: interval")
        );
        for pattern in ["client_id", "client_id=", "=x", "client_idx=a"] {
            let why = format!("Illegal client matching pattern: {pattern}");
            assert_eq!(judge("match", pattern), config(&why));
        }
    }
}

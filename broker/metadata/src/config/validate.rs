//! Whether a resource's values can stand together.

use std::collections::BTreeMap;

use super::resolve::Layers;
use super::{ConfigError, Key, Scale, Update, Value, broker_key, topic_key};

/// Judges all that a topic would have configured, over what it inherits from `layers`.
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

/// Judges all that a broker (or with `per_broker` false, the cluster) would have configured dynamically.
pub fn validate_broker_values<'a>(
    values: impl IntoIterator<Item = (&'a str, &'a str)>,
    per_broker: bool,
) -> Result<(), ConfigError> {
    let known: Vec<(&'static Key, &str)> = values
        .into_iter()
        // Kafka lets names through that it doesn't know: a plugin's, perhaps.
        .filter_map(|(name, text)| Some((broker_key(name)?, text)))
        .collect();
    refuse_updates(&known, "Cannot update these configs dynamically", |update| {
        update == Update::ReadOnly
    })?;
    for (key, text) in &known {
        key.parse(text)?;
    }
    if !per_broker {
        let what = "Cannot update these configs at default cluster level, broker id must be specified";
        refuse_updates(&known, what, |update| update == Update::PerBroker)?;
    }
    Ok(())
}

fn refuse_updates(
    known: &[(&'static Key, &str)],
    what: &str,
    refused: impl Fn(Update) -> bool,
) -> Result<(), ConfigError> {
    let names: Vec<&str> = known
        .iter()
        .filter(|(key, _)| refused(key.update))
        .map(|(key, _)| key.name)
        .collect();
    if names.is_empty() {
        return Ok(());
    }
    Err(ConfigError(format!("{what}: [{}]", names.join(", "))))
}

impl Scale {
    /// The topic key's value of the broker key's.
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
    fn what_cannot_be_changed_while_running_is_refused() {
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
        assert_eq!(refusal("log.retention.ms", "60000", false), Ok(()));
        assert!(refusal("log.retention.ms", "soon", false).is_err());
        assert_eq!(refusal("my.plugin.setting", "1", false), Ok(()));
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
}

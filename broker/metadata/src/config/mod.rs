//! Configuration: Kafka's keys, their types, defaults and validators, and the effective values of a resource.
//!
//! [`BROKER_KEYS`], [`TOPIC_KEYS`], [`GROUP_KEYS`] and [`CLIENT_METRICS_KEYS`] are the tables. [`Key::parse`] validates a
//! value as Kafka does, with Kafka's messages (tools print them). [`resolve`] finds the effective value (topic, broker,
//! cluster, file, default) and its source.

mod broker_keys;
mod documentation;
mod duration;
mod group_keys;
mod key;
pub mod resolve;
mod topic_keys;
mod validate;
mod value;

pub use broker_keys::BROKER_KEYS;
pub use group_keys::{CLIENT_METRICS_KEYS, GROUP_KEYS};
pub use key::{Importance, Key, Scale, Type, Update, Valid};
pub use topic_keys::TOPIC_KEYS;
pub use validate::{
    ClientMetricsError, is_applied, validate_applied, validate_broker_values, validate_client_metrics,
    validate_group_values, validate_topic_values,
};
pub use value::{ConfigError, Value};

/// The broker key of this name.
pub fn broker_key(name: &str) -> Option<&'static Key> {
    find(BROKER_KEYS, name)
}

/// The topic key of this name.
pub fn topic_key(name: &str) -> Option<&'static Key> {
    find(TOPIC_KEYS, name)
}

/// The group key of this name.
pub fn group_key(name: &str) -> Option<&'static Key> {
    find(GROUP_KEYS, name)
}

/// The key of client metrics subscriptions of this name.
pub fn client_metrics_key(name: &str) -> Option<&'static Key> {
    find(CLIENT_METRICS_KEYS, name)
}

fn find(keys: &'static [Key], name: &str) -> Option<&'static Key> {
    let i = keys.binary_search_by(|key| key.name.cmp(name)).ok()?;
    keys.get(i)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_are_sorted_and_their_defaults_valid() {
        for keys in [BROKER_KEYS, TOPIC_KEYS, GROUP_KEYS, CLIENT_METRICS_KEYS] {
            assert!(keys.windows(2).all(|w| w[0].name < w[1].name));
            for key in keys {
                if let Some(text) = key.default {
                    let value = key.parse(text).expect(key.name);
                    assert_eq!(value.to_string(), text, "{}", key.name);
                }
                for (synonym, _) in key.synonyms {
                    let broker = broker_key(synonym).expect(synonym);
                    let dynamic = broker.update == Update::ClusterWide || key.synonyms[0].0 != *synonym;
                    assert!(dynamic || group_key(key.name).is_some(), "{}", key.name);
                }
            }
        }
        for key in GROUP_KEYS {
            let of_broker = key.synonyms.first().and_then(|(name, _)| broker_key(name));
            assert!(of_broker.is_none_or(|broker| (broker.default, broker.ty) == (key.default, key.ty)));
        }
    }

    #[test]
    fn every_key_has_a_sentence_and_every_sentence_a_key() {
        let table = documentation::DOCUMENTATION;
        assert!(
            table.windows(2).all(|w| w[0].0 < w[1].0),
            "sorted, each name once"
        );
        let tables = [BROKER_KEYS, TOPIC_KEYS, GROUP_KEYS, CLIENT_METRICS_KEYS];
        let keys: Vec<&Key> = tables.into_iter().flatten().collect();
        for key in &keys {
            let told = key.documentation();
            assert!(
                told.ends_with('.') && told.len() > key.name.len() / 2,
                "{}: {told}",
                key.name
            );
            assert_eq!(
                told.ends_with("does not go by it yet."),
                !key.implemented,
                "{}",
                key.name
            );
        }
        for (name, _) in table {
            assert!(keys.iter().any(|key| key.name == *name), "{name} is no key");
        }
        assert!(!documentation::documentation("node.id").is_empty());
    }

    fn refusal(key: &str, value: &str) -> String {
        let key = topic_key(key).or_else(|| broker_key(key)).expect(key);
        match key.parse(value) {
            Ok(value) => format!("ok {value}"),
            Err(e) => e.to_string(),
        }
    }

    #[test]
    fn values_are_refused_in_kafkas_words() {
        let table = [
            (
                "retention.ms",
                "-2",
                "Invalid value -2 for configuration retention.ms: Value must be at least -1",
            ),
            ("retention.ms", " 7 ", "ok 7"),
            (
                "retention.ms",
                "x",
                "Invalid value x for configuration retention.ms: Not a number of type LONG",
            ),
            (
                "segment.bytes",
                "3000000000",
                "Invalid value 3000000000 for configuration segment.bytes: Not a number of type INT",
            ),
            ("cleanup.policy", "delete, compact,delete", "ok delete,compact"),
            ("cleanup.policy", "", "ok "),
            (
                "cleanup.policy",
                "delete,",
                "Configuration 'cleanup.policy' values must not be empty.",
            ),
            (
                "cleanup.policy",
                "shred",
                "Invalid value shred for configuration cleanup.policy: String must be one of: compact, delete",
            ),
            (
                "compression.type",
                "Zstd",
                "Invalid value Zstd for configuration compression.type: String must be one of: uncompressed, zstd, lz4, snappy, gzip, producer",
            ),
            (
                "compression.gzip.level",
                "0",
                "Invalid value 0 for configuration compression.gzip.level: Value must be between 1 and 9 or equal to -1",
            ),
            ("preallocate", "TRUE", "ok true"),
            (
                "preallocate",
                "yes",
                "Invalid value yes for configuration preallocate: Expected value to be either true or false",
            ),
            (
                "min.cleanable.dirty.ratio",
                "1.5",
                "Invalid value 1.5 for configuration min.cleanable.dirty.ratio: Value must be no more than 1",
            ),
            (
                "listeners",
                "",
                "Configuration 'listeners' must not be empty. Valid values include: any non-empty value",
            ),
            ("leader.replication.throttled.replicas", "0:1,2:3", "ok 0:1,2:3"),
            (
                "leader.replication.throttled.replicas",
                "0-1",
                "Invalid value [0-1] for configuration leader.replication.throttled.replicas: leader.replication.throttled.replicas must be the literal '*' or a list of replicas in the following format: [partitionId]:[brokerId],[partitionId]:[brokerId],...",
            ),
        ];
        for (key, value, expected) in table {
            assert_eq!(refusal(key, value), expected, "{key}={value}");
        }
    }
}

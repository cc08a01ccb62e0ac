//! Logs configurations that have no effect in this broker, each kind once: Kafka's clients get no error for them.

use brokkr_env::ErrorLog;
use brokkr_metadata::config::{TOPIC_KEYS, topic_key};
use brokkr_metadata::image::resource_type::TOPIC;

/// Logs the key if it has no effect on a resource of this type.
pub fn log_if_ineffective(error_log: &ErrorLog, resource_type: i8, key: &str, value: Option<&str>) {
    let Some(value) = value else { return };
    let compacts =
        key.ends_with("cleanup.policy") && value.split(',').any(|policy| policy.trim() == "compact");
    if compacts {
        error_log.record(
            "compaction",
            &"cleanup.policy=compact: keys are enforced, but nothing is compacted yet",
        );
    }
    if !takes_effect(resource_type, key) {
        error_log.record("configuration without effect", &format_args!("{key}={value}"));
    }
}

/// Whether the key has an effect when it is set on a running broker.
fn takes_effect(resource_type: i8, key: &str) -> bool {
    if resource_type == TOPIC {
        return topic_key(key).is_some_and(|key| key.implemented);
    }
    let gives_default =
        |topic: &&brokkr_metadata::config::Key| topic.synonyms.iter().any(|(name, _)| *name == key);
    TOPIC_KEYS
        .iter()
        .find(gives_default)
        .is_some_and(|topic| topic.implemented)
}

#[cfg(test)]
mod tests {
    use brokkr_metadata::image::resource_type::BROKER;

    use super::*;

    #[test]
    fn ineffective_configs_are_logged_once() {
        let error_log = ErrorLog::new(brokkr_env::tokio::TokioEnv::new(1));
        log_if_ineffective(&error_log, TOPIC, "retention.ms", Some("5"));
        log_if_ineffective(&error_log, BROKER, "log.retention.ms", Some("5"));
        log_if_ineffective(&error_log, BROKER, "max.connections", None);
        assert!(error_log.counts().is_empty());
        log_if_ineffective(&error_log, TOPIC, "preallocate", Some("true"));
        log_if_ineffective(&error_log, BROKER, "max.connections", Some("5"));
        log_if_ineffective(&error_log, TOPIC, "cleanup.policy", Some("delete, compact"));
        let logged: Vec<_> = error_log.counts().into_iter().collect();
        assert_eq!(logged, [("compaction", 1), ("configuration without effect", 2)]);
    }
}

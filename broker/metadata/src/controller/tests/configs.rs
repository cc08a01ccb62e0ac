//! Tests of configuration changes, incremental and complete.

use super::*;

const TOPIC: i8 = 2;
const BROKER: i8 = 4;

impl Cluster {
    pub(super) fn alter(&mut self, kind: i8, name: &str, ops: &[(i8, &str, Option<&str>)]) -> String {
        let configs = ops
            .iter()
            .map(|(config_operation, key, value)| incremental::AlterableConfig {
                name: Str::copied(key),
                config_operation: *config_operation,
                value: value.map(Str::copied),
                ..incremental::AlterableConfig::default()
            });
        let resource = incremental::AlterConfigsResource {
            resource_type: kind,
            resource_name: Str::copied(name),
            configs: configs.collect(),
            ..incremental::AlterConfigsResource::default()
        };
        let request = IncrementalAlterConfigsRequest {
            resources: vec![resource],
            ..IncrementalAlterConfigsRequest::default()
        };
        match self.ask(Request::IncrementalAlterConfigs(request)).1 {
            Reply::IncrementalAlterConfigs(r) => {
                shown(r.responses[0].error_code, &r.responses[0].error_message)
            }
            other => panic!("{other:?}"),
        }
    }

    fn replace(&mut self, kind: i8, name: &str, pairs: &[(&str, Option<&str>)]) -> String {
        let configs = pairs.iter().map(|(key, value)| legacy::AlterableConfig {
            name: Str::copied(key),
            value: value.map(Str::copied),
            ..legacy::AlterableConfig::default()
        });
        let resource = legacy::AlterConfigsResource {
            resource_type: kind,
            resource_name: Str::copied(name),
            configs: configs.collect(),
            ..legacy::AlterConfigsResource::default()
        };
        let request = AlterConfigsRequest {
            resources: vec![resource],
            ..AlterConfigsRequest::default()
        };
        match self.ask(Request::AlterConfigs(request)).1 {
            Reply::AlterConfigs(r) => shown(r.responses[0].error_code, &r.responses[0].error_message),
            other => panic!("{other:?}"),
        }
    }

    fn configured(&self, kind: i8, name: &str) -> String {
        let resource = ConfigResource {
            kind,
            name: Str::copied(name),
        };
        let Some(configs) = self.controller.image().configs(&resource) else {
            return String::new();
        };
        let pairs: Vec<String> = configs.iter().map(|(k, v)| format!("{k}={v}")).collect();
        pairs.join(" ")
    }
}

#[test]
fn keys_are_set_deleted_appended_and_subtracted() {
    let mut c = Cluster::of_one();
    c.create(topic("a", 1, 1));
    let (set, delete, append, subtract) = (0, 1, 2, 3);
    assert_eq!(
        c.alter(
            TOPIC,
            "a",
            &[
                (set, "retention.ms", Some("5")),
                (append, "cleanup.policy", Some("compact,delete"))
            ]
        ),
        "NONE"
    );
    assert_eq!(
        c.configured(TOPIC, "a"),
        "cleanup.policy=delete,compact retention.ms=5"
    );
    assert_eq!(
        c.alter(
            TOPIC,
            "a",
            &[
                (delete, "retention.ms", None),
                (subtract, "cleanup.policy", Some("delete"))
            ]
        ),
        "NONE"
    );
    assert_eq!(c.configured(TOPIC, "a"), "cleanup.policy=compact");
    let offset = c.next_offset;
    assert_eq!(
        c.alter(
            TOPIC,
            "a",
            &[
                (set, "cleanup.policy", Some("compact")),
                (delete, "retention.ms", None)
            ]
        ),
        "NONE"
    );
    assert_eq!(c.next_offset, offset, "what stays as it is isn't written");
    assert_eq!(
        c.alter(TOPIC, "a", &[(append, "retention.ms", Some("1"))]),
        "INVALID_CONFIG: Can't APPEND to key retention.ms because its type is not LIST."
    );
    assert_eq!(
        c.alter(
            TOPIC,
            "a",
            &[(set, "retention.ms", Some("x")), (set, "flush.ms", Some("5"))]
        ),
        "INVALID_CONFIG: Invalid value x for configuration retention.ms: Not a number of type LONG"
    );
    assert_eq!(
        c.alter(
            TOPIC,
            "a",
            &[
                (set, "min.compaction.lag.ms", Some("9")),
                (set, "max.compaction.lag.ms", Some("8"))
            ]
        ),
        "INVALID_CONFIG: conflict topic config setting min.compaction.lag.ms (9) > max.compaction.lag.ms (8)"
    );
    assert_eq!(
        c.alter(
            TOPIC,
            "a",
            &[(set, "flush.ms", Some("1")), (delete, "flush.ms", None)]
        ),
        "INVALID_REQUEST: Error due to duplicate config keys"
    );
    assert_eq!(
        c.alter(TOPIC, "a", &[(set, "flush.ms", None)]),
        "INVALID_REQUEST: Null value not supported for : flush.ms"
    );
    assert_eq!(
        c.alter(TOPIC, "a", &[(7, "flush.ms", Some("1"))]),
        "INVALID_REQUEST: Unknown operations type 7"
    );
    assert_eq!(
        c.alter(TOPIC, "b", &[(set, "flush.ms", Some("1"))]),
        "UNKNOWN_TOPIC_OR_PARTITION: The topic 'b' does not exist."
    );
    assert_eq!(
        c.alter(TOPIC, "", &[]),
        "INVALID_REQUEST: Default topic resources are not allowed."
    );
    assert_eq!(c.alter(77, "a", &[]), "INVALID_REQUEST: Unknown resource type 77");
    let long = "x".repeat(32_768);
    assert_eq!(
        c.alter(TOPIC, "a", &[(set, "cleanup.policy", Some(&long))]),
        "INVALID_CONFIG: The configuration value cannot be added because it exceeds the maximum value size of 32767 bytes."
    );
    assert_eq!(c.configured(TOPIC, "a"), "cleanup.policy=compact");
}

#[test]
fn brokers_are_configured_one_by_one_or_all() {
    let mut c = Cluster::of_one();
    let set = 0;
    assert_eq!(
        c.alter(BROKER, "", &[(set, "log.retention.ms", Some("60000"))]),
        "NONE"
    );
    assert_eq!(
        c.alter(BROKER, "1", &[(set, "log.retention.ms", Some("50000"))]),
        "NONE"
    );
    assert_eq!(
        (c.configured(BROKER, ""), c.configured(BROKER, "1")),
        (
            "log.retention.ms=60000 min.insync.replicas=1".into(),
            "log.retention.ms=50000".into()
        )
    );
    let offset = c.next_offset;
    assert_eq!(
        c.alter(BROKER, "1", &[(set, "log.retention.ms", Some("50000"))]),
        "NONE"
    );
    assert_eq!(
        c.next_offset,
        offset + 1,
        "written again: a broker looks again at what stands behind it"
    );
    assert_eq!(
        c.alter(BROKER, "1", &[(set, "node.id", Some("3"))]),
        "INVALID_REQUEST: Cannot update these configs dynamically: [node.id]"
    );
    assert_eq!(
        c.alter(BROKER, "2", &[(set, "log.retention.ms", Some("1"))]),
        "INVALID_REQUEST: Unexpected broker id, expected 1, but received 2"
    );
    assert_eq!(
        c.alter(BROKER, "x", &[]),
        "INVALID_REQUEST: Node id must be an integer, but it is: x"
    );
    assert_eq!(
        c.alter(BROKER, "", &[(set, "log.retention.ms", Some("soon"))]),
        "INVALID_REQUEST: Invalid value soon for configuration log.retention.ms: Not a number of type LONG"
    );
    // A new topic inherits these values.
    let key = crate::config::topic_key("retention.ms").expect("known");
    let resolved = c.controller.layers().topic_value(key, None);
    assert_eq!(resolved.value.and_then(|v| v.as_integer()), Some(50_000));
}

#[test]
fn all_of_a_resources_values_are_replaced() {
    let mut c = Cluster::of_one();
    c.create(topic("a", 1, 1));
    assert_eq!(
        c.replace(
            TOPIC,
            "a",
            &[("retention.ms", Some("5")), ("flush.ms", Some("6"))]
        ),
        "NONE"
    );
    assert_eq!(c.replace(TOPIC, "a", &[("flush.ms", Some("7"))]), "NONE");
    assert_eq!(c.configured(TOPIC, "a"), "flush.ms=7");
    assert_eq!(
        c.replace(TOPIC, "a", &[("flush.ms", None)]),
        "INVALID_REQUEST: Null value not supported for : flush.ms"
    );
    assert_eq!(
        c.replace(TOPIC, "a", &[("nonsense", Some("1"))]),
        "INVALID_CONFIG: Unknown topic config name: nonsense"
    );
    assert_eq!(c.replace(TOPIC, "a", &[]), "NONE");
    assert_eq!(c.configured(TOPIC, "a"), "");
}

#[test]
fn configurations_of_one_request_are_limited() {
    let mut c = Cluster::of_one();
    let names: Vec<String> = (0..300).map(|i| format!("t{i}")).collect();
    c.create_all(names.iter().map(|name| topic(name, 1, 1)).collect(), false);
    let long = vec!["1:1"; 8000].join(",");
    let resource = |name: &String| incremental::AlterConfigsResource {
        resource_type: TOPIC,
        resource_name: Str::copied(name),
        configs: vec![incremental::AlterableConfig {
            name: "leader.replication.throttled.replicas".into(),
            value: Some(Str::copied(&long)),
            ..incremental::AlterableConfig::default()
        }],
        ..incremental::AlterConfigsResource::default()
    };
    let request = IncrementalAlterConfigsRequest {
        resources: names.iter().map(resource).collect(),
        ..IncrementalAlterConfigsRequest::default()
    };
    let (records, reply) = c.ask(Request::IncrementalAlterConfigs(request));
    let Reply::IncrementalAlterConfigs(response) = reply else {
        panic!("{reply:?}")
    };
    let refused = response
        .responses
        .iter()
        .filter(|r| r.error_code == ErrorCode::POLICY_VIOLATION.0)
        .count();
    assert_eq!((records.len(), refused), (260, 40), "8 MiB of 32 KB each");
}

#[test]
fn groups_and_subscriptions_have_memory_for_some_thousands() {
    let mut c = Cluster::of_one();
    let (metrics, set, delete) = (16, 0, 1);
    let names = ["m"; 15_000].join(",");
    let mut added = 0;
    let refused = loop {
        let told = c.alter(metrics, &format!("m{added}"), &[(set, "metrics", Some(&names))]);
        if told != "NONE" {
            break told;
        }
        added += 1;
        assert!(added < 2_000, "30 KB each");
    };
    assert!(refused.starts_with("POLICY_VIOLATION"), "{refused}");
    assert!((900..1_100).contains(&added), "{added}");
    // A smaller configuration is accepted, and frees memory.
    assert_eq!(c.alter(metrics, "m0", &[(set, "metrics", Some("m"))]), "NONE");
    assert_eq!(c.alter(metrics, "m1", &[(delete, "metrics", None)]), "NONE");
    assert_eq!(c.alter(metrics, "new", &[(set, "metrics", Some("m"))]), "NONE");
}

#[test]
fn groups_and_client_metrics_keep_what_is_set() {
    let mut c = Cluster::of_one();
    let (metrics, group, set, delete, append) = (16, 32, 0, 1, 2);
    assert_eq!(
        c.alter(metrics, "m", &[(set, "interval.ms", Some("100"))]),
        "NONE"
    );
    assert_eq!(c.alter(metrics, "m", &[(set, "metrics", Some("a,b"))]), "NONE");
    assert_eq!(c.configured(metrics, "m"), "interval.ms=100 metrics=a,b");
    assert_eq!(c.alter(metrics, "m", &[(delete, "metrics", None)]), "NONE");
    assert_eq!(c.configured(metrics, "m"), "interval.ms=100");
    assert_eq!(
        c.replace(group, "g", &[("consumer.session.timeout.ms", Some("60000"))]),
        "NONE"
    );
    assert_eq!(c.configured(group, "g"), "consumer.session.timeout.ms=60000");
    let refusals = [
        (
            metrics,
            "",
            (set, "interval.ms", "100"),
            "INVALID_REQUEST: Subscription name can't be empty",
        ),
        (
            metrics,
            "m",
            (set, "nope", "1"),
            "INVALID_REQUEST: Unknown client metrics configuration: nope",
        ),
        (
            metrics,
            "m",
            (set, "interval.ms", "99"),
            "INVALID_REQUEST: Invalid value 99 for interval.ms, interval must be between 100 and 3600000 (1 hour)",
        ),
        (
            metrics,
            "m",
            (set, "match", "x=y"),
            "INVALID_CONFIG: Illegal client matching pattern: x=y",
        ),
        (
            metrics,
            "",
            (append, "metrics", "c"),
            "INVALID_CONFIG: Can't APPEND to key metrics because its type is not LIST.",
        ),
        (
            group,
            "",
            (set, "share.isolation.level", "read_committed"),
            "INVALID_REQUEST: Default group resources are not allowed.",
        ),
        (
            group,
            "g",
            (set, "retention.ms", "1"),
            "INVALID_CONFIG: Unknown group config name: retention.ms",
        ),
        (
            group,
            "g",
            (set, "consumer.session.timeout.ms", "60001"),
            "INVALID_CONFIG: consumer.session.timeout.ms must be less than or equal to \
             group.consumer.max.session.timeout.ms",
        ),
    ];
    for (kind, name, (op, key, value), told) in refusals {
        assert_eq!(c.alter(kind, name, &[(op, key, Some(value))]), told);
    }
    assert_eq!(c.configured(metrics, "m"), "interval.ms=100");
    assert_eq!(c.configured(group, "g"), "consumer.session.timeout.ms=60000");
}

#[test]
fn loggers_are_not_set() {
    let mut c = Cluster::of_one();
    let (logger, set, delete, append) = (8, 0, 1, 2);
    let refusals = [
        (
            "x",
            set,
            "root",
            "INVALID_REQUEST: Node id must be an integer, but it is: x",
        ),
        (
            "",
            set,
            "root",
            "INVALID_REQUEST: Node id must be an integer, but it is: ",
        ),
        (
            "7",
            set,
            "root",
            "INVALID_REQUEST: Unexpected node id. Expected 1, but received 7",
        ),
        ("1", set, "nope", "INVALID_CONFIG: Logger nope does not exist!"),
        (
            "1",
            set,
            "root",
            "INVALID_REQUEST: This broker's log level can't be changed while it runs: it is started with --log",
        ),
        (
            "1",
            delete,
            "root",
            "INVALID_REQUEST: Removing the log level of the root logger is not allowed",
        ),
        (
            "1",
            append,
            "nope",
            "INVALID_REQUEST: APPEND operation is not allowed for the BROKER_LOGGER resource",
        ),
    ];
    for (name, op, key, told) in refusals {
        assert_eq!(c.alter(logger, name, &[(op, key, Some("INFO"))]), told);
    }
    assert_eq!(
        c.alter(logger, "1", &[(set, "root", Some("LOUD"))]),
        "INVALID_CONFIG: Cannot set the log level of root to LOUD as it is not a supported log level. Valid log \
         levels are DEBUG, ERROR, FATAL, INFO, TRACE, WARN"
    );
    assert_eq!(
        c.replace(logger, "1", &[("root", Some("INFO"))]),
        "INVALID_REQUEST: Unknown resource type 8"
    );
    assert_eq!(c.configured(logger, "1"), "");
}

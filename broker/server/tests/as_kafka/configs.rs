//! Requests about configurations.

use super::*;
use brokkr_wire::messages::alter_configs_request;
use brokkr_wire::messages::describe_configs_request::DescribeConfigsResource;
use brokkr_wire::messages::describe_configs_response::DescribeConfigsResult;
use brokkr_wire::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use brokkr_wire::messages::{
    AlterConfigsRequest, DescribeConfigsRequest, IncrementalAlterConfigsRequest, ListConfigResourcesRequest,
};
use brokkr_wire::{ErrorCode, Str};

const BROKER: i8 = 4;
const LOGGER: i8 = 8;
const METRICS: i8 = 16;
const GROUP: i8 = 32;

fn describe(client: &mut Client, kind: i8, name: &str, keys: Option<&[&str]>) -> DescribeConfigsResult {
    let resource = DescribeConfigsResource {
        resource_type: kind,
        resource_name: Str::copied(name),
        configuration_keys: keys.map(|keys| keys.iter().map(|key| Str::copied(key)).collect()),
        ..Default::default()
    };
    let request = DescribeConfigsRequest {
        resources: vec![resource],
        include_synonyms: true,
        include_documentation: true,
        ..Default::default()
    };
    client.call(&request, 4).results.remove(0)
}

fn alter(client: &mut Client, kind: i8, name: &str, key: &'static str, value: &'static str) -> ErrorCode {
    let config = AlterableConfig {
        name: key.into(),
        value: Some(value.into()),
        ..Default::default()
    };
    let resource = AlterConfigsResource {
        resource_type: kind,
        resource_name: Str::copied(name),
        configs: vec![config],
        ..Default::default()
    };
    let request = IncrementalAlterConfigsRequest {
        resources: vec![resource],
        ..Default::default()
    };
    ErrorCode(client.call(&request, 1).responses[0].error_code)
}

#[test]
fn each_key_has_its_type_synonyms_and_documentation() {
    let (_broker, mut client) = with_topics("as-kafka-documentation");
    let actual = describe(&mut client, 2, "t", None).configs;
    assert_eq!(actual.len(), 33);
    let actual = actual
        .iter()
        .chain(&describe(&mut client, BROKER, "1", None).configs)
        .cloned()
        .collect::<Vec<_>>();
    assert!(actual.len() > 300);
    for config in &actual {
        let documentation = config.documentation.as_ref().expect("it was requested");
        assert!(
            documentation.len() > 10 && documentation.ends_with('.'),
            "{}: {documentation}",
            config.name
        );
    }
    let of = |name: &str| actual.iter().find(|c| c.name == *name).expect("it is there");
    let types = [
        ("preallocate", 1),
        ("compression.type", 2),
        ("segment.bytes", 3),
        ("offsets.topic.replication.factor", 4),
        ("retention.ms", 5),
        ("min.cleanable.dirty.ratio", 6),
        ("cleanup.policy", 7),
        ("sasl.login.class", 8),
        ("ssl.key.password", 9),
    ];
    for (name, code) in types {
        assert_eq!(of(name).config_type, code, "{name}");
    }
    let synonyms: Vec<_> = of("retention.ms")
        .synonyms
        .iter()
        .map(|s| (s.name.as_str(), s.source))
        .collect();
    assert_eq!(synonyms, [("retention.ms", 1)], "log.retention.ms is not set");
    // Only on request.
    let request = DescribeConfigsRequest {
        resources: vec![DescribeConfigsResource {
            resource_type: 2,
            resource_name: "t".into(),
            configuration_keys: None,
            ..Default::default()
        }],
        ..Default::default()
    };
    let quiet = client.call(&request, 4).results.remove(0).configs;
    assert!(
        quiet
            .iter()
            .all(|c| c.documentation.is_none() && c.synonyms.is_empty())
    );
}

#[test]
fn groups_client_metrics_and_loggers_are_resources_too() {
    let (broker, mut client) = with_topics("as-kafka-resources");
    let entries_of = |client: &mut Client, kind, name| {
        let actual = describe(client, kind, name, None);
        (
            ErrorCode(actual.error_code),
            actual.error_message.unwrap_or_default().to_string(),
            actual.configs.len(),
        )
    };
    let ok = |n| (ErrorCode::NONE, String::new(), n);
    let refused = |why: &str| (ErrorCode::INVALID_REQUEST, why.to_owned(), 0);
    assert_eq!(entries_of(&mut client, METRICS, "any"), ok(3));
    assert_eq!(
        entries_of(&mut client, METRICS, ""),
        refused("Client metrics subscription name must not be empty")
    );
    assert_eq!(entries_of(&mut client, GROUP, "any"), ok(17));
    assert_eq!(
        entries_of(&mut client, GROUP, ""),
        refused("Group name must not be empty")
    );
    assert_eq!(
        entries_of(&mut client, LOGGER, ""),
        refused("Broker id must not be empty")
    );
    assert_eq!(
        entries_of(&mut client, LOGGER, "x"),
        refused("Broker id must be an integer, but it is: x")
    );
    assert_eq!(
        entries_of(&mut client, LOGGER, "2"),
        refused("Unexpected broker id, expected 1 but received 2")
    );
    // There is one logger, with the level of the broker's start.
    let root = describe(&mut client, LOGGER, "1", None).configs;
    let shown: Vec<_> = root
        .iter()
        .map(|c| (c.name.as_str(), c.value.as_deref(), c.config_source))
        .collect();
    assert_eq!(shown, [("root", Some("WARN"), 6)]);
    assert_eq!(
        alter(&mut client, LOGGER, "1", "root", "DEBUG"),
        ErrorCode::INVALID_REQUEST
    );
    assert_eq!(
        alter(&mut client, LOGGER, "1", "nope", "DEBUG"),
        ErrorCode::INVALID_CONFIG
    );

    let value = |client: &mut Client, kind, name, key| {
        let actual = describe(client, kind, name, Some(&[key])).configs.remove(0);
        let synonyms: Vec<_> = actual
            .synonyms
            .iter()
            .map(|s| (s.name.to_string(), s.source))
            .collect();
        (
            actual.value.unwrap_or_default().to_string(),
            actual.config_source,
            synonyms,
        )
    };
    let key = "consumer.session.timeout.ms";
    let default = ("group.consumer.session.timeout.ms".to_owned(), 5);
    assert_eq!(
        value(&mut client, GROUP, "g", key),
        ("45000".to_owned(), 5, vec![default.clone()])
    );
    assert_eq!(
        alter(&mut client, GROUP, "g", key, "60001"),
        ErrorCode::INVALID_CONFIG
    );
    assert_eq!(alter(&mut client, GROUP, "g", key, "50000"), ErrorCode::NONE);
    let expected = ("50000".to_owned(), 8, vec![(key.to_owned(), 8), default]);
    assert_eq!(value(&mut client, GROUP, "g", key), expected);
    assert_eq!(
        alter(&mut client, METRICS, "m", "interval.ms", "99"),
        ErrorCode::INVALID_REQUEST
    );
    assert_eq!(
        alter(&mut client, METRICS, "m", "interval.ms", "100"),
        ErrorCode::NONE
    );
    let expected = ("100".to_owned(), 7, vec![("interval.ms".to_owned(), 7)]);
    assert_eq!(value(&mut client, METRICS, "m", "interval.ms"), expected);
    assert_eq!(
        value(&mut client, METRICS, "m", "metrics"),
        (String::new(), 5, Vec::new())
    );

    let mut listed = |types: &[i8]| {
        let request = ListConfigResourcesRequest {
            resource_types: types.to_vec(),
            ..Default::default()
        };
        let actual = client.call(&request, 1).config_resources.into_iter();
        actual
            .map(|r| (r.resource_type, r.resource_name.to_string()))
            .collect::<Vec<_>>()
    };
    let is = |kind, name: &str| (kind, name.to_owned());
    assert_eq!(listed(&[METRICS, GROUP]), [is(METRICS, "m"), is(GROUP, "g")]);
    let all = [
        is(2, "e"),
        is(2, "t"),
        is(BROKER, "1"),
        is(LOGGER, "1"),
        is(METRICS, "m"),
        is(GROUP, "g"),
    ];
    assert_eq!(listed(&[]), all);
    let without_effect = broker
        .log()
        .lines()
        .filter(|l| l.contains("configuration without effect"))
        .count();
    assert_eq!(without_effect, 1, "one line for them all: {}", broker.log());
}

/// Sets a key of a running broker (with an empty name: of all brokers) and returns the results of both requests.
fn set_while_running(
    client: &mut Client,
    name: &str,
    key: &str,
    validate_only: bool,
) -> [(ErrorCode, String); 2] {
    let config = alter_configs_request::AlterableConfig {
        name: Str::copied(key),
        value: Some("7".into()),
        ..Default::default()
    };
    let resource = alter_configs_request::AlterConfigsResource {
        resource_type: BROKER,
        resource_name: Str::copied(name),
        configs: vec![config],
        ..Default::default()
    };
    let request = AlterConfigsRequest {
        resources: vec![resource],
        validate_only,
        ..Default::default()
    };
    let replaced = client.call(&request, 2).responses.remove(0);
    let config = AlterableConfig {
        name: Str::copied(key),
        value: Some("7".into()),
        ..Default::default()
    };
    let resource = AlterConfigsResource {
        resource_type: BROKER,
        resource_name: Str::copied(name),
        configs: vec![config],
        ..Default::default()
    };
    let request = IncrementalAlterConfigsRequest {
        resources: vec![resource],
        validate_only,
        ..Default::default()
    };
    let changed = client.call(&request, 1).responses.remove(0);
    [
        (replaced.error_code, replaced.error_message),
        (changed.error_code, changed.error_message),
    ]
    .map(|(code, message)| {
        (
            ErrorCode(code),
            message.map(|m| m.as_str().to_owned()).unwrap_or_default(),
        )
    })
}

#[test]
fn keys_that_need_a_restart_are_rejected() {
    let (_broker, mut client) = with_topics("as-kafka-dynamic-keys");
    const FIXED: &str = "Cannot update these configs dynamically";
    const PREFIX: &str =
        "These security configs can be dynamically updated only per-listener using the listener prefix";
    const ONE: &str = "Cannot update these configs at default cluster level, broker id must be specified";
    // Kafka applies these; Brokkr rejects them, since it does not.
    const YET: &str = "This broker does not apply these configs while it runs yet";
    for (name, key, why) in [
        ("1", "advertised.listeners", FIXED),
        ("1", "node.id", FIXED),
        ("", "node.id", FIXED),
        ("1", "ssl.truststore.location", PREFIX),
        ("1", "ssl.truststore.type", PREFIX),
        ("1", "ssl.keystore.location", PREFIX),
        ("1", "ssl.keystore.password", PREFIX),
        ("", "ssl.truststore.location", PREFIX),
        ("", "ssl.cipher.suites", ONE),
        ("", "listeners", ONE),
        ("", "listener.security.protocol.map", ONE),
        ("", "sasl.jaas.config", ONE),
        ("", "listener.name.plaintext.ssl.keystore.location", ONE),
        ("1", "listeners", YET),
        ("1", "ssl.cipher.suites", YET),
        ("1", "listener.name.plaintext.ssl.keystore.location", YET),
        ("1", "max.connections", YET),
        ("", "num.io.threads", YET),
        ("", "background.threads", YET),
    ] {
        for validate_only in [true, false] {
            for actual in set_while_running(&mut client, name, key, validate_only) {
                assert_eq!(
                    actual,
                    (ErrorCode::INVALID_REQUEST, format!("{why}: [{key}]")),
                    "{name:?}"
                );
            }
        }
        let shown = describe(&mut client, BROKER, name, Some(&[key])).configs;
        assert!(
            shown.iter().all(|c| c.config_source > 3),
            "{name:?} {key}: {shown:?}"
        );
    }
}

#[test]
fn an_unknown_key_is_sensitive() {
    let (_broker, mut client) = with_topics("as-kafka-unknown-keys");
    for (name, key) in [("1", "my.key"), ("", "your.key"), ("", "my.key")] {
        assert_eq!(alter(&mut client, BROKER, name, key, "7"), ErrorCode::NONE);
    }
    let shown = |client: &mut Client, name: &str| {
        let actual = describe(client, BROKER, name, Some(&["my.key", "your.key"])).configs;
        let one = |c: &brokkr_wire::messages::describe_configs_response::DescribeConfigsResourceResult| {
            assert!(c.is_sensitive && c.read_only && c.value.is_none() && c.config_type == 0);
            assert!(c.synonyms.iter().all(|s| s.value.is_none() && s.name == c.name));
            let synonyms: Vec<i8> = c.synonyms.iter().map(|s| s.source).collect();
            (c.name.as_str().to_owned(), c.config_source, synonyms)
        };
        actual.iter().map(one).collect::<Vec<_>>()
    };
    let expected = [
        ("my.key".to_owned(), 2, vec![2, 3]),
        ("your.key".to_owned(), 3, vec![3]),
    ];
    assert_eq!(shown(&mut client, "1"), expected);
    let expected = [
        ("my.key".to_owned(), 3, vec![3]),
        ("your.key".to_owned(), 3, vec![3]),
    ];
    assert_eq!(shown(&mut client, ""), expected);
}

#[test]
fn resources_listed_twice_are_answered_twice() {
    let (_broker, mut client) = with_topics("as-kafka-configs-twice");
    type Listed = (i8, &'static str, Option<&'static [&'static str]>);
    let mut describe_all = |resources: &[Listed]| -> Vec<(String, ErrorCode, usize)> {
        let resources = resources
            .iter()
            .map(|(kind, name, keys)| DescribeConfigsResource {
                resource_type: *kind,
                resource_name: (*name).into(),
                configuration_keys: keys.map(|keys| keys.iter().map(|key| (*key).into()).collect()),
                ..Default::default()
            });
        let request = DescribeConfigsRequest {
            resources: resources.collect(),
            ..Default::default()
        };
        let results = client.call(&request, 4).results.into_iter();
        results
            .map(|r| {
                (
                    r.resource_name.to_string(),
                    ErrorCode(r.error_code),
                    r.configs.len(),
                )
            })
            .collect()
    };
    let is = |name: &str, code, configs| (name.to_owned(), code, configs);
    const NONE: ErrorCode = ErrorCode::NONE;
    const ONE: Option<&[&str]> = Some(&["retention.ms"]);
    const TWO: Option<&[&str]> = Some(&["cleanup.policy", "retention.ms"]);
    const SAME: Option<&[&str]> = Some(&["retention.ms", "retention.ms"]);
    let unknown = is("nope", ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, 0);
    assert_eq!(
        describe_all(&[(2, "t", ONE), (2, "t", ONE), (2, "e", ONE), (2, "t", TWO)]),
        [
            is("t", NONE, 1),
            is("t", NONE, 1),
            is("e", NONE, 1),
            is("t", NONE, 2)
        ]
    );
    assert_eq!(
        describe_all(&[(2, "nope", ONE), (2, "nope", ONE)]),
        [unknown.clone(), unknown]
    );
    assert_eq!(describe_all(&[(2, "t", SAME)]), [is("t", NONE, 1)]);
    let broker = describe_all(&[(BROKER, "1", None), (BROKER, "1", None)]);
    assert!(broker.len() == 2 && broker[0] == broker[1] && broker[0].2 > 200);
    // Kafka repeats it without limit: 10,000 times here, of which 1 MiB is repeated.
    let mut often = vec![(2, "t", None); 10_000];
    often.push((2, "e", None));
    let often = describe_all(&often);
    assert!((10..1000).contains(&often.len()), "{}", often.len());
    assert_eq!(often.last(), Some(&is("e", NONE, 33)));
}

#[test]
fn unconfigured_groups_have_a_limit_in_a_response() {
    let (_broker, mut client) = with_topics("as-kafka-configs-groups");
    let resources = (0..40_000).map(|i| DescribeConfigsResource {
        resource_type: GROUP,
        resource_name: format!("{i}").into(),
        ..Default::default()
    });
    let request = DescribeConfigsRequest {
        resources: resources.collect(),
        ..Default::default()
    };
    let results = client.call(&request, 4).results;
    // Kafka returns all keys of each.
    let refused = |code| ErrorCode(code) == ErrorCode::INVALID_REQUEST;
    let actual = results
        .iter()
        .take_while(|r| r.error_code == 0 && !r.configs.is_empty());
    let actual = actual.count();
    assert!((1_000..10_000).contains(&actual), "{actual}");
    assert_eq!(results.len(), 40_000);
    assert!(
        results[actual..]
            .iter()
            .all(|r| refused(r.error_code) && r.configs.is_empty())
    );
}

//! Requests about topics.

use super::*;
use brokkr_types::Uuid;
use brokkr_wire::messages::create_partitions_request::CreatePartitionsTopic;
use brokkr_wire::messages::create_topics_request::{
    CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig,
};
use brokkr_wire::messages::delete_topics_request::DeleteTopicState;
use brokkr_wire::messages::describe_log_dirs_request::DescribableLogDirTopic;
use brokkr_wire::messages::describe_topic_partitions_request::{Cursor, TopicRequest};
use brokkr_wire::messages::metadata_request::MetadataRequestTopic;
use brokkr_wire::messages::{
    CreatePartitionsRequest, CreateTopicsRequest, DeleteTopicsRequest, DescribeLogDirsRequest,
    DescribeProducersRequest, DescribeTopicPartitionsRequest, MetadataRequest, describe_producers_request,
};
use brokkr_wire::{ErrorCode, Str};

#[test]
fn log_dirs_contain_only_the_requested_partitions() {
    let (_broker, mut client) = with_topics("as-kafka-log-dirs");
    let mut describe = |topics: Option<&[(&'static str, &[i32])]>| -> Vec<(String, Vec<i32>)> {
        let topics = topics.map(|topics| {
            let topics = topics.iter().map(|(topic, partitions)| DescribableLogDirTopic {
                topic: (*topic).into(),
                partitions: partitions.to_vec(),
                ..Default::default()
            });
            topics.collect()
        });
        let request = DescribeLogDirsRequest {
            topics,
            ..Default::default()
        };
        let dirs = client.call(&request, 4).results;
        assert_eq!((dirs.len(), dirs[0].error_code), (1, 0));
        let topics = dirs[0].topics.iter();
        topics
            .map(|t| {
                (
                    t.name.to_string(),
                    t.partitions.iter().map(|p| p.partition_index).collect(),
                )
            })
            .collect()
    };
    let is = |name: &str, partitions: &[i32]| (name.to_owned(), partitions.to_vec());
    assert_eq!(describe(None), [is("e", &[0]), is("t", &[0, 1])]);
    assert_eq!(describe(Some(&[])), []);
    assert_eq!(describe(Some(&[("t", &[])])), []);
    assert_eq!(describe(Some(&[("t", &[1, 9, -1])])), [is("t", &[1])]);
    assert_eq!(describe(Some(&[("nope", &[0]), ("e", &[0, 0])])), [is("e", &[0])]);
}

#[test]
fn producers_of_unknown_partitions() {
    let (_broker, mut client) = with_topics("as-kafka-producers");
    let actual = produce(&mut client, None, -1, &[("e", 0, batch(0, Some(7), MADE))]);
    assert_eq!(actual, [(ErrorCode::NONE, 0)]);
    let long = "x".repeat(250);
    let mut code = |name: &str, partition| {
        let topic = describe_producers_request::TopicRequest {
            name: Str::copied(name),
            partition_indexes: vec![partition],
            ..Default::default()
        };
        let request = DescribeProducersRequest {
            topics: vec![topic],
            ..Default::default()
        };
        let actual = client.call(&request, 0).topics.remove(0).partitions.remove(0);
        (ErrorCode(actual.error_code), actual.active_producers.len())
    };
    assert_eq!(code("e", 0), (ErrorCode::NONE, 1));
    assert_eq!(code("t", 0), (ErrorCode::NONE, 0));
    for (name, partition) in [("t", 9), ("t", -1), ("nope", 0)] {
        assert_eq!(code(name, partition), (ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, 0));
    }
    for name in ["", ".", "a b", &long] {
        assert_eq!(code(name, 0), (ErrorCode::INVALID_TOPIC_EXCEPTION, 0), "{name}");
    }
}

#[test]
fn a_full_page_ends_before_an_unknown_topic() {
    let (_broker, mut client) = with_topics("as-kafka-pages");
    let mut page = |names: &[&'static str], limit, cursor: Option<(&'static str, i32)>| {
        let topics = names.iter().map(|name| TopicRequest {
            name: (*name).into(),
            ..Default::default()
        });
        let request = DescribeTopicPartitionsRequest {
            topics: topics.collect(),
            response_partition_limit: limit,
            cursor: cursor.map(|(name, partition_index)| Cursor {
                topic_name: name.into(),
                partition_index,
                ..Default::default()
            }),
            ..Default::default()
        };
        let actual = client.call(&request, 0);
        let topics = actual
            .topics
            .iter()
            .map(|t| (t.name.clone().unwrap_or_default().to_string(), t.partitions.len()));
        let next = actual
            .next_cursor
            .as_ref()
            .map(|c| (c.topic_name.to_string(), c.partition_index));
        (topics.collect::<Vec<_>>(), next)
    };
    let is = |name: &str, n| (name.to_owned(), n);
    let at = |name: &str, index| Some((name.to_owned(), index));
    assert_eq!(page(&[], 1, None), (vec![is("e", 1)], at("t", 0)));
    for limit in [0, -1] {
        assert_eq!(
            page(&[], limit, None),
            (vec![is("e", 1)], at("t", 0)),
            "limit {limit}"
        );
    }
    assert_eq!(page(&[], 2, None), (vec![is("e", 1), is("t", 1)], at("t", 1)));
    assert_eq!(page(&[], 3, None), (vec![is("e", 1), is("t", 2)], None));
    assert_eq!(
        page(&["t", "e", "t"], 2, Some(("t", 1))),
        (vec![is("t", 1)], None)
    );
    assert_eq!(page(&["t", "zzz"], 2, None), (vec![is("t", 2)], at("zzz", 0)));
    assert_eq!(
        page(&["t", "zzz"], 2, Some(("zzz", 0))),
        (vec![is("zzz", 0)], None)
    );
    assert_eq!(page(&["t"], 2, Some(("t", 99))), (vec![is("t", 0)], None));
}

#[test]
fn topics_that_cannot_be_created() {
    let (_broker, mut client) = with_topics("as-kafka-create");
    let mut create = |validate_only, change: &dyn Fn(&mut CreatableTopic)| {
        let mut topic = CreatableTopic {
            name: "new".into(),
            num_partitions: 1,
            replication_factor: 1,
            ..Default::default()
        };
        change(&mut topic);
        let request = CreateTopicsRequest {
            topics: vec![topic],
            timeout_ms: 30_000,
            validate_only,
            ..Default::default()
        };
        ErrorCode(client.call(&request, 7).topics[0].error_code)
    };
    let by_hand = |topic: &mut CreatableTopic, of: &[(i32, &[i32])]| {
        (topic.num_partitions, topic.replication_factor) = (-1, -1);
        let assignments = of
            .iter()
            .map(|(partition_index, broker_ids)| CreatableReplicaAssignment {
                partition_index: *partition_index,
                broker_ids: broker_ids.to_vec(),
                ..Default::default()
            });
        topic.assignments = assignments.collect();
    };
    type Change<'a> = &'a dyn Fn(&mut CreatableTopic);
    let cases: [(Change<'_>, ErrorCode); 18] = [
        (&|t| t.num_partitions = 0, ErrorCode::INVALID_PARTITIONS),
        (&|t| t.num_partitions = -2, ErrorCode::INVALID_PARTITIONS),
        (&|t| t.num_partitions = 10_001, ErrorCode::POLICY_VIOLATION),
        (
            &|t| t.replication_factor = 0,
            ErrorCode::INVALID_REPLICATION_FACTOR,
        ),
        (
            &|t| t.replication_factor = 2,
            ErrorCode::INVALID_REPLICATION_FACTOR,
        ),
        (
            &|t| {
                by_hand(t, &[(0, &[1])]);
                t.num_partitions = 1;
            },
            ErrorCode::INVALID_REQUEST,
        ),
        (
            &|t| {
                by_hand(t, &[(0, &[1])]);
                t.replication_factor = 1;
            },
            ErrorCode::INVALID_REQUEST,
        ),
        (
            &|t| by_hand(t, &[(1, &[1])]),
            ErrorCode::INVALID_REPLICA_ASSIGNMENT,
        ),
        (
            &|t| by_hand(t, &[(0, &[])]),
            ErrorCode::INVALID_REPLICA_ASSIGNMENT,
        ),
        (
            &|t| by_hand(t, &[(0, &[2])]),
            ErrorCode::INVALID_REPLICA_ASSIGNMENT,
        ),
        (
            &|t| by_hand(t, &[(0, &[1, 1])]),
            ErrorCode::INVALID_REPLICA_ASSIGNMENT,
        ),
        (
            &|t| by_hand(t, &[(0, &[1]), (0, &[1])]),
            ErrorCode::INVALID_REPLICA_ASSIGNMENT,
        ),
        (
            &|t| {
                t.configs = vec![CreatableTopicConfig {
                    name: "retention.ms".into(),
                    ..Default::default()
                }];
            },
            ErrorCode::INVALID_CONFIG,
        ),
        (
            &|t| t.name = "x".repeat(250).into(),
            ErrorCode::INVALID_TOPIC_EXCEPTION,
        ),
        (&|t| t.name = "".into(), ErrorCode::INVALID_TOPIC_EXCEPTION),
        (&|t| t.name = "a b".into(), ErrorCode::INVALID_TOPIC_EXCEPTION),
        (&|t| t.name = "t".into(), ErrorCode::TOPIC_ALREADY_EXISTS),
        (
            &|t| t.name = "__cluster_metadata".into(),
            ErrorCode::INVALID_REQUEST,
        ),
    ];
    for (i, (change, code)) in cases.iter().enumerate() {
        for validate_only in [true, false] {
            assert_eq!(create(validate_only, change), *code, "case {i}");
        }
    }
    let longest: Change<'_> = &|t| t.name = "x".repeat(249).into();
    for (validate_only, code) in [
        (true, ErrorCode::NONE),
        (true, ErrorCode::NONE),
        (false, ErrorCode::NONE),
        (false, ErrorCode::TOPIC_ALREADY_EXISTS),
    ] {
        assert_eq!(create(validate_only, longest), code);
    }
}

#[test]
fn producer_id_minus_2_is_valid() {
    let (_broker, mut client) = with_topics("as-kafka-producer-ids");
    for (id, epoch) in [(5, -2), (-2, 0), (-2, -2)] {
        assert_eq!(client.init_producer_id(id, epoch), ErrorCode::NONE);
    }
    for (id, epoch) in [(-2, -1), (-1, -2)] {
        assert_eq!(client.init_producer_id(id, epoch), ErrorCode::INVALID_REQUEST);
    }
}

/// The result of a request to change topics, for each topic: its name, the code and the message.
type TopicResults = Vec<(String, ErrorCode, Option<String>)>;

fn topic_results(of: impl Iterator<Item = (Option<Str>, i16, Option<Str>)>) -> TopicResults {
    let text = |text: Option<Str>| text.map(|t| t.to_string());
    of.map(|(name, code, why)| (text(name).unwrap_or_default(), ErrorCode(code), text(why)))
        .collect()
}

fn create_within(
    timeout_ms: i32,
    client: &mut Client,
    names: &[&'static str],
    validate_only: bool,
) -> TopicResults {
    let topics = names.iter().map(|name| CreatableTopic {
        name: (*name).into(),
        num_partitions: 1,
        replication_factor: 1,
        ..Default::default()
    });
    let request = CreateTopicsRequest {
        topics: topics.collect(),
        timeout_ms,
        validate_only,
        ..Default::default()
    };
    let topics = client.call(&request, 7).topics.into_iter();
    topic_results(topics.map(|t| (Some(t.name), t.error_code, t.error_message)))
}

fn delete_within(timeout_ms: i32, client: &mut Client, names: &[&'static str]) -> TopicResults {
    let topics = names.iter().map(|name| DeleteTopicState {
        name: Some((*name).into()),
        ..Default::default()
    });
    let request = DeleteTopicsRequest {
        topics: topics.collect(),
        timeout_ms,
        ..Default::default()
    };
    let responses = client.call(&request, 6).responses.into_iter();
    topic_results(responses.map(|t| (t.name, t.error_code, t.error_message)))
}

fn extend_within(timeout_ms: i32, client: &mut Client, names: &[&'static str]) -> TopicResults {
    let topics = names.iter().map(|name| CreatePartitionsTopic {
        name: (*name).into(),
        count: 3,
        ..Default::default()
    });
    let request = CreatePartitionsRequest {
        topics: topics.collect(),
        timeout_ms,
        ..Default::default()
    };
    let results = client.call(&request, 3).results.into_iter();
    topic_results(results.map(|t| (Some(t.name), t.error_code, t.error_message)))
}

#[test]
fn a_timeout_of_zero_changes_no_topics() {
    let (_broker, mut client) = with_topics("as-kafka-no-time");
    let all = |names: &[&str], code: ErrorCode, why: Option<&str>| -> TopicResults {
        let one = |name: &&str| ((*name).to_owned(), code, why.map(str::to_owned));
        names.iter().map(one).collect()
    };
    let twice = || {
        all(
            &["new"],
            ErrorCode::INVALID_REQUEST,
            Some("Duplicate topic name."),
        )
    };
    let prohibited = "Creation of internal topic __cluster_metadata is prohibited.";
    for timeout_ms in [0, -1, i32::MIN] {
        for names in [
            &["new"][..],
            &["t"],
            &["."],
            &["new", "t"],
            &["new", "new", "t"],
            &["t", "__cluster_metadata"],
        ] {
            let late = all(names, ErrorCode::REQUEST_TIMED_OUT, None);
            assert_eq!(create_within(timeout_ms, &mut client, names, true), late);
            assert_eq!(create_within(timeout_ms, &mut client, names, false), late);
            assert_eq!(delete_within(timeout_ms, &mut client, names), late);
            assert_eq!(extend_within(timeout_ms, &mut client, names), late);
        }
        // Errors that don't need the controller need no time.
        assert_eq!(create_within(timeout_ms, &mut client, &[], false), []);
        assert_eq!(delete_within(timeout_ms, &mut client, &[]), []);
        assert_eq!(extend_within(timeout_ms, &mut client, &[]), []);
        let names = &["new", "new"];
        assert_eq!(create_within(timeout_ms, &mut client, names, false), twice());
        assert_eq!(delete_within(timeout_ms, &mut client, names), twice());
        assert_eq!(extend_within(timeout_ms, &mut client, names), twice());
        let names = &["new", "new", "__cluster_metadata"];
        let refused = [
            twice(),
            all(&names[2..], ErrorCode::INVALID_REQUEST, Some(prohibited)),
        ];
        assert_eq!(
            create_within(timeout_ms, &mut client, names, false),
            refused.concat()
        );
        let late = all(names, ErrorCode::REQUEST_TIMED_OUT, None);
        assert_eq!(delete_within(timeout_ms, &mut client, names), late);
        assert_eq!(extend_within(timeout_ms, &mut client, names), late);
    }
    assert_eq!(client.partitions("t"), Ok(2));
    assert_eq!(
        client.partitions("new"),
        Err(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION)
    );
}

#[test]
fn unknown_topics_have_authorized_operations() {
    let (_broker, mut client) = with_topics("as-kafka-operations");
    const ALL: i32 = 0xdf8;
    const NOT_ASKED: i32 = i32::MIN;
    let long = "x".repeat(250);
    let mut metadata = |name: Option<&str>, include_topic_authorized_operations| {
        let topic = MetadataRequestTopic {
            name: name.map(Str::copied),
            topic_id: match name {
                Some(_) => Uuid::ZERO,
                None => Uuid::from_random([7; 16]),
            },
            ..Default::default()
        };
        let request = MetadataRequest {
            topics: Some(vec![topic]),
            include_topic_authorized_operations,
            allow_auto_topic_creation: false,
            ..Default::default()
        };
        let actual = client.call(&request, 12).topics.remove(0);
        (ErrorCode(actual.error_code), actual.topic_authorized_operations)
    };
    let cases = [
        ("t", ErrorCode::NONE),
        ("nope", ErrorCode::UNKNOWN_TOPIC_OR_PARTITION),
        ("", ErrorCode::INVALID_TOPIC_EXCEPTION),
        (".", ErrorCode::INVALID_TOPIC_EXCEPTION),
        ("a b", ErrorCode::INVALID_TOPIC_EXCEPTION),
        (&long, ErrorCode::INVALID_TOPIC_EXCEPTION),
    ];
    for (name, code) in cases {
        assert_eq!(metadata(Some(name), false), (code, NOT_ASKED), "{name}");
        assert_eq!(metadata(Some(name), true), (code, ALL), "{name}");
    }
    // There is no name that determines them.
    for requested in [false, true] {
        assert_eq!(
            metadata(None, requested),
            (ErrorCode::UNKNOWN_TOPIC_ID, NOT_ASKED)
        );
    }
    // Kafka fails with UNKNOWN_SERVER_ERROR on the empty name, and without operations.
    for (name, code) in cases {
        let topic = TopicRequest {
            name: Str::copied(name),
            ..Default::default()
        };
        let request = DescribeTopicPartitionsRequest {
            topics: vec![topic],
            response_partition_limit: 10,
            ..Default::default()
        };
        let actual = client.call(&request, 0).topics.remove(0);
        let actual = (ErrorCode(actual.error_code), actual.topic_authorized_operations);
        assert_eq!(actual, (code, ALL), "{name}");
    }
}

#[test]
fn producers_of_partitions_listed_twice() {
    let (_broker, mut client) = with_topics("as-kafka-producers-twice");
    let mut list_producers = |topics: &[(&'static str, &[i32])]| -> Vec<(String, Vec<(i32, ErrorCode)>)> {
        let topics = topics
            .iter()
            .map(|(name, partitions)| describe_producers_request::TopicRequest {
                name: (*name).into(),
                partition_indexes: partitions.to_vec(),
                ..Default::default()
            });
        let request = DescribeProducersRequest {
            topics: topics.collect(),
            ..Default::default()
        };
        let topics = client.call(&request, 0).topics.into_iter();
        let topics = topics.map(|t| {
            let partitions = t.partitions.iter();
            let partitions = partitions.map(|p| (p.partition_index, ErrorCode(p.error_code)));
            (t.name.to_string(), partitions.collect())
        });
        topics.collect()
    };
    let is = |name: &str, indexes: &[i32], code| {
        let partitions = indexes.iter().map(|index| (*index, code));
        (name.to_owned(), partitions.collect::<Vec<_>>())
    };
    const NONE: ErrorCode = ErrorCode::NONE;
    const UNKNOWN: ErrorCode = ErrorCode::UNKNOWN_TOPIC_OR_PARTITION;
    assert_eq!(
        list_producers(&[("t", &[0, 0, 1, 0])]),
        [is("t", &[0, 0, 1, 0], NONE)]
    );
    assert_eq!(
        list_producers(&[("t", &[0]), ("e", &[0]), ("t", &[0, 1])]),
        [is("t", &[0], NONE), is("e", &[0], NONE), is("t", &[0, 1], NONE)]
    );
    assert_eq!(
        list_producers(&[("t", &[]), ("t", &[]), ("nope", &[3, 3])]),
        [
            is("t", &[], NONE),
            is("t", &[], NONE),
            is("nope", &[3, 3], UNKNOWN)
        ]
    );
    // Kafka repeats it without limit: 100,000 partitions here, of which 1 MiB is repeated.
    let actual = list_producers(&[("t", &[0; 100_000]), ("e", &[0])]);
    assert!(
        (1000..20_000).contains(&actual[0].1.len()),
        "{}",
        actual[0].1.len()
    );
    assert_eq!(actual[1], is("e", &[0], NONE));
}

#[test]
fn a_created_topics_configs_are_as_they_were_given() {
    let (_broker, mut client) = with_topics("as-kafka-values-given");
    let given = [
        ("retention.ms", " 1000 "),
        ("cleanup.policy", " compact , delete "),
        ("compression.type", " gzip"),
        ("preallocate", " TRUE "),
        ("unclean.leader.election.enable", "False"),
        ("min.cleanable.dirty.ratio", "0.50"),
        ("segment.bytes", "+2000000"),
        ("max.message.bytes", "007"),
        ("message.timestamp.type", "CreateTime "),
    ];
    let configs = given.iter().map(|(name, value)| CreatableTopicConfig {
        name: (*name).into(),
        value: Some((*value).into()),
        ..Default::default()
    });
    let topic = CreatableTopic {
        name: "new".into(),
        num_partitions: 1,
        replication_factor: 1,
        configs: configs.collect(),
        ..Default::default()
    };
    for validate_only in [true, false] {
        let request = CreateTopicsRequest {
            topics: vec![topic.clone()],
            timeout_ms: 30_000,
            validate_only,
            ..Default::default()
        };
        let actual = client.call(&request, 7).topics.remove(0);
        assert_eq!(actual.error_code, 0);
        let actual = actual.configs.unwrap_or_default();
        assert_eq!(actual.len(), 33);
        for (name, value) in given {
            let actual = actual
                .iter()
                .find(|config| config.name == name)
                .expect("it is in the response");
            assert_eq!(actual.value.as_deref(), Some(value), "{name}");
        }
        let segment_ms = actual.iter().find(|config| config.name == "segment.ms");
        assert_eq!(
            segment_ms.and_then(|config| config.value.as_deref()),
            Some("604800000")
        );
    }
}

//! Requests that can't be served as they are: the same codes as Apache Kafka 4.3.0 gives, and a broker that lives on.

mod common;

use brokkr_types::Uuid;
use brokkr_wire::messages::describe_topic_partitions_request::{Cursor, TopicRequest};
use brokkr_wire::messages::fetch_request::{FetchPartition, FetchTopic};
use brokkr_wire::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use brokkr_wire::messages::metadata_request::MetadataRequestTopic;
use brokkr_wire::messages::{
    DescribeProducersRequest, DescribeTopicPartitionsRequest, FetchRequest, InitProducerIdRequest,
    ListOffsetsRequest, MetadataRequest, describe_producers_request,
};
use brokkr_wire::{ErrorCode, Str};
use common::{Client, Running, place, start};

/// A broker with the topics `t` (two partitions, a record in the first) and `u`.
fn with_topics(name: &str) -> (Running, Client) {
    let broker = start(&place(name), &[]);
    let mut client = broker.client();
    for (name, partitions) in [("t", 2), ("u", 1)] {
        assert_eq!(
            client.create(name, partitions, &[("retention.ms", "-1")]).0,
            ErrorCode::NONE
        );
    }
    assert_eq!(client.produce("t", 0, b"v").error_code, 0);
    (broker, client)
}

fn ask_metadata(
    client: &mut Client,
    version: i16,
    topics: &[(Option<&str>, Uuid)],
) -> Vec<(ErrorCode, Option<String>)> {
    let topics = topics.iter().map(|(name, id)| MetadataRequestTopic {
        name: name.map(Str::copied),
        topic_id: *id,
        ..Default::default()
    });
    let request = MetadataRequest {
        topics: Some(topics.collect()),
        allow_auto_topic_creation: false,
        ..Default::default()
    };
    let answer = client.ask(&request, version).topics.into_iter();
    answer
        .map(|t| (ErrorCode(t.error_code), t.name.map(|n| n.as_str().to_owned())))
        .collect()
}

#[test]
fn metadata_by_id_where_ids_are_not_known_yet_is_refused_whole() {
    let (_broker, mut client) = with_topics("refusals-metadata");
    let (none, id) = (Uuid::ZERO, Uuid::from_random([7; 16]));
    let named = |name: &str| Some(name.to_owned());
    for version in [10, 11] {
        let refused = ErrorCode::INVALID_REQUEST;
        let topics = [(Some("t"), none), (None, id), (None, none), (Some("u"), id)];
        let answer = ask_metadata(&mut client, version, &topics);
        let names = ["t", "", "", "u"].map(|name| (refused, named(name)));
        assert_eq!(answer, names, "version {version}");
    }
    let unknown = (ErrorCode::UNKNOWN_TOPIC_ID, None);
    assert_eq!(
        ask_metadata(&mut client, 12, &[(None, id)]),
        std::slice::from_ref(&unknown)
    );
    // One id, and names don't count; what is asked for twice is answered once.
    let topics = [(Some("t"), none), (Some("u"), id), (None, id)];
    assert_eq!(ask_metadata(&mut client, 13, &topics), [unknown]);
    let topics = [(Some("u"), none), (Some("u"), none), (Some("t"), none)];
    let known = ["u", "t"].map(|name| (ErrorCode::NONE, named(name)));
    assert_eq!(ask_metadata(&mut client, 9, &topics), known);
}

#[test]
fn a_cursor_that_is_none_of_the_requests_is_refused() {
    let (_broker, mut client) = with_topics("refusals-cursor");
    let mut codes = |names: &[&str], topic: &str, partition_index: i32| -> Vec<(i16, usize)> {
        let topics = names.iter().map(|name| TopicRequest {
            name: Str::copied(name),
            ..Default::default()
        });
        let request = DescribeTopicPartitionsRequest {
            topics: topics.collect(),
            cursor: Some(Cursor {
                topic_name: Str::copied(topic),
                partition_index,
                ..Default::default()
            }),
            ..Default::default()
        };
        let answer = client.ask(&request, 0).topics.into_iter();
        answer.map(|t| (t.error_code, t.partitions.len())).collect()
    };
    assert_eq!(codes(&["t", "u"], "t", 1), [(0, 1), (0, 1)]);
    assert_eq!(codes(&[], "t", 1), [(0, 1), (0, 1)]);
    let refused = ErrorCode::INVALID_REQUEST.0;
    assert_eq!(codes(&["u"], "t", 0), [(refused, 0)]);
    assert_eq!(codes(&["t", "u"], "t", -1), [(refused, 0), (refused, 0)]);
}

#[test]
fn a_partition_that_is_listed_twice_is_refused_once() {
    let (_broker, mut client) = with_topics("refusals-twice");
    let partitions = [0, 1, 0].map(|partition_index| ListOffsetsPartition {
        partition_index,
        timestamp: -1,
        ..Default::default()
    });
    let topic = ListOffsetsTopic {
        name: "t".into(),
        partitions: partitions.into(),
        ..Default::default()
    };
    let request = ListOffsetsRequest {
        replica_id: -1,
        topics: vec![topic],
        ..Default::default()
    };
    let answer = client.ask(&request, 8).topics.remove(0).partitions.into_iter();
    let mut answer: Vec<_> = answer
        .map(|p| (p.partition_index, p.error_code, p.offset))
        .collect();
    answer.sort_unstable();
    assert_eq!(answer, [(0, ErrorCode::INVALID_REQUEST.0, -1), (1, 0, 0)]);
}

#[test]
fn an_epoch_that_never_was_is_out_of_range() {
    let (_broker, mut client) = with_topics("refusals-epoch");
    let mut fetch = |current_leader_epoch, last_fetched_epoch| {
        let partition = FetchPartition {
            partition: 0,
            current_leader_epoch,
            last_fetched_epoch,
            partition_max_bytes: 1000,
            ..Default::default()
        };
        let topic = FetchTopic {
            topic: "t".into(),
            partitions: vec![partition],
            ..Default::default()
        };
        let request = FetchRequest {
            max_bytes: 1000,
            topics: vec![topic],
            session_epoch: -1,
            ..Default::default()
        };
        ErrorCode(client.ask(&request, 12).responses[0].partitions[0].error_code)
    };
    assert_eq!(fetch(-1, -1), ErrorCode::NONE);
    assert_eq!(fetch(0, 0), ErrorCode::NONE);
    assert_eq!(fetch(-2, -1), ErrorCode::NONE);
    assert_eq!(fetch(1, -1), ErrorCode::UNKNOWN_LEADER_EPOCH);
    assert_eq!(fetch(0, 99), ErrorCode::OFFSET_OUT_OF_RANGE);
}

#[test]
fn half_a_producers_identity_is_none() {
    let (_broker, mut client) = with_topics("refusals-producer");
    let mut init = |producer_id, producer_epoch| {
        let request = InitProducerIdRequest {
            transactional_id: None,
            producer_id,
            producer_epoch,
            ..Default::default()
        };
        ErrorCode(client.ask(&request, 4).error_code)
    };
    assert_eq!(init(-1, -1), ErrorCode::NONE);
    assert_eq!(init(5, 0), ErrorCode::NONE);
    assert_eq!(init(5, -1), ErrorCode::INVALID_REQUEST);
    assert_eq!(init(-1, 0), ErrorCode::INVALID_REQUEST);
    let mut producers = |name: &str| {
        let topic = describe_producers_request::TopicRequest {
            name: Str::copied(name),
            partition_indexes: vec![0],
            ..Default::default()
        };
        let request = DescribeProducersRequest {
            topics: vec![topic],
            ..Default::default()
        };
        ErrorCode(client.ask(&request, 0).topics[0].partitions[0].error_code)
    };
    assert_eq!(producers("t"), ErrorCode::NONE);
    assert_eq!(producers("nope"), ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
    assert_eq!(producers("a b"), ErrorCode::INVALID_TOPIC_EXCEPTION);
}

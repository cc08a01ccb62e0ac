//! Invalid requests: they get the error codes of Apache Kafka 4.3.0, and the broker continues.

mod common;

use brokkr_types::{ProducerEpoch, ProducerId, Sequence, UnixMillis, Uuid};
use brokkr_wire::messages::create_topics_request::CreatableTopic;
use brokkr_wire::messages::describe_topic_partitions_request::{Cursor, TopicRequest};
use brokkr_wire::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use brokkr_wire::messages::metadata_request::MetadataRequestTopic;
use brokkr_wire::messages::produce_request::{PartitionProduceData, TopicProduceData};
use brokkr_wire::messages::{
    CreateTopicsRequest, DescribeProducersRequest, DescribeTopicPartitionsRequest, ListOffsetsRequest,
    MetadataRequest, ProduceRequest, describe_producers_request,
};
use brokkr_wire::records::BatchBuilder;
use brokkr_wire::{ErrorCode, Str};
use bytes::Bytes;
use common::{Client, Running, fetch_of, fresh_dir, start};

/// A broker with the topics `t` (two partitions, a record in the first) and `u`.
fn with_topics(name: &str) -> (Running, Client) {
    let broker = start(&fresh_dir(name), &[]);
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
    let answer = client.call(&request, version).topics.into_iter();
    answer
        .map(|t| (ErrorCode(t.error_code), t.name.map(|n| n.as_str().to_owned())))
        .collect()
}

#[test]
fn metadata_by_id_in_versions_without_ids_is_rejected_as_a_whole() {
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
    // One id, and names don't count; a topic requested twice is answered once.
    let topics = [(Some("t"), none), (Some("u"), id), (None, id)];
    assert_eq!(ask_metadata(&mut client, 13, &topics), [unknown]);
    let topics = [(Some("u"), none), (Some("u"), none), (Some("t"), none)];
    let known = ["u", "t"].map(|name| (ErrorCode::NONE, named(name)));
    assert_eq!(ask_metadata(&mut client, 9, &topics), known);
}

#[test]
fn a_cursor_that_is_not_in_the_request_is_rejected() {
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
        let answer = client.call(&request, 0).topics.into_iter();
        answer.map(|t| (t.error_code, t.partitions.len())).collect()
    };
    assert_eq!(codes(&["t", "u"], "t", 1), [(0, 1), (0, 1)]);
    assert_eq!(codes(&[], "t", 1), [(0, 1), (0, 1)]);
    let refused = ErrorCode::INVALID_REQUEST.0;
    assert_eq!(codes(&["u"], "t", 0), [(refused, 0)]);
    assert_eq!(codes(&["t", "u"], "t", -1), [(refused, 0), (refused, 0)]);
}

#[test]
fn a_partition_that_is_listed_twice_is_rejected_once() {
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
    let answer = client.call(&request, 8).topics.remove(0).partitions.into_iter();
    let mut answer: Vec<_> = answer
        .map(|p| (p.partition_index, p.error_code, p.offset))
        .collect();
    answer.sort_unstable();
    assert_eq!(answer, [(0, ErrorCode::INVALID_REQUEST.0, -1), (1, 0, 0)]);
}

#[test]
fn an_unknown_last_fetched_epoch_is_out_of_range() {
    let (_broker, mut client) = with_topics("refusals-epoch");
    let mut fetch = |current_leader_epoch, last_fetched_epoch| {
        let mut request = fetch_of("t", 0);
        let requested = &mut request.topics[0].partitions[0];
        (requested.current_leader_epoch, requested.last_fetched_epoch) =
            (current_leader_epoch, last_fetched_epoch);
        ErrorCode(client.call(&request, 12).responses[0].partitions[0].error_code)
    };
    assert_eq!(fetch(-1, -1), ErrorCode::NONE);
    assert_eq!(fetch(0, 0), ErrorCode::NONE);
    assert_eq!(fetch(-2, -1), ErrorCode::NONE);
    assert_eq!(fetch(1, -1), ErrorCode::UNKNOWN_LEADER_EPOCH);
    assert_eq!(fetch(0, 99), ErrorCode::OFFSET_OUT_OF_RANGE);
}

#[test]
fn a_producer_id_needs_an_epoch_and_the_reverse() {
    let (_broker, mut client) = with_topics("refusals-producer");
    let mut init = |id, epoch| client.init_producer_id(id, epoch);
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
        ErrorCode(client.call(&request, 0).topics[0].partitions[0].error_code)
    };
    assert_eq!(producers("t"), ErrorCode::NONE);
    assert_eq!(producers("nope"), ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
    assert_eq!(producers("a b"), ErrorCode::INVALID_TOPIC_EXCEPTION);
}

/// The timestamp of the records.
const MADE: UnixMillis = UnixMillis(1_700_000_000_000);

/// A batch of one record of a producer: its id, epoch and sequence.
fn batch(id: i64, epoch: i16, sequence: i32) -> Vec<u8> {
    let mut builder = BatchBuilder::new().producer(ProducerId(id), ProducerEpoch(epoch), Sequence(sequence));
    builder.push(MADE, None, Some(b"v"), &[]);
    builder.build().bytes.to_vec()
}

/// The result of a partition in a Produce response.
#[derive(PartialEq, Eq, Debug)]
struct Told {
    topic: String,
    index: i32,
    code: ErrorCode,
    base_offset: i64,
    log_append_time: i64,
    log_start: i64,
}

/// A topic's name, and batches by partition.
type ToTopic<'a> = (&'a str, &'a [(i32, Vec<u8>)]);

fn produce(client: &mut Client, topics: &[ToTopic<'_>]) -> Vec<Told> {
    let partition = |(index, records): &(i32, Vec<u8>)| PartitionProduceData {
        index: *index,
        records: Some(Bytes::copy_from_slice(records).into()),
        ..Default::default()
    };
    let topics = topics.iter().map(|(name, partitions)| TopicProduceData {
        name: Str::copied(name),
        partition_data: partitions.iter().map(partition).collect(),
        ..Default::default()
    });
    let request = ProduceRequest {
        acks: -1,
        timeout_ms: 30_000,
        topic_data: topics.collect(),
        ..Default::default()
    };
    let mut actual = Vec::new();
    for topic in client.call(&request, 11).responses {
        actual.extend(topic.partition_responses.iter().map(|p| Told {
            topic: topic.name.as_str().to_owned(),
            index: p.index,
            code: ErrorCode(p.error_code),
            base_offset: p.base_offset,
            log_append_time: p.log_append_time_ms,
            log_start: p.log_start_offset,
        }));
    }
    actual
}

fn codes(actual: &[Told]) -> Vec<(&str, i32, ErrorCode)> {
    actual
        .iter()
        .map(|t| (t.topic.as_str(), t.index, t.code))
        .collect()
}

#[test]
fn a_batch_for_a_partition_that_is_listed_twice_is_not_appended() {
    let (_broker, mut client) = with_topics("refusals-produce-twice");
    let (some, refused) = (|| batch(-1, -1, -1), ErrorCode::INVALID_REQUEST);
    let actual = produce(&mut client, &[("t", &[(1, some()), (0, some()), (1, some())])]);
    assert_eq!(codes(&actual), [("t", 1, refused), ("t", 0, ErrorCode::NONE)]);
    let actual = produce(
        &mut client,
        &[
            ("t", &[(1, some())]),
            ("u", &[(0, some())]),
            ("t", &[(1, some())]),
        ],
    );
    assert_eq!(codes(&actual), [("t", 1, refused), ("u", 0, ErrorCode::NONE)]);
    // Two topics, or one topic's entries with different partitions, are valid.
    let actual = produce(&mut client, &[("t", &[(0, some())]), ("t", &[(1, some())])]);
    assert_eq!(
        codes(&actual),
        [("t", 0, ErrorCode::NONE), ("t", 1, ErrorCode::NONE)]
    );
    let held = |client: &mut Client, name, index| client.read(name, index, 0).expect("readable").0.len();
    assert_eq!(
        [("t", 0), ("t", 1), ("u", 0)].map(|(name, index)| held(&mut client, name, index)),
        [3, 1, 1]
    );
}

#[test]
fn a_batch_that_the_log_rejects_reports_the_log_start() {
    let (_broker, mut client) = with_topics("refusals-log-start");
    assert_eq!(client.produce("t", 0, b"v").error_code, 0);
    assert_eq!(client.delete_records("t", 0, 1), Ok(1));
    let mut refusal = |records: Vec<u8>| {
        let actual = produce(&mut client, &[("t", &[(0, records)])]).remove(0);
        assert_eq!((actual.base_offset, actual.log_append_time), (-1, -1));
        (actual.code, actual.log_start)
    };
    let damaged = || {
        let mut bytes = batch(-1, -1, -1);
        *bytes.last_mut().expect("bytes") ^= 1;
        bytes
    };
    assert_eq!(refusal(batch(7, 0, -1)), (ErrorCode::INVALID_RECORD, 1));
    assert_eq!(refusal(damaged()), (ErrorCode::CORRUPT_MESSAGE, -1));
    assert_eq!(refusal(Vec::new()), (ErrorCode::INVALID_RECORD, -1));
    let two = [batch(-1, -1, -1), batch(-1, -1, -1)].concat();
    assert_eq!(refusal(two), (ErrorCode::INVALID_RECORD, -1));
    let actual = produce(&mut client, &[("t", &[(0, batch(8, 3, 0))])]);
    assert_eq!((actual[0].code, actual[0].base_offset), (ErrorCode::NONE, 2));
    let mut refusal = |epoch, sequence| {
        let actual = produce(&mut client, &[("t", &[(0, batch(8, epoch, sequence))])]).remove(0);
        (actual.code, actual.log_start)
    };
    assert_eq!(refusal(3, 5), (ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER, 1));
    assert_eq!(refusal(2, 0), (ErrorCode::INVALID_PRODUCER_EPOCH, 1));
    assert_eq!(refusal(-1, 2), (ErrorCode::INVALID_PRODUCER_EPOCH, 1));
    assert_eq!(refusal(-1, -1), (ErrorCode::INVALID_RECORD, 1));
}

#[test]
fn a_producer_epoch_of_minus_1_is_only_for_an_unknown_producer() {
    let (_broker, mut client) = with_topics("refusals-epoch-minus-1");
    let mut code = |id, epoch, sequence| {
        let actual = produce(&mut client, &[("u", &[(0, batch(id, epoch, sequence))])]).remove(0);
        (actual.code, actual.base_offset)
    };
    assert_eq!(code(7, -2, 0), (ErrorCode::INVALID_PRODUCER_EPOCH, -1));
    assert_eq!(code(7, -1, 0), (ErrorCode::NONE, 0));
    assert_eq!(code(7, -1, 0), (ErrorCode::NONE, 0), "a duplicate as any other");
    assert_eq!(code(7, -1, 1), (ErrorCode::NONE, 1));
    assert_eq!(code(7, 0, 0), (ErrorCode::NONE, 2));
    assert_eq!(code(7, -1, 2), (ErrorCode::INVALID_PRODUCER_EPOCH, -1));
    // Without a producer id, a batch may have any epoch and sequence.
    assert_eq!(code(-1, -1, 5), (ErrorCode::NONE, 3));
    assert_eq!(code(-1, 5, -1), (ErrorCode::NONE, 4));
}

#[test]
fn a_duplicate_reports_the_originals_largest_timestamp() {
    let (_broker, mut client) = with_topics("refusals-duplicate");
    let late = [
        ("message.timestamp.type", "LogAppendTime"),
        ("retention.ms", "-1"),
    ];
    assert_eq!(client.create("late", 1, &late).0, ErrorCode::NONE);
    let mut append = |name: &str| produce(&mut client, &[(name, &[(0, batch(7, 0, 0))])]).remove(0);
    let (first, again) = (append("u"), append("u"));
    assert_eq!((first.code, first.log_append_time), (ErrorCode::NONE, -1));
    assert_eq!(
        again,
        Told {
            log_append_time: MADE.0,
            ..first
        }
    );
    let first = append("late");
    assert!(first.log_append_time > MADE.0, "{first:?}");
    // At whatever time.
    std::iter::repeat_with(|| append("late"))
        .take(20)
        .for_each(|again| assert_eq!(again, first));
}

#[test]
fn read_committed_has_an_empty_list_of_aborted_transactions() {
    let (_broker, mut client) = with_topics("refusals-read-committed");
    let mut aborted = |isolation_level, topic: &str, fetch_offset| {
        let mut request = fetch_of(topic, 0);
        request.isolation_level = isolation_level;
        request.topics[0].partitions[0].fetch_offset = fetch_offset;
        let actual = client.call(&request, 12).responses.remove(0).partitions.remove(0);
        (
            ErrorCode(actual.error_code),
            actual.aborted_transactions.map(|a| a.len()),
        )
    };
    for (isolation_level, list) in [(0, None), (1, Some(0))] {
        assert_eq!(aborted(isolation_level, "t", 0), (ErrorCode::NONE, list));
        assert_eq!(
            aborted(isolation_level, "t", 1),
            (ErrorCode::NONE, list),
            "at the end"
        );
        let out = (ErrorCode::OFFSET_OUT_OF_RANGE, None);
        assert_eq!(aborted(isolation_level, "t", 99), out);
        let unknown = (ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, Some(0));
        assert_eq!(aborted(isolation_level, "nope", 0), unknown);
    }
}

#[test]
fn new_names_collide_with_existing_ones_only() {
    let (_broker, mut client) = with_topics("refusals-collide");
    let mut create = |names: &[&str]| -> Vec<(String, ErrorCode)> {
        let topics = names.iter().map(|name| CreatableTopic {
            name: Str::copied(name),
            num_partitions: 1,
            replication_factor: 1,
            ..Default::default()
        });
        let request = CreateTopicsRequest {
            topics: topics.collect(),
            timeout_ms: 30_000,
            ..Default::default()
        };
        let actual = client.call(&request, 7).topics.into_iter();
        actual
            .map(|t| (t.name.as_str().to_owned(), ErrorCode(t.error_code)))
            .collect()
    };
    let is = |name: &str, code| (name.to_owned(), code);
    assert_eq!(
        create(&["a.b", "a_b", "c", "c"]),
        [
            is("a.b", ErrorCode::NONE),
            is("a_b", ErrorCode::NONE),
            is("c", ErrorCode::INVALID_REQUEST)
        ]
    );
    assert_eq!(
        create(&["a.b", "a_b", "x.y"]),
        [
            is("a.b", ErrorCode::TOPIC_ALREADY_EXISTS),
            is("a_b", ErrorCode::TOPIC_ALREADY_EXISTS),
            is("x.y", ErrorCode::NONE)
        ]
    );
    assert_eq!(create(&["x_y"]), [is("x_y", ErrorCode::INVALID_TOPIC_EXCEPTION)]);
}

//! Requests about records and offsets.

use super::common::fetch_of;
use super::*;
use brokkr_wire::ErrorCode;
use brokkr_wire::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
use brokkr_wire::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use brokkr_wire::messages::offset_for_leader_epoch_request::{
    OffsetForLeaderPartition, OffsetForLeaderTopic,
};
use brokkr_wire::messages::{
    DeleteRecordsRequest, FetchRequest, FetchResponse, ListOffsetsRequest, OffsetForLeaderEpochRequest,
};

#[test]
fn a_transactional_batch_needs_a_transactional_id() {
    const TRANSACTIONAL: i16 = 0x10;
    let (_broker, mut client) = with_topics("as-kafka-transactional");
    let (plain, ours) = (batch(0, None, MADE), batch(TRANSACTIONAL, Some(7), MADE));
    let unnamed = (ErrorCode::TRANSACTIONAL_ID_AUTHORIZATION_FAILED, -1);
    // One such batch fails the request, before anything else is checked.
    let to = [
        ("e", 0, plain.clone()),
        ("t", 1, ours.clone()),
        ("nope", 0, plain.clone()),
    ];
    assert_eq!(produce(&mut client, None, 5, &to), [unnamed; 3]);
    assert_eq!(
        produce(
            &mut client,
            None,
            -1,
            &[("e", 0, batch(TRANSACTIONAL, None, MADE))]
        ),
        [unnamed]
    );
    // A batch that is not transactional may come with a transactional id. Others need a coordinator.
    let named = produce(&mut client, Some("id"), -1, &[("e", 0, plain), ("t", 1, ours)]);
    assert_eq!(named, [(ErrorCode::NONE, 0), (ErrorCode::INVALID_TXN_STATE, -1)]);
}

#[test]
fn batches_that_kafka_fails_on_have_an_error() {
    let (_broker, mut client) = with_topics("as-kafka-codecs");
    for codec in 5..=7 {
        // Kafka: UNKNOWN_SERVER_ERROR.
        let actual = produce(&mut client, None, -1, &[("e", 0, batch(codec, None, MADE))]);
        assert_eq!(
            actual,
            [(ErrorCode::UNSUPPORTED_COMPRESSION_TYPE, -1)],
            "codec {codec}"
        );
    }
    for codec in 1..=4 {
        // Kafka: UNKNOWN_SERVER_ERROR.
        let actual = produce(&mut client, None, -1, &[("e", 0, batch(codec, None, MADE))]);
        assert_eq!(
            actual,
            [(ErrorCode::INVALID_RECORD, -1)],
            "what is no codec {codec}"
        );
    }
    for bits in [0x40, 0x80] {
        let actual = produce(&mut client, None, -1, &[("e", 0, batch(bits, None, MADE))]);
        assert_eq!(actual[0].0, ErrorCode::NONE, "bits that mean nothing: {bits:#x}");
    }
    for acks in [-2, 2, 5] {
        let to = [("e", 0, batch(0, None, MADE)), ("nope", 0, batch(0, None, MADE))];
        let codes = produce(&mut client, None, acks, &to);
        let expected = [
            ErrorCode::INVALID_REQUIRED_ACKS,
            ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
        ];
        assert_eq!(codes, expected.map(|code| (code, -1)), "acks {acks}");
    }
}

#[test]
fn a_timeout_does_not_bound_the_leaders_own_write() {
    let (_broker, mut client) = with_topics("as-kafka-timeout");
    for (written, timeout_ms) in [i32::MIN, -1, 0, 1].into_iter().enumerate() {
        let actual = produce_within(
            timeout_ms,
            &mut client,
            None,
            -1,
            &[("e", 0, batch(0, None, MADE))],
        );
        assert_eq!(actual, [(ErrorCode::NONE, written as i64)], "{timeout_ms} ms");
    }
}

fn fetch(client: &mut Client, version: i16, change: impl FnOnce(&mut FetchRequest)) -> FetchResponse {
    let mut request = fetch_of("t", 0);
    change(&mut request);
    client.call(&request, version)
}

#[test]
fn a_fetch_with_invalid_values_has_an_error() {
    let (_broker, mut client) = with_topics("as-kafka-fetch");
    let refused = ErrorCode::INVALID_REQUEST.0;
    for isolation_level in [-1, 2, 127] {
        // Kafka: UNKNOWN_SERVER_ERROR.
        for version in [4, 11, 12] {
            let actual = fetch(&mut client, version, |r| r.isolation_level = isolation_level);
            assert_eq!(actual.error_code, if version < 7 { 0 } else { refused });
            assert_eq!(
                actual.responses[0].partitions[0].error_code, refused,
                "version {version}"
            );
            assert_eq!(actual.responses[0].partitions[0].high_watermark, -1);
        }
        let actual = fetch(&mut client, 13, |r| r.isolation_level = isolation_level);
        assert_eq!((actual.error_code, actual.responses.len()), (refused, 0));
    }
    // Kafka: UNKNOWN_SERVER_ERROR for both.
    let actual = fetch(&mut client, 12, |r| r.max_bytes = -1);
    assert_eq!(
        (actual.error_code, actual.responses[0].partitions[0].error_code),
        (refused, refused)
    );
    let actual = fetch(&mut client, 12, |r| {
        r.topics[0].partitions[0].partition_max_bytes = -1
    });
    assert_eq!(
        (actual.error_code, actual.responses[0].partitions[0].error_code),
        (0, refused)
    );
    // These count as absent.
    for (max_wait_ms, min_bytes) in [(-1, 1), (i32::MIN, 1), (0, -1)] {
        let actual = fetch(&mut client, 12, |r| {
            (r.max_wait_ms, r.min_bytes) = (max_wait_ms, min_bytes);
            r.topics[0].partitions[0].fetch_offset = 5;
        });
        assert_eq!(
            (actual.error_code, actual.responses[0].partitions[0].error_code),
            (0, 0)
        );
    }
    // A cluster of one broker has no followers.
    for (epoch, code) in [
        (-1, ErrorCode::NOT_LEADER_OR_FOLLOWER),
        (0, ErrorCode::UNKNOWN_LEADER_EPOCH),
        (7, ErrorCode::UNKNOWN_LEADER_EPOCH),
    ] {
        let actual = fetch(&mut client, 12, |r| {
            r.replica_id = 5;
            r.topics[0].partitions[0].current_leader_epoch = epoch;
        });
        assert_eq!(
            ErrorCode(actual.responses[0].partitions[0].error_code),
            code,
            "epoch {epoch}"
        );
    }
}

/// A result of ListOffsets: topic and partition; code, timestamp, offset, leader epoch.
type Listed = (String, i32, (ErrorCode, i64, i64, i32));

fn list_offsets(
    client: &mut Client,
    version: i16,
    isolation_level: i8,
    of: &[(&'static str, &[(i32, i64)])],
) -> Vec<Listed> {
    let topics = of.iter().map(|(name, partitions)| ListOffsetsTopic {
        name: (*name).into(),
        partitions: partitions
            .iter()
            .map(|(partition_index, timestamp)| ListOffsetsPartition {
                partition_index: *partition_index,
                timestamp: *timestamp,
                ..Default::default()
            })
            .collect(),
        ..Default::default()
    });
    let request = ListOffsetsRequest {
        replica_id: -1,
        isolation_level,
        topics: topics.collect(),
        ..Default::default()
    };
    let mut actual = Vec::new();
    for topic in client.call(&request, version).topics {
        actual.extend(topic.partitions.iter().map(|p| {
            let found = (ErrorCode(p.error_code), p.timestamp, p.offset, p.leader_epoch);
            (topic.name.to_string(), p.partition_index, found)
        }));
    }
    actual
}

#[test]
fn special_timestamps_are_served_from_their_versions_on() {
    let (_broker, mut client) = with_topics("as-kafka-timestamps");
    let (nothing, unknown) = (
        (ErrorCode::NONE, -1, -1, -1),
        (ErrorCode::UNSUPPORTED_VERSION, -1, -1, -1),
    );
    let found = |timestamp, offset| (ErrorCode::NONE, timestamp, offset, 0);
    // The timestamp, the first version that has it, and the results for `t` and `e`.
    let cases = [
        (-9, 99, unknown, unknown),
        (-7, 99, unknown, unknown),
        (-6, 11, nothing, nothing),
        (-5, 9, nothing, nothing),
        (-4, 8, found(-1, 0), found(-1, 0)),
        (-3, 7, found(MADE + 4000, 4), nothing),
        (-2, 1, found(-1, 0), found(-1, 0)),
        (-1, 1, found(-1, 5), found(-1, 0)),
        (0, 1, found(MADE, 0), nothing),
        (MADE + 1500, 1, found(MADE + 2000, 2), nothing),
        (MADE + 4001, 1, nothing, nothing),
    ];
    for (timestamp, since, in_t, in_e) in cases {
        for version in 1..=11 {
            let actual = list_offsets(
                &mut client,
                version,
                0,
                &[("t", &[(0, timestamp)]), ("e", &[(0, timestamp)])],
            );
            let expected = [in_t, in_e].map(|mut found| {
                if version < since {
                    found = unknown;
                }
                if version < 4 {
                    found.3 = -1;
                }
                found
            });
            let actual: Vec<_> = actual.into_iter().map(|(_, _, found)| found).collect();
            assert_eq!(actual, expected, "{timestamp} in version {version}");
        }
    }
}

#[test]
fn a_topic_listed_twice_is_merged() {
    let (_broker, mut client) = with_topics("as-kafka-listed");
    let of = |name: &str, index, code, offset| (name.to_owned(), index, code, offset);
    let short = |actual: Vec<Listed>| {
        actual
            .into_iter()
            .map(|(n, i, f)| (n, i, f.0, f.2))
            .collect::<Vec<_>>()
    };
    let both = list_offsets(
        &mut client,
        8,
        0,
        &[("t", &[(0, -1)]), ("e", &[]), ("t", &[(1, -1)])],
    );
    assert_eq!(
        short(both),
        [of("t", 0, ErrorCode::NONE, 5), of("t", 1, ErrorCode::NONE, 0)]
    );
    let refused = ErrorCode::INVALID_REQUEST;
    let twice = list_offsets(&mut client, 8, 0, &[("t", &[(0, -1)]), ("t", &[(0, -2)])]);
    assert_eq!(short(twice), [of("t", 0, refused, -1)]);
    // Kafka: UNKNOWN_SERVER_ERROR.
    let odd = list_offsets(&mut client, 8, 2, &[("t", &[(0, -1)])]);
    assert_eq!(short(odd), [of("t", 0, refused, -1)]);
    let before = |offsets: &[(i32, i64)]| DeleteRecordsTopic {
        name: "t".into(),
        partitions: offsets
            .iter()
            .map(|(partition_index, offset)| DeleteRecordsPartition {
                partition_index: *partition_index,
                offset: *offset,
                ..Default::default()
            })
            .collect(),
        ..Default::default()
    };
    let request = DeleteRecordsRequest {
        topics: vec![before(&[(0, 4), (1, 0)]), before(&[]), before(&[(0, 3)])],
        timeout_ms: 1000,
        ..Default::default()
    };
    let actual = client.call(&request, 2).topics;
    assert_eq!(actual.len(), 1);
    let low: Vec<_> = actual[0]
        .partitions
        .iter()
        .map(|p| (p.partition_index, p.low_watermark))
        .collect();
    assert_eq!(low, [(0, 3), (1, 0)], "the last of a partition's offsets counts");
}

#[test]
fn records_are_deleted_up_to_the_high_watermark() {
    let (_broker, mut client) = with_topics("as-kafka-delete");
    let out = Err(ErrorCode::OFFSET_OUT_OF_RANGE);
    let cases = [
        (-2, out),
        (2, Ok(2)),
        (1, Ok(2)),
        (99, out),
        (6, out),
        (5, Ok(5)),
        (-1, Ok(5)),
        (0, Ok(5)),
    ];
    for (offset, low) in cases {
        assert_eq!(client.delete_records("t", 0, offset), low, "before {offset}");
    }
    assert_eq!(client.delete_records("e", 0, -1), Ok(0));
    let unknown = Err(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
    assert_eq!(client.delete_records("t", -1, -1), unknown);
    assert_eq!(client.delete_records("t", 9, -1), unknown);
    assert_eq!(client.delete_records("nope", 0, -1), unknown);
    assert_eq!(client.delete_records("", 0, -1), unknown);
}

#[test]
fn epoch_end_offsets() {
    let (_broker, mut client) = with_topics("as-kafka-epochs");
    let mut end = |topic: &'static str, partition, current_leader_epoch, leader_epoch| {
        let requested = OffsetForLeaderPartition {
            partition,
            current_leader_epoch,
            leader_epoch,
            ..Default::default()
        };
        let request = OffsetForLeaderEpochRequest {
            replica_id: -1,
            topics: vec![OffsetForLeaderTopic {
                topic: topic.into(),
                partitions: vec![requested],
                ..Default::default()
            }],
            ..Default::default()
        };
        let actual = client.call(&request, 4).topics.remove(0).partitions.remove(0);
        (
            ErrorCode(actual.error_code),
            actual.leader_epoch,
            actual.end_offset,
        )
    };
    let refused = |code| (code, -1, -1);
    for current in [-1, 0] {
        assert_eq!(end("t", 0, current, 0), (ErrorCode::NONE, 0, 5));
        for unknown in [-1, 1, i32::MAX] {
            assert_eq!(
                end("t", 0, current, unknown),
                refused(ErrorCode::NONE),
                "epoch {unknown}"
            );
        }
    }
    for before in [-2, i32::MIN] {
        assert_eq!(end("t", 0, -1, before), (ErrorCode::NONE, before, 0));
        assert_eq!(end("e", 0, -1, before), (ErrorCode::NONE, before, 0));
    }
    assert_eq!(end("e", 0, -1, 0), (ErrorCode::NONE, 0, 0));
    assert_eq!(end("t", 0, 1, 0), refused(ErrorCode::UNKNOWN_LEADER_EPOCH));
    assert_eq!(end("t", 0, -2, 0), refused(ErrorCode::FENCED_LEADER_EPOCH));
    assert_eq!(end("t", 9, -1, 0), refused(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION));
    assert_eq!(
        end("nope", 0, -1, 0),
        refused(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION)
    );
}

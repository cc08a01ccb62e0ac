//! Odd requests, answered as Apache Kafka 4.3.0 was seen to answer them: the values here are its own.
//!
//! Where Kafka stumbles over a request and answers UNKNOWN_SERVER_ERROR, or nothing at all, this broker says what was wrong;
//! the comment beside such a value says so.

#[path = "../common/mod.rs"]
mod common;
mod configs;
mod records;
mod topics;

use brokkr_types::{ProducerEpoch, ProducerId, Sequence, UnixMillis};
use brokkr_wire::ErrorCode;
use brokkr_wire::messages::ProduceRequest;
use brokkr_wire::messages::produce_request::{PartitionProduceData, TopicProduceData};
use brokkr_wire::records::{BatchBuilder, BatchHeader};
use bytes::Bytes;
use common::{Client, Running, place, start};

/// When the first record was made; each further one is a second younger.
const MADE: i64 = 1_700_000_000_000;

/// A batch of one record, with these attributes besides.
fn batch(attributes: i16, producer: Option<i64>, at: i64) -> Bytes {
    let mut builder = BatchBuilder::new();
    if let Some(id) = producer {
        builder = builder.producer(ProducerId(id), ProducerEpoch(0), Sequence(0));
    }
    builder.push(UnixMillis(at), None, Some(b"v"), &[]);
    let mut bytes = builder.build().bytes.to_vec();
    let (header, records) = bytes.split_first_chunk_mut().expect("a header");
    let mut odd = BatchHeader::decode(header).expect("a header");
    odd.attributes.0 |= attributes;
    odd.crc = odd.compute_crc(records);
    odd.encode(header);
    bytes.into()
}

/// What each partition of a Produce answers: code and base offset.
fn produce(
    client: &mut Client,
    transactional_id: Option<&'static str>,
    acks: i16,
    to: &[(&'static str, i32, Bytes)],
) -> Vec<(ErrorCode, i64)> {
    produce_within(30_000, client, transactional_id, acks, to)
}

fn produce_within(
    timeout_ms: i32,
    client: &mut Client,
    transactional_id: Option<&'static str>,
    acks: i16,
    to: &[(&'static str, i32, Bytes)],
) -> Vec<(ErrorCode, i64)> {
    let topics = to.iter().map(|(name, index, records)| TopicProduceData {
        name: (*name).into(),
        partition_data: vec![PartitionProduceData {
            index: *index,
            records: Some(records.clone().into()),
            ..Default::default()
        }],
        ..Default::default()
    });
    let request = ProduceRequest {
        transactional_id: transactional_id.map(Into::into),
        acks,
        timeout_ms,
        topic_data: topics.collect(),
        ..Default::default()
    };
    let answer = client.ask(&request, 12).responses.into_iter();
    let partitions = answer.flat_map(|t| t.partition_responses);
    partitions
        .map(|p| (ErrorCode(p.error_code), p.base_offset))
        .collect()
}

/// A broker with the topics `t` (two partitions, five records in the first) and `e` (nothing in it).
fn with_topics(name: &str) -> (Running, Client) {
    let broker = start(&place(name), &[]);
    let mut client = broker.client();
    for (name, partitions) in [("t", 2), ("e", 1)] {
        let code = client.create(name, partitions, &[("retention.ms", "-1")]).0;
        assert_eq!(code, ErrorCode::NONE);
    }
    for i in 0..5 {
        let told = produce(
            &mut client,
            None,
            -1,
            &[("t", 0, batch(0, None, MADE + i * 1000))],
        );
        assert_eq!(told, [(ErrorCode::NONE, i)]);
    }
    (broker, client)
}

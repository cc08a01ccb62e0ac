//! Unusual requests, answered as Apache Kafka 4.3.0 answers them: the expected values were observed there.
//!
//! Where Kafka fails with UNKNOWN_SERVER_ERROR, or does not answer, this broker returns a specific error; a comment beside
//! the value says so.

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
use common::{Client, Running, fresh_dir, start};

/// The timestamp of the first record; each further one is a second earlier.
const MADE: i64 = 1_700_000_000_000;

/// A batch of one record, with these attribute bits set as well.
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

/// The results of a Produce: code and base offset of each partition.
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
    let answer = client.call(&request, 12).responses.into_iter();
    let partitions = answer.flat_map(|t| t.partition_responses);
    partitions
        .map(|p| (ErrorCode(p.error_code), p.base_offset))
        .collect()
}

/// A broker with the topics `t` (two partitions, five records in the first) and `e` (empty).
fn with_topics(name: &str) -> (Running, Client) {
    let broker = start(&fresh_dir(name), &[]);
    let mut client = broker.client();
    for (name, partitions) in [("t", 2), ("e", 1)] {
        let code = client.create(name, partitions, &[("retention.ms", "-1")]).0;
        assert_eq!(code, ErrorCode::NONE);
    }
    for i in 0..5 {
        let actual = produce(
            &mut client,
            None,
            -1,
            &[("t", 0, batch(0, None, MADE + i * 1000))],
        );
        assert_eq!(actual, [(ErrorCode::NONE, i)]);
    }
    (broker, client)
}

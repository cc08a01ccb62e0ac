//! Produce requests encoded once, and checks of their responses.
//!
//! ```text
//!   head: size, header (correlation id at 8), topic, partition index, length of the records   one for each partition
//!   batch                                                                                     the same for all
//!   tail: tags
//! ```
//! Sending a request patches four bytes; an idempotent one also its sequence and CRC. Responses differ only in correlation
//! id, partition and base offset, so all their other bytes are compared with a template.

use crate::client::{PRODUCE_VERSION, request_bytes};
use crate::error::BenchError;
use brokkr_types::{ProducerEpoch, ProducerId, Sequence, UnixMillis};
use brokkr_wire::messages::produce_request::{PartitionProduceData, ProduceRequest, TopicProduceData};
use brokkr_wire::messages::produce_response::{
    PartitionProduceResponse, ProduceResponse, TopicProduceResponse,
};
use brokkr_wire::records::header::{BASE_SEQUENCE_AT, CRC_AT};
use brokkr_wire::records::{BatchBuilder, BatchHeader, HEADER_LEN};
use brokkr_wire::{ApiKey, Message, Part, Reader, Request, Str, frame};
use bytes::Bytes;
use std::time::SystemTime;

const CORRELATION_ID_AT: usize = 8;

/// Shape of a produce request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shape {
    /// Records in a batch; a request has one batch.
    pub records: i32,
    /// Bytes of a record's value; it has no key.
    pub value_bytes: usize,
}

/// The produce requests of one connection to one topic.
pub struct Frames {
    heads: Vec<Vec<u8>>,
    batch: Vec<u8>,
    tail: Vec<u8>,
    header: BatchHeader,
    sequences: Option<Vec<Sequence>>,
}

impl Frames {
    /// Frames for all partitions of a topic; with a producer id the batches are idempotent.
    pub fn new(
        topic: &str,
        partitions: i32,
        shape: Shape,
        producer: Option<(i64, i16)>,
    ) -> Result<Self, BenchError> {
        let batch = batch(shape, producer);
        let mut heads = Vec::new();
        let mut tail = Vec::new();
        for index in 0..partitions {
            let bytes = request_bytes(
                &produce_request(topic, index, batch.bytes.clone()),
                PRODUCE_VERSION,
                0,
            )?;
            let Some(at) = bytes
                .windows(HEADER_LEN)
                .position(|window| window == &batch.bytes[..HEADER_LEN])
            else {
                return Err(BenchError::Wire("the request does not contain its batch".into()));
            };
            heads.push(bytes[..at].to_vec());
            tail = bytes[at + batch.bytes.len()..].to_vec();
        }
        Ok(Self {
            sequences: producer.map(|_| vec![Sequence(0); heads.len()]),
            heads,
            header: batch.header,
            batch: batch.bytes.to_vec(),
            tail,
        })
    }

    /// Bytes of the batch in each request.
    pub fn batch_bytes(&self) -> usize {
        self.batch.len()
    }

    /// The next request to a partition, in three pieces.
    pub fn next(&mut self, partition: usize, correlation_id: i32) -> [&[u8]; 3] {
        let head = &mut self.heads[partition];
        head[CORRELATION_ID_AT..CORRELATION_ID_AT + 4].copy_from_slice(&correlation_id.to_be_bytes());
        if let Some(sequences) = &mut self.sequences {
            let next = &mut sequences[partition];
            self.header.base_sequence = *next;
            let crc = self.header.compute_crc(&self.batch[HEADER_LEN..]);
            self.batch[BASE_SEQUENCE_AT..BASE_SEQUENCE_AT + 4].copy_from_slice(&next.0.to_be_bytes());
            self.batch[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_be_bytes());
            *next = next.plus(self.header.records_count);
        }
        [&self.heads[partition], &self.batch, &self.tail]
    }
}

fn batch(shape: Shape, producer: Option<(i64, i16)>) -> brokkr_wire::records::Batch {
    let now = SystemTime::UNIX_EPOCH.elapsed().map_or(0, |d| d.as_millis());
    let now = UnixMillis(i64::try_from(now).unwrap_or(i64::MAX));
    let mut builder = BatchBuilder::new();
    if let Some((id, epoch)) = producer {
        builder = builder.producer(ProducerId(id), ProducerEpoch(epoch), Sequence(0));
    }
    let mut noise = 0x9e37_79b9_7f4a_7c15_u64;
    for _ in 0..shape.records {
        let value: Vec<u8> = (0..shape.value_bytes)
            .map(|_| {
                noise ^= noise << 13;
                noise ^= noise >> 7;
                noise ^= noise << 17;
                noise as u8
            })
            .collect();
        builder.push(now, None, Some(&value), &[]);
    }
    builder.build()
}

fn produce_request(topic: &str, index: i32, records: Bytes) -> ProduceRequest {
    ProduceRequest {
        acks: -1,
        timeout_ms: 60_000,
        topic_data: vec![TopicProduceData {
            name: Str::copied(topic),
            partition_data: vec![PartitionProduceData {
                index,
                records: Some(records.into()),
                ..PartitionProduceData::default()
            }],
            ..TopicProduceData::default()
        }],
        ..ProduceRequest::default()
    }
}

/// Checks the responses to [`Frames`].
pub struct ResponseChecker {
    /// An expected response without its size field, with zeros in the fields that vary.
    template: Vec<u8>,
    index_at: usize,
    base_offset_at: usize,
}

impl ResponseChecker {
    /// Expects responses about a topic whose log starts at 0.
    pub fn new(topic: &str) -> Result<Self, BenchError> {
        const INDEX: i32 = 0x5ca1_ab1e;
        const BASE_OFFSET: i64 = 0x0b5e_55ed_0ff5_e75a;
        let response = ProduceResponse {
            responses: vec![TopicProduceResponse {
                name: Str::copied(topic),
                partition_responses: vec![PartitionProduceResponse {
                    index: INDEX,
                    base_offset: BASE_OFFSET,
                    log_start_offset: 0,
                    ..PartitionProduceResponse::default()
                }],
                ..TopicProduceResponse::default()
            }],
            ..ProduceResponse::default()
        };
        let mut template = Vec::new();
        for part in frame::encode_response(&response, ApiKey::Produce, PRODUCE_VERSION, 0)? {
            if let Part::Bytes(part) = part {
                template.extend_from_slice(&part);
            }
        }
        template.drain(..4);
        let find = |wanted: &[u8]| template.windows(wanted.len()).position(|w| w == wanted);
        let (Some(index_at), Some(base_offset_at)) =
            (find(&INDEX.to_be_bytes()), find(&BASE_OFFSET.to_be_bytes()))
        else {
            return Err(BenchError::Wire(
                "the response does not contain its offset".into(),
            ));
        };
        template[index_at..index_at + 4].fill(0);
        template[base_offset_at..base_offset_at + 8].fill(0);
        Ok(Self {
            template,
            index_at,
            base_offset_at,
        })
    }

    /// The base offset in a response (without its size field), if it answers this request.
    pub fn base_offset(&self, answer: &[u8], correlation_id: i32, index: i32) -> Result<i64, BenchError> {
        if let Some(offset) = self.base_offset_of_usual(answer, correlation_id, index) {
            return Ok(offset);
        }
        let mut reader = Reader::new(Bytes::copy_from_slice(answer));
        let header = frame::decode_response_header(&mut reader, ProduceRequest::API_KEY, PRODUCE_VERSION)?;
        if header.correlation_id != correlation_id {
            return Err(BenchError::Check(format!(
                "got the response to produce request {} instead of {correlation_id}",
                header.correlation_id
            )));
        }
        let response = ProduceResponse::decode(&mut reader, PRODUCE_VERSION)?;
        let mut partitions = response.responses.iter().flat_map(|t| &t.partition_responses);
        let (Some(partition), None) = (partitions.next(), partitions.next()) else {
            return Err(BenchError::Check(
                "the response to a produce to one partition is about others".into(),
            ));
        };
        BenchError::check(partition.error_code, || {
            format!(
                "produce to partition {index}: {}",
                partition.error_message.as_deref().unwrap_or_default()
            )
        })?;
        if partition.index != index {
            let problem = format!(
                "produce to partition {index}, response for partition {}",
                partition.index
            );
            return Err(BenchError::Check(problem));
        }
        Ok(partition.base_offset)
    }

    fn base_offset_of_usual(&self, answer: &[u8], correlation_id: i32, index: i32) -> Option<i64> {
        let (index_end, offset_end) = (self.index_at + 4, self.base_offset_at + 8);
        let same = answer.len() == self.template.len()
            && answer[..4] == correlation_id.to_be_bytes()
            && answer[4..self.index_at] == self.template[4..self.index_at]
            && answer[self.index_at..index_end] == index.to_be_bytes()
            && answer[index_end..self.base_offset_at] == self.template[index_end..self.base_offset_at]
            && answer[offset_end..] == self.template[offset_end..];
        if !same {
            return None;
        }
        let offset = answer[self.base_offset_at..offset_end].try_into().ok()?;
        Some(i64::from_be_bytes(offset))
    }
}

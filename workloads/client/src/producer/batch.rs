//! A batch of records in the producer.

use brokkr_env::Instant;
use brokkr_types::{Offset, ProducerEpoch, ProducerId, Sequence, UnixMillis, Uuid};
use brokkr_wire::records::{BatchBuilder, CompressionType, Header};
use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::config::Acks;
use super::delivery::{Ack, AckedBatch, SendError, SendResult};
use super::record::ProducerRecord;
use crate::Error;

/// Identifies a batch within its producer.
pub(super) type BatchId = u64;

/// The producer id and epoch of a batch's sequences.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Identity {
    pub id: ProducerId,
    pub epoch: ProducerEpoch,
}

/// State of a batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum BatchState {
    /// Accepts records until it is full or this instant, when it is due.
    Open(Instant),
    /// Waits to be sent, not before this instant.
    Due(Instant),
    /// Sent and not answered yet.
    InFlight,
}

struct PendingRecord {
    result_sender: oneshot::Sender<SendResult>,
    _memory_permit: OwnedSemaphorePermit,
}

pub(super) struct Batch {
    pub id: BatchId,
    pub state: BatchState,
    /// When it is given up.
    pub deadline: Instant,
    /// How often it was sent.
    pub attempts: u32,
    /// Whether one of these attempts may have written it.
    pub maybe_written: bool,
    /// The broker's last error, if it was that the sequence does not follow.
    pub gap: Option<Error>,
    /// Whether the broker reported that although this batch was the next one.
    pub refused_as_gap: bool,
    /// The id of the topic it was last sent to; zero if it was sent by name.
    pub topic_id: Uuid,
    /// Its identity and first sequence, once it was sent.
    pub sequenced: Option<(Identity, Sequence)>,
    builder: BatchBuilder,
    pending: Vec<PendingRecord>,
    encoded: Option<Bytes>,
}

impl Batch {
    pub fn new(id: BatchId, opened: Instant, deadline: Instant, codec: CompressionType) -> Self {
        Self {
            id,
            state: BatchState::Open(opened),
            deadline,
            attempts: 0,
            maybe_written: false,
            gap: None,
            refused_as_gap: false,
            topic_id: Uuid::ZERO,
            sequenced: None,
            builder: BatchBuilder::new().compression(codec, codec.default_level()),
            pending: Vec::new(),
            encoded: None,
        }
    }

    /// Whether the batch stays within its limits with this record. An empty batch accepts any record.
    pub fn has_room_for(&self, record: &ProducerRecord, bytes_max: usize, records_max: usize) -> bool {
        let fits = self.pending.is_empty() || self.size_bytes() + record.size_bytes() <= bytes_max;
        matches!(self.state, BatchState::Open(_)) && self.pending.len() < records_max && fits
    }

    pub fn push(
        &mut self,
        record: &ProducerRecord,
        timestamp: UnixMillis,
        result_sender: oneshot::Sender<SendResult>,
        memory_permit: OwnedSemaphorePermit,
    ) {
        let headers = record.headers.iter().map(|(key, value)| Header {
            key,
            value: value.as_deref(),
        });
        let headers: Vec<Header<'_>> = headers.collect();
        self.builder.push(
            timestamp,
            record.key.as_deref(),
            record.value.as_deref(),
            &headers,
        );
        self.pending.push(PendingRecord {
            result_sender,
            _memory_permit: memory_permit,
        });
    }

    pub fn records_count(&self) -> i32 {
        self.builder.records_count()
    }

    pub fn size_bytes(&self) -> usize {
        self.builder.size_bytes()
    }

    /// The last record's sequence.
    pub fn last_sequence(&self) -> Option<Sequence> {
        let count = self.records_count();
        self.sequenced.map(|(_, base)| base.plus(count - 1))
    }

    pub fn is_in_flight(&self) -> bool {
        self.state == BatchState::InFlight
    }

    /// Whether all its records have an outcome. It may still be in flight.
    pub fn has_outcome(&self) -> bool {
        self.pending.is_empty()
    }

    /// Assigns its sequence, or none for a plain producer.
    pub fn sequence(&mut self, sequenced: Option<(Identity, Sequence)>) {
        let builder = std::mem::take(&mut self.builder);
        self.builder = match sequenced {
            Some((identity, base)) => builder.producer(identity.id, identity.epoch, base),
            None => builder.producer(ProducerId::NONE, ProducerEpoch(-1), Sequence::NONE),
        };
        self.sequenced = sequenced;
        self.encoded = None;
    }

    /// The encoded batch, the same bytes each time until it gets another sequence.
    pub fn encode(&mut self) -> Bytes {
        let builder = &self.builder;
        self.encoded.get_or_insert_with(|| builder.build().bytes).clone()
    }

    pub fn acknowledge(&mut self, base_offset: Option<Offset>, append_time: Option<UnixMillis>, acks: Acks) {
        let (identity, base_sequence) = match self.sequenced {
            Some((identity, base)) => (Some(identity), base),
            None => (None, Sequence::NONE),
        };
        let batch = AckedBatch {
            topic_id: self.topic_id,
            producer_id: identity.map_or(ProducerId::NONE, |w| w.id),
            producer_epoch: identity.map_or(ProducerEpoch(-1), |w| w.epoch),
            base_sequence,
            base_offset,
            records_count: self.records_count(),
            acks,
            attempts: self.attempts,
            refused_as_gap: self.refused_as_gap,
        };
        for (i, pending) in self.pending.drain(..).enumerate() {
            let ack = Ack {
                offset: base_offset.map(|base| base.plus(i as i64)),
                log_append_time: append_time,
                batch,
            };
            // The caller may have dropped the delivery.
            drop(pending.result_sender.send(Ok(ack)));
        }
    }

    /// Fails its records: with [`SendError::Fail`] if no attempt may have written them.
    pub fn fail(&mut self, cause: &Error) {
        let maybe_written = self.maybe_written || self.is_in_flight();
        for pending in self.pending.drain(..) {
            let e = if maybe_written {
                SendError::Info(cause.clone())
            } else {
                SendError::Fail(cause.clone())
            };
            drop(pending.result_sender.send(Err(e)));
        }
    }
}

//! Records that are sent together.

use brokkr_env::Instant;
use brokkr_types::{Offset, ProducerEpoch, ProducerId, Sequence, UnixMillis, Uuid};
use brokkr_wire::records::{BatchBuilder, CompressionType, Header};
use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::{Ack, AckedBatch, Acks, ProducerRecord, SendError, Told};
use crate::Error;

/// A batch, among those of its producer.
pub(super) type BatchId = u64;

/// Whose sequences a batch has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Identity {
    pub id: ProducerId,
    pub epoch: ProducerEpoch,
}

/// Where a batch stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Place {
    /// Takes more records until it is full or this time has come, when it is due.
    Open(Instant),
    /// To be sent, not before this.
    Due(Instant),
    /// Sent, unanswered.
    InFlight,
}

struct Waiting {
    tell: oneshot::Sender<Told>,
    _buffered: OwnedSemaphorePermit,
}

pub(super) struct Batch {
    pub id: BatchId,
    pub place: Place,
    /// When it is given up.
    pub deadline: Instant,
    /// How often it was sent.
    pub attempts: u32,
    /// Whether one of these attempts may have written it.
    pub unclear: bool,
    /// What the broker last said of it, if it was that its sequence is not the next one.
    pub gap: Option<Error>,
    /// Whether it said so though it is the next one.
    pub refused_as_gap: bool,
    /// Which topic it was last sent to, zero if only by its name.
    pub topic_id: Uuid,
    /// Whose it is, and its first record's sequence, once it was sent.
    pub sequenced: Option<(Identity, Sequence)>,
    builder: BatchBuilder,
    waiting: Vec<Waiting>,
    encoded: Option<Bytes>,
}

impl Batch {
    pub fn new(id: BatchId, opened: Instant, deadline: Instant, codec: CompressionType) -> Self {
        Self {
            id,
            place: Place::Open(opened),
            deadline,
            attempts: 0,
            unclear: false,
            gap: None,
            refused_as_gap: false,
            topic_id: Uuid::ZERO,
            sequenced: None,
            builder: BatchBuilder::new().compression(codec, codec.default_level()),
            waiting: Vec::new(),
            encoded: None,
        }
    }

    /// Whether a record more keeps it within its limits. An empty batch takes any.
    pub fn has_room_for(&self, record: &ProducerRecord, bytes_max: usize, records_max: usize) -> bool {
        let fits = self.waiting.is_empty() || self.size_bytes() + record.size_bytes() <= bytes_max;
        matches!(self.place, Place::Open(_)) && self.waiting.len() < records_max && fits
    }

    pub fn push(
        &mut self,
        record: &ProducerRecord,
        timestamp: UnixMillis,
        tell: oneshot::Sender<Told>,
        buffered: OwnedSemaphorePermit,
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
        self.waiting.push(Waiting {
            tell,
            _buffered: buffered,
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
        self.place == Place::InFlight
    }

    /// Whether everybody who waited for it was told. It may still be in flight.
    pub fn is_told(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Gives it its sequence (or, for a plain producer, none).
    pub fn sequence(&mut self, sequenced: Option<(Identity, Sequence)>) {
        let builder = std::mem::take(&mut self.builder);
        self.builder = match sequenced {
            Some((who, base)) => builder.producer(who.id, who.epoch, base),
            None => builder.producer(ProducerId::NONE, ProducerEpoch(-1), Sequence::NONE),
        };
        self.sequenced = sequenced;
        self.encoded = None;
    }

    /// The batch as it is sent, the same bytes each time until it gets another sequence.
    pub fn encode(&mut self) -> Bytes {
        let builder = &self.builder;
        self.encoded.get_or_insert_with(|| builder.build().bytes).clone()
    }

    pub fn acknowledge(&mut self, base_offset: Option<Offset>, append_time: Option<UnixMillis>, acks: Acks) {
        let (who, base_sequence) = match self.sequenced {
            Some((who, base)) => (Some(who), base),
            None => (None, Sequence::NONE),
        };
        let batch = AckedBatch {
            topic_id: self.topic_id,
            producer_id: who.map_or(ProducerId::NONE, |w| w.id),
            producer_epoch: who.map_or(ProducerEpoch(-1), |w| w.epoch),
            base_sequence,
            base_offset,
            records_count: self.records_count(),
            acks,
            attempts: self.attempts,
            refused_as_gap: self.refused_as_gap,
        };
        for (i, waiting) in self.waiting.drain(..).enumerate() {
            let ack = Ack {
                offset: base_offset.map(|base| base.plus(i as i64)),
                log_append_time: append_time,
                batch,
            };
            // Who sent it may not want to know any more.
            drop(waiting.tell.send(Ok(ack)));
        }
    }

    /// Tells that it has failed: for sure if no attempt may have written it.
    pub fn fail(&mut self, cause: &Error) {
        let unclear = self.unclear || self.is_in_flight();
        for waiting in self.waiting.drain(..) {
            let e = if unclear {
                SendError::Info(cause.clone())
            } else {
                SendError::Fail(cause.clone())
            };
            drop(waiting.tell.send(Err(e)));
        }
    }
}

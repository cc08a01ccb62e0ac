//! State of idempotent producers: the last five batches of each (KIP-98; I1, I2, I3).
//!
//! The rules are those of Kafka's `ProducerAppendInfo`:
//! - a batch with the same sequences as one in the window is a duplicate: the response has its first offset (P2);
//! - a batch must begin at the sequence after the last one, where 0 follows `i32::MAX` (P3), or at 0 in a new epoch;
//! - a producer without state may begin at any sequence: its state may have been removed with its records;
//! - an older epoch is refused.
//!
//! One rule differs from Kafka: a producer expires after `producer.id.expiration.ms` without an *append*, by this
//! node's monotonic clock. Kafka compares record timestamps with the wall clock, so a producer that writes old
//! records, or a clock that is set, ends the protection early (P6, P10).

use std::collections::BTreeMap;
use std::time::Duration;

use brokkr_types::{Instant, Offset, ProducerEpoch, ProducerId, Sequence, UnixMillis};
use brokkr_wire::records::BatchHeader;

use crate::error::SequenceError;

mod budget;
pub use budget::ProducerBudget;
pub(crate) use budget::ProducerUsage;

/// Batches that a client may have in flight, and so may retry (P1).
pub const WINDOW_BATCHES: usize = 5;

/// An appended batch, as kept in its producer's window.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct BatchMeta {
    /// The sequence of its last record.
    pub last_sequence: Sequence,
    /// The offset of its last record.
    pub last_offset: Offset,
    /// Its number of records minus 1.
    pub offset_delta: i32,
    /// Its largest timestamp.
    pub timestamp: UnixMillis,
}

impl BatchMeta {
    /// The sequence of its first record.
    pub fn first_sequence(&self) -> Sequence {
        self.last_sequence.plus(-self.offset_delta)
    }

    /// The offset of its first record.
    pub fn first_offset(&self) -> Offset {
        self.last_offset.plus(-i64::from(self.offset_delta))
    }
}

/// The last batches of a producer's current epoch, oldest first.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Window {
    batches: [BatchMeta; WINDOW_BATCHES],
    len: u8,
}

impl Window {
    /// The batches, oldest first.
    pub fn batches(&self) -> &[BatchMeta] {
        &self.batches[..usize::from(self.len)]
    }

    /// Adds a batch; removes the oldest of five.
    pub(crate) fn push(&mut self, batch: BatchMeta) {
        if usize::from(self.len) == WINDOW_BATCHES {
            self.batches.rotate_left(1);
            self.len -= 1;
        }
        self.batches[usize::from(self.len)] = batch;
        self.len += 1;
    }

    fn last_sequence(&self) -> Sequence {
        self.batches().last().map_or(Sequence::NONE, |b| b.last_sequence)
    }
}

/// The state of a producer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Producer {
    /// Its latest producer epoch.
    pub epoch: ProducerEpoch,
    /// The epoch of the coordinator that ended its last transaction; -1 if none did.
    pub coordinator_epoch: i32,
    /// The largest timestamp of its last batch.
    pub last_timestamp: UnixMillis,
    /// The first offset of its open transaction.
    pub transaction_start: Option<Offset>,
    /// Its last batches.
    pub window: Window,
    /// When it last appended or was loaded, by the monotonic clock.
    pub last_seen: Instant,
}

/// A transaction marker.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EndTxnMarker {
    /// The epoch of the coordinator that wrote it.
    pub coordinator_epoch: i32,
}

/// Which checks a batch's producer fields still need.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ProducerChecks {
    /// Sent by a producer: epoch and sequence.
    All,
    /// Sent by a coordinator on this broker, without sequences: the epoch.
    EpochOnly,
    /// Replicated from a leader, or read from the log: checked before.
    None,
}

/// Undoes one [`Producers::apply`].
#[derive(Clone, Debug)]
pub(crate) struct ProducerUndo {
    id: ProducerId,
    before: Option<Producer>,
}

/// The producers of a log.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Producers {
    by_id: BTreeMap<ProducerId, Producer>,
}

impl Producers {
    /// The state of a producer.
    pub fn get(&self, id: ProducerId) -> Option<&Producer> {
        self.by_id.get(&id)
    }

    /// All producers, by id.
    pub fn iter(&self) -> impl Iterator<Item = (ProducerId, &Producer)> {
        self.by_id.iter().map(|(id, p)| (*id, p))
    }

    /// The number of producers.
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// Checks a batch of an idempotent producer. `Ok(Some(…))` is the batch that it duplicates.
    pub(crate) fn check(
        &self,
        header: &BatchHeader,
        marker: Option<EndTxnMarker>,
        checks: ProducerChecks,
    ) -> Result<Option<BatchMeta>, SequenceError> {
        let id = header.producer_id;
        if checks == ProducerChecks::None {
            return Ok(None);
        }
        let Some(known) = self.by_id.get(&id) else {
            // As in Kafka, an unknown producer is at epoch -1.
            return check_epoch(id, header.producer_epoch, ProducerEpoch(-1)).map(|()| None);
        };
        if checks == ProducerChecks::All && header.producer_epoch == known.epoch {
            let (first, last) = (header.base_sequence, header.last_sequence());
            let same = |b: &&BatchMeta| b.first_sequence() == first && b.last_sequence == last;
            // The latest: where the producer's state had expired, the log may have the batch twice.
            if let Some(duplicate) = known.window.batches().iter().rev().find(same) {
                return Ok(Some(*duplicate));
            }
        }
        check_epoch(id, header.producer_epoch, known.epoch)?;
        if let Some(marker) = marker {
            let (epoch, latest) = (marker.coordinator_epoch, known.coordinator_epoch);
            return if epoch < latest {
                Err(SequenceError::CoordinatorFenced {
                    producer: id,
                    epoch,
                    latest,
                })
            } else {
                Ok(None)
            };
        }
        if checks == ProducerChecks::All {
            check_sequence(id, known, header)?;
        }
        if known.transaction_start.is_some() && !header.attributes.is_transactional() {
            return Err(SequenceError::NotInTransaction(id));
        }
        Ok(None)
    }

    /// Adds a checked batch, with its offset assigned.
    pub(crate) fn apply(
        &mut self,
        header: &BatchHeader,
        marker: Option<EndTxnMarker>,
        now: Instant,
    ) -> ProducerUndo {
        let id = header.producer_id;
        let before = self.by_id.get(&id).cloned();
        let producer = self.by_id.entry(id).or_insert(Producer {
            epoch: header.producer_epoch,
            coordinator_epoch: -1,
            last_timestamp: UnixMillis::NONE,
            transaction_start: None,
            window: Window::default(),
            last_seen: now,
        });
        if producer.epoch != header.producer_epoch {
            producer.epoch = header.producer_epoch;
            producer.window = Window::default();
        }
        producer.last_seen = now;
        producer.last_timestamp = header.max_timestamp;
        if let Some(marker) = marker {
            producer.coordinator_epoch = marker.coordinator_epoch;
            producer.transaction_start = None;
        } else {
            producer.window.push(BatchMeta {
                last_sequence: header.last_sequence(),
                last_offset: header.last_offset(),
                offset_delta: header.last_offset_delta,
                timestamp: header.max_timestamp,
            });
            if header.attributes.is_transactional() && producer.transaction_start.is_none() {
                producer.transaction_start = Some(header.base_offset);
            }
        }
        ProducerUndo { id, before }
    }

    /// Undoes an [`Producers::apply`]. The latest one must be undone first.
    pub(crate) fn undo(&mut self, undo: ProducerUndo) {
        match undo.before {
            Some(before) => self.by_id.insert(undo.id, before),
            None => self.by_id.remove(&undo.id),
        };
    }

    /// Removes producers without an append for `after`, except those with an open transaction.
    pub(crate) fn expire(&mut self, now: Instant, after: Duration) {
        let before = self.by_id.len();
        self.by_id
            .retain(|_, p| p.transaction_start.is_some() || now.saturating_since(p.last_seen) < after);
        if self.by_id.len() < before {
            brokkr_types::reached!("a producer's state expired");
        }
    }

    /// Removes the `count` producers without an open transaction that appended longest ago.
    pub(crate) fn remove_oldest(&mut self, count: usize) {
        let idle = self.by_id.iter().filter(|(_, p)| p.transaction_start.is_none());
        let mut idle: Vec<_> = idle.map(|(id, p)| (p.last_seen, *id)).collect();
        if count < idle.len() {
            idle.select_nth_unstable(count);
            idle.truncate(count);
        }
        for (_, id) in idle {
            self.by_id.remove(&id);
        }
        brokkr_types::reached!("producers were forgotten to make room");
    }

    /// Adds a producer from a snapshot, unless it is known already.
    pub(crate) fn load(&mut self, id: ProducerId, producer: Producer) {
        self.by_id.entry(id).or_insert(producer);
    }
}

fn check_epoch(
    producer: ProducerId,
    epoch: ProducerEpoch,
    latest: ProducerEpoch,
) -> Result<(), SequenceError> {
    if epoch < latest {
        Err(SequenceError::StaleEpoch {
            producer,
            epoch,
            latest,
        })
    } else {
        Ok(())
    }
}

fn check_sequence(id: ProducerId, known: &Producer, header: &BatchHeader) -> Result<(), SequenceError> {
    let first = header.base_sequence;
    let (last, follows) = if header.producer_epoch == known.epoch {
        let last = known.window.last_sequence();
        // 0 follows -1, which stands for no batch in this epoch.
        (last, first == last.plus(1))
    } else {
        (Sequence::NONE, first == Sequence(0))
    };
    if follows {
        Ok(())
    } else {
        brokkr_types::reached!("a gap in a producer's sequence was refused");
        Err(SequenceError::OutOfOrder {
            producer: id,
            sequence: first,
            last,
        })
    }
}

#[cfg(test)]
mod tests;

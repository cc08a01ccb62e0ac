//! What is known of each idempotent producer: its last five batches (KIP-98; DESIGN.md I1, I2, I3).
//!
//! The rules are those of Kafka's `ProducerAppendInfo`:
//! - a batch of the window again, sequence by sequence, is a duplicate: answered with its first offset (P2);
//! - a batch must begin where the last one ended, `i32::MAX` being followed by 0 (P3); in a new epoch, at 0;
//! - of a producer that is not known any batch is taken: its state may be gone with the records it came from;
//! - an older epoch is refused.
//!
//! One thing is not Kafka's: a producer is forgotten when it *appended* nothing for `producer.id.expiration.ms`, by this
//! node's monotonic clock. Kafka compares the records' own timestamps with the wall clock, so that who writes old records, or
//! a clock that is set, ends the protection early (P6, P10).

use std::collections::BTreeMap;
use std::time::Duration;

use brokkr_types::{Instant, Offset, ProducerEpoch, ProducerId, Sequence, UnixMillis};
use brokkr_wire::records::BatchHeader;

use crate::error::SequenceError;

mod budget;
pub use budget::ProducerBudget;
pub(crate) use budget::ProducerUsage;

/// Batches that a client may have in flight, and so may send again (P1).
pub const WINDOW_BATCHES: usize = 5;

/// An appended batch, as its producer's state remembers it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct BatchMeta {
    /// The sequence of its last record.
    pub last_sequence: Sequence,
    /// The offset of its last record.
    pub last_offset: Offset,
    /// Its number of records less one.
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

/// The last batches of a producer's epoch, oldest first.
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

    /// Adds the next, forgetting the oldest of five.
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

/// What is known of a producer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Producer {
    /// Its latest epoch.
    pub epoch: ProducerEpoch,
    /// The epoch of the coordinator that ended its last transaction; -1 where there was none.
    pub coordinator_epoch: i32,
    /// The largest timestamp of its last batch, by the records' clock.
    pub last_timestamp: UnixMillis,
    /// Where its open transaction begins.
    pub transaction_start: Option<Offset>,
    /// Its last batches.
    pub window: Window,
    /// When it last appended, or was loaded.
    pub last_seen: Instant,
}

/// What ends a transaction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EndTxnMarker {
    /// The coordinator's epoch.
    pub coordinator_epoch: i32,
}

/// How much of a batch has been judged already.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ProducerChecks {
    /// From a producer: everything is judged.
    All,
    /// From a coordinator here, which sends no sequences: the epoch alone.
    EpochOnly,
    /// From a leader or the log itself: nothing, it was judged before.
    None,
}

/// Takes one [`Producers::apply`] back.
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
    /// What is known of a producer.
    pub fn get(&self, id: ProducerId) -> Option<&Producer> {
        self.by_id.get(&id)
    }

    /// All, by id.
    pub fn iter(&self) -> impl Iterator<Item = (ProducerId, &Producer)> {
        self.by_id.iter().map(|(id, p)| (*id, p))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// Judges a batch of an idempotent producer. `Some` is the batch that it repeats.
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
            // To Kafka a producer that nobody knows is at -1, and so is one whose batch says so.
            return check_epoch(id, header.producer_epoch, ProducerEpoch(-1)).map(|()| None);
        };
        if checks == ProducerChecks::All && header.producer_epoch == known.epoch {
            let (first, last) = (header.base_sequence, header.last_sequence());
            let same = |b: &&BatchMeta| b.first_sequence() == first && b.last_sequence == last;
            if let Some(duplicate) = known.window.batches().iter().find(same) {
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

    /// Notes a batch that was judged, in its place in the log.
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

    /// Takes an [`Producers::apply`] back. The last one first.
    pub(crate) fn undo(&mut self, undo: ProducerUndo) {
        match undo.before {
            Some(before) => self.by_id.insert(undo.id, before),
            None => self.by_id.remove(&undo.id),
        };
    }

    /// Forgets who appended nothing for `after`, but for those with an open transaction.
    pub(crate) fn expire(&mut self, now: Instant, after: Duration) {
        let before = self.by_id.len();
        self.by_id
            .retain(|_, p| p.transaction_start.is_some() || now.saturating_since(p.last_seen) < after);
        if self.by_id.len() < before {
            brokkr_types::reached!("a producer's state expired");
        }
    }

    /// Forgets `count` of those without an open transaction that appended longest ago.
    pub(crate) fn forget(&mut self, count: usize) {
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

    /// Adds what a snapshot knows, unless the producer is known already.
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
        // Past -1, no batch in this epoch, comes 0.
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

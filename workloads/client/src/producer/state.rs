//! What a producer knows of its partitions, and decides: which batch goes next, and what an answer means. No IO, no clock.
//!
//! ```text
//!   partition:  [ sequenced: in flight, or due for another attempt ][ not sequenced yet: due, open ]
//!                 head ───────────────────────────────────────────► tail, in the order of the records
//! ```
//! - Another attempt has the same bytes, the same sequence, and waits until it is the head (so retries keep the order).
//! - A new batch goes while everything before it is in flight, at most [`WINDOW`] of them.
//! - A sequenced batch that is given up may leave a gap: no new batch until the others have their answer. If then the last
//!   acknowledged sequence is the last that was given out, there is none; else the epoch is bumped (KIP-360).
//! - A bump waits until nothing of the partition is in flight. What may have been written is given up as unknown; what
//!   surely was not begins again at sequence 0. Other partitions take the new epoch once their old batches are answered.

use std::collections::{BTreeMap, VecDeque};

use brokkr_env::Instant;
use brokkr_types::{Offset, ProducerEpoch, Sequence, UnixMillis, Uuid};
use brokkr_wire::ErrorCode;
use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::batch::{Batch, BatchId, Identity, Place};
use super::outcome::{is_fenced, is_refusal, is_sequence_loss};
use super::{ProducerConfig, ProducerRecord, Told};
use crate::{Error, TopicPartition};

/// Batches of a producer that a broker remembers for each partition, and so the most that may be unanswered.
pub(super) const WINDOW: usize = 5;

/// What became of a batch that was in flight.
#[derive(Clone, Debug)]
pub(super) enum Outcome {
    /// It stands in the log.
    Acknowledged {
        base_offset: Option<Offset>,
        append_time: Option<UnixMillis>,
    },
    /// The broker answered with a code.
    Refused(ErrorCode, Option<String>),
    /// There is no answer.
    Unanswered(Error),
}

/// What is sent of a partition.
pub(super) struct Sending {
    pub batch: BatchId,
    pub bytes: Bytes,
}

#[derive(Default)]
struct Queue {
    batches: VecDeque<Batch>,
    /// Whose sequences are given out.
    producer: Option<Identity>,
    first_sequence: Sequence,
    next_sequence: Sequence,
    last_acked: Option<Sequence>,
    /// The last of the batches that were acknowledged. What is older would stand behind it, and is given up instead.
    acked_batch: Option<BatchId>,
    /// A sequenced batch was given up: there may be a gap.
    unresolved: bool,
    /// Everything begins again under another identity, once nothing is in flight.
    rewrite: bool,
}

impl Queue {
    fn is_next(&self, base: Sequence) -> bool {
        base == self.last_acked.map_or(self.first_sequence, |last| last.plus(1))
    }

    /// Whether a younger batch was acknowledged. A broker that knows nothing of a producer takes any sequence, so the second
    /// batch may stand where the first was refused.
    fn is_overtaken(&self, batch: &Batch) -> bool {
        self.acked_batch.is_some_and(|acked| batch.id < acked)
    }

    fn has_sequenced(&self) -> bool {
        self.batches.iter().any(|b| b.sequenced.is_some())
    }

    fn is_in_flight(&self) -> bool {
        self.batches.iter().any(Batch::is_in_flight)
    }

    /// Takes a batch away that failed.
    fn give_up(&mut self, index: usize, cause: &Error) {
        if let Some(mut batch) = self.batches.remove(index) {
            batch.fail(cause);
            self.unresolved |= batch.sequenced.is_some();
        }
    }
}

/// A producer's partitions.
pub(super) struct State {
    config: ProducerConfig,
    identity: Option<Identity>,
    queues: BTreeMap<TopicPartition, Queue>,
    next_batch: BatchId,
    /// Up to and without this batch nothing lingers.
    flushed: BatchId,
}

impl State {
    pub fn new(config: ProducerConfig) -> Self {
        Self {
            config,
            identity: None,
            queues: BTreeMap::new(),
            next_batch: 0,
            flushed: 0,
        }
    }

    pub fn config(&self) -> &ProducerConfig {
        &self.config
    }

    /// Whether a producer id has to be asked for before anything goes on.
    pub fn needs_identity(&self) -> bool {
        self.config.idempotent && self.identity.is_none()
    }

    pub fn identify(&mut self, identity: Identity) {
        self.identity = Some(identity);
    }

    /// Whether nothing waits for an outcome.
    pub fn is_idle(&self) -> bool {
        self.queues.values().all(|q| q.batches.is_empty())
    }

    /// Takes a record.
    pub fn push(
        &mut self,
        now: Instant,
        wall: UnixMillis,
        record: &ProducerRecord,
        tell: oneshot::Sender<Told>,
        buffered: OwnedSemaphorePermit,
    ) {
        let (bytes_max, records_max) = (self.config.batch_bytes_max, self.config.batch_records_max);
        let queue = self.queues.entry(record.to.clone()).or_default();
        let room = |b: &&mut Batch| b.has_room_for(record, bytes_max, records_max);
        let timestamp = record.timestamp.unwrap_or(wall);
        if let Some(open) = queue.batches.back_mut().filter(room) {
            return open.push(record, timestamp, tell, buffered);
        }
        if let Some(full) = queue.batches.back_mut()
            && let Place::Open(_) = full.place
        {
            full.place = Place::Due(now);
        }
        let (linger_end, deadline) = (now + self.config.linger, now + self.config.delivery_timeout);
        let mut batch = Batch::new(self.next_batch, linger_end, deadline, self.config.compression);
        self.next_batch += 1;
        batch.push(record, timestamp, tell, buffered);
        queue.batches.push_back(batch);
    }

    /// Lets nothing linger that is here now. All batches up to and without the returned one are concerned.
    pub fn flush(&mut self) -> BatchId {
        self.flushed = self.next_batch;
        self.flushed
    }

    /// Whether all batches up to and without this one have their outcome.
    pub fn is_told_before(&self, batch: BatchId) -> bool {
        let batches = || self.queues.values().flat_map(|q| &q.batches);
        !batches().any(|b| b.id < batch && !b.is_told())
    }

    /// The partitions that have something to send now.
    pub fn due(&self, now: Instant) -> Vec<TopicPartition> {
        let due = |(tp, q): (&TopicPartition, &Queue)| self.next_of(q, now).map(|_| tp.clone());
        self.queues.iter().filter_map(due).collect()
    }

    /// The bytes that [`State::take`] would give, about.
    pub fn due_bytes(&self, tp: &TopicPartition, now: Instant) -> Option<usize> {
        let queue = self.queues.get(tp)?;
        let index = self.next_of(queue, now)?;
        queue.batches.get(index).map(Batch::size_bytes)
    }

    fn next_of(&self, queue: &Queue, now: Instant) -> Option<usize> {
        let index = queue.batches.iter().position(|b| !b.is_in_flight())?;
        let batch = &queue.batches[index];
        let due = match batch.place {
            Place::Open(until) => until <= now || batch.id < self.flushed || index + 1 < queue.batches.len(),
            Place::Due(at) => at <= now,
            Place::InFlight => false,
        };
        if !due || !self.config.idempotent {
            return due.then_some(index);
        }
        let allowed = if batch.sequenced.is_some() {
            index == 0
        } else {
            let identified = self.identity.is_some();
            let ours = index == 0 || queue.producer == self.identity;
            identified && ours && !queue.unresolved && index < WINDOW
        };
        (allowed && !queue.rewrite).then_some(index)
    }

    /// Takes the next batch of a partition; it is in flight then.
    pub fn take(&mut self, tp: &TopicPartition, now: Instant) -> Option<Sending> {
        let index = self.next_of(self.queues.get(tp)?, now)?;
        let queue = self.queues.get_mut(tp)?;
        let batch = &mut queue.batches[index];
        if self.config.idempotent && batch.sequenced.is_none() {
            let identity = self.identity?;
            if queue.producer != Some(identity) {
                queue.producer = Some(identity);
                queue.first_sequence = match identity.epoch {
                    ProducerEpoch(0) => self.config.first_sequence,
                    // A broker knows where a later epoch begins.
                    _ => Sequence(0),
                };
                queue.next_sequence = queue.first_sequence;
                queue.last_acked = None;
            }
            batch.sequence(Some((identity, queue.next_sequence)));
            queue.next_sequence = queue.next_sequence.plus(batch.records_count());
        }
        batch.place = Place::InFlight;
        batch.attempts += 1;
        batch.gap = None;
        Some(Sending {
            batch: batch.id,
            bytes: batch.encode(),
        })
    }

    /// Remembers to which topic a batch that was taken is sent.
    pub fn sent_to(&mut self, tp: &TopicPartition, id: BatchId, topic_id: Uuid) {
        let batches = self.queues.get_mut(tp).map(|q| &mut q.batches);
        if let Some(batch) = batches.into_iter().flatten().find(|b| b.id == id) {
            batch.topic_id = topic_id;
        }
    }

    /// Learns what became of a batch in flight. It is sent again at `retry_at`, if at all.
    pub fn learn(
        &mut self,
        tp: &TopicPartition,
        id: BatchId,
        outcome: Outcome,
        now: Instant,
        retry_at: Instant,
    ) {
        let Some(queue) = self.queues.get_mut(tp) else {
            return;
        };
        let Some(index) = queue.batches.iter().position(|b| b.id == id) else {
            return;
        };
        let batch = &mut queue.batches[index];
        let (cause, retriable) = match outcome {
            Outcome::Acknowledged {
                base_offset,
                append_time,
            } => return Self::acknowledge(queue, index, &self.config, base_offset, append_time),
            Outcome::Refused(ErrorCode::DUPLICATE_SEQUENCE_NUMBER, _) if self.config.idempotent => {
                return Self::acknowledge(queue, index, &self.config, None, None);
            }
            Outcome::Refused(code, message) => {
                batch.place = Place::Due(retry_at);
                batch.unclear |= !is_refusal(code);
                if self.config.idempotent && is_fenced(code) {
                    if batch.sequenced.map(|(who, _)| who) == self.identity {
                        self.identity = None;
                    }
                    queue.rewrite = true;
                } else if self.config.idempotent && is_sequence_loss(code) {
                    return Self::sequence_lost(queue, index, now, retry_at, &Error::Broker(code, message));
                }
                (Error::Broker(code, message), code.is_retriable())
            }
            Outcome::Unanswered(e) => {
                batch.place = Place::Due(retry_at);
                batch.unclear |= !e.is_unsent();
                let retriable = e.is_retriable() || matches!(e, Error::Protocol(_));
                (e, retriable)
            }
        };
        // With acks=0 nobody would answer the second attempt either: what may have left is not sent again.
        let once = self.config.acks == super::Acks::None && batch.unclear;
        let spent = batch.attempts > self.config.retries_max || batch.deadline <= now || batch.is_told();
        if !retriable || spent || once {
            queue.give_up(index, &cause);
        }
    }

    fn acknowledge(
        queue: &mut Queue,
        index: usize,
        config: &ProducerConfig,
        base_offset: Option<Offset>,
        append_time: Option<UnixMillis>,
    ) {
        if let Some(mut batch) = queue.batches.remove(index) {
            // Answers come in the order of the requests, and retries go one by one: a later one never comes first, but
            // from two leaders at once. Then the sequence that counts is the later one.
            let (last, old) = (batch.last_sequence(), queue.last_acked);
            let is_later = |l: Sequence| old.is_none_or(|o| l.0.wrapping_sub(o.0) & i32::MAX < 1 << 30);
            if let Some(last) = last.filter(|l| is_later(*l)) {
                queue.last_acked = Some(last);
            }
            queue.acked_batch = queue.acked_batch.max(Some(batch.id));
            batch.acknowledge(base_offset, append_time, config.acks);
        }
    }

    /// The broker takes the batch for a gap. Behind a batch that is still unanswered that is no wonder.
    fn sequence_lost(queue: &mut Queue, index: usize, now: Instant, retry_at: Instant, cause: &Error) {
        let batch = &queue.batches[index];
        let next = batch.sequenced.is_some_and(|(_, base)| queue.is_next(base));
        if queue.unresolved || next {
            queue.rewrite = true;
        }
        queue.batches[index].gap = Some(cause.clone());
        queue.batches[index].refused_as_gap |= next && queue.last_acked.is_some() && !queue.unresolved;
        let batch = &queue.batches[index];
        if batch.deadline <= now || batch.is_told() || queue.is_overtaken(batch) {
            queue.give_up(index, cause);
        } else {
            queue.batches[index].place = Place::Due(retry_at);
        }
    }

    /// Gives up what is too old. What is in flight stays where it is, since its answer still matters to the others.
    pub fn expire(&mut self, now: Instant) {
        for queue in self.queues.values_mut() {
            let mut index = 0;
            while let Some(batch) = queue.batches.get_mut(index) {
                if batch.deadline > now {
                    index += 1;
                } else if batch.is_in_flight() {
                    batch.fail(&Error::TimedOut);
                    index += 1;
                } else {
                    queue.give_up(index, &Error::TimedOut);
                }
            }
        }
    }

    /// Fails all that waits, because there will be no producer id.
    pub fn fail_all(&mut self, cause: &Error) {
        for queue in self.queues.values_mut() {
            for mut batch in queue.batches.drain(..) {
                batch.fail(cause);
            }
        }
    }

    /// Closes gaps where that is possible now, by a new epoch where it is needed.
    pub fn resolve(&mut self) {
        let mut bump = false;
        let identity = self.identity;
        for queue in self.queues.values_mut() {
            if queue.unresolved && !queue.has_sequenced() {
                queue.unresolved = false;
                queue.rewrite |= !queue.is_next(queue.next_sequence);
            }
            if queue.rewrite && !queue.is_in_flight() {
                bump |= queue.producer == identity;
                Self::begin_again(queue);
            }
        }
        if let (true, Some(who)) = (bump, identity) {
            // KIP-360: an idempotent producer bumps its epoch itself, and asks for another id after the last.
            self.identity = who.epoch.0.checked_add(1).map(|epoch| Identity {
                id: who.id,
                epoch: ProducerEpoch(epoch),
            });
        }
    }

    fn begin_again(queue: &mut Queue) {
        let acked = queue.acked_batch;
        queue.batches.retain_mut(|batch| {
            if batch.sequenced.is_none() {
                return true;
            }
            if batch.unclear || acked.is_some_and(|acked| batch.id < acked) {
                let why =
                    "its sequence was lost, and it can't be sent again without repeating or reordering it";
                // What the broker said is the better reason.
                let why = batch.gap.take().unwrap_or_else(|| Error::Lost(why.to_owned()));
                batch.fail(&why);
                return false;
            }
            batch.sequence(None);
            true
        });
        queue.producer = None;
        queue.last_acked = None;
        (queue.first_sequence, queue.next_sequence) = (Sequence(0), Sequence(0));
        (queue.unresolved, queue.rewrite) = (false, false);
    }

    /// When something changes by itself, after `now`.
    pub fn next_deadline(&self, now: Instant) -> Instant {
        let batches = self.queues.values().flat_map(|q| &q.batches);
        let times = batches.flat_map(|b| {
            let place = match b.place {
                Place::Open(until) => until,
                Place::Due(at) => at,
                Place::InFlight => Instant::FAR_FUTURE,
            };
            [place, b.deadline]
        });
        times.filter(|t| *t > now).min().unwrap_or(Instant::FAR_FUTURE)
    }
}

//! The producer's decisions: which batch is sent next, and what a response means. No IO, no clock.
//!
//! ```text
//!   partition:  [ sequenced: in flight, or due for another attempt ][ not sequenced yet: due, open ]
//!                 head ───────────────────────────────────────────► tail, in the order of the records
//! ```
//! - A retry has the same bytes and sequence, and waits until the batch is the head (so retries keep the order).
//! - A new batch is sent while all batches before it are in flight, at most [`WINDOW`] of them.
//! - A sequenced batch that is given up may leave a gap: no new batch is sent until the others are answered. If the last
//!   acknowledged sequence is then the last assigned one, there is no gap; otherwise the epoch is bumped (KIP-360).
//! - A bump waits until nothing of the partition is in flight. Batches that may have been written fail with an unknown
//!   outcome; the others begin again at sequence 0. Other partitions take the new epoch once their old batches are answered.

use std::collections::{BTreeMap, VecDeque};

use brokkr_env::Instant;
use brokkr_types::{Offset, ProducerEpoch, Sequence, UnixMillis, Uuid};
use brokkr_wire::ErrorCode;
use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::batch::{Batch, BatchId, BatchState, Identity};
use super::config::ProducerConfig;
use super::delivery::SendResult;
use super::outcome::{is_fenced, is_refusal, is_sequence_loss};
use super::record::ProducerRecord;
use crate::{Error, TopicPartition};

/// Number of batches per producer and partition that a broker remembers, and so the limit of unanswered batches.
pub(super) const WINDOW: usize = 5;

/// Outcome of a batch that was in flight.
#[derive(Clone, Debug)]
pub(super) enum Outcome {
    /// It is in the log.
    Acknowledged {
        base_offset: Option<Offset>,
        append_time: Option<UnixMillis>,
    },
    /// The broker answered with an error code.
    Refused(ErrorCode, Option<String>),
    /// No response arrived.
    Unanswered(Error),
}

/// A batch to send.
pub(super) struct BatchToSend {
    pub batch: BatchId,
    pub bytes: Bytes,
}

#[derive(Default)]
struct PartitionQueue {
    batches: VecDeque<Batch>,
    /// The identity whose sequences are assigned.
    producer: Option<Identity>,
    first_sequence: Sequence,
    next_sequence: Sequence,
    last_acked: Option<Sequence>,
    /// The last acknowledged batch. An older batch would be appended behind it, and is given up instead.
    acked_batch: Option<BatchId>,
    /// A sequenced batch was given up, so there may be a gap.
    unresolved: bool,
    /// All batches begin again under another identity, once none is in flight.
    rewrite: bool,
}

impl PartitionQueue {
    fn is_next(&self, base: Sequence) -> bool {
        base == self.last_acked.map_or(self.first_sequence, |last| last.plus(1))
    }

    /// Whether a later batch was acknowledged. A broker that does not know a producer accepts any sequence, so the second
    /// batch may have been appended although the first was refused.
    fn is_overtaken(&self, batch: &Batch) -> bool {
        self.acked_batch.is_some_and(|acked| batch.id < acked)
    }

    fn has_sequenced(&self) -> bool {
        self.batches.iter().any(|b| b.sequenced.is_some())
    }

    fn is_in_flight(&self) -> bool {
        self.batches.iter().any(Batch::is_in_flight)
    }

    /// Removes a failed batch.
    fn give_up(&mut self, index: usize, cause: &Error) {
        if let Some(mut batch) = self.batches.remove(index) {
            batch.fail(cause);
            self.unresolved |= batch.sequenced.is_some();
        }
    }
}

/// The producer's state, by partition.
pub(super) struct State {
    config: ProducerConfig,
    identity: Option<Identity>,
    queues: BTreeMap<TopicPartition, PartitionQueue>,
    next_batch: BatchId,
    /// Batches before this one don't linger.
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

    /// Whether a producer id must be requested before anything can be sent.
    pub fn needs_identity(&self) -> bool {
        self.config.idempotent && self.identity.is_none()
    }

    pub fn set_identity(&mut self, identity: Identity) {
        self.identity = Some(identity);
    }

    /// Whether no record waits for an outcome.
    pub fn is_idle(&self) -> bool {
        self.queues.values().all(|q| q.batches.is_empty())
    }

    /// Adds a record.
    pub fn push(
        &mut self,
        now: Instant,
        wall: UnixMillis,
        record: &ProducerRecord,
        result_sender: oneshot::Sender<SendResult>,
        memory_permit: OwnedSemaphorePermit,
    ) {
        let (bytes_max, records_max) = (self.config.batch_bytes_max, self.config.batch_records_max);
        let queue = self.queues.entry(record.to.clone()).or_default();
        let room = |b: &&mut Batch| b.has_room_for(record, bytes_max, records_max);
        let timestamp = record.timestamp.unwrap_or(wall);
        if let Some(open) = queue.batches.back_mut().filter(room) {
            return open.push(record, timestamp, result_sender, memory_permit);
        }
        if let Some(full) = queue.batches.back_mut()
            && let BatchState::Open(_) = full.state
        {
            full.state = BatchState::Due(now);
        }
        let (linger_end, deadline) = (now + self.config.linger, now + self.config.delivery_timeout);
        let mut batch = Batch::new(self.next_batch, linger_end, deadline, self.config.compression);
        self.next_batch += 1;
        batch.push(record, timestamp, result_sender, memory_permit);
        queue.batches.push_back(batch);
    }

    /// Stops the lingering of all current batches. They are the ones before the returned id.
    pub fn flush(&mut self) -> BatchId {
        self.flushed = self.next_batch;
        self.flushed
    }

    /// Whether all batches before this one have their outcome.
    pub fn have_outcomes_before(&self, batch: BatchId) -> bool {
        let batches = || self.queues.values().flat_map(|q| &q.batches);
        !batches().any(|b| b.id < batch && !b.has_outcome())
    }

    /// The partitions that have a batch to send now.
    pub fn due(&self, now: Instant) -> Vec<TopicPartition> {
        let due = |(tp, q): (&TopicPartition, &PartitionQueue)| self.next_of(q, now).map(|_| tp.clone());
        self.queues.iter().filter_map(due).collect()
    }

    /// The approximate size of the batch that [`State::take`] would return.
    pub fn due_bytes(&self, tp: &TopicPartition, now: Instant) -> Option<usize> {
        let queue = self.queues.get(tp)?;
        let index = self.next_of(queue, now)?;
        queue.batches.get(index).map(Batch::size_bytes)
    }

    fn next_of(&self, queue: &PartitionQueue, now: Instant) -> Option<usize> {
        let index = queue.batches.iter().position(|b| !b.is_in_flight())?;
        let batch = &queue.batches[index];
        let due = match batch.state {
            BatchState::Open(until) => {
                until <= now || batch.id < self.flushed || index + 1 < queue.batches.len()
            }
            BatchState::Due(at) => at <= now,
            BatchState::InFlight => false,
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

    /// Takes the next batch of a partition, which is then in flight.
    pub fn take(&mut self, tp: &TopicPartition, now: Instant) -> Option<BatchToSend> {
        let index = self.next_of(self.queues.get(tp)?, now)?;
        let queue = self.queues.get_mut(tp)?;
        let batch = &mut queue.batches[index];
        if self.config.idempotent && batch.sequenced.is_none() {
            let identity = self.identity?;
            if queue.producer != Some(identity) {
                queue.producer = Some(identity);
                queue.first_sequence = match identity.epoch {
                    ProducerEpoch(0) => self.config.first_sequence,
                    // A new epoch begins at sequence 0, which the broker knows.
                    _ => Sequence(0),
                };
                queue.next_sequence = queue.first_sequence;
                queue.last_acked = None;
            }
            batch.sequence(Some((identity, queue.next_sequence)));
            queue.next_sequence = queue.next_sequence.plus(batch.records_count());
        }
        batch.state = BatchState::InFlight;
        batch.attempts += 1;
        batch.gap = None;
        Some(BatchToSend {
            batch: batch.id,
            bytes: batch.encode(),
        })
    }

    /// Records the topic id that a taken batch is sent to.
    pub fn sent_to(&mut self, tp: &TopicPartition, id: BatchId, topic_id: Uuid) {
        let batches = self.queues.get_mut(tp).map(|q| &mut q.batches);
        if let Some(batch) = batches.into_iter().flatten().find(|b| b.id == id) {
            batch.topic_id = topic_id;
        }
    }

    /// Applies the outcome of a batch in flight. If it is retried, then at `retry_at`.
    pub fn on_outcome(
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
                batch.state = BatchState::Due(retry_at);
                batch.maybe_written |= !is_refusal(code);
                if self.config.idempotent && is_fenced(code) {
                    if batch.sequenced.map(|(identity, _)| identity) == self.identity {
                        self.identity = None;
                    }
                    queue.rewrite = true;
                } else if self.config.idempotent && is_sequence_loss(code) {
                    return Self::sequence_lost(queue, index, now, retry_at, &Error::Broker(code, message));
                }
                (Error::Broker(code, message), code.is_retriable())
            }
            Outcome::Unanswered(e) => {
                batch.state = BatchState::Due(retry_at);
                batch.maybe_written |= !e.is_unsent();
                let retriable = e.is_retriable() || matches!(e, Error::Protocol(_));
                (e, retriable)
            }
        };
        // With acks=0 a retry would get no response either, so a batch that may have been sent is not sent again.
        let once = self.config.acks == super::Acks::None && batch.maybe_written;
        let spent = batch.attempts > self.config.retries_max || batch.deadline <= now || batch.has_outcome();
        if !retriable || spent || once {
            queue.give_up(index, &cause);
        }
    }

    fn acknowledge(
        queue: &mut PartitionQueue,
        index: usize,
        config: &ProducerConfig,
        base_offset: Option<Offset>,
        append_time: Option<UnixMillis>,
    ) {
        if let Some(mut batch) = queue.batches.remove(index) {
            // Responses arrive in the order of the requests, and retries go one at a time: a later batch is acknowledged
            // first only by two leaders at once. Then the later sequence counts.
            let (last, old) = (batch.last_sequence(), queue.last_acked);
            let is_later = |l: Sequence| old.is_none_or(|o| l.0.wrapping_sub(o.0) & i32::MAX < 1 << 30);
            if let Some(last) = last.filter(|l| is_later(*l)) {
                queue.last_acked = Some(last);
            }
            queue.acked_batch = queue.acked_batch.max(Some(batch.id));
            batch.acknowledge(base_offset, append_time, config.acks);
        }
    }

    /// The broker reports a gap before the batch. That is expected behind a batch that is still unanswered.
    fn sequence_lost(
        queue: &mut PartitionQueue,
        index: usize,
        now: Instant,
        retry_at: Instant,
        cause: &Error,
    ) {
        let batch = &queue.batches[index];
        let next = batch.sequenced.is_some_and(|(_, base)| queue.is_next(base));
        if queue.unresolved || next {
            queue.rewrite = true;
        }
        queue.batches[index].gap = Some(cause.clone());
        queue.batches[index].refused_as_gap |= next && queue.last_acked.is_some() && !queue.unresolved;
        let batch = &queue.batches[index];
        if batch.deadline <= now || batch.has_outcome() || queue.is_overtaken(batch) {
            queue.give_up(index, cause);
        } else {
            queue.batches[index].state = BatchState::Due(retry_at);
        }
    }

    /// Gives up batches past their deadline. Batches in flight stay, since their responses still matter to the others.
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

    /// Fails all records, because there will be no producer id.
    pub fn fail_all(&mut self, cause: &Error) {
        for queue in self.queues.values_mut() {
            for mut batch in queue.batches.drain(..) {
                batch.fail(cause);
            }
        }
    }

    /// Closes gaps if that is possible now, with a new epoch if necessary.
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
                Self::restart_sequences(queue);
            }
        }
        if let (true, Some(last)) = (bump, identity) {
            // KIP-360: an idempotent producer bumps its epoch itself, and requests another id after the last epoch.
            self.identity = last.epoch.0.checked_add(1).map(|epoch| Identity {
                id: last.id,
                epoch: ProducerEpoch(epoch),
            });
        }
    }

    fn restart_sequences(queue: &mut PartitionQueue) {
        let acked = queue.acked_batch;
        queue.batches.retain_mut(|batch| {
            if batch.sequenced.is_none() {
                return true;
            }
            if batch.maybe_written || acked.is_some_and(|acked| batch.id < acked) {
                let why =
                    "its sequence was lost, and it can't be sent again without repeating or reordering it";
                // The broker's error is the better reason.
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

    /// The next instant after `now` at which the state changes by time.
    pub fn next_deadline(&self, now: Instant) -> Instant {
        let batches = self.queues.values().flat_map(|q| &q.batches);
        let times = batches.flat_map(|b| {
            let next = match b.state {
                BatchState::Open(until) => until,
                BatchState::Due(at) => at,
                BatchState::InFlight => Instant::FAR_FUTURE,
            };
            [next, b.deadline]
        });
        times.filter(|t| *t > now).min().unwrap_or(Instant::FAR_FUTURE)
    }
}

//! Staging: a batch is judged, gets its offset and waits for the next write. Nothing here waits for the disk.
//!
//! Everything that staging changes (the tip, the producers, the epochs) can be taken back, batch by batch from the end, until
//! the batch may be acknowledged: a write that fails leaves no trace (P10), and its offsets, which nobody was shown, are
//! given out again.

use std::collections::VecDeque;

use brokkr_env::Env;
use brokkr_types::{Instant, LeaderEpoch, Offset, UnixMillis};
use brokkr_wire::records::{Batch, BatchHeader, Origin};

use crate::error::AppendError;
use crate::log::Log;
use crate::log::staged::{QUEUE_CAPACITY_KEPT, STAGED_BATCHES_MAX, STAGED_BYTES_MAX, StagedUndo};
use crate::state::control::{BatchKind, batch_kind};
use crate::state::producers::ProducerChecks;
use crate::state::segment::SegmentBuilder;

/// What became of a batch. It may be acknowledged once [`crate::AckableOffset`] is past `last_offset`, also when it is a
/// duplicate: the batch it repeats may itself be on its way (P9). If [`crate::Event::Failed`] comes first, it is gone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AppendInfo {
    /// The offset of its first record; of a duplicate, the one it was given the first time.
    pub base_offset: Offset,
    /// The offset of its last record.
    pub last_offset: Offset,
    /// Whether it was here already.
    pub duplicate: bool,
    /// Its largest timestamp; of a duplicate, as it was the first time.
    pub max_timestamp: UnixMillis,
    /// Where the log starts.
    pub log_start: Offset,
}

impl<E: Env> Log<E> {
    /// Whether there is room for another batch. Who appends all the same is not stopped, but the memory is then not
    /// bounded by [`STAGED_BYTES_MAX`].
    pub fn can_stage(&self) -> bool {
        self.pipeline.staged_bytes < STAGED_BYTES_MAX && self.pipeline.staged_batches < STAGED_BATCHES_MAX
    }

    /// Stages a validated batch at the log's end, as the leader of `epoch`. Its bytes are kept, not copied. `now` is what
    /// producers expire by, `wall` what a segment without timestamps ages by.
    ///
    /// # Errors
    /// Nothing changed then.
    pub fn append(
        &mut self,
        batch: &Batch,
        origin: Origin,
        epoch: LeaderEpoch,
        now: Instant,
        wall: UnixMillis,
    ) -> Result<AppendInfo, AppendError> {
        let checks = match origin {
            Origin::Client => ProducerChecks::All,
            Origin::Coordinator => ProducerChecks::EpochOnly,
            Origin::Replica => return self.append_replicated(batch, now, wall),
        };
        let header = batch.header.placed(self.log_end(), epoch);
        self.stage(batch, header, checks, now, wall)
    }

    /// Stages a batch that a leader has given its offset and epoch, as a follower. Offsets may be missing before it, if [`Log::allow_gaps`]
    /// said so.
    ///
    /// # Errors
    /// Nothing changed then.
    pub fn append_replicated(
        &mut self,
        batch: &Batch,
        now: Instant,
        wall: UnixMillis,
    ) -> Result<AppendInfo, AppendError> {
        let (base_offset, log_end) = (batch.header.base_offset, self.log_end());
        let has_gap = base_offset > log_end && !self.gaps;
        if base_offset < log_end || has_gap || batch.header.last_offset_delta < 0 {
            return Err(AppendError::UnexpectedOffset { base_offset, log_end });
        }
        self.stage(batch, batch.header, ProducerChecks::None, now, wall)
    }

    fn stage(
        &mut self,
        batch: &Batch,
        header: BatchHeader,
        checks: ProducerChecks,
        now: Instant,
        wall: UnixMillis,
    ) -> Result<AppendInfo, AppendError> {
        if let Some(why) = &self.pipeline.broken {
            return Err(AppendError::Broken(why.clone()));
        }
        let (size_bytes, max) = (header.size_bytes(), self.config.segment_bytes);
        if size_bytes as u64 > u64::from(max) && checks != ProducerChecks::None {
            return Err(AppendError::BatchTooLarge { size_bytes, max });
        }
        let kind = match header.has_producer_id() {
            true => batch_kind(batch)?,
            false => BatchKind::Other,
        };
        let repeated = match kind {
            BatchKind::Data => self.producers.check(&header, None, checks)?,
            BatchKind::EndTxn(marker) => self.producers.check(&header, Some(marker), checks)?,
            BatchKind::Other => None,
        };
        if let Some(first) = repeated {
            brokkr_types::reached!("a duplicate in the producer's window");
            if first.last_offset >= self.ackable().offset() {
                brokkr_types::reached!("a duplicate before its original was durable");
            }
            return Ok(AppendInfo {
                base_offset: first.first_offset(),
                last_offset: first.last_offset,
                duplicate: true,
                max_timestamp: first.timestamp,
                log_start: self.log_start,
            });
        }
        self.put(batch, header, kind, now, wall);
        Ok(AppendInfo {
            base_offset: header.base_offset,
            last_offset: header.last_offset(),
            duplicate: false,
            max_timestamp: header.max_timestamp,
            log_start: self.log_start,
        })
    }

    fn put(&mut self, batch: &Batch, header: BatchHeader, kind: BatchKind, now: Instant, wall: UnixMillis) {
        let mut undo = StagedUndo {
            base: header.base_offset,
            builder: self.builder,
            producer: None,
            epochs: None,
        };
        if self.builder.must_roll(&header, &self.config, wall) {
            if self.builder.index_is_full(&self.config) {
                brokkr_types::reached!("a segment rolled by its index");
            } else {
                brokkr_types::reached!("a segment rolled by size or time");
            }
            // BEFORE the producers change: the new segment's snapshot is their state at its begin.
            // Where the log ends, also before a gap: so recovery knows that no segment is missing between the two.
            let nearest = header.last_offset().plus(-i64::from(i32::MAX));
            self.stage_roll(self.log_end().max(nearest), wall);
        }
        undo.producer = match kind {
            BatchKind::Data => Some(self.producers.apply(&header, None, now)),
            BatchKind::EndTxn(marker) => Some(self.producers.apply(&header, Some(marker), now)),
            BatchKind::Other => None,
        };
        self.enforce_producer_budget();
        if self
            .epochs
            .needs(header.partition_leader_epoch, header.base_offset)
        {
            undo.epochs = Some(self.epochs.clone());
            self.epochs
                .assign(header.partition_leader_epoch, header.base_offset);
        }
        self.undo.push_back(undo);

        let before = self.builder.summary;
        let new = self.builder.add(&header, self.config.index_interval_bytes);
        let parts = batch.placed(header.base_offset, header.partition_leader_epoch);
        let group = self.pipeline.last_group(before);
        group.summary = self.builder.summary;
        group.bytes += header.size_bytes();
        group.batches += 1;
        group.records += i64::from(header.last_offset_delta).unsigned_abs() + 1;
        group.parts.extend(parts);
        group.offsets.extend(new.offset);
        group.times.extend(new.time);
        self.pipeline.staged_bytes += header.size_bytes();
        self.pipeline.staged_batches += 1;
    }

    /// Forgets some, where there are too many.
    pub(crate) fn enforce_producer_budget(&mut self) {
        let above = self.producer_budget.set(self.producers.len());
        if above > 0 {
            self.producers.forget(above);
            self.producer_budget.set(self.producers.len());
        }
    }

    /// Takes back what is staged at `from` and past it, the last first.
    pub(crate) fn undo_from(&mut self, from: Offset) {
        while self.undo.back().is_some_and(|u| u.base >= from) {
            let undo = self.undo.pop_back().expect("there is one");
            self.builder = undo.builder;
            if let Some(producer) = undo.producer {
                self.producers.undo(producer);
            }
            if let Some(epochs) = undo.epochs {
                self.epochs = epochs;
            }
        }
        self.view = None;
    }

    /// Stages the begin of a segment without a batch for it.
    pub(crate) fn stage_empty_roll(&mut self, wall: UnixMillis) {
        let base = self.log_end();
        self.undo.push_back(StagedUndo {
            base,
            builder: self.builder,
            producer: None,
            epochs: None,
        });
        self.stage_roll(base, wall);
    }

    /// A new segment began at `tip`: what is taken back from now on goes back to there and no further.
    pub(crate) fn keep_undo_within(&mut self, builder: &SegmentBuilder) {
        for undo in self.undo.iter_mut().filter(|u| u.base >= builder.summary.base) {
            if undo.builder.summary.base < builder.summary.base {
                undo.builder = *builder;
            }
        }
    }

    /// What may be acknowledged is not taken back any more.
    pub(crate) fn drop_undo_below(&mut self, ackable: Offset) {
        while self.undo.front().is_some_and(|u| u.base < ackable) {
            self.undo.pop_front();
        }
        if self.undo.is_empty() && !QUEUE_CAPACITY_KEPT.contains(&self.undo.capacity()) {
            self.undo = VecDeque::new();
        }
    }
}

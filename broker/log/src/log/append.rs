//! Staging: a batch is checked, gets its offset and is queued for the next write. Never waits for the disk.
//!
//! Everything that staging changes (segment, producers, leader epochs) can be undone, batch by batch from the end,
//! until the batch may be acknowledged. So a failed write leaves no trace (P10), and its offsets, which no client has
//! seen, are assigned again.

use std::collections::VecDeque;

use brokkr_env::Env;
use brokkr_types::{Instant, LeaderEpoch, Offset, UnixMillis};
use brokkr_wire::records::{Batch, BatchHeader, Origin};

use crate::error::AppendError;
use crate::log::Log;
use crate::log::staged::{QUEUE_CAPACITY_KEPT, StagedUndo};
use crate::state::control::{BatchKind, batch_kind};
use crate::state::producers::ProducerChecks;
use crate::state::segment::SegmentBuilder;

/// The result of an append. The batch may be acknowledged once [`crate::AckableOffset`] is past `last_offset`; a
/// duplicate too, as its original may still be in flight (P9). If [`crate::Event::Failed`] comes first, the batch was
/// not appended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AppendInfo {
    /// The batch's first offset; of a duplicate, the original's.
    pub base_offset: Offset,
    /// The batch's last offset.
    pub last_offset: Offset,
    /// Whether it is a duplicate.
    pub duplicate: bool,
    /// The largest timestamp; of a duplicate, the original's.
    pub max_timestamp: UnixMillis,
    /// The log start offset.
    pub log_start: Offset,
}

impl<E: Env> Log<E> {
    /// Whether there is room for another batch. Appending anyway succeeds, but then `log_staged_bytes` ([`crate::LogLimits`]) does not
    /// bound memory.
    pub fn can_stage(&self) -> bool {
        let limits = &self.shared.dir.limits;
        self.pipeline.staged_bytes < limits.log_staged_bytes
            && self.pipeline.staged_batches < limits.log_staged_batches
    }

    /// Stages a validated batch at the log end offset, as the leader of `epoch`. Keeps its bytes without a copy.
    /// `now` is for the expiration of producers, `wall` for the age of a segment without timestamps.
    ///
    /// # Errors
    /// The log is unchanged.
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

    /// Stages a batch that has its offset and leader epoch from the leader, as a follower. Offsets may be missing
    /// before it only after [`Log::allow_gaps`].
    ///
    /// # Errors
    /// The log is unchanged.
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
        let duplicate_of = match kind {
            BatchKind::Data => self.producers.check(&header, None, checks)?,
            BatchKind::EndTxn(marker) => self.producers.check(&header, Some(marker), checks)?,
            BatchKind::Other => None,
        };
        if let Some(original) = duplicate_of {
            brokkr_types::reached!("a duplicate in the producer's window");
            if original.last_offset >= self.ackable().offset() {
                brokkr_types::reached!("a duplicate before its original was durable");
            }
            return Ok(AppendInfo {
                base_offset: original.first_offset(),
                last_offset: original.last_offset,
                duplicate: true,
                max_timestamp: original.timestamp,
                log_start: self.log_start,
            });
        }
        self.stage_checked(batch, header, kind, now, wall);
        Ok(AppendInfo {
            base_offset: header.base_offset,
            last_offset: header.last_offset(),
            duplicate: false,
            max_timestamp: header.max_timestamp,
            log_start: self.log_start,
        })
    }

    fn stage_checked(
        &mut self,
        batch: &Batch,
        header: BatchHeader,
        kind: BatchKind,
        now: Instant,
        wall: UnixMillis,
    ) {
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
            // BEFORE the producers change: the new segment's snapshot is their state at its base offset.
            // The base is the log end offset, even before a gap, so that recovery can tell that no segment is missing
            // between the two.
            let base_min = header.last_offset().plus(-i64::from(i32::MAX));
            self.stage_roll(self.log_end().max(base_min), wall);
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

    /// Removes producers, if the log exceeds its share of the budget.
    pub(crate) fn enforce_producer_budget(&mut self) {
        let excess = self.producer_budget.set_count(self.producers.len());
        if excess > 0 {
            self.producers.remove_oldest(excess);
            self.producer_budget.set_count(self.producers.len());
        }
    }

    /// Undoes the batches at `from` and past it, the last one first.
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

    /// Stages a roll without a batch.
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

    /// A new segment was created: undoing a batch from now on stays in it, as the file exists.
    pub(crate) fn keep_undo_within(&mut self, builder: &SegmentBuilder) {
        for undo in self.undo.iter_mut().filter(|u| u.base >= builder.summary.base) {
            if undo.builder.summary.base < builder.summary.base {
                undo.builder = *builder;
            }
        }
    }

    /// Batches before `ackable` can't be undone any more.
    pub(crate) fn drop_undo_below(&mut self, ackable: Offset) {
        while self.undo.front().is_some_and(|u| u.base < ackable) {
            self.undo.pop_front();
        }
        if self.undo.is_empty() && !QUEUE_CAPACITY_KEPT.contains(&self.undo.capacity()) {
            self.undo = VecDeque::new();
        }
    }
}

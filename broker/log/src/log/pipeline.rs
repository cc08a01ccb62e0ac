//! The state of group commit: what is staged, and the operations in flight.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Mutex;
use std::task::{Context, Poll};

use brokkr_env::{Durable, Env, Error, File, Result, Submitted};
use brokkr_types::{Instant, Offset};

use crate::files::early_syncs::EarlySync;
use crate::log::staged::{RollPlan, WriteGroup};
use crate::state::ackable::AckableOffset;
use crate::state::limits::LogLimits;
use crate::state::segment::SegmentSummary;

/// An event for the log's owner.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// The log may be acknowledged up to here; increases with every event.
    Ackable(AckableOffset),
    /// Everything staged at `from` and past it was undone: it was not appended, and its offsets will be assigned
    /// again. The next [`crate::Log::append`] fails if the log is broken.
    Failed {
        /// The first undone offset.
        from: Offset,
        /// The error of the disk operation.
        error: Error,
    },
}

/// An operation that continues when the future of `next_event` is dropped.
///
/// The mutex is never locked. It makes the log `Sync`, which the future is not.
pub(crate) struct InFlight<T>(Mutex<Pin<Box<dyn Future<Output = T> + Send>>>);

impl<T> InFlight<T> {
    pub(crate) fn new(future: impl Future<Output = T> + Send + 'static) -> Self {
        Self(Mutex::new(Box::pin(future)))
    }

    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<T> {
        let future = self.0.get_mut().expect("it is never locked");
        future.as_mut().poll(cx)
    }
}

pub(crate) struct Pipeline<E: Env> {
    /// Staged batches, grouped by segment.
    pub(crate) groups: VecDeque<WriteGroup>,
    /// Bytes and batches in the groups and in the write in flight.
    pub(crate) staged_bytes: usize,
    pub(crate) staged_batches: usize,
    pub(crate) writing: Option<(Submitted<()>, WriteGroup)>,
    pub(crate) syncing: Option<SyncInFlight>,
    pub(crate) rolling: Option<RollInFlight<E>>,
    /// The end offset and size of the active segment once the write in flight has ended.
    pub(crate) submitted: (Offset, u64),
    /// If `flush.messages` is not 1: records and bytes written since the last sync began, and whether a sync is due.
    pub(crate) unsynced_records: u64,
    pub(crate) unsynced_bytes: usize,
    pub(crate) flush_timer: Option<InFlight<()>>,
    pub(crate) flush_due: bool,
    /// A delay before the next sync, after one failed for lack of a file descriptor.
    pub(crate) sync_pause: Option<InFlight<()>>,
    pub(crate) events: VecDeque<Event>,
    /// Why the log accepts no more appends.
    pub(crate) broken: Option<Error>,
}

pub(crate) type RollInFlight<E> = (InFlight<Result<RollResult<E>>>, Box<RollPlan>);

pub(crate) struct SyncInFlight {
    pub(crate) handle: Submitted<Durable>,
    /// The result, if it came before the end of the preceding write was polled.
    pub(crate) ended: Option<Result<Durable>>,
    pub(crate) submitted_at: Instant,
    pub(crate) _early: Option<EarlySync>,
    pub(crate) end: Offset,
    pub(crate) position: u64,
}

impl<E: Env> Pipeline<E> {
    pub(crate) fn new(summary: &SegmentSummary) -> Self {
        Self {
            groups: VecDeque::new(),
            staged_bytes: 0,
            staged_batches: 0,
            writing: None,
            syncing: None,
            rolling: None,
            submitted: (summary.next, summary.size),
            unsynced_records: 0,
            unsynced_bytes: 0,
            flush_timer: None,
            flush_due: false,
            sync_pause: None,
            events: VecDeque::new(),
            broken: None,
        }
    }

    /// The group of the next batch; `summary` is the segment before it.
    pub(crate) fn last_group(&mut self, summary: SegmentSummary) -> &mut WriteGroup {
        if self.groups.is_empty() {
            self.groups.push_back(WriteGroup::new(summary, None));
        }
        self.groups.back_mut().expect("one was put there")
    }

    /// The active segment changed by something other than an append.
    pub(crate) fn reset_submitted(&mut self, summary: &SegmentSummary) {
        self.submitted = (summary.next, summary.size);
    }

    /// After a truncation: queued events are about offsets of batches that were removed.
    pub(crate) fn clear_events(&mut self) {
        self.events.clear();
    }

    /// Whether to write the staged batches while a sync is in flight: they are large, or waiting gains nothing.
    pub(crate) fn should_write_beside_sync(&self, limits: &LogLimits) -> bool {
        self.groups.len() > 1
            || self
                .groups
                .front()
                .is_some_and(|g| g.bytes >= limits.log_write_beside_sync_bytes)
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.groups.is_empty()
            && self.writing.is_none()
            && self.syncing.is_none()
            && self.rolling.is_none()
            && self.sync_pause.is_none()
    }

    /// Whether a roll is in flight.
    pub(crate) fn is_rolling(&self) -> bool {
        self.rolling.is_some()
    }
}

/// The new segment's file, and the proof that the old segment is durable.
pub(crate) struct RollResult<E: Env> {
    pub(crate) old: Durable,
    pub(crate) file: File<E>,
}

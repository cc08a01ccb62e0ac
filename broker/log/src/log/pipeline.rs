//! The state of group commit: what is staged, and the operations in flight.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Mutex;
use std::task::{Context, Poll};

use brokkr_env::{Durable, Env, Error, File, Result, Submitted};
use brokkr_types::{Instant, Offset};

use crate::log::staged::{RollPlan, WriteGroup};
use crate::state::ackable::AckableOffset;
use crate::state::segment::SegmentSummary;

/// Less than this is not written while a sync is in flight: more may come to go with it, and it would wait for the next sync
/// all the same.
const WRITE_BESIDE_SYNC_MIN: usize = 64 << 10;

/// What an owner waits for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// The log may be acknowledged up to here. Only ever further.
    Ackable(AckableOffset),
    /// Everything staged at `from` and past it is taken back: it was not appended, and its offsets will be given out again.
    /// Whether appending goes on tells the next [`Log::append`].
    Failed {
        /// The first offset that is gone.
        from: Offset,
        /// Why.
        error: Error,
    },
}

/// Something under way that a dropped `next_event` must not cancel.
///
/// The mutex is never locked: it is there so that a log may be shared (`Sync`) though its futures may not.
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
    /// What waits to be written, by segment.
    pub(crate) groups: VecDeque<WriteGroup>,
    /// Bytes and batches of the groups and of the write in flight.
    pub(crate) staged_bytes: usize,
    pub(crate) staged_batches: usize,
    pub(crate) writing: Option<(Submitted<()>, WriteGroup)>,
    pub(crate) syncing: Option<SyncInFlight>,
    pub(crate) rolling: Option<RollInFlight<E>>,
    /// The active segment once the write in flight has ended.
    pub(crate) submitted: (Offset, u64),
    /// Where `flush.messages` is not 1: records written since the last sync began, and when one is due.
    pub(crate) unsynced_records: u64,
    pub(crate) flush_timer: Option<InFlight<()>>,
    pub(crate) flush_due: bool,
    /// The machine was short of something when a sync was to make a directory entry durable: none begins before this ends.
    pub(crate) sync_pause: Option<InFlight<()>>,
    pub(crate) events: VecDeque<Event>,
    /// Why nothing is appended any more.
    pub(crate) broken: Option<Error>,
}

pub(crate) type RollInFlight<E> = (InFlight<Result<RollResult<E>>>, Box<RollPlan>);

pub(crate) struct SyncInFlight {
    pub(crate) handle: Submitted<Durable>,
    /// What came of it, where the end of a write before it was not seen yet.
    pub(crate) ended: Option<Result<Durable>>,
    pub(crate) submitted_at: Instant,
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
            flush_timer: None,
            flush_due: false,
            sync_pause: None,
            events: VecDeque::new(),
            broken: None,
        }
    }

    /// The group that the next batch goes into; the segment stands at `head`.
    pub(crate) fn last_group(&mut self, summary: SegmentSummary) -> &mut WriteGroup {
        if self.groups.is_empty() {
            self.groups.push_back(WriteGroup::new(summary, None));
        }
        self.groups.back_mut().expect("one was put there")
    }

    /// After something other than an append changed the active segment.
    pub(crate) fn reset_submitted(&mut self, summary: &SegmentSummary) {
        self.submitted = (summary.next, summary.size);
    }

    /// After a truncation: what was not heard yet speaks of offsets that are other batches' now.
    pub(crate) fn clear_events(&mut self) {
        self.events.clear();
    }

    /// Whether what is staged is to be written while a sync is in flight: it is much, or nothing is gained by waiting.
    pub(crate) fn should_write_beside_sync(&self) -> bool {
        self.groups.len() > 1
            || self
                .groups
                .front()
                .is_some_and(|g| g.bytes >= WRITE_BESIDE_SYNC_MIN)
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.groups.is_empty()
            && self.writing.is_none()
            && self.syncing.is_none()
            && self.rolling.is_none()
            && self.sync_pause.is_none()
    }

    /// Whether a segment is about to take over.
    pub(crate) fn is_rolling(&self) -> bool {
        self.rolling.is_some()
    }
}

/// The new segment's file, and the proof that the old one is durable.
pub(crate) struct RollResult<E: Env> {
    pub(crate) old: Durable,
    pub(crate) file: File<E>,
}

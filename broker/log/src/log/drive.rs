//! Group commit: writing and syncing what is staged, and reporting the outcome.
//!
//! At most one write, one sync, one roll and one background job are in flight. All are held in the log, so the future
//! of [`Log::next_event`] may be dropped at any time. When no write is in flight, everything staged for the active
//! segment goes out as one vectored write; while a sync is in flight only if it is large enough. When no sync is in
//! flight and a write is not covered by one, a sync is submitted behind it: it begins when that write ends, without a
//! round trip through the owner, and the next write runs beside it.
//!
//! ```text
//! write 1 ──── write 2 ──── write 3 ────
//!        sync 1 ────── sync 2 ───────────      sync 2 covers writes 2 and 3 if it was submitted behind both
//! ```
//! A failed write is cut off by the file; everything staged from it on is undone and reported. A failed sync, or
//! anything else that poisons the directory, undoes all that was not acknowledged, and the log accepts no more
//! appends.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use brokkr_env::{Durable, Env, Error, ErrorKind};
use brokkr_types::Offset;

use super::roll;
use crate::log::Log;
use crate::log::pipeline::{Event, InFlight, SyncInFlight};
use crate::log::staged::{QUEUE_CAPACITY_KEPT, WriteGroup};
use crate::state::ackable::AckableOffset;

impl<E: Env> Log<E> {
    /// The next event; pending while there is none. Drives all disk operations of this log, so its owner polls it
    /// whenever it waits. Cancel-safe.
    pub async fn next_event(&mut self) -> Event {
        poll_fn(|cx| {
            loop {
                let mut progressed = self.poll_in_flight(cx);
                // BEFORE the event is returned, so that the disk works while the owner handles it.
                progressed |= self.begin();
                if let Some(event) = self.pipeline.events.pop_front() {
                    return Poll::Ready(event);
                }
                if !progressed {
                    return Poll::Pending;
                }
            }
        })
        .await
    }

    /// Waits until nothing is in flight. Events stay queued for [`Log::next_event`].
    pub(crate) async fn quiesce(&mut self) {
        poll_fn(|cx| {
            loop {
                let progressed = self.begin() | self.poll_in_flight(cx);
                if !progressed && self.pipeline.is_idle() && !self.background.is_busy() {
                    return Poll::Ready(());
                }
                if !progressed {
                    return Poll::Pending;
                }
            }
        })
        .await;
    }

    /// Starts the operations that can start. Returns whether any did.
    fn begin(&mut self) -> bool {
        if self.pipeline.broken.is_some() {
            return false;
        }
        let wrote = self.begin_write();
        let synced = self.begin_sync();
        wrote | synced | self.begin_background()
    }

    fn begin_write(&mut self) -> bool {
        let acked_by_sync = self.config.flush_messages == 1;
        let pipeline = &mut self.pipeline;
        if pipeline.writing.is_some() || pipeline.rolling.is_some() {
            return false;
        }
        if acked_by_sync
            && pipeline.syncing.is_some()
            && !pipeline.should_write_beside_sync(&self.shared.dir.limits)
        {
            return false;
        }
        let Some(group) = pipeline.groups.front() else {
            return false;
        };
        if group.roll.is_some() {
            return self.begin_roll();
        }
        let mut group = pipeline.groups.pop_front().expect("it is the front");
        if pipeline.groups.is_empty() && !QUEUE_CAPACITY_KEPT.contains(&pipeline.groups.capacity()) {
            pipeline.groups = VecDeque::new();
        }
        if group.batches == 0 {
            return true;
        }
        assert_eq!(
            group.position, self.active.summary.size,
            "a group is written where it was staged"
        );
        let parts = std::mem::take(&mut group.parts);
        let handle = self.file.write_at(group.position, parts);
        pipeline.submitted = (group.summary.next, group.summary.size);
        pipeline.writing = Some((handle, group));
        true
    }

    fn begin_roll(&mut self) -> bool {
        if self.pipeline.syncing.is_some() || self.background.is_busy() {
            return false;
        }
        if self.background.seal.is_some() {
            // The segment before is not listed yet. A disk that was full then may have space now.
            return self.begin_seal();
        }
        let group = self.pipeline.groups.front_mut().expect("the caller looked");
        let plan = group.roll.take().expect("the caller looked");
        let rolling = roll::roll(Arc::clone(&self.shared), self.file.clone(), plan.base);
        self.pipeline.rolling = Some((InFlight::new(rolling), plan));
        true
    }

    fn begin_sync(&mut self) -> bool {
        let pipeline = &mut self.pipeline;
        if pipeline.syncing.is_some()
            || pipeline.sync_pause.is_some()
            || pipeline.rolling.is_some()
            || pipeline.submitted.0 <= self.durable_end
        {
            return false;
        }
        let messages = self.config.flush_messages;
        let is_due = messages == 1 || pipeline.unsynced_records >= messages || pipeline.flush_due;
        let mut early = None;
        if !is_due {
            let dir = &self.shared.dir;
            if pipeline.unsynced_bytes < dir.limits.log_unsynced_bytes {
                return false;
            }
            early = dir.early_syncs.try_begin(dir.limits.log_early_syncs);
            if early.is_none() {
                return false;
            }
            brokkr_types::reached!("a sync began before it was due");
        }
        let (end, position) = pipeline.submitted;
        pipeline.syncing = Some(SyncInFlight {
            handle: self.file.sync(),
            ended: None,
            submitted_at: self.shared.dir.env.now(),
            _early: early,
            end,
            position,
        });
        (
            pipeline.unsynced_records,
            pipeline.unsynced_bytes,
            pipeline.flush_timer,
            pipeline.flush_due,
        ) = (0, 0, None, false);
        true
    }

    fn poll_in_flight(&mut self, cx: &mut Context<'_>) -> bool {
        // The write first: a sync covers it.
        let wrote = self.poll_write(cx);
        let synced = self.poll_sync(cx);
        wrote
            | synced
            | self.poll_roll(cx)
            | self.poll_flush_timer(cx)
            | self.poll_sync_pause(cx)
            | self.poll_background(cx)
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> bool {
        // If only the sync behind this write waits for its end, the wakeup by that sync suffices.
        let end_is_awaited = self.pipeline.syncing.is_none()
            || self.pipeline.should_write_beside_sync(&self.shared.dir.limits)
            || !self.can_stage();
        let Some((handle, group)) = &mut self.pipeline.writing else {
            return false;
        };
        let covered = self
            .pipeline
            .syncing
            .as_ref()
            // A sync that was refused because the write failed ends before the file is cut back; then the write must
            // wake the task.
            .is_some_and(|s| s.end >= group.summary.next && s.ended.is_none());
        let mut noop = Context::from_waker(Waker::noop());
        let cx = if covered && !end_is_awaited { &mut noop } else { cx };
        let Poll::Ready(result) = Pin::new(handle).poll(cx) else {
            return false;
        };
        let (_, group) = self.pipeline.writing.take().expect("it was just polled");
        match result {
            Ok(()) => self.on_written(group),
            Err(error) => self.fail(group.first, error),
        }
        true
    }

    fn on_written(&mut self, group: WriteGroup) {
        self.pipeline.staged_bytes -= group.bytes;
        self.pipeline.staged_batches -= group.batches;
        self.active.extend(group.summary, &group.offsets, &group.times);
        self.note_boundary(group.summary.next, group.summary.size);
        self.background.stalled = false;
        self.view = None;
        if self.config.flush_messages != 1 {
            self.pipeline.unsynced_records += group.records;
            self.pipeline.unsynced_bytes += group.bytes;
            self.arm_flush_timer();
            self.acknowledge(AckableOffset::written(group.summary.next));
        }
    }

    fn poll_sync(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(syncing) = &mut self.pipeline.syncing else {
            return false;
        };
        let mut ended_now = false;
        if syncing.ended.is_none() {
            let Poll::Ready(result) = Pin::new(&mut syncing.handle).poll(cx) else {
                return false;
            };
            (syncing.ended, ended_now) = (Some(result), true);
        }
        if syncing.end > self.active.summary.next {
            // The end of the write before this sync is ready, but was not polled yet.
            return ended_now;
        }
        let mut syncing = self.pipeline.syncing.take().expect("it was just polled");
        let result = syncing.ended.take().expect("it has ended");
        match result {
            Ok(proof) => {
                let now = self.shared.dir.env.now();
                let took = now.saturating_since(syncing.submitted_at);
                self.shared.dir.syncs.record(took);
                self.on_durable(&proof, syncing.end, syncing.position);
            }
            // The written bytes stay valid; only the sync is retried.
            Err(error) if error.kind() == ErrorKind::Resources => self.pause_syncs(&error),
            Err(error) => self.fail(self.ackable.offset(), error),
        }
        true
    }

    fn pause_syncs(&mut self, error: &Error) {
        brokkr_types::reached!("a sync waited for a descriptor");
        let dir = &self.shared.dir;
        let what = format_args!("{}: {error}", self.folder());
        dir.error_log.record("a log not synced yet; tried again", &what);
        let env = &dir.env;
        let pause = env.sleep_until(env.now() + dir.limits.log_sync_retry);
        self.pipeline.sync_pause = Some(InFlight::new(pause));
        self.pipeline.flush_due = true;
    }

    fn poll_sync_pause(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(Poll::Ready(())) = self.pipeline.sync_pause.as_mut().map(|p| p.poll(cx)) else {
            return false;
        };
        self.pipeline.sync_pause = None;
        true
    }

    /// Takes the proof that the active file is durable up to `position`, which is the position of offset `end`.
    pub(crate) fn on_durable(&mut self, proof: &Durable, end: Offset, position: u64) {
        let ackable = AckableOffset::from_proof(proof, &self.file, position, end);
        self.durable_end = end;
        if end >= self.ackable.offset() {
            self.acknowledge(ackable);
        }
    }

    fn acknowledge(&mut self, ackable: AckableOffset) {
        let further = ackable.offset() > self.ackable.offset();
        self.ackable = ackable;
        if !further {
            return;
        }
        self.drop_undo_below(ackable.offset());
        match self.pipeline.events.back_mut() {
            Some(Event::Ackable(last)) => *last = ackable,
            _ => self.pipeline.events.push_back(Event::Ackable(ackable)),
        }
    }

    fn poll_roll(&mut self, cx: &mut Context<'_>) -> bool {
        let Some((rolling, plan)) = &mut self.pipeline.rolling else {
            return false;
        };
        let Poll::Ready(result) = rolling.poll(cx) else {
            return false;
        };
        let base = plan.base;
        let (_, plan) = self.pipeline.rolling.take().expect("it was just polled");
        match result {
            Ok(rolled) => {
                self.on_rolled(rolled, *plan);
                self.pipeline.reset_submitted(&self.active.summary);
                // The roll has synced the old segment, and nothing is written to the new one yet.
                self.pipeline.unsynced_bytes = 0;
            }
            Err(error) => self.fail(base, error),
        }
        true
    }

    fn arm_flush_timer(&mut self) {
        let ms = self.config.flush_ms;
        if ms != u64::MAX && self.pipeline.flush_timer.is_none() && !self.pipeline.flush_due {
            let env = &self.shared.dir.env;
            self.pipeline.flush_timer = Some(InFlight::new(
                env.sleep_until(env.now() + Duration::from_millis(ms)),
            ));
        }
    }

    fn poll_flush_timer(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(timer) = &mut self.pipeline.flush_timer else {
            return false;
        };
        if timer.poll(cx).is_pending() {
            return false;
        }
        (self.pipeline.flush_timer, self.pipeline.flush_due) = (None, true);
        true
    }

    /// Undoes everything at `from` and past it. If the directory is poisoned: everything that was not acknowledged,
    /// and the log stays broken.
    pub(crate) fn fail(&mut self, from: Offset, error: Error) {
        let poisoned = self.shared.dir.dir.poisoned();
        let for_good = poisoned.is_some() || error.kind() == ErrorKind::Gone;
        let from = if for_good { self.ackable.offset() } else { from };
        // Not logged here, as the receiver of the event logs it, and a full disk fails often.
        self.undo_from(from);
        let pipeline = &mut self.pipeline;
        pipeline.groups.clear();
        (pipeline.staged_bytes, pipeline.staged_batches) = (0, 0);
        (pipeline.writing, pipeline.rolling) = (None, None);
        pipeline.submitted = (self.active.summary.next, self.active.summary.size);
        if for_good {
            brokkr_types::reached!("a log stopped writing for good");
            (pipeline.syncing, pipeline.flush_timer, pipeline.sync_pause) = (None, None, None);
            pipeline.broken = Some(poisoned.unwrap_or_else(|| error.clone()));
        } else {
            brokkr_types::reached!("a failed write was taken back");
        }
        if !for_good && pipeline.syncing.as_ref().is_some_and(|s| s.end > from) {
            // It was queued behind the failed write and refused. The next sync covers what it would have.
            (pipeline.syncing, pipeline.flush_due) = (None, true);
        }
        pipeline.events.push_back(Event::Failed { from, error });
    }
}

//! The state that a connection's reader, its writer and its pending requests share.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use brokkr_env::Env;
use futures_util::future::FutureExt;
use tokio::sync::Notify;

use super::memory::HeldBytes;
use super::response::PendingRequest;
use crate::config::Limits;
use crate::coop::{STEPS_MAX, yield_now};

/// The state that a connection's reader, its writer and its pending requests share.
#[derive(Default)]
pub struct ConnectionState {
    limits: Arc<Limits>,
    /// Whether the reader waits for something else than bytes, or has ended. Parked fetches are then answered.
    reader_blocked: AtomicBool,
    unpark: Notify,
    /// The pending requests, the bytes of their frames, and of what they decoded to.
    pending_requests: AtomicUsize,
    frame_bytes: AtomicUsize,
    decoded_bytes: AtomicUsize,
    /// Notified when a pending request was answered.
    answered: Notify,
    /// Notified when the connection must be closed.
    pub(super) closed: Notify,
    /// Notified when the dispatched request starts long work; and whether the peer has closed its side meanwhile.
    pub(super) long_work: Notify,
    pub(super) peer_closed: AtomicBool,
    /// Steps of the reader since it last waited for its peer: appends.
    pub reading: TaskSteps,
    /// Steps of the writer: all other requests.
    pub answering: TaskSteps,
    /// Pending requests that change what a later one depends on.
    mutations: AtomicUsize,
    mutation_done: Notify,
}

/// A pending request that changes what later ones depend on (a topic that it creates). Dropped when the request is done or
/// abandoned.
pub struct MutationGuard(Arc<ConnectionState>);

impl MutationGuard {
    /// For a request that is being dispatched.
    pub fn begin(state: &Arc<ConnectionState>) -> Self {
        state.mutations.fetch_add(1, Ordering::AcqRel);
        Self(Arc::clone(state))
    }
}

impl Drop for MutationGuard {
    fn drop(&mut self) {
        self.0.mutations.fetch_sub(1, Ordering::AcqRel);
        self.0.mutation_done.notify_waiters();
    }
}

/// Counts the steps that a task has done for its connection since it last yielded. Long loops yield by themselves; this
/// counter makes many short requests that follow each other yield too.
#[derive(Default)]
pub struct TaskSteps(AtomicUsize);

impl TaskSteps {
    /// Counts `steps`, and yields if they are many. Cancel-safe.
    pub async fn steps(&self, steps: usize) {
        let done = self.0.fetch_add(steps, Ordering::Relaxed) + steps;
        if done >= STEPS_MAX {
            self.reset();
            yield_now().await;
        }
    }

    /// The task waits for its peer, so other tasks run.
    pub fn reset(&self) {
        self.0.store(0, Ordering::Relaxed);
    }
}

impl ConnectionState {
    /// For a new connection.
    pub fn new(limits: &Arc<Limits>) -> Self {
        Self {
            limits: Arc::clone(limits),
            ..Self::default()
        }
    }

    pub(super) fn set_reader_blocked(&self, is_blocked: bool) {
        self.reader_blocked.store(is_blocked, Ordering::Release);
        if is_blocked {
            self.unpark.notify_waiters();
        }
    }

    /// Runs work during which the reader does not read. If it has to wait, parked fetches are answered.
    ///
    /// The work is pinned by the caller: passed by value it would take its size twice in the connection's future.
    pub(super) async fn while_not_reading<T>(&self, mut work: Pin<&mut impl Future<Output = T>>) -> T {
        // Most of the time the work does not wait.
        if let Some(done) = work.as_mut().now_or_never() {
            return done;
        }
        self.set_reader_blocked(true);
        let done = work.await;
        self.set_reader_blocked(false);
        done
    }

    pub(super) fn add_pending<E: Env>(&self, request: &PendingRequest<E>) {
        self.frame_bytes.fetch_add(request.frame_bytes, Ordering::Relaxed);
        self.decoded_bytes
            .fetch_add(request.decoded.bytes(), Ordering::Relaxed);
        if self.pending_requests.fetch_add(1, Ordering::AcqRel) == self.limits.connection_behind_parked {
            self.unpark.notify_waiters();
        }
    }

    pub(super) fn remove_pending<E: Env>(&self, request: &PendingRequest<E>) {
        self.frame_bytes.fetch_sub(request.frame_bytes, Ordering::Relaxed);
        self.decoded_bytes
            .fetch_sub(request.decoded.bytes(), Ordering::Relaxed);
        self.pending_requests.fetch_sub(1, Ordering::AcqRel);
        self.answered.notify_waiters();
    }

    /// Whether the pending requests hold too much for another one. A request that holds too much by itself does not count: while a large
    /// fetch waits for records, the connection is read on up to the next request.
    pub(super) fn is_over_limit(&self, frame_bytes_max: usize) -> bool {
        let is_over = self.decoded_bytes.load(Ordering::Relaxed) > self.limits.connection_decoded_bytes
            || self.frame_bytes.load(Ordering::Relaxed) > frame_bytes_max;
        is_over && self.pending_requests.load(Ordering::Acquire) > 1
    }

    /// Waits until the pending requests hold little enough for another one. Cancel-safe.
    pub(super) async fn until_below_limit(&self, frame_bytes_max: usize) {
        loop {
            let notified = self.answered.notified();
            if !self.is_over_limit(frame_bytes_max) {
                return;
            }
            notified.await;
        }
    }

    pub(super) fn held_bytes(&self, responses: usize) -> HeldBytes {
        HeldBytes {
            buffers: self.frame_bytes.load(Ordering::Relaxed),
            decoded: self.decoded_bytes.load(Ordering::Relaxed),
            responses,
        }
    }

    /// The request that is being dispatched starts long work.
    pub fn start_long_work(&self) {
        self.long_work.notify_one();
    }

    /// Whether the peer has closed its side, as far as the reader saw during long work.
    pub fn is_peer_closed(&self) -> bool {
        self.peer_closed.load(Ordering::Acquire)
    }

    /// Waits until all requests of this connection that change something are done. Cancel-safe.
    pub async fn mutations_done(&self) {
        loop {
            let notified = self.mutation_done.notified();
            if self.mutations.load(Ordering::Acquire) == 0 {
                return;
            }
            notified.await;
        }
    }

    /// Waits until parked fetches must be answered: the reader is blocked, or so many requests wait behind the fetch that
    /// the reader will soon be, and could not see the connection's end. Cancel-safe.
    pub async fn until_unpark(&self) {
        loop {
            let notified = self.unpark.notified();
            let are_many_behind =
                self.pending_requests.load(Ordering::Acquire) > self.limits.connection_behind_parked;
            if are_many_behind || self.reader_blocked.load(Ordering::Acquire) {
                return;
            }
            notified.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_short_requests_yield() {
        let state = ConnectionState::default();
        let short = || state.reading.steps(STEPS_MAX / 4).now_or_never().is_some();
        let at_once: Vec<bool> = (0..8).map(|_| short()).collect();
        assert_eq!(at_once, [true, true, true, false, true, true, true, false]);
    }
}

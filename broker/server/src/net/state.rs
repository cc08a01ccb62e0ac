//! State that the two tasks of a connection and its requests under way share.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use brokkr_env::Env;
use futures_util::future::FutureExt;
use tokio::sync::Notify;

use super::memory::Holds;
use super::response::UnderWay;
use crate::coop::{STEPS_MAX, yield_now};

/// A connection is read no further while its requests under way hold more decoded bytes than this.
const DECODED_BYTES_MAX: usize = 512 * 1024;
/// With more requests than this behind it nobody lets a fetch wait.
const BEHIND_PARKED_MAX: usize = 16;

/// State that the two tasks of a connection and its requests under way share.
#[derive(Default)]
pub struct State {
    /// The peer sends nothing more, or nothing more is read from it for now.
    hurried: AtomicBool,
    hurry: Notify,
    /// Requests under way, the bytes of their frames, and what they decoded to.
    requests: AtomicUsize,
    frame_bytes: AtomicUsize,
    decoded_bytes: AtomicUsize,
    /// Some of them were answered.
    fewer: Notify,
    /// The connection is to be closed.
    pub(super) closed: Notify,
    /// What is dispatched takes long, so that meanwhile the peer's end has to be looked for; and the peer has closed its side.
    pub(super) long_work: Notify,
    pub(super) peer_closed: AtomicBool,
    /// What the reader does since it last waited for its peer: appends.
    pub reading: Worked,
    /// What the writer does: all other requests.
    pub answering: Worked,
    /// Requests under way that change what a later one finds.
    changing: AtomicUsize,
    changed: Notify,
}

/// A request that changes what later ones find (a topic that it creates), until it is carried out or given up.
pub struct Changing(Arc<State>);

impl Changing {
    /// For a request that is dispatched now.
    pub fn begin(state: &Arc<State>) -> Self {
        state.changing.fetch_add(1, Ordering::AcqRel);
        Self(Arc::clone(state))
    }
}

impl Drop for Changing {
    fn drop(&mut self) {
        self.0.changing.fetch_sub(1, Ordering::AcqRel);
        self.0.changed.notify_waiters();
    }
}

/// Steps that a task has done for its connection's requests since others had a turn. Each request's long loops give way by themselves;
/// but many requests that are short follow each other in one task.
#[derive(Default)]
pub struct Worked(AtomicUsize);

impl Worked {
    /// So many more are done, or will be at once. Cancel-safe.
    pub async fn steps(&self, steps: usize) {
        let done = self.0.fetch_add(steps, Ordering::Relaxed) + steps;
        if done >= STEPS_MAX {
            self.rest();
            yield_now().await;
        }
    }

    /// The task waits for its peer: so others have a turn.
    pub fn rest(&self) {
        self.0.store(0, Ordering::Relaxed);
    }
}

impl State {
    pub(super) fn hurry(&self, hurried: bool) {
        self.hurried.store(hurried, Ordering::Release);
        if hurried {
            self.hurry.notify_waiters();
        }
    }

    /// Runs what keeps the reader from reading: while it waits, what is parked is answered.
    pub(super) async fn not_reading<T>(&self, what: impl Future<Output = T>) -> T {
        let mut what = std::pin::pin!(what);
        // Most of the time it waits for nothing.
        if let Some(done) = what.as_mut().now_or_never() {
            return done;
        }
        self.hurry(true);
        let done = what.await;
        self.hurry(false);
        done
    }

    pub(super) fn begun<E: Env>(&self, request: &UnderWay<E>) {
        self.frame_bytes.fetch_add(request.frame_bytes, Ordering::Relaxed);
        self.decoded_bytes
            .fetch_add(request.decoded.bytes(), Ordering::Relaxed);
        if self.requests.fetch_add(1, Ordering::AcqRel) == BEHIND_PARKED_MAX {
            self.hurry.notify_waiters();
        }
    }

    pub(super) fn ended<E: Env>(&self, request: &UnderWay<E>) {
        self.frame_bytes.fetch_sub(request.frame_bytes, Ordering::Relaxed);
        self.decoded_bytes
            .fetch_sub(request.decoded.bytes(), Ordering::Relaxed);
        self.requests.fetch_sub(1, Ordering::AcqRel);
        self.fewer.notify_waiters();
    }

    pub(super) fn holds_much(&self, frame_bytes_max: usize) -> bool {
        self.decoded_bytes.load(Ordering::Relaxed) > DECODED_BYTES_MAX
            || self.frame_bytes.load(Ordering::Relaxed) > frame_bytes_max
    }

    /// Waits until the requests under way hold little enough for another one. Cancel-safe.
    pub(super) async fn room(&self, frame_bytes_max: usize) {
        loop {
            let heard = self.fewer.notified();
            if !self.holds_much(frame_bytes_max) {
                return;
            }
            heard.await;
        }
    }

    pub(super) fn holds(&self, responses: usize) -> Holds {
        Holds {
            buffers: self.frame_bytes.load(Ordering::Relaxed),
            decoded: self.decoded_bytes.load(Ordering::Relaxed),
            responses,
        }
    }

    /// What is dispatched now takes long.
    pub fn works_for_long(&self) {
        self.long_work.notify_one();
    }

    /// Whether the peer is known to have closed its side, while a request was dispatched.
    pub fn is_peer_closed(&self) -> bool {
        self.peer_closed.load(Ordering::Acquire)
    }

    /// Waits until all requests of this connection that change something are carried out. Cancel-safe.
    pub async fn all_changed(&self) {
        loop {
            let heard = self.changed.notified();
            if self.changing.load(Ordering::Acquire) == 0 {
                return;
            }
            heard.await;
        }
    }

    /// Waits until what is parked had better be answered: the peer has closed its side, or so many requests wait behind this one
    /// that soon nothing more would be read, and its end could not be seen. Cancel-safe.
    pub async fn hurried(&self) {
        loop {
            let heard = self.hurry.notified();
            let behind = self.requests.load(Ordering::Acquire) > BEHIND_PARKED_MAX;
            if behind || self.hurried.load(Ordering::Acquire) {
                return;
            }
            heard.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_requests_that_are_short_give_way() {
        let state = State::default();
        let short = || state.reading.steps(STEPS_MAX / 4).now_or_never().is_some();
        let at_once: Vec<bool> = (0..8).map(|_| short()).collect();
        assert_eq!(at_once, [true, true, true, false, true, true, true, false]);
    }
}

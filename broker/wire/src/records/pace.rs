//! Yielding during long CPU work: decompressing a large batch must not block a thread for other tasks.
//!
//! Work is counted, not timed, so that runs are reproducible. A unit takes about a nanosecond for the slowest input that a
//! peer can craft. The weights below are for that input; with ordinary input the work yields more often than necessary.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::{Context, Poll, Waker};

/// Work between two yields, in units: a quarter of a millisecond.
pub(super) const BREAK_UNITS: usize = 256 << 10;

/// Output bytes produced at a time, one unit each.
pub(super) const PIECE_MAX: usize = 256 << 10;

/// Counts the work done and yields now and then. Works with any executor.
#[derive(Debug)]
pub struct Pace {
    /// Work until the next yield. `None`: never yields.
    left_units: Option<usize>,
    /// Wakes the task after other tasks have run.
    wake: fn(&mut Context<'_>),
}

impl Pace {
    /// Yields after every `BREAK_UNITS` of work.
    pub fn gives_way() -> Self {
        Self::gives_way_by(|cx| cx.waker().wake_by_ref())
    }

    /// As [`Pace::gives_way`], with the executor's own function to wake the task later.
    pub fn gives_way_by(wake: fn(&mut Context<'_>)) -> Self {
        Self {
            left_units: Some(BREAK_UNITS),
            wake,
        }
    }

    /// As [`Pace::gives_way`], but with this much work before the first yield.
    pub fn gives_way_first_after(units: usize) -> Self {
        Self {
            left_units: Some(units),
            ..Self::gives_way()
        }
    }

    /// Never yields: for little work, and for callers outside of tasks.
    pub fn at_once() -> Self {
        Self {
            left_units: None,
            wake: |_| {},
        }
    }

    /// Work until the next yield; unlimited if it never yields.
    pub fn left_units(&self) -> usize {
        self.left_units.unwrap_or(usize::MAX)
    }

    /// Counts work. When a yield is due, returns [`Poll::Pending`] once and wakes the task later. Cancel-safe.
    pub async fn work(&mut self, units: usize) {
        let Some(left) = &mut self.left_units else {
            return;
        };
        *left = left.saturating_sub(units);
        if *left == 0 {
            *left = BREAK_UNITS;
            let (mut yielded, wake) = (false, self.wake);
            poll_fn(|cx| {
                if std::mem::replace(&mut yielded, true) {
                    return Poll::Ready(());
                }
                wake(cx);
                Poll::Pending
            })
            .await;
        }
    }
}

/// The result of a future whose [`Pace`] is [`Pace::at_once`].
pub(super) fn done<T>(work: impl Future<Output = T>) -> T {
    match pin!(work).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(done) => done,
        Poll::Pending => unreachable!("only a pace that gives way waits"),
    }
}

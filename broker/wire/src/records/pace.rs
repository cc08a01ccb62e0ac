//! Long work gives way: what decompresses to much must not keep a thread from everybody else.
//!
//! Work is counted, not timed, so that what happens is the same each time. A unit of it takes about a nanosecond where a peer has made
//! it as slow as it can be. So the weights below are those of the worst input; ordinary input gives way more often than it needs to.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::{Context, Poll, Waker};

/// Work between two breaks, in units: a quarter of a millisecond.
pub(super) const BREAK_UNITS: usize = 256 << 10;

/// Bytes of output that are made in one go, at a unit each.
pub(super) const PIECE_MAX: usize = 256 << 10;

/// Counts what long work has done, and gives way now and then. Takes no executor: whoever polls decides who comes next.
#[derive(Debug)]
pub struct Pace {
    /// Work until the next break. `None`: it never gives way.
    left_units: Option<usize>,
    /// Has the task polled again, after others.
    wake: fn(&mut Context<'_>),
}

impl Pace {
    /// Lets other tasks run after every `BREAK_UNITS` of work.
    pub fn gives_way() -> Self {
        Self::gives_way_by(|cx| cx.waker().wake_by_ref())
    }

    /// As [`Pace::gives_way`], where an executor knows a better way to be polled again after others.
    pub fn gives_way_by(wake: fn(&mut Context<'_>)) -> Self {
        Self {
            left_units: Some(BREAK_UNITS),
            wake,
        }
    }

    /// As [`Pace::gives_way`], but the first break comes after so much work: for whoever tries whether there is no more.
    pub fn gives_way_first_after(units: usize) -> Self {
        Self {
            left_units: Some(units),
            ..Self::gives_way()
        }
    }

    /// For little work, and for callers that are no tasks.
    pub fn at_once() -> Self {
        Self {
            left_units: None,
            wake: |_| {},
        }
    }

    /// Work until the next break: without end, where it never gives way.
    pub fn left_units(&self) -> usize {
        self.left_units.unwrap_or(usize::MAX)
    }

    /// So much more is done. At a break it is [`Poll::Pending`] once, and its task is polled again. Cancel-safe.
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

/// The result of work whose [`Pace`] is [`Pace::at_once`].
pub(super) fn done<T>(work: impl Future<Output = T>) -> T {
    match pin!(work).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(done) => done,
        Poll::Pending => unreachable!("only a pace that gives way waits"),
    }
}

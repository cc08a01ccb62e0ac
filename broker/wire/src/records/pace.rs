//! Long work gives way: what decompresses to much must not keep a thread from everybody else.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::{Context, Poll, Waker};

/// Bytes of output between two breaks: at 1 GB/s a quarter of a millisecond.
pub(super) const PIECE_MAX: usize = 256 << 10;

/// Counts what long work has done, and gives way now and then. Takes no executor: whoever polls decides who comes next.
#[derive(Debug)]
pub struct Pace {
    /// `None`: it never gives way.
    since_break_bytes: Option<usize>,
}

impl Pace {
    /// Lets other tasks run after every [`PIECE_MAX`] bytes.
    pub fn gives_way() -> Self {
        Self {
            since_break_bytes: Some(0),
        }
    }

    /// For little work, and for callers that are no tasks.
    pub fn at_once() -> Self {
        Self {
            since_break_bytes: None,
        }
    }

    /// So many bytes more are done. Cancel-safe.
    pub async fn bytes(&mut self, n: usize) {
        let Some(done) = &mut self.since_break_bytes else {
            return;
        };
        *done += n;
        if *done >= PIECE_MAX {
            *done = 0;
            let mut yielded = false;
            poll_fn(|cx| {
                if std::mem::replace(&mut yielded, true) {
                    return Poll::Ready(());
                }
                cx.waker().wake_by_ref();
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

//! A small set of futures that a client waits for.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;

/// Futures that each end in an event. All are polled at every wake-up: there are few of them, and tracking which one was
/// woken would wake the task once more for each.
pub(crate) struct Events<T>(Vec<Pin<Box<dyn Future<Output = T> + Send>>>);

impl<T> Events<T> {
    pub(crate) fn new() -> Self {
        Self(Vec::new())
    }

    pub(crate) fn push(&mut self, future: impl Future<Output = T> + Send + 'static) {
        self.0.push(Box::pin(future));
    }

    /// The next event; never returns while the set is empty. Cancel-safe.
    pub(crate) async fn next(&mut self) -> T {
        poll_fn(|cx| {
            for i in 0..self.0.len() {
                if let Poll::Ready(event) = self.0[i].as_mut().poll(cx) {
                    drop(self.0.remove(i));
                    return Poll::Ready(event);
                }
            }
            Poll::Pending
        })
        .await
    }
}

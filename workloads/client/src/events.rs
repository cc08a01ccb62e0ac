//! What a client waits for: a few futures at a time.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;

/// Futures, each of which ends in an event. All are polled at every turn: they are few, and who keeps track of which one was
/// woken wakes its own task once more for each.
pub(crate) struct Events<T>(Vec<Pin<Box<dyn Future<Output = T> + Send>>>);

impl<T> Events<T> {
    pub(crate) fn new() -> Self {
        Self(Vec::new())
    }

    pub(crate) fn push(&mut self, future: impl Future<Output = T> + Send + 'static) {
        self.0.push(Box::pin(future));
    }

    /// The next event; never, while nothing is waited for. Cancel-safe.
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

//! Yielding to other tasks.

use std::future::Future;
use std::pin::pin;
use std::task::Context;

/// Wakes the task after all other ready tasks have run and IO was polled. (A task that only wakes itself queues behind the
/// ready tasks, but tokio polls IO only every 61 polls; with a millisecond of work in each, IO would wait too long.) In a
/// world without tokio's runtime the task is woken at once.
pub fn poll_later(cx: &mut Context<'_>) {
    let deferred = pin!(::tokio::task::yield_now()).poll(cx);
    debug_assert!(deferred.is_pending(), "the first poll is pending");
}

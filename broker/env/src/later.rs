//! Being polled again after others.

use std::future::Future;
use std::pin::pin;
use std::task::Context;

/// Has the task polled again once nobody else is ready, and whoever waits for IO was looked after. A task that just wakes itself goes behind
/// those that are ready, but tokio looks for IO only after each 61 that it polls: with a millisecond of work in each the others would
/// wait long. In a world without tokio's runtime the task is woken at once.
pub fn poll_later(cx: &mut Context<'_>) {
    let deferred = pin!(::tokio::task::yield_now()).poll(cx);
    debug_assert!(deferred.is_pending(), "it is polled for the first time");
}

//! A signal to come to an end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

#[derive(Default)]
struct Inner {
    stopped: AtomicBool,
    notify: Notify,
}

/// Asks whoever holds a clone to come to an end. It stays asked.
#[derive(Clone, Default)]
pub struct Stop(Arc<Inner>);

impl Stop {
    /// Not asked yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks.
    pub fn stop(&self) {
        self.0.stopped.store(true, Ordering::Release);
        self.0.notify.notify_waiters();
    }

    /// Whether it was asked.
    pub fn is_stopped(&self) -> bool {
        self.0.stopped.load(Ordering::Acquire)
    }

    /// Waits until it is. Cancel-safe.
    pub async fn wait(&self) {
        loop {
            let notified = self.0.notify.notified();
            // AFTER the future was made: a call of `stop` from here on wakes it.
            if self.is_stopped() {
                return;
            }
            notified.await;
        }
    }
}

//! A stop signal.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

#[derive(Default)]
struct Inner {
    stopped: AtomicBool,
    notify: Notify,
}

/// A stop signal, shared by clones. It is never reset.
#[derive(Clone, Default)]
pub struct Stop(Arc<Inner>);

impl Stop {
    /// A signal that is not set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the signal.
    pub fn stop(&self) {
        self.0.stopped.store(true, Ordering::Release);
        self.0.notify.notify_waiters();
    }

    /// Whether the signal is set.
    pub fn is_stopped(&self) -> bool {
        self.0.stopped.load(Ordering::Acquire)
    }

    /// Waits until the signal is set. Cancel-safe.
    pub async fn wait(&self) {
        loop {
            let notified = self.0.notify.notified();
            // AFTER the future was created: a call of `stop` from here on wakes it.
            if self.is_stopped() {
                return;
            }
            notified.await;
        }
    }
}

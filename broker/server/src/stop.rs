//! A stop signal that many tasks can wait for.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

/// A signal that is triggered once. Cloning shares it.
#[derive(Clone, Default)]
pub struct StopSignal {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    triggered: AtomicBool,
    notify: Notify,
}

impl StopSignal {
    /// Triggers the signal. It stays triggered.
    pub fn trigger(&self) {
        self.inner.triggered.store(true, Ordering::Release);
        self.inner.notify.notify_waiters();
    }

    /// Whether it was triggered.
    pub fn is_triggered(&self) -> bool {
        self.inner.triggered.load(Ordering::Acquire)
    }

    /// Waits until it is triggered. Cancel-safe.
    pub async fn wait(&self) {
        // BEFORE the flag is read: a later trigger notifies.
        let notified = self.inner.notify.notified();
        if !self.is_triggered() {
            notified.await;
        }
    }
}

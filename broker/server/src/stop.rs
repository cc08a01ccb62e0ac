//! A signal that everything hears: stop.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

/// The signal. Cloning shares it.
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
    /// Tells everybody, now and later.
    pub fn trigger(&self) {
        self.inner.triggered.store(true, Ordering::Release);
        self.inner.notify.notify_waiters();
    }

    /// Whether it was told.
    pub fn is_triggered(&self) -> bool {
        self.inner.triggered.load(Ordering::Acquire)
    }

    /// Waits until it is told. Cancel-safe.
    pub async fn wait(&self) {
        // BEFORE the flag is read: what is told in between is heard.
        let notified = self.inner.notify.notified();
        if !self.is_triggered() {
            notified.await;
        }
    }
}

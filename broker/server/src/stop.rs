//! A signal that everything hears: stop.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

/// The signal. Cloning shares it.
#[derive(Clone, Default)]
pub struct Stop {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    told: AtomicBool,
    notify: Notify,
}

impl Stop {
    /// Tells everybody, now and later.
    pub fn tell(&self) {
        self.inner.told.store(true, Ordering::Release);
        self.inner.notify.notify_waiters();
    }

    /// Whether it was told.
    pub fn is_told(&self) -> bool {
        self.inner.told.load(Ordering::Acquire)
    }

    /// Waits until it is told. Cancel-safe.
    pub async fn wait(&self) {
        // BEFORE the flag is read: what is told in between is heard.
        let heard = self.inner.notify.notified();
        if !self.is_told() {
            heard.await;
        }
    }
}

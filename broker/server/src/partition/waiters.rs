//! Requests that wait for partitions to have more: parked fetches.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::Notify;

/// Somebody who waits for a partition, or several, to have more.
#[derive(Default)]
pub struct Waiter {
    notify: Notify,
    /// Which of the partitions have more, for whoever wants to know it.
    changed: Option<Mutex<ChangedPartitions>>,
}

/// Which of the partitions that somebody waits for have more.
#[derive(Default)]
pub struct ChangedPartitions {
    /// By the places that were given for them.
    pub indexes: Vec<usize>,
    /// One of them has ended.
    pub any_ended: bool,
}

impl Waiter {
    /// One who wants to know which partitions have more.
    pub fn tracking_partitions() -> Self {
        Self {
            notify: Notify::default(),
            changed: Some(Mutex::default()),
        }
    }

    /// Waits until some partition has told. Cancel-safe.
    pub async fn notified(&self) {
        self.notify.notified().await;
    }

    /// Returns and forgets which partitions had more since the last call.
    pub fn take_changed(&self) -> ChangedPartitions {
        let changed = self.changed.as_ref();
        changed
            .map(|changed| std::mem::take(&mut *changed.lock().unwrap_or_else(PoisonError::into_inner)))
            .unwrap_or_default()
    }

    pub(super) fn notify(&self, index: usize, has_ended: bool) {
        if let Some(changed) = &self.changed {
            let mut changed = changed.lock().unwrap_or_else(PoisonError::into_inner);
            changed.indexes.push(index);
            changed.any_ended |= has_ended;
        }
        self.notify.notify_one();
    }
}

/// Those who wait for one partition, each with the place that it gave it. No message to its owner: a parked fetch costs nobody a
/// turn.
#[derive(Default)]
pub(super) struct Waiters(Mutex<Vec<(Weak<Waiter>, usize)>>);

impl Waiters {
    fn lock(&self) -> MutexGuard<'_, Vec<(Weak<Waiter>, usize)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn add(&self, waiter: &Arc<Waiter>, index: usize) {
        let mut all = self.lock();
        // Drops waiters that are gone, when the list would grow.
        if all.len() == all.capacity() {
            all.retain(|(w, _)| w.strong_count() > 0);
        }
        all.push((Arc::downgrade(waiter), index));
    }

    /// Tells all of them that there is more, or that there will be no more. `notified` is room for them, left empty.
    pub(super) fn notify_all(&self, notified: &mut Vec<(Weak<Waiter>, usize)>, has_ended: bool) {
        // Taken out first: one of them that looks at once may register again.
        std::mem::swap(&mut *self.lock(), notified);
        for (waiter, index) in notified.drain(..) {
            if let Some(w) = waiter.upgrade() {
                w.notify(index, has_ended);
            }
        }
    }
}

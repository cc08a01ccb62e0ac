//! Parked fetches that wait for partitions to have more.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::Notify;

/// A parked fetch that waits for one or more partitions.
#[derive(Default)]
pub struct Waiter {
    notify: Notify,
    /// The partitions that changed, if the fetch tracks them.
    changed: Option<Mutex<ChangedPartitions>>,
}

/// The partitions of a waiter that changed.
#[derive(Default)]
pub struct ChangedPartitions {
    /// Indexes of the partitions in the fetch.
    pub indexes: Vec<usize>,
    /// Whether one of them was closed, deleted or went offline.
    pub any_ended: bool,
}

impl Waiter {
    /// A waiter that tracks which partitions changed.
    pub fn tracking_partitions() -> Self {
        Self {
            notify: Notify::default(),
            changed: Some(Mutex::default()),
        }
    }

    /// Waits until a partition notifies. Cancel-safe.
    pub async fn notified(&self) {
        self.notify.notified().await;
    }

    /// Returns the partitions that changed since the last call.
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

/// The waiters of one partition, each with the partition's index in its fetch. Registering sends the owner no message, so
/// a parked fetch never wakes it.
#[derive(Default)]
pub(super) struct Waiters(Mutex<Vec<(Weak<Waiter>, usize)>>);

impl Waiters {
    fn lock(&self) -> MutexGuard<'_, Vec<(Weak<Waiter>, usize)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn add(&self, waiter: &Arc<Waiter>, index: usize) {
        let mut all = self.lock();
        // Removes dropped waiters when the list would grow.
        if all.len() == all.capacity() {
            all.retain(|(w, _)| w.strong_count() > 0);
        }
        all.push((Arc::downgrade(waiter), index));
    }

    /// Notifies all waiters that there is more, or, with `has_ended`, that there will be no more. `notified` is a reusable
    /// buffer, left empty.
    pub(super) fn notify_all(&self, notified: &mut Vec<(Weak<Waiter>, usize)>, has_ended: bool) {
        // Swapped out first: a woken waiter may register again at once.
        std::mem::swap(&mut *self.lock(), notified);
        for (waiter, index) in notified.drain(..) {
            if let Some(w) = waiter.upgrade() {
                w.notify(index, has_ended);
            }
        }
    }
}

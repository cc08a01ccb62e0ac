//! Requests that wait for partitions to have more: parked fetches.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::Notify;

/// Somebody who waits for a partition, or several, to have more.
#[derive(Default)]
pub struct Waiter {
    notify: Notify,
    /// Which of the partitions have more, for whoever wants to know it.
    more: Option<Mutex<More>>,
}

/// Which of the partitions that somebody waits for have more.
#[derive(Default)]
pub struct More {
    /// By the places that were given for them.
    pub places: Vec<usize>,
    /// One of them has ended.
    pub ended: bool,
}

impl Waiter {
    /// One who wants to know which partitions have more.
    pub fn of_each() -> Self {
        Self {
            notify: Notify::default(),
            more: Some(Mutex::default()),
        }
    }

    /// Waits until some partition has told. Cancel-safe.
    pub async fn told(&self) {
        self.notify.notified().await;
    }

    /// Returns and forgets which partitions had more since the last call.
    pub fn more(&self) -> More {
        let more = self.more.as_ref();
        more.map(|more| std::mem::take(&mut *more.lock().unwrap_or_else(PoisonError::into_inner)))
            .unwrap_or_default()
    }

    pub(super) fn tell(&self, place: usize, ended: bool) {
        if let Some(more) = &self.more {
            let mut more = more.lock().unwrap_or_else(PoisonError::into_inner);
            more.places.push(place);
            more.ended |= ended;
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

    pub(super) fn add(&self, waiter: &Arc<Waiter>, place: usize) {
        let mut all = self.lock();
        // Drops waiters that are gone, when the list would grow.
        if all.len() == all.capacity() {
            all.retain(|(w, _)| w.strong_count() > 0);
        }
        all.push((Arc::downgrade(waiter), place));
    }

    /// Tells all of them that there is more, or that there will be no more. `told` is room for them, left empty.
    pub(super) fn tell_all(&self, told: &mut Vec<(Weak<Waiter>, usize)>, ended: bool) {
        // Taken out first: one of them that looks at once may register again.
        std::mem::swap(&mut *self.lock(), told);
        for (waiter, place) in told.drain(..) {
            if let Some(w) = waiter.upgrade() {
                w.tell(place, ended);
            }
        }
    }
}

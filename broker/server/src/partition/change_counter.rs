//! Counts changes, so that a task that checks for them now and then does no work while nothing changes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A counter of changes. Cloning shares it.
#[derive(Clone, Default)]
pub struct ChangeCounter(Arc<AtomicU64>);

impl ChangeCounter {
    /// Counts a change.
    pub fn increment(&self) {
        self.0.fetch_add(1, Ordering::Release);
    }

    /// The number of changes. A reader of this count sees everything that was published before the last change.
    pub fn count(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }
}

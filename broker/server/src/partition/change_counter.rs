//! How often something changed, for a task that looks at it now and then and costs nothing while nothing changes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A counter of changes. Cloning shares it.
#[derive(Clone, Default)]
pub struct ChangeCounter(Arc<AtomicU64>);

impl ChangeCounter {
    /// Counts one.
    pub fn increment(&self) {
        self.0.fetch_add(1, Ordering::Release);
    }

    /// How many there were. What changed before the last of them is seen by whoever reads this count.
    pub fn count(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }
}

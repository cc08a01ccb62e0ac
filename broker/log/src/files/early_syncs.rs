//! Limits the syncs that begin before anything asks for them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The early syncs in flight in a log directory. Clones share it.
#[derive(Clone, Default)]
pub(crate) struct EarlySyncs(Arc<AtomicUsize>);

/// One of them; it ends when this is dropped.
pub(crate) struct EarlySync(Arc<AtomicUsize>);

impl EarlySyncs {
    /// Begins one, unless `max` are in flight.
    pub(crate) fn try_begin(&self, max: usize) -> Option<EarlySync> {
        let begun = self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, |n| {
            (n < max).then_some(n + 1)
        });
        begun.ok().map(|_| EarlySync(Arc::clone(&self.0)))
    }
}

impl Drop for EarlySync {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_no_more_at_a_time_than_the_limit() {
        let syncs = EarlySyncs::default();
        let first = syncs.try_begin(2);
        let second = syncs.clone().try_begin(2);
        assert!(first.is_some() && second.is_some() && syncs.try_begin(2).is_none());
        drop(first);
        assert!(syncs.try_begin(2).is_some());
    }
}

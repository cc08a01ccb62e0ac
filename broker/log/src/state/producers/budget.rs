//! The number of producers that all logs of a broker keep in memory together. Any client can obtain a producer id,
//! and a producer that appended once is kept for a day.
//!
//! Below the maximum all are kept. Above it, a log that grows and has more than its share (the maximum divided by the
//! number of logs with producers) removes those that appended longest ago: its excess, and at least an eighth of its
//! own. Logs below their share keep theirs, so the total is at most twice the maximum. Producers with an open
//! transaction stay.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The maximum that all logs share. Clones share it too.
#[derive(Clone, Debug)]
pub struct ProducerBudget(Arc<BudgetState>);

#[derive(Debug)]
struct BudgetState {
    max: usize,
    held: AtomicUsize,
    /// Logs that have at least one producer.
    logs: AtomicUsize,
}

impl ProducerBudget {
    /// A budget of `max` producers.
    pub fn new(max: usize) -> Self {
        Self(Arc::new(BudgetState {
            max,
            held: AtomicUsize::new(0),
            logs: AtomicUsize::new(0),
        }))
    }

    /// The number of producers in memory.
    pub fn held(&self) -> usize {
        self.0.held.load(Ordering::Relaxed)
    }

    /// A log's part of the budget, empty at first.
    pub(crate) fn usage(&self) -> ProducerUsage {
        ProducerUsage {
            budget: self.clone(),
            count: 0,
        }
    }
}

/// The number of producers of one log.
#[derive(Debug)]
pub(crate) struct ProducerUsage {
    budget: ProducerBudget,
    count: usize,
}

impl ProducerUsage {
    /// Records that the log now has `count` producers. Returns how many it must remove.
    pub(crate) fn set_count(&mut self, count: usize) -> usize {
        if count == self.count {
            return 0;
        }
        let shared = &self.budget.0;
        match (self.count, count) {
            (0, _) => drop(shared.logs.fetch_add(1, Ordering::Relaxed)),
            (_, 0) => drop(shared.logs.fetch_sub(1, Ordering::Relaxed)),
            _ => {}
        }
        let grew = count > self.count;
        if grew {
            shared.held.fetch_add(count - self.count, Ordering::Relaxed);
        } else {
            shared.held.fetch_sub(self.count - count, Ordering::Relaxed);
        }
        self.count = count;
        let share = shared.max / shared.logs.load(Ordering::Relaxed).max(1);
        if grew && self.budget.held() > shared.max && count > share {
            (count / 8).max(count - share)
        } else {
            0
        }
    }
}

impl Drop for ProducerUsage {
    fn drop(&mut self) {
        self.set_count(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_above_its_share_gives_way() {
        let budget = ProducerBudget::new(100);
        let (mut many, mut few) = (budget.usage(), budget.usage());
        assert_eq!((many.set_count(96), few.set_count(4), budget.held()), (0, 0, 100));
        assert_eq!(few.set_count(5), 0, "below its share");
        assert_eq!(many.set_count(97), 47);
        assert_eq!(
            (many.set_count(50), many.set_count(51), budget.held()),
            (0, 0, 56)
        );
        drop(many);
        assert_eq!(budget.held(), 5);
        assert_eq!(
            (few.set_count(100), few.set_count(101)),
            (0, 12),
            "alone it has all"
        );
        drop(few);
        assert_eq!(budget.held(), 0);
    }
}

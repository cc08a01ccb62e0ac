//! Counters and histograms: what a broker counts about itself while it runs.
//!
//! Relaxed atomics without a registry and without a clock: an update is one or two `fetch_add`s, and no decision depends on a value. So
//! the code that the simulator runs may count too. Whoever exports the values gives them their names.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds of the buckets of a [`Histogram`], in microseconds, ascending. A duration that equals a bound is in its bucket; durations
/// above the last bound have a bucket of their own.
pub const BOUNDS_MICROS: [u64; 18] = [
    50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
    2_500_000, 5_000_000, 10_000_000, 30_000_000,
];

/// A number that only grows. It wraps at 2^64.
#[derive(Default, Debug)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// The sum so far.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Counts durations by [`BOUNDS_MICROS`].
#[derive(Default, Debug)]
pub struct Histogram {
    buckets: [Counter; BOUNDS_MICROS.len() + 1],
    sum_nanos: Counter,
}

/// The values of a [`Histogram`] at one moment. A duration that is recorded meanwhile may be in its bucket and not yet in the sum.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct HistogramValues {
    /// Number of durations in each bucket, not cumulative: one for each of [`BOUNDS_MICROS`], and the last for those above.
    pub buckets: [u64; BOUNDS_MICROS.len() + 1],
    /// Sum of all durations, in nanoseconds.
    pub sum_nanos: u64,
}

impl Histogram {
    /// Counts a duration.
    pub fn record(&self, duration: Duration) {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let bucket = BOUNDS_MICROS.partition_point(|bound| bound * 1000 < nanos);
        self.buckets[bucket].add(1);
        self.sum_nanos.add(nanos);
    }

    /// The values so far.
    pub fn values(&self) -> HistogramValues {
        HistogramValues {
            buckets: std::array::from_fn(|i| self.buckets[i].get()),
            sum_nanos: self.sum_nanos.get(),
        }
    }
}

impl HistogramValues {
    /// Number of durations.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bounds_ascend() {
        assert!(BOUNDS_MICROS.windows(2).all(|w| w[0] < w[1]));
    }

    #[test]
    fn a_counter_sums_up() {
        let counter = Counter::default();
        assert_eq!(counter.get(), 0);
        counter.add(3);
        counter.add(0);
        counter.add(4);
        assert_eq!(counter.get(), 7);
    }

    #[test]
    fn a_duration_is_counted_in_the_first_bucket_whose_bound_it_does_not_exceed() {
        let bucket_of = |duration| {
            let histogram = Histogram::default();
            histogram.record(duration);
            let values = histogram.values();
            assert_eq!(values.count(), 1, "{duration:?}");
            assert_eq!(u128::from(values.sum_nanos), duration.as_nanos());
            values.buckets.iter().position(|n| *n == 1).expect("it is in one")
        };
        assert_eq!(bucket_of(Duration::ZERO), 0);
        for (i, bound) in BOUNDS_MICROS.into_iter().enumerate() {
            assert_eq!(bucket_of(Duration::from_micros(bound)), i);
            assert_eq!(
                bucket_of(Duration::from_micros(bound) + Duration::from_nanos(1)),
                i + 1
            );
        }
        assert_eq!(bucket_of(Duration::from_secs(3600)), BOUNDS_MICROS.len());
    }

    #[test]
    fn a_histogram_sums_up() {
        let histogram = Histogram::default();
        for millis in [1, 1, 40, 90_000] {
            histogram.record(Duration::from_millis(millis));
        }
        let values = histogram.values();
        assert_eq!(
            (values.count(), values.sum_nanos),
            (4, (1 + 1 + 40 + 90_000) * 1_000_000)
        );
        assert_eq!(values.buckets[BOUNDS_MICROS.len()], 1);
    }
}

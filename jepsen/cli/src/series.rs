//! Numbers over time, in a bounded number of intervals.

use std::collections::VecDeque;

/// Number of intervals; when a history outgrows them, each two become one.
const INTERVALS: usize = 240;
/// Nanoseconds of an interval at first.
const WIDTH_MIN: i128 = 1_000_000;

/// What happened in an interval.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(crate) struct Interval {
    /// Operations that ended with success, failed, and of unknown outcome.
    pub(crate) ok: u64,
    pub(crate) fail: u64,
    pub(crate) info: u64,
    /// Records that were acknowledged, and that were read.
    pub(crate) acked: u64,
    pub(crate) read: u64,
    /// The largest lag of a poll, in nanoseconds.
    pub(crate) lag: Option<i64>,
    /// The largest number of records that were acknowledged and not read yet.
    pub(crate) unread: Option<u64>,
}

impl Interval {
    fn add(&mut self, other: &Self) {
        self.ok += other.ok;
        self.fail += other.fail;
        self.info += other.info;
        self.acked += other.acked;
        self.read += other.read;
        self.lag = self.lag.max(other.lag);
        self.unread = self.unread.max(other.unread);
    }
}

/// Intervals of one width, from the earliest time on. Times may be any, and differences of two need more bits.
#[derive(Clone, Debug)]
pub(crate) struct Series {
    begin: i128,
    width: i128,
    intervals: VecDeque<Interval>,
}

impl Series {
    pub(crate) fn new() -> Self {
        Self {
            begin: 0,
            width: WIDTH_MIN,
            intervals: VecDeque::new(),
        }
    }

    /// Adds what happened at a time, in nanoseconds.
    pub(crate) fn add(&mut self, time: i64, what: &Interval) {
        let time = i128::from(time);
        if self.intervals.is_empty() {
            self.begin = time;
        }
        // Times of a history need not ascend.
        let (first, last) = (time.min(self.begin), time.max(self.end()));
        while last - first >= self.width * INTERVALS as i128 {
            self.halve();
        }
        while time < self.begin {
            self.begin -= self.width;
            self.intervals.push_front(Interval::default());
            if self.intervals.len() > INTERVALS {
                self.halve();
            }
        }
        let at = usize::try_from((time - self.begin) / self.width).expect("the width fits all times");
        if at >= self.intervals.len() {
            self.intervals.resize(at + 1, Interval::default());
        }
        self.intervals[at].add(what);
    }

    /// The end of the last interval.
    fn end(&self) -> i128 {
        self.begin + self.width * self.intervals.len() as i128
    }

    fn halve(&mut self) {
        self.width *= 2;
        let pairs = self.intervals.make_contiguous().chunks(2);
        let merged = pairs.map(|pair| {
            let mut sum = pair[0];
            pair[1..].iter().for_each(|second| sum.add(second));
            sum
        });
        self.intervals = merged.collect();
    }

    /// Nanoseconds from the beginning to a time.
    pub(crate) fn since(&self, time: i64) -> i128 {
        i128::from(time) - self.begin
    }

    /// Nanoseconds of an interval.
    pub(crate) fn width(&self) -> i128 {
        self.width
    }

    pub(crate) fn intervals(&self) -> impl ExactSizeIterator<Item = &Interval> + Clone {
        self.intervals.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ok() -> Interval {
        Interval {
            ok: 1,
            ..Interval::default()
        }
    }

    #[test]
    fn a_long_history_has_few_intervals_and_loses_nothing() {
        for step in [1, 1_000_000, 7_000_000_000, i64::MAX / 2000] {
            let mut series = Series::new();
            for i in 0..1000 {
                series.add(i * step, &ok());
            }
            let n = series.intervals().len();
            assert!(n <= INTERVALS, "{step}: {n}");
            assert_eq!(series.intervals().map(|i| i.ok).sum::<u64>(), 1000);
        }
    }

    #[test]
    fn times_may_go_back() {
        let mut series = Series::new();
        for time in [5_000_000, 2_000_000, 9_000_000_000, -1, i64::MIN, i64::MAX] {
            series.add(time, &ok());
            assert!(series.since(time) >= 0);
        }
        assert_eq!(series.intervals().map(|i| i.ok).sum::<u64>(), 6);
        assert!(series.intervals().len() <= INTERVALS);
    }

    #[test]
    fn the_largest_lag_counts() {
        let mut series = Series::new();
        for lag in [3, 7, 5] {
            let lag = Some(lag);
            series.add(
                0,
                &Interval {
                    lag,
                    ..Interval::default()
                },
            );
        }
        assert_eq!(series.intervals[0].lag, Some(7));
    }
}

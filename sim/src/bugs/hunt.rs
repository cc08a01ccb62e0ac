//! The hunt: from several starting points, runs seed after seed until one breaks an invariant that the bug is said to break.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use brokkr_sim::report::Report;
use serde::Serialize;

/// Distance of starting points: the maximum number of seeds from each.
pub const APART: u64 = 1000;

/// How the hunt from one starting point ended.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct HuntResult {
    /// The starting point.
    pub from: u64,
    /// How many seeds it took, including the one that found it.
    pub seeds: u64,
    /// Wall seconds of one core.
    pub seconds: f64,
    /// The named invariants that found it.
    pub by: BTreeSet<String>,
}

/// The state of a starting point so far.
#[derive(Default)]
struct Point {
    begun: u64,
    /// For each completed seed: its seconds, and the invariants that found the bug.
    ran: BTreeMap<u64, (f64, BTreeSet<String>)>,
}

impl Point {
    fn found(&self) -> Option<u64> {
        self.ran
            .iter()
            .find(|(_, (_, by))| !by.is_empty())
            .map(|(i, _)| *i)
    }

    fn end(self, from: u64) -> Option<HuntResult> {
        let last = self.found()?;
        let seconds = self.ran.range(..=last).map(|(_, (seconds, _))| seconds).sum();
        let by = self.ran[&last].1.clone();
        Some(HuntResult {
            from,
            seeds: last + 1,
            seconds,
            by,
        })
    }
}

/// The named invariants that did not hold.
pub fn caught(report: &Report, breaks: &[String]) -> BTreeSet<String> {
    let ids = report.violations.iter().map(|v| &v.id);
    ids.filter(|id| breaks.contains(id)).cloned().collect()
}

/// Hunts from `starts` points, at most `seeds_max` seeds from each, with `jobs` parallel runs: returns how each ended, `None` if
/// nothing was found. The result doesn't depend on `jobs`.
pub fn hunt(
    starts: u64,
    seeds_max: u64,
    jobs: usize,
    breaks: &[String],
    run: impl Fn(u64) -> Report + Sync,
) -> Vec<Option<HuntResult>> {
    let points: Mutex<Vec<Point>> = Mutex::new((0..starts).map(|_| Point::default()).collect());
    let lock = || points.lock().expect("no panic under this lock");
    std::thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(|| {
                loop {
                    let mut all = lock();
                    let open = all.iter_mut().enumerate();
                    let open = open.filter(|(_, p)| p.begun < seeds_max && p.found().is_none());
                    let Some((at, point)) = open.min_by_key(|(_, p)| p.begun) else {
                        return;
                    };
                    let i = point.begun;
                    point.begun += 1;
                    drop(all);
                    let report = run(at as u64 * APART + i);
                    let by = caught(&report, breaks);
                    lock()[at].ran.insert(i, (report.wall_s, by));
                }
            });
        }
    });
    let points = points.into_inner().expect("no panic under this lock");
    let ended = points.into_iter().zip(0..);
    ended.map(|(p, at)| p.end(at * APART)).collect()
}

/// The median, and the largest.
pub fn median_and_worst<T: Copy>(
    mut all: Vec<T>,
    order: impl Fn(&T, &T) -> std::cmp::Ordering,
) -> Option<(T, T)> {
    all.sort_by(order);
    Some((*all.get(all.len().checked_sub(1)? / 2)?, *all.last()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use brokkr_sim::report::{Verdict, Violated};

    fn report(seed: u64, ids: &[&str]) -> Report {
        let violations = ids.iter().map(|id| Violated {
            id: (*id).to_owned(),
            what: String::new(),
        });
        Report {
            wall_s: 0.5,
            violations: violations.collect(),
            ..Report::empty(seed, Verdict::Pass)
        }
    }

    #[test]
    fn only_the_named_invariant_finds_it() {
        // From 0 the fourth seed finds it; from 1000 another invariant fails; from 2000 only the sixth would.
        let run = |seed| match seed {
            3 | 4 => report(seed, &["D1", "L1"]),
            1002 => report(seed, &["D1"]),
            2005 => report(seed, &["L1"]),
            _ => report(seed, &[]),
        };
        for jobs in [1, 2, 7] {
            let found = hunt(3, 5, jobs, &["L1".to_owned()], run);
            let first = HuntResult {
                from: 0,
                seeds: 4,
                seconds: 2.0,
                by: ["L1".to_owned()].into(),
            };
            assert_eq!(found, [Some(first), None, None], "{jobs}");
        }
    }

    #[test]
    fn the_median_is_an_element() {
        let of = |all: &[u64]| median_and_worst(all.to_vec(), Ord::cmp);
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[7]), Some((7, 7)));
        assert_eq!(of(&[9, 1, 5, 2]), Some((2, 9)));
    }
}

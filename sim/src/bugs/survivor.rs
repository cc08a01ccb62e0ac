//! The report on a bug that a hunt did not find: whether its code had an effect, and what the judges made of it.
//!
//! Some seeds of the hunt run again, with the bug and without it. The same hash: the changed lines did not run, or had no effect. Another
//! hash: they had one, to which no judge of the named invariants objected; the first event that differs shows it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use brokkr_sim::account::RuleCount;
use brokkr_sim::report::{Report, many};
use serde::Serialize;

use super::hunt::{APART, caught};

/// How many seeds run again.
pub const SEEDS_MAX: u64 = 20;
/// How many rules and seeds are listed in the text.
const RULES_MAX: usize = 12;
const LISTED_MAX: usize = 10;

/// The first event that differs in a seed, in words.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct FirstDifference {
    /// The seed.
    pub seed: u64,
    /// The number of the event, from 1.
    pub event: u64,
    /// The event without the bug.
    pub without: String,
    /// The event with the bug.
    pub with: String,
}

/// How much of a rule was left out in the seeds that differ.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct LeftOut {
    /// With the bug.
    pub with: RuleCount,
    /// How often it was left out without the bug.
    pub without: u64,
}

/// See the module.
#[derive(Clone, PartialEq, Debug, Default, Serialize)]
pub struct SurvivorReport {
    /// The seeds that ran with the bug and without it.
    pub seeds: Vec<u64>,
    /// Those whose runs differ.
    pub differ: Vec<u64>,
    /// The first event that differs, in the first of them.
    pub first: Option<FirstDifference>,
    /// Why no such event is named, though runs differ.
    pub first_unknown: Option<String>,
    /// The rules that were left out in the seeds that differ.
    pub left_out: BTreeMap<String, LeftOut>,
    /// Invariants that failed with the bug and not without it, though the bug is not said to break them: in how many seeds.
    pub others_broken: BTreeMap<String, u64>,
    /// Seeds in which an invariant failed that the bug is said to break.
    pub found_now: Vec<u64>,
}

/// The seeds that run again: the first ones of each starting point that found nothing, in turn.
pub fn seeds(survived: &[u64], seeds_max: u64) -> Vec<u64> {
    let all = (0..seeds_max).flat_map(|i| survived.iter().map(move |from| from + i));
    all.take(SEEDS_MAX as usize).collect()
}

/// Runs `seeds` with the bug and without it (`run`), at most `jobs` at a time, and names the first event that differs (`difference`).
pub fn report(
    seeds: Vec<u64>,
    breaks: &[String],
    jobs: usize,
    run: impl Fn(u64, bool) -> Report + Sync,
    difference: impl FnOnce(u64) -> Result<FirstDifference, String>,
) -> SurvivorReport {
    let (next, pairs) = (AtomicUsize::new(0), Mutex::new(BTreeMap::new()));
    std::thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(|| {
                while let Some(seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let pair = (run(*seed, true), run(*seed, false));
                    pairs
                        .lock()
                        .expect("no panic under this lock")
                        .insert(*seed, pair);
                }
            });
        }
    });
    let mut report = SurvivorReport {
        seeds,
        ..SurvivorReport::default()
    };
    for (seed, (with, without)) in pairs.into_inner().expect("no panic under this lock") {
        // A process that died has no hash.
        if with.hash != without.hash || with.hash.is_empty() {
            report.take(seed, &with, &without, breaks);
        }
    }
    match report.differ.first().map(|seed| difference(*seed)) {
        Some(Ok(first)) => report.first = Some(first),
        Some(Err(why)) => report.first_unknown = Some(why),
        None => {}
    }
    report
}

impl SurvivorReport {
    fn take(&mut self, seed: u64, with: &Report, without: &Report, breaks: &[String]) {
        self.differ.push(seed);
        for (rule, count) in &with.rules {
            let skipped = |report: &Report| {
                let count = report.rules.get(rule);
                count.map_or(0, |c| c.left_out.values().sum::<u64>())
            };
            if skipped(with) == 0 {
                continue;
            }
            let all = self.left_out.entry(rule.clone()).or_insert_with(|| LeftOut {
                with: RuleCount::default(),
                without: 0,
            });
            all.with.add(count);
            all.without += skipped(without);
        }
        if !caught(with, breaks).is_empty() {
            self.found_now.push(seed);
        }
        let ids = |report: &Report| -> BTreeSet<String> {
            report.violations.iter().map(|v| v.id.clone()).collect()
        };
        for id in ids(with).difference(&ids(without)) {
            if !breaks.contains(id) {
                *self.others_broken.entry(id.clone()).or_insert(0) += 1;
            }
        }
    }

    /// The report in words; `files` are those that the bug changes.
    pub fn text(&self, mutant: &str, files: &[&str], breaks: &[String]) -> String {
        let (all, differ) = (self.seeds.len(), self.differ.len());
        let mut text = format!("{mutant} survived. ");
        if differ == 0 {
            let _ = writeln!(
                text,
                "With it and without it {} ran the same, event by event: the changed lines of {} did not run, or had no effect. The \
                 plans and faults of these seeds do not reach the situation.",
                many(all, "seed"),
                files.join(", ")
            );
            return text;
        }
        let _ = writeln!(
            text,
            "{differ} of {} ran differently with it ({}): the changed code of {} ran and had an effect, to which no judge of {} objected.",
            many(all, "seed"),
            listed(&self.differ),
            files.join(", "),
            breaks.join(", ")
        );
        let mut line = |what: String| {
            let _ = writeln!(text, "- {what}");
        };
        if let Some(first) = &self.first {
            line(format!(
                "The first event that differs in seed {} is number {}. Without the bug: {}. With it: {}.",
                first.seed, first.event, first.without, first.with
            ));
        }
        if let Some(why) = &self.first_unknown {
            line(format!("The first event that differs is unknown: {why}."));
        }
        if !self.found_now.is_empty() {
            line(format!(
                "This time it was found in seeds {}: the hunt and these runs do not agree.",
                listed(&self.found_now)
            ));
        }
        for (id, seeds) in &self.others_broken {
            let seeds = many(usize::try_from(*seeds).unwrap_or(usize::MAX), "seed");
            line(format!(
                "{id} failed in {seeds}, which the bug is not said to break."
            ));
        }
        line(match self.left_out.len() {
            0 => "No rule was left out in these seeds.".to_owned(),
            n => format!("{} left out in these seeds:", many_rules(n)),
        });
        let mut rules: Vec<(&String, &LeftOut)> = self.left_out.iter().collect();
        let more_with = |(_, l): &(&String, &LeftOut)| std::cmp::Reverse(l.extra());
        rules.sort_by_key(more_with);
        for (rule, left_out) in rules.iter().take(RULES_MAX) {
            let _ = writeln!(text, "  - {}", left_out.text(rule));
        }
        if rules.len() > RULES_MAX {
            let _ = writeln!(text, "  - and {} more", rules.len() - RULES_MAX);
        }
        text
    }
}

impl LeftOut {
    /// How much more often it was left out with the bug.
    fn extra(&self) -> u64 {
        self.with
            .left_out
            .values()
            .sum::<u64>()
            .saturating_sub(self.without)
    }

    fn text(&self, rule: &str) -> String {
        let why: Vec<String> = self
            .with
            .left_out
            .iter()
            .map(|(why, n)| format!("{why} {n}"))
            .collect();
        let mut text = format!(
            "{rule}: applied {}, left out {}",
            self.with.applied,
            why.join(", ")
        );
        if self.extra() > 0 {
            let _ = write!(text, "; without the bug {}", self.without);
        }
        text
    }
}

fn many_rules(n: usize) -> String {
    match n {
        1 => "One rule was".to_owned(),
        n => format!("{n} rules were"),
    }
}

/// The first of some seeds.
fn listed(seeds: &[u64]) -> String {
    let mut all: Vec<String> = seeds.iter().take(LISTED_MAX).map(u64::to_string).collect();
    if seeds.len() > LISTED_MAX {
        all.push("…".to_owned());
    }
    all.join(", ")
}

/// The starting points from which a hunt found nothing.
pub fn survived<T>(starts: &[Option<T>]) -> Vec<u64> {
    let all = (0..).zip(starts).filter(|(_, found)| found.is_none());
    all.map(|(i, _)| i * APART).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use brokkr_sim::report::{Verdict, Violated};

    fn ran(seed: u64, hash: &str, left_out: u64, ids: &[&str]) -> Report {
        let mut count = RuleCount {
            applied: 5,
            ..RuleCount::default()
        };
        if left_out > 0 {
            count.left_out.insert("damaged".into(), left_out);
        }
        let violated = |id: &&str| Violated {
            id: (*id).to_owned(),
            what: String::new(),
        };
        Report {
            hash: hash.to_owned(),
            rules: BTreeMap::from([("L1 acknowledged".to_owned(), count)]),
            violations: ids.iter().map(violated).collect(),
            ..Report::empty(seed, Verdict::Pass)
        }
    }

    fn first(seed: u64) -> Result<FirstDifference, String> {
        Ok(FirstDifference {
            seed,
            event: 7,
            without: "a sync".to_owned(),
            with: "a send".to_owned(),
        })
    }

    #[test]
    fn seeds_are_those_of_the_starting_points_that_found_nothing() {
        let starts = survived(&[Some(1), None, None]);
        assert_eq!(starts, [1000, 2000]);
        assert_eq!(seeds(&starts, 2), [1000, 2000, 1001, 2001]);
        assert_eq!(seeds(&starts, 200).len() as u64, SEEDS_MAX);
        assert!(seeds(&[], 5).is_empty());
    }

    #[test]
    fn a_bug_without_an_effect_is_told_from_one_that_no_judge_objects_to() {
        let breaks = ["L1".to_owned()];
        let same = |seed, _| ran(seed, "ab", 3, &[]);
        let report_of = |run: fn(u64, bool) -> Report| report(vec![3, 4, 5], &breaks, 2, run, first);
        let none = report(vec![3, 4], &breaks, 2, same, |_| unreachable!("no run differs"));
        assert!(none.differ.is_empty() && none.left_out.is_empty() && none.first.is_none());
        let text = none.text("m", &["a.rs"], &breaks);
        assert!(
            text.contains("2 seeds ran the same") && text.contains("lines of a.rs did not run"),
            "{text}"
        );

        let some = report_of(|seed, with| match (seed, with) {
            (4, true) => ran(seed, "cd", 4, &["M2"]),
            (5, true) => ran(seed, "ef", 1, &[]),
            _ => ran(seed, "ab", 1, &[]),
        });
        assert_eq!((&some.differ[..], some.found_now.len()), (&[4, 5][..], 0));
        assert_eq!(some.others_broken, BTreeMap::from([("M2".to_owned(), 1)]));
        let text = some.text("m", &["a.rs"], &breaks);
        for part in [
            "2 of 3 seeds ran differently with it (4, 5)",
            "no judge of L1 objected",
            "in seed 4 is number 7. Without the bug: a sync. With it: a send.",
            "M2 failed in 1 seed",
            "L1 acknowledged: applied 10, left out damaged 5; without the bug 2",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }

    #[test]
    fn a_run_that_died_differs_and_a_trace_that_fails_is_named() {
        let breaks = ["L1".to_owned()];
        let run = |seed, with| ran(seed, "", 0, if with { &["L1"] } else { &[] });
        let all = report(vec![1], &breaks, 1, run, |_| Err("no room".to_owned()));
        assert_eq!((&all.differ[..], &all.found_now[..]), (&[1][..], &[1][..]));
        let text = all.text("m", &["a.rs"], &breaks);
        assert!(
            text.contains("is unknown: no room") && text.contains("No rule was left out"),
            "{text}"
        );
    }
}

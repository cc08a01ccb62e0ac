//! Campaigns: many seeds, several at a time, each in its own process.

pub mod child;
mod reporter;
mod tally;

use std::ops::Range;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use brokkr_sim::report::{Report, Verdict};
use brokkr_sim::signature::Signatures;

use crate::arguments::{Format, Run, Shard, argument_error};
use crate::{differs, failures, pages};
use child::{RunSpec, Surroundings, this_binary};
use reporter::Reporter;
use tally::Tally;

/// Runs seeds and prints their results.
pub fn run(run: &Run) -> ExitCode {
    let exe = this_binary();
    let Some(path) = &run.html else {
        return campaign(run, |what| {
            child::recorded(
                &exe,
                what,
                Surroundings::Plain,
                &run.tracing,
                run.history.as_deref(),
            )
        });
    };
    let failed = Mutex::new(None);
    let code = campaign(run, |what| pages::run(&exe, what, path, &failed));
    let failed = failed.into_inner().expect("no panic under this lock");
    failed.map_or(code, |why| argument_error(&why))
}

/// Runs each seed twice in different surroundings.
pub fn determinism(run: &Run) -> ExitCode {
    let exe = this_binary();
    campaign(run, |what| {
        let once = |surrounding| child::traced(&exe, what, surrounding, &run.tracing);
        let (a, b) = (once(Surroundings::Plain), once(Surroundings::Other));
        differs::compare(&exe, what, a, &b)
    })
}

/// The default number of parallel runs.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, |n| n.get())
}

fn campaign(run: &Run, once: impl Fn(RunSpec<'_>) -> Report + Sync) -> ExitCode {
    let range = run.range();
    let known = run.r#for.is_none().then(|| seeds_of(&range, run.shard));
    let reporter = match Reporter::new(run, known) {
        Ok(reporter) => Mutex::new((Tally::default(), reporter, Signatures::default())),
        Err(error) => return argument_error(&error.to_string()),
    };
    let (begun, exe) = (Instant::now(), this_binary());
    let pages_left = AtomicU64::new(if run.html.is_some() {
        0
    } else {
        failures::PAGES_MAX
    });
    each(run, &range, begun, |seed| {
        let what = what(run, seed);
        let report = once(what);
        let left = failures::leave(run, what, &report, &exe, &pages_left);
        let mut both = reporter.lock().expect("no panic under this lock");
        both.0.take(&report);
        both.1.take(&report, &what.repeat());
        both.1.left(left);
        both.2.take(&report, || what.plan().ok());
    });
    let (tally, reporter, signatures) = reporter.into_inner().expect("no panic under this lock");
    if let Err(error) = reporter.end() {
        return argument_error(&format!("the JUnit file could not be written: {error}"));
    }
    if run.format == Format::Text {
        print!("{}", tally.table(begun.elapsed()));
    }
    if tally.seeds > 1 {
        print!("{}", tally::grouped(&signatures.rows(), run.format));
    }
    let missing = tally.never_occurred(run);
    if !missing.is_empty() {
        eprintln!("never occurred in {} seeds: {}", tally.seeds, missing.join("; "));
    }
    let left_out = tally.left_out(run);
    for rule in &left_out {
        eprintln!("left out too often in {} seeds: {rule}", tally.seeds);
    }
    match tally.worst {
        // Too little happened to conclude that everything holds.
        Some(Verdict::Pass) if !missing.is_empty() || !left_out.is_empty() => {
            ExitCode::from(Verdict::Inconclusive.exit_code())
        }
        worst => ExitCode::from(worst.map_or(0, Verdict::exit_code)),
    }
}

fn what(run: &Run, seed: u64) -> RunSpec<'_> {
    match &run.plan {
        Some(path) => RunSpec::Plan {
            path,
            seed,
            secs: run.secs,
        },
        None => RunSpec::Seed {
            seed,
            secs: run.secs,
            faults: &run.faults,
        },
    }
}

/// How many seeds of the range the shard has.
fn seeds_of(range: &Range<u64>, Shard { i, n }: Shard) -> u64 {
    let (from, len) = (i - 1, range.end - range.start);
    if from < len { (len - from).div_ceil(n) } else { 0 }
}

fn each(run: &Run, range: &Range<u64>, begun: Instant, f: impl Fn(u64) + Sync) {
    let Shard { i, n } = run.shard;
    let seeds = seeds_of(range, run.shard);
    let next = AtomicU64::new(0);
    let is_time = || run.r#for.is_none_or(|most| begun.elapsed() < most);
    std::thread::scope(|scope| {
        for _ in 0..run.jobs.unwrap_or_else(cores).max(1) {
            scope.spawn(|| {
                while is_time() {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    if at >= seeds {
                        return;
                    }
                    f(range.start + i - 1 + at * n);
                }
            });
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_partition_the_seeds() {
        for len in 0..20 {
            for n in 1..6 {
                let of = |i| seeds_of(&(100..100 + len), Shard { i, n });
                assert_eq!((1..=n).map(of).sum::<u64>(), len, "{len} seeds in {n}");
                for i in 1..=n {
                    let last = of(i).checked_sub(1).map(|k| i - 1 + k * n);
                    assert!(last.is_none_or(|at| at < len), "{len} seeds in {n}: {last:?}");
                }
            }
        }
    }
}

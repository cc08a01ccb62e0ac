//! `brokkr-sim crash-points`: a crash at each event of a run after which the disk may hold something else.
//!
//! The run is played once to count its events. Then it is played once for each of them, with a kill or a power loss just before the
//! operation begins, and just after it has had its effect.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use brokkr_sim::failure::Failure;
use brokkr_sim::plan::{Fault, Faults, Kind, Plan};
use brokkr_sim::report::{Report, Verdict, many};
use brokkr_sim::trigger::{Act, Trigger};
use clap::{Args, ValueEnum};

use crate::arguments::argument_error;
use crate::documents::read_plan;
use crate::runner::child::{run_plan, this_binary};
use crate::runner::cores;
use crate::scratch::Scratch;

/// Virtual seconds of the run, if no plan is given.
const SECS: u64 = 3;
/// The ids of the added faults begin here: apart from those that plans draw.
const FIRST_ID: u64 = 1 << 40;
const DOWN_MS: u64 = 5;
/// How many failures are printed.
const PRINTED_MAX: usize = 10;

/// Arguments of `crash-points`.
#[derive(Args)]
pub struct CrashPoints {
    /// A plan: all of its faults stay
    #[arg(long, conflicts_with_all = ["seed", "secs"])]
    plan: Option<PathBuf>,
    /// The seed of a run without other faults
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Its virtual seconds; no crash comes in the last quarter
    #[arg(long, default_value_t = SECS)]
    secs: u64,
    /// How the broker ends
    #[arg(long, value_enum, default_value = "both")]
    by: Crash,
    /// Writes, too: there are many
    #[arg(long)]
    writes: bool,
    /// Runs at the same time [default: one for each core]
    #[arg(long)]
    jobs: Option<usize>,
    /// Directory for the plan and the result of each failing run
    #[arg(long, value_name = "DIR", default_value = ".")]
    failures: PathBuf,
}

/// How a crash ends the broker.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Crash {
    Kill,
    Power,
    Both,
}

impl Crash {
    fn kinds(self, may_lose: bool) -> Vec<Kind> {
        let power = Kind::PowerLoss {
            down_ms: DOWN_MS,
            unsynced: false,
        };
        let kill = Kind::Kill { down_ms: DOWN_MS };
        let all = [(Self::Kill, kill), (Self::Power, power)];
        let wanted = |by: Self| self == Self::Both || self == by;
        let all = all.into_iter().filter(|(by, _)| wanted(*by));
        // A power loss may take unflushed records, and nothing could be judged.
        all.filter(|(by, _)| may_lose || *by == Self::Kill)
            .map(|(_, kind)| kind)
            .collect()
    }
}

/// The crashes at all points of a run in which each operation began so often.
fn points(events_of: &BTreeMap<String, u64>, acts: &[Act], kinds: &[Kind]) -> Vec<Fault> {
    let mut all = Vec::new();
    for (event, n) in events_of {
        let is_it = |act: &&Act| event.split_once(' ').is_some_and(|(name, _)| name == act.name());
        let Some(act) = acts.iter().find(is_it) else {
            continue;
        };
        let of = &event[act.name().len() + 1..];
        for nth in 0..*n {
            for after in [false, true] {
                for kind in kinds {
                    all.push(Fault {
                        id: FIRST_ID + all.len() as u64,
                        at_ms: 0,
                        when: Some(Trigger {
                            act: *act,
                            of: of.to_owned(),
                            nth,
                            after,
                        }),
                        kind: kind.clone(),
                    });
                }
            }
        }
    }
    all
}

/// The plan with one more fault.
fn with(plan: &Plan, fault: &Fault) -> Plan {
    let mut plan = plan.clone();
    plan.faults.insert(0, fault.clone());
    plan
}

fn at(fault: &Fault) -> String {
    let by = match fault.kind {
        Kind::Kill { .. } => "kill",
        _ => "power loss",
    };
    let when = fault.when.as_ref().map(ToString::to_string);
    format!("{by} {}", when.unwrap_or_default())
}

/// Counts of the points of one kind of event.
#[derive(Default)]
struct Row {
    points: usize,
    failed: usize,
    missed: usize,
}

pub fn main(args: &CrashPoints) -> ExitCode {
    match campaign(args) {
        Ok(code) => code,
        Err(why) => argument_error(&why),
    }
}

fn campaign(args: &CrashPoints) -> Result<ExitCode, String> {
    let plan = match &args.plan {
        Some(path) => read_plan(path)?,
        None => Plan::of(args.seed, args.secs, &Faults::None),
    };
    let scratch = Scratch::new().map_err(|e| format!("a temporary directory: {e}"))?;
    let exe = this_binary();
    let base = run_plan(&exe, &plan, &scratch.path("base.json"))?;
    if base.verdict != Verdict::Pass {
        return Err(format!(
            "without a crash the run ends with {:?}: {:?}",
            base.verdict, base.violations
        ));
    }
    let mut acts = Act::OF_CRASH_POINTS.to_vec();
    acts.extend(args.writes.then_some(Act::Write));
    let points = points(&base.events_of, &acts, &args.by.kinds(plan.is_flushed()));
    println!(
        "{} of {} virtual s with {} operations",
        many(points.len(), "crash point"),
        plan.secs,
        base.ops.ok
    );
    let begun = Instant::now();
    let (next, results) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..args.jobs.unwrap_or_else(cores).max(1) {
            scope.spawn(|| {
                while let Some((i, point)) = take(&next, &points) {
                    let path = scratch.path(format!("{i}.json"));
                    let ran = run_plan(&exe, &with(&plan, point), &path);
                    results.lock().expect("no panic under this lock").push((i, ran));
                }
            });
        }
    });
    let mut results = results.into_inner().expect("no panic under this lock");
    results.sort_by_key(|(i, _)| *i);
    let (mut rows, mut failed) = (BTreeMap::<String, Row>::new(), Vec::new());
    for (i, report) in results {
        let (point, report) = (&points[i], report?);
        let event = point.when.as_ref().map(|t| format!("{} {}", t.act.name(), t.of));
        let row = rows.entry(event.unwrap_or_default()).or_default();
        row.points += 1;
        row.missed += usize::from(!report.faults.contains_key("at an event"));
        if report.verdict != Verdict::Pass {
            row.failed += 1;
            failed.push((point, report));
        }
    }
    print(&rows, &failed, begun.elapsed().as_secs_f64());
    leave(args, &plan, &failed)?;
    Ok(ExitCode::from(
        failed
            .iter()
            .map(|(_, r)| r.verdict.exit_code())
            .min()
            .unwrap_or(0),
    ))
}

/// The next point that nobody has taken.
fn take<'p>(next: &AtomicUsize, points: &'p [Fault]) -> Option<(usize, &'p Fault)> {
    let i = next.fetch_add(1, Ordering::Relaxed);
    points.get(i).map(|point| (i, point))
}

fn print(rows: &BTreeMap<String, Row>, failed: &[(&Fault, Report)], seconds: f64) {
    println!("{:>7} {:>7} {:>7}", "points", "failed", "missed");
    for (event, row) in rows {
        println!("{:>7} {:>7} {:>7}  {event}", row.points, row.failed, row.missed);
    }
    for (point, report) in failed.iter().take(PRINTED_MAX) {
        println!("{}: {:?}", at(point), report.verdict);
        for v in &report.violations {
            println!("    {}: {}", v.id, v.what);
        }
    }
    let all: usize = rows.values().map(|row| row.points).sum();
    println!(
        "{} of {} failed, in {seconds:.1} s",
        failed.len(),
        many(all, "crash point")
    );
}

/// Writes the plans of failing runs.
fn leave(args: &CrashPoints, plan: &Plan, failed: &[(&Fault, Report)]) -> Result<(), String> {
    for (point, report) in failed.iter().take(PRINTED_MAX) {
        let name = format!("failure-{}.json", point.id - FIRST_ID);
        let path: PathBuf = Path::new(&args.failures).join(name);
        let why = |e| format!("{}: {e}", path.display());
        let failure = Failure::new(with(plan, point), report, &path.display().to_string());
        std::fs::create_dir_all(&args.failures).map_err(why)?;
        std::fs::write(&path, failure.to_json()).map_err(why)?;
        println!("left {}", path.display());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_event_has_its_points() {
        let events_of = [("sync log", 2), ("rename metadata snapshot", 1), ("write log", 9)];
        let events_of = events_of.map(|(event, n)| (event.to_owned(), n)).into();
        let kinds = Crash::Both.kinds(true);
        let all = points(&events_of, &Act::OF_CRASH_POINTS, &kinds);
        assert_eq!(all.len(), 3 * 2 * 2);
        assert_eq!(at(&all[0]), "kill before rename 1 of a metadata snapshot");
        assert_eq!(at(&all[11]), "power loss after sync 2 of a log");
        assert_eq!(
            Crash::Power.kinds(false),
            [],
            "a power loss may take what is not flushed"
        );
        let ids: std::collections::BTreeSet<u64> = all.iter().map(|f| f.id).collect();
        assert_eq!(ids.len(), all.len());
    }
}

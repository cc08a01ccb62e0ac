//! Plans that once failed: `sim/regress/NAME.json` is a small plan that fails with the bug NAME of the bank. On the healthy tree it
//! passes (a test runs it), and this module shows that it still fails with the bug: otherwise it no longer guards against anything.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use brokkr_sim::plan::{Faults, Plan};
use brokkr_sim::report::Verdict;
use serde::Serialize;

use super::hunt::caught;
use super::mutant::Mutant;
use crate::arguments::SECS;
use crate::documents::read_plan;
use crate::runner::child::{self, this_binary};
use crate::shrinking::{ShrinkLimits, ShrunkPlan};

/// How many other task orders are tried if the plan's own no longer fails.
const SEEDS: u64 = 50;

/// How a plan fails with its bug.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct GuardResult {
    /// It fails only with this scheduler seed instead of its own.
    pub scheduler_seed: Option<u64>,
    pub by: BTreeSet<String>,
}

/// The path of a bug's plan.
pub fn path(top: &Path, mutant: &Mutant) -> PathBuf {
    top.join("sim/regress").join(format!("{}.json", mutant.name))
}

/// Maximum number of faults in a plan that people should understand.
const FAULTS_MAX: usize = 5;

/// How many failures are shrunk at most, until one is small enough.
const TRIES: usize = 3;

/// Writes a plan that fails with the bug in `exe`, and passes without it: the smallest plan that some of these failing seeds shrink
/// to.
///
/// # Errors
/// A failure doesn't repeat; a plan can't be written.
pub fn renew<'a>(
    path: &Path,
    failing: impl Iterator<Item = (u64, &'a BTreeSet<String>)>,
    exe: &Path,
    jobs: usize,
    scratch: &Path,
) -> Result<(), String> {
    let within = ShrinkLimits {
        exe: exe.to_owned(),
        jobs,
        time_max: Duration::from_secs(60),
        scheduler_seeds: 64,
    };
    let mut best: Option<ShrunkPlan> = None;
    for (seed, by) in failing.take(TRIES) {
        let plan = Plan::of(seed, SECS, &Faults::Default);
        let small = within.small(
            plan,
            None,
            by.first().map(String::as_str),
            &format!("seed {seed}"),
        )?;
        let (took, runs) = (small.took.as_secs_f64(), small.runs);
        eprintln!(
            "seed {seed}: {} became {} in {took:.1} s, {runs} runs",
            small.before, small.after
        );
        if best.as_ref().is_none_or(|b| small.after.faults < b.after.faults) && passes(&small.plan, scratch)?
        {
            best = Some(small);
        }
        if best.as_ref().is_some_and(|b| b.after.faults <= FAULTS_MAX) {
            break;
        }
    }
    let Some(best) = best else { return Ok(()) };
    write(path, &best.plan)
}

/// Whether a plan passes on the healthy tree.
fn passes(plan: &Plan, scratch: &Path) -> Result<bool, String> {
    let report = child::run_plan(&this_binary(), plan, scratch)?;
    // A short run may be inconclusive; only violations matter.
    let passes = report.violations.is_empty() && report.verdict != Verdict::Nondeterminism;
    if !passes {
        eprintln!("without the bug the violations are {:?}", report.violations);
    }
    Ok(passes)
}

fn write(path: &Path, plan: &Plan) -> Result<(), String> {
    let mut text = serde_json::to_string_pretty(plan).map_err(|e| e.to_string())?;
    text.push('\n');
    std::fs::write(path, text).map_err(|e| format!("{}: {e}", path.display()))
}

/// Whether the plan, or one of [`SEEDS`] scheduler seeds on it, fails with the bug in `exe`.
///
/// # Errors
/// The plan can't be read or written.
pub fn look(
    plan: &Path,
    mutant: &Mutant,
    exe: &Path,
    jobs: usize,
    scratch: impl Fn(u64) -> PathBuf + Sync,
) -> Result<Option<GuardResult>, String> {
    let plan = read_plan(plan)?;
    let one = |scheduler_seed: Option<u64>| -> Result<Option<GuardResult>, String> {
        let plan = Plan {
            scheduler_seed: scheduler_seed.or(plan.scheduler_seed),
            ..plan.clone()
        };
        let path = scratch(scheduler_seed.unwrap_or(0));
        let by = caught(&child::run_plan(exe, &plan, &path)?, &mutant.breaks);
        Ok((!by.is_empty()).then_some(GuardResult { scheduler_seed, by }))
    };
    // The plan with its own order first, which is usually enough.
    if let Some(found) = one(None)? {
        return Ok(Some(found));
    }
    let (next, found) = (AtomicU64::new(1), Mutex::new(Ok(None)));
    std::thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    let is_open = matches!(*found.lock().expect("no panic under this lock"), Ok(None));
                    if seed > SEEDS || !is_open {
                        return;
                    }
                    let came = one(Some(seed));
                    if !matches!(came, Ok(None)) {
                        *found.lock().expect("no panic under this lock") = came;
                    }
                }
            });
        }
    });
    found.into_inner().expect("no panic under this lock")
}

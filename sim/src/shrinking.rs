//! `brokkr-sim shrink`: makes a failing plan smaller. Each step is a run in a process of its own.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use brokkr_sim::explain::{Focus, explain};
use brokkr_sim::failure::{Document, Failure, FailureMode};
use brokkr_sim::keyed::text;
use brokkr_sim::page::Page;
use brokkr_sim::plan::Plan;
use brokkr_sim::report::Report;
use brokkr_sim::shrink::{Candidate, Oracle, Size, shrink};
use clap::Args;

use crate::arguments::{argument_error, duration};
use crate::documents::read_document;
use crate::pages;
use crate::runner::child::{self, RunSpec, this_binary};
use crate::runner::cores;
use crate::scratch::Scratch;

/// Arguments of `shrink`.
#[derive(Args)]
pub struct Shrink {
    /// A plan that fails, or the file of a failing run
    file: PathBuf,
    /// Where the small plan goes [default: FILE-small.json]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// The invariant whose violation is kept [default: the one nearest to the cause]
    #[arg(long)]
    id: Option<String>,
    /// The simulator that runs the plans, e.g. one with a bug in its broker [default: this one]
    #[arg(long, value_name = "BINARY")]
    exe: Option<PathBuf>,
    /// Runs at the same time [default: one for each core]
    #[arg(long)]
    jobs: Option<usize>,
    /// Other orders of tasks, and then other seeds, that are tried for each step at most: none at first, a few when nothing gets
    /// smaller by that, and more while many faults are left
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u64).range(1..))]
    scheduler_seeds: u64,
    /// Take no longer than that (90s, 10m, 2h)
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "60s")]
    r#for: Duration,
}

/// Exit codes: 0 the plan is as small as it got; 2 invalid arguments, or the plan doesn't fail.
pub fn main(shrink: &Shrink) -> ExitCode {
    match all(shrink) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => argument_error(&why),
    }
}

fn all(args: &Shrink) -> Result<(), String> {
    let document = read_document(&args.file)?;
    let known = match &document {
        Document::Failure(failure) => FailureMode::of(&failure.violations, args.id.as_deref()),
        Document::Plan(_) => None,
    };
    let within = ShrinkLimits {
        exe: args.exe.clone().unwrap_or_else(this_binary),
        jobs: args.jobs.unwrap_or_else(cores),
        time_max: args.r#for,
        scheduler_seeds: args.scheduler_seeds,
    };
    let name = args.file.display();
    let original = document.into_plan();
    let small = within.small(original.clone(), known, args.id.as_deref(), &name.to_string())?;
    let out = args.out.clone().unwrap_or_else(|| beside(&args.file));
    let failure = Failure::new(small.plan.clone(), &small.report, &out.display().to_string());
    std::fs::write(&out, failure.to_json()).map_err(|e| format!("{}: {e}", out.display()))?;
    let page = page(&within.exe, &failure, &small, &original, &out)?;
    println!("before: {}", small.before);
    println!("after:  {}", small.after);
    println!(
        "        in {:.1} s, {} runs",
        small.took.as_secs_f64(),
        small.runs
    );
    let same = small.report.violations.iter().filter(|v| v.id == small.id);
    for v in same.take(3) {
        println!("    {}: {}", v.id, v.what);
    }
    println!("    repeat:  {}", failure.repeat);
    println!("    explain: cargo sim explain {}", out.display());
    println!("    page:    {}", page.display());
    Ok(())
}

/// Writes the page of the small plan beside it, with both plans.
fn page(
    exe: &Path,
    failure: &Failure,
    small: &ShrunkPlan,
    original: &Plan,
    out: &Path,
) -> Result<PathBuf, String> {
    let what = RunSpec::Plan {
        path: out,
        seed: failure.plan.seed,
        secs: failure.plan.secs,
    };
    let (_, trace) = pages::traced(exe, what)?;
    let focus = Focus::Violation(Some(small.id.clone()));
    let explanation = explain(&failure.plan, &small.report, &trace, &focus).map_err(|e| e.to_string())?;
    let page = Page {
        failure,
        report: &small.report,
        trace: &trace,
        explanation: &explanation,
        original: Some(original),
    };
    let path = pages::beside(out);
    pages::write(&page, &path)?;
    Ok(path)
}

/// Limits and tools of a shrink.
pub struct ShrinkLimits {
    pub exe: PathBuf,
    pub jobs: usize,
    pub time_max: Duration,
    pub scheduler_seeds: u64,
}

/// The result of a shrink.
pub struct ShrunkPlan {
    pub plan: Plan,
    /// The small plan's report, and the invariant that was kept.
    pub report: Report,
    pub id: String,
    pub before: Size,
    pub after: Size,
    pub took: Duration,
    pub runs: usize,
}

impl ShrinkLimits {
    /// Shrinks `plan`, which fails in the `known` way, or else by the invariant `id`, or else in whatever way it does.
    ///
    /// # Errors
    /// The plan doesn't fail, or not every time.
    pub fn small(
        &self,
        plan: Plan,
        known: Option<FailureMode>,
        id: Option<&str>,
        name: &str,
    ) -> Result<ShrunkPlan, String> {
        let mut runs = RunOracle {
            exe: self.exe.clone(),
            scratch: Scratch::new().map_err(|e| format!("no room for plans: {e}"))?,
            jobs: self.jobs.max(1),
            begun: Instant::now(),
            time_max: self.time_max,
            way: None,
            ran: AtomicUsize::new(0),
            held: BTreeSet::new(),
        };
        let report = runs.run(&plan)?;
        let way = known.or_else(|| FailureMode::of(&report.violations, id));
        let Some(way) = way.filter(|way| way.is_of(&report)) else {
            let what = id.unwrap_or("nothing");
            let ids: Vec<&str> = report.violations.iter().map(|v| v.id.as_str()).collect();
            return Err(format!(
                "{name}: {what} to make smaller: run again, what did not hold is {ids:?}"
            ));
        };
        let before = Size::of(&plan);
        eprintln!("{name}: {} does not hold; {before}", way.id());
        runs.way = Some(way.clone());
        let small = shrink(plan, &mut runs, self.scheduler_seeds);
        let (took, after) = (runs.begun.elapsed(), Size::of(&small));
        let report = runs.run(&small)?;
        if !way.is_of(&report) {
            return Err(format!(
                "the small plan failed once, and now its violations are {:?}: nondeterminism",
                report.violations
            ));
        }
        Ok(ShrunkPlan {
            plan: small,
            report,
            id: way.id().to_owned(),
            before,
            after,
            took,
            runs: runs.ran.into_inner(),
        })
    }
}

/// `failure.json` becomes `failure-small.json`.
fn beside(file: &Path) -> PathBuf {
    let stem = file.file_stem().unwrap_or_default().to_string_lossy();
    file.with_file_name(format!("{stem}{}.json", pages::SMALL))
}

/// Runs plans, each in its own process, several at a time.
struct RunOracle {
    exe: PathBuf,
    scratch: Scratch,
    jobs: usize,
    begun: Instant,
    time_max: Duration,
    way: Option<FailureMode>,
    ran: AtomicUsize,
    /// Plans that did not fail, by the hash of their text.
    held: BTreeSet<u64>,
}

/// This many task orders are tried before the seed changes.
const ORDERS_MIN: u64 = 4;

fn hash(plan: &Plan) -> u64 {
    text(&serde_json::to_string(plan).expect("a plan can be written"))
}

impl RunOracle {
    fn run(&self, plan: &Plan) -> Result<Report, String> {
        let n = self.ran.fetch_add(1, Ordering::Relaxed);
        let path = self.scratch.path(format!("{n}.json"));
        child::run_plan(&self.exe, plan, &path)
    }

    /// These plans in their own orders, and then in others, except those that are known to pass.
    fn variants(&self, candidates: Vec<Candidate>) -> Vec<Plan> {
        let orders_max = candidates.iter().map(|c| c.orders).max().unwrap_or(0);
        let in_order = |k: u64| {
            let of_it = candidates.iter().filter(move |c| k < c.orders);
            of_it.map(move |c| match (k, c.plan.clone()) {
                (0, plan) => plan,
                (1..ORDERS_MIN, plan) => Plan {
                    scheduler_seed: Some(k),
                    ..plan
                },
                // If another order does not help, another seed may: it changes latencies and all other choices that a plan leaves
                // open.
                (_, plan) => Plan {
                    seed: plan.seed.wrapping_add(k),
                    ..plan
                },
            })
        };
        let all = (0..orders_max).flat_map(in_order);
        all.filter(|plan| !self.held.contains(&hash(plan))).collect()
    }
}

impl Oracle for RunOracle {
    fn first_failing(&mut self, candidates: Vec<Candidate>) -> Option<Plan> {
        let all = self.variants(candidates);
        let way = self.way.clone().expect("it is known how the plan fails");
        let (next, first) = (AtomicUsize::new(0), AtomicUsize::new(usize::MAX));
        let held = Mutex::new(Vec::new());
        let (this, all) = (&*self, &all);
        std::thread::scope(|scope| {
            for _ in 0..this.jobs {
                scope.spawn(|| {
                    loop {
                        let i = next.fetch_add(1, Ordering::Relaxed);
                        // Plans before the first failing one run to their end: the result doesn't depend on which run is faster.
                        let Some(plan) = all
                            .get(i)
                            .filter(|_| i < first.load(Ordering::Relaxed) && !this.is_over())
                        else {
                            return;
                        };
                        match this.run(plan) {
                            Ok(report) if way.is_of(&report) => drop(first.fetch_min(i, Ordering::Relaxed)),
                            Ok(_) => held.lock().expect("no panic under this lock").push(hash(plan)),
                            Err(why) => eprintln!("{why}"),
                        }
                    }
                });
            }
        });
        let failing = all.get(first.into_inner()).cloned();
        self.held
            .extend(held.into_inner().expect("no panic under this lock"));
        failing
    }

    fn is_over(&self) -> bool {
        self.begun.elapsed() >= self.time_max
    }

    fn smaller(&mut self, by: &str, plan: &Plan) {
        let (took, ran) = (
            self.begun.elapsed().as_secs_f64(),
            self.ran.load(Ordering::Relaxed),
        );
        eprintln!("{took:>6.1} s {ran:>4} runs  {by}: {}", Size::of(plan));
    }
}

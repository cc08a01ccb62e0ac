//! The binary `brokkr-sim`: runs seeds, each in a process of its own, and judges them.
#![expect(
    clippy::disallowed_methods,
    reason = "the runner is outside of the room: it starts processes and measures real time"
)]

mod runner;
mod tracing_to;

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use brokkr_sim::failure::Document;
use brokkr_sim::plan::{Faults, Plan};
use brokkr_sim::scenario;
use clap::{Args, Parser, Subcommand, ValueEnum};
use tracing_to::Tracing;

/// The seeded world: runs the production broker under faults, and judges what its clients saw.
#[derive(Parser)]
#[command(name = "brokkr-sim", version)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Run one seed, or a range of them
    Run(Run),
    /// Run each seed twice, in two processes of different surroundings, and compare
    Determinism(Run),
    /// Print what a seed makes of a run, as JSON that `run --plan` takes, also after a change
    Plan(What),
    /// Run one seed in this process and print its line (what `run` starts for each seed)
    #[command(hide = true)]
    One(What),
}

/// One run.
#[derive(Args, Clone)]
#[group(skip)]
struct What {
    #[arg(long, required_unless_present = "plan")]
    seed: Option<u64>,
    /// Virtual seconds
    #[arg(long, default_value_t = SECS)]
    secs: u64,
    /// What befalls the world: none, default, unlimited, or a list of families
    #[arg(long, default_value_t = Faults::Default)]
    faults: Faults,
    /// A plan instead of a seed
    #[arg(long, hide = true)]
    plan: Option<PathBuf>,
    #[command(flatten)]
    tracing: Tracing,
}

impl What {
    fn plan(&self) -> Result<Plan, String> {
        let Some(path) = &self.plan else {
            return Ok(Plan::of(self.seed.unwrap_or(0), self.secs, &self.faults));
        };
        read_plan(path)
    }
}

fn read_plan(path: &Path) -> Result<Plan, String> {
    let text = std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
    let document = Document::parse(&text).map_err(|e| format!("{}: {e}", path.display()))?;
    Ok(document.into_plan())
}

/// Virtual seconds of a run.
const SECS: u64 = 60;
/// What the first command of the README runs.
const DEMO_SEEDS: Range<u64> = 0..24;

/// How results are printed.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Text,
    Json,
}

#[derive(Args, Clone)]
#[group(skip)]
struct Run {
    /// The seed
    #[arg(long, conflicts_with = "seeds")]
    seed: Option<u64>,
    /// Seeds A..B, B excluded
    #[arg(long, value_parser = range)]
    seeds: Option<Range<u64>>,
    /// A plan, as `plan` prints it, instead of seeds
    #[arg(long, conflicts_with_all = ["seed", "seeds", "secs", "faults"])]
    plan: Option<PathBuf>,
    /// Virtual seconds of each run
    #[arg(long, default_value_t = SECS)]
    secs: u64,
    /// What befalls the world: none, default, unlimited, or a list of families
    #[arg(long, default_value_t = Faults::Default)]
    faults: Faults,
    /// Runs at the same time [default: one for each core]
    #[arg(long)]
    jobs: Option<usize>,
    /// How to print results
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    #[command(flatten)]
    tracing: Tracing,
}

impl Run {
    fn range(&self) -> Range<u64> {
        match (self.seed, &self.seeds) {
            (Some(seed), _) => seed..seed + 1,
            (None, Some(seeds)) => seeds.clone(),
            (None, None) => DEMO_SEEDS,
        }
    }
}

fn range(text: &str) -> Result<Range<u64>, String> {
    let parse = |s: &str| s.trim().parse::<u64>().map_err(|e| format!("{s:?}: {e}"));
    let (a, b) = text.split_once("..").ok_or("not of the form A..B")?;
    let range = parse(a)?..parse(b)?;
    if range.is_empty() {
        Err(format!("{text}: no seeds in it"))
    } else {
        Ok(range)
    }
}

fn main() -> ExitCode {
    match Cli::parse().command {
        Some(Command::One(what)) => match what.plan() {
            Ok(plan) => one(plan, &what.tracing),
            Err(why) => refused(&why),
        },
        Some(Command::Plan(what)) => match what.plan() {
            Ok(plan) => {
                print_json(&plan, true);
                ExitCode::SUCCESS
            }
            Err(why) => refused(&why),
        },
        Some(Command::Run(run)) => {
            // BEFORE a process is started for it: what can't be understood is no run.
            match run.plan.as_deref().map(read_plan) {
                Some(Err(why)) => refused(&why),
                Some(Ok(plan)) => runner::run(&Run {
                    seed: Some(plan.seed),
                    secs: plan.secs,
                    ..run
                }),
                None => runner::run(&run),
            }
        }
        Some(Command::Determinism(run)) => runner::determinism(&run),
        None => {
            println!("A broker, its clients, and everything that can befall them: seeds {DEMO_SEEDS:?}.");
            println!(
                "(`cargo sim run --help` for more; `cargo sim run --seed N --trace` tells one run's story.)\n"
            );
            let run = Run {
                seed: None,
                seeds: Some(DEMO_SEEDS),
                plan: None,
                secs: SECS,
                faults: Faults::Default,
                jobs: None,
                format: Format::Text,
                tracing: Tracing::default(),
            };
            runner::run(&run)
        }
    }
}

fn one(plan: Plan, tracing: &Tracing) -> ExitCode {
    keep_memory();
    let (report, traced) = match tracing.tracer(&plan) {
        Err(why) => return refused(&why),
        Ok(None) => (scenario::run(plan), Ok(())),
        Ok(Some(tracer)) => scenario::run_traced(plan, tracer),
    };
    if let Err(error) = traced {
        return refused(&format!("the trace could not be written: {error}"));
    }
    print_json(&report, false);
    ExitCode::from(report.verdict.exit_code())
}

/// Lets the allocator keep what it has: a run is short, and giving pages back and forth is a fifth of its time.
fn keep_memory() {
    #[cfg(target_env = "gnu")]
    for (what, value) in [
        (libc::M_ARENA_MAX, 1),
        (libc::M_TRIM_THRESHOLD, 1 << 30),
        (libc::M_MMAP_THRESHOLD, 1 << 30),
        (libc::M_TOP_PAD, 4 << 20),
    ] {
        // SAFETY: it changes numbers of the allocator, and no other thread runs yet.
        let done = unsafe { libc::mallopt(what, value) };
        debug_assert_eq!(done, 1, "glibc knows these");
    }
}

fn print_json(what: &impl serde::Serialize, pretty: bool) {
    let text = if pretty {
        serde_json::to_string_pretty(what)
    } else {
        serde_json::to_string(what)
    };
    println!("{}", text.expect("it can be written"));
}

/// What was asked for can't be understood.
fn refused(why: &str) -> ExitCode {
    eprintln!("error: {why}");
    ExitCode::from(2)
}

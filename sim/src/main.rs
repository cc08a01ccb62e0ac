//! The binary `brokkr-sim`: runs seeds, each in its own process, and judges them.
#![expect(
    clippy::disallowed_methods,
    reason = "the runner is outside of the room: it starts processes and measures real time"
)]

mod bugs;
mod differs;
mod explaining;
mod failures;
mod memory;
mod runner;
mod scratch;
mod shrinking;
mod tracing_to;

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use brokkr_sim::failure::Document;
use brokkr_sim::plan::{Faults, Plan};
use brokkr_sim::scenario;
use clap::{Args, Parser, Subcommand, ValueEnum};
use tracing_to::Tracing;

#[global_allocator]
static MEMORY: memory::Allocator = memory::Allocator;

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
    /// Send extreme, malformed and well-formed requests to a broker that serves others meanwhile
    Requests(Requests),
    /// Run each seed twice, in two processes of different surroundings, and compare
    Determinism(Run),
    /// Put each known bug of sim/mutants into a copy of the tree, and hunt it
    Bugs(bugs::Bugs),
    /// Make a plan that fails small, as long as it fails in the same way
    Shrink(shrinking::Shrink),
    /// Tell the story of a plan that fails: the few events between cause and violation
    Explain(explaining::Explain),
    /// Name the first event in which two traces in lines of JSON differ
    Diff { a: PathBuf, b: PathBuf },
    /// Print what a seed makes of a run, as JSON that `run --plan` takes, also after a change
    Plan(RunArgs),
    /// Run one seed in this process and print its line (what `run` starts for each seed)
    #[command(hide = true)]
    One(RunArgs),
}

/// Arguments of a single run.
#[derive(Args, Clone)]
#[group(skip)]
struct RunArgs {
    #[arg(long, required_unless_present = "plan")]
    seed: Option<u64>,
    /// Virtual seconds
    #[arg(long, default_value_t = SECS)]
    secs: u64,
    /// Faults to inject: none, default, unlimited, or a list of families
    #[arg(long, default_value_t = Faults::Default)]
    faults: Faults,
    /// The scenario of speed measurements, with this many operations a second, instead of the seed's workload
    #[arg(long, value_name = "OPERATIONS_PER_S", conflicts_with_all = ["faults", "plan"])]
    standard: Option<u64>,
    /// A plan instead of a seed
    #[arg(long, hide = true)]
    plan: Option<PathBuf>,
    #[command(flatten)]
    tracing: Tracing,
}

impl RunArgs {
    fn plan(&self) -> Result<Plan, String> {
        let Some(path) = &self.plan else {
            let seed = self.seed.unwrap_or(0);
            return Ok(match self.standard {
                Some(operations_per_s) => Plan::standard(seed, self.secs, operations_per_s),
                None => Plan::of(seed, self.secs, &self.faults),
            });
        };
        read_plan(path)
    }
}

fn read_document(path: &Path) -> Result<Document, String> {
    let text = std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
    Document::parse(&text).map_err(|e| format!("{}: {e}", path.display()))
}

fn read_plan(path: &Path) -> Result<Plan, String> {
    read_document(path).map(Document::into_plan)
}

/// Virtual seconds of a run.
const SECS: u64 = 60;
/// The seeds of the README's first command.
const DEMO_SEEDS: Range<u64> = 0..24;

#[derive(Args, Clone)]
#[group(skip)]
struct Requests {
    /// Requests of each run
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    requests: u64,
    #[command(flatten)]
    run: Run,
}

/// Default virtual seconds of a run of requests.
const REQUESTS_SECS: u64 = 12;

impl Requests {
    fn run(self) -> Run {
        Run {
            faults: Faults::Requests(self.requests),
            secs: if self.run.secs == SECS {
                REQUESTS_SECS
            } else {
                self.run.secs
            },
            ..self.run
        }
    }
}

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
    /// A plan, as `plan` prints it or a failure leaves it, instead of seeds
    #[arg(long, conflicts_with_all = ["seed", "seeds", "secs", "faults"])]
    plan: Option<PathBuf>,
    /// Virtual seconds of each run
    #[arg(long, default_value_t = SECS)]
    secs: u64,
    /// Faults to inject: none, default, unlimited, or a list of families
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
    /// Directory for the plan and the result of a failing run: failure.json, or failure-SEED.json if there are several seeds
    #[arg(long, value_name = "DIR", default_value = ".")]
    failures: PathBuf,
    /// Run only the i-th of n equal parts of the seeds
    #[arg(long, value_name = "I/N", default_value = "1/1")]
    shard: Shard,
    /// Begin no run after so long (90s, 10m, 2h); without --seeds, seeds from 0 on
    #[arg(long, value_name = "TIME", value_parser = duration)]
    r#for: Option<Duration>,
    /// Write the results to a file as JUnit's XML, too
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
}

impl Run {
    fn range(&self) -> Range<u64> {
        match (self.seed, &self.seeds) {
            (Some(seed), _) => seed..seed + 1,
            (None, Some(seeds)) => seeds.clone(),
            (None, None) if self.r#for.is_some() => 0..u64::MAX,
            (None, None) => DEMO_SEEDS,
        }
    }
}

/// The i-th of n parts, counted from 1.
#[derive(Clone, Copy)]
struct Shard {
    i: u64,
    n: u64,
}

impl std::str::FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (i, n) = text.split_once('/').ok_or("not of the form I/N")?;
        let parse = |s: &str| s.parse::<u64>().map_err(|e| format!("{s:?}: {e}"));
        match (parse(i)?, parse(n)?) {
            (i, n) if (1..=n).contains(&i) => Ok(Self { i, n }),
            (_, n) => Err(format!("{text}: not one of 1/{n} to {n}/{n}")),
        }
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let secs: u64 = number.parse().map_err(|e| format!("{number:?}: {e}"))?;
    let times = match unit {
        "s" | "" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return Err(format!("{unit:?} is not a unit: s, m or h")),
    };
    secs.checked_mul(times)
        .map(Duration::from_secs)
        .ok_or_else(|| format!("{text} is too long"))
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
    // SAFETY: no handler is installed, and nothing else runs yet.
    unsafe {
        // A reader that closes the pipe early (`head`) ends the process, instead of a panic.
        libc::signal(libc::SIGPIPE, libc::SIG_DFL);
    }
    memory::keep();
    match Cli::parse().command {
        Some(Command::One(what)) => match what.plan() {
            Ok(plan) => one(plan, &what.tracing),
            Err(why) => argument_error(&why),
        },
        Some(Command::Plan(what)) => match what.plan() {
            Ok(plan) => {
                print_json(&plan, true);
                ExitCode::SUCCESS
            }
            Err(why) => argument_error(&why),
        },
        Some(Command::Run(run)) => {
            validated(run).map_or_else(|why| argument_error(&why), |run| runner::run(&run))
        }
        Some(Command::Requests(requests)) => {
            validated(requests.run()).map_or_else(|why| argument_error(&why), |run| runner::run(&run))
        }
        Some(Command::Determinism(run)) => {
            let run = match run.tracing.is_to_file() {
                true => Err("each seed runs twice, so one file can't hold the trace".to_owned()),
                false => validated(run),
            };
            run.map_or_else(|why| argument_error(&why), |run| runner::determinism(&run))
        }
        Some(Command::Shrink(shrink)) => shrinking::main(&shrink),
        Some(Command::Explain(explain)) => explaining::main(&explain),
        Some(Command::Diff { a, b }) => differs::main(&a, &b),
        Some(Command::Bugs(bugs)) => bugs::main(&bugs),
        None => {
            println!("A broker and its clients under faults: seeds {DEMO_SEEDS:?}.");
            println!(
                "(`cargo sim run --help` for more; `cargo sim run --seed N --trace` prints the trace of one run.)\n"
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
                failures: PathBuf::from("."),
                shard: Shard { i: 1, n: 1 },
                r#for: None,
                junit: None,
            };
            runner::run(&run)
        }
    }
}

/// A run with the seed and the seconds of its plan. BEFORE a process is started: invalid arguments start no run.
fn validated(run: Run) -> Result<Run, String> {
    let run = match run.plan.as_deref().map(read_plan).transpose()? {
        Some(plan) => Run {
            seed: Some(plan.seed),
            secs: plan.secs,
            ..run
        },
        None => run,
    };
    let range = run.range();
    if run.tracing.is_to_file() && range.end - range.start > 1 {
        return Err("a file holds the trace of one run: --seed N, or --plan FILE".to_owned());
    }
    Ok(run)
}

fn one(plan: Plan, tracing: &Tracing) -> ExitCode {
    let (report, traced) = match tracing.tracer(&plan) {
        Err(why) => return argument_error(&why),
        Ok(None) => (scenario::run(plan), Ok(())),
        Ok(Some(tracer)) => scenario::run_traced(plan, tracer),
    };
    if let Err(error) = traced {
        return argument_error(&format!("the trace could not be written: {error}"));
    }
    print_json(&report, false);
    ExitCode::from(report.verdict.exit_code())
}

fn print_json(what: &impl serde::Serialize, pretty: bool) {
    let text = if pretty {
        serde_json::to_string_pretty(what)
    } else {
        serde_json::to_string(what)
    };
    println!("{}", text.expect("it can be written"));
}

/// The arguments are invalid.
fn argument_error(why: &str) -> ExitCode {
    eprintln!("error: {why}");
    ExitCode::from(2)
}

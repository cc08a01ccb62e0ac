//! The binary `brokkr-sim`: runs seeds, each in its own process, and judges them.
#![expect(
    clippy::disallowed_methods,
    reason = "the runner is outside of the room: it starts processes and measures real time"
)]

mod arguments;
mod bugs;
mod chosen;
mod crashing;
mod differs;
mod documents;
mod explaining;
mod failures;
mod memory;
mod pages;
mod runner;
mod scratch;
mod shrinking;
mod stating;
mod tracing_to;

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use arguments::{DEMO_SEEDS, Format, OneArgs, PlanArgs, Requests, Run, SECS, Shard, argument_error};
use brokkr_sim::page::story_text;
use brokkr_sim::plan::{Faults, Plan};
use brokkr_sim::scenario::{self, Outputs};
use clap::{Parser, Subcommand};
use documents::read_plan;
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
    /// Crash the broker at each event of a short run after which the disk may hold something else
    CrashPoints(crashing::CrashPoints),
    /// Put each known bug of sim/mutants into a copy of the tree, and hunt it; report what became of those that survive
    Bugs(bugs::Bugs),
    /// Make a plan that fails small, as long as it fails in the same way
    Shrink(shrinking::Shrink),
    /// Explain a run that fails, or a value, an offset or a moment of any run: the few events that concern it
    Explain(explaining::Explain),
    /// Print the state of the world at a time of a run: processes, disks, logs, tasks, links, connections, faults
    State(stating::StateArgs),
    /// Name the first event in which two traces in lines of JSON differ
    Diff { a: PathBuf, b: PathBuf },
    /// Print what a seed makes of a run, as JSON that `run --plan` takes, also after a change
    Plan(PlanArgs),
    /// Run one seed in this process and print its line (what `run` starts for each seed)
    #[command(hide = true)]
    One(OneArgs),
}

fn main() -> ExitCode {
    // SAFETY: no handler is installed, and nothing else runs yet.
    unsafe {
        // A reader that closes the pipe early (`head`) ends the process, instead of a panic.
        libc::signal(libc::SIGPIPE, libc::SIG_DFL);
    }
    memory::keep();
    match Cli::parse().command {
        Some(Command::One(what)) => match what.run.plan() {
            Ok(plan) => one(plan, &what.run.tracing, what.history.as_deref()),
            Err(why) => argument_error(&why),
        },
        Some(Command::Plan(what)) => match what.run.plan() {
            Ok(plan) => {
                match what.explain {
                    true => print!("{}", story_text(&plan)),
                    false => print_json(&plan, true),
                }
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
            let run = match run.tracing.is_to_file() || run.html.is_some() || run.history.is_some() {
                true => {
                    Err("each seed runs twice, so one file can't hold the trace or the history".to_owned())
                }
                false => validated(run),
            };
            run.map_or_else(|why| argument_error(&why), |run| runner::determinism(&run))
        }
        Some(Command::Shrink(shrink)) => shrinking::main(&shrink),
        Some(Command::Explain(explain)) => explaining::main(&explain),
        Some(Command::State(args)) => stating::main(&args),
        Some(Command::CrashPoints(args)) => crashing::main(&args),
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
                html: None,
                history: None,
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
    let is_to_file = run.tracing.is_to_file() || run.html.is_some() || run.history.is_some();
    if is_to_file && range.end - range.start > 1 {
        return Err(
            "a file holds the trace, the page or the history of one run: --seed N, or --plan FILE".to_owned(),
        );
    }
    // A run that dies before its end leaves the file empty.
    run.history.as_deref().map(created).transpose()?;
    Ok(run)
}

/// A new file for a history.
fn created(path: &Path) -> Result<File, String> {
    File::create(path).map_err(|e| format!("{}: {e}", path.display()))
}

fn one(plan: Plan, tracing: &Tracing, history: Option<&Path>) -> ExitCode {
    let outputs = tracing.tracer(&plan).and_then(|tracer| {
        let history = history.map(created).transpose()?;
        let history = history.map(|file| Box::new(BufWriter::new(file)) as Box<dyn Write + Send>);
        Ok(Outputs { tracer, history })
    });
    let (report, written) = match outputs {
        Err(why) => return argument_error(&why),
        Ok(outputs) => scenario::run_recorded(plan, outputs),
    };
    if let Err(error) = written.trace {
        return argument_error(&format!("the trace could not be written: {error}"));
    }
    if let Err(error) = written.history {
        return argument_error(&format!("the history could not be written: {error}"));
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

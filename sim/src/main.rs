//! The binary `brokkr-sim`: runs seeds, each in a process of its own, and judges them.
#![expect(
    clippy::disallowed_methods,
    reason = "the runner is outside of the room: it starts processes and measures real time"
)]

mod runner;

use std::ops::Range;
use std::process::ExitCode;

use brokkr_sim::scenario;
use clap::{Args, Parser, Subcommand, ValueEnum};

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
    /// Run one seed in this process and print its line (what `run` starts for each seed)
    #[command(hide = true)]
    One {
        #[arg(long)]
        seed: u64,
        #[arg(long, default_value_t = SECS)]
        secs: u64,
        /// Tell what happened, to stderr
        #[arg(long)]
        trace: bool,
    },
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
    /// Virtual seconds of each run
    #[arg(long, default_value_t = SECS)]
    secs: u64,
    /// Runs at the same time [default: one for each core]
    #[arg(long)]
    jobs: Option<usize>,
    /// How to print results
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// With --seed: tell what happened, to stderr
    #[arg(long)]
    trace: bool,
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
        Some(Command::One { seed, secs, trace }) => {
            let report = scenario::run(seed, secs, trace);
            println!(
                "{}",
                serde_json::to_string(&report).expect("a report can be written")
            );
            ExitCode::from(report.verdict.exit_code())
        }
        Some(Command::Run(run)) => runner::run(&run),
        Some(Command::Determinism(run)) => runner::determinism(&run),
        None => {
            println!(
                "A broker, its clients, and everything that can happen to its power: seeds {DEMO_SEEDS:?}."
            );
            println!(
                "(`cargo sim run --help` for more; `cargo sim run --seed N --trace` tells one run's story.)\n"
            );
            let run = Run {
                seed: None,
                seeds: Some(DEMO_SEEDS),
                secs: SECS,
                jobs: None,
                format: Format::Text,
                trace: false,
            };
            runner::run(&run)
        }
    }
}

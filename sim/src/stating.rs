//! `brokkr-sim state`: runs a seed or a plan, and prints the world's state at a time.

use std::fs::File;
use std::io::BufReader;
use std::process::ExitCode;

use brokkr_sim::explain::{FocusError, Trace};
use brokkr_sim::scenario;
use brokkr_sim::state::{self, WorldState};
use clap::Args;

use crate::arguments::{Format, argument_error, moment};
use crate::chosen::Chosen;
use crate::scratch::Scratch;
use crate::tracing_to::Tracing;

/// Arguments of `state`.
#[derive(Args)]
pub struct StateArgs {
    #[command(flatten)]
    chosen: Chosen,
    /// The time, e.g. 12.3s or 12300ms, as traces and explanations print it: the world's clock begins at 1 s
    #[arg(long, value_name = "TIME", value_parser = moment)]
    at: u64,
    /// How to print the state
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

/// Exit codes: 0 the state was printed; 2 invalid arguments, or the run had not begun or had ended at that time.
pub fn main(args: &StateArgs) -> ExitCode {
    match all(args) {
        Ok((state, hash)) => {
            match args.format {
                Format::Text => print!("{}\nhash of the run: {hash}\n", state::text(&state)),
                Format::Json => println!("{}", json(&state, &hash)),
            }
            ExitCode::SUCCESS
        }
        Err(why) => argument_error(&why),
    }
}

fn all(args: &StateArgs) -> Result<(WorldState, String), String> {
    let (plan, _) = args.chosen.run()?;
    let scratch = Scratch::new().map_err(|e| format!("no room for a trace: {e}"))?;
    let path = scratch.path("trace.jsonl");
    let tracer = Tracing::to_file(&path).tracer(&plan)?;
    let tracer = tracer.ok_or("a trace has a file")?;
    let (report, traced, snapshot) = scenario::run_observed(plan.clone(), tracer, args.at);
    traced.map_err(|e| format!("the trace could not be written: {e}"))?;
    let read = File::open(&path).and_then(|file| Trace::read(BufReader::new(file)));
    let trace = read.map_err(|e| format!("the trace of the run can't be read: {e}"))?;
    let run = trace.span();
    match snapshot.filter(|_| args.at >= run.0) {
        Some(snapshot) => Ok((state::state(&plan, args.at, snapshot, &trace), report.hash)),
        None => Err(FocusError::OutsideRun { at: args.at, run }.to_string()),
    }
}

fn json(state: &WorldState, hash: &str) -> String {
    let mut value = serde_json::to_value(state).expect("a state can be written");
    value["hash"] = hash.into();
    serde_json::to_string_pretty(&value).expect("a state can be written")
}

//! `brokkr-sim explain`: repeats a failing plan with a trace, and explains the failure.

use std::fs::File;
use std::io::BufReader;
use std::path::PathBuf;
use std::process::ExitCode;

use brokkr_sim::explain::{Trace, explain};
use clap::Args;

use crate::arguments::argument_error;
use crate::documents::read_plan;
use crate::runner::child::{self, RunSpec, Surroundings};
use crate::runner::this_binary;
use crate::scratch::Scratch;
use crate::tracing_to::Tracing;

/// Arguments of `explain`.
#[derive(Args)]
pub struct Explain {
    /// A plan that fails, or the file of a failing run; best after `shrink`
    file: PathBuf,
    /// The invariant whose violation is explained [default: the one nearest to the cause]
    #[arg(long)]
    id: Option<String>,
    /// The simulator that runs the plan, e.g. one with a bug in its broker [default: this one]
    #[arg(long, value_name = "BINARY")]
    exe: Option<PathBuf>,
}

/// Exit codes: those of `run`, or 2 for invalid arguments.
pub fn main(explain: &Explain) -> ExitCode {
    match all(explain) {
        Ok(code) => code,
        Err(why) => argument_error(&why),
    }
}

fn all(args: &Explain) -> Result<ExitCode, String> {
    let plan = read_plan(&args.file)?;
    let scratch = Scratch::new().map_err(|e| format!("no room for a trace: {e}"))?;
    let (path, what) = (
        scratch.path("trace.jsonl"),
        RunSpec::Plan {
            path: &args.file,
            seed: plan.seed,
            secs: plan.secs,
        },
    );
    let exe = args.exe.clone().unwrap_or_else(this_binary);
    let report = child::traced(&exe, what, Surroundings::Plain, &Tracing::to_file(&path));
    let read = File::open(&path).and_then(|file| Trace::read(BufReader::new(file)));
    let trace = read.map_err(|e| format!("the trace of the run can't be read: {e}"))?;
    print!("{}", explain(&plan, &report, &trace, args.id.as_deref()));
    Ok(ExitCode::from(report.verdict.exit_code()))
}

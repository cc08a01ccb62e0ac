//! `brokkr-sim explain`: repeats a failing plan with a trace, and explains the failure.

use std::path::PathBuf;
use std::process::ExitCode;

use brokkr_sim::explain::explain;
use brokkr_sim::failure::Failure;
use brokkr_sim::page::Page;
use clap::Args;

use crate::arguments::argument_error;
use crate::documents::read_plan;
use crate::pages;
use crate::runner::child::{RunSpec, this_binary};

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
    /// Write an HTML page of the run, too; of FILE-small.json with the plan in FILE.json beside it
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
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
    let what = RunSpec::Plan {
        path: &args.file,
        seed: plan.seed,
        secs: plan.secs,
    };
    let exe = args.exe.clone().unwrap_or_else(this_binary);
    let (report, trace) = pages::traced(&exe, what)?;
    print!("{}", explain(&plan, &report, &trace, args.id.as_deref()).text);
    if let Some(path) = &args.html {
        let original = pages::original(&args.file);
        let page = Page {
            failure: &Failure::new(plan, &report, &args.file.display().to_string()),
            report: &report,
            trace: &trace,
            id: args.id.as_deref(),
            original: original.as_ref(),
        };
        pages::write(&page, path)?;
    }
    Ok(ExitCode::from(report.verdict.exit_code()))
}

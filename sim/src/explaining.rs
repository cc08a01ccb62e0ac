//! `brokkr-sim explain`: repeats a run with a trace, and explains its failure, or what became of a value, an offset or a moment.

use std::path::PathBuf;
use std::process::ExitCode;

use brokkr_sim::explain::{Focus, explain};
use brokkr_sim::failure::Failure;
use brokkr_sim::page::Page;
use clap::Args;

use crate::arguments::{argument_error, moment, place};
use crate::chosen::Chosen;
use crate::pages;
use crate::runner::child::{RunSpec, this_binary};

/// Arguments of `explain`.
#[derive(Args)]
pub struct Explain {
    /// A plan, or the file of a failing run; best after `shrink`
    #[arg(conflicts_with_all = ["seed", "plan", "secs", "faults"])]
    file: Option<PathBuf>,
    #[command(flatten)]
    chosen: Chosen,
    /// The invariant whose violation is explained [default: the one nearest to the cause]
    #[arg(long, conflicts_with_all = ["value", "offset", "at"])]
    id: Option<String>,
    /// Explain what became of a value that a client sent, also in a run that passes
    #[arg(long, conflicts_with_all = ["offset", "at"])]
    value: Option<i64>,
    /// Explain what stood at an offset of a partition, e.g. t0-0:17
    #[arg(long, value_name = "TOPIC-PARTITION:OFFSET", value_parser = place, conflicts_with = "at")]
    offset: Option<(String, i64)>,
    /// Explain what was under way at a time, e.g. 12.3s or 12300ms, and what it waited for; the world's clock begins at 1 s
    #[arg(long, value_name = "TIME", value_parser = moment)]
    at: Option<u64>,
    /// The simulator that runs the plan, e.g. one with a bug in its broker [default: this one]
    #[arg(long, value_name = "BINARY")]
    exe: Option<PathBuf>,
    /// Write an HTML page of the run, too, with the explained events in red; of FILE-small.json with the plan in FILE.json beside it
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

/// Exit codes: those of `run`, or 2 for invalid arguments, and for a value, an offset or a time that the run does not have.
pub fn main(explain: &Explain) -> ExitCode {
    match all(explain) {
        Ok(code) => code,
        Err(why) => argument_error(&why),
    }
}

impl Explain {
    fn focus(&self) -> Focus {
        match (self.value, &self.offset, self.at) {
            (Some(value), ..) => Focus::Value(value),
            (None, Some((key, offset)), _) => Focus::Offset(key.clone(), *offset),
            (None, None, Some(at)) => Focus::Moment(at),
            (None, None, None) => Focus::Violation(self.id.clone()),
        }
    }
}

fn all(args: &Explain) -> Result<ExitCode, String> {
    let mut chosen = args.chosen.clone();
    chosen.plan = args.file.clone().or(chosen.plan);
    let (plan, what) = chosen.run()?;
    let exe = args.exe.clone().unwrap_or_else(this_binary);
    let (report, trace) = pages::traced(&exe, what)?;
    let explanation = explain(&plan, &report, &trace, &args.focus()).map_err(|e| e.to_string())?;
    print!("{}", explanation.text);
    if let Some(path) = &args.html {
        let original = match what {
            RunSpec::Plan { path, .. } => pages::original(path),
            RunSpec::Seed { .. } => None,
        };
        let failure = Failure {
            repeat: what.repeat(),
            ..Failure::new(plan, &report, "")
        };
        let page = Page {
            failure: &failure,
            report: &report,
            trace: &trace,
            explanation: &explanation,
            original: original.as_ref(),
        };
        pages::write(&page, path)?;
    }
    Ok(ExitCode::from(report.verdict.exit_code()))
}

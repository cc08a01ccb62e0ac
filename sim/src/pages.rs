//! Writes the HTML page of a run, which is repeated with a trace.

use std::fs::File;
use std::io::{BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use brokkr_sim::explain::{Focus, Trace, explain};
use brokkr_sim::failure::Failure;
use brokkr_sim::page::Page;
use brokkr_sim::plan::Plan;
use brokkr_sim::report::Report;

use crate::documents::read_plan;
use crate::runner::child::{self, RunSpec, Surroundings};
use crate::scratch::Scratch;
use crate::tracing_to::Tracing;

/// What the plan that `shrink` writes is called: `failure.json` becomes `failure-small.json`.
pub const SMALL: &str = "-small";

/// Runs it with a trace.
///
/// # Errors
/// The trace can't be written or read.
pub fn traced(exe: &Path, what: RunSpec<'_>) -> Result<(Report, Trace), String> {
    let scratch = Scratch::new().map_err(|e| format!("no room for a trace: {e}"))?;
    let path = scratch.path("trace.jsonl");
    let report = child::traced(exe, what, Surroundings::Plain, &Tracing::to_file(&path));
    let read = File::open(&path).and_then(|file| Trace::read(BufReader::new(file)));
    let trace = read.map_err(|e| format!("the trace of the run can't be read: {e}"))?;
    Ok((report, trace))
}

/// Writes a page to a file.
///
/// # Errors
/// The file can't be written.
pub fn write(page: &Page<'_>, path: &Path) -> Result<(), String> {
    let write = || {
        let mut out = BufWriter::with_capacity(1 << 16, File::create(path)?);
        page.write(&mut out)?;
        out.flush()
    };
    write().map_err(|e| format!("{}: {e}", path.display()))
}

/// Runs it, and writes its page. What went wrong with the page is left in `failed`.
pub fn run(exe: &Path, what: RunSpec<'_>, path: &Path, failed: &Mutex<Option<String>>) -> Report {
    let paged = |(report, trace): (Report, Trace)| {
        let failure = Failure {
            repeat: what.repeat(),
            ..Failure::new(what.plan()?, &report, "")
        };
        let explanation = explain(&failure.plan, &report, &trace, &Focus::Violation(None));
        let page = Page {
            failure: &failure,
            report: &report,
            trace: &trace,
            explanation: &explanation.map_err(|e| e.to_string())?,
            original: None,
        };
        write(&page, path)?;
        Ok(report)
    };
    traced(exe, what).and_then(paged).unwrap_or_else(|why: String| {
        *failed.lock().expect("no panic under this lock") = Some(why);
        child::run(exe, what, Surroundings::Plain)
    })
}

/// The plan that `FILE-small.json` comes from, if `FILE.json` is beside it.
pub fn original(small: &Path) -> Option<Plan> {
    let stem = small.file_stem()?.to_str()?.strip_suffix(SMALL)?;
    read_plan(&small.with_file_name(format!("{stem}.json"))).ok()
}

/// The page beside a plan: `failure.json` has `failure.html`.
pub fn beside(plan: &Path) -> PathBuf {
    plan.with_extension("html")
}

//! Writes the files of failing runs.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use brokkr_sim::failure::Failure;
use brokkr_sim::page::Page;
use brokkr_sim::report::{Report, Verdict};

use crate::arguments::Run;
use crate::pages;
use crate::runner::child::RunSpec;

/// Maximum number of pages of a campaign: each takes another run, with a trace.
pub const PAGES_MAX: u64 = 3;

/// The files of a failing run.
pub struct FailureFiles {
    pub plan: PathBuf,
    /// The page, or why it could not be written. None beyond [`PAGES_MAX`], and where the run's process died or did not end.
    pub page: Option<Result<PathBuf, String>>,
}

/// Writes the plan and the report of a failing run to a file, and its page, as long as `pages_left` is not 0. Returns the paths, or why
/// the plan can't be written; None if the run did not fail. `exe` is the simulator that repeats the run.
pub fn leave(
    run: &Run,
    what: RunSpec<'_>,
    report: &Report,
    exe: &Path,
    pages_left: &AtomicU64,
) -> Option<Result<FailureFiles, String>> {
    let failed = matches!(report.verdict, Verdict::Violation | Verdict::Nondeterminism);
    failed.then(|| {
        let range = run.range();
        let name = match range.end - range.start {
            1 => "failure.json".to_owned(),
            _ => format!("failure-{}.json", report.seed),
        };
        let path = run.failures.join(name);
        let path = path.strip_prefix(".").map_or(path.clone(), PathBuf::from);
        let failure = Failure::new(what.plan()?, report, &path.display().to_string());
        let why = |e| format!("{}: {e}", path.display());
        std::fs::create_dir_all(&run.failures).map_err(why)?;
        std::fs::write(&path, failure.to_json()).map_err(why)?;
        let is_paged =
            report.verdict == Verdict::Violation && !report.hash.is_empty() && take_one(pages_left);
        let page = is_paged.then(|| page(exe, what, &failure, report, &path));
        Ok(FailureFiles { plan: path, page })
    })
}

/// Takes one, if any is left.
fn take_one(left: &AtomicU64) -> bool {
    let less = |n: u64| n.checked_sub(1);
    left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less)
        .is_ok()
}

/// Repeats a failing run with a trace, and writes its page beside its plan.
fn page(
    exe: &Path,
    what: RunSpec<'_>,
    failure: &Failure,
    report: &Report,
    plan: &Path,
) -> Result<PathBuf, String> {
    let (_, trace) = pages::traced(exe, what)?;
    let page = Page {
        failure,
        report,
        trace: &trace,
        id: None,
        original: None,
    };
    let path = pages::beside(plan);
    pages::write(&page, &path)?;
    Ok(path)
}

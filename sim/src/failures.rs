//! Writes the files of failing runs.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};

use brokkr_sim::failure::Failure;
use brokkr_sim::report::{Report, Verdict};

use crate::arguments::Run;
use crate::pages;
use crate::runner::child::{RunSpec, this_binary};

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
        let page = is_paged.then(|| page(exe, &path));
        Ok(FailureFiles { plan: path, page })
    })
}

/// Takes one, if any is left.
fn take_one(left: &AtomicU64) -> bool {
    let less = |n: u64| n.checked_sub(1);
    left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less)
        .is_ok()
}

/// Repeats a failing run with a trace, and writes its page beside its plan. In a process of its own: a trace takes much memory, which
/// this one would keep, and the system would count it as used by each later run.
fn page(exe: &Path, plan: &Path) -> Result<PathBuf, String> {
    let path = pages::beside(plan);
    drop(std::fs::remove_file(&path));
    let mut command = Command::new(this_binary());
    command.arg("explain").arg(plan).arg("--exe").arg(exe);
    command.arg("--html").arg(&path);
    let output = command.output().map_err(|e| format!("no page: {e}"))?;
    match path.exists() {
        true => Ok(path),
        false => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
    }
}

//! Writes the files of failing runs.

use std::path::PathBuf;

use brokkr_sim::failure::Failure;
use brokkr_sim::report::{Report, Verdict};

use crate::arguments::Run;
use crate::runner::child::RunSpec;

/// Writes the plan and the report of a failing run to a file: returns its path, or why it can't be written. None if the run did not
/// fail.
pub fn leave(run: &Run, what: RunSpec<'_>, report: &Report) -> Option<Result<PathBuf, String>> {
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
        Ok(path)
    })
}

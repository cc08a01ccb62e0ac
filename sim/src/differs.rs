//! Finds the first event that differs between two runs of one seed.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufReader};
use std::path::Path;
use std::process::ExitCode;

use brokkr_sim::report::{Report, Verdict, Violated};
use brokkr_sim::trace::diff::{Difference, first_difference};

use crate::arguments::argument_error;
use crate::runner::child::{self, RunSpec, Surroundings};
use crate::scratch::Scratch;
use crate::tracing_to::Tracing;

/// How many times both runs are repeated with traces until they differ again.
const TRIES: usize = 3;

/// Returns the first of two reports of one run; if the second differs, with the first event that does.
pub fn compare(exe: &Path, what: RunSpec<'_>, a: Report, b: &Report) -> Report {
    let differing = differing(&a, b);
    if differing.is_empty() {
        return a;
    }
    let which = which(exe, what).unwrap_or_else(|why| why);
    let what = format!(
        "{} events, hash {}; then {} events, hash {} (other {}); {which}",
        a.events,
        a.hash,
        b.events,
        b.hash,
        differing.join(", ")
    );
    let mut report = a;
    report.verdict = Verdict::Nondeterminism;
    report.violations.push(Violated {
        id: "nondeterminism".into(),
        what,
    });
    report
}

/// The names of the fields that differ, except the wall time and the memory.
fn differing(a: &Report, b: &Report) -> Vec<String> {
    let fields = |report: &Report| {
        let what = Report {
            wall_s: 0.0,
            rss_max_bytes: 0,
            ..report.clone()
        };
        serde_json::to_value(what).expect("a report can be written")
    };
    let (a, b) = (fields(a), fields(b));
    let all = a.as_object().into_iter().chain(b.as_object()).flatten();
    let names: BTreeSet<&String> = all.map(|(name, _)| name).collect();
    let differ = names.into_iter().filter(|name| a.get(name) != b.get(name));
    differ.cloned().collect()
}

/// Repeats both runs with traces. Returns where they first differ, or why that could not be found.
fn which(exe: &Path, what: RunSpec<'_>) -> Result<String, String> {
    for _ in 0..TRIES {
        let runs = [(exe, Surroundings::Plain), (exe, Surroundings::Other)];
        if let Some(difference) = traced(runs, what)? {
            return Ok(difference.to_string());
        }
    }
    Err(format!(
        "repeated with traces, {TRIES} times, both did the same: it differs now and then"
    ))
}

/// Where the runs of two simulators first differ. None if they don't.
///
/// # Errors
/// A trace can't be written or read.
pub fn between(a: &Path, b: &Path, what: RunSpec<'_>) -> Result<Option<Difference>, String> {
    traced([(a, Surroundings::Plain), (b, Surroundings::Plain)], what)
}

fn traced(runs: [(&Path, Surroundings); 2], what: RunSpec<'_>) -> Result<Option<Difference>, String> {
    let scratch = Scratch::new().map_err(|e| format!("no room for traces: {e}"))?;
    let mut paths = ["a", "b"].map(|name| scratch.path(name)).into_iter();
    let traces = runs.map(|(exe, surrounding)| {
        let path = paths.next().expect("there are as many");
        child::traced(exe, what, surrounding, &Tracing::to_file(&path));
        path
    });
    files(&traces[0], &traces[1]).map_err(|e| format!("a trace can't be read: {e}"))
}

fn files(a: &Path, b: &Path) -> io::Result<Option<Difference>> {
    let open = |path: &Path| File::open(path).map(BufReader::new);
    first_difference(open(a)?, open(b)?)
}

/// Compares two trace files. Exit codes: 0 they are equal; 4 they differ; 2 they can't be read.
pub fn main(a: &Path, b: &Path) -> ExitCode {
    match files(a, b) {
        Ok(None) => {
            println!("no event differs");
            ExitCode::SUCCESS
        }
        Ok(Some(difference)) => {
            println!("{difference}");
            ExitCode::from(Verdict::Nondeterminism.exit_code())
        }
        Err(error) => argument_error(&error.to_string()),
    }
}

//! The plans of `regress/`: each once failed with the mutant of its name, and passes on the healthy tree. (`brokkr-sim bugs
//! --regress` shows that it still fails with that mutant.) The plans of `found/` failed on an earlier version of the tree.
#![expect(
    clippy::disallowed_methods,
    reason = "these tests are outside of the room: they start processes and read files"
)]

use std::path::{Path, PathBuf};
use std::process::Command;

fn files(folder: &str, ending: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let entries = std::fs::read_dir(folder).expect("the folder");
    let paths = entries.map(|e| e.expect("an entry").path());
    paths
        .filter(|p| p.extension().is_some_and(|e| e == ending))
        .collect()
}

#[test]
fn each_plan_passes_and_guards_against_a_bug_of_the_bank() {
    let stem = |p: &PathBuf| p.file_stem().expect("a name").to_owned();
    let bugs: Vec<_> = files("mutants", "patch").iter().map(stem).collect();
    let plans = files("regress", "json");
    assert!(!plans.is_empty());
    for plan in plans {
        assert!(
            bugs.contains(&stem(&plan)),
            "{} names no bug of the bank",
            plan.display()
        );
        passes(&plan);
    }
}

#[test]
fn plans_that_failed_once_pass() {
    let plans = files("found", "json");
    assert!(!plans.is_empty());
    plans.iter().for_each(|plan| passes(plan));
}

fn passes(plan: &Path) {
    let run = Command::new(env!("CARGO_BIN_EXE_brokkr-sim"))
        .args(["run", "--format", "json", "--plan"])
        .arg(plan)
        .output()
        .expect("the binary runs");
    let told = String::from_utf8_lossy(&run.stdout);
    // Some of these small plans are inconclusive, but without a violation.
    let fine = matches!(run.status.code(), Some(0 | 3));
    assert!(fine, "{}: {told}", plan.display());
}

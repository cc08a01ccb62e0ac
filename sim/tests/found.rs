//! The plans of `found/`: each once failed on the tree as it was, for the reason that its name says.
#![expect(
    clippy::disallowed_methods,
    reason = "these tests are outside of the room: they start processes and read files"
)]

use std::path::Path;
use std::process::Command;

#[test]
fn what_was_found_once_does_not_come_back() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("found");
    let plans = std::fs::read_dir(folder).expect("the folder");
    let mut count = 0;
    for plan in plans.map(|e| e.expect("an entry").path()) {
        let run = Command::new(env!("CARGO_BIN_EXE_brokkr-sim"))
            .args(["run", "--format", "json", "--plan"])
            .arg(&plan)
            .output()
            .expect("the binary runs");
        let told = String::from_utf8_lossy(&run.stdout);
        // Small as they are, some come to too little to say more than that nothing was wrong.
        let fine = matches!(run.status.code(), Some(0 | 3));
        assert!(fine, "{}: {told}", plan.display());
        count += 1;
    }
    assert!(count > 0, "there are plans");
}

//! Stops a build without the flag, before the compiler does it with errors that don't say why; and tells the crate which
//! commit it is built from, `-dirty` if the tree differed from it, so that plans can say it. (In release builds only: others are rebuilt often, and each commit
//! would build them again.)
#![expect(
    clippy::disallowed_methods,
    reason = "a build script's surroundings are its arguments"
)]

use std::process::Command;

const BUILT_FROM: &[&str] = &[
    "Cargo.toml",
    "Cargo.lock",
    "broker",
    "workloads",
    "jepsen",
    "sim/src",
    "sim/Cargo.toml",
];

fn git(args: &[&str]) -> Option<String> {
    let output = Command::new("git").args(args).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    (output.status.success() && !text.trim().is_empty()).then(|| text.trim().to_owned())
}

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=BROKKR_COMMIT");
    if std::env::var_os("CARGO_CFG_MADSIM").is_none() {
        println!(
            "cargo::error=the simulator needs `--cfg madsim`: build it in the workspace's directory, where \
             .cargo/config.toml sets it, and without RUSTFLAGS in the environment (or with RUSTFLAGS=\"--cfg madsim\")"
        );
        return;
    }
    let given = std::env::var("BROKKR_COMMIT").ok();
    let is_release = std::env::var("PROFILE").is_ok_and(|p| p == "release");
    let here = || {
        // It has a line more after every commit, checkout and rebase.
        if let Some(log) = git(&["rev-parse", "--git-path", "logs/HEAD"]) {
            println!("cargo::rerun-if-changed={log}");
        }
        // What the simulator is built from, so that it is known whether that is the commit.
        let top = git(&["rev-parse", "--show-toplevel"])?;
        for path in BUILT_FROM {
            println!("cargo::rerun-if-changed={top}/{path}");
        }
        let commit = git(&["rev-parse", "HEAD"])?;
        let status = ["-C", &top, "status", "--porcelain", "--"];
        let changed = git(&[&status[..], BUILT_FROM].concat());
        Some(format!("{commit}{}", changed.map_or("", |_| "-dirty")))
    };
    if let Some(commit) = given.or_else(|| if is_release { here() } else { None }) {
        println!("cargo::rustc-env=BROKKR_COMMIT={commit}");
    }
}

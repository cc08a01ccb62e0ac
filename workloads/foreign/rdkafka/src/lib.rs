//! librdkafka against the real binary. It is a separate package so that no other package waits for librdkafka's build; the
//! tests are in `tests/`.
#![expect(clippy::disallowed_methods, reason = "a test runner starts real processes")]

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

/// A running broker. Dropping it kills it.
pub struct Broker {
    child: Child,
    /// Its address.
    pub addr: String,
    dir: PathBuf,
}

/// Builds the binary, which belongs to another package, and returns its path.
fn binary() -> PathBuf {
    let built = Command::new(env!("CARGO"))
        .args(["build", "-q", "-p", "brokkr", "--message-format=json"])
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../../.."))
        .stderr(Stdio::inherit())
        .output()
        .expect("cargo runs");
    assert!(built.status.success(), "the broker builds");
    let text = String::from_utf8(built.stdout).expect("cargo writes UTF-8");
    let executable = text.lines().rev().find_map(|line| {
        let (_, rest) = line.split_once("\"executable\":\"")?;
        Some(PathBuf::from(rest.split_once('"')?.0))
    });
    executable.expect("the package has a binary")
}

impl Broker {
    /// Starts a broker on a new directory.
    pub fn start(name: &str) -> Self {
        let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
            .join("../../../target/tmp")
            .join(format!("rdkafka-{name}-{}", std::process::id()));
        if dir.exists() {
            std::fs::remove_dir_all(&dir).expect("an old directory can be removed");
        }
        Self::on(dir, "127.0.0.1:0")
    }

    fn on(dir: PathBuf, listen: &str) -> Self {
        let mut child = Command::new(binary())
            .arg("--data-dir")
            .arg(&dir)
            .args(["--listen", listen, "--set", "metrics.listen=none"])
            .stdout(Stdio::piped())
            .spawn()
            .expect("the binary runs");
        let mut lines = BufReader::new(child.stdout.take().expect("its output")).lines();
        let ready = lines.next().expect("a ready line").expect("text");
        let addr = ready.split(' ').nth(1).expect("ready HOST:PORT …").to_owned();
        Self { child, addr, dir }
    }

    /// Kills the broker with SIGKILL and starts it on the same directory and port.
    #[must_use]
    pub fn killed_and_restarted(mut self) -> Self {
        self.child.kill().expect("the broker runs");
        self.child.wait().expect("the broker was killed");
        let (dir, addr) = (self.dir.clone(), self.addr.clone());
        std::mem::forget(self);
        Self::on(dir, &addr)
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
        drop(std::fs::remove_dir_all(&self.dir));
    }
}

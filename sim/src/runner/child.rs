//! One run in its own process: with a watchdog, a memory limit, and a report however it ends.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read};
use std::mem::MaybeUninit;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use brokkr_sim::plan::{Faults, Plan};
use brokkr_sim::report::{Report, Verdict, Violated};

use crate::documents::read_plan;
use crate::tracing_to::Tracing;

/// Wall time that a run may take for each virtual second, and the minimum limit.
const PATIENCE_PER_SEC: Duration = Duration::from_millis(1000);
const PATIENCE_MIN: Duration = Duration::from_secs(60);
/// Lines that are kept of a run's stderr: a panic's message and its backtrace, or the reason why the process died.
const STDERR_LINES_MAX: usize = 40;
/// Beginnings of the message of a fatal error,
const CAUSES: [&str; 2] = ["panicked at", "memory allocation of"];
/// and how many lines are kept from there on.
const PANIC_LINES: usize = 8;
/// Memory limit of a run, in resident pages.
const MEMORY_MAX_BYTES: u64 = 200 << 20;
/// Additional limit for rude requests: half of the broker's budget (`queued.max.request.bytes`, 256 MiB), whose blocks are of all
/// sizes, and the allocator keeps pages for each size.
const REQUESTS_MAX_BYTES: u64 = 128 << 20;
/// Limit of allocated memory, used or not: the room's stack and the allocator's reserve take half of it. Mapped files don't count:
/// a panic's backtrace maps the binary with all its debug information.
const MEMORY_ASKED_MAX_BYTES: u64 = 2 * MEMORY_MAX_BYTES;

/// The simulator itself, to run as a child.
pub fn this_binary() -> PathBuf {
    std::env::current_exe().expect("a running binary has a path")
}

/// Different surroundings, in which the same seed must do the same.
#[derive(Clone, Copy)]
pub enum Surroundings {
    Plain,
    Other,
}

/// What to run.
#[derive(Clone, Copy)]
pub enum RunSpec<'a> {
    /// The plan of a seed, with this many virtual seconds.
    Seed {
        seed: u64,
        secs: u64,
        faults: &'a Faults,
    },
    /// A plan in a file, with its seed and its seconds.
    Plan { path: &'a Path, seed: u64, secs: u64 },
}

impl RunSpec<'_> {
    pub fn seed(&self) -> u64 {
        let (Self::Seed { seed, .. } | Self::Plan { seed, .. }) = self;
        *seed
    }

    fn secs(&self) -> u64 {
        let (Self::Seed { secs, .. } | Self::Plan { secs, .. }) = self;
        *secs
    }

    /// Its plan.
    ///
    /// # Errors
    /// The plan can't be read.
    pub fn plan(&self) -> Result<Plan, String> {
        match self {
            Self::Seed { seed, secs, faults } => Ok(Plan::of(*seed, *secs, faults)),
            Self::Plan { path, .. } => read_plan(path),
        }
    }

    /// The command that repeats it.
    pub fn repeat(&self) -> String {
        let what = match self {
            Self::Plan { path, .. } => format!("--plan {}", path.display()),
            Self::Seed { seed, secs, faults } => format!("--seed {seed} --secs {secs} --faults {faults}"),
        };
        format!("cargo sim run {what} --trace")
    }

    fn add_args(&self, command: &mut Command) {
        match self {
            Self::Plan { path, .. } => {
                let path = std::path::absolute(path).expect("this directory has a path");
                command.arg("--plan").arg(path);
            }
            Self::Seed { seed, secs, faults } => {
                command.args(["--seed", &seed.to_string(), "--secs", &secs.to_string()]);
                command.args(["--faults", &faults.to_string()]);
            }
        }
    }
}

/// Runs it in a process of the simulator `exe`. A run that dies, or does not end in time, has a violation with the id `panic`.
pub fn run(exe: &Path, what: RunSpec<'_>, surrounding: Surroundings) -> Report {
    traced(exe, what, surrounding, &Tracing::default())
}

/// Runs a plan in a process of the simulator `exe`; `path` holds the plan meanwhile.
///
/// # Errors
/// The plan can't be written there.
pub fn run_plan(exe: &Path, plan: &Plan, path: &Path) -> Result<Report, String> {
    let why = |e| format!("{}: {e}", path.display());
    std::fs::write(path, serde_json::to_string(plan).expect("a plan can be written")).map_err(why)?;
    let what = RunSpec::Plan {
        path,
        seed: plan.seed,
        secs: plan.secs,
    };
    let report = run(exe, what, Surroundings::Plain);
    std::fs::remove_file(path).map_err(why)?;
    Ok(report)
}

/// Runs it, and records a trace.
pub fn traced(exe: &Path, what: RunSpec<'_>, surrounding: Surroundings, tracing: &Tracing) -> Report {
    recorded(exe, what, surrounding, tracing, None)
}

/// Runs it, and records a trace and the history.
///
/// # Panics
/// If the current directory has no path.
pub fn recorded(
    exe: &Path,
    what: RunSpec<'_>,
    surrounding: Surroundings,
    tracing: &Tracing,
    history: Option<&Path>,
) -> Report {
    let mut command = Command::new(exe);
    command.arg("one");
    what.add_args(&mut command);
    tracing.add_args(&mut command);
    if let Some(path) = history {
        let path = std::path::absolute(path).expect("this directory has a path");
        command.arg("--history").arg(path);
    }
    if let Surroundings::Other = surrounding {
        command
            .env_clear()
            .env("LANG", "tr_TR.UTF-8")
            .env("TZ", "Asia/Kathmandu")
            .env("PADDING", "x".repeat(5000));
        command.current_dir("/");
    }
    limit_memory(&mut command);
    let begun = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("a process for the run");
    let mut out = child.stdout.take().expect("its output");
    let (tells, told_all) = mpsc::channel();
    std::thread::spawn(move || {
        let mut text = String::new();
        drop(out.read_to_string(&mut text));
        drop(tells.send(text));
    });
    let (err, trace) = (child.stderr.take().expect("its errors"), tracing.is_to_stderr());
    let stderr = std::thread::spawn(move || last_lines(err, trace));
    let patience = PATIENCE_MIN.max(PATIENCE_PER_SEC * u32::try_from(what.secs()).unwrap_or(u32::MAX));
    let until = begun + patience;
    // The process has printed its report, so it is about to end.
    let text = told_all.recv_timeout(patience).ok();
    let (status, rss_max_bytes) = wait(&mut child, until);
    let wall_s = begun.elapsed().as_secs_f64();
    let text = text.or_else(|| told_all.recv().ok()).unwrap_or_default();
    let stderr = stderr.join().unwrap_or_default();
    let report = match (serde_json::from_str::<Report>(text.trim()), status) {
        (Ok(report), Some(_)) => with_repeat(within_memory(report, rss_max_bytes), what),
        (_, status) => died(what, status, &stderr),
    };
    Report {
        wall_s,
        rss_max_bytes,
        ..report
    }
}

/// Waits until the process ends, and kills it at the deadline: returns its status if it ended by itself, and its peak memory.
fn wait(child: &mut Child, until: Instant) -> (Option<ExitStatus>, u64) {
    let mut in_time = true;
    loop {
        // Not `try_wait`, which doesn't report the process's resource usage.
        if let Some((status, rss)) = reap(child) {
            return (in_time.then_some(status), rss);
        }
        if in_time && Instant::now() > until {
            in_time = false;
            drop(child.kill());
        }
        std::thread::sleep(Duration::from_micros(200));
    }
}

fn reap(child: &Child) -> Option<(ExitStatus, u64)> {
    let pid = libc::pid_t::try_from(child.id()).expect("a process's id is positive");
    let mut status = 0;
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: both outlive the call; the process is ours, and only this function waits for it.
    let ended = unsafe { libc::wait4(pid, &raw mut status, libc::WNOHANG, usage.as_mut_ptr()) };
    if ended != pid {
        let error = std::io::Error::last_os_error();
        let again = ended == 0 || error.kind() == std::io::ErrorKind::Interrupted;
        assert!(again, "it is our child: {error}");
        return None;
    }
    // SAFETY: zeros are numbers, and the call has filled them in.
    let kib = unsafe { usage.assume_init() }.ru_maxrss;
    Some((ExitStatus::from_raw(status), kib.unsigned_abs() * 1024))
}

/// A run that exceeded its memory limit fails.
fn within_memory(mut report: Report, rss_max_bytes: u64) -> Report {
    let of_requests = if report.requests.is_empty() {
        0
    } else {
        REQUESTS_MAX_BYTES
    };
    if report.violations.is_empty() && rss_max_bytes > MEMORY_MAX_BYTES + of_requests {
        let what = format!("the run took {rss_max_bytes} bytes of memory");
        report.violations.push(Violated {
            id: "panic".into(),
            what,
        });
        report.verdict = Verdict::Violation;
    }
    report
}

/// Adds the command that repeats the run to a panic's violation.
fn with_repeat(mut report: Report, what: RunSpec<'_>) -> Report {
    for v in report.violations.iter_mut().filter(|v| v.id == "panic") {
        v.what = format!("{}; repeat: {}", v.what, what.repeat());
    }
    report
}

/// The last lines of a run's stderr; with `trace` all of it is forwarded, too.
fn last_lines(err: impl Read, trace: bool) -> String {
    let (mut first, mut last) = (Vec::new(), VecDeque::new());
    for line in BufReader::new(err).lines().map_while(Result::ok) {
        if trace {
            eprintln!("{line}");
        }
        // The first panic is the cause; later panics print more.
        let is_cause = |line: &str| CAUSES.iter().any(|cause| line.contains(cause));
        if first.len() < PANIC_LINES && (!first.is_empty() || is_cause(&line)) {
            first.push(line);
            continue;
        }
        if last.len() == STDERR_LINES_MAX {
            last.pop_front();
        }
        last.push_back(line);
    }
    first.extend(last);
    first.join("\n")
}

/// The report of a run that printed none: killed by a signal, out of memory, or out of time.
fn died(what: RunSpec<'_>, status: Option<ExitStatus>, stderr: &str) -> Report {
    let end = match status {
        None => "the run did not end in time and was killed".to_owned(),
        Some(s) => match s.signal() {
            Some(signal) => format!("the process died of signal {signal}"),
            None => format!("the process ended with {s} without a report"),
        },
    };
    let repeat = what.repeat();
    let violated = Violated {
        id: "panic".into(),
        what: format!("{end}; repeat: {repeat}; the end of its stderr:\n{stderr}"),
    };
    Report {
        violations: vec![violated],
        ..Report::empty(what.seed(), Verdict::Violation)
    }
}

fn limit_memory(command: &mut Command) {
    let limit = || {
        let limit = libc::rlimit {
            rlim_cur: MEMORY_ASKED_MAX_BYTES,
            rlim_max: MEMORY_ASKED_MAX_BYTES,
        };
        // SAFETY: the struct outlives the call, which only limits this process.
        if unsafe { libc::setrlimit(libc::RLIMIT_DATA, &raw const limit) } != 0 {
            return Err(std::io::Error::last_os_error());
        }
        Ok(())
    };
    // SAFETY: between fork and exec only setrlimit is called, which may be.
    unsafe { command.pre_exec(limit) };
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn a_run_above_its_memory_limit_fails() {
        let asked = || BTreeMap::from([("Metadata v1".to_owned(), 1)]);
        for (requests, taken, verdict) in [
            (BTreeMap::new(), MEMORY_MAX_BYTES, Verdict::Pass),
            (BTreeMap::new(), MEMORY_MAX_BYTES + 1, Verdict::Violation),
            (asked(), MEMORY_MAX_BYTES + REQUESTS_MAX_BYTES, Verdict::Pass),
            (
                asked(),
                MEMORY_MAX_BYTES + REQUESTS_MAX_BYTES + 1,
                Verdict::Violation,
            ),
        ] {
            let faults = Faults::Default;
            let what = RunSpec::Seed {
                seed: 1,
                secs: 1,
                faults: &faults,
            };
            let passed = Report {
                verdict: Verdict::Pass,
                violations: Vec::new(),
                requests,
                ..died(what, None, "")
            };
            assert_eq!(within_memory(passed, taken).verdict, verdict, "{taken}");
        }
    }
}

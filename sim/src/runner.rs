//! One process a seed, several at a time, each with a watchdog.

use std::collections::{BTreeMap, VecDeque};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitCode, ExitStatus, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use brokkr_sim::plan::Faults;
use brokkr_sim::reached;
use brokkr_sim::report::{Ops, Report, Verdict, Violated};

use crate::{Format, Run};

/// Wall time that a run may take for each virtual second, and at least.
const PATIENCE_PER_SEC: Duration = Duration::from_millis(1000);
const PATIENCE_MIN: Duration = Duration::from_secs(60);
/// What is kept of a run's stderr: a panic's message and its backtrace, or what killed it.
const STDERR_LINES_MAX: usize = 40;
/// And from the first panic on.
const PANIC_LINES: usize = 8;
/// Memory that a run may take.
const MEMORY_MAX_BYTES: u64 = 2 << 30;

/// Another surrounding, in which the same seed must do the same.
#[derive(Clone, Copy)]
enum Surrounding {
    Plain,
    Other,
}

/// Runs seeds and prints what they came to.
pub fn run(run: &Run) -> ExitCode {
    let tally = Mutex::new(Tally::default());
    each(run, |seed| {
        let report = one(seed, run, Surrounding::Plain);
        let mut tally = tally.lock().expect("no panic under this lock");
        tally.take(&report, run);
    });
    let tally = tally.into_inner().expect("no panic under this lock");
    if run.format == Format::Text {
        tally.print();
    }
    let missing = tally.never_reached(run);
    if !missing.is_empty() {
        eprintln!("never reached in {} seeds: {}", tally.seeds, missing.join("; "));
    }
    match tally.worst {
        // Too little happened to say that all holds.
        Some(Verdict::Pass) if !missing.is_empty() => ExitCode::from(Verdict::Inconclusive.exit_code()),
        worst => ExitCode::from(worst.map_or(0, Verdict::exit_code)),
    }
}

/// Runs each seed twice in different surroundings.
pub fn determinism(run: &Run) -> ExitCode {
    let tally = Mutex::new(Tally::default());
    each(run, |seed| {
        let (a, b) = (
            one(seed, run, Surrounding::Plain),
            one(seed, run, Surrounding::Other),
        );
        let same = (&a.hash, a.events, &a.violations, &a.ops) == (&b.hash, b.events, &b.violations, &b.ops);
        let mut report = a;
        if !same {
            report.verdict = Verdict::Nondeterminism;
            let what = format!(
                "{} events, hash {}; then {} events, hash {}",
                report.events, report.hash, b.events, b.hash
            );
            report.violations.push(Violated {
                id: "nondeterminism".into(),
                what,
            });
        }
        tally.lock().expect("no panic under this lock").take(&report, run);
    });
    let tally = tally.into_inner().expect("no panic under this lock");
    if run.format == Format::Text {
        tally.print();
    }
    ExitCode::from(tally.worst.map_or(0, Verdict::exit_code))
}

fn each(run: &Run, f: impl Fn(u64) + Sync) {
    let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
    let range = run.range();
    let next = AtomicU64::new(range.start);
    std::thread::scope(|scope| {
        for _ in 0..run.jobs.unwrap_or(cores).max(1) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= range.end {
                        return;
                    }
                    f(seed);
                }
            });
        }
    });
}

fn one(seed: u64, run: &Run, surrounding: Surrounding) -> Report {
    let exe = std::env::current_exe().expect("a running binary has a path");
    let mut command = Command::new(exe);
    command.arg("one");
    match run.plan.as_ref().map(std::path::absolute) {
        Some(path) => drop(
            command
                .arg("--plan")
                .arg(path.expect("this directory has a path")),
        ),
        None => {
            let (seed, secs) = (seed.to_string(), run.secs.to_string());
            command.args([
                "--seed",
                &seed,
                "--secs",
                &secs,
                "--faults",
                &run.faults.to_string(),
            ]);
        }
    }
    if run.tracing.trace.is_some() {
        command.arg("--trace");
    }
    if let Surrounding::Other = surrounding {
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
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        drop(out.read_to_string(&mut text));
        text
    });
    let (err, trace) = (
        child.stderr.take().expect("its errors"),
        run.tracing.is_to_stderr(),
    );
    let told = std::thread::spawn(move || last_lines(err, trace));
    let patience = PATIENCE_MIN.max(PATIENCE_PER_SEC * u32::try_from(run.secs).unwrap_or(u32::MAX));
    let status = loop {
        if let Some(status) = child.try_wait().expect("it is our child") {
            break Some(status);
        }
        if begun.elapsed() > patience {
            drop(child.kill());
            drop(child.wait());
            break None;
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    let wall_s = begun.elapsed().as_secs_f64();
    let text = reader.join().unwrap_or_default();
    let told = told.join().unwrap_or_default();
    match (serde_json::from_str::<Report>(text.trim()), status) {
        (Ok(report), Some(_)) => with_repeat(Report { wall_s, ..report }, run),
        (_, status) => died(seed, run, wall_s, status, &told),
    }
}

/// A panic's violation says how to see it again.
fn with_repeat(mut report: Report, run: &Run) -> Report {
    for v in report.violations.iter_mut().filter(|v| v.id == "panic") {
        v.what = format!("{}; repeat: {}", v.what, repeat(report.seed, run));
    }
    report
}

/// The last lines of what a run wrote to stderr; with `trace` all of it is passed on as well.
fn last_lines(err: impl Read, trace: bool) -> String {
    let (mut first, mut last) = (Vec::new(), VecDeque::new());
    for line in BufReader::new(err).lines().map_while(Result::ok) {
        if trace {
            eprintln!("{line}");
        }
        // The first panic is the cause; what it pulls down tells more, and longer.
        if first.len() < PANIC_LINES && (!first.is_empty() || line.contains("panicked at")) {
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

/// A run that told nothing: killed by a signal, out of memory, or out of patience.
fn died(seed: u64, run: &Run, wall_s: f64, status: Option<ExitStatus>, told: &str) -> Report {
    let end = match status {
        None => "the run did not end in time and was killed".to_owned(),
        Some(s) => match s.signal() {
            Some(signal) => format!("the process died of signal {signal}"),
            None => format!("the process ended with {s} and told nothing"),
        },
    };
    let what = format!(
        "{end}; repeat: {}; the end of its stderr:\n{told}",
        repeat(seed, run)
    );
    Report {
        seed,
        verdict: Verdict::Violation,
        hash: String::new(),
        events: 0,
        virtual_s: 0.0,
        wall_s,
        faults: BTreeMap::new(),
        reached: BTreeMap::new(),
        ops: Ops::default(),
        violations: vec![Violated {
            id: "panic".into(),
            what,
        }],
    }
}

fn limit_memory(command: &mut Command) {
    use std::os::unix::process::CommandExt;
    let limit = || {
        let limit = libc::rlimit {
            rlim_cur: MEMORY_MAX_BYTES,
            rlim_max: MEMORY_MAX_BYTES,
        };
        // SAFETY: the struct outlives the call, which only limits this process.
        if unsafe { libc::setrlimit(libc::RLIMIT_AS, &raw const limit) } != 0 {
            return Err(std::io::Error::last_os_error());
        }
        Ok(())
    };
    // SAFETY: between fork and exec only setrlimit is called, which may be.
    unsafe { command.pre_exec(limit) };
}

/// What all seeds came to.
#[derive(Default)]
struct Tally {
    seeds: u64,
    verdicts: BTreeMap<Verdict, u64>,
    worst: Option<Verdict>,
    virtual_s: f64,
    wall_s: f64,
    events: u64,
    faults: BTreeMap<String, u64>,
    reached: BTreeMap<String, u64>,
    ops: Ops,
}

impl Tally {
    fn take(&mut self, r: &Report, run: &Run) {
        self.seeds += 1;
        *self.verdicts.entry(r.verdict).or_insert(0) += 1;
        // A violation is worse than nondeterminism, and both than "can't say".
        let rank = |v: Verdict| {
            [
                Verdict::Pass,
                Verdict::Inconclusive,
                Verdict::Nondeterminism,
                Verdict::Violation,
            ]
            .iter()
            .position(|x| *x == v)
        };
        if self.worst.is_none_or(|w| rank(r.verdict) > rank(w)) {
            self.worst = Some(r.verdict);
        }
        self.virtual_s += r.virtual_s;
        self.wall_s += r.wall_s;
        self.events += r.events;
        for (name, n) in &r.faults {
            *self.faults.entry(name.clone()).or_insert(0) += n;
        }
        for (name, n) in &r.reached {
            *self.reached.entry(name.clone()).or_insert(0) += n;
        }
        self.ops.ok += r.ops.ok;
        self.ops.fail += r.ops.fail;
        self.ops.info += r.ops.info;
        match run.format {
            Format::Json => println!("{}", serde_json::to_string(r).expect("a report can be written")),
            Format::Text => print_one(r, run),
        }
    }

    /// What a campaign of so many seeds should have come by, and did not.
    fn never_reached(&self, run: &Run) -> Vec<&'static str> {
        if self.seeds < reached::SEEDS_ENOUGH || run.faults != Faults::Default || run.secs < crate::SECS {
            return Vec::new();
        }
        reached::NAMES
            .iter()
            .copied()
            .filter(|n| !reached::HARDLY_EVER.contains(n) && !self.reached.contains_key(*n))
            .collect()
    }

    fn print(&self) {
        let verdicts: Vec<String> = self
            .verdicts
            .iter()
            .map(|(v, n)| format!("{n} {}", format!("{v:?}").to_lowercase()))
            .collect();
        println!("\n{} seeds: {}", self.seeds, verdicts.join(", "));
        println!(
            "  {:.0} virtual seconds in {:.1} process seconds ({:.0} to 1), {} events",
            self.virtual_s,
            self.wall_s,
            self.virtual_s / self.wall_s.max(0.001),
            self.events
        );
        println!(
            "  operations: {} ok, {} failed, {} unknown",
            self.ops.ok, self.ops.fail, self.ops.info
        );
        println!("  faults:     {}", counts(&self.faults));
        println!("  reached:    {}", counts(&self.reached));
    }
}

fn counts(all: &BTreeMap<String, u64>) -> String {
    if all.is_empty() {
        return "none".into();
    }
    all.iter()
        .map(|(name, n)| format!("{name} {n}"))
        .collect::<Vec<_>>()
        .join(", ")
}

fn print_one(r: &Report, run: &Run) {
    let faults: u64 = r.faults.values().sum();
    println!(
        "seed {:<6} {:<9} hash {} {:>8} events, {:>4.0} s in {:.2} s, {} faults, {} ops",
        r.seed,
        format!("{:?}", r.verdict).to_lowercase(),
        r.hash,
        r.events,
        r.virtual_s,
        r.wall_s,
        faults,
        r.ops.ok + r.ops.fail + r.ops.info
    );
    for v in &r.violations {
        println!("    {}: {}", v.id, v.what);
    }
    if r.verdict != Verdict::Pass {
        println!("    repeat: {}", repeat(r.seed, run));
    }
}

/// The command that repeats a run.
fn repeat(seed: u64, run: &Run) -> String {
    let what = match &run.plan {
        Some(path) => format!("--plan {}", path.display()),
        None => format!("--seed {seed} --secs {} --faults {}", run.secs, run.faults),
    };
    format!("cargo sim run {what} --trace")
}

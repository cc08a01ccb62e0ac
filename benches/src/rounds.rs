//! Rounds: each round runs the work once on every target, one after the other, so that a machine that slows down does so for
//! all of them.
//!
//! A run creates its own topic and deletes it at the end. It begins when all data of the previous run is written back or
//! deleted. A work that reads keeps its filled topic over all rounds.

use crate::client::Client;
use crate::clock::{Clock, sleep_until};
use crate::disk;
use crate::error::BenchError;
use crate::fetch::{self, FetchSpec};
use crate::frames::Shape;
use crate::page_cache;
use crate::proc::{self, Usage};
use crate::produce::{Prepared, ProduceSpec, Tally};
use crate::report::{Figure, Subject, Table, UNFLUSHED};
use crate::verify;
use crate::works::{Kind, Work};
use hdrhistogram::Histogram;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// A broker to be measured.
#[derive(Clone, Debug)]
pub struct Target {
    /// Its name in the report.
    pub name: String,
    /// Its address.
    pub addr: SocketAddr,
    /// Its process id, if it runs on this machine.
    pub pid: Option<i32>,
    /// Its log directory, if it is on this machine.
    pub data_dir: Option<PathBuf>,
}

/// `flush.messages` of the topics.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Flush {
    /// Kafka's default: never; the kernel writes when it chooses to.
    Kafka,
    /// After this many records.
    Messages(u64),
}

impl Flush {
    fn config(self) -> String {
        match self {
            Self::Kafka => i64::MAX.to_string(),
            Self::Messages(n) => n.to_string(),
        }
    }

    fn label(self) -> String {
        match self {
            Self::Kafka => UNFLUSHED.to_owned(),
            Self::Messages(n) => n.to_string(),
        }
    }
}

/// How to measure, the same for all works.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The targets, in the order in which they run.
    pub targets: Vec<Target>,
    /// The target that the others are compared with.
    pub reference: Option<String>,
    /// Flush settings of the topics; each is a run of its own.
    pub flushes: Vec<Flush>,
    /// Number of rounds.
    pub rounds: u32,
    /// The measured part of a run.
    pub window: Duration,
    /// The unmeasured part at the beginning of a run.
    pub lead_in: Duration,
    /// The length of an unmeasured run on each target before the first round.
    pub warm_up: Duration,
    /// Time for a broker to clean up after a run.
    pub settle: Duration,
    /// Whether producers are idempotent.
    pub idempotent: bool,
    /// Where the disk is probed before each flushed run.
    pub probe_dir: Option<PathBuf>,
}

/// How often a window's counters are read.
const TICK: Duration = Duration::from_millis(20);
/// The load that fills a topic.
const FILL: ProduceSpec = ProduceSpec {
    partitions: 6,
    connections: 3,
    in_flight: 5,
    shape: Shape {
        records: 64,
        value_bytes: 1_000,
    },
    rate: None,
};

/// Runs a work in rounds. Reports progress through `say`.
pub fn run(work: &Work, plan: &Plan, say: &dyn Fn(&str)) -> Table {
    // Reads do not flush: one variant is enough.
    let flushes = match work.kind {
        Kind::Fetch { .. } => &plan.flushes[..plan.flushes.len().min(1)],
        _ => &plan.flushes[..],
    };
    let mut runners: Vec<Runner<'_>> = Vec::new();
    for flush in flushes {
        runners.extend(
            plan.targets
                .iter()
                .map(|target| Runner::new(work, plan, target, *flush)),
        );
    }
    if plan.warm_up > Duration::ZERO {
        for runner in &mut runners[..plan.targets.len()] {
            say(&format!("{}: {} warms up", work.name, runner.target.name));
            runner.run_once(plan.warm_up, false, say);
        }
    }
    for round in 1..=plan.rounds {
        for runner in &mut runners {
            let result = runner.run_once(plan.window, true, say);
            let flush = runner.flush.label();
            say(&format!(
                "{} {round}/{}: {} flush={flush}: {result}",
                work.name, plan.rounds, runner.target.name
            ));
        }
    }
    for runner in &mut runners {
        runner.delete_filled(say);
    }
    Table {
        work: work.name.to_owned(),
        about: work.about.to_owned(),
        subjects: runners.into_iter().map(|runner| runner.subject).collect(),
        reference: plan.reference.clone(),
    }
}

/// Runs one work on a target in one configuration.
struct Runner<'a> {
    work: &'a Work,
    plan: &'a Plan,
    target: &'a Target,
    flush: Flush,
    subject: Subject,
    /// The topic to read, and the end offsets of its partitions.
    filled: Option<(String, Vec<i64>)>,
    topics: u32,
}

impl<'a> Runner<'a> {
    fn new(work: &'a Work, plan: &'a Plan, target: &'a Target, flush: Flush) -> Self {
        Self {
            work,
            plan,
            target,
            flush,
            subject: Subject::new(&target.name, Some(flush.label())),
            filled: None,
            topics: 0,
        }
    }

    /// Runs the work once; adds the figures to the subject if `counts`. Returns a short result for the log.
    fn run_once(&mut self, window: Duration, counts: bool, say: &dyn Fn(&str)) -> String {
        if self.subject.failure.is_some() {
            return "failed before".to_owned();
        }
        match self.run_measured(window, counts, say) {
            Ok(figures) => {
                let said: Vec<String> = figures
                    .iter()
                    .take(4)
                    .map(|f| format!("{} {:.2}", f.name, f.value))
                    .collect();
                if counts {
                    self.subject.rounds.push(figures);
                }
                said.join(", ")
            }
            Err(e) => {
                self.subject.failure = Some(e.to_string());
                format!("FAILED: {e}")
            }
        }
    }

    fn run_measured(
        &mut self,
        window: Duration,
        counts: bool,
        say: &dyn Fn(&str),
    ) -> Result<Vec<Figure>, BenchError> {
        let probe = self
            .plan
            .probe_dir
            .as_ref()
            .filter(|_| counts && self.flush != Flush::Kafka);
        if let Some(dir) = probe {
            self.subject.disk.push(disk::probe(dir)?);
        }
        match self.work.kind {
            Kind::Produce(spec) => self.produce(spec, window, None, say),
            Kind::Long {
                produce,
                secs,
                bytes_min,
                bytes_max,
            } => {
                let (window, bytes) = if counts {
                    (Duration::from_secs_f64(secs), Some((bytes_min, bytes_max)))
                } else {
                    (window, None)
                };
                self.produce(produce, window, bytes, say)
            }
            Kind::Fetch { fetch, fill_bytes } => self.fetch(fetch, fill_bytes, window),
            Kind::ColdRead {
                fetch,
                fill_bytes,
                produce,
            } => self.cold_read(fetch, fill_bytes, produce, window, say),
        }
    }

    fn create_topic(&mut self, partitions: i32) -> Result<String, BenchError> {
        self.topics += 1;
        let name = format!(
            "bench-{}-{}-{}-{}",
            self.work.name,
            self.flush.label(),
            std::process::id(),
            self.topics
        );
        let flush = self.flush.config();
        let configs = [
            ("flush.messages", flush.as_str()),
            ("retention.ms", "-1"),
            ("retention.bytes", "-1"),
        ];
        Client::connect(self.target.addr)?.create_topic(&name, partitions, &configs)?;
        Ok(name)
    }

    /// Deletes a topic and waits until none of its IO is in progress.
    fn delete_topic(&self, name: &str, say: &dyn Fn(&str)) {
        let deleted = Client::connect(self.target.addr).and_then(|mut client| client.delete_topic(name));
        if let Err(e) = deleted {
            say(&format!("{}: deleting {name}: {e}", self.target.name));
        }
        std::thread::sleep(self.plan.settle);
        page_cache::write_back();
    }

    fn delete_filled(&mut self, say: &dyn Fn(&str)) {
        if let Some((topic, _)) = self.filled.take() {
            self.delete_topic(&topic, say);
        }
    }

    fn produce(
        &mut self,
        spec: ProduceSpec,
        window: Duration,
        bytes: Option<(u64, u64)>,
        say: &dyn Fn(&str),
    ) -> Result<Vec<Figure>, BenchError> {
        let topic = self.create_topic(spec.partitions)?;
        let measured = self.produced(&topic, spec, window, bytes);
        self.delete_topic(&topic, say);
        measured
    }

    fn produced(
        &self,
        topic: &str,
        spec: ProduceSpec,
        window: Duration,
        bytes: Option<(u64, u64)>,
    ) -> Result<Vec<Figure>, BenchError> {
        let prepared = self.prepare(topic, spec)?;
        let clock = Clock::new(self.plan.lead_in, window);
        let (watched, tally) = load(prepared, spec, &clock, self.target.pid, bytes)?;
        verify::produced(self.target.addr, topic, tally.offsets, spec.shape.records)?;
        let mut figures = Vec::new();
        match spec.rate {
            Some(rate) => {
                latency(&mut figures, &tally.latency);
                // Except for up to one request in flight at either end of the window.
                let held = 100.0 * watched.answers as f64 / (rate * watched.secs);
                push(&mut figures, "rate held %", held.min(100.0));
                push(&mut figures, "never sent", tally.unsent as f64);
                watched.resources(&mut figures);
            }
            None => {
                push(&mut figures, "MB/s", watched.bytes as f64 / 1e6 / watched.secs);
                let records = watched.answers as f64 * f64::from(spec.shape.records);
                push(&mut figures, "records/s", records / watched.secs);
                watched.resources(&mut figures);
                latency(&mut figures, &tally.latency);
            }
        }
        if bytes.is_some() {
            push(
                &mut figures,
                "slowest second MB/s",
                watched.slowest_second_bytes / 1e6,
            );
            push(&mut figures, "GB", watched.bytes as f64 / 1e9);
            push(&mut figures, "s", watched.secs);
        }
        Ok(figures)
    }

    fn prepare(&self, topic: &str, spec: ProduceSpec) -> Result<Prepared, BenchError> {
        let mut producers = Vec::new();
        if self.plan.idempotent {
            let mut client = Client::connect(self.target.addr)?;
            for _ in 0..spec.connections {
                producers.push(client.producer_id()?);
            }
        }
        Prepared::connect(self.target.addr, topic, spec, &producers)
    }

    /// The topic to read, filled the first time.
    fn filled(&mut self, fetch: FetchSpec, bytes: u64) -> Result<(String, Vec<i64>), BenchError> {
        if let Some(filled) = &self.filled {
            return Ok(filled.clone());
        }
        let topic = self.create_topic(fetch.partitions)?;
        // Stored before it is filled, so that it is deleted even if filling fails.
        self.filled = Some((topic.clone(), Vec::new()));
        let spec = ProduceSpec {
            partitions: fetch.partitions,
            shape: fetch.batch,
            ..FILL
        };
        let prepared = self.prepare(&topic, spec)?;
        let clock = Clock::new(Duration::ZERO, Duration::ZERO);
        let (_, tally) = load(prepared, spec, &clock, None, Some((bytes, u64::MAX)))?;
        let ends = verify::produced(self.target.addr, &topic, tally.offsets, spec.shape.records)?;
        page_cache::write_back();
        let filled = (topic, ends);
        self.filled = Some(filled.clone());
        Ok(filled)
    }

    fn fetch(&mut self, spec: FetchSpec, bytes: u64, window: Duration) -> Result<Vec<Figure>, BenchError> {
        let (topic, ends) = self.filled(spec, bytes)?;
        let (addr, pid) = (self.target.addr, self.target.pid);
        let clock = Clock::new(self.plan.lead_in, window);
        let (watched, times) = std::thread::scope(|scope| {
            let readers = scope.spawn(|| fetch::run(addr, &topic, &ends, spec, &clock, &|| Ok(())));
            let watched = watch(&clock, pid, None);
            clock.stop();
            let times = readers.join().expect("the thread panicked")?;
            Ok::<_, BenchError>((watched?, times))
        })?;
        let mut figures = Vec::new();
        push(&mut figures, "MB/s", watched.bytes as f64 / 1e6 / watched.secs);
        watched.resources(&mut figures);
        latency(&mut figures, &times);
        Ok(figures)
    }

    fn cold_read(
        &mut self,
        spec: FetchSpec,
        bytes: u64,
        produce: ProduceSpec,
        window: Duration,
        say: &dyn Fn(&str),
    ) -> Result<Vec<Figure>, BenchError> {
        let Some(dir) = self.target.data_dir.clone() else {
            let problem = format!("cold reads need --data-dir {}=DIR", self.target.name);
            return Err(BenchError::Usage(problem));
        };
        let (cold, ends) = self.filled(spec, bytes)?;
        page_cache::evict(&dir, &cold)?;
        let topic = self.create_topic(produce.partitions)?;
        let prepared = self.prepare(&topic, produce)?;
        let (addr, pid) = (self.target.addr, self.target.pid);
        // The readers have their own counters, so that MB/s excludes the writers; both clocks begin together.
        let (clock, reading) = (
            Clock::new(self.plan.lead_in, window),
            Clock::new(self.plan.lead_in, window),
        );
        let again = || page_cache::evict(&dir, &cold);
        let result = std::thread::scope(|scope| {
            let readers = scope.spawn(|| fetch::run(addr, &cold, &ends, spec, &reading, &again));
            let watcher = scope.spawn(|| watch(&reading, pid, None));
            let written = load(prepared, produce, &clock, None, None);
            reading.stop();
            let watched = watcher.join().expect("the thread panicked");
            readers.join().expect("the thread panicked")?;
            Ok::<_, BenchError>((watched?, written?.1))
        });
        self.delete_topic(&topic, say);
        let (watched, tally) = result?;
        let mut figures = Vec::new();
        latency(&mut figures, &tally.latency);
        push(
            &mut figures,
            "cold MB/s",
            watched.bytes as f64 / 1e6 / watched.secs,
        );
        push(&mut figures, "never sent", tally.unsent as f64);
        watched.resources(&mut figures);
        Ok(figures)
    }
}

/// Measurements of one window.
struct Watched {
    secs: f64,
    answers: u64,
    bytes: u64,
    slowest_second_bytes: f64,
    used: Option<(f64, Usage)>,
    own_cpu_s: f64,
}

impl Watched {
    fn resources(&self, figures: &mut Vec<Figure>) {
        let gb = self.bytes as f64 / 1e9;
        if let Some((cpu_s, usage)) = self.used {
            push(figures, "CPU s/GB", cpu_s / gb);
            push(figures, "CPUs", cpu_s / self.secs);
            push(figures, "RSS MB", usage.resident_bytes as f64 / 1e6);
            push(figures, "RSS peak MB", usage.resident_peak_bytes as f64 / 1e6);
        }
        push(figures, "CPUs of the load", self.own_cpu_s / self.secs);
    }
}

fn push(figures: &mut Vec<Figure>, name: &'static str, value: f64) {
    figures.push(Figure { name, value });
}

fn latency(figures: &mut Vec<Figure>, times: &Histogram<u64>) {
    let quantiles = [
        ("p50 ms", 0.5),
        ("p99 ms", 0.99),
        ("p99.9 ms", 0.999),
        ("max ms", 1.0),
    ];
    for (name, quantile) in quantiles {
        push(figures, name, times.value_at_quantile(quantile) as f64 / 1e6);
    }
}

/// Runs a load through its window. With `bytes` it also lasts for at least the first and at most the second number of bytes.
fn load(
    prepared: Prepared,
    spec: ProduceSpec,
    clock: &Clock,
    pid: Option<i32>,
    bytes: Option<(u64, u64)>,
) -> Result<(Watched, Tally), BenchError> {
    std::thread::scope(|scope| {
        let load = prepared.start(scope, clock).inspect_err(|_| clock.stop())?;
        let watched = watch(clock, pid, bytes);
        // An open load ends by itself once it has sent all due requests.
        if spec.rate.is_none() || watched.is_err() {
            clock.stop();
        }
        let tally = load.join();
        clock.stop();
        // The load's error comes first: the watch only sees that the load ended.
        let tally = tally?;
        Ok((watched?, tally))
    })
}

/// Observes a window to its end, or until the load fails.
fn watch(clock: &Clock, pid: Option<i32>, bytes: Option<(u64, u64)>) -> Result<Watched, BenchError> {
    let usage = || pid.map(proc::usage).transpose();
    sleep_until(clock.measure_from);
    let begin = Instant::now();
    let (answers, first_bytes) = counts(clock);
    let (used, own) = (usage()?, proc::own_cpu_s());
    let (mut second, mut second_bytes, mut slowest) = (begin, first_bytes, f64::INFINITY);
    loop {
        let now = Instant::now();
        let total = counts(clock).1;
        let (least, most) = bytes.unwrap_or((0, u64::MAX));
        let written = total - first_bytes;
        if (now >= clock.until && written >= least) || written >= most || clock.stopped() {
            break;
        }
        if now - second >= Duration::from_secs(1) {
            slowest = slowest.min((total - second_bytes) as f64 / (now - second).as_secs_f64());
            (second, second_bytes) = (now, total);
        }
        let left = clock.until.saturating_duration_since(now);
        std::thread::sleep(if left.is_zero() { TICK } else { left.min(TICK) });
    }
    let (end_answers, end_bytes) = counts(clock);
    let own_cpu_s = proc::own_cpu_s() - own;
    let used = used
        .zip(usage()?)
        .map(|(before, after)| (after.cpu_s - before.cpu_s, after));
    Ok(Watched {
        secs: begin.elapsed().as_secs_f64(),
        answers: end_answers - answers,
        bytes: end_bytes - first_bytes,
        slowest_second_bytes: slowest,
        used,
        own_cpu_s,
    })
}

fn counts(clock: &Clock) -> (u64, u64) {
    (
        clock.answered.load(Ordering::Relaxed),
        clock.bytes.load(Ordering::Relaxed),
    )
}

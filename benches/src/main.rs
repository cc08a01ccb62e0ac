//! Load generator for brokers that speak Kafka's protocol.
//!
//! An invocation alternates between several targets, because on a shared machine only ratios within one invocation mean
//! something. Requests are encoded beforehand ([`frames`]), every response is checked, and after each measurement all records
//! are read back and counted ([`verify`]): a broker that loses or duplicates records gets no figures. `benches/run` also starts
//! the brokers.
//!
//! - [`works`]: the works by name;
//! - [`rounds`]: measures the targets in rounds; [`produce`], [`fetch`]: the load; [`clock`]: its time;
//! - [`hostile`]: connections that misbehave;
//! - [`start`]: start and stop of a broker; [`topics`]: many topics; [`disk`]: the probe before flushed runs;
//! - [`report`]: tables and JSON.
#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a benchmark measures real processes by the real clock over real sockets"
)]

mod client;
mod clock;
mod disk;
mod error;
mod fetch;
mod frames;
mod hostile;
mod page_cache;
mod proc;
mod produce;
mod report;
mod rounds;
mod start;
mod topics;
mod verify;
mod works;

use clap::{Args, Parser, Subcommand, ValueEnum};
use error::BenchError;
use report::Table;
use rounds::{Flush, Plan, Target};
use start::Startable;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use works::{Overrides, WORKS, Work};

/// Measures brokers that speak Kafka's protocol, several of them in alternation.
#[derive(Parser)]
#[command(version, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs works on running brokers, round by round.
    Load(Box<Load>),
    /// Starts and stops brokers, round by round.
    Start(Start),
    /// Creates many topics on each broker, whose directory must be new; restarts it cleanly and after kill -9.
    Topics(Topics),
    /// Opens hostile connections to a running broker, with one well-behaved client; fails if memory or latency exceeds its
    /// limit.
    Hostile(Hostile),
    /// Measures the disk's current speed.
    Disk {
        /// A directory on that disk.
        dir: PathBuf,
    },
    /// Lists the works.
    Works,
}

#[derive(Clone, Copy, ValueEnum)]
enum Format {
    Text,
    /// One object for each work, one per line.
    Json,
}

#[derive(Args)]
struct Output {
    /// The target that the others are compared with.
    #[arg(long, value_name = "NAME")]
    reference: Option<String>,
    /// Number of rounds; each round runs every target once.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

#[derive(Args)]
struct Load {
    /// A broker; give it several times for a comparison.
    #[arg(long = "target", value_name = "NAME=HOST:PORT", required = true, value_parser = named)]
    targets: Vec<(String, String)>,
    /// A target's process; its CPU time and memory are reported.
    #[arg(long = "pid", value_name = "NAME=PID", value_parser = named)]
    pids: Vec<(String, String)>,
    /// A target's log directory, for cold reads.
    #[arg(long = "data-dir", value_name = "NAME=DIR", value_parser = named)]
    data_dirs: Vec<(String, String)>,
    /// The work, see `works`; a family's name (`latency`) selects all its works.
    #[arg(long = "work", value_name = "WORK", default_value = "produce-64k")]
    works: Vec<String>,
    /// `flush.messages` of the topics, `kafka` for Kafka's default (never); each value is a run of its own.
    #[arg(long = "flush", value_name = "N|kafka", default_value = "kafka", value_parser = flush)]
    flushes: Vec<Flush>,
    /// Seconds of a run that count.
    #[arg(long, default_value_t = 5.0)]
    secs: f64,
    /// Seconds of load before the ones that count.
    #[arg(long, default_value_t = 1.0)]
    lead_in_secs: f64,
    /// Seconds of an unmeasured run on each target before a work's first round.
    #[arg(long, default_value_t = 5.0)]
    warm_up_secs: f64,
    /// Seconds for cleaning up after a run.
    #[arg(long, default_value_t = 2.0)]
    settle_secs: f64,
    /// Connections, instead of the work's own number.
    #[arg(long)]
    connections: Option<usize>,
    /// Requests in flight on each connection, instead of the work's own number.
    #[arg(long)]
    in_flight: Option<usize>,
    /// Requests per second of works that have a rate.
    #[arg(long)]
    rate: Option<f64>,
    /// MiB to fill a topic with before it is read, and the minimum that `long` writes.
    #[arg(long)]
    mib: Option<u64>,
    /// Produce idempotently: at most 5 requests in flight for each partition and connection.
    #[arg(long)]
    idempotent: bool,
    /// Probe this directory's disk before each flushed run.
    #[arg(long, value_name = "DIR")]
    disk: Option<PathBuf>,
    #[command(flatten)]
    output: Output,
}

#[derive(Args)]
struct Start {
    /// A shell command that becomes a broker, which prints a line that begins with `ready`.
    #[arg(long = "broker", value_name = "NAME=COMMAND", required = true, value_parser = named)]
    brokers: Vec<(String, String)>,
    /// Seconds to wait before reading memory.
    #[arg(long, default_value_t = 2.0)]
    idle_secs: f64,
    #[command(flatten)]
    output: Output,
}

#[derive(Args)]
struct Topics {
    /// A shell command that becomes a broker, which prints a line that begins with `ready HOST:PORT`.
    #[arg(long = "broker", value_name = "NAME=COMMAND", required = true, value_parser = named)]
    brokers: Vec<(String, String)>,
    #[arg(long, default_value_t = 10_000)]
    topics: u32,
    /// Topics that get a record, all by default: a log with records takes a descriptor of the broker.
    #[arg(long)]
    written: Option<u32>,
    /// Partitions of each topic.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(i32).range(1..))]
    partitions: i32,
    /// Topics in one request.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    batch: u32,
    /// Seconds over which idle CPU time is measured.
    #[arg(long, default_value_t = 10.0)]
    idle_secs: f64,
    /// The broker that the others are compared with.
    #[arg(long, value_name = "NAME")]
    reference: Option<String>,
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

impl Topics {
    /// Returns whether everything was measured and correct.
    fn run(&self) -> Result<bool, BenchError> {
        let output = Output {
            reference: self.reference.clone(),
            rounds: 1,
            format: self.format,
        };
        let brokers = startables(&self.brokers);
        let names: Vec<&str> = brokers.iter().map(|b| b.name.as_str()).collect();
        let plan = topics::TopicsPlan {
            topics: self.topics,
            written: self.written.unwrap_or(self.topics).min(self.topics),
            partitions: self.partitions,
            batch: self.batch,
            idle: seconds(self.idle_secs)?,
        };
        let table = topics::run(&brokers, output.reference(&names)?, plan, &say);
        output.print(&table);
        Ok(table.is_complete())
    }
}

fn startables(brokers: &[(String, String)]) -> Vec<Startable> {
    let startable = |(name, command): &(String, String)| Startable {
        name: name.clone(),
        command: command.clone(),
    };
    brokers.iter().map(startable).collect()
}

fn seconds(secs: f64) -> Result<Duration, BenchError> {
    Duration::try_from_secs_f64(secs)
        .map_err(|_| BenchError::Usage(format!("{secs} is not a valid number of seconds")))
}

#[derive(Args)]
struct Hostile {
    /// The broker. Its memory is measured, so start it with a small `queued.max.request.bytes`.
    #[arg(long, value_name = "HOST:PORT")]
    target: SocketAddr,
    /// Its process.
    #[arg(long)]
    pid: i32,
    #[arg(long, default_value_t = 200)]
    connections: usize,
    #[arg(long, default_value_t = 60.0)]
    secs: f64,
    /// The client's requests per second.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    rate: u32,
    /// Limit of memory above idle, in MB.
    #[arg(long, default_value_t = 200.0)]
    mb_max: f64,
    /// Limit of the client's 99th percentile, in milliseconds.
    #[arg(long, default_value_t = 100.0)]
    p99_ms_max: f64,
}

impl Hostile {
    fn run(self) -> Result<bool, BenchError> {
        let outcome = hostile::run(&hostile::HostilePlan {
            addr: self.target,
            pid: self.pid,
            connections: self.connections,
            time: Duration::from_secs_f64(self.secs),
            rate: self.rate,
        })?;
        for (name, times) in &outcome.done {
            println!("{name:<34}{times:>12}");
        }
        let mb = outcome.peak_bytes.saturating_sub(outcome.idle_bytes) as f64 / 1e6;
        let of = |latency: &hdrhistogram::Histogram<u64>, q| latency.value_at_quantile(q) as f64 / 1e3;
        let ms = |q| of(&outcome.latency, q);
        println!(
            "memory above idle (MB): {mb:.0}, of {:.0} idle",
            outcome.idle_bytes as f64 / 1e6
        );
        println!(
            "the client's {} requests (ms): median {:.1}, p99 {:.1}, p99.9 {:.1}, max {:.1}",
            outcome.latency.len(),
            ms(0.5),
            ms(0.99),
            ms(0.999),
            ms(1.0)
        );
        println!(
            "another client's {} produces of 1 MiB, on a new connection each (ms): median {:.0}, max {:.0}; refused: {}",
            outcome.large.len(),
            of(&outcome.large, 0.5),
            of(&outcome.large, 1.0),
            outcome.large_refused
        );
        Ok(mb < self.mb_max && ms(0.99) < self.p99_ms_max)
    }
}

fn named(arg: &str) -> Result<(String, String), String> {
    match arg.split_once('=') {
        Some((name, value)) if !name.is_empty() && !value.is_empty() => {
            Ok((name.to_owned(), value.to_owned()))
        }
        _ => Err("NAME=… was expected".to_owned()),
    }
}

fn flush(arg: &str) -> Result<Flush, String> {
    match arg {
        "kafka" => Ok(Flush::Kafka),
        n => n
            .parse()
            .map(Flush::Messages)
            .map_err(|_| "a number or `kafka` was expected".to_owned()),
    }
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Load(load) => load.run(),
        Command::Start(start) => start.run(),
        Command::Topics(topics) => topics.run(),
        Command::Hostile(hostile) => hostile.run(),
        Command::Disk { dir } => disk::probe(&dir).map(|speed| {
            println!("{speed}");
            true
        }),
        Command::Works => {
            WORKS
                .iter()
                .for_each(|work| println!("{:<26}{}", work.name, work.about));
            Ok(true)
        }
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(e) => {
            eprintln!("brokkr-bench: {e}");
            ExitCode::from(e.exit_code())
        }
    }
}

impl Output {
    /// The reference's name, which must be one of `names`.
    fn reference(&self, names: &[&str]) -> Result<Option<String>, BenchError> {
        match &self.reference {
            Some(name) if !names.contains(&name.as_str()) => {
                Err(BenchError::Usage(format!("--reference {name} is not a target")))
            }
            reference => Ok(reference.clone()),
        }
    }

    fn print(&self, table: &Table) {
        match self.format {
            Format::Text => println!("{}", table.to_text()),
            Format::Json => println!("{}", table.to_json()),
        }
    }
}

fn say(line: &str) {
    eprintln!("{line}");
}

impl Load {
    /// Returns whether everything was measured and correct.
    fn run(&self) -> Result<bool, BenchError> {
        allow_many_files()?;
        let plan = self.plan()?;
        let mut complete = true;
        for work in self.works()? {
            let table = rounds::run(&work, &plan, &say);
            self.output.print(&table);
            complete &= table.is_complete();
        }
        Ok(complete)
    }

    fn works(&self) -> Result<Vec<Work>, BenchError> {
        let over = Overrides {
            connections: self.connections,
            in_flight: self.in_flight,
            rate: self.rate,
            bytes: self.mib.map(|mib| mib << 20),
        };
        let mut works = Vec::new();
        for name in &self.works {
            let Some(found) = works::named(name) else {
                return Err(BenchError::Usage(format!(
                    "unknown work {name}; `works` lists all works"
                )));
            };
            works.extend(found.into_iter().map(|work| work.with(over)));
        }
        let zero = [self.connections, self.in_flight].contains(&Some(0));
        if zero || self.rate.is_some_and(|rate| !rate.is_finite() || rate <= 0.0) || self.secs <= 0.0 {
            return Err(BenchError::Usage(
                "connections, requests in flight, rate and seconds must be positive".into(),
            ));
        }
        Ok(works)
    }

    fn plan(&self) -> Result<Plan, BenchError> {
        let names: Vec<&str> = self.targets.iter().map(|(name, _)| name.as_str()).collect();
        if let Some((name, _)) = self
            .pids
            .iter()
            .chain(&self.data_dirs)
            .find(|(name, _)| !names.contains(&name.as_str()))
        {
            return Err(BenchError::Usage(format!("{name} is not a target")));
        }
        Ok(Plan {
            targets: self
                .targets
                .iter()
                .map(|target| self.target(target))
                .collect::<Result<_, _>>()?,
            reference: self.output.reference(&names)?,
            flushes: self.flushes.clone(),
            rounds: self.output.rounds,
            window: seconds(self.secs)?,
            lead_in: seconds(self.lead_in_secs)?,
            warm_up: seconds(self.warm_up_secs)?,
            settle: seconds(self.settle_secs)?,
            idempotent: self.idempotent,
            probe_dir: self.disk.clone(),
        })
    }

    fn target(&self, (name, addr): &(String, String)) -> Result<Target, BenchError> {
        let value = |of: &[(String, String)]| of.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone());
        let pid = value(&self.pids).map(|pid| {
            pid.parse()
                .map_err(|_| BenchError::Usage(format!("{pid} is not a process id")))
        });
        Ok(Target {
            name: name.clone(),
            addr: resolve(addr)?,
            pid: pid.transpose()?,
            data_dir: value(&self.data_dirs).map(PathBuf::from),
        })
    }
}

fn resolve(addr: &str) -> Result<SocketAddr, BenchError> {
    let mut found = addr
        .to_socket_addrs()
        .map_err(BenchError::io(format!("looking up {addr}")))?;
    found
        .next()
        .ok_or_else(|| BenchError::Usage(format!("{addr} has no address")))
}

impl Start {
    /// Returns whether every broker started and stopped.
    fn run(&self) -> Result<bool, BenchError> {
        let brokers = startables(&self.brokers);
        let names: Vec<&str> = brokers.iter().map(|b| b.name.as_str()).collect();
        let reference = self.output.reference(&names)?;
        let idle = seconds(self.idle_secs)?;
        let table = start::run(&brokers, reference, self.output.rounds, idle, &say);
        self.output.print(&table);
        Ok(table.is_complete())
    }
}

/// Raises the limit of open files: each of a thousand connections has two descriptors.
fn allow_many_files() -> Result<(), BenchError> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: both calls get a structure that outlives them.
    let done = unsafe {
        libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) == 0 && {
            limit.rlim_cur = limit.rlim_max;
            libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) == 0
        }
    };
    if done {
        Ok(())
    } else {
        Err(BenchError::io("RLIMIT_NOFILE")(std::io::Error::last_os_error()))
    }
}

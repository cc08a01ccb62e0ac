//! Runs a workload against a real broker and records its history: `cargo run -p brokkr-workloads --example play -- --help`.
//!
//! The broker may be killed and started again meanwhile: clients reconnect, and sends whose outcome is unknown are recorded so.
//! When this process is killed, the history has everything up to then.
#![expect(
    clippy::disallowed_methods,
    reason = "an example for real brokers: it opens files, and a thread reads the standard input"
)]

use std::fs::File;
use std::io::{BufRead, Write, stderr, stdin, stdout};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use brokkr_env::Env;
use brokkr_env::tokio::TokioEnv;
use brokkr_workloads::{
    AdminSpec, ClientSpec, ConsumerSpec, OperatorSpec, ProducerSpec, Recorder, Stop, TopicSpec, Workload,
    run, run_consumer,
};
use clap::{Parser, ValueEnum};
use serde_json::Value;

/// Runs producers, consumers and an admin against a broker, and records what they did as JSON lines that `brokkr-jepsen check`
/// judges. The topics are created. At the end a last consumer reads every log from its start to its end.
#[derive(Parser)]
#[command(
    name = "play",
    after_help = "\
Exit codes: 0 recorded, 1 no recording or an incomplete one (the reason is on standard error), 2 a wrong option."
)]
struct Args {
    /// The bootstrap servers: HOST:PORT, or several with commas between them
    #[arg(value_name = "HOST:PORT", value_parser = servers)]
    bootstrap: Servers,
    /// How long clients send, in seconds
    #[arg(default_value_t = 10)]
    seconds: u64,
    /// Write the history to this file instead of the standard output
    #[arg(long, value_name = "FILE")]
    history: Option<PathBuf>,
    /// At the end, write what clients noted beside the history to this file, as JSON
    #[arg(long, value_name = "FILE")]
    notes: Option<PathBuf>,
    /// Record each line of the standard input, NAME or NAME JSON, as an operation of the nemesis; its end ends the run
    #[arg(long)]
    nemesis: bool,

    /// `acks` of all producers
    #[arg(long, value_enum, default_value_t = AcksArg::All)]
    acks: AcksArg,
    /// `enable.idempotence` of all producers. Without it nothing is sent twice (`retries=0`), so that a record that is stored
    /// twice is the broker's
    #[arg(long, value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set)]
    idempotence: bool,
    /// Number of producers
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..=100))]
    producers: u64,
    /// Number of consumers besides the last one
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(0..=100))]
    consumers: u64,
    /// Maximum records that a producer sends at once
    #[arg(long, value_name = "N", default_value_t = 12, value_parser = clap::value_parser!(u64).range(1..=1000))]
    sends_max: u64,
    /// Longest pause of a producer between two sends, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 20)]
    pause_max: u64,
    /// `delivery.timeout.ms` of all producers: a send that has no outcome by then is given up
    #[arg(long, value_name = "MS", default_value_t = 10_000)]
    delivery_timeout: u64,
    /// After this many polls the first consumer begins again at the start of each log; 0: never
    #[arg(long, value_name = "POLLS", default_value_t = 50)]
    rewind_after: u64,
    /// Longest pause of the admin, which lists offsets and deletes records of one partition, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 4_000)]
    admin_pause_max: u64,

    /// The topics' names begin so [default: play-TIME]
    #[arg(long, value_name = "PREFIX")]
    topic: Option<String>,
    /// Number of topics
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=100))]
    topics: u64,
    /// Partitions of each topic
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(i32).range(1..=1000))]
    partitions: i32,
    /// Replication factor of each topic; -1: the broker's default
    #[arg(long, default_value_t = -1, allow_negative_numbers = true)]
    replication: i16,
    /// A configuration of each topic; may be given several times
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    topic_config: Vec<(String, String)>,
    /// Also create, change, describe and delete topics of its own meanwhile
    #[arg(long)]
    operator: bool,
    /// The latest version of an API to use, by its key, to imitate older clients; may be given several times
    #[arg(long, value_name = "KEY=VERSION", value_parser = version)]
    version_max: Vec<(i16, i16)>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum AcksArg {
    #[value(name = "0")]
    None,
    #[value(name = "1")]
    Leader,
    #[value(name = "all", alias = "-1")]
    All,
}

impl AcksArg {
    fn id(self) -> i16 {
        match self {
            Self::None => 0,
            Self::Leader => 1,
            Self::All => -1,
        }
    }
}

/// Host and port of the bootstrap servers.
#[derive(Clone)]
struct Servers(Vec<(String, u16)>);

fn servers(text: &str) -> Result<Servers, String> {
    text.split(',')
        .map(address)
        .collect::<Result<_, _>>()
        .map(Servers)
}

fn address(text: &str) -> Result<(String, u16), String> {
    let (host, port) = text.rsplit_once(':').ok_or("HOST:PORT is due")?;
    let port = port.parse().map_err(|e| format!("port {port:?}: {e}"))?;
    match host {
        "" => Err("HOST:PORT is due".to_owned()),
        host => Ok((host.to_owned(), port)),
    }
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("KEY=VALUE is due")?;
    Ok((key.to_owned(), value.to_owned()))
}

fn version(text: &str) -> Result<(i16, i16), String> {
    let (key, version) = text.split_once('=').ok_or("KEY=VERSION is due")?;
    let number = |text: &str| text.parse().map_err(|e| format!("{text:?}: {e}"));
    Ok((number(key)?, number(version)?))
}

/// Numbers of the processes. After an operation of unknown outcome a process goes on under its number plus [`STRIDE`].
const CONSUMERS_FROM: u64 = 100;
const ADMIN: u64 = 200;
const OPERATOR: u64 = 201;
const LAST_READER: u64 = 202;
/// More than the number of processes.
const STRIDE: u64 = 1_000;
/// Compression types, by their ids; each producer has another.
const CODECS: u64 = 5;
/// How often it is seen that the history can't be written.
const LOOK: Duration = Duration::from_millis(100);
/// How long the last reader may take, should the broker still be starting.
const READ_TIMEOUT_MS: u64 = 90_000;

fn workload(args: &Args, prefix: &str) -> Workload {
    let mut client = ClientSpec::new("", 0);
    client.bootstrap = args.bootstrap.0.clone();
    client.versions_max = args.version_max.iter().copied().collect();
    let mut configs: std::collections::BTreeMap<_, _> = args.topic_config.iter().cloned().collect();
    // With the broker's time the digest that a producer knows is not that of the record.
    let timestamps = configs.entry("message.timestamp.type".to_owned());
    timestamps.or_insert_with(|| "CreateTime".to_owned());
    let topic = |i| TopicSpec {
        name: format!("{prefix}-{i}"),
        partitions: args.partitions,
        replication_factor: args.replication,
        configs: configs.clone(),
    };
    let topics: Vec<_> = (0..args.topics).map(topic).collect();
    let all: Vec<_> = topics.iter().flat_map(TopicSpec::all).collect();
    let producer = |process| ProducerSpec {
        sends_max: args.sends_max,
        pause_max_ms: args.pause_max,
        delivery_timeout_ms: args.delivery_timeout,
        idempotent: args.idempotence,
        acks: args.acks.id(),
        retries_max: (!args.idempotence).then_some(0),
        compression: (process % CODECS) as u8,
        headers_max: 2,
        ..ProducerSpec::idempotent(process, STRIDE, all.clone())
    };
    let consumer = |i| {
        let mut spec = ConsumerSpec::tailing(CONSUMERS_FROM + i, all.clone());
        match i % 3 {
            0 => spec.rewind_after = Some(args.rewind_after).filter(|n| i == 0 && *n > 0),
            1 => (spec.sessions, spec.partition_max_bytes) = (false, 500),
            _ => spec.read_committed = true,
        }
        spec
    };
    let operator = OperatorSpec {
        process: OPERATOR,
        process_stride: STRIDE,
        prefix: format!("{prefix}-operated-"),
        topics_max: 3,
        pause_max_ms: args.admin_pause_max,
    };
    Workload {
        client,
        topics,
        producers: (0..args.producers).map(producer).collect(),
        consumers: (0..args.consumers).map(consumer).collect(),
        recreator: None,
        operator: args.operator.then_some(operator),
        inspector: None,
        visitor: None,
        admin: Some(AdminSpec {
            process: ADMIN,
            process_stride: STRIDE,
            partitions: all[..1].to_vec(),
            queried: all,
            pause_max_ms: args.admin_pause_max,
        }),
    }
}

/// Records each line of the standard input as an operation of the nemesis, and stops the clients at its end. The first line that is
/// none ends it, too, and is left in `failed`.
fn read_nemesis(env: TokioEnv, recorder: Recorder, stop: Stop, failed: Arc<Mutex<Option<String>>>) {
    std::thread::spawn(move || {
        for line in stdin().lock().lines() {
            match line.map_err(|e| e.to_string()).and_then(|line| nemesis_of(&line)) {
                Ok(Some((f, value))) => recorder.nemesis(env.now(), &f, value),
                Ok(None) => {}
                Err(why) => {
                    *failed.lock().expect("no panic under this lock") = Some(why);
                    break;
                }
            }
        }
        stop.stop();
    });
}

/// The operation on a line, unless the line is empty.
fn nemesis_of(line: &str) -> Result<Option<(String, Value)>, String> {
    let line = line.trim();
    let (f, value) = line.split_once(char::is_whitespace).unwrap_or((line, "null"));
    let value = serde_json::from_str(value.trim()).map_err(|e| format!("nemesis: {line:?}: {e}"))?;
    Ok((!f.is_empty()).then(|| (f.to_owned(), value)))
}

/// Stops the clients after `seconds`, and at once if the history can't be written.
fn stop_in_time(env: &TokioEnv, recorder: &Recorder, stop: &Stop, seconds: u64) {
    let (timer, recorder, stop) = (env.clone(), recorder.clone(), stop.clone());
    env.spawn("timer", async move {
        let end = timer.now() + Duration::from_secs(seconds);
        while timer.now() < end && !recorder.history().has_failed() && !stop.is_stopped() {
            timer.sleep_until(end.min(timer.now() + LOOK)).await;
        }
        stop.stop();
    });
}

/// Reads every log from its start to its end. Returns the partitions whose end was not reached.
async fn read_to_the_end(env: &TokioEnv, workload: &Workload, recorder: &Recorder) -> Vec<String> {
    let all = workload.topics.iter().flat_map(TopicSpec::all).collect();
    let spec = ConsumerSpec {
        drain_timeout_ms: READ_TIMEOUT_MS,
        ..ConsumerSpec::tailing(LAST_READER, all)
    };
    let stopped = Stop::new();
    stopped.stop();
    run_consumer(env, &workload.client, &spec, recorder, &stopped).await;
    let notes = recorder.notes();
    let read = notes.drained.iter().filter(|d| d.process == LAST_READER);
    let short = read.filter(|d| d.end.is_none() || d.position < d.end);
    short.map(|d| format!("{}-{}", d.topic, d.partition)).collect()
}

async fn play(args: &Args) -> Result<(), String> {
    let to: Box<dyn Write + Send> = match &args.history {
        Some(path) => Box::new(created(path)?),
        None => Box::new(stdout()),
    };
    let notes_to = args.notes.as_deref().map(created).transpose()?;
    let env = TokioEnv::new(1);
    let prefix = args.topic.clone();
    let workload = workload(args, &prefix.unwrap_or_else(|| format!("play-{}", env.wall())));
    let (recorder, stop) = (Recorder::of(&workload).streaming(to).detailed(), Stop::new());
    let failed = Arc::new(Mutex::new(None));
    stop_in_time(&env, &recorder, &stop, args.seconds);
    if args.nemesis {
        read_nemesis(env.clone(), recorder.clone(), stop.clone(), Arc::clone(&failed));
    }
    let ran = run(&env, &workload, &recorder, &stop).await;
    ran.map_err(|e| format!("the topics can't be created: {e}"))?;
    let short = match recorder.history().has_failed() {
        false => read_to_the_end(&env, &workload, &recorder).await,
        true => Vec::new(),
    };
    if let Some(mut to) = notes_to {
        let written = serde_json::to_writer(&mut to, &recorder.notes());
        written.map_err(|e| format!("the notes can't be written: {e}"))?;
    }
    if let Some(error) = recorder.history().take_error() {
        return Err(format!("the history can't be written: {error}"));
    }
    if let Some(why) = failed.lock().expect("no panic under this lock").take() {
        return Err(why);
    }
    if !short.is_empty() {
        let short = short.join(", ");
        return Err(format!(
            "not read to its end, so the history is incomplete: {short}"
        ));
    }
    Ok(())
}

fn created(path: &Path) -> Result<File, String> {
    File::create(path).map_err(|e| format!("{}: {e}", path.display()))
}

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    if args.idempotence && args.acks != AcksArg::All {
        let _ = writeln!(
            stderr(),
            "error: idempotence requires --acks all; --idempotence false allows others"
        );
        return ExitCode::from(2);
    }
    let code = match play(&args).await {
        Ok(()) => 0,
        Err(why) => {
            // If stderr is closed it can't be said.
            let _ = writeln!(stderr(), "error: {why}");
            1
        }
    };
    // The thread that reads the standard input may still wait for it.
    std::process::exit(code)
}

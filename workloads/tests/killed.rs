//! A history that is written as it happens survives the death of its recorder.
#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "this test is outside of the simulator: it starts a process, kills it, and reads its file"
)]

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Write, stdout};
use std::process::{Command, Stdio};
use std::time::Duration;

use brokkr_checker::kafka::{Kafka, Options};
use brokkr_env::Env;
use brokkr_env::tokio::TokioEnv;
use brokkr_history::{MicroOp, Op, Process, Reader, Type};
use brokkr_workloads::{ClientSpec, ProducerSpec, Recorder, Stop, run_producer, value_of};

/// Names the file of the process that is killed.
const FILE: &str = "BROKKR_KILLED_WRITES_TO";
/// Producers whose broker never responds.
const WAITING: u64 = 3;
/// Processes that are never without an operation.
const BUSY: std::ops::Range<u64> = 100..104;
/// The process is killed after so many operations of busy processes.
const OPERATIONS: u64 = 5_000;

/// The process that is killed: nothing, unless [`recorder_that_is_killed`] starts it.
#[test]
fn recorder() {
    let Ok(path) = std::env::var(FILE) else { return };
    let recorder = Recorder::new()
        .streaming(File::create(path).expect("a file"))
        .detailed();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let env = TokioEnv::new(1);
        let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = silent.local_addr().expect("it has an address").port();
        let client = ClientSpec::new("127.0.0.1", port);
        for process in 0..WAITING {
            let spec = ProducerSpec::idempotent(process, 1_000, vec![("silent".to_owned(), 0)]);
            let (env2, client, recorder) = (env.clone(), client.clone(), recorder.clone());
            env.spawn("producer", async move {
                run_producer(&env2, &client, &spec, &recorder, &Stop::new()).await;
            });
        }
        while (recorder.history().len() as u64) < WAITING {
            env.sleep_until(env.now() + Duration::from_millis(1)).await;
        }
        for process in BUSY {
            let recorder = recorder.clone();
            std::thread::spawn(move || record_for_ever(&recorder, process));
        }
        std::future::pending::<()>().await;
    });
}

/// Sends and is acknowledged, and prints how many calls of the recorder have returned.
fn record_for_ever(recorder: &Recorder, process: Process) {
    let history = recorder.history();
    for counter in 0_i64.. {
        let send = |offset| MicroOp::Send {
            key: format!("busy-{process}").into(),
            offset,
            value: value_of(process, counter as u64).into(),
        };
        history.invoke(counter, process, Op::Send(vec![send(None)]));
        say(process, 2 * counter + 1);
        history.complete(counter, process, Type::Ok, Op::Send(vec![send(Some(counter))]));
        say(process, 2 * counter + 2);
    }
}

fn say(process: Process, returned: i64) {
    let _ = writeln!(stdout(), "{process} {returned}");
}

#[test]
fn recorder_that_is_killed() {
    let path = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("killed.jsonl");
    let this = std::env::current_exe().expect("a running binary has a path");
    let mut child = Command::new(this)
        .args(["--exact", "recorder", "--nocapture"])
        .env(FILE, &path)
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts");
    let said = BufReader::new(child.stdout.take().expect("piped"));
    let (mut returned, mut lines) = (BTreeMap::new(), 0);
    for line in said.lines().map_while(Result::ok) {
        let numbers = line.split_once(' ').and_then(|(process, n)| {
            let numbers: (Process, usize) = (process.parse().ok()?, n.parse().ok()?);
            Some(numbers)
        });
        let Some((process, n)) = numbers else { continue };
        returned.insert(process, n);
        lines += 1;
        if lines == OPERATIONS {
            // SIGKILL. What was said before is still read.
            child.kill().expect("it runs");
        }
    }
    let status = child.wait().expect("it ended");
    assert!(lines >= OPERATIONS && !status.success(), "{status}");

    let mut reader = Reader::new(File::open(&path).expect("it was written"));
    let history: Result<Vec<_>, _> = reader.by_ref().collect();
    let history = history.expect("up to its end it is a history");
    for (process, n) in &returned {
        let there = history.iter().filter(|o| o.process == *process).count();
        assert!(
            there >= *n,
            "process {process}: {n} calls had returned, and {there} operations are there"
        );
    }
    assert_eq!(returned.len() as u64, BUSY.end - BUSY.start);
    let mut checker = Kafka::new(Options::default());
    for operation in history {
        checker.push(operation).expect("an operation of this workload");
    }
    let verdict = checker.finish().verdict();
    let unfinished = verdict.notes["stats"]["send"]["unfinished"].as_u64();
    assert!(unfinished >= Some(WAITING), "{unfinished:?}");
    assert_eq!(verdict.findings("G1a"), []);
}

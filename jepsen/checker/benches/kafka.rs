//! Cost of judging: histories of 10⁴ to 10⁷ micro-operations, one process for each size so that its peak memory is its own.
//!
//! ```text
//! cargo bench -p brokkr-checker                 all sizes
//! cargo bench -p brokkr-checker -- 10000 1000000
//! cargo bench -p brokkr-checker -- --emit 1000000 > history.jsonl
//! ```
//! Eight producers and sixteen consumers; each of eight partitions is read twice; every operation has one micro-operation.
//! `ww` also orders senders by offsets; in `faulty` one poll in a hundred skips a record.
#![expect(
    clippy::disallowed_methods,
    reason = "a bench measures real time and starts itself anew for each size"
)]

use std::io::{self, BufWriter, Write};
use std::process::Command;
use std::time::Instant;

use brokkr_checker::kafka::{Kafka, Options};
use brokkr_history::{MicroOp, Op, Operation, Polls, Type, Val, Writer};

const PARTITIONS: u64 = 8;
const SIZES: [u64; 4] = [10_000, 100_000, 1_000_000, 10_000_000];
const KINDS: [&str; 3] = ["plain", "ww", "faulty"];

/// A generated history with a given number of micro-operations.
struct History {
    micro_ops: u64,
    faulty: bool,
    index: u64,
    made: u64,
    /// Records in each partition; all are read in the round after the one that sent them.
    records: u64,
    polls: u64,
    /// Whether the last round has begun.
    over: bool,
    /// The operations of the current round that are left, last first.
    round: Vec<Operation>,
}

impl History {
    fn new(micro_ops: u64, faulty: bool) -> Self {
        Self {
            micro_ops,
            faulty,
            index: 0,
            made: 0,
            records: 0,
            polls: 0,
            over: false,
            round: Vec::new(),
        }
    }

    fn operation(&mut self, type_: Type, process: u64, op: Op) {
        let operation = Operation::new(self.index, self.index as i64 * 1000, type_, process, op);
        self.index += 1;
        self.round.push(operation);
    }

    /// Each consumer polls the records of the previous round, and each producer sends three records one after the other; the
    /// last round only polls.
    fn begin_round(&mut self) {
        let sends = if self.made >= self.micro_ops { 0 } else { 3 };
        let key = |p: u64| brokkr_history::Key::from(format!("t-{}", p % PARTITIONS));
        let seen = self.records;
        for process in PARTITIONS..3 * PARTITIONS {
            self.operation(Type::Invoke, process, Op::Poll(vec![MicroOp::Poll(None)]));
        }
        for _ in 0..sends {
            let offset = self.records as i64;
            for (offset_known, type_) in [(false, Type::Invoke), (true, Type::Ok)] {
                for p in 0..PARTITIONS {
                    let value = Val::Int(offset * PARTITIONS as i64 + p as i64);
                    let offset = offset_known.then_some(offset);
                    let send = MicroOp::Send {
                        key: key(p),
                        offset,
                        value,
                    };
                    self.operation(type_, p, Op::Send(vec![send]));
                }
            }
            self.records += 1;
        }
        for process in PARTITIONS..3 * PARTITIONS {
            self.polls += 1;
            let mut records: Vec<_> = (seen.saturating_sub(3)..seen)
                .map(|o| (o as i64, Val::Int((o * PARTITIONS + process % PARTITIONS) as i64)))
                .collect();
            if self.faulty && self.polls.is_multiple_of(100) && records.len() > 1 {
                records.remove(1);
            }
            let polls = Polls::from([(key(process), records)]);
            self.operation(Type::Ok, process, Op::Poll(vec![MicroOp::Poll(Some(polls))]));
        }
        self.made += (2 + sends) * PARTITIONS;
        self.round.reverse();
    }
}

impl Iterator for History {
    type Item = Operation;

    fn next(&mut self) -> Option<Operation> {
        if self.round.is_empty() {
            if std::mem::replace(&mut self.over, self.made >= self.micro_ops) {
                return None;
            }
            self.begin_round();
        }
        self.round.pop()
    }
}

/// This process's peak memory, in MiB.
fn peak_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"));
    line.and_then(|l| l.split_whitespace().next()?.parse::<u64>().ok())
        .unwrap_or(0)
        / 1024
}

fn one(micro_ops: u64, kind: &str) {
    let generating = Instant::now();
    let operations = History::new(micro_ops, kind == "faulty").count();
    let generated = generating.elapsed();
    let begun = Instant::now();
    let options = Options {
        ww_deps: kind == "ww",
        ..Options::default()
    };
    let mut kafka = Kafka::new(options);
    for operation in History::new(micro_ops, kind == "faulty") {
        kafka.push(operation).expect("processes do one thing at a time");
    }
    let verdict = kafka.finish().verdict();
    let took = begun.elapsed().saturating_sub(generated);
    let findings: usize = verdict.anomalies.values().map(Vec::len).sum();
    println!(
        "{micro_ops:>10} {kind:>7} {operations:>10} {:>9.3} {:>9.0} {:>6} {findings:>9}",
        took.as_secs_f64(),
        took.as_nanos() as f64 / micro_ops as f64,
        peak_mib()
    );
}

fn emit(micro_ops: u64) -> io::Result<()> {
    let mut writer = Writer::new(BufWriter::new(io::stdout().lock()));
    for operation in History::new(micro_ops, false) {
        writer.write(&operation)?;
    }
    writer.finish()?.flush()
}

fn main() -> io::Result<()> {
    let args: Vec<_> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let number = |s: &String| s.parse::<u64>().ok();
    match args.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["--emit", n] => return emit(n.parse().expect("how many micro-operations")),
        ["--one", n, kind] => {
            one(n.parse().expect("how many micro-operations"), kind);
            return Ok(());
        }
        _ => {}
    }
    let mut sizes: Vec<_> = args.iter().filter_map(number).collect();
    if sizes.is_empty() {
        sizes = SIZES.to_vec();
    }
    println!(" micro-ops    kind operations   seconds     ns/op    MiB  findings");
    for kind in KINDS {
        for size in &sizes {
            let itself = std::env::current_exe()?;
            let status = Command::new(itself)
                .args(["--one", &size.to_string(), kind])
                .status()?;
            assert!(status.success(), "{size} {kind}: {status}");
        }
    }
    Ok(())
}

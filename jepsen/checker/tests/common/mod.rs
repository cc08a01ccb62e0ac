//! A correct model of Kafka's logs in memory, and clients that record what it does.
#![allow(dead_code, reason = "each test uses its part of it")]

use std::collections::BTreeMap;

use brokkr_history::{Key, MicroOp, Op, Operation, Polls, Process, Type, Val};
use proptest::prelude::RngExt;
use proptest::test_runner::{RngAlgorithm, TestRng};

/// A generator of numbers from a seed, the same on every machine.
pub fn random(seed: u64) -> TestRng {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_be_bytes());
    TestRng::from_seed(RngAlgorithm::ChaCha, &bytes)
}

/// Writes a history.
#[derive(Default)]
pub struct HistoryWriter(pub Vec<Operation>);

impl HistoryWriter {
    pub fn write(&mut self, type_: Type, process: Process, op: Op) -> u64 {
        let index = self.0.len() as u64;
        self.0
            .push(Operation::new(index, index as i64 * 10, type_, process, op));
        index
    }

    /// Writes an invocation and its completion; returns the completion's index.
    pub fn both(&mut self, process: Process, invoked: Op, type_: Type, ended: Op) -> u64 {
        self.write(Type::Invoke, process, invoked);
        self.write(type_, process, ended)
    }

    pub fn send(&mut self, process: Process, sends: &[(&str, Option<i64>, i64)], type_: Type) -> u64 {
        let op = |offsets: bool| {
            Op::Send(
                sends
                    .iter()
                    .map(|(k, o, v)| send(k, o.filter(|_| offsets), *v))
                    .collect(),
            )
        };
        self.both(process, op(false), type_, op(true))
    }

    pub fn poll(&mut self, process: Process, key: &str, records: &[(i64, i64)]) -> u64 {
        self.both(
            process,
            Op::Poll(vec![MicroOp::Poll(None)]),
            Type::Ok,
            Op::Poll(vec![poll(key, records)]),
        )
    }
}

pub fn send(key: &str, offset: Option<i64>, value: i64) -> MicroOp {
    MicroOp::Send {
        key: key.into(),
        offset,
        value: Val::Int(value),
    }
}

pub fn poll(key: &str, records: &[(i64, i64)]) -> MicroOp {
    let records = records.iter().map(|(o, v)| (*o, Val::Int(*v))).collect();
    MicroOp::Poll(Some(Polls::from([(key.into(), records)])))
}

/// A pending invocation.
enum PendingOp {
    Micro(Vec<MicroOp>),
    Assign(Vec<Key>),
}

#[derive(Default)]
struct Client {
    process: Process,
    pending: Option<PendingOp>,
    /// The next index to read, for each key.
    positions: BTreeMap<Key, usize>,
}

/// Logs and clients.
pub struct KafkaModel {
    pub random: TestRng,
    pub writer: HistoryWriter,
    pub logs: BTreeMap<Key, Vec<(i64, i64)>>,
    clients: Vec<Client>,
    /// Sends that happen later, after their client's operation ended with an unknown outcome.
    late: Vec<Vec<MicroOp>>,
    value: i64,
}

impl KafkaModel {
    pub fn new(seed: u64) -> Self {
        let mut random = random(seed);
        let keys = 1 + random.random_range(0..3);
        let clients = 1 + random.random_range(0..5);
        let client = |process| Client {
            process,
            ..Client::default()
        };
        Self {
            random,
            writer: HistoryWriter::default(),
            logs: (0..keys)
                .map(|k| (Key::from(format!("t-{k}")), Vec::new()))
                .collect(),
            clients: (0..clients).map(client).collect(),
            late: Vec::new(),
            value: 0,
        }
    }

    fn key(&mut self) -> Key {
        let at = self.random.random_range(0..self.logs.len());
        self.logs.keys().nth(at).expect("a log").clone()
    }

    pub fn end_of(&self, key: &str) -> i64 {
        self.logs[key].last().map_or(0, |(offset, _)| offset + 1)
    }

    pub fn fresh(&mut self) -> i64 {
        self.value += 1;
        self.value
    }

    /// Runs a number of steps, then reads everything.
    pub fn run(mut self, steps: usize) -> Self {
        for _ in 0..steps {
            let at = self.random.random_range(0..self.clients.len());
            let mut client = std::mem::take(&mut self.clients[at]);
            match client.pending.take() {
                None => self.begin(&mut client),
                Some(pending) => self.end(&mut client, pending),
            }
            self.clients[at] = client;
            if self.random.random_ratio(1, 4) && !self.late.is_empty() {
                let sends = self.late.remove(0);
                self.append(&sends);
            }
        }
        self.read_all(9999);
        self
    }

    fn begin(&mut self, client: &mut Client) {
        if self.random.random_ratio(1, 8) {
            let keys: Vec<_> = self
                .logs
                .keys()
                .filter(|_| self.random.random_ratio(1, 2))
                .cloned()
                .collect();
            self.writer
                .write(Type::Invoke, client.process, Op::Assign(keys.clone()));
            client.pending = Some(PendingOp::Assign(keys));
            return;
        }
        let (sends, polls) = match self.random.random_range(0..3) {
            0 => (true, false),
            1 => (false, true),
            _ => (true, true),
        };
        let mut micro = Vec::new();
        for _ in 0..1 + self.random.random_range(0..3) {
            if sends && (!polls || self.random.random_ratio(1, 2)) {
                let (key, value) = (self.key(), Val::Int(self.fresh()));
                micro.push(MicroOp::Send {
                    key,
                    offset: None,
                    value,
                });
            } else {
                micro.push(MicroOp::Poll(None));
            }
        }
        self.writer
            .write(Type::Invoke, client.process, op_of(micro.clone()));
        client.pending = Some(PendingOp::Micro(micro));
    }

    fn end(&mut self, client: &mut Client, pending: PendingOp) {
        let micro = match pending {
            PendingOp::Assign(keys) => {
                client.positions.retain(|k, _| keys.contains(k));
                for key in &keys {
                    client.positions.entry(key.clone()).or_insert(0);
                }
                self.writer.write(Type::Ok, client.process, Op::Assign(keys));
                return;
            }
            PendingOp::Micro(micro) => micro,
        };
        let type_ = match self.random.random_range(0..6) {
            0 => Type::Fail,
            1 => Type::Info,
            _ => Type::Ok,
        };
        let before = client.positions.clone();
        let mut ended = self.polled(client, &micro);
        if type_ != Type::Ok {
            client.positions = before;
        }
        match type_ {
            Type::Ok => ended = self.append(&ended),
            Type::Info if self.random.random_ratio(1, 3) => ended = self.append(&ended),
            Type::Info if self.random.random_ratio(1, 2) => self.late.push(sends_of(&ended)),
            _ => {}
        }
        self.writer.write(type_, client.process, op_of(ended));
        if type_ == Type::Info {
            // The outcome of its operation is unknown: another process takes its place.
            client.process += 100;
            client.positions.clear();
        }
    }

    /// Fills in the results of polls.
    fn polled(&mut self, client: &mut Client, micro: &[MicroOp]) -> Vec<MicroOp> {
        let mut ended = Vec::new();
        for m in micro {
            let MicroOp::Poll(_) = m else {
                ended.push(m.clone());
                continue;
            };
            let mut polls = Polls::new();
            for (key, at) in &mut client.positions {
                let log = &self.logs[key];
                let end = log.len().min(*at + self.random.random_range(0..4));
                if end > *at || self.random.random_ratio(1, 4) {
                    polls.insert(
                        key.clone(),
                        log[*at..end].iter().map(|(o, v)| (*o, Val::Int(*v))).collect(),
                    );
                }
                *at = end;
            }
            ended.push(MicroOp::Poll(
                (!polls.is_empty() || self.random.random_ratio(1, 2)).then_some(polls),
            ));
        }
        ended
    }

    /// Appends all sends at once; returns them with their offsets, some of which are lost.
    fn append(&mut self, micro: &[MicroOp]) -> Vec<MicroOp> {
        let mut ended = Vec::new();
        for m in micro {
            let MicroOp::Send {
                key,
                value: Val::Int(value),
                ..
            } = m
            else {
                ended.push(m.clone());
                continue;
            };
            let gap = if self.random.random_ratio(1, 3) { 1 } else { 0 };
            let offset = self.end_of(key.as_str()) + gap;
            self.logs.get_mut(key).expect("a log").push((offset, *value));
            let returned = !self.random.random_ratio(1, 5);
            ended.push(send(key.as_str(), returned.then_some(offset), *value));
        }
        ended
    }

    /// Reads everything from the beginning, some records at a time.
    pub fn read_all(&mut self, process: Process) {
        let keys: Vec<_> = self.logs.keys().cloned().collect();
        self.writer.both(
            process,
            Op::Assign(keys.clone()),
            Type::Ok,
            Op::Assign(keys.clone()),
        );
        for key in keys {
            for records in self.logs[&key].clone().chunks(3) {
                self.writer.poll(process, key.as_str(), records);
            }
        }
        // An empty poll is recorded as well.
        for _ in 0..2 {
            self.writer.poll(process, "t-0", &[]);
        }
    }
}

fn sends_of(micro: &[MicroOp]) -> Vec<MicroOp> {
    micro
        .iter()
        .filter(|m| matches!(m, MicroOp::Send { .. }))
        .cloned()
        .collect()
}

fn op_of(micro: Vec<MicroOp>) -> Op {
    let sends = micro.iter().filter(|m| matches!(m, MicroOp::Send { .. })).count();
    match sends {
        0 => Op::Poll(micro),
        n if n == micro.len() => Op::Send(micro),
        _ => Op::Txn(micro),
    }
}

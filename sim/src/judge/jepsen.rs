//! Runs `jepsen/checker` over a run's history, and maps its anomalies to the invariant ids of the design's table.
//!
//! Besides the clients' history the checker gets the offsets below which retention removed records, as `delete_records`. Topics
//! that are deleted and created again have one key for each id; a send whose topic id is unknown gets the keys under which its
//! value was read.
//!
//! Left out: records that producers repeat, reorder or lose because they are not idempotent or do not wait for acknowledgements,
//! and all order in partitions where such a record is stored twice (the checker expects one offset for each value); order within
//! the records of a producer that crashes and restarts, or that the broker may have expired; and records of topics that a client
//! asked to delete.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};

use brokkr_checker::kafka::{Kafka, Options};
use brokkr_checker::{Finding, Verdict};
use brokkr_history::{Key, MicroOp, NEMESIS, Op, Operation, Process, Type, Val, Writer, names};
use brokkr_workloads::{ProducerSpec, value_parts};
use serde_json::{Value, json};

use super::{Deleted, Place};
use crate::account::{Account, Rule, why};
use crate::check::Violation;

/// Findings of an anomaly that are reported; one more line says how many there are.
const FINDINGS_MAX: usize = 5;
/// Histories in which readers were shown more messages than this are not checked: a run may use 200 MB, and a reader that keeps
/// restarting reads a million.
const MESSAGES_MAX: usize = 200_000;
/// The process that reports what retention removed. No client has this number.
const RETENTION: Process = 1 << 30;

/// The invariant that an anomaly breaks.
fn id_of(anomaly: &str) -> Option<&'static str> {
    Some(match anomaly {
        "lost-write" | "unseen" => "L1",
        "inconsistent-offsets"
        | "poll-skip"
        | "int-poll-skip"
        | "nonmonotonic-poll"
        | "int-nonmonotonic-poll" => "L6",
        // A record was read before it was sent.
        "G1c" | "G1c-process" | "G1c-realtime" => "L6",
        "duplicate" | "G1a" => "I1",
        "nonmonotonic-send" | "int-nonmonotonic-send" => "I3",
        "phantom" => "D2",
        "append-before-past" => "L8",
        "wrong-start" => "L6",
        "latest-too-low" => "L4",
        "earliest-too-low" | "deleted-read" => "D1",
        "wrong-content" => "C1",
        "precommitted-read" | "G1b" => "T2",
        // Nothing was sent and read: no anomaly.
        _ => return None,
    })
}

/// What the checker's findings are read with.
pub struct Checker<'a> {
    /// The producers.
    pub producers: &'a BTreeMap<Process, &'a ProducerSpec>,
    /// Records that may be gone, and damaged partitions.
    pub deleted: &'a Deleted,
    /// The topics that are deleted and created again.
    pub recreated: &'a BTreeSet<String>,
    /// Whether the broker may expire producers.
    pub forgets: bool,
}

impl Checker<'_> {
    /// Returns the checker's findings about a history.
    pub fn judge(&self, history: Vec<Operation>, account: &mut Account) -> Vec<Violation> {
        let is_too_long = messages(&history) > MESSAGES_MAX;
        match account.judges(Rule::Checker, is_too_long.then_some(why::TOO_LONG)) {
            true => findings(self, history),
            false => Vec::new(),
        }
    }

    /// Writes the history as the checker judges it, so that `brokkr-jepsen check` decides alike: with what retention removed, with
    /// sends to recreated topics under the keys under which they were read, and with a waiver for each finding that is exempt.
    ///
    /// # Errors
    /// Those of `to`.
    pub fn write(&self, history: &[Operation], to: impl Write) -> io::Result<()> {
        let mut writer = Writer::new(to);
        let read = read_under(history, self.recreated);
        let own = |o: &Operation| with_read_keys(o.clone(), self.recreated, &read);
        let retained = retained(history, self.deleted);
        let mut checker = Kafka::new(Options::default());
        let (mut index, mut at) = (0, 0);
        for mut operation in history.iter().map(own).chain(retained) {
            (operation.index, at) = (index, operation.time);
            index += 1;
            writer.write(&operation)?;
            // A malformed history is malformed for whoever reads it, too.
            let _ = checker.push(operation);
        }
        for waiver in self.waivers(&checker.finish().anomalies()) {
            let op = Op::Other(names::WAIVE.to_owned(), waiver);
            writer.write(&Operation::new(index, at, Type::Info, NEMESIS, op))?;
            index += 1;
        }
        writer.finish().map(drop)
    }

    /// What the findings of a verdict that are no violations are waived by.
    fn waivers(&self, verdict: &Verdict) -> Vec<Value> {
        let exemptions = Exemptions::of(verdict, self.producers, self.deleted, self.forgets);
        let mut waivers = Vec::new();
        for (name, findings) in &verdict.anomalies {
            for finding in findings.iter().filter(|f| !verdict.is_allowed(name, f)) {
                let why = match id_of(name) {
                    Some(_) => exemptions.reason(name, finding),
                    None => Some("it breaks no invariant"),
                };
                let Some(why) = why else { continue };
                let mut waiver = json!({"anomaly": name, "why": why});
                if let Some(key) = key(finding) {
                    waiver["key"] = key.into();
                }
                let values: Vec<_> = values(finding).collect();
                if !values.is_empty() {
                    waiver["values"] = json!(values);
                }
                waivers.push(waiver);
            }
        }
        waivers
    }
}

fn findings(given: &Checker<'_>, history: Vec<Operation>) -> Vec<Violation> {
    let Checker {
        producers,
        deleted,
        recreated,
        forgets,
    } = *given;
    let mut checker = Kafka::new(Options::default());
    let mut malformed = Vec::new();
    let read = read_under(&history, recreated);
    let retained = retained(&history, deleted);
    let own = |o: Operation| with_read_keys(o, recreated, &read);
    for operation in history.into_iter().map(own).chain(retained) {
        malformed.extend(
            checker
                .push(operation)
                .err()
                .map(|e| Violation::new("history", e.to_string())),
        );
    }
    let verdict = checker.finish().anomalies();
    let anomalies = verdict
        .anomalies
        .iter()
        .filter(|(name, _)| !verdict.is_all_allowed(name));
    let mut found = malformed;
    let excused = Exemptions::of(&verdict, producers, deleted, forgets);
    for (name, findings) in anomalies {
        let Some(id) = id_of(name) else { continue };
        let counts = |f: &&Finding| !verdict.is_allowed(name, f) && !excused.is_exempt(name, f);
        let mut counted: Vec<&Finding> = findings.iter().filter(counts).collect();
        let more = counted.len().saturating_sub(FINDINGS_MAX);
        counted.truncate(FINDINGS_MAX);
        found.extend(
            counted
                .iter()
                .map(|f| Violation::new(id, format!("{name}: {}", f.text))),
        );
        if more > 0 {
            found.push(Violation::new(id, format!("{name}: {more} more")));
        }
    }
    found
}

/// How many messages readers were shown.
fn messages(history: &[Operation]) -> usize {
    let micro = history.iter().flat_map(|o| o.op.micro_ops());
    let shown = micro.filter_map(|m| match m {
        MicroOp::Poll(polls) => polls.as_ref(),
        MicroOp::Send { .. } => None,
    });
    shown.flat_map(|polls| polls.values()).map(Vec::len).sum()
}

/// Exemptions from findings.
struct Exemptions<'a> {
    producers: &'a BTreeMap<Process, &'a ProducerSpec>,
    deleted: &'a Deleted,
    forgets: bool,
    /// Keys in which a value is stored twice, legitimately.
    doubled: BTreeSet<String>,
}

impl<'a> Exemptions<'a> {
    fn of(
        verdict: &Verdict,
        producers: &'a BTreeMap<Process, &'a ProducerSpec>,
        deleted: &'a Deleted,
        forgets: bool,
    ) -> Self {
        let mut excused = Self {
            producers,
            deleted,
            forgets,
            doubled: BTreeSet::new(),
        };
        let findings = verdict.findings("duplicate").iter();
        let may = findings.filter(|f| excused.is_exempt("duplicate", f));
        excused.doubled = may.filter_map(|f| Some(key(f)?.to_owned())).collect();
        excused
    }

    /// Whether the invariant does not apply to the producers or the topic of a finding.
    fn is_exempt(&self, anomaly: &str, f: &Finding) -> bool {
        self.reason(anomaly, f).is_some()
    }

    /// Why the invariant does not apply to the producers or the topic of a finding.
    fn reason(&self, anomaly: &str, f: &Finding) -> Option<&'static str> {
        let values = values(f).filter_map(Value::as_i64);
        let mut specs = values.map(|v| self.producers.get(&value_parts(v).0).copied());
        let idempotent = |s: Option<&ProducerSpec>| s.is_some_and(|s| s.idempotent);
        let doubled = key(f).is_some_and(|key| self.doubled.contains(key));
        if anomaly != "phantom" && key(f).is_some_and(|key| self.deleted.is_damaged(key)) {
            return Some("the partition was damaged");
        }
        match anomaly {
            "lost-write" | "unseen" => {
                if key(f).is_some_and(|key| self.deleted.below(key) == i64::MAX) {
                    return Some("its records were deleted");
                }
                let unconfirmed = specs.all(|s| s.is_some_and(|s| s.acks == 0));
                unconfirmed.then_some("sent with acks=0")
            }
            "duplicate" => (!specs.all(idempotent)).then_some("its producer is not idempotent"),
            "nonmonotonic-send" | "int-nonmonotonic-send" => {
                let returns = |s: Option<&ProducerSpec>| s.is_none_or(|s| s.restarts_after.is_some());
                let exempt = doubled || self.forgets || specs.any(|s| !idempotent(s) || returns(s));
                exempt.then_some("a producer here is not idempotent, restarts, or may expire")
            }
            "poll-skip" | "int-poll-skip" | "nonmonotonic-poll" | "int-nonmonotonic-poll" => {
                doubled.then_some("a record of a producer that is not idempotent is stored twice here")
            }
            _ => None,
        }
    }
}

/// The records that a finding names.
fn values(f: &Finding) -> impl Iterator<Item = &Value> {
    let one = f.data.get("value").into_iter();
    one.chain(f.data["values"].as_array().into_iter().flatten())
}

/// The partition that a finding is about.
fn key(f: &Finding) -> Option<&str> {
    f.data["key"].as_str()
}

/// For each value of a recreated topic, the keys under which it was read.
fn read_under(history: &[Operation], recreated: &BTreeSet<String>) -> BTreeMap<i64, BTreeSet<Key>> {
    let mut read: BTreeMap<i64, BTreeSet<Key>> = BTreeMap::new();
    if recreated.is_empty() {
        return read;
    }
    for micro in history.iter().flat_map(|o| o.op.micro_ops()) {
        let MicroOp::Poll(Some(polls)) = micro else {
            continue;
        };
        for (key, messages) in polls.iter().filter(|(k, _)| Place::of(k.as_str()).id.is_some()) {
            for (_, value) in messages {
                if let Val::Int(value) = value {
                    read.entry(*value).or_default().insert(key.clone());
                }
            }
        }
    }
    read
}

/// The operation, with each send to a recreated topic under all keys under which its value was read.
fn with_read_keys(
    mut o: Operation,
    recreated: &BTreeSet<String>,
    read: &BTreeMap<i64, BTreeSet<Key>>,
) -> Operation {
    if recreated.is_empty() {
        return o;
    }
    let Op::Send(micro) = &mut o.op else { return o };
    let sends = std::mem::take(micro);
    for send in sends {
        let MicroOp::Send { key, offset, value } = &send else {
            continue;
        };
        let (Val::Int(v), true) = (value, recreated.contains(Place::of(key.as_str()).topic)) else {
            micro.push(send);
            continue;
        };
        let keys = read.get(v).into_iter().flatten();
        let elsewhere = keys.filter(|k| *k != key).map(|k| MicroOp::Send {
            key: k.clone(),
            offset: None,
            value: value.clone(),
        });
        let before = micro.len();
        micro.extend(elsewhere);
        if offset.is_some() || micro.len() == before {
            micro.push(send);
        }
    }
    // They name sends by their numbers, which are others now.
    o.details = Default::default();
    o
}

/// What retention removed, as `delete_records` operations. Without an invocation they may have happened at any time.
fn retained(history: &[Operation], deleted: &Deleted) -> Vec<Operation> {
    let end = history.last().map_or((0, 0), |o| (o.index, o.time));
    let starts = deleted
        .starts()
        .map(|(key, before)| json!({"key": key, "before": before}));
    let removal = |(i, value): (usize, Value)| {
        let (index, process) = (end.0 + 1 + i as u64, RETENTION + i as u64);
        let op = Op::Other("delete_records".to_owned(), value);
        Operation::new(index, end.1, Type::Ok, process, op)
    };
    starts.enumerate().map(removal).collect()
}

//! Judges the history of the clients, after a last reader has read every log from its start to its end.
//!
//! - L1: every acknowledged record is in the log; I2: at the acknowledged offset, and no record in the log was refused as out of order.
//! - L6: an offset never shows two records, and every shown record is there at the end. Deleted records are exempt.
//! - I1 and I4: a record of an idempotent producer is in the log at most once; a record that was refused for good, never.
//! - I3: the acknowledged records of an idempotent producer are in the order in which they were sent.
//! - I2: no batch that was the next in its producer's sequence was refused as a gap (P3, P5); I4: no two producers share an id.
//! - D2: every record shown was sent.
//! - M2: topics that are deleted and created again (`topics`); topics that an operator administers (`operator`). C1 and others: all that a broker answers about an inspector's topics (`inspector`). L6 and I3: what each reader was shown, in order (`views`).
//! - Most of that again, and cycles, by `jepsen/checker` (`jepsen`).
//! - C1, L4, L5: what responses carry besides records (`responses`).
//! - C1: each error code has a reason (`refusals`).
//! - V1: once all faults have ended, requests succeed in time (`calm`). V1, S1: connections live as long as they may (`visitor`).
//! - L4: the latest offset that the broker reports is never below what was acknowledged or shown before. D1: the log's start never
//!   moves back below what was deleted.
//!
//! Producers that are not idempotent may repeat records, and the outcome of sends with acks=0 is unknown: the rules exempt both. A
//! topic that is deleted and created again has no sequences of the producers that go on writing: an out-of-order error there is no
//! violation.

mod calm;
mod deleted;
mod facts;
mod inspector;
mod jepsen;
mod operations;
mod operator;
pub mod refusals;
mod responses;
mod topics;
mod views;
mod visitor;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};

use brokkr_history::{Key, MicroOp, Operation, Process, Type, Val};
use brokkr_workloads::{
    AckedBatch, ClientFault, Drained, Notes, OutOfOrder, ProducerSpec, Workload, value_parts,
};

pub use deleted::{Deleted, Place};
pub use facts::RunFacts;
pub use inspector::InspectorFacts;

use crate::account::{Account, Rule, why};
use crate::report::Ops;
use crate::retention::is_retained;
use crate::violation::Violation;
use facts::METADATA;
use operations::name_and_value;
use views::Views;

/// A reader that receives nothing of a partition for this long, although there are more records, is stuck.
const STUCK_NANOS: i64 = 4_000_000_000;

/// How a send ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Outcome {
    Acked(i64),
    NotWritten,
    Unknown,
}

/// Operations by outcome; each record of a send counts as one.
pub fn ops(history: &[Operation]) -> Ops {
    let mut ops = Ops::default();
    for o in history {
        let n = (o.op.micro_ops().len() as u64).max(1);
        match o.type_ {
            Type::Invoke => {}
            Type::Ok => ops.ok += n,
            Type::Fail => ops.fail += n,
            Type::Info => ops.info += n,
        }
    }
    ops
}

/// The names of topics that an operator made.
pub fn made(history: &[Operation]) -> BTreeSet<String> {
    let topic = |o: &Operation| match name_and_value(o) {
        Some(("create_topic", value)) => value["topic"].as_str().map(str::to_owned),
        _ => None,
    };
    history.iter().filter_map(topic).collect()
}

/// Whether a client asked to delete a topic of this name.
pub fn deletes(history: &[Operation], topic: &str) -> bool {
    let is_it = |(f, value): (&str, &serde_json::Value)| {
        let is_deletion = f == "delete_topic" || f == "inspect" && value["what"] == "delete";
        is_deletion && value["topic"] == topic
    };
    history.iter().filter_map(name_and_value).any(is_it)
}

struct Judge<'a> {
    producers: BTreeMap<Process, &'a ProducerSpec>,
    deleted: &'a Deleted,
    /// Topics that are deleted and created again.
    recreated: BTreeSet<String>,
    /// Topics with a retention limit.
    retained: BTreeSet<String>,
    /// Lower bounds of the log ends for every later response, and the bounds when the pending request was sent.
    ends: BTreeMap<String, Ends>,
    asked: BTreeMap<Process, Ends>,
    /// Each send, in the order of its producer: its key, and its outcome.
    sends: BTreeMap<i64, (Key, Outcome)>,
    /// Every value that was shown at an offset, and the process that it was first shown to.
    shown: BTreeMap<Key, BTreeMap<i64, (Val, Process)>>,
    /// The logs as the last reader read them.
    last: BTreeMap<Key, BTreeMap<i64, Val>>,
    violations: Vec<Violation>,
    account: Account,
}

/// Lower bounds of a log's earliest and latest offset.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Ends {
    earliest: i64,
    latest: i64,
}

/// Returns the violations, and which rules were applied.
pub fn judge(
    workload: &Workload,
    history: Vec<Operation>,
    notes: &Notes,
    facts: &RunFacts,
) -> (Vec<Violation>, Account) {
    let mut judge = rules(workload, &history, notes, facts);
    let checker = jepsen::Checker {
        producers: &judge.producers,
        deleted: &facts.deleted,
        recreated: &judge.recreated,
        forgets: facts.forgets,
    };
    let found = checker.judge(history, &mut judge.account);
    judge.violations.extend(found);
    (judge.violations, judge.account)
}

/// Writes the history as JSON lines, with all that the history checker is given, so that `brokkr-jepsen check` decides as it does
/// here.
///
/// # Errors
/// Those of `to`.
pub fn write_history(
    workload: &Workload,
    history: &[Operation],
    facts: &RunFacts,
    to: impl Write,
) -> io::Result<()> {
    let checker = jepsen::Checker {
        producers: &producers_of(workload),
        deleted: &facts.deleted,
        recreated: &recreated_of(workload),
        forgets: facts.forgets,
    };
    checker.write(history, to)
}

fn producers_of(workload: &Workload) -> BTreeMap<Process, &ProducerSpec> {
    workload.producers.iter().map(|p| (p.process, p)).collect()
}

/// The topics that are deleted and created again.
fn recreated_of(workload: &Workload) -> BTreeSet<String> {
    let topics = workload.recreator.iter().flat_map(|r| r.topics.iter().cloned());
    topics.collect()
}

/// Applies all rules except those of the history checker.
fn rules<'a>(workload: &'a Workload, history: &[Operation], notes: &Notes, facts: &'a RunFacts) -> Judge<'a> {
    let (last, forgets) = (facts.last, facts.forgets);
    let mut judge = Judge {
        producers: producers_of(workload),
        deleted: &facts.deleted,
        recreated: recreated_of(workload),
        retained: workload
            .topics
            .iter()
            .filter(|t| is_retained(t))
            .map(|t| t.name.clone())
            .collect(),
        ends: BTreeMap::new(),
        asked: BTreeMap::new(),
        sends: BTreeMap::new(),
        shown: BTreeMap::new(),
        last: BTreeMap::new(),
        violations: Vec::new(),
        account: Account::default(),
    };
    for o in history {
        judge.record(o, last);
        judge.check_ends(o);
    }
    notes.faults.iter().for_each(|f| judge.check_client_fault(f));
    notes
        .drained
        .iter()
        .for_each(|d| judge.check_drained(d, history, last));
    judge.check_shown();
    judge.check_sends();
    judge.check_out_of_order(&notes.out_of_order);
    judge.check_order();
    judge.check_producer_ids(&notes.acked);
    judge.check_gaps(&notes.acked, forgets);
    judge.check_views(history, forgets);
    let found = responses::judge(workload, history, notes, facts, &mut judge.account);
    judge.violations.extend(found);
    let found = calm::judge(workload, history, notes, facts, &mut judge.account);
    judge.violations.extend(found);
    let damaged = facts.deleted.is_damaged(METADATA);
    judge
        .violations
        .extend(operator::judge(history, damaged, &mut judge.account));
    let found = inspector::judge(history, damaged, &facts.inspector, &mut judge.account);
    judge.violations.extend(found);
    judge.violations.extend(topics::judge(history, &facts.topics));
    if let Some(spec) = &workload.visitor {
        let found = visitor::judge(
            spec,
            history,
            facts.calm_since,
            facts.drift_ppm,
            &mut judge.account,
        );
        judge.violations.extend(found);
    }
    judge
}

impl<'a> Judge<'a> {
    fn add_violation(&mut self, id: &'static str, what: String) {
        self.violations.push(Violation::new(id, what));
    }

    /// The reason to leave out rules about a partition.
    fn damage_of(&self, key: &str) -> Option<&'static str> {
        self.deleted.is_damaged(key).then_some(why::DAMAGED)
    }

    fn record(&mut self, o: &Operation, last: Process) {
        for micro in o.op.micro_ops() {
            match micro {
                MicroOp::Send { key, offset, value } => {
                    let Val::Int(value) = value else { continue };
                    let outcome = match (o.type_, offset) {
                        (Type::Ok | Type::Info, Some(offset)) => Outcome::Acked(*offset),
                        (Type::Fail, _) => Outcome::NotWritten,
                        _ => Outcome::Unknown,
                    };
                    self.sends.insert(*value, (key.clone(), outcome));
                }
                MicroOp::Poll(Some(polls)) => {
                    self.account.judges(Rule::ReaderFault, None);
                    for (key, messages) in polls {
                        self.record_shown(o.process, key, messages);
                        if o.process == last {
                            self.record_last(key, messages);
                        }
                    }
                }
                MicroOp::Poll(None) => {}
            }
        }
    }

    fn record_shown(&mut self, who: Process, key: &Key, messages: &[(i64, Val)]) {
        let waiver = self.damage_of(key.as_str());
        self.account
            .count(Rule::SameRecord, waiver, messages.len() as u64);
        let shown = match self.shown.get_mut(key) {
            Some(shown) => shown,
            None => self.shown.entry(key.clone()).or_default(),
        };
        let mut add_violation = |id, what| self.violations.push(Violation::new(id, what));
        for (offset, value) in messages {
            if !matches!(value, Val::Int(_)) {
                let what =
                    format!("process {who} was shown {value} at {key} offset {offset}, which nobody sent");
                add_violation("D2", what);
                continue;
            }
            let (first, to) = shown.entry(*offset).or_insert_with(|| (value.clone(), who));
            if first != value && waiver.is_none() {
                let what = format!(
                    "{key} offset {offset}: process {to} was shown {first}, then process {who} {value}"
                );
                add_violation("L6", what);
            }
        }
    }

    fn record_last(&mut self, key: &Key, messages: &[(i64, Val)]) {
        messages
            .iter()
            .for_each(|(offset, _)| self.check_undeleted(key, *offset));
        let log = self.last.entry(key.clone()).or_default();
        log.extend(messages.iter().cloned());
    }

    /// L4 and D1: every later latest offset is above what was acknowledged or shown before; every later earliest offset is at or
    /// above what was deleted.
    fn check_ends(&mut self, o: &Operation) {
        if o.type_ == Type::Ok {
            for micro in o.op.micro_ops() {
                self.raise_ends(micro);
            }
        }
        let Some((f, value)) = name_and_value(o) else {
            return;
        };
        let Some(key) = value["key"].as_str() else { return };
        let waiver = self.damage_of(key);
        if f == "list_offsets" && o.type_ == Type::Ok {
            self.account.judges(Rule::Ends, waiver);
        }
        if waiver.is_some() {
            return;
        }
        let known = self.ends.entry(key.to_owned()).or_default();
        match (f, o.type_) {
            ("delete_records", Type::Ok) => {
                let low = value["low_watermark"].as_i64().unwrap_or(0);
                known.earliest = known.earliest.max(low);
            }
            ("list_offsets", Type::Invoke) => drop(self.asked.insert(o.process, *known)),
            ("list_offsets", Type::Ok) => {
                let Some(then) = self.asked.remove(&o.process) else {
                    return;
                };
                let end = |name: &str| value[name].as_i64().unwrap_or(i64::MAX);
                let (key, ms) = (key.to_owned(), o.time / 1_000_000);
                let (earliest, latest) = (end("earliest"), end("latest"));
                if latest < then.latest {
                    let before = then.latest;
                    self.add_violation(
                        "L4",
                        format!("{key}: the latest offset was {latest} at {ms} ms, and {before} before"),
                    );
                }
                if earliest < then.earliest {
                    let before = then.earliest;
                    self.add_violation(
                        "D1",
                        format!("{key} began at {earliest} at {ms} ms, though it was deleted up to {before}"),
                    );
                }
            }
            _ => {}
        }
    }

    /// Raises the lower bound of the latest offset above what a client was just acknowledged or shown.
    fn raise_ends(&mut self, micro: &MicroOp) {
        let mut to = |key: &Key, offset: i64| {
            let ends = match self.ends.get_mut(key.as_str()) {
                Some(ends) => ends,
                None => self.ends.entry(key.as_str().to_owned()).or_default(),
            };
            ends.latest = ends.latest.max(offset + 1);
        };
        match micro {
            MicroOp::Send {
                key,
                offset: Some(offset),
                ..
            } => to(key, *offset),
            MicroOp::Poll(Some(polls)) => {
                for (key, messages) in polls {
                    let last = messages.iter().map(|(offset, _)| *offset).max();
                    last.into_iter().for_each(|offset| to(key, offset));
                }
            }
            MicroOp::Send { .. } | MicroOp::Poll(None) => {}
        }
    }

    /// D1: deleted records do not come back.
    fn check_undeleted(&mut self, key: &Key, offset: i64) {
        let start = self.ends.get(key.as_str()).map_or(0, |e| e.earliest);
        if offset < start && !self.deleted.is_damaged(key.as_str()) {
            self.add_violation(
                "D1",
                format!("{key} offset {offset} was shown at the end, though it was deleted up to {start}"),
            );
        }
    }

    /// I4: a producer id belongs to one producer.
    fn check_producer_ids(&mut self, acked: &[AckedBatch]) {
        let mut whose: BTreeMap<i64, Process> = BTreeMap::new();
        let mut found = Vec::new();
        for batch in acked.iter().filter(|b| b.producer_id >= 0) {
            let Some((value, spec)) = batch.records.first().map(|(_, v)| (v, value_parts(*v).0)) else {
                continue;
            };
            let first = *whose.entry(batch.producer_id).or_insert(spec);
            if first != spec {
                let id = batch.producer_id;
                found.push(format!(
                    "producer id {id} is of process {first}, and of process {spec}, which sent {value}"
                ));
            }
        }
        found.into_iter().for_each(|what| self.add_violation("I4", what));
    }

    /// I2: a batch that followed the last acknowledged one was not a gap (P3, P5).
    fn check_gaps(&mut self, acked: &[AckedBatch], forgets: bool) {
        for batch in acked.iter().filter(|b| b.producer_id >= 0) {
            let (of, partition) = (&batch.topic, batch.partition);
            let waiver = match () {
                () if forgets => Some(why::EXPIRED),
                () if self.recreated.contains(of) => Some(why::RECREATED),
                () => self.damage_of(&format!("{of}-{partition}")),
            };
            if batch.attempts > 1 {
                // It was sent again, and not refused.
                self.account.judges(Rule::DuplicateRefused, None);
            }
            if !self.account.judges(Rule::NextRefused, waiver) || !batch.refused_as_gap {
                continue;
            }
            let values: Vec<i64> = batch.records.iter().map(|(_, v)| *v).collect();
            self.add_violation(
                "I2",
                format!("{values:?} was the next to {of}-{partition}, and was refused as out of order"),
            );
        }
    }

    fn check_client_fault(&mut self, f: &ClientFault) {
        let key = format!("{}-{}", f.topic, f.partition);
        let kind = f.what.split(['(', ' ']).next().unwrap_or_default();
        let waiver = match kind {
            _ if self.deleted.is_damaged(&key) => Some(why::DAMAGED),
            // A reader whose position is deleted gets this error and continues at a later offset. If its position is not known, the
            // error is legal only where something is deleted.
            "Refused" if f.what.contains("OFFSET_OUT_OF_RANGE") => {
                let below = self.deleted.below(&key);
                (f.at.max(0) < below).then_some(why::DELETED)
            }
            _ => None,
        };
        if !self.account.judges(Rule::ReaderFault, waiver) {
            return;
        }
        let id = match kind {
            "Damaged" => "D2",
            "Refused" if !f.what.contains("OFFSET_OUT_OF_RANGE") => "C1",
            _ => "L6",
        };
        self.add_violation(id, format!("process {} reads {key}: {}", f.process, f.what));
    }

    /// Liveness after all faults have ended: the last reader reaches every end, the other readers at least make progress (W6).
    fn check_drained(&mut self, d: &Drained, history: &[Operation], last: Process) {
        // Retention may overtake a reader that reads one batch at a time; the reader restarts until nothing is left.
        let is_outrun = self.retained.contains(&d.topic) && d.process != last;
        let key = format!("{}-{}", d.topic, d.partition);
        let waiver = match self.damage_of(&key) {
            None if is_outrun && d.end.is_some() && d.position < d.end => Some(why::OUTRUN),
            waiver => waiver,
        };
        if !self.account.judges(Rule::Drained, waiver) || d.end.is_some() && d.position >= d.end {
            return;
        }
        let of_it = |o: &&Operation| o.process == d.process && o.type_ == Type::Ok;
        let is_it = |k: &Key| Place::of(k.as_str()).is_called_as(Place::of(&key));
        let shows = |o: &&Operation| {
            o.op.micro_ops()
                .iter()
                .any(|m| matches!(m, MicroOp::Poll(Some(polls)) if polls.keys().any(is_it)))
        };
        let times = |o: &Operation| o.time;
        let ended = history.iter().rev().find(of_it).map_or(0, times);
        let moved = history.iter().rev().filter(of_it).find(shows).map_or(0, times);
        if d.process == last || d.end.is_none() || ended - moved > STUCK_NANOS {
            self.add_violation("liveness", format!("once all was calm: {d:?}"));
        }
    }

    /// L6: a record that was shown is there at the end.
    fn check_shown(&mut self) {
        let mut lost = Vec::new();
        for (key, shown) in &self.shown {
            let log = self.last.get(key);
            let below = self.deleted.below(key.as_str());
            let deleted = shown.range(..below).count() as u64;
            let waiver = self.deleted.is_damaged(key.as_str()).then_some(why::DAMAGED);
            self.account
                .count(Rule::Shown, Some(waiver.unwrap_or(why::DELETED)), deleted);
            self.account
                .count(Rule::Shown, None, shown.len() as u64 - deleted);
            let gone = |offset: &i64| !log.is_some_and(|log| log.contains_key(offset)) && *offset >= below;
            lost.extend(shown.iter().filter(|(offset, _)| gone(offset)).map(|(offset, (value, who))| {
                format!("{key} offset {offset}: process {who} was shown {value}, which is not there at the end")
            }));
        }
        lost.into_iter().for_each(|what| self.add_violation("L6", what));
    }

    fn spec(&self, value: i64) -> Option<&'a ProducerSpec> {
        self.producers.get(&value_parts(value).0).copied()
    }

    fn check_views(&mut self, history: &[Operation], forgets: bool) {
        let acked = self
            .sends
            .iter()
            .filter(|(_, (_, outcome))| matches!(outcome, Outcome::Acked(_)));
        let views = Views {
            producers: &self.producers,
            acked: acked.map(|(value, _)| *value).collect(),
            forgets,
            deleted: self.deleted,
        };
        let found = views.judge(history, &mut self.account);
        self.violations.extend(found);
    }

    /// L1, I1, I2, I4: compares each send with the offsets where its record is.
    fn check_sends(&mut self) {
        let mut places: BTreeMap<i64, Vec<(&Key, i64)>> = BTreeMap::new();
        for (key, log) in &self.last {
            for (offset, value) in log {
                if let Val::Int(value) = value {
                    places.entry(*value).or_default().push((key, *offset));
                }
            }
        }
        let mut found = Vec::new();
        for (value, (key, outcome)) in &self.sends {
            let Some(spec) = self.spec(*value) else { continue };
            let at = places.get(value).map_or(&[][..], Vec::as_slice);
            let damage = self.deleted.is_damaged(key.as_str()).then_some(why::DAMAGED);
            if spec.idempotent && self.account.judges(Rule::Once, damage) && at.len() > 1 {
                found.push(("I1", format!("{value} stands {} times: {at:?}", at.len())));
            }
            let elsewhere = |other: &Key| {
                other != key && !Place::of(other.as_str()).is_called_as(Place::of(key.as_str()))
            };
            if let Some((other, offset)) = at.iter().find(|(other, _)| elsewhere(other)) {
                let what = format!("{value} was sent to {key}, and stands at {other} offset {offset}");
                found.push(("D2", what));
            }
            match outcome {
                Outcome::Acked(offset) if spec.acks != 0 => {
                    let deleted = (*offset < self.deleted.below(key.as_str())).then_some(why::DELETED);
                    if !self.account.judges(Rule::Acked, damage.or(deleted)) || at.contains(&(key, *offset)) {
                        continue;
                    }
                    let what = format!("{value} was acknowledged at {key} offset {offset}");
                    found.push(match at.first() {
                        None => ("L1", format!("{what} and is lost")),
                        Some(_) => ("I2", format!("{what} and stands at {at:?}")),
                    });
                }
                Outcome::NotWritten if !at.is_empty() => {
                    found.push((
                        "I1",
                        format!("{value} was refused for good, but stands at {at:?}"),
                    ));
                }
                _ => {}
            }
        }
        let stranger = places.iter().find(|(value, _)| !self.sends.contains_key(value));
        if let Some((value, at)) = stranger {
            found.push(("D2", format!("{value} at {at:?} was never sent")));
        }
        found
            .into_iter()
            .for_each(|(id, what)| self.add_violation(id, what));
    }

    /// I2: a batch that is in the log and sent again is a duplicate, never out of order, while it is in the window. If the outcome
    /// of the batch before it is unknown, both may have been appended only later, through a connection that the client had given
    /// up.
    fn check_out_of_order(&mut self, out_of_order: &[OutOfOrder]) {
        for o in out_of_order {
            let key = format!("{}-{}", o.topic, o.partition);
            let waiver = match self.damage_of(&key) {
                None if self.recreated.contains(&o.topic) => Some(why::RECREATED),
                None if self.follows_unknown(&key, o.value) => Some(why::FOLLOWS_UNKNOWN),
                waiver => waiver,
            };
            if !self.account.judges(Rule::DuplicateRefused, waiver) {
                continue;
            }
            let log = self.last.get(key.as_str());
            let at = log.and_then(|log| log.iter().find(|(_, v)| **v == Val::Int(o.value)));
            if let Some((offset, _)) = at {
                let what = format!(
                    "{} stands at {key} offset {offset}, and was refused as out of order",
                    o.value
                );
                self.add_violation("I2", what);
            }
        }
    }

    /// Whether an earlier send of this producer to this partition has an unknown outcome.
    fn follows_unknown(&self, key: &str, value: i64) -> bool {
        let producer = value_parts(value).0;
        let before = self.sends.range(..value).rev();
        let mut its = before.take_while(|(v, _)| value_parts(**v).0 == producer);
        let last = its.find(|(_, (to, _))| to.as_str() == key);
        last.is_some_and(|(_, (_, outcome))| matches!(outcome, Outcome::Unknown))
    }

    /// I3: the acknowledged records of a producer in a partition are in the order in which they were sent.
    fn check_order(&mut self) {
        let mut last: BTreeMap<(Process, &Key), (i64, i64)> = BTreeMap::new();
        let mut found = Vec::new();
        for (value, (key, outcome)) in &self.sends {
            let (Outcome::Acked(offset), Some(spec)) = (outcome, self.spec(*value)) else {
                continue;
            };
            if !spec.idempotent || spec.acks == 0 {
                continue;
            }
            let waiver = self.deleted.is_damaged(key.as_str()).then_some(why::DAMAGED);
            if !self.account.judges(Rule::Order, waiver) {
                continue;
            }
            if let Some((before, at)) = last.insert((spec.process, key), (*value, *offset))
                && at >= *offset
            {
                found.push(format!(
                    "{key}: {before} stands at {at}, {value}, sent after it, at {offset}"
                ));
            }
        }
        found.into_iter().for_each(|what| self.add_violation("I3", what));
    }
}

#[cfg(test)]
mod tests;

//! Judges what clients invoked and were told, once a last reader has read every log from its start to its end.
//!
//! - L1: what was acknowledged stands there; I2: where it was said to, and nothing was refused as out of order that stands there.
//! - L6: an offset never shows two records, and what was shown stands there at the end. Deleted records are excepted.
//! - I1 and I4: what an idempotent producer sent stands at most once; what was refused for good, nowhere.
//! - I3: what an idempotent producer was acknowledged stands in the order in which it was sent.
//! - I2: nothing that was the next in its producer's sequence was refused as a gap (P3, P5); I4: no producer id is of two producers.
//! - D2: nobody was shown bytes that nobody sent.
//! - M2: topics that come and go (`topics`). L6 and I3: what each reader was shown, in its order (`views`).
//! - Much of that again, and cycles, by `jepsen/checker` (`jepsen`).
//! - L4: the latest offset, as the broker tells it, never is below what was acknowledged or shown before. D1: the log's start
//!   never goes back behind what was deleted.
//!
//! Producers that are not idempotent may repeat themselves, and of those with acks=0 nothing is known: the rules leave them out. A
//! topic that is deleted and created again knows nothing of the sequences of those who write on: where they are refused as out of
//! order is no matter there.

mod deleted;
mod jepsen;
mod topics;
mod views;

use std::collections::{BTreeMap, BTreeSet};

use brokkr_history::{Key, MicroOp, Op, Operation, Process, Type, Val};
use brokkr_workloads::{
    AckedBatch, ClientFault, Drained, Notes, OutOfOrder, ProducerSpec, Workload, value_parts,
};

pub use deleted::{Deleted, Place};

use crate::check::Violation;
use crate::report::Ops;
use crate::retention::is_retained;
use views::Views;

/// Who reads nothing of a partition for so long, though there is more, is stuck.
const STUCK_NANOS: i64 = 4_000_000_000;

/// How a send ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Outcome {
    Acked(i64),
    NotWritten,
    Unknown,
}

/// What the judge is told besides what clients saw.
#[derive(Clone, Debug, Default)]
pub struct Besides {
    /// The process of the last reader.
    pub last: Process,
    /// Whether the broker forgets producers.
    pub forgets: bool,
    /// What may be gone.
    pub deleted: Deleted,
    /// The ids of the topics at the end, by name.
    pub topics: BTreeMap<String, String>,
}

/// What an operation that neither sends nor polls is about.
fn about(o: &Operation) -> Option<(&str, &serde_json::Value)> {
    match &o.op {
        Op::Other(f, value) => Some((f, value)),
        _ => None,
    }
}

/// Operations by how they ended; sends count one each.
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

struct Judge<'a> {
    producers: BTreeMap<Process, &'a ProducerSpec>,
    deleted: &'a Deleted,
    /// Topics that come and go.
    recreated: BTreeSet<String>,
    /// Topics of which retention may take something.
    retained: BTreeSet<String>,
    /// What every later answer about a log's ends must be past, and what it was when the answer under way was asked for.
    ends: BTreeMap<String, Ends>,
    asked: BTreeMap<Process, Ends>,
    /// Each send, in the order of its producer: where to, and how it ended.
    sends: BTreeMap<i64, (Key, Outcome)>,
    /// What was ever shown at an offset, and to whom first.
    shown: BTreeMap<Key, BTreeMap<i64, (Val, Process)>>,
    /// The logs as the last reader found them.
    last: BTreeMap<Key, BTreeMap<i64, Val>>,
    violations: Vec<Violation>,
}

/// The lowest that a log may start and end at.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Ends {
    earliest: i64,
    latest: i64,
}

/// What doesn't hold.
pub fn judge(
    workload: &Workload,
    history: Vec<Operation>,
    notes: &Notes,
    besides: &Besides,
) -> Vec<Violation> {
    let mut judge = rules(workload, &history, notes, besides);
    let (producers, recreated) = (&judge.producers, &judge.recreated);
    let jepsen = jepsen::judge(producers, history, &besides.deleted, recreated, besides.forgets);
    judge.violations.extend(jepsen);
    judge.violations
}

/// By all rules but those of the checker of histories.
fn rules<'a>(
    workload: &'a Workload,
    history: &[Operation],
    notes: &Notes,
    besides: &'a Besides,
) -> Judge<'a> {
    let (last, forgets) = (besides.last, besides.forgets);
    let mut judge = Judge {
        producers: workload.producers.iter().map(|p| (p.process, p)).collect(),
        deleted: &besides.deleted,
        recreated: workload
            .recreator
            .iter()
            .flat_map(|r| r.topics.iter().cloned())
            .collect(),
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
    };
    for o in history {
        judge.take(o, last);
        judge.ends(o);
    }
    notes.faults.iter().for_each(|f| judge.fault(f));
    notes.drained.iter().for_each(|d| judge.drained(d, history, last));
    judge.shown_and_lost();
    judge.sent();
    judge.refused(&notes.out_of_order);
    judge.in_order();
    judge.one_producer_each(&notes.acked);
    if !forgets {
        judge.next_but_refused(&notes.acked);
    }
    judge.views(history, forgets);
    judge.violations.extend(topics::judge(history, &besides.topics));
    judge
}

impl<'a> Judge<'a> {
    fn say(&mut self, id: &'static str, what: String) {
        self.violations.push(Violation::new(id, what));
    }

    fn take(&mut self, o: &Operation, last: Process) {
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
                    for (key, messages) in polls {
                        self.show(o.process, key, messages);
                        if o.process == last {
                            self.show_last(key, messages);
                        }
                    }
                }
                MicroOp::Poll(None) => {}
            }
        }
    }

    fn show(&mut self, who: Process, key: &Key, messages: &[(i64, Val)]) {
        let shown = match self.shown.get_mut(key) {
            Some(shown) => shown,
            None => self.shown.entry(key.clone()).or_default(),
        };
        let mut say = |id, what| self.violations.push(Violation::new(id, what));
        for (offset, value) in messages {
            if !matches!(value, Val::Int(_)) {
                let what =
                    format!("process {who} was shown {value} at {key} offset {offset}, which nobody sent");
                say("D2", what);
                continue;
            }
            let (first, to) = shown.entry(*offset).or_insert_with(|| (value.clone(), who));
            if first != value && !self.deleted.is_damaged(key.as_str()) {
                let what = format!(
                    "{key} offset {offset}: process {to} was shown {first}, then process {who} {value}"
                );
                say("L6", what);
            }
        }
    }

    fn show_last(&mut self, key: &Key, messages: &[(i64, Val)]) {
        messages
            .iter()
            .for_each(|(offset, _)| self.is_undeleted(key, *offset));
        let log = self.last.entry(key.clone()).or_default();
        log.extend(messages.iter().cloned());
    }

    /// L4 and D1: what was once acknowledged or shown is below every later latest offset, what was deleted below every later
    /// earliest one.
    fn ends(&mut self, o: &Operation) {
        if o.type_ == Type::Ok {
            for micro in o.op.micro_ops() {
                self.passed(micro);
            }
        }
        let Some((f, value)) = about(o) else { return };
        let Some(key) = value["key"].as_str().filter(|key| !self.deleted.is_damaged(key)) else {
            return;
        };
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
                    self.say(
                        "L4",
                        format!("{key}: the latest offset was {latest} at {ms} ms, and {before} before"),
                    );
                }
                if earliest < then.earliest {
                    let before = then.earliest;
                    self.say(
                        "D1",
                        format!("{key} began at {earliest} at {ms} ms, though it was deleted up to {before}"),
                    );
                }
            }
            _ => {}
        }
    }

    /// What a client was just told lies below the latest offset from now on.
    fn passed(&mut self, micro: &MicroOp) {
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

    /// D1: what was deleted doesn't come back.
    fn is_undeleted(&mut self, key: &Key, offset: i64) {
        let start = self.ends.get(key.as_str()).map_or(0, |e| e.earliest);
        if offset < start && !self.deleted.is_damaged(key.as_str()) {
            self.say(
                "D1",
                format!("{key} offset {offset} was shown at the end, though it was deleted up to {start}"),
            );
        }
    }

    /// I4: a producer id is of one producer.
    fn one_producer_each(&mut self, acked: &[AckedBatch]) {
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
        found.into_iter().for_each(|what| self.say("I4", what));
    }

    /// I2: what followed the last that was acknowledged was no gap (P3, P5).
    fn next_but_refused(&mut self, acked: &[AckedBatch]) {
        let refused = acked.iter().filter(|b| b.refused_as_gap);
        let stays: Vec<_> = refused.filter(|b| !self.recreated.contains(&b.topic)).collect();
        for batch in stays {
            let (of, partition) = (&batch.topic, batch.partition);
            if self.deleted.is_damaged(&format!("{of}-{partition}")) {
                continue;
            }
            let values: Vec<i64> = batch.records.iter().map(|(_, v)| *v).collect();
            self.say(
                "I2",
                format!("{values:?} was the next to {of}-{partition}, and was refused as out of order"),
            );
        }
    }

    fn is_deleted(&self, key: &str, offset: i64) -> bool {
        offset < self.deleted.below(key)
    }

    fn fault(&mut self, f: &ClientFault) {
        let key = format!("{}-{}", f.topic, f.partition);
        if self.deleted.is_damaged(&key) {
            return;
        }
        let id = match f.what.split('(').next().unwrap_or_default() {
            "Damaged" => "D2",
            // Who reads where records are deleted may be told so, and find himself further on.
            "Refused" | "Backwards" | "Gap" if self.deleted.has(&key) => return,
            "Refused" if !f.what.contains("OFFSET_OUT_OF_RANGE") => return,
            _ => "L6",
        };
        self.say(id, format!("process {} reads {key}: {}", f.process, f.what));
    }

    /// Liveness once all is calm: the last reader reaches every end, the others at least move towards it (W6).
    fn drained(&mut self, d: &Drained, history: &[Operation], last: Process) {
        if d.end.is_some() && d.position >= d.end {
            return;
        }
        // Who reads a batch at a time may be outrun by retention, and begin again, until there is nothing left.
        let is_outrun = self.retained.contains(&d.topic);
        let key = format!("{}-{}", d.topic, d.partition);
        if self.deleted.is_damaged(&key) {
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
        if d.process == last || d.end.is_none() || ended - moved > STUCK_NANOS && !is_outrun {
            self.say("liveness", format!("once all was calm: {d:?}"));
        }
    }

    /// L6: what was shown once stands there at the end.
    fn shown_and_lost(&mut self) {
        let mut lost = Vec::new();
        for (key, shown) in &self.shown {
            let log = self.last.get(key);
            let gone = |offset: &i64| {
                !log.is_some_and(|log| log.contains_key(offset)) && !self.is_deleted(key.as_str(), *offset)
            };
            lost.extend(shown.iter().filter(|(offset, _)| gone(offset)).map(|(offset, (value, who))| {
                format!("{key} offset {offset}: process {who} was shown {value}, which is not there at the end")
            }));
        }
        lost.into_iter().for_each(|what| self.say("L6", what));
    }

    fn spec(&self, value: i64) -> Option<&'a ProducerSpec> {
        self.producers.get(&value_parts(value).0).copied()
    }

    fn views(&mut self, history: &[Operation], forgets: bool) {
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
        self.violations.extend(views.judge(history));
    }

    /// L1, I1, I2, I4: each send against the places where it stands.
    fn sent(&mut self) {
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
            if spec.idempotent && at.len() > 1 && !self.deleted.is_damaged(key.as_str()) {
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
                    if at.contains(&(key, *offset)) || self.is_deleted(key.as_str(), *offset) {
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
        found.into_iter().for_each(|(id, what)| self.say(id, what));
    }

    /// I2: a batch that stands in the log is, sent again, a duplicate; never out of order, while it is in the window. Where nobody
    /// knows what became of the one before it, both may have come only after that, by a connection that was given up.
    fn refused(&mut self, out_of_order: &[OutOfOrder]) {
        let stays = |o: &&OutOfOrder| !self.recreated.contains(&o.topic);
        for o in out_of_order.iter().filter(stays).collect::<Vec<_>>() {
            let key = format!("{}-{}", o.topic, o.partition);
            let log = self.last.get(key.as_str());
            let at = log
                .filter(|_| !self.deleted.is_damaged(&key))
                .and_then(|log| log.iter().find(|(_, v)| **v == Val::Int(o.value)));
            if let Some((offset, _)) = at.filter(|_| !self.follows_unknown(&key, o.value)) {
                let what = format!(
                    "{} stands at {key} offset {offset}, and was refused as out of order",
                    o.value
                );
                self.say("I2", what);
            }
        }
    }

    /// Whether nobody knows what became of what this producer sent to this partition before `value`.
    fn follows_unknown(&self, key: &str, value: i64) -> bool {
        let producer = value_parts(value).0;
        let before = self.sends.range(..value).rev();
        let mut its = before.take_while(|(v, _)| value_parts(**v).0 == producer);
        let last = its.find(|(_, (to, _))| to.as_str() == key);
        last.is_some_and(|(_, (_, outcome))| matches!(outcome, Outcome::Unknown))
    }

    /// I3: what a producer sent to a partition and was acknowledged stands in the order in which it was sent.
    fn in_order(&mut self) {
        let mut last: BTreeMap<(Process, &Key), (i64, i64)> = BTreeMap::new();
        let mut found = Vec::new();
        for (value, (key, outcome)) in &self.sends {
            let (Outcome::Acked(offset), Some(spec)) = (outcome, self.spec(*value)) else {
                continue;
            };
            if !spec.idempotent || spec.acks == 0 || self.deleted.is_damaged(key.as_str()) {
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
        found.into_iter().for_each(|what| self.say("I3", what));
    }
}

#[cfg(test)]
mod tests;

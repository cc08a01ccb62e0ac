//! Judges what clients invoked and were told, once a last reader has read every log from its start to its end.
//!
//! - L1: what was acknowledged stands there; I2: where it was said to, and nothing was refused as out of order that stands there.
//! - L6: an offset never shows two records, and what was shown stands there at the end. Deleted records are excepted.
//! - I1 and I4: what an idempotent producer sent stands at most once; what was refused for good, nowhere.
//! - I3: what an idempotent producer was acknowledged stands in the order in which it was sent.
//! - I2: nothing that was the next in its producer's sequence was refused as a gap (P3, P5); I4: no producer id is of two producers.
//! - D2: nobody was shown bytes that nobody sent.
//! - L4: the latest offset, as the broker tells it, never is below what was acknowledged or shown before. D1: the log's start
//!   never goes back behind what was deleted.
//!
//! Producers that are not idempotent may repeat themselves, and of those with acks=0 nothing is known: the rules leave them out.

use std::collections::{BTreeMap, BTreeSet};

use brokkr_history::{Key, MicroOp, Op, Operation, Process, Type, Val};
use brokkr_workloads::{
    AckedBatch, ClientFault, Drained, Notes, OutOfOrder, ProducerSpec, Workload, value_parts,
};

use crate::check::Violation;
use crate::report::Ops;

/// Who reads nothing of a partition for so long, though there is more, is stuck.
const STUCK_NANOS: i64 = 4_000_000_000;

/// How a send ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Outcome {
    Acked(i64),
    NotWritten,
    Unknown,
}

/// Who deleted what: of each partition the offset below which records may be gone.
pub fn deleted(history: &[Operation]) -> BTreeMap<String, i64> {
    let mut deleted = BTreeMap::new();
    for o in history {
        let Op::Other(f, value) = &o.op else { continue };
        if let ("delete_records", Some(key), Some(before)) =
            (f.as_str(), value["key"].as_str(), value["before"].as_i64())
        {
            let most = deleted.entry(key.to_owned()).or_insert(0);
            *most = before.max(*most);
        }
    }
    deleted
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
    deleted: BTreeMap<String, i64>,
    /// Partitions that the disk damaged, with no other copy: what they show must have been sent (D2), no more.
    damaged: BTreeSet<String>,
    /// What every later answer about a log's ends must be past, and what it was when the answer under way was asked for.
    ends: BTreeMap<String, Ends>,
    asked: BTreeMap<Process, Ends>,
    /// Each send, in the order of its producer: where to, and how it ended.
    sends: BTreeMap<i64, (Key, Outcome)>,
    /// What was ever shown at an offset, and to whom first.
    shown: BTreeMap<(Key, i64), (Val, Process)>,
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

/// What doesn't hold. `last` is the process of the last reader; `forgets` whether the broker forgets producers.
pub fn judge(
    workload: &Workload,
    history: &[Operation],
    notes: &Notes,
    last: Process,
    forgets: bool,
    damaged: BTreeSet<String>,
) -> Vec<Violation> {
    let mut judge = Judge {
        producers: workload.producers.iter().map(|p| (p.process, p)).collect(),
        deleted: deleted(history),
        damaged,
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
    judge.violations
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
                        for (offset, value) in messages {
                            self.show(o.process, key, *offset, value);
                            if o.process == last {
                                self.is_undeleted(key, *offset);
                                self.last
                                    .entry(key.clone())
                                    .or_default()
                                    .insert(*offset, value.clone());
                            }
                        }
                    }
                }
                MicroOp::Poll(None) => {}
            }
        }
    }

    fn show(&mut self, who: Process, key: &Key, offset: i64, value: &Val) {
        if !matches!(value, Val::Int(_)) {
            let what = format!("process {who} was shown {value} at {key} offset {offset}, which nobody sent");
            return self.say("D2", what);
        }
        let first = self
            .shown
            .entry((key.clone(), offset))
            .or_insert_with(|| (value.clone(), who));
        if first.0 != *value && !self.damaged.contains(key.as_str()) {
            let (before, to) = first.clone();
            let what =
                format!("{key} offset {offset}: process {to} was shown {before}, then process {who} {value}");
            self.say("L6", what);
        }
    }

    /// L4 and D1: what was once acknowledged or shown is below every later latest offset, what was deleted below every later
    /// earliest one.
    fn ends(&mut self, o: &Operation) {
        if o.type_ == Type::Ok {
            for micro in o.op.micro_ops() {
                self.passed(micro);
            }
        }
        let Op::Other(f, value) = &o.op else { return };
        let Some(key) = value["key"].as_str().filter(|key| !self.damaged.contains(*key)) else {
            return;
        };
        let known = self.ends.entry(key.to_owned()).or_default();
        match (f.as_str(), o.type_) {
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
            let known = self.ends.entry(key.as_str().to_owned()).or_default();
            known.latest = known.latest.max(offset + 1);
        };
        match micro {
            MicroOp::Send {
                key,
                offset: Some(offset),
                ..
            } => to(key, *offset),
            MicroOp::Poll(Some(polls)) => {
                for (key, messages) in polls {
                    messages.iter().for_each(|(offset, _)| to(key, *offset));
                }
            }
            MicroOp::Send { .. } | MicroOp::Poll(None) => {}
        }
    }

    /// D1: what was deleted doesn't come back.
    fn is_undeleted(&mut self, key: &Key, offset: i64) {
        let start = self.ends.get(key.as_str()).map_or(0, |e| e.earliest);
        if offset < start && !self.damaged.contains(key.as_str()) {
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
        for batch in acked.iter().filter(|b| b.refused_as_gap) {
            let (of, partition) = (&batch.topic, batch.partition);
            if self.damaged.contains(&format!("{of}-{partition}")) {
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
        let deleted = self.deleted.get(key).is_some_and(|before| offset < *before);
        deleted || self.damaged.contains(key)
    }

    fn fault(&mut self, f: &ClientFault) {
        let key = format!("{}-{}", f.topic, f.partition);
        if self.damaged.contains(&key) {
            return;
        }
        let id = match f.what.split('(').next().unwrap_or_default() {
            "Damaged" => "D2",
            // Who reads where records are deleted may be told so, and find himself further on.
            "Refused" | "Backwards" | "Gap" if self.deleted.contains_key(&key) => return,
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
        let key = format!("{}-{}", d.topic, d.partition);
        if self.damaged.contains(&key) {
            return;
        }
        let of_it = |o: &&Operation| o.process == d.process && o.type_ == Type::Ok;
        let shows = |o: &&Operation| {
            o.op.micro_ops()
                .iter()
                .any(|m| matches!(m, MicroOp::Poll(Some(polls)) if polls.contains_key(key.as_str())))
        };
        let times = |o: &Operation| o.time;
        let ended = history.iter().rev().find(of_it).map_or(0, times);
        let moved = history.iter().rev().filter(of_it).find(shows).map_or(0, times);
        if d.process == last || d.end.is_none() || ended - moved > STUCK_NANOS {
            self.say("liveness", format!("once all was calm: {d:?}"));
        }
    }

    /// L6: what was shown once stands there at the end.
    fn shown_and_lost(&mut self) {
        let mut lost = Vec::new();
        for ((key, offset), (value, who)) in &self.shown {
            let now = self.last.get(key).and_then(|log| log.get(offset));
            if now.is_none() && !self.is_deleted(key.as_str(), *offset) {
                lost.push(format!(
                    "{key} offset {offset}: process {who} was shown {value}, which is not there at the end"
                ));
            }
        }
        lost.into_iter().for_each(|what| self.say("L6", what));
    }

    fn spec(&self, value: i64) -> Option<&'a ProducerSpec> {
        self.producers.get(&value_parts(value).0).copied()
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
            if spec.idempotent && at.len() > 1 {
                found.push(("I1", format!("{value} stands {} times: {at:?}", at.len())));
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
        for o in out_of_order {
            let key = format!("{}-{}", o.topic, o.partition);
            let log = self.last.get(key.as_str());
            let at = log
                .filter(|_| !self.damaged.contains(&key))
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
            if !spec.idempotent || spec.acks == 0 || self.damaged.contains(key.as_str()) {
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
mod tests {
    use super::*;
    use brokkr_workloads::{ClientSpec, value_of};
    use serde_json::json;

    const LAST: Process = 90;

    fn workload() -> Workload {
        Workload {
            client: ClientSpec::new("b", 1),
            topics: Vec::new(),
            producers: vec![ProducerSpec::idempotent(0, 100, Vec::new())],
            consumers: Vec::new(),
            admin: None,
        }
    }

    fn op(process: Process, type_: Type, op: Op) -> Operation {
        Operation::new(0, 0, type_, process, op)
    }

    fn sent(type_: Type, counter: u64, offset: Option<i64>) -> Operation {
        let value = value_of(0, counter).into();
        let key = "t-0".into();
        op(0, type_, Op::Send(vec![MicroOp::Send { key, offset, value }]))
    }

    fn polled(process: Process, what: &[(i64, u64)]) -> Operation {
        let messages = what.iter().map(|(o, c)| (*o, value_of(0, *c).into())).collect();
        let polls = [("t-0".into(), messages)].into();
        op(process, Type::Ok, Op::Poll(vec![MicroOp::Poll(Some(polls))]))
    }

    fn ids(history: &[Operation]) -> Vec<&'static str> {
        noted(history, Notes::default())
    }

    fn noted(history: &[Operation], notes: Notes) -> Vec<&'static str> {
        let found = judge(&workload(), history, &notes, LAST, false, BTreeSet::new());
        found.iter().map(|v| v.id).collect()
    }

    #[test]
    fn each_rule_can_fail() {
        let (a, b) = (sent(Type::Ok, 0, Some(0)), sent(Type::Ok, 1, Some(1)));
        let both = [(0, 0), (1, 1)];
        assert_eq!(ids(&[a.clone(), b.clone(), polled(LAST, &both)]), [""; 0]);
        assert_eq!(ids(&[a.clone(), b.clone(), polled(LAST, &both[..1])]), ["L1"]);
        assert_eq!(
            ids(&[a.clone(), b.clone(), polled(LAST, &[(0, 0), (2, 1)])]),
            ["I2"]
        );
        assert_eq!(
            ids(&[a.clone(), b, polled(LAST, &[(0, 0), (1, 1), (2, 1)])]),
            ["I1"]
        );
        let refused = sent(Type::Fail, 1, None);
        assert_eq!(ids(&[a.clone(), refused, polled(LAST, &both)]), ["I1"]);
        let open = sent(Type::Info, 1, None);
        let shown = polled(5, &both);
        assert_eq!(
            ids(&[a.clone(), open.clone(), shown, polled(LAST, &both[..1])]),
            ["L6"]
        );
        let other = polled(5, &[(0, 1)]);
        assert_eq!(ids(&[a, open.clone(), other, polled(LAST, &both)]), ["L6"]);
        let (late, early) = (sent(Type::Ok, 0, Some(1)), sent(Type::Ok, 1, Some(0)));
        assert_eq!(ids(&[late, early, polled(LAST, &[(0, 1), (1, 0)])]), ["I3"]);
        assert_eq!(ids(&[open, polled(LAST, &[(0, 7)])]), ["D2"]);
    }

    #[test]
    fn ends_never_go_back() {
        let about = |f: &str, type_, value| op(7, type_, Op::Other(f.to_owned(), value));
        let asked = || about("list_offsets", Type::Invoke, json!({"key": "t-0"}));
        let told = |earliest: i64, latest: i64| {
            let value = json!({"key": "t-0", "earliest": earliest, "latest": latest});
            about("list_offsets", Type::Ok, value)
        };
        let (a, all) = (sent(Type::Ok, 0, Some(0)), polled(LAST, &[(0, 0)]));
        assert_eq!(ids(&[a.clone(), asked(), told(0, 1), all.clone()]), [""; 0]);
        assert_eq!(ids(&[a.clone(), asked(), told(0, 0), all.clone()]), ["L4"]);
        // It was asked for before.
        assert_eq!(ids(&[asked(), a.clone(), told(0, 0), all.clone()]), [""; 0]);
        let deleted = json!({"key": "t-0", "before": 1, "low_watermark": 1});
        let deleted = about("delete_records", Type::Ok, deleted);
        let gone = polled(LAST, &[]);
        assert_eq!(
            ids(&[a.clone(), deleted.clone(), asked(), told(1, 1), gone.clone()]),
            [""; 0]
        );
        assert_eq!(
            ids(&[a.clone(), deleted.clone(), asked(), told(0, 1), gone]),
            ["D1"]
        );
        assert_eq!(ids(&[a, deleted, all]), ["D1"]);
    }

    #[test]
    fn what_producers_noted_is_judged() {
        let batch = |process, refused_as_gap| AckedBatch {
            time: 0,
            process,
            topic: "t".to_owned(),
            partition: 0,
            producer_id: 3,
            producer_epoch: 0,
            base_sequence: 0,
            base_offset: Some(0),
            records_count: 1,
            acks: -1,
            attempts: 1,
            refused_as_gap,
            records: vec![(Some(0), value_of(process, 0))],
        };
        let with = |acked| Notes {
            acked,
            ..Notes::default()
        };
        assert_eq!(noted(&[], with(vec![batch(0, false), batch(0, false)])), [""; 0]);
        assert_eq!(noted(&[], with(vec![batch(0, false), batch(1, false)])), ["I4"]);
        assert_eq!(noted(&[], with(vec![batch(0, true)])), ["I2"]);
    }

    #[test]
    fn what_stands_was_not_out_of_order_unless_it_came_late() {
        let refused = || Notes {
            out_of_order: vec![OutOfOrder {
                time: 0,
                process: 0,
                topic: "t".to_owned(),
                partition: 0,
                value: value_of(0, 1),
            }],
            ..Notes::default()
        };
        for (before, id) in [
            (sent(Type::Ok, 0, Some(0)), Some("I2")),
            (sent(Type::Info, 0, None), None),
        ] {
            let history = |log: &[(i64, u64)]| {
                let ours = sent(Type::Info, 1, None);
                noted(&[before.clone(), ours, polled(LAST, log)], refused())
            };
            assert_eq!(history(&[(0, 0), (1, 1)]), id.into_iter().collect::<Vec<_>>());
            assert_eq!(history(&[(0, 0)]), [""; 0]);
        }
    }

    #[test]
    fn what_was_deleted_may_be_gone() {
        let value = serde_json::json!({"key": "t-0", "before": 1});
        let delete = op(7, Type::Info, Op::Other("delete_records".to_owned(), value));
        let (a, b) = (sent(Type::Ok, 0, Some(0)), sent(Type::Ok, 1, Some(1)));
        assert_eq!(
            ids(&[a.clone(), b.clone(), delete.clone(), polled(LAST, &[(1, 1)])]),
            [""; 0]
        );
        assert_eq!(ids(&[a, b, delete, polled(LAST, &[])]), ["L1"]);
    }
}

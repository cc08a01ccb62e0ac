//! Anomalies of order: skips and steps back, within an operation and from one operation of a process to its next.
//!
//! Two records that follow each other for a reader (or a sender) should stand at indexes that follow each other. `delta` is how far
//! apart they are: 1 is right, more is a skip over values that are known to be there, 0 or less a step back. Where an index is not
//! known nothing is said.

use std::collections::BTreeMap;
use std::ops::Range;

use brokkr_history::{Process, Type};
use serde_json::{Value, json};

use super::records::Known;
use super::store::{F, Marks, Row};
use crate::Finding;

/// How many skipped values a finding lists; `delta` tells how many there are.
const SKIPPED_MAX: u32 = 1024;

/// Two records in the order in which they came, and how far apart they stand.
struct Gap {
    key: u32,
    values: [u32; 2],
    delta: i64,
    /// The indexes between them, but for what was deleted on request.
    between: Range<u32>,
}

impl Gap {
    fn new(known: Known<'_>, a: u32, b: u32) -> Option<Self> {
        let (i, j) = (known.orders.index(a)?, known.orders.index(b)?);
        let delta = i64::from(j) - i64::from(i);
        let key = known.store.key_of(a);
        Some(Self {
            key,
            values: [a, b],
            delta,
            between: (i + 1).max(known.orders.deleted(key))..j,
        })
    }

    fn is_skip(&self) -> bool {
        self.delta > 1 && !self.between.is_empty()
    }

    fn is_back(&self) -> bool {
        self.delta < 1
    }

    fn json(&self, known: Known<'_>) -> Value {
        let values = self.values.map(|v| known.json(v));
        json!({"key": known.key(self.key), "values": values, "delta": self.delta})
    }

    /// What was skipped.
    fn values_between<'a>(&self, known: Known<'a>) -> &'a [u32] {
        let (begin, end) = (self.between.start, self.between.end);
        let end = end.min(begin.saturating_add(SKIPPED_MAX));
        let all = known.orders.by_index(self.key);
        all.get(begin as usize..end as usize).unwrap_or_default()
    }

    fn skipped(&self, known: Known<'_>) -> Value {
        let all = self.values_between(known).iter();
        all.map(|v| known.json(*v)).collect()
    }

    /// What attests the first of what was skipped.
    fn witnesses(&self, known: Known<'_>) -> impl Iterator<Item = u64> {
        let first = self.values_between(known).first();
        first.into_iter().flat_map(move |v| known.witnesses(*v))
    }

    fn text(&self, known: Known<'_>, who: &str, did: &str) -> String {
        let [a, b] = self.values.map(|v| known.store.val(v));
        let key = known.key(self.key);
        match (self.delta, self.values_between(known).first()) {
            (2.., Some(first)) => {
                let (n, first) = (self.delta - 1, known.store.val(*first));
                format!("{who} {did} {b} after {a} in {key}, over {n} between them, the first is {first}")
            }
            (0, _) => format!("{who} {did} {a} twice in {key}"),
            _ => format!("{who} {did} {b} after {a} in {key}, though it stands before it"),
        }
    }
}

/// What was found: steps over something, and steps back.
#[derive(Default)]
pub(super) struct Found {
    pub(super) skips: Vec<Finding>,
    pub(super) backs: Vec<Finding>,
}

/// Within one operation: what it did between two records of a key, `int-…-skip` and `int-nonmonotonic-…`.
fn within<'a>(known: Known<'a>, rows: fn(Known<'a>, u32) -> &'a [Row], did: &str, moved: bool) -> Found {
    let mut found = Found::default();
    let mut last = Marks::<u32>::new(known.store.keys.len());
    for (op, row) in known
        .store
        .rows()
        .filter(|(_, row)| row.f == F::Micro && !row.open)
    {
        last.clear();
        let index = u64::from(row.index);
        // Where a key was given to another and back, a poll need not go on where the one before it ended.
        let moved = known.store.rebalanced.get(&op).filter(|_| moved);
        for row in rows(known, op).iter().filter(|r| known.store.is_known(r.value)) {
            let key = known.store.key_of(row.value);
            let before = last.set(key, row.value);
            let gap = before.filter(|_| !moved.is_some_and(|keys| keys.contains(&key)));
            let Some(gap) = gap.and_then(|before| Gap::new(known, before, row.value)) else {
                continue;
            };
            if !gap.is_skip() && !gap.is_back() {
                continue;
            }
            let mut data = gap.json(known);
            data["op"] = json!(index);
            let text = gap.text(known, &format!("operation {index}"), did);
            if gap.is_skip() {
                data["skipped"] = gap.skipped(known);
                let ops = gap.witnesses(known).chain([index]);
                found.skips.push(Finding::new(data, ops, text));
            } else {
                found.backs.push(Finding::new(data, [index], text));
            }
        }
    }
    found
}

/// `int-poll-skip`, `int-nonmonotonic-poll`.
pub(super) fn polls_within(known: Known<'_>) -> Found {
    within(known, |known, op| known.store.reads_of(op), "read", true)
}

/// `int-send-skip`, `int-nonmonotonic-send`.
pub(super) fn sends_within(known: Known<'_>) -> Found {
    within(known, |known, op| known.store.writes_of(op), "sent", false)
}

/// Where processes are: of each key the last record, and whose it was.
#[derive(Default)]
struct Positions(BTreeMap<Process, BTreeMap<u32, (u32, u32)>>);

impl Positions {
    fn last(&self, process: Process, key: u32) -> Option<(u32, u32)> {
        self.0.get(&process)?.get(&key).copied()
    }

    fn set(&mut self, process: Process, key: u32, value: u32, op: u32) {
        self.0.entry(process).or_default().insert(key, (value, op));
    }

    /// A process has other partitions: it stays where it was in those it keeps.
    fn assign(&mut self, known: Known<'_>, process: Process, op: u32) {
        let keys = known.store.keys_assigned(op);
        if let Some(positions) = self.0.get_mut(&process) {
            if known.store.ops[op as usize].seek {
                positions.clear();
            }
            positions.retain(|key, _| keys.contains(key));
        }
    }
}

/// The first and the last record of each key among an operation's rows.
fn ends(known: Known<'_>, rows: &[Row], marks: &mut Marks<u32>) -> Vec<(u32, u32, u32)> {
    marks.clear();
    let mut ends: Vec<(u32, u32, u32)> = Vec::new();
    for row in rows.iter().filter(|r| known.store.is_known(r.value)) {
        let key = known.store.key_of(row.value);
        match marks.get(key) {
            Some(at) => ends[at as usize].2 = row.value,
            None => {
                let at = super::store::number(ends.len());
                marks.set(key, at);
                ends.push((key, row.value, row.value));
            }
        }
    }
    ends
}

/// `poll-skip`, `nonmonotonic-poll`: a process's poll doesn't go on where its last one ended. A failed operation is judged too, but
/// it moves nothing: the next one begins where the last that happened ended.
pub(super) fn polls_between(known: Known<'_>) -> Found {
    let mut found = Found::default();
    let mut at = Positions::default();
    let mut marks = Marks::<u32>::new(known.store.keys.len());
    for (op, row) in known.store.rows().filter(|(_, row)| !row.open) {
        if row.f != F::Micro {
            if row.type_ != Type::Fail {
                at.assign(known, row.process, op);
            }
            continue;
        }
        for (key, first, last) in ends(known, known.store.reads_of(op), &mut marks) {
            if let Some((before, before_op)) = at.last(row.process, key)
                && let Some(gap) = Gap::new(known, before, first)
            {
                let ops = [known.store.index(before_op), u64::from(row.index)];
                let text = || gap.text(known, &format!("process {}", row.process), "read");
                if gap.is_skip() {
                    let data = json!({
                        "key": known.key(key), "delta": gap.delta,
                        "skipped": gap.skipped(known), "ops": ops,
                    });
                    found
                        .skips
                        .push(Finding::new(data, gap.witnesses(known).chain(ops), text()));
                } else if gap.is_back() {
                    let mut data = gap.json(known);
                    data["ops"] = json!(ops);
                    found.backs.push(Finding::new(data, ops, text()));
                }
            }
            if row.type_ == Type::Ok {
                at.set(row.process, key, last, op);
            }
        }
    }
    found
}

/// `nonmonotonic-send`: what a process sent stands before what it sent earlier.
pub(super) fn sends_between(known: Known<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut at = Positions::default();
    let mut marks = Marks::<u32>::new(known.store.keys.len());
    for (op, row) in known
        .store
        .rows()
        .filter(|(_, row)| !row.open && row.type_ != Type::Fail)
    {
        if row.f != F::Micro {
            at.assign(known, row.process, op);
            continue;
        }
        for (key, first, last) in ends(known, known.store.writes_of(op), &mut marks) {
            let before = at.last(row.process, key);
            if let Some((before, before_op)) = before
                && let Some(gap) = Gap::new(known, before, first).filter(Gap::is_back)
            {
                let ops = [known.store.index(before_op), u64::from(row.index)];
                let mut data = gap.json(known);
                data["ops"] = json!(ops);
                let text = gap.text(known, &format!("process {}", row.process), "sent");
                findings.push(Finding::new(data, ops, text));
            }
            at.set(row.process, key, last, op);
        }
    }
    findings
}

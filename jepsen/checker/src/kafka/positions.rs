//! Anomalies of order: skips and steps back, within an operation and from one operation of a process to its next.
//!
//! Consecutive records of a reader (or a sender) should have consecutive indexes. `delta` is the distance: 1 is correct, more
//! is a skip over values that are known to exist, 0 or less is a step back. If an index is unknown, nothing is reported.

use std::collections::BTreeMap;
use std::ops::Range;

use brokkr_history::{Process, Type};
use serde_json::{Value, json};

use super::records::HistoryView;
use super::store::{Marks, OpKind, Row};
use crate::Finding;

/// Maximum number of skipped values in a finding; `delta` has the full count.
const SKIPPED_MAX: u32 = 1024;

/// Two consecutive records, and the distance of their indexes.
struct Gap {
    key: u32,
    values: [u32; 2],
    delta: i64,
    /// The indexes between them, without those deleted on request.
    between: Range<u32>,
}

impl Gap {
    fn new(view: HistoryView<'_>, a: u32, b: u32) -> Option<Self> {
        let (i, j) = (view.orders.index(a)?, view.orders.index(b)?);
        let delta = i64::from(j) - i64::from(i);
        let key = view.store.key_of(a);
        Some(Self {
            key,
            values: [a, b],
            delta,
            between: (i + 1).max(view.orders.deleted(key))..j,
        })
    }

    fn is_skip(&self) -> bool {
        self.delta > 1 && !self.between.is_empty()
    }

    fn is_back(&self) -> bool {
        self.delta < 1
    }

    fn json(&self, view: HistoryView<'_>) -> Value {
        let values = self.values.map(|v| view.json(v));
        json!({"key": view.key(self.key), "values": values, "delta": self.delta})
    }

    /// The skipped values.
    fn values_between<'a>(&self, view: HistoryView<'a>) -> &'a [u32] {
        let (begin, end) = (self.between.start, self.between.end);
        let end = end.min(begin.saturating_add(SKIPPED_MAX));
        let all = view.orders.by_index(self.key);
        all.get(begin as usize..end as usize).unwrap_or_default()
    }

    fn skipped(&self, view: HistoryView<'_>) -> Value {
        let all = self.values_between(view).iter();
        all.map(|v| view.json(*v)).collect()
    }

    /// The operations that prove the first skipped value.
    fn witnesses(&self, view: HistoryView<'_>) -> impl Iterator<Item = u64> {
        let first = self.values_between(view).first();
        first.into_iter().flat_map(move |v| view.witnesses(*v))
    }

    fn text(&self, view: HistoryView<'_>, actor: &str, verb: &str) -> String {
        let [a, b] = self.values.map(|v| view.store.val(v));
        let key = view.key(self.key);
        match (self.delta, self.values_between(view).first()) {
            (2.., Some(first)) => {
                let (n, first) = (self.delta - 1, view.store.val(*first));
                format!("{actor} {verb} {b} after {a} in {key} and skipped {n} records, the first is {first}")
            }
            (0, _) => format!("{actor} {verb} {a} twice in {key}"),
            _ => format!("{actor} {verb} {b} after {a} in {key}, although it is before it"),
        }
    }
}

/// Findings: skips, and steps back.
#[derive(Default)]
pub(super) struct SkipsAndBacks {
    pub(super) skips: Vec<Finding>,
    pub(super) backs: Vec<Finding>,
}

/// Judges consecutive records of a key within one operation: `int-…-skip` and `int-nonmonotonic-…`.
fn within<'a>(
    view: HistoryView<'a>,
    rows: fn(HistoryView<'a>, u32) -> &'a [Row],
    verb: &str,
    moved: bool,
) -> SkipsAndBacks {
    let mut found = SkipsAndBacks::default();
    let mut last = Marks::<u32>::new(view.store.keys.len());
    for (op, row) in view
        .store
        .rows()
        .filter(|(_, row)| row.f == OpKind::Micro && !row.open)
    {
        last.clear();
        let index = u64::from(row.index);
        // If a partition moved away and back, a poll need not continue at the previous position.
        let moved = view.store.rebalanced.get(&op).filter(|_| moved);
        for row in rows(view, op).iter().filter(|r| view.store.is_known(r.value)) {
            let key = view.store.key_of(row.value);
            let before = last.set(key, row.value);
            let gap = before.filter(|_| !moved.is_some_and(|keys| keys.contains(&key)));
            let Some(gap) = gap.and_then(|before| Gap::new(view, before, row.value)) else {
                continue;
            };
            if !gap.is_skip() && !gap.is_back() {
                continue;
            }
            let mut data = gap.json(view);
            data["op"] = json!(index);
            let text = gap.text(view, &format!("operation {index}"), verb);
            if gap.is_skip() {
                data["skipped"] = gap.skipped(view);
                let ops = gap.witnesses(view).chain([index]);
                found.skips.push(Finding::new(data, ops, text));
            } else {
                found.backs.push(Finding::new(data, [index], text));
            }
        }
    }
    found
}

/// `int-poll-skip`, `int-nonmonotonic-poll`.
pub(super) fn polls_within(view: HistoryView<'_>) -> SkipsAndBacks {
    within(view, |view, op| view.store.reads_of(op), "read", true)
}

/// `int-send-skip`, `int-nonmonotonic-send`.
pub(super) fn sends_within(view: HistoryView<'_>) -> SkipsAndBacks {
    within(view, |view, op| view.store.writes_of(op), "sent", false)
}

/// The positions of processes: the last record of each key, and the operation that read or sent it.
#[derive(Default)]
struct Positions(BTreeMap<Process, BTreeMap<u32, (u32, u32)>>);

impl Positions {
    fn last(&self, process: Process, key: u32) -> Option<(u32, u32)> {
        self.0.get(&process)?.get(&key).copied()
    }

    fn set(&mut self, process: Process, key: u32, value: u32, op: u32) {
        self.0.entry(process).or_default().insert(key, (value, op));
    }

    /// A new assignment: the process keeps its position in the partitions that it keeps.
    fn assign(&mut self, view: HistoryView<'_>, process: Process, op: u32) {
        let keys = view.store.keys_assigned(op);
        if let Some(positions) = self.0.get_mut(&process) {
            if view.store.ops[op as usize].seek {
                positions.clear();
            }
            positions.retain(|key, _| keys.contains(key));
        }
    }
}

/// The first and the last record of each key among an operation's rows.
fn ends(view: HistoryView<'_>, rows: &[Row], marks: &mut Marks<u32>) -> Vec<(u32, u32, u32)> {
    marks.clear();
    let mut ends: Vec<(u32, u32, u32)> = Vec::new();
    for row in rows.iter().filter(|r| view.store.is_known(r.value)) {
        let key = view.store.key_of(row.value);
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

/// `poll-skip`, `nonmonotonic-poll`: a process's poll does not continue at its previous position. A failed operation is
/// judged too, but does not change the position.
pub(super) fn polls_between(view: HistoryView<'_>) -> SkipsAndBacks {
    let mut found = SkipsAndBacks::default();
    let mut at = Positions::default();
    let mut marks = Marks::<u32>::new(view.store.keys.len());
    for (op, row) in view.store.rows().filter(|(_, row)| !row.open) {
        if row.f != OpKind::Micro {
            if row.type_ != Type::Fail {
                at.assign(view, row.process, op);
            }
            continue;
        }
        for (key, first, last) in ends(view, view.store.reads_of(op), &mut marks) {
            if let Some((before, before_op)) = at.last(row.process, key)
                && let Some(gap) = Gap::new(view, before, first)
            {
                let ops = [view.store.index(before_op), u64::from(row.index)];
                let text = || gap.text(view, &format!("process {}", row.process), "read");
                if gap.is_skip() {
                    let data = json!({
                        "key": view.key(key), "delta": gap.delta,
                        "skipped": gap.skipped(view), "ops": ops,
                    });
                    found
                        .skips
                        .push(Finding::new(data, gap.witnesses(view).chain(ops), text()));
                } else if gap.is_back() {
                    let mut data = gap.json(view);
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

/// `nonmonotonic-send`: a process's record is before one that it sent earlier.
pub(super) fn sends_between(view: HistoryView<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut at = Positions::default();
    let mut marks = Marks::<u32>::new(view.store.keys.len());
    for (op, row) in view
        .store
        .rows()
        .filter(|(_, row)| !row.open && row.type_ != Type::Fail)
    {
        if row.f != OpKind::Micro {
            at.assign(view, row.process, op);
            continue;
        }
        for (key, first, last) in ends(view, view.store.writes_of(op), &mut marks) {
            let before = at.last(row.process, key);
            if let Some((before, before_op)) = before
                && let Some(gap) = Gap::new(view, before, first).filter(Gap::is_back)
            {
                let ops = [view.store.index(before_op), u64::from(row.index)];
                let mut data = gap.json(view);
                data["ops"] = json!(ops);
                let text = gap.text(view, &format!("process {}", row.process), "sent");
                findings.push(Finding::new(data, ops, text));
            }
            at.set(row.process, key, last, op);
        }
    }
    findings
}

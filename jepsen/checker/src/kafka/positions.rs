//! Anomalies of order: skips and steps back, within an operation and from one operation of a process to its next.
//!
//! Consecutive records of a reader (or a sender) should have consecutive indexes. `delta` is the distance: 1 is correct, more
//! is a skip over values that are known to exist, 0 or less is a step back. If an index is unknown, nothing is reported.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use brokkr_history::{Process, Seek, Type};
use serde_json::{Value, json};

use super::known::KnownEnds;
use super::records::HistoryView;
use super::store::{Marks, NONE, OpKind, Row};
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
    /// Of two records, the second of which an operation had sent or read at this index of the history.
    fn new(view: HistoryView<'_>, a: u32, b: u32, at: u32) -> Option<Self> {
        let (i, j) = (view.orders.index(a)?, view.orders.index(b)?);
        let delta = i64::from(j) - i64::from(i);
        let key = view.store.key_of(a);
        Some(Self {
            key,
            values: [a, b],
            delta,
            between: (i + 1).max(view.deletes.indexes_at(key, at))..j,
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
        for row_of in rows(view, op).iter().filter(|r| view.store.is_known(r.value)) {
            let key = view.store.key_of(row_of.value);
            let before = last.set(key, row_of.value);
            let gap = before.filter(|_| !moved.is_some_and(|keys| keys.contains(&key)));
            let Some(gap) = gap.and_then(|before| Gap::new(view, before, row_of.value, row.index)) else {
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

/// Where a process is in a key.
#[derive(Clone, Copy, Debug)]
enum Position {
    /// At a record, which an operation read or sent.
    After(u32, u32),
    /// Where an `assign` sought.
    At(Seek, u32),
}

/// The positions of processes in each key.
#[derive(Default)]
struct Positions(BTreeMap<Process, BTreeMap<u32, Position>>);

impl Positions {
    fn of(&self, process: Process, key: u32) -> Option<Position> {
        self.0.get(&process)?.get(&key).copied()
    }

    /// The last record, and the operation that read or sent it.
    fn last(&self, process: Process, key: u32) -> Option<(u32, u32)> {
        match self.of(process, key)? {
            Position::After(value, op) => Some((value, op)),
            Position::At(..) => None,
        }
    }

    fn set(&mut self, process: Process, key: u32, value: u32, op: u32) {
        let at = Position::After(value, op);
        self.0.entry(process).or_default().insert(key, at);
    }

    /// A new assignment: the process keeps its position in the partitions that it keeps, except where it sought.
    fn assign(&mut self, view: HistoryView<'_>, process: Process, op: u32) {
        let keys = view.store.keys_assigned(op);
        if let Some(positions) = self.0.get_mut(&process) {
            positions.retain(|key, _| keys.contains(key));
        }
        let seeks = view.store.seeks_of(op).iter();
        for (key, seek) in seeks.filter(|(key, _)| keys.contains(key)) {
            let at = Position::At(*seek, op);
            self.0.entry(process).or_default().insert(*key, at);
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

/// Why a subscriber's skips and steps back are allowed.
const SUBSCRIBED: &str = "its process subscribes, so partitions move between it and others";

/// What [`polls_between`] finds.
#[derive(Default)]
pub(super) struct PollsFound {
    pub(super) skips: Vec<Finding>,
    pub(super) backs: Vec<Finding>,
    /// `wrong-start`.
    pub(super) starts: Vec<Finding>,
}

/// `poll-skip`, `nonmonotonic-poll`: a process's poll does not continue at its previous position; `wrong-start`: nor where it
/// sought. A failed operation is judged too, but does not change the position. A process that subscribes, until it assigns
/// again, is allowed both.
pub(super) fn polls_between(view: HistoryView<'_>, known: &KnownEnds) -> PollsFound {
    let mut found = PollsFound::default();
    let mut at = Positions::default();
    let mut subscribed = BTreeSet::new();
    let mut marks = Marks::<u32>::new(view.store.keys.len());
    for (op, row) in view.store.rows().filter(|(_, row)| !row.open) {
        if row.f != OpKind::Micro {
            if row.type_ != Type::Fail {
                at.assign(view, row.process, op);
            }
            match (row.f, row.type_) {
                (OpKind::Subscribe, Type::Ok) => drop(subscribed.insert(row.process)),
                (OpKind::Assign, Type::Ok) => drop(subscribed.remove(&row.process)),
                _ => {}
            }
            continue;
        }
        let waived = |finding: Finding| match subscribed.contains(&row.process) {
            true => finding.waived(SUBSCRIBED),
            false => finding,
        };
        for (key, first, last) in ends(view, view.store.reads_of(op), &mut marks) {
            match at.of(row.process, key) {
                Some(Position::After(before, before_op)) => {
                    let steps = between(view, (before, before_op), first, op);
                    found.skips.extend(steps.skips.into_iter().map(waived));
                    found.backs.extend(steps.backs.into_iter().map(waived));
                }
                Some(Position::At(seek, assign)) => {
                    let start = wrong_start(view, known, seek, assign, first, op);
                    found.starts.extend(start);
                }
                None => {}
            }
            if row.type_ == Type::Ok {
                at.set(row.process, key, last, op);
            }
        }
    }
    found
}

/// Whether a process's poll skips, or steps back, from the last record before to its first one.
fn between(view: HistoryView<'_>, before: (u32, u32), first: u32, op: u32) -> SkipsAndBacks {
    let mut found = SkipsAndBacks::default();
    let row = &view.store.ops[op as usize];
    let (before, before_op) = before;
    let Some(gap) = Gap::new(view, before, first, row.index) else {
        return found;
    };
    let ops = [view.store.index(before_op), u64::from(row.index)];
    let text = || gap.text(view, &format!("process {}", row.process), "read");
    if gap.is_skip() {
        let data = json!({
            "key": view.key(gap.key), "delta": gap.delta,
            "skipped": gap.skipped(view), "ops": ops,
        });
        let ops = gap.witnesses(view).chain(ops);
        found.skips.push(Finding::new(data, ops, text()));
    } else if gap.is_back() {
        let mut data = gap.json(view);
        data["ops"] = json!(ops);
        found.backs.push(Finding::new(data, ops, text()));
    }
    found
}

/// `wrong-start`: after a seek, the first record that a process reads is not the first one there. After a seek to the end it
/// is below a record that was known before.
fn wrong_start(
    view: HistoryView<'_>,
    known: &KnownEnds,
    seek: Seek,
    assign: u32,
    first: u32,
    op: u32,
) -> Option<Finding> {
    let (row, assign_row) = (&view.store.ops[op as usize], &view.store.ops[assign as usize]);
    let key = view.store.key_of(first);
    let index = view.orders.index(first)?;
    let (from, until, to) = match seek {
        Seek::Beginning => (0, u32::MAX, "the beginning".to_owned()),
        Seek::Offset(offset) => {
            let from = view.orders.index_of_offset(key, offset);
            (from, u32::MAX, format!("offset {offset}"))
        }
        Seek::End => {
            let (end, _) = known
                .before(key, assign_row.began)
                .filter(|_| assign_row.began != NONE)?;
            let from = view.orders.index_of_offset(key, end.saturating_add(1));
            (from, from, "the end".to_owned())
        }
    };
    let begin = from.max(view.deletes.indexes_at(key, row.index));
    let skipped = begin..index.min(until);
    let by_index = view.orders.by_index(key);
    let passed = by_index.get(skipped.start as usize..skipped.end as usize);
    // A record that is there more than once may be read at any of its places: that is a duplicate.
    if index >= from && passed.unwrap_or_default().iter().all(|value| *value == first) {
        return None;
    }
    let ops = [view.store.index(assign), u64::from(row.index)];
    let end = skipped.end.min(skipped.start.saturating_add(SKIPPED_MAX));
    let values = by_index.get(skipped.start as usize..end as usize);
    let values = values.unwrap_or_default();
    let data = json!({
        "key": view.key(key), "value": view.json(first), "sought": seek, "ops": ops,
        "skipped": values.iter().map(|v| view.json(*v)).collect::<Vec<_>>(),
    });
    let (process, key, val) = (row.process, view.key(key), view.store.val(first));
    let text = match values.first() {
        Some(skipped) => format!(
            "process {process} sought {to} of {key} and read {val} first, although {} is before it",
            view.store.val(*skipped)
        ),
        None => format!("process {process} sought {to} of {key} and read {val}, which is below it"),
    };
    let witnesses = values.first().into_iter().flat_map(|v| view.witnesses(*v));
    Some(Finding::new(data, witnesses.chain(ops), text))
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
                && let Some(gap) = Gap::new(view, before, first, row.index).filter(Gap::is_back)
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

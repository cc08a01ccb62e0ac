//! Anomalies of single records: inconsistent offsets, duplicates, aborted and early reads, lost, phantom and unseen records.

use std::collections::{BTreeMap, BTreeSet};

use brokkr_history::{Process, Type};
use serde_json::{Value, json};

use super::deletes::Deletes;
use super::order::{Facts, LogEntry, Orders, READ_OK, SENT_FAIL, SENT_OK};
use super::store::{Marks, NONE, OpKind, Store, number};
use crate::Finding;

/// Read access to the history for the checks.
#[derive(Clone, Copy)]
pub(super) struct HistoryView<'a> {
    pub(super) store: &'a Store,
    pub(super) facts: &'a Facts,
    pub(super) orders: &'a Orders,
    pub(super) deletes: &'a Deletes,
}

impl<'a> HistoryView<'a> {
    pub(super) fn key(self, key: u32) -> &'a str {
        self.store.key_name(key)
    }

    /// A value as JSON.
    pub(super) fn json(self, value: u32) -> Value {
        json!(self.store.val(value))
    }

    /// The operations that prove a value: the ones that sent and read it.
    pub(super) fn witnesses(self, value: u32) -> impl Iterator<Item = u64> {
        let of = |ops: &[u32]| {
            Some(ops[value as usize])
                .filter(|op| *op != NONE)
                .map(|op| self.store.index(op))
        };
        of(&self.facts.writer).into_iter().chain(of(&self.facts.reader))
    }

    fn keys(self) -> impl Iterator<Item = u32> {
        0..number(self.store.keys.len())
    }

    /// Operations with micro-operations.
    fn ops(self) -> impl Iterator<Item = (u32, Type)> {
        self.store
            .rows()
            .filter(|(_, row)| row.f == OpKind::Micro)
            .map(|(op, row)| (op, row.type_))
    }

    fn values(self) -> impl Iterator<Item = u32> {
        (0..number(self.store.values_len())).filter(move |v| self.store.is_known(*v))
    }

    /// Whether it may have been deleted.
    fn may_be_deleted(self, value: u32) -> bool {
        let key = self.store.key_of(value);
        let sent = self.facts.began(self.store, value);
        let last = self.orders.last(value);
        last.is_some_and(|last| self.deletes.cover(key, last, sent))
    }
}

/// Numbers of records.
pub(super) struct RecordCounts {
    /// Records that were acknowledged.
    pub(super) acked: u64,
    /// Records that a successful operation read.
    pub(super) read: u64,
    /// Number of processes that read something of each key.
    pub(super) readers: BTreeMap<u32, usize>,
}

pub(super) fn count(view: HistoryView<'_>) -> RecordCounts {
    let count = |flag| view.values().filter(|v| view.facts.has(*v, flag)).count() as u64;
    let mut readers: BTreeSet<(u32, Process)> = BTreeSet::new();
    for (op, _) in view.ops().filter(|(_, type_)| *type_ == Type::Ok) {
        let process = view.store.ops[op as usize].process;
        for read in view.store.reads_of(op) {
            if view.store.is_known(read.value) {
                readers.insert((view.store.key_of(read.value), process));
            }
        }
    }
    let mut by_key = BTreeMap::new();
    for (key, _) in readers {
        *by_key.entry(key).or_default() += 1;
    }
    RecordCounts {
        acked: count(SENT_OK),
        read: count(READ_OK),
        readers: by_key,
    }
}

/// `inconsistent-offsets`: more than one value at an offset.
pub(super) fn inconsistent_offsets(view: HistoryView<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for key in view.keys() {
        let offsets = view.orders.entries(key).chunk_by(|a, b| a.offset == b.offset);
        for (index, entries) in offsets.enumerate().filter(|(_, entries)| entries.len() > 1) {
            findings.push(inconsistent(view, key, index, entries));
        }
    }
    findings
}

fn inconsistent(view: HistoryView<'_>, key: u32, index: usize, entries: &[LogEntry]) -> Finding {
    let mut values: Vec<_> = entries.iter().map(|e| view.store.val(e.value).clone()).collect();
    values.sort();
    let (key, offset) = (view.key(key), entries[0].offset);
    let data = json!({"key": key, "offset": offset, "index": index, "values": values});
    let ops = entries.iter().flat_map(|e| view.witnesses(e.value));
    let text = format!(
        "offset {offset} of {key} was seen with {} different values",
        values.len()
    );
    Finding::new(data, ops, text)
}

/// `duplicate`: a value at more than one offset.
pub(super) fn duplicates(view: HistoryView<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for key in view.keys() {
        let mut several: Vec<_> = view
            .orders
            .entries(key)
            .iter()
            .filter(|e| view.orders.first(e.value) != view.orders.last(e.value))
            .collect();
        several.sort_by_key(|e| (e.value, e.offset));
        for entries in several.chunk_by(|a, b| a.value == b.value) {
            let (key, value) = (view.key(key), entries[0].value);
            let offsets: Vec<_> = entries.iter().map(|e| e.offset).collect();
            let count = offsets.len();
            let data = json!({"key": key, "value": view.json(value), "count": count, "offsets": offsets});
            let text = format!(
                "{} is in {key} {count} times, at {offsets:?}",
                view.store.val(value)
            );
            findings.push(Finding::new(data, view.witnesses(value), text));
        }
    }
    findings
}

/// `G1a`, aborted read: a value was read whose send certainly did not happen.
pub(super) fn aborted_reads(view: HistoryView<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (op, _) in view.ops().filter(|(_, type_)| *type_ == Type::Ok) {
        for read in view.store.reads_of(op) {
            let value = read.value;
            if !view.store.is_known(value) || !view.facts.has(value, SENT_FAIL) {
                continue;
            }
            let key = view.key(view.store.key_of(value));
            let writer = view.store.index(view.facts.writer[value as usize]);
            let reader = view.store.index(op);
            let data = json!({"key": key, "value": view.json(value), "writer": writer, "reader": reader});
            let val = view.store.val(value);
            let text = format!(
                "operation {reader} read {val} from {key}, although its send (operation {writer}) failed"
            );
            findings.push(Finding::new(data, [writer, reader], text));
        }
    }
    findings
}

/// `G1b`, intermediate read: an operation's last record of a key is not the last one that its sender sent there.
pub(super) fn intermediate_reads(view: HistoryView<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut last = Marks::<u32>::new(view.store.keys.len());
    for (op, _) in view.ops().filter(|(_, type_)| *type_ == Type::Ok) {
        last.clear();
        let mut keys = Vec::new();
        for read in view
            .store
            .reads_of(op)
            .iter()
            .filter(|r| view.store.is_known(r.value))
        {
            let key = view.store.key_of(read.value);
            if last.set(key, read.value).is_none() {
                keys.push(key);
            }
        }
        for key in keys {
            let value = last.get(key).expect("marked above");
            let writer = view.facts.writer[value as usize];
            if writer == NONE || writer == op {
                continue;
            }
            let mut sent = view.store.writes_of(writer).iter().rev().map(|w| w.value);
            let final_ = sent.find(|v| view.store.key_of(*v) == key);
            let Some(final_) = final_.filter(|v| *v != value) else {
                continue;
            };
            let (key, writer, reader) = (view.key(key), view.store.index(writer), view.store.index(op));
            let data = json!({
                "key": key, "value": view.json(value), "final": view.json(final_),
                "writer": writer, "reader": reader,
            });
            let text = format!(
                "operation {reader} read {key} only up to {}, of operation {writer}, which sent {} as well",
                view.store.val(value),
                view.store.val(final_)
            );
            findings.push(Finding::new(data, [writer, reader], text));
        }
    }
    findings
}

/// `precommitted-read`: an operation read its own record. Kafka returns a record only after its transaction is committed.
pub(super) fn precommitted_reads(view: HistoryView<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut sent = Marks::<()>::new(view.store.values_len());
    let mut reported = Marks::<()>::new(view.store.keys.len());
    for (op, _) in view.ops() {
        let (reads, writes) = (view.store.reads_of(op), view.store.writes_of(op));
        if reads.is_empty() || writes.is_empty() {
            continue;
        }
        sent.clear();
        reported.clear();
        for write in writes.iter().filter(|w| view.store.is_known(w.value)) {
            sent.set(write.value, ());
        }
        for read in reads.iter().filter(|r| sent.get(r.value).is_some()) {
            let key = view.store.key_of(read.value);
            if reported.set(key, ()).is_some() {
                continue;
            }
            let (key, index) = (view.key(key), view.store.index(op));
            let data = json!({"op": index, "key": key, "value": view.json(read.value)});
            let text = format!(
                "operation {index} read {} from {key}, which it sent itself",
                view.store.val(read.value)
            );
            findings.push(Finding::new(data, [index], text));
        }
    }
    findings
}

/// `lost-write`: a send that must have happened, at or below the last read position of its key, whose record was never read.
pub(super) fn lost_writes(view: HistoryView<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut reported = Marks::<()>::new(view.store.values_len());
    reported.clear();
    for key in view.keys() {
        // The highest of the first indexes of values that were read: readers certainly reached it.
        let read = view
            .orders
            .entries(key)
            .iter()
            .map(|e| e.value)
            .filter(|v| view.facts.has(*v, READ_OK));
        let Some((max, max_value)) = read.filter_map(|v| Some((view.orders.first(v)?, v))).max() else {
            continue;
        };
        let mut lost: Vec<_> = view
            .orders
            .entries(key)
            .iter()
            .map(|e| e.value)
            .filter(|v| is_lost(view, *v, max))
            .collect();
        lost.sort_by_key(|v| (view.orders.last(*v), *v));
        for value in lost {
            if reported.set(value, ()).is_some() {
                continue;
            }
            let writer = view.store.index(view.facts.writer[value as usize]);
            let max_read = view.store.index(view.facts.reader[max_value as usize]);
            let key = view.key(key);
            let data = json!({
                "key": key, "value": view.json(value), "index": view.orders.first(value),
                "max_read_index": max, "writer": writer, "max_read": max_read,
            });
            let text = format!(
                "{} was sent to {key} by operation {writer}, and never read, though operation {max_read} read what follows it",
                view.store.val(value)
            );
            findings.push(Finding::new(data, [writer, max_read], text));
        }
    }
    findings
}

fn is_lost(view: HistoryView<'_>, value: u32, max: u32) -> bool {
    let writer = view.facts.writer[value as usize];
    view.orders.last(value).is_some_and(|last| last <= max)
        && !view.facts.has(value, READ_OK)
        && !view.may_be_deleted(value)
        && writer != NONE
        && view.facts.must_have_happened(value)
}

/// `phantom`: a value was read that no operation sent.
pub(super) fn phantoms(view: HistoryView<'_>) -> Vec<Finding> {
    let unsent = view.values().filter(|v| view.facts.writer[*v as usize] == NONE);
    let finding = |value| {
        let key = view.key(view.store.key_of(value));
        let reader = view.store.index(view.facts.reader[value as usize]);
        let data = json!({"key": key, "value": view.json(value), "reader": reader});
        let text = format!(
            "operation {reader} read {} from {key}, which no operation sent",
            view.store.val(value)
        );
        Finding::new(data, [reader], text)
    };
    // A value that was neither sent nor read stands for a key without records.
    unsent
        .filter(|v| view.facts.reader[*v as usize] != NONE)
        .map(finding)
        .collect()
}

/// `unseen`: acknowledged sends that no operation read, one finding for each key.
pub(super) fn unseen(view: HistoryView<'_>) -> Vec<Finding> {
    let mut by_key = vec![Vec::new(); view.store.keys.len()];
    for value in view.values() {
        let sent = view.facts.has(value, SENT_OK) && !view.facts.has(value, READ_OK);
        if sent && !view.may_be_deleted(value) {
            by_key[view.store.key_of(value) as usize].push(value);
        }
    }
    let mut findings = Vec::new();
    for (key, values) in view.keys().zip(by_key) {
        let Some(first) = values.first() else { continue };
        let (key, count) = (view.key(key), values.len());
        let data = json!({
            "key": key, "count": count,
            "values": values.iter().map(|v| view.json(*v)).collect::<Vec<_>>(),
        });
        let text = format!(
            "{count} acknowledged records of {key} were never read, the first is {}",
            view.store.val(*first)
        );
        let writers = values
            .iter()
            .map(|v| view.store.index(view.facts.writer[*v as usize]));
        findings.push(Finding::new(data, writers, text));
    }
    findings
}

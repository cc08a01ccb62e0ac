//! Anomalies of single records: at the wrong place, lost, doubled, aborted and yet read, read too early, never sent, never read.

use brokkr_history::Type;
use serde_json::{Value, json};

use super::order::{Entry, Facts, Orders, READ_OK, SENT_FAIL, SENT_OK};
use super::store::{F, Marks, NONE, Store, number};
use crate::Finding;

/// What the record checks read.
#[derive(Clone, Copy)]
pub(super) struct Known<'a> {
    pub(super) store: &'a Store,
    pub(super) facts: &'a Facts,
    pub(super) orders: &'a Orders,
}

impl<'a> Known<'a> {
    pub(super) fn key(self, key: u32) -> &'a str {
        self.store.key_name(key)
    }

    /// A value as JSON.
    pub(super) fn json(self, value: u32) -> Value {
        json!(self.store.val(value))
    }

    /// The operations that attest a value: who sent it and who read it.
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
            .filter(|(_, row)| row.f == F::Micro)
            .map(|(op, row)| (op, row.type_))
    }

    fn values(self) -> impl Iterator<Item = u32> {
        (0..number(self.store.values_len())).filter(move |v| self.store.is_known(*v))
    }

    /// Whether someone asked to delete it.
    fn may_be_deleted(self, value: u32) -> bool {
        let key = self.store.key_of(value);
        self.orders
            .last(value)
            .is_some_and(|last| last < self.orders.deleted(key))
    }
}

/// `inconsistent-offsets`: more than one value at an offset.
pub(super) fn inconsistent_offsets(known: Known<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for key in known.keys() {
        let offsets = known.orders.entries(key).chunk_by(|a, b| a.offset == b.offset);
        for (index, entries) in offsets.enumerate().filter(|(_, entries)| entries.len() > 1) {
            findings.push(inconsistent(known, key, index, entries));
        }
    }
    findings
}

fn inconsistent(known: Known<'_>, key: u32, index: usize, entries: &[Entry]) -> Finding {
    let mut values: Vec<_> = entries.iter().map(|e| known.store.val(e.value).clone()).collect();
    values.sort();
    let (key, offset) = (known.key(key), entries[0].offset);
    let data = json!({"key": key, "offset": offset, "index": index, "values": values});
    let ops = entries.iter().flat_map(|e| known.witnesses(e.value));
    let text = format!(
        "offset {offset} of {key} was seen with {} different values",
        values.len()
    );
    Finding::new(data, ops, text)
}

/// `duplicate`: a value at more than one offset.
pub(super) fn duplicates(known: Known<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for key in known.keys() {
        let mut several: Vec<_> = known
            .orders
            .entries(key)
            .iter()
            .filter(|e| known.orders.first(e.value) != known.orders.last(e.value))
            .collect();
        several.sort_by_key(|e| (e.value, e.offset));
        for entries in several.chunk_by(|a, b| a.value == b.value) {
            let (key, value) = (known.key(key), entries[0].value);
            let offsets: Vec<_> = entries.iter().map(|e| e.offset).collect();
            let count = offsets.len();
            let data = json!({"key": key, "value": known.json(value), "count": count, "offsets": offsets});
            let text = format!(
                "{} stands {count} times in {key}, at {offsets:?}",
                known.store.val(value)
            );
            findings.push(Finding::new(data, known.witnesses(value), text));
        }
    }
    findings
}

/// `G1a`, aborted read: what surely did not happen was read.
pub(super) fn aborted_reads(known: Known<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (op, _) in known.ops().filter(|(_, type_)| *type_ == Type::Ok) {
        for read in known.store.reads_of(op) {
            let value = read.value;
            if !known.store.is_known(value) || !known.facts.has(value, SENT_FAIL) {
                continue;
            }
            let key = known.key(known.store.key_of(value));
            let writer = known.store.index(known.facts.writer[value as usize]);
            let reader = known.store.index(op);
            let data = json!({"key": key, "value": known.json(value), "writer": writer, "reader": reader});
            let val = known.store.val(value);
            let text =
                format!("operation {reader} read {val} from {key}, whose send (operation {writer}) failed");
            findings.push(Finding::new(data, [writer, reader], text));
        }
    }
    findings
}

/// `G1b`, intermediate read: an operation's last record of a key is not the last one that its sender sent there.
pub(super) fn intermediate_reads(known: Known<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut last = Marks::<u32>::new(known.store.keys.len());
    for (op, _) in known.ops().filter(|(_, type_)| *type_ == Type::Ok) {
        last.clear();
        let mut keys = Vec::new();
        for read in known
            .store
            .reads_of(op)
            .iter()
            .filter(|r| known.store.is_known(r.value))
        {
            let key = known.store.key_of(read.value);
            if last.set(key, read.value).is_none() {
                keys.push(key);
            }
        }
        for key in keys {
            let value = last.get(key).expect("marked above");
            let writer = known.facts.writer[value as usize];
            if writer == NONE || writer == op {
                continue;
            }
            let mut sent = known.store.writes_of(writer).iter().rev().map(|w| w.value);
            let final_ = sent.find(|v| known.store.key_of(*v) == key);
            let Some(final_) = final_.filter(|v| *v != value) else {
                continue;
            };
            let (key, writer, reader) = (known.key(key), known.store.index(writer), known.store.index(op));
            let data = json!({
                "key": key, "value": known.json(value), "final": known.json(final_),
                "writer": writer, "reader": reader,
            });
            let text = format!(
                "operation {reader} read {key} only up to {}, of operation {writer}, which sent {} as well",
                known.store.val(value),
                known.store.val(final_)
            );
            findings.push(Finding::new(data, [writer, reader], text));
        }
    }
    findings
}

/// `precommitted-read`: an operation read what it sent itself. Kafka shows nobody a record before its transaction is committed.
pub(super) fn precommitted_reads(known: Known<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut sent = Marks::<()>::new(known.store.values_len());
    let mut told = Marks::<()>::new(known.store.keys.len());
    for (op, _) in known.ops() {
        let (reads, writes) = (known.store.reads_of(op), known.store.writes_of(op));
        if reads.is_empty() || writes.is_empty() {
            continue;
        }
        sent.clear();
        told.clear();
        for write in writes.iter().filter(|w| known.store.is_known(w.value)) {
            sent.set(write.value, ());
        }
        for read in reads.iter().filter(|r| sent.get(r.value).is_some()) {
            let key = known.store.key_of(read.value);
            if told.set(key, ()).is_some() {
                continue;
            }
            let (key, index) = (known.key(key), known.store.index(op));
            let data = json!({"op": index, "key": key, "value": known.json(read.value)});
            let text = format!(
                "operation {index} read {} from {key}, which it sent itself",
                known.store.val(read.value)
            );
            findings.push(Finding::new(data, [index], text));
        }
    }
    findings
}

/// `lost-write`: a send that must have happened, at or below what was read of its key, that nobody read.
pub(super) fn lost_writes(known: Known<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut told = Marks::<()>::new(known.store.values_len());
    told.clear();
    for key in known.keys() {
        // The latest of the first places of what was read: so far somebody surely came.
        let read = known
            .orders
            .entries(key)
            .iter()
            .map(|e| e.value)
            .filter(|v| known.facts.has(*v, READ_OK));
        let Some((max, max_value)) = read.filter_map(|v| Some((known.orders.first(v)?, v))).max() else {
            continue;
        };
        let mut lost: Vec<_> = known
            .orders
            .entries(key)
            .iter()
            .map(|e| e.value)
            .filter(|v| is_lost(known, *v, max))
            .collect();
        lost.sort_by_key(|v| (known.orders.last(*v), *v));
        for value in lost {
            if told.set(value, ()).is_some() {
                continue;
            }
            let writer = known.store.index(known.facts.writer[value as usize]);
            let max_read = known.store.index(known.facts.reader[max_value as usize]);
            let key = known.key(key);
            let data = json!({
                "key": key, "value": known.json(value), "index": known.orders.first(value),
                "max_read_index": max, "writer": writer, "max_read": max_read,
            });
            let text = format!(
                "{} was sent to {key} by operation {writer}, and never read, though operation {max_read} read what follows it",
                known.store.val(value)
            );
            findings.push(Finding::new(data, [writer, max_read], text));
        }
    }
    findings
}

fn is_lost(known: Known<'_>, value: u32, max: u32) -> bool {
    let writer = known.facts.writer[value as usize];
    known.orders.last(value).is_some_and(|last| last <= max)
        && !known.facts.has(value, READ_OK)
        && !known.may_be_deleted(value)
        && writer != NONE
        && known.facts.must_have_happened(known.store, writer)
}

/// `phantom`: a value was read that nobody sent.
pub(super) fn phantoms(known: Known<'_>) -> Vec<Finding> {
    let unsent = known.values().filter(|v| known.facts.writer[*v as usize] == NONE);
    let finding = |value| {
        let key = known.key(known.store.key_of(value));
        let reader = known.store.index(known.facts.reader[value as usize]);
        let data = json!({"key": key, "value": known.json(value), "reader": reader});
        let text = format!(
            "operation {reader} read {} from {key}, which nobody sent",
            known.store.val(value)
        );
        Finding::new(data, [reader], text)
    };
    // A value that was neither sent nor read is one of a key named without records.
    unsent
        .filter(|v| known.facts.reader[*v as usize] != NONE)
        .map(finding)
        .collect()
}

/// `unseen`: acknowledged sends that nobody read, a finding for each key.
pub(super) fn unseen(known: Known<'_>) -> Vec<Finding> {
    let mut by_key = vec![Vec::new(); known.store.keys.len()];
    for value in known.values() {
        let sent = known.facts.has(value, SENT_OK) && !known.facts.has(value, READ_OK);
        if sent && !known.may_be_deleted(value) {
            by_key[known.store.key_of(value) as usize].push(value);
        }
    }
    let mut findings = Vec::new();
    for (key, values) in known.keys().zip(by_key) {
        let Some(first) = values.first() else { continue };
        let (key, count) = (known.key(key), values.len());
        let data = json!({
            "key": key, "count": count,
            "values": values.iter().map(|v| known.json(*v)).collect::<Vec<_>>(),
        });
        let text = format!(
            "{count} acknowledged records of {key} were never read, the first is {}",
            known.store.val(*first)
        );
        let writers = values
            .iter()
            .map(|v| known.store.index(known.facts.writer[*v as usize]));
        findings.push(Finding::new(data, writers, text));
    }
    findings
}

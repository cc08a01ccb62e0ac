//! A history's sends and polls in compact form, so that the checker can hold ten million of them.
//!
//! Keys, and values of a key, are numbers; operations are rows, and their sends and polled records have rows of their own:
//!
//! ```text
//! ops:    … │ index, began, time, process, type, f │ reads ──┐ writes ─┐
//! reads:  … │ value, micro-op, offset │ …  ◀─────────────────┘         │
//! writes: … │ value, micro-op, offset │ …  ◀───────────────────────────┘
//! ```

use std::collections::BTreeMap;
use std::ops::Range;

use brokkr_history::{Key, MicroOp, NEMESIS, Op, Operation, Process, Type, UNKNOWN_OFFSET, Val};
use serde_json::Value;

use crate::Malformed;
use crate::pairs::{Pair, Pairs};
use crate::table::Interner;

/// Marks an absent number.
pub(super) const NONE: u32 = u32::MAX;

/// The kind of an operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum OpKind {
    /// Sends, polls, or both.
    Micro,
    Assign,
    Subscribe,
}

/// An operation that ended, or that never will.
#[derive(Clone, Copy, Debug)]
pub(super) struct OpRow {
    /// Its index in the history, or that of its invocation if it never ended.
    pub(super) index: u32,
    /// The index of its invocation, if that was recorded.
    pub(super) began: u32,
    pub(super) began_time: i64,
    pub(super) time: i64,
    pub(super) process: Process,
    pub(super) type_: Type,
    pub(super) f: OpKind,
    /// Whether it polls, rather than only sends.
    pub(super) polls: bool,
    /// It never ended.
    pub(super) open: bool,
    /// Of an `assign`: the process reads from the beginning.
    pub(super) seek: bool,
    /// The ends of its reads, writes and assigned keys; they begin at the ends of the previous row.
    reads_end: u32,
    writes_end: u32,
    keys_end: u32,
}

/// A record that was sent or polled, or a key for which a poll returned nothing (with the value [`Val::Null`]).
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    pub(super) value: u32,
    pub(super) micro: u32,
    pub(super) offset: i64,
}

/// The part of a history that the checker stores.
#[derive(Default)]
pub(super) struct Store {
    pairs: Pairs,
    pub(super) keys: Interner<Key>,
    values: Interner<(u32, Val)>,
    pub(super) ops: Vec<OpRow>,
    pub(super) reads: Vec<Row>,
    pub(super) writes: Vec<Row>,
    assigned: Vec<u32>,
    /// Keys that were moved during an operation.
    pub(super) rebalanced: BTreeMap<u32, Vec<u32>>,
    /// The offset below which a key's records may have been deleted on request.
    pub(super) deleted_before: BTreeMap<u32, i64>,
    pub(super) subscribes: bool,
}

impl Store {
    pub(super) fn push(&mut self, operation: Operation) -> Result<(), Malformed> {
        if operation.process == NEMESIS {
            return Ok(());
        }
        if operation.index >= u64::from(u32::MAX) {
            let what = "more operations than this checker can number".to_owned();
            let index = operation.index;
            return Err(Malformed { index, what });
        }
        if let Some(pair) = self.pairs.push(operation)? {
            self.add(&pair, false);
        }
        Ok(())
    }

    /// Adds the unfinished operations.
    pub(super) fn finish(&mut self) {
        for pair in self.pairs.unfinished() {
            self.add(&pair, true);
        }
    }

    fn add(&mut self, pair: &Pair, open: bool) {
        let ended = &pair.ended;
        let f = match &ended.op {
            Op::Send(_) | Op::Poll(_) | Op::Txn(_) => OpKind::Micro,
            Op::Assign(_) => OpKind::Assign,
            Op::Subscribe(_) => OpKind::Subscribe,
            Op::Other(f, value) => {
                if f == "delete_records" && ended.type_ != Type::Fail {
                    self.deleted(value);
                }
                return;
            }
        };
        // An operation without a completion of its own has only its invocation's sends.
        let micro_ops = match (&pair.invoked, ended.op.micro_ops()) {
            (Some(invoked), []) if ended.type_ != Type::Ok => invoked.op.micro_ops(),
            (_, micro_ops) => micro_ops,
        };
        for (i, micro) in (0u32..).zip(micro_ops) {
            self.micro(i, micro);
        }
        if let Op::Assign(keys) | Op::Subscribe(keys) = &ended.op {
            let keys = keys.iter().map(|k| self.keys.number(k.clone()).0);
            self.assigned.extend(keys);
        }
        self.subscribes |= f == OpKind::Subscribe;
        if !ended.rebalanced.is_empty() {
            let keys = ended
                .rebalanced
                .iter()
                .map(|k| self.keys.number(k.clone()).0)
                .collect();
            self.rebalanced.insert(number(self.ops.len()), keys);
        }
        let began = pair.invoked.as_ref();
        self.ops.push(OpRow {
            index: index_of(ended),
            began: began.map_or(NONE, index_of),
            began_time: began.map_or(ended.time, |o| o.time),
            time: ended.time,
            process: ended.process,
            type_: ended.type_,
            f,
            polls: matches!(ended.op, Op::Poll(_) | Op::Txn(_)),
            open,
            seek: ended.seek_to_beginning || began.is_some_and(|o| o.seek_to_beginning),
            reads_end: number(self.reads.len()),
            writes_end: number(self.writes.len()),
            keys_end: number(self.assigned.len()),
        });
    }

    fn micro(&mut self, micro: u32, op: &MicroOp) {
        match op {
            MicroOp::Send { key, offset, value } => {
                let offset = offset.unwrap_or(UNKNOWN_OFFSET);
                let value = self.value(key, value.clone());
                self.writes.push(Row { value, micro, offset });
            }
            MicroOp::Poll(polls) => {
                for (key, records) in polls.iter().flatten() {
                    if records.is_empty() {
                        let (value, offset) = (self.value(key, Val::Null), UNKNOWN_OFFSET);
                        self.reads.push(Row { value, micro, offset });
                    }
                    for (offset, value) in records {
                        let (value, offset) = (self.value(key, value.clone()), *offset);
                        self.reads.push(Row { value, micro, offset });
                    }
                }
            }
        }
    }

    fn value(&mut self, key: &Key, value: Val) -> u32 {
        let (key, _) = self.keys.number(key.clone());
        self.values.number((key, value)).0
    }

    /// Records that were deleted on request are not lost: `{"key", "before"}`, where −1 means all current records.
    fn deleted(&mut self, value: &Value) {
        let (Some(key), Some(before)) = (value["key"].as_str(), value["before"].as_i64()) else {
            return;
        };
        let before = if before < 0 { i64::MAX } else { before };
        let (key, _) = self.keys.number(key.into());
        let known = self.deleted_before.entry(key).or_insert(before);
        *known = before.max(*known);
    }

    /// Number of distinct values.
    pub(super) fn values_len(&self) -> usize {
        self.values.len()
    }

    pub(super) fn key_of(&self, value: u32) -> u32 {
        self.values[value].0
    }

    pub(super) fn val(&self, value: u32) -> &Val {
        &self.values[value].1
    }

    /// Whether the value is known.
    pub(super) fn is_known(&self, value: u32) -> bool {
        *self.val(value) != Val::Null
    }

    /// A key's name, for findings.
    pub(super) fn key_name(&self, key: u32) -> &str {
        self.keys[key].as_str()
    }

    fn range(&self, op: u32, end: fn(&OpRow) -> u32) -> Range<usize> {
        let begin = op
            .checked_sub(1)
            .map_or(0, |before| end(&self.ops[before as usize]));
        begin as usize..end(&self.ops[op as usize]) as usize
    }

    pub(super) fn reads_of(&self, op: u32) -> &[Row] {
        &self.reads[self.range(op, |o| o.reads_end)]
    }

    pub(super) fn writes_of(&self, op: u32) -> &[Row] {
        &self.writes[self.range(op, |o| o.writes_end)]
    }

    pub(super) fn keys_assigned(&self, op: u32) -> &[u32] {
        &self.assigned[self.range(op, |o| o.keys_end)]
    }

    /// All operations with their numbers.
    pub(super) fn rows(&self) -> impl Iterator<Item = (u32, &OpRow)> {
        (0u32..).zip(&self.ops)
    }

    /// Where an operation stands in the history.
    pub(super) fn index(&self, op: u32) -> u64 {
        u64::from(self.ops[op as usize].index)
    }
}

pub(super) fn number(n: usize) -> u32 {
    u32::try_from(n).expect("fewer than 2³² of everything in a history")
}

fn index_of(o: &Operation) -> u32 {
    u32::try_from(o.index).expect("checked when it came")
}

/// Marks by key; all marks can be cleared at once.
pub(super) struct Marks<T> {
    round: u32,
    marks: Vec<(u32, T)>,
}

impl<T: Copy + Default> Marks<T> {
    pub(super) fn new(len: usize) -> Self {
        let marks = vec![(0, T::default()); len];
        Self { round: 0, marks }
    }

    pub(super) fn clear(&mut self) {
        self.round += 1;
    }

    /// Sets a mark, and returns the previous one.
    pub(super) fn set(&mut self, at: u32, mark: T) -> Option<T> {
        let before = self.get(at);
        self.marks[at as usize] = (self.round, mark);
        before
    }

    pub(super) fn get(&self, at: u32) -> Option<T> {
        let (round, mark) = self.marks[at as usize];
        (round == self.round).then_some(mark)
    }
}

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

use brokkr_history::{
    Details, Digest, Key, MicroOp, NEMESIS, Op, Operation, Process, Seek, Type, UNKNOWN_OFFSET, Val, names,
};
use serde_json::Value;

use super::admin::{Delete, Listing};
pub(super) use super::index::{NONE, index_of};
use crate::pairs::{Pair, Pairs};
use crate::table::Interner;
use crate::{Malformed, Verdict};

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
    /// The ends of its reads, writes and assigned keys; they begin at the ends of the previous row.
    reads_end: u32,
    writes_end: u32,
    keys_end: u32,
}

/// A record that was sent or polled, or a key for which a poll returned nothing (with the value [`Val::Null`]).
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    pub(super) value: u32,
    /// The number of the micro-operation, and above it the outcome of a send, if it has one of its own.
    micro: u32,
    pub(super) offset: i64,
}

/// Bits of [`Row::micro`] below the outcome.
const MICRO_BITS: u32 = 30;

impl Row {
    fn new(value: u32, micro: u32, offset: i64, outcome: Option<Type>) -> Self {
        let outcome = match outcome {
            None | Some(Type::Invoke) => 0,
            Some(Type::Ok) => 1,
            Some(Type::Fail) => 2,
            Some(Type::Info) => 3,
        };
        let micro = micro | outcome << MICRO_BITS;
        Self { value, micro, offset }
    }

    /// The number of the micro-operation in its operation.
    pub(super) fn micro(self) -> u32 {
        self.micro & ((1 << MICRO_BITS) - 1)
    }

    /// The outcome of a send, if it has one of its own.
    pub(super) fn outcome(self) -> Option<Type> {
        [None, Some(Type::Ok), Some(Type::Fail), Some(Type::Info)][(self.micro >> MICRO_BITS) as usize]
    }
}

/// The digest of a record that an operation sent or was shown.
#[derive(Clone, Copy, Debug)]
pub(super) struct DigestRow {
    pub(super) value: u32,
    pub(super) op: u32,
    pub(super) digest: Digest,
    pub(super) sent: bool,
}

/// The names of the operations that this judge judges.
const JUDGED: &[&str] = &[
    names::SEND,
    names::POLL,
    names::TXN,
    names::ASSIGN,
    names::SUBSCRIBE,
    names::DELETE_RECORDS,
    names::LIST_OFFSETS,
];

/// The part of a history that the checker stores.
pub(super) struct Store {
    pairs: Pairs,
    pub(super) keys: Interner<Key>,
    values: Interner<(u32, Val)>,
    /// By value: whether an operation sent it.
    sent: Vec<bool>,
    pub(super) ops: Vec<OpRow>,
    pub(super) reads: Vec<Row>,
    pub(super) writes: Vec<Row>,
    assigned: Vec<u32>,
    /// Keys that were moved during an operation.
    pub(super) rebalanced: BTreeMap<u32, Vec<u32>>,
    /// Where processes read on, by the number of the `assign`.
    seeks: BTreeMap<u32, Vec<(u32, Seek)>>,
    pub(super) digests: Vec<DigestRow>,
    pub(super) deletes: Vec<Delete>,
    pub(super) listings: Vec<Listing>,
}

impl Default for Store {
    fn default() -> Self {
        Self {
            pairs: Pairs::of(JUDGED),
            keys: Interner::default(),
            values: Interner::default(),
            sent: Vec::new(),
            ops: Vec::new(),
            reads: Vec::new(),
            writes: Vec::new(),
            assigned: Vec::new(),
            rebalanced: BTreeMap::new(),
            seeks: BTreeMap::new(),
            digests: Vec::new(),
            deletes: Vec::new(),
            listings: Vec::new(),
        }
    }
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
        match self.pairs.push(operation)? {
            Some(pair) => self.add(&pair, false),
            None => Ok(()),
        }
    }

    /// Adds the unfinished operations.
    pub(super) fn finish(&mut self) -> Result<(), Malformed> {
        let unfinished = self.pairs.unfinished();
        unfinished.iter().try_for_each(|pair| self.add(pair, true))
    }

    /// Notes how many operations there were, and gives up if those of some name never succeeded.
    pub(super) fn report(&self, verdict: &mut Verdict) {
        self.pairs.report(verdict);
        if let Some(f) = self
            .pairs
            .never_succeeded(&[names::SEND, names::POLL, names::TXN])
        {
            verdict.give_up(format!("no {f} ever succeeded"));
        }
    }

    fn add(&mut self, pair: &Pair, open: bool) -> Result<(), Malformed> {
        let ended = &pair.ended;
        let f = match &ended.op {
            Op::Send(_) | Op::Poll(_) | Op::Txn(_) => OpKind::Micro,
            Op::Assign(_) => OpKind::Assign,
            Op::Subscribe(_) => OpKind::Subscribe,
            Op::Other(f, value) => {
                self.other(f, value, pair, open);
                return Ok(());
            }
        };
        // An operation without a completion of its own has only its invocation's sends.
        let (telling, micro_ops) = match (&pair.invoked, ended.op.micro_ops()) {
            (Some(invoked), []) if ended.type_ != Type::Ok => (invoked, invoked.op.micro_ops()),
            (_, micro_ops) => (ended, micro_ops),
        };
        if micro_ops.len() >> MICRO_BITS != 0 {
            let what = "more micro-operations than this checker can number".to_owned();
            let index = ended.index;
            return Err(Malformed { index, what });
        }
        let asked = pair.invoked.as_ref().map(|o| &o.details);
        for (i, micro) in (0u32..).zip(micro_ops) {
            self.micro(i, micro, telling, asked, open)?;
        }
        if let Op::Assign(keys) | Op::Subscribe(keys) = &ended.op {
            let keys = keys.iter().map(|k| self.keys.number(k.clone()).0);
            self.assigned.extend(keys);
        }
        self.seek(pair);
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
            reads_end: number(self.reads.len()),
            writes_end: number(self.writes.len()),
            keys_end: number(self.assigned.len()),
        });
        Ok(())
    }

    /// Where the process reads on after an `assign`.
    fn seek(&mut self, pair: &Pair) {
        let both = || pair.invoked.iter().chain([&pair.ended]);
        let Op::Assign(keys) = &pair.ended.op else { return };
        let mut seeks: BTreeMap<&Key, Seek> = BTreeMap::new();
        if both().any(|o| o.seek_to_beginning) {
            seeks.extend(keys.iter().map(|key| (key, Seek::Beginning)));
        }
        seeks.extend(both().flat_map(|o| &o.seeks).map(|(key, seek)| (key, *seek)));
        if !seeks.is_empty() {
            let numbered = seeks.into_iter();
            let numbered = numbered.map(|(key, seek)| (self.keys.number(key.clone()).0, seek));
            let numbered = numbered.collect();
            self.seeks.insert(number(self.ops.len()), numbered);
        }
    }

    /// An operation by name: deletions of records, and listed offsets.
    fn other(&mut self, f: &str, value: &Value, pair: &Pair, open: bool) {
        let Some(key) = value["key"].as_str() else { return };
        if names::is_same(f, names::DELETE_RECORDS) && pair.ended.type_ != Type::Fail {
            let (key, _) = self.keys.number(key.into());
            self.deletes.extend(Delete::of(key, value, pair, open));
        } else if names::is_same(f, names::LIST_OFFSETS) && pair.ended.type_ == Type::Ok {
            let (key, _) = self.keys.number(key.into());
            self.listings.push(Listing::of(key, value, pair));
        }
    }

    fn micro(
        &mut self,
        micro: u32,
        op: &MicroOp,
        telling: &Operation,
        asked: Option<&Details>,
        open: bool,
    ) -> Result<(), Malformed> {
        let (at, details) = (micro as usize, &telling.details);
        match op {
            MicroOp::Send { key, offset, value } => {
                let offset = offset.unwrap_or(UNKNOWN_OFFSET);
                let value = self.value(key, value.clone());
                let again = self.is_known(value) && std::mem::replace(&mut self.sent[value as usize], true);
                // A send that never ended may be the beginning of a completion whose invocation is missing.
                if again && open {
                    return Ok(());
                }
                if again {
                    let what = format!("{} was sent to {key} before; values are unique", self.val(value));
                    let index = telling.index;
                    return Err(Malformed { index, what });
                }
                // A transaction happens as a whole.
                let outcome = details.outcome(at).filter(|_| !matches!(telling.op, Op::Txn(_)));
                self.writes.push(Row::new(value, micro, offset, outcome));
                let digest = details.digest(at, 0);
                let digest = digest.or_else(|| asked.and_then(|d| d.digest(at, 0)));
                self.digest(value, digest, true);
            }
            MicroOp::Poll(polls) => {
                let mut digests = (0..).map(|record| details.digest(at, record));
                for (key, records) in polls.iter().flatten() {
                    if records.is_empty() {
                        let value = self.value(key, Val::Null);
                        self.reads.push(Row::new(value, micro, UNKNOWN_OFFSET, None));
                    }
                    for (offset, value) in records {
                        let value = self.value(key, value.clone());
                        self.reads.push(Row::new(value, micro, *offset, None));
                        self.digest(value, digests.next().flatten(), false);
                    }
                }
            }
        }
        Ok(())
    }

    fn digest(&mut self, value: u32, digest: Option<Digest>, sent: bool) {
        if let Some(digest) = digest.filter(|_| self.is_known(value)) {
            let op = number(self.ops.len());
            self.digests.push(DigestRow {
                value,
                op,
                digest,
                sent,
            });
        }
    }

    fn value(&mut self, key: &Key, value: Val) -> u32 {
        let (key, _) = self.keys.number(key.clone());
        let (number, new) = self.values.number((key, value));
        if new {
            self.sent.push(false);
        }
        number
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

    /// Where the process of an `assign` reads on, for each key that it sought.
    pub(super) fn seeks_of(&self, op: u32) -> &[(u32, Seek)] {
        self.seeks.get(&op).map_or(&[], Vec::as_slice)
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

//! Facts about each value, and the order of each key's log.
//!
//! A log is reconstructed from the acknowledged offsets of sends that must have happened (they were `ok`, or `info` and one
//! of their records was read), and the offsets of all polls. Failed polls count as well, since Kafka returns only committed
//! records, whatever the outcome of the consumer's own transaction. Offsets have gaps (transaction markers); without the gaps
//! they are *indexes*. An index may have several values, and a value several indexes: both are anomalies, and must not
//! mislead the other checks.

use std::collections::{BTreeMap, BTreeSet};

use brokkr_history::{Type, UNKNOWN_OFFSET, Val};

use super::store::{NONE, OpKind, Row, Store, number};

/// Facts of the whole history about each value.
pub(super) struct Facts {
    /// The operation that sent it; of several, the one that ended last.
    pub(super) writer: Vec<u32>,
    /// The first operation that read it, preferably a successful one.
    pub(super) reader: Vec<u32>,
    flags: Vec<u8>,
}

/// The outcome of a send: its own, or that of its operation.
pub(super) fn send_outcome(of_operation: Type, send: &Row) -> Type {
    send.outcome().unwrap_or(of_operation)
}

/// A send of it happened.
pub(super) const SENT_OK: u8 = 1;
/// A send of it did not happen.
pub(super) const SENT_FAIL: u8 = 2;
/// A successful operation read it.
pub(super) const READ_OK: u8 = 4;
/// A send of it certainly happened: it succeeded, or its record was read.
const HAPPENED: u8 = 8;

impl Facts {
    pub(super) fn of(store: &Store) -> Self {
        let n = store.values_len();
        let mut facts = Self {
            writer: vec![NONE; n],
            reader: vec![NONE; n],
            flags: vec![0; n],
        };
        for (op, row) in store.rows().filter(|(_, row)| row.f == OpKind::Micro) {
            for write in store.writes_of(op) {
                let value = write.value as usize;
                facts.writer[value] = op;
                facts.flags[value] |= match send_outcome(row.type_, write) {
                    Type::Ok => SENT_OK,
                    Type::Fail => SENT_FAIL,
                    Type::Invoke | Type::Info => 0,
                };
            }
            for read in store.reads_of(op) {
                let value = read.value as usize;
                let first_ok = row.type_ == Type::Ok && facts.flags[value] & READ_OK == 0;
                if first_ok || facts.reader[value] == NONE {
                    facts.reader[value] = op;
                }
                if row.type_ == Type::Ok {
                    facts.flags[value] |= READ_OK;
                }
            }
        }
        for (op, row) in store.rows().filter(|(_, row)| row.f == OpKind::Micro) {
            // The sends of one operation are a transaction, of which one record proves all, except those that have an outcome
            // of their own.
            let sends = || store.writes_of(op).iter();
            let read = |w: &Row| store.is_known(w.value) && facts.has(w.value, READ_OK);
            let proven = row.type_ == Type::Info && sends().any(|w| w.outcome().is_none() && read(w));
            let happened = |w: &Row| match w.outcome() {
                Some(Type::Info) => read(w),
                Some(outcome) => outcome == Type::Ok,
                None => row.type_ == Type::Ok || proven,
            };
            let values: Vec<_> = sends().filter(|w| happened(w)).map(|w| w.value).collect();
            for value in values {
                facts.flags[value as usize] |= HAPPENED;
            }
        }
        facts
    }

    pub(super) fn has(&self, value: u32, flag: u8) -> bool {
        self.flags[value as usize] & flag != 0
    }

    /// Whether a send of the value certainly happened: it succeeded, or its record was read, or another one of its
    /// transaction.
    pub(super) fn must_have_happened(&self, value: u32) -> bool {
        self.has(value, HAPPENED)
    }

    /// The index at which the value's send began; 0 if that was not recorded.
    pub(super) fn began(&self, store: &Store, value: u32) -> u32 {
        let writer = self.writer[value as usize];
        let began = store.ops.get(writer as usize).map_or(NONE, |op| op.began);
        if began == NONE { 0 } else { began }
    }
}

/// A value at an offset.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct LogEntry {
    key: u32,
    pub(super) offset: i64,
    pub(super) value: u32,
}

/// The logs of all keys.
pub(super) struct Orders {
    /// By key, offset, value.
    entries: Vec<LogEntry>,
    /// Where each key's entries begin, and one more element for the end.
    key_entries: Vec<u32>,
    /// The value at each index, by key; if there are several, any of them.
    by_index: Vec<u32>,
    key_indexes: Vec<u32>,
    /// The index chosen for each value, if any.
    index: Vec<u32>,
    /// The first and the last index of each value.
    first: Vec<u32>,
    last: Vec<u32>,
    /// The entries whose offset is that of the entry before, in the same key.
    conflicts: Vec<u32>,
}

impl Orders {
    pub(super) fn of(store: &Store, facts: &Facts) -> Self {
        let entries = entries(store, facts);
        let n = store.values_len();
        let mut orders = Self {
            key_entries: vec![0; store.keys.len() + 1],
            by_index: Vec::new(),
            key_indexes: vec![0; store.keys.len() + 1],
            index: vec![NONE; n],
            first: vec![NONE; n],
            last: vec![NONE; n],
            conflicts: Vec::new(),
            entries,
        };
        orders.places();
        let mut at = 0;
        for key in 0..store.keys.len() {
            orders.key_entries[key] = number(at);
            orders.key_indexes[key] = number(orders.by_index.len());
            at += orders.entries[at..]
                .iter()
                .take_while(|e| e.key as usize == key)
                .count();
            orders.order(key, at);
        }
        orders.key_entries[store.keys.len()] = number(at);
        orders.key_indexes[store.keys.len()] = number(orders.by_index.len());
        orders
    }

    /// Computes the first and last indexes.
    fn places(&mut self) {
        let (mut index, mut before) = (0, None::<LogEntry>);
        for entry in &self.entries {
            index = match before {
                Some(b) if b.key != entry.key => 0,
                Some(b) if b.offset != entry.offset => index + 1,
                _ => index,
            };
            let value = entry.value as usize;
            if self.first[value] == NONE {
                self.first[value] = index;
            }
            self.last[value] = index;
            before = Some(*entry);
        }
    }

    /// Chooses one value for each index of a key whose entries end at `end`.
    fn order(&mut self, key: usize, end: usize) {
        let mut at = self.key_entries[key] as usize;
        let begin = self.by_index.len();
        while at < end {
            let offset = self.entries[at].offset;
            let here = self.entries[at..end].iter().take_while(|e| e.offset == offset);
            // Prefer a value with no other index, so that as many values as possible have one.
            let alone = |v: u32| self.first[v as usize] == self.last[v as usize];
            let values: Vec<_> = here.map(|e| e.value).collect();
            let chosen = values.iter().copied().find(|v| alone(*v)).unwrap_or(values[0]);
            let index = number(self.by_index.len() - begin);
            self.index[chosen as usize] = index;
            self.by_index.push(chosen);
            self.conflicts.extend((at + 1..at + values.len()).map(number));
            at += values.len();
        }
    }

    /// A key's entries, by offset.
    pub(super) fn entries(&self, key: u32) -> &[LogEntry] {
        let key = key as usize;
        &self.entries[self.key_entries[key] as usize..self.key_entries[key + 1] as usize]
    }

    /// A key's values by index.
    pub(super) fn by_index(&self, key: u32) -> &[u32] {
        let key = key as usize;
        &self.by_index[self.key_indexes[key] as usize..self.key_indexes[key + 1] as usize]
    }

    fn some_index(indexes: &[u32], value: u32) -> Option<u32> {
        Some(indexes[value as usize]).filter(|i| *i != NONE)
    }

    /// The index chosen for a value.
    pub(super) fn index(&self, value: u32) -> Option<u32> {
        Self::some_index(&self.index, value)
    }

    /// The first index of a value.
    pub(super) fn first(&self, value: u32) -> Option<u32> {
        Self::some_index(&self.first, value)
    }

    /// The last index of a value.
    pub(super) fn last(&self, value: u32) -> Option<u32> {
        Self::some_index(&self.last, value)
    }

    /// Number of indexes of a key that are below an offset.
    pub(super) fn index_of_offset(&self, key: u32, offset: i64) -> u32 {
        let begin = self.key_entries[key as usize];
        let end = begin + number(self.entries(key).partition_point(|e| e.offset < offset));
        let conflicts = |until| self.conflicts.partition_point(|at| *at < until);
        end - begin - number(conflicts(end) - conflicts(begin))
    }

    /// The value directly before a value.
    pub(super) fn previous(&self, key: u32, value: u32) -> Option<u32> {
        let before = self.index(value)?.checked_sub(1)?;
        Some(self.by_index(key)[before as usize])
    }
}

/// Every value at every known offset. A value's usual single position is stored once, not once per read.
fn entries(store: &Store, facts: &Facts) -> Vec<LogEntry> {
    let mut home = vec![UNKNOWN_OFFSET; store.values_len()];
    let mut others = BTreeSet::new();
    let mut see = |row: &Row| {
        let at = &mut home[row.value as usize];
        if row.offset == UNKNOWN_OFFSET || !store.is_known(row.value) || *at == row.offset {
            return;
        }
        if *at == UNKNOWN_OFFSET {
            *at = row.offset;
        } else {
            others.insert((row.value, row.offset));
        }
    };
    for (op, _) in store.rows().filter(|(_, row)| row.f == OpKind::Micro) {
        let sends = store.writes_of(op).iter();
        sends
            .filter(|w| facts.must_have_happened(w.value))
            .for_each(&mut see);
        store.reads_of(op).iter().for_each(&mut see);
    }
    let homes = (0u32..).zip(home).filter(|(_, offset)| *offset != UNKNOWN_OFFSET);
    let entry = |(value, offset)| LogEntry {
        key: store.key_of(value),
        offset,
        value,
    };
    let mut entries: Vec<_> = homes.chain(others).map(entry).collect();
    entries.sort_unstable();
    entries
}

/// The order of one key's log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VersionOrder {
    /// Values by offset.
    pub log: BTreeMap<i64, BTreeSet<Val>>,
    /// One value for each index; if there are several, any of them.
    pub by_index: Vec<Val>,
    /// The first index of each value.
    pub value_to_first_index: BTreeMap<Val, usize>,
    /// For each index the values whose last index it is.
    pub last_index_to_values: Vec<BTreeSet<Val>>,
}

impl VersionOrder {
    pub(super) fn of(store: &Store, orders: &Orders, key: u32) -> Self {
        let mut order = Self {
            log: BTreeMap::new(),
            by_index: orders
                .by_index(key)
                .iter()
                .map(|v| store.val(*v).clone())
                .collect(),
            value_to_first_index: BTreeMap::new(),
            last_index_to_values: vec![BTreeSet::new(); orders.by_index(key).len()],
        };
        for entry in orders.entries(key) {
            let val = || store.val(entry.value).clone();
            order.log.entry(entry.offset).or_default().insert(val());
            if let (Some(first), Some(last)) = (orders.first(entry.value), orders.last(entry.value)) {
                order.value_to_first_index.insert(val(), first as usize);
                order.last_index_to_values[last as usize].insert(val());
            }
        }
        order
    }
}

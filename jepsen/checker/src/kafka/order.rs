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

/// A send of it happened.
pub(super) const SENT_OK: u8 = 1;
/// A send of it did not happen.
pub(super) const SENT_FAIL: u8 = 2;
/// A successful operation read it.
pub(super) const READ_OK: u8 = 4;

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
                facts.flags[value] |= match row.type_ {
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
        facts
    }

    pub(super) fn has(&self, value: u32, flag: u8) -> bool {
        self.flags[value as usize] & flag != 0
    }

    /// Whether an operation that sent something certainly happened: it succeeded, or one of its records was read.
    pub(super) fn must_have_happened(&self, store: &Store, op: u32) -> bool {
        match store.ops[op as usize].type_ {
            Type::Ok => true,
            Type::Info => store
                .writes_of(op)
                .iter()
                .any(|w| store.is_known(w.value) && self.has(w.value, READ_OK)),
            Type::Invoke | Type::Fail => false,
        }
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
    /// Number of indexes of each key that are below a requested deletion.
    deleted: Vec<u32>,
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
            deleted: vec![0; store.keys.len()],
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
            orders.order(key, at, store.deleted_before.get(&number(key)).copied());
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
    fn order(&mut self, key: usize, end: usize, deleted_before: Option<i64>) {
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
            at += values.len();
            if deleted_before.is_some_and(|before| offset < before) {
                self.deleted[key] = index + 1;
            }
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

    /// Number of indexes of a key that are below a requested deletion.
    pub(super) fn deleted(&self, key: u32) -> u32 {
        self.deleted[key as usize]
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
    for (op, row) in store.rows().filter(|(_, row)| row.f == OpKind::Micro) {
        if row.type_ == Type::Ok || facts.must_have_happened(store, op) {
            store.writes_of(op).iter().for_each(&mut see);
        }
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

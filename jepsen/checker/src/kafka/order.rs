//! What a history says of each value, and the order of each key's log.
//!
//! A log is made of what is known of it: the acknowledged offsets of sends that must have happened (they were `ok`, or `info` and
//! something of them was read), and those of all polls, also of failed ones, since what Kafka shows a consumer is supposed to be
//! committed whatever comes of the consumer's own transaction. Offsets have gaps (markers of transactions); with the gaps squeezed
//! out they are *indexes*. At an index more than one value may stand, and a value at more than one index: both are anomalies, and
//! what else is looked for must not be led astray by them.

use std::collections::{BTreeMap, BTreeSet};

use brokkr_history::{Type, UNKNOWN_OFFSET, Val};

use super::store::{F, NONE, Row, Store, number};

/// What the whole history says of each value.
pub(super) struct Facts {
    /// Who sent it: of several, who ended last.
    pub(super) writer: Vec<u32>,
    /// Who read it first with success, or else anyhow.
    pub(super) reader: Vec<u32>,
    flags: Vec<u8>,
}

/// Some send of it happened.
pub(super) const SENT_OK: u8 = 1;
/// Some send of it did not happen.
pub(super) const SENT_FAIL: u8 = 2;
/// An operation that happened read it.
pub(super) const READ_OK: u8 = 4;

impl Facts {
    pub(super) fn of(store: &Store) -> Self {
        let n = store.values_len();
        let mut facts = Self {
            writer: vec![NONE; n],
            reader: vec![NONE; n],
            flags: vec![0; n],
        };
        for (op, row) in store.rows().filter(|(_, row)| row.f == F::Micro) {
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

    /// Whether an operation that sent something surely did: it says so, or someone read something of it.
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
pub(super) struct Entry {
    key: u32,
    pub(super) offset: i64,
    pub(super) value: u32,
}

/// The logs of all keys.
pub(super) struct Orders {
    /// By key, offset, value.
    entries: Vec<Entry>,
    /// Of each key where its entries begin; one more at the end.
    key_entries: Vec<u32>,
    /// The value at each index, one key after the other; of several, any.
    by_index: Vec<u32>,
    key_indexes: Vec<u32>,
    /// Of each value the index that it is taken to stand at, if any.
    index: Vec<u32>,
    /// Of each value where it stands first and last.
    first: Vec<u32>,
    last: Vec<u32>,
    /// Of each key how many indexes are below what was deleted on request.
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

    /// Fills in first and last indexes.
    fn places(&mut self) {
        let (mut index, mut before) = (0, None::<Entry>);
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
            // One that stands nowhere else, so that as many values as can be have an index.
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
    pub(super) fn entries(&self, key: u32) -> &[Entry] {
        let key = key as usize;
        &self.entries[self.key_entries[key] as usize..self.key_entries[key + 1] as usize]
    }

    /// A key's values by index.
    pub(super) fn by_index(&self, key: u32) -> &[u32] {
        let key = key as usize;
        &self.by_index[self.key_indexes[key] as usize..self.key_indexes[key + 1] as usize]
    }

    fn known(indexes: &[u32], value: u32) -> Option<u32> {
        Some(indexes[value as usize]).filter(|i| *i != NONE)
    }

    /// The index that a value is taken to stand at.
    pub(super) fn index(&self, value: u32) -> Option<u32> {
        Self::known(&self.index, value)
    }

    /// The first index that a value stands at.
    pub(super) fn first(&self, value: u32) -> Option<u32> {
        Self::known(&self.first, value)
    }

    /// The last index that a value stands at.
    pub(super) fn last(&self, value: u32) -> Option<u32> {
        Self::known(&self.last, value)
    }

    /// How many indexes of a key are below what was deleted on request.
    pub(super) fn deleted(&self, key: u32) -> u32 {
        self.deleted[key as usize]
    }

    /// What stands right before a value.
    pub(super) fn previous(&self, key: u32, value: u32) -> Option<u32> {
        let before = self.index(value)?.checked_sub(1)?;
        Some(self.by_index(key)[before as usize])
    }
}

/// Every value at every offset that is known. A value's usual one place is kept once, not for each time it was seen.
fn entries(store: &Store, facts: &Facts) -> Vec<Entry> {
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
    for (op, row) in store.rows().filter(|(_, row)| row.f == F::Micro) {
        if row.type_ == Type::Ok || facts.must_have_happened(store, op) {
            store.writes_of(op).iter().for_each(&mut see);
        }
        store.reads_of(op).iter().for_each(&mut see);
    }
    let homes = (0u32..).zip(home).filter(|(_, offset)| *offset != UNKNOWN_OFFSET);
    let entry = |(value, offset)| Entry {
        key: store.key_of(value),
        offset,
        value,
    };
    let mut entries: Vec<_> = homes.chain(others).map(entry).collect();
    entries.sort_unstable();
    entries
}

/// What a history says of one key's log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VersionOrder {
    /// Values by offset.
    pub log: BTreeMap<i64, BTreeSet<Val>>,
    /// One value for each index; where several stand, any of them.
    pub by_index: Vec<Val>,
    /// Of each value the first index that it stands at.
    pub value_to_first_index: BTreeMap<Val, usize>,
    /// Of each index the values that stand at no later one.
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

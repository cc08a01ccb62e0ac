//! Deleted records are neither lost nor skipped, from the moment at which the deletion may have happened.
//!
//! A deletion that ended with success took effect between its invocation and its completion; one of unknown outcome may take
//! effect at any time after its invocation. A deletion without an invocation (an observation of what retention removed) may
//! have happened at any time before its completion.

use super::admin::Delete;
use super::order::{Facts, Orders};
use super::store::{NONE, Store};

/// A deletion in terms of the log's indexes.
#[derive(Clone, Copy, Debug)]
struct Bounded {
    key: u32,
    began: u32,
    ended: u32,
    /// Number of indexes that it deletes.
    indexes: u32,
    /// The highest number of this deletion and those of the key that began earlier.
    indexes_max: u32,
}

/// All deletions, by key and beginning.
pub(super) struct Deletes(Vec<Bounded>);

impl Deletes {
    pub(super) fn of(store: &Store, facts: &Facts, orders: &Orders) -> Self {
        let mut all: Vec<_> = store
            .deletes
            .iter()
            .map(|d| {
                let before = d.before.unwrap_or_else(|| end_at(store, facts, orders, d));
                let before = before.max(d.low_watermark.unwrap_or(before));
                let indexes = orders.index_of_offset(d.key, before);
                Bounded {
                    key: d.key,
                    began: d.began,
                    ended: d.ended,
                    indexes,
                    indexes_max: indexes,
                }
            })
            .collect();
        all.sort_by_key(|d| (d.key, d.began));
        for i in 1..all.len() {
            if all[i].key == all[i - 1].key {
                all[i].indexes_max = all[i].indexes_max.max(all[i - 1].indexes_max);
            }
        }
        Self(all)
    }

    /// Number of indexes of a key that may have been deleted at this index of the history.
    pub(super) fn indexes_at(&self, key: u32, at: u32) -> u32 {
        let end = self.0.partition_point(|d| (d.key, d.began) < (key, at));
        let last = self.0[..end].last().filter(|d| d.key == key);
        last.map_or(0, |d| d.indexes_max)
    }

    /// Whether a record at an index of the log, whose send began at this index of the history, may have been deleted.
    pub(super) fn cover(&self, key: u32, index: u32, sent: u32) -> bool {
        let begin = self.0.partition_point(|d| d.key < key);
        let mut of_key = self.0[begin..].iter().take_while(|d| d.key == key);
        of_key.any(|d| index < d.indexes && (d.ended == NONE || sent < d.ended))
    }
}

/// The end of the log that a deletion of all records may have found: above every record that was sent before it ended.
fn end_at(store: &Store, facts: &Facts, orders: &Orders, delete: &Delete) -> i64 {
    if let Some(low) = delete.low_watermark {
        return low;
    }
    if delete.ended == NONE {
        return i64::MAX;
    }
    let entries = orders.entries(delete.key).iter();
    let may_be_there = entries.filter(|e| facts.began(store, e.value) < delete.ended);
    may_be_there
        .map(|e| e.offset.saturating_add(1))
        .max()
        .unwrap_or(0)
}

//! Checks what each reader was shown, in order: between two `assign`s offsets only rise (L6), and the records of a producer in a
//! partition (and so all records of a key) come in the order in which they were sent (I3).
//!
//! Producers that are not idempotent are exempt. Where a producer crashes and restarts, or the broker expires producers,
//! unacknowledged records may be appended late: only the order of acknowledged records is checked.

use std::collections::{BTreeMap, BTreeSet};

use brokkr_history::{Key, MicroOp, Op, Operation, Process, Type, Val};
use brokkr_workloads::{ProducerSpec, keys, value_parts};

use super::Deleted;
use crate::account::{Account, Rule, why};
use crate::check::Violation;

/// Inputs of the check.
pub struct Views<'a> {
    /// The producers.
    pub producers: &'a BTreeMap<Process, &'a ProducerSpec>,
    /// Acknowledged values.
    pub acked: BTreeSet<i64>,
    /// Whether the broker may expire producers.
    pub forgets: bool,
    /// Records that may be gone, and damaged partitions.
    pub deleted: &'a Deleted,
}

/// A reader's position in a partition.
#[derive(Default)]
struct ReaderPosition {
    offset: Option<i64>,
    /// The last value of each producer.
    values: BTreeMap<Process, i64>,
}

impl Views<'_> {
    /// Returns the violations of all readers' views.
    pub fn judge(&self, history: &[Operation], account: &mut Account) -> Vec<Violation> {
        let mut readers: BTreeMap<Process, BTreeMap<&Key, ReaderPosition>> = BTreeMap::new();
        let mut found = Vec::new();
        for o in history.iter().filter(|o| o.type_ == Type::Ok) {
            if let Op::Assign(_) = o.op {
                readers.remove(&o.process);
            }
            for micro in o.op.micro_ops() {
                let MicroOp::Poll(Some(polls)) = micro else {
                    continue;
                };
                let reader = readers.entry(o.process).or_default();
                for (key, messages) in polls {
                    let waiver = self.deleted.is_damaged(key.as_str()).then_some(why::DAMAGED);
                    if !account.count(Rule::Views, waiver, messages.len() as u64) {
                        continue;
                    }
                    let at = reader.entry(key).or_default();
                    for (offset, value) in messages {
                        self.step(at, o.process, key, (*offset, value), &mut found, account);
                    }
                }
            }
        }
        found
    }

    fn step(
        &self,
        at: &mut ReaderPosition,
        who: Process,
        key: &Key,
        message: (i64, &Val),
        found: &mut Vec<Violation>,
        account: &mut Account,
    ) {
        let (offset, value) = message;
        if let Some(before) = at.offset.replace(offset).filter(|before| *before >= offset) {
            let what = format!("process {who} was shown {key} offset {before}, then {offset}");
            found.push(Violation::new("L6", what));
        }
        let Val::Int(value) = value else { return };
        let producer = value_parts(*value).0;
        let spec = self
            .producers
            .get(&producer)
            .filter(|s| s.idempotent && s.acks != 0);
        let Some(spec) = spec else { return };
        if !self.acked.contains(value) {
            let waiver = match () {
                () if self.forgets => Some(why::EXPIRED),
                () => spec.restarts_after.map(|_| why::RESTARTED),
            };
            if !account.judges(Rule::UnackedOrder, waiver) {
                return;
            }
        }
        if let Some(before) = at.values.insert(producer, *value).filter(|before| before > value) {
            let of = |value| keys::of(value, spec.keys).map_or(String::new(), |k| format!(" of key {k}"));
            let (first, second) = (of(before), of(*value));
            found.push(Violation::new(
                "I3",
                format!("process {who} was shown {before}{first} and then, at {key} offset {offset}, {value}{second}, which was sent before it"),
            ));
        }
    }
}

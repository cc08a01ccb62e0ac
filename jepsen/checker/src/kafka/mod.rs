//! Sends and polls, as Jepsen's Kafka workload judges them.
//!
//! The definitions are those of jepsen-io/jepsen (`tests/kafka.clj`) and, for cycles, jepsen-io/elle. In short, of one key's log:
//!
//! | anomaly | what it is |
//! | --- | --- |
//! | `inconsistent-offsets` | an offset with several values |
//! | `duplicate` | a value at several offsets |
//! | `lost-write` | sent for sure, never read, though something after it was |
//! | `unseen` | acknowledged and never read |
//! | `G1a` | read, though its send failed |
//! | `precommitted-read` | read by the operation that sent it |
//! | `phantom` | read, though nobody sent it (ours; Jepsen's checker stops there) |
//! | `int-poll-skip`, `int-send-skip` | within an operation records were passed over |
//! | `int-nonmonotonic-poll`, `int-nonmonotonic-send` | within an operation a step back, or none |
//! | `poll-skip`, `nonmonotonic-poll`, `nonmonotonic-send` | the same from one operation of a process to its next |
//! | `G0`, `G1c`, and each with `-realtime` | cycles |
//! | `G1b` | only with [`Options::intermediate_reads`]: a read that ends amid another operation's sends |
//! | `empty-transaction-graph` | nothing in the history relates any two operations: it shows nothing |
//!
//! G1b is off because Kafka's consumers read whatever is committed, batch by batch; a read may end anywhere.
//!
//! Waivers: `int-send-skip`, `G0` and `G0-realtime` are always allowed (Kafka doesn't isolate writes), `poll-skip` and
//! `nonmonotonic-poll` where someone subscribes (partitions move between members), `G1c` and `G1c-realtime` with
//! [`Options::ww_deps`]; and what [`Options::allow`] names. Records below the offset of a `delete_records` are no loss, an operation's
//! `rebalance-log` excuses what it did within the keys named there, and an `assign` with `seek-to-beginning?` any step back. A poll
//! that came back empty leaves its process where it was.

mod cycles;
mod lag;
mod order;
mod positions;
mod records;
mod store;

use std::collections::{BTreeMap, BTreeSet};

use brokkr_history::{Key, MicroOp, Operation};
use serde_json::json;

pub use lag::{Lag, Unseen};
pub use order::VersionOrder;

use crate::{Finding, Malformed, Verdict};
use order::{Facts, Orders};
use records::Known;
use store::Store;

/// What this checker may report, and what is accepted for Elle's sake though it never occurs here (see `cycles`).
pub const ANOMALIES: &[&str] = &[
    "inconsistent-offsets",
    "duplicate",
    "lost-write",
    "unseen",
    "G1a",
    "G1b",
    "precommitted-read",
    "phantom",
    "int-poll-skip",
    "int-nonmonotonic-poll",
    "int-send-skip",
    "int-nonmonotonic-send",
    "poll-skip",
    "nonmonotonic-poll",
    "nonmonotonic-send",
    "G0",
    "G0-process",
    "G0-realtime",
    "G1c",
    "G1c-process",
    "G1c-realtime",
    "empty-transaction-graph",
    "PL-1-cycle-exists",
    "PL-2-cycle-exists",
    "strong-PL-1-cycle-exists",
    "strong-PL-2-cycle-exists",
    "cycle-search-timeout",
];

/// How to judge.
#[derive(Clone, Default, Debug)]
pub struct Options {
    /// Whether a record that follows another in a log also orders their senders.
    pub ww_deps: bool,
    /// Whether to report G1b.
    pub intermediate_reads: bool,
    /// Anomalies that are no reason to reject.
    pub allow: BTreeSet<&'static str>,
}

/// Judges a history as it streams by. It keeps sends and polled records as numbers, some fifty bytes each.
#[derive(Default)]
pub struct Kafka {
    store: Store,
    options: Options,
}

impl Kafka {
    /// A judge with these options.
    pub fn new(options: Options) -> Self {
        let store = Store::default();
        Self { store, options }
    }

    /// Takes the next operation.
    ///
    /// # Errors
    /// If a process begins something before it ended something else, or ends what it did not begin.
    pub fn push(&mut self, operation: Operation) -> Result<(), Malformed> {
        self.store.push(operation)
    }

    /// There are no more operations. What has not ended may or may not have happened.
    pub fn finish(mut self) -> Analysis {
        self.store.finish();
        let facts = Facts::of(&self.store);
        let orders = Orders::of(&self.store, &facts);
        let Self { store, options } = self;
        Analysis {
            store,
            options,
            facts,
            orders,
        }
    }
}

/// A history, taken apart.
pub struct Analysis {
    store: Store,
    options: Options,
    facts: Facts,
    orders: Orders,
}

impl Analysis {
    fn known(&self) -> Known<'_> {
        let Self {
            store, facts, orders, ..
        } = self;
        Known { store, facts, orders }
    }

    /// What is wrong with it, with measures of how it went.
    pub fn verdict(&self) -> Verdict {
        let mut verdict = self.anomalies();
        if let Some(worst) = lag::worst(&self.store) {
            verdict.notes.insert("worst_realtime_lag", worst.to_json());
        }
        verdict
    }

    /// What is wrong with it.
    pub fn anomalies(&self) -> Verdict {
        let known = self.known();
        let mut verdict = Verdict::new();
        verdict.allowed = self.allowed();
        verdict.add("inconsistent-offsets", records::inconsistent_offsets(known));
        verdict.add("duplicate", records::duplicates(known));
        verdict.add("lost-write", records::lost_writes(known));
        verdict.add("unseen", records::unseen(known));
        verdict.add("G1a", records::aborted_reads(known));
        verdict.add("precommitted-read", records::precommitted_reads(known));
        verdict.add("phantom", records::phantoms(known));
        if self.options.intermediate_reads {
            verdict.add("G1b", records::intermediate_reads(known));
        }
        let (polls, sends) = (positions::polls_within(known), positions::sends_within(known));
        verdict.add("int-poll-skip", polls.skips);
        verdict.add("int-nonmonotonic-poll", polls.backs);
        verdict.add("int-send-skip", sends.skips);
        verdict.add("int-nonmonotonic-send", sends.backs);
        let polls = positions::polls_between(known);
        verdict.add("poll-skip", polls.skips);
        verdict.add("nonmonotonic-poll", polls.backs);
        verdict.add("nonmonotonic-send", positions::sends_between(known));
        let cycles = cycles::find(known, self.options.ww_deps);
        for (name, findings) in cycles.cycles {
            verdict.add(name, findings);
        }
        if cycles.empty {
            let text = "nothing relates any two operations: the history shows nothing";
            verdict.add("empty-transaction-graph", [Finding::new(json!({}), [], text)]);
        }
        verdict
    }

    fn allowed(&self) -> BTreeSet<&'static str> {
        let mut allowed = self.options.allow.clone();
        allowed.extend(["int-send-skip", "G0", "G0-process", "G0-realtime"]);
        allowed.extend(["PL-1-cycle-exists", "strong-PL-1-cycle-exists"]);
        if self.store.subscribes {
            allowed.extend(["poll-skip", "nonmonotonic-poll"]);
        }
        if self.options.ww_deps {
            allowed.extend(["G1c", "G1c-process", "G1c-realtime"]);
            allowed.extend(["PL-2-cycle-exists", "strong-PL-2-cycle-exists"]);
        }
        allowed
    }

    /// The log of each key of which something is known.
    pub fn version_orders(&self) -> BTreeMap<String, VersionOrder> {
        let keys = (0u32..).zip(self.store.keys.things());
        let order =
            |(key, name): (u32, &Key)| (name.to_string(), VersionOrder::of(&self.store, &self.orders, key));
        keys.map(order)
            .filter(|(_, order)| !order.by_index.is_empty())
            .collect()
    }

    /// How far behind each poll was, in the order of the history.
    pub fn realtime_lags(&self) -> Vec<Lag> {
        lag::realtime_lags(&self.store)
    }

    /// How many acknowledged records were unread after each operation that happened.
    pub fn unseen_series(&self) -> Vec<Unseen> {
        lag::unseen_series(self.known())
    }
}

/// The highest offset of each key that an operation tells of.
pub fn max_offsets(operation: &Operation) -> BTreeMap<Key, i64> {
    let mut max = BTreeMap::new();
    let mut see = |key: &Key, offset: i64| {
        let known = max.entry(key.clone()).or_insert(offset);
        *known = offset.max(*known);
    };
    for micro in operation.op.micro_ops() {
        match micro {
            MicroOp::Send {
                key,
                offset: Some(offset),
                ..
            } => see(key, *offset),
            MicroOp::Send { .. } => {}
            MicroOp::Poll(polls) => {
                for (key, records) in polls.iter().flatten() {
                    records.iter().for_each(|(offset, _)| see(key, *offset));
                }
            }
        }
    }
    max
}

//! Sends and polls, judged as by Jepsen's Kafka workload.
//!
//! The definitions are those of jepsen-io/jepsen (`tests/kafka.clj`) and, for cycles, jepsen-io/elle. In short, for the log
//! of a key:
//!
//! | anomaly | meaning |
//! | --- | --- |
//! | `inconsistent-offsets` | an offset with several values |
//! | `duplicate` | a value at several offsets |
//! | `lost-write` | certainly sent and never read, although a later record was |
//! | `unseen` | acknowledged and never read |
//! | `G1a` | read, although its send failed |
//! | `precommitted-read` | read by the operation that sent it |
//! | `phantom` | read, although no operation sent it (an addition; Jepsen's checker stops there) |
//! | `int-poll-skip`, `int-send-skip` | records skipped within an operation |
//! | `int-nonmonotonic-poll`, `int-nonmonotonic-send` | a step back, or none, within an operation |
//! | `poll-skip`, `nonmonotonic-poll`, `nonmonotonic-send` | the same from one operation of a process to its next |
//! | `G0`, `G1c`, and each with `-realtime` | cycles |
//! | `G1b` | only with [`Options::intermediate_reads`]: a read that ends amid another operation's sends |
//! | `empty-transaction-graph` | no two operations are related, so the history shows nothing |
//!
//! G1b is off by default because Kafka's consumers read committed records batch by batch, so a read may end anywhere.
//!
//! Waivers: `int-send-skip`, `G0` and `G0-realtime` are always allowed (Kafka doesn't isolate writes), `poll-skip` and
//! `nonmonotonic-poll` if a process subscribes (partitions move between members), `G1c` and `G1c-realtime` with
//! [`Options::ww_deps`], and the anomalies in [`Options::allow`]. Records below the offset of a `delete_records` are not
//! lost, an operation's `rebalance-log` excuses its steps within the keys named there, and an `assign` with
//! `seek-to-beginning?` excuses any step back. A poll that returned nothing leaves its process's position unchanged.

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
use records::HistoryView;
use store::Store;

/// The anomalies that this checker reports, and those of Elle that are accepted as names but never occur here (see
/// `cycles`).
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

/// Options of the checker.
#[derive(Clone, Default, Debug)]
pub struct Options {
    /// Whether the order of records in a log also orders their senders.
    pub ww_deps: bool,
    /// Whether to report G1b.
    pub intermediate_reads: bool,
    /// Anomalies that do not make a history invalid.
    pub allow: BTreeSet<&'static str>,
}

/// Judges a history incrementally. It stores sends and polled records as numbers, some fifty bytes each.
#[derive(Default)]
pub struct Kafka {
    store: Store,
    options: Options,
}

impl Kafka {
    /// A checker with these options.
    pub fn new(options: Options) -> Self {
        let store = Store::default();
        Self { store, options }
    }

    /// Adds the next operation.
    ///
    /// # Errors
    /// If a process begins an operation before its last one ended, or ends one that it did not begin.
    pub fn push(&mut self, operation: Operation) -> Result<(), Malformed> {
        self.store.push(operation)
    }

    /// Ends the history. Unfinished operations may or may not have happened.
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

/// A history, indexed for the checks.
pub struct Analysis {
    store: Store,
    options: Options,
    facts: Facts,
    orders: Orders,
}

impl Analysis {
    fn view(&self) -> HistoryView<'_> {
        let Self {
            store, facts, orders, ..
        } = self;
        HistoryView { store, facts, orders }
    }

    /// All anomalies, with measures.
    pub fn verdict(&self) -> Verdict {
        let mut verdict = self.anomalies();
        if let Some(worst) = lag::worst(&self.store) {
            verdict.notes.insert("worst_realtime_lag", worst.to_json());
        }
        verdict
    }

    /// All anomalies.
    pub fn anomalies(&self) -> Verdict {
        let view = self.view();
        let mut verdict = Verdict::new();
        verdict.allowed = self.allowed();
        verdict.add("inconsistent-offsets", records::inconsistent_offsets(view));
        verdict.add("duplicate", records::duplicates(view));
        verdict.add("lost-write", records::lost_writes(view));
        verdict.add("unseen", records::unseen(view));
        verdict.add("G1a", records::aborted_reads(view));
        verdict.add("precommitted-read", records::precommitted_reads(view));
        verdict.add("phantom", records::phantoms(view));
        if self.options.intermediate_reads {
            verdict.add("G1b", records::intermediate_reads(view));
        }
        let (polls, sends) = (positions::polls_within(view), positions::sends_within(view));
        verdict.add("int-poll-skip", polls.skips);
        verdict.add("int-nonmonotonic-poll", polls.backs);
        verdict.add("int-send-skip", sends.skips);
        verdict.add("int-nonmonotonic-send", sends.backs);
        let polls = positions::polls_between(view);
        verdict.add("poll-skip", polls.skips);
        verdict.add("nonmonotonic-poll", polls.backs);
        verdict.add("nonmonotonic-send", positions::sends_between(view));
        let cycles = cycles::find(view, self.options.ww_deps);
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

    /// The log of each key, as far as it is known.
    pub fn version_orders(&self) -> BTreeMap<String, VersionOrder> {
        let keys = (0u32..).zip(self.store.keys.items());
        let order =
            |(key, name): (u32, &Key)| (name.to_string(), VersionOrder::of(&self.store, &self.orders, key));
        keys.map(order)
            .filter(|(_, order)| !order.by_index.is_empty())
            .collect()
    }

    /// The lag of each poll, in the order of the history.
    pub fn realtime_lags(&self) -> Vec<Lag> {
        lag::realtime_lags(&self.store)
    }

    /// The number of acknowledged unread records after each successful operation.
    pub fn unseen_series(&self) -> Vec<Unseen> {
        lag::unseen_series(self.view())
    }
}

/// The highest offset of each key in an operation.
pub fn max_offsets(operation: &Operation) -> BTreeMap<Key, i64> {
    let mut max = BTreeMap::new();
    let mut see = |key: &Key, offset: i64| {
        let view = max.entry(key.clone()).or_insert(offset);
        *view = offset.max(*view);
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

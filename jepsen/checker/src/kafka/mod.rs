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
//! | `phantom` | read, although no operation sent it (here Jepsen's checker stops) |
//! | `int-poll-skip`, `int-send-skip` | records skipped within an operation |
//! | `int-nonmonotonic-poll`, `int-nonmonotonic-send` | a step back, or none, within an operation |
//! | `poll-skip`, `nonmonotonic-poll`, `nonmonotonic-send` | the same from one operation of a process to its next |
//! | `G0`, `G1c`, and each with `-realtime` | cycles |
//! | `G1b` | only with [`Options::intermediate_reads`]: a read that ends amid another operation's sends |
//! | `empty-transaction-graph` | no two operations are related, so the history shows nothing |
//!
//! These are additions:
//!
//! | anomaly | meaning |
//! | --- | --- |
//! | `append-before-past` | acknowledged at or below an offset that was known before its send began |
//! | `wrong-content` | shown with another digest (key, headers, timestamp) than it was sent with |
//! | `wrong-start` | after a seek, the first record read is not the first one there |
//! | `latest-too-low` | a listed latest offset at or below a record that was known before |
//! | `earliest-too-low` | a listed earliest offset below what was deleted before |
//! | `deleted-read` | a record read, by a process that had sought there after the record was deleted |
//! | `lag` | only with [`Options::lag_max`]: a poll by which a process is further behind |
//!
//! G1b is off by default because Kafka's consumers read committed records batch by batch, so a read may end anywhere.
//!
//! Waivers: `int-send-skip`, `G0` and `G0-realtime` are always allowed (Kafka doesn't isolate writes), and the anomalies in
//! [`Options::allow`]. `poll-skip` and `nonmonotonic-poll` are allowed to a process that subscribes (partitions move between
//! members), from its subscription to its next `assign`. With [`Options::ww_deps`], `G1c` and `G1c-realtime` are allowed where
//! only the order of writes closes the cycle; such a history is searched for cycles without that order first.
//!
//! Other findings are waived one by one, by operations of the nemesis in the history (`waivers`).
//!
//! An operation's `rebalance-log` excuses its steps within the keys named there, and an `assign` with a `seek` any step to the
//! sought place, in the keys that it names. A poll that returned nothing leaves its process's position unchanged. Records
//! that were deleted are not lost, and not skipped by polls that ended after the deletion was invoked (`deletes`).
//!
//! A `send` of several records is a transaction, as in Jepsen: of one with an unknown outcome, one record that was read proves
//! all. Kafka promises that only within its transactions; so where records were sent without one, a recorder gives each send
//! its own outcome.

mod admin;
mod cycles;
mod deletes;
mod digests;
mod ends;
mod index;
mod known;
mod lag;
mod order;
mod positions;
mod records;
mod store;
mod waivers;

use std::collections::{BTreeMap, BTreeSet};

use brokkr_history::{Key, MicroOp, NEMESIS, Op, Operation, names};
use serde_json::json;

pub use lag::{Lag, Unseen};
pub use order::VersionOrder;

use crate::{Finding, Malformed, Verdict, invariant};
use deletes::Deletes;
use known::KnownEnds;
use order::{Facts, Orders};
use records::HistoryView;
use store::Store;
use waivers::Waivers;

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
    "append-before-past",
    "wrong-content",
    "wrong-start",
    "latest-too-low",
    "earliest-too-low",
    "deleted-read",
    "lag",
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
    /// How far, in nanoseconds, a consumer may be behind.
    pub lag_max: Option<i64>,
    /// Anomalies that do not make a history invalid.
    pub allow: BTreeSet<&'static str>,
}

/// Judges a history incrementally. It stores sends and polled records as numbers, some fifty bytes each.
#[derive(Default)]
pub struct Kafka {
    store: Store,
    waivers: Waivers,
    options: Options,
}

impl Kafka {
    /// A checker with these options.
    pub fn new(options: Options) -> Self {
        Self {
            options,
            ..Self::default()
        }
    }

    /// Adds the next operation.
    ///
    /// # Errors
    /// If a process begins an operation before its last one ended, or ends another one than it began, or a value is sent to a
    /// key for the second time, or a waiver is malformed.
    pub fn push(&mut self, operation: Operation) -> Result<(), Malformed> {
        if operation.process == NEMESIS
            && let Op::Other(f, value) = &operation.op
            && names::is_same(f, names::WAIVE)
        {
            return self.waivers.push(&operation, value, ANOMALIES);
        }
        self.store.push(operation)
    }

    /// Ends the history. Unfinished operations may or may not have happened.
    pub fn finish(mut self) -> Analysis {
        let malformed = self.store.finish().err();
        let facts = Facts::of(&self.store);
        let orders = Orders::of(&self.store, &facts);
        let deletes = Deletes::of(&self.store, &facts, &orders);
        let Self {
            store,
            waivers,
            options,
        } = self;
        Analysis {
            store,
            waivers,
            options,
            facts,
            orders,
            deletes,
            malformed,
        }
    }
}

/// A history, indexed for the checks.
pub struct Analysis {
    store: Store,
    waivers: Waivers,
    options: Options,
    facts: Facts,
    orders: Orders,
    deletes: Deletes,
    /// The unfinished operation that is malformed.
    malformed: Option<Malformed>,
}

impl Analysis {
    fn view(&self) -> HistoryView<'_> {
        let Self {
            store,
            facts,
            orders,
            deletes,
            ..
        } = self;
        HistoryView {
            store,
            facts,
            orders,
            deletes,
        }
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
        let named = ANOMALIES.iter();
        verdict.invariants = named.filter_map(|name| Some((*name, invariant(name)?))).collect();
        verdict.add("inconsistent-offsets", records::inconsistent_offsets(view));
        verdict.add("duplicate", records::duplicates(view));
        verdict.add("lost-write", records::lost_writes(view));
        verdict.add("unseen", records::unseen(view));
        verdict.add("G1a", records::aborted_reads(view));
        verdict.add("precommitted-read", records::precommitted_reads(view));
        verdict.add("phantom", records::phantoms(view));
        verdict.add("wrong-content", digests::wrong_content(view));
        if self.options.intermediate_reads {
            verdict.add("G1b", records::intermediate_reads(view));
        }
        let known = KnownEnds::of(&self.store);
        verdict.add("append-before-past", known::appends_before_past(view, &known));
        verdict.add("latest-too-low", ends::latest_too_low(view, &known));
        verdict.add("earliest-too-low", ends::earliest_too_low(view));
        verdict.add("deleted-read", ends::deleted_reads(view));
        let (polls, sends) = (positions::polls_within(view), positions::sends_within(view));
        verdict.add("int-poll-skip", polls.skips);
        verdict.add("int-nonmonotonic-poll", polls.backs);
        verdict.add("int-send-skip", sends.skips);
        verdict.add("int-nonmonotonic-send", sends.backs);
        let polls = positions::polls_between(view, &known);
        verdict.add("poll-skip", polls.skips);
        verdict.add("nonmonotonic-poll", polls.backs);
        verdict.add("wrong-start", polls.starts);
        verdict.add("nonmonotonic-send", positions::sends_between(view));
        if let Some(max) = self.options.lag_max {
            verdict.add("lag", lag::too_far_behind(&self.store, max));
        }
        let cycles = cycles::find(view, self.options.ww_deps);
        for (name, findings) in cycles.cycles {
            verdict.add(name, findings);
        }
        if cycles.empty {
            let text = "nothing relates any two operations: the history shows nothing";
            verdict.add("empty-transaction-graph", [Finding::new(json!({}), [], text)]);
        }
        self.waivers.apply(&mut verdict);
        self.count(&mut verdict);
        verdict
    }

    /// Counts what there was to judge, and gives up where that is nothing.
    fn count(&self, verdict: &mut Verdict) {
        let view = self.view();
        let values = records::count(view);
        let counted = &mut verdict.counted;
        counted.insert("acked", values.acked);
        counted.insert("read", values.read);
        counted.insert(
            "shown",
            number_of(self.store.reads.iter().filter(|r| self.store.is_known(r.value))),
        );
        counted.insert("digests", digests::compared(view));
        counted.insert("listings", number_of(&self.store.listings));
        counted.insert("deletes", number_of(&self.store.deletes));
        self.store.report(verdict);
        if values.acked == 0 {
            verdict.give_up("no record was acknowledged");
        }
        if let Some(malformed) = &self.malformed {
            verdict.give_up(format!("the history is malformed: {malformed}"));
        }
        let readers: BTreeMap<_, _> = values
            .readers
            .into_iter()
            .map(|(key, n)| (view.key(key), n))
            .collect();
        verdict.notes.insert("readers", json!(readers));
    }

    fn allowed(&self) -> BTreeSet<&'static str> {
        let mut allowed = self.options.allow.clone();
        allowed.extend(["int-send-skip", "G0", "G0-process", "G0-realtime"]);
        allowed.extend(["PL-1-cycle-exists", "strong-PL-1-cycle-exists"]);
        if self.options.ww_deps {
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

    /// When each successful poll began, and the largest of its lags, in nanoseconds; in the order of the history.
    pub fn worst_lags(&self) -> Vec<(i64, i64)> {
        let mut lags = Vec::new();
        lag::for_each_lag(&self.store, |time, lag| lags.push((time, lag)));
        lags
    }

    /// The time of each operation that may have succeeded, and the number of acknowledged unread records of all keys after it.
    pub fn unread_totals(&self) -> Vec<(i64, u64)> {
        lag::unread_totals(self.view())
    }

    /// The number of acknowledged unread records after each successful operation.
    pub fn unseen_series(&self) -> Vec<Unseen> {
        lag::unseen_series(self.view())
    }
}

fn number_of(items: impl IntoIterator) -> u64 {
    items.into_iter().count() as u64
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

//! Counts how often each rule was applied, and how often it was left out, with the reason.
//!
//! A run with many waivers looks like any other that passes. So each place that leaves a rule out says so here; a run's report has
//! the counts, and a campaign fails if a rule was never applied, or was left out more often than its limit.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Reasons to leave a rule out.
pub mod why {
    /// The disk damaged the partition.
    pub const DAMAGED: &str = "damaged";
    /// A client or retention deleted the records.
    pub const DELETED: &str = "deleted";
    /// The broker may have expired the producer.
    pub const EXPIRED: &str = "producer may have expired";
    /// The topic was deleted and created again.
    pub const RECREATED: &str = "topic created again";
    /// The outcome of an earlier send is unknown.
    pub const FOLLOWS_UNKNOWN: &str = "follows a send of unknown outcome";
    /// The producer was restarted, and its unacknowledged sends may still arrive.
    pub const RESTARTED: &str = "producer restarts";
    /// Retention may overtake the reader.
    pub const OUTRUN: &str = "retention overtakes the reader";
    /// The broker may have forgotten the producer, or its sequence has a hole.
    pub const SEQUENCES: &str = "refused for its sequence";
    /// The connection's buffers are small.
    pub const NARROW: &str = "small buffers";
    /// Other requests wait on the connection.
    pub const FOLLOWED: &str = "other requests follow";
    /// The disk failed, by the plan.
    pub const DISK_FAILED: &str = "disk failed";
    /// The disk was full, by the plan.
    pub const DISK_FULL: &str = "disk full";
    /// The history is too long.
    pub const TOO_LONG: &str = "history too long";
    /// Retention does not run within the time.
    pub const SELDOM: &str = "retention runs seldom";
    /// Not all records were read yet.
    pub const UNREAD: &str = "not all records were read";
    /// Faults last, or have just ended.
    pub const FAULTS: &str = "faults";
    /// The broker does not answer all that the rule asks.
    pub const UNANSWERED: &str = "not answered";
    /// An operator's mistake that the log names.
    pub const NAMED: &str = "the log names the damage";
}

macro_rules! rules {
    ($($(#[$doc:meta])* $name:ident = $text:literal, $left_out_max:literal;)*) => {
        /// The rules that may be left out.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
        pub enum Rule { $($(#[$doc])* $name,)* }

        impl Rule {
            /// All rules.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// Its name in reports: the invariant, and what is compared.
            pub fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// The largest part that a campaign may leave out.
            pub fn left_out_max(self) -> f64 {
                match self { $(Self::$name => $left_out_max,)* }
            }
        }
    };
}

rules! {
    /// The last reader finds an acknowledged record at its offset.
    Acked = "L1 acknowledged records at the end", 0.6;
    /// All readers of an offset are shown the same record.
    SameRecord = "L6 one record an offset", 0.3;
    /// The last reader is shown what others were shown.
    Shown = "L6 shown records at the end", 0.6;
    /// A reader's offsets rise, and a producer's records are in order.
    Views = "L6 and I3 in the order of a reader", 0.3;
    /// The order of unacknowledged records.
    UnackedOrder = "I3 unacknowledged records in order", 0.98;
    /// The acknowledged records of a producer are in order.
    Order = "I3 acknowledged records in order", 0.3;
    /// The ends in a response to a fetch.
    FetchedEnds = "C1 ends in fetches", 0.3;
    /// A response without records.
    EmptyFetches = "C1 fetches without records", 0.3;
    /// The bytes of a response with records.
    FetchSizes = "C1 bytes of fetches", 0.0;
    /// A response with records comes as soon as there is one.
    LateFetches = "V1 fetches of records in time", 0.2;
    /// A response without records comes when its time is up.
    EarlyFetches = "V1 fetches without records wait", 0.5;
    /// A topic is described as it was made.
    Described = "M2 topics as they were made", 0.3;
    /// An answer about an inspector's topic.
    Inspected = "C1 all that is known of a topic", 0.3;
    /// An error code that a client is answered with.
    Refusals = "C1 a refusal has a reason", 0.45;
    /// Once all faults have ended, requests succeed in time.
    CalmServed = "V1 requests in calm", 0.5;
    /// A connection lives as long as it may.
    Connections = "V1 and S1 connections", 0.97;
    /// A record is shown as it was sent.
    Unaltered = "C1 records as they were sent", 0.0;
    /// ListOffsets by time.
    OffsetForTime = "C1 offsets by time", 0.3;
    /// A record that is found by time has that time, also in a damaged log.
    OwnTime = "D2 a record's own timestamp", 0.05;
    /// The latest and earliest offset do not fall.
    Ends = "L4 and D1 ends do not fall", 0.3;
    /// A record is stored once.
    Once = "I1 a record is stored once", 0.3;
    /// The next batch of a producer is not refused.
    NextRefused = "I2 the next batch is not a gap", 0.7;
    /// A duplicate is not refused.
    DuplicateRefused = "I2 a duplicate is not a gap", 0.05;
    /// A reader meets no irregularity.
    ReaderFault = "L6 readers meet no irregularity", 0.05;
    /// Readers get to the end.
    Drained = "liveness readers reach the end", 0.2;
    /// Findings of the history checker.
    Checker = "history checker", 0.05;
    /// A log after a crash, against the log before it.
    Recovered = "D1 a log after a crash", 0.25;
    /// A recovery point covers durable bytes only.
    RecoveryPoint = "D1 a recovery point", 0.15;
    /// What was written is durable within its time.
    FlushedInTime = "D1 durable within log.flush.interval.ms", 0.0;
    /// What was acknowledged or shown is durable at that moment.
    Durable = "L1 and L5 durable when answered", 0.05;
    /// Retention removes only what it may.
    Retained = "L1 what retention removes", 0.3;
    /// The batches on the disk at the end.
    Batches = "D2 and L6 batches on the disk", 0.25;
    /// The sequences of the batches on the disk at the end.
    Sequences = "I2 and I4 sequences on the disk", 0.5;
    /// Nothing is left over.
    Leftovers = "S1 nothing is left over", 0.4;
    /// A client that comes and goes does not make the memory grow.
    Growth = "S1 memory does not grow", 0.2;
    /// A start succeeds.
    Start = "liveness a start succeeds", 0.2;
    /// A clean stop is clean.
    Stop = "liveness a stop is clean", 0.4;
}

/// Counts of one rule.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct RuleCount {
    /// How often it was applied.
    pub applied: u64,
    /// How often it was left out, by reason.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub left_out: BTreeMap<String, u64>,
}

impl RuleCount {
    /// Adds the counts of another run.
    pub fn add(&mut self, other: &Self) {
        self.applied += other.applied;
        for (why, n) in &other.left_out {
            *self.left_out.entry(why.clone()).or_insert(0) += n;
        }
    }

    /// The part that was left out.
    pub fn part_left_out(&self) -> f64 {
        let out: u64 = self.left_out.values().sum();
        out as f64 / (self.applied + out).max(1) as f64
    }
}

/// The counts of all rules.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Account(BTreeMap<Rule, RuleCount>);

impl Account {
    /// Counts the rule as applied, or as left out for a reason. Returns whether it must be applied.
    pub fn judges(&mut self, rule: Rule, waiver: Option<&'static str>) -> bool {
        self.count(rule, waiver, 1)
    }

    /// As [`Account::judges`], `n` times.
    pub fn count(&mut self, rule: Rule, waiver: Option<&'static str>, n: u64) -> bool {
        let count = self.0.entry(rule).or_default();
        match waiver {
            None => count.applied += n,
            Some(_) if n == 0 => {}
            Some(why) => match count.left_out.get_mut(why) {
                Some(times) => *times += n,
                None => drop(count.left_out.insert(why.to_owned(), n)),
            },
        }
        waiver.is_none()
    }

    /// Adds the counts of another judge.
    pub fn add(&mut self, other: &Self) {
        for (rule, count) in &other.0 {
            self.0.entry(*rule).or_default().add(count);
        }
    }

    /// The counts by the names of the rules.
    pub fn named(&self) -> BTreeMap<String, RuleCount> {
        let each = self.0.iter();
        each.map(|(rule, count)| (rule.name().to_owned(), count.clone()))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_is_counted_by_reason() {
        let mut account = Account::default();
        assert!(account.judges(Rule::Acked, None));
        assert!(!account.judges(Rule::Acked, Some(why::DAMAGED)));
        assert!(!account.count(Rule::Acked, Some(why::DELETED), 2));
        assert!(!account.count(Rule::Order, Some(why::DELETED), 0));
        let mut both = account.clone();
        both.add(&account);
        let named = both.named();
        let acked = &named[Rule::Acked.name()];
        assert_eq!(acked.applied, 2);
        assert_eq!(
            acked.left_out,
            [("damaged".to_owned(), 2), ("deleted".to_owned(), 4)].into()
        );
        assert!((acked.part_left_out() - 0.75).abs() < 1e-9);
        assert_eq!(named[Rule::Order.name()], RuleCount::default());
    }

    #[test]
    fn names_are_unique() {
        let names: std::collections::BTreeSet<_> = Rule::ALL.iter().map(|r| r.name()).collect();
        assert_eq!(names.len(), Rule::ALL.len());
    }
}

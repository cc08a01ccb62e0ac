//! C1: an error code that a client is answered with has a reason in the plan, or in what other clients do.
//!
//! Sequences are judged elsewhere (I2), and an inspector's answers by its model.

use std::collections::BTreeMap;

use brokkr::config::limits;

use crate::account::{Account, Rule, why};
use crate::exec::Nanos;
use crate::plan::{Kind, Plan};
use crate::reached::{REFUSALS_SPAN, Refusals};
use crate::retention::is_retained;
use crate::violation::Violation;

/// How long topics may be unknown at the begin of a run, and how long clients take to learn of the end of all faults.
const SETTLING: Nanos = 4_000_000_000;
/// Violations that are reported.
const NAMED_MAX: usize = 5;

/// When something happened for which requests may be refused.
pub struct RefusalFacts<'a> {
    /// The plan.
    pub plan: &'a Plan,
    /// When the run began.
    pub begin: Nanos,
    /// Since when all faults have ended and the broker serves.
    pub calm_since: Nanos,
    /// Whether a log or the metadata are damaged.
    pub is_damaged: bool,
}

/// Returns the violations.
pub fn judge(refusals: &Refusals, facts: &RefusalFacts<'_>, account: &mut Account) -> Vec<Violation> {
    let mut wrong: BTreeMap<&str, (Nanos, u64)> = BTreeMap::new();
    for ((code, span), n) in refusals {
        // The end of the span: a fault in it may be the reason.
        let at = (span + 1) * REFUSALS_SPAN;
        let waiver = match code.as_str() {
            "KAFKA_STORAGE_ERROR" | "CORRUPT_MESSAGE" | "OFFSET_OUT_OF_RANGE" if facts.is_damaged => {
                Some(why::DAMAGED)
            }
            "OUT_OF_ORDER_SEQUENCE_NUMBER" | "UNKNOWN_PRODUCER_ID" | "INVALID_PRODUCER_EPOCH" => {
                Some(why::SEQUENCES)
            }
            _ => None,
        };
        if account.count(Rule::Refusals, waiver, *n) && !facts.has_reason(code, at) {
            wrong.entry(code).or_insert((at, 0)).1 += n;
        }
    }
    let told = |(code, (at, n)): (&str, (Nanos, u64))| {
        let ms = at / 1_000_000;
        let what = format!(
            "clients were answered with {code} {n} times, at first at {ms} ms, and nothing explains it"
        );
        Violation::new("C1", what)
    };
    wrong.into_iter().take(NAMED_MAX).map(told).collect()
}

impl RefusalFacts<'_> {
    /// Whether something explains this error code at this time.
    fn has_reason(&self, code: &str, at: Nanos) -> bool {
        let w = &self.plan.workload;
        let is_calm = at > self.calm_since.saturating_add(SETTLING);
        // Topics are deleted and created while others use them.
        let topics_change = w.recreator.is_some() || w.operator.is_some() || w.inspector.is_some();
        let begins = at < self.begin + SETTLING;
        match code {
            "UNKNOWN_TOPIC_ID" | "UNKNOWN_TOPIC_OR_PARTITION" => topics_change || begins,
            "NOT_LEADER_OR_FOLLOWER" | "FENCED_LEADER_EPOCH" | "UNKNOWN_LEADER_EPOCH" => {
                // A consumer that stands still learns late.
                topics_change || begins || self.may_restart(at)
            }
            // The answer to an earlier attempt was lost.
            "TOPIC_ALREADY_EXISTS" => topics_change || begins || !self.plan.faults.is_empty(),
            "INVALID_PARTITIONS" => topics_change && !self.plan.faults.is_empty(),
            "OFFSET_OUT_OF_RANGE" => {
                let deletes = w.admin.is_some() || w.inspector.is_some() || w.recreator.is_some();
                deletes || !self.plan.prepared.is_empty() || w.topics.iter().any(is_retained)
            }
            "KAFKA_STORAGE_ERROR" => !is_calm && self.any_before(at, fails_disk),
            "CORRUPT_MESSAGE" => false,
            "FETCH_SESSION_ID_NOT_FOUND" | "INVALID_FETCH_SESSION_EPOCH" => {
                // With its connection a session ends, which the broker closes when it was idle.
                let closes = self.plan.broker.contains_key("connections.max.idle.ms");
                closes || self.may_restart(at) || self.has_small_limits() || self.any_before(at, |_| true)
            }
            "REQUEST_TIMED_OUT" => !is_calm && self.any_before(at, delays) || self.has_small_limits(),
            _ => false,
        }
    }

    fn any_before(&self, at: Nanos, is_it: fn(&Kind) -> bool) -> bool {
        let begins = |at_ms: u64| self.begin + at_ms * 1_000_000;
        let mut faults = self.plan.faults.iter();
        faults.any(|fault| is_it(&fault.kind) && begins(fault.at_ms) <= at)
    }

    fn may_restart(&self, at: Nanos) -> bool {
        self.any_before(at, restarts)
    }

    fn has_small_limits(&self) -> bool {
        let set = |key: &str| self.plan.broker.contains_key(key);
        let others = [
            "max.incremental.fetch.session.cache.slots",
            "queued.max.request.bytes",
        ];
        limits().any(|(key, _)| set(&key)) || others.into_iter().any(set)
    }
}

fn fails_disk(kind: &Kind) -> bool {
    matches!(
        kind,
        Kind::SyncFails { .. }
            | Kind::WriteFails { .. }
            | Kind::OperationFails { .. }
            | Kind::NoSpace { .. }
            | Kind::DirectoryFails { .. }
            | Kind::Damage { .. }
            | Kind::DamageFile { .. }
    )
}

/// Whether the broker ends by this fault, or because of it.
fn restarts(kind: &Kind) -> bool {
    fails_disk(kind)
        || matches!(
            kind,
            Kind::Kill { .. }
                | Kind::PowerLoss { .. }
                | Kind::Blackout { .. }
                | Kind::CleanStop { .. }
                | Kind::Restart { .. }
        )
}

/// Whether requests may take longer than clients wait.
fn delays(kind: &Kind) -> bool {
    fails_disk(kind)
        || matches!(
            kind,
            Kind::SlowDisk { .. } | Kind::HangingDisk { .. } | Kind::Pause { .. } | Kind::Narrow { .. }
        )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Fault;

    const SECOND: Nanos = 1_000_000_000;

    fn found(code: &str, at_s: u64, kinds: &[Kind]) -> usize {
        let mut plan = Plan::standard(1, 60, 50);
        let fault = |(i, kind): (usize, &Kind)| Fault {
            id: i as u64,
            at_ms: 10_000,
            when: None,
            kind: kind.clone(),
        };
        plan.faults = kinds.iter().enumerate().map(fault).collect();
        let facts = RefusalFacts {
            plan: &plan,
            begin: SECOND,
            calm_since: 40 * SECOND,
            is_damaged: false,
        };
        let refusals = [((code.to_owned(), at_s * SECOND / REFUSALS_SPAN), 3)].into();
        judge(&refusals, &facts, &mut Account::default()).len()
    }

    #[test]
    fn an_error_needs_a_reason() {
        let kill = [Kind::Kill { down_ms: 5 }];
        let full = [Kind::NoSpace {
            free_bytes: 0,
            for_ms: 9,
        }];
        for (code, at_s, kinds, wrong) in [
            ("UNKNOWN_TOPIC_ID", 2, &[][..], 0),
            ("UNKNOWN_TOPIC_ID", 20, &kill[..], 1),
            ("FENCED_LEADER_EPOCH", 20, &kill[..], 0),
            ("FENCED_LEADER_EPOCH", 9, &kill[..], 1),
            ("KAFKA_STORAGE_ERROR", 20, &kill[..], 1),
            ("KAFKA_STORAGE_ERROR", 20, &full[..], 0),
            ("KAFKA_STORAGE_ERROR", 50, &full[..], 1),
            ("REQUEST_TIMED_OUT", 20, &full[..], 0),
            ("REQUEST_TIMED_OUT", 20, &kill[..], 1),
            ("OFFSET_OUT_OF_RANGE", 20, &full[..], 1),
            ("UNKNOWN_SERVER_ERROR", 20, &full[..], 1),
            ("OUT_OF_ORDER_SEQUENCE_NUMBER", 20, &[][..], 0),
        ] {
            assert_eq!(found(code, at_s, kinds), wrong, "{code} at {at_s} s");
        }
    }
}

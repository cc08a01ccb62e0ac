//! V1: once all faults have ended and the broker serves, every request succeeds, and within a bound.
//!
//! Left out are partitions that are damaged, topics that are deleted and created again, and what a producer may be refused because the
//! broker forgot it.

use std::collections::{BTreeMap, BTreeSet};

use brokkr_history::{MicroOp, Op, Operation, Process, Type};
use brokkr_wire::ErrorCode;
use brokkr_workloads::{Notes, Workload};

use super::deleted::Place;
use super::facts::{METADATA, RunFacts};
use super::operations::name_and_value;
use crate::account::{Account, Rule, why};
use crate::violation::Violation;

/// Time after which clients have noticed that faults have ended: their longest timeout, and one more attempt.
pub(super) const SETTLING_NS: i64 = 4_000_000_000;
/// Longest time of an operation.
const OPERATION_NS: i64 = 3_000_000_000;
/// Violations that are reported.
const NAMED_MAX: usize = 5;

/// Codes by which a producer learns that the broker forgot it, or that its sequence has a hole. I2 judges these.
const OF_SEQUENCES: [ErrorCode; 3] = [
    ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER,
    ErrorCode::UNKNOWN_PRODUCER_ID,
    ErrorCode::INVALID_PRODUCER_EPOCH,
];

/// Returns the violations.
pub(super) fn judge(
    workload: &Workload,
    history: &[Operation],
    notes: &Notes,
    facts: &RunFacts,
    account: &mut Account,
) -> Vec<Violation> {
    let recreated: BTreeSet<&str> = workload
        .recreator
        .iter()
        .flat_map(|r| r.topics.iter().map(String::as_str))
        .collect();
    // What a topic that was just deleted is sent without acknowledgement ends the connection, and with it what follows on it.
    let unanswered: BTreeSet<Process> = match workload.recreator {
        Some(_) => workload
            .producers
            .iter()
            .filter(|p| p.acks == 0)
            .map(|p| p.process)
            .collect(),
        None => BTreeSet::new(),
    };
    let from = facts.calm_since.saturating_add(SETTLING_NS);
    let mut began: BTreeMap<Process, i64> = BTreeMap::new();
    let mut found = Vec::new();
    for o in history {
        if o.type_ == Type::Invoke {
            began.insert(o.process, o.time);
            continue;
        }
        let Some(began) = began.remove(&o.process).filter(|began| *began >= from) else {
            continue;
        };
        let Some((what, keys)) = subject(o) else { continue };
        let damaged = |key: &&str| facts.deleted.is_damaged(key);
        let is_recreated = |key: &&str| recreated.contains(Place::of(key).topic);
        // Only of what failed: there may be many refusals.
        let refused = match o.type_ {
            Type::Ok => None,
            _ => notes
                .refusals
                .iter()
                .find(|r| r.process == o.process && r.asked >= began && r.time <= o.time),
        };
        let code = refused.map(|r| r.code.map(ErrorCode));
        let waiver = match () {
            () if keys.iter().any(damaged) || facts.deleted.is_damaged(METADATA) => Some(why::DAMAGED),
            () if keys.iter().any(is_recreated) => Some(why::RECREATED),
            () if o.type_ != Type::Ok
                && unanswered.contains(&o.process.checked_rem(facts.life).unwrap_or(o.process)) =>
            {
                Some(why::RECREATED)
            }
            () if code.flatten().is_some_and(|code| OF_SEQUENCES.contains(&code)) => Some(why::SEQUENCES),
            () => None,
        };
        if !account.judges(Rule::CalmServed, waiver) {
            continue;
        }
        let took = o.time - began;
        if (o.type_ == Type::Ok && took <= OPERATION_NS) || found.len() >= NAMED_MAX {
            continue;
        }
        let (process, ms, took) = (o.process, began / 1_000_000, took / 1_000_000);
        let ended = match code {
            Some(Some(code)) => code.to_string(),
            Some(None) => "no answer".to_owned(),
            None => format!("{:?}", o.type_).to_lowercase(),
        };
        found.push(Violation::new(
            "V1",
            format!("all is calm, and {what} of process {process} at {ms} ms took {took} ms: {ended}"),
        ));
    }
    found
}

/// What an operation is, and the partitions or topics that it is about. None for reads, which wait by themselves.
fn subject(o: &Operation) -> Option<(&str, Vec<&str>)> {
    if let Op::Send(_) = o.op {
        let keys = o.op.micro_ops().iter().filter_map(|micro| match micro {
            MicroOp::Send { key, .. } => Some(key.as_str()),
            MicroOp::Poll(_) => None,
        });
        return Some(("a send", keys.collect()));
    }
    let (name, value) = name_and_value(o).filter(|(name, _)| *name != "visit")?;
    let of = value["key"].as_str().or_else(|| value["topic"].as_str());
    Some((name, of.into_iter().collect()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::Deleted;
    use brokkr_workloads::{ClientSpec, Refusal};

    const MS: i64 = 1_000_000;

    fn found(took_ms: i64, type_: Type, code: Option<i16>, damaged: &str) -> usize {
        let workload = Workload {
            client: ClientSpec::new("b", 1),
            topics: Vec::new(),
            producers: Vec::new(),
            consumers: Vec::new(),
            admin: None,
            recreator: None,
            operator: None,
            inspector: None,
            visitor: None,
        };
        let send = || {
            Op::Send(vec![MicroOp::Send {
                key: "t-0".into(),
                offset: None,
                value: 1.into(),
            }])
        };
        let at = 10_000 * MS;
        let history = [
            Operation::new(0, at, Type::Invoke, 0, send()),
            Operation::new(1, at + took_ms * MS, type_, 0, send()),
        ];
        let refusal = |code| Refusal {
            asked: at,
            time: at + took_ms * MS,
            process: 0,
            what: "Produce".to_owned(),
            key: "t-0".to_owned(),
            code: Some(code),
        };
        let notes = Notes {
            refusals: code.map(refusal).into_iter().collect(),
            ..Notes::default()
        };
        let mut deleted = Deleted::default();
        deleted.damage(damaged);
        let facts = |calm_since| RunFacts {
            calm_since,
            deleted: deleted.clone(),
            ..RunFacts::default()
        };
        let judged = |facts| judge(&workload, &history, &notes, &facts, &mut Account::default()).len();
        // While faults last nothing is promised.
        assert_eq!(judged(facts(9_000 * MS)), 0);
        judged(facts(5_000 * MS))
    }

    #[test]
    fn a_request_in_calm_succeeds_in_time() {
        assert_eq!(found(100, Type::Ok, None, ""), 0);
        assert_eq!(found(3_001, Type::Ok, None, ""), 1);
        assert_eq!(found(100, Type::Info, None, ""), 1);
        assert_eq!(
            found(100, Type::Fail, Some(ErrorCode::MESSAGE_TOO_LARGE.0), ""),
            1
        );
        assert_eq!(
            found(
                100,
                Type::Fail,
                Some(ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER.0),
                ""
            ),
            0
        );
        assert_eq!(found(100, Type::Info, None, "t-0"), 0);
        assert_eq!(found(100, Type::Info, None, "t-1"), 1);
        assert_eq!(found(100, Type::Info, None, METADATA), 0);
    }
}

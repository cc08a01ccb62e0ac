//! Judges at the end of a run what rude clients did to the broker and to other clients.

use std::collections::BTreeMap;

use brokkr_history::{Operation, Type};

use crate::check::Violation;
use crate::exec::Nanos;
use crate::plan::BROKER;
use crate::reached::WarningRates;
use crate::shared::Shared;

/// Processor time limit of one poll of a broker's task: longer work must yield.
const POLL_CPU_MAX_NS: u64 = 500_000_000;
/// How long an operation of a well-behaved client may take without faults.
const OPERATION_MAX: Nanos = 10_000_000_000;
/// Warnings of one kind in one second.
const LINES_MAX: u64 = 1;

/// Starts the measurements that are judged at the end.
pub(crate) fn watch(shared: &Shared) {
    if !shared.plan.rude.is_empty() {
        shared.world.exec().measure_polls(POLL_CPU_MAX_NS);
    }
}

/// Returns the violations of a run with rude clients.
pub(crate) fn judge(shared: &Shared, history: &[Operation], lines: &WarningRates) -> Vec<Violation> {
    let mut found = Vec::new();
    if shared.plan.rude.is_empty() {
        return found;
    }
    if let Some(slow) = shared
        .world
        .exec()
        .slowest_poll()
        .filter(|s| s.life.node == BROKER)
    {
        let what = format!(
            "task {:?} of the broker ran for more than {} ms without a pause",
            slow.task,
            POLL_CPU_MAX_NS / 1_000_000
        );
        found.push(Violation::new("V1", what));
    }
    if shared.plan.faults.is_empty() {
        found.extend(slow_operations(history));
        found.extend(repeated_lines(lines));
    }
    found
}

/// V1: operations of well-behaved clients complete in time.
fn slow_operations(history: &[Operation]) -> Option<Violation> {
    let mut begun = BTreeMap::new();
    for o in history {
        match o.type_ {
            Type::Invoke => drop(begun.insert(o.process, o.time)),
            _ => {
                let since = begun.remove(&o.process).unwrap_or(o.time);
                let took = (o.time as Nanos).saturating_sub(since as Nanos);
                if took > OPERATION_MAX {
                    let what = format!(
                        "an operation of process {} took {} ms",
                        o.process,
                        took / 1_000_000
                    );
                    return Some(Violation::new("V1", what));
                }
            }
        }
    }
    None
}

/// The broker logs each kind of peer error at most once a second.
fn repeated_lines(lines: &WarningRates) -> Vec<Violation> {
    let many = lines.iter().filter(|(_, most)| **most > LINES_MAX);
    many.map(|(kind, most)| Violation::new("V1", format!("{most} lines of log in a second: {kind}")))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use brokkr_history::Op;

    #[test]
    fn a_slow_operation_and_repeated_lines_are_found() {
        let op = |type_, time| {
            Operation::new(
                0,
                time,
                type_,
                7,
                Op::Other("x".to_owned(), serde_json::Value::Null),
            )
        };
        let history = |ms: i64| [op(Type::Invoke, 5), op(Type::Ok, 5 + ms * 1_000_000)];
        assert_eq!(slow_operations(&history(10_000)), None);
        assert_eq!(slow_operations(&history(10_001)).expect("a violation").id, "V1");
        let lines = |n| WarningRates::from([("a kind".to_owned(), n)]);
        assert_eq!(repeated_lines(&lines(1)), []);
        assert_eq!(repeated_lines(&lines(2)).len(), 1);
    }
}

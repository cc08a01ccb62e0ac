//! Operations besides sends and polls.

use brokkr_history::{Op, Operation};

/// The name and value of an operation that neither sends nor polls.
pub(super) fn name_and_value(o: &Operation) -> Option<(&str, &serde_json::Value)> {
    match &o.op {
        Op::Other(f, value) => Some((f, value)),
        _ => None,
    }
}

//! Answers about an inspector's topics, and how they are compared.

use brokkr_wire::ErrorCode;
use serde_json::Value;

/// What the judge of the inspector must know of the run.
#[derive(Clone, Debug, Default)]
pub struct InspectorFacts {
    /// When the broker was killed or lost its power, in nanoseconds.
    pub crashes: Vec<i64>,
    /// Whether the broker may forget producers.
    pub forgets: bool,
    /// Whether others may change the broker's defaults.
    pub others_change_defaults: bool,
    /// The largest difference between two wall clocks, in milliseconds.
    pub clocks_off_ms: i64,
}

/// A wrong answer.
pub(super) type Wrong = (&'static str, String);

/// The verdict on an answer.
pub(super) enum Answer {
    Right,
    Wrong(Wrong),
    /// The model does not know.
    Unknown,
}

impl From<Option<Wrong>> for Answer {
    fn from(wrong: Option<Wrong>) -> Self {
        wrong.map_or(Self::Right, Self::Wrong)
    }
}

pub(super) fn number(value: &Value, name: &str) -> i64 {
    value[name].as_i64().unwrap_or(i64::MIN)
}

pub(super) fn numbers(value: &Value) -> Vec<i64> {
    let all = value.as_array().into_iter().flatten();
    all.map(|n| n.as_i64().unwrap_or(i64::MIN)).collect()
}

/// `Some` if the two differ.
pub(super) fn same<T: PartialEq + std::fmt::Debug>(
    id: &'static str,
    what: &str,
    seen: T,
    is: T,
) -> Option<Wrong> {
    (seen != is).then(|| (id, format!("{what} {seen:?}, not {is:?}")))
}

pub(super) fn is_error(answer: &Value, code: ErrorCode) -> bool {
    number(answer, "error") == i64::from(code.0)
}

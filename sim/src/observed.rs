//! What clients invoked and were told, and whether it can all be true.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use brokkr_client::consumer::ConsumerRecord;
use brokkr_client::{Ack, SendError, TopicPartition};

use crate::check::Violation;
use crate::report::Ops;

/// A value that a producer sent: its number, and that of the send. Unique in a run.
pub type Value = (u32, u64);

/// How a send ended.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Outcome {
    Acked { offset: Option<i64> },
    NotWritten,
    Unknown,
}

#[derive(Default)]
struct State {
    /// Each send in the order of its producer: where to, and how it ended.
    sends: BTreeMap<Value, (TopicPartition, Option<Outcome>)>,
    /// What was ever shown at an offset, and to whom first.
    shown: BTreeMap<(TopicPartition, i64), (Value, String)>,
    /// The log as the last reader found it.
    last: BTreeMap<TopicPartition, BTreeMap<i64, Value>>,
    violations: Vec<Violation>,
    polls: u64,
}

/// The record of a run. Cloning shares it.
#[derive(Clone, Default)]
pub struct Observed(Arc<Mutex<State>>);

impl Observed {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// A producer sends a value.
    pub fn invoked(&self, value: Value, to: TopicPartition) {
        self.lock().sends.insert(value, (to, None));
    }

    /// It was told how that ended.
    pub fn ended(&self, value: Value, result: &Result<Ack, SendError>) {
        let outcome = match result {
            Ok(ack) => Outcome::Acked {
                offset: ack.offset.map(|o| o.0),
            },
            Err(SendError::Fail(_)) => Outcome::NotWritten,
            Err(SendError::Info(_)) => Outcome::Unknown,
        };
        if let Some(send) = self.lock().sends.get_mut(&value) {
            send.1 = Some(outcome);
        }
    }

    /// A consumer was shown a record.
    pub fn shown(&self, who: &str, tp: &TopicPartition, record: &ConsumerRecord) {
        let mut state = self.lock();
        state.polls += 1;
        let offset = record.offset.0;
        let Some(value) = decode(record.value.as_deref()) else {
            let what = format!("{who} was shown a value at {tp:?} offset {offset} that nobody sent");
            return state.violations.push(Violation::new("D2", what));
        };
        let first = state.shown.get(&(tp.clone(), offset)).cloned();
        match first {
            None => drop(state.shown.insert((tp.clone(), offset), (value, who.to_owned()))),
            Some((before, to)) if before != value => {
                let what = format!("{tp:?} offset {offset}: {to} was shown {before:?}, then {who} {value:?}");
                state.violations.push(Violation::new("L6", what));
            }
            Some(_) => {}
        }
    }

    /// A consumer met something that a healthy log would not show.
    pub fn fault(&self, id: &'static str, what: String) {
        self.lock().violations.push(Violation::new(id, what));
    }

    /// The last reader found this record.
    pub fn found(&self, tp: &TopicPartition, record: &ConsumerRecord) {
        self.shown("the last reader", tp, record);
        if let Some(value) = decode(record.value.as_deref()) {
            self.lock()
                .last
                .entry(tp.clone())
                .or_default()
                .insert(record.offset.0, value);
        }
    }

    /// Operations by how they ended.
    pub fn ops(&self) -> Ops {
        let state = self.lock();
        let mut ops = Ops {
            ok: state.polls,
            ..Ops::default()
        };
        for (_, outcome) in state.sends.values() {
            match outcome {
                Some(Outcome::Acked { .. }) => ops.ok += 1,
                Some(Outcome::NotWritten) => ops.fail += 1,
                Some(Outcome::Unknown) | None => ops.info += 1,
            }
        }
        ops
    }

    /// What doesn't hold, once the last reader has read everything.
    pub fn judge(&self) -> Vec<Violation> {
        let state = self.lock();
        let mut violations = state.violations.clone();
        shown_and_lost(&state, &mut violations);
        let mut places: BTreeMap<Value, Vec<(TopicPartition, i64)>> = BTreeMap::new();
        for (tp, log) in &state.last {
            for (offset, value) in log {
                places.entry(*value).or_default().push((tp.clone(), *offset));
            }
        }
        for (value, (tp, outcome)) in &state.sends {
            let at = places.get(value).map_or(&[][..], Vec::as_slice);
            if at.len() > 1 {
                violations.push(Violation::new(
                    "I1",
                    format!("{value:?} stands {} times: {at:?}", at.len()),
                ));
            }
            match outcome {
                Some(Outcome::Acked { offset }) => acked(value, tp, *offset, at, &mut violations),
                Some(Outcome::NotWritten) if !at.is_empty() => {
                    let what = format!("{value:?} was refused for good, but stands at {at:?}");
                    violations.push(Violation::new("I1", what));
                }
                _ => {}
            }
        }
        in_order(&state, &mut violations);
        violations
    }
}

/// L6, L5: what was shown once stands there at the end.
fn shown_and_lost(state: &State, violations: &mut Vec<Violation>) {
    for ((tp, offset), (value, who)) in &state.shown {
        let now = state.last.get(tp).and_then(|log| log.get(offset));
        if now.is_none() {
            let what =
                format!("{tp:?} offset {offset}: {who} was shown {value:?}, but it is not there at the end");
            violations.push(Violation::new("L6", what));
        }
    }
}

/// L1 and I2: what was acknowledged stands where it was said to.
fn acked(
    value: &Value,
    tp: &TopicPartition,
    offset: Option<i64>,
    at: &[(TopicPartition, i64)],
    violations: &mut Vec<Violation>,
) {
    match (offset, at.first()) {
        (_, None) => violations.push(Violation::new(
            "L1",
            format!("{value:?} was acknowledged at {tp:?} {offset:?} and is lost"),
        )),
        (Some(o), Some((found, there))) if found != tp || o != *there => {
            let what = format!("{value:?} was acknowledged at {tp:?} {o} and stands at {found:?} {there}");
            violations.push(Violation::new("I2", what));
        }
        _ => {}
    }
}

/// I3: what a producer sent to a partition and was acknowledged stands in the order in which it was sent.
fn in_order(state: &State, violations: &mut Vec<Violation>) {
    let mut last: BTreeMap<(u32, TopicPartition), (Value, i64)> = BTreeMap::new();
    for (value, (tp, outcome)) in &state.sends {
        let Some(Outcome::Acked { offset: Some(offset) }) = outcome else {
            continue;
        };
        let key = (value.0, tp.clone());
        if let Some((before, at)) = last.insert(key, (*value, *offset))
            && at >= *offset
        {
            let what = format!("{tp:?}: {before:?} stands at {at}, {value:?}, sent after it, at {offset}");
            violations.push(Violation::new("I3", what));
        }
    }
}

/// The bytes of a value, padded to `len`.
pub fn encode(value: Value, len: usize) -> Vec<u8> {
    let mut out = format!("{}:{}:", value.0, value.1).into_bytes();
    while out.len() < len {
        out.push(b'.');
    }
    out
}

fn decode(bytes: Option<&[u8]>) -> Option<Value> {
    let text = std::str::from_utf8(bytes?).ok()?;
    let mut parts = text.split(':');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

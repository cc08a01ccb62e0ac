//! What is explained: a violation, or a value, an offset or a moment that the user chooses.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use brokkr_workloads::value_parts;

use super::line::seconds;
use super::subject::{Subject, key_of, sends, shown};
use crate::exec::Nanos;
use crate::plan::Plan;
use crate::trace::{Event, EventKind};

/// See the module.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Focus {
    /// The violation with this id, or the one nearest to the cause.
    Violation(Option<String>),
    /// A value that a client sent.
    Value(i64),
    /// A partition, as `t0-0`, and an offset.
    Offset(String, i64),
    /// A time of the world.
    Moment(Nanos),
}

/// Why there is nothing to explain.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum FocusError {
    /// No violation has this id.
    NotViolated {
        /// The id.
        id: String,
        /// The ids of the violations.
        violated: BTreeSet<String>,
    },
    /// No client sent the value.
    UnknownValue {
        /// The value.
        value: i64,
        /// By process, how many values it sent, the first and the last.
        sent: BTreeMap<u64, (usize, i64, i64)>,
    },
    /// The run has no such partition.
    UnknownPartition {
        /// The partition.
        key: String,
        /// Those that it has.
        known: BTreeSet<String>,
    },
    /// Nothing stood at the offset.
    UnknownOffset {
        /// The partition.
        key: String,
        /// The offset.
        offset: i64,
        /// The first and the last offset that were written.
        written: Option<(i64, i64)>,
    },
    /// The run did not last so long, or had not begun.
    OutsideRun {
        /// The time.
        at: Nanos,
        /// When the run began, and when it ended.
        run: (Nanos, Nanos),
    },
}

/// How many processes and partitions an error lists.
const LISTED_MAX: usize = 8;

fn listed<'a>(all: impl ExactSizeIterator<Item = &'a String>) -> String {
    let more = all.len().saturating_sub(LISTED_MAX);
    let mut names: Vec<String> = all.take(LISTED_MAX).cloned().collect();
    if more > 0 {
        names.push(format!("and {more} more"));
    }
    names.join(", ")
}

impl fmt::Display for FocusError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotViolated { id, violated } => {
                write!(
                    f,
                    "{id} holds in this run; it violates {}",
                    listed(violated.iter())
                )
            }
            Self::UnknownValue { value, sent } => {
                write!(f, "no client sent the value {value} in this run")?;
                let (process, _) = value_parts(*value);
                let own = sent.get(&process).map(|own| (process, own));
                let some = own.or_else(|| sent.iter().next().map(|(p, of)| (*p, of)));
                match some {
                    Some((process, (n, first, last))) => write!(
                        f,
                        "; process {process} sent {n} values, {first} to {last} (a value is the process times 2^32, plus a counter)"
                    ),
                    None => write!(f, "; no client sent anything"),
                }
            }
            Self::UnknownPartition { key, known } => match known.is_empty() {
                true => write!(f, "this run has no partition {key}; it has none at all"),
                false => write!(
                    f,
                    "this run has no partition {key}; it has {}",
                    listed(known.iter())
                ),
            },
            Self::UnknownOffset { key, offset, written } => match written {
                Some((first, last)) => write!(
                    f,
                    "nothing stood at {key} offset {offset} in this run; the offsets {first} to {last} were written"
                ),
                None => write!(
                    f,
                    "nothing stood at {key} offset {offset} in this run: nothing was written there"
                ),
            },
            Self::OutsideRun {
                at,
                run: (begin, end),
            } => write!(
                f,
                "the run lasted from {} to {} s, and {} s is not in it",
                seconds(*begin).trim_start(),
                seconds(*end).trim_start(),
                seconds(*at).trim_start()
            ),
        }
    }
}

impl std::error::Error for FocusError {}

/// The subject of a value.
pub fn value(value: i64, events: &[Event]) -> Result<Subject, FocusError> {
    Subject::of_value(value, events).ok_or_else(|| {
        let mut sent: BTreeMap<u64, (usize, i64, i64)> = BTreeMap::new();
        let all: BTreeSet<i64> = events.iter().flat_map(sends).map(|(_, _, v)| v).collect();
        for v in all {
            let (process, _) = value_parts(v);
            let (n, _, last) = sent.entry(process).or_insert((0, v, v));
            (*n, *last) = (*n + 1, v);
        }
        FocusError::UnknownValue { value, sent }
    })
}

/// The subject of an offset.
pub fn offset(key: &str, offset: i64, plan: &Plan, events: &[Event]) -> Result<Subject, FocusError> {
    let topics = plan.workload.topics.iter().flat_map(|t| t.all());
    let mut known: BTreeSet<String> = topics.map(|(topic, n)| format!("{topic}-{n}")).collect();
    let mut offsets = BTreeSet::new();
    for event in events {
        let mut take = |of: &str, from: i64, to: i64| {
            if of == key {
                offsets.extend([from, to]);
            }
            if !known.contains(of) {
                known.insert(of.to_owned());
            }
            of == key && (from..=to).contains(&offset)
        };
        let mut stood = false;
        match &event.what {
            EventKind::Write { file, batches, .. } => {
                if let Some(of) = key_of(file).filter(|_| file.ends_with(".log")) {
                    batches.iter().for_each(|b| stood |= take(of, b.base, b.last));
                }
            }
            EventKind::Op { .. } => {
                for (of, offset, _) in sends(event) {
                    offset.iter().for_each(|o| stood |= take(&of, *o, *o));
                }
                for (of, offset, _) in shown(event) {
                    stood |= take(&of, offset, offset);
                }
            }
            _ => {}
        }
        if stood {
            return Ok(Subject::of_place(key, offset, events));
        }
    }
    let key = key.to_owned();
    if !known.contains(&key) {
        return Err(FocusError::UnknownPartition { key, known });
    }
    let written = offsets.first().copied().zip(offsets.last().copied());
    Err(FocusError::UnknownOffset { key, offset, written })
}

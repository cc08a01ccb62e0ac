//! Explains a failure: selects the few events of a run's trace between cause and violation, and draws them in lanes.
//!
//! The violation's text names its subject (`subject`: values, offsets, files, processes). `pick` selects the operations on the
//! subject, the requests and responses that carried it, the writes and syncs of its bytes, what a power loss took of them, and the
//! faults of the nodes in between. `lanes` draws them with one lane for each node; after them comes the chain of wakeups that led
//! to the wrong response (`chain`).

mod chain;
mod lanes;
mod line;
mod pick;
mod subject;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::{self, BufRead};

use brokkr_workloads::value_parts;

use crate::exec::Nanos;
use crate::failure::FailureMode;
use crate::plan::{BROKER_ALWAYS, Plan};
use crate::report::{Report, Violated};
use crate::shrink::Size;
use crate::trace::{Event, EventKind};
pub use chain::{Causes, WakeupLink};
use subject::Subject;
pub use subject::{key_of, shown};

/// Maximum number of lines.
const LINES_MAX: usize = 48;
/// Maximum number of further violations that are shown in full.
const OTHERS_MAX: usize = 3;

/// The part of a trace that an explanation needs.
#[derive(Default)]
pub struct Trace {
    /// All events except those of the scheduler and of single pieces of streams.
    events: Vec<Event>,
    causes: Causes,
    /// When the last bytes of each connection's sender arrive.
    sent: BTreeMap<(u32, u64), Nanos>,
    /// When requests and responses arrive, by their event.
    arrivals: BTreeMap<u64, Nanos>,
}

impl Trace {
    /// Reads JSON lines. The last one may be cut short because its process died.
    ///
    /// # Errors
    /// Errors of the reader; a line that is not an event.
    pub fn read(from: impl BufRead) -> io::Result<Self> {
        let (mut trace, mut cut) = (Self::default(), None);
        for line in from.lines() {
            if let Some(error) = cut {
                return Err(error);
            }
            match serde_json::from_str::<Event>(&line?) {
                Ok(event) => trace.take(event),
                Err(error) => cut = Some(error.into()),
            }
        }
        Ok(trace)
    }

    /// All events except those of the scheduler and of single pieces of streams.
    pub fn events(&self) -> &[Event] {
        &self.events
    }

    /// When the last byte of a request or a response arrives, by its event's number.
    pub fn arrives(&self, n: u64) -> Option<Nanos> {
        self.arrivals.get(&n).copied()
    }

    /// The runs and timers that caused them.
    pub fn causes(&self) -> &Causes {
        &self.causes
    }

    fn take(&mut self, event: Event) {
        self.causes.take(&event);
        match event.what {
            EventKind::Send { conn, arrives, .. } => drop(self.sent.insert((event.node, conn), arrives)),
            EventKind::Request { conn, .. } | EventKind::Response { conn, .. } => {
                let arrives = self.sent.get(&(event.node, conn));
                self.arrivals.extend(arrives.map(|at| (event.n, *at)));
            }
            _ => {}
        }
        if !event.what.is_fine_grained() {
            self.events.push(event);
        }
    }
}

/// What a failure is explained with.
#[derive(Default)]
pub struct Explanation {
    /// All of it as text.
    pub text: String,
    /// The violation that is explained.
    pub violation: Option<Violated>,
    /// The partitions that it is about.
    pub partitions: BTreeSet<String>,
    /// The picked events: each number with its text.
    pub picked: Vec<(u64, String)>,
    /// The number of picked events that were left out.
    pub left_out: usize,
    /// The runs and timers that led to the violation, the last one first.
    pub chain: Vec<u64>,
}

/// Explains a run of `plan` with the result `report`: the violation `id`, or else the one that shrinking would keep.
pub fn explain(plan: &Plan, report: &Report, trace: &Trace, id: Option<&str>) -> Explanation {
    let mut explanation = Explanation::default();
    let text = &mut explanation.text;
    let _ = writeln!(text, "seed {}: {}", plan.seed, Size::of(plan));
    let settings = plan
        .broker
        .iter()
        .filter(|(key, _)| !BROKER_ALWAYS.contains(&key.as_str()));
    for (key, value) in settings {
        let _ = writeln!(text, "    {key} = {value}");
    }
    let Some(way) = FailureMode::of(&report.violations, id) else {
        let _ = writeln!(text, "everything held: there is nothing to explain");
        return explanation;
    };
    let mut broken = report.violations.iter().filter(|v| v.id == way.id());
    let main = broken.next().expect("the failure mode is of a violation");
    let _ = writeln!(text, "{} does not hold: {}", main.id, main.what);
    let others: Vec<_> = report.violations.iter().filter(|v| *v != main).collect();
    for v in others.iter().take(OTHERS_MAX) {
        let _ = writeln!(
            text,
            "    also {}: {}",
            v.id,
            v.what.lines().next().unwrap_or_default()
        );
    }
    if others.len() > OTHERS_MAX {
        let _ = writeln!(text, "    and {} more", others.len() - OTHERS_MAX);
    }
    let subject = Subject::of(&main.what, plan, &trace.events);
    let picked = pick::pick(&subject, &main.what, &trace.events);
    about(text, &subject);
    let _ = writeln!(text);
    let left_out = picked.len().saturating_sub(LINES_MAX);
    let picked = pick::most_important(picked, LINES_MAX);
    lanes::draw(text, plan, &picked);
    if left_out > 0 {
        let _ = writeln!(text, "  ({left_out} events that say less are left out)");
    }
    explanation.chain = chain(text, &subject, trace);
    explanation.violation = Some(main.clone());
    explanation.picked = picked.into_iter().map(|p| (p.event.n, p.text)).collect();
    explanation.left_out = left_out;
    explanation.partitions = subject.keys;
    explanation
}

/// Describes the subject in a few lines.
fn about(text: &mut String, subject: &Subject) {
    for value in &subject.values {
        let (process, counter) = value_parts(*value);
        let places: Vec<String> = subject
            .places
            .iter()
            .map(|(key, offset)| format!("{key} offset {offset}"))
            .collect();
        let _ = writeln!(
            text,
            "value {value} is record {counter} of producer {process}; it is about {}",
            places.join(", ")
        );
    }
    if subject.values.is_empty() && !subject.places.is_empty() {
        let places: BTreeSet<String> = subject
            .places
            .iter()
            .map(|(key, offset)| format!("{key} offset {offset}"))
            .collect();
        let _ = writeln!(
            text,
            "it is about {}",
            places.into_iter().collect::<Vec<_>>().join(", ")
        );
    }
}

/// Prints the chain of wakeups that led to the violation, and returns it, the last one first.
fn chain(text: &mut String, subject: &Subject, trace: &Trace) -> Vec<u64> {
    let is_it = |e: &&Event| match &e.what {
        EventKind::Panic { .. } => true,
        EventKind::Op { type_, value, .. } => type_ == "ok" && subject.is_in(value),
        _ => false,
    };
    let Some(last) = trace.events.iter().find(is_it) else {
        return Vec::new();
    };
    let _ = writeln!(text, "\nwho woke whom, up to: {}", pick::op_text(last, subject));
    let is_begin = |e: &&Event| matches!(&e.what, EventKind::Op { type_, value, .. } if type_ == "invoke" && subject.is_in(value));
    let begin = trace.events.iter().find(is_begin).and_then(|e| e.by);
    trace.causes.write_chain(text, begin, last, &trace.events)
}

#[cfg(test)]
mod tests;

//! The story of a failure: of a run's trace the few events between cause and violation, in lanes.
//!
//! From what did not hold follows what it is about (`subject`: values, offsets, files, processes). Picked are the operations on those, the
//! requests and answers that carried them, the writes and syncs of their bytes, what a power loss took of them, and everything that befell the nodes
//! in between (`pick`). They are drawn with a lane for each node (`lanes`); behind them stands the chain of who woke whom that led to the answer
//! which should not have been given (`chain`).

mod chain;
mod lanes;
mod pick;
mod subject;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::{self, BufRead};

use brokkr_workloads::value_parts;

use crate::failure::Way;
use crate::plan::{BROKER_ALWAYS, Plan};
use crate::report::Report;
use crate::shrink::Size;
use crate::trace::{Event, What};
use chain::Causes;
use subject::Subject;

/// More lines nobody reads.
const LINES_MAX: usize = 48;
/// Further violations that are told in full.
const OTHERS_MAX: usize = 3;

/// What is read of a trace.
#[derive(Default)]
pub struct Trace {
    /// All events but those of the scheduler and of single pieces of streams.
    events: Vec<Event>,
    causes: Causes,
}

impl Trace {
    /// Reads lines of JSON. The last may have been cut short by the end of its process.
    ///
    /// # Errors
    /// Those of the reader; a line that is no event.
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

    fn take(&mut self, event: Event) {
        self.causes.take(&event);
        if !event.what.is_fine() {
            self.events.push(event);
        }
    }
}

/// Tells the story of a run of `plan` that came to `report`, of the violation `id`, or else of that which shrinking would keep.
pub fn tell(plan: &Plan, report: &Report, trace: &Trace, id: Option<&str>) -> String {
    let mut text = String::new();
    let _ = writeln!(text, "seed {}: {}", plan.seed, Size::of(plan));
    let settings = plan
        .broker
        .iter()
        .filter(|(key, _)| !BROKER_ALWAYS.contains(&key.as_str()));
    for (key, value) in settings {
        let _ = writeln!(text, "    {key} = {value}");
    }
    let Some(way) = Way::of(&report.violations, id) else {
        let _ = writeln!(text, "everything held: there is nothing to explain");
        return text;
    };
    let mut broken = report.violations.iter().filter(|v| v.id == way.id());
    let main = broken.next().expect("the way is of one");
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
    about(&mut text, &subject);
    let _ = writeln!(text);
    let left_out = picked.len().saturating_sub(LINES_MAX);
    lanes::draw(&mut text, plan, &pick::most_important(picked, LINES_MAX));
    if left_out > 0 {
        let _ = writeln!(text, "  ({left_out} events that say less are left out)");
    }
    chain(&mut text, &subject, trace);
    text
}

/// What it is about, in a few lines.
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

/// Who woke whom, up to what should not have been.
fn chain(text: &mut String, subject: &Subject, trace: &Trace) {
    let is_it = |e: &&Event| match &e.what {
        What::Panic { .. } => true,
        What::Op { type_, value, .. } => type_ == "ok" && subject.is_in(value),
        _ => false,
    };
    let Some(last) = trace.events.iter().find(is_it) else {
        return;
    };
    let _ = writeln!(text, "\nwho woke whom, up to: {}", pick::op_text(last, subject));
    let is_begin = |e: &&Event| matches!(&e.what, What::Op { type_, value, .. } if type_ == "invoke" && subject.is_in(value));
    let begin = trace.events.iter().find(is_begin).and_then(|e| e.by);
    trace.causes.tell(text, begin, last, &trace.events);
}

#[cfg(test)]
mod tests;

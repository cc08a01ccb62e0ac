//! Explains a run: selects the few events of its trace that concern a violation, a value, an offset or a moment, and draws them in
//! lanes.
//!
//! The violation's text names its subject (`subject`: values, offsets, files, processes); or the user does (`focus`). `pick` selects
//! the operations on the subject, the requests and responses that carried it, the writes and syncs of its bytes, what a power loss
//! took of them, and the faults of the nodes in between. `lanes` draws them with one lane for each node; after them comes the chain
//! of wakeups that led to the wrong response (`chain`). `moment` explains what was under way at a time (`in_flight`), and what held
//! it (`bands`).

mod bands;
mod chain;
mod explanation;
mod fate;
mod fault;
mod focus;
mod in_flight;
mod lanes;
mod line;
mod moment;
mod pick;
mod subject;
mod traced;
mod words;

use std::collections::BTreeSet;
use std::fmt::Write as _;

use brokkr_workloads::value_parts;

use crate::failure::FailureMode;
use crate::plan::{BROKER_ALWAYS, Plan};
use crate::report::Report;
use crate::shrink::Size;
use crate::trace::{Event, EventKind};
pub use bands::{Band, bands};
pub use chain::{Causes, WakeupLink};
pub use explanation::Explanation;
pub use fault::{capital, fault_text};
pub use focus::{Focus, FocusError};
pub use in_flight::{disk_operations, operations};
pub use moment::bands_at;
use pick::PickedEvent;
use subject::Subject;
pub use subject::{key_of, shown};
pub use traced::Trace;

/// Maximum number of lines.
const LINES_MAX: usize = 48;
/// Maximum number of further violations that are shown in full.
const OTHERS_MAX: usize = 3;

/// Explains a run of `plan` with the result `report`.
///
/// # Errors
/// The run has no such violation, value, offset or time.
pub fn explain(
    plan: &Plan,
    report: &Report,
    trace: &Trace,
    focus: &Focus,
) -> Result<Explanation, FocusError> {
    match focus {
        Focus::Violation(id) => violation(plan, report, trace, id.as_deref()),
        Focus::Value(value) => {
            let subject = focus::value(*value, &trace.events)?;
            let title = format!("value {value}");
            Ok(story(plan, report, trace, subject, title))
        }
        Focus::Offset(key, offset) => {
            let subject = focus::offset(key, *offset, plan, &trace.events)?;
            let title = format!("{key} offset {offset}");
            Ok(story(plan, report, trace, subject, title))
        }
        Focus::Moment(at) => {
            let (begin, end) = trace.span();
            if !(begin..=end).contains(at) {
                let run = (begin, end);
                return Err(FocusError::OutsideRun { at: *at, run });
            }
            let title = format!("{} s", line::seconds(*at).trim_start());
            let mut text = head(plan);
            violated(&mut text, report);
            let explanation = moment::explain(&mut text, plan, trace, *at);
            let subject = Some(format!("what was under way at {title}"));
            Ok(Explanation {
                text,
                subject,
                ..explanation
            })
        }
    }
}

/// The plan in a few lines.
fn head(plan: &Plan) -> String {
    let mut text = format!("seed {}: {}\n", plan.seed, Size::of(plan));
    let settings = plan
        .broker
        .iter()
        .filter(|(key, _)| !BROKER_ALWAYS.contains(&key.as_str()));
    for (key, value) in settings {
        let _ = writeln!(text, "    {key} = {value}");
    }
    text
}

/// The violations of a run that is not explained by them.
fn violated(text: &mut String, report: &Report) {
    for v in report.violations.iter().take(OTHERS_MAX) {
        let what = v.what.lines().next().unwrap_or_default();
        let _ = writeln!(text, "    {} does not hold: {what}", v.id);
    }
    if report.violations.len() > OTHERS_MAX {
        let _ = writeln!(text, "    and {} more", report.violations.len() - OTHERS_MAX);
    }
}

/// The violation `id`, or else the one that shrinking would keep.
fn violation(
    plan: &Plan,
    report: &Report,
    trace: &Trace,
    id: Option<&str>,
) -> Result<Explanation, FocusError> {
    let mut explanation = Explanation {
        text: head(plan),
        ..Explanation::default()
    };
    let text = &mut explanation.text;
    let Some(way) = FailureMode::of(&report.violations, id) else {
        if let Some(id) = id.filter(|_| !report.violations.is_empty()) {
            let violated = report.violations.iter().map(|v| v.id.clone()).collect();
            let id = id.to_owned();
            return Err(FocusError::NotViolated { id, violated });
        }
        let _ = writeln!(
            text,
            "everything held: there is nothing to explain; --value, --offset or --at chooses what is explained of a run that passes"
        );
        return Ok(explanation);
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
    draw(&mut explanation, plan, trace, &subject, picked);
    explanation.violation = Some(main.clone());
    explanation.partitions = subject.keys;
    Ok(explanation)
}

/// The story of a subject that the user chose.
fn story(plan: &Plan, report: &Report, trace: &Trace, subject: Subject, title: String) -> Explanation {
    let mut explanation = Explanation {
        text: head(plan),
        ..Explanation::default()
    };
    let text = &mut explanation.text;
    violated(text, report);
    let _ = writeln!(text, "the story of {title}");
    fate::write(text, &subject, &trace.events);
    let picked = pick::pick_story(&subject, &trace.events);
    draw(&mut explanation, plan, trace, &subject, picked);
    explanation.subject = Some(format!("the story of {title}"));
    explanation.partitions = subject.keys;
    explanation
}

/// Draws the most important of the picked events, and the chain of wakeups.
fn draw(to: &mut Explanation, plan: &Plan, trace: &Trace, subject: &Subject, picked: Vec<PickedEvent<'_>>) {
    let text = &mut to.text;
    let _ = writeln!(text);
    to.left_out = picked.len().saturating_sub(LINES_MAX);
    let picked = pick::most_important(picked, LINES_MAX);
    lanes::draw(text, plan, &picked);
    if to.left_out > 0 {
        let _ = writeln!(text, "  ({} events that say less are left out)", to.left_out);
    }
    to.chain = chain(text, subject, trace);
    to.picked = picked.into_iter().map(|p| (p.event.n, p.text)).collect();
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
        EventKind::Op { type_, .. } => type_ == "ok" && subject.is_record_of(e),
        _ => false,
    };
    let Some(last) = trace.events.iter().find(is_it) else {
        return Vec::new();
    };
    let _ = writeln!(text, "\nwho woke whom, up to: {}", words::op_text(last, subject));
    let is_begin = |e: &&Event| matches!(&e.what, EventKind::Op { type_, .. } if type_ == "invoke" && subject.is_record_of(e));
    let begin = trace.events.iter().find(is_begin).and_then(|e| e.by);
    trace.causes().write_chain(text, begin, last, &trace.events)
}

#[cfg(test)]
mod tests;

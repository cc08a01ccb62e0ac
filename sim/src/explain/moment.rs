//! Explains a moment: which nodes were not up, which faults lasted, what was under way, and what each operation waited for.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::bands::{Band, bands};
use super::explanation::Explanation;
use super::in_flight::{DiskOperation, Operation, Wait, disk_operations, held_by, messages, operations};
use super::lanes;
use super::line::{cut, seconds};
use super::pick::PickedEvent;
use super::traced::Trace;
use crate::exec::Nanos;
use crate::plan::{Plan, node_name};
use crate::report::many;
use crate::trace::{Event, EventKind};

/// How many operations and messages are listed.
const LISTED_MAX: usize = 16;
/// How many of the nearest events are shown.
const AROUND: usize = 24;
/// For how many operations the events before and after the moment are shown.
const OPERATIONS_SHOWN_MAX: usize = 8;
/// A longest wait is named only if it exceeds the present one by this.
const LONGER_MIN: Nanos = 1_000_000;

/// The nodes that are not up, and the faults, at a moment.
pub fn bands_at(bands: &[Band], at: Nanos) -> impl Iterator<Item = &Band> {
    bands.iter().filter(move |b| b.from <= at && at < b.to)
}

/// Explains a moment within the run.
pub fn explain(text: &mut String, plan: &Plan, trace: &Trace, at: Nanos) -> Explanation {
    let (events, end) = (trace.events(), trace.span().1);
    let bands = bands(plan, events);
    let operations = operations(trace, at);
    let _ = writeln!(text, "nodes and faults at {} s", time(at));
    let mut nothing = true;
    // A fault on all clients is a band of each of them, and one of the world.
    let of_world = |b: &&Band| b.class != "fault" || b.node == 0;
    for band in bands_at(&bands, at).filter(of_world) {
        nothing = false;
        let who = match band.class {
            "fault" => "a fault".to_owned(),
            _ => node_name(plan, band.node),
        };
        let _ = writeln!(
            text,
            "  {who}: {}, {}",
            band.text.trim_end_matches('.'),
            span(band)
        );
    }
    if nothing {
        let _ = writeln!(text, "  every node is up, and no fault lasts");
    }
    let _ = writeln!(
        text,
        "{}",
        titled(operations.len(), "operation", "of clients in flight")
    );
    for operation in operations.iter().take(LISTED_MAX) {
        describe(text, plan, &bands, operation, at, end);
    }
    more(text, operations.len());
    let disk = disk_operations(trace, at);
    let _ = writeln!(text, "{}", titled(disk.len(), "disk operation", "under way"));
    for operation in disk.iter().take(LISTED_MAX) {
        let _ = writeln!(text, "  {}", disk_text(plan, operation));
    }
    more(text, disk.len());
    let messages = messages(trace, at);
    let _ = writeln!(text, "{}", titled(messages.len(), "message", "under way"));
    for (event, arrives) in messages.iter().take(LISTED_MAX) {
        let _ = writeln!(
            text,
            "  {} {}; it left at {} s and arrives at {} s",
            node_name(plan, event.node),
            cut(&event.what.to_string()),
            time(event.t),
            time(*arrives)
        );
    }
    more(text, messages.len());
    let _ = writeln!(text);
    let picked = around(events, &operations, at, end);
    lanes::draw(text, plan, &picked);
    Explanation {
        partitions: operations.iter().flat_map(Operation::keys).collect(),
        picked: picked.into_iter().map(|p| (p.event.n, p.text)).collect(),
        ..Explanation::default()
    }
}

fn time(t: Nanos) -> String {
    seconds(t).trim_start().to_owned()
}

fn span(band: &Band) -> String {
    format!("from {} to {} s", time(band.from), time(band.to))
}

fn titled(n: usize, what: &str, how: &str) -> String {
    match n {
        0 => format!("no {what} {how}"),
        n => format!("{} {how}", many(n, what)),
    }
}

fn more(text: &mut String, n: usize) {
    if n > LISTED_MAX {
        let _ = writeln!(text, "  and {} more", n - LISTED_MAX);
    }
}

fn lasts(t: Nanos) -> String {
    format!("{}.{:03} ms", t / 1_000_000, t % 1_000_000 / 1_000)
}

fn describe(text: &mut String, plan: &Plan, bands: &[Band], o: &Operation<'_>, at: Nanos, end: Nanos) {
    let until = match o.ended {
        Some(e) => format!("it ends at {} s, after {}", time(e.t), lasts(e.t - o.begun.t)),
        None => "it never ends".to_owned(),
    };
    let _ = writeln!(
        text,
        "  {}: {}; it began at {} s, {until}",
        node_name(plan, o.begun.node),
        cut(&o.text()),
        time(o.begun.t)
    );
    let Some(now) = o.wait_at(at, end) else { return };
    let _ = writeln!(text, "      it waits {}", wait_text(&now));
    held(text, bands, o, &now);
    if let Some(longest) = o.longest(end).filter(|w| w.lasts > now.lasts + LONGER_MIN) {
        let _ = writeln!(text, "      its longest wait is {}", wait_text(&longest));
        held(text, bands, o, &longest);
    }
}

fn wait_text(wait: &Wait<'_>) -> String {
    let from = format!("since {} s ({})", time(wait.from.t), cut(&wait.from.text));
    match wait.to {
        Some(to) => format!(
            "{}, {from}, until {} s ({})",
            lasts(wait.lasts),
            time(to.t),
            cut(&to.text)
        ),
        None => format!("{from}, and nothing follows"),
    }
}

fn held(text: &mut String, bands: &[Band], o: &Operation<'_>, wait: &Wait<'_>) {
    let to = wait.from.t + wait.lasts;
    for band in held_by(bands, o.begun.node, wait.from.t, to) {
        let _ = writeln!(
            text,
            "      meanwhile: {}, {}",
            band.text.trim_end_matches('.'),
            span(band)
        );
    }
}

fn disk_text(plan: &Plan, o: &DiskOperation<'_>) -> String {
    let until = match o.ended {
        Some(e) => format!("it ends at {} s, after {}", time(e.t), lasts(e.t - o.begun.t)),
        None => "it never ends".to_owned(),
    };
    let what = o.begun.what.to_string().replace("data/", "");
    let node = node_name(plan, o.begun.node);
    format!(
        "{node} {}; it began at {} s, {until}",
        cut(&what),
        time(o.begun.t)
    )
}

/// The events nearest to the moment, and those between which the operations wait.
fn around<'a>(
    events: &'a [Event],
    operations: &[Operation<'_>],
    at: Nanos,
    end: Nanos,
) -> Vec<PickedEvent<'a>> {
    let mut chosen: BTreeSet<u64> = BTreeSet::new();
    for operation in operations.iter().take(OPERATIONS_SHOWN_MAX) {
        chosen.insert(operation.begun.n);
        chosen.extend(operation.ended.map(|e| e.n));
        if let Some(wait) = operation.wait_at(at, end) {
            chosen.insert(wait.from.n);
            chosen.extend(wait.to.map(|to| to.n));
        }
    }
    let is_loud = |level: &str| level == "WARN" || level == "ERROR";
    let is_shown = |e: &&Event| match &e.what {
        EventKind::Log { level, .. } => is_loud(level),
        EventKind::Violation { .. } => false,
        _ => true,
    };
    let until = events.partition_point(|e| e.t <= at);
    let before = events[..until].iter().rev().filter(is_shown).take(AROUND / 2);
    let after = events[until..].iter().filter(is_shown).take(AROUND / 2);
    chosen.extend(before.chain(after).map(|e| e.n));
    let picked = events.iter().filter(|e| chosen.contains(&e.n));
    picked.map(PickedEvent::of).collect()
}

//! What was under way at a moment: operations of clients with the steps that they took, operations of disks, and messages.

use std::collections::{BTreeMap, BTreeSet};

use super::bands::Band;
use super::pick::{is_of_world, pick_story};
use super::subject::{Subject, sends};
use super::traced::Trace;
use super::words::op_text;
use crate::exec::Nanos;
use crate::plan::BROKER;
use crate::trace::{Event, EventKind};

/// A step of an operation.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Step {
    /// When.
    pub t: Nanos,
    /// What happened.
    pub text: String,
    /// The number of the event.
    pub n: u64,
}

/// An operation of a client that had begun and not ended.
pub struct Operation<'a> {
    /// Its begin.
    pub begun: &'a Event,
    /// Its end; none if the run or the client ended before.
    pub ended: Option<&'a Event>,
    /// Its steps in order, with its begin and its end.
    pub steps: Vec<Step>,
}

/// The time between two steps, or up to the run's end.
pub struct Wait<'a> {
    /// The step before.
    pub from: &'a Step,
    /// The step after.
    pub to: Option<&'a Step>,
    /// How long.
    pub lasts: Nanos,
}

impl Operation<'_> {
    /// The waits, in order. One that never ends lasts until `end`.
    pub fn waits(&self, end: Nanos) -> impl Iterator<Item = Wait<'_>> {
        let next = |i: usize| self.steps.get(i + 1);
        self.steps.iter().enumerate().map(move |(i, from)| Wait {
            from,
            to: next(i),
            lasts: next(i).map_or(end, |to| to.t).saturating_sub(from.t),
        })
    }

    /// What it waits for at a moment.
    pub fn wait_at(&self, at: Nanos, end: Nanos) -> Option<Wait<'_>> {
        self.waits(end).filter(|w| w.from.t <= at).last()
    }

    /// Its longest wait.
    pub fn longest(&self, end: Nanos) -> Option<Wait<'_>> {
        // Nothing follows the last step, if that is the operation's end.
        let waits = self.waits(end).filter(|w| w.to.is_some() || self.ended.is_none());
        waits.max_by_key(|w| w.lasts)
    }

    /// The operation in words.
    pub fn text(&self) -> String {
        op_text(self.begun, &Subject::of_operation(self.begun))
    }

    /// The partitions that it sends to.
    pub fn keys(&self) -> BTreeSet<String> {
        sends(self.begun).into_iter().map(|(key, ..)| key).collect()
    }
}

/// The node whose process ends with this event.
fn ends_process(what: &EventKind) -> Option<u32> {
    match what {
        EventKind::Kill { of } | EventKind::PowerLoss { of } | EventKind::Ended { of } => Some(*of),
        _ => None,
    }
}

/// The operations of clients that were under way, the oldest first.
pub fn operations(trace: &Trace, at: Nanos) -> Vec<Operation<'_>> {
    let events = trace.events();
    let until = events.partition_point(|e| e.t <= at);
    let mut open: BTreeMap<u64, usize> = BTreeMap::new();
    for (i, event) in events[..until].iter().enumerate() {
        if let EventKind::Op { process, type_, .. } = &event.what {
            match type_.as_str() {
                "invoke" => drop(open.insert(*process, i)),
                _ => drop(open.remove(process)),
            }
        } else if let Some(of) = ends_process(&event.what) {
            open.retain(|_, i| events[*i].node != of);
        }
    }
    let mut all: Vec<Operation<'_>> = open.into_values().map(|i| operation(trace, i)).collect();
    all.sort_by_key(|o| o.begun.n);
    all
}

fn operation(trace: &Trace, begun: usize) -> Operation<'_> {
    let events = trace.events();
    let begin = &events[begun];
    let process_of = |event: &Event| match &event.what {
        EventKind::Op { process, .. } => Some(*process),
        _ => None,
    };
    let is_its_end =
        |e: &Event| process_of(e) == process_of(begin) || ends_process(&e.what) == Some(begin.node);
    let end = events[begun + 1..]
        .iter()
        .position(is_its_end)
        .map(|i| begun + 1 + i);
    let of = &events[begun..end.map_or(events.len(), |end| end + 1)];
    let subject = Subject::of_operation(begin);
    let mut steps = vec![Step {
        t: begin.t,
        text: "it begins".to_owned(),
        n: begin.n,
    }];
    let own: BTreeMap<u64, String> = match subject.values.is_empty() {
        true => BTreeMap::new(),
        false => pick_story(&subject, of)
            .into_iter()
            .map(|p| (p.event.n, p.text))
            .collect(),
    };
    for event in &of[1..] {
        let text = match &event.what {
            EventKind::Op { .. } => None,
            what if is_of_world(what) => None,
            EventKind::Response { to, .. } if *to != begin.node => None,
            EventKind::Connect { .. } | EventKind::Connected { .. } | EventKind::Reset { .. }
                if event.node == begin.node =>
            {
                Some(event.what.to_string())
            }
            what => own
                .get(&event.n)
                .cloned()
                .or_else(|| is_of_node(event, begin.node, &subject).then(|| what.to_string())),
        };
        let Some(text) = text else { continue };
        if let Some(t) = trace.arrives(event.n) {
            let name = match &event.what {
                EventKind::Request { api, correlation, .. } => format!("the request {api} #{correlation}"),
                EventKind::Response { api, correlation, .. } => format!("the answer of {api} #{correlation}"),
                what => what.to_string(),
            };
            steps.push(Step {
                t,
                text: format!("{name} arrives"),
                n: event.n,
            });
        }
        steps.push(Step {
            t: event.t,
            text,
            n: event.n,
        });
    }
    let ended = end.map(|end| &events[end]).filter(|e| process_of(e).is_some());
    if let Some(end) = end.map(|end| &events[end]) {
        // What arrives later is no step of the operation.
        steps.retain(|s| s.t <= end.t);
        let text = match &end.what {
            EventKind::Op { .. } => op_text(end, &subject),
            what => what.to_string(),
        };
        steps.push(Step {
            t: end.t,
            text,
            n: end.n,
        });
    }
    steps.sort_by_key(|s| s.t);
    Operation {
        begun: begin,
        ended,
        steps,
    }
}

/// Whether it is a request of the node, or a response to it, and the operation has no values to know its own by.
fn is_of_node(event: &Event, node: u32, subject: &Subject) -> bool {
    subject.values.is_empty()
        && match &event.what {
            EventKind::Request { .. } => event.node == node,
            EventKind::Response { to, .. } => *to == node,
            _ => false,
        }
}

/// What a client's node and the broker's were, and the faults on them, during a wait.
pub fn held_by(bands: &[Band], node: u32, from: Nanos, to: Nanos) -> Vec<&Band> {
    let mut found: Vec<&Band> = Vec::new();
    for band in bands.iter().filter(|b| b.node == BROKER || b.node == node) {
        let overlaps = band.from < to && band.to > from;
        if overlaps && found.iter().all(|f| f.text != band.text || f.from != band.from) {
            found.push(band);
        }
    }
    found
}

/// An operation of a disk that had begun and not ended.
pub struct DiskOperation<'a> {
    /// Its begin.
    pub begun: &'a Event,
    /// Its end; none if the run or the process ended before.
    pub ended: Option<&'a Event>,
}

/// A write by its number, or a sync by the number of its event.
type DiskKey = (bool, u64);

fn begins(event: &Event) -> Option<DiskKey> {
    match &event.what {
        EventKind::Write { write, .. } => Some((true, *write)),
        EventKind::Sync { .. } => Some((false, event.n)),
        _ => None,
    }
}

fn ends(what: &EventKind) -> Option<DiskKey> {
    match what {
        EventKind::Wrote { write, .. } | EventKind::WriteDropped { write } => Some((true, *write)),
        EventKind::Synced { begun, .. } => Some((false, *begun)),
        _ => None,
    }
}

/// The writes and syncs that were under way, the oldest first.
pub fn disk_operations(trace: &Trace, at: Nanos) -> Vec<DiskOperation<'_>> {
    let events = trace.events();
    let until = events.partition_point(|e| e.t <= at);
    let mut open: BTreeMap<DiskKey, &Event> = BTreeMap::new();
    for event in &events[..until] {
        open.extend(begins(event).map(|key| (key, event)));
        if let Some(key) = ends(&event.what) {
            open.remove(&key);
        } else if let Some(of) = ends_process(&event.what) {
            open.retain(|_, e| e.node != of);
        }
    }
    let ended = |key, node| {
        let is_end = |e: &&Event| ends(&e.what) == Some(key) || ends_process(&e.what) == Some(node);
        let end = events[until..].iter().find(is_end);
        end.filter(|e| ends(&e.what).is_some())
    };
    let mut all: Vec<DiskOperation<'_>> = open
        .into_iter()
        .map(|(key, begun)| DiskOperation {
            begun,
            ended: ended(key, begun.node),
        })
        .collect();
    all.sort_by_key(|o| o.begun.n);
    all
}

/// The requests and responses whose last bytes had left and not arrived, with the time of their arrival.
pub fn messages(trace: &Trace, at: Nanos) -> Vec<(&Event, Nanos)> {
    let sent = trace.events().iter().take_while(|e| e.t <= at);
    let arrives = |e: &'_ Event| trace.arrives(e.n).filter(|t| *t > at);
    sent.filter_map(|e| Some((e, arrives(e)?))).collect()
}

//! Selects the events of an explanation, with their weights.

use std::collections::{BTreeMap, BTreeSet};

use super::subject::{Subject, key_of, shown};
use super::words::{disk_text, in_request, op_text, plain};
use crate::plan::LAST_READER;
use crate::trace::{Event, EventKind, ObservedBatch};

/// An event of an explanation.
pub struct PickedEvent<'a> {
    /// The event.
    pub event: &'a Event,
    /// Its text.
    pub text: String,
    /// Another node that it concerns.
    pub to: Option<u32>,
    /// How important it is for the explanation.
    weight: u8,
}

impl<'a> PickedEvent<'a> {
    /// An event without a subject.
    pub fn of(event: &'a Event) -> Self {
        let (text, to) = match &event.what {
            EventKind::Request { to, .. } | EventKind::Response { to, .. } => {
                (event.what.to_string(), Some(*to))
            }
            EventKind::Kill { of }
            | EventKind::PowerLoss { of }
            | EventKind::Start { of }
            | EventKind::Started { of, .. }
            | EventKind::Stop { of }
            | EventKind::Ended { of }
            | EventKind::Pause { of }
            | EventKind::Resume { of } => (event.what.to_string(), Some(*of)),
            EventKind::Fault { fault } => (format!("fault {}", plain(fault)), None),
            what => (what.to_string().replace("data/", ""), None),
        };
        Self {
            event,
            text,
            to,
            weight: OWN,
        }
    }
}

/// A rare state that was reached more often than this in a run is not shown.
const REACHED_OFTEN: usize = 5;
/// For a violation without a specific subject: how many of the last operations of each process are shown.
const LAST_OPS: usize = 3;

/// Picks the events that concern the subject of a violation, in order.
pub fn pick<'a>(subject: &Subject, violation: &str, events: &'a [Event]) -> Vec<PickedEvent<'a>> {
    let mut picked = all(Picker::new(subject, Some(violation), events), events);
    // Faults of the nodes before the subject's first event are left out.
    let begins = picked
        .iter()
        .find(|p| p.weight >= OWN && !is_of_world(&p.event.what))
        .map_or(0, |p| p.event.t);
    picked.retain(|p| p.event.t >= begins || p.weight > OWN);
    picked
}

/// Picks the events that concern the subject, in order, and what happened to the nodes until the story was settled: up to the
/// subject's first read and all that was done to its bytes. The subject's own events weigh more.
pub fn pick_story<'a>(subject: &Subject, events: &'a [Event]) -> Vec<PickedEvent<'a>> {
    let mut picked = all(Picker::new(subject, None, events), events);
    let is_own = |p: &&PickedEvent<'_>| !is_of_world(&p.event.what);
    let is_poll = |p: &PickedEvent<'_>| matches!(&p.event.what, EventKind::Op { f, .. } if f == "poll");
    let own = || picked.iter().filter(is_own);
    let begins = own().next().map_or(0, |p| p.event.t);
    let first_read = own().find(|p| is_poll(p)).map_or(0, |p| p.event.t);
    let last_change = own().rfind(|p| !is_poll(p)).map_or(0, |p| p.event.t);
    let settled = first_read.max(last_change);
    picked.retain(|p| is_own(&p) || (begins..=settled).contains(&p.event.t));
    let of_world = picked.iter_mut().filter(|p| is_of_world(&p.event.what));
    of_world.for_each(|p| {
        let is_minor = matches!(p.event.what, EventKind::Reached { .. });
        p.weight = if is_minor { 1 } else { p.weight.min(OF_WORLD_MAX) };
    });
    picked
}

fn all<'a>(mut picker: Picker<'_>, events: &'a [Event]) -> Vec<PickedEvent<'a>> {
    let mut picked = Vec::new();
    for event in events {
        if let Some((weight, text, to)) = picker.weigh(event) {
            picked.push(PickedEvent {
                event,
                text,
                to,
                weight,
            });
        }
    }
    picked
}

/// The weight of events about the subject itself.
const OWN: u8 = 8;
/// In a story, the weight of what happens to nodes: below that of all that concerns the subject, except repeated reads.
const OF_WORLD_MAX: u8 = 4;
/// In a story, the weight of a process's first read, and of its further reads.
const FIRST_READ: u8 = 8;
const LATER_READ: u8 = 2;

/// Whether an event concerns a node as a whole, or all nodes.
pub fn is_of_world(what: &EventKind) -> bool {
    use EventKind::{Calm, Ended, Fault, Kill, Log, Pause, PowerLoss, Reached, Resume, Start, Started, Stop};
    matches!(
        what,
        Calm | Ended { .. }
            | Fault { .. }
            | Kill { .. }
            | Log { .. }
            | Pause { .. }
            | PowerLoss { .. }
            | Reached { .. }
            | Resume { .. }
            | Start { .. }
            | Started { .. }
            | Stop { .. }
    )
}

/// Keeps this many events: drops those of the lowest weight.
pub fn most_important(picked: Vec<PickedEvent<'_>>, most: usize) -> Vec<PickedEvent<'_>> {
    let mut weights: Vec<u8> = picked.iter().map(|p| p.weight).collect();
    weights.sort_unstable_by(|a, b| b.cmp(a));
    let Some(least) = weights.get(most).copied() else {
        return picked;
    };
    let mut room = weights.iter().take(most).filter(|w| **w == least).count();
    picked
        .into_iter()
        .filter(|p| {
            let stays = p.weight > least || p.weight == least && room > 0;
            room -= usize::from(p.weight == least && stays);
            stays
        })
        .collect()
}

struct Picker<'a> {
    subject: &'a Subject,
    /// The violation's text; none in a story.
    violation: Option<&'a str>,
    /// Requests that carried the subject and have no response yet: connection and correlation id.
    pending_requests: BTreeSet<(u64, i32)>,
    /// Nodes that received the subject in a fetch response.
    answered: BTreeSet<u32>,
    /// Where its bytes are: file, from, to; and whether a sync has covered them.
    bytes: BTreeMap<(String, u64), (u64, bool)>,
    writes: BTreeSet<u64>,
    syncs: BTreeSet<u64>,
    first_shown: BTreeMap<(String, i64), Option<i64>>,
    /// Processes that have read it.
    readers: BTreeSet<u64>,
    /// A client has asked to delete it.
    is_deleted: bool,
    around: BTreeSet<u64>,
    reached: BTreeMap<String, usize>,
    last_ops: BTreeSet<u64>,
}

type PickedText = Option<(u8, String, Option<u32>)>;

impl<'a> Picker<'a> {
    fn new(subject: &'a Subject, violation: Option<&'a str>, events: &[Event]) -> Self {
        Self {
            subject,
            violation,
            pending_requests: BTreeSet::new(),
            answered: BTreeSet::new(),
            bytes: BTreeMap::new(),
            writes: BTreeSet::new(),
            syncs: BTreeSet::new(),
            first_shown: BTreeMap::new(),
            readers: BTreeSet::new(),
            is_deleted: false,
            around: match violation {
                Some(_) => around(subject, events),
                None => BTreeSet::new(),
            },
            reached: count_reached(events),
            last_ops: match violation {
                Some(_) if subject.places.is_empty() => last_ops(events),
                _ => BTreeSet::new(),
            },
        }
    }
}

impl Picker<'_> {
    fn weigh(&mut self, event: &Event) -> PickedText {
        let picked = |weight, text: String| Some((weight, text, None));
        let what = &event.what;
        match what {
            EventKind::Op { .. } => self.op(event),
            EventKind::Request { .. } | EventKind::Response { .. } | EventKind::Reset { .. } => {
                self.net(event)
            }
            EventKind::Write { .. }
            | EventKind::Wrote { .. }
            | EventKind::WriteDropped { .. }
            | EventKind::Sync { .. }
            | EventKind::Synced { .. }
            | EventKind::Truncate { .. }
            | EventKind::Name { .. }
            | EventKind::Lost { .. } => self.disk(event),
            EventKind::Panic { .. } => picked(10, what.to_string()),
            EventKind::Violation { what: seen, .. } if self.violation == Some(seen.as_str()) => {
                picked(10, what.to_string())
            }
            EventKind::Kill { of } | EventKind::PowerLoss { of } => Some((9, what.to_string(), Some(*of))),
            EventKind::Start { of }
            | EventKind::Started { of, .. }
            | EventKind::Stop { of }
            | EventKind::Ended { of } => Some((7, what.to_string(), Some(*of))),
            EventKind::Pause { of } | EventKind::Resume { of } => Some((7, what.to_string(), Some(*of))),
            EventKind::Fault { fault } => picked(7, format!("fault {}", plain(fault))),
            EventKind::Calm => picked(5, what.to_string()),
            EventKind::Log { level, text, .. } => {
                let is_loud = level == "WARN" || level == "ERROR";
                let is_of_it = self.subject.keys.iter().any(|key| text.contains(key.as_str()));
                (is_loud || is_of_it).then(|| (if is_loud { 6 } else { 4 }, what.to_string(), None))
            }
            EventKind::Reached { name } if self.reached.get(name).is_some_and(|n| *n <= REACHED_OFTEN) => {
                picked(4, what.to_string())
            }
            _ => None,
        }
    }

    fn op(&mut self, event: &Event) -> PickedText {
        let EventKind::Op {
            process,
            type_,
            f,
            value,
        } = &event.what
        else {
            return None;
        };
        let picked = |weight| Some((weight, op_text(event, self.subject), None));
        // In a story only the records count: other numbers of an operation may be as small as values.
        let is_own = match self.violation {
            Some(_) => self.subject.is_in(value),
            None => self.subject.is_sent_in(event),
        };
        if f == "poll" && type_ == "ok" {
            let mut weight = 0;
            for (key, offset, value) in shown(event) {
                let place = (key, offset);
                if !self.subject.places.contains(&place)
                    && !value.is_some_and(|v| self.subject.values.contains(&v))
                {
                    continue;
                }
                let first = *self.first_shown.entry(place).or_insert(value);
                let is_first = self.readers.insert(*process);
                weight = weight.max(match self.violation {
                    _ if first != value => 10,
                    Some(_) if *process == LAST_READER => 10,
                    Some(_) => 5,
                    None if is_first => FIRST_READ,
                    None => LATER_READ,
                });
            }
            if weight == 0 && self.around.contains(&event.n) {
                weight = 9;
            }
            if weight > 0 {
                return picked(weight);
            }
        }
        let deletes = f == "delete_records" && self.deletes(value);
        match (is_own, deletes, self.last_ops.contains(&event.n)) {
            (true, ..) => picked(10),
            (_, true, _) => picked(6),
            (_, _, true) => picked(if self.subject.processes.contains(process) {
                8
            } else {
                3
            }),
            _ => None,
        }
    }

    /// Whether a deletion of records concerns the subject: in a story the first one that is above it.
    fn deletes(&mut self, value: &serde_json::Value) -> bool {
        let Some(key) = value["key"].as_str().filter(|k| self.subject.keys.contains(*k)) else {
            return false;
        };
        if self.violation.is_some() {
            return true;
        }
        let before = value["before"].as_i64().unwrap_or(-1);
        let mut own = self.subject.places.iter().filter(|(k, _)| k == key);
        let is_above = own.any(|(_, offset)| *offset < before);
        is_above && !std::mem::replace(&mut self.is_deleted, true)
    }

    fn net(&mut self, event: &Event) -> PickedText {
        let text = event.what.to_string();
        match &event.what {
            EventKind::Request {
                conn,
                to,
                api,
                correlation,
                batches,
                ..
            } => {
                let own: Vec<&ObservedBatch> = batches
                    .iter()
                    .filter(|b| self.subject.is_in_batch(None, b))
                    .collect();
                if own.is_empty() {
                    return None;
                }
                self.pending_requests.insert((*conn, *correlation));
                let own: Vec<String> = own.iter().map(|b| in_request(b)).collect();
                Some((8, format!("{api} #{correlation}: {}", own.join("; ")), Some(*to)))
            }
            EventKind::Response {
                conn,
                to,
                correlation,
                answers,
                ..
            } => {
                let is_asked = self.pending_requests.remove(&(*conn, *correlation));
                let has_it = answers
                    .iter()
                    .flat_map(|a| &a.batches)
                    .any(|b| self.subject.is_in_batch(None, b));
                let weight = if is_asked {
                    8
                } else if has_it && self.answered.insert(*to) {
                    6
                } else {
                    return None;
                };
                let own = answers
                    .iter()
                    .filter(|a| is_asked || a.batches.iter().any(|b| self.subject.is_in_batch(None, b)));
                let own: Vec<String> = own.map(ToString::to_string).collect();
                let text = format!("answer #{correlation}: {}", own.join("; "));
                Some((weight, text, Some(*to)))
            }
            EventKind::Reset { conn } => {
                let before = self.pending_requests.len();
                self.pending_requests.retain(|(c, _)| c != conn);
                (self.pending_requests.len() < before).then_some((7, text, None))
            }
            _ => None,
        }
    }

    fn disk(&mut self, event: &Event) -> PickedText {
        let picked = |weight| Some((weight, disk_text(&event.what, self.subject), None));
        let named = |file: &String| self.subject.files.contains(file);
        match &event.what {
            EventKind::Write {
                write,
                file,
                at,
                len,
                batches,
                ..
            } => {
                let is_own = batches.iter().any(|b| self.subject.is_in_batch(key_of(file), b));
                if !is_own && !named(file) {
                    return None;
                }
                self.writes.insert(*write);
                self.bytes.insert((file.clone(), *at), (at + len, false));
                picked(if is_own { 9 } else { 5 })
            }
            EventKind::Wrote { write, error, .. } if self.writes.remove(write) => {
                picked(if error.is_some() { 10 } else { 6 })
            }
            EventKind::WriteDropped { write } if self.writes.remove(write) => picked(9),
            EventKind::Sync { file, .. } if self.is_unsynced(file) => {
                self.syncs.insert(event.n);
                picked(7)
            }
            EventKind::Synced { file, begun, error } if self.syncs.remove(begun) => {
                let synced = self
                    .bytes
                    .iter_mut()
                    .filter(|((f, _), _)| f == file && error.is_none());
                synced.for_each(|(_, (_, is_synced))| *is_synced = true);
                picked(if error.is_some() { 10 } else { 8 })
            }
            EventKind::Truncate { file, to } => {
                let before = self.bytes.len();
                self.bytes.retain(|(f, _), (end, _)| f != file || *end <= *to);
                (self.bytes.len() < before || named(file))
                    .then(|| picked(10))
                    .flatten()
            }
            EventKind::Lost { file, at, len, .. } => {
                let hit = self
                    .bytes
                    .iter()
                    .any(|((f, from), (end, _))| f == file && *from < at + len && end > at);
                (hit || named(file)).then(|| picked(10)).flatten()
            }
            EventKind::Name {
                op,
                file,
                to,
                error: None,
            } if op != "create_dir" => {
                let is_of = |name: &String| {
                    self.bytes
                        .keys()
                        .any(|(f, _)| f == name || f.starts_with(&format!("{name}/")))
                };
                (is_of(file) || to.as_ref().is_some_and(is_of))
                    .then(|| picked(8))
                    .flatten()
            }
            _ => None,
        }
    }

    fn is_unsynced(&self, file: &str) -> bool {
        self.bytes
            .iter()
            .any(|((f, _), (_, is_synced))| f == file && !is_synced)
    }
}

/// Around an offset that the last reader should have read and did not: the events that showed the records before and after it.
fn around(subject: &Subject, events: &[Event]) -> BTreeSet<u64> {
    let mut all = BTreeSet::new();
    for (key, offset) in &subject.places {
        let (mut below, mut above) = (None::<(i64, u64)>, None::<(i64, u64)>);
        let of_last =
            |e: &&Event| matches!(&e.what, EventKind::Op { process, .. } if *process == LAST_READER);
        for event in events.iter().filter(of_last) {
            for (_, at, _) in shown(event).into_iter().filter(|(k, ..)| k == key) {
                match at.cmp(offset) {
                    std::cmp::Ordering::Less => below = below.max(Some((at, event.n))),
                    std::cmp::Ordering::Greater if above.is_none_or(|(a, _)| at < a) => {
                        above = Some((at, event.n))
                    }
                    _ => {}
                }
            }
        }
        all.extend([below, above].into_iter().flatten().map(|(_, n)| n));
    }
    all
}

fn count_reached(events: &[Event]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for event in events {
        if let EventKind::Reached { name } = &event.what {
            *counts.entry(name.clone()).or_insert(0) += 1;
        }
    }
    counts
}

fn last_ops(events: &[Event]) -> BTreeSet<u64> {
    let mut of: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    for event in events {
        if let EventKind::Op { process, .. } = &event.what {
            of.entry(*process).or_default().push(event.n);
        }
    }
    of.into_values()
        .flat_map(|all| all.into_iter().rev().take(LAST_OPS))
        .collect()
}

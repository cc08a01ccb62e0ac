//! Selects the events of an explanation, with their weights.

use std::collections::{BTreeMap, BTreeSet};

use super::subject::{Subject, key_of, sends, shown};
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

/// A rare state that was reached more often than this in a run is not shown.
const REACHED_OFTEN: usize = 5;
/// For a violation without a specific subject: how many of the last operations of each process are shown.
const LAST_OPS: usize = 3;

/// Picks the events that concern the subject, in order.
pub fn pick<'a>(subject: &Subject, violation: &str, events: &'a [Event]) -> Vec<PickedEvent<'a>> {
    let mut picker = Picker {
        subject,
        violation,
        pending_requests: BTreeSet::new(),
        answered: BTreeSet::new(),
        bytes: BTreeMap::new(),
        writes: BTreeSet::new(),
        syncs: BTreeSet::new(),
        first_shown: BTreeMap::new(),
        around: around(subject, events),
        reached: count_reached(events),
        last_ops: if subject.places.is_empty() {
            last_ops(events)
        } else {
            BTreeSet::new()
        },
    };
    let mut picked: Vec<PickedEvent<'a>> = Vec::new();
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
    // Faults of the nodes before the subject's first event are left out.
    let begins = picked
        .iter()
        .find(|p| p.weight >= OWN && !is_of_world(&p.event.what))
        .map_or(0, |p| p.event.t);
    picked.retain(|p| p.event.t >= begins || p.weight > OWN);
    picked
}

/// The weight of events about the subject itself.
const OWN: u8 = 8;

fn is_of_world(what: &EventKind) -> bool {
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
    violation: &'a str,
    /// Requests that carried the subject and have no response yet: connection and correlation id.
    pending_requests: BTreeSet<(u64, i32)>,
    /// Nodes that received the subject in a fetch response.
    answered: BTreeSet<u32>,
    /// Where its bytes are: file, from, to; and whether a sync has covered them.
    bytes: BTreeMap<(String, u64), (u64, bool)>,
    writes: BTreeSet<u64>,
    syncs: BTreeSet<u64>,
    first_shown: BTreeMap<(String, i64), Option<i64>>,
    around: BTreeSet<u64>,
    reached: BTreeMap<String, usize>,
    last_ops: BTreeSet<u64>,
}

type PickedText = Option<(u8, String, Option<u32>)>;

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
            EventKind::Violation { what: seen, .. } if seen == self.violation => picked(10, what.to_string()),
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
        let is_own = self.subject.is_in(value);
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
                weight = weight.max(if first != value || *process == LAST_READER {
                    10
                } else {
                    5
                });
            }
            if weight == 0 && self.around.contains(&event.n) {
                weight = 9;
            }
            if weight > 0 {
                return picked(weight);
            }
        }
        let deletes = f == "delete_records"
            && value["key"]
                .as_str()
                .is_some_and(|k| self.subject.keys.contains(k));
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

/// A batch in a request.
fn in_request(batch: &ObservedBatch) -> String {
    let whose = match batch.producer {
        -1 => String::new(),
        id => {
            let last = i64::from(batch.sequence) + batch.last - batch.base;
            format!("producer {id}:{} seq {}..={last}, ", batch.epoch, batch.sequence)
        }
    };
    let values = match &batch.values[..] {
        [] => String::new(),
        [one] => format!("value {one}"),
        [first, .., last] => format!("values {first} to {last}"),
    };
    format!("{whose}{values}")
}

/// A fault of the plan, without punctuation.
fn plain(fault: &serde_json::Value) -> String {
    let fields = fault
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(key, _)| !["kind", "at_ms", "id"].contains(&key.as_str()));
    let fields: Vec<String> = fields.map(|(key, value)| format!("{key} {value}")).collect();
    format!(
        "{} {}",
        fault["kind"].as_str().unwrap_or_default(),
        fields.join(", ")
    )
}

/// A file without the folders that all files share.
fn disk_text(what: &EventKind, subject: &Subject) -> String {
    let text = match what {
        EventKind::Write {
            file,
            at,
            len,
            batches,
            ..
        } => {
            let own = batches.iter().filter(|b| subject.is_in_batch(key_of(file), b));
            let own: Vec<String> = own.map(ToString::to_string).collect();
            format!("writes {file} bytes {at}..{}: {}", at + len, own.join("; "))
        }
        EventKind::Wrote {
            file,
            at,
            len,
            error: None,
            ..
        } => {
            format!(
                "{file} bytes {at}..{} are in the page cache, not durable",
                at + len
            )
        }
        EventKind::Sync { file, len } => format!("begins to sync {file}, {} bytes", len.unwrap_or(0)),
        EventKind::Synced {
            file, error: None, ..
        } => format!("{file}: what was written before the sync is durable"),
        EventKind::Lost {
            file,
            at,
            len,
            how,
            batches,
        } => {
            let own = batches.iter().filter(|b| subject.is_in_batch(key_of(file), b));
            let own: Vec<String> = own.map(ToString::to_string).collect();
            format!("{file} bytes {at}..{} are {how}: {}", at + len, own.join("; "))
        }
        other => other.to_string(),
    };
    text.replace("data/", "")
}

/// An operation, as far as it concerns the subject.
pub fn op_text(event: &Event, subject: &Subject) -> String {
    let EventKind::Op {
        process, type_, f, ..
    } = &event.what
    else {
        return event.what.to_string();
    };
    let is_own = |key: &String, offset: Option<i64>, value: Option<i64>| {
        value.is_some_and(|v| subject.values.contains(&v))
            || offset.is_some_and(|o| subject.places.contains(&(key.clone(), o)))
    };
    if f == "send" {
        let all = sends(event);
        let own: Vec<String> = all
            .iter()
            .filter(|(key, offset, value)| is_own(key, *offset, Some(*value)))
            .map(|(key, offset, value)| match offset {
                Some(offset) => format!("{value} stands at {key} offset {offset}"),
                None => format!("{value} to {key}"),
            })
            .collect();
        let more = match all.len() - own.len() {
            0 => String::new(),
            n => format!(" (and {n} more)"),
        };
        let what = own.join(", ");
        return match type_.as_str() {
            "invoke" => format!("process {process} sends {what}{more}"),
            "ok" => format!("process {process} is told: {what}{more}"),
            "fail" => format!("process {process} is told that nothing was written: {what}{more}"),
            _ => format!("process {process} never learns what became of {what}{more}"),
        };
    }
    if f == "poll" && type_ == "ok" {
        return poll_text(event, subject, *process, is_own);
    }
    event.what.to_string()
}

fn poll_text(
    event: &Event,
    subject: &Subject,
    process: u64,
    is_own: impl Fn(&String, Option<i64>, Option<i64>) -> bool,
) -> String {
    let all = shown(event);
    let own = all
        .iter()
        .filter(|(key, offset, value)| is_own(key, Some(*offset), *value));
    let mut parts: Vec<String> = own
        .map(|(key, offset, value)| {
            format!(
                "{} at {key} offset {offset}",
                value.map_or("null".to_owned(), |v| v.to_string())
            )
        })
        .collect();
    // Which offsets of the subject's partitions: a gap shows between its neighbours.
    for key in &subject.keys {
        let offsets: Vec<i64> = all
            .iter()
            .filter(|(k, ..)| k == key)
            .map(|(_, offset, _)| *offset)
            .collect();
        if !offsets.is_empty() {
            parts.push(format!("of {key} the offsets {}", ranges(&offsets)));
        }
    }
    if parts.is_empty() {
        parts.push(format!("{} records of other partitions", all.len()));
    }
    format!("process {process} is shown {}", parts.join("; "))
}

/// `0..=3, 5, 7..=9`
fn ranges(offsets: &[i64]) -> String {
    let mut runs: Vec<(i64, i64)> = Vec::new();
    for offset in offsets {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == *offset => *last = *offset,
            _ => runs.push((*offset, *offset)),
        }
    }
    let text = |(a, b): &(i64, i64)| {
        if a == b {
            a.to_string()
        } else {
            format!("{a}..={b}")
        }
    };
    runs.iter().map(text).collect::<Vec<_>>().join(", ")
}

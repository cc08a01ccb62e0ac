//! What became of a record, in a few lines.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use brokkr_workloads::value_parts;

use super::line::seconds;
use super::subject::{Subject, sends, shown};
use crate::exec::Nanos;
use crate::report::many;
use crate::trace::{Event, EventKind};

/// How many readers are listed.
const READERS_MAX: usize = 8;

/// What became of one value.
#[derive(Default)]
struct Fate {
    /// When and by which process it was sent, and to which partition.
    sent: Option<(Nanos, u64, String)>,
    /// When the client learned its outcome, and that.
    outcome: Option<(Nanos, String)>,
    /// By process, when it first read the value, and how often it did.
    readers: BTreeMap<u64, (Nanos, usize)>,
}

/// Describes what became of the subject's values.
pub fn write(text: &mut String, subject: &Subject, events: &[Event]) {
    let mut fates: BTreeMap<i64, Fate> = subject.values.iter().map(|v| (*v, Fate::default())).collect();
    for event in events {
        let EventKind::Op { process, type_, .. } = &event.what else {
            continue;
        };
        for (key, offset, value) in sends(event) {
            let Some(fate) = fates.get_mut(&value) else {
                continue;
            };
            match type_.as_str() {
                "invoke" => fate.sent = Some((event.t, *process, key)),
                "ok" => {
                    let at = offset.map_or("acknowledged".to_owned(), |offset| {
                        format!("acknowledged at {key} offset {offset}")
                    });
                    fate.outcome = Some((event.t, at));
                }
                "fail" => fate.outcome = Some((event.t, "refused: nothing was written".to_owned())),
                _ => fate.outcome = Some((event.t, "of unknown outcome for its client".to_owned())),
            }
        }
        for (_, _, value) in shown(event) {
            if let Some(fate) = value.and_then(|v| fates.get_mut(&v)) {
                fate.readers.entry(*process).or_insert((event.t, 0)).1 += 1;
            }
        }
    }
    for (value, fate) in &fates {
        let _ = writeln!(text, "{}", sentence(*value, fate));
    }
}

fn sentence(value: i64, fate: &Fate) -> String {
    let (process, counter) = value_parts(value);
    let at = |t: Nanos| seconds(t).trim_start().to_owned();
    let mut text = format!("value {value} (record {counter} of producer {process})");
    let _ = match &fate.sent {
        Some((t, process, key)) => write!(text, " was sent by process {process} to {key} at {} s", at(*t)),
        None => write!(text, " was sent by no client of the history"),
    };
    let _ = match &fate.outcome {
        Some((t, outcome)) => write!(text, "; {outcome} at {} s", at(*t)),
        None => write!(text, "; its client never learned the outcome"),
    };
    let reads: usize = fate.readers.values().map(|(_, n)| n).sum();
    if reads == 0 {
        text.push_str("; no client read it");
        return text;
    }
    let mut readers: Vec<_> = fate.readers.iter().collect();
    readers.sort_by_key(|(process, (first, _))| (*first, **process));
    let first = readers.iter().take(READERS_MAX);
    let first: Vec<String> = first
        .map(|(process, (t, _))| format!("process {process} at {} s", at(*t)))
        .collect();
    let more = match readers.len().saturating_sub(READERS_MAX) {
        0 => String::new(),
        n => format!(" and {n} more"),
    };
    let _ = write!(
        text,
        "; read {}: first by {}{more}",
        many(reads, "time"),
        first.join(", ")
    );
    text
}

//! Events of an explanation in words, as far as they concern its subject.

use super::subject::{Subject, key_of, sends, shown};
use crate::trace::{Event, EventKind, ObservedBatch};

/// A batch in a request.
pub(super) fn in_request(batch: &ObservedBatch) -> String {
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
pub(super) fn plain(fault: &serde_json::Value) -> String {
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
pub(super) fn disk_text(what: &EventKind, subject: &Subject) -> String {
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
pub(super) fn op_text(event: &Event, subject: &Subject) -> String {
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
    if all.is_empty() {
        parts.push("nothing".to_owned());
    } else if parts.is_empty() {
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

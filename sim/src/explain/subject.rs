//! The subject of a violation: parsed from its text, and completed from the events.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::plan::Plan;
use crate::trace::{Event, EventKind, ObservedBatch};

/// See the module.
#[derive(Default, PartialEq, Eq, Debug)]
pub struct Subject {
    /// Values of records.
    pub values: BTreeSet<i64>,
    /// Partitions and offsets.
    pub places: BTreeSet<(String, i64)>,
    /// Partitions without a named offset.
    pub keys: BTreeSet<String>,
    /// Paths.
    pub files: BTreeSet<String>,
    /// Processes of clients.
    pub processes: BTreeSet<u64>,
}

/// Words that precede an offset.
const BEFORE_OFFSET: [&str; 3] = ["offset", "offsets", "and"];

impl Subject {
    /// The values, offsets and files that a violation's text names, and those that belong to them.
    pub fn of(what: &str, plan: &Plan, events: &[Event]) -> Self {
        let keys: BTreeSet<String> = plan
            .workload
            .topics
            .iter()
            .flat_map(|t| t.all())
            .map(|(topic, partition)| format!("{topic}-{partition}"))
            .collect();
        let sent: BTreeSet<i64> = events.iter().flat_map(sends).map(|(_, _, value)| value).collect();
        let mut subject = Self::named(what, &keys, &sent);
        subject.complete(events);
        subject
    }

    /// A value that was sent or written. None if no event has it.
    pub fn of_value(value: i64, events: &[Event]) -> Option<Self> {
        let is_in = |batches: &[ObservedBatch]| batches.iter().any(|b| b.values.contains(&value));
        let mut subject = Self::default();
        let mut is_known = false;
        for event in events {
            let keys = sends(event).into_iter().filter(|(_, _, v)| *v == value);
            subject.keys.extend(keys.map(|(key, ..)| key));
            is_known |= match &event.what {
                EventKind::Write { batches, .. } | EventKind::Request { batches, .. } => is_in(batches),
                _ => false,
            };
        }
        if subject.keys.is_empty() && !is_known {
            return None;
        }
        subject.values.insert(value);
        subject.complete(events);
        Some(subject)
    }

    /// The values that an operation sends.
    pub fn of_operation(event: &Event) -> Self {
        Self {
            values: sends(event).into_iter().map(|(_, _, value)| value).collect(),
            ..Self::default()
        }
    }

    /// Whatever stood at an offset of a partition.
    pub fn of_place(key: &str, offset: i64, events: &[Event]) -> Self {
        let mut subject = Self {
            places: BTreeSet::from([(key.to_owned(), offset)]),
            ..Self::default()
        };
        // A topic that comes and goes has a key for each of its ids in a history.
        for event in events {
            let there = sends(event)
                .into_iter()
                .filter(|(k, o, _)| k == key && *o == Some(offset));
            subject.values.extend(there.map(|(_, _, value)| value));
        }
        subject.complete(events);
        subject
    }

    fn named(what: &str, keys: &BTreeSet<String>, sent: &BTreeSet<i64>) -> Self {
        let mut found = Self::default();
        let is_part = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
        let words: Vec<&str> = what
            .split(|c| !is_part(c))
            .map(|w| w.trim_end_matches('.'))
            .filter(|w| !w.is_empty())
            .collect();
        let (mut key, mut topic): (Option<String>, Option<&str>) = (None, None);
        for (i, word) in words.iter().enumerate() {
            let before = if i > 0 { words[i - 1] } else { "" };
            let is_time = words.get(i + 1) == Some(&"ms");
            if keys.contains(*word) {
                key = Some((*word).to_owned());
                found.keys.insert((*word).to_owned());
            } else if word.contains('/') && word.ends_with(".log") {
                found.files.insert((*word).to_owned());
            } else if before == "topic" {
                topic = Some(word);
            } else if let Ok(number) = word.parse::<i64>() {
                if let Some(key) = key.as_ref().filter(|_| before == "offset") {
                    // BEFORE the values: the first producer's are as small as offsets.
                    found.places.insert((key.clone(), number));
                } else if sent.contains(&number) {
                    found.values.insert(number);
                } else if before == "process" {
                    found.processes.extend(u64::try_from(number));
                } else if before == "partition"
                    && let Some(topic) = topic
                {
                    found.keys.insert(format!("{topic}-{number}"));
                } else if !is_time
                    && (BEFORE_OFFSET.contains(&before) || Some(before) == key.as_deref())
                    && let Some(key) = &key
                {
                    found.places.insert((key.clone(), number));
                }
            }
        }
        found
    }

    /// Adds the values at the places, and the places of the values.
    fn complete(&mut self, events: &[Event]) {
        for event in events {
            for (key, offset, value) in sends(event) {
                if let Some(offset) = offset
                    && self.values.contains(&value)
                {
                    self.places.insert((key, offset));
                }
            }
            if let EventKind::Write { file, batches, .. } = &event.what {
                let key = key_of(file).unwrap_or_default();
                let at = |(k, offset): &(String, i64)| (k == key).then_some(*offset);
                let places: Vec<i64> = self.places.iter().filter_map(at).collect();
                let values = places
                    .iter()
                    .flat_map(|offset| batches.iter().filter_map(|b| value_at(b, *offset)));
                self.values.extend(values);
            }
        }
        self.keys.extend(self.places.iter().map(|(key, _)| key.clone()));
    }

    /// Whether a partition's batch contains part of the subject. Batches in requests have no offsets yet.
    pub fn is_in_batch(&self, key: Option<&str>, batch: &ObservedBatch) -> bool {
        let place = |(k, offset): &(String, i64)| {
            Some(k.as_str()) == key && (batch.base..=batch.last).contains(offset)
        };
        batch.values.iter().any(|v| self.values.contains(v)) || self.places.iter().any(place)
    }

    /// Whether an operation sends one of the subject's values.
    pub fn is_sent_in(&self, event: &Event) -> bool {
        sends(event)
            .iter()
            .any(|(_, _, value)| self.values.contains(value))
    }

    /// Whether an operation sends or returns one of the subject's values.
    pub fn is_record_of(&self, event: &Event) -> bool {
        let is_own = |value: &Option<i64>| value.is_some_and(|v| self.values.contains(&v));
        self.is_sent_in(event) || shown(event).iter().any(|(_, _, value)| is_own(value))
    }

    /// Whether an operation's value contains one of the subject's values.
    pub fn is_in(&self, value: &Value) -> bool {
        match value {
            Value::Number(n) => n.as_i64().is_some_and(|n| self.values.contains(&n)),
            Value::Array(all) => all.iter().any(|v| self.is_in(v)),
            Value::Object(all) => all.values().any(|v| self.is_in(v)),
            _ => false,
        }
    }
}

/// The value of the record at an offset, if the batch has it.
fn value_at(batch: &ObservedBatch, offset: i64) -> Option<i64> {
    let is_whole = batch.values.len() as i64 == batch.last - batch.base + 1;
    let i = usize::try_from(offset - batch.base).ok().filter(|_| is_whole)?;
    batch.values.get(i).copied()
}

/// The partition that a file belongs to.
pub fn key_of(file: &str) -> Option<&str> {
    file.rsplit('/').nth(1)
}

/// Each send of an operation: partition, offset if known, and value.
pub fn sends(event: &Event) -> Vec<(String, Option<i64>, i64)> {
    let EventKind::Op {
        value: Value::Array(micros),
        ..
    } = &event.what
    else {
        return Vec::new();
    };
    let send = |micro: &Value| -> Option<(String, Option<i64>, i64)> {
        let key = micro[1].as_str().filter(|_| micro[0] == "send")?.to_owned();
        match &micro[2] {
            Value::Array(both) => Some((key, both.first()?.as_i64(), both.get(1)?.as_i64()?)),
            value => Some((key, None, value.as_i64()?)),
        }
    };
    micros.iter().filter_map(send).collect()
}

/// The records that a poll returned: partition, offset, value.
pub fn shown(event: &Event) -> Vec<(String, i64, Option<i64>)> {
    let EventKind::Op {
        value: Value::Array(micros),
        ..
    } = &event.what
    else {
        return Vec::new();
    };
    let mut all = Vec::new();
    for polls in micros
        .iter()
        .filter(|m| m[0] == "poll")
        .filter_map(|m| m[1].as_object())
    {
        for (key, messages) in polls {
            for message in messages.as_array().into_iter().flatten() {
                if let Some(offset) = message[0].as_i64() {
                    all.push((key.clone(), offset, message[1].as_i64()));
                }
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(what: &str) -> Subject {
        let keys = ["t0-0", "t0-1"].map(str::to_owned).into();
        Subject::named(what, &keys, &[4_294_967_305].into())
    }

    fn places(what: &str) -> Vec<(String, i64)> {
        named(what).places.into_iter().collect()
    }

    #[test]
    fn a_text_names_values_offsets_files_and_processes() {
        let lost = named("4294967305 was acknowledged at t0-0 offset 12 at 4321 ms, when it was not durable");
        assert_eq!(lost.values, [4_294_967_305].into());
        assert_eq!(lost.places, [("t0-0".to_owned(), 12)].into());
        assert_eq!(
            places("5 was acknowledged at t0-1 offset 3 and stands at [(Key(\"t0-0\"), 7)]"),
            [("t0-0".to_owned(), 7), ("t0-1".to_owned(), 3)]
        );
        let twice = "t0-0: producer 3 epoch 0 sequence 9 stands at offset 4 and 8";
        assert_eq!(places(twice), [("t0-0".to_owned(), 4), ("t0-0".to_owned(), 8)]);
        let keys = ["t0-0".to_owned()].into();
        let small = Subject::named(
            "5 was acknowledged at t0-0 offset 7 and is lost",
            &keys,
            &[5, 7].into(),
        );
        assert_eq!(
            (small.values, small.places),
            ([5].into(), [("t0-0".to_owned(), 7)].into())
        );
        let file = named("data/t0-0/00000000000000000000.log: 512 durable bytes, 100 left after recovery");
        assert_eq!(
            file.files,
            ["data/t0-0/00000000000000000000.log".to_owned()].into()
        );
        let stuck = named(
            "once all was calm: Drained { process: 100, topic: \"t0\", partition: 1, position: Some(4), end: None }",
        );
        assert_eq!(
            (stuck.processes, stuck.keys),
            ([100].into(), ["t0-1".to_owned()].into())
        );
        assert!(named("the healed world did not come to rest in its time") == Subject::default());
    }
}

//! Records that may be gone: clients asked to delete them, or retention removed them.

use std::collections::{BTreeMap, BTreeSet};

use brokkr_history::{Operation, Type};
use brokkr_workloads::ID_MARK;

use super::operations::name_and_value;

/// The parts of a history's key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Place<'a> {
    /// The topic's name.
    pub topic: &'a str,
    /// Its id, if topics of that name are deleted and created again.
    pub id: Option<&'a str>,
    /// The partition's index.
    pub partition: &'a str,
}

impl<'a> Place<'a> {
    /// Splits a key into its parts.
    pub fn of(key: &'a str) -> Self {
        // A topic id may contain the separator.
        let (name, partition) = key.rsplit_once('-').unwrap_or((key, ""));
        let (topic, id) = match name.split_once(ID_MARK) {
            Some((topic, id)) => (topic, Some(id)),
            None => (name, None),
        };
        Self { topic, id, partition }
    }

    /// The name of its folder in the log directory.
    pub fn folder(self) -> String {
        format!("{}-{}", self.topic, self.partition)
    }

    /// Whether both have the same topic name and partition, whatever the topic ids are.
    pub fn is_called_as(self, other: Self) -> bool {
        (self.topic, self.partition) == (other.topic, other.partition)
    }
}

/// Records that may be gone.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Deleted {
    below: BTreeMap<String, i64>,
    topics: BTreeSet<String>,
    damaged: BTreeSet<String>,
}

impl Deleted {
    /// The records that clients asked to delete.
    pub fn requested(history: &[Operation]) -> Self {
        let mut deleted = Self::default();
        for o in history {
            let Some((f, value)) = name_and_value(o) else {
                continue;
            };
            match (f, value["key"].as_str(), value["before"].as_i64()) {
                ("delete_records", Some(key), Some(before)) => deleted.raise(key, before),
                ("inspect", ..) if value["what"] == "delete_records" => {
                    let (topic, partition) =
                        (value["topic"].as_str().unwrap_or_default(), &value["partition"]);
                    let before = value["before"].as_i64().filter(|before| *before >= 0);
                    deleted.raise(&format!("{topic}-{partition}"), before.unwrap_or(i64::MAX));
                }
                ("inspect", ..) if value["what"] == "delete" => {
                    deleted.topics.extend(value["id"].as_str().map(str::to_owned));
                }
                ("delete_topic", ..) if o.type_ == Type::Invoke => {
                    deleted.topics.extend(value["id"].as_str().map(str::to_owned));
                }
                _ => {}
            }
        }
        deleted
    }

    /// Records of a partition below this offset may be gone, too.
    pub fn raise(&mut self, key: &str, before: i64) {
        let most = self.below.entry(key.to_owned()).or_insert(0);
        *most = before.max(*most);
    }

    /// Marks the log in this folder as damaged. There is no other copy, so only one rule applies to it: every record shown was sent
    /// (D2).
    pub fn damage(&mut self, folder: &str) {
        self.damaged.insert(folder.to_owned());
    }

    /// See [`Deleted::damage`].
    pub fn is_damaged(&self, key: &str) -> bool {
        !self.damaged.is_empty() && self.damaged.contains(&Place::of(key).folder())
    }

    /// The offset below which records may be gone; all records, if a client asked to delete the topic.
    pub fn below(&self, key: &str) -> i64 {
        match Place::of(key).id {
            _ if self.is_damaged(key) => i64::MAX,
            Some(id) if self.has_topic(id) => i64::MAX,
            _ => self.below.get(key).copied().unwrap_or(0),
        }
    }

    /// For each partition, the offset below which records may be gone.
    pub fn starts(&self) -> impl Iterator<Item = (&str, i64)> {
        self.below.iter().map(|(key, before)| (key.as_str(), *before))
    }

    /// Whether records of a partition may be gone.
    pub fn has(&self, key: &str) -> bool {
        self.below(key) > 0
    }

    /// Whether a client asked to delete the topic of this id.
    pub fn has_topic(&self, id: &str) -> bool {
        self.topics.contains(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_splits_into_its_parts() {
        let id = "-_AAAAAAAAAAAAAAAAAA-A";
        let key = format!("r0@{id}-2");
        let place = Place::of(&key);
        assert_eq!((place.topic, place.id, place.partition), ("r0", Some(id), "2"));
        assert_eq!(place.folder(), "r0-2");
        assert!(place.is_called_as(Place::of("r0-2")) && !place.is_called_as(Place::of("r0-1")));
        assert_eq!(Place::of("t0-1").id, None);
    }
}

//! C1, L1, L6, D1 and M2: what a broker answers about an inspector's topics, against a model of each partition.
//!
//! One process changes these topics, one change after the other, and leaves a topic alone once the outcome of a change is unknown. So
//! every answer is known: offsets, times, epochs, ends, producers, configurations, and whether a batch is refused. Restarts change
//! nothing of it.

mod answer;
mod model;

use std::collections::{BTreeMap, BTreeSet};

use brokkr_history::{Operation, Process, Type};
use brokkr_wire::ErrorCode;
use serde_json::{Value, json};

use super::operations::name_and_value;
use crate::account::{Account, Rule, why};
use crate::violation::Violation;
pub use answer::InspectorFacts;
use answer::{Answer, Wrong, is_error, number, numbers, same};
use model::{Defaults, Partition, TopicModel};

/// Returns the violations. With `damaged` the broker's metadata may be damaged, so nothing is known.
pub(super) fn judge(
    history: &[Operation],
    damaged: bool,
    facts: &InspectorFacts,
    account: &mut Account,
) -> Vec<Violation> {
    let mut inspector = Inspector {
        facts,
        topics: BTreeMap::new(),
        unknown: BTreeSet::new(),
        defaults: Defaults::new(facts.others_change_defaults),
        epochs: BTreeMap::new(),
    };
    let mut found = Vec::new();
    let mut began: BTreeMap<Process, i64> = BTreeMap::new();
    for o in history {
        if o.type_ == Type::Invoke {
            began.insert(o.process, o.time);
            continue;
        }
        let Some(("inspect", asked)) = name_and_value(o) else {
            continue;
        };
        if asked["what"] == "default" {
            inspector.defaults.change(asked, o.type_ == Type::Ok);
            continue;
        }
        let topic = asked["topic"].as_str().unwrap_or_default();
        if o.type_ == Type::Info {
            inspector.unknown.insert(topic.to_owned());
        }
        if o.type_ != Type::Ok || inspector.unknown.contains(topic) {
            continue;
        }
        let wrong = match inspector.wrong(asked) {
            // The answer has the current epoch also where the end of an epoch is unknown.
            answer @ (Answer::Right | Answer::Unknown) if asked["what"] == "epoch_end" => {
                let began = began.get(&o.process).copied().unwrap_or(0);
                match inspector.check_epoch(asked, began, o.time) {
                    Some(wrong) => Answer::Wrong(wrong),
                    None => answer,
                }
            }
            answer => answer,
        };
        let waiver = match () {
            () if damaged => Some(why::DAMAGED),
            () if matches!(wrong, Answer::Unknown) => Some(why::UNREAD),
            () => None,
        };
        if account.judges(Rule::Inspected, waiver)
            && let Answer::Wrong((id, what)) = wrong
        {
            let (ms, question) = (o.time / 1_000_000, asked["what"].as_str().unwrap_or_default());
            let place = match asked["partition"].as_i64() {
                Some(partition) => format!("{topic}-{partition}"),
                None => topic.to_owned(),
            };
            found.push(Violation::new(
                id,
                format!("{question} of {place} at {ms} ms: {what}"),
            ));
            // Everything after it would be wrong, too.
            inspector.unknown.insert(topic.to_owned());
        }
    }
    found
}

struct Inspector<'a> {
    facts: &'a InspectorFacts,
    topics: BTreeMap<String, TopicModel>,
    /// Topics with a change whose outcome is unknown.
    unknown: BTreeSet<String>,
    defaults: Defaults,
    /// The leader epoch that was last told of a partition, and when.
    epochs: BTreeMap<(String, i64), (i64, i64)>,
}

impl Inspector<'_> {
    /// Takes an answer into the model, and compares it.
    fn wrong(&mut self, asked: &Value) -> Answer {
        let name = asked["topic"].as_str().unwrap_or_default();
        let answer = &asked["answer"];
        match asked["what"].as_str().unwrap_or_default() {
            "create" => {
                let is_made = number(answer, "error") == 0;
                let wrong = self.check_name(name, is_made);
                if is_made && asked["dry"] != true {
                    self.topics.insert(name.to_owned(), TopicModel::new(asked));
                }
                return wrong.into();
            }
            "delete" => {
                self.topics.remove(name);
                return Answer::Right;
            }
            "pages" => return self.check_pages(asked).into(),
            "metadata" => return self.check_metadata(asked).into(),
            "broker_configs" => return self.defaults.check(answer),
            _ if name.is_empty() => return Answer::Right,
            _ => {}
        }
        let facts = self.facts;
        let Some(topic) = self.topics.get_mut(name) else {
            return Answer::Right;
        };
        let count = topic.partitions.len() as i64;
        match asked["what"].as_str().unwrap_or_default() {
            "add_partition" if asked["dry"] != true => topic.partitions.push(Partition::default()),
            "alter" => {
                topic.alter(asked);
                return same(
                    "M2",
                    "configs",
                    model::texts(&answer["configs"]),
                    topic.configs.clone(),
                )
                .into();
            }
            "configs" => return topic.check_configs(answer, &self.defaults),
            "directories" => {
                let is = (0..count).collect();
                return same(
                    "M2",
                    "partitions in log directories",
                    numbers(&answer["partitions"]),
                    is,
                )
                .into();
            }
            "append" => {
                if let Some((key, value)) = model::pair(&asked["alter"]) {
                    topic.configs.insert(key, value);
                }
                return topic.append(asked, facts, &self.defaults).into();
            }
            _ => {}
        }
        let Some(partition) = usize::try_from(number(asked, "partition"))
            .ok()
            .and_then(|i| topic.partitions.get_mut(i))
        else {
            return Answer::Right;
        };
        match asked["what"].as_str().unwrap_or_default() {
            "read" => partition.check_read(asked).into(),
            "offsets" => partition.check_offsets(asked),
            "epoch_end" => partition.check_epoch_end(answer),
            "producers" if facts.forgets => Answer::Unknown,
            "producers" => partition.check_producers(answer).into(),
            "delete_records" => partition.delete_records(asked).into(),
            _ => Answer::Right,
        }
    }

    /// Names that differ only by `.` and `_` collide, so that the second is refused: while the first is a topic, and no longer.
    fn check_name(&self, name: &str, is_made: bool) -> Option<Wrong> {
        let plain = |name: &str| name.replace('.', "_");
        let collides = |other: &&String| *other != name && plain(other) == plain(name);
        match is_made {
            true => self
                .topics
                .keys()
                .filter(|other| !self.unknown.contains(*other))
                .find(collides)
                .map(|other| ("C1", format!("it was made, beside {other}"))),
            false => {
                let is_there = self
                    .topics
                    .keys()
                    .chain(&self.unknown)
                    .any(|other| collides(&other));
                (!is_there).then(|| ("C1", "its name is refused, and collides with none".to_owned()))
            }
        }
    }

    fn check_metadata(&self, asked: &Value) -> Option<Wrong> {
        let (answer, named) = (&asked["answer"], asked["named"].as_str().unwrap_or_default());
        if named == "none" {
            return same(
                "C1",
                "topics, when none were asked for:",
                number(answer, "count"),
                0,
            );
        }
        let listed = answer["topics"].as_object()?;
        let is_unknown = |name: &str| self.unknown.contains(name);
        for (name, seen) in listed.iter().filter(|(name, _)| !is_unknown(name)) {
            let is = match self.topics.get(name) {
                Some(topic) => json!([0, topic.id, (0..topic.partitions.len()).collect::<Vec<_>>()]),
                None if named == "all" => {
                    return Some(("M2", format!("{name} is listed, and was deleted or never made")));
                }
                None if is_error(&json!({"error": seen[0]}), ErrorCode::UNKNOWN_TOPIC_OR_PARTITION) => {
                    continue;
                }
                None => json!("unknown"),
            };
            if *seen != is {
                return Some(("M2", format!("{name} is {seen}, not {is}")));
            }
        }
        let asked: Vec<&str> = match named {
            "all" => self.topics.keys().map(String::as_str).collect(),
            _ => asked["topics"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(Value::as_str)
                .collect(),
        };
        let missing = asked
            .iter()
            .find(|name| !is_unknown(name) && !listed.contains_key(**name));
        missing.map(|name| ("M2", format!("nothing is said of {name}")))
    }

    /// Leader epochs do not fall, and rise with each crash: otherwise clients of the life before would not be fenced (KAFKA-18106).
    fn check_epoch(&mut self, asked: &Value, began: i64, ended: i64) -> Option<Wrong> {
        let id = self.topics.get(asked["topic"].as_str()?)?.id.clone();
        let current = number(&asked["answer"], "current");
        let told = self
            .epochs
            .insert((id, number(asked, "partition")), (current, ended));
        let (before, told) = told?;
        let crash = self.facts.crashes.iter().find(|at| (told..began).contains(*at));
        let least = before + i64::from(crash.is_some());
        (current < least).then(|| {
            let since = crash.map_or(String::new(), |at| {
                format!(", though the broker crashed at {} ms", at / 1_000_000)
            });
            (
                "L2",
                format!("the leader epoch is {current}, and was {before}{since}"),
            )
        })
    }

    fn check_pages(&self, asked: &Value) -> Option<Wrong> {
        let topics = asked["topics"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str);
        for name in topics.filter(|name| !self.unknown.contains(*name)) {
            let Some(topic) = self.topics.get(name) else {
                continue;
            };
            let seen = numbers(&asked["answer"]["partitions"][name]);
            let wrong = same(
                "M2",
                &format!("{name} has partitions"),
                seen,
                (0..topic.partitions.len() as i64).collect(),
            );
            if wrong.is_some() {
                return wrong;
            }
        }
        None
    }
}

#[cfg(test)]
mod tests;

//! C1, L1, L6, D1 and M2: what a broker answers about an inspector's topics, against a model of each partition.
//!
//! One process changes these topics, one change after the other, and leaves a topic alone once the outcome of a change is unknown. So
//! every answer is known: offsets, times, epochs, ends, producers, configurations, and whether a batch is refused. Restarts change
//! nothing of it.

mod answer;
mod model;

use std::collections::{BTreeMap, BTreeSet};

use brokkr_history::{Operation, Type};
use serde_json::Value;

use super::operations::name_and_value;
use crate::account::{Account, Rule, why};
use crate::violation::Violation;
pub use answer::InspectorFacts;
use answer::{Answer, Wrong, number, numbers, same};
use model::{Defaults, Partition, TopicModel};

/// Returns the violations. With `damaged` the broker's metadata may be damaged, so nothing is known.
pub(super) fn judge(
    history: &[Operation],
    damaged: bool,
    facts: InspectorFacts,
    account: &mut Account,
) -> Vec<Violation> {
    let mut inspector = Inspector {
        facts,
        topics: BTreeMap::new(),
        unknown: BTreeSet::new(),
        defaults: Defaults::new(facts.others_change_defaults),
    };
    let mut found = Vec::new();
    for o in history.iter().filter(|o| o.type_ != Type::Invoke) {
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
        let wrong = inspector.wrong(asked);
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

struct Inspector {
    facts: InspectorFacts,
    topics: BTreeMap<String, TopicModel>,
    /// Topics with a change whose outcome is unknown.
    unknown: BTreeSet<String>,
    defaults: Defaults,
}

impl Inspector {
    /// Takes an answer into the model, and compares it.
    fn wrong(&mut self, asked: &Value) -> Answer {
        let name = asked["topic"].as_str().unwrap_or_default();
        let answer = &asked["answer"];
        match asked["what"].as_str().unwrap_or_default() {
            "create" if asked["dry"] != true => {
                self.topics.insert(name.to_owned(), TopicModel::new(asked));
                return Answer::Right;
            }
            "delete" => {
                self.topics.remove(name);
                return Answer::Right;
            }
            "pages" => return self.check_pages(asked).into(),
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

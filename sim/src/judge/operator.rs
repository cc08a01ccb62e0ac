//! M2 and C1: an operator's topics, as metadata, configurations and ends describe them.
//!
//! One process changes these topics, one change after the other, and leaves a topic alone once the outcome of a change is unknown. So
//! each description is known beforehand: whether the topic exists, its id, its partitions, its own configurations, and how many
//! records were sent to each partition. Restarts change nothing of it.

use std::collections::{BTreeMap, BTreeSet};

use brokkr_history::{Operation, Type};
use serde_json::Value;

use super::operations::name_and_value;
use crate::account::{Account, Rule, why};
use crate::violation::Violation;

/// A topic as it must be.
#[derive(Clone, PartialEq, Debug)]
struct Expected {
    id: String,
    configs: BTreeMap<String, String>,
    /// For each partition the number of records.
    sent: Vec<i64>,
}

/// Returns the violations. With `damaged` the broker's metadata may be damaged, so nothing is known.
pub(super) fn judge(history: &[Operation], damaged: bool, account: &mut Account) -> Vec<Violation> {
    let mut topics: BTreeMap<&str, Option<Expected>> = BTreeMap::new();
    let mut unknown: BTreeSet<&str> = BTreeSet::new();
    let mut found = Vec::new();
    for o in history.iter().filter(|o| o.type_ != Type::Invoke) {
        let Some((f, value)) = name_and_value(o) else {
            continue;
        };
        let is_change = ["alter_topic", "create_partitions", "send_to"].contains(&f)
            || f == "create_topic" && value["configs"].is_object()
            || f == "delete_topic" && value["topic"].as_str().is_some_and(|t| topics.contains_key(t));
        let Some(topic) = value["topic"]
            .as_str()
            .filter(|_| is_change || f == "describe_topic")
        else {
            continue;
        };
        if is_change && o.type_ != Type::Ok {
            unknown.insert(topic);
        }
        if unknown.contains(topic) || o.type_ != Type::Ok {
            continue;
        }
        let text = |name: &str| value[name].as_str().unwrap_or_default().to_owned();
        let number = |name: &str| value[name].as_u64().unwrap_or(0) as usize;
        let known = topics.entry(topic).or_default();
        match (f, known) {
            ("create_topic", known) => {
                *known = Some(Expected {
                    id: text("id"),
                    configs: texts(&value["configs"]),
                    sent: vec![0; number("partitions")],
                });
            }
            ("delete_topic", known) => *known = None,
            ("alter_topic", Some(known)) => match value["value"].as_str() {
                Some(set) => drop(known.configs.insert(text("config"), set.to_owned())),
                None => drop(known.configs.remove(&text("config"))),
            },
            ("create_partitions", Some(known)) => known.sent.resize(number("partitions"), 0),
            ("send_to", Some(known)) => {
                if let Some(sent) = known.sent.get_mut(number("partition")) {
                    *sent += 1;
                }
            }
            ("describe_topic", known) => {
                if account.judges(Rule::Described, damaged.then_some(why::DAMAGED))
                    && let Some(what) = differs(known.as_ref(), value)
                {
                    let ms = o.time / 1_000_000;
                    found.push(Violation::new("M2", format!("topic {topic} at {ms} ms: {what}")));
                }
            }
            _ => {}
        }
    }
    found
}

/// The texts of a JSON object.
fn texts(object: &Value) -> BTreeMap<String, String> {
    let all = object.as_object().into_iter().flatten();
    all.map(|(k, v)| (k.clone(), v.as_str().unwrap_or("null").to_owned()))
        .collect()
}

/// How a description differs from what must be.
fn differs(known: Option<&Expected>, seen: &Value) -> Option<String> {
    let exists = seen["exists"].as_bool().unwrap_or(false);
    let Some(known) = known else {
        return exists.then(|| "it is described, and was deleted, or never made".to_owned());
    };
    if !exists {
        return Some("it was made, and is not described".to_owned());
    }
    if let Some(odd) = seen["odd"].as_str() {
        return Some(odd.to_owned());
    }
    let same = |name: &str, is: Value| (seen[name] != is).then(|| format!("{name} {}, not {is}", seen[name]));
    let partitions: Vec<_> = (0..known.sent.len()).collect();
    same("id", known.id.clone().into())
        .or_else(|| same("partitions", partitions.into()))
        .or_else(|| same("ends", known.sent.clone().into()))
        .or_else(|| {
            let is = texts(&seen["configs"]);
            (is != known.configs).then(|| format!("configs {is:?}, not {:?}", known.configs))
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use brokkr_history::Op;
    use serde_json::json;

    fn op(type_: Type, f: &str, value: Value) -> Operation {
        Operation::new(0, 0, type_, 0, Op::Other(f.to_owned(), value))
    }

    fn found(changes: &[(&str, Value)], last: Type, seen: Value) -> usize {
        let mut history = vec![op(
            Type::Ok,
            "create_topic",
            json!({"topic": "a", "id": "I", "partitions": 1, "configs": {"retention.ms": "7"}}),
        )];
        history.extend(changes.iter().map(|(f, value)| op(Type::Ok, f, value.clone())));
        history.last_mut().expect("the creation").type_ = last;
        history.push(op(Type::Ok, "describe_topic", seen));
        judge(&history, false, &mut Account::default()).len()
    }

    fn seen(partitions: Value, configs: Value, ends: Value) -> Value {
        json!({"topic": "a", "exists": true, "id": "I", "partitions": partitions, "configs": configs, "ends": ends, "odd": null})
    }

    #[test]
    fn a_description_is_what_was_made() {
        let (one, ms) = (json!([0]), json!({"retention.ms": "7"}));
        let gone = json!({"topic": "a", "exists": false});
        assert_eq!(found(&[], Type::Ok, seen(one.clone(), ms.clone(), json!([0]))), 0);
        for wrong in [
            gone.clone(),
            seen(json!([0, 1]), ms.clone(), json!([0, 0])),
            seen(one.clone(), json!({}), json!([0])),
            seen(one.clone(), json!({"retention.ms": "8"}), json!([0])),
            seen(one.clone(), ms.clone(), json!([1])),
            json!({"topic": "a", "exists": true, "id": "J", "partitions": [0], "configs": ms, "ends": [0]}),
        ] {
            assert_eq!(found(&[], Type::Ok, wrong.clone()), 1, "{wrong}");
            assert_eq!(found(&[], Type::Info, wrong.clone()), 0, "{wrong}");
        }
        let removed = json!({"topic": "a", "config": "retention.ms", "value": null});
        let changes = [
            ("create_partitions", json!({"topic": "a", "partitions": 2})),
            ("send_to", json!({"topic": "a", "partition": 1})),
            ("alter_topic", removed),
        ];
        let both = json!([0, 1]);
        assert_eq!(
            found(&changes, Type::Ok, seen(both.clone(), json!({}), json!([0, 1]))),
            0
        );
        assert_eq!(
            found(&changes, Type::Ok, seen(both.clone(), json!({}), json!([1, 0]))),
            1
        );
        assert_eq!(
            found(&changes, Type::Ok, seen(both.clone(), ms.clone(), json!([0, 1]))),
            1
        );
        // The outcome of the last change is unknown.
        assert_eq!(found(&changes, Type::Info, seen(both, ms, json!([0, 1]))), 0);
        let deleted = [("delete_topic", json!({"topic": "a", "id": "I"}))];
        assert_eq!(found(&deleted, Type::Ok, gone), 0);
        assert_eq!(found(&deleted, Type::Ok, seen(one, json!({}), json!([0]))), 1);
    }
}

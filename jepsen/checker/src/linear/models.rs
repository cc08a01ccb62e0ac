//! Models: registers, committed offsets, topics.

use brokkr_history::{Operation, Type, names};
use serde_json::Value;

use super::model::{Model, ObjectCall};

/// The error for an operation that lacks a field.
fn lacks(o: &Operation, what: &str) -> String {
    format!("a {:?} lacks {what}", o.op.f())
}

/// The name and value of an operation that is not a send or a poll.
fn other(o: &Operation) -> Option<(&str, &Value)> {
    match &o.op {
        brokkr_history::Op::Other(f, value) => Some((f.as_str(), value)),
        _ => None,
    }
}

/// Registers, one for each key: `read`, `write` and `cas` as in Jepsen.
///
/// ```text
/// f: "read",  value: [key, null]       then [key, what was read]
/// f: "write", value: [key, value]
/// f: "cas",   value: [key, [old, new]] fails if it did not hold old
/// ```
/// The value may be any JSON; initially it is `null`.
pub struct Registers;

/// A call of a register.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum RegisterCall {
    /// Returns the value.
    Read(Value),
    /// Sets the value.
    Write(Value),
    /// If the value equals the first, sets it to the second.
    Cas(Value, Value),
}

impl Model for Registers {
    type Object = String;
    type State = Value;
    type Call = RegisterCall;
    const NAME: &'static str = "register";
    const NAMES: &'static [&'static str] = &[names::READ, names::WRITE, names::CAS];

    fn call(&self, o: &Operation) -> Result<ObjectCall<Self>, String> {
        let Some((f @ (names::READ | names::WRITE | names::CAS), value)) = other(o) else {
            return Ok(None);
        };
        let Some([key, value]) = value.as_array().map(Vec::as_slice) else {
            return Err(lacks(o, "a key and a value: [key, value]"));
        };
        let call = match (f, value) {
            (names::READ, _) => RegisterCall::Read(value.clone()),
            (names::WRITE, _) => RegisterCall::Write(value.clone()),
            (_, Value::Array(pair)) if pair.len() == 2 => RegisterCall::Cas(pair[0].clone(), pair[1].clone()),
            _ => return Err(lacks(o, "an old and a new value: [key, [old, new]]")),
        };
        let key = key.as_str().map_or_else(|| key.to_string(), str::to_owned);
        Ok(Some((key, call)))
    }

    fn initial(&self, _: &String) -> Value {
        Value::Null
    }

    fn step(&self, state: &Value, call: &RegisterCall, answer_known: bool) -> Option<Value> {
        match call {
            RegisterCall::Read(seen) => (seen == state || !answer_known).then(|| state.clone()),
            RegisterCall::Write(value) => Some(value.clone()),
            RegisterCall::Cas(old, new) => (old == state).then(|| new.clone()),
        }
    }

    fn is_read(&self, call: &RegisterCall) -> bool {
        matches!(call, RegisterCall::Read(_))
    }
}

/// Committed offsets, one for each group and partition (G2). They are linearizable only while no coordinator is deposed; see
/// [`crate::metadata`] for the weaker guarantee.
///
/// ```text
/// f: "commit",    value: {"group": "g", "key": "t-0", "offset": 7}
/// f: "committed", value: {"group": "g", "key": "t-0"}  then with "offset": 7, or null where there is none
/// ```
pub struct CommittedOffsets;

/// A call of a committed offset.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum OffsetCall {
    /// Sets the offset.
    Commit(i64),
    /// Returns the offset.
    Committed(Option<i64>),
}

impl Model for CommittedOffsets {
    type Object = (String, String);
    type State = Option<i64>;
    type Call = OffsetCall;
    const NAME: &'static str = "committed offset";
    const NAMES: &'static [&'static str] = &[names::COMMIT, names::COMMITTED];
    const INVARIANT: Option<&'static str> = Some("G2");

    fn call(&self, o: &Operation) -> Result<ObjectCall<Self>, String> {
        let Some((f @ (names::COMMIT | names::COMMITTED), value)) = other(o) else {
            return Ok(None);
        };
        let (Some(group), Some(key)) = (value["group"].as_str(), value["key"].as_str()) else {
            return Err(lacks(o, "a group and a key"));
        };
        let offset = match &value["offset"] {
            Value::Null => None,
            n => Some(n.as_i64().ok_or_else(|| lacks(o, "an integer for an offset"))?),
        };
        let call = match (f, offset) {
            (names::COMMIT, Some(offset)) => OffsetCall::Commit(offset),
            (names::COMMIT, None) => return Err(lacks(o, "an offset")),
            (_, offset) => OffsetCall::Committed(offset),
        };
        Ok(Some(((group.to_owned(), key.to_owned()), call)))
    }

    fn initial(&self, _: &Self::Object) -> Option<i64> {
        None
    }

    fn step(&self, state: &Option<i64>, call: &OffsetCall, answer_known: bool) -> Option<Option<i64>> {
        match call {
            OffsetCall::Commit(offset) => Some(Some(*offset)),
            OffsetCall::Committed(seen) => (seen == state || !answer_known).then_some(*state),
        }
    }

    fn is_read(&self, call: &OffsetCall) -> bool {
        matches!(call, OffsetCall::Committed(_))
    }
}

/// Topics as in the controller's answers to creations and deletions (M2).
///
/// ```text
/// f: "create-topic", value: {"topic": "t"}                then with "id", or with "exists": true
/// f: "delete-topic", value: {"topic": "t"}                then as it was, or with "exists": false
/// ```
/// "Exists already" and "does not exist" are answers like any other (`ok`), and must be true as well.
pub struct Topics;

/// A call about a topic.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum TopicCall {
    /// Creates it; answered with its id, or refused if it exists.
    Create(Answer),
    /// Deletes it.
    Delete(Answer),
}

/// The controller's answer.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Answer {
    /// Done, with the topic's id if the controller returned it.
    Done(Option<String>),
    /// Refused: it exists already, or does not exist.
    Refused,
}

/// An existing topic, with its id if that is known.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Topic(pub Option<String>);

impl Model for Topics {
    type Object = String;
    type State = Option<Topic>;
    type Call = TopicCall;
    const NAME: &'static str = "topic";
    const NAMES: &'static [&'static str] = &[names::CREATE_TOPIC, names::DELETE_TOPIC];
    const INVARIANT: Option<&'static str> = Some("M2");

    fn call(&self, o: &Operation) -> Result<ObjectCall<Self>, String> {
        let Some((f, value)) = other(o) else {
            return Ok(None);
        };
        let creates = names::is_same(f, names::CREATE_TOPIC);
        if !creates && !names::is_same(f, names::DELETE_TOPIC) {
            return Ok(None);
        }
        let topic = value["topic"]
            .as_str()
            .ok_or_else(|| lacks(o, "a topic"))?
            .to_owned();
        let refused = o.type_ == Type::Ok && value["exists"].as_bool() == Some(creates);
        let answer = if refused {
            Answer::Refused
        } else {
            Answer::Done(value["id"].as_str().map(str::to_owned))
        };
        let call = if creates {
            TopicCall::Create(answer)
        } else {
            TopicCall::Delete(answer)
        };
        Ok(Some((topic, call)))
    }

    fn initial(&self, _: &String) -> Option<Topic> {
        None
    }

    fn step(&self, state: &Option<Topic>, call: &TopicCall, _: bool) -> Option<Option<Topic>> {
        match (call, state) {
            (TopicCall::Create(Answer::Done(id)), None) => Some(Some(Topic(id.clone()))),
            (TopicCall::Create(Answer::Refused), Some(_)) => Some(state.clone()),
            (TopicCall::Delete(Answer::Refused), None) => Some(None),
            (TopicCall::Delete(Answer::Done(id)), Some(Topic(held))) => {
                let same = id.is_none() || held.is_none() || id == held;
                same.then_some(None)
            }
            _ => None,
        }
    }

    fn is_read(&self, call: &TopicCall) -> bool {
        matches!(
            call,
            TopicCall::Create(Answer::Refused) | TopicCall::Delete(Answer::Refused)
        )
    }
}

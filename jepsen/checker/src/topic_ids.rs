//! Topics that are deleted and created again, by their ids (M2): an id names one topic for ever.
//!
//! Keys of such topics have the id beside the name, `topic@id-partition`; where the id is not known (a send that was not
//! acknowledged), `topic-partition`. Values are unique for each partition of a name, whatever the id.
//!
//! ```text
//! f: "create-topic", value: {"topic": "t", "id": "A"}
//! f: "delete-topic", value: {"topic": "t", "id": "A"}
//! f: "send",         value: [["send", "t@A-0", [4, 17]]]
//! f: "poll",         value: [["poll", {"t@A-0": [[4, 17]]}]]
//! ```
//!
//! | anomaly | meaning |
//! | --- | --- |
//! | `id-reused` | two creations were answered with one id |
//! | `acked-after-deletion` | a send began after the deletion of an id had ended, and was acknowledged under that id |
//! | `shown-after-deletion` | a record was shown under an id to a process that had sought there after the deletion had ended |
//! | `shown-in-later-topic` | a record was shown under an id that was created after its send had ended, or that was created after the id under which it was acknowledged |

use std::collections::{BTreeMap, BTreeSet};

use brokkr_history::{Key, MicroOp, Op, Operation, Process, Type, Val, names};
use serde_json::json;

use crate::linear::{Answer, Model, TopicCall, Topics};
use crate::pairs::{Pair, Pairs};
use crate::{Finding, Malformed, Verdict, invariant};

/// The anomalies that this checker reports.
pub const ANOMALIES: &[&str] = &[
    "id-reused",
    "acked-after-deletion",
    "shown-after-deletion",
    "shown-in-later-topic",
];

/// The names of the operations that this judge judges.
const JUDGED: &[&str] = &[
    names::SEND,
    names::POLL,
    names::TXN,
    names::ASSIGN,
    names::CREATE_TOPIC,
    names::DELETE_TOPIC,
];

/// Separates a topic's name from its id in a key.
const ID_MARK: char = '@';

/// A partition of a topic, by name, and the topic's id if it is known.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Place {
    /// The topic's name, `-`, and the partition.
    partition: String,
    id: Option<String>,
}

impl Place {
    fn of(key: &Key) -> Self {
        let whole = || Self {
            partition: key.as_str().to_owned(),
            id: None,
        };
        let Some((topic, partition)) = key.as_str().rsplit_once('-') else {
            return whole();
        };
        match topic.split_once(ID_MARK) {
            Some((topic, id)) => Self {
                partition: format!("{topic}-{partition}"),
                id: Some(id.to_owned()),
            },
            None => whole(),
        }
    }
}

/// A creation or deletion: when it began and when it had ended, as indexes of the history.
#[derive(Clone, Copy, Debug)]
struct Change {
    began: u64,
    ended: u64,
}

/// The send of a value.
#[derive(Clone, Debug)]
struct SendFact {
    began: u64,
    /// The index of its completion; `None` if its outcome is unknown.
    ended: Option<u64>,
    /// The id under which it was acknowledged.
    id: Option<String>,
    op: u64,
}

/// Judges a history incrementally.
pub struct TopicIds {
    pairs: Pairs,
    /// By id: the topic's name, and its creation.
    created: BTreeMap<String, (String, Change)>,
    /// By id: the first deletion that succeeded.
    deleted: BTreeMap<String, Change>,
    sent: BTreeMap<(String, Val), SendFact>,
    /// By partition, id and value: the first operation that was shown it.
    shown: BTreeMap<(String, String, Val), u64>,
    /// When each process last began to seek in a partition.
    sought: BTreeMap<(Process, String), u64>,
    found: Vec<(&'static str, Finding)>,
    reported: BTreeSet<(String, Process)>,
    acked: u64,
}

impl Default for TopicIds {
    fn default() -> Self {
        Self {
            pairs: Pairs::of(JUDGED),
            created: BTreeMap::new(),
            deleted: BTreeMap::new(),
            sent: BTreeMap::new(),
            shown: BTreeMap::new(),
            sought: BTreeMap::new(),
            found: Vec::new(),
            reported: BTreeSet::new(),
            acked: 0,
        }
    }
}

impl TopicIds {
    /// Adds the next operation.
    ///
    /// # Errors
    /// If it is malformed, or a process does two things at once.
    pub fn push(&mut self, operation: Operation) -> Result<(), Malformed> {
        self.pairs
            .push(operation)?
            .map_or(Ok(()), |pair| self.add(&pair, false))
    }

    fn add(&mut self, pair: &Pair, open: bool) -> Result<(), Malformed> {
        let ended = &pair.ended;
        let began = pair.invoked.as_ref().map_or(ended.index, |o| o.index);
        let span = Change {
            began,
            ended: ended.index,
        };
        match &ended.op {
            Op::Other(..) if ended.type_ == Type::Ok => {
                let index = ended.index;
                let call = Topics.call(ended).map_err(|what| Malformed { index, what })?;
                self.change(ended, call, span);
            }
            Op::Assign(keys) if ended.type_ == Type::Ok => {
                let all = keys.iter().filter(|_| ended.seek_to_beginning);
                for key in all.chain(ended.seeks.keys()) {
                    let partition = Place::of(key).partition;
                    self.sought.insert((ended.process, partition), began);
                }
            }
            Op::Send(_) | Op::Poll(_) | Op::Txn(_) => {
                let micro_ops = match (&pair.invoked, ended.op.micro_ops()) {
                    (Some(invoked), []) if ended.type_ != Type::Ok => invoked.op.micro_ops(),
                    (_, micro_ops) => micro_ops,
                };
                for (i, micro) in micro_ops.iter().enumerate() {
                    let outcome = ended.details.outcome(i).unwrap_or(ended.type_);
                    self.micro(micro, ended, span, outcome, open);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn change(&mut self, ended: &Operation, call: Option<(String, TopicCall)>, span: Change) {
        match call {
            Some((topic, TopicCall::Create(Answer::Done(Some(id))))) => {
                if let Some((before, first)) = self.created.get(&id) {
                    let ops = [first.ended, ended.index];
                    let data = json!({"id": id, "topics": [before, topic], "ops": ops});
                    let text = format!(
                        "operation {} created topic {topic} with id {id}, which operation {} had created {before} with",
                        ops[1], ops[0]
                    );
                    self.found.push(("id-reused", Finding::new(data, ops, text)));
                    return;
                }
                self.created.insert(id, (topic, span));
            }
            Some((_, TopicCall::Delete(Answer::Done(Some(id))))) => {
                self.deleted.entry(id).or_insert(span);
            }
            _ => {}
        }
    }

    fn micro(&mut self, micro: &MicroOp, ended: &Operation, span: Change, outcome: Type, open: bool) {
        match micro {
            MicroOp::Send { key, offset, value } => {
                let Place { partition, id } = Place::of(key);
                let id = id.filter(|_| offset.is_some() && outcome == Type::Ok);
                if let Some(id) = &id {
                    self.acked += 1;
                    self.acked_late(key, id, value, span);
                }
                let fact = SendFact {
                    began: span.began,
                    ended: Some(span.ended).filter(|_| outcome == Type::Ok && !open),
                    id,
                    op: ended.index,
                };
                self.sent.entry((partition, value.clone())).or_insert(fact);
            }
            MicroOp::Poll(polls) if ended.type_ == Type::Ok => {
                for (key, records) in polls.iter().flatten() {
                    let place = Place::of(key);
                    let Some(id) = place.id else { continue };
                    if !records.is_empty() {
                        self.shown_late(key, &place.partition, &id, ended);
                    }
                    for (_, value) in records.iter().filter(|(_, value)| *value != Val::Null) {
                        let record = (place.partition.clone(), id.clone(), value.clone());
                        self.shown.entry(record).or_insert(ended.index);
                    }
                }
            }
            MicroOp::Poll(_) => {}
        }
    }

    fn acked_late(&mut self, key: &Key, id: &str, value: &Val, span: Change) {
        let Some(deleted) = self.deleted.get(id).filter(|d| d.ended < span.began) else {
            return;
        };
        let ops = [deleted.ended, span.ended];
        let data = json!({"key": key, "value": value, "ops": ops});
        let text = format!(
            "operation {} was acknowledged {value} in {key}, although operation {} had deleted that topic before it began",
            ops[1], ops[0]
        );
        self.found
            .push(("acked-after-deletion", Finding::new(data, ops, text)));
    }

    /// One finding for each key and process.
    fn shown_late(&mut self, key: &Key, partition: &str, id: &str, ended: &Operation) {
        let sought = (ended.process, partition.to_owned());
        let sought = self.sought.get(&sought).copied();
        let deleted = self.deleted.get(id);
        let Some(deleted) = deleted.filter(|d| sought.is_some_and(|sought| d.ended < sought)) else {
            return;
        };
        let ops = [deleted.ended, ended.index];
        if self.reported.insert((key.as_str().to_owned(), ended.process)) {
            let data = json!({"key": key, "process": ended.process, "ops": ops});
            let text = format!(
                "operation {} was shown records of {key}, although operation {} had deleted that topic before process {} sought there",
                ops[1], ops[0], ended.process
            );
            self.found
                .push(("shown-after-deletion", Finding::new(data, ops, text)));
        }
    }

    /// Ends the history; returns the verdict.
    ///
    /// # Errors
    /// If an unfinished operation is malformed.
    pub fn finish(mut self) -> Result<Verdict, Malformed> {
        for pair in self.pairs.unfinished() {
            self.add(&pair, true)?;
        }
        let mut verdict = Verdict::new();
        let named = ANOMALIES.iter();
        verdict.invariants = named.filter_map(|name| Some((*name, invariant(name)?))).collect();
        verdict.counted.insert("created", self.created.len() as u64);
        verdict.counted.insert("deleted", self.deleted.len() as u64);
        verdict.counted.insert("acked", self.acked);
        verdict.counted.insert("shown", self.shown.len() as u64);
        self.pairs.report(&mut verdict);
        if self.created.is_empty() && self.deleted.is_empty() {
            verdict.give_up("no topic was created or deleted by id");
        } else if self.acked == 0 && self.shown.is_empty() {
            verdict.give_up("no record was acknowledged or shown under an id");
        }
        verdict.add("shown-in-later-topic", self.later_topics());
        for (name, finding) in self.found {
            verdict.add(name, [finding]);
        }
        Ok(verdict)
    }

    /// Records that were shown under an id to which they cannot have been sent.
    fn later_topics(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        for ((partition, id, value), op) in &self.shown {
            let sent = self.sent.get(&(partition.clone(), value.clone()));
            let (Some((_, created)), Some(sent)) = (self.created.get(id), sent) else {
                continue;
            };
            let over = sent.ended.is_some_and(|ended| ended < created.began);
            let earlier = sent.id.as_ref().filter(|other| *other != id);
            let earlier = earlier.and_then(|other| self.created.get(other));
            let earlier = earlier.is_some_and(|(_, other)| other.ended < created.began);
            if !over && !earlier {
                continue;
            }
            let ops = [sent.op, created.ended, *op];
            let data = json!({
                "partition": partition, "id": id, "value": value, "sent_to": sent.id, "ops": ops,
            });
            let text = format!(
                "operation {} was shown {value} of {partition} in the topic of id {id}, which operation {} created, and operation {} had sent it before (began {})",
                ops[2], ops[1], ops[0], sent.began
            );
            findings.push(Finding::new(data, ops, text));
        }
        findings
    }
}

//! R11: topics that are deleted and created again, by their ids. M2 requires:
//!
//! - An id belongs to one topic and is assigned once.
//! - A created topic that no client asked to delete exists at the end; a deleted topic does not.
//! - Once a deletion was acknowledged, no later send is acknowledged under that id.
//! - No record is shown under an id if its send had ended before a topic of that id can have existed; nor, under a later id, a
//!   record that was acknowledged under an earlier one.
//!
//! The judge knows a lower bound of each incarnation's lifetime: deletions name an id and follow each other, so each incarnation
//! existed until its deletion was requested, and the next one was created after that.

use std::collections::BTreeMap;

use brokkr_history::{Key, MicroOp, Op, Operation, Process, Type, Val};

use super::deleted::Place;
use super::operations::name_and_value;
use crate::check::Violation;

/// What the judge knows of the topic of one id.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct TopicLife {
    /// When a client first asked to delete it; none for the last topic of a name.
    asked: Option<i64>,
    /// When the broker acknowledged a deletion of it.
    deleted: Option<i64>,
}

#[derive(Default)]
struct Topics<'a> {
    /// By name and id.
    lives: BTreeMap<&'a str, BTreeMap<&'a str, TopicLife>>,
    /// Ids that creations were answered with, in order.
    created: Vec<(&'a str, &'a str)>,
    found: Vec<String>,
}

/// Returns the violations of recreated topics. `at_end` are the ids of the topics that exist at the end, by name.
pub fn judge(history: &[Operation], at_end: &BTreeMap<String, String>) -> Vec<Violation> {
    let mut topics = Topics::default();
    history.iter().for_each(|o| topics.live(o));
    topics.one_topic_each();
    topics.there_at_the_end(at_end);
    topics.sent_and_shown(history);
    let found = topics.found.into_iter();
    found.map(|what| Violation::new("M2", what)).collect()
}

impl<'a> Topics<'a> {
    fn live(&mut self, o: &'a Operation) {
        let Some((f, value)) = name_and_value(o).filter(|(f, _)| *f != "inspect") else {
            return;
        };
        let (Some(topic), Some(id)) = (value["topic"].as_str(), value["id"].as_str()) else {
            return;
        };
        let life = self.lives.entry(topic).or_default().entry(id).or_default();
        match (f, o.type_) {
            ("delete_topic", Type::Invoke) => drop(life.asked.get_or_insert(o.time)),
            ("delete_topic", Type::Ok) => drop(life.deleted.get_or_insert(o.time)),
            ("create_topic", Type::Ok) => self.created.push((topic, id)),
            _ => {}
        }
    }

    fn one_topic_each(&mut self) {
        let mut whose: BTreeMap<&str, &str> = BTreeMap::new();
        for (topic, id) in &self.created {
            if let Some(before) = whose.insert(id, topic) {
                let what = format!("topic {topic} was created with id {id}, which {before} was created with");
                self.found.push(what);
            }
        }
    }

    fn there_at_the_end(&mut self, at_end: &BTreeMap<String, String>) {
        for (topic, lives) in &self.lives {
            let there = at_end.get(*topic).map(String::as_str);
            let gone = there.and_then(|id| lives.get(id)).and_then(|l| l.deleted);
            if let (Some(id), Some(at)) = (there, gone) {
                let ms = at / 1_000_000;
                let what =
                    format!("topic {topic} of id {id} is there at the end, though it was deleted at {ms} ms");
                self.found.push(what);
            }
            let stays = |(id, life): &(&&str, &TopicLife)| life.asked.is_none() && Some(**id) != there;
            if let Some((id, _)) = lives.iter().find(stays) {
                self.found.push(format!(
                    "topic {topic} was created with id {id}, and nobody deleted it; at the end there is {there:?}"
                ));
            }
        }
    }

    fn life(&self, place: Place<'_>) -> Option<TopicLife> {
        self.lives.get(place.topic)?.get(place.id?).copied()
    }

    /// The earliest time at which a topic can have been created: after a client asked to delete the previous one.
    fn begins(&self, place: Place<'_>) -> Option<i64> {
        let asked = self.life(place).and_then(|l| l.asked).unwrap_or(i64::MAX);
        let others = self.lives.get(place.topic)?.values().filter_map(|l| l.asked);
        others.filter(|other| *other < asked).max()
    }

    fn sent_and_shown(&mut self, history: &'a [Operation]) {
        // For each value, when its send ended, and under which key it was acknowledged.
        let mut sent: BTreeMap<i64, (i64, Option<&Key>)> = BTreeMap::new();
        let mut began: BTreeMap<Process, i64> = BTreeMap::new();
        let mut shown = BTreeMap::new();
        for o in history.iter().filter(|o| matches!(o.op, Op::Send(_))) {
            if o.type_ == Type::Invoke {
                began.insert(o.process, o.time);
                continue;
            }
            for micro in o.op.micro_ops() {
                let MicroOp::Send {
                    key,
                    value: Val::Int(value),
                    offset,
                } = micro
                else {
                    continue;
                };
                // A producer that waits for no response was acknowledged nothing.
                let place = match offset {
                    Some(_) => Place::of(key.as_str()),
                    None => Place::default(),
                };
                sent.insert(*value, (o.time, place.id.map(|_| key)));
                let deleted = self.life(place).and_then(|l| l.deleted);
                if let (Some(at), Some(from)) = (deleted, began.get(&o.process))
                    && at < *from
                {
                    let (from, at) = (from / 1_000_000, at / 1_000_000);
                    self.found.push(format!(
                        "{value} was sent at {from} ms and acknowledged at {key}, which was deleted at {at} ms"
                    ));
                }
            }
        }
        let polled = history
            .iter()
            .filter(|o| o.type_ == Type::Ok)
            .flat_map(|o| o.op.micro_ops());
        for (key, messages) in polled
            .filter_map(|m| match m {
                MicroOp::Poll(Some(polls)) => Some(polls),
                _ => None,
            })
            .flatten()
        {
            let place = Place::of(key.as_str());
            let Some(begins) = place.id.and_then(|_| self.begins(place)) else {
                continue;
            };
            for (offset, value) in messages {
                let Val::Int(value) = value else { continue };
                let Some((ended, acked)) = sent.get(value) else {
                    continue;
                };
                let earlier = acked
                    .filter(|k| *k != key)
                    .is_some_and(|k| self.begins(Place::of(k.as_str())) < Some(begins));
                if *ended < begins || earlier {
                    shown
                        .entry((key, *value))
                        .or_insert((*offset, *ended, *acked, begins));
                }
            }
        }
        for ((key, value), (offset, ended, acked, begins)) in shown {
            let (ended, begins) = (ended / 1_000_000, begins / 1_000_000);
            let to = acked.map_or(String::new(), |k| format!(", and acknowledged at {k},"));
            self.found.push(format!(
                "{value}, whose send had ended at {ended} ms{to} was shown at {key} offset {offset}, which came after {begins} ms"
            ));
        }
    }
}

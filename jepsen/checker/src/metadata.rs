//! Answers of several brokers that need not be up to date: Metadata, and committed offsets of coordinators that may have been
//! deposed without knowing it yet.
//!
//! Such answers aren't linearizable, since a broker may lag. They are still monotonic for each broker (an answer that began
//! after another of the same broker had ended is no older), and never show a state that did not exist.
//!
//! ```text
//! f: "metadata",  value: {"broker": 1, "all": true, "topics": {"t": {"id": "…", "partitions": {"0": {"leader": 2, "epoch": 5}}}}}
//! f: "committed", value: {"coordinator": 1, "group": "g", "key": "t-0", "offset": 7}
//! ```
//! and `create-topic`, `delete-topic`, `commit` as in [`crate::linear`]. A topic that is `null`, or absent from a listing
//! with `all`, does not exist for that broker. `incarnation` may distinguish a broker's restarts: a new one need not continue
//! the previous one.
//!
//! | anomaly | meaning |
//! | --- | --- |
//! | `untrue-topic` | a topic was shown before any operation had created it |
//! | `two-leaders` | two leaders of one partition in one epoch (L3) |
//! | `nonmonotonic-metadata` | an older epoch, an older topic of that name, or a deleted topic (M2) |
//! | `untrue-offset` | an offset was returned before any operation had committed it |
//! | `nonmonotonic-offset` | an offset that had certainly been replaced by one that this coordinator had already returned |

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use brokkr_history::{Op, Operation, Type, names};
use serde_json::{Value, json};

use crate::linear::{Answer, CommittedOffsets, Model, OffsetCall, TopicCall, Topics};
use crate::pairs::{Pair, Pairs};
use crate::{Finding, Malformed, Verdict, invariant};

/// The anomalies that this checker reports.
pub const ANOMALIES: &[&str] = &[
    "untrue-topic",
    "two-leaders",
    "nonmonotonic-metadata",
    "untrue-offset",
    "nonmonotonic-offset",
];

/// The time between an operation's call and return, as indexes of the history.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Interval {
    began: u64,
    ended: u64,
}

/// A broker and its incarnation.
type Broker = (i64, i64);

/// A broker's answer about a topic.
#[derive(Clone, Debug)]
struct TopicView {
    span: Interval,
    broker: Broker,
    /// The topic's id; `None` if it does not exist.
    id: Option<String>,
}

/// A broker's answer about a partition of a topic id.
#[derive(Clone, Copy, Debug)]
struct LeaderView {
    span: Interval,
    broker: Broker,
    leader: i64,
    epoch: i64,
}

/// The creation of a topic, which may have happened.
#[derive(Clone, Debug)]
struct TopicCreation {
    began: u64,
    /// `None` if the outcome is unknown.
    ended: Option<u64>,
    id: Option<String>,
}

/// A commit that may have happened.
#[derive(Clone, Copy, Debug)]
struct OffsetCommit {
    began: u64,
    ended: Option<u64>,
    offset: i64,
}

/// A coordinator's answer.
#[derive(Clone, Copy, Debug)]
struct OffsetAnswer {
    span: Interval,
    broker: Broker,
    offset: Option<i64>,
}

/// The names of the operations that this judge judges.
const JUDGED: &[&str] = &[
    names::METADATA,
    names::COMMITTED,
    names::COMMIT,
    names::CREATE_TOPIC,
];

/// Judges a history incrementally.
pub struct Metadata {
    pairs: Pairs,
    created: BTreeMap<String, Vec<TopicCreation>>,
    shown: BTreeMap<String, Vec<TopicView>>,
    led: BTreeMap<(String, i64), Vec<LeaderView>>,
    /// Listings of all topics: topics absent from them do not exist.
    listings: Vec<(Interval, Broker, BTreeSet<String>)>,
    committed: BTreeMap<(String, String), Vec<OffsetCommit>>,
    answered: BTreeMap<(String, String), Vec<OffsetAnswer>>,
}

impl Default for Metadata {
    fn default() -> Self {
        Self {
            pairs: Pairs::of(JUDGED),
            created: BTreeMap::new(),
            shown: BTreeMap::new(),
            led: BTreeMap::new(),
            listings: Vec::new(),
            committed: BTreeMap::new(),
            answered: BTreeMap::new(),
        }
    }
}

impl Metadata {
    /// Adds the next operation.
    ///
    /// # Errors
    /// If it is malformed, or a process does two things at once.
    pub fn push(&mut self, operation: Operation) -> Result<(), Malformed> {
        self.pairs.push(operation)?.map_or(Ok(()), |pair| self.add(&pair))
    }

    fn add(&mut self, pair: &Pair) -> Result<(), Malformed> {
        let ended = &pair.ended;
        let known = ended.type_ == Type::Ok;
        let telling = pair.invoked.as_ref().filter(|_| !known).unwrap_or(ended);
        let malformed = |what: String| Malformed {
            index: ended.index,
            what,
        };
        let began = pair.invoked.as_ref().map_or(ended.index, |o| o.index);
        let span = Interval {
            began,
            ended: ended.index,
        };
        let Op::Other(f, value) = &telling.op else {
            return Ok(());
        };
        match (&*names::canonical(f), ended.type_) {
            (_, Type::Fail) | (names::METADATA | names::COMMITTED, Type::Info) => {}
            (names::METADATA, _) => self.metadata(span, value).map_err(malformed)?,
            (names::COMMITTED, _) => self.committed(span, telling, value).map_err(malformed)?,
            (names::CREATE_TOPIC, _) => {
                if let Some((topic, TopicCall::Create(Answer::Done(id)))) =
                    Topics.call(telling).map_err(malformed)?
                {
                    let ended = known.then_some(span.ended);
                    self.created
                        .entry(topic)
                        .or_default()
                        .push(TopicCreation { began, ended, id });
                }
            }
            (names::COMMIT, _) => {
                if let Some((object, OffsetCall::Commit(offset))) =
                    CommittedOffsets.call(telling).map_err(malformed)?
                {
                    let ended = known.then_some(span.ended);
                    self.committed
                        .entry(object)
                        .or_default()
                        .push(OffsetCommit { began, ended, offset });
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn committed(&mut self, span: Interval, o: &Operation, value: &Value) -> Result<(), String> {
        let Some(coordinator) = value["coordinator"].as_i64() else {
            return Err("a \"committed\" has no coordinator".to_owned());
        };
        let broker = (coordinator, value["incarnation"].as_i64().unwrap_or_default());
        if let Some((object, OffsetCall::Committed(offset))) = CommittedOffsets.call(o)? {
            self.answered
                .entry(object)
                .or_default()
                .push(OffsetAnswer { span, broker, offset });
        }
        Ok(())
    }

    fn metadata(&mut self, span: Interval, value: &Value) -> Result<(), String> {
        let broker = value["broker"].as_i64().ok_or("a \"metadata\" has no broker")?;
        let broker = (broker, value["incarnation"].as_i64().unwrap_or_default());
        let topics = value["topics"]
            .as_object()
            .ok_or("a \"metadata\" has no map of topics")?;
        for (topic, about) in topics {
            let id = match about {
                Value::Null => None,
                about => Some(
                    about["id"]
                        .as_str()
                        .ok_or_else(|| format!("topic {topic:?} has no id"))?
                        .to_owned(),
                ),
            };
            let partitions = about["partitions"].as_object().into_iter().flatten();
            for (partition, about) in partitions {
                let number = |name: &str| {
                    about[name]
                        .as_i64()
                        .ok_or_else(|| format!("a partition of {topic:?} has no {name}"))
                };
                let (leader, epoch) = (number("leader")?, number("epoch")?);
                let partition = partition
                    .parse()
                    .map_err(|_| format!("{partition:?} is not a partition"))?;
                let object = (id.clone().unwrap_or_default(), partition);
                self.led.entry(object).or_default().push(LeaderView {
                    span,
                    broker,
                    leader,
                    epoch,
                });
            }
            self.shown
                .entry(topic.clone())
                .or_default()
                .push(TopicView { span, broker, id });
        }
        if value["all"] == json!(true) {
            self.listings
                .push((span, broker, topics.keys().cloned().collect()));
        }
        Ok(())
    }

    /// Ends the history; returns the verdict.
    ///
    /// # Errors
    /// If an unfinished operation is malformed.
    pub fn finish(mut self) -> Result<Verdict, Malformed> {
        for pair in self.pairs.unfinished() {
            self.add(&pair)?;
        }
        for (span, broker, listed) in std::mem::take(&mut self.listings) {
            for (topic, shown) in &mut self.shown {
                if !listed.contains(topic) {
                    shown.push(TopicView {
                        span,
                        broker,
                        id: None,
                    });
                }
            }
        }
        let mut verdict = Verdict::new();
        let named = ANOMALIES.iter();
        verdict.invariants = named.filter_map(|name| Some((*name, invariant(name)?))).collect();
        let views = self.shown.values().map(Vec::len).sum::<usize>() as u64;
        let offsets = self.answered.values().map(Vec::len).sum::<usize>() as u64;
        verdict.counted.insert("topic_views", views);
        verdict.counted.insert("offsets", offsets);
        self.pairs.report(&mut verdict);
        if views == 0 && offsets == 0 {
            verdict.give_up("no broker answered anything");
        }
        for (topic, shown) in &mut self.shown {
            shown.sort_by_key(|s| s.span);
            let created = self.created.get(topic).map_or(&[][..], Vec::as_slice);
            verdict.add("untrue-topic", untrue_topics(topic, shown, created));
            verdict.add("nonmonotonic-metadata", topics_back(topic, shown, created));
        }
        for ((id, partition), led) in &mut self.led {
            led.sort_by_key(|l| l.span);
            verdict.add("two-leaders", two_leaders(id, *partition, led));
            verdict.add("nonmonotonic-metadata", epochs_back(id, *partition, led));
        }
        for (object, answered) in &mut self.answered {
            answered.sort_by_key(|a| a.span);
            let committed = self.committed.get(object).map_or(&[][..], Vec::as_slice);
            let commits = Commits::of(committed);
            verdict.add("untrue-offset", untrue_offsets(object, answered, &commits));
            verdict.add("nonmonotonic-offset", offsets_back(object, answered, &commits));
        }
        Ok(verdict)
    }
}

/// The maximum over everything that had ended before something began; queried in the order of beginnings.
struct Floor<T> {
    running: BinaryHeap<Reverse<(u64, T)>>,
    max: Option<T>,
}

impl<T: Ord + Copy> Floor<T> {
    fn new() -> Self {
        let (running, max) = (BinaryHeap::new(), None);
        Self { running, max }
    }

    fn add(&mut self, ended: u64, what: T) {
        self.running.push(Reverse((ended, what)));
    }

    fn at(&mut self, began: u64) -> Option<T> {
        while let Some(Reverse((ended, what))) = self.running.peek().copied() {
            if ended >= began {
                break;
            }
            self.running.pop();
            self.max = self.max.max(Some(what));
        }
        self.max
    }
}

/// A topic of the history was shown before its creation began. Topics without a creation in the history existed before.
fn untrue_topics(topic: &str, shown: &[TopicView], created: &[TopicCreation]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for s in shown {
        let Some(id) = &s.id else { continue };
        let fits = |c: &TopicCreation| c.began < s.span.ended && c.id.as_ref().is_none_or(|i| i == id);
        if created.is_empty() || created.iter().any(fits) {
            continue;
        }
        let (op, broker) = (s.span.ended, s.broker.0);
        let data = json!({"topic": topic, "id": id, "broker": broker, "op": op});
        let text =
            format!("broker {broker} showed topic {topic} with id {id} before any operation had created it");
        findings.push(Finding::new(data, [op], text));
    }
    findings
}

/// The ids of a topic that a broker has shown.
#[derive(Default)]
struct ShownIds {
    /// For each id, when it had been shown first, and when another id had been shown after that.
    shown: BTreeMap<String, (u64, Option<u64>)>,
}

fn topics_back(topic: &str, shown: &[TopicView], created: &[TopicCreation]) -> Vec<Finding> {
    // When an id's creation was certainly over, and when it began.
    let order: BTreeMap<_, _> = created
        .iter()
        .filter_map(|c| Some((c.id.as_ref()?, (c.began, c.ended?))))
        .collect();
    let older = |a: &String, b: &String| match (order.get(a), order.get(b)) {
        (Some((_, ended)), Some((began, _))) => ended < began,
        _ => false,
    };
    let mut brokers: BTreeMap<Broker, ShownIds> = BTreeMap::new();
    let mut findings = Vec::new();
    for s in shown {
        let ids = brokers.entry(s.broker).or_default();
        let began = s.span.began;
        if let Some(id) = &s.id {
            let gone = ids
                .shown
                .get(id)
                .and_then(|(_, gone)| *gone)
                .filter(|gone| *gone < began);
            let newer = || {
                ids.shown
                    .iter()
                    .find(|(other, (at, _))| *at < began && older(id, other))
                    .map(|(_, (at, _))| *at)
            };
            if let Some(before) = gone.or_else(newer) {
                let (op, broker) = (s.span.ended, s.broker.0);
                let data = json!({"topic": topic, "id": id, "broker": broker, "ops": [before, op]});
                let text = format!(
                    "broker {broker} showed topic {topic} with id {id} in operation {op}, after it had shown in operation {before} that this is gone"
                );
                findings.push(Finding::new(data, [before, op], text));
            }
        }
        for (other, (at, gone)) in &mut ids.shown {
            if s.id.as_ref() != Some(other) && *at < began {
                *gone = Some(gone.map_or(s.span.ended, |g| g.min(s.span.ended)));
            }
        }
        if let Some(id) = &s.id {
            let first = ids.shown.entry(id.clone()).or_insert((s.span.ended, None));
            first.0 = first.0.min(s.span.ended);
        }
    }
    findings
}

fn two_leaders(id: &str, partition: i64, led: &[LeaderView]) -> Vec<Finding> {
    let mut leaders: BTreeMap<i64, LeaderView> = BTreeMap::new();
    let mut reported = BTreeSet::new();
    let mut findings = Vec::new();
    for l in led {
        let first = leaders.entry(l.epoch).or_insert(*l);
        if first.leader == l.leader || !reported.insert((l.epoch, l.leader)) {
            continue;
        }
        let (ops, epoch) = ([first.span.ended, l.span.ended], l.epoch);
        let data = json!({
            "id": id, "partition": partition, "epoch": epoch, "leaders": [first.leader, l.leader], "ops": ops,
        });
        let text = format!(
            "partition {partition} of topic {id} had leaders {} and {} in epoch {epoch}",
            first.leader, l.leader
        );
        findings.push(Finding::new(data, ops, text));
    }
    findings
}

fn epochs_back(id: &str, partition: i64, led: &[LeaderView]) -> Vec<Finding> {
    let mut floors: BTreeMap<Broker, Floor<(i64, u64)>> = BTreeMap::new();
    let mut findings = Vec::new();
    for l in led {
        let floor = floors.entry(l.broker).or_insert_with(Floor::new);
        if let Some((epoch, before)) = floor.at(l.span.began)
            && epoch > l.epoch
        {
            let (ops, broker) = ([before, l.span.ended], l.broker.0);
            let data = json!({
                "id": id, "partition": partition, "broker": broker, "epochs": [epoch, l.epoch], "ops": ops,
            });
            let text = format!(
                "broker {broker} showed partition {partition} of topic {id} in epoch {epoch}, and then in epoch {}",
                l.epoch
            );
            findings.push(Finding::new(data, ops, text));
        }
        floor.add(l.span.ended, (l.epoch, l.span.ended));
    }
    findings
}

/// When each offset may have been committed.
struct Commits(BTreeMap<i64, Vec<OffsetCommit>>);

impl Commits {
    fn of(committed: &[OffsetCommit]) -> Self {
        let mut by_offset: BTreeMap<i64, Vec<OffsetCommit>> = BTreeMap::new();
        for c in committed {
            by_offset.entry(c.offset).or_default().push(*c);
        }
        Self(by_offset)
    }

    fn began(&self, offset: i64) -> Option<u64> {
        self.0.get(&offset)?.iter().map(|c| c.began).min()
    }

    /// By when every commit of it that began before `until` was over; `None` if that is not certain.
    fn over(&self, offset: Option<i64>, until: u64) -> Option<u64> {
        let Some(offset) = offset else { return Some(0) };
        let commits = self.0.get(&offset)?.iter().filter(|c| c.began < until);
        commits
            .map(|c| c.ended)
            .try_fold(0, |max, ended| Some(max.max(ended?)))
    }
}

fn untrue_offsets(object: &(String, String), answered: &[OffsetAnswer], commits: &Commits) -> Vec<Finding> {
    let (group, key) = object;
    let untrue = |a: &&OffsetAnswer| {
        a.offset
            .is_some_and(|o| commits.began(o).is_none_or(|began| began > a.span.ended))
    };
    let finding = |a: &OffsetAnswer| {
        let (op, coordinator, offset) = (a.span.ended, a.broker.0, a.offset);
        let data =
            json!({"group": group, "key": key, "offset": offset, "coordinator": coordinator, "op": op});
        let offset = offset.unwrap_or_default();
        let text = format!(
            "coordinator {coordinator} answered {offset} for {key} of {group} before any operation had committed it"
        );
        Finding::new(data, [op], text)
    };
    answered.iter().filter(untrue).map(finding).collect()
}

fn offsets_back(object: &(String, String), answered: &[OffsetAnswer], commits: &Commits) -> Vec<Finding> {
    let (group, key) = object;
    let mut floors: BTreeMap<Broker, Floor<(u64, u64, i64)>> = BTreeMap::new();
    let mut findings = Vec::new();
    for a in answered {
        let floor = floors.entry(a.broker).or_insert_with(Floor::new);
        if let Some((began, before, newer)) = floor.at(a.span.began)
            && commits
                .over(a.offset, a.span.ended)
                .is_some_and(|over| over < began)
        {
            let (ops, coordinator) = ([before, a.span.ended], a.broker.0);
            let data = json!({
                "group": group, "key": key, "offsets": [newer, a.offset], "coordinator": coordinator, "ops": ops,
            });
            let text = format!(
                "coordinator {coordinator} answered {newer} for {key} of {group}, and then {:?}, which is older",
                a.offset
            );
            findings.push(Finding::new(data, ops, text));
        }
        if let Some((offset, began)) = a.offset.and_then(|o| Some((o, commits.began(o)?))) {
            floor.add(a.span.ended, (began, a.span.ended, offset));
        }
    }
    findings
}

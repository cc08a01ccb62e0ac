//! A process that owns topics and asks a broker everything about them: what must be answered is known beforehand.
//!
//! It alone changes its topics, one change after the other. Once the outcome of a change is unknown, it leaves the topic alone. Each
//! operation is in the history as `inspect`, with the request and what was answered (`what` says which, [`ask`] has the fields);
//! the judge keeps a model of each partition and compares.

mod ask;
mod configs;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use brokkr_client::{Client, Result, TopicPartition};
use brokkr_env::{Env, Rng};
use brokkr_history::{Op, Process, Type};
use brokkr_types::Uuid;
use brokkr_wire::ApiKey;
use serde_json::{Value, json};

use crate::spec::{ClientSpec, InspectorSpec};
use crate::versions::any_versions;
use crate::{Recorder, Stop};
use ask::{Append, Flaw, Named, NewRecord};
pub use configs::{INSPECTED_CONFIGS, INSPECTED_DEFAULTS, INSPECTED_SECRET};

/// Most partitions of a topic.
const PARTITIONS_MAX: i32 = 6;
/// Three hours: more than the default of `message.timestamp.after.max.ms`.
const FAR_MS: i64 = 10_800_000;

/// A topic, with what is needed to ask for something that is there.
struct OwnTopic {
    id: Uuid,
    partitions: Vec<OwnPartition>,
    configs: BTreeMap<&'static str, &'static str>,
}

#[derive(Clone, Default)]
struct OwnPartition {
    /// The timestamp of each record.
    timestamps: Vec<i64>,
    log_start: i64,
    /// The producer of the last batch.
    identity: Option<(i64, i16)>,
    next_sequence: i32,
    /// Its last batches.
    window: VecDeque<Append>,
}

/// The first version of Metadata that takes topic ids.
const METADATA_BY_ID_VERSION: i16 = 12;
/// How many batches a broker remembers of a producer.
const WINDOW: usize = 5;
/// A client lives that many operations, if its version changes.
const OPERATIONS_OF_A_CLIENT: u64 = 10;

struct Inspector<'a, E: Env> {
    env: &'a E,
    spec: &'a InspectorSpec,
    recorder: &'a Recorder,
    client: Client<E>,
    rng: Rng,
    process: Process,
    /// What [`Client::repeated`] was when the operation began.
    repeated: u64,
    /// Its producer id and epoch, once it has one.
    identity: Option<(i64, i16)>,
    topics: BTreeMap<String, OwnTopic>,
    /// Names of topics that were deleted.
    free: Vec<String>,
    /// How many operations this client may still do.
    operations_left: u64,
    /// The number of the next topic, and of the next record.
    next_topic: u64,
    next_record: u64,
}

/// Changes topics and asks about them until stopped, then asks once more about all that are left.
pub async fn run_inspector<E: Env>(
    env: &E,
    client: &ClientSpec,
    spec: &InspectorSpec,
    recorder: &Recorder,
    stop: &Stop,
) {
    let mut inspector = Inspector {
        env,
        spec,
        recorder,
        client: Client::new(env, client.config()),
        rng: env.rng("workload inspector"),
        process: spec.process,
        repeated: 0,
        identity: None,
        topics: BTreeMap::new(),
        free: Vec::new(),
        operations_left: 0,
        next_topic: 0,
        next_record: 0,
    };
    loop {
        let pause = Duration::from_micros(inspector.rng.below(spec.pause_max_ms * 1000 + 1));
        tokio::select! {
            biased;
            () = stop.wait() => break,
            () = env.sleep_until(env.now() + pause) => {}
        }
        if spec.any_versions && inspector.operations_left == 0 {
            let config = any_versions(client.config(), &inspector.rng);
            inspector.client = Client::new(env, config);
            inspector.operations_left = OPERATIONS_OF_A_CLIENT;
        }
        inspector.operations_left = inspector.operations_left.saturating_sub(1);
        inspector.act().await;
    }
    let left: Vec<_> = inspector
        .topics
        .iter()
        .map(|(n, t)| (n.clone(), t.partitions.len()))
        .collect();
    for (name, partitions) in left {
        for partition in 0..partitions {
            inspector.read(&name, partition, 0).await;
        }
    }
    inspector.pages().await;
}

impl<E: Env> Inspector<'_, E> {
    fn below(&self, n: usize) -> usize {
        self.rng.below(n as u64) as usize
    }

    async fn act(&mut self) {
        if self.identity.is_none() {
            return self.identify().await;
        }
        if self.topics.is_empty() || self.topics.len() < self.spec.topics_max && self.below(6) == 0 {
            return self.create().await;
        }
        let name = self.topics.keys().nth(self.below(self.topics.len()));
        let name = name.expect("there is one").clone();
        let partition = self.below(self.topics[&name].partitions.len());
        match self.below(27) {
            20 if self.below(2) == 0 => self.change_default().await,
            20 => self.broker_configs().await,
            21 => self.configs(&name).await,
            22 => self.metadata().await,
            23 => match self.below(4) {
                0 => self.identify().await,
                1 => self.identity = self.identity.map(|(id, epoch)| (id, epoch + 1)),
                _ => self.append_stale(&name, partition).await,
            },
            24 => self.append_again(&name, partition).await,
            25 => self.append_with_gap(&name, partition).await,
            26 => {
                let flaw = Flaw::ALL[self.below(Flaw::ALL.len())];
                let append = self.new_batch(&name, partition);
                let flawed = Append {
                    kind: "flawed",
                    flaw: Some(flaw),
                    ..append
                };
                self.send(&name, partition, flawed, None).await;
            }
            0..7 => self.append(&name, partition, None).await,
            7..10 => {
                let from = self.an_offset(&name, partition);
                self.read(&name, partition, from).await;
            }
            10..13 => self.list_offsets(&name, partition).await,
            13 => self.epoch_end(&name, partition).await,
            14 => self.producers(&name, partition).await,
            15 => self.delete_records(&name, partition).await,
            16 => self.alter(&name, partition).await,
            17 => self.pages().await,
            18 => self.add_partition(&name).await,
            _ if self.below(5) == 0 => self.delete(&name).await,
            _ => self.directories(&name).await,
        }
    }

    fn begin(&mut self, asked: &Value) -> i64 {
        self.repeated = self.client.repeated();
        let op = Op::Other("inspect".to_owned(), asked.clone());
        self.recorder.invoke(self.env.now(), self.process, op);
        self.recorder.nanos(self.env.now())
    }

    /// Records what was answered. After a change without an answer the topic is left alone.
    fn end(&mut self, began: i64, asked: Value, is_change: bool, answered: Result<Value>) -> Option<Value> {
        let topic = asked["topic"].as_str().unwrap_or_default().to_owned();
        let what = asked["what"].as_str().unwrap_or_default().to_owned();
        // An earlier attempt may be carried out later, and undo what is changed then.
        let may_come_back = ["alter", "create", "default"].contains(&&*what)
            || what == "delete_records" && asked["before"] == -1;
        let comes_back = may_come_back && self.client.repeated() > self.repeated;
        let (type_, value, error) = match answered {
            Ok(answer) if comes_back => (Type::Info, asked, Ok(answer)),
            Ok(answer) => {
                let mut value = asked;
                value["answer"] = answer.clone();
                (Type::Ok, value, Ok(answer))
            }
            Err(e) if is_change => (Type::Info, asked, Err(e)),
            Err(e) => (Type::Fail, asked, Err(e)),
        };
        let op = Op::Other("inspect".to_owned(), value);
        self.recorder.complete(self.env.now(), self.process, type_, op);
        match error {
            Ok(_) if comes_back => {
                self.process += self.spec.process_stride;
                self.topics.remove(&topic);
                None
            }
            Ok(answer) => Some(answer),
            Err(error) => {
                let now = self.env.now();
                self.recorder
                    .refused(began, now, self.process, &what, &topic, &error);
                if is_change {
                    self.process += self.spec.process_stride;
                    self.topics.remove(&topic);
                }
                None
            }
        }
    }

    fn config(&self) -> (&'static str, &'static str) {
        let (key, values) = INSPECTED_CONFIGS[self.below(INSPECTED_CONFIGS.len())];
        (key, values[self.below(values.len())])
    }

    /// Asks for a producer id.
    async fn identify(&mut self) {
        let asked = json!({"what": "identity"});
        let began = self.begin(&asked);
        let answered = ask::producer_id(&self.client).await;
        let identity = answered.as_ref().ok().copied();
        self.identity = identity.or(self.identity);
        let answered = answered.map(|(id, epoch)| json!({"id": id, "epoch": epoch}));
        self.end(began, asked, false, answered);
    }

    /// A new name, or one that is free again. Names in pairs differ by a separator, so that not both can be topics.
    fn name(&mut self) -> String {
        if !self.free.is_empty() && self.below(2) == 0 {
            return self.free[self.below(self.free.len())].clone();
        }
        let n = self.next_topic;
        self.next_topic += 1;
        let separator = if n.is_multiple_of(2) { '_' } else { '.' };
        format!("{}{separator}{}", self.spec.prefix, n / 2)
    }

    async fn create(&mut self) {
        let name = self.name();
        let is_dry = self.below(5) == 0;
        let partitions = 1 + self.rng.below(3) as i32;
        let configs: BTreeMap<_, _> = (0..self.below(3)).map(|_| self.config()).collect();
        let asked = json!({"what": "create", "topic": name, "partitions": partitions, "configs": configs, "dry": is_dry});
        let began = self.begin(&asked);
        let answered = ask::create(&self.client, &name, partitions, &configs, is_dry).await;
        let answer = self.end(began, asked, true, answered);
        self.free.retain(|free| *free != name);
        let Some(answer) = answer else { return };
        if is_dry || answer["error"] != 0 {
            self.free.push(name);
            return;
        }
        let id = answer["id"].as_str().and_then(|id| id.parse().ok());
        let topic = OwnTopic {
            id: id.unwrap_or_default(),
            partitions: vec![OwnPartition::default(); partitions as usize],
            configs,
        };
        self.topics.insert(name, topic);
    }

    fn an_offset(&self, name: &str, partition: usize) -> i64 {
        let of = &self.topics[name].partitions[partition];
        let end = of.timestamps.len() as i64;
        match self.below(10) {
            // Out of range.
            0 => end + 1 + self.below(3) as i64,
            1 if of.log_start > 0 => self.rng.below(of.log_start as u64) as i64,
            2 => end,
            3 => of.log_start,
            _ => of.log_start + self.rng.below((end - of.log_start).max(1) as u64) as i64,
        }
    }

    /// New records: their times are about now, equal, older, or far ahead.
    fn records(&mut self, name: &str, partition: usize) -> Vec<NewRecord> {
        let now = self.env.wall().0;
        let last = self.topics[name].partitions[partition].timestamps.last().copied();
        let long = self.below(4) == 0;
        (0..1 + self.below(3))
            .map(|_| {
                let timestamp = match self.below(12) {
                    0 => now + FAR_MS,
                    1..4 => last.unwrap_or(now),
                    4 => now - self.rng.below(100_000) as i64,
                    _ => now,
                };
                let n = self.next_record;
                self.next_record += 1;
                let padding = if long { 3_500 } else { self.below(80) };
                NewRecord {
                    n,
                    timestamp,
                    padding,
                }
            })
            .collect()
    }

    /// The next batch of a partition.
    fn new_batch(&mut self, name: &str, partition: usize) -> Append {
        let records = self.records(name, partition);
        let (topic, identity) = (&self.topics[name], self.identity.unwrap_or((-1, -1)));
        let own = &topic.partitions[partition];
        Append {
            kind: "new",
            topic_id: topic.id,
            acks: if self.below(3) == 0 { 1 } else { -1 },
            codec: [0, 0, 1, 2, 3, 4][self.below(6)],
            identity,
            // The first of an epoch is 0.
            sequence: if own.identity == Some(identity) {
                own.next_sequence
            } else {
                0
            },
            records,
            flaw: None,
        }
    }

    /// Appends a batch; with `alter`, in a request that follows that change without waiting for its answer.
    async fn append(&mut self, name: &str, partition: usize, alter: Option<(&'static str, &'static str)>) {
        let append = self.new_batch(name, partition);
        self.send(name, partition, append, alter).await;
    }

    /// Sends one of the last batches again.
    async fn append_again(&mut self, name: &str, partition: usize) {
        let window = &self.topics[name].partitions[partition].window;
        if window.is_empty() {
            return;
        }
        let again = Append {
            kind: "again",
            ..window[self.below(window.len())].clone()
        };
        self.send(name, partition, again, None).await;
    }

    /// Leaves out sequences.
    async fn append_with_gap(&mut self, name: &str, partition: usize) {
        let append = self.new_batch(name, partition);
        if self.topics[name].partitions[partition].identity != Some(append.identity) {
            return;
        }
        let gap = Append {
            kind: "gap",
            sequence: append.sequence + 1 + self.below(3) as i32,
            ..append
        };
        self.send(name, partition, gap, None).await;
    }

    /// Sends with an epoch that is over.
    async fn append_stale(&mut self, name: &str, partition: usize) {
        let append = self.new_batch(name, partition);
        let (id, epoch) = append.identity;
        if epoch == 0 || self.topics[name].partitions[partition].identity != Some(append.identity) {
            return;
        }
        let stale = Append {
            kind: "stale",
            identity: (id, epoch - 1),
            ..append
        };
        self.send(name, partition, stale, None).await;
    }

    async fn send(
        &mut self,
        name: &str,
        partition: usize,
        append: Append,
        alter: Option<(&'static str, &'static str)>,
    ) {
        let tp = TopicPartition::new(name, partition as i32);
        let mut asked = append.asked(&tp, self.env.wall());
        if let Some((key, value)) = alter {
            asked["alter"] = json!({"config": key, "value": value});
        }
        let began = self.begin(&asked);
        let answered = append.send(&self.client, &tp, alter).await;
        let answer = self.end(began, asked, true, answered);
        let Some(topic) = self.topics.get_mut(name) else {
            return;
        };
        if let Some((key, value)) = alter {
            topic.configs.insert(key, value);
        }
        if append.kind != "again" && answer.is_some_and(|a| a["error"] == 0) {
            let own = &mut topic.partitions[partition];
            own.timestamps.extend(append.records.iter().map(|r| r.timestamp));
            if own.identity != Some(append.identity) {
                own.window.clear();
            }
            own.identity = Some(append.identity);
            own.next_sequence = append.sequence + append.records.len() as i32;
            own.window.push_back(append);
            if own.window.len() > WINDOW {
                own.window.pop_front();
            }
        }
    }

    async fn read(&mut self, name: &str, partition: usize, from: i64) {
        let tp = TopicPartition::new(name, partition as i32);
        let bytes_max = [1, 500, 5_000, 1 << 20][self.below(4)];
        let asked = json!({"what": "read", "topic": name, "partition": partition, "from": from, "bytes_max": bytes_max});
        let began = self.begin(&asked);
        let answered = ask::read(&self.client, &tp, self.topics[name].id, from, bytes_max).await;
        self.end(began, asked, false, answered);
    }

    async fn list_offsets(&mut self, name: &str, partition: usize) {
        let of = &self.topics[name].partitions[partition];
        let known = match of.timestamps.len() {
            0 => 0,
            n => of.timestamps[self.below(n)],
        };
        let timestamp = match self.below(10) {
            0 => -1,
            1 => -2,
            2..4 => -3,
            4 => 0,
            n => (known + n as i64 - 7).max(0),
        };
        // An epoch that is certainly over, or not there yet.
        let epoch = [0, 0, 0, 0, -1, 100][self.below(6)];
        let tp = TopicPartition::new(name, partition as i32);
        let asked = json!({"what": "offsets", "topic": name, "partition": partition, "timestamp": timestamp, "epoch": epoch});
        let began = self.begin(&asked);
        let answered = ask::list_offsets(&self.client, &tp, self.topics[name].id, timestamp, epoch).await;
        self.end(began, asked, false, answered);
    }

    async fn epoch_end(&mut self, name: &str, partition: usize) {
        let tp = TopicPartition::new(name, partition as i32);
        let back = self.below(4) as i32 - 1;
        let asked = json!({"what": "epoch_end", "topic": name, "partition": partition});
        let began = self.begin(&asked);
        let answered = ask::epoch_end(&self.client, &tp, back).await;
        self.end(began, asked, false, answered);
    }

    async fn producers(&mut self, name: &str, partition: usize) {
        let tp = TopicPartition::new(name, partition as i32);
        let asked = json!({"what": "producers", "topic": name, "partition": partition});
        let began = self.begin(&asked);
        let answered = self.client.describe_producers(&tp).await.map(|all| {
            let one = |p: &brokkr_wire::messages::describe_producers_response::ProducerState| {
                json!([
                    p.producer_id,
                    p.producer_epoch,
                    p.last_sequence,
                    p.last_timestamp,
                    p.current_txn_start_offset
                ])
            };
            all.iter().map(one).collect()
        });
        self.end(began, asked, false, answered);
    }

    async fn delete_records(&mut self, name: &str, partition: usize) {
        let tp = TopicPartition::new(name, partition as i32);
        let before = match self.below(4) {
            0 => -1,
            _ => self.an_offset(name, partition),
        };
        let asked =
            json!({"what": "delete_records", "topic": name, "partition": partition, "before": before});
        let began = self.begin(&asked);
        let answered = ask::delete_records(&self.client, &tp, before).await;
        let answer = self.end(began, asked, true, answered);
        if let (Some(topic), Some(low)) = (self.topics.get_mut(name), answer.and_then(|a| a["low"].as_i64()))
        {
            topic.partitions[partition].log_start = low.max(0);
        }
    }

    /// Changes one configuration, replaces all of them, or changes one and appends without waiting for the answer.
    async fn alter(&mut self, name: &str, partition: usize) {
        let (key, value) = self.config();
        let how = self.below(4);
        if how == 0 {
            return self.append(name, partition, Some((key, value))).await;
        }
        let value = (how > 1 || self.below(2) == 0).then_some(value);
        let is_whole = how == 3;
        let asked = json!({"what": "alter", "topic": name, "config": key, "value": value, "whole": is_whole});
        let began = self.begin(&asked);
        let answered = match is_whole {
            true => ask::replace_configs(&self.client, name, key, value).await,
            false => self.client.alter_topic_configs(name, &[(key, value)]).await,
        };
        let configs = match answered {
            Ok(()) => self.client.describe_topic_overrides(name).await,
            Err(e) => Err(e),
        };
        let answer = self.end(began, asked, true, configs.map(|c| json!({"configs": c})));
        if let Some(topic) = self.topics.get_mut(name).filter(|_| answer.is_some()) {
            if is_whole {
                topic.configs.clear();
            }
            match value {
                Some(value) => drop(topic.configs.insert(key, value)),
                None => drop(topic.configs.remove(key)),
            }
        }
    }

    /// Changes a default of one broker, or of all. Its topics without a value of their own follow.
    async fn change_default(&mut self) {
        let (broker_key, topic_key, values) = INSPECTED_DEFAULTS[self.below(INSPECTED_DEFAULTS.len())];
        let value = (self.below(3) > 0).then(|| values[self.below(values.len())]);
        let of_one = self.below(2) == 0;
        let node = self.client.with_metadata(|m| m.brokers.keys().next().copied());
        let Some(node) = node else { return };
        let scope = if of_one { node.to_string() } else { String::new() };
        let asked = json!({"what": "default", "of_one": of_one, "config": topic_key, "value": value});
        let began = self.begin(&asked);
        let answered = self
            .client
            .alter_broker_configs(&scope, &[(broker_key, value)])
            .await;
        self.end(began, asked, true, answered.map(|()| json!({})));
    }

    /// Asks for the configurations of a topic, and where their values are from.
    async fn configs(&mut self, name: &str) {
        let asked = json!({"what": "configs", "topic": name});
        let began = self.begin(&asked);
        let answered = ask::configs(&self.client, name).await;
        self.end(began, asked, false, answered);
    }

    /// Lists the partitions of all of its topics, a few at a time.
    async fn pages(&mut self) {
        let names: Vec<String> = self.topics.keys().cloned().collect();
        // None would mean all.
        if names.is_empty() {
            return;
        }
        let page = 1 + self.below(3) as i32;
        let asked = json!({"what": "pages", "topics": names, "page": page});
        let began = self.begin(&asked);
        let answered = ask::pages(&self.client, &names, page).await;
        self.end(began, asked, false, answered);
    }

    async fn add_partition(&mut self, name: &str) {
        let count = self.topics[name].partitions.len() as i32 + 1;
        if count > PARTITIONS_MAX {
            return;
        }
        let is_dry = self.below(2) == 0;
        let asked = json!({"what": "add_partition", "topic": name, "partitions": count, "dry": is_dry});
        let began = self.begin(&asked);
        let answered = self
            .client
            .create_partitions_or_validate(name, count, is_dry)
            .await;
        let answer = self.end(began, asked, true, answered.map(|()| json!({})));
        if let Some(topic) = self.topics.get_mut(name).filter(|_| answer.is_some() && !is_dry) {
            topic.partitions.push(OwnPartition::default());
        }
    }

    async fn delete(&mut self, name: &str) {
        let id = self.topics[name].id;
        let asked = json!({"what": "delete", "topic": name, "id": id.to_string()});
        let began = self.begin(&asked);
        let answered = self.client.delete_topic_id(id).await;
        let answer = self.end(began, asked, true, answered.map(|_| json!({})));
        self.topics.remove(name);
        // Otherwise a late attempt to make or delete it may come.
        if answer.is_some() {
            self.free.push(name.to_owned());
        }
    }

    /// Asks for all topics, for none, or for some by name or id.
    async fn metadata(&mut self) {
        let names: Vec<String> = self.topics.keys().chain(&self.free).cloned().collect();
        let names: Vec<String> = names.into_iter().filter(|_| self.below(2) == 0).collect();
        let ids: Vec<Uuid> = names
            .iter()
            .filter_map(|name| Some(self.topics.get(name)?.id))
            .collect();
        let max = self.client.config().versions_max.get(&ApiKey::Metadata).copied();
        let by_id = max.is_none_or(|max| max >= METADATA_BY_ID_VERSION);
        let (named, how) = match self.below(4) {
            0 => (Named::All, "all"),
            1 => (Named::None, "none"),
            2 if by_id && !ids.is_empty() => (Named::ById(&ids), "ids"),
            _ => (Named::ByName(&names), "names"),
        };
        let names = if how == "ids" {
            names
                .iter()
                .filter(|name| self.topics.contains_key(*name))
                .cloned()
                .collect()
        } else {
            names.clone()
        };
        let asked = json!({"what": "metadata", "named": how, "topics": names});
        let began = self.begin(&asked);
        let answered = ask::metadata(&self.client, named, &self.spec.prefix).await;
        self.end(began, asked, false, answered);
    }

    /// Asks for the configurations of all brokers.
    async fn broker_configs(&mut self) {
        let asked = json!({"what": "broker_configs"});
        let began = self.begin(&asked);
        let answered = ask::broker_configs(&self.client).await;
        self.end(began, asked, false, answered);
    }

    /// Asks which log directories have the topic's partitions.
    async fn directories(&mut self, name: &str) {
        let partitions = self.topics[name].partitions.len() as i32;
        let asked = json!({"what": "directories", "topic": name});
        let began = self.begin(&asked);
        let answered = ask::directories(&self.client, name, partitions).await;
        self.end(began, asked, false, answered);
    }
}

//! A process that administers topics of its own, and looks at what became of them.

use std::collections::BTreeMap;
use std::time::Duration;

use brokkr_client::admin::OffsetSpec;
use brokkr_client::{
    Client, Error, IsolationLevel, Producer, ProducerConfig, ProducerRecord, Result, TopicPartition,
};
use brokkr_env::{Env, Rng};
use brokkr_history::{Op, Process, Type};
use brokkr_types::Uuid;
use brokkr_wire::{ErrorCode, Str};
use bytes::Bytes;
use serde_json::{Value, json};

use crate::spec::{ClientSpec, OperatorSpec};
use crate::{Recorder, Stop};

/// Most partitions of a topic.
const PARTITIONS_MAX: i32 = 5;
/// Configurations that it changes, with values that do no harm to a topic of a few records.
const CONFIGS: [(&str, [&str; 3]); 6] = [
    ("segment.bytes", ["1048576", "2097152", "1073741824"]),
    ("max.message.bytes", ["100000", "1048588", "2000000"]),
    ("retention.ms", ["-1", "3600000", "604800001"]),
    ("index.interval.bytes", ["0", "4096", "10000"]),
    ("min.insync.replicas", ["1", "1", "1"]),
    (
        "message.timestamp.type",
        ["CreateTime", "LogAppendTime", "CreateTime"],
    ),
];

struct OwnTopic {
    id: Uuid,
    partitions: i32,
}

struct Operator<'a, E: Env> {
    env: &'a E,
    spec: &'a OperatorSpec,
    recorder: &'a Recorder,
    client: Client<E>,
    producer: Producer,
    rng: Rng,
    process: Process,
    /// What [`Client::repeated`] was when the operation began.
    repeated: u64,
    /// Its topics. Once the outcome of a change is unknown, a topic is left alone, and its name is not used again.
    topics: BTreeMap<String, OwnTopic>,
    /// Names that are free.
    free: Vec<String>,
    /// The number of the next new name.
    next: u64,
}

/// Administers topics until stopped, then describes all that are left.
///
/// In the history: `create_topic` and `delete_topic` as of a recreator, and with `partitions` and `configs`; `alter_topic`, with
/// `{"topic", "config", "value"}` (null: removed); `create_partitions`, with `{"topic", "partitions"}`; `send_to`, with
/// `{"topic", "partition"}`; `describe_topic`, with `{"topic"}`, and with `exists`, `id`, `partitions`, `configs` (those of the topic
/// itself) and `ends` (the latest offset of each partition) if they were returned.
pub async fn run_operator<E: Env>(
    env: &E,
    client: &ClientSpec,
    spec: &OperatorSpec,
    recorder: &Recorder,
    stop: &Stop,
) {
    let client = Client::new(env, client.config());
    let mut operator = Operator {
        env,
        spec,
        recorder,
        producer: Producer::new(&client, ProducerConfig::default()),
        client,
        rng: env.rng("workload operator"),
        process: spec.process,
        repeated: 0,
        topics: BTreeMap::new(),
        free: Vec::new(),
        next: 0,
    };
    loop {
        let pause = Duration::from_micros(operator.rng.below(spec.pause_max_ms * 1000 + 1));
        tokio::select! {
            biased;
            () = stop.wait() => break,
            () = env.sleep_until(env.now() + pause) => {}
        }
        operator.act().await;
    }
    let left: Vec<_> = operator.topics.keys().chain(&operator.free).cloned().collect();
    for name in left {
        operator.describe(&name).await;
    }
}

impl<E: Env> Operator<'_, E> {
    async fn act(&mut self) {
        let below = |n: usize| self.rng.below(n as u64) as usize;
        if self.topics.is_empty() || self.topics.len() < self.spec.topics_max && below(3) == 0 {
            let name = match self.free.is_empty() {
                true => {
                    self.next += 1;
                    format!("{}{}", self.spec.prefix, self.next - 1)
                }
                false => self.free.remove(below(self.free.len())),
            };
            return self.create(name).await;
        }
        let name = self.topics.keys().nth(below(self.topics.len()));
        let name = name.expect("there is one").clone();
        match below(8) {
            0..2 => self.alter(&name).await,
            2 => self.add_partition(&name).await,
            3 => self.delete(&name).await,
            4..6 => self.send(&name).await,
            _ if !self.free.is_empty() && below(3) == 0 => {
                let gone = self.free[below(self.free.len())].clone();
                self.describe(&gone).await;
            }
            _ => self.describe(&name).await,
        }
    }

    fn begin(&mut self, f: &str, value: &Value) -> i64 {
        self.repeated = self.client.repeated();
        let op = Op::Other(f.to_owned(), value.clone());
        self.recorder.invoke(self.env.now(), self.process, op);
        self.recorder.nanos(self.env.now())
    }

    /// Records the outcome of a change. Returns whether it was made; if that is unknown, the topic is left alone from now on.
    fn end(&mut self, began: i64, f: &str, topic: &str, value: Value, error: Option<&Error>) -> bool {
        // An earlier attempt may be carried out later, and undo what is changed then.
        let comes_back = f == "alter_topic" && self.client.repeated() > self.repeated;
        let is_made = error.is_none() && !comes_back;
        let type_ = if is_made { Type::Ok } else { Type::Info };
        let op = Op::Other(f.to_owned(), value);
        self.recorder.complete(self.env.now(), self.process, type_, op);
        if let Some(error) = error {
            self.recorder
                .refused(began, self.env.now(), self.process, f, topic, error);
        }
        if !is_made {
            self.process += self.spec.process_stride;
            self.topics.remove(topic);
        }
        is_made
    }

    async fn create(&mut self, name: String) {
        let partitions = 1 + self.rng.below(3) as i32;
        let mut configs = BTreeMap::new();
        for _ in 0..self.rng.below(3) {
            let (key, value) = self.config();
            configs.insert(key, value);
        }
        let asked = json!({"topic": name, "partitions": partitions, "configs": configs});
        let began = self.begin("create_topic", &asked);
        let configs: Vec<_> = configs.into_iter().collect();
        let result = self.client.create_topic(&name, partitions, -1, &configs).await;
        let mut value = asked;
        if let Ok(id) = &result {
            value["id"] = id.to_string().into();
        }
        if self.end(began, "create_topic", &name, value, result.as_ref().err()) {
            let id = result.unwrap_or_default();
            self.topics.insert(name, OwnTopic { id, partitions });
        }
    }

    fn config(&self) -> (&'static str, &'static str) {
        let (key, values) = CONFIGS[self.rng.below(CONFIGS.len() as u64) as usize];
        (key, values[self.rng.below(values.len() as u64) as usize])
    }

    async fn alter(&mut self, name: &str) {
        let (key, value) = self.config();
        let value = (self.rng.below(3) > 0).then_some(value);
        let asked = json!({"topic": name, "config": key, "value": value});
        let began = self.begin("alter_topic", &asked);
        let result = self.client.alter_topic_configs(name, &[(key, value)]).await;
        self.end(began, "alter_topic", name, asked, result.as_ref().err());
    }

    async fn add_partition(&mut self, name: &str) {
        let partitions = self.topics[name].partitions + 1;
        if partitions > PARTITIONS_MAX {
            return;
        }
        let asked = json!({"topic": name, "partitions": partitions});
        let began = self.begin("create_partitions", &asked);
        let result = self.client.create_partitions(name, partitions).await;
        if self.end(began, "create_partitions", name, asked, result.as_ref().err())
            && let Some(topic) = self.topics.get_mut(name)
        {
            topic.partitions = partitions;
        }
    }

    async fn delete(&mut self, name: &str) {
        let id = self.topics[name].id;
        let asked = json!({"topic": name, "id": id.to_string()});
        let began = self.begin("delete_topic", &asked);
        // An earlier attempt may have deleted it: it is gone all the same.
        let result = self.client.delete_topic_id(id).await;
        if self.end(began, "delete_topic", name, asked, result.as_ref().err()) {
            self.topics.remove(name);
            self.free.push(name.to_owned());
        }
    }

    async fn send(&mut self, name: &str) {
        let partition = self.rng.below(self.topics[name].partitions as u64) as i32;
        let asked = json!({"topic": name, "partition": partition});
        let began = self.begin("send_to", &asked);
        let tp = TopicPartition::new(name, partition);
        let record = ProducerRecord::new(tp, None, Some(Bytes::from_static(b"o")));
        let result = self.producer.enqueue(record).await.await;
        let error = result.as_ref().err().map(|e| e.cause());
        self.end(began, "send_to", name, asked, error);
    }

    async fn describe(&mut self, name: &str) {
        let asked = json!({"topic": name});
        let began = self.begin("describe_topic", &asked);
        let result = self.look(name).await;
        let (type_, value) = match &result {
            Ok(seen) => (Type::Ok, seen.clone()),
            Err(e) => {
                self.recorder
                    .refused(began, self.env.now(), self.process, "describe_topic", name, e);
                (Type::Fail, asked)
            }
        };
        let op = Op::Other("describe_topic".to_owned(), value);
        self.recorder.complete(self.env.now(), self.process, type_, op);
    }

    async fn look(&self, name: &str) -> Result<Value> {
        let name = Str::copied(name);
        self.client.want_topic(&name);
        self.client.refresh_metadata().await?;
        let topic = self.client.with_metadata(|m| m.topics.get(&name).cloned());
        let Some(topic) = topic.filter(|t| t.error != ErrorCode::UNKNOWN_TOPIC_OR_PARTITION) else {
            return Ok(json!({"topic": &*name, "exists": false}));
        };
        if topic.error.is_error() {
            return Err(Error::Broker(topic.error, None));
        }
        let configs = self.client.describe_topic_overrides(&name).await?;
        let mut ends = Vec::new();
        for partition in topic.partitions.keys() {
            let tp = TopicPartition::new(&name, *partition);
            let level = IsolationLevel::ReadUncommitted;
            let listed = self.client.list_offsets(&tp, OffsetSpec::Latest, level).await?;
            ends.push(listed.offset.map_or(-1, |offset| offset.0));
        }
        let odd = topic.partitions.iter().find(|(_, p)| {
            let is_led = p.leader < 0 || p.isr.contains(&p.leader);
            !is_led || !p.isr.iter().all(|node| p.replicas.contains(node))
        });
        Ok(json!({
            "topic": &*name,
            "exists": true,
            "id": topic.id.to_string(),
            "partitions": topic.partitions.keys().collect::<Vec<_>>(),
            "configs": configs,
            "ends": ends,
            "odd": odd.map(|(index, p)| format!("partition {index}: {p:?}")),
        }))
    }
}

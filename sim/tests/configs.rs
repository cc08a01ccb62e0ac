//! Every configuration key that is listed as implemented has an effect: runs a broker with one value and with another, and checks
//! that a client or the disk observes the difference that the table gives.

mod common;

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use brokkr::config::BrokerConfig;
use brokkr_env::{Env, UnixMillis};
use brokkr_metadata::config::{BROKER_KEYS, TOPIC_KEYS, topic_key};
use brokkr_sim::disk::Disk;
use brokkr_sim::exec::Ended;
use brokkr_sim::net::addr_of;
use brokkr_sim::node::{self, Running, Started};
use brokkr_sim::room;
use brokkr_sim::world::World;
use brokkr_types::{ProducerEpoch, ProducerId, Sequence};
use brokkr_wire::messages::create_partitions_request::CreatePartitionsTopic;
use brokkr_wire::messages::delete_topics_request::DeleteTopicState;
use brokkr_wire::messages::describe_producers_request::TopicRequest as ProducersOf;
use brokkr_wire::messages::describe_topic_partitions_request::TopicRequest;
use brokkr_wire::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use brokkr_wire::messages::metadata_request::MetadataRequestTopic;
use brokkr_wire::messages::{
    ApiVersionsRequest, CreatePartitionsRequest, DeleteTopicsRequest, DescribeProducersRequest,
    DescribeTopicPartitionsRequest, IncrementalAlterConfigsRequest, MetadataRequest,
};
use brokkr_wire::records::BatchBuilder;
use brokkr_wire::{ErrorCode, Str};
use common::{Client, PORT, SECOND, SERVER, batch, listener, pause};

const HOUR_MS: i64 = 3_600_000;

type Settings = &'static [(&'static str, &'static str)];
type Observe = fn(Trial) -> Pin<Box<dyn Future<Output = i64> + Send>>;

/// How the observations of a key's two values differ.
#[derive(Clone, Copy)]
enum Difference {
    Exactly(i64, i64),
    Less,
    More,
}
use Difference::{Exactly, Less, More};

struct KeyCase {
    key: &'static str,
    values: [&'static str; 2],
    /// Further settings of the broker, and of the topic.
    broker: Settings,
    topic: Settings,
    observe: Observe,
    difference: Difference,
}

/// A broker with a topic `t` of one partition.
struct Trial {
    world: World,
    running: Running,
    client: Client,
}

macro_rules! observe {
    ($f:path) => {
        |trial| Box::pin($f(trial))
    };
}

impl Trial {
    fn wall(&self) -> UnixMillis {
        self.world.env(SERVER).wall()
    }

    async fn pass(&self, secs: u64) {
        pause(&self.world, secs).await;
    }

    fn on_disk<T>(&self, f: impl FnOnce(&mut Disk) -> T) -> T {
        f(self.world.lock().disks.get_mut(&SERVER).expect("its disk"))
    }

    fn files(&self, pattern: &str) -> i64 {
        self.on_disk(|disk| disk.matching(pattern)).len() as i64
    }

    fn bytes(&self, pattern: &str) -> i64 {
        self.on_disk(|disk| {
            let files = disk.matching(pattern).into_iter();
            files
                .filter_map(|path| disk.file(&path))
                .map(|id| disk.len(id) as i64)
                .sum()
        })
    }

    /// Produces a record whose timestamp is this many hours from now.
    async fn produce_at(&self, hours: i64, value: &[u8]) -> ErrorCode {
        let at = UnixMillis(self.wall().0 + hours * HOUR_MS);
        self.client
            .produce_batch("t", 0, batch(at, Some(b"key"), value))
            .await
    }

    async fn produce(&self, bytes: usize) -> ErrorCode {
        self.produce_at(0, &vec![7; bytes]).await
    }

    /// Fills two segments of a MiB and begins a third, if segments are that small.
    async fn fill(&self) {
        for _ in 0..3 {
            assert_eq!(self.produce_at(-2, &[7; 600_000]).await, ErrorCode::NONE);
        }
    }

    async fn log_start(&self) -> i64 {
        self.client.list_offsets("t", 0, -2).await.offset
    }
}

async fn without_key(trial: Trial) -> i64 {
    let batch = batch(trial.wall(), None, b"value");
    trial.client.produce_batch("t", 0, batch).await.0.into()
}

async fn log_bytes(trial: Trial) -> i64 {
    let words = (0..10_000u32).map(|i| format!("{} ", i.wrapping_mul(2_654_435_761) % 5000));
    let text = words.collect::<String>();
    assert_eq!(trial.produce_at(0, text.as_bytes()).await, ErrorCode::NONE);
    trial.bytes("data/t-0/*.log")
}

async fn deleted_files(trial: Trial) -> i64 {
    trial.fill().await;
    trial.pass(30).await;
    assert!(trial.log_start().await > 0);
    trial.files("data/t-0/*.deleted")
}

/// Unsynced bytes after some seconds.
async fn unsynced_bytes(trial: Trial) -> i64 {
    assert_eq!(trial.produce(100).await, ErrorCode::NONE);
    trial.pass(5).await;
    trial.on_disk(|disk| disk.log_unsynced_bytes()) as i64
}

async fn index_bytes(trial: Trial) -> i64 {
    for _ in 0..20 {
        assert_eq!(trial.produce(200).await, ErrorCode::NONE);
    }
    let Trial { world, running, .. } = trial;
    assert_eq!(running.stop().await, Ok(true));
    let state = world.lock();
    let disk = &state.disks[&SERVER];
    let indexes = disk.matching("data/t-0/*.index").into_iter();
    indexes
        .filter_map(|path| disk.file(&path))
        .map(|id| disk.len(id) as i64)
        .sum()
}

async fn code_of_1000_bytes(trial: Trial) -> i64 {
    trial.produce(1000).await.0.into()
}

async fn code_of_the_future(trial: Trial) -> i64 {
    trial.produce_at(1, b"value").await.0.into()
}

async fn code_of_the_past(trial: Trial) -> i64 {
    trial.produce_at(-1, b"value").await.0.into()
}

async fn has_append_time(trial: Trial) -> i64 {
    let batch = batch(trial.wall(), None, b"value");
    let response = trial.client.try_produce("t", 0, batch).await.expect("answered");
    (response.log_append_time_ms >= 0).into()
}

async fn log_start(trial: Trial) -> i64 {
    trial.fill().await;
    trial.pass(10).await;
    trial.log_start().await
}

async fn segments(trial: Trial) -> i64 {
    trial.fill().await;
    trial.files("data/t-0/*.log")
}

async fn segments_of_small_batches(trial: Trial) -> i64 {
    for _ in 0..30 {
        assert_eq!(trial.produce(200).await, ErrorCode::NONE);
    }
    trial.files("data/t-0/*.log")
}

async fn segments_after_hours(trial: Trial) -> i64 {
    for _ in 0..3 {
        assert_eq!(trial.produce(10).await, ErrorCode::NONE);
        trial.pass(2 * 3600).await;
    }
    trial.files("data/t-0/*.log")
}

/// Minutes until the log rolls.
async fn rolls_after(trial: Trial) -> i64 {
    for minutes in 0..200 {
        assert_eq!(trial.produce(10).await, ErrorCode::NONE);
        if trial.files("data/t-0/*.log") > 1 {
            return minutes;
        }
        trial.pass(60).await;
    }
    panic!("it doesn't roll")
}

async fn metadata(trial: &Trial) -> brokkr_wire::messages::MetadataResponse {
    let request = MetadataRequest {
        topics: Some(Vec::new()),
        ..Default::default()
    };
    trial.client.ask(request, 12).await
}

async fn advertised_port(trial: Trial) -> i64 {
    metadata(&trial).await.brokers[0].port.into()
}

async fn advertised_id(trial: Trial) -> i64 {
    metadata(&trial).await.brokers[0].node_id.into()
}

async fn advertised_rack(trial: Trial) -> i64 {
    let rack = metadata(&trial).await.brokers.remove(0).rack;
    rack.map_or(-1, |rack| rack.len() as i64)
}

async fn code_of_a_missing_topic(trial: Trial) -> i64 {
    let told = trial.client.metadata("u").await.error_code;
    (told == ErrorCode::UNKNOWN_TOPIC_OR_PARTITION.0).into()
}

async fn is_served_after_10_s(trial: Trial) -> i64 {
    trial.pass(10).await;
    let answer = trial.client.try_ask(ApiVersionsRequest::default(), 0).await;
    answer.is_some().into()
}

async fn is_another_served(trial: Trial) -> i64 {
    let Some(another) = Client::connected_to(&trial.world, PORT).await else {
        return 0;
    };
    let answer = another.try_ask(ApiVersionsRequest::default(), 0).await;
    answer.is_some().into()
}

async fn listens_on_9093(trial: Trial) -> i64 {
    Client::connected_to(&trial.world, 9093).await.is_some().into()
}

async fn code_of_a_topic_by_default(trial: Trial) -> i64 {
    trial.client.create_with("u", -1, -1, &[]).await.0.into()
}

async fn partitions_by_default(trial: Trial) -> i64 {
    assert_eq!(trial.client.create("u", -1).await, ErrorCode::NONE);
    trial.client.metadata("u").await.partitions.len() as i64
}

async fn code_of_a_deletion(trial: Trial) -> i64 {
    let topic = DeleteTopicState {
        name: Some(Str::from_static("t")),
        ..Default::default()
    };
    let request = DeleteTopicsRequest {
        topics: vec![topic],
        timeout_ms: 30_000,
        ..Default::default()
    };
    trial.client.ask(request, 6).await.responses[0].error_code.into()
}

async fn fetched_bytes(trial: Trial) -> i64 {
    for _ in 0..4 {
        assert_eq!(trial.produce(600).await, ErrorCode::NONE);
    }
    let records = trial.client.fetch("t", 0, -1).await.0.records;
    records.map_or(0, |records| records.len() as i64)
}

async fn has_a_session(trial: Trial) -> i64 {
    let (_, session) = trial.client.fetch("t", 0, 0).await;
    (session != 0).into()
}

async fn logs_in_a(trial: Trial) -> i64 {
    // The first append makes the log.
    assert_eq!(trial.produce(100).await, ErrorCode::NONE);
    trial.files("a/t-0/*.log")
}

async fn metadata_logs_in_a(trial: Trial) -> i64 {
    trial.files("a/__cluster_metadata-0/*.log")
}

async fn partitions_of_a_page(trial: Trial) -> i64 {
    let topic = CreatePartitionsTopic {
        name: Str::from_static("t"),
        count: 5,
        assignments: None,
        ..Default::default()
    };
    let request = CreatePartitionsRequest {
        topics: vec![topic],
        timeout_ms: 30_000,
        ..Default::default()
    };
    assert_eq!(trial.client.ask(request, 3).await.results[0].error_code, 0);
    let topic = TopicRequest {
        name: Str::from_static("t"),
        ..Default::default()
    };
    let request = DescribeTopicPartitionsRequest {
        topics: vec![topic],
        response_partition_limit: 100,
        ..Default::default()
    };
    trial.client.ask(request, 0).await.topics[0].partitions.len() as i64
}

async fn snapshots(trial: Trial) -> i64 {
    for i in 0..40 {
        let code = trial.client.create(&format!("topic-{i}"), 1).await;
        assert_eq!(code, ErrorCode::NONE);
    }
    trial.pass(5).await;
    trial.files("data/__cluster_metadata-0/*.checkpoint")
}

async fn metadata_segments(trial: Trial) -> i64 {
    let throttled = |i: i32| {
        let replicas = (0..3000).map(|n| format!("{n}:{}", n + i));
        replicas.collect::<Vec<_>>().join(",")
    };
    for i in 0..400 {
        let config = AlterableConfig {
            name: Str::from_static("leader.replication.throttled.replicas"),
            config_operation: 0,
            value: Some(Str::copied(&throttled(i))),
            ..Default::default()
        };
        let resource = AlterConfigsResource {
            resource_type: 2,
            resource_name: Str::from_static("t"),
            configs: vec![config],
            ..Default::default()
        };
        let request = IncrementalAlterConfigsRequest {
            resources: vec![resource],
            ..Default::default()
        };
        assert_eq!(trial.client.ask(request, 1).await.responses[0].error_code, 0);
    }
    trial.files("data/__cluster_metadata-0/*.log")
}

async fn producers_after_an_hour(trial: Trial) -> i64 {
    let mut builder = BatchBuilder::new().producer(ProducerId(7), ProducerEpoch(0), Sequence(0));
    builder.push(trial.wall(), None, Some(b"value"), &[]);
    let batch = builder.build().bytes;
    assert_eq!(trial.client.produce_batch("t", 0, batch).await, ErrorCode::NONE);
    trial.pass(3600).await;
    assert_eq!(trial.produce(10).await, ErrorCode::NONE);
    let topic = ProducersOf {
        name: Str::from_static("t"),
        partition_indexes: vec![0],
        ..Default::default()
    };
    let request = DescribeProducersRequest {
        topics: vec![topic],
        ..Default::default()
    };
    let response = trial.client.ask(request, 0).await;
    response.topics[0].partitions[0].active_producers.len() as i64
}

async fn are_many_names_answered(trial: Trial) -> i64 {
    let topic = |_| MetadataRequestTopic {
        name: Some(Str::from_static("unknown")),
        ..Default::default()
    };
    let request = MetadataRequest {
        topics: Some((0..20_000).map(topic).collect()),
        ..Default::default()
    };
    trial.client.try_ask(request, 12).await.is_some().into()
}

async fn are_1000_bytes_answered(trial: Trial) -> i64 {
    let batch = batch(trial.wall(), None, &[7; 1000]);
    trial.client.try_produce("t", 0, batch).await.is_some().into()
}

const fn row(
    key: &'static str,
    values: [&'static str; 2],
    observe: Observe,
    difference: Difference,
) -> KeyCase {
    KeyCase {
        key,
        values,
        broker: &[],
        topic: &[],
        observe,
        difference,
    }
}

impl KeyCase {
    const fn topic(self, topic: Settings) -> Self {
        Self { topic, ..self }
    }

    const fn broker(self, broker: Settings) -> Self {
        Self { broker, ..self }
    }
}

const SMALL: Settings = &[("segment.bytes", "1048576")];
const SMALL_AND_FEW: Settings = &[("segment.bytes", "1048576"), ("retention.bytes", "1")];
const FREQUENT_RETENTION: Settings = &[("log.retention.check.interval.ms", "1000")];
const NEVER: &str = "9223372036854775807";

/// Topic keys. Each is tried on the topic, and through the broker's keys for its default.
#[rustfmt::skip]
fn topic_rows() -> Vec<KeyCase> {
    vec![
        row("cleanup.policy", ["delete", "compact"], observe!(without_key), Exactly(0, ErrorCode::INVALID_RECORD.0 as i64)),
        row("compression.gzip.level", ["1", "9"], observe!(log_bytes), More).topic(&[("compression.type", "gzip")]),
        row("compression.type", ["producer", "gzip"], observe!(log_bytes), More),
        row("compression.zstd.level", ["1", "19"], observe!(log_bytes), More).topic(&[("compression.type", "zstd")]),
        row("file.delete.delay.ms", ["1000", "600000"], observe!(deleted_files), Less).topic(SMALL_AND_FEW).broker(FREQUENT_RETENTION),
        row("flush.messages", ["1", "1000000"], observe!(unsynced_bytes), Less),
        row("flush.ms", ["100", NEVER], observe!(unsynced_bytes), Less).topic(&[("flush.messages", "1000000")]),
        row("index.interval.bytes", ["100", "1000000"], observe!(index_bytes), More),
        row("max.message.bytes", ["100", "100000"], observe!(code_of_1000_bytes), Exactly(ErrorCode::MESSAGE_TOO_LARGE.0 as i64, 0)),
        row("message.timestamp.after.max.ms", ["1000", "7200000"], observe!(code_of_the_future), Exactly(ErrorCode::INVALID_TIMESTAMP.0 as i64, 0)),
        row("message.timestamp.before.max.ms", ["1000", "7200000"], observe!(code_of_the_past), Exactly(ErrorCode::INVALID_TIMESTAMP.0 as i64, 0)),
        row("message.timestamp.type", ["CreateTime", "LogAppendTime"], observe!(has_append_time), Exactly(0, 1)),
        row("retention.bytes", ["-1", "1"], observe!(log_start), Less).topic(SMALL).broker(FREQUENT_RETENTION),
        row("retention.ms", ["-1", "3600000"], observe!(log_start), Less).topic(SMALL).broker(FREQUENT_RETENTION),
        row("segment.bytes", ["1048576", "1073741824"], observe!(segments), More),
        row("segment.index.bytes", ["40", "10485760"], observe!(segments_of_small_batches), More).topic(&[("index.interval.bytes", "1")]),
        row("segment.jitter.ms", ["0", "3600000"], observe!(rolls_after), More).topic(&[("segment.ms", "7200000")]),
        row("segment.ms", ["3600000", "86400000"], observe!(segments_after_hours), More),
    ]
}

/// Keys of brokers only.
#[rustfmt::skip]
fn broker_rows() -> Vec<KeyCase> {
    vec![
        row("advertised.listeners", ["PLAINTEXT://a:1", "PLAINTEXT://a:2"], observe!(advertised_port), Exactly(1, 2)),
        row("auto.create.topics.enable", ["true", "false"], observe!(code_of_a_missing_topic), Exactly(0, 1)),
        row("broker.id", ["5", "6"], observe!(advertised_id), Exactly(5, 6)),
        row("broker.rack", ["a", "bb"], observe!(advertised_rack), Exactly(1, 2)),
        row("connections.max.idle.ms", ["1000", "600000"], observe!(is_served_after_10_s), Exactly(0, 1)),
        row("default.replication.factor", ["1", "2"], observe!(code_of_a_topic_by_default), Exactly(0, ErrorCode::INVALID_REPLICATION_FACTOR.0 as i64)),
        row("delete.topic.enable", ["true", "false"], observe!(code_of_a_deletion), Exactly(0, ErrorCode::TOPIC_DELETION_DISABLED.0 as i64)),
        row("fetch.max.bytes", ["1024", "100000"], observe!(fetched_bytes), Less),
        row("listeners", ["PLAINTEXT", "PLAINTEXT, OTHER"], observe!(listens_on_9093), Exactly(0, 1)),
        row("log.dir", ["a", "b"], observe!(logs_in_a), Exactly(1, 0)),
        row("log.dirs", ["a", "b"], observe!(logs_in_a), Exactly(1, 0)),
        row("log.retention.check.interval.ms", ["1000", "3600000"], observe!(log_start), More).topic(SMALL_AND_FEW),
        row("max.connections", ["1", "2"], observe!(is_another_served), Exactly(0, 1)),
        row("max.connections.per.ip", ["1", "2"], observe!(is_another_served), Exactly(0, 1)),
        row("max.incremental.fetch.session.cache.slots", ["0", "1"], observe!(has_a_session), Exactly(0, 1)),
        row("max.request.partition.size.limit", ["2", "2000"], observe!(partitions_of_a_page), Exactly(2, 5)),
        row("metadata.log.dir", ["a", "b"], observe!(metadata_logs_in_a), Exactly(1, 0)).broker(&[("log.dirs", "a,b")]),
        row("metadata.log.max.record.bytes.between.snapshots", ["500", "20971520"], observe!(snapshots), More),
        row("metadata.log.segment.bytes", ["8388608", "1073741824"], observe!(metadata_segments), More)
            .broker(&[("metadata.log.max.record.bytes.between.snapshots", "1000000000")]),
        row("node.id", ["5", "6"], observe!(advertised_id), Exactly(5, 6)),
        row("num.partitions", ["1", "3"], observe!(partitions_by_default), Exactly(1, 3)),
        row("producer.id.expiration.ms", ["60000", "86400000"], observe!(producers_after_an_hour), Exactly(0, 1)),
        row("queued.max.request.bytes", ["1000000", "100000000"], observe!(are_many_names_answered), Exactly(0, 1)),
        row("socket.request.max.bytes", ["500", "100000"], observe!(are_1000_bytes_answered), Exactly(0, 1)),
    ]
}

/// Keys that decide whether a broker starts: their values (it starts with the first, and not with the second), and further
/// settings.
const STARTS: &[(&str, [&str; 2], Settings)] = &[
    (
        "controller.listener.names",
        ["OTHER", "CONTROLLER"],
        &[("listeners", "PLAINTEXT://:9092,OTHER://:9093")],
    ),
    (
        "listener.security.protocol.map",
        ["OTHER:PLAINTEXT", "OTHER:SSL"],
        &[("listeners", "OTHER://:9092")],
    ),
    ("process.roles", ["broker,controller", "broker"], &[]),
];

/// Keys whose effect only real sockets show: `broker/server/tests/sockets.rs`.
const NEEDS_REAL_SOCKETS: &[&str] = &[
    "metrics.listen",
    "num.io.threads",
    "socket.receive.buffer.bytes",
    "socket.send.buffer.bytes",
];

/// With one replica it has no effect, as in Kafka; a test in `broker/replication/src/leader.rs` covers several.
const NEEDS_REPLICAS: &str = "min.insync.replicas";

fn config(set: &[(&str, &str)]) -> Result<BrokerConfig, String> {
    let set = set
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    let made = BrokerConfig::new(set.collect());
    made.map(|(config, _)| config).map_err(|e| e.to_string())
}

/// The observation of a broker with this configuration, and a topic with this one.
fn observe_with(broker: &[(&str, &str)], topic: &[(&str, &str)], observe: Observe) -> i64 {
    let (mut set, own) = (BTreeMap::from([("log.dirs", "data")]), listener());
    if broker.iter().any(|(key, _)| *key == "log.dir") {
        set.clear();
    }
    set.insert("listeners", &own);
    set.insert("connections.max.idle.ms", "-1");
    set.extend(broker.iter().copied());
    let both = format!("{own},OTHER://{}:9093", addr_of(SERVER, PORT).ip());
    match set["listeners"] {
        "PLAINTEXT" => drop(set.insert("listeners", &own)),
        "PLAINTEXT, OTHER" => {
            set.insert("listeners", &both);
            set.insert(
                "listener.security.protocol.map",
                "PLAINTEXT:PLAINTEXT,OTHER:PLAINTEXT",
            );
        }
        _ => {}
    }
    let set: Vec<(&str, &str)> = set.into_iter().collect();
    let config = config(&set).expect("valid");
    let topic: Vec<(String, String)> = topic
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect();
    let saw = room::run(5, 40_000 * SECOND, move |world| {
        world.lock().disks.insert(SERVER, Disk::new(SERVER));
        let (saw, exec) = (Arc::new(Mutex::new(None)), world.exec().clone());
        let (inside, world) = (Arc::clone(&saw), world.clone());
        let life = exec.life(0);
        let script = async move {
            let (running, started) = node::start(&world, SERVER, config);
            assert_eq!(started.await, Ok(Started::Ready));
            let client = Client::connected(&world).await;
            let topic: Vec<(&str, &str)> = topic.iter().map(|(key, value)| (&**key, &**value)).collect();
            assert_eq!(client.create_with("t", 1, 1, &topic).await, ErrorCode::NONE);
            let trial = Trial {
                world: world.clone(),
                running,
                client,
            };
            *inside.lock().expect("one task") = Some(observe(trial).await);
            world.exec().stop();
        };
        exec.spawn(life, "script", Box::pin(script));
        Box::new(move |_, ended| {
            assert_eq!(ended, Ended::Stopped);
            *saw.lock().expect("the task is gone")
        })
    });
    saw.expect("the script ended")
}

/// The error in the observations of the two values of `key`.
fn mismatch(key: &str, row: &KeyCase, by: impl Fn(&str) -> i64) -> Option<String> {
    let [first, second] = row.values.map(by);
    let right = match row.difference {
        Exactly(a, b) => (first, second) == (a, b),
        Less => first < second,
        More => first > second,
    };
    let [a, b] = row.values;
    (!right).then(|| format!("{key}: {a} shows {first}, {b} shows {second}"))
}

#[test]
fn every_key_of_a_topic_has_an_effect() {
    let mut all = Vec::new();
    for row in topic_rows() {
        all.extend(mismatch(row.key, &row, |value| {
            let topic = [row.topic, &[(row.key, value)]].concat();
            observe_with(row.broker, &topic, row.observe)
        }));
        for (synonym, scale) in topic_key(row.key).expect("in the table").synonyms {
            let scaled = |value: &str| match value.parse::<i64>() {
                Ok(n) if n > 0 => (n / scale.0).to_string(),
                _ => value.to_owned(),
            };
            all.extend(mismatch(synonym, &row, |value| {
                let value = scaled(value);
                let broker = [row.broker, &[(*synonym, &*value)]].concat();
                observe_with(&broker, row.topic, row.observe)
            }));
        }
    }
    assert_eq!(all, [] as [String; 0]);
}

#[test]
fn every_key_of_a_broker_has_an_effect() {
    let mut all = Vec::new();
    for row in broker_rows() {
        all.extend(mismatch(row.key, &row, |value| {
            let broker = [row.broker, &[(row.key, value)]].concat();
            observe_with(&broker, row.topic, row.observe)
        }));
    }
    assert_eq!(all, [] as [String; 0]);
    for (key, [starts, does_not], with) in STARTS {
        let by = |value| config(&[*with, &[(*key, value)]].concat());
        assert!(by(*starts).is_ok(), "{key}={starts}");
        assert!(by(*does_not).is_err(), "{key}={does_not}");
    }
}

#[test]
fn the_tables_have_every_implemented_key() {
    let mut topics: Vec<&str> = topic_rows().iter().map(|row| row.key).collect();
    topics.push(NEEDS_REPLICAS);
    topics.sort_unstable();
    let implemented = TOPIC_KEYS.iter().filter(|key| key.implemented);
    assert_eq!(
        topics,
        implemented.clone().map(|key| key.name).collect::<Vec<_>>()
    );
    let mut brokers: Vec<&str> = broker_rows().iter().map(|row| row.key).collect();
    brokers.extend(STARTS.iter().map(|(key, ..)| *key));
    brokers.extend(NEEDS_REAL_SOCKETS);
    brokers.extend(implemented.flat_map(|key| key.synonyms).map(|(name, _)| *name));
    brokers.sort_unstable();
    let said = BROKER_KEYS.iter().filter(|key| key.implemented);
    assert_eq!(brokers, said.map(|key| key.name).collect::<Vec<_>>());
}

//! One seed: a broker, its clients, what befalls them, and the judgement.
//!
//! ```text
//!   0 ──────────────── 75 % ─────────── 100 % ──────────────→
//!   clients produce and consume          faults end, what is under way ends, one last reader reads everything
//!   kills, power losses, clean stops     checks over the disk and over what clients saw
//! ```

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use brokkr::config::BrokerConfig;
use brokkr_client::consumer::Fault;
use brokkr_client::{
    Client, ClientConfig, Consumer, ConsumerConfig, Producer, ProducerConfig, ProducerRecord, StartAt,
    TopicPartition,
};
use brokkr_env::Env;
use bytes::Bytes;

use crate::check::{AtCrash, Violation, check_batches, read_partition};
use crate::disk::Disk;
use crate::env::SimEnv;
use crate::exec::{Ended, Nanos};
use crate::net::addr_of;
use crate::node::{self, Running, Started};
use crate::observed::{Observed, encode};
use crate::reached;
use crate::report::{Report, Verdict, Violated};
use crate::room;
use crate::world::World;

/// The node of the faults and checks: it never dies.
const WORLD: u32 = 0;
const BROKER: u32 = 1;
const FIRST_CLIENT: u32 = 10;
const PORT: u16 = 9092;
const ROOT: &str = "data";
/// How long a healed broker may take to start, and what is under way to end.
const START_PATIENCE: Duration = Duration::from_secs(60);
const CALM_PATIENCE: Duration = Duration::from_secs(120);
/// Fewer operations than that say nothing.
const OPS_MIN: u64 = 20;

/// What a seed makes of a run.
#[derive(Clone, Debug)]
struct Shape {
    topics: Vec<(String, i32)>,
    producers: u32,
    consumers: u32,
    value_bytes_max: u64,
    pause_us_max: u64,
    set: BTreeMap<String, String>,
}

impl Shape {
    fn of(world: &World) -> Self {
        let mut state = world.lock();
        let mut draw = |kind, n| state.choices.below(kind, 0, n);
        let topics = (0..=draw("topics", 2))
            .map(|i| (format!("t{i}"), 1 + draw("partitions", 4) as i32))
            .collect();
        let mut set = BTreeMap::from([
            (
                "listeners".to_owned(),
                format!("PLAINTEXT://{}:{PORT}", addr_of(BROKER, PORT).ip()),
            ),
            ("log.dir".to_owned(), ROOT.to_owned()),
            ("log.retention.ms".to_owned(), "-1".to_owned()),
        ]);
        if draw("small segments", 2) == 0 {
            set.insert("log.segment.bytes".to_owned(), (1 << 20).to_string());
        }
        if draw("dense index", 4) == 0 {
            set.insert(
                "log.index.interval.bytes".to_owned(),
                draw("index interval", 200).to_string(),
            );
        }
        Self {
            topics,
            producers: 1 + draw("producers", 4) as u32,
            consumers: 1 + draw("consumers", 2) as u32,
            value_bytes_max: [16, 200, 3000, 20_000][draw("value size", 4) as usize],
            pause_us_max: [1_000, 20_000, 100_000, 400_000][draw("pause", 4) as usize],
            set,
        }
    }

    fn config(&self) -> BrokerConfig {
        BrokerConfig::new(self.set.clone())
            .expect("a configuration of ours is valid")
            .0
    }

    fn partitions(&self) -> Vec<TopicPartition> {
        let of =
            |(name, n): &(String, i32)| (0..*n).map(|p| TopicPartition::new(name, p)).collect::<Vec<_>>();
        self.topics.iter().flat_map(of).collect()
    }
}

/// What the run's tasks share.
#[derive(Clone)]
struct Shared {
    world: World,
    shape: Arc<Shape>,
    observed: Observed,
    violations: Arc<Mutex<Vec<Violation>>>,
    /// When faults and new sends end.
    calm_at: Nanos,
    /// Producers that have not ended.
    busy: Arc<Mutex<u32>>,
    finished: Arc<Mutex<bool>>,
}

impl Shared {
    fn violation(&self, v: Violation) {
        self.violations
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .push(v);
    }

    fn draw(&self, kind: &'static str, entity: u64, n: u64) -> u64 {
        self.world.lock().choices.below(kind, entity, n)
    }

    fn calm(&self) -> bool {
        self.world.exec().now() >= self.calm_at
    }
}

/// Runs a seed for `secs` virtual seconds (and what it takes to end in peace).
pub fn run(seed: u64, secs: u64, trace: bool) -> Report {
    let span = secs.max(1) * 1_000_000_000;
    let slack = (START_PATIENCE * 2 + CALM_PATIENCE * 2).as_nanos() as u64;
    room::run(seed, 1_000_000_000 + span + slack, move |world| {
        let names = reached::listen(world, trace);
        let calm_at = world.exec().now() + span * 3 / 4;
        let shared = Shared {
            shape: Arc::new(Shape::of(world)),
            world: world.clone(),
            observed: Observed::default(),
            violations: Arc::default(),
            calm_at,
            busy: Arc::default(),
            finished: Arc::default(),
        };
        world.lock().disks.insert(BROKER, Disk::new(BROKER));
        let main = shared.clone();
        let env = world.env(WORLD);
        env.spawn("world", async move { drive(main).await });
        Box::new(move |world, ended| report(seed, world, &shared, &ended, names.counts()))
    })
}

fn report(
    seed: u64,
    world: &World,
    shared: &Shared,
    ended: &Ended,
    reached: BTreeMap<String, u64>,
) -> Report {
    let mut violations = shared
        .violations
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
        .clone();
    match ended {
        Ended::Panicked(life, task, message) => {
            let what = format!("task {task:?} of node {}: {message}", life.node);
            violations.push(Violation::new("panic", what));
        }
        Ended::Livelock => violations.push(Violation::new("livelock", "tasks run, but time does not pass")),
        Ended::Quiet | Ended::Stopped => {}
    }
    let finished = *shared
        .finished
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    if finished {
        violations.extend(shared.observed.judge());
    } else if violations.is_empty() {
        violations.push(Violation::new(
            "liveness",
            "the healed world did not come to rest in its time",
        ));
    }
    violations.sort();
    violations.dedup();
    let ops = shared.observed.ops();
    let verdict = match () {
        () if !violations.is_empty() => Verdict::Violation,
        () if ops.ok < OPS_MIN => Verdict::Inconclusive,
        () => Verdict::Pass,
    };
    Report {
        seed,
        verdict,
        hash: format!("{:016x}", world.exec().hash()),
        events: world.exec().polls(),
        virtual_s: (world.exec().now() - 1_000_000_000) as f64 / 1e9,
        wall_s: 0.0,
        faults: world.faults(),
        reached,
        ops,
        violations: violations
            .into_iter()
            .map(|v| Violated {
                id: v.id.to_owned(),
                what: v.what,
            })
            .collect(),
    }
}

/// The world's own task: starts everything, breaks it, heals it, judges.
async fn drive(shared: Shared) {
    let env = shared.world.env(WORLD);
    let Some(mut running) = start_broker(&shared, &env).await else {
        return;
    };
    start_clients(&shared, &env).await;
    while !shared.calm() {
        let pause = 200 + shared.draw("until fault", 0, 8_000);
        env.sleep_until(env.now() + Duration::from_millis(pause)).await;
        if shared.calm() {
            break;
        }
        match befall(&shared, &env, running).await {
            Some(next) => running = next,
            None => return,
        }
    }
    let _running = running;
    if wait_for_producers(&shared, &env).await && read_everything(&shared, &env).await {
        check_disk(&shared);
        *shared
            .finished
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner) = true;
    }
    shared.world.exec().stop();
}

/// Starts the broker in a new life and waits until it serves. `None`: it didn't, which is a violation.
async fn start_broker(shared: &Shared, env: &SimEnv) -> Option<Running> {
    let (running, started) = node::start(&shared.world, BROKER, shared.shape.config());
    let outcome = tokio::select! {
        biased;
        started = started => started.ok(),
        () = env.sleep_until(env.now() + START_PATIENCE) => None,
    };
    match outcome {
        Some(Started::Ready) => Some(running),
        other => {
            shared.violation(Violation::new(
                "liveness",
                format!("the broker did not start: {other:?}"),
            ));
            shared.world.exec().stop();
            None
        }
    }
}

/// One fault, and the start after it; which may be cut short by another.
async fn befall(shared: &Shared, env: &SimEnv, running: Running) -> Option<Running> {
    let fault = shared.draw("fault", 0, 10);
    if fault < 2 {
        shared.world.count("clean stop");
        let clean = running.stop(env, START_PATIENCE).await;
        if clean != Some(true) {
            shared.violation(Violation::new(
                "liveness",
                format!("a clean stop came to {clean:?}"),
            ));
        }
        shared.world.end_quietly(BROKER);
        pause(shared, env).await;
        return start_broker(shared, env).await;
    }
    let mut before = crash(shared, fault < 7);
    drop(running);
    pause(shared, env).await;
    // Now and then it dies again while it recovers.
    while shared.draw("again", 0, 5) == 0 {
        let (_starting, _) = node::start(&shared.world, BROKER, shared.shape.config());
        let moment = Duration::from_micros(shared.draw("dies after", 0, 60_000));
        env.sleep_until(env.now() + moment).await;
        let again = shared.draw("fault", 1, 2) == 0;
        let seen = crash(shared, again);
        // What the first crash left sure stays so: recovery may only have cut the rest.
        before = if again { seen.with_sure_of(before) } else { before };
        pause(shared, env).await;
    }
    let running = start_broker(shared, env).await?;
    if let Some(disk) = shared.world.lock().disks.get(&BROKER) {
        before
            .check(disk, ROOT)
            .into_iter()
            .for_each(|v| shared.violation(v));
    }
    Some(running)
}

fn crash(shared: &Shared, power_loss: bool) -> AtCrash {
    let seen = {
        let state = shared.world.lock();
        let disk = state.disks.get(&BROKER).expect("the broker has a disk");
        AtCrash::of(disk, ROOT, power_loss)
    };
    if power_loss {
        shared.world.power_loss(BROKER)
    } else {
        shared.world.kill(BROKER)
    }
    seen
}

async fn pause(shared: &Shared, env: &SimEnv) {
    let ms = [0, 5, 100, 1500][shared.draw("down for", 0, 4) as usize];
    env.sleep_until(env.now() + Duration::from_millis(ms)).await;
}

async fn start_clients(shared: &Shared, env: &SimEnv) {
    let admin = client(shared, FIRST_CLIENT - 1);
    for (name, partitions) in &shared.shape.topics {
        while let Err(error) = admin.create_topic(name, *partitions, 1, &[]).await {
            if error.code() == Some(brokkr_wire::ErrorCode::TOPIC_ALREADY_EXISTS) {
                break;
            }
            env.sleep_until(env.now() + Duration::from_millis(100)).await;
        }
    }
    *shared
        .busy
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner) = shared.shape.producers;
    for i in 0..shared.shape.producers {
        let (shared, env) = (shared.clone(), shared.world.env(FIRST_CLIENT + i));
        env.clone().spawn("producer", produce(shared, env, i));
    }
    for i in 0..shared.shape.consumers {
        let (shared, env) = (shared.clone(), shared.world.env(FIRST_CLIENT + 100 + i));
        env.clone().spawn("consumer", consume(shared, env, i));
    }
}

fn client(shared: &Shared, node: u32) -> Client<SimEnv> {
    let config = ClientConfig::new(&addr_of(BROKER, PORT).ip().to_string(), PORT);
    Client::new(&shared.world.env(node), config)
}

async fn produce(shared: Shared, env: SimEnv, number: u32) {
    let entity = u64::from(number);
    let client = client(&shared, FIRST_CLIENT + number);
    let config = ProducerConfig {
        linger: Duration::from_millis(shared.draw("linger", entity, 3)),
        batch_records_max: 1 + shared.draw("batch records", entity, 8) as usize,
        buffer_bytes_max: 40_000,
        ..ProducerConfig::default()
    };
    let producer = Producer::new(&client, config);
    let partitions = shared.shape.partitions();
    let mut deliveries = Vec::new();
    for count in 0u64.. {
        if shared.calm() {
            break;
        }
        let to = partitions[shared.draw("to", entity, partitions.len() as u64) as usize].clone();
        let value = (number, count);
        let len = 1 + shared.draw("value bytes", entity, shared.shape.value_bytes_max) as usize;
        let bytes = Bytes::from(encode(value, len));
        shared.observed.invoked(value, to.clone());
        let delivery = producer.enqueue(ProducerRecord::new(to, None, Some(bytes))).await;
        let observed = shared.observed.clone();
        deliveries.push(env.spawn("delivery", async move {
            let result = delivery.await;
            if let Err(error) = &result {
                tracing::debug!(?value, %error, "send");
            }
            observed.ended(value, &result);
        }));
        let us = 1 + shared.draw("pause", entity, shared.shape.pause_us_max);
        env.sleep_until(env.now() + Duration::from_micros(us)).await;
    }
    producer.flush().await;
    for delivery in deliveries {
        delivery.await;
    }
    *shared
        .busy
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner) -= 1;
}

async fn consume(shared: Shared, env: SimEnv, number: u32) {
    let client = client(&shared, FIRST_CLIENT + 100 + number);
    let entity = u64::from(number);
    let config = ConsumerConfig {
        max_bytes: [1, 5_000, 50 << 20][shared.draw("fetch bytes", entity, 3) as usize],
        sessions: shared.draw("sessions", entity, 2) == 0,
        ..ConsumerConfig::default()
    };
    let mut consumer = Consumer::new(&client, config);
    consumer.assign(&shared.shape.partitions(), StartAt::Earliest);
    let who = format!("consumer {number}");
    loop {
        let polled = consumer.poll(Duration::from_secs(1)).await;
        for (tp, records) in &polled.records {
            records.iter().for_each(|r| shared.observed.shown(&who, tp, r));
        }
        for (tp, fault) in &polled.faults {
            let id = if matches!(fault, Fault::Damaged(_)) {
                "D2"
            } else {
                "L6"
            };
            shared.observed.fault(id, format!("{who}, {tp:?}: {fault:?}"));
            // As an operator would: from the start again.
            consumer.seek(tp, StartAt::Earliest);
            env.sleep_until(env.now() + Duration::from_secs(1)).await;
        }
    }
}

/// Whether what was under way came to its end.
async fn wait_for_producers(shared: &Shared, env: &SimEnv) -> bool {
    let deadline = env.now() + CALM_PATIENCE;
    while *shared
        .busy
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
        > 0
    {
        if env.now() >= deadline {
            shared.violation(Violation::new(
                "liveness",
                "producers did not come to an end once all was calm",
            ));
            return false;
        }
        env.sleep_until(env.now() + Duration::from_millis(100)).await;
    }
    true
}

/// A last reader, from the beginning of every log to its end.
async fn read_everything(shared: &Shared, env: &SimEnv) -> bool {
    let client = client(shared, FIRST_CLIENT + 200);
    let mut consumer = Consumer::new(&client, ConsumerConfig::default());
    let partitions = shared.shape.partitions();
    consumer.assign(&partitions, StartAt::Earliest);
    let deadline = env.now() + CALM_PATIENCE;
    let at_end = |consumer: &Consumer<SimEnv>| {
        partitions
            .iter()
            .all(|tp| match (consumer.position(tp), consumer.ends(tp)) {
                (Some(position), Some(ends)) => position >= ends.high_watermark,
                _ => false,
            })
    };
    while !at_end(&consumer) {
        if env.now() >= deadline {
            shared.violation(Violation::new(
                "liveness",
                "the last reader did not reach the end of every log",
            ));
            return false;
        }
        let polled = consumer.poll(Duration::from_millis(200)).await;
        for (tp, records) in &polled.records {
            records.iter().for_each(|r| shared.observed.found(tp, r));
        }
        if let Some((tp, fault)) = polled.faults.first() {
            let id = if matches!(fault, Fault::Damaged(_)) {
                "D2"
            } else {
                "L6"
            };
            shared.violation(Violation::new(id, format!("the last reader, {tp:?}: {fault:?}")));
            return true;
        }
    }
    true
}

/// The logs as they stand on the disk at the end.
fn check_disk(shared: &Shared) {
    let state = shared.world.lock();
    let disk = state.disks.get(&BROKER).expect("the broker has a disk");
    let mut found = Vec::new();
    for tp in shared.shape.partitions() {
        let name = format!("{}-{}", tp.topic, tp.partition);
        let (batches, damage) = read_partition(disk, ROOT, &name);
        found.extend(damage);
        found.extend(check_batches(&name, &batches));
    }
    drop(state);
    found.into_iter().for_each(|v| shared.violation(v));
}

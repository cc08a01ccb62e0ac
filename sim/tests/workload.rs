//! The workloads of `brokkr-workloads` in the seeded world: every client at once, and a broker that dies repeatedly.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use brokkr::config::BrokerConfig;
use brokkr_checker::kafka::{Kafka, Options};
use brokkr_checker::{Valid, Verdict};
use brokkr_env::Env;
use brokkr_history::{MicroOp, Op, Operation, Type, Val};
use brokkr_sim::disk::Disk;
use brokkr_sim::keyed::Keyed;
use brokkr_sim::net::addr_of;
use brokkr_sim::node::{self, Started};
use brokkr_sim::room;
use brokkr_sim::world::World;
use brokkr_workloads::{
    AdminSpec, ClientSpec, ConsumerSpec, Notes, ProducerSpec, Recorder, RecreatorSpec, Stop, TopicSpec,
    Workload, keys, run,
};

const BROKER: u32 = 1;
const CLIENTS: u32 = 10;
const PORT: u16 = 9092;
const STRIDE: u64 = 100;
/// Twice the duration of a run.
const SECS: u64 = 200;

struct RunResult {
    history: Vec<Operation>,
    notes: Notes,
    hash: u64,
    ended: bool,
}

fn config() -> BrokerConfig {
    let address = addr_of(BROKER, PORT).ip();
    let set = [
        ("listeners", format!("PLAINTEXT://{address}:{PORT}")),
        ("log.dir", "data".to_owned()),
        ("log.retention.ms", "-1".to_owned()),
        ("log.segment.bytes", (1 << 20).to_string()),
    ];
    let set: BTreeMap<String, String> = set.map(|(k, v)| (k.to_owned(), v)).into();
    BrokerConfig::new(set).expect("it is valid").0
}

fn workload() -> Workload {
    let topic = TopicSpec {
        name: "t".to_owned(),
        partitions: 3,
        replication_factor: 1,
        configs: BTreeMap::new(),
    };
    let all = topic.all();
    let mut packed = ProducerSpec::idempotent(1, STRIDE, all.clone());
    packed.compression = 4;
    let mut full = ConsumerSpec::tailing(11, all.clone());
    (full.sessions, full.partition_max_bytes) = (false, 500);
    let mut again = ConsumerSpec::tailing(12, all.clone());
    again.rewind_after = Some(20);
    Workload {
        client: ClientSpec::new(&addr_of(BROKER, PORT).ip().to_string(), PORT),
        producers: vec![ProducerSpec::idempotent(0, STRIDE, all.clone()), packed],
        consumers: vec![ConsumerSpec::tailing(10, all.clone()), full, again],
        recreator: None,
        operator: None,
        inspector: None,
        visitor: None,
        admin: Some(AdminSpec {
            process: 20,
            process_stride: STRIDE,
            partitions: all[..1].to_vec(),
            queried: all.clone(),
            pause_max_ms: 3_000,
        }),
        topics: vec![topic],
    }
}

/// Kills the broker or cuts its power `faults` times, a second apart, and restarts it.
async fn inject_faults(world: &World, faults: u32) {
    let env = world.env(0);
    for fault in 0..=faults {
        // Without its handle it serves until its life ends.
        let (_, started) = node::start(world, BROKER, config());
        assert_eq!(started.await.ok(), Some(Started::Ready));
        env.sleep_until(env.now() + Duration::from_millis(1_000)).await;
        match fault {
            f if f == faults => break,
            f if f % 2 == 0 => world.kill(BROKER, "kill"),
            _ => world.power_loss(BROKER, &mut Keyed::new(u64::from(fault))),
        }
        env.sleep_until(env.now() + Duration::from_millis(50)).await;
    }
}

fn play(seed: u64, faults: u32) -> RunResult {
    play_of(workload(), seed, faults)
}

fn play_of(workload: Workload, seed: u64, faults: u32) -> RunResult {
    room::run(seed, SECS * 1_000_000_000, move |world| {
        world.lock().disks.insert(BROKER, Disk::new(BROKER));
        let (recorder, stop, ended) = (Recorder::of(&workload), Stop::new(), Arc::new(Mutex::new(false)));
        let env = world.env(CLIENTS);
        let (r, s, e, exec) = (
            recorder.clone(),
            stop.clone(),
            Arc::clone(&ended),
            world.exec().clone(),
        );
        env.clone().spawn("workload", async move {
            run(&env, &workload, &r, &s).await.expect("topics can be created");
            *e.lock().expect("no panic under this lock") = true;
            exec.stop();
        });
        let faulty = world.clone();
        world.env(0).spawn("faults", async move {
            inject_faults(&faulty, faults).await;
            stop.stop();
        });
        Box::new(move |world, _| RunResult {
            history: recorder.history().take(),
            notes: recorder.notes(),
            hash: world.exec().hash(),
            ended: *ended.lock().expect("no panic under this lock"),
        })
    })
}

/// Acknowledged or read values, by key and offset.
type Log = BTreeMap<(String, i64), Val>;

fn acknowledged_and_read(history: &[Operation]) -> (Log, Log) {
    let (mut acked, mut read) = (Log::new(), Log::new());
    for o in history.iter().filter(|o| o.type_ != Type::Invoke) {
        for micro in o.op.micro_ops() {
            match micro {
                MicroOp::Send {
                    key,
                    offset: Some(offset),
                    value,
                } => drop(acked.insert((key.to_string(), *offset), value.clone())),
                MicroOp::Poll(Some(polls)) => {
                    for (key, messages) in polls {
                        for (offset, value) in messages {
                            let old = read.insert((key.to_string(), *offset), value.clone());
                            assert!(old.is_none_or(|o| o == *value), "{key} {offset} changed");
                        }
                    }
                }
                MicroOp::Send { .. } | MicroOp::Poll(None) => {}
            }
        }
    }
    (acked, read)
}

#[test]
fn acknowledged_records_are_read_back_once() {
    let (mut retried, mut deleted, mut lines) = (0, 0, 0);
    for seed in 0..6 {
        let played = play(seed, 4);
        assert!(played.ended, "seed {seed}: the workload didn't end");
        let (acked, read) = acknowledged_and_read(&played.history);
        for (place, value) in &acked {
            // Records of the first partition may be deleted before they are read.
            if !place.0.ends_with("-0") {
                assert_eq!(read.get(place), Some(value), "seed {seed}: {place:?}");
            }
        }
        let mut values: Vec<_> = read.iter().map(|((key, _), v)| (key, v)).collect();
        values.sort();
        assert!(
            values.windows(2).all(|w| w[0] != w[1]),
            "seed {seed}: a value stands twice"
        );
        for d in &played.notes.drained {
            assert_eq!(d.position, d.end, "seed {seed}: {d:?}");
        }
        retried += played.notes.acked.iter().filter(|b| b.attempts > 1).count();
        let is_delete = |o: &&Operation| matches!(&o.op, Op::Other(f, _) if f == "delete_records");
        deleted += played.history.iter().filter(is_delete).count();
        lines += acked.len();
    }
    assert!(
        retried > 0 && deleted > 0 && lines > 1_000,
        "{retried} {deleted} {lines}"
    );
}

#[test]
fn a_seed_gives_one_history() {
    let (a, b, c) = (play(3, 2), play(3, 2), play(4, 2));
    assert!(a.history == b.history && a.notes == b.notes && a.hash == b.hash);
    assert!(a.history != c.history && a.hash != c.hash);
}

/// The verdict of the checker of Kafka histories.
fn judged(history: &[Operation]) -> Verdict {
    let mut judge = Kafka::new(Options::default());
    for operation in history {
        judge
            .push(operation.clone())
            .expect("each process does one thing at a time");
    }
    judge.finish().verdict()
}

#[test]
fn the_history_checker_finds_nothing() {
    for seed in 0..4 {
        let mut history = play(seed, 4).history;
        let verdict = judged(&history);
        assert_eq!(verdict.valid(), Valid::Yes, "seed {seed}: {verdict:?}");
        // The checker can fail: without its `assign` a restarted consumer goes back.
        let assigns = history.iter_mut().filter(|o| matches!(o.op, Op::Assign(_)));
        assigns.for_each(|o| o.seeks.clear());
        let verdict = judged(&history);
        let found = verdict.anomalies.keys().copied();
        let found: Vec<_> = found.filter(|name| !verdict.allowed.contains(name)).collect();
        assert_eq!(found, ["nonmonotonic-poll"], "seed {seed}");
    }
}

/// A topic that is deleted and created again beside a permanent one, keyed records, and a slow consumer that pauses.
fn restless() -> Workload {
    let topic = |name: &str| TopicSpec {
        name: name.to_owned(),
        partitions: 2,
        replication_factor: 1,
        configs: BTreeMap::new(),
    };
    let topics = vec![topic("t"), topic("r")];
    let all: Vec<_> = topics.iter().flat_map(TopicSpec::all).collect();
    let mut keyed = ProducerSpec::idempotent(0, STRIDE, all.clone());
    keyed.keys = 5;
    let mut slow = ConsumerSpec::tailing(11, all.clone());
    (slow.pause_max_ms, slow.stuck_after, slow.stuck_ms) = (50, Some(10), 400);
    let recreator = RecreatorSpec {
        process: 20,
        process_stride: STRIDE,
        topics: vec!["r".to_owned()],
        stays_max_ms: 800,
        gone_max_ms: 100,
    };
    Workload {
        topics,
        producers: vec![keyed, ProducerSpec::idempotent(1, STRIDE, all.clone())],
        consumers: vec![ConsumerSpec::tailing(10, all), slow],
        admin: None,
        recreator: Some(recreator),
        ..workload()
    }
}

#[test]
fn clients_continue_with_recreated_topics() {
    let played = play_of(restless(), 7, 4);
    assert!(played.ended, "the workload ended");
    let topic_ops = |name: &str| {
        let is_it = |o: &&Operation| o.type_ == Type::Ok && matches!(&o.op, Op::Other(f, _) if f == name);
        played.history.iter().filter(is_it).count()
    };
    assert!(topic_ops("create_topic") > 3 && topic_ops("delete_topic") > 3);
    let (acked, read) = acknowledged_and_read(&played.history);
    let ids = |log: &Log| {
        let keys = log.keys().filter(|(key, _)| key.starts_with("r@"));
        let ids = keys.filter_map(|(key, _)| key.get(2..24));
        ids.map(str::to_owned).collect::<std::collections::BTreeSet<_>>()
    };
    // Both continued with one topic after another, and identified each.
    assert!(ids(&acked).len() > 3, "{:?}", ids(&acked));
    assert!(ids(&read).len() > 3, "{:?}", ids(&read));
    for (place, value) in acked.iter().filter(|((key, _), _)| key.starts_with("t-")) {
        assert_eq!(read.get(place), Some(value), "{place:?}");
    }
    assert_eq!(played.notes.faults, []);
    let mut places: BTreeMap<(u64, bool), String> = BTreeMap::new();
    for ((key, _), value) in &read {
        let Val::Int(value) = value else { continue };
        if value >> 32 == 0 {
            let bank = keys::of(*value, 5).expect("it has a key");
            let partition = key.rsplit('-').next().expect("it has one").to_owned();
            let first = places
                .entry((bank, key.starts_with("t-")))
                .or_insert(partition.clone());
            assert_eq!(*first, partition, "key {bank}");
        }
    }
    let again = play_of(restless(), 7, 4);
    assert!(again.history == played.history && again.hash == played.hash);
}

#[test]
fn a_slow_consumer_pauses() {
    let played = play_of(restless(), 8, 2);
    let polls = |process| {
        let begins = |o: &&Operation| o.process == process && o.type_ == Type::Invoke && o.op.f() == "poll";
        let times = played.history.iter().filter(begins).map(|o| o.time);
        times.collect::<Vec<_>>()
    };
    let longest = |process| {
        let mut ends: BTreeMap<i64, i64> = BTreeMap::new();
        let of_it = played
            .history
            .iter()
            .filter(|o| o.process == process && o.op.f() == "poll");
        let of_it: Vec<_> = of_it.collect();
        for pair in of_it.windows(2).filter(|p| p[1].type_ == Type::Invoke) {
            ends.insert(pair[1].time - pair[0].time, pair[0].time);
        }
        ends.into_keys().next_back().unwrap_or(0)
    };
    assert!(
        polls(10).len() > polls(11).len(),
        "{} {}",
        polls(10).len(),
        polls(11).len()
    );
    assert!(
        (400_000_000..450_000_000).contains(&longest(11)),
        "{}",
        longest(11)
    );
    assert!(longest(10) < 50_000_000, "{}", longest(10));
}

//! The workloads of `brokkr-workloads` in the seeded world: a broker that dies now and then, every client at once.

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
    AdminSpec, ClientSpec, ConsumerSpec, Notes, ProducerSpec, Recorder, Stop, TopicSpec, Workload, run,
};

const BROKER: u32 = 1;
const CLIENTS: u32 = 10;
const PORT: u16 = 9092;
const STRIDE: u64 = 100;
/// Twice what a run takes.
const SECS: u64 = 200;

struct Played {
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
        admin: Some(AdminSpec {
            process: 20,
            process_stride: STRIDE,
            partitions: all[..1].to_vec(),
            pause_max_ms: 3_000,
        }),
        topics: vec![topic],
    }
}

/// Kills the broker or cuts its power `faults` times, a second apart, and starts it again.
async fn befall(world: &World, faults: u32) {
    let env = world.env(0);
    for fault in 0..=faults {
        // Without its handle it serves for as long as its life lasts.
        let (_, started) = node::start(world, BROKER, config());
        assert_eq!(started.await.ok(), Some(Started::Ready));
        env.sleep_until(env.now() + Duration::from_millis(1_000)).await;
        match fault {
            f if f == faults => break,
            f if f % 2 == 0 => world.kill(BROKER),
            _ => world.power_loss(BROKER, &mut Keyed::new(u64::from(fault))),
        }
        env.sleep_until(env.now() + Duration::from_millis(50)).await;
    }
}

fn play(seed: u64, faults: u32) -> Played {
    room::run(seed, SECS * 1_000_000_000, move |world| {
        world.lock().disks.insert(BROKER, Disk::new(BROKER));
        let (recorder, stop, ended) = (Recorder::new(), Stop::new(), Arc::new(Mutex::new(false)));
        let env = world.env(CLIENTS);
        let (r, s, e, exec) = (
            recorder.clone(),
            stop.clone(),
            Arc::clone(&ended),
            world.exec().clone(),
        );
        env.clone().spawn("workload", async move {
            run(&env, &workload(), &r, &s)
                .await
                .expect("topics can be created");
            *e.lock().expect("nobody panicked") = true;
            exec.stop();
        });
        let faulty = world.clone();
        world.env(0).spawn("faults", async move {
            befall(&faulty, faults).await;
            stop.stop();
        });
        Box::new(move |world, _| Played {
            history: recorder.history().take(),
            notes: recorder.notes(),
            hash: world.exec().hash(),
            ended: *ended.lock().expect("nobody panicked"),
        })
    })
}

/// Offset and value by key, of what was acknowledged and of what was read.
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
fn what_was_acknowledged_is_read_back_once() {
    let (mut retried, mut deleted, mut lines) = (0, 0, 0);
    for seed in 0..6 {
        let played = play(seed, 4);
        assert!(played.ended, "seed {seed}: the workload didn't end");
        let (acked, read) = acknowledged_and_read(&played.history);
        for (place, value) in &acked {
            // The first partition's records may be deleted before everybody has read them.
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
fn a_seed_is_a_history() {
    let (a, b, c) = (play(3, 2), play(3, 2), play(4, 2));
    assert!(a.history == b.history && a.notes == b.notes && a.hash == b.hash);
    assert!(a.history != c.history && a.hash != c.hash);
}

/// What the judge of Kafka's histories says of one.
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
fn the_judge_of_histories_finds_nothing() {
    for seed in 0..4 {
        let mut history = play(seed, 4).history;
        let verdict = judged(&history);
        assert_eq!(verdict.valid(), Valid::Yes, "seed {seed}: {verdict:?}");
        // It would: who begins anew goes back, and must have said so.
        let assigns = history.iter_mut().filter(|o| matches!(o.op, Op::Assign(_)));
        assigns.for_each(|o| o.seek_to_beginning = false);
        let verdict = judged(&history);
        let found = verdict.anomalies.keys().copied();
        let found: Vec<_> = found.filter(|name| !verdict.allowed.contains(name)).collect();
        assert_eq!(found, ["nonmonotonic-poll"], "seed {seed}");
    }
}

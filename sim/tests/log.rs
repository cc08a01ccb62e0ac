//! The log against its model, on disks that lose power: each life ends at a random moment, by kill -9 or power loss, and some after
//! a full disk or a failed write or sync. One seed in four has flushing off, and only kills.

#[path = "../../broker/log/tests/model/mod.rs"]
mod model;

use std::collections::BTreeMap;

use brokkr_env::Env;
use brokkr_log::LogConfig;
use brokkr_sim::disk::Disk;
use brokkr_sim::exec::Ended;
use brokkr_sim::keyed::Keyed;
use brokkr_sim::room;
use brokkr_sim::world::World;
use model::{Draw, Fault, Model, life};

const NODE: u32 = 1;
const LIVES: u64 = 12;
const STEPS: u64 = 400;

/// Whether written records count as acknowledged without a sync: then the log survives only kills, which keep the page cache.
fn unflushed(seed: u64) -> bool {
    seed % 4 == 3
}

fn config(seed: u64, draw: &mut Draw) -> LogConfig {
    LogConfig {
        flush_messages: if unflushed(seed) { 2 + draw.below(100) } else { 1 },
        flush_ms: if seed % 8 == 3 { 5 } else { u64::MAX },
        segment_bytes: 700 + draw.below(3000) as u32,
        index_interval_bytes: 100 + draw.below(500) as u32,
        file_delete_delay_ms: draw.below(3) * 20,
        retention_ms: -1,
        ..LogConfig::default()
    }
}

fn apply(world: &World, fault: Fault) {
    let mut state = world.lock();
    let disk = state.disks.get_mut(&NODE).expect("the node has a disk");
    match fault {
        Fault::Sync => disk.failing_syncs = 1,
        Fault::Write => disk.failing_writes = 1,
        Fault::Room(bytes) => disk.capacity = disk.used() + bytes,
        Fault::None => {
            (disk.failing_syncs, disk.failing_writes, disk.capacity) = (0, 0, u64::MAX);
        }
    }
}

/// Runs the lives of a seed: returns how it ended, and the rare states that it reached.
fn run(seed: u64) -> (Ended, BTreeMap<&'static str, u64>) {
    room::run(seed, u64::MAX, move |world| {
        world.lock().disks.insert(NODE, Disk::new(NODE));
        let mut draw = Draw(seed);
        let w = world.clone();
        let model = Model::new(config(seed, &mut draw), move |fault| apply(&w, fault));
        let (w, m) = (world.clone(), model.clone());
        let script = async move {
            for n in 0..=LIVES {
                let script = draw.below(u64::MAX);
                let steps = if n == LIVES { 0 } else { STEPS };
                let one = life(w.env(NODE), String::new(), m.clone(), script, steps);
                drop(w.env(NODE).spawn("life", one));
                // Some lives are short: a crash while the log is created or recovered.
                let most = if draw.below(3) == 0 {
                    8_000_000
                } else {
                    400_000_000
                };
                let nanos = if n == LIVES {
                    10_000_000_000
                } else {
                    draw.below(most)
                };
                let exec = w.exec();
                exec.sleep_until(exec.life(0), exec.now() + nanos).await;
                if n < LIVES {
                    if draw.below(3) == 0 || unflushed(seed) {
                        w.kill(NODE, "kill")
                    } else {
                        w.power_loss(NODE, &mut Keyed::new(script))
                    }
                }
            }
            w.exec().stop();
        };
        world
            .exec()
            .spawn(world.exec().life(0), "script", Box::pin(script));
        Box::new(move |_, ended| (ended, model.reached()))
    })
}

#[test]
fn acknowledged_records_survive_every_crash() {
    let mut reached: BTreeMap<&'static str, u64> = BTreeMap::new();
    for seed in 0..150 {
        let (ended, of_it) = run(seed);
        assert_eq!(ended, Ended::Stopped, "seed {seed}");
        for (what, n) in of_it {
            *reached.entry(what).or_insert(0) += n;
        }
    }
    let wanted = [
        "begun anew",
        "broken",
        "clean start",
        "clean stop",
        "failed append",
        "kept above the point",
        "recovery",
        "segments retired",
        "start raised",
        "tail cut",
        "truncated",
    ];
    for what in wanted {
        assert!(
            reached.get(what).is_some_and(|n| *n > 10),
            "{what:?} hardly ever: {reached:?}"
        );
    }
}

//! The seeded world keeps the contract of `env`, over many seeds.

#[path = "../../broker/env/tests/contract/mod.rs"]
mod contract;

use brokkr_env::Env;
use brokkr_sim::disk::Disk;
use brokkr_sim::env::SimEnv;
use brokkr_sim::exec::Ended;
use brokkr_sim::net::addr_of;
use brokkr_sim::room;
use brokkr_sim::world::World;

struct Knobs(World);

impl Knobs {
    fn disk<T>(&self, f: impl FnOnce(&mut Disk) -> T) -> T {
        f(self.0.lock().disks.get_mut(&1).expect("node 1 has a disk"))
    }
}

impl contract::Faults<SimEnv> for Knobs {
    fn limit(&self, bytes: u64) {
        self.disk(|d| {
            let (_, total) = d.space();
            assert_eq!(total, u64::MAX);
            // As for one file: the limit of the test's file.
            d.capacity = d.used() + bytes - 1000;
        });
    }

    fn unlimit(&self) {
        self.disk(|d| d.capacity = u64::MAX);
    }

    fn path_that_fails_to_sync(&self) -> String {
        self.disk(|d| d.failing_syncs = 1);
        "fails".to_owned()
    }
}

#[test]
fn files_and_connections() {
    for seed in 0..20 {
        let ended = room::run(seed, u64::MAX, |world| {
            world.lock().disks.insert(1, Disk::new(1));
            let (env, knobs, exec) = (world.env(1), Knobs(world.clone()), world.exec().clone());
            world.exec().spawn(
                world.exec().life(1),
                "contract",
                Box::pin(async move {
                    let dir = env.open_dir("data").await.expect("a directory");
                    contract::call_order(&dir).await;
                    contract::no_space(&dir, &knobs).await;
                    contract::replace(&dir).await;
                    contract::lock(&env, "data", &dir).await;
                    contract::ranges(&env, &dir, addr_of(1, 0)).await;
                    contract::cancelled_reads(&env, addr_of(1, 0)).await;
                    contract::poison(&dir, &knobs).await;
                    exec.stop();
                }),
            );
            Box::new(|_, ended| ended)
        });
        assert_eq!(ended, Ended::Stopped, "seed {seed}");
    }
}

#[test]
fn a_kill_releases_the_lock_and_silences_the_old_life() {
    let ended = room::run(3, u64::MAX, |world| {
        world.lock().disks.insert(1, Disk::new(1));
        let (w, env) = (world.clone(), world.env(1));
        world.exec().spawn(
            world.exec().life(0),
            "test",
            Box::pin(async move {
                let dir = env.open_dir("data").await.expect("a directory");
                let lock = dir.lock();
                drop(lock);
                dir.lock().await.expect("it is free");
                let file = dir.create("f").await.expect("a file");
                w.kill(1, "kill");
                let of_the_dead = file.write_at(0, vec![bytes::Bytes::from_static(b"x")]);
                let env = w.env(1);
                let dir = env.open_dir("data").await.expect("a directory");
                dir.lock().await.expect("the kill released it");
                env.sleep_until(env.now() + std::time::Duration::from_secs(1))
                    .await;
                assert_eq!(
                    dir.open("f").await.expect("it is there").len(),
                    0,
                    "the dead write nothing"
                );
                drop(of_the_dead);
                w.exec().stop();
            }),
        );
        Box::new(|_, ended| ended)
    });
    assert_eq!(ended, Ended::Stopped);
}

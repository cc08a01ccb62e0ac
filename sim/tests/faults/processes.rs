//! Each way in which a process pauses, ends or is delayed, as its peers and its disk observe it.

use std::collections::BTreeMap;

use brokkr::config::BrokerConfig;
use brokkr_env::File;
use brokkr_sim::exec::Strategy;
use brokkr_sim::keyed::Keyed;
use brokkr_sim::node::{self, Running, Started};

use super::*;

type Recorded<T> = Arc<Mutex<T>>;

fn on_disk<T>(world: &World, f: impl FnOnce(&mut Disk) -> T) -> T {
    f(world
        .lock()
        .disks
        .get_mut(&SERVER)
        .expect("the server has a disk"))
}

fn bytes_in(world: &World, path: &str) -> Bytes {
    on_disk(world, |d| match d.file(path) {
        Some(id) => d.read(id, 0, 1000).expect("it can be read"),
        None => Bytes::new(),
    })
}

async fn file(env: &SimEnv, name: &str) -> File<SimEnv> {
    let dir = env.open_dir("data").await.expect("a directory");
    dir.create(name).await.expect("a file")
}

fn parts(text: &'static str) -> Vec<Bytes> {
    vec![Bytes::from_static(text.as_bytes())]
}

#[test]
fn a_paused_process_does_nothing_and_gets_events_late() {
    play(|world| async move {
        let (client, server) = connected(&world).await;
        let ((mut cr, mut cw), (mut sr, mut sw)) = (client.split(), server.split());
        let env = world.env(SERVER);
        let log = file(&env, "f").await;
        let ticks = Recorded::<Vec<Nanos>>::default();
        let (ticker, exec, counted) = (env.clone(), world.exec().clone(), Arc::clone(&ticks));
        env.spawn("ticker", async move {
            loop {
                ticker
                    .sleep_until(ticker.now() + Duration::from_millis(300))
                    .await;
                counted.lock().expect("one thread").push(exec.now());
            }
        });
        env.spawn("echo", async move {
            while read(&mut sr).await.is_some() && write(&mut sw, "pong").await {}
        });
        let patience = world.env(0);
        patience
            .sleep_until(patience.now() + Duration::from_millis(100))
            .await;
        let writing = log.write_at(0, parts("x"));
        let begun = world.exec().now();
        world.exec().pause(SERVER);
        assert!(write(&mut cw, "ping").await);
        tokio::select! {
            biased;
            _ = read(&mut cr) => panic!("it is paused"),
            () = patience.sleep_until(patience.now() + Duration::from_secs(3)) => {}
        }
        assert_eq!(*ticks.lock().expect("one thread"), [] as [Nanos; 0]);
        assert_eq!(bytes_in(&world, "data/f"), "x", "the disk goes on");
        world.exec().resume(SERVER);
        writing.await.expect("room");
        assert_eq!(read(&mut cr).await.as_deref(), Some("pong"));
        patience
            .sleep_until(patience.now() + Duration::from_millis(200))
            .await;
        let ticks = ticks.lock().expect("one thread").clone();
        assert!(
            ticks[0] >= begun + 3 * SECOND && ticks.len() == 1,
            "one tick, late, not those that it slept through: {ticks:?}"
        );
    });
}

/// Its destructor does what a process does at a clean end.
struct CleanupOnDrop {
    env: SimEnv,
    file: File<SimEnv>,
    effects: Recorded<u32>,
}

impl Drop for CleanupOnDrop {
    fn drop(&mut self) {
        *self.effects.lock().expect("one thread") += 1;
        drop(self.file.write_at(0, parts("last words")));
        let effects = Arc::clone(&self.effects);
        self.env.spawn("afterlife", async move {
            *effects.lock().expect("one thread") += 100;
        });
    }
}

#[test]
fn no_destructor_has_an_effect_after_a_kill() {
    play(|world| async move {
        let (client, server) = connected(&world).await;
        let ((mut cr, _cw), (sr, mut sw)) = (client.split(), server.split());
        let env = world.env(SERVER);
        let effects = Recorded::<u32>::default();
        let words = CleanupOnDrop {
            env: env.clone(),
            file: file(&env, "f").await,
            effects: Arc::clone(&effects),
        };
        let host = env.clone();
        env.spawn("server", async move {
            let _held = (words, sr);
            assert!(write(&mut sw, "hello").await);
            host.sleep_until(host.now() + Duration::from_secs(1)).await;
            write(&mut sw, "still here").await;
        });
        assert_eq!(read(&mut cr).await.as_deref(), Some("hello"));
        world.kill(SERVER, "kill");
        assert_eq!(
            *effects.lock().expect("one thread"),
            1,
            "its futures are dropped at once"
        );
        let mut buf = BytesMut::with_capacity(100);
        cr.read(&mut buf).await.expect_err("a reset, no tidy end");
        let env = world.env(0);
        env.sleep_until(env.now() + Duration::from_secs(2)).await;
        assert_eq!(
            *effects.lock().expect("one thread"),
            1,
            "and nothing is begun by them"
        );
        assert_eq!(bytes_in(&world, "data/f"), "");
    });
}

#[test]
fn a_write_in_flight_arrives_or_not_when_its_process_is_killed() {
    let arrived = play(|world| async move {
        let mut arrived = 0;
        for i in 0..60 {
            let name = format!("f{i}");
            let file = file(&world.env(SERVER), &name).await;
            let writing = file.write_at(0, parts("whole"));
            world.kill(SERVER, "kill");
            drop((writing, file));
            match &bytes_in(&world, &format!("data/{name}"))[..] {
                b"whole" => arrived += 1,
                left => assert_eq!(left, b""),
            }
        }
        arrived
    });
    assert!((10..50).contains(&arrived), "{arrived} of 60");
}

#[test]
fn a_power_loss_takes_unsynced_writes_and_resets_connections() {
    let kept = play(|world| async move {
        let (client, server) = connected(&world).await;
        let ((mut cr, _cw), _server) = (client.split(), server);
        let mut kept = 0;
        for seed in 0..60 {
            let (env, name) = (world.env(SERVER), format!("f{seed}"));
            let file = file(&env, &name).await;
            file.write_at(0, parts("synced, ")).await.expect("room");
            file.sync().await.expect("a sync");
            file.write_at(8, parts("not synced")).await.expect("room");
            let path = format!("data/{name}");
            assert_eq!(bytes_in(&world, &path), "synced, not synced");
            world.power_loss(SERVER, &mut Keyed::new(seed));
            assert!(env.life() != world.env(SERVER).life(), "its process is gone");
            let left = bytes_in(&world, &path);
            assert!(left.starts_with(b"synced, "), "{left:?}");
            kept += u32::from(left == "synced, not synced");
        }
        assert_eq!(read(&mut cr).await, None, "its connections are gone as well");
        kept
    });
    assert!((10..50).contains(&kept), "{kept} of 60");
}

async fn broker(world: &World) -> Running {
    let listener = format!("PLAINTEXT://{}", addr_of(SERVER, PORT));
    let set = BTreeMap::from([
        ("listeners".to_owned(), listener),
        ("log.dir".to_owned(), "data".to_owned()),
    ]);
    let (config, _) = BrokerConfig::new(set).expect("a configuration");
    let (running, started) = node::start(world, SERVER, config);
    assert_eq!(started.await, Ok(Started::Ready));
    running
}

#[test]
fn the_next_start_distinguishes_a_clean_stop_from_a_kill() {
    play(|world| async move {
        let host = addr_of(SERVER, PORT).ip().to_string();
        let marked = |world: &World| on_disk(world, |d| d.file("data/.kafka_cleanshutdown").is_some());
        for clean in [true, false, true] {
            let running = broker(&world).await;
            assert!(!marked(&world), "a start takes the marker away");
            let client = world.env(CLIENT);
            client.connect(&host, PORT).await.expect("it serves");
            if clean {
                assert_eq!(running.stop().await, Ok(true));
                world.end_quietly(SERVER);
            } else {
                world.kill(SERVER, "kill");
            }
            assert_eq!(marked(&world), clean);
            assert!(client.connect(&host, PORT).await.is_err(), "nobody is there");
        }
    });
}

/// Eight tasks that are always ready and take fifty steps each: the step at which the last of them takes its first, and how many
/// have ended by then.
fn last_to_begin(strategy: Strategy, order: u64) -> (usize, usize) {
    const STEPS: usize = 50;
    let steps = play(move |world| async move {
        world.exec().choose_by(strategy, Some(order));
        let steps = Recorded::<Vec<u32>>::default();
        let mut tasks = Vec::new();
        for i in 0..8 {
            let steps = Arc::clone(&steps);
            tasks.push(world.env(SERVER).spawn("stepper", async move {
                for _ in 0..STEPS {
                    steps.lock().expect("one thread").push(i);
                    tokio::task::yield_now().await;
                }
            }));
        }
        for task in tasks {
            task.await;
        }
        steps.lock().expect("one thread").clone()
    });
    let first = |i: u32| steps.iter().position(|s| *s == i).expect("it began");
    let last = (0..8).map(first).max().expect("there are eight");
    let taken = |i: u32| steps[..last].iter().filter(|s| **s == i).count();
    (last, (0..8).filter(|i| taken(*i) == STEPS).count())
}

#[test]
fn priorities_hold_a_task_back_and_random_choice_does_not() {
    for order in 0..10 {
        let (begun, ended) = last_to_begin(Strategy::Pct(u64::MAX), order);
        assert_eq!((begun, ended), (350, 7), "it came when nobody else was left");
        let (begun, ended) = last_to_begin(Strategy::Random, order);
        assert!(begun < 100 && ended == 0, "{begun} {ended}");
    }
    let changing = (0..10).map(|order| last_to_begin(Strategy::Pct(20), order).1);
    assert!(
        changing.max() < Some(7),
        "priorities that change let it through earlier"
    );
}

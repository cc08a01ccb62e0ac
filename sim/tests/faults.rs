//! Each fault of the network, the clock, the disk's speed and the process, as its peers observe it.

#[path = "faults/partitions.rs"]
mod partitions;
#[path = "faults/processes.rs"]
mod processes;

use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use brokkr_env::{Conn, Env, Listener, Part, ReadHalf, WriteHalf};
use brokkr_sim::disk::Disk;
use brokkr_sim::env::SimEnv;
use brokkr_sim::exec::{Ended, Nanos};
use brokkr_sim::net::{ConnectBlock, Link, Net, addr_of};
use brokkr_sim::room;
use brokkr_sim::world::{Clock, World};
use bytes::{Bytes, BytesMut};

const SERVER: u32 = 1;
const CLIENT: u32 = 2;
const PORT: u16 = 9000;
const SECOND: Nanos = 1_000_000_000;

type ServerConn = <SimEnv as Env>::Conn;

/// Runs `script` in a world: returns its result.
fn play<T, F>(script: impl FnOnce(World) -> F + Send + 'static) -> T
where
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    let told = room::run(5, 60 * SECOND, move |world| {
        world.lock().disks.insert(SERVER, Disk::new(SERVER));
        let (told, exec) = (Arc::new(Mutex::new(None)), world.exec().clone());
        let (inside, script) = (Arc::clone(&told), script(world.clone()));
        let life = exec.life(0);
        exec.clone().spawn(
            life,
            "script",
            Box::pin(async move {
                let result = script.await;
                *inside.lock().expect("one task") = Some(result);
                exec.stop();
            }),
        );
        Box::new(move |_, ended| {
            assert_eq!(ended, Ended::Stopped);
            told.lock().expect("the task is gone").take()
        })
    });
    told.expect("the script ended")
}

/// A connection from the client to the server: both ends.
async fn connected(world: &World) -> (ServerConn, ServerConn) {
    let mut listener = world
        .env(SERVER)
        .listen(addr_of(SERVER, PORT))
        .await
        .expect("a free port");
    let host = addr_of(SERVER, PORT).ip().to_string();
    let client = world.env(CLIENT).connect(&host, PORT).await.expect("a listener");
    let (server, _) = listener.accept().await.expect("the client");
    (client, server)
}

async fn write(half: &mut impl WriteHalf<SimEnv>, text: &'static str) -> bool {
    half.write(vec![Part::Bytes(Bytes::from_static(text.as_bytes()))])
        .await
        .is_ok()
}

async fn read(half: &mut impl ReadHalf) -> Option<String> {
    let mut buf = BytesMut::with_capacity(100);
    let n = half.read(&mut buf).await.ok()?;
    (n > 0).then(|| String::from_utf8_lossy(&buf).into_owned())
}

#[test]
fn bytes_sent_into_a_one_way_cut_arrive_when_it_heals() {
    let (there, back) = play(|world| async move {
        let (client, server) = connected(&world).await;
        let ((mut cr, mut cw), (mut sr, mut sw)) = (client.split(), server.split());
        let healed = world.exec().now() + 3 * SECOND;
        let cut = Link {
            cut_until: healed,
            ..Link::default()
        };
        world.lock().net.links.insert((CLIENT, SERVER), cut);
        assert!(write(&mut cw, "there").await && write(&mut sw, "back").await);
        assert_eq!(read(&mut cr).await.as_deref(), Some("back"));
        let back = world.exec().now();
        assert_eq!(read(&mut sr).await.as_deref(), Some("there"));
        (world.exec().now() >= healed, back < healed)
    });
    assert!(there && back);
}

#[test]
fn a_slow_link_is_slow_for_its_time() {
    let (slow, fast) = play(|world| async move {
        let (client, server) = connected(&world).await;
        let ((_cr, mut cw), (mut sr, _sw)) = (client.split(), server.split());
        let link = Link {
            slow_until: world.exec().now() + SECOND,
            slower_by: SECOND / 2,
            ..Link::default()
        };
        world.lock().net.links.insert((CLIENT, SERVER), link);
        let mut took = Vec::new();
        for pause in [0, 2] {
            let env = world.env(CLIENT);
            env.sleep_until(env.now() + Duration::from_secs(pause)).await;
            let begun = world.exec().now();
            assert!(write(&mut cw, "x").await);
            read(&mut sr).await.expect("it arrives");
            took.push(world.exec().now() - begun);
        }
        (took[0], took[1])
    });
    assert!(slow >= SECOND / 2 && fast < SECOND / 4, "{slow} {fast}");
}

#[test]
fn bytes_on_a_narrow_link_share_its_bandwidth() {
    let (narrow, back, wide) = play(|world| async move {
        let (client, server) = connected(&world).await;
        let ((mut cr, mut cw), (mut sr, mut sw)) = (client.split(), server.split());
        let begun = world.exec().now();
        let link = Link {
            narrow_until: begun + 5 * SECOND,
            bytes_per_s: 10,
            ..Link::default()
        };
        world.lock().net.links.insert((CLIENT, SERVER), link);
        for _ in 0..3 {
            assert!(write(&mut cw, "ten bytes.").await);
        }
        assert!(write(&mut sw, "back").await);
        assert_eq!(read(&mut cr).await.as_deref(), Some("back"));
        let back = world.exec().now() - begun;
        let mut came = 0;
        while came < 30 {
            came += read(&mut sr).await.expect("it arrives").len();
        }
        let narrow = world.exec().now() - begun;
        // The limit ends before it delays these.
        for _ in 0..10 {
            assert!(write(&mut cw, "ten bytes.").await);
        }
        while came < 130 {
            came += read(&mut sr).await.expect("it arrives").len();
        }
        (narrow, back, world.exec().now() - begun)
    });
    assert!(back < SECOND, "{back}");
    assert!((3 * SECOND..4 * SECOND).contains(&narrow), "{narrow}");
    assert!((5 * SECOND..6 * SECOND).contains(&wide), "{wide}");
}

#[test]
fn new_connections_to_a_blocked_node_fail() {
    for silent in [false, true] {
        let (refused, took, alive, later) = play(move |world| async move {
            let mut listener = world
                .env(SERVER)
                .listen(addr_of(SERVER, PORT))
                .await
                .expect("a free port");
            let (host, env) = (addr_of(SERVER, PORT).ip().to_string(), world.env(CLIENT));
            let client = env.connect(&host, PORT).await.expect("it is open");
            let (server, _) = listener.accept().await.expect("the client");
            let begun = world.exec().now();
            let until = begun + 3 * SECOND;
            world
                .lock()
                .net
                .connect_blocks
                .insert(SERVER, ConnectBlock { until, silent });
            let refused = env.connect(&host, PORT).await.is_err();
            let took = world.exec().now() - begun;
            // Existing connections stay open.
            let ((_cr, mut cw), (mut sr, _sw)) = (client.split(), server.split());
            assert!(write(&mut cw, "x").await);
            let alive = read(&mut sr).await.is_some();
            env.sleep_until(env.now() + Duration::from_secs(3)).await;
            (refused, took, alive, env.connect(&host, PORT).await.is_ok())
        });
        assert!(later);
        assert!(alive);
        assert_eq!(
            (refused, took >= 3 * SECOND),
            (!silent, silent),
            "silent: {silent}"
        );
    }
}

#[test]
fn a_reset_reaches_both_ends_or_only_one() {
    for half_open in [false, true] {
        let (client, server) = play(move |world| async move {
            let (client, server) = connected(&world).await;
            let ((mut cr, _cw), (mut sr, _sw)) = (client.split(), server.split());
            assert_eq!(world.reset_between(CLIENT, SERVER, half_open), 1);
            let client = read(&mut cr).await;
            let env = world.env(0);
            let server = tokio::select! {
                biased;
                told = read(&mut sr) => Some(told),
                () = env.sleep_until(env.now() + Duration::from_secs(5)) => None,
            };
            (client, server)
        });
        assert_eq!(client, None, "the client hears of it");
        assert_eq!(server.is_some(), !half_open, "half open: {half_open}");
    }
}

#[test]
fn clocks_of_a_node_drift_and_step() {
    let (slept, jumped) = play(|world| async move {
        let fast = Clock {
            drift_ppm: 100_000,
            wall_ahead_ms: 0,
        };
        world.lock().clocks.insert(SERVER, fast);
        let env = world.env(SERVER);
        let begun = world.exec().now();
        env.sleep_until(env.now() + Duration::from_secs(11)).await;
        let slept = world.exec().now() - begun;
        let (mono, wall) = (env.now(), env.wall());
        world.lock().clocks.entry(SERVER).or_default().wall_ahead_ms -= 5_000;
        assert_eq!(env.now(), mono, "the monotonic clock never jumps");
        (slept, env.wall().0 - wall.0)
    });
    assert_eq!((slept / 1_000_000, jumped), (10_000, -5_000));
}

#[test]
fn a_disk_is_slow_or_hangs_for_its_time() {
    let took = play(|world| async move {
        let env = world.env(SERVER);
        let dir = env.open_dir("data").await.expect("a directory");
        let file = dir.create("f").await.expect("a file");
        let mut took = Vec::new();
        for fault in 0..3 {
            let now = world.exec().now();
            if let Some(disk) = world.lock().disks.get_mut(&SERVER) {
                match fault {
                    0 => disk.slow = (now + SECOND, 1_000),
                    1 => (disk.slow, disk.hangs_until) = ((0, 1), now + 2 * SECOND),
                    _ => {}
                }
            }
            let parts = vec![Bytes::from_static(b"0123456789")];
            file.write_at(file.len(), parts).await.expect("room");
            took.push(world.exec().now() - now);
        }
        took
    });
    assert!(
        took[0] > 4_000_000 && took[1] >= 2 * SECOND && took[2] < 1_000_000,
        "{took:?}"
    );
}

//! A log directory that fails while the broker runs: its partitions go offline, those of the others are served and written.

mod common;

use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use brokkr::config::BrokerConfig;
use brokkr_env::UnixMillis;
use brokkr_sim::disk::Disk;
use brokkr_sim::exec::{Ended, Nanos};
use brokkr_sim::node::{self, Started};
use brokkr_sim::room;
use brokkr_sim::world::World;
use brokkr_wire::ErrorCode;
use brokkr_wire::messages::DescribeLogDirsRequest;
use bytes::Bytes;
use common::{Client, SERVER, batch, listener, pause};

const SECOND: Nanos = 1_000_000_000;

/// Runs `script` beside a broker with the directories `a` and `b` and a topic `t` of four partitions: 0 and 2 are in `a`, with
/// the metadata log, 1 and 3 in `b`. In each is a record.
fn play<F>(script: impl FnOnce(World, Client) -> F + Send + 'static)
where
    F: Future<Output = ()> + Send + 'static,
{
    let done = room::run(5, 60 * SECOND, move |world| {
        world.lock().disks.insert(SERVER, Disk::new(SERVER));
        let (done, exec) = (Arc::new(Mutex::new(false)), world.exec().clone());
        let (inside, world) = (Arc::clone(&done), world.clone());
        let life = exec.life(0);
        exec.clone().spawn(
            life,
            "script",
            Box::pin(async move {
                let (_running, started) = node::start(&world, SERVER, config());
                assert_eq!(started.await, Ok(Started::Ready));
                let client = Client::connected(&world).await;
                assert_eq!(client.create("t", 4).await, ErrorCode::NONE);
                for partition in 0..4 {
                    assert_eq!(client.produce("t", partition, record()).await, ErrorCode::NONE);
                }
                script(world.clone(), client).await;
                *inside.lock().expect("one task") = true;
                exec.stop();
            }),
        );
        Box::new(move |_, ended| {
            assert_eq!(ended, Ended::Stopped);
            *done.lock().expect("the task is gone")
        })
    });
    assert!(done, "the script ended");
}

fn config() -> BrokerConfig {
    let set = [("log.dirs", "a,b"), ("listeners", &listener())];
    let set = set.map(|(key, value)| (key.to_owned(), value.to_owned()));
    BrokerConfig::new(set.into()).expect("valid").0
}

/// What a client learns of a partition.
#[derive(Debug, PartialEq, Eq)]
struct Answers {
    metadata: ErrorCode,
    leader: i32,
    isr: Vec<i32>,
    offline: Vec<i32>,
    produce: ErrorCode,
    fetch: ErrorCode,
    list_offsets: ErrorCode,
}

impl Answers {
    fn of(served: bool) -> Self {
        let code = |code: ErrorCode| if served { ErrorCode::NONE } else { code };
        Self {
            metadata: code(ErrorCode::LEADER_NOT_AVAILABLE),
            leader: if served { 1 } else { -1 },
            isr: vec![1],
            offline: if served { vec![] } else { vec![1] },
            produce: code(ErrorCode::KAFKA_STORAGE_ERROR),
            fetch: code(ErrorCode::KAFKA_STORAGE_ERROR),
            list_offsets: code(ErrorCode::KAFKA_STORAGE_ERROR),
        }
    }
}

impl Answers {
    async fn from(client: &Client, name: &str, index: i32) -> Self {
        let of_metadata = client.metadata(name).await.partitions.remove(index as usize);
        Self {
            metadata: ErrorCode(of_metadata.error_code),
            leader: of_metadata.leader_id,
            isr: of_metadata.isr_nodes.clone(),
            offline: of_metadata.offline_replicas.clone(),
            produce: client.produce(name, index, record()).await,
            fetch: ErrorCode(client.fetch(name, index, -1).await.0.error_code),
            list_offsets: ErrorCode(client.list_offsets(name, index, -1).await.error_code),
        }
    }
}

fn record() -> Bytes {
    batch(UnixMillis(1_700_000_000_000), None, b"value")
}

async fn directories(client: &Client) -> Vec<(String, ErrorCode, usize)> {
    let request = DescribeLogDirsRequest {
        topics: None,
        ..Default::default()
    };
    let results = client.ask(request, 4).await.results;
    let each = results.into_iter().map(|dir| {
        let partitions = dir.topics.iter().map(|t| t.partitions.len()).sum();
        (dir.log_dir.to_string(), ErrorCode(dir.error_code), partitions)
    });
    each.collect()
}

/// The next sync of this partition's log fails, and with it the directory.
async fn fail(world: &World, client: &Client, index: i32) {
    world
        .lock()
        .disks
        .get_mut(&SERVER)
        .expect("its disk")
        .failing_syncs = 1;
    assert_eq!(
        client.produce("t", index, record()).await,
        ErrorCode::KAFKA_STORAGE_ERROR
    );
    pause(world, Duration::from_secs(2)).await;
}

#[test]
fn a_directory_that_fails_takes_its_own_partitions_offline_and_no_others() {
    play(|world, client| async move {
        fail(&world, &client, 1).await;
        for partition in 0..4 {
            let answers = Answers::from(&client, "t", partition).await;
            assert_eq!(answers, Answers::of(partition % 2 == 0), "partition {partition}");
        }
        let failed = ("b".to_owned(), ErrorCode::KAFKA_STORAGE_ERROR, 0);
        let works = |n| ("a".to_owned(), ErrorCode::NONE, n);
        assert_eq!(directories(&client).await, [works(2), failed.clone()]);
        // New partitions go where there is a disk.
        assert_eq!(client.create("u", 3).await, ErrorCode::NONE);
        for partition in 0..3 {
            assert_eq!(Answers::from(&client, "u", partition).await, Answers::of(true));
        }
        assert_eq!(directories(&client).await, [works(5), failed]);
        // The next start finds it well.
        world.end_quietly(SERVER);
        let (_running, started) = node::start(&world, SERVER, config());
        assert_eq!(started.await, Ok(Started::Ready));
        let client = Client::connected(&world).await;
        for partition in 0..4 {
            assert_eq!(Answers::from(&client, "t", partition).await, Answers::of(true));
        }
    });
}

#[test]
fn when_the_metadata_s_directory_fails_the_others_partitions_are_written_and_no_metadata_is() {
    play(|world, client| async move {
        fail(&world, &client, 0).await;
        for partition in 0..4 {
            let answers = Answers::from(&client, "t", partition).await;
            assert_eq!(answers, Answers::of(partition % 2 == 1), "partition {partition}");
        }
        assert_eq!(client.create("u", 1).await, ErrorCode::KAFKA_STORAGE_ERROR);
        let failed = ("a".to_owned(), ErrorCode::KAFKA_STORAGE_ERROR, 0);
        let works = ("b".to_owned(), ErrorCode::NONE, 2);
        assert_eq!(directories(&client).await, [failed, works]);
    });
}

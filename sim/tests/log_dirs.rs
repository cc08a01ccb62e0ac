//! A log directory that fails while the broker runs: its partitions go offline, those of the others are served and written.

use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use brokkr::config::BrokerConfig;
use brokkr_client::{Connection, ConnectionConfig};
use brokkr_env::{Env, UnixMillis};
use brokkr_sim::disk::Disk;
use brokkr_sim::env::SimEnv;
use brokkr_sim::exec::{Ended, Nanos};
use brokkr_sim::net::addr_of;
use brokkr_sim::node::{self, Started};
use brokkr_sim::room;
use brokkr_sim::world::World;
use brokkr_wire::messages::create_topics_request::CreatableTopic;
use brokkr_wire::messages::fetch_request::{FetchPartition, FetchTopic};
use brokkr_wire::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use brokkr_wire::messages::metadata_request::MetadataRequestTopic;
use brokkr_wire::messages::produce_request::{PartitionProduceData, TopicProduceData};
use brokkr_wire::messages::{
    CreateTopicsRequest, DescribeLogDirsRequest, FetchRequest, ListOffsetsRequest, MetadataRequest,
    ProduceRequest,
};
use brokkr_wire::records::BatchBuilder;
use brokkr_wire::{ErrorCode, Request, Str};

const SERVER: u32 = 1;
const CLIENT: u32 = 2;
const PORT: u16 = 9092;
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
                    assert_eq!(client.produce("t", partition).await, ErrorCode::NONE);
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
    let listeners = format!("PLAINTEXT://{}:{PORT}", addr_of(SERVER, PORT).ip());
    let set = [("log.dirs", "a,b"), ("listeners", &listeners)];
    let set = set.map(|(key, value)| (key.to_owned(), value.to_owned()));
    BrokerConfig::new(set.into()).expect("valid").0
}

struct Client(Connection<SimEnv>);

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

impl Client {
    async fn connected(world: &World) -> Self {
        let host = addr_of(SERVER, PORT).ip().to_string();
        let env = world.env(CLIENT);
        let connection = Connection::open(&env, &host, PORT, ConnectionConfig::default()).await;
        Self(connection.expect("it listens"))
    }

    async fn ask<R: Request + Send + 'static>(&self, request: R, version: i16) -> R::Response {
        let patience = Duration::from_secs(20);
        self.0.submit(request, version, patience).await.expect("answered")
    }

    async fn create(&self, name: &str, num_partitions: i32) -> ErrorCode {
        let topic = CreatableTopic {
            name: Str::copied(name),
            num_partitions,
            replication_factor: 1,
            ..Default::default()
        };
        let request = CreateTopicsRequest {
            topics: vec![topic],
            timeout_ms: 30_000,
            ..Default::default()
        };
        ErrorCode(self.ask(request, 7).await.topics[0].error_code)
    }

    async fn produce(&self, topic: &str, index: i32) -> ErrorCode {
        let mut builder = BatchBuilder::new();
        builder.push(UnixMillis(1_700_000_000_000), None, Some(b"value"), &[]);
        let data = PartitionProduceData {
            index,
            records: Some(builder.build().bytes.into()),
            ..Default::default()
        };
        let topic = TopicProduceData {
            name: Str::copied(topic),
            partition_data: vec![data],
            ..Default::default()
        };
        let request = ProduceRequest {
            acks: -1,
            timeout_ms: 30_000,
            topic_data: vec![topic],
            ..Default::default()
        };
        let response = self.ask(request, 11).await;
        ErrorCode(response.responses[0].partition_responses[0].error_code)
    }

    async fn answers(&self, name: &str, index: i32) -> Answers {
        let topic = MetadataRequestTopic {
            name: Some(Str::copied(name)),
            ..Default::default()
        };
        let request = MetadataRequest {
            topics: Some(vec![topic]),
            ..Default::default()
        };
        let metadata = self.ask(request, 12).await.topics.remove(0).partitions;
        let of_metadata = &metadata[index as usize];
        let partition = FetchPartition {
            partition: index,
            partition_max_bytes: 1 << 20,
            ..Default::default()
        };
        let topic = FetchTopic {
            topic: Str::copied(name),
            partitions: vec![partition],
            ..Default::default()
        };
        let request = FetchRequest {
            max_bytes: 1 << 20,
            topics: vec![topic],
            session_epoch: -1,
            ..Default::default()
        };
        let fetched = self
            .ask(request, 12)
            .await
            .responses
            .remove(0)
            .partitions
            .remove(0);
        let partition = ListOffsetsPartition {
            partition_index: index,
            current_leader_epoch: -1,
            timestamp: -1,
            ..Default::default()
        };
        let topic = ListOffsetsTopic {
            name: Str::copied(name),
            partitions: vec![partition],
            ..Default::default()
        };
        let request = ListOffsetsRequest {
            replica_id: -1,
            topics: vec![topic],
            ..Default::default()
        };
        let listed = self.ask(request, 7).await.topics.remove(0).partitions.remove(0);
        Answers {
            metadata: ErrorCode(of_metadata.error_code),
            leader: of_metadata.leader_id,
            isr: of_metadata.isr_nodes.clone(),
            offline: of_metadata.offline_replicas.clone(),
            produce: self.produce(name, index).await,
            fetch: ErrorCode(fetched.error_code),
            list_offsets: ErrorCode(listed.error_code),
        }
    }

    async fn directories(&self) -> Vec<(String, ErrorCode, usize)> {
        let request = DescribeLogDirsRequest {
            topics: None,
            ..Default::default()
        };
        let results = self.ask(request, 4).await.results;
        let each = results.into_iter().map(|dir| {
            let partitions = dir.topics.iter().map(|t| t.partitions.len()).sum();
            (dir.log_dir.to_string(), ErrorCode(dir.error_code), partitions)
        });
        each.collect()
    }
}

/// The next sync of this partition's log fails, and with it the directory.
async fn fail(world: &World, client: &Client, index: i32) {
    world
        .lock()
        .disks
        .get_mut(&SERVER)
        .expect("its disk")
        .failing_syncs = 1;
    assert_eq!(client.produce("t", index).await, ErrorCode::KAFKA_STORAGE_ERROR);
    pause(world).await;
}

async fn pause(world: &World) {
    let env = world.env(CLIENT);
    env.sleep_until(env.now() + Duration::from_secs(2)).await;
}

#[test]
fn a_directory_that_fails_takes_its_own_partitions_offline_and_no_others() {
    play(|world, client| async move {
        fail(&world, &client, 1).await;
        for partition in 0..4 {
            let answers = client.answers("t", partition).await;
            assert_eq!(answers, Answers::of(partition % 2 == 0), "partition {partition}");
        }
        let failed = ("b".to_owned(), ErrorCode::KAFKA_STORAGE_ERROR, 0);
        let works = |n| ("a".to_owned(), ErrorCode::NONE, n);
        assert_eq!(client.directories().await, [works(2), failed.clone()]);
        // New partitions go where there is a disk.
        assert_eq!(client.create("u", 3).await, ErrorCode::NONE);
        for partition in 0..3 {
            assert_eq!(client.answers("u", partition).await, Answers::of(true));
        }
        assert_eq!(client.directories().await, [works(5), failed]);
        // The next start finds it well.
        world.end_quietly(SERVER);
        let (_running, started) = node::start(&world, SERVER, config());
        assert_eq!(started.await, Ok(Started::Ready));
        let client = Client::connected(&world).await;
        for partition in 0..4 {
            assert_eq!(client.answers("t", partition).await, Answers::of(true));
        }
    });
}

#[test]
fn when_the_metadata_s_directory_fails_the_others_partitions_are_written_and_no_metadata_is() {
    play(|world, client| async move {
        fail(&world, &client, 0).await;
        for partition in 0..4 {
            let answers = client.answers("t", partition).await;
            assert_eq!(answers, Answers::of(partition % 2 == 1), "partition {partition}");
        }
        assert_eq!(client.create("u", 1).await, ErrorCode::KAFKA_STORAGE_ERROR);
        let failed = ("a".to_owned(), ErrorCode::KAFKA_STORAGE_ERROR, 0);
        let works = ("b".to_owned(), ErrorCode::NONE, 2);
        assert_eq!(client.directories().await, [failed, works]);
    });
}

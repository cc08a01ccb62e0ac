//! A client that sends one request at a time to the one broker of a seeded world.

#![allow(dead_code, reason = "each test file takes what it needs")]

use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use brokkr::config::BrokerConfig;
use brokkr_client::connection::Reply;
use brokkr_client::{Connection, ConnectionConfig};
use brokkr_env::{Env, UnixMillis};
use brokkr_sim::disk::Disk;
use brokkr_sim::env::SimEnv;
use brokkr_sim::exec::{Ended, Nanos};
use brokkr_sim::net::addr_of;
use brokkr_sim::node::{self, Started};
use brokkr_sim::room;
use brokkr_sim::world::World;
use brokkr_wire::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use brokkr_wire::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
use brokkr_wire::messages::delete_topics_request::DeleteTopicState;
use brokkr_wire::messages::fetch_request::{FetchPartition, FetchTopic};
use brokkr_wire::messages::fetch_response::PartitionData;
use brokkr_wire::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use brokkr_wire::messages::list_offsets_response::ListOffsetsPartitionResponse;
use brokkr_wire::messages::metadata_request::MetadataRequestTopic;
use brokkr_wire::messages::metadata_response::MetadataResponseTopic;
use brokkr_wire::messages::produce_request::{PartitionProduceData, TopicProduceData};
use brokkr_wire::messages::produce_response::PartitionProduceResponse;
use brokkr_wire::messages::{
    CreateTopicsRequest, DeleteRecordsRequest, DeleteTopicsRequest, FetchRequest, ListOffsetsRequest,
    MetadataRequest, ProduceRequest, ProduceResponse,
};
use brokkr_wire::records::BatchBuilder;
use brokkr_wire::{ErrorCode, Request, Str};
use bytes::Bytes;

/// The broker's node.
pub const SERVER: u32 = 1;
/// The client's node.
pub const CLIENT: u32 = 2;
/// The broker's port.
pub const PORT: u16 = 9092;
/// Nanoseconds.
pub const SECOND: Nanos = 1_000_000_000;

/// Time limit of a response.
const PATIENCE: Duration = Duration::from_secs(20);

/// The broker's listener.
pub fn listener() -> String {
    format!("PLAINTEXT://{}:{PORT}", addr_of(SERVER, PORT).ip())
}

/// A broker's configuration: its log directories, and further settings.
pub fn config(log_dirs: &str, more: &[(&str, &str)]) -> BrokerConfig {
    let own = [("log.dirs", log_dirs), ("listeners", &listener())];
    let set = own.iter().chain(more);
    let set = set.map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    BrokerConfig::new(set.collect()).expect("valid").0
}

/// Lets this many seconds of the world pass.
pub async fn pause(world: &World, secs: u64) {
    pause_ms(world, secs * 1000).await;
}

/// Lets this many milliseconds of the world pass.
pub async fn pause_ms(world: &World, ms: u64) {
    let env = world.env(CLIENT);
    env.sleep_until(env.now() + Duration::from_millis(ms)).await;
}

/// Runs `script` for at most this many seconds of the world, beside a broker with the log directory `data` and further settings.
pub fn beside_a_broker<F>(
    secs: u64,
    more: &'static [(&'static str, &'static str)],
    script: impl FnOnce(World, Client) -> F + Send + 'static,
) where
    F: Future<Output = ()> + Send + 'static,
{
    beside_a_broker_of("data", secs, more, script);
}

/// As [`beside_a_broker`], with these log directories.
pub fn beside_a_broker_of<F>(
    log_dirs: &'static str,
    secs: u64,
    more: &'static [(&'static str, &'static str)],
    script: impl FnOnce(World, Client) -> F + Send + 'static,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let done = room::run(5, secs * SECOND, move |world| {
        world.lock().disks.insert(SERVER, Disk::new(SERVER));
        let (done, exec) = (Arc::new(Mutex::new(false)), world.exec().clone());
        let (inside, world) = (Arc::clone(&done), world.clone());
        let life = exec.life(0);
        exec.clone().spawn(
            life,
            "script",
            Box::pin(async move {
                let (_running, started) = node::start(&world, SERVER, config(log_dirs, more));
                assert_eq!(started.await, Ok(Started::Ready));
                let client = Client::connected(&world).await;
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

/// A sessionless Fetch of one partition from an offset, which waits up to `max_wait_ms` for a byte.
pub fn fetch_of(topic: &str, partition: i32, fetch_offset: i64, max_wait_ms: i32) -> FetchRequest {
    let partition = FetchPartition {
        partition,
        fetch_offset,
        partition_max_bytes: i32::MAX,
        ..Default::default()
    };
    let topic = FetchTopic {
        topic: Str::copied(topic),
        partitions: vec![partition],
        ..Default::default()
    };
    FetchRequest {
        max_wait_ms,
        min_bytes: 1,
        max_bytes: i32::MAX,
        topics: vec![topic],
        session_epoch: -1,
        ..Default::default()
    }
}

/// A Produce of one batch with acks=all.
pub fn produce_of(topic: &str, index: i32, batch: Bytes, timeout_ms: i32) -> ProduceRequest {
    let data = PartitionProduceData {
        index,
        records: Some(batch.into()),
        ..Default::default()
    };
    let topic = TopicProduceData {
        name: Str::copied(topic),
        partition_data: vec![data],
        ..Default::default()
    };
    ProduceRequest {
        acks: -1,
        timeout_ms,
        topic_data: vec![topic],
        ..Default::default()
    }
}

/// The partition's part of a Produce response.
pub fn produced(response: ProduceResponse) -> PartitionProduceResponse {
    let mut topics = response.responses;
    topics.remove(0).partition_responses.remove(0)
}

/// A CreateTopics of one topic.
pub fn create_of(
    name: &str,
    num_partitions: i32,
    replication_factor: i16,
    configs: &[(&str, &str)],
) -> CreateTopicsRequest {
    let config = |(name, value): &(&str, &str)| CreatableTopicConfig {
        name: Str::copied(name),
        value: Some(Str::copied(value)),
        ..Default::default()
    };
    let topic = CreatableTopic {
        name: Str::copied(name),
        num_partitions,
        replication_factor,
        configs: configs.iter().map(config).collect(),
        ..Default::default()
    };
    CreateTopicsRequest {
        topics: vec![topic],
        timeout_ms: 30_000,
        ..Default::default()
    }
}

/// A DeleteTopics of one topic.
pub fn delete_of(name: &str) -> DeleteTopicsRequest {
    let topic = DeleteTopicState {
        name: Some(Str::copied(name)),
        ..Default::default()
    };
    DeleteTopicsRequest {
        topics: vec![topic],
        timeout_ms: 30_000,
        ..Default::default()
    }
}

/// A DeleteRecords of one partition.
pub fn delete_records_of(topic: &str, partition_index: i32, offset: i64) -> DeleteRecordsRequest {
    let partition = DeleteRecordsPartition {
        partition_index,
        offset,
        ..Default::default()
    };
    let topic = DeleteRecordsTopic {
        name: Str::copied(topic),
        partitions: vec![partition],
        ..Default::default()
    };
    DeleteRecordsRequest {
        topics: vec![topic],
        timeout_ms: 30_000,
        ..Default::default()
    }
}

/// A batch of one record.
pub fn batch(timestamp: UnixMillis, key: Option<&[u8]>, value: &[u8]) -> Bytes {
    let mut builder = BatchBuilder::new();
    builder.push(timestamp, key, Some(value), &[]);
    builder.build().bytes
}

/// A connection to the broker.
pub struct Client(Connection<SimEnv>);

impl Client {
    pub async fn connected(world: &World) -> Self {
        Self::connected_to(world, PORT).await.expect("it listens")
    }

    pub async fn connected_to(world: &World, port: u16) -> Option<Self> {
        Self::connected_from(CLIENT, world, port).await
    }

    /// From another node.
    pub async fn connected_from(node: u32, world: &World, port: u16) -> Option<Self> {
        let (env, host) = (world.env(node), addr_of(SERVER, PORT).ip().to_string());
        let connection = Connection::open(&env, &host, port, ConnectionConfig::default()).await;
        connection.ok().map(Self)
    }

    pub async fn ask<R: Request + Send + 'static>(&self, request: R, version: i16) -> R::Response {
        self.try_ask(request, version).await.expect("answered")
    }

    /// `None` if the broker closes the connection.
    pub async fn try_ask<R: Request + Send + 'static>(
        &self,
        request: R,
        version: i16,
    ) -> Option<R::Response> {
        self.0.submit(request, version, PATIENCE).await.ok()
    }

    /// Sends a request without waiting for earlier responses.
    pub fn submit<R: Request + Send + 'static>(&self, request: R, version: i16) -> Reply<R> {
        self.0.submit(request, version, PATIENCE)
    }

    pub async fn create(&self, name: &str, num_partitions: i32) -> ErrorCode {
        self.create_with(name, num_partitions, 1, &[]).await
    }

    pub async fn create_with(
        &self,
        name: &str,
        num_partitions: i32,
        replication_factor: i16,
        configs: &[(&str, &str)],
    ) -> ErrorCode {
        let request = create_of(name, num_partitions, replication_factor, configs);
        ErrorCode(self.ask(request, 7).await.topics[0].error_code)
    }

    /// Produces with acks=all; `None` if the broker closes the connection.
    pub async fn try_produce(
        &self,
        topic: &str,
        index: i32,
        batch: Bytes,
    ) -> Option<PartitionProduceResponse> {
        let request = produce_of(topic, index, batch, 30_000);
        self.try_ask(request, 11).await.map(produced)
    }

    pub async fn produce_batch(&self, topic: &str, index: i32, batch: Bytes) -> ErrorCode {
        let response = self.try_produce(topic, index, batch).await;
        ErrorCode(response.expect("answered").error_code)
    }

    /// Sends one batch with one record for each value: returns the error, and the first record's offset.
    pub async fn produce(&self, topic: &str, index: i32, values: &[&str]) -> (ErrorCode, i64) {
        let mut builder = BatchBuilder::new();
        for value in values {
            builder.push(UnixMillis(1_700_000_000_000), None, Some(value.as_bytes()), &[]);
        }
        let batch = builder.build().bytes;
        let answer = self.try_produce(topic, index, batch).await.expect("answered");
        (ErrorCode(answer.error_code), answer.base_offset)
    }

    pub async fn metadata(&self, name: &str) -> MetadataResponseTopic {
        let topic = MetadataRequestTopic {
            name: Some(Str::copied(name)),
            ..Default::default()
        };
        let request = MetadataRequest {
            topics: Some(vec![topic]),
            allow_auto_topic_creation: true,
            ..Default::default()
        };
        self.ask(request, 12).await.topics.remove(0)
    }

    /// Fetches from the log's start; returns also the id of the new session.
    pub async fn fetch(&self, name: &str, index: i32, session_epoch: i32) -> (PartitionData, i32) {
        let request = FetchRequest {
            min_bytes: 0,
            session_epoch,
            ..fetch_of(name, index, 0, 0)
        };
        let mut response = self.ask(request, 12).await;
        let partition = response.responses.remove(0).partitions.remove(0);
        (partition, response.session_id)
    }

    pub async fn list_offsets(&self, name: &str, index: i32, timestamp: i64) -> ListOffsetsPartitionResponse {
        let partition = ListOffsetsPartition {
            partition_index: index,
            current_leader_epoch: -1,
            timestamp,
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
        self.ask(request, 7).await.topics.remove(0).partitions.remove(0)
    }
}

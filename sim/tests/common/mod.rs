//! A client that sends one request at a time to the one broker of a seeded world.

#![allow(dead_code, reason = "each test file takes what it needs")]

use std::time::Duration;

use brokkr::config::BrokerConfig;
use brokkr_client::{Connection, ConnectionConfig};
use brokkr_env::{Env, UnixMillis};
use brokkr_sim::env::SimEnv;
use brokkr_sim::exec::Nanos;
use brokkr_sim::net::addr_of;
use brokkr_sim::world::World;
use brokkr_wire::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use brokkr_wire::messages::fetch_request::{FetchPartition, FetchTopic};
use brokkr_wire::messages::fetch_response::PartitionData;
use brokkr_wire::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use brokkr_wire::messages::list_offsets_response::ListOffsetsPartitionResponse;
use brokkr_wire::messages::metadata_request::MetadataRequestTopic;
use brokkr_wire::messages::metadata_response::MetadataResponseTopic;
use brokkr_wire::messages::produce_request::{PartitionProduceData, TopicProduceData};
use brokkr_wire::messages::produce_response::PartitionProduceResponse;
use brokkr_wire::messages::{
    CreateTopicsRequest, FetchRequest, ListOffsetsRequest, MetadataRequest, ProduceRequest,
};
use brokkr_wire::records::BatchBuilder;
use brokkr_wire::{ErrorCode, Request, Str};
use bytes::Bytes;

/// The broker's node.
pub const SERVER: u32 = 1;
/// The client's node.
pub const CLIENT: u32 = 2;
/// Where the broker listens.
pub const PORT: u16 = 9092;
/// Nanoseconds.
pub const SECOND: Nanos = 1_000_000_000;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// The broker's listener.
pub fn listener() -> String {
    format!("PLAINTEXT://{}:{PORT}", addr_of(SERVER, PORT).ip())
}

/// A broker's configuration: its log directories, and what is set besides.
pub fn config(log_dirs: &str, more: &[(&str, &str)]) -> BrokerConfig {
    let own = [("log.dirs", log_dirs), ("listeners", &listener())];
    let set = own.iter().chain(more);
    let set = set.map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    BrokerConfig::new(set.collect()).expect("valid").0
}

/// Lets so many seconds of the world pass.
pub async fn pause(world: &World, secs: u64) {
    let env = world.env(CLIENT);
    env.sleep_until(env.now() + Duration::from_secs(secs)).await;
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
        let (env, host) = (world.env(CLIENT), addr_of(SERVER, PORT).ip().to_string());
        let connection = Connection::open(&env, &host, port, ConnectionConfig::default()).await;
        connection.ok().map(Self)
    }

    pub async fn ask<R: Request + Send + 'static>(&self, request: R, version: i16) -> R::Response {
        self.try_ask(request, version).await.expect("answered")
    }

    /// `None` when the broker hangs up.
    pub async fn try_ask<R: Request + Send + 'static>(
        &self,
        request: R,
        version: i16,
    ) -> Option<R::Response> {
        self.0.submit(request, version, PATIENCE).await.ok()
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
        let request = CreateTopicsRequest {
            topics: vec![topic],
            timeout_ms: 30_000,
            ..Default::default()
        };
        ErrorCode(self.ask(request, 7).await.topics[0].error_code)
    }

    /// Produces with acks=all; `None` when the broker hangs up.
    pub async fn try_produce(
        &self,
        topic: &str,
        index: i32,
        batch: Bytes,
    ) -> Option<PartitionProduceResponse> {
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
        let request = ProduceRequest {
            acks: -1,
            timeout_ms: 30_000,
            topic_data: vec![topic],
            ..Default::default()
        };
        let mut response = self.try_ask(request, 11).await?;
        Some(response.responses.remove(0).partition_responses.remove(0))
    }

    pub async fn produce_batch(&self, topic: &str, index: i32, batch: Bytes) -> ErrorCode {
        let response = self.try_produce(topic, index, batch).await;
        ErrorCode(response.expect("answered").error_code)
    }

    /// Sends one batch, a record a value: the error, and the first record's offset.
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

    /// Fetches from the log's start; with the id of the session that it opens.
    pub async fn fetch(&self, name: &str, index: i32, session_epoch: i32) -> (PartitionData, i32) {
        let partition = FetchPartition {
            partition: index,
            partition_max_bytes: i32::MAX,
            ..Default::default()
        };
        let topic = FetchTopic {
            topic: Str::copied(name),
            partitions: vec![partition],
            ..Default::default()
        };
        let request = FetchRequest {
            max_bytes: i32::MAX,
            topics: vec![topic],
            session_epoch,
            ..Default::default()
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

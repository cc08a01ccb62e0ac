//! A client of a simulated broker that sees every code as it comes.

#![allow(dead_code, reason = "no test needs all of it")]

use std::time::Duration;

use brokkr_client::{Connection, ConnectionConfig};
use brokkr_env::{Env, UnixMillis};
use brokkr_sim::env::SimEnv;
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

pub const SERVER: u32 = 1;
pub const CLIENT: u32 = 2;
pub const PORT: u16 = 9092;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// The server's listener.
pub fn listener() -> String {
    format!("PLAINTEXT://{}:{PORT}", addr_of(SERVER, PORT).ip())
}

/// Lets that much time pass.
pub async fn pause(world: &World, time: Duration) {
    let env = world.env(CLIENT);
    env.sleep_until(env.now() + time).await;
}

/// A batch of one record.
pub fn batch(timestamp: UnixMillis, key: Option<&[u8]>, value: &[u8]) -> Bytes {
    let mut builder = BatchBuilder::new();
    builder.push(timestamp, key, Some(value), &[]);
    builder.build().bytes
}

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

    pub async fn produce(&self, topic: &str, index: i32, batch: Bytes) -> ErrorCode {
        let response = self.try_produce(topic, index, batch).await;
        ErrorCode(response.expect("answered").error_code)
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

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
use brokkr_wire::messages::create_topics_request::CreatableTopic;
use brokkr_wire::messages::produce_request::{PartitionProduceData, TopicProduceData};
use brokkr_wire::messages::{CreateTopicsRequest, ProduceRequest};
use brokkr_wire::records::BatchBuilder;
use brokkr_wire::{ErrorCode, Request, Str};

/// The broker's node.
pub const SERVER: u32 = 1;
/// The client's node.
pub const CLIENT: u32 = 2;
/// Where the broker listens.
pub const PORT: u16 = 9092;
/// Nanoseconds.
pub const SECOND: Nanos = 1_000_000_000;

/// A broker's configuration: its log directories, and what is set besides.
pub fn config(log_dirs: &str, more: &[(&str, &str)]) -> BrokerConfig {
    let listeners = format!("PLAINTEXT://{}:{PORT}", addr_of(SERVER, PORT).ip());
    let own = [("log.dirs", log_dirs), ("listeners", &listeners)];
    let set = own.iter().chain(more);
    let set = set.map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    BrokerConfig::new(set.collect()).expect("valid").0
}

/// Lets so many seconds of the world pass.
pub async fn pause(world: &World, secs: u64) {
    let env = world.env(CLIENT);
    env.sleep_until(env.now() + Duration::from_secs(secs)).await;
}

/// A connection to the broker.
pub struct Client(Connection<SimEnv>);

impl Client {
    /// Connects to a broker that serves.
    pub async fn connected(world: &World) -> Self {
        let host = addr_of(SERVER, PORT).ip().to_string();
        let env = world.env(CLIENT);
        let connection = Connection::open(&env, &host, PORT, ConnectionConfig::default()).await;
        Self(connection.expect("it listens"))
    }

    /// The response to a request.
    pub async fn ask<R: Request + Send + 'static>(&self, request: R, version: i16) -> R::Response {
        let patience = Duration::from_secs(20);
        self.0.submit(request, version, patience).await.expect("answered")
    }

    /// Creates a topic.
    pub async fn create(&self, name: &str, num_partitions: i32) -> ErrorCode {
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

    /// Sends one batch, a record a value: the error, and the first record's offset.
    pub async fn produce(&self, topic: &str, index: i32, values: &[&str]) -> (ErrorCode, i64) {
        let mut builder = BatchBuilder::new();
        for value in values {
            builder.push(UnixMillis(1_700_000_000_000), None, Some(value.as_bytes()), &[]);
        }
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
        let answer = &response.responses[0].partition_responses[0];
        (ErrorCode(answer.error_code), answer.base_offset)
    }
}

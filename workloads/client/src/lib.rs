//! A Kafka client over `brokkr-env`: the same code runs against a broker on a real machine and in the simulator.
//!
//! - [`Connection`]: requests and responses on one stream, pipelined, each with a deadline.
//! - [`Client`]: bootstrap, versions, metadata, admin calls.
//! - [`Producer`]: idempotent or plain; distinguishes records that were certainly not written from those of unknown outcome.
//! - [`Consumer`]: assigned partitions, fetch sessions, isolation levels.
//!
//! The client reports what happened and does not judge it: it returns a broker's misbehavior as data, as far as it can
//! continue, for a checker to judge. Clock, tasks and randomness come from the environment; each queue is bounded.

pub mod admin;
pub mod client;
pub mod connection;
pub mod consumer;
mod error;
mod events;
pub mod metadata;
pub mod producer;
mod retry;

pub use client::{Client, ClientConfig};
pub use connection::{Connection, ConnectionConfig, Hold};
pub use consumer::{Consumer, ConsumerConfig, IsolationLevel, Polled, StartAt};
pub use error::{Error, Result, report_refusal};
pub use producer::{Ack, Acks, Delivery, Producer, ProducerConfig, ProducerRecord, SendError};

/// A partition, identified by its topic's name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct TopicPartition {
    /// The topic.
    pub topic: brokkr_wire::Str,
    /// The partition's index.
    pub partition: i32,
}

impl TopicPartition {
    /// Partition `partition` of `topic`.
    pub fn new(topic: &str, partition: i32) -> Self {
        let topic = brokkr_wire::Str::copied(topic);
        Self { topic, partition }
    }
}

impl std::fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.topic, self.partition)
    }
}

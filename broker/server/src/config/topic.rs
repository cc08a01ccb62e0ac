//! What holds for one topic.

use brokkr_log::LogConfig;
use brokkr_metadata::config::{TOPIC_KEYS, Value, resolve::Layers, topic_key};
use brokkr_metadata::image::Image;
use brokkr_wire::records::{CompressionConfig, CompressionType, TimestampType};

use super::BrokerConfig;

/// A topic's configuration, each field named as its key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TopicConfig {
    /// `cleanup.policy` has `compact`.
    pub compact: bool,
    /// `cleanup.policy` has `delete`.
    pub delete: bool,
    /// `compression.type` with its level; what the producer chose, or one codec for all.
    pub compression: CompressionConfig,
    /// `file.delete.delay.ms`
    pub file_delete_delay_ms: i64,
    /// `flush.messages`
    pub flush_messages: i64,
    /// `flush.ms`
    pub flush_ms: i64,
    /// `index.interval.bytes`
    pub index_interval_bytes: i32,
    /// `max.message.bytes`
    pub max_message_bytes: i32,
    /// `message.timestamp.after.max.ms`
    pub timestamp_after_max_ms: i64,
    /// `message.timestamp.before.max.ms`
    pub timestamp_before_max_ms: i64,
    /// `message.timestamp.type`
    pub timestamp_type: TimestampType,
    /// `min.insync.replicas`
    pub min_insync_replicas: i32,
    /// `retention.bytes`; -1: no limit.
    pub retention_bytes: i64,
    /// `retention.ms`; -1: no limit.
    pub retention_ms: i64,
    /// `segment.bytes`
    pub segment_bytes: i32,
    /// `segment.index.bytes`
    pub segment_index_bytes: i32,
    /// `segment.jitter.ms`
    pub segment_jitter_ms: i64,
    /// `segment.ms`
    pub segment_ms: i64,
    /// `unclean.leader.election.enable`
    pub unclean_leader_election_enable: bool,
    /// `producer.id.expiration.ms`, which is the broker's.
    pub producer_id_expiration_ms: i64,
}

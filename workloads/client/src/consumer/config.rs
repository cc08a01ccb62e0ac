//! Configuration of a consumer.

use std::time::Duration;

/// Which transactional records a consumer returns.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum IsolationLevel {
    /// `read_uncommitted`: everything below the high watermark.
    #[default]
    ReadUncommitted,
    /// `read_committed`: only committed records, below the last stable offset.
    ReadCommitted,
}

impl IsolationLevel {
    /// The value on the wire.
    pub fn id(self) -> i8 {
        match self {
            Self::ReadUncommitted => 0,
            Self::ReadCommitted => 1,
        }
    }
}

/// Configuration of a consumer. Names and meanings are those of Kafka's consumer.
#[derive(Clone, Debug)]
pub struct ConsumerConfig {
    /// `isolation.level`.
    pub isolation: IsolationLevel,
    /// `fetch.max.wait.ms`.
    pub max_wait: Duration,
    /// `fetch.min.bytes`.
    pub min_bytes: i32,
    /// `fetch.max.bytes`.
    pub max_bytes: i32,
    /// `max.partition.fetch.bytes`.
    pub partition_max_bytes: i32,
    /// Whether fetches use incremental sessions (KIP-227).
    pub sessions: bool,
    /// Largest size of a decompressed batch.
    pub decompressed_max: usize,
}

impl Default for ConsumerConfig {
    fn default() -> Self {
        Self {
            isolation: IsolationLevel::ReadUncommitted,
            max_wait: Duration::from_millis(500),
            min_bytes: 1,
            max_bytes: 50 << 20,
            partition_max_bytes: 1 << 20,
            sessions: true,
            decompressed_max: 128 << 20,
        }
    }
}

//! A topic's configuration as far as it concerns its logs.

/// A log's configuration, by Kafka's names. [`crate::Log::set_config`] replaces it while the log is open.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LogConfig {
    /// `segment.bytes`: a segment is rolled before it exceeds this size.
    pub segment_bytes: u32,
    /// `segment.ms`: a segment is rolled when its first batch is older than this, by the batches' timestamps.
    pub segment_ms: i64,
    /// `segment.jitter.ms`: up to this much, drawn for each segment, is subtracted from `segment_ms`.
    pub segment_jitter_ms: i64,
    /// `segment.index.bytes`: a segment is rolled when an index would exceed this size.
    pub segment_index_bytes: u32,
    /// `index.interval.bytes`: bytes of log between two index entries.
    pub index_interval_bytes: u32,
    /// `retention.ms`; negative: no limit.
    pub retention_ms: i64,
    /// `retention.bytes`, for each partition; negative: no limit.
    pub retention_bytes: i64,
    /// Whether `cleanup.policy` contains `delete`, so that retention applies.
    pub cleanup_delete: bool,
    /// `flush.messages`. 1: a batch is acknowledged only once it is durable. Otherwise a sync follows after this many
    /// records, and a batch is acknowledged once it is written.
    pub flush_messages: u64,
    /// `flush.ms`: how long a written batch may wait for a sync if `flush_messages` is not 1. `u64::MAX`: no limit.
    pub flush_ms: u64,
    /// `file.delete.delay.ms`: how long a deleted file stays on disk for ongoing reads.
    pub file_delete_delay_ms: u64,
    /// `producer.id.expiration.ms`: how long the state of a producer without appends is kept.
    pub producer_id_expiration_ms: i64,
}

impl Default for LogConfig {
    /// Kafka's defaults, except `flush_messages`: 1.
    fn default() -> Self {
        Self {
            segment_bytes: 1 << 30,
            segment_ms: 7 * 24 * 3600 * 1000,
            segment_jitter_ms: 0,
            segment_index_bytes: 10 << 20,
            index_interval_bytes: 4096,
            retention_ms: 7 * 24 * 3600 * 1000,
            retention_bytes: -1,
            cleanup_delete: true,
            flush_messages: 1,
            flush_ms: u64::MAX,
            file_delete_delay_ms: 60_000,
            producer_id_expiration_ms: 24 * 3600 * 1000,
        }
    }
}

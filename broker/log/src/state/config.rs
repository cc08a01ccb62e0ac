//! What a topic's configuration says about its logs.

/// A log's settings, by Kafka's names. Plain data; [`crate::Log::set_config`] replaces it while the log runs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LogConfig {
    /// `segment.bytes`: a segment is rolled before it would get larger.
    pub segment_bytes: u32,
    /// `segment.ms`: a segment is rolled when its first batch is older, by the batches' own clock.
    pub segment_ms: i64,
    /// `segment.jitter.ms`: up to so much is taken off `segment_ms`, drawn for each segment.
    pub segment_jitter_ms: i64,
    /// `segment.index.bytes`: a segment is rolled when one of its indexes has no room.
    pub segment_index_bytes: u32,
    /// `index.interval.bytes`: how far apart index entries are.
    pub index_interval_bytes: u32,
    /// `retention.ms`; negative: no limit.
    pub retention_ms: i64,
    /// `retention.bytes`; negative: no limit.
    pub retention_bytes: i64,
    /// Whether `cleanup.policy` has `delete`: retention applies.
    pub cleanup_delete: bool,
    /// `flush.messages`: 1 means that nothing is acknowledged before it is durable; else a sync follows each so many
    /// records, and what is written counts as acknowledged.
    pub flush_messages: u64,
    /// `flush.ms`: how long what is written may wait for a sync where `flush_messages` is not 1. `u64::MAX`: for ever.
    pub flush_ms: u64,
    /// `file.delete.delay.ms`: how long a deleted file stays, for those who still read it.
    pub file_delete_delay_ms: u64,
    /// `producer.id.expiration.ms`: how long the state of a producer that writes nothing is kept.
    pub producer_id_expiration_ms: i64,
}

impl Default for LogConfig {
    /// Kafka's defaults, but for `flush_messages`: 1.
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

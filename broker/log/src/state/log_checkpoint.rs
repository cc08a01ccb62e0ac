//! What a log directory's checkpoint records about one log.

use brokkr_types::{Offset, Uuid};

/// What the checksummed checkpoint of a log directory records about a log: the result of [`crate::Log::checkpoint`].
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct LogCheckpoint {
    /// The topic id. A checkpoint of another topic says nothing about the log in this folder (R11). Zero: any topic.
    pub topic_id: Uuid,
    /// The recovery point: everything before it was durable. `None`: unknown, the whole log may have been torn.
    pub recovery_point: Option<Offset>,
    /// The log start offset.
    pub log_start: Offset,
    /// How many times the log had been truncated.
    pub truncations: u64,
    /// The base offset of the active segment and the CRC of its first batch, if that batch was durable.
    pub active: Option<(Offset, u32)>,
    /// Whether the last stop was clean: the clean-shutdown marker and this checkpoint are of the same stop.
    pub clean: bool,
    /// Whether another broker (Apache Kafka) wrote the log since, so that Brokkr's own files are out of date.
    pub foreign: bool,
    /// Whether that broker has compacted the log: batches may be missing anywhere.
    pub compacted: bool,
}

impl LogCheckpoint {
    /// This checkpoint, if it is for the log of `topic_id`; otherwise an empty one.
    pub(crate) fn of(&self, topic_id: Uuid) -> Self {
        if self.topic_id == topic_id || self.topic_id.is_zero() || topic_id.is_zero() {
            self.clone()
        } else {
            Self::default()
        }
    }
}

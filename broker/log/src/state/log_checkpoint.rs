//! What a log directory's checkpoint records about one log.

use brokkr_types::{Offset, Uuid};

/// What was recorded of a log, checksummed, when it was last known to be durable: [`crate::Log::checkpoint`].
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct LogCheckpoint {
    /// The topic's id: of another topic's log in the same folder nothing is known (R11). Zero goes for any.
    pub topic_id: Uuid,
    /// Up to where it was durable. `None`: nothing is known, the whole log is a tail.
    pub recovery_point: Option<Offset>,
    /// Where it started.
    pub log_start: Offset,
    /// How often it had been truncated.
    pub truncations: u64,
    /// The segment that was written then, if a batch in it was durable: its base, and the CRC of its first batch.
    pub active: Option<(Offset, u32)>,
    /// Whether the clean-shutdown marker was there, and this checkpoint is the one of that stop.
    pub clean: bool,
    /// Whether another broker (Apache Kafka) wrote the log since: what this one noted beside it is out of date.
    pub foreign: bool,
    /// Whether that one has compacted it: batches may be missing anywhere.
    pub compacted: bool,
}

impl LogCheckpoint {
    /// This, if it is of the log of `topic_id`.
    pub(crate) fn of(&self, topic_id: Uuid) -> Self {
        if self.topic_id == topic_id || self.topic_id.is_zero() || topic_id.is_zero() {
            self.clone()
        } else {
            Self::default()
        }
    }
}

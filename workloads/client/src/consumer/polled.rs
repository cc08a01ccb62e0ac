//! What a consumer returns: records and faults.

use std::collections::BTreeMap;
use std::time::Duration;

use brokkr_types::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, UnixMillis, Uuid};
use brokkr_wire::ErrorCode;
use brokkr_wire::records::BatchError;
use bytes::Bytes;

use crate::TopicPartition;

/// A record as returned by the consumer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConsumerRecord {
    /// The id of the fetched topic; zero if it was fetched by name.
    pub topic_id: Uuid,
    /// Its offset.
    pub offset: Offset,
    /// Its timestamp.
    pub timestamp: UnixMillis,
    /// Its key.
    pub key: Option<Bytes>,
    /// Its value.
    pub value: Option<Bytes>,
    /// Its headers.
    pub headers: Vec<(Bytes, Option<Bytes>)>,
    /// The leader epoch of its batch.
    pub leader_epoch: LeaderEpoch,
    /// The producer of its batch, or -1.
    pub producer_id: ProducerId,
    /// The producer epoch of its batch, or -1.
    pub producer_epoch: ProducerEpoch,
}

/// An irregularity that a healthy log would not show, or an error of the broker that is not retriable.
#[derive(Clone, PartialEq, Debug)]
pub enum Fault {
    /// The broker refused the fetch. After OFFSET_OUT_OF_RANGE the partition is not fetched until [`Consumer::seek`](crate::Consumer::seek).
    Refused(ErrorCode),
    /// A batch is damaged; it will be fetched again.
    Damaged(BatchError),
    /// A batch ends below the fetch position, or begins below the end of the previous batch.
    Backwards {
        /// The expected offset.
        expected: Offset,
        /// The batch's last offset.
        last: Offset,
    },
    /// The topic was deleted and created again, so the position is meaningless in the new topic. The partition is not fetched
    /// until [`Consumer::seek`](crate::Consumer::seek).
    Recreated,
    /// Offsets are missing. Only compaction may remove them.
    Gap {
        /// The expected offset.
        expected: Offset,
        /// The offset of the record that arrived.
        got: Offset,
    },
}

/// A partition's offsets as its leader reported them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ends {
    /// The log start offset.
    pub log_start: Offset,
    /// The high watermark.
    pub high_watermark: Offset,
    /// The last stable offset.
    pub last_stable: Offset,
}

/// A partition in the response to a fetch, without an error.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FetchedPartition {
    /// The partition.
    pub tp: TopicPartition,
    /// The id of the fetched topic; zero if it was fetched by name.
    pub topic_id: Uuid,
    /// The requested offset.
    pub position: Offset,
    /// The offset after the last whole batch.
    pub next: Offset,
    /// Bytes of records in the response.
    pub bytes: usize,
    /// Its whole batches.
    pub batches: usize,
    /// The ends that the response carries.
    pub ends: Ends,
}

/// A response to a fetch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FetchRound {
    /// The number of the [`Consumer::poll`](crate::Consumer::poll) that sent the request: the first is 1.
    pub poll: u64,
    /// From the request until the response was processed, by the client's monotonic clock.
    pub took: Duration,
    /// How many requests followed it on its connection before the response was processed.
    pub followed_by: u64,
    /// Whether `partitions` has all of its partitions: none was an error, or was meanwhile no longer read from there.
    pub is_whole: bool,
    /// How many partitions were asked for, those of the session included.
    pub requested: usize,
    /// Its partitions. A response of a session leaves out those that have nothing new.
    pub partitions: Vec<FetchedPartition>,
    /// Those that it leaves out, with the ends that the consumer was told last: so they have not changed.
    pub unchanged: Vec<FetchedPartition>,
}

/// Result of [`Consumer::poll`](crate::Consumer::poll).
#[derive(Clone, Default, Debug)]
pub struct Polled {
    /// Records by partition, in offset order.
    pub records: BTreeMap<TopicPartition, Vec<ConsumerRecord>>,
    /// Irregularities and errors.
    pub faults: Vec<(TopicPartition, Fault)>,
    /// The responses that arrived, in order. A poll does not return because of these alone.
    pub fetches: Vec<FetchRound>,
}

impl Polled {
    /// Whether it contains neither records nor faults.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty() && self.faults.is_empty()
    }
}

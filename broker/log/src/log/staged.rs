//! Batches that are staged for the next write, and how each is undone.

use std::ops::RangeInclusive;
use std::sync::Arc;

use brokkr_types::{Offset, UnixMillis};
use bytes::Bytes;

use crate::formats::snapshot::SnapshotFiles;
use crate::state::epochs::LeaderEpochs;
use crate::state::index::{OffsetEntry, TimeEntry};
use crate::state::producers::ProducerUndo;
use crate::state::segment::{Segment, SegmentBuilder, SegmentSummary};

/// Capacities that an empty queue keeps. Below it the partition is seldom written, above it the queue was unusually
/// long: then the memory is freed, so an idle partition is small.
pub(crate) const QUEUE_CAPACITY_KEPT: RangeInclusive<usize> = 5..=64;

/// Batches of one segment that are written together.
pub(crate) struct WriteGroup {
    /// The roll that comes before the write, if they begin a new segment.
    pub(crate) roll: Option<Box<RollPlan>>,
    pub(crate) first: Offset,
    pub(crate) position: u64,
    pub(crate) parts: Vec<Bytes>,
    pub(crate) bytes: usize,
    pub(crate) batches: usize,
    pub(crate) records: u64,
    /// The segment after the write.
    pub(crate) summary: SegmentSummary,
    pub(crate) offsets: Vec<OffsetEntry>,
    pub(crate) times: Vec<TimeEntry>,
}

impl WriteGroup {
    pub(crate) fn new(summary: SegmentSummary, roll: Option<Box<RollPlan>>) -> Self {
        Self {
            roll,
            first: summary.next,
            position: summary.size,
            parts: Vec::new(),
            bytes: 0,
            batches: 0,
            records: 0,
            summary,
            offsets: Vec::new(),
            times: Vec::new(),
        }
    }
}

/// How a staged batch, or a staged roll, is undone.
pub(crate) struct StagedUndo {
    pub(crate) base: Offset,
    pub(crate) builder: SegmentBuilder,
    pub(crate) producer: Option<ProducerUndo>,
    pub(crate) epochs: Option<LeaderEpochs>,
}

/// A staged roll.
#[derive(Clone)]
pub(crate) struct RollPlan {
    /// The base offset of the new segment.
    pub(crate) base: Offset,
    pub(crate) created: UnixMillis,
    /// The last entry of the old segment's time index.
    pub(crate) last_time: Option<TimeEntry>,
    /// The producers at `base`.
    pub(crate) snapshot: SnapshotFiles,
    /// The new segment, empty.
    pub(crate) builder: SegmentBuilder,
}

/// A sealed segment that the manifest does not list yet.
pub(crate) struct SealPlan {
    pub(crate) segment: Arc<Segment>,
    /// The base offset of the next segment, whose index files are created with it.
    pub(crate) next_base: Offset,
    pub(crate) snapshot: SnapshotFiles,
}

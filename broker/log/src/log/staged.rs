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

/// Bytes that may be staged or on their way to the disk before [`Log::can_stage`] says no.
pub const STAGED_BYTES_MAX: usize = 16 << 20;

/// And batches.
pub const STAGED_BATCHES_MAX: usize = 16 << 10;

/// Entries that an empty queue keeps room for. A queue with less, of a partition that is seldom written, or with more, keeps none: an
/// idle partition is small.
pub(crate) const QUEUE_CAPACITY_KEPT: RangeInclusive<usize> = 5..=64;

/// Batches of one segment, to be written together.
pub(crate) struct WriteGroup {
    /// What has to be done before: the segment is a new one.
    pub(crate) roll: Option<Box<RollPlan>>,
    pub(crate) first: Offset,
    pub(crate) position: u64,
    pub(crate) parts: Vec<Bytes>,
    pub(crate) bytes: usize,
    pub(crate) batches: usize,
    pub(crate) records: u64,
    /// The segment once they are written.
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

/// Takes a staged batch back.
pub(crate) struct StagedUndo {
    pub(crate) base: Offset,
    pub(crate) builder: SegmentBuilder,
    pub(crate) producer: Option<ProducerUndo>,
    pub(crate) epochs: Option<LeaderEpochs>,
}

/// What is known of a roll when it is staged.
#[derive(Clone)]
pub(crate) struct RollPlan {
    /// Where the new segment begins.
    pub(crate) base: Offset,
    pub(crate) created: UnixMillis,
    /// The entry that ends the old segment's time index.
    pub(crate) last_time: Option<TimeEntry>,
    /// The producers at that point.
    pub(crate) snapshot: SnapshotFiles,
    /// The new segment's begin.
    pub(crate) builder: SegmentBuilder,
}

/// A sealed segment that is not in the manifest yet.
pub(crate) struct SealPlan {
    pub(crate) segment: Arc<Segment>,
    /// The base of the segment behind it, whose index files are to be made.
    pub(crate) next_base: Offset,
    pub(crate) snapshot: SnapshotFiles,
}

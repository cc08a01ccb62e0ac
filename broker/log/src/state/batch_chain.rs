//! The sequence of batches in a log: which batch may follow the one before.

use brokkr_types::{LeaderEpoch, Offset};
use brokkr_wire::records::BatchHeader;

use crate::state::index::relative;

/// Where offsets may be missing between one batch and the next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum OffsetGaps {
    /// Anywhere: compaction may have removed batches.
    Allowed,
    /// Within a segment only. This broker begins each segment at the end of the one before, so a gap between segments
    /// means lost batches.
    WithinSegments,
    /// Nowhere: the log never had gaps.
    None,
    /// Nowhere, as without a manifest a gap can't be distinguished from a lost segment.
    Refused,
}

/// The position in a log after its last batch. The next batch must have a higher base offset and no lower leader
/// epoch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BatchChain {
    /// The segment's base offset.
    segment: Offset,
    /// The offset past the last batch.
    pub(crate) next: Offset,
    epoch: LeaderEpoch,
    gaps: OffsetGaps,
}

impl BatchChain {
    /// Whether this broker wrote the log (a log of Kafka's may have gaps anywhere).
    pub(crate) fn is_own_log(&self) -> bool {
        self.gaps != OffsetGaps::Allowed
    }

    /// The chain of one segment, independent of the log.
    pub(crate) fn of_segment(base: Offset) -> Self {
        Self::new(base, OffsetGaps::Allowed)
    }

    /// The chain of a log, from the segment at `base` on.
    pub(crate) fn new(base: Offset, gaps: OffsetGaps) -> Self {
        Self {
            segment: base,
            next: base,
            epoch: LeaderEpoch::NONE,
            gaps,
        }
    }

    /// Continues in the segment at `base`. Returns false, unchanged, if that segment can't be the next.
    pub(crate) fn enter(&mut self, base: Offset) -> bool {
        if base < self.next || base != self.next && self.gaps != OffsetGaps::Allowed {
            return false;
        }
        (self.segment, self.next) = (base, base);
        true
    }

    /// Why this batch can't be the next; `None` if it can.
    pub(crate) fn misplaced(&self, header: &BatchHeader) -> Option<String> {
        let base = header.base_offset;
        if base < self.next {
            return Some(format!(
                "a batch of offset {base}, {} or later must follow",
                self.next
            ));
        }
        if base != self.next && self.gaps == OffsetGaps::None {
            return Some(format!("a batch of offset {base}, {} must follow", self.next));
        }
        if base != self.next && self.gaps == OffsetGaps::Refused {
            return Some(format!(
                "a batch of offset {base}, {} must follow: without brokkr-manifest a gap can't be told from a lost segment",
                self.next
            ));
        }
        if header.last_offset_delta < 0 || relative(self.segment, header.last_offset()).is_none() {
            let count = i64::from(header.last_offset_delta) + 1;
            return Some(format!("a batch of {count} offsets at offset {base}"));
        }
        let (epoch, last) = (header.partition_leader_epoch, self.epoch);
        (epoch < last).then(|| format!("a batch of leader epoch {epoch} behind one of {last}"))
    }

    /// Moves past this batch.
    pub(crate) fn accept(&mut self, header: &BatchHeader) {
        (self.next, self.epoch) = (header.next_offset(), header.partition_leader_epoch);
    }
}

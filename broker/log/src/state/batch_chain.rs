//! The sequence of batches in a log: which batch may follow the one before.

use brokkr_types::{LeaderEpoch, Offset};
use brokkr_wire::records::BatchHeader;

use crate::state::index::relative;

/// Whether offsets may be missing between one batch and the next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum OffsetGaps {
    /// Compaction may have taken batches away.
    Allowed,
    /// Within a segment only: this broker begins one where the one before ends, and what is missing there was lost.
    WithinSegments,
    /// Nowhere: the log never had any.
    None,
    /// A gap can't be told from a lost segment: there is no manifest that names them.
    Refused,
}

/// Where the next batch of a log may stand: offsets rise and leader epochs never fall.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BatchChain {
    /// The base of the segment.
    segment: Offset,
    /// The offset past the last batch.
    pub(crate) next: Offset,
    epoch: LeaderEpoch,
    gaps: OffsetGaps,
}

impl BatchChain {
    /// Whether the log is this broker's own.
    pub(crate) fn is_own_log(&self) -> bool {
        self.gaps != OffsetGaps::Allowed
    }

    /// The chain of a segment by itself.
    pub(crate) fn of_segment(base: Offset) -> Self {
        Self::new(base, OffsetGaps::Allowed)
    }

    /// The chain of a log from the segment at `base` on.
    pub(crate) fn new(base: Offset, gaps: OffsetGaps) -> Self {
        Self {
            segment: base,
            next: base,
            epoch: LeaderEpoch::NONE,
            gaps,
        }
    }

    /// Goes on in the segment at `base`, if it can be the next one.
    pub(crate) fn enter(&mut self, base: Offset) -> bool {
        if base < self.next || base != self.next && self.gaps != OffsetGaps::Allowed {
            return false;
        }
        (self.segment, self.next) = (base, base);
        true
    }

    /// Why a batch can't stand here.
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

    /// Takes up a batch that stands here.
    pub(crate) fn accept(&mut self, header: &BatchHeader) {
        (self.next, self.epoch) = (header.next_offset(), header.partition_leader_epoch);
    }
}

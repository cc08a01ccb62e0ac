//! An immutable snapshot of a log, for those who read it beside its owner.

use std::sync::Arc;

use brokkr_env::{Env, File};
use brokkr_types::{LeaderEpoch, Offset};

use crate::files::shared::LogShared;
use crate::state::epochs::{EpochEnd, LeaderEpochs};
use crate::state::segment::{Segment, Segments};

/// Where an offset stands, as far as it is known without a look at the files.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct OffsetMetadata {
    pub(crate) offset: Offset,
    /// The base of its segment and the position there.
    pub(crate) position: Option<(Offset, u64)>,
}

/// A place in the active segment where a batch begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Boundary {
    pub(crate) offset: Offset,
    pub(crate) position: u64,
}

pub(crate) struct View<E: Env> {
    pub(crate) shared: Arc<LogShared<E>>,
    pub(crate) sealed: Segments,
    pub(crate) active: Segment,
    /// None in a fresh log.
    pub(crate) file: Option<File<E>>,
    /// Of the active file; with another count this snapshot is stale.
    pub(crate) truncations: u64,
    /// Of the log.
    pub(crate) log_truncations: u64,
    /// Whether offsets may be missing.
    pub(crate) gaps: bool,
    pub(crate) log_start: Offset,
    pub(crate) high_watermark: OffsetMetadata,
    /// Where the last writes began and where the last one ended: where followers and consumers at the tail stand.
    pub(crate) recent: Box<[Boundary]>,
    pub(crate) epochs: LeaderEpochs,
}

/// A log as it was at some moment, to be read by any task. Cheap to clone.
///
/// It pins nothing: what retention removes meanwhile, or a truncation cuts, is answered with an error and not with other
/// bytes (L6; R19: every limit is of one snapshot).
pub struct LogReader<E: Env> {
    pub(crate) view: Arc<View<E>>,
}

impl<E: Env> Clone for LogReader<E> {
    fn clone(&self) -> Self {
        Self {
            view: Arc::clone(&self.view),
        }
    }
}

/// How far a read may go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum UpTo {
    /// To the end of what is written: for followers and replay.
    LogEnd,
    /// To the high watermark: for consumers.
    HighWatermark,
    /// To this offset, if it comes before the end.
    Offset(Offset),
}

impl<E: Env> LogReader<E> {
    /// The first offset that is served.
    pub fn log_start(&self) -> Offset {
        self.view.log_start
    }

    /// The end of what is written.
    pub fn log_end(&self) -> Offset {
        self.view.active.summary.next
    }

    /// The high watermark.
    pub fn high_watermark(&self) -> Offset {
        self.view.high_watermark.offset
    }

    /// The leader epochs.
    pub fn epochs(&self) -> &LeaderEpochs {
        &self.view.epochs
    }

    /// What OffsetForLeaderEpoch answers.
    pub fn end_offset_for_epoch(&self, epoch: LeaderEpoch) -> Option<EpochEnd> {
        self.view.epochs.end_offset_for(epoch, self.log_end())
    }

    /// Bytes of all its segments.
    pub fn size_bytes(&self) -> u64 {
        self.view.sealed.iter().map(|s| s.summary.size).sum::<u64>() + self.view.active.summary.size
    }

    /// The limit as a place, never past what is written.
    pub(crate) fn limit(&self, up_to: UpTo) -> OffsetMetadata {
        let end = self.view.end();
        match up_to {
            UpTo::LogEnd => end,
            UpTo::HighWatermark if self.view.high_watermark.offset < end.offset => self.view.high_watermark,
            UpTo::Offset(offset) if offset < end.offset => self.view.offset_metadata(offset),
            UpTo::HighWatermark | UpTo::Offset(_) => end,
        }
    }
}

impl<E: Env> View<E> {
    fn end(&self) -> OffsetMetadata {
        let summary = &self.active.summary;
        OffsetMetadata {
            offset: summary.next,
            position: Some((summary.base, summary.size)),
        }
    }

    fn offset_metadata(&self, offset: Offset) -> OffsetMetadata {
        let found = self.recent.iter().find(|b| b.offset == offset);
        OffsetMetadata {
            offset,
            position: found.map(|b| (self.active.summary.base, b.position)),
        }
    }
}

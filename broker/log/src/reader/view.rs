//! An immutable snapshot of a log, for readers on other tasks than the owner's.

use std::sync::Arc;

use brokkr_env::{Env, File};
use brokkr_types::{LeaderEpoch, Offset};

use crate::files::shared::LogShared;
use crate::state::epochs::{EpochEnd, LeaderEpochs};
use crate::state::segment::{Segment, Segments};

/// An offset and, if known without reading files, its position (Kafka's LogOffsetMetadata).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct OffsetMetadata {
    pub(crate) offset: Offset,
    /// The base offset of its segment and the position in that segment.
    pub(crate) position: Option<(Offset, u64)>,
}

/// A position in the active segment where a batch begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Boundary {
    pub(crate) offset: Offset,
    pub(crate) position: u64,
}

pub(crate) struct View<E: Env> {
    pub(crate) shared: Arc<LogShared<E>>,
    pub(crate) sealed: Segments,
    pub(crate) active: Segment,
    /// `None` in a fresh log.
    pub(crate) file: Option<File<E>>,
    /// The truncation count of `file` when the snapshot was taken; if it has changed, the snapshot is stale.
    pub(crate) truncations: u64,
    /// The truncation count of the log.
    pub(crate) log_truncations: u64,
    /// Whether offsets may be missing.
    pub(crate) gaps: bool,
    pub(crate) log_start: Offset,
    pub(crate) high_watermark: OffsetMetadata,
    /// Where the last writes began, and where the last one ended. Followers and consumers at the tail read from
    /// these.
    pub(crate) recent: Box<[Boundary]>,
    pub(crate) epochs: LeaderEpochs,
}

/// A snapshot of a log that any task can read. Cheap to clone.
///
/// It does not keep files alive: reading what retention or a truncation has removed since is an error, and never
/// returns other bytes (L6). All limits are of one snapshot (R19).
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

/// The end of a read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum UpTo {
    /// The written end: for followers and replay.
    LogEnd,
    /// The high watermark: for consumers.
    HighWatermark,
    /// This offset, if it is before the written end.
    Offset(Offset),
}

impl<E: Env> LogReader<E> {
    /// The log start offset.
    pub fn log_start(&self) -> Offset {
        self.view.log_start
    }

    /// The end of the written batches.
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

    /// The response to OffsetForLeaderEpoch.
    pub fn end_offset_for_epoch(&self, epoch: LeaderEpoch) -> Option<EpochEnd> {
        self.view.epochs.end_offset_for(epoch, self.log_end())
    }

    /// The size of all segments in bytes.
    pub fn size_bytes(&self) -> u64 {
        self.view.sealed.iter().map(|s| s.summary.size).sum::<u64>() + self.view.active.summary.size
    }

    /// The offset of `up_to`, at most the written end, with its position if known.
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

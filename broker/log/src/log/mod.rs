//! The log itself: what its owner holds.

use std::collections::VecDeque;
use std::sync::Arc;

use brokkr_env::{Env, File, Rng};
use brokkr_types::{LeaderEpoch, Offset, Uuid};

use crate::files::shared::LogShared;
use crate::log::background_work::BackgroundWork;
use crate::log::parts::draw_jitter;
use crate::log::pipeline::Pipeline;
use crate::log::staged::StagedUndo;
use crate::reader::view::{Boundary, LogReader, OffsetMetadata, View};
use crate::state::ackable::AckableOffset;
use crate::state::config::LogConfig;
use crate::state::epochs::{EpochEnd, LeaderEpochs};
use crate::state::producers::ProducerUsage;
use crate::state::producers::Producers;
use crate::state::segment::{Segment, SegmentBuilder, Segments};

pub(crate) mod append;
pub(crate) mod background;
pub(crate) mod background_work;
pub(crate) mod close;
pub(crate) mod drive;
pub(crate) mod epochs;
pub(crate) mod fresh;
pub(crate) mod open;
pub(crate) mod parts;
pub(crate) mod pipeline;
pub(crate) mod recovery;
pub(crate) mod replay;
pub(crate) mod retention;
pub(crate) mod roll;
pub(crate) mod staged;
pub(crate) mod truncate;

/// How many write boundaries at the tail are remembered.
const RECENT_MAX: usize = 32;

/// One partition's log. One task owns it; [`Log::reader`] serves all others.
///
/// Methods that are not `async` never wait; those that are wait for the disk and are not cancel-safe, but for
/// [`Log::next_event`].
pub struct Log<E: Env> {
    pub(crate) shared: Arc<LogShared<E>>,
    pub(crate) topic_id: Uuid,
    pub(crate) config: LogConfig,
    pub(crate) rng: Rng,

    // As written.
    pub(crate) sealed: Segments,
    pub(crate) active: Segment,
    pub(crate) file: File<E>,
    pub(crate) log_start: Offset,
    pub(crate) high_watermark: OffsetMetadata,
    pub(crate) recent: VecDeque<Boundary>,
    pub(crate) durable_end: Offset,
    pub(crate) ackable: AckableOffset,

    // As staged: what the next batch is judged by.
    pub(crate) builder: SegmentBuilder,
    pub(crate) producers: Producers,
    /// What they take of the room that all logs share.
    pub(crate) producer_budget: ProducerUsage,
    pub(crate) epochs: LeaderEpochs,
    /// What takes back the batches that can't be acknowledged yet, oldest first.
    pub(crate) undo: VecDeque<StagedUndo>,

    pub(crate) pipeline: Pipeline<E>,
    pub(crate) background: BackgroundWork,

    // Of the manifest.
    pub(crate) truncations: u64,
    pub(crate) truncated_to: Offset,
    /// Whether offsets may be missing in it: see [`Log::allow_gaps`].
    pub(crate) gaps: bool,
    /// After a clean stop, the CRC-32s of `leader-epoch-checkpoint` and of the manifest that it left: as long as the manifest would
    /// be the same again, nothing has to be written to close.
    pub(crate) opened_crcs: Option<(u32, u32)>,
    /// A snapshot that is not at a segment's base: a clean stop's.
    pub(crate) clean_stop_snapshot: Option<Offset>,

    /// The snapshot handed out last, as long as it is right.
    pub(crate) view: Option<Arc<View<E>>>,
}

impl<E: Env> Log<E> {
    /// The partition's folder in the log directory: `topic-3`.
    pub fn folder(&self) -> &str {
        &self.shared.folder
    }

    /// The topic's id; [`Uuid::ZERO`] where `partition.metadata` was lost.
    pub fn topic_id(&self) -> Uuid {
        self.topic_id
    }

    /// The settings.
    pub fn config(&self) -> &LogConfig {
        &self.config
    }

    /// Replaces the settings; the next append goes by them.
    pub fn set_config(&mut self, config: LogConfig) {
        self.config = config;
    }

    /// The first offset that is served.
    pub fn log_start(&self) -> Offset {
        self.log_start
    }

    /// Where the next batch goes: the end of what is staged.
    pub fn log_end(&self) -> Offset {
        self.builder.summary.next
    }

    /// The end of what is written.
    pub fn written_end(&self) -> Offset {
        self.active.summary.next
    }

    /// The end of what survives power loss.
    pub fn durable_end(&self) -> Offset {
        self.durable_end
    }

    /// Up to where the log may be acknowledged now.
    pub fn ackable(&self) -> AckableOffset {
        self.ackable
    }

    /// The high watermark.
    pub fn high_watermark(&self) -> Offset {
        self.high_watermark.offset
    }

    /// Sets the high watermark, which its owner decides. Kept within what is served and what is written.
    pub fn set_high_watermark(&mut self, offset: Offset) {
        let offset = offset.max(self.log_start).min(self.written_end());
        if offset == self.high_watermark.offset && self.high_watermark.position.is_some() {
            return;
        }
        let found = self.recent.iter().rev().find(|b| b.offset == offset);
        let position = found.map(|b| (self.active.summary.base, b.position));
        self.high_watermark = OffsetMetadata { offset, position };
        self.view = None;
    }

    /// The leader epochs, staged batches included.
    pub fn leader_epochs(&self) -> &LeaderEpochs {
        &self.epochs
    }

    /// The latest leader epoch that anything here is of.
    pub fn latest_epoch(&self) -> Option<LeaderEpoch> {
        self.epochs.latest().map(|e| e.epoch)
    }

    /// What OffsetForLeaderEpoch answers.
    pub fn end_offset_for_epoch(&self, epoch: LeaderEpoch) -> Option<EpochEnd> {
        self.epochs.end_offset_for(epoch, self.log_end())
    }

    /// The idempotent producers, staged batches included.
    pub fn producers(&self) -> &Producers {
        &self.producers
    }

    /// Bytes of all its segments.
    pub fn size_bytes(&self) -> u64 {
        self.sealed.iter().map(|s| s.summary.size).sum::<u64>() + self.active.summary.size
    }

    /// Why nothing is appended any more until restart, if so.
    pub fn broken(&self) -> Option<&brokkr_env::Error> {
        self.pipeline.broken.as_ref()
    }

    /// How many segments it has.
    pub fn segments(&self) -> usize {
        self.sealed.len() + 1
    }

    /// A snapshot for readers. Cheap: the same one until something changes.
    pub fn reader(&mut self) -> LogReader<E> {
        let view = self.view.take().unwrap_or_else(|| {
            Arc::new(View {
                shared: Arc::clone(&self.shared),
                sealed: Arc::clone(&self.sealed),
                active: self.active.clone(),
                file: Some(self.file.clone()),
                truncations: self.file.truncations(),
                log_truncations: self.truncations,
                gaps: self.gaps,
                log_start: self.log_start,
                high_watermark: self.high_watermark,
                recent: self.recent.iter().copied().collect(),
                epochs: self.epochs.clone(),
            })
        });
        self.view = Some(Arc::clone(&view));
        LogReader { view }
    }

    /// Notes that a write ended at `offset`.
    pub(crate) fn note_boundary(&mut self, offset: Offset, position: u64) {
        if self.recent.len() == RECENT_MAX {
            self.recent.pop_front();
        }
        self.recent.push_back(Boundary { offset, position });
    }

    /// What a segment that begins now takes off `segment.ms`.
    pub(crate) fn jitter_ms(&self) -> i64 {
        draw_jitter(&self.rng, &self.config)
    }
}

impl<E: Env> std::fmt::Debug for Log<E> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "Log({}, {}..{} written {} staged {})",
            self.folder(),
            self.log_start,
            self.durable_end,
            self.written_end(),
            self.log_end()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use brokkr_env::tokio::TokioEnv;

    #[test]
    fn an_idle_log_is_small() {
        // Besides: its file, a name, the view that was handed out last, and what its producers need.
        let (log, view) = (size_of::<Log<TokioEnv>>(), size_of::<View<TokioEnv>>());
        assert!(
            log + view + RECENT_MAX * size_of::<Boundary>() < 2048,
            "{log} and {view} bytes"
        );
    }
}

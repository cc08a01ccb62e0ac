//! The log: the state that its owner holds.

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

/// Recent write boundaries that a log keeps.
const RECENT_MAX: usize = 32;

/// One partition's log. One task owns it; others read with [`Log::reader`].
///
/// Methods that are not `async` never wait. Those that are wait for the disk and are not cancel-safe, except
/// [`Log::next_event`].
pub struct Log<E: Env> {
    pub(crate) shared: Arc<LogShared<E>>,
    pub(crate) topic_id: Uuid,
    pub(crate) config: LogConfig,
    pub(crate) rng: Rng,

    // The written state.
    pub(crate) sealed: Segments,
    pub(crate) active: Segment,
    pub(crate) file: File<E>,
    pub(crate) log_start: Offset,
    pub(crate) high_watermark: OffsetMetadata,
    pub(crate) recent: VecDeque<Boundary>,
    pub(crate) durable_end: Offset,
    pub(crate) ackable: AckableOffset,

    // The state including staged batches, which the next batch is checked against.
    pub(crate) builder: SegmentBuilder,
    pub(crate) producers: Producers,
    /// This log's part of the producer budget.
    pub(crate) producer_budget: ProducerUsage,
    pub(crate) epochs: LeaderEpochs,
    /// For each batch that can't be acknowledged yet, oldest first, how it is undone.
    pub(crate) undo: VecDeque<StagedUndo>,

    pub(crate) pipeline: Pipeline<E>,
    pub(crate) background: BackgroundWork,

    // Fields of the manifest.
    pub(crate) truncations: u64,
    pub(crate) truncated_to: Offset,
    /// Whether offsets may be missing: see [`Log::allow_gaps`].
    pub(crate) gaps: bool,
    /// After a clean stop, the CRC-32s of `leader-epoch-checkpoint` and of the manifest. If closing would write the
    /// same manifest again, it writes nothing.
    pub(crate) opened_crcs: Option<(u32, u32)>,
    /// The producer snapshot of a clean stop, which is not at a segment's base offset.
    pub(crate) clean_stop_snapshot: Option<Offset>,

    /// Files below the log's start that are still to be removed; mostly none.
    pub(crate) unretired: Option<Box<Unretired>>,

    /// The latest snapshot, until something changes.
    pub(crate) view: Option<Arc<View<E>>>,
}

/// Paths of files below a log's start that could not be renamed yet.
#[derive(Default)]
pub(crate) struct Unretired(pub(crate) Vec<String>);

impl<E: Env> Log<E> {
    /// The partition's folder in the log directory: `topic-3`.
    pub fn folder(&self) -> &str {
        &self.shared.folder
    }

    /// The topic id; [`Uuid::ZERO`] if `partition.metadata` is missing.
    pub fn topic_id(&self) -> Uuid {
        self.topic_id
    }

    /// The configuration.
    pub fn config(&self) -> &LogConfig {
        &self.config
    }

    /// Replaces the configuration, for appends from now on.
    pub fn set_config(&mut self, config: LogConfig) {
        self.config = config;
    }

    /// The log start offset.
    pub fn log_start(&self) -> Offset {
        self.log_start
    }

    /// The log end offset: the end of the staged batches.
    pub fn log_end(&self) -> Offset {
        self.builder.summary.next
    }

    /// The end of the written batches.
    pub fn written_end(&self) -> Offset {
        self.active.summary.next
    }

    /// The end of the batches that survive power loss.
    pub fn durable_end(&self) -> Offset {
        self.durable_end
    }

    /// The offset up to which the log may be acknowledged.
    pub fn ackable(&self) -> AckableOffset {
        self.ackable
    }

    /// The high watermark.
    pub fn high_watermark(&self) -> Offset {
        self.high_watermark.offset
    }

    /// Sets the high watermark, limited to the log start offset and the written end.
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

    /// The leader epochs, including those of staged batches.
    pub fn leader_epochs(&self) -> &LeaderEpochs {
        &self.epochs
    }

    /// The latest leader epoch.
    pub fn latest_epoch(&self) -> Option<LeaderEpoch> {
        self.epochs.latest().map(|e| e.epoch)
    }

    /// The response to OffsetForLeaderEpoch.
    pub fn end_offset_for_epoch(&self, epoch: LeaderEpoch) -> Option<EpochEnd> {
        self.epochs.end_offset_for(epoch, self.log_end())
    }

    /// The idempotent producers, including staged batches.
    pub fn producers(&self) -> &Producers {
        &self.producers
    }

    /// The size of all segments in bytes.
    pub fn size_bytes(&self) -> u64 {
        self.sealed.iter().map(|s| s.summary.size).sum::<u64>() + self.active.summary.size
    }

    /// Why the log accepts no appends until the broker is restarted; `None` if it does.
    pub fn broken(&self) -> Option<&brokkr_env::Error> {
        self.pipeline.broken.as_ref()
    }

    /// The number of segments.
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

    /// Records that a write ended at `offset`.
    pub(crate) fn note_boundary(&mut self, offset: Offset, position: u64) {
        if self.recent.len() == RECENT_MAX {
            self.recent.pop_front();
        }
        self.recent.push_back(Boundary { offset, position });
    }

    /// The jitter of a new segment, subtracted from `segment.ms`.
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
        // Not counted: the file, the folder name, the latest snapshot, the producers.
        let (log, view) = (size_of::<Log<TokioEnv>>(), size_of::<View<TokioEnv>>());
        assert!(
            log + view + RECENT_MAX * size_of::<Boundary>() < 2048,
            "{log} and {view} bytes"
        );
    }
}

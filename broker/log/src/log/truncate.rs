//! Truncating the end of a log, as followers do.
//!
//! The order on disk, each step durable before the next:
//! 1. the manifest counts the truncation and records that it is pending. From now on an older recovery point does not
//!    apply above its end, and a start after a crash finishes it;
//! 2. segments above the end are removed, with the producer snapshots past it (P10), and the directory is synced;
//! 3. the segment that contains the end is cut and synced, and its indexes are rebuilt;
//! 4. the manifest records that the truncation is done. Only then may batches be appended: old bytes never reappear
//!    behind new ones.
//!
//! If a step fails, the log is broken until a restart finishes the truncation.

use std::sync::Arc;

use brokkr_env::{Env, File};
use brokkr_types::Offset;

use super::replay;
use crate::error::LogError;
use crate::files::folder::{list, remove_if_there, remove_snapshot, replace, write_epochs};
use crate::files::scan::BatchScan;
use crate::files::segment_scan::ScannedSegment;
use crate::formats::manifest::{Manifest, PendingTruncation};
use crate::formats::names;
use crate::log::Log;
use crate::log::parts::create_first_segment;
use crate::log::recovery::Recovery;
use crate::reader::view::{Boundary, OffsetMetadata};
use crate::state::ackable::AckableOffset;
use crate::state::batch_chain::BatchChain;
use crate::state::epochs::LeaderEpochs;
use crate::state::producers::Producers;
use crate::state::segment::{Segment, SegmentBuilder};

/// The place where a truncation cuts.
struct TruncationPoint<E: Env> {
    /// How many sealed segments stay unchanged.
    sealed: usize,
    /// The file of the segment that is cut.
    file: File<E>,
    /// What remains of that segment, which becomes the active one.
    remaining: ScannedSegment,
}

impl<E: Env> Log<E> {
    /// Records, durably, that offsets may be missing from now on: BEFORE batches are taken from a leader whose log
    /// may be compacted.
    pub async fn allow_gaps(&mut self) -> Result<(), LogError> {
        if self.gaps {
            return Ok(());
        }
        self.settle().await?;
        self.complete_seal().await?;
        let manifest = Manifest {
            gaps: true,
            ..self.manifest()
        };
        replace(&self.shared, names::MANIFEST, manifest.encode()).await?;
        self.gaps = true;
        self.view = None;
        Ok(())
    }

    /// Removes everything at `offset` and past it; a batch that contains `offset` is removed whole. Durable when this
    /// returns. No change if the log ends before. Producers are rebuilt from the remaining log.
    ///
    /// Queued events are dropped: an offset past the new end is never reported as ackable.
    ///
    /// # Errors
    /// If [`Log::broken`] is set, a restart finishes the truncation; otherwise the log is unchanged.
    pub async fn truncate_to(&mut self, offset: Offset) -> Result<(), LogError> {
        self.settle().await?;
        if offset >= self.written_end() {
            return Ok(());
        }
        self.complete_seal().await?;
        let first_base = self
            .sealed
            .first()
            .map_or(self.active.summary.base, |s| s.summary.base);
        if offset < first_base {
            return self.truncate_fully_and_start_at(offset).await;
        }
        let point = self.find_truncation_point(offset).await?;
        if point.remaining.builder.summary.next < self.log_start && offset >= self.log_start {
            // The log start offset is inside a batch. Its visible offsets must not be assigned again (L6).
            return self.truncate_fully_and_start_at(offset).await;
        }
        let result = self.truncate_at(point).await;
        self.break_on_error(result)
    }

    /// Removes everything and restarts the log at `offset`: for a follower that has no offset in common with its
    /// leader. Durable when this returns.
    ///
    /// # Errors
    /// If [`Log::broken`] is set, a restart finishes the truncation; otherwise the log is unchanged.
    pub async fn truncate_fully_and_start_at(&mut self, offset: Offset) -> Result<(), LogError> {
        self.settle().await?;
        let result = self.restart_at(offset).await;
        self.break_on_error(result)
    }

    /// Waits until nothing is in flight.
    ///
    /// # Errors
    /// If the log is broken.
    pub(crate) async fn settle(&mut self) -> Result<(), LogError> {
        self.quiesce().await;
        match &self.pipeline.broken {
            Some(why) => Err(LogError::Io(why.clone())),
            None => Ok(()),
        }
    }

    /// Completes a sealed segment whose background job had failed.
    pub(crate) async fn complete_seal(&mut self) -> Result<(), LogError> {
        if self.begin_seal() {
            self.quiesce().await;
        }
        match &self.background.seal {
            None => Ok(()),
            Some(plan) => {
                let what = format!(
                    "{}: segment {} can't be listed",
                    self.folder(),
                    plan.segment.summary.base
                );
                Err(LogError::Io(brokkr_env::Error::new(
                    brokkr_env::ErrorKind::Io,
                    what,
                )))
            }
        }
    }

    fn break_on_error(&mut self, result: Result<(), LogError>) -> Result<(), LogError> {
        if let Err(error) = &result {
            tracing::error!(log = self.folder(), %error, "truncation not finished; no writing until restart");
            let what = format!("{} was not truncated: {error}", self.folder());
            self.pipeline.broken = Some(brokkr_env::Error::new(brokkr_env::ErrorKind::Poisoned, what));
            self.view = None;
        }
        result
    }

    /// Scans the segment that contains `offset` up to the last batch that stays.
    async fn find_truncation_point(&mut self, offset: Offset) -> Result<TruncationPoint<E>, LogError> {
        let reader = self.reader();
        let sealed = reader.segment_of(offset);
        let open = reader.open(sealed).await?;
        let (summary, file) = (open.segment.summary, open.file);
        let created = self.shared.dir.env.wall();
        let mut remaining = ScannedSegment::new(SegmentBuilder::new(summary.base, created, self.jitter_ms()));
        let mut batches = BatchScan::new(&file, 0, summary.size);
        let mut chain = BatchChain::of_segment(summary.base);
        while let Some(batch) = batches.next(&mut chain).await? {
            if batch.header.last_offset() >= offset {
                break;
            }
            remaining.add(&batch.header, self.config.index_interval_bytes);
        }
        Ok(TruncationPoint {
            sealed,
            file,
            remaining,
        })
    }

    async fn truncate_at(&mut self, point: TruncationPoint<E>) -> Result<(), LogError> {
        let TruncationPoint {
            sealed,
            file,
            remaining,
        } = point;
        let summary = remaining.builder.summary;
        let removed: Vec<Offset> = self.bases().filter(|base| *base > summary.base).collect();
        Arc::make_mut(&mut self.sealed).truncate(sealed);
        self.log_start = self.log_start.min(summary.next);
        self.count_truncation(summary.next);
        let first_base = self.sealed.first().map_or(summary.base, |s| s.summary.base);
        let pending = Manifest {
            pending_truncation: PendingTruncation::Tail,
            first_base,
            unlisted_base: summary.base,
            ..self.manifest()
        };
        replace(&self.shared, names::MANIFEST, pending.encode()).await?;

        self.remove_segments(&removed).await?;
        self.remove_snapshots_past(summary.next).await?;
        file.truncate(summary.size).await?;
        let proof = file.sync().await?;
        let segment = remaining.write_indexes(&self.shared).await?;
        let ackable = AckableOffset::from_proof(&proof, &file, summary.size, summary.next);
        self.finish_truncation(segment, remaining.builder, file, ackable)
            .await?;
        Ok(replace(&self.shared, names::MANIFEST, self.manifest().encode()).await?)
    }

    /// Counts a truncation to `end`, BEFORE it happens on disk: readers of older snapshots then know why bytes are
    /// missing.
    fn count_truncation(&mut self, end: Offset) {
        (self.truncations, self.truncated_to) = (self.truncations + 1, end);
        self.shared.status.set_truncations(self.truncations);
    }

    async fn restart_at(&mut self, offset: Offset) -> Result<(), LogError> {
        let removed: Vec<Offset> = self.bases().collect();
        self.sealed = Arc::default();
        self.background.seal = None;
        self.log_start = offset;
        self.count_truncation(offset);
        let pending = Manifest {
            pending_truncation: PendingTruncation::All,
            first_base: offset,
            unlisted_base: offset,
            ..self.manifest()
        };
        replace(&self.shared, names::MANIFEST, pending.encode()).await?;

        self.epochs = LeaderEpochs::default();
        self.remove_segments(&removed).await?;
        self.remove_snapshots_past(Offset(-1)).await?;
        let parts = create_first_segment(&self.shared, &self.config, offset).await?;
        let proof = parts.proof.expect("a fresh segment is synced");
        let ackable = AckableOffset::from_proof(&proof, &parts.file, 0, offset);
        self.finish_truncation(parts.active, parts.builder, parts.file, ackable)
            .await?;
        Ok(replace(&self.shared, names::MANIFEST, self.manifest().encode()).await?)
    }

    /// Makes the remaining segment the active one and rebuilds the state of the log.
    async fn finish_truncation(
        &mut self,
        active: Segment,
        builder: SegmentBuilder,
        file: File<E>,
        ackable: AckableOffset,
    ) -> Result<(), LogError> {
        let summary = active.summary;
        (self.active, self.builder, self.file, self.ackable) = (active, builder, file, ackable);
        self.durable_end = summary.next;
        self.high_watermark = OffsetMetadata {
            offset: self.high_watermark.offset.clamp(self.log_start, summary.next),
            position: None,
        };
        self.recent.clear();
        self.recent.push_back(Boundary {
            offset: summary.next,
            position: summary.size,
        });
        self.undo.clear();
        self.background.seal = None;
        self.pipeline.reset_submitted(&summary);
        self.pipeline.clear_events();
        self.view = None;

        self.epochs.truncate_from_end(summary.next);
        write_epochs(Arc::clone(&self.shared), self.epochs.clone()).await?;
        self.background.persisted_epochs = self.epochs.clone();
        self.producers = Producers::default();
        let listing = list(&self.shared).await?;
        replay::load_producers(self, &listing, &mut Recovery::default()).await
    }

    pub(crate) fn bases(&self) -> impl Iterator<Item = Offset> {
        self.sealed
            .iter()
            .map(|s| s.summary.base)
            .chain([self.active.summary.base])
    }

    async fn remove_segments(&self, bases: &[Offset]) -> Result<(), LogError> {
        for base in bases {
            for suffix in [names::LOG, names::INDEX, names::TIME_INDEX, names::TXN_INDEX] {
                remove_if_there(&self.shared, &names::path(self.folder(), *base, suffix)).await?;
            }
        }
        Ok(self.shared.dir.dir.sync_dir(self.folder()).await?)
    }

    async fn remove_snapshots_past(&mut self, end: Offset) -> Result<(), LogError> {
        for snapshot in list(&self.shared).await?.snapshots.split_off(&end.plus(1)) {
            remove_snapshot(&self.shared, snapshot).await?;
        }
        self.clean_stop_snapshot = self.clean_stop_snapshot.filter(|s| *s <= end);
        Ok(self.shared.dir.dir.sync_dir(self.folder()).await?)
    }
}

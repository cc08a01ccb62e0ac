//! Cutting the log's end off, as followers do, and noting the begin of a leader's reign.
//!
//! The order on disk, each step durable before the next:
//! 1. the manifest says that a cut to here is under way, and counts it. From now on a recovery point that was recorded before
//!    means nothing above the cut, and a crash is followed by the rest of the cut;
//! 2. whole segments above it go, with the producers' snapshots past it (P10), and the directory is synced;
//! 3. the segment it falls into is cut and synced, its indexes are built anew;
//! 4. the manifest says that it is done. Only then may anything be appended: old bytes never return behind new ones.
//!
//! Where one of these fails the log is broken until restart, which finishes the cut.

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

/// Where a cut falls.
struct TruncationPoint<E: Env> {
    /// How many sealed segments stay as they are.
    sealed: usize,
    /// The segment that is cut.
    file: File<E>,
    /// What is left of it: the log then ends where this does.
    left: ScannedSegment,
}

impl<E: Env> Log<E> {
    /// Notes, durably, that offsets may be missing from now on: BEFORE batches are taken from a leader whose log may be compacted.
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

    /// Cuts everything at `offset` and past it; a batch that holds it goes whole. Durable when this returns. Nothing if the log
    /// ends before. The producers' state is that of the log that is left.
    ///
    /// After a cut events of before are not told any more: who waits for an offset past the new end waits in vain.
    ///
    /// # Errors
    /// If [`Log::broken`] then says so, restart finishes the cut; else nothing was begun.
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
        let cut = self.find_truncation_point(offset).await?;
        if cut.left.builder.summary.next < self.log_start && offset >= self.log_start {
            // The log's start is in the middle of a batch. What of it was shown is not given out again (L6).
            return self.truncate_fully_and_start_at(offset).await;
        }
        let result = self.cut(cut).await;
        self.break_on_error(result)
    }

    /// Cuts everything and begins anew at `offset`: for a follower that has nothing its leader has. Durable when this returns.
    ///
    /// # Errors
    /// If [`Log::broken`] then says so, restart finishes the cut; else nothing was begun.
    pub async fn truncate_fully_and_start_at(&mut self, offset: Offset) -> Result<(), LogError> {
        self.settle().await?;
        let result = self.restart_at(offset).await;
        self.break_on_error(result)
    }

    /// Waits until nothing is in flight, and sees whether the log can be changed.
    pub(crate) async fn settle(&mut self) -> Result<(), LogError> {
        self.quiesce().await;
        match &self.pipeline.broken {
            Some(why) => Err(LogError::Io(why.clone())),
            None => Ok(()),
        }
    }

    /// Completes a sealed segment whose listing had failed.
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

    /// Scans the segment that `offset` falls into up to there: what is left of it is what the log ends with.
    async fn find_truncation_point(&mut self, offset: Offset) -> Result<TruncationPoint<E>, LogError> {
        let reader = self.reader();
        let sealed = reader.segment_of(offset);
        let open = reader.open(sealed).await?;
        let (summary, file) = (open.segment.summary, open.file);
        let created = self.shared.dir.env.wall();
        let mut left = ScannedSegment::new(SegmentBuilder::new(summary.base, created, self.jitter_ms()));
        let mut batches = BatchScan::new(&file, 0, summary.size);
        let mut chain = BatchChain::of_segment(summary.base);
        while let Some(batch) = batches.next(&mut chain).await? {
            if batch.header.last_offset() >= offset {
                break;
            }
            left.add(&batch.header, self.config.index_interval_bytes);
        }
        Ok(TruncationPoint { sealed, file, left })
    }

    async fn cut(&mut self, cut: TruncationPoint<E>) -> Result<(), LogError> {
        let TruncationPoint { sealed, file, left } = cut;
        let summary = left.builder.summary;
        let removed: Vec<Offset> = self.bases().filter(|base| *base > summary.base).collect();
        Arc::make_mut(&mut self.sealed).truncate(sealed);
        self.log_start = self.log_start.min(summary.next);
        self.count_truncation(summary.next);
        let first_base = self.sealed.first().map_or(summary.base, |s| s.summary.base);
        let pending_truncation = Manifest {
            pending_truncation: PendingTruncation::Tail,
            first_base,
            unlisted_base: summary.base,
            ..self.manifest()
        };
        replace(&self.shared, names::MANIFEST, pending_truncation.encode()).await?;

        self.remove_segments(&removed).await?;
        self.remove_snapshots_past(summary.next).await?;
        file.truncate(summary.size).await?;
        let proof = file.sync().await?;
        let segment = left.write_indexes(&self.shared).await?;
        let ackable = AckableOffset::from_proof(&proof, &file, summary.size, summary.next);
        self.finish_truncation(segment, left.builder, file, ackable)
            .await?;
        Ok(replace(&self.shared, names::MANIFEST, self.manifest().encode()).await?)
    }

    /// Counts a truncation to `end`, BEFORE it is on the disk: readers of older snapshots then know why bytes are missing.
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
        let pending_truncation = Manifest {
            pending_truncation: PendingTruncation::All,
            first_base: offset,
            unlisted_base: offset,
            ..self.manifest()
        };
        replace(&self.shared, names::MANIFEST, pending_truncation.encode()).await?;

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

    /// Takes up what is left as the log.
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

//! Background work on the disk, one job at a time: completing and listing sealed segments, writing leader epochs and
//! index entries. Acknowledgements don't wait for it; the manifest does.

use std::sync::Arc;
use std::task::{Context, Poll};

use brokkr_env::{Env, Error, Result};
use brokkr_types::Offset;
use bytes::Bytes;

use crate::files::folder::{remove_snapshot, replace, write_epochs, write_snapshot};
use crate::files::index_files::{make_indexes, write_tails};
use crate::files::segment_scan::rebuild_indexes;
use crate::files::shared::LogShared;
use crate::formats::manifest::{Manifest, PendingTruncation};
use crate::formats::names;
use crate::formats::snapshot::SnapshotFiles;
use crate::log::Log;
use crate::log::background_work::BackgroundJob;
use crate::log::pipeline::InFlight;
use crate::state::epochs::LeaderEpochs;
use crate::state::segment::Segment;

impl<E: Env> Log<E> {
    /// The offset that may be recorded: the durable end (P13). Leader epochs and producers need not be on disk up to
    /// there, as recovery scans every segment that the manifest doesn't list.
    pub fn recovery_point(&self) -> Offset {
        self.durable_end
    }

    pub(crate) fn begin_background(&mut self) -> bool {
        // Not while a segment rolls: index entries written meanwhile would count for the next segment.
        if self.background.is_busy() || self.background.stalled || self.pipeline.is_rolling() {
            return false;
        }
        if self.background.seal.is_some() {
            return self.begin_seal();
        }
        if self.epochs != self.background.persisted_epochs && !self.latest_epoch_is_empty() {
            let epochs = self.epochs.clone();
            let writing = write_epochs(Arc::clone(&self.shared), epochs.clone());
            self.background.job = Some((BackgroundJob::Epochs(epochs), InFlight::new(writing)));
            return true;
        }
        if self.begin_rebuild() {
            return true;
        }
        let (offsets, times) = (self.active.offsets.tail.len(), self.active.times.tail.len());
        let tail_max = self.shared.dir.limits.log_index_tail;
        if offsets < tail_max && times < tail_max {
            return false;
        }
        let writing = write_tails(Arc::clone(&self.shared), self.active.clone(), false);
        self.background.job = Some((
            BackgroundJob::IndexTails { offsets, times },
            InFlight::new(writing),
        ));
        true
    }

    /// Rebuilds the indexes of a sealed segment that a reader reported. Those of the active segment wait until it is
    /// sealed; reads do without them.
    fn begin_rebuild(&mut self) -> bool {
        let active = self.active.summary.base;
        let Some(base) = self.shared.status.take_suspect_index(|base| base != active) else {
            return false;
        };
        let Some(segment) = self.sealed.iter().find(|s| s.summary.base == base) else {
            return false;
        };
        let (shared, info) = (Arc::clone(&self.shared), segment.info());
        let interval = self.config.index_interval_bytes;
        self.background.rebuilding = Some(InFlight::new(async move {
            let path = names::path(&shared.folder, base, names::LOG);
            let rebuilt = match shared.dir.files.open(&path).await {
                Ok(file) => rebuild_indexes(&shared, &file, &info, interval).await,
                Err(e) => Err(e.into()),
            };
            (base, rebuilt)
        }));
        true
    }

    fn poll_rebuild(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(Poll::Ready((base, rebuilt))) = self.background.rebuilding.as_mut().map(|r| r.poll(cx))
        else {
            return false;
        };
        self.background.rebuilding = None;
        match rebuilt {
            Ok(rebuilt) => {
                let sealed = Arc::make_mut(&mut self.sealed);
                if let Some(segment) = sealed.iter_mut().find(|s| s.summary.base == base) {
                    *segment = Arc::new(rebuilt);
                }
                self.shared.status.index_rebuilt(base);
                self.view = None;
            }
            // Not retried before a restart: reads do without the index.
            Err(error) => {
                let what = format_args!("{} {base}: {error}", self.folder());
                let error_log = &self.shared.dir.error_log;
                error_log.record("the indexes of a segment can't be built again", &what);
            }
        }
        true
    }

    pub(crate) fn begin_seal(&mut self) -> bool {
        let mut manifest = self.manifest();
        let Some(plan) = &self.background.seal else {
            return false;
        };
        manifest.sealed.push(plan.segment.info());
        manifest.unlisted_base = plan.next_base;
        let sealing = seal(
            Arc::clone(&self.shared),
            SealInput {
                segment: Segment::clone(&plan.segment),
                next_base: plan.next_base,
                epochs: self.epochs.clone(),
                snapshot: plan.snapshot.clone(),
                clean_stop_snapshot: self.clean_stop_snapshot,
                manifest: manifest.encode(),
            },
        );
        let job = BackgroundJob::Seal(self.epochs.clone());
        self.background.job = Some((job, InFlight::new(sealing)));
        true
    }

    /// The current manifest, without the active segment and without a sealed one that is not complete: recovery must
    /// scan those for leader epochs and producers.
    pub(crate) fn manifest(&self) -> Manifest {
        let listed = self.sealed.len() - usize::from(self.background.seal.is_some());
        Manifest {
            topic_id: self.topic_id,
            partition: self.shared.partition(),
            truncations: self.truncations,
            truncated_to: self.truncated_to,
            pending_truncation: PendingTruncation::None,
            gaps: self.gaps,
            log_start: self.log_start,
            first_base: self
                .sealed
                .first()
                .map_or(self.active.summary.base, |s| s.summary.base),
            unlisted_base: self
                .sealed
                .get(listed)
                .map_or(self.active.summary.base, |s| s.summary.base),
            sealed: self.sealed[..listed].iter().map(|s| s.info()).collect(),
            active: None,
            epochs_crc: 0,
        }
    }

    pub(crate) fn poll_background(&mut self, cx: &mut Context<'_>) -> bool {
        if self.poll_rebuild(cx) {
            return true;
        }
        let Some((_, running)) = &mut self.background.job else {
            return false;
        };
        let Poll::Ready(result) = running.poll(cx) else {
            return false;
        };
        let (job, _) = self.background.job.take().expect("it was just polled");
        match result {
            Ok(()) => self.background_done(job),
            Err(error) => self.background_failed(&job, error),
        }
        true
    }

    fn background_done(&mut self, job: BackgroundJob) {
        match job {
            BackgroundJob::Seal(epochs) => {
                self.background.persisted_epochs = epochs;
                let plan = self.background.seal.take().expect("one was sealed");
                self.clean_stop_snapshot = None;
                let listed = Arc::new(Segment::sealed(plan.segment.info()));
                let sealed = Arc::make_mut(&mut self.sealed);
                let last = sealed.last_mut().expect("the one that was sealed");
                assert_eq!(
                    last.summary.base, listed.summary.base,
                    "segments are sealed in order"
                );
                *last = listed;
                self.view = None;
            }
            BackgroundJob::Epochs(epochs) => self.background.persisted_epochs = epochs,
            BackgroundJob::IndexTails { offsets, times } => {
                self.active.offsets.flushed(offsets);
                self.active.times.flushed(times);
                self.view = None;
            }
        }
    }

    /// Nothing is lost: the data is still in memory. A roll that waits for the job fails.
    fn background_failed(&mut self, job: &BackgroundJob, error: Error) {
        let kind = match job {
            BackgroundJob::Seal(_) => "a sealed segment not listed; tried again after the next write",
            BackgroundJob::Epochs(_) => "leader epochs not persisted; tried again after the next write",
            BackgroundJob::IndexTails { .. } => "an index not written; tried again after the next write",
        };
        let what = format_args!("{}: {error}", self.folder());
        self.shared.dir.error_log.record(kind, &what);
        self.background.stalled = true;
        if self.shared.dir.dir.poisoned().is_some() {
            self.fail(self.ackable.offset(), error);
        } else if let Some(group) = self.pipeline.groups.front()
            && group.roll.is_some()
            // Once the write in flight has ended, the roll tries again.
            && self.pipeline.writing.is_none()
            && matches!(job, BackgroundJob::Seal(_))
        {
            self.fail(group.first, error);
        }
    }
}

/// The input of [`seal`].
struct SealInput {
    segment: Segment,
    next_base: Offset,
    epochs: LeaderEpochs,
    snapshot: SnapshotFiles,
    clean_stop_snapshot: Option<Offset>,
    manifest: Bytes,
}

/// Completes a sealed segment: steps 3 and 4 of a roll. May be repeated.
async fn seal<E: Env>(shared: Arc<LogShared<E>>, sealing: SealInput) -> Result<()> {
    let offset = sealing.snapshot.offset;
    write_tails(Arc::clone(&shared), sealing.segment, true).await?;
    make_indexes(&shared, sealing.next_base).await?;
    write_snapshot(&shared, &sealing.snapshot).await?;
    write_epochs(Arc::clone(&shared), sealing.epochs).await?;
    if let Some(loose) = sealing.clean_stop_snapshot.filter(|loose| *loose != offset) {
        remove_snapshot(&shared, loose).await?;
    }
    // Last: recovery does not scan a segment that is listed.
    replace(&shared, names::MANIFEST, sealing.manifest).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{LogConfig, LogDir};
    use brokkr_env::tokio::TokioEnv;
    use brokkr_types::{LeaderEpoch, UnixMillis, Uuid};
    use brokkr_wire::records::{BatchBuilder, Origin};

    #[tokio::test]
    async fn no_index_entries_are_written_while_a_segment_rolls() {
        let env = TokioEnv::new(2);
        let path = std::env::temp_dir().join(format!("brokkr-log-tails-{}", env.rng("name").next_u64()));
        let dir = env
            .open_dir(path.to_str().expect("UTF-8"))
            .await
            .expect("a directory");
        let dir = LogDir::new(env.clone(), dir, crate::LogLimits::default());
        let config = LogConfig {
            segment_bytes: 20_000,
            index_interval_bytes: 1,
            flush_messages: u64::MAX,
            ..LogConfig::default()
        };
        let id = Uuid::from_random([7; 16]);
        let mut log = Log::create(&dir, "t-0", id, config).await.expect("created");
        for n in 0..1000 {
            let mut builder = BatchBuilder::new();
            builder.push(UnixMillis(n), None, Some(b"value"), &[]);
            let (now, wall) = (env.now(), env.wall());
            let staged = log.append(&builder.build(), Origin::Client, LeaderEpoch(0), now, wall);
            staged.expect("staged");
        }
        let mut rolled = 0;
        while log.ackable().offset() < log.log_end() {
            tokio::select! {
                biased;
                _ = log.next_event() => {}
                () = tokio::task::yield_now() => {}
            }
            let rolling = log.pipeline.is_rolling();
            rolled += usize::from(rolling);
            let tails = matches!(log.background.job, Some((BackgroundJob::IndexTails { .. }, _)));
            assert!(
                !(rolling && tails),
                "the tail would be booked to the next segment"
            );
        }
        assert!(rolled > 0 && log.segments() > 2);
        log.delete().await.expect("deleted");
    }
}

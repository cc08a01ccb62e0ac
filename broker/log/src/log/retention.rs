//! Removing segments from the start of a log: by age, by size, and for DeleteRecords.
//!
//! The log start offset is raised in the manifest BEFORE files are removed: a crash in between leaves files that the
//! next start removes, never a log that starts in a gap. Files are renamed to `.deleted` and removed later, so that
//! ongoing reads succeed. Records at or past the high watermark are never removed.

use std::sync::Arc;
use std::time::Duration;

use brokkr_env::{Env, ErrorKind};
use brokkr_types::{Instant, Offset, UnixMillis};

use crate::error::LogError;
use crate::files::dir::LogDir;
use crate::files::folder::replace;
use crate::formats::names;
use crate::log::{Log, Unretired};
use crate::state::retention::{Expired, expired};
use crate::state::segment::SegmentSummary;

/// The outcome of [`Log::enforce_retention`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RetentionResult {
    /// Segments that were removed.
    pub segments: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Whether the active segment expired too: a roll was staged, and a later call removes it, once
    /// [`Log::next_event`] has rolled.
    pub rolling: bool,
}

impl<E: Env> Log<E> {
    /// Removes the segments that are expired or below the log start offset, oldest first. Also removes expired
    /// producers.
    ///
    /// # Errors
    /// The log start offset may have been raised; the next call, or the next start, removes the remaining files.
    pub async fn enforce_retention(
        &mut self,
        now: Instant,
        wall: UnixMillis,
    ) -> Result<RetentionResult, LogError> {
        let expiration_ms = u64::try_from(self.config.producer_id_expiration_ms).unwrap_or(0);
        self.producers.expire(now, Duration::from_millis(expiration_ms));
        self.enforce_producer_budget();
        if self.expired(wall) == Expired::default() && self.unretired.is_none() {
            return Ok(RetentionResult::default());
        }
        self.settle().await?;
        let expired = self.expired(wall);
        let mut retired = RetentionResult {
            rolling: expired.active,
            ..RetentionResult::default()
        };
        // A segment that the manifest doesn't list yet waits.
        let count = expired
            .sealed
            .min(self.sealed.len() - usize::from(self.background.seal.is_some()));
        if count > 0 {
            let removed: Vec<SegmentSummary> = self.sealed[..count].iter().map(|s| s.summary).collect();
            let start = removed.last().expect("count is not 0").next.max(self.log_start);
            self.raise_log_start(start, count).await?;
            brokkr_types::reached!("retention took segments");
            retired.segments = removed.len();
            retired.bytes = removed.iter().map(|h| h.size).sum();
            self.note_retired(&removed);
        }
        let renamed = self.retire_renamed().await;
        if expired.active && self.builder.summary == self.active.summary {
            self.stage_empty_roll(wall);
        }
        renamed.map(|()| retired)
    }

    /// Raises the log start offset, as for DeleteRecords. Durable when this returns; segments below it are removed by
    /// the next [`Log::enforce_retention`]. No change if the log starts there or later.
    ///
    /// # Errors
    /// [`LogError::OutOfRange`] past the high watermark.
    pub async fn advance_log_start(&mut self, offset: Offset) -> Result<(), LogError> {
        let (log_start, end) = (self.log_start, self.high_watermark());
        if offset > end {
            return Err(LogError::OutOfRange {
                offset,
                log_start,
                end,
            });
        }
        if offset <= log_start {
            return Ok(());
        }
        self.settle().await?;
        self.raise_log_start(offset, 0).await
    }

    /// Raises the log start offset and removes the `count` oldest segments from the log: in the manifest first, so an
    /// error leaves the log unchanged. On a full disk the reserve makes this write possible.
    async fn raise_log_start(&mut self, start: Offset, count: usize) -> Result<(), LogError> {
        let mut manifest = self.manifest();
        manifest.sealed.drain(..count);
        manifest.log_start = start;
        manifest.first_base = self
            .sealed
            .get(count)
            .map_or(self.active.summary.base, |s| s.summary.base);
        while let Err(error) = replace(&self.shared, names::MANIFEST, manifest.encode()).await {
            let error = LogError::Io(error);
            if !self.shared.dir.free_reserve_after(&error).await {
                return Err(error);
            }
        }
        Arc::make_mut(&mut self.sealed).drain(..count);
        self.log_start = start;
        // BEFORE files are removed: a reader of an older snapshot then knows why one is missing.
        self.shared.status.set_log_start(start);
        self.view = None;
        self.epochs.truncate_from_start(start);
        self.set_high_watermark(self.high_watermark());
        Ok(())
    }

    fn expired(&self, wall: UnixMillis) -> Expired {
        let offsets = (self.log_start, self.high_watermark.offset);
        expired(&self.config, &self.sealed, &self.active.summary, offsets, wall)
    }

    /// Notes the files of segments that are no longer in the log, to be removed.
    fn note_retired(&mut self, removed: &[SegmentSummary]) {
        let suffixes = [
            names::LOG,
            names::INDEX,
            names::TIME_INDEX,
            names::TXN_INDEX,
            names::SNAPSHOT,
            names::WINDOW,
        ];
        let mut unretired = self.unretired.take().unwrap_or_default();
        for summary in removed {
            let paths = suffixes.map(|suffix| names::path(self.folder(), summary.base, suffix));
            unretired.0.extend(paths);
        }
        self.unretired = Some(unretired);
    }

    /// Renames what is to be removed, and removes it after `file.delete.delay.ms`. What can't be renamed stays for a later call: by its
    /// own name it can be removed only while this log has the folder.
    async fn retire_renamed(&mut self) -> Result<(), LogError> {
        let Some(unretired) = self.unretired.take() else {
            return Ok(());
        };
        let dir = self.shared.dir.clone();
        let (mut retired, mut left, mut failed) = (Vec::new(), Vec::new(), Ok(()));
        for path in unretired.0 {
            let to = format!("{path}.{}", names::DELETED);
            let result = dir.dir.rename(&path, &to).await;
            dir.files.forget(&path);
            match result {
                Ok(()) => retired.push(to),
                Err(e) if e.kind() == ErrorKind::NotFound => {}
                Err(e) => {
                    left.push(path);
                    failed = failed.and(Err(e.into()));
                }
            }
        }
        self.unretired = (!left.is_empty()).then(|| Box::new(Unretired(left)));
        let after = Duration::from_millis(self.config.file_delete_delay_ms);
        let kind = "file not removed; tried again in a minute";
        dir.remove_later("log-retired", retired, after, kind, |dir, path| async move {
            Ok(dir.remove(&path).await?)
        });
        failed
    }

    /// Deletes the log: renames its folder, durably, and removes it after `file.delete.delay.ms`.
    pub async fn delete(mut self) -> Result<(), LogError> {
        self.quiesce().await;
        let after = Duration::from_millis(self.config.file_delete_delay_ms);
        self.shared.dir.delete_log(self.folder(), after).await
    }
}

impl<E: Env> LogDir<E> {
    /// As [`Log::delete`], for a log that is not open, for example because it can't be opened.
    pub async fn delete_log(&self, folder: &str, after: Duration) -> Result<(), LogError> {
        let deleted = self.rename_log(folder, names::DELETE_FOLDER).await?;
        self.remove_deleted(vec![deleted], after);
        Ok(())
    }

    /// Sets a folder aside that belongs to no partition: renames it to Kafka's `TOPIC-N.UNIQUEID-stray` and returns
    /// that name. Its files are unchanged and never removed. Durable when this returns.
    pub async fn set_aside(&self, folder: &str) -> Result<String, LogError> {
        self.rename_log(folder, names::STRAY_FOLDER).await
    }

    async fn rename_log(&self, folder: &str, suffix: &str) -> Result<String, LogError> {
        let unique = u128::from_be_bytes(self.env().rng("log").bytes());
        let to = names::folder_with_suffix(folder, unique, suffix);
        self.dir.rename(folder, &to).await?;
        self.files.forget_folder(folder);
        self.dir.sync_dir("").await?;
        Ok(to)
    }
}

//! Leader epochs of a log: reading `leader-epoch-checkpoint` at open, beginning an epoch as leader.

use std::collections::BTreeSet;
use std::sync::Arc;

use brokkr_env::Env;
use brokkr_types::{LeaderEpoch, Offset};

use super::replay;
use crate::error::LogError;
use crate::files::dir::LogDir;
use crate::files::folder::{FolderListing, SMALL_FILE_BYTES_MAX, write_epochs};
use crate::formats::manifest::{Manifest, PendingTruncation};
use crate::formats::names;
use crate::formats::text::decode_epochs;
use crate::log::Log;
use crate::state::epochs::LeaderEpochs;

impl<E: Env> Log<E> {
    /// Begins the leader epoch `epoch` at the log end offset, durably, BEFORE anything is appended in it (R18,
    /// KAFKA-7415). No change if the epoch is known.
    pub async fn assign_epoch(&mut self, epoch: LeaderEpoch) -> Result<(), LogError> {
        self.settle().await?;
        let mut epochs = self.epochs.clone();
        if epochs.assign(epoch, self.log_end()) || epochs != self.background.persisted_epochs {
            write_epochs(Arc::clone(&self.shared), epochs.clone()).await?;
            self.background.persisted_epochs = epochs.clone();
            self.opened_crcs = None;
            self.epochs = epochs;
            self.view = None;
        }
        Ok(())
    }

    /// Begins the leader epoch `epoch` at the log end offset, in memory only. The caller must call
    /// [`Log::assign_epoch`] BEFORE the first append. A crash may lose an epoch without batches: the next one begins
    /// at the same offset.
    ///
    /// # Panics
    /// If a batch is staged.
    pub fn begin_epoch(&mut self, epoch: LeaderEpoch) {
        assert_eq!(self.log_end(), self.written_end(), "nothing is staged");
        if self.epochs.assign(epoch, self.log_end()) {
            self.view = None;
        }
    }

    /// Whether the latest epoch has no batch and is not durable.
    pub fn epoch_is_not_durable(&self) -> bool {
        self.epochs != self.background.persisted_epochs && self.latest_epoch_is_empty()
    }

    pub(crate) fn latest_epoch_is_empty(&self) -> bool {
        self.epochs
            .latest()
            .is_some_and(|last| last.start >= self.log_end())
    }

    /// Reads `leader-epoch-checkpoint` and corrects it by the log. If it is missing or wrong, the epochs are read
    /// from the batches.
    pub(crate) async fn load_epochs(
        &mut self,
        listing: &FolderListing,
        scanned_from: Offset,
        manifest: Option<&Manifest>,
    ) -> Result<(), LogError> {
        let mut epochs = LeaderEpochs::default();
        let mut lost = true;
        // A crash interrupted the removal of the whole log: the file has the epochs of what was removed.
        let stale = manifest.is_some_and(|m| m.pending_truncation == PendingTruncation::All);
        if listing.names.contains(names::EPOCHS) {
            let path = format!("{}/{}", self.folder(), names::EPOCHS);
            let text = self.shared.dir.dir.read(&path, SMALL_FILE_BYTES_MAX).await?;
            match decode_epochs(&text) {
                Ok(read) => {
                    let crc = crc32fast::hash(&text);
                    let unchanged_since_stop =
                        manifest.is_some_and(|m| m.active.is_some() && m.epochs_crc == crc);
                    lost = !unchanged_since_stop && !self.epochs_agree(&read, scanned_from).await?;
                    if !lost {
                        epochs = read;
                    } else if self
                        .shared
                        .dir
                        .error_log
                        .is_first_of("leader epochs that disagree", &path)
                    {
                        tracing::error!(path, "disagrees with the log; read from the log itself");
                    }
                }
                Err(what) => {
                    if self
                        .shared
                        .dir
                        .error_log
                        .is_first_of("leader epochs not readable", &path)
                    {
                        tracing::error!(path, what, "not readable; read from the log itself");
                    }
                }
            }
        }
        self.background.persisted_epochs = epochs.clone();
        if stale {
            (epochs, lost) = (LeaderEpochs::default(), true);
        }
        epochs.truncate_from_end(self.written_end());
        epochs.truncate_from_start(self.log_start);
        // The file has the epochs of the segments that were not scanned: a segment is listed only once its epochs are
        // durable.
        let from = if lost { self.log_start } else { scanned_from };
        replay::add_epochs(self, &mut epochs, from).await?;
        self.epochs = epochs;
        // An epoch that begins at the log end offset may stay in the file: the next start truncates it again.
        let mut known = self.background.persisted_epochs.clone();
        known.truncate_from_end(self.written_end());
        if self.epochs != known {
            write_epochs(Arc::clone(&self.shared), self.epochs.clone()).await?;
            self.background.persisted_epochs = self.epochs.clone();
            self.opened_crcs = None;
        }
        Ok(())
    }

    /// Whether the checkpoint, which has no checksum, matches the log up to `end`. Epochs never decrease, so it
    /// suffices to compare both sides of each start offset, and both ends of the log.
    async fn epochs_agree(&mut self, epochs: &LeaderEpochs, end: Offset) -> Result<bool, LogError> {
        let reader = self.reader();
        let starts = epochs.entries().iter().map(|e| e.start);
        let mut offsets: BTreeSet<Offset> = starts.flat_map(|start| [start.plus(-1), start]).collect();
        offsets.extend([reader.log_start(), end.plus(-1)]);
        for offset in offsets
            .range(reader.log_start()..)
            .filter(|offset| **offset < end)
        {
            let Some(header) = reader.batch_at(*offset).await? else {
                continue;
            };
            // The log start offset may be inside a batch.
            let known = epochs.epoch_for(header.base_offset.max(reader.log_start()));
            if header.partition_leader_epoch.0 >= 0 && known != Some(header.partition_leader_epoch) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

impl<E: Env> LogDir<E> {
    /// [`Log::assign_epoch`]; on a full disk it uses the reserve, so that the broker can start.
    pub async fn assign_epoch(&self, log: &mut Log<E>, epoch: LeaderEpoch) -> Result<(), LogError> {
        while let Err(error) = log.assign_epoch(epoch).await {
            if !self.free_reserve_after(&error).await {
                return Err(error);
            }
        }
        Ok(())
    }
}

//! Writes metadata snapshots, and deletes old snapshots and the part of the log that they replace.
//!
//! The order: the snapshot is complete and durable, then older ones than the spare are deleted, then the log up to the
//! spare's end offset. The spare and the log behind it thus produce the same state, in case the latest snapshot turns out
//! to be damaged.

use brokkr_env::Env;
use brokkr_metadata::snapshot::{self, Snapshot, SnapshotId};
use brokkr_types::{Offset, UnixMillis};

use super::error::{ControllerError, content_error};
use super::host::Host;
use crate::log_dir::METADATA_FOLDER;

/// Snapshots that are kept: the latest, and a spare.
const SNAPSHOTS_KEPT: usize = 2;

impl<E: Env> Host<E> {
    pub(super) async fn snapshot_if_due(&mut self) {
        let is_due = self.bytes_since_snapshot >= self.snapshot_every_bytes;
        if !is_due || !self.is_followed || !self.are_deleted || self.env.now() < self.snapshot_not_before {
            return;
        }
        match self.snapshot().await {
            Ok(()) => (self.bytes_since_snapshot, self.snapshot_failures) = (0, 0),
            Err(error) => {
                // What a full disk left of it would take room until the next one.
                drop(super::load::remove_unfinished(&self.logs).await);
                let after =
                    self.limits.controller_snapshot_retry * 2u32.saturating_pow(self.snapshot_failures);
                let after = after.min(self.limits.controller_snapshot_retry_max);
                self.snapshot_failures += 1;
                self.snapshot_not_before = self.env.now() + after;
                tracing::warn!(%error, ?after, "no snapshot of the metadata; the log is kept, and it is tried again");
            }
        }
    }

    /// Writes a snapshot of the committed state, then deletes what the spare makes obsolete.
    async fn snapshot(&mut self) -> Result<(), ControllerError> {
        let id = SnapshotId {
            end_offset: self.log.log_end().0,
            epoch: self.epoch.0,
        };
        let snapshot = Snapshot {
            image: self.controller.image().clone(),
            quorum: self.quorum.clone(),
            last_timestamp: self.env.wall(),
        };
        let path = format!("{METADATA_FOLDER}/{}", id.file_name());
        let bytes = snapshot::write(&snapshot, id, UnixMillis(self.env.wall().0))
            .map_err(|e| content_error(&path, e))?;
        self.logs.dir().replace(&path, bytes).await?;
        let mut ids = super::load::snapshots(&self.logs).await?;
        let kept = ids.split_off(ids.len().saturating_sub(SNAPSHOTS_KEPT));
        for id in ids {
            let old = format!("{METADATA_FOLDER}/{}", id.file_name());
            self.logs.dir().remove(&old).await?;
        }
        if let [spare, _] = kept[..] {
            self.log.advance_log_start(Offset(spare.end_offset)).await?;
            self.log
                .enforce_retention(self.env.now(), self.env.wall())
                .await?;
            self.recorded.publish(self.log.checkpoint());
        }
        Ok(())
    }
}

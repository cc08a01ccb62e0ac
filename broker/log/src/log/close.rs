//! Clean stop of a log, and the checkpoint to record for it.

use std::sync::Arc;

use brokkr_env::Env;

use crate::error::LogError;
use crate::files::folder::{remove_snapshot, replace, write_epochs, write_snapshot};
use crate::files::index_files::write_tails;
use crate::formats::manifest::Manifest;
use crate::formats::text::encode_epochs;
use crate::formats::{names, snapshot};
use crate::log::Log;
use crate::state::log_checkpoint::LogCheckpoint;

impl<E: Env> Log<E> {
    /// The checkpoint to record for this log: see [`crate::checkpoint`].
    pub fn checkpoint(&self) -> LogCheckpoint {
        let summary = &self.active.summary;
        let is_durable = summary.first_crc != 0 && self.durable_end > summary.base;
        LogCheckpoint {
            active: is_durable.then_some((summary.base, summary.first_crc)),
            topic_id: self.topic_id,
            recovery_point: Some(self.recovery_point()),
            log_start: self.log_start,
            truncations: self.truncations,
            ..LogCheckpoint::default()
        }
    }

    /// Closes the log cleanly: writes everything staged, syncs, and writes what the next start reads. Once the caller
    /// has recorded the returned checkpoint and written the clean-shutdown marker, the next start scans nothing.
    ///
    /// # Errors
    /// The stop is not clean: the marker must not be written.
    pub async fn close(mut self) -> Result<LogCheckpoint, LogError> {
        self.settle().await?;
        self.complete_seal().await?;
        let summary = self.active.summary;
        let closed = LogCheckpoint {
            topic_id: self.topic_id,
            recovery_point: Some(summary.next),
            log_start: self.log_start,
            truncations: self.truncations,
            clean: true,
            ..LogCheckpoint::default()
        };
        if let Some((epochs_crc, manifest_crc)) = self.opened_crcs
            && manifest_crc == crc32fast::hash(&self.closing_manifest(epochs_crc).encode())
        {
            brokkr_types::reached!("a log was closed as it was opened");
            return Ok(closed);
        }
        let proof = self.file.sync().await?;
        self.on_durable(&proof, summary.next, summary.size);
        let last_time = self.builder.time_entry();
        self.active.extend(summary, &[], last_time.as_slice());
        write_tails(Arc::clone(&self.shared), self.active.clone(), true).await?;
        write_epochs(Arc::clone(&self.shared), self.epochs.clone()).await?;
        let files = snapshot::encode(summary.next, &self.producers);
        write_snapshot(&self.shared, &files).await?;
        if let Some(loose) = self.clean_stop_snapshot.filter(|loose| *loose != summary.next) {
            remove_snapshot(&self.shared, loose).await?;
        }
        let epochs_crc = crc32fast::hash(encode_epochs(&self.epochs).as_bytes());
        let manifest = self.closing_manifest(epochs_crc);
        replace(&self.shared, names::MANIFEST, manifest.encode()).await?;
        Ok(closed)
    }

    /// The manifest of a clean stop.
    fn closing_manifest(&self, epochs_crc: u32) -> Manifest {
        Manifest {
            active: Some(self.active.info()),
            epochs_crc,
            ..self.manifest()
        }
    }
}

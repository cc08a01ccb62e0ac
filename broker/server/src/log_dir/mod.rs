//! The log directories: locked and checked at a start, checkpointed while the broker runs, marked clean at the end.
//!
//! Each has files of its own: `meta.properties`, the lock, the checkpoints, the clean-shutdown marker, the reserve. A
//! directory that fails, at a start or later, takes only its own partitions offline; but the directory of the metadata log
//! must work at a start. The metadata has the directory id of each partition (KIP-858).

mod checkpoints;
mod error;
mod found;
mod identity;
mod names;
mod open;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use brokkr_env::{Dir, Env};
use brokkr_log::checkpoint::{self, CleanShutdown, DirCheckpoint};
use brokkr_log::{LogCheckpoint, LogDir};
use brokkr_types::Uuid;

use crate::config::BrokerConfig;

pub use checkpoints::checkpoints;
pub use error::LogDirError;
pub use identity::Identity;
pub use names::{METADATA_FOLDER, is_unmanaged_topic, partition_folder};
pub use open::open;

/// A log directory that this process has locked, until it ends.
pub struct OwnedLogDir<E: Env> {
    /// Its path, as configured.
    pub path: String,
    /// Its logs.
    pub logs: LogDir<E>,
    /// Its node, cluster and directory ids.
    pub identity: Identity,
    /// Its checkpoints, as the start read them.
    pub remembered: Arc<DirCheckpoint>,
    /// The partition folders in it.
    pub folders: BTreeSet<String>,
}

impl<E: Env> Clone for OwnedLogDir<E> {
    fn clone(&self) -> Self {
        Self {
            path: self.path.clone(),
            logs: self.logs.clone(),
            identity: self.identity.clone(),
            remembered: Arc::clone(&self.remembered),
            folders: self.folders.clone(),
        }
    }
}

/// All log directories.
pub struct LogDirs<E: Env> {
    /// The directory of the metadata log: one of [`LogDirs::online`], or a separate one.
    pub metadata: OwnedLogDir<E>,
    /// The directories of partitions that could be opened, in the order of `log.dirs`.
    pub online: Vec<OwnedLogDir<E>>,
    /// The paths of those that could not be opened: their partitions are offline until the next start.
    pub failed: Vec<String>,
}

impl<E: Env> Clone for LogDirs<E> {
    fn clone(&self) -> Self {
        Self {
            metadata: self.metadata.clone(),
            online: self.online.clone(),
            failed: self.failed.clone(),
        }
    }
}

/// A configured directory of partitions, whether or not it could be opened.
pub struct LogDirInfo<E: Env> {
    /// Its path, as configured.
    pub path: String,
    /// Its directory id, and the directory; `None` if it could not be opened.
    pub dir: Option<(Uuid, Dir<E>)>,
}

impl<E: Env> LogDirs<E> {
    /// Whether there is more than one, so that others can serve when one fails.
    pub fn has_several(&self) -> bool {
        self.online.len() + self.failed.len() + usize::from(self.metadata_is_apart()) > 1
    }

    fn metadata_is_apart(&self) -> bool {
        self.online.iter().all(|dir| dir.path != self.metadata.path)
    }

    /// All directories that could be opened.
    pub(super) fn opened(&self) -> impl Iterator<Item = &OwnedLogDir<E>> {
        let apart = self.metadata_is_apart().then_some(&self.metadata);
        self.online.iter().chain(apart)
    }

    /// Every directory of partitions, in the order of `log.dirs`.
    pub fn describe(&self, config: &BrokerConfig) -> Vec<LogDirInfo<E>> {
        let info = |path: &String| LogDirInfo {
            path: path.clone(),
            dir: self
                .online
                .iter()
                .find(|dir| dir.path == *path)
                .map(|dir| (dir.id(), dir.logs.dir().clone())),
        };
        config.log_dirs().iter().map(info).collect()
    }

    /// The broker epoch before this start if the stop was clean: as in Kafka, if every directory says so.
    pub fn last_broker_epoch(&self) -> Option<i64> {
        let epoch = |dir: &OwnedLogDir<E>| dir.clean().and_then(|clean| clean.broker_epoch);
        let first = epoch(&self.metadata)?;
        (self.failed.is_empty() && self.opened().all(|dir| epoch(dir) == Some(first))).then_some(first)
    }

    /// Records a clean stop. `logs` has the checkpoints of each directory, by its id, whose logs were all closed cleanly.
    /// `false` if a directory was not stopped cleanly.
    pub async fn record_clean_stop(
        &self,
        mut logs: BTreeMap<Uuid, BTreeMap<String, LogCheckpoint>>,
        metadata: (String, LogCheckpoint),
        broker_epoch: i64,
    ) -> bool {
        if self.metadata_is_apart() {
            logs.insert(self.metadata.id(), BTreeMap::new());
        }
        let (mut clean, mut metadata) = (true, Some(metadata));
        for dir in self.opened() {
            let Some(mut of_dir) = logs.remove(&dir.id()) else {
                clean = false;
                continue;
            };
            if dir.path == self.metadata.path {
                of_dir.extend(metadata.take());
            }
            clean &= dir.record_clean_stop(of_dir, broker_epoch).await;
        }
        clean
    }
}

impl<E: Env> OwnedLogDir<E> {
    /// The directory id.
    pub fn id(&self) -> Uuid {
        self.identity.directory_id
    }

    /// The clean-shutdown marker of the last stop, if it was clean, with its broker epoch.
    pub fn clean(&self) -> Option<CleanShutdown> {
        self.remembered.clean
    }

    /// The checkpoint to open a log with.
    pub fn recorded(&self, folder: &str) -> Option<&LogCheckpoint> {
        self.remembered.logs.get(folder)
    }

    /// The entries of a checkpoint for unmanaged logs.
    pub(super) fn unmanaged<'a, T: Clone>(
        &'a self,
        of: &'a BTreeMap<String, T>,
    ) -> impl Iterator<Item = (String, T)> + 'a {
        let alone =
            |folder: &str| checkpoint::split_folder(folder).is_some_and(|(t, _)| is_unmanaged_topic(t));
        of.iter()
            .filter(move |(folder, _)| alone(folder))
            .map(|(folder, known)| (folder.clone(), known.clone()))
    }

    async fn record_clean_stop(&self, mut logs: BTreeMap<String, LogCheckpoint>, broker_epoch: i64) -> bool {
        logs.extend(self.unmanaged(&self.remembered.logs));
        let logs = &logs;
        match checkpoint::write_clean_stop(&self.logs, logs, broker_epoch).await {
            Ok(()) => true,
            Err(error) => {
                tracing::warn!(dir = self.path, %error, "not stopped cleanly");
                false
            }
        }
    }
}

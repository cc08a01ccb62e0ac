//! A log without any appended batch.
//!
//! A partition exists by its committed metadata record, from which an empty log can be created again. So nothing of
//! an empty log must be durable, and it holds no open file: it is a folder with `partition.metadata`, not synced. The
//! first append creates the rest ([`FreshLog::begin`]), all of it durable BEFORE a batch is written.
//!
//! A crash may leave any subset of these files. [`LogDir::fresh`] recognizes them: no manifest, and at most an empty
//! first segment.

use std::sync::Arc;

use brokkr_env::{EntryKind, Env, ErrorKind};
use brokkr_types::{LeaderEpoch, Offset, UnixMillis, Uuid};
use bytes::Bytes;

use crate::error::LogError;
use crate::files::dir::LogDir;
use crate::files::folder::{FolderListing, create_fresh, list, read_topic_id, remove_if_there};
use crate::files::index_files::make_indexes;
use crate::files::shared::LogShared;
use crate::formats::manifest::Manifest;
use crate::formats::names;
use crate::formats::text::{encode_epochs, encode_partition_metadata};
use crate::log::Log;
use crate::log::parts::first_segment;
use crate::reader::view::{LogReader, OffsetMetadata, View};
use crate::state::config::LogConfig;
use crate::state::epochs::{EpochStart, LeaderEpochs};
use crate::state::log_checkpoint::LogCheckpoint;
use crate::state::segment::{Segment, SegmentSummary, Segments};

/// The log of a partition without any appended batch; see the module.
pub struct FreshLog<E: Env> {
    shared: Arc<LogShared<E>>,
    topic_id: Uuid,
}

impl<E: Env> FreshLog<E> {
    /// Creates the folder of a new partition. Not durable, and need not be.
    ///
    /// # Errors
    /// [`LogError::Malformed`] if the folder has other files; they are unchanged.
    pub async fn create(dir: &LogDir<E>, folder: &str, topic_id: Uuid) -> Result<Self, LogError> {
        let fresh = Self {
            shared: Arc::new(LogShared::new(dir, folder)),
            topic_id,
        };
        dir.dir.create_dir(folder).await?;
        let listing = list(&fresh.shared).await?;
        if let Some(name) = listing.names.iter().find(|name| !is_fresh_file(name)) {
            return Err(not_empty(folder, name));
        }
        fresh.write_metadata(&listing).await?;
        Ok(fresh)
    }

    /// Writes `partition.metadata` without a sync: Apache Kafka would set aside a log without the file.
    async fn write_metadata(&self, listing: &FolderListing) -> Result<(), LogError> {
        let (dir, path) = (&self.shared.dir.dir, self.metadata_path());
        if listing.names.contains(names::PARTITION_METADATA) {
            dir.remove(&path).await?;
        }
        let file = dir.create(&path).await?;
        let text = encode_partition_metadata(self.topic_id);
        Ok(file.write_at(0, vec![text.into()]).await?)
    }

    fn metadata_path(&self) -> String {
        format!("{}/{}", self.shared.folder, names::PARTITION_METADATA)
    }

    /// The partition's folder in the log directory: `topic-3`.
    pub fn folder(&self) -> &str {
        &self.shared.folder
    }

    /// The topic id.
    pub fn topic_id(&self) -> Uuid {
        self.topic_id
    }

    /// Creates the log with `epoch` as its first leader epoch. Durable when this returns. May be retried after an
    /// error.
    ///
    /// # Errors
    /// [`LogError::Malformed`] if the folder has other files.
    pub async fn begin(&self, config: LogConfig, epoch: LeaderEpoch) -> Result<Log<E>, LogError> {
        let (dir, shared) = (&self.shared.dir.dir, &self.shared);
        dir.create_dir(&shared.folder).await?;
        let listing = list(shared).await?;
        // The manifest may be there after a failed sync of the directory.
        let is_other = |name: &&String| !is_fresh_file(name) && *name != names::MANIFEST;
        if let Some(name) = listing.names.iter().find(is_other) {
            return Err(not_empty(&shared.folder, name));
        }
        let path = names::path(&shared.folder, Offset(0), names::LOG);
        let file = create_fresh(shared, &path).await?;
        make_indexes(shared, Offset(0)).await?;
        // These run concurrently, and beside the sync of the segment.
        let proof = file.sync();
        let files = self.files(epoch).into_iter();
        let files = files.map(|(name, bytes)| (format!("{}/{name}", shared.folder), bytes));
        let written = dir.replace_all(&shared.folder, files.collect()).await;
        // BEFORE the other result is checked: the result of a sync must never be dropped.
        let proof = proof.await?;
        written?;
        dir.sync_dir("").await?;
        let parts = first_segment(shared, &config, Offset(0), file, proof);
        let mut log = Log::assemble(Arc::clone(shared), self.topic_id, config, parts);
        log.epochs = epochs_of(epoch);
        log.background.persisted_epochs = log.epochs.clone();
        brokkr_types::reached!("a fresh log began");
        Ok(log)
    }

    /// The small files of a log whose first leader epoch is `epoch`.
    fn files(&self, epoch: LeaderEpoch) -> [(&'static str, Bytes); 3] {
        let manifest = Manifest {
            topic_id: self.topic_id,
            partition: self.shared.partition(),
            ..Manifest::default()
        };
        [
            (
                names::PARTITION_METADATA,
                encode_partition_metadata(self.topic_id).into(),
            ),
            (names::EPOCHS, encode_epochs(&epochs_of(epoch)).into()),
            (names::MANIFEST, manifest.encode()),
        ]
    }

    /// A snapshot of the empty log: offsets 0 to 0, leader epoch `epoch`.
    pub fn reader(&self, epoch: LeaderEpoch) -> LogReader<E> {
        let start = Offset(0);
        LogReader {
            view: Arc::new(View {
                shared: Arc::clone(&self.shared),
                sealed: Segments::default(),
                active: Segment::new(SegmentSummary::new(start, UnixMillis::NONE)),
                file: None,
                truncations: 0,
                log_truncations: 0,
                gaps: false,
                log_start: start,
                high_watermark: OffsetMetadata {
                    offset: start,
                    position: None,
                },
                recent: Box::default(),
                epochs: epochs_of(epoch),
            }),
        }
    }

    /// Removes the folder. Not durable: after a power loss the empty log may be back.
    ///
    /// # Errors
    /// If the folder has other files.
    pub async fn delete(self) -> Result<(), LogError> {
        self.shared.dir.remove_fresh(&self.shared.folder).await
    }
}

fn epochs_of(epoch: LeaderEpoch) -> LeaderEpochs {
    let start = Offset(0);
    LeaderEpochs::new([EpochStart { epoch, start }])
}

/// Whether [`FreshLog::begin`] creates a file of this name before the manifest, so that an interrupted call may have
/// left it.
fn is_fresh_file(name: &str) -> bool {
    match names::parse(name) {
        Some((base, suffix)) => {
            base == Offset(0) && [names::LOG, names::INDEX, names::TIME_INDEX].contains(&suffix)
        }
        None => [names::PARTITION_METADATA, names::EPOCHS].contains(&name),
    }
}

fn not_empty(folder: &str, name: &str) -> LogError {
    LogError::Malformed {
        file: folder.into(),
        what: format!("there is something already: {name}; move the folder away, or open what is in it"),
    }
}

impl<E: Env> LogDir<E> {
    /// The fresh log of the topic `topic_id` in a folder. A fresh log of another topic is taken over, as it has no
    /// data. `None`: the folder has, or may have, batches.
    ///
    /// # Errors
    /// If the folder can't be read.
    pub async fn fresh(
        &self,
        folder: &str,
        topic_id: Uuid,
        recorded: &LogCheckpoint,
    ) -> Result<Option<FreshLog<E>>, LogError> {
        let shared = Arc::new(LogShared::new(self, folder));
        let recorded = recorded.of(topic_id);
        let was_durable = recorded.recovery_point.is_some_and(|point| point > Offset(0));
        if recorded.foreign || was_durable || recorded.truncations > 0 {
            return Ok(None);
        }
        let Some(listing) = fresh_listing(&shared).await? else {
            return Ok(None);
        };
        for name in &listing.names {
            // A crash may keep an index that `begin` created, and not its segment.
            if let Some((base, names::INDEX | names::TIME_INDEX)) = names::parse(name)
                && !listing.logs.contains(&base)
            {
                brokkr_types::reached!("an index without its segment was removed");
                remove_if_there(&shared, &format!("{folder}/{name}")).await?;
            }
        }
        let fresh = FreshLog { shared, topic_id };
        if read_topic_id(&fresh.shared, &listing).await? != topic_id {
            fresh.write_metadata(&listing).await?;
        }
        Ok(Some(fresh))
    }

    /// Whether a folder has the files of a fresh log only, of any topic, so that removing it loses nothing.
    ///
    /// # Errors
    /// If the folder can't be read.
    pub async fn is_fresh(&self, folder: &str) -> Result<bool, LogError> {
        let shared = LogShared::new(self, folder);
        Ok(fresh_listing(&shared).await?.is_some())
    }

    /// Removes the folder of a fresh log, as [`FreshLog::delete`].
    ///
    /// # Errors
    /// If the folder has other files.
    pub async fn remove_fresh(&self, folder: &str) -> Result<(), LogError> {
        self.files.forget_folder(folder);
        for entry in self.dir.list(folder).await? {
            if entry.kind == EntryKind::File {
                self.dir.remove(&format!("{folder}/{}", entry.name)).await?;
            }
        }
        Ok(self.dir.remove_dir(folder).await?)
    }
}

/// The files of a folder, if they are those of a fresh log.
async fn fresh_listing<E: Env>(shared: &LogShared<E>) -> Result<Option<FolderListing>, LogError> {
    let listing = list(shared).await?;
    if !listing.names.iter().all(|name| is_fresh_file(name)) {
        return Ok(None);
    }
    if listing.logs.contains(&Offset(0)) {
        let path = names::path(&shared.folder, Offset(0), names::LOG);
        match shared.dir.dir.open(&path).await {
            Ok(file) if !file.is_empty() => return Ok(None),
            Err(e) if e.kind() != ErrorKind::NotFound => return Err(e.into()),
            _ => {}
        }
    }
    Ok(Some(listing))
}

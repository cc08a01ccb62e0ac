//! A partition's folder: listing it, reading its small files, replacing and removing files.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use brokkr_env::{Dir, EntryKind, Env, ErrorKind, File};
use brokkr_types::{Offset, Uuid};
use bytes::Bytes;

use crate::error::LogError;
use crate::files::dir::LogDir;
use crate::files::shared::LogShared;
use crate::formats::manifest::Manifest;
use crate::formats::names;
use crate::formats::snapshot::SnapshotFiles;
use crate::formats::text::{decode_partition_metadata, encode_epochs};
use crate::state::epochs::LeaderEpochs;

/// The largest manifest or epoch checkpoint that is read.
pub(crate) const SMALL_FILE_BYTES_MAX: u32 = 256 << 20;

/// The largest `partition.metadata` that is read.
const METADATA_BYTES_MAX: u32 = 4096;

/// The files of a partition's folder, without leftovers.
#[derive(Default)]
pub(crate) struct FolderListing {
    pub(crate) logs: BTreeSet<Offset>,
    pub(crate) snapshots: BTreeSet<Offset>,
    pub(crate) names: BTreeSet<String>,
}

/// Lists the folder. Removes leftovers: temporary files and files marked as deleted, by the names that Brokkr and
/// Kafka use.
pub(crate) async fn list<E: Env>(shared: &LogShared<E>) -> Result<FolderListing, LogError> {
    let (mut listing, mut leftovers) = (FolderListing::default(), Vec::new());
    for entry in shared.dir.dir.list(&shared.folder).await? {
        let name = entry.name;
        if entry.kind == EntryKind::Dir {
            // Not Brokkr's. If it has the name of a file of the log, that file counts as missing.
            let folder = &*shared.folder;
            let error_log = &shared.dir.error_log;
            if error_log.is_first_of("a directory where only files are", &format!("{folder}/{name}")) {
                tracing::warn!(folder, name, "a directory where only files are; left alone");
            }
            continue;
        }
        let suffix = name.rsplit_once('.').map_or("", |(_, suffix)| suffix);
        if names::is_leftover(&name) {
            leftovers.push(format!("{}/{name}", shared.folder));
            continue;
        }
        if suffix == names::SWAP {
            let what = "Apache Kafka was killed while it put a compacted segment in place: start Kafka on the directory and stop it \
                cleanly, it finishes that";
            return Err(LogError::Malformed {
                file: format!("{}/{name}", shared.folder),
                what: what.to_owned(),
            });
        }
        match names::parse(&name) {
            Some((base, names::LOG)) => drop(listing.logs.insert(base)),
            Some((offset, names::SNAPSHOT)) => drop(listing.snapshots.insert(offset)),
            _ => {}
        }
        listing.names.insert(name);
    }
    // AFTER all names were listed: with a `.swap` file among them, the segments that it replaces must stay.
    for path in leftovers {
        remove_if_there(shared, &path).await?;
    }
    Ok(listing)
}

/// The topic id in `partition.metadata`; zero if that is missing or malformed.
pub(crate) async fn read_topic_id<E: Env>(
    shared: &LogShared<E>,
    listing: &FolderListing,
) -> Result<Uuid, LogError> {
    let file = format!("{}/{}", shared.folder, names::PARTITION_METADATA);
    if !listing.names.contains(names::PARTITION_METADATA) {
        return Ok(Uuid::ZERO);
    }
    let text = shared.dir.dir.read(&file, METADATA_BYTES_MAX).await?;
    if text.is_empty() {
        // A fresh log's: its content was not synced and a power loss took it.
        return Ok(Uuid::ZERO);
    }
    Ok(decode_partition_metadata(&text).unwrap_or_else(|what| {
        if shared
            .dir
            .error_log
            .is_first_of("partition.metadata not readable", &file)
        {
            tracing::error!(file, what, "not readable");
        }
        Uuid::ZERO
    }))
}

pub(crate) async fn read_manifest<E: Env>(
    shared: &LogShared<E>,
    listing: &FolderListing,
) -> Result<Option<Manifest>, LogError> {
    if !listing.names.contains(names::MANIFEST) {
        return Ok(None);
    }
    let path = format!("{}/{}", shared.folder, names::MANIFEST);
    let bytes = shared.dir.dir.read(&path, SMALL_FILE_BYTES_MAX).await?;
    let manifest = Manifest::decode(&bytes);
    if manifest.is_none() && shared.dir.error_log.is_first_of("manifest damaged", &path) {
        tracing::error!(path, "damaged; the whole log is scanned");
    }
    Ok(manifest)
}

impl<E: Env> LogDir<E> {
    /// Removes the folders of deleted logs, one after the other, from `after` on.
    pub(crate) fn remove_deleted(&self, folders: Vec<String>, after: Duration) {
        let kind = "log not removed; tried again in a minute";
        self.remove_later("log-deleted", folders, after, kind, |dir, folder| async move {
            remove_folder(&dir, &folder).await
        });
    }

    /// The topic id of the log in a folder, without opening it: that of `partition.metadata`, else of the manifest,
    /// else zero.
    ///
    /// # Errors
    /// The folder can't be read.
    pub async fn topic_id(&self, folder: &str) -> Result<Uuid, LogError> {
        let shared = LogShared::new(self, folder);
        let listing = list(&shared).await?;
        let id = read_topic_id(&shared, &listing).await?;
        if !id.is_zero() {
            return Ok(id);
        }
        self.topic_id_by_manifest(folder).await
    }

    /// The topic id in the manifest of a folder, which has a checksum; zero without a valid manifest.
    ///
    /// # Errors
    /// The folder can't be read.
    pub async fn topic_id_by_manifest(&self, folder: &str) -> Result<Uuid, LogError> {
        let shared = LogShared::new(self, folder);
        let listing = list(&shared).await?;
        let manifest = read_manifest(&shared, &listing).await?;
        Ok(manifest.map_or(Uuid::ZERO, |m| m.topic_id))
    }
}

/// Replaces a file of the partition's folder, atomically and durably.
pub(crate) async fn replace<E: Env>(
    shared: &LogShared<E>,
    name: &str,
    bytes: Bytes,
) -> brokkr_env::Result<()> {
    shared
        .dir
        .dir
        .replace(&format!("{}/{name}", shared.folder), bytes)
        .await
}

pub(crate) async fn write_epochs<E: Env>(
    shared: Arc<LogShared<E>>,
    epochs: LeaderEpochs,
) -> brokkr_env::Result<()> {
    replace(&shared, names::EPOCHS, encode_epochs(&epochs).into()).await
}

pub(crate) async fn write_snapshot<E: Env>(
    shared: &LogShared<E>,
    files: &SnapshotFiles,
) -> brokkr_env::Result<()> {
    let dir = &shared.dir.dir;
    // The window first: a snapshot without its window causes a longer replay.
    dir.replace(
        &names::path(&shared.folder, files.offset, names::WINDOW),
        files.window.clone(),
    )
    .await?;
    dir.replace(
        &names::path(&shared.folder, files.offset, names::SNAPSHOT),
        files.snapshot.clone(),
    )
    .await
}

pub(crate) async fn remove_snapshot<E: Env>(shared: &LogShared<E>, offset: Offset) -> brokkr_env::Result<()> {
    for suffix in [names::SNAPSHOT, names::WINDOW] {
        remove_if_there(shared, &names::path(&shared.folder, offset, suffix)).await?;
    }
    Ok(())
}

pub(crate) async fn remove_if_there<E: Env>(shared: &LogShared<E>, path: &str) -> brokkr_env::Result<()> {
    let removed = shared.dir.dir.remove(path).await;
    shared.dir.files.forget(path);
    match removed {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

/// Creates a file. An empty one of that name, left by a failed attempt, is replaced.
///
/// # Errors
/// `AlreadyExists` if there is a file with content: it is never removed.
pub(crate) async fn create_fresh<E: Env>(shared: &LogShared<E>, path: &str) -> brokkr_env::Result<File<E>> {
    let dir = &shared.dir.dir;
    match dir.create(path).await {
        Err(e) if e.kind() == ErrorKind::AlreadyExists => {
            let len = dir.open(path).await?.len();
            if len > 0 {
                let what =
                    format!("{path}: {len} bytes stand where a new segment begins; move the file away");
                return Err(brokkr_env::Error::new(ErrorKind::AlreadyExists, what));
            }
            dir.remove(path).await?;
            shared.dir.files.forget(path);
            dir.create(path).await
        }
        other => other,
    }
}

/// Removes a folder with its files.
pub(crate) async fn remove_folder<E: Env>(dir: &Dir<E>, folder: &str) -> Result<(), LogError> {
    for entry in dir.list(folder).await? {
        dir.remove(&format!("{folder}/{}", entry.name)).await?;
    }
    Ok(dir.remove_dir(folder).await?)
}

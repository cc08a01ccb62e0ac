//! Opens the log directories at a start.
//!
//! Unsupported contents are rejected before anything is written. A directory with an IO error is left out, as in Kafka
//! 4.3, unless it is the metadata log's: the others are served, and its partitions are offline.

use std::collections::BTreeMap;
use std::sync::Arc;

use brokkr_env::{EntryKind, Env, Error, ErrorKind};
use brokkr_log::checkpoint::{self, DirCheckpoint, MetaProperties, split_folder};
use brokkr_log::{LogDir, LogError, LogLimits, ProducerBudget};
use brokkr_types::{NodeId, Uuid};

use super::{Identity, LogDirError, LogDirs, METADATA_FOLDER, OwnedLogDir, found};
use crate::config::BrokerConfig;
use crate::controller;

/// Bytes of an idempotent producer in a log's state.
const PRODUCER_BYTES: usize = 384;

/// A locked directory, and its `meta.properties`.
struct LockedLogDir<E: Env> {
    path: String,
    logs: LogDir<E>,
    meta: Option<MetaProperties>,
}

/// The directories that failed to open.
struct OpenFailures {
    metadata: String,
    failed: Vec<String>,
}

impl OpenFailures {
    /// Returns the value of a directory that works; `None` if the directory failed and is left out.
    fn tolerate<T>(&mut self, path: &str, result: Result<T, LogDirError>) -> Result<Option<T>, LogDirError> {
        match result {
            Ok(kept) => Ok(Some(kept)),
            Err(error @ (LogDirError::Io(..) | LogDirError::Log(..))) if path != self.metadata => {
                tracing::error!("{error}: left out; its partitions are offline until a start finds it well");
                self.failed.push(path.to_owned());
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

/// Opens the directories: locks them, reads or creates their identity, and reads their checkpoints.
pub async fn open<E: Env>(env: &E, config: &BrokerConfig) -> Result<LogDirs<E>, LogDirError> {
    let metadata = config.metadata_log_dir().to_owned();
    let mut paths = config.log_dirs().to_vec();
    if !paths.contains(&metadata) {
        paths.push(metadata.clone());
    }
    let mut failures = OpenFailures {
        metadata,
        failed: Vec::new(),
    };
    let producers = ProducerBudget::new(config.memory_bytes() / 2 / PRODUCER_BYTES);
    let mut locked_dirs = Vec::new();
    // The directories share the number of files that stay open.
    let log_limits = LogLimits {
        log_idle_files: config.log_limits.log_idle_files / paths.len(),
        ..config.log_limits
    };
    for path in &paths {
        let locked = lock_dir(env, path, log_limits).await;
        let with_room = locked.map(|locked| LockedLogDir {
            logs: locked.logs.with_producer_budget(producers.clone()),
            ..locked
        });
        locked_dirs.extend(failures.tolerate(path, with_room)?);
    }
    let identities = identities(env, &locked_dirs, config, &failures.metadata).await?;
    // BEFORE anything is written.
    for dir in &locked_dirs {
        found::check_supported(&dir.logs, dir.meta.as_ref(), &dir.path).await?;
    }
    check_metadata_place(&locked_dirs, &failures.metadata).await?;
    let mut dirs: Vec<(OwnedLogDir<E>, Option<MetaProperties>)> = Vec::new();
    for (dir, identity) in locked_dirs.into_iter().zip(identities) {
        let contents = read_contents(&dir).await;
        if let Some((folders, remembered)) = failures.tolerate(&dir.path, contents)? {
            let owned_dir = OwnedLogDir {
                path: dir.path,
                logs: dir.logs,
                identity,
                remembered: Arc::new(remembered),
                folders: folders.into_iter().collect(),
            };
            dirs.push((owned_dir, dir.meta));
        }
    }
    check_no_duplicate_logs(dirs.iter().map(|(dir, _)| dir)).await?;
    if let Some((dir, _)) = dirs.iter().find(|(dir, _)| dir.path == failures.metadata) {
        let checked = controller::check_startable(dir).await;
        checked.map_err(LogDirError::Metadata)?;
    }
    let mut all = Vec::new();
    for (dir, meta) in dirs {
        let begun = begin_use(&dir, meta.as_ref()).await;
        if failures.tolerate(&dir.path, begun)?.is_some() {
            all.push(dir);
        }
    }
    let metadata = all.iter().find(|dir| dir.path == failures.metadata);
    let metadata = metadata.cloned().expect("it is never left out");
    all.retain(|dir| config.log_dirs().contains(&dir.path));
    if all.is_empty() {
        return Err(LogDirError::Inconsistent(
            "none of log.dirs can be used".to_owned(),
        ));
    }
    Ok(LogDirs {
        metadata,
        online: all,
        failed: failures.failed,
    })
}

async fn lock_dir<E: Env>(env: &E, path: &str, limits: LogLimits) -> Result<LockedLogDir<E>, LogDirError> {
    let io = |e: Error| LogDirError::Io(path.to_owned(), e);
    let dir = env.open_dir(path).await.map_err(|e| match e.kind() {
        ErrorKind::AlreadyExists => {
            LogDirError::Unsupported(path.to_owned(), "it is no directory".to_owned())
        }
        _ => io(e),
    })?;
    dir.lock().await.map_err(|e| match e.kind() {
        ErrorKind::InUse => LogDirError::InUse(path.to_owned()),
        _ => io(e),
    })?;
    dir.list("").await.map_err(io)?;
    let logs = LogDir::new(env.clone(), dir, limits);
    let meta = checkpoint::read_meta(&logs).await;
    let meta = meta.map_err(|e| LogDirError::Log(path.to_owned(), e))?;
    let path = path.to_owned();
    Ok(LockedLogDir { path, logs, meta })
}

/// Determines the identity of each directory: all have the same node and cluster, and each a directory id of its own.
async fn identities<E: Env>(
    env: &E,
    locked_dirs: &[LockedLogDir<E>],
    config: &BrokerConfig,
    metadata: &str,
) -> Result<Vec<Identity>, LogDirError> {
    let inconsistent = |why: String| Err(LogDirError::Inconsistent(why));
    let ids = env.rng("ids");
    let new_id = || Uuid::from_random(ids.bytes());
    for dir in locked_dirs {
        if let Some(node_id) = dir
            .meta
            .as_ref()
            .map(|m| m.node_id.0)
            .filter(|id| *id != config.node_id)
        {
            return Err(LogDirError::OtherNode {
                path: dir.path.clone(),
                node_id,
                ours: config.node_id,
            });
        }
    }
    let of_metadata = locked_dirs.iter().find(|dir| dir.path == metadata);
    let cluster = of_metadata
        .and_then(|dir| dir.meta.as_ref())
        .map(|m| &m.cluster_id);
    let known = locked_dirs.iter().find(|dir| dir.meta.is_some());
    if let (None, Some(known)) = (cluster, known) {
        return inconsistent(format!(
            "{metadata}, the directory of the metadata log, is new, but {} belongs to a cluster: put its meta.properties back, or \
             set metadata.log.dir to the directory that has __cluster_metadata-0",
            known.path
        ));
    }
    let cluster: Arc<str> = match cluster {
        Some(id) => id.as_str().into(),
        None => new_id().to_string().into(),
    };
    let mut by_id = BTreeMap::new();
    let mut identities = Vec::new();
    for dir in locked_dirs {
        let meta = dir.meta.as_ref();
        if let Some(other) = meta.map(|m| &m.cluster_id).filter(|id| **id != *cluster) {
            return inconsistent(format!(
                "{} belongs to cluster {other}, but {metadata} to cluster {cluster} (meta.properties)",
                dir.path
            ));
        }
        let directory_id = meta.and_then(|m| m.directory_id).unwrap_or_else(new_id);
        if let Some(first) = by_id.insert(directory_id, &dir.path) {
            let second = &dir.path;
            return inconsistent(format!(
                "{first} and {second} have the same directory.id {directory_id} in meta.properties"
            ));
        }
        identities.push(Identity {
            node_id: config.node_id,
            cluster_id: Arc::clone(&cluster),
            directory_id,
        });
    }
    Ok(identities)
}

/// As in Kafka: no other directory contains the metadata log. If the metadata is missing, no directory contains a
/// partition.
async fn check_metadata_place<E: Env>(
    locked_dirs: &[LockedLogDir<E>],
    metadata: &str,
) -> Result<(), LogDirError> {
    let (mut is_there, mut partition) = (false, None);
    for dir in locked_dirs {
        let entries = dir.logs.dir().list("").await;
        let entries = entries.map_err(|e| LogDirError::Io(dir.path.clone(), e))?;
        for entry in entries.into_iter().filter(|e| e.kind == EntryKind::Dir) {
            let path = &dir.path;
            match entry.name.as_str() {
                METADATA_FOLDER if path == metadata => is_there = true,
                METADATA_FOLDER => {
                    return Err(LogDirError::Inconsistent(format!(
                        "the metadata log is in {path}, but its directory is {metadata}: set metadata.log.dir"
                    )));
                }
                name if path != metadata && split_folder(name).is_some() => {
                    partition = Some(format!("{path} has {name}"));
                }
                _ => {}
            }
        }
    }
    match partition.filter(|_| !is_there) {
        None => Ok(()),
        Some(what) => Err(LogDirError::Inconsistent(format!(
            "{what}, but the metadata of the cluster, which knows it, is not in {metadata}: put it back from a backup"
        ))),
    }
}

/// Reads the names of the partition folders, and the checkpoints.
async fn read_contents<E: Env>(dir: &LockedLogDir<E>) -> Result<(Vec<String>, DirCheckpoint), LogDirError> {
    let log = |e: LogError| LogDirError::Log(dir.path.clone(), e);
    let folders = checkpoint::partitions(&dir.logs).await.map_err(log)?;
    let remembered = checkpoint::load(&dir.logs).await.map_err(log)?;
    Ok((folders, remembered))
}

/// The first writes of a start: `meta.properties`, if it is new; then the clean-shutdown marker is removed, so that any
/// stop but a clean one counts as a crash.
async fn begin_use<E: Env>(dir: &OwnedLogDir<E>, known: Option<&MetaProperties>) -> Result<(), LogDirError> {
    let log = |e: LogError| LogDirError::Log(dir.path.clone(), e);
    let identity = &dir.identity;
    let meta = MetaProperties {
        cluster_id: identity.cluster_id.to_string(),
        node_id: NodeId(identity.node_id),
        directory_id: Some(identity.directory_id),
    };
    if known != Some(&meta) {
        checkpoint::write_meta(&dir.logs, &meta).await.map_err(log)?;
    }
    checkpoint::mark_unclean(&dir.logs, &dir.remembered)
        .await
        .map_err(log)
}

/// As in Kafka: of two logs of one partition, it is unknown which holds the acknowledged records. (Two of the same name
/// may belong to different topics: one was deleted while its directory was missing.)
async fn check_no_duplicate_logs<'a, E: Env>(
    dirs: impl Iterator<Item = &'a OwnedLogDir<E>>,
) -> Result<(), LogDirError> {
    let mut places: BTreeMap<&str, Vec<&OwnedLogDir<E>>> = BTreeMap::new();
    for dir in dirs {
        for folder in &dir.folders {
            places.entry(folder).or_default().push(dir);
        }
    }
    for (folder, dirs) in places.into_iter().filter(|(_, dirs)| dirs.len() > 1) {
        let mut by_topic = BTreeMap::new();
        for dir in dirs {
            let id = dir.logs.topic_id(folder).await.unwrap_or(Uuid::ZERO);
            if let Some(first) = by_topic.insert(id, &dir.path).filter(|_| !id.is_zero()) {
                return Err(LogDirError::Inconsistent(format!(
                    "{folder} is in {first} and in {}: remove one of them, that of the directory that failed last",
                    dir.path
                )));
            }
        }
    }
    Ok(())
}

//! Taking the log directories at a start.
//!
//! What can't be served right is refused before anything is written. What the disk refuses leaves a directory out, as in Kafka
//! 4.3, unless it is the metadata log's: the others are served, and the partitions that the metadata has in it are offline.

use std::collections::BTreeMap;
use std::sync::Arc;

use brokkr_env::{EntryKind, Env, Error, ErrorKind};
use brokkr_log::checkpoint::{self, DirCheckpoint, MetaProperties, split_folder};
use brokkr_log::{LogDir, LogError, ProducerBudget};
use brokkr_types::{NodeId, Uuid};

use super::{LogDirError, LogDirs, Owned, found};
use crate::config::BrokerConfig;
use crate::controller;
use crate::ctx::Identity;

/// Files that stay open though nobody appends to them or reads them, of all directories.
const OPEN_FILES_MAX: usize = 1024;
/// What a producer takes up that a log remembers.
const PRODUCER_BYTES: usize = 384;

/// A directory that is locked, as it was found.
struct Taken<E: Env> {
    path: String,
    logs: LogDir<E>,
    meta: Option<MetaProperties>,
}

/// The directories that work, and those that don't.
struct Start {
    metadata: String,
    failed: Vec<String>,
}

impl Start {
    /// What became of a directory: nothing, where it failed and is left out.
    fn keep<T>(&mut self, path: &str, result: Result<T, LogDirError>) -> Result<Option<T>, LogDirError> {
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

/// Takes the directories: locks them, learns or makes their identity, reads what they remember.
pub async fn open<E: Env>(env: &E, config: &BrokerConfig) -> Result<LogDirs<E>, LogDirError> {
    let metadata = config.metadata_log_dir().to_owned();
    let mut paths = config.log_dirs().to_vec();
    if !paths.contains(&metadata) {
        paths.push(metadata.clone());
    }
    let mut start = Start {
        metadata,
        failed: Vec::new(),
    };
    let producers = ProducerBudget::new(config.memory_bytes() / 2 / PRODUCER_BYTES);
    let mut taken = Vec::new();
    for path in &paths {
        let took = take(env, path, OPEN_FILES_MAX / paths.len()).await;
        let with_room = took.map(|took| Taken {
            logs: took.logs.with_producer_budget(producers.clone()),
            ..took
        });
        taken.extend(start.keep(path, with_room)?);
    }
    let identities = identities(env, &taken, config, &start.metadata).await?;
    // BEFORE anything is written.
    for dir in &taken {
        found::check(&dir.logs, dir.meta.as_ref(), &dir.path).await?;
    }
    metadata_is_in_its_place(&taken, &start.metadata).await?;
    let mut dirs: Vec<(Owned<E>, Option<MetaProperties>)> = Vec::new();
    for (dir, identity) in taken.into_iter().zip(identities) {
        let looked = look(&dir).await;
        if let Some((folders, remembered)) = start.keep(&dir.path, looked)? {
            let owned = Owned {
                path: dir.path,
                logs: dir.logs,
                identity,
                remembered: Arc::new(remembered),
                folders: folders.into_iter().collect(),
            };
            dirs.push((owned, dir.meta));
        }
    }
    no_log_is_twice(dirs.iter().map(|(dir, _)| dir)).await?;
    if let Some((dir, _)) = dirs.iter().find(|(dir, _)| dir.path == start.metadata) {
        let may_start = controller::may_start(dir).await;
        may_start.map_err(LogDirError::Metadata)?;
    }
    let mut all = Vec::new();
    for (dir, meta) in dirs {
        let begun = begin(&dir, meta.as_ref()).await;
        if start.keep(&dir.path, begun)?.is_some() {
            all.push(dir);
        }
    }
    let of_metadata = all.iter().find(|dir| dir.path == start.metadata);
    let metadata = of_metadata.cloned().expect("a start without it fails");
    all.retain(|dir| config.log_dirs().contains(&dir.path));
    if all.is_empty() {
        return Err(LogDirError::Together("none of log.dirs can be used".to_owned()));
    }
    Ok(LogDirs {
        metadata,
        online: all,
        failed: start.failed,
    })
}

async fn take<E: Env>(env: &E, path: &str, open_files_max: usize) -> Result<Taken<E>, LogDirError> {
    let io = |e: Error| LogDirError::Io(path.to_owned(), e);
    let dir = env.open_dir(path).await.map_err(|e| match e.kind() {
        ErrorKind::AlreadyExists => LogDirError::Found(path.to_owned(), "it is no directory".to_owned()),
        _ => io(e),
    })?;
    dir.lock().await.map_err(|e| match e.kind() {
        ErrorKind::InUse => LogDirError::InUse(path.to_owned()),
        _ => io(e),
    })?;
    dir.list("").await.map_err(io)?;
    let logs = LogDir::new(env.clone(), dir, open_files_max);
    let meta = checkpoint::read_meta(&logs).await;
    let meta = meta.map_err(|e| LogDirError::Log(path.to_owned(), e))?;
    let path = path.to_owned();
    Ok(Taken { path, logs, meta })
}

/// Whose each directory is: one node's and one cluster's, each with a directory id of its own.
async fn identities<E: Env>(
    env: &E,
    taken: &[Taken<E>],
    config: &BrokerConfig,
    metadata: &str,
) -> Result<Vec<Identity>, LogDirError> {
    let together = |why: String| Err(LogDirError::Together(why));
    let ids = env.rng("ids");
    let new_id = || Uuid::from_random(ids.bytes());
    for dir in taken {
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
    let of_metadata = taken.iter().find(|dir| dir.path == metadata);
    let cluster = of_metadata
        .and_then(|dir| dir.meta.as_ref())
        .map(|m| &m.cluster_id);
    let known = taken.iter().find(|dir| dir.meta.is_some());
    if let (None, Some(known)) = (cluster, known) {
        return together(format!(
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
    for dir in taken {
        let meta = dir.meta.as_ref();
        if let Some(other) = meta.map(|m| &m.cluster_id).filter(|id| **id != *cluster) {
            return together(format!(
                "{} belongs to cluster {other}, but {metadata} to cluster {cluster} (meta.properties)",
                dir.path
            ));
        }
        let directory_id = meta.and_then(|m| m.directory_id).unwrap_or_else(new_id);
        if let Some(first) = by_id.insert(directory_id, &dir.path) {
            let second = &dir.path;
            return together(format!(
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

/// As in Kafka: the metadata log is nowhere but in its directory. And where it isn't there is no partition.
async fn metadata_is_in_its_place<E: Env>(taken: &[Taken<E>], metadata: &str) -> Result<(), LogDirError> {
    let (mut is_there, mut partition) = (false, None);
    for dir in taken {
        let entries = dir.logs.dir().list("").await;
        let entries = entries.map_err(|e| LogDirError::Io(dir.path.clone(), e))?;
        for entry in entries.into_iter().filter(|e| e.kind == EntryKind::Dir) {
            let path = &dir.path;
            match entry.name.as_str() {
                controller::FOLDER if path == metadata => is_there = true,
                controller::FOLDER => {
                    return Err(LogDirError::Together(format!(
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
        Some(what) => Err(LogDirError::Together(format!(
            "{what}, but the metadata of the cluster, which knows it, is not in {metadata}: put it back from a backup"
        ))),
    }
}

/// The folders of partitions, and what is remembered of their logs.
async fn look<E: Env>(dir: &Taken<E>) -> Result<(Vec<String>, DirCheckpoint), LogDirError> {
    let log = |e: LogError| LogDirError::Log(dir.path.clone(), e);
    let folders = checkpoint::partitions(&dir.logs).await.map_err(log)?;
    let remembered = checkpoint::load(&dir.logs).await.map_err(log)?;
    Ok((folders, remembered))
}

/// The first writes of a start: `meta.properties`, if it is new; then every stop but a clean one is a crash.
async fn begin<E: Env>(dir: &Owned<E>, known: Option<&MetaProperties>) -> Result<(), LogDirError> {
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

/// As in Kafka: which of two logs of one partition holds what was acknowledged, nobody can tell. (Two of the same name may be
/// of different topics: one was deleted while its directory was away.)
async fn no_log_is_twice<'a, E: Env>(dirs: impl Iterator<Item = &'a Owned<E>>) -> Result<(), LogDirError> {
    let mut places: BTreeMap<&str, Vec<&Owned<E>>> = BTreeMap::new();
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
                return Err(LogDirError::Together(format!(
                    "{folder} is in {first} and in {}: remove one of them, that of the directory that failed last",
                    dir.path
                )));
            }
        }
    }
    Ok(())
}

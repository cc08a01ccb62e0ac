//! The log directories: taken at the start, remembered while the broker runs, given back at the end.
//!
//! Each has files of its own: `meta.properties`, the lock, the checkpoints, the clean-shutdown marker, the reserve. A directory
//! that fails takes its own partitions offline, at a start or while the broker runs, and no other's; the metadata log's must work
//! at a start. The metadata knows each by its directory id and where each partition is (KIP-858).

mod found;
mod open;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use brokkr_env::{Dir, Env, Error};
use brokkr_log::checkpoint::{self, CleanShutdown, DirCheckpoint};
use brokkr_log::{LogCheckpoint, LogDir, LogError};
use brokkr_types::{Offset, Uuid};

use crate::config::BrokerConfig;
use crate::controller::ControllerError;
use crate::ctx::{Ctx, Identity};
use crate::partition::Handle;
use crate::partitions::{self, Routes};
use crate::stop::Stop;

pub use open::open;

/// How often the durable points are recorded, if they moved: what a crash may leave to be scanned is what was written
/// in that time.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(1);
/// Every so many of those, the high watermarks too.
const HIGH_WATERMARKS_EVERY: u64 = 5;

/// Why a log directory can't be used.
#[derive(Debug)]
pub enum LogDirError {
    /// Another process has it.
    InUse(String),
    /// It can't be opened or written.
    Io(String, Error),
    /// What is in it can't be read.
    Log(String, LogError),
    /// It is another node's.
    OtherNode { path: String, node_id: i32, ours: i32 },
    /// They can't be those of one broker: why.
    Together(String),
    /// Something in it is not for this broker: what.
    Found(String, String),
    /// The metadata of the cluster is not such as this broker can begin with.
    Metadata(ControllerError),
}

impl fmt::Display for LogDirError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InUse(path) => write!(f, "log directory {path}: another process uses it"),
            Self::Io(path, e) => write!(f, "log directory {path}: {e}"),
            Self::Log(path, e) => write!(f, "log directory {path}: {e}"),
            Self::Found(path, what) => write!(f, "log directory {path}: {what}"),
            Self::Metadata(e) => e.fmt(f),
            Self::Together(why) => write!(f, "log directories: {why}"),
            Self::OtherNode { path, node_id, ours } => {
                write!(
                    f,
                    "log directory {path}: meta.properties belongs to node.id {node_id}, but this is node.id {ours}"
                )
            }
        }
    }
}

/// A log directory that is ours until the process ends.
pub struct Owned<E: Env> {
    /// Where it is, as it was configured.
    pub path: String,
    /// Its logs.
    pub logs: LogDir<E>,
    /// Whose it is.
    pub identity: Identity,
    /// What it remembered of its logs.
    pub remembered: Arc<DirCheckpoint>,
    /// The folders of partitions in it.
    pub folders: BTreeSet<String>,
}

impl<E: Env> Clone for Owned<E> {
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
    /// That of the metadata log: one of [`LogDirs::online`], or one of its own.
    pub metadata: Owned<E>,
    /// Those of partitions that could be opened, in the order of `log.dirs`.
    pub online: Vec<Owned<E>>,
    /// Those of partitions that could not: their partitions are offline until the next start.
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

/// A directory of partitions, for who describes it.
pub struct Place<E: Env> {
    /// Where it is, as it was configured.
    pub path: String,
    /// Its directory id, and the directory; none where it could not be opened.
    pub dir: Option<(Uuid, Dir<E>)>,
}

impl<E: Env> LogDirs<E> {
    /// Whether what one of them can't do another may.
    pub fn are_several(&self) -> bool {
        self.online.len() + self.failed.len() + usize::from(self.metadata_is_apart()) > 1
    }

    fn metadata_is_apart(&self) -> bool {
        self.online.iter().all(|dir| dir.path != self.metadata.path)
    }

    /// All that could be opened.
    fn all(&self) -> impl Iterator<Item = &Owned<E>> {
        let apart = self.metadata_is_apart().then_some(&self.metadata);
        self.online.iter().chain(apart)
    }

    /// Those of partitions, in the order of `log.dirs`.
    pub fn places(&self, config: &BrokerConfig) -> Vec<Place<E>> {
        let place = |path: &String| Place {
            path: path.clone(),
            dir: self
                .online
                .iter()
                .find(|dir| dir.path == *path)
                .map(|dir| (dir.id(), dir.logs.dir().clone())),
        };
        config.log_dirs().iter().map(place).collect()
    }

    /// The broker epoch of the last life, if it stopped cleanly: as in Kafka, if every directory says so.
    pub fn last_broker_epoch(&self) -> Option<i64> {
        let epoch = |dir: &Owned<E>| dir.clean().and_then(|clean| clean.broker_epoch);
        let first = epoch(&self.metadata)?;
        (self.failed.is_empty() && self.all().all(|dir| epoch(dir) == Some(first))).then_some(first)
    }

    /// The end of a clean stop: `logs` is what each log came to when it was closed, of each directory (by its id) whose logs
    /// all were. `false` if a directory was not stopped cleanly.
    pub async fn end(
        &self,
        mut logs: BTreeMap<Uuid, BTreeMap<String, LogCheckpoint>>,
        metadata: (String, LogCheckpoint),
        broker_epoch: i64,
    ) -> bool {
        if self.metadata_is_apart() {
            logs.insert(self.metadata.id(), BTreeMap::new());
        }
        let (mut clean, mut metadata) = (true, Some(metadata));
        for dir in self.all() {
            let Some(mut of_dir) = logs.remove(&dir.id()) else {
                clean = false;
                continue;
            };
            if dir.path == self.metadata.path {
                of_dir.extend(metadata.take());
            }
            clean &= dir.end(of_dir, broker_epoch).await;
        }
        clean
    }
}

impl<E: Env> Owned<E> {
    /// Its directory id.
    pub fn id(&self) -> Uuid {
        self.identity.directory_id
    }

    /// Whether the last stop was clean, and the broker epoch it had.
    pub fn clean(&self) -> Option<CleanShutdown> {
        self.remembered.clean
    }

    /// What to open a log with.
    pub fn recorded(&self, folder: &str) -> Option<&LogCheckpoint> {
        self.remembered.logs.get(folder)
    }

    /// What is to be recorded: of open logs what their owners say, of the others what was known before. Nothing of logs that nothing
    /// was ever appended to.
    fn logs_now(
        &self,
        routes: &Routes<E>,
        metadata: Option<(String, LogCheckpoint)>,
    ) -> BTreeMap<String, LogCheckpoint> {
        let now = |(_, folder, handle): (_, String, &Handle<E>)| {
            let recorded = match handle.view() {
                Ok(Some(view)) => view.recorded.clone(),
                Ok(None) | Err(_) => self.recorded(&folder).cloned(),
            };
            Some((folder, recorded?))
        };
        let mut logs: BTreeMap<_, _> = routes
            .handles()
            .filter(|(directory, ..)| *directory == self.id())
            .filter_map(now)
            .collect();
        logs.extend(self.left_alone(&self.remembered.logs));
        logs.extend(metadata);
        logs
    }

    /// What is remembered of logs that are left as they are.
    fn left_alone<'a, T: Clone>(
        &'a self,
        of: &'a BTreeMap<String, T>,
    ) -> impl Iterator<Item = (String, T)> + 'a {
        let alone = |folder: &str| {
            checkpoint::split_folder(folder).is_some_and(|(t, _)| partitions::is_left_alone(t))
        };
        of.iter()
            .filter(move |(folder, _)| alone(folder))
            .map(|(folder, known)| (folder.clone(), known.clone()))
    }

    async fn end(&self, mut logs: BTreeMap<String, LogCheckpoint>, broker_epoch: i64) -> bool {
        logs.extend(self.left_alone(&self.remembered.logs));
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

/// What was recorded last of a directory.
#[derive(Clone, Default)]
struct Last {
    logs: BTreeMap<String, LogCheckpoint>,
    high_watermarks: BTreeMap<String, Offset>,
}

/// Records how far the logs are durable, until told to stop.
pub async fn checkpoints<E: Env>(mut ctx: Ctx<E>, log_dirs: LogDirs<E>, stop: Stop) {
    let mut last = vec![Last::default(); log_dirs.all().count()];
    // What was looked at when everything was recorded last, and the changes when the high watermarks were.
    let (mut recorded_at, mut high_watermarks_at) = (None, None);
    for round in 0u64.. {
        tokio::select! {
            biased;
            () = stop.wait() => return,
            () = ctx.env.sleep_until(ctx.env.now() + CHECKPOINT_EVERY) => {}
        }
        for dir in log_dirs.all() {
            if let Err(error) = dir.logs.fill_reserve().await {
                ctx.error_log.record("no reserve on the disk", &error);
            }
        }
        // BEFORE anything is looked at: what changes meanwhile is seen the next time.
        let now = (ctx.changes.count(), ctx.controller.recorded());
        let high_watermarks = round % HIGH_WATERMARKS_EVERY == 0 && high_watermarks_at != Some(now.0);
        if recorded_at.as_ref() == Some(&now) && !high_watermarks {
            continue;
        }
        let routes = Arc::clone(ctx.routes());
        ctx.release();
        let mut well = true;
        for (dir, last) in log_dirs.all().zip(&mut last) {
            let metadata = (dir.path == log_dirs.metadata.path).then(|| now.1.clone());
            well &= dir.record(&ctx, &routes, metadata, last, high_watermarks).await;
        }
        if high_watermarks {
            high_watermarks_at = well.then_some(now.0);
        }
        recorded_at = well.then_some(now);
    }
}

impl<E: Env> Owned<E> {
    /// Records what changed. Whether all of that went well.
    async fn record(
        &self,
        ctx: &Ctx<E>,
        routes: &Routes<E>,
        metadata: Option<(String, LogCheckpoint)>,
        last: &mut Last,
        high_watermarks: bool,
    ) -> bool {
        let mut well = true;
        let logs = self.logs_now(routes, metadata);
        if logs != last.logs {
            match checkpoint::write(&self.logs, &logs).await {
                Ok(()) => last.logs = logs,
                Err(error) => {
                    well = false;
                    ctx.error_log.record("checkpoint failed", &error);
                }
            }
        }
        if high_watermarks {
            let high: BTreeMap<_, _> = routes
                .handles()
                .filter(|(directory, ..)| *directory == self.id())
                .filter_map(|(_, folder, handle)| Some((folder, handle.view_if_open()?)))
                .filter(|(_, view)| view.recorded.is_some())
                .map(|(folder, view)| (folder, view.high_watermark))
                .chain(self.left_alone(&self.remembered.high_watermarks))
                .collect();
            if high != last.high_watermarks {
                match checkpoint::write_high_watermarks(&self.logs, &high).await {
                    Ok(()) => last.high_watermarks = high,
                    Err(error) => {
                        well = false;
                        ctx.error_log.record("checkpoint failed", &error);
                    }
                }
            }
        }
        well
    }
}

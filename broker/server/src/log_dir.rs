//! The log directory: taken at the start, remembered while the broker runs, given back at the end.

mod found;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use brokkr_env::{Env, Error, ErrorKind};
use brokkr_log::checkpoint::{self, CleanShutdown, MetaProperties, Remembered};
use brokkr_log::{LogDir, LogError, Recorded};
use brokkr_types::{NodeId, Offset, Uuid};

use crate::config::BrokerConfig;
use crate::ctx::{Ctx, Identity};
use crate::partitions::{self, Hosted, Routes, folder};
use crate::stop::Stop;

/// Files that stay open though nobody appends to them or reads them.
const OPEN_FILES_MAX: usize = 1024;
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
    /// Something in it is not for this broker: what.
    Found(String, String),
}

impl fmt::Display for LogDirError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InUse(path) => write!(f, "log directory {path}: another process uses it"),
            Self::Io(path, e) => write!(f, "log directory {path}: {e}"),
            Self::Log(path, e) => write!(f, "log directory {path}: {e}"),
            Self::Found(path, what) => write!(f, "log directory {path}: {what}"),
            Self::OtherNode { path, node_id, ours } => {
                write!(
                    f,
                    "log directory {path}: belongs to node.id {node_id}, but this is node.id {ours}"
                )
            }
        }
    }
}

/// A log directory that is ours until the process ends.
pub struct Owned<E: Env> {
    /// Its logs.
    pub logs: LogDir<E>,
    /// Whose it is.
    pub identity: Identity,
    /// What it remembered of its logs.
    pub remembered: Arc<Remembered>,
    /// The folders of partitions in it.
    pub folders: BTreeSet<String>,
}

impl<E: Env> Clone for Owned<E> {
    fn clone(&self) -> Self {
        Self {
            logs: self.logs.clone(),
            identity: self.identity.clone(),
            remembered: Arc::clone(&self.remembered),
            folders: self.folders.clone(),
        }
    }
}

/// Takes the directory: locks it, learns or makes its identity, reads what it remembers.
pub async fn open<E: Env>(env: &E, config: &BrokerConfig) -> Result<Owned<E>, LogDirError> {
    let path = config.log_dir().to_owned();
    let io = |e: Error| LogDirError::Io(path.clone(), e);
    let log = |e: LogError| LogDirError::Log(path.clone(), e);
    let dir = env.open_dir(&path).await.map_err(|e| match e.kind() {
        ErrorKind::AlreadyExists => LogDirError::Found(path.clone(), "it is no directory".to_owned()),
        _ => io(e),
    })?;
    dir.lock().await.map_err(|e| match e.kind() {
        ErrorKind::InUse => LogDirError::InUse(path.clone()),
        _ => io(e),
    })?;
    let logs = LogDir::new(env.clone(), dir, OPEN_FILES_MAX);
    let identity = identity(env, &logs, config, &path).await?;
    let folders = checkpoint::partitions(&logs)
        .await
        .map_err(log)?
        .into_iter()
        .collect();
    // LAST: from here on every stop but a clean one is a crash.
    let remembered = Arc::new(checkpoint::begin(&logs).await.map_err(log)?);
    Ok(Owned {
        logs,
        identity,
        remembered,
        folders,
    })
}

async fn identity<E: Env>(
    env: &E,
    logs: &LogDir<E>,
    config: &BrokerConfig,
    path: &str,
) -> Result<Identity, LogDirError> {
    let ids = env.rng("ids");
    let new_id = || Uuid::from_random(ids.bytes());
    let log = |e: LogError| LogDirError::Log(path.to_owned(), e);
    let found = checkpoint::read_meta(logs).await.map_err(log)?;
    let known = found.clone().unwrap_or_else(|| MetaProperties {
        cluster_id: new_id().to_string(),
        node_id: NodeId(config.node_id),
        directory_id: None,
    });
    if known.node_id.0 != config.node_id {
        let (node_id, ours) = (known.node_id.0, config.node_id);
        return Err(LogDirError::OtherNode {
            path: path.to_owned(),
            node_id,
            ours,
        });
    }
    // BEFORE anything is written.
    found::check(logs, found.as_ref(), path).await?;
    let directory_id = known.directory_id.unwrap_or_else(new_id);
    let meta = MetaProperties {
        directory_id: Some(directory_id),
        ..known
    };
    if found.as_ref() != Some(&meta) {
        checkpoint::write_meta(logs, &meta).await.map_err(log)?;
    }
    Ok(Identity {
        node_id: config.node_id,
        cluster_id: meta.cluster_id.into(),
        directory_id,
    })
}

impl<E: Env> Owned<E> {
    /// Whether the last stop was clean, and the broker epoch it had.
    pub fn clean(&self) -> Option<CleanShutdown> {
        self.remembered.clean
    }

    /// What to open a log with.
    pub fn recorded(&self, folder: &str) -> Option<&Recorded> {
        self.remembered.logs.get(folder)
    }

    /// What is to be recorded: of logs with owners what those say, of those offline what was known before.
    fn logs_now(&self, routes: &Routes<E>, metadata: (String, Recorded)) -> BTreeMap<String, Recorded> {
        let mut logs: BTreeMap<_, _> = routes
            .handles()
            .map(|(folder, handle)| (folder, handle.view().recorded.clone()))
            .collect();
        for route in routes.iter() {
            for (index, hosted) in route.partitions() {
                let name = folder(&route.name, index);
                if let (Hosted::Offline, Some(known)) = (hosted, self.recorded(&name)) {
                    logs.insert(name, known.clone());
                }
            }
        }
        logs.extend(self.left_alone(&self.remembered.logs));
        logs.extend([metadata]);
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

    /// The end of a clean stop: `logs` is what each log came to when it was closed. `false` if it could not be recorded.
    pub async fn end(&self, mut logs: BTreeMap<String, Recorded>, broker_epoch: i64) -> bool {
        logs.extend(self.left_alone(&self.remembered.logs));
        let logs = &logs;
        match checkpoint::end(&self.logs, logs, broker_epoch).await {
            Ok(()) => true,
            Err(error) => {
                tracing::warn!(%error, "not stopped cleanly");
                false
            }
        }
    }
}

/// Records how far the logs are durable, until told to stop.
pub async fn checkpoints<E: Env>(mut ctx: Ctx<E>, owned: Owned<E>, stop: Stop) {
    let mut last = BTreeMap::new();
    let mut last_high: BTreeMap<String, Offset> = BTreeMap::new();
    for round in 0u64.. {
        tokio::select! {
            biased;
            () = stop.wait() => return,
            () = ctx.env.sleep_until(ctx.env.now() + CHECKPOINT_EVERY) => {}
        }
        if let Err(error) = owned.logs.keep_reserve().await {
            ctx.noise.tell("no reserve on the disk", &error);
        }
        let routes = Arc::clone(ctx.routes());
        let logs = owned.logs_now(&routes, ctx.controller.recorded());
        if logs != last {
            match checkpoint::write(&owned.logs, &logs).await {
                Ok(()) => last = logs,
                Err(error) => ctx.noise.tell("checkpoint failed", &error),
            }
        }
        if round % HIGH_WATERMARKS_EVERY == 0 {
            let high: BTreeMap<_, _> = routes
                .handles()
                .map(|(folder, handle)| (folder, handle.view().high_watermark))
                .chain(owned.left_alone(&owned.remembered.high_watermarks))
                .collect();
            if high != last_high {
                match checkpoint::write_high_watermarks(&owned.logs, &high).await {
                    Ok(()) => last_high = high,
                    Err(error) => ctx.noise.tell("checkpoint failed", &error),
                }
            }
        }
    }
}

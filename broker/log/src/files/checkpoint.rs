//! Checkpoint files of a log directory: recovery points, log start offsets, high watermarks, and whether the last
//! stop was clean.
//!
//! Kafka's checkpoints have no checksum. A recovery point that rots upwards would make a torn tail look like damage;
//! one that rots downwards would make damage look like a torn tail. So recovery uses `brokkr-checkpoint`; Kafka's
//! files are written for Kafka's tools.
//!
//! The life of a directory, each step durable before the next:
//! 1. [`load_and_mark_unclean`] reads the checkpoints, writes `brokkr-checkpoint` as of a running broker (empty at
//!    the first start, so that a missing one is damage later), then removes the clean-shutdown marker, BEFORE
//!    anything else is written: from here on any crash is an unclean stop (P13, KAFKA-10471);
//! 2. logs are opened with their checkpoints; [`write()`] records their [`Log::checkpoint`](crate::Log::checkpoint)
//!    periodically. An offset is durable before it is recorded (KAFKA-10101);
//! 3. all logs are closed; if all of that succeeded, [`write_clean_stop`] records their checkpoints as of a clean
//!    stop, and writes the marker.
//!
//! Apache Kafka may use the directory in between. It removes and writes the same marker, with its own broker epoch,
//! and ignores `brokkr-checkpoint`. So a checkpoint of a clean stop beside a marker with another epoch, or without a
//! marker beside other recovery points, is out of date ([`LogCheckpoint::foreign`]), and Kafka's recovery points are
//! used. Undetected: a Kafka that was killed in its first minute, or that ran after an unclean stop of this broker.

use std::collections::BTreeMap;
use std::time::Duration;

use brokkr_env::{EntryKind, Env, ErrorKind};
use brokkr_types::Offset;
use bytes::Bytes;

use crate::error::LogError;
use crate::files::dir::LogDir;
use crate::formats::checkpoint::Checkpoint;
use crate::formats::names::{MANIFEST, TMP, is_deleted_folder};
use crate::formats::text::{decode_clean_shutdown, decode_offsets, encode_clean_shutdown, encode_offsets};
use crate::state::log_checkpoint::LogCheckpoint;

pub use crate::formats::text::{MetaProperties, split_folder};

pub(crate) const CHECKPOINT: &str = "brokkr-checkpoint";
const RECOVERY_POINTS: &str = "recovery-point-offset-checkpoint";
const LOG_STARTS: &str = "log-start-offset-checkpoint";
const HIGH_WATERMARKS: &str = "replication-offset-checkpoint";
/// Written by Kafka's log cleaner: an entry for each compacted log.
const CLEANED_UP_TO: &str = "cleaner-offset-checkpoint";
const CLEAN_SHUTDOWN: &str = ".kafka_cleanshutdown";
const META_PROPERTIES: &str = "meta.properties";

const FILE_BYTES_MAX: u32 = 256 << 20;

/// What the checkpoint files of a directory record.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct DirCheckpoint {
    /// For each folder, `topic-3`: the checkpoint to open the log with.
    pub logs: BTreeMap<String, LogCheckpoint>,
    /// For each folder: the high watermark.
    pub high_watermarks: BTreeMap<String, Offset>,
    /// If the last stop was clean: its marker.
    pub clean: Option<CleanShutdown>,
    /// Whether another broker wrote the directory last, or created it.
    pub foreign: bool,
}

/// The clean-shutdown marker.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CleanShutdown {
    /// The broker epoch that stopped, if the marker has one.
    pub broker_epoch: Option<i64>,
}

/// [`load`], then [`mark_unclean`].
///
/// # Errors
/// As [`load`], or if a file can't be written.
pub async fn load_and_mark_unclean<E: Env>(dir: &LogDir<E>) -> Result<DirCheckpoint, LogError> {
    let checkpoint = load(dir).await?;
    mark_unclean(dir, &checkpoint).await?;
    Ok(checkpoint)
}

/// Reads the checkpoint files. Changes nothing.
///
/// # Errors
/// [`LogError::Malformed`] if `brokkr-checkpoint` is damaged, or missing though a log has a manifest: then it is
/// unknown what was durable.
pub async fn load<E: Env>(dir: &LogDir<E>) -> Result<DirCheckpoint, LogError> {
    // So that a power loss can't replace what is read by an older version.
    dir.dir().sync_dir("").await?;
    let marker = read(dir, CLEAN_SHUTDOWN).await?;
    let marked = marker.as_deref().map(|text| CleanShutdown {
        broker_epoch: decode_clean_shutdown(text),
    });
    let found = match read(dir, CHECKPOINT).await? {
        Some(bytes) => Some(Checkpoint::decode(&bytes).ok_or_else(damaged_checkpoint)?),
        None => {
            check_no_manifest(dir).await?;
            None
        }
    };
    let epoch = marked.and_then(|m| m.broker_epoch);
    let foreign = match &found {
        None => true,
        Some(found) if marker.is_some() => found.stopped != epoch,
        Some(found) if found.stopped.is_some() => {
            // A starting Kafka removed the marker; it records recovery points soon. Or a crash came just before the
            // marker was written.
            let points = read(dir, RECOVERY_POINTS).await?;
            points.is_some_and(|points| points != encode_points(&found.logs))
        }
        Some(_) => false,
    };
    if foreign && found.is_some() {
        tracing::warn!(
            "{CLEAN_SHUTDOWN} and {CHECKPOINT} are not of the same stop: the logs are read as another broker's that had the directory \
             since; what contradicts a {MANIFEST} is refused"
        );
    }
    let clean = marked.filter(|_| foreign || found.as_ref().is_some_and(|f| f.stopped.is_some()));
    let mut logs = match foreign {
        true => foreign_logs(dir).await?,
        false => found.unwrap_or_default().logs,
    };
    logs.values_mut()
        .for_each(|recorded| recorded.clean = clean.is_some());
    let high_watermarks = match read(dir, HIGH_WATERMARKS)
        .await?
        .map(|text| decode_offsets(&text))
    {
        Some(Ok(offsets)) => offsets,
        Some(Err(what)) => {
            // A lower high watermark is always safe.
            tracing::warn!(
                file = HIGH_WATERMARKS,
                what,
                "not readable; high watermarks begin at the logs' starts"
            );
            BTreeMap::new()
        }
        None => BTreeMap::new(),
    };
    Ok(DirCheckpoint {
        logs,
        high_watermarks,
        clean,
        foreign,
    })
}

/// Makes every stop an unclean one until [`write_clean_stop`]. Durable when this returns.
pub async fn mark_unclean<E: Env>(dir: &LogDir<E>, checkpoint: &DirCheckpoint) -> Result<(), LogError> {
    let known = Checkpoint {
        stopped: None,
        logs: match checkpoint.foreign {
            true => BTreeMap::new(),
            false => checkpoint.logs.clone(),
        },
    };
    // On a full disk the reserve makes this write possible; otherwise the broker could not start and free space.
    while let Err(error) = dir.dir().replace(CHECKPOINT, known.encode()).await {
        let error = LogError::Io(error);
        if !dir.free_reserve_after(&error).await {
            return Err(error);
        }
    }
    if read(dir, CLEAN_SHUTDOWN).await?.is_some() {
        dir.dir().remove(CLEAN_SHUTDOWN).await?;
        dir.dir().sync_dir("").await?;
    }
    remove_temporary_files(dir).await
}

/// Removes temporary files that a crash left.
async fn remove_temporary_files<E: Env>(dir: &LogDir<E>) -> Result<(), LogError> {
    let ours = [
        CHECKPOINT,
        RECOVERY_POINTS,
        LOG_STARTS,
        HIGH_WATERMARKS,
        CLEAN_SHUTDOWN,
        META_PROPERTIES,
    ];
    for entry in dir.dir().list("").await? {
        let name = entry.name.strip_suffix(TMP).and_then(|n| n.strip_suffix('.'));
        if name.is_some_and(|name| ours.contains(&name)) {
            dir.dir().remove(&entry.name).await?;
        }
    }
    Ok(())
}

fn damaged_checkpoint() -> LogError {
    LogError::Malformed {
        file: CHECKPOINT.to_owned(),
        what: "damaged: nobody can tell which records must be there; put it back from a backup. Or, to have what is there, \
               remove it with every brokkr-manifest: then the logs are read as Apache Kafka's would be"
            .to_owned(),
    }
}

/// Checks that no log has a manifest, as at a first start.
async fn check_no_manifest<E: Env>(dir: &LogDir<E>) -> Result<(), LogError> {
    for entry in dir.dir().list("").await? {
        if entry.kind != EntryKind::Dir || split_folder(&entry.name).is_none() {
            continue;
        }
        let files = dir.dir().list(&entry.name).await?;
        if files.iter().any(|f| f.name == MANIFEST) {
            let what = format!(
                "missing, though {} has a {MANIFEST}: nobody can tell which records must be there; put it back from a backup. Or, \
                 to have what is there, remove every {MANIFEST}: then the logs are read as Apache Kafka's would be",
                entry.name
            );
            return Err(LogError::Malformed {
                file: CHECKPOINT.to_owned(),
                what,
            });
        }
    }
    Ok(())
}

/// The checkpoints of logs that Apache Kafka wrote: log start offsets and recovery points.
async fn foreign_logs<E: Env>(dir: &LogDir<E>) -> Result<BTreeMap<String, LogCheckpoint>, LogError> {
    let offsets = async |file: &str| match read(dir, file).await?.map(|text| decode_offsets(&text)) {
        Some(Ok(offsets)) => Ok(offsets),
        None => Ok(BTreeMap::new()),
        Some(Err(what)) => {
            // Without it the logs are scanned from their begin.
            tracing::warn!(file, what, "not readable; the logs are scanned from their begin");
            Ok::<_, LogError>(BTreeMap::new())
        }
    };
    let (points, starts) = (offsets(RECOVERY_POINTS).await?, offsets(LOG_STARTS).await?);
    let cleaned = offsets(CLEANED_UP_TO).await?;
    let folders = list_partitions(dir).await?;
    let recorded = |folder: String| {
        let recorded = LogCheckpoint {
            recovery_point: points.get(&folder).copied(),
            log_start: starts.get(&folder).copied().unwrap_or_default(),
            foreign: true,
            compacted: cleaned.contains_key(&folder),
            ..LogCheckpoint::default()
        };
        (folder, recorded)
    };
    Ok(folders.into_iter().map(recorded).collect())
}

async fn list_partitions<E: Env>(dir: &LogDir<E>) -> Result<Vec<String>, LogError> {
    let entries = dir.dir().list("").await?;
    let folders = entries.into_iter().filter(|e| e.kind == EntryKind::Dir);
    Ok(folders
        .map(|e| e.name)
        .filter(|name| split_folder(name).is_some())
        .collect())
}

/// The folders of partitions, sorted. Those of deleted partitions are removed beside: a start does not wait for it.
pub async fn partitions<E: Env>(dir: &LogDir<E>) -> Result<Vec<String>, LogError> {
    let entries = dir.dir().list("").await?.into_iter();
    let deleted = entries.filter(|e| e.kind == EntryKind::Dir && is_deleted_folder(&e.name));
    let deleted: Vec<String> = deleted.map(|e| e.name).collect();
    if !deleted.is_empty() {
        dir.remove_deleted(deleted, Duration::ZERO);
    }
    list_partitions(dir).await
}

/// Records each log's checkpoint, durably: Brokkr's file, which recovery uses, and Kafka's.
pub async fn write<E: Env>(dir: &LogDir<E>, logs: &BTreeMap<String, LogCheckpoint>) -> Result<(), LogError> {
    write_as(dir, logs, None).await
}

async fn write_as<E: Env>(
    dir: &LogDir<E>,
    logs: &BTreeMap<String, LogCheckpoint>,
    stopped: Option<i64>,
) -> Result<(), LogError> {
    let logs_now = logs.clone();
    let now = Checkpoint {
        stopped,
        logs: logs_now,
    };
    // BEFORE Brokkr's: a checkpoint of a clean stop beside other recovery points means that Kafka ran since.
    dir.dir().replace(RECOVERY_POINTS, encode_points(logs)).await?;
    // As in Kafka, logs that start at 0 are left out.
    let starts = encode_offset_of_each(logs, |r| Some(r.log_start).filter(|start| start.0 > 0));
    dir.dir().replace(LOG_STARTS, starts).await?;
    Ok(dir.dir().replace(CHECKPOINT, now.encode()).await?)
}

fn encode_points(logs: &BTreeMap<String, LogCheckpoint>) -> Bytes {
    encode_offset_of_each(logs, |r| r.recovery_point)
}

fn encode_offset_of_each(
    logs: &BTreeMap<String, LogCheckpoint>,
    of: fn(&LogCheckpoint) -> Option<Offset>,
) -> Bytes {
    let each = logs
        .iter()
        .filter_map(|(folder, r)| Some((folder.clone(), of(r)?)));
    encode_offsets(&each.collect()).into()
}

/// Records the high watermarks, by folder. Durable when this returns.
pub async fn write_high_watermarks<E: Env>(
    dir: &LogDir<E>,
    high_watermarks: &BTreeMap<String, Offset>,
) -> Result<(), LogError> {
    Ok(dir
        .dir()
        .replace(HIGH_WATERMARKS, encode_offsets(high_watermarks).into())
        .await?)
}

/// Records a clean stop and writes the clean-shutdown marker, durably. Only after every log of the directory was
/// closed; `logs` has the checkpoints that closing returned.
pub async fn write_clean_stop<E: Env>(
    dir: &LogDir<E>,
    logs: &BTreeMap<String, LogCheckpoint>,
    broker_epoch: i64,
) -> Result<(), LogError> {
    write_as(dir, logs, Some(broker_epoch)).await?;
    Ok(dir
        .dir()
        .replace(CLEAN_SHUTDOWN, encode_clean_shutdown(broker_epoch).into())
        .await?)
}

/// Reads `meta.properties`; `None` if the directory has none.
///
/// # Errors
/// [`LogError::Malformed`] if it is not in the format of Kafka in KRaft mode.
pub async fn read_meta<E: Env>(dir: &LogDir<E>) -> Result<Option<MetaProperties>, LogError> {
    let malformed = |what| LogError::Malformed {
        file: META_PROPERTIES.to_owned(),
        what,
    };
    let text = read(dir, META_PROPERTIES).await?;
    text.map(|text| MetaProperties::decode(&text).map_err(malformed))
        .transpose()
}

/// Writes `meta.properties`. Durable when this returns.
pub async fn write_meta<E: Env>(dir: &LogDir<E>, meta: &MetaProperties) -> Result<(), LogError> {
    Ok(dir.dir().replace(META_PROPERTIES, meta.encode().into()).await?)
}

async fn read<E: Env>(dir: &LogDir<E>, path: &str) -> Result<Option<Bytes>, LogError> {
    match dir.dir().read(path, FILE_BYTES_MAX).await {
        Ok(bytes) => Ok(Some(bytes)),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e.into()),
    }
}

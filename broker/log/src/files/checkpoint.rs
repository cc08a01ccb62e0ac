//! What a log directory remembers of its logs as a whole: recovery points, high watermarks, and whether it was stopped cleanly.
//!
//! ```text
//! brokkr-checkpoint   "BKCP" │ version u16 = 3 │ stopped u8 (0 or 1) │ broker_epoch i64 │ count u32 │ count × ( folder length u16 │ folder
//!                       │ topic_id 16 bytes │ recovery_point i64 │ log_start i64 │ truncations u64 │ active_base i64 │ first_crc u32 ) │ crc32 u32
//! ```
//! `active_base` and `first_crc`, which version 2 doesn't have: the segment that was written then and the CRC of its first batch (0: no
//! batch of it was durable), which tell it from another log's after a crash.
//!
//! Kafka's own checkpoints have no checksum, and a recovery point that rotted upwards would turn a torn tail into damage, one that
//! rotted downwards damage into a tail. So ours is what recovery goes by; Kafka's are written for Kafka's tools.
//!
//! The life of a directory, every step durable before the next:
//! 1. [`load_and_mark_unclean`] reads everything, notes that a broker runs (an empty checkpoint at the first start, so that a missing one is
//!    damage later), then removes the clean-shutdown marker, BEFORE anything else is written: from here on a crash, also one
//!    in the middle of loading, is a crash (P13, KAFKA-10471);
//! 2. logs are opened with what was recorded; [`write()`] records their [`Log::checkpoint`](crate::Log::checkpoint) now and
//!    then. What is recorded is durable by then, never the other way round (KAFKA-10101);
//! 3. all logs are closed, and only if all of it went well [`write_clean_stop`] records what that returned, as of a clean stop, and writes
//!    the marker.
//!
//! Apache Kafka may have the directory in between. It removes and writes the same marker, with the broker epoch of its own last
//! life, and doesn't know our checkpoint. So a checkpoint of a clean stop beside another marker, or beside none and other
//! recovery points, says that what this broker noted of the logs is out of date ([`LogCheckpoint::foreign`]); Kafka's recovery
//! points hold then. Not noticed is a Kafka that was killed in its first minute, or on a directory that this broker had not
//! stopped cleanly either.

use std::collections::BTreeMap;

use brokkr_env::{EntryKind, Env, ErrorKind};
use brokkr_types::Offset;
use bytes::Bytes;

use crate::error::LogError;
use crate::files::dir::LogDir;
use crate::files::folder::remove_folder;
use crate::formats::checkpoint::Checkpoint;
use crate::formats::names::{MANIFEST, TMP, is_deleted_folder};
use crate::formats::text::{decode_clean_shutdown, decode_offsets, encode_clean_shutdown, encode_offsets};
use crate::state::log_checkpoint::LogCheckpoint;

pub use crate::formats::text::{MetaProperties, split_folder};

pub(crate) const CHECKPOINT: &str = "brokkr-checkpoint";
const RECOVERY_POINTS: &str = "recovery-point-offset-checkpoint";
const LOG_STARTS: &str = "log-start-offset-checkpoint";
const HIGH_WATERMARKS: &str = "replication-offset-checkpoint";
/// Up to where Kafka's cleaner has compacted each log that it has.
const CLEANED_UP_TO: &str = "cleaner-offset-checkpoint";
const CLEAN_SHUTDOWN: &str = ".kafka_cleanshutdown";
const META_PROPERTIES: &str = "meta.properties";

const FILE_BYTES_MAX: u32 = 256 << 20;

/// What a directory remembers.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct DirCheckpoint {
    /// By folder, `topic-3`: what to open each log with.
    pub logs: BTreeMap<String, LogCheckpoint>,
    /// By folder, the high watermarks.
    pub high_watermarks: BTreeMap<String, Offset>,
    /// Whether the last stop was clean, and the broker epoch it had then.
    pub clean: Option<CleanShutdown>,
    /// Whether another broker had the directory last, or made it.
    pub foreign: bool,
}

/// What the clean-shutdown marker says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CleanShutdown {
    /// The broker epoch of that life, if it was noted.
    pub broker_epoch: Option<i64>,
}

/// Reads what the directory remembers, and makes every stop an unclean one until [`write_clean_stop`].
///
/// # Errors
/// As [`load`]; or it can't be written.
pub async fn load_and_mark_unclean<E: Env>(dir: &LogDir<E>) -> Result<DirCheckpoint, LogError> {
    let remembered = load(dir).await?;
    mark_unclean(dir, &remembered).await?;
    Ok(remembered)
}

/// Reads what the directory remembers. Nothing is changed.
///
/// # Errors
/// [`LogError::Malformed`] if the checksummed checkpoint is damaged, or missing beside logs of ours: what was durable can't be
/// told then.
pub async fn load<E: Env>(dir: &LogDir<E>) -> Result<DirCheckpoint, LogError> {
    // What is read must not be another file after a power loss.
    dir.dir().sync_dir("").await?;
    let marker = read(dir, CLEAN_SHUTDOWN).await?;
    let marked = marker.as_deref().map(|text| CleanShutdown {
        broker_epoch: decode_clean_shutdown(text),
    });
    let found = match read(dir, CHECKPOINT).await? {
        Some(bytes) => Some(Checkpoint::decode(&bytes).ok_or_else(damaged_checkpoint)?),
        None => {
            no_log_of_ours(dir).await?;
            None
        }
    };
    let epoch = marked.and_then(|m| m.broker_epoch);
    let foreign = match &found {
        None => true,
        Some(found) if marker.is_some() => found.stopped != epoch,
        Some(found) if found.stopped.is_some() => {
            // Removed by a start of Kafka's, which records recovery points soon; or a crash just before it was written.
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
            // Lower than it was is always safe.
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

/// Makes every stop an unclean one until [`write_clean_stop`].
pub async fn mark_unclean<E: Env>(dir: &LogDir<E>, remembered: &DirCheckpoint) -> Result<(), LogError> {
    let known = Checkpoint {
        stopped: None,
        logs: match remembered.foreign {
            true => BTreeMap::new(),
            false => remembered.logs.clone(),
        },
    };
    // A full disk must not keep itself full: the directory's reserve is there for this.
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
    remove_scratch(dir).await
}

/// Removes files that a crash kept from taking their names.
async fn remove_scratch<E: Env>(dir: &LogDir<E>) -> Result<(), LogError> {
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

/// A first start finds no log of ours.
async fn no_log_of_ours<E: Env>(dir: &LogDir<E>) -> Result<(), LogError> {
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

/// What Apache Kafka recorded of its logs: where each starts, and up to where it was synced.
async fn foreign_logs<E: Env>(dir: &LogDir<E>) -> Result<BTreeMap<String, LogCheckpoint>, LogError> {
    let offsets = async |file: &str| match read(dir, file).await?.map(|text| decode_offsets(&text)) {
        Some(Ok(offsets)) => Ok(offsets),
        None => Ok(BTreeMap::new()),
        Some(Err(what)) => {
            // Without it the logs are recovered from further back.
            tracing::warn!(file, what, "not readable; the logs are scanned from their begin");
            Ok::<_, LogError>(BTreeMap::new())
        }
    };
    let (points, starts) = (offsets(RECOVERY_POINTS).await?, offsets(LOG_STARTS).await?);
    let cleaned = offsets(CLEANED_UP_TO).await?;
    let folders = partitions_of(dir).await?;
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

async fn partitions_of<E: Env>(dir: &LogDir<E>) -> Result<Vec<String>, LogError> {
    let entries = dir.dir().list("").await?;
    let folders = entries.into_iter().filter(|e| e.kind == EntryKind::Dir);
    Ok(folders
        .map(|e| e.name)
        .filter(|name| split_folder(name).is_some())
        .collect())
}

/// The folders of partitions, sorted. Those of deleted ones are removed.
pub async fn partitions<E: Env>(dir: &LogDir<E>) -> Result<Vec<String>, LogError> {
    for entry in dir.dir().list("").await? {
        if entry.kind == EntryKind::Dir && is_deleted_folder(&entry.name) {
            remove_folder(dir.dir(), &entry.name).await?;
        }
    }
    partitions_of(dir).await
}

/// Records how far each log is durable: ours first, which recovery goes by, then Kafka's.
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
    // BEFORE ours: one of a stop beside other points means that Kafka was here since.
    dir.dir().replace(RECOVERY_POINTS, encode_points(logs)).await?;
    // As Kafka: a log that starts at 0 is left out.
    let starts = encode_each(logs, |r| Some(r.log_start).filter(|start| start.0 > 0));
    dir.dir().replace(LOG_STARTS, starts).await?;
    Ok(dir.dir().replace(CHECKPOINT, now.encode()).await?)
}

fn encode_points(logs: &BTreeMap<String, LogCheckpoint>) -> Bytes {
    encode_each(logs, |r| r.recovery_point)
}

fn encode_each(logs: &BTreeMap<String, LogCheckpoint>, of: fn(&LogCheckpoint) -> Option<Offset>) -> Bytes {
    let each = logs
        .iter()
        .filter_map(|(folder, r)| Some((folder.clone(), of(r)?)));
    encode_offsets(&each.collect()).into()
}

/// Records the high watermarks, by folder.
pub async fn write_high_watermarks<E: Env>(
    dir: &LogDir<E>,
    high_watermarks: &BTreeMap<String, Offset>,
) -> Result<(), LogError> {
    Ok(dir
        .dir()
        .replace(HIGH_WATERMARKS, encode_offsets(high_watermarks).into())
        .await?)
}

/// Records a clean stop and writes the clean-shutdown marker. Only after every log of the directory was closed; `logs` is what
/// that returned.
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

/// Reads `meta.properties`; `None` in a directory that was never used.
///
/// # Errors
/// [`LogError::Malformed`] if it is not what Kafka in KRaft mode writes.
pub async fn read_meta<E: Env>(dir: &LogDir<E>) -> Result<Option<MetaProperties>, LogError> {
    let malformed = |what| LogError::Malformed {
        file: META_PROPERTIES.to_owned(),
        what,
    };
    let text = read(dir, META_PROPERTIES).await?;
    text.map(|text| MetaProperties::decode(&text).map_err(malformed))
        .transpose()
}

/// Writes `meta.properties`, durably.
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

//! What a log directory remembers of its logs as a whole: recovery points, high watermarks, and whether it was stopped cleanly.
//!
//! ```text
//! brokkr-checkpoint   "BKCP" │ version u16 = 1 │ count u32 │ count × ( folder length u16 │ folder
//!                       │ topic_id 16 bytes │ recovery_point i64 │ log_start i64 │ truncations u64 ) │ crc32 u32
//! ```
//! Kafka's own checkpoints have no checksum, and a recovery point that rotted upwards would turn a torn tail into damage, one that
//! rotted downwards damage into a tail. So ours is what recovery goes by; Kafka's are written for Kafka's tools.
//!
//! The life of a directory, every step durable before the next:
//! 1. [`begin`] reads everything, then removes the clean-shutdown marker, BEFORE anything else is written: from here on a
//!    crash, also one in the middle of loading, is a crash (P13, KAFKA-10471);
//! 2. logs are opened with what was recorded; [`write`] records their [`Log::checkpoint`](crate::Log::checkpoint) now and
//!    then. What is recorded is durable by then, never the other way round (KAFKA-10101);
//! 3. all logs are closed, [`write`] records what that returned, and only if all of it went well [`end`] writes the marker.

use std::collections::BTreeMap;

use brokkr_env::{Env, ErrorKind};
use brokkr_types::{Offset, Uuid};
use bytes::Bytes;

use crate::bytes_in::{BytesIn, checked, seal};
use crate::dir::LogDir;
use crate::error::LogError;
use crate::formats::{
    decode_clean_shutdown, decode_offsets, encode_clean_shutdown, encode_offsets, split_folder,
};
use crate::names::DELETE_FOLDER;
use crate::recovery::Recorded;
use crate::retention::remove_folder;

pub use crate::formats::MetaProperties;

const CHECKPOINT: &str = "brokkr-checkpoint";
const RECOVERY_POINTS: &str = "recovery-point-offset-checkpoint";
const LOG_STARTS: &str = "log-start-offset-checkpoint";
const HIGH_WATERMARKS: &str = "replication-offset-checkpoint";
const CLEAN_SHUTDOWN: &str = ".kafka_cleanshutdown";
const META_PROPERTIES: &str = "meta.properties";

const MAGIC: &[u8; 4] = b"BKCP";
const VERSION: u16 = 1;
const FILE_BYTES_MAX: u32 = 256 << 20;

/// What a directory remembers.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Remembered {
    /// By folder, `topic-3`: what to open each log with.
    pub logs: BTreeMap<String, Recorded>,
    /// By folder, the high watermarks.
    pub high_watermarks: BTreeMap<String, Offset>,
    /// Whether the last stop was clean, and the broker epoch it had then.
    pub clean: Option<CleanShutdown>,
}

/// What the clean-shutdown marker says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CleanShutdown {
    /// The broker epoch of that life, if it was noted.
    pub broker_epoch: Option<i64>,
}

/// Reads what the directory remembers, and makes every stop an unclean one until [`end`].
///
/// # Errors
/// [`LogError::Malformed`] if the checksummed checkpoint is damaged: what was durable can't be told then. Nothing was changed.
pub async fn begin<E: Env>(dir: &LogDir<E>) -> Result<Remembered, LogError> {
    // What is read must not be another file after a power loss.
    dir.dir().sync_dir("").await?;
    let marker = read(dir, CLEAN_SHUTDOWN).await?;
    let clean = marker.as_deref().map(|text| CleanShutdown {
        broker_epoch: decode_clean_shutdown(text),
    });
    let mut logs = match read(dir, CHECKPOINT).await? {
        Some(bytes) => decode(&bytes).ok_or_else(|| LogError::Malformed {
            file: CHECKPOINT.to_owned(),
            what: "damaged: nobody can tell which records must be there".to_owned(),
        })?,
        None => BTreeMap::new(),
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
    if marker.is_some() {
        dir.dir().remove(CLEAN_SHUTDOWN).await?;
        dir.dir().sync_dir("").await?;
    }
    Ok(Remembered {
        logs,
        high_watermarks,
        clean,
    })
}

/// The folders of partitions, sorted. Those of deleted ones are removed.
pub async fn partitions<E: Env>(dir: &LogDir<E>) -> Result<Vec<String>, LogError> {
    let mut folders = Vec::new();
    for entry in dir.dir().list("").await? {
        if entry.kind != brokkr_env::EntryKind::Dir {
            continue;
        }
        if entry.name.ends_with(DELETE_FOLDER) {
            remove_folder(dir.dir(), &entry.name).await?;
        } else if split_folder(&entry.name).is_some() {
            folders.push(entry.name);
        }
    }
    Ok(folders)
}

/// Records how far each log is durable: ours first, which recovery goes by, then Kafka's.
pub async fn write<E: Env>(dir: &LogDir<E>, logs: &BTreeMap<String, Recorded>) -> Result<(), LogError> {
    dir.dir().replace(CHECKPOINT, encode(logs)).await?;
    let offsets = |of: fn(&Recorded) -> Option<Offset>| {
        let each = logs
            .iter()
            .filter_map(|(folder, r)| Some((folder.clone(), of(r)?)));
        Bytes::from(encode_offsets(&each.collect()))
    };
    dir.dir()
        .replace(RECOVERY_POINTS, offsets(|r| r.recovery_point))
        .await?;
    // As Kafka: a log that starts at 0 is left out.
    let starts = offsets(|r| Some(r.log_start).filter(|start| start.0 > 0));
    Ok(dir.dir().replace(LOG_STARTS, starts).await?)
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

/// Writes the clean-shutdown marker. Only after every log of the directory was closed, and that recorded.
pub async fn end<E: Env>(dir: &LogDir<E>, broker_epoch: i64) -> Result<(), LogError> {
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

fn encode(logs: &BTreeMap<String, Recorded>) -> Bytes {
    let mut out = Vec::with_capacity(16 + logs.len() * 64);
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&VERSION.to_be_bytes());
    let known = || {
        logs.iter()
            .filter_map(|(folder, r)| Some((folder, r.recovery_point?, r)))
    };
    out.extend_from_slice(&(known().count() as u32).to_be_bytes());
    for (folder, point, recorded) in known() {
        let len = u16::try_from(folder.len()).expect("a folder's name is at most 255 bytes");
        out.extend_from_slice(&len.to_be_bytes());
        out.extend_from_slice(folder.as_bytes());
        out.extend_from_slice(recorded.topic_id.as_bytes());
        out.extend_from_slice(&point.0.to_be_bytes());
        out.extend_from_slice(&recorded.log_start.0.to_be_bytes());
        out.extend_from_slice(&recorded.truncations.to_be_bytes());
    }
    seal(out)
}

fn decode(bytes: &[u8]) -> Option<BTreeMap<String, Recorded>> {
    let mut bytes = BytesIn(checked(bytes)?.strip_prefix(MAGIC)?);
    if bytes.u16()? != VERSION {
        return None;
    }
    let mut logs = BTreeMap::new();
    for _ in 0..bytes.u32()? {
        let len = usize::from(bytes.u16()?);
        let (folder, rest) = bytes.0.split_at_checked(len)?;
        let (id, rest) = rest.split_first_chunk()?;
        bytes.0 = rest;
        let recorded = Recorded {
            topic_id: Uuid::from_bytes(*id),
            recovery_point: Some(Offset(bytes.i64()?)),
            log_start: Offset(bytes.i64()?),
            truncations: bytes.u64()?,
            ..Recorded::default()
        };
        logs.insert(String::from_utf8(folder.to_vec()).ok()?, recorded);
    }
    bytes.0.is_empty().then_some(logs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checkpoint_is_read_as_written_and_damage_is_seen() {
        let recorded = |point: Option<i64>| Recorded {
            topic_id: Uuid::METADATA_TOPIC,
            recovery_point: point.map(Offset),
            log_start: Offset(3),
            truncations: 2,
            ..Recorded::default()
        };
        let mut logs = BTreeMap::from([
            ("a-0".to_owned(), recorded(Some(7))),
            ("b-1".to_owned(), recorded(Some(9))),
        ]);
        let bytes = encode(&logs);
        assert_eq!(decode(&bytes), Some(logs.clone()));
        logs.insert("unknown-0".to_owned(), recorded(None));
        assert_eq!(encode(&logs), bytes);
        for at in 0..bytes.len() {
            let mut damaged = bytes.to_vec();
            damaged[at] ^= 0x10;
            assert_eq!(decode(&damaged), None, "byte {at}");
        }
    }
}

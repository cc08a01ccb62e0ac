//! `brokkr-manifest`, a file in each partition's folder: the segments of the log, checksummed.
//!
//! ```text
//! "BKMF" │ version u16 = 4 │ topic_id 16 bytes │ partition i32 │ truncations u64 │ truncated_to i64
//!        │ pending_truncation u8 (0 none, 1 tail, 2 all) │ log_start i64 │ first_base i64 │ unlisted_base i64 │ gaps u8
//!        │ sealed count u32 │ count × segment │ active u8 (0 or 1) │ active × ( segment ) │ epochs_crc u32 │ crc32 u32
//! segment = base i64 │ next i64 │ size u64 │ first_timestamp i64 │ max_timestamp i64 │ max_timestamp_offset i64
//!           │ created i64 │ first_crc u32 │ offset entries u32 │ time entries u32
//! ```
//! Big-endian. Before version 4 `gaps` is absent and counts as 1; in version 2 a segment has no `first_crc`.
//!
//! It adds what Kafka's files can't express:
//! - a sealed segment that is missing, shorter, or of another log is damage, not the end of the log (D2);
//! - a truncation below the recorded recovery point is not a loss: `truncations` counts them, and the next start
//!   finishes one that a crash interrupted (`pending_truncation`), so old bytes never reappear behind new ones;
//! - a start after a clean stop reads no segment.
//!
//! It is replaced atomically: after a segment was sealed and synced, and BEFORE files are removed or truncated. A log
//! without one (written by Kafka) is scanned. `active` is written by a clean stop: the segment was durable at that
//! time, and together with the clean-shutdown marker nothing has changed since.

use brokkr_types::{Offset, UnixMillis, Uuid};
use bytes::Bytes;

use crate::error::LogError;
use crate::formats::bytes::{ByteReader, append_crc, verify_crc};
use crate::formats::names;
use crate::formats::text::partition_of;
use crate::state::log_checkpoint::LogCheckpoint;
use crate::state::segment::{SegmentInfo, SegmentSummary};

const MAGIC: &[u8; 4] = b"BKMF";
const VERSION: u16 = 4;
/// The oldest version that is decoded.
const VERSION_MIN: u16 = 2;

/// A truncation that may be unfinished.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum PendingTruncation {
    #[default]
    None,
    /// Batches at `truncated_to` and past it are removed.
    Tail,
    /// Everything is removed; the log begins at `truncated_to`, without producers or epochs.
    All,
}

/// The manifest.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Manifest {
    /// The topic id of the log.
    pub(crate) topic_id: Uuid,
    /// Its partition; -1 if the folder's name is not that of a partition.
    pub(crate) partition: i32,
    /// How many times the log was truncated. A recovery point recorded at a lower count is from before a truncation.
    pub(crate) truncations: u64,
    /// The end of the last truncation.
    pub(crate) truncated_to: Offset,
    /// Whether the last truncation may be unfinished.
    pub(crate) pending_truncation: PendingTruncation,
    pub(crate) log_start: Offset,
    /// The base offset of the oldest segment. Files of older segments are leftovers.
    pub(crate) first_base: Offset,
    /// The base offset of the first segment that is not listed. After a compacted segment it is past the end of the
    /// last listed batch.
    pub(crate) unlisted_base: Offset,
    /// Whether offsets may be missing: the log was compacted, or replicated from one that may have been. Otherwise a
    /// batch that does not begin at the end of the one before is damage.
    pub(crate) gaps: bool,
    pub(crate) sealed: Vec<SegmentInfo>,
    pub(crate) active: Option<SegmentInfo>,
    /// With `active`: the CRC-32 of `leader-epoch-checkpoint`.
    pub(crate) epochs_crc: u32,
}

impl Manifest {
    /// Checks that this is the manifest of the log in `folder`, whose `partition.metadata` has `topic_id` (zero:
    /// unknown). Returns the log's topic id.
    ///
    /// # Errors
    /// [`LogError::Malformed`] if it is the manifest of another log.
    pub(crate) fn check_identity(&self, folder: &str, topic_id: Uuid) -> Result<Uuid, LogError> {
        let partition = partition_of(folder);
        let known = |id: Uuid| !id.is_zero();
        let other_topic = known(topic_id) && known(self.topic_id) && topic_id != self.topic_id;
        if other_topic || self.partition != partition {
            let what = format!(
                "it is of partition {} of topic id {}, but the folder is of partition {} and {} says {topic_id}: \
                 put back the file that belongs here",
                self.partition,
                self.topic_id,
                partition,
                names::PARTITION_METADATA
            );
            return Err(LogError::Malformed {
                file: format!("{}/{}", folder, names::MANIFEST),
                what,
            });
        }
        Ok(if known(topic_id) { topic_id } else { self.topic_id })
    }

    /// Checks that the manifest is not older than the checkpoint `recorded`, which is always written after it.
    ///
    /// # Errors
    /// [`LogError::Malformed`] if it is older: a copy was put back.
    pub(crate) fn check_not_older(&self, folder: &str, recorded: &LogCheckpoint) -> Result<(), LogError> {
        if self.truncations >= recorded.truncations {
            return Ok(());
        }
        let what = format!(
            "it is an older version of itself: it knows of {} truncations, and {} had been recorded",
            self.truncations, recorded.truncations
        );
        Err(LogError::Malformed {
            file: format!("{}/{}", folder, names::MANIFEST),
            what,
        })
    }

    pub(crate) fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(64 + (self.sealed.len() + 1) * 64);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&VERSION.to_be_bytes());
        out.extend_from_slice(self.topic_id.as_bytes());
        out.extend_from_slice(&self.partition.to_be_bytes());
        out.extend_from_slice(&self.truncations.to_be_bytes());
        out.extend_from_slice(&self.truncated_to.0.to_be_bytes());
        out.push(self.pending_truncation as u8);
        out.extend_from_slice(&self.log_start.0.to_be_bytes());
        out.extend_from_slice(&self.first_base.0.to_be_bytes());
        out.extend_from_slice(&self.unlisted_base.0.to_be_bytes());
        out.push(u8::from(self.gaps));
        out.extend_from_slice(&(self.sealed.len() as u32).to_be_bytes());
        self.sealed.iter().for_each(|s| put_segment(&mut out, s));
        out.push(u8::from(self.active.is_some()));
        self.active.iter().for_each(|s| put_segment(&mut out, s));
        out.extend_from_slice(&self.epochs_crc.to_be_bytes());
        append_crc(out)
    }

    /// `None` if it is damaged or of a later version.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut bytes = ByteReader(verify_crc(bytes)?.strip_prefix(MAGIC)?);
        let version = bytes.u16()?;
        if !(VERSION_MIN..=VERSION).contains(&version) {
            return None;
        }
        let (id, rest) = bytes.0.split_first_chunk()?;
        bytes.0 = rest;
        let mut manifest = Self {
            topic_id: Uuid::from_bytes(*id),
            partition: bytes.i32()?,
            truncations: bytes.u64()?,
            truncated_to: Offset(bytes.i64()?),
            pending_truncation: [
                PendingTruncation::None,
                PendingTruncation::Tail,
                PendingTruncation::All,
            ]
            .get(usize::from(bytes.u8()?))
            .copied()?,
            log_start: Offset(bytes.i64()?),
            first_base: Offset(bytes.i64()?),
            unlisted_base: Offset(bytes.i64()?),
            gaps: version < 4 || bytes.u8()? != 0,
            ..Self::default()
        };
        for _ in 0..bytes.u32()? {
            manifest.sealed.push(take_segment(&mut bytes, version)?);
        }
        if bytes.u8()? != 0 {
            manifest.active = Some(take_segment(&mut bytes, version)?);
        }
        manifest.epochs_crc = bytes.u32()?;
        bytes.0.is_empty().then_some(manifest)
    }
}

fn put_segment(out: &mut Vec<u8>, segment: &SegmentInfo) {
    let summary = &segment.summary;
    for v in [summary.base.0, summary.next.0, summary.size as i64] {
        out.extend_from_slice(&v.to_be_bytes());
    }
    for v in [summary.first_timestamp, summary.max_timestamp] {
        out.extend_from_slice(&v.0.to_be_bytes());
    }
    out.extend_from_slice(&summary.max_timestamp_offset.0.to_be_bytes());
    out.extend_from_slice(&summary.created.0.to_be_bytes());
    out.extend_from_slice(&summary.first_crc.to_be_bytes());
    out.extend_from_slice(&segment.offset_entries.to_be_bytes());
    out.extend_from_slice(&segment.time_entries.to_be_bytes());
}

fn take_segment(bytes: &mut ByteReader<'_>, version: u16) -> Option<SegmentInfo> {
    let summary = SegmentSummary {
        base: Offset(bytes.i64()?),
        next: Offset(bytes.i64()?),
        size: bytes.u64()?,
        first_timestamp: UnixMillis(bytes.i64()?),
        max_timestamp: UnixMillis(bytes.i64()?),
        max_timestamp_offset: Offset(bytes.i64()?),
        created: UnixMillis(bytes.i64()?),
        first_crc: if version < 3 { 0 } else { bytes.u32()? },
    };
    Some(SegmentInfo {
        summary,
        offset_entries: bytes.u32()?,
        time_entries: bytes.u32()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_decoded_as_encoded_and_damage_is_detected() {
        let segment = |base: i64| SegmentInfo {
            summary: SegmentSummary {
                next: Offset(base + 10),
                size: 1000,
                first_timestamp: UnixMillis(5),
                max_timestamp: UnixMillis(6),
                max_timestamp_offset: Offset(base + 7),
                first_crc: 0xc1c2_c3c4,
                ..SegmentSummary::new(Offset(base), UnixMillis(99))
            },
            offset_entries: 3,
            time_entries: 2,
        };
        let manifest = Manifest {
            topic_id: Uuid::METADATA_TOPIC,
            partition: 7,
            truncations: 4,
            truncated_to: Offset(12),
            pending_truncation: PendingTruncation::Tail,
            log_start: Offset(3),
            first_base: Offset(0),
            unlisted_base: Offset(21),
            gaps: false,
            sealed: vec![segment(0), segment(10)],
            active: Some(segment(20)),
            epochs_crc: 77,
        };
        let bytes = manifest.encode();
        assert_eq!(Manifest::decode(&bytes), Some(manifest));
        for at in 0..bytes.len() {
            let mut damaged = bytes.to_vec();
            damaged[at] ^= 1;
            assert_eq!(Manifest::decode(&damaged), None, "byte {at}");
        }
    }
}

//! Snapshots of the metadata log, as Kafka's `<end offset>-<epoch>.checkpoint` files.
//!
//! ```text
//!   control batch   SnapshotHeader, KRaftVersion, Voters
//!   data batches    records that make the image
//!   control batch   SnapshotFooter                      without it the file isn't one
//! ```
//!
//! Offsets inside are its own, from 0; the file's name says which part of the log it replaces. A new cluster has one at
//! offset 0 that holds only the voters (KIP-853).

use std::fmt;

use brokkr_types::{LeaderEpoch, Offset, UnixMillis};
use brokkr_wire::messages::{
    KRaftVersionRecord, MetadataRecord, SnapshotFooterRecord, SnapshotHeaderRecord, VotersRecord,
};
use brokkr_wire::records::batches;
use brokkr_wire::{EncodeError, Message};
use bytes::{Bytes, BytesMut};

use crate::bootstrap::{KRAFT_VERSION, KRAFT_VERSIONS, METADATA_VERSION_LATEST};
use crate::image::{Image, MetadataState, Provenance, ReplayError};
use crate::records::{Control, Entry, RecordError, decode_batch, encode_control, encode_records};

/// Records in a batch: with strings of at most 32 KiB each the batch stays below Kafka's limit.
const RECORDS_PER_BATCH: usize = 128;

/// The part of the log that a snapshot replaces.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct SnapshotId {
    /// The first offset after the snapshot.
    pub end_offset: i64,
    /// The quorum epoch of the last record in it.
    pub epoch: i32,
}

impl SnapshotId {
    /// The first snapshot of a new cluster.
    pub const BOOTSTRAP: Self = Self {
        end_offset: 0,
        epoch: 0,
    };

    /// The file's name.
    pub fn file_name(self) -> String {
        format!("{:020}-{:010}.checkpoint", self.end_offset, self.epoch)
    }

    /// Parses the name of a snapshot file.
    pub fn from_file_name(name: &str) -> Option<Self> {
        let digits = |s: &str, n: usize| s.len() == n && s.bytes().all(|b| b.is_ascii_digit());
        let (end_offset, epoch) = name.strip_suffix(".checkpoint")?.split_once('-')?;
        if !digits(end_offset, 20) || !digits(epoch, 10) {
            return None;
        }
        Some(Self {
            end_offset: end_offset.parse().ok()?,
            epoch: epoch.parse().ok()?,
        })
    }
}

/// The quorum's state, kept in the same log as the cluster's.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct QuorumState {
    /// The level of `kraft.version`.
    pub kraft_version: i16,
    /// The voters; `None` if they come from the configuration.
    pub voters: Option<VotersRecord>,
}

impl QuorumState {
    /// Applies a control record.
    ///
    /// # Errors
    /// An unsupported level of `kraft.version`.
    pub fn replay(&mut self, control: &Control) -> Result<(), ReplayError> {
        match control {
            Control::KRaftVersion(r) if !KRAFT_VERSIONS.contains(&r.kraft_version) => {
                return Err(ReplayError::BadValue {
                    field: "KRaftVersionRecord.kraft_version",
                    value: r.kraft_version.into(),
                });
            }
            Control::KRaftVersion(r) => self.kraft_version = r.kraft_version,
            Control::Voters(r) => self.voters = Some(r.clone()),
            Control::LeaderChange(_) | Control::SnapshotHeader(_) | Control::SnapshotFooter(_) => {}
        }
        Ok(())
    }
}

/// The content of a snapshot.
#[derive(Clone, PartialEq, Debug)]
pub struct Snapshot {
    /// The cluster.
    pub image: Image,
    /// The quorum.
    pub quorum: QuorumState,
    /// The append time of its last record.
    pub last_timestamp: UnixMillis,
}

/// An invalid snapshot file.
#[derive(Clone, PartialEq, Debug)]
pub enum SnapshotError {
    /// Its bytes are not metadata batches.
    Records(RecordError),
    /// Its records can't be replayed.
    Replay {
        /// The index of the record in the file.
        offset: i64,
        /// What is wrong.
        fault: ReplayError,
    },
    /// The header is missing.
    NoHeader,
    /// The footer is missing: the snapshot was never completed.
    NoFooter,
}

impl fmt::Display for SnapshotError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Records(e) => e.fmt(f),
            Self::Replay { offset, fault } => write!(f, "record {offset}: {fault}"),
            Self::NoHeader => f.write_str("it does not begin with a snapshot header"),
            Self::NoFooter => f.write_str("it does not end with a snapshot footer"),
        }
    }
}

impl std::error::Error for SnapshotError {}

impl From<RecordError> for SnapshotError {
    fn from(e: RecordError) -> Self {
        Self::Records(e)
    }
}

/// The bytes of the snapshot file.
///
/// # Errors
/// A record has a field that is too long for its length.
pub fn write(snapshot: &Snapshot, id: SnapshotId, now: UnixMillis) -> Result<Bytes, EncodeError> {
    let epoch = LeaderEpoch(id.epoch);
    let mut out = BytesMut::new();
    let mut next = Offset(0);
    let mut head = vec![Control::SnapshotHeader(SnapshotHeaderRecord {
        last_contained_log_timestamp: snapshot.last_timestamp.0,
        ..SnapshotHeaderRecord::default()
    })];
    if snapshot.quorum.kraft_version >= KRAFT_VERSION {
        head.push(Control::KRaftVersion(KRaftVersionRecord {
            kraft_version: snapshot.quorum.kraft_version,
            ..KRaftVersionRecord::default()
        }));
        head.extend(snapshot.quorum.voters.clone().map(Control::Voters));
    }
    out.extend_from_slice(&encode_control(&head, next, epoch, now)?.bytes);
    next = next.plus(head.len() as i64);
    let level = snapshot
        .image
        .metadata_version()
        .unwrap_or(METADATA_VERSION_LATEST);
    let records: Vec<MetadataRecord> = snapshot.image.to_records();
    for chunk in records.chunks(RECORDS_PER_BATCH) {
        out.extend_from_slice(&encode_records(chunk, level, next, epoch, now)?.bytes);
        next = next.plus(chunk.len() as i64);
    }
    let footer = [Control::SnapshotFooter(SnapshotFooterRecord::default())];
    out.extend_from_slice(&encode_control(&footer, next, epoch, now)?.bytes);
    Ok(out.freeze())
}

/// Decodes a snapshot file.
///
/// # Errors
/// Any changed byte is an error: each batch has a CRC, and the footer shows that none is missing.
pub fn read(bytes: &Bytes, id: SnapshotId, cluster_id: &str) -> Result<Snapshot, SnapshotError> {
    let mut state = MetadataState::new(Image::empty(cluster_id));
    let mut quorum = QuorumState::default();
    let mut last_timestamp = None;
    let mut complete = false;
    for batch in batches(bytes.clone()) {
        let batch = batch.map_err(RecordError::from)?;
        batch.check_crc().map_err(RecordError::from)?;
        for (offset, entry) in decode_batch(&batch)? {
            let replayed = |fault| SnapshotError::Replay { offset, fault };
            match entry {
                Entry::Control(Control::SnapshotHeader(header)) => {
                    last_timestamp = Some(UnixMillis(header.last_contained_log_timestamp));
                }
                _ if last_timestamp.is_none() => return Err(SnapshotError::NoHeader),
                Entry::Control(Control::SnapshotFooter(_)) => complete = true,
                Entry::Control(control) => quorum.replay(&control).map_err(replayed)?,
                Entry::Metadata(record) => state.replay(offset, id.epoch, &record).map_err(replayed)?,
                Entry::UnknownControl(_) => {}
            }
        }
    }
    let last_timestamp = last_timestamp.ok_or(SnapshotError::NoHeader)?;
    if !complete {
        return Err(SnapshotError::NoFooter);
    }
    let mut image = state.image().clone();
    image.provenance = Provenance {
        offset: id.end_offset - 1,
        epoch: id.epoch,
    };
    Ok(Snapshot {
        image,
        quorum,
        last_timestamp,
    })
}

/// The first snapshot of a new cluster, with one voter.
///
/// # Errors
/// The host is longer than a length can say.
pub fn bootstrap(voter: &VotersRecord, now: UnixMillis) -> Result<Bytes, EncodeError> {
    let snapshot = Snapshot {
        image: Image::empty(""),
        quorum: QuorumState {
            kraft_version: KRAFT_VERSION,
            voters: Some(voter.clone()),
        },
        last_timestamp: now,
    };
    const { assert!(VotersRecord::MAX_VERSION == 0, "voters are written in version 0") };
    write(&snapshot, SnapshotId::BOOTSTRAP, now)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bootstrap::bootstrap_records;
    use crate::image::tests::busy_records;
    use brokkr_types::Uuid;
    use brokkr_wire::messages::voters_record::Voter;

    fn voters() -> VotersRecord {
        VotersRecord {
            voters: vec![Voter {
                voter_id: 1,
                voter_directory_id: Uuid::from_random([7; 16]),
                ..Voter::default()
            }],
            ..VotersRecord::default()
        }
    }

    fn busy() -> Snapshot {
        let mut state = MetadataState::new(Image::empty("a cluster"));
        for (offset, record) in (0..).zip(bootstrap_records().iter().chain(&busy_records())) {
            state
                .replay(offset, 3, record)
                .expect("the records are replayable");
        }
        Snapshot {
            image: state.image().clone(),
            quorum: QuorumState {
                kraft_version: 1,
                voters: Some(voters()),
            },
            last_timestamp: UnixMillis(77),
        }
    }

    #[test]
    fn written_varints_are_read_back() {
        let snapshot = busy();
        let id = SnapshotId {
            end_offset: snapshot.image.provenance.offset + 1,
            epoch: 3,
        };
        let bytes = write(&snapshot, id, UnixMillis(99)).expect("it can be written");
        assert_eq!(read(&bytes, id, "a cluster"), Ok(snapshot));
    }

    #[test]
    fn a_new_cluster_begins_with_its_voters_alone() {
        let bytes = bootstrap(&voters(), UnixMillis(5)).expect("it can be written");
        let snapshot = read(&bytes, SnapshotId::BOOTSTRAP, "c").expect("it can be read");
        assert_eq!(snapshot.image, Image::empty("c").at(-1, 0));
        assert_eq!(snapshot.quorum.voters, Some(voters()));
        assert_eq!(
            SnapshotId::BOOTSTRAP.file_name(),
            "00000000000000000000-0000000000.checkpoint"
        );
    }

    #[test]
    fn no_damage_passes() {
        let snapshot = busy();
        let id = SnapshotId {
            end_offset: 9,
            epoch: 3,
        };
        let bytes = write(&snapshot, id, UnixMillis(99)).expect("it can be written");
        for at in 0..bytes.len() {
            let cut = bytes.slice(..at);
            assert!(read(&cut, id, "c").is_err(), "cut at {at}");
            // The leader epoch and the base offset are outside of the CRC; the file's name repeats them.
            let mut damaged = bytes.to_vec();
            damaged[at] ^= 0x40;
            let again = read(&Bytes::from(damaged), id, "a cluster");
            if let Ok(again) = again {
                assert_eq!(again.image.to_records(), snapshot.image.to_records(), "byte {at}");
            }
        }
    }

    #[test]
    fn file_names() {
        let id = SnapshotId {
            end_offset: 1234,
            epoch: 56,
        };
        assert_eq!(SnapshotId::from_file_name(&id.file_name()), Some(id));
        for other in [
            "1234-56.checkpoint",
            "00000000000000001234-0000000056.checkpoint.deleted",
            "00000000000000001234.log",
        ] {
            assert_eq!(SnapshotId::from_file_name(other), None);
        }
    }
}

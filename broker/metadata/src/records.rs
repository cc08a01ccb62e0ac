//! Encoding of records in batches, for `__cluster_metadata` and its snapshots.
//!
//! ```text
//!   data batch      each record: no key, value = frame_version:uvarint(1) type:uvarint version:uvarint body
//!   control batch   each record: key = version:i16 type:i16, value = the message of that type
//! ```
//!
//! A batch is replayed as a whole, so the records of one decision are written as one batch.

use std::fmt;

use brokkr_types::{LeaderEpoch, Offset, UnixMillis};
use brokkr_wire::messages::{
    KRaftVersionRecord, LeaderChangeMessage, MetadataRecord, SnapshotFooterRecord, SnapshotHeaderRecord,
    VotersRecord,
};
use brokkr_wire::records::{Batch, BatchBuilder, BatchError, BatchHeader, ControlType};
use brokkr_wire::{DecodeError, EncodeError, Message, Reader, encode_to_bytes};
use bytes::Bytes;

use crate::image::record_version;

/// Kafka's limit for a metadata batch, also when decompressed.
pub const BATCH_BYTES_MAX: usize = 8 << 20;

/// Kafka's limit for the records of one request.
pub const RECORDS_PER_REQUEST_MAX: usize = 10_000;

/// A control record of the quorum.
#[derive(Clone, PartialEq, Debug)]
pub enum Control {
    /// A leader begins its epoch.
    LeaderChange(LeaderChangeMessage),
    /// A snapshot begins.
    SnapshotHeader(SnapshotHeaderRecord),
    /// A snapshot is complete.
    SnapshotFooter(SnapshotFooterRecord),
    /// The level of `kraft.version`.
    KRaftVersion(KRaftVersionRecord),
    /// The voters.
    Voters(VotersRecord),
}

/// A record of the log.
#[derive(Clone, PartialEq, Debug)]
pub enum Entry {
    /// A record of the cluster's metadata.
    Metadata(MetadataRecord),
    /// A control record of the quorum.
    Control(Control),
    /// A control record of an unknown type, written by a later version: skip it.
    UnknownControl(i16),
}

/// An invalid metadata batch.
#[derive(Clone, PartialEq, Debug)]
pub enum RecordError {
    /// The batch is invalid.
    Batch(BatchError),
    /// A record in it is invalid.
    Record {
        /// Its offset.
        offset: i64,
        /// What is wrong.
        fault: DecodeError,
    },
    /// A record has no value.
    NoValue {
        /// Its offset.
        offset: i64,
    },
}

impl fmt::Display for RecordError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Batch(e) => e.fmt(f),
            Self::Record { offset, fault } => write!(f, "record at offset {offset}: {fault}"),
            Self::NoValue { offset } => write!(f, "record at offset {offset} has no value"),
        }
    }
}

impl std::error::Error for RecordError {}

impl From<BatchError> for RecordError {
    fn from(e: BatchError) -> Self {
        Self::Batch(e)
    }
}

impl Control {
    fn encode(&self) -> Result<(ControlType, Bytes), EncodeError> {
        Ok(match self {
            Self::LeaderChange(m) => (ControlType::LeaderChange, encode_to_bytes(m, m.version)?),
            Self::SnapshotHeader(m) => (ControlType::SnapshotHeader, encode_to_bytes(m, m.version)?),
            Self::SnapshotFooter(m) => (ControlType::SnapshotFooter, encode_to_bytes(m, m.version)?),
            Self::KRaftVersion(m) => (ControlType::KraftVersion, encode_to_bytes(m, m.version)?),
            Self::Voters(m) => (ControlType::KraftVoters, encode_to_bytes(m, m.version)?),
        })
    }

    fn decode(control: ControlType, value: Bytes) -> Result<Entry, DecodeError> {
        Ok(Entry::Control(match control {
            ControlType::LeaderChange => Self::LeaderChange(versioned(value)?),
            ControlType::SnapshotHeader => Self::SnapshotHeader(versioned(value)?),
            ControlType::SnapshotFooter => Self::SnapshotFooter(versioned(value)?),
            ControlType::KraftVersion => Self::KRaftVersion(versioned(value)?),
            ControlType::KraftVoters => Self::Voters(versioned(value)?),
            other => return Ok(Entry::UnknownControl(other.id())),
        }))
    }
}

/// A message whose first field is its version. A newer version is read as the latest known one, with tagged fields after it.
fn versioned<M: Message>(value: Bytes) -> Result<M, DecodeError> {
    let version = Reader::new(value.clone()).i16("version")?;
    M::decode(
        &mut Reader::new(value),
        version.clamp(M::MIN_VERSION, M::MAX_VERSION),
    )
}

/// All records of a batch with their offsets. Does not check the CRC.
pub fn decode_batch(batch: &Batch) -> Result<Vec<(i64, Entry)>, RecordError> {
    let BatchHeader {
        base_offset,
        attributes,
        ..
    } = batch.header;
    let records = batch.records(BATCH_BYTES_MAX)?;
    let mut out = Vec::new();
    for record in records.iter() {
        let record = record?;
        let offset = base_offset.0 + i64::from(record.offset_delta);
        let value = record
            .value
            .map(Bytes::copy_from_slice)
            .ok_or(RecordError::NoValue { offset })?;
        let entry = if attributes.is_control() {
            Control::decode(ControlType::from_key(record.key)?, value)
        } else {
            MetadataRecord::decode(value).map(|(record, _)| Entry::Metadata(record))
        };
        out.push((
            offset,
            entry.map_err(|fault| RecordError::Record { offset, fault })?,
        ));
    }
    Ok(out)
}

/// Encodes records as one batch, in their versions at this level of `metadata.version`.
///
/// # Errors
/// A record has a field that is too long for its length.
///
/// # Panics
/// If there are no records.
pub fn encode_records(
    records: &[MetadataRecord],
    metadata_version: i16,
    base: Offset,
    epoch: LeaderEpoch,
    now: UnixMillis,
) -> Result<Batch, EncodeError> {
    let mut builder = BatchBuilder::new().at(base, epoch);
    for record in records {
        let version = record_version(record, metadata_version);
        let value = fitted(record, version).encode(version)?;
        builder.push(now, None, Some(&value), &[]);
    }
    Ok(builder.build())
}

/// Encodes control records as one batch.
///
/// # Errors
/// A record has a field that is too long for its length.
///
/// # Panics
/// If there are no records.
pub fn encode_control(
    controls: &[Control],
    base: Offset,
    epoch: LeaderEpoch,
    now: UnixMillis,
) -> Result<Batch, EncodeError> {
    let mut builder = BatchBuilder::new().at(base, epoch).control();
    for control in controls {
        let (control, value) = control.encode()?;
        builder.push_control(now, control, &value);
    }
    Ok(builder.build())
}

/// The record without the fields that its version lacks, as Kafka writes it at a lower `metadata.version`.
fn fitted(record: &MetadataRecord, version: i16) -> MetadataRecord {
    let mut fitted = record.clone();
    match &mut fitted {
        MetadataRecord::RegisterBroker(r) => {
            if version < 4 {
                r.cordoned_log_dirs = None;
            }
            if version < 3 {
                r.log_dirs.clear();
            }
        }
        MetadataRecord::BrokerRegistrationChange(r) => {
            if version < 3 {
                r.cordoned_log_dirs = None;
            }
            if version < 2 {
                r.log_dirs.clear();
            }
        }
        MetadataRecord::Partition(r) => {
            if version < 2 {
                (r.eligible_leader_replicas, r.last_known_elr) = (None, None);
            }
            if version < 1 {
                r.directories.clear();
            }
        }
        MetadataRecord::PartitionChange(r) => {
            if version < 2 {
                (r.eligible_leader_replicas, r.last_known_elr) = (None, None);
            }
            if version < 1 {
                r.directories = None;
            }
        }
        _ => {}
    }
    fitted
}

//! The errors of batches that a leader refuses, with their codes in Kafka.

use super::{BatchError, DecompressError};
use brokkr_types::{Offset, ProducerId};
use std::fmt;

/// `CORRUPT_MESSAGE`.
pub const CORRUPT_MESSAGE: i16 = 2;
/// `MESSAGE_TOO_LARGE`.
pub const MESSAGE_TOO_LARGE: i16 = 10;
/// `INVALID_TIMESTAMP`.
pub const INVALID_TIMESTAMP: i16 = 32;
/// `UNSUPPORTED_COMPRESSION_TYPE`.
pub const UNSUPPORTED_COMPRESSION_TYPE: i16 = 76;
/// `INVALID_RECORD`.
pub const INVALID_RECORD: i16 = 87;

/// Maximum of bad records listed for a batch.
pub const RECORD_ERRORS_MAX: usize = 1024;

/// The reason why a batch is refused. Its producer is at fault.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RecordError {
    /// There is no complete batch.
    NoBatch,
    /// There is more than one batch.
    MoreThanOneBatch,
    /// zstd, in a version of Produce that doesn't support it.
    ZstdNotAllowed,
    /// A producer's batch doesn't begin at offset 0.
    BaseOffset(Offset),
    /// More bytes than `max.message.bytes`.
    TooLarge {
        /// The batch's size.
        size_bytes: usize,
        /// The limit.
        max: i32,
    },
    /// The number of records is wrong, or doesn't match the offsets.
    Count {
        /// The header's count of records.
        records_count: i32,
        /// The header's last offset delta.
        last_offset_delta: i32,
    },
    /// A record has an unexpected offset delta.
    OffsetDelta {
        /// The record's index in the batch.
        index: i32,
        /// The record's offset delta.
        offset_delta: i32,
    },
    /// A producer sent control records.
    Control,
    /// A producer id without a sequence.
    Producer(ProducerId),
    /// A transactional batch without a producer id.
    Transactional,
    /// The batch is damaged or not a batch.
    Batch(BatchError),
    /// Some of its records are invalid.
    Records {
        /// Whether any has an invalid timestamp.
        timestamp: bool,
        /// The number of invalid records.
        count: usize,
        /// The first [`RECORD_ERRORS_MAX`] of them: index in the batch, and error message.
        errors: Vec<(i32, String)>,
    },
}

impl RecordError {
    /// Kafka's error code.
    pub fn code(&self) -> i16 {
        match self {
            Self::NoBatch
            | Self::MoreThanOneBatch
            | Self::BaseOffset(_)
            | Self::Count { .. }
            | Self::OffsetDelta { .. }
            | Self::Control
            | Self::Producer(_)
            | Self::Transactional
            | Self::Records { timestamp: false, .. } => INVALID_RECORD,
            Self::Records { timestamp: true, .. } => INVALID_TIMESTAMP,
            Self::ZstdNotAllowed => UNSUPPORTED_COMPRESSION_TYPE,
            Self::TooLarge { .. } => MESSAGE_TOO_LARGE,
            Self::Batch(e) => match e {
                BatchError::Length(_) | BatchError::Magic(_) | BatchError::Crc { .. } => CORRUPT_MESSAGE,
                BatchError::CompressionType(_) => UNSUPPORTED_COMPRESSION_TYPE,
                BatchError::Decompress(DecompressError::TooLarge { .. }) => MESSAGE_TOO_LARGE,
                BatchError::Partial { .. }
                | BatchError::OldFormat(_)
                | BatchError::Decompress(DecompressError::Corrupt { .. })
                | BatchError::RecordsCount(_)
                | BatchError::Record { .. }
                | BatchError::TrailingBytes(_)
                | BatchError::ControlKey => INVALID_RECORD,
            },
        }
    }

    /// The invalid records by index in the batch, for Produce's `record_errors`.
    pub fn record_errors(&self) -> &[(i32, String)] {
        match self {
            Self::Records { errors, .. } => errors,
            _ => &[],
        }
    }
}

impl fmt::Display for RecordError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoBatch => {
                f.write_str("there must be one record batch for each partition, and there is none")
            }
            Self::MoreThanOneBatch => {
                f.write_str("there must be one record batch for each partition, and there are more")
            }
            Self::ZstdNotAllowed => f.write_str("zstd needs version 7 of Produce"),
            Self::BaseOffset(offset) => {
                write!(
                    f,
                    "the base offset of a produced batch must be 0, and it is {offset}"
                )
            }
            Self::TooLarge { size_bytes, max } => {
                write!(
                    f,
                    "the batch has {size_bytes} bytes, more than max.message.bytes={max}"
                )
            }
            Self::Count {
                records_count,
                last_offset_delta,
            } => {
                write!(
                    f,
                    "a batch of {records_count} records can't have last_offset_delta={last_offset_delta}"
                )
            }
            Self::OffsetDelta { index, offset_delta } => {
                write!(f, "record {index} of the batch has offset_delta={offset_delta}")
            }
            Self::Control => f.write_str("clients may not write control records"),
            Self::Producer(id) => {
                write!(f, "a batch of producer {id} needs a sequence of 0 or more")
            }
            Self::Transactional => f.write_str("a transactional batch needs a producer id"),
            Self::Batch(e) => e.fmt(f),
            Self::Records { timestamp: true, .. } => {
                f.write_str("One or more records have been rejected due to invalid timestamp")
            }
            Self::Records { count, errors, .. } => {
                write!(f, "{count} invalid records were refused")?;
                errors
                    .iter()
                    .take(3)
                    .try_for_each(|(index, what)| write!(f, "; {index}: {what}"))
            }
        }
    }
}

impl std::error::Error for RecordError {}

impl From<BatchError> for RecordError {
    fn from(e: BatchError) -> Self {
        Self::Batch(e)
    }
}

impl From<DecompressError> for RecordError {
    fn from(e: DecompressError) -> Self {
        Self::Batch(e.into())
    }
}

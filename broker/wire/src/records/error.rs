//! Errors in the bytes of batches and records.

use super::DecompressError;
use std::fmt;

/// An invalid batch. The writer of the bytes is at fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BatchError {
    /// The bytes end inside the batch. This is not damage at the end of a Fetch response, or of a log after a crash.
    Partial {
        /// Bytes that the batch needs, as far as known.
        needed: usize,
        /// Available bytes.
        have: usize,
    },
    /// An invalid length.
    Length(i32),
    /// Format 0 or 1, which Kafka 4 no longer accepts (KIP-724).
    OldFormat(i8),
    /// An unknown format.
    Magic(i8),
    /// The CRC doesn't match: the bytes were changed.
    Crc {
        /// The CRC in the header.
        stored: u32,
        /// The CRC of the bytes.
        computed: u32,
    },
    /// An unknown compression type.
    CompressionType(u8),
    /// The records can't be decompressed.
    Decompress(DecompressError),
    /// A negative number of records.
    RecordsCount(i32),
    /// A record is invalid.
    Record {
        /// Its index in the batch.
        index: i32,
        /// What is wrong with it.
        fault: RecordFault,
    },
    /// Bytes follow the last record.
    TrailingBytes(usize),
    /// The key of a control record is too short or of a negative version.
    ControlKey,
}

impl BatchError {
    /// Whether bytes are missing at the end, which can be normal there, as opposed to damage.
    pub fn is_partial(&self) -> bool {
        matches!(self, Self::Partial { .. })
    }
}

impl fmt::Display for BatchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Partial { needed, have } => write!(f, "batch cut off: {have} of {needed} bytes"),
            Self::Length(length) => write!(f, "impossible batch length {length}"),
            Self::OldFormat(magic) => write!(f, "message format v{magic} is not supported, only v2 is"),
            Self::Magic(magic) => write!(f, "unknown magic {magic}"),
            Self::Crc { stored, computed } => {
                write!(
                    f,
                    "corrupt batch: its crc is {computed:#010x}, its header says {stored:#010x}"
                )
            }
            Self::CompressionType(id) => write!(f, "unknown compression type {id}"),
            Self::Decompress(e) => e.fmt(f),
            Self::RecordsCount(n) => write!(f, "negative number of records {n}"),
            Self::Record { index, fault } => write!(f, "invalid record {index}: {fault}"),
            Self::TrailingBytes(n) => write!(f, "{n} bytes follow the last record"),
            Self::ControlKey => f.write_str("invalid key of a control record"),
        }
    }
}

impl std::error::Error for BatchError {}

impl From<DecompressError> for BatchError {
    fn from(e: DecompressError) -> Self {
        Self::Decompress(e)
    }
}

/// An invalid record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RecordFault {
    /// The bytes end inside the record, or its length is negative.
    CutOff,
    /// An integer is cut off or too long.
    Varint,
    /// A key, value or header ends past the record's end.
    Field,
    /// A header has no key, or the number of headers is negative or exceeds the remaining bytes.
    Headers,
    /// The record is shorter than its length says.
    Length,
}

impl fmt::Display for RecordFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::CutOff => "it ends outside the batch",
            Self::Varint => "an integer is cut off or too long",
            Self::Field => "a field ends outside the record",
            Self::Headers => "its headers can't be",
            Self::Length => "its length is not that of its fields",
        })
    }
}

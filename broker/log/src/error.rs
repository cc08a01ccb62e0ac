//! Errors of a log: whose fault each is, and its Kafka error code.

use std::fmt;

use brokkr_env as env;
use brokkr_types::{Offset, ProducerEpoch, ProducerId, Sequence};

/// Kafka's error codes that a log returns.
pub mod codes {
    /// `OFFSET_OUT_OF_RANGE`.
    pub const OFFSET_OUT_OF_RANGE: i16 = 1;
    /// `CORRUPT_MESSAGE`.
    pub const CORRUPT_MESSAGE: i16 = 2;
    /// `NOT_LEADER_OR_FOLLOWER`: the client retries.
    pub const NOT_LEADER_OR_FOLLOWER: i16 = 6;
    /// `RECORD_LIST_TOO_LARGE`.
    pub const RECORD_LIST_TOO_LARGE: i16 = 18;
    /// `OUT_OF_ORDER_SEQUENCE_NUMBER`.
    pub const OUT_OF_ORDER_SEQUENCE_NUMBER: i16 = 45;
    /// `INVALID_PRODUCER_EPOCH`.
    pub const INVALID_PRODUCER_EPOCH: i16 = 47;
    /// `INVALID_TXN_STATE`.
    pub const INVALID_TXN_STATE: i16 = 48;
    /// `TRANSACTION_COORDINATOR_FENCED`.
    pub const TRANSACTION_COORDINATOR_FENCED: i16 = 52;
    /// `KAFKA_STORAGE_ERROR`.
    pub const KAFKA_STORAGE_ERROR: i16 = 56;
}

/// Bytes that differ from those that were written and can't be the remains of a write that a crash interrupted (D2).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Damage {
    /// The file, relative to the log directory.
    pub file: String,
    /// The byte position in the file.
    pub position: u64,
    /// The offset of the batch that should be there.
    pub offset: Offset,
    /// What is wrong.
    pub what: String,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            file,
            position,
            offset,
            what,
        } = self;
        write!(f, "{file} is damaged at byte {position}, offset {offset}: {what}")
    }
}

/// An operation of a log failed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LogError {
    /// The disk's fault: an operation failed, or the directory is poisoned. The partition is offline for writes; with
    /// a poisoned directory all of its partitions are.
    Io(env::Error),
    /// The disk's fault: bytes that were durable are missing or damaged. The partition is offline until it is
    /// repaired.
    Damaged(Damage),
    /// The fault of the directory's previous writer: a file is not in its format.
    Malformed {
        /// The file, relative to the log directory.
        file: String,
        /// What is wrong.
        what: String,
    },
    /// The caller's fault: an offset that the log does not have.
    OutOfRange {
        /// The requested offset.
        offset: Offset,
        /// The log start offset.
        log_start: Offset,
        /// The end of the valid range.
        end: Offset,
    },
}

impl LogError {
    /// Kafka's error code.
    pub fn code(&self) -> i16 {
        match self {
            Self::Io(_) | Self::Damaged(_) | Self::Malformed { .. } => codes::KAFKA_STORAGE_ERROR,
            Self::OutOfRange { .. } => codes::OFFSET_OUT_OF_RANGE,
        }
    }
}

impl fmt::Display for LogError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(e) => e.fmt(f),
            Self::Damaged(damage) => damage.fmt(f),
            Self::Malformed { file, what } => write!(f, "{file}: {what}"),
            Self::OutOfRange {
                offset,
                log_start,
                end,
            } => {
                write!(f, "offset {offset} is not in {log_start}..{end}")
            }
        }
    }
}

impl std::error::Error for LogError {}

impl From<env::Error> for LogError {
    fn from(e: env::Error) -> Self {
        Self::Io(e)
    }
}

impl From<ReadError> for LogError {
    fn from(e: ReadError) -> Self {
        match e {
            ReadError::Io(e) => Self::Io(e),
            ReadError::Damaged(damage) => Self::Damaged(damage),
            ReadError::OutOfRange {
                offset,
                log_start,
                end,
            } => Self::OutOfRange {
                offset,
                log_start,
                end,
            },
            // The owner's own snapshot is never stale. Still no panic: the cause may be bytes on disk.
            ReadError::Stale => Self::Io(env::Error::new(env::ErrorKind::Io, e.to_string())),
        }
    }
}

/// Why an idempotent producer's batch is refused.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SequenceError {
    /// Batches are missing before this one, or it is older than the producer's last five.
    OutOfOrder {
        /// The batch's producer.
        producer: ProducerId,
        /// The batch's first sequence.
        sequence: Sequence,
        /// The producer's last sequence; -1 if it has no batch in this epoch.
        last: Sequence,
    },
    /// The producer id has a later epoch.
    StaleEpoch {
        /// The batch's producer.
        producer: ProducerId,
        /// The batch's epoch.
        epoch: ProducerEpoch,
        /// The producer's latest epoch.
        latest: ProducerEpoch,
    },
    /// A batch outside a transaction while the producer's transaction is open.
    NotInTransaction(ProducerId),
    /// A transaction marker of an older coordinator epoch.
    CoordinatorFenced {
        /// The transaction's producer.
        producer: ProducerId,
        /// The marker's coordinator epoch.
        epoch: i32,
        /// The latest coordinator epoch.
        latest: i32,
    },
}

/// A batch was not staged. The log is unchanged.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum AppendError {
    /// The producer's fault.
    Sequence(SequenceError),
    /// The producer's fault: the batch is larger than a segment.
    BatchTooLarge {
        /// The batch's size.
        size_bytes: usize,
        /// `segment.bytes`.
        max: u32,
    },
    /// The producer's fault, or damage: a control batch that can't be decoded.
    Control(String),
    /// The leader's fault: a replicated batch does not begin at the log end offset.
    UnexpectedOffset {
        /// The batch's base offset.
        base_offset: Offset,
        /// The log end offset.
        log_end: Offset,
    },
    /// The disk's fault: the log accepts no appends until the broker is restarted.
    Broken(env::Error),
}

impl AppendError {
    /// Kafka's error code.
    pub fn code(&self) -> i16 {
        match self {
            Self::Sequence(SequenceError::OutOfOrder { .. }) => codes::OUT_OF_ORDER_SEQUENCE_NUMBER,
            Self::Sequence(SequenceError::StaleEpoch { .. }) => codes::INVALID_PRODUCER_EPOCH,
            Self::Sequence(SequenceError::NotInTransaction(_)) => codes::INVALID_TXN_STATE,
            Self::Sequence(SequenceError::CoordinatorFenced { .. }) => codes::TRANSACTION_COORDINATOR_FENCED,
            Self::BatchTooLarge { .. } => codes::RECORD_LIST_TOO_LARGE,
            Self::Control(_) => codes::CORRUPT_MESSAGE,
            Self::UnexpectedOffset { .. } => codes::OFFSET_OUT_OF_RANGE,
            Self::Broken(_) => codes::KAFKA_STORAGE_ERROR,
        }
    }
}

impl From<SequenceError> for AppendError {
    fn from(e: SequenceError) -> Self {
        Self::Sequence(e)
    }
}

impl fmt::Display for SequenceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OutOfOrder {
                producer,
                sequence,
                last,
            } => {
                write!(
                    f,
                    "producer {producer}: sequence {sequence} does not follow {last}"
                )
            }
            Self::StaleEpoch {
                producer,
                epoch,
                latest,
            } => {
                write!(f, "producer {producer}: epoch {epoch} was replaced by {latest}")
            }
            Self::NotInTransaction(producer) => {
                write!(
                    f,
                    "producer {producer}: a plain batch while its transaction is open"
                )
            }
            Self::CoordinatorFenced {
                producer,
                epoch,
                latest,
            } => {
                write!(
                    f,
                    "producer {producer}: marker of coordinator epoch {epoch}, replaced by {latest}"
                )
            }
        }
    }
}

impl fmt::Display for AppendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sequence(e) => e.fmt(f),
            Self::BatchTooLarge { size_bytes, max } => {
                write!(f, "a batch of {size_bytes} bytes, segments have {max}")
            }
            Self::Control(what) => write!(f, "control batch: {what}"),
            Self::UnexpectedOffset { base_offset, log_end } => {
                write!(
                    f,
                    "a batch at offset {base_offset} does not follow the log's end {log_end}"
                )
            }
            Self::Broken(e) => e.fmt(f),
        }
    }
}

impl std::error::Error for SequenceError {}
impl std::error::Error for AppendError {}

/// A read failed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ReadError {
    /// The reader's fault: an offset below the log start offset or past the log end offset.
    OutOfRange {
        /// The requested offset.
        offset: Offset,
        /// The log start offset.
        log_start: Offset,
        /// The log end offset.
        end: Offset,
    },
    /// The disk's fault: the file can't be read.
    Io(env::Error),
    /// The disk's fault: no valid batch where one must be.
    Damaged(Damage),
    /// The log was truncated since the snapshot was taken; the caller takes a new one.
    Stale,
}

impl ReadError {
    /// Kafka's error code.
    pub fn code(&self) -> i16 {
        match self {
            Self::OutOfRange { .. } => codes::OFFSET_OUT_OF_RANGE,
            Self::Io(_) | Self::Damaged(_) => codes::KAFKA_STORAGE_ERROR,
            Self::Stale => codes::NOT_LEADER_OR_FOLLOWER,
        }
    }
}

impl From<env::Error> for ReadError {
    fn from(e: env::Error) -> Self {
        Self::Io(e)
    }
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OutOfRange {
                offset,
                log_start,
                end,
            } => {
                write!(f, "offset {offset} is not in {log_start}..={end}")
            }
            Self::Io(e) => e.fmt(f),
            Self::Damaged(damage) => damage.fmt(f),
            Self::Stale => f.write_str("the log was truncated while it was read"),
        }
    }
}

impl std::error::Error for ReadError {}

//! What goes wrong with a log, whose fault it is, and Kafka's code for it.

use std::fmt;

use brokkr_env as env;
use brokkr_types::{Offset, ProducerEpoch, ProducerId, Sequence};

/// Kafka's error codes, as far as a log answers with them.
pub mod codes {
    /// `OFFSET_OUT_OF_RANGE`.
    pub const OFFSET_OUT_OF_RANGE: i16 = 1;
    /// `CORRUPT_MESSAGE`.
    pub const CORRUPT_MESSAGE: i16 = 2;
    /// `NOT_LEADER_OR_FOLLOWER`: ask again.
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

/// Bytes that are not those that were written, where they can't be what a crash left of an unfinished write (D2).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Damage {
    /// The file, relative to the log directory.
    pub file: String,
    /// Where in it.
    pub position: u64,
    /// The offset that should stand there.
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

/// A log can't do what was asked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LogError {
    /// The disk's fault: an operation failed, or the directory is poisoned. The partition, and with a poisoned directory
    /// all in it, is offline for writing.
    Io(env::Error),
    /// The disk's fault: what was durable is not what it was. The partition goes offline until it is repaired.
    Damaged(Damage),
    /// Who wrote the directory is to blame: a file of it can't be read as what it should be.
    Malformed {
        /// The file, relative to the log directory.
        file: String,
        /// What is wrong.
        what: String,
    },
    /// The caller's fault: an offset outside of what the log holds.
    OutOfRange {
        /// What was asked for.
        offset: Offset,
        /// Where the log starts.
        log_start: Offset,
        /// Where what may be asked for ends.
        end: Offset,
    },
}

impl LogError {
    /// Kafka's code for it.
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
            // The owner's own snapshot is never stale, but bytes of a disk make no broken invariant.
            ReadError::Stale => Self::Io(env::Error::new(env::ErrorKind::Io, e.to_string())),
        }
    }
}

/// What is wrong with a batch's place in its producer's sequence.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SequenceError {
    /// Batches are missing before this one, or it is older than the window of five.
    OutOfOrder {
        /// Whose batch.
        producer: ProducerId,
        /// The sequence it begins with.
        sequence: Sequence,
        /// The last one there is; -1 where there is none in this epoch.
        last: Sequence,
    },
    /// Its producer has been replaced by a later incarnation.
    StaleEpoch {
        /// Whose batch.
        producer: ProducerId,
        /// The batch's epoch.
        epoch: ProducerEpoch,
        /// The latest epoch seen.
        latest: ProducerEpoch,
    },
    /// A plain batch while the producer's transaction is open.
    NotInTransaction(ProducerId),
    /// A marker of a coordinator that has been replaced.
    CoordinatorFenced {
        /// Whose transaction.
        producer: ProducerId,
        /// The marker's coordinator epoch.
        epoch: i32,
        /// The latest one seen.
        latest: i32,
    },
}

/// A batch was not staged. Nothing changed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum AppendError {
    /// The producer's fault.
    Sequence(SequenceError),
    /// The producer's fault: the batch is larger than a segment.
    BatchTooLarge {
        /// Its size.
        size_bytes: usize,
        /// `segment.bytes`.
        max: u32,
    },
    /// The producer's fault, or damage: a control batch that can't be read.
    Control(String),
    /// The leader's fault: a replicated batch that doesn't follow the log's end.
    UnexpectedOffset {
        /// Where the batch begins.
        base_offset: Offset,
        /// Where the log ends.
        log_end: Offset,
    },
    /// The disk's fault: the log is not written any more until restart.
    Broken(env::Error),
}

impl AppendError {
    /// Kafka's code for it.
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
    /// The reader's fault: the log does not hold this offset, or no more.
    OutOfRange {
        /// What was asked for.
        offset: Offset,
        /// Where the log starts.
        log_start: Offset,
        /// Where it ends.
        end: Offset,
    },
    /// The disk's fault; it concerns what was read.
    Io(env::Error),
    /// The disk's fault: where a batch should stand there is none.
    Damaged(Damage),
    /// Nobody's: the log was truncated since the snapshot was taken. Take a new one.
    Stale,
}

impl ReadError {
    /// Kafka's code for it.
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

//! One partition's log: Kafka's files, group commit, and what may be believed after a crash.
//!
//! ```text
//! <log dir>/topic-3/00000000000000000000.log        batches as they came, one behind the other
//!                   00000000000000000000.index      offset → position, sparse
//!                   00000000000000000000.timeindex  time → offset, sparse
//!                   00000000000000170210.log …      the next segment, named by its first offset
//!                   00000000000000170210.snapshot   the producers' state before it (and .window, ours)
//!                   leader-epoch-checkpoint         which leader epoch began where
//!                   partition.metadata              the topic's id
//!                   brokkr-manifest                 ours: what there must be, checksummed
//! ```
//!
//! A [`Log`] is owned by one task, which stages batches with `&mut self` and polls [`Log::next_event`]; readers on other
//! tasks have snapshots ([`LogReader`]). Three ends, each at or before the next:
//!
//! ```text
//! durable_end ≤ written_end ≤ log_end          all that is staged goes out as one write, with one sync right behind it;
//!      └─ or └─ acknowledged by                write N+1 runs beside sync N
//! ```
//!
//! Kept here: D1 and D2 (recovery, and the order of every change on disk), L6 (an offset never shows other bytes: a failed
//! write is taken back whole, before anybody saw it), I1–I3 (producer state changes with the log and goes back with it).
//! Each module says how. SCENARIOS P1, P3, P4, P6, P7, P9, P10, P12, P13, R5, R18, R19, W6.

mod error;
mod files;
mod formats;
mod log;
mod reader;
mod state;

pub use error::{AppendError, Damage, LogError, ReadError, SequenceError, codes};
pub use files::checkpoint;
pub use files::dir::LogDir;
pub use log::Log;
pub use log::append::AppendInfo;
pub use log::fresh::FreshLog;
pub use log::pipeline::Event;
pub use log::recovery::Recovery;
pub use log::retention::RetentionResult;
pub use log::staged::{STAGED_BATCHES_MAX, STAGED_BYTES_MAX};
pub use reader::open_segment::Slice;
pub use reader::timestamps::TimestampOffset;
pub use reader::view::{LogReader, UpTo};
pub use state::ackable::{AckableOffset, DurableEnd, WrittenEnd};
pub use state::config::LogConfig;
pub use state::epochs::{EpochEnd, EpochStart, LeaderEpochs};
pub use state::log_checkpoint::LogCheckpoint;
pub use state::producers::{BatchMeta, Producer, ProducerBudget, Producers, WINDOW_BATCHES, Window};

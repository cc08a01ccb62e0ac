//! One partition's log: Kafka's files, group commit, and recovery after a crash.
//!
//! ```text
//! <log dir>/topic-3/00000000000000000000.log        record batches, one after the other
//!                   00000000000000000000.index      offset → position, sparse
//!                   00000000000000000000.timeindex  time → offset, sparse
//!                   00000000000000170210.log …      the next segment, named by its base offset
//!                   00000000000000170210.snapshot   producer state before that offset (and .window, Brokkr's)
//!                   leader-epoch-checkpoint         the start offset of each leader epoch
//!                   partition.metadata              the topic id
//!                   brokkr-manifest                 Brokkr's, checksummed: the segments that must be there
//! ```
//!
//! One task owns a [`Log`]: it stages batches with `&mut self` and polls [`Log::next_event`]. Other tasks read from
//! immutable snapshots ([`LogReader`]). A log has three ends:
//!
//! ```text
//! durable_end ≤ written_end ≤ log_end          everything staged goes out as one write, followed by one sync;
//!      └─ or └─ acknowledged up to here        write N+1 runs beside sync N
//! ```
//!
//! Invariants: D1 and D2 (recovery, and the order of every change on disk), L6 (an offset never shows other bytes: a
//! failed write is undone as a whole, before any reader sees it), I1–I3 (producer state changes with the log and is
//! undone with it). Scenarios P1, P3, P4, P6, P7, P9, P10, P12, P13, R5, R18, R19, W6.
//!
//! Floors, each importing only those below it:
//!
//! ```text
//! log      append, group commit, open, recovery, truncation, retention: `impl Log` by subject
//! reader   reads by offset and by timestamp from an immutable snapshot
//! files    IO: open files, listing, scans, index files, checkpoints, reserve
//! formats  bytes of each file
//! state    leader epochs, producers, segments, index entries, retention decisions; no IO
//! ```

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
pub use reader::open_segment::Slice;
pub use reader::timestamps::TimestampOffset;
pub use reader::view::{LogReader, UpTo};
pub use state::ackable::{AckableOffset, DurableEnd, WrittenEnd};
pub use state::config::LogConfig;
pub use state::epochs::{EpochEnd, EpochStart, LeaderEpochs};
pub use state::limits::LogLimits;
pub use state::log_checkpoint::LogCheckpoint;
pub use state::producers::{BatchMeta, Producer, ProducerBudget, Producers, WINDOW_BATCHES, Window};

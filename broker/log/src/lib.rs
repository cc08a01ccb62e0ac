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

mod ackable;
mod append;
mod background;
mod bytes_in;
pub mod checkpoint;
mod config;
mod dir;
mod drive;
mod epochs;
mod error;
mod formats;
mod fresh;
mod index;
mod log;
mod manifest;
mod names;
mod open;
mod producers;
mod read;
mod recovery;
mod replay;
mod reserve;
mod retention;
mod roll;
mod scan;
mod segment;
mod snapshot;
mod timestamps;
mod truncate;
mod view;
mod walk;

pub use ackable::{AckableOffset, DurableEnd, WrittenEnd};
pub use append::{Appended, STAGED_BATCHES_MAX, STAGED_BYTES_MAX};
pub use config::LogConfig;
pub use dir::LogDir;
pub use drive::Event;
pub use epochs::{EpochEnd, EpochStart, LeaderEpochs};
pub use error::{AppendError, Damage, LogError, ReadError, SequenceError, codes};
pub use fresh::FreshLog;
pub use log::Log;
pub use producers::{BatchMeta, Producer, ProducerRoom, Producers, WINDOW_BATCHES, Window};
pub use read::Slice;
pub use recovery::{Recorded, Recovery};
pub use retention::Retired;
pub use timestamps::TimestampOffset;
pub use view::{LogReader, UpTo};

//! The published state of a partition.

use std::ops::Deref;
use std::sync::Arc;

use brokkr_env::Env;
use brokkr_log::{LogCheckpoint, LogReader};
use brokkr_types::{LeaderEpoch, Offset};

/// An immutable snapshot of an open partition.
pub struct View<E: Env> {
    /// Reads the log as of this snapshot.
    pub reader: LogReader<E>,
    /// The log start offset: the first that can be read.
    pub log_start: Offset,
    /// The high watermark: records below it are committed.
    pub high_watermark: Offset,
    /// The log end offset, staged batches included.
    pub log_end: Offset,
    /// The checkpoint that recovery may trust after a crash; `None` if nothing was ever appended to the log.
    pub recorded: Option<LogCheckpoint>,
    /// Bytes of the segments.
    pub size_bytes: u64,
    /// Idempotent producers in the log's state.
    pub producers: usize,
    /// The leader epoch.
    pub leader_epoch: LeaderEpoch,
}

impl<E: Env> View<E> {
    /// The last stable offset. Equal to the high watermark, since there are no transactions.
    pub fn last_stable(&self) -> Offset {
        self.high_watermark
    }
}

/// Whether a partition serves requests.
pub enum PartitionState<E: Env> {
    /// The log is being opened.
    Opening,
    /// The log is open.
    Open(View<E>),
    /// The log is damaged or can't be read, or the log directory failed.
    Offline,
}

/// A reference to the view of an open partition.
pub struct ViewRef<E: Env>(pub(super) Arc<PartitionState<E>>);

impl<E: Env> Deref for ViewRef<E> {
    type Target = View<E>;

    fn deref(&self) -> &View<E> {
        match &*self.0 {
            PartitionState::Open(view) => view,
            PartitionState::Opening | PartitionState::Offline => {
                unreachable!("it is created only for an open partition")
            }
        }
    }
}

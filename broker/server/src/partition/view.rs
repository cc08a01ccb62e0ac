//! What others see of a partition.

use std::ops::Deref;
use std::sync::Arc;

use brokkr_env::Env;
use brokkr_log::{LogReader, Recorded};
use brokkr_types::{LeaderEpoch, Offset};

/// What readers see of a partition whose log is open.
pub struct View<E: Env> {
    /// Reads the log as it was then.
    pub reader: LogReader<E>,
    /// The first offset that can be read.
    pub log_start: Offset,
    /// Records below it are committed.
    pub high_watermark: Offset,
    /// Where the log ends, written or not.
    pub log_end: Offset,
    /// What recovery may trust after a crash; `None` in a log that nothing was ever appended to.
    pub recorded: Option<Recorded>,
    /// Bytes in its segments.
    pub size_bytes: u64,
    /// Producers that it remembers.
    pub producers: usize,
    /// The leader's epoch.
    pub leader_epoch: LeaderEpoch,
}

impl<E: Env> View<E> {
    /// Records below it are decided: all that are committed, while there are no transactions.
    pub fn last_stable(&self) -> Offset {
        self.high_watermark
    }
}

/// Whether a partition serves.
pub enum PartitionState<E: Env> {
    /// Its log is being opened.
    Opening,
    /// It serves.
    Open(View<E>),
    /// Its log is damaged or can't be read, or its log directory failed: nothing is served from it.
    Offline,
}

/// The view of an open partition.
pub struct ViewRef<E: Env>(pub(super) Arc<PartitionState<E>>);

impl<E: Env> Deref for ViewRef<E> {
    type Target = View<E>;

    fn deref(&self) -> &View<E> {
        match &*self.0 {
            PartitionState::Open(view) => view,
            PartitionState::Opening | PartitionState::Offline => unreachable!("it is made of an open one"),
        }
    }
}

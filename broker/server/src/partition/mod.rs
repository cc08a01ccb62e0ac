//! A partition: one task, its owner, is the only one to change the log; others read its published state.
//!
//! ```text
//! opening ──▶ open ──▶ closed, deleted
//!    │  ▲      │
//!    ▼  │      ▼
//!   offline ◀──┘      the log can't be opened, or the log directory failed
//! ```
//! The owner opens the log itself ([`opening`]); messages wait in its queue meanwhile. Appends are staged in the log while
//! a write is in flight; all staged batches go out as one write and one sync. A producer gets its response when the high
//! watermark has passed its batch (L1; P9 for duplicates). Readers use the [`View`] that the owner publishes and read the
//! log themselves; a fetch that needs more registers a [`Waiter`].
//!
//! Data and control have a queue each: a [`ControlMessage`] never waits behind data.
//!
//! Invariants: the view's high watermark never passes the ackable offset (L4, L5); replies are sent in offset order.

mod assignment;
pub mod change_counter;
mod handle;
mod message;
mod opening;
mod owner;
mod view;
mod waiters;

use std::sync::Arc;

use brokkr_env::{Env, ErrorLog, Published};
use brokkr_types::NodeId;
use tokio::sync::{Notify, Semaphore, mpsc};

use crate::config::Limits;
use change_counter::ChangeCounter;
use handle::Shared;
use view::PartitionState;
use waiters::Waiters;

pub use assignment::{AssignedLogDir, Assignment, DeletedTopics, NOT_DELETED, delete_or_set_aside};
pub use handle::PartitionHandle;
pub use message::{
    Append, AppendResult, BatchMemory, CloseResult, ControlMessage, DataMessage, PartitionError,
};
pub use view::{View, ViewRef};
pub use waiters::Waiter;

/// Starts the owner of a partition. The owner opens the log.
pub fn start<E: Env>(
    env: &E,
    error_log: &Arc<ErrorLog>,
    changes: &ChangeCounter,
    node: NodeId,
    limits: &Arc<Limits>,
    assignment: Assignment<E>,
) -> PartitionHandle<E> {
    let (queue, messages) = mpsc::channel(limits.partition_queue);
    let (control, controls) = mpsc::channel(limits.partition_control_queue);
    let state = Published::new(PartitionState::Opening);
    let shared = Arc::new(Shared {
        state: state.latest(),
        waiters: Waiters::default(),
        opened: Notify::new(),
        queue_kib_max: limits.partition_queue_kib,
    });
    let handle = PartitionHandle {
        queue,
        queue_kib: Arc::new(Semaphore::new(limits.partition_queue_kib as usize)),
        control,
        shared: Arc::clone(&shared),
    };
    let publisher = owner::Publisher::new(state, shared, changes.clone());
    let owner = owner::Owner::new(env, error_log, node, limits, publisher, messages, controls);
    env.spawn("partition", owner.run(assignment));
    handle
}

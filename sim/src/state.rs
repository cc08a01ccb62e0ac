//! The state of a world at a moment of its run, for people and tools.
//!
//! Between two moments the run is observed (`snapshot`), which changes nothing in it: the hash stays the same. What only the trace
//! knows is added afterwards (`build`): which faults last, what clients wait for, what woke a task.

mod build;
mod model;
mod snapshot;
mod text;

pub use build::state;
pub use model::{
    ConnectionState, DirectionState, FaultState, LinkState, OperationState, PartitionState, PortState,
    ProcessState, TaskState, WorldState, WriteState,
};
pub use snapshot::Snapshot;
pub use text::text;

#[cfg(test)]
mod tests;

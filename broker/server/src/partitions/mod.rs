//! The partitions of this broker, and the way to them.

mod folders;
mod manager;
mod routes;

pub use folders::FolderState;
pub use manager::{ManagerCommand, PartitionManager, start};
pub use routes::{ClusterView, OPENING_WAIT, Route, Routes, check_epoch};

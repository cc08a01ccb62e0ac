//! The partitions of this broker: the task that manages them, and the routes by which requests find them.

mod folders;
mod manager;
mod routes;

pub use folders::FolderState;
pub use manager::{ManagerCommand, PartitionManager, start};
pub use routes::{ClusterView, Route, Routes, check_epoch};

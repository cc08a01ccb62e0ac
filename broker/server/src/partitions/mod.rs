//! The partitions of this broker, and the way to them.

mod folders;
mod manager;
mod routes;

pub use folders::Known;
pub use manager::{Ask, Manager, start};
pub use routes::{ClusterView, OPENING_WAIT, Route, Routes, check_epoch};

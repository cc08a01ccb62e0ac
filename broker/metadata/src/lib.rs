//! The cluster's metadata, as a replay of Kafka's metadata log, and the controller's decisions about it.
//!
//! Pure: no clock, no randomness, no IO. What is random (topic ids) comes with the request.
//!
//! - [`config`]: what can be configured, and which value holds.

pub mod config;
pub mod topic_name;

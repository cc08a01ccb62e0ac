//! The broker's configuration, and the configurations of topics that follow from it.

mod broker;
mod error;
mod limits;
mod listeners;
mod log_dirs;
mod metrics;
mod nearest;
pub mod properties;
mod topic;
mod value;

pub use broker::{BrokerConfig, MEMORY_DEFAULT_BYTES};
pub use error::StartupError;
pub use limits::{Limits, limits};
pub use listeners::{EVERY_ADDRESS, ListenerConfig, host_port};
pub use topic::{TopicConfig, layers};

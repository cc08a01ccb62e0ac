//! The shell: connections, dispatch, handlers, partitions, and the drivers of the pure cores.
//!
//! Generic over [`brokkr_env::Env`]; the real world instantiates it once, in [`production`], the seeded one in `sim`.

pub mod broker;
pub mod cli;
pub mod config;
pub mod controller;
mod coop;
pub mod ctx;
mod handlers;
mod log_dir;
mod metrics;
mod net;
mod partition;
mod partitions;
pub mod production;
mod stop;

pub use broker::{Broker, StartError};

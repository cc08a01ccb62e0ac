//! The shell: connections, dispatch, handlers, partitions, and the drivers of the pure cores.
//!
//! Generic over [`brokkr_env::Env`]; the real world instantiates it once, in [`production`], the seeded one in `sim`.

pub mod broker;
mod changes;
pub mod cli;
pub mod config;
mod conn;
pub mod controller;
mod coop;
pub mod ctx;
mod dispatch;
mod fetch_session;
mod handlers;
mod listener;
mod log_dir;
mod memory;
mod metrics;
mod numbers;
mod partition;
mod partitions;
mod producer_ids;
pub mod production;
mod stop;
mod turns;

pub use broker::{Broker, StartError};

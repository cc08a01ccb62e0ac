//! The broker: connections, dispatch, handlers, partitions, and the tasks that host the pure cores.
//!
//! Generic over [`brokkr_env::Env`]. [`production`] instantiates it for the operating system, the crate `sim` for the
//! simulator.

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

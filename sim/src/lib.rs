//! The deterministic simulator: runs the production broker in a seeded world, injects faults and judges the run.
//!
//! See `sim/README.md` for its use, and the section on the simulator in the design for the model.

pub mod account;
pub mod allocated;
pub mod check;
mod clients;
mod digest;
mod director;
pub mod disk;
pub mod durable;
pub mod env;
pub mod exec;
pub mod explain;
pub mod failure;
mod flushed;
pub mod judge;
pub mod keyed;
mod leaks;
pub mod leftovers;
mod life;
pub mod net;
pub mod node;
pub mod page;
pub mod plan;
pub mod prepared;
pub mod reached;
pub mod report;
pub mod retention;
pub mod room;
pub mod rude;
pub mod scenario;
mod schema;
mod shared;
pub mod shrink;
pub mod signature;
pub mod state;
pub mod trace;
pub mod trigger;
mod violation;
pub mod world;

//! The seeded world in which the production broker lives, dies and is judged.
//!
//! See `sim/README.md` for use and DESIGN's section on the simulator for what is modelled.

pub mod check;
mod clients;
mod director;
pub mod disk;
pub mod durable;
pub mod env;
pub mod exec;
pub mod explain;
pub mod failure;
pub mod judge;
pub mod keyed;
pub mod leftovers;
pub mod net;
pub mod node;
pub mod plan;
pub mod prepared;
pub mod reached;
pub mod report;
pub mod retention;
pub mod room;
pub mod rude;
pub mod scenario;
mod schema;
pub mod shrink;
pub mod trace;
pub mod world;

//! State and decisions without IO: offsets, leader epochs, producers, segments, index entries.

pub(crate) mod ackable;
pub(crate) mod batch_chain;
pub(crate) mod checked_ranges;
pub(crate) mod config;
pub(crate) mod control;
pub(crate) mod epochs;
pub(crate) mod index;
pub(crate) mod limits;
pub(crate) mod log_checkpoint;
pub(crate) mod producers;
pub(crate) mod retention;
pub(crate) mod segment;

//! Every message in every version: round trips, Kafka's own bytes, another implementation's, and damaged ones.

#[path = "../support/mod.rs"]
mod support;

mod golden;
mod mutated;
mod oracle;
mod round_trip;

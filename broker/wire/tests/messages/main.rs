//! Every message in every version: round trips, Kafka's bytes, another implementation's bytes, and damaged bytes.

#![expect(
    clippy::field_reassign_with_default,
    reason = "the generated generators set what a version has and leave the rest"
)]
#![expect(
    clippy::disallowed_macros,
    reason = "allocations are counted by thread: the neighbouring tests allocate too"
)]

#[path = "../support/mod.rs"]
mod support;

mod error_codes;
mod golden;
mod mutated;
mod oracle;
mod round_trip;

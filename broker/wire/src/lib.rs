//! Kafka's protocol: framing, requests and responses, records and their batches, compression.

pub mod records;

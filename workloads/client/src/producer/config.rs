//! Configuration of a producer.

use std::time::Duration;

use brokkr_types::Sequence;
use brokkr_wire::records::CompressionType;

/// How many replicas must have a record before it is acknowledged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Acks {
    /// `acks=0`: the broker sends no response.
    None,
    /// `acks=1`: the leader.
    Leader,
    /// `acks=all`: every replica in sync.
    All,
}

impl Acks {
    /// The value on the wire.
    pub fn id(self) -> i16 {
        match self {
            Self::None => 0,
            Self::Leader => 1,
            Self::All => -1,
        }
    }
}

/// Configuration of a producer. Names and meanings are those of Kafka's producer.
#[derive(Clone, Debug)]
pub struct ProducerConfig {
    /// `acks`.
    pub acks: Acks,
    /// `enable.idempotence`; needs `acks=all` and at most five requests in flight.
    pub idempotent: bool,
    /// `linger.ms`.
    pub linger: Duration,
    /// `batch.size`, before compression.
    pub batch_bytes_max: usize,
    /// Maximum records in a batch, so that tests get many small batches.
    pub batch_records_max: usize,
    /// `max.request.size`.
    pub request_bytes_max: usize,
    /// `max.in.flight.requests.per.connection`.
    pub in_flight_max: usize,
    /// `retries`.
    pub retries_max: u32,
    /// `delivery.timeout.ms`.
    pub delivery_timeout: Duration,
    /// `buffer.memory`.
    pub buffer_bytes_max: usize,
    /// `compression.type`.
    pub compression: CompressionType,
    /// The first sequence of a new producer id in each partition: 0, or near `i32::MAX` to test the wrap soon. (A broker
    /// accepts any sequence from a producer that it doesn't know.)
    pub first_sequence: Sequence,
}

impl Default for ProducerConfig {
    fn default() -> Self {
        Self {
            acks: Acks::All,
            idempotent: true,
            linger: Duration::from_millis(5),
            batch_bytes_max: 16 * 1024,
            batch_records_max: usize::MAX,
            request_bytes_max: 1 << 20,
            in_flight_max: 5,
            retries_max: u32::MAX,
            delivery_timeout: Duration::from_secs(120),
            buffer_bytes_max: 32 << 20,
            compression: CompressionType::None,
            first_sequence: Sequence(0),
        }
    }
}

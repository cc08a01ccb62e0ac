//! A producer: idempotent (KIP-98, KIP-360) or plain.
//!
//! A [`SendError`] is exact: [`SendError::Fail`] means that the record is in no log and this producer will never write it,
//! [`SendError::Info`] that the outcome is unknown. Kafka's own client blurs this: after it loses the sequence state it sends
//! batches again under a new epoch although an earlier attempt may have written them, which duplicates them (SCENARIOS P5,
//! I4). This producer fails such batches with [`SendError::Info`] and sends only those that were certainly not written under
//! the new epoch.
//!
//! `state` decides; the task in `sender` carries it out.

mod batch;
mod outcome;
mod sender;
mod state;

#[cfg(test)]
mod tests;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use brokkr_env::Env;
use brokkr_types::{Offset, ProducerEpoch, ProducerId, Sequence, UnixMillis, Uuid};
use brokkr_wire::records::CompressionType;
use bytes::Bytes;
use tokio::sync::{Semaphore, mpsc, oneshot};

pub use outcome::is_refusal;

use crate::{Client, Error, TopicPartition};

/// Capacity of the queue to the sender.
const COMMANDS_MAX: usize = 4096;

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

/// A record to send.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ProducerRecord {
    /// The partition.
    pub to: TopicPartition,
    /// Its key.
    pub key: Option<Bytes>,
    /// Its value.
    pub value: Option<Bytes>,
    /// Its headers.
    pub headers: Vec<(Bytes, Option<Bytes>)>,
    /// Its timestamp; the environment's wall clock if there is none.
    pub timestamp: Option<UnixMillis>,
}

impl ProducerRecord {
    /// A record without headers, with the time at which it is sent.
    pub fn new(to: TopicPartition, key: Option<Bytes>, value: Option<Bytes>) -> Self {
        Self {
            to,
            key,
            value,
            headers: Vec::new(),
            timestamp: None,
        }
    }

    fn size_bytes(&self) -> usize {
        let len = |b: &Option<Bytes>| b.as_ref().map_or(0, Bytes::len);
        let header = |(k, v): &(Bytes, Option<Bytes>)| k.len() + len(v) + 10;
        len(&self.key) + len(&self.value) + self.headers.iter().map(header).sum::<usize>() + 32
    }
}

/// The batch of an acknowledged record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AckedBatch {
    /// The topic id of the last attempt; zero if it was sent by name, and may have reached a later topic of that name.
    pub topic_id: Uuid,
    /// The producer id; [`ProducerId::NONE`] for a plain producer.
    pub producer_id: ProducerId,
    /// The producer epoch, or -1.
    pub producer_epoch: ProducerEpoch,
    /// The first record's sequence, or -1.
    pub base_sequence: Sequence,
    /// The first record's offset. `None` if the broker did not return it: with `acks=0`, and for a duplicate whose offset the
    /// broker no longer knows.
    pub base_offset: Option<Offset>,
    /// Number of records.
    pub records_count: i32,
    /// The acks it was sent with.
    pub acks: Acks,
    /// How often it was sent.
    pub attempts: u32,
    /// Whether the broker once refused it as out of order, although it directly followed the acknowledged batches.
    pub refused_as_gap: bool,
}

/// The acknowledgement of a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ack {
    /// The record's offset, if the broker returned it.
    pub offset: Option<Offset>,
    /// The leader's append time, if the topic uses LogAppendTime.
    pub log_append_time: Option<UnixMillis>,
    /// The record's batch.
    pub batch: AckedBatch,
}

/// Why a record was not acknowledged.
#[derive(Clone, PartialEq, Debug)]
pub enum SendError {
    /// It was certainly not written.
    Fail(Error),
    /// It may or may not have been written.
    Info(Error),
}

impl SendError {
    /// The last error.
    pub fn cause(&self) -> &Error {
        match self {
            Self::Fail(e) | Self::Info(e) => e,
        }
    }
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fail(e) => write!(f, "not written: {e}"),
            Self::Info(e) => write!(f, "not known to be written: {e}"),
        }
    }
}

impl std::error::Error for SendError {}

type SendResult = Result<Ack, SendError>;

/// The future outcome of a record. Dropping it cancels nothing.
#[must_use = "the record is sent, but its outcome would go unseen"]
pub struct Delivery(oneshot::Receiver<SendResult>);

impl Future for Delivery {
    type Output = SendResult;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<SendResult> {
        Pin::new(&mut self.0)
            .poll(cx)
            .map(|result| result.unwrap_or_else(|_| Err(SendError::Info(producer_gone()))))
    }
}

fn producer_gone() -> Error {
    Error::Lost("the producer is gone".to_owned())
}

enum Command {
    Send {
        record: ProducerRecord,
        result_sender: oneshot::Sender<SendResult>,
        memory_permit: tokio::sync::OwnedSemaphorePermit,
    },
    Flush(oneshot::Sender<()>),
}

/// A producer. After it is dropped, records that it accepted are still sent until they are acknowledged or given up.
pub struct Producer {
    commands: mpsc::Sender<Command>,
    memory: Arc<Semaphore>,
    memory_bytes: usize,
}

impl Producer {
    /// Starts a producer task on a client's connections.
    ///
    /// # Panics
    /// If the configuration is contradictory.
    pub fn new<E: Env>(client: &Client<E>, config: ProducerConfig) -> Self {
        assert!(config.in_flight_max > 0, "at least one request must be in flight");
        assert!(config.batch_records_max > 0, "a batch holds at least one record");
        if config.idempotent {
            assert!(config.acks == Acks::All, "an idempotent producer needs acks=all");
            assert!(
                config.in_flight_max <= state::WINDOW,
                "the broker remembers five batches"
            );
        }
        let memory_bytes = config.buffer_bytes_max.min(Semaphore::MAX_PERMITS);
        let (commands, received) = mpsc::channel(COMMANDS_MAX);
        let sender = sender::Sender::new(client.clone(), config, received);
        client.env().spawn("producer", sender.run());
        Self {
            commands,
            memory: Arc::new(Semaphore::new(memory_bytes)),
            memory_bytes,
        }
    }

    /// Accepts a record once there is room in the buffer. Records of one partition are sent in call order. Cancel-safe: a
    /// cancelled call accepted nothing.
    pub async fn enqueue(&self, record: ProducerRecord) -> Delivery {
        let (result_sender, result) = oneshot::channel();
        let delivery = Delivery(result);
        let bytes = record.size_bytes().min(self.memory_bytes) as u32;
        let memory_permit = Arc::clone(&self.memory).acquire_many_owned(bytes).await;
        let memory_permit = memory_permit.expect("the semaphore is never closed");
        // If the producer's task was killed with its simulated node, the delivery reports it.
        if let Ok(place) = self.commands.reserve().await {
            place.send(Command::Send {
                record,
                result_sender,
                memory_permit,
            });
        }
        delivery
    }

    /// Sends a record and waits for its outcome.
    pub async fn send(&self, record: ProducerRecord) -> Result<Ack, SendError> {
        self.enqueue(record).await.await
    }

    /// Waits until all accepted records have an outcome, without lingering.
    pub async fn flush(&self) {
        let (result_sender, result) = oneshot::channel();
        if self.commands.send(Command::Flush(result_sender)).await.is_ok() {
            // Closed without a value: the producer's task was killed.
            drop(result.await);
        }
    }
}

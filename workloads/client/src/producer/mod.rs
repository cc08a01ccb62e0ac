//! A producer: idempotent (KIP-98, KIP-360) or plain.
//!
//! What a [`SendError`] says is exact: [`SendError::Fail`] means that the record stands in no log and never will through this
//! producer, [`SendError::Info`] that nobody here can tell. Kafka's own client blurs that, and after a lost sequence state it sends
//! batches again under a new epoch although an earlier attempt may have been written, which duplicates them (SCENARIOS P5, I4).
//! This one gives such batches up as [`SendError::Info`] and goes on under the new epoch with those that surely weren't written.
//!
//! `state` decides; `sender` is the task that carries it out.

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

/// Commands that wait for the sender.
const COMMANDS_MAX: usize = 4096;

/// How many replicas must have a record before it is acknowledged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Acks {
    /// `acks=0`: nobody answers.
    None,
    /// `acks=1`: the leader.
    Leader,
    /// `acks=all`: every replica in sync.
    All,
}

impl Acks {
    /// As on the wire.
    pub fn id(self) -> i16 {
        match self {
            Self::None => 0,
            Self::Leader => 1,
            Self::All => -1,
        }
    }
}

/// How a producer behaves. Names and meanings are those of Kafka's.
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
    /// Records in a batch, so that tests get many batches of few records.
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
    /// The sequence that a new producer id begins with in each partition: 0, but where its wrap is to be reached in time. (Of a
    /// producer that it doesn't know a broker takes any.)
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

/// What is sent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ProducerRecord {
    /// Where to.
    pub to: TopicPartition,
    /// Its key.
    pub key: Option<Bytes>,
    /// Its value.
    pub value: Option<Bytes>,
    /// Its headers.
    pub headers: Vec<(Bytes, Option<Bytes>)>,
    /// Its time; the environment's wall clock where there is none.
    pub timestamp: Option<UnixMillis>,
}

impl ProducerRecord {
    /// A record without headers, of the time when it is sent.
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

/// The batch in which a record was acknowledged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AckedBatch {
    /// The topic of its last attempt; zero where that was sent by the topic's name, and may have gone to a later one.
    pub topic_id: Uuid,
    /// Whose it is; [`ProducerId::NONE`] where the producer is plain.
    pub producer_id: ProducerId,
    /// Its epoch, or -1.
    pub producer_epoch: ProducerEpoch,
    /// Its first record's sequence, or -1.
    pub base_sequence: Sequence,
    /// Its first record's offset. `None` where the broker didn't say: with `acks=0`, and for a duplicate that it knows to be
    /// one but no longer where it stands.
    pub base_offset: Option<Offset>,
    /// How many records it has.
    pub records_count: i32,
    /// With which acks it was sent.
    pub acks: Acks,
    /// How often it was sent.
    pub attempts: u32,
    /// Whether the broker once refused it as out of order, though it was the next behind what was acknowledged.
    pub refused_as_gap: bool,
}

/// A record was acknowledged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ack {
    /// Its offset, if the broker said so.
    pub offset: Option<Offset>,
    /// The leader's time, if the topic's timestamps are of the append.
    pub log_append_time: Option<UnixMillis>,
    /// Its batch.
    pub batch: AckedBatch,
}

/// A record was not acknowledged.
#[derive(Clone, PartialEq, Debug)]
pub enum SendError {
    /// It was surely not written.
    Fail(Error),
    /// Nobody knows whether it was written.
    Info(Error),
}

impl SendError {
    /// What happened last.
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

type Told = Result<Ack, SendError>;

/// The outcome of a record to come. Dropping it cancels nothing.
#[must_use = "the record is sent, but its outcome would go unseen"]
pub struct Delivery(oneshot::Receiver<Told>);

impl Future for Delivery {
    type Output = Told;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Told> {
        Pin::new(&mut self.0)
            .poll(cx)
            .map(|told| told.unwrap_or_else(|_| Err(SendError::Info(producer_gone()))))
    }
}

fn producer_gone() -> Error {
    Error::Lost("the producer is gone".to_owned())
}

enum Command {
    Send {
        record: ProducerRecord,
        tell: oneshot::Sender<Told>,
        buffered: tokio::sync::OwnedSemaphorePermit,
    },
    Flush(oneshot::Sender<()>),
}

/// A producer. Dropping it lets what was sent go on until it is acknowledged or given up.
pub struct Producer {
    commands: mpsc::Sender<Command>,
    memory: Arc<Semaphore>,
    memory_bytes: usize,
}

impl Producer {
    /// Starts a producer of its own on a client's connections.
    ///
    /// # Panics
    /// If the configuration contradicts itself.
    pub fn new<E: Env>(client: &Client<E>, config: ProducerConfig) -> Self {
        assert!(config.in_flight_max > 0, "something has to be in flight");
        assert!(config.batch_records_max > 0, "a batch has records");
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

    /// Takes a record, once there is room in the buffer. Records of one partition are sent in the order of these calls.
    /// Cancel-safe: a call that was dropped took nothing.
    pub async fn enqueue(&self, record: ProducerRecord) -> Delivery {
        let (tell, told) = oneshot::channel();
        let delivery = Delivery(told);
        let bytes = record.size_bytes().min(self.memory_bytes) as u32;
        let buffered = Arc::clone(&self.memory).acquire_many_owned(bytes).await;
        let buffered = buffered.expect("the semaphore is never closed");
        // A producer whose task is gone was killed with its world; the delivery then tells.
        if let Ok(place) = self.commands.reserve().await {
            place.send(Command::Send {
                record,
                tell,
                buffered,
            });
        }
        delivery
    }

    /// Sends a record and waits for its outcome.
    pub async fn send(&self, record: ProducerRecord) -> Result<Ack, SendError> {
        self.enqueue(record).await.await
    }

    /// Waits until all that was taken before has an outcome, without lingering.
    pub async fn flush(&self) {
        let (tell, told) = oneshot::channel();
        if self.commands.send(Command::Flush(tell)).await.is_ok() {
            // Dropped untold: the producer's world ended.
            drop(told.await);
        }
    }
}

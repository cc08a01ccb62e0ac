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
mod config;
mod delivery;
mod outcome;
mod record;
mod sender;
mod state;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use brokkr_env::Env;
use tokio::sync::{Semaphore, mpsc, oneshot};

pub use config::{Acks, ProducerConfig};
pub use delivery::{Ack, AckedBatch, Delivery, SendError};
pub use outcome::is_refusal;
pub use record::ProducerRecord;

use crate::Client;
use sender::Command;

/// Capacity of the queue to the sender.
const COMMANDS_MAX: usize = 4096;

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

//! Messages to the owner of a partition, and its replies.

use std::sync::Arc;

use brokkr_log::LogCheckpoint;
use brokkr_types::{Offset, UnixMillis};
use brokkr_wire::messages::describe_producers_response::ProducerState;
use brokkr_wire::records::Validated;
use brokkr_wire::{ErrorCode, Str};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::config::TopicConfig;
use crate::metrics::TopicTraffic;
use crate::net::memory::Share;

/// The result of an append, as the producer's response reports it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AppendInfo {
    /// The offset of the batch's first record. For a duplicate, that of the original batch.
    pub base_offset: Offset,
    /// The broker's append time, or none if records keep their own timestamps. For a duplicate, the batch's largest
    /// timestamp.
    pub log_append_time: UnixMillis,
    /// The log start offset.
    pub log_start: Offset,
}

/// An error of a partition in a response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionError {
    /// Kafka's error code.
    pub code: ErrorCode,
    /// The error message for the client.
    pub message: Option<String>,
}

impl PartitionError {
    /// An error without a message.
    pub fn new(code: ErrorCode) -> Self {
        Self { code, message: None }
    }

    /// An error with a message.
    pub fn with_message(code: ErrorCode, message: impl std::fmt::Display) -> Self {
        Self {
            code,
            message: Some(message.to_string()),
        }
    }

    /// The message, clipped to the length that responses allow.
    pub fn message_str(&self) -> Option<Str> {
        self.message.as_deref().map(Str::message)
    }
}

/// The reply to an append.
pub type AppendResult = Result<AppendInfo, PartitionError>;

/// A batch's reservations from the memory budget, held until it is on disk, whether or not a response still waits for it.
#[derive(Debug)]
pub struct BatchMemory {
    /// The reservation of the read buffer that its bytes are a slice of.
    pub buffer: Arc<Share>,
    /// The reservation of its own bytes, if its records were rewritten.
    pub rebuilt: Share,
}

/// A batch's space in the owner's queue.
#[derive(Debug)]
pub struct QueuePermit(
    #[expect(dead_code, reason = "dropping it releases the space")] pub(super) OwnedSemaphorePermit,
);

/// A batch to append.
pub struct Append {
    /// The batch.
    pub batch: Validated,
    /// Whether the producer requested acks=all.
    pub acks_all: bool,
    /// Its memory reservations.
    pub memory: BatchMemory,
    /// Its space in the queue, released when the owner takes the message.
    pub queue_permit: QueuePermit,
    /// The topic's traffic counters.
    pub traffic: Arc<TopicTraffic>,
    /// Receives the reply when the batch is committed.
    pub reply: oneshot::Sender<AppendResult>,
}

/// Data messages to an owner, processed in the order sent. Small, since a queue allocates 32 at a time.
pub enum DataMessage {
    /// Appends a batch.
    Append(Box<Append>),
    /// Raises the log start offset (DeleteRecords). The reply is the new log start offset.
    DeleteRecords(Offset, oneshot::Sender<Result<Offset, PartitionError>>),
    /// Lists the idempotent producers.
    Producers(oneshot::Sender<Vec<ProducerState>>),
}

/// Control messages to an owner. They never wait behind data.
pub enum ControlMessage {
    /// The topic's configuration changed.
    Configure(Arc<TopicConfig>),
    /// Deletes segments by the retention settings.
    Retention,
    /// The log directory failed: the partition goes offline.
    LogDirFailed,
    /// Flushes and closes the log, and ends the owner.
    Close(oneshot::Sender<CloseResult>),
    /// The topic was deleted: deletes the log, and ends the owner. The reply is whether the log is gone.
    Delete(oneshot::Sender<bool>),
}

/// How a log was closed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum CloseResult {
    /// Cleanly, with the checkpoint to record; a log that nothing was ever appended to needs none.
    Clean(Option<LogCheckpoint>),
    /// Not cleanly: the next start must recover it.
    Unclean,
}

impl DataMessage {
    /// Replies KAFKA_STORAGE_ERROR: there is no open log.
    pub(super) fn reply_offline(self) {
        let error = PartitionError::new(ErrorCode::KAFKA_STORAGE_ERROR);
        match self {
            Self::Append(append) => drop(append.reply.send(Err(error))),
            Self::DeleteRecords(_, reply) => drop(reply.send(Err(error))),
            Self::Producers(reply) => drop(reply),
        }
    }
}

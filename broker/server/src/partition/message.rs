//! What the owner of a partition is sent, and what it answers.

use std::sync::Arc;

use brokkr_log::Recorded;
use brokkr_types::{Offset, UnixMillis};
use brokkr_wire::messages::describe_producers_response::ProducerState;
use brokkr_wire::records::Validated;
use brokkr_wire::{ErrorCode, Str};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::config::TopicConfig;
use crate::metrics::TopicTraffic;
use crate::net::memory::Share;

/// Where a batch went.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AppendInfo {
    /// The offset of its first record: the original one, for a duplicate.
    pub base_offset: Offset,
    /// The broker's time for it, or none where records keep their own. For a duplicate its largest timestamp.
    pub log_append_time: UnixMillis,
    /// Where the log starts.
    pub log_start: Offset,
}

/// Why something asked of a partition can't be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionError {
    /// Kafka's code.
    pub code: ErrorCode,
    /// The sentence for the client.
    pub message: Option<String>,
}

impl PartitionError {
    /// A refusal that needs no sentence.
    pub fn new(code: ErrorCode) -> Self {
        Self { code, message: None }
    }

    /// A refusal with a sentence.
    pub fn with_message(code: ErrorCode, message: impl std::fmt::Display) -> Self {
        Self {
            code,
            message: Some(message.to_string()),
        }
    }

    /// The sentence, as responses have it: clipped.
    pub fn message_str(&self) -> Option<Str> {
        self.message.as_deref().map(Str::message)
    }
}

/// The answer to an append.
pub type AppendResult = Result<AppendInfo, PartitionError>;

/// What a batch takes from the memory budget until it is on disk, whether or not anybody waits for the answer.
#[derive(Debug)]
pub struct BatchMemory {
    /// The buffer that its bytes are a slice of.
    pub buffer: Arc<Share>,
    /// Its own bytes, where its records were written anew.
    pub rebuilt: Share,
}

/// A batch's place in the owner's queue.
#[derive(Debug)]
pub struct QueuePermit(
    #[expect(dead_code, reason = "it gives back by its end")] pub(super) OwnedSemaphorePermit,
);

/// A batch to append.
pub struct Append {
    /// The batch.
    pub batch: Validated,
    /// Whether the producer asked for acks=all.
    pub acks_all: bool,
    /// Its share of the memory budget.
    pub memory: BatchMemory,
    /// Its place in the queue.
    pub queue_permit: QueuePermit,
    /// Where it is counted.
    pub traffic: Arc<TopicTraffic>,
    /// Answered when it is committed.
    pub reply: oneshot::Sender<AppendResult>,
}

/// Data messages to an owner: carried out in the order in which they were sent. Small, since an idle queue has room for 32.
pub enum DataMessage {
    /// Append a batch.
    Append(Box<Append>),
    /// Raise the log start (DeleteRecords); answered with the new one.
    DeleteRecords(Offset, oneshot::Sender<Result<Offset, PartitionError>>),
    /// List the idempotent producers.
    Producers(oneshot::Sender<Vec<ProducerState>>),
}

/// Control messages to an owner. They never wait behind data.
pub enum ControlMessage {
    /// The topic's configuration changed.
    Configure(Arc<TopicConfig>),
    /// Delete what retention says.
    Retention,
    /// The log directory failed: go offline.
    LogDirFailed,
    /// Stop: flush and close.
    Close(oneshot::Sender<CloseResult>),
    /// The topic is gone: delete the log.
    Delete(oneshot::Sender<()>),
}

/// How a log was closed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum CloseResult {
    /// Cleanly, with what to record of it; a log that nothing was ever appended to needs none.
    Clean(Option<Recorded>),
    /// Not cleanly: the next start has to look.
    Unclean,
}

impl DataMessage {
    /// Answers that there is no log to carry it out in.
    pub(super) fn reply_offline(self) {
        let error = PartitionError::new(ErrorCode::KAFKA_STORAGE_ERROR);
        match self {
            Self::Append(append) => drop(append.reply.send(Err(error))),
            Self::DeleteRecords(_, reply) => drop(reply.send(Err(error))),
            Self::Producers(reply) => drop(reply),
        }
    }
}

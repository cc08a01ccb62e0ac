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
pub struct Placed {
    /// The offset of its first record: the original one, for a duplicate.
    pub base_offset: Offset,
    /// The broker's time for it, or none where records keep their own. For a duplicate its largest timestamp.
    pub log_append_time: UnixMillis,
    /// Where the log starts.
    pub log_start: Offset,
}

/// Why something asked of a partition can't be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Kafka's code.
    pub code: ErrorCode,
    /// The sentence for the client.
    pub why: Option<String>,
}

impl Refused {
    /// A refusal that needs no sentence.
    pub fn of(code: ErrorCode) -> Self {
        Self { code, why: None }
    }

    /// A refusal with a sentence.
    pub fn because(code: ErrorCode, why: impl std::fmt::Display) -> Self {
        Self {
            code,
            why: Some(why.to_string()),
        }
    }

    /// The sentence, as responses have it: clipped.
    pub fn message(&self) -> Option<Str> {
        self.why.as_deref().map(Str::message)
    }
}

/// The answer to an append.
pub type Answer = Result<Placed, Refused>;

/// What a batch takes from the memory budget until it is on disk, whether or not anybody waits for the answer.
#[derive(Debug)]
pub struct Held {
    /// The buffer that its bytes are a slice of.
    pub buffer: Arc<Share>,
    /// Its own bytes, where its records were written anew.
    pub rebuilt: Share,
}

/// A batch's place in the owner's queue.
#[derive(Debug)]
pub struct Room(#[expect(dead_code, reason = "it gives back by its end")] pub(super) OwnedSemaphorePermit);

/// A batch to append.
pub struct Append {
    /// The batch.
    pub batch: Validated,
    /// Whether the producer asked for acks=all.
    pub acks_all: bool,
    /// Its share of the memory budget.
    pub held: Held,
    /// Its place in the queue.
    pub room: Room,
    /// Where it is counted.
    pub traffic: Arc<TopicTraffic>,
    /// Answered when it is committed.
    pub reply: oneshot::Sender<Answer>,
}

/// Data messages to an owner: carried out in the order in which they were sent. Small, since an idle queue has room for 32.
pub enum Message {
    /// Append a batch.
    Append(Box<Append>),
    /// Raise the log start (DeleteRecords); answered with the new one.
    DeleteRecords(Offset, oneshot::Sender<Result<Offset, Refused>>),
    /// List the idempotent producers.
    Producers(oneshot::Sender<Vec<ProducerState>>),
}

/// Control messages to an owner. They never wait behind data.
pub enum Control {
    /// The topic's configuration changed.
    Configure(Arc<TopicConfig>),
    /// Delete what retention says.
    Retention,
    /// The log directory failed: go offline.
    Abandon,
    /// Stop: flush and close.
    Close(oneshot::Sender<Closed>),
    /// The topic is gone: delete the log.
    Delete(oneshot::Sender<()>),
}

/// How a log was closed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Closed {
    /// Cleanly, with what to record of it; a log that nothing was ever appended to needs none.
    Clean(Option<Recorded>),
    /// Not cleanly: the next start has to look.
    Unclean,
}

impl Message {
    /// Answers that there is no log to carry it out in.
    pub(super) fn refuse(self) {
        let refused = Refused::of(ErrorCode::KAFKA_STORAGE_ERROR);
        match self {
            Self::Append(append) => drop(append.reply.send(Err(refused))),
            Self::DeleteRecords(_, reply) => drop(reply.send(Err(refused))),
            Self::Producers(reply) => drop(reply),
        }
    }
}

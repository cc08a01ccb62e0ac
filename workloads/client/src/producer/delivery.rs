//! The outcome of a record.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use brokkr_types::{Offset, ProducerEpoch, ProducerId, Sequence, UnixMillis, Uuid};
use tokio::sync::oneshot;

use super::config::Acks;
use crate::Error;

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

pub(super) type SendResult = Result<Ack, SendError>;

/// The future outcome of a record. Dropping it cancels nothing.
#[must_use = "the record is sent, but its outcome would go unseen"]
pub struct Delivery(pub(super) oneshot::Receiver<SendResult>);

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

//! Requests under way, and the responses that they become.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use brokkr_env::{Env, Instant, Part};
use brokkr_wire::ApiKey;

use super::memory::Share;

/// What is sent for one request: nothing, where the client wants no answer.
pub struct Response<E: Env> {
    /// The frame, in pieces.
    pub parts: Vec<Part<E>>,
    /// What it takes from the budget until it is sent.
    pub share: Share,
    /// What it answers.
    pub api_key: ApiKey,
    /// When the request had arrived.
    pub received_at: Instant,
}

/// What is known of a response while it leaves.
pub(super) struct OutgoingResponse {
    pub(super) share: Share,
    pub(super) api_key: ApiKey,
    pub(super) received_at: Instant,
}

impl<E: Env> Response<E> {
    pub(super) fn into_parts(self) -> (Vec<Part<E>>, OutgoingResponse) {
        let outgoing = OutgoingResponse {
            share: self.share,
            api_key: self.api_key,
            received_at: self.received_at,
        };
        (self.parts, outgoing)
    }

    /// Bytes that are in memory.
    pub(super) fn memory_bytes(&self) -> usize {
        let memory = |part: &Part<E>| match part {
            Part::Bytes(bytes) => bytes.len(),
            Part::Range(_) => 0,
        };
        self.parts.iter().map(memory).sum()
    }
}

/// A request under way. `None`: the connection is to be closed.
pub type Pending<E> = Pin<Box<dyn Future<Output = Option<Response<E>>> + Send>>;

/// A request under way with the memory that it holds.
pub(super) struct PendingRequest<E: Env> {
    pub(super) pending: Pending<E>,
    pub(super) frame_bytes: usize,
    pub(super) decoded: Share,
    pub(super) _buffer: Arc<Share>,
}

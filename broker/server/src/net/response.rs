//! Pending requests, and their responses.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use brokkr_env::{Env, Instant, Part};
use brokkr_wire::ApiKey;

use super::memory::Share;

/// The response to one request; empty for a request that wants none.
pub struct Response<E: Env> {
    /// The frame, in pieces.
    pub parts: Vec<Part<E>>,
    /// Its memory reservation, held until it is sent.
    pub share: Share,
    /// The API of the request.
    pub api_key: ApiKey,
    /// When the request's frame was complete.
    pub received_at: Instant,
}

/// A response without its bytes, while they are sent.
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

    /// Bytes of the parts in memory; file ranges don't count.
    pub(super) fn memory_bytes(&self) -> usize {
        let memory = |part: &Part<E>| match part {
            Part::Bytes(bytes) => bytes.len(),
            Part::Range(_) => 0,
        };
        self.parts.iter().map(memory).sum()
    }
}

/// The future of a response. `None` if the connection must be closed.
pub type Pending<E> = Pin<Box<dyn Future<Output = Option<Response<E>>> + Send>>;

/// A pending request and the memory that it holds.
pub(super) struct PendingRequest<E: Env> {
    pub(super) pending: Pending<E>,
    pub(super) frame_bytes: usize,
    pub(super) decoded: Share,
    pub(super) _buffer: Arc<Share>,
}

//! The context of a request, and the outcome of its dispatch.

use std::sync::Arc;

use brokkr_env::{Env, ErrorLog, FileRange, Instant, Part};
use brokkr_wire::ApiKey;
use brokkr_wire::frame::encode_frame_within;
use brokkr_wire::messages::{self as m, Message};

use super::memory::{Overloaded, SMALL_MAX, Share};
use super::response::{Pending, Response};
use super::state::ConnectionState;
use crate::ctx::{Ctx, Peer};

/// Capacity of a small response's buffer; most are small.
pub(super) const RESPONSE_BYTES: usize = 128;

/// The outcome of a frame's dispatch.
pub enum Dispatched<E: Env> {
    /// The request is pending: its future responds or closes the connection. Until then it holds the reservation.
    Pending(Pending<E>, Share),
    /// The request wants no response.
    Silent,
    /// The connection must be closed now.
    Close,
}

/// A request without its body.
#[derive(Clone)]
pub struct RequestContext {
    /// The API.
    pub api_key: ApiKey,
    /// The version.
    pub version: i16,
    /// The id that the response repeats.
    pub correlation_id: i32,
    /// When the frame was complete. Timeouts run from then.
    pub received_at: Instant,
    /// The frame's length.
    pub frame_bytes: usize,
    /// The reservation of the buffer that contains the frame. Every owner of a slice of the frame must hold this too.
    pub buffer: Arc<Share>,
    /// The state of the connection.
    pub connection: Arc<ConnectionState>,
}

impl RequestContext {
    /// Encodes `response`, with `ranges` in place of its external records. `None`, which closes the connection, if it
    /// can't be encoded: a response contains data of peers, so our mistake there must not end the process.
    pub fn response<E: Env, M: Message>(
        &self,
        ctx: &Ctx<E>,
        response: &M,
        mut ranges: Vec<Option<FileRange<E>>>,
    ) -> Option<Response<E>> {
        let complete = self.response_in(
            self.version,
            &ctx.error_log,
            response,
            &mut ranges,
            RESPONSE_BYTES,
        );
        self.counted(ctx, response, complete)
    }

    /// Counts an encoded response in the metrics.
    pub(super) fn counted<E: Env, M: Message>(
        &self,
        ctx: &Ctx<E>,
        body: &M,
        response: Option<Response<E>>,
    ) -> Option<Response<E>> {
        let response = response?;
        if let Some(api) = ctx.metrics.api(self.api_key) {
            let time = ctx.env.now().saturating_since(self.received_at);
            api.handled(body, response.parts.iter().map(Part::len).sum(), time);
        }
        Some(response)
    }

    /// Upper bound of what a response repeats of its request's names, in bytes.
    pub fn repeated_bytes(&self) -> usize {
        match self.frame_bytes {
            ..=SMALL_MAX => 0,
            large => large,
        }
    }

    pub(super) fn response_in<E: Env, M: Message>(
        &self,
        body_version: i16,
        error_log: &ErrorLog,
        response: &M,
        ranges: &mut [Option<FileRange<E>>],
        capacity: usize,
    ) -> Option<Response<E>> {
        let header = m::ResponseHeader {
            correlation_id: self.correlation_id,
            ..Default::default()
        };
        let header_version = match body_version == self.version {
            true => self.api_key.response_header_version(self.version),
            false => 0,
        };
        let parts = encode_frame_within(capacity, &header, header_version, response, body_version);
        let parts = match parts {
            Ok(parts) => parts,
            Err(error) => {
                let what = format_args!("{} version {}: {error}", self.api_key, self.version);
                error_log.record("response that can't be encoded", &what);
                brokkr_types::reached!("a response could not be encoded");
                return None;
            }
        };
        let part = |part| match part {
            brokkr_wire::Part::Bytes(bytes) => Part::Bytes(bytes),
            brokkr_wire::Part::External { token, .. } => {
                Part::Range(ranges[token as usize].take().expect("each range is sent once"))
            }
        };
        Some(Response {
            parts: parts.into_iter().map(part).collect(),
            share: Share::default(),
            api_key: self.api_key,
            received_at: self.received_at,
        })
    }
}

/// Reserves memory for a response of `bytes`. `None` if there was none in time, which closes the connection.
pub async fn response_share<E: Env>(ctx: &Ctx<E>, peer: &Peer, bytes: usize) -> Option<Share> {
    if bytes <= SMALL_MAX {
        return Some(Share::default());
    }
    match ctx.memory.response(bytes).await {
        Ok(share) => Some(share),
        Err(Overloaded) => {
            ctx.error_log.record("no memory for a response", &peer.addr);
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use brokkr_env::tokio::TokioEnv;
    use brokkr_wire::Str;
    use std::collections::BTreeMap;

    #[test]
    fn a_response_that_can_t_be_encoded_is_logged_and_there_is_none() {
        let error_log = ErrorLog::new(TokioEnv::new(1));
        let rc = RequestContext {
            api_key: ApiKey::Metadata,
            version: 2,
            correlation_id: 7,
            received_at: Instant::from_nanos(1),
            frame_bytes: 0,
            buffer: Arc::default(),
            connection: Arc::default(),
        };
        let respond = |cluster_id_bytes| {
            let response = m::MetadataResponse {
                cluster_id: Some(Str::from("c".repeat(cluster_id_bytes))),
                ..Default::default()
            };
            rc.response_in::<TokioEnv, _>(rc.version, &error_log, &response, &mut [], RESPONSE_BYTES)
        };
        // This version has 16 bits for the length of a string.
        assert!(respond(32_767).is_some_and(|response| !response.parts.is_empty()));
        assert!(error_log.counts().is_empty());
        assert!(respond(32_768).is_none());
        assert_eq!(
            error_log.counts(),
            BTreeMap::from([("response that can't be encoded", 1)])
        );
    }
}

//! A request's context, and what became of its frame.

use std::sync::Arc;

use brokkr_env::{Env, ErrorLog, FileRange, Instant, Part};
use brokkr_wire::ApiKey;
use brokkr_wire::frame::encode_frame_within;
use brokkr_wire::messages::{self as m, Message};

use super::memory::{Overloaded, SMALL_MAX, Share};
use super::response::{Pending, Response};
use super::state::ConnectionState;
use crate::ctx::{Ctx, Peer};

/// Room for a response that is small, as most are.
pub(super) const RESPONSE_BYTES: usize = 128;

/// What became of a frame.
pub enum Dispatched<E: Env> {
    /// It will be answered, or close the connection, in its turn. Until then it holds the share.
    Pending(Pending<E>, Share),
    /// It wants no answer.
    Silent,
    /// The connection is to be closed now.
    Close,
}

/// What handling a request needs to know of it besides its body.
#[derive(Clone)]
pub struct RequestContext {
    /// Which request.
    pub api_key: ApiKey,
    /// In which version.
    pub version: i16,
    /// What the response repeats.
    pub correlation_id: i32,
    /// When its frame was complete: timeouts run from then.
    pub received_at: Instant,
    /// The length of its frame.
    pub frame_bytes: usize,
    /// What its frame takes from the budget. Whoever keeps a slice of the frame keeps this too.
    pub buffer: Arc<Share>,
    /// The connection it came by.
    pub connection: Arc<ConnectionState>,
}

impl RequestContext {
    /// The frame of `response`, with `ranges` in the place of its external records. `None`, which closes the connection,
    /// if the response can't be encoded: it is made of what a peer sent, so a mistake of ours there must not end the
    /// process.
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

    /// Counts a response that is complete.
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

    /// What a response takes up at most for repeating names of its request.
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
                Part::Range(ranges[token as usize].take().expect("each range goes out once"))
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

/// What a response of `bytes` takes from the budget. `None`: the connection is closed.
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
        // In this version a text has 16 bits for its length.
        assert!(respond(32_767).is_some_and(|response| !response.parts.is_empty()));
        assert!(error_log.counts().is_empty());
        assert!(respond(32_768).is_none());
        assert_eq!(
            error_log.counts(),
            BTreeMap::from([("response that can't be encoded", 1)])
        );
    }
}

//! Decodes frames and dispatches requests to their handlers.
//!
//! Runs on the connection's reader, one frame after the other: work whose order matters (appends) is done here; the rest
//! is returned as a future.

use std::future::ready;
use std::sync::Arc;

use brokkr_env::{Env, Part};
use brokkr_wire::frame::{decode_request_header, request_header_peek};
use brokkr_wire::messages::{self as m, Request};
use brokkr_wire::{ApiKey, DecodeError, Reader};
use bytes::Bytes;
use futures_util::future::BoxFuture;

use super::memory::{Overloaded, SMALL_MAX, Share};
use super::request::{Dispatched, RESPONSE_BYTES, RequestContext, response_share};
use super::state::{ConnectionState, MutationGuard};
use crate::ctx::{Ctx, Peer};
use crate::handlers;
use crate::handlers::fetch_session::FetchSessions;
use crate::handlers::served::is_served;

/// What a request takes from the budget besides its frame: its future and what hangs from it.
const REQUEST_BYTES: usize = 2048;
/// What a request may decode to: this, and so many times its frame, but never more than this part of its pool.
const DECODED_BYTES_MIN: usize = 128 << 10;
const DECODED_PER_BYTE: usize = 16;
const DECODED_PART_OF_POOL: usize = 2;
/// So many bytes of a request's frame are a step of work, about: what is listed in it takes that much.
const FRAME_BYTES_PER_STEP: usize = 16;
/// For each byte of a decoded request its response has up to so many.
const RESPONSE_PER_BYTE: usize = 3;
/// Room that is made for a response at once, at most.
const RESPONSE_CAPACITY_MAX: usize = 64 << 20;

/// Dispatches the requests of one connection.
pub struct Dispatcher<E: Env> {
    /// The broker, as its handlers see it.
    pub ctx: Ctx<E>,
    /// The client.
    pub peer: Peer,
    state: Arc<ConnectionState>,
    sessions: FetchSessions<E>,
}

fn log_malformed<E: Env>(ctx: &Ctx<E>, peer: &Peer, error: &DecodeError) {
    ctx.error_log
        .record("malformed request", &format_args!("{error}, from {}", peer.addr));
}

impl<E: Env> Dispatcher<E> {
    /// For a new connection.
    pub fn new(ctx: Ctx<E>, peer: Peer, state: Arc<ConnectionState>) -> Self {
        let sessions = FetchSessions::new(
            ctx.sessions.clone(),
            ctx.config.limits.fetch_sessions,
            ctx.memory.clone(),
        );
        Self {
            ctx,
            peer,
            state,
            sessions,
        }
    }

    /// Dispatches a frame (without its size). `buffer` is the reservation of the buffer that contains it.
    pub async fn dispatch(&mut self, frame: Bytes, buffer: Arc<Share>) -> Dispatched<E> {
        let peek = match request_header_peek(&frame) {
            Ok(peek) => peek,
            Err(error) => {
                log_malformed(&self.ctx, &self.peer, &error);
                return Dispatched::Close;
            }
        };
        let decoded_max = (frame.len() * DECODED_PER_BYTE + DECODED_BYTES_MIN)
            .min(self.ctx.memory.decoded_bytes_max() / DECODED_PART_OF_POOL)
            .max(DECODED_BYTES_MIN);
        let frame_bytes = frame.len();
        let mut r = Reader::limited(frame, decoded_max);
        let (api_key, _header) = match decode_request_header(&mut r) {
            Ok(decoded) => decoded,
            Err(error) => {
                log_malformed(&self.ctx, &self.peer, &error);
                return Dispatched::Close;
            }
        };
        let rc = RequestContext {
            api_key,
            version: peek.api_version,
            correlation_id: peek.correlation_id,
            received_at: self.ctx.env.now(),
            frame_bytes,
            buffer,
            connection: Arc::clone(&self.state),
        };
        if api_key == ApiKey::ApiVersions {
            self.count_arrival(&rc);
            return self.api_versions(&rc, r).await;
        }
        if !is_served(api_key, rc.version) {
            let what = format_args!("{api_key} version {} from {}", rc.version, self.peer.addr);
            self.ctx.error_log.record("request that isn't served", &what);
            return Dispatched::Close;
        }
        self.count_arrival(&rc);
        self.begin(rc, r).await.unwrap_or(Dispatched::Close)
    }

    fn count_arrival(&self, rc: &RequestContext) {
        if let Some(api) = self.ctx.metrics.api(rc.api_key) {
            api.arrived(rc.version, rc.frame_bytes);
        }
    }

    async fn decode_body<R: Request>(&self, r: Reader, version: i16) -> Option<(R, Share)> {
        self.decode_body_with(r, version, |_| 0).await
    }

    /// Decodes a request's body and reserves memory for it, and `more`. `None` if the connection must be closed.
    async fn decode_body_with<R: Request>(
        &self,
        r: Reader,
        version: i16,
        more: impl Fn(&R) -> usize,
    ) -> Option<(R, Share)> {
        let decode = || {
            let mut r = r.clone();
            let request = R::decode(&mut r, version).inspect_err(|e| log_malformed(&self.ctx, &self.peer, e));
            Some((request.ok()?, r.decoded_bytes()))
        };
        let (request, decoded) = decode()?;
        let cost = REQUEST_BYTES + decoded * (1 + RESPONSE_PER_BYTE) + more(&request);
        if let Some(share) = self.ctx.memory.try_decoded(cost) {
            return Some((request, share));
        }
        // BEFORE the wait: a request that waits for memory must not take any.
        drop(request);
        match self.ctx.memory.decoded(cost).await {
            Ok(share) => Some((decode()?.0, share)),
            Err(Overloaded) => {
                self.ctx
                    .error_log
                    .record("no memory for a request", &self.peer.addr);
                None
            }
        }
    }

    /// W2: whatever the requested version, the client can decode the response.
    async fn api_versions(&mut self, rc: &RequestContext, r: Reader) -> Dispatched<E> {
        let mut ctx = self.ctx.clone();
        let image = ctx.image().clone();
        let (response, share) = if ApiKey::ApiVersions.stable_versions().contains(&rc.version) {
            let Some((request, share)) = self.decode_body::<m::ApiVersionsRequest>(r, rc.version).await
            else {
                return Dispatched::Close;
            };
            let response = handlers::api_versions::handle(&request, rc.version, &image);
            (rc.response(&ctx, &response, Vec::new()), share)
        } else {
            let response = handlers::api_versions::unsupported();
            let complete = rc.response_in(0, &ctx.error_log, &response, &mut [], RESPONSE_BYTES);
            (rc.counted(&ctx, &response, complete), Share::default())
        };
        Dispatched::Pending(Box::pin(ready(response)), share)
    }

    async fn begin(&mut self, rc: RequestContext, r: Reader) -> Option<Dispatched<E>> {
        use handlers as h;
        match rc.api_key {
            ApiKey::Produce => {
                self.state.mutations_done().await;
                let (request, share) = self.decode_body(r, rc.version).await?;
                let dispatched = h::produce::begin(&mut self.ctx, rc, request, share).await;
                // The peer may not send another request for long.
                self.ctx.release();
                Some(dispatched)
            }
            ApiKey::Fetch => {
                // The partitions of the session are copied.
                let copied = |request: &_| self.sessions.copied_bytes(request);
                let (request, share) = self.decode_body_with(r, rc.version, copied).await?;
                Some(h::fetch::begin(
                    &self.ctx,
                    &self.sessions,
                    rc,
                    request,
                    &self.peer,
                    share,
                ))
            }
            ApiKey::Metadata => {
                self.defer(rc, r, sync_bytes(h::metadata::bytes), h::metadata::handle)
                    .await
            }
            ApiKey::DescribeTopicPartitions => {
                let bytes = sync_bytes(h::describe_topic_partitions::bytes);
                self.defer(rc, r, bytes, h::describe_topic_partitions::handle)
                    .await
            }
            ApiKey::DescribeCluster => {
                self.defer(rc, r, no_extra_bytes, h::describe_cluster::handle)
                    .await
            }
            ApiKey::ListOffsets => self.defer(rc, r, no_extra_bytes, h::list_offsets::handle).await,
            ApiKey::OffsetForLeaderEpoch => {
                self.defer(rc, r, no_extra_bytes, h::offset_for_leader_epoch::handle)
                    .await
            }
            ApiKey::InitProducerId => {
                self.defer(rc, r, no_extra_bytes, h::init_producer_id::handle)
                    .await
            }
            ApiKey::CreateTopics => {
                self.defer(
                    rc,
                    r,
                    sync_bytes(h::create_topics::bytes),
                    h::create_topics::handle,
                )
                .await
            }
            ApiKey::DeleteTopics => self.defer(rc, r, no_extra_bytes, h::delete_topics::handle).await,
            ApiKey::CreatePartitions => {
                self.defer(rc, r, no_extra_bytes, h::create_partitions::handle)
                    .await
            }
            ApiKey::DeleteRecords => self.defer(rc, r, no_extra_bytes, h::delete_records::handle).await,
            ApiKey::DescribeConfigs => {
                self.defer(rc, r, h::describe_configs::bytes, h::describe_configs::handle)
                    .await
            }
            ApiKey::AlterConfigs => self.defer(rc, r, no_extra_bytes, h::alter_configs::handle).await,
            ApiKey::IncrementalAlterConfigs => {
                self.defer(rc, r, no_extra_bytes, h::incremental_alter_configs::handle)
                    .await
            }
            ApiKey::ListConfigResources => {
                let bytes = sync_bytes(h::list_config_resources::bytes);
                self.defer(rc, r, bytes, h::list_config_resources::handle).await
            }
            ApiKey::DescribeLogDirs => {
                self.defer(
                    rc,
                    r,
                    sync_bytes(h::describe_log_dirs::bytes),
                    h::describe_log_dirs::handle,
                )
                .await
            }
            ApiKey::DescribeProducers => {
                let bytes = h::describe_producers::bytes;
                self.defer(rc, r, bytes, h::describe_producers::handle).await
            }
            _ => unreachable!("other APIs are not served"),
        }
    }

    /// Dispatches a request whose work is all in its future. `bytes` returns an upper bound of the response as it is built
    /// and encoded, besides what is proportional to the request.
    ///
    /// That memory is reserved until the response is sent. A response that may be larger than its pool reserves all of the
    /// pool, BEFORE it is built, so there is one of these at a time.
    async fn defer<R, F>(
        &self,
        rc: RequestContext,
        r: Reader,
        bytes: impl for<'a> FnOnce(&'a mut Ctx<E>, &'a R) -> BoxFuture<'a, usize> + Send + 'static,
        handle: impl FnOnce(Ctx<E>, R, i16, Peer) -> F + Send + 'static,
    ) -> Option<Dispatched<E>>
    where
        R: Request + Send + Sync + 'static,
        F: Future<Output = R::Response> + Send + 'static,
    {
        let (request, share) = self.decode_body::<R>(r, rc.version).await?;
        let (mut ctx, peer) = (self.ctx.clone(), self.peer.clone());
        let mutation = self
            .is_mutation(rc.api_key)
            .then(|| MutationGuard::begin(&self.state));
        let pending = Box::pin(async move {
            rc.connection
                .answering
                .steps(rc.frame_bytes / FRAME_BYTES_PER_STEP)
                .await;
            let expected = bytes(&mut ctx, &request).await + rc.repeated_bytes();
            let mut share = response_share(&ctx, &peer, expected).await?;
            let mut response = {
                let body = handle(ctx.clone(), request, rc.version, peer.clone()).await;
                let capacity = match expected {
                    ..=SMALL_MAX => RESPONSE_BYTES,
                    large => large.min(RESPONSE_CAPACITY_MAX),
                };
                let complete = rc.response_in(rc.version, &ctx.error_log, &body, &mut [], capacity);
                rc.counted(&ctx, &body, complete)?
            };
            let len = response.parts.iter().map(Part::len).sum();
            match share.bytes() {
                // The request's reservation covers it meanwhile.
                0 => share = response_share(&ctx, &peer, len).await?,
                // It is larger than estimated. A request that holds a part of a pool must not wait for more of the same
                // pool.
                held if held < len => share.join(ctx.memory.try_response(len - held).unwrap_or_default()),
                _ => share.shrink(len),
            }
            response.share = share;
            drop(mutation);
            Some(response)
        });
        Some(Dispatched::Pending(pending, share))
    }
}

impl<E: Env> Dispatcher<E> {
    /// Whether a request may change topics, configurations or logs that a later Produce depends on.
    fn is_mutation(&self, api_key: ApiKey) -> bool {
        match api_key {
            ApiKey::CreateTopics
            | ApiKey::DeleteTopics
            | ApiKey::CreatePartitions
            | ApiKey::DeleteRecords
            | ApiKey::AlterConfigs
            | ApiKey::IncrementalAlterConfigs => true,
            ApiKey::Metadata => self.ctx.config.auto_create_topics_enable,
            _ => false,
        }
    }
}

/// For responses that are about as long as their requests.
fn no_extra_bytes<'a, E: Env, R>(_ctx: &'a mut Ctx<E>, _request: &'a R) -> BoxFuture<'a, usize> {
    Box::pin(ready(0))
}

/// Adapts a `bytes` function that is not asynchronous.
fn sync_bytes<E: Env, R>(
    bytes: fn(&mut Ctx<E>, &R) -> usize,
) -> impl for<'a> FnOnce(&'a mut Ctx<E>, &'a R) -> BoxFuture<'a, usize> {
    move |ctx, request| Box::pin(ready(bytes(ctx, request)))
}

//! A frame becomes a request, and the request something under way.
//!
//! Runs on the connection's reader, one frame after the other: what must happen in the order of requests (appends)
//! happens here; what may wait is returned as a future.

use brokkr_env::{Env, FileRange, Part};
use brokkr_wire::frame::{decode_request_header, encode_response, request_header_peek};
use brokkr_wire::messages::{self as m, Message, Request, RequestHeader};
use brokkr_wire::{ApiKey, DecodeError, Reader};
use bytes::Bytes;

use crate::conn::{Pending, Response};
use crate::ctx::{Ctx, Peer};
use crate::fetch_session::Sessions;
use crate::handlers;

/// What became of a frame.
pub enum Dispatched<E: Env> {
    /// It will be answered, or close the connection, in its turn.
    Pending(Pending<E>),
    /// It wants no answer.
    Silent,
    /// The connection is to be closed now.
    Close,
}

/// A connection's side of dispatch.
pub struct Dispatch<E: Env> {
    /// What handlers reach.
    pub ctx: Ctx<E>,
    /// Who asks.
    pub peer: Peer,
    sessions: Sessions,
}

/// What answering needs to know of a request.
#[derive(Clone, Copy)]
pub struct Asked {
    /// Which request.
    pub api_key: ApiKey,
    /// In which version.
    pub version: i16,
    /// What the answer repeats.
    pub correlation_id: i32,
}

impl Asked {
    /// The frame of `response`, with `ranges` in the place of its external records.
    ///
    /// # Panics
    /// If the response can't be encoded: a handler of ours put something into it that its version lacks.
    pub fn frame<E: Env, M: Message>(
        self,
        response: &M,
        mut ranges: Vec<Option<FileRange<E>>>,
    ) -> Response<E> {
        self.frame_as(self.version, response, &mut ranges)
    }

    fn frame_as<E: Env, M: Message>(
        self,
        body_version: i16,
        response: &M,
        ranges: &mut [Option<FileRange<E>>],
    ) -> Response<E> {
        let parts = if body_version == self.version {
            encode_response(response, self.api_key, self.version, self.correlation_id)
        } else {
            let header = m::ResponseHeader {
                correlation_id: self.correlation_id,
                ..Default::default()
            };
            brokkr_wire::frame::encode_frame(&header, 0, response, body_version)
        };
        let parts = parts.unwrap_or_else(|e| panic!("a response of ours can be encoded: {e}"));
        parts
            .into_iter()
            .map(|part| match part {
                brokkr_wire::Part::Bytes(bytes) => Part::Bytes(bytes),
                brokkr_wire::Part::External { token, .. } => {
                    Part::Range(ranges[token as usize].take().expect("each range goes out once"))
                }
            })
            .collect()
    }
}

/// Decodes a request's body, or says why the connection is closed.
fn body<R: Request, E: Env>(ctx: &Ctx<E>, peer: &Peer, mut r: Reader, version: i16) -> Option<R> {
    match R::decode(&mut r, version) {
        Ok(request) => Some(request),
        Err(error) => {
            malformed(ctx, peer, &error);
            None
        }
    }
}

fn malformed<E: Env>(ctx: &Ctx<E>, peer: &Peer, error: &DecodeError) {
    ctx.noise
        .tell("malformed request", &format_args!("{error}, from {}", peer.addr));
}

impl<E: Env> Dispatch<E> {
    /// For a new connection.
    pub fn new(ctx: Ctx<E>, peer: Peer) -> Self {
        let sessions = Sessions::new(ctx.sessions.clone());
        Self { ctx, peer, sessions }
    }

    /// Takes a frame (without its size) and begins what it asks.
    pub async fn request(&mut self, frame: Bytes) -> Dispatched<E> {
        let peek = match request_header_peek(&frame) {
            Ok(peek) => peek,
            Err(error) => {
                malformed(&self.ctx, &self.peer, &error);
                return Dispatched::Close;
            }
        };
        let mut r = Reader::new(frame);
        let (api_key, header) = match decode_request_header(&mut r) {
            Ok(decoded) => decoded,
            Err(error) => {
                malformed(&self.ctx, &self.peer, &error);
                return Dispatched::Close;
            }
        };
        let asked = Asked {
            api_key,
            version: peek.api_version,
            correlation_id: peek.correlation_id,
        };
        if api_key == ApiKey::ApiVersions {
            return self.api_versions(asked, r);
        }
        if !served(api_key, asked.version) {
            let what = format_args!("{api_key} version {} from {}", asked.version, self.peer.addr);
            self.ctx.noise.tell("request that isn't served", &what);
            return Dispatched::Close;
        }
        self.begin(asked, &header, r).await
    }

    /// W2: whatever version is asked, the answer can be read by who asked.
    fn api_versions(&mut self, asked: Asked, r: Reader) -> Dispatched<E> {
        let mut ctx = self.ctx.clone();
        let image = ctx.images.get().clone();
        let response = if ApiKey::ApiVersions.stable_versions().contains(&asked.version) {
            let Some(request) = body::<m::ApiVersionsRequest, E>(&self.ctx, &self.peer, r, asked.version)
            else {
                return Dispatched::Close;
            };
            let response = handlers::api_versions::handle(&request, asked.version, &image);
            asked.frame(&response, Vec::new())
        } else {
            let response = handlers::api_versions::unsupported();
            asked.frame_as(0, &response, &mut [])
        };
        Dispatched::Pending(Box::pin(async move { Some(response) }))
    }

    async fn begin(&mut self, asked: Asked, header: &RequestHeader, r: Reader) -> Dispatched<E> {
        use handlers as h;
        match asked.api_key {
            ApiKey::Produce => {
                let Some(request) = body(&self.ctx, &self.peer, r, asked.version) else {
                    return Dispatched::Close;
                };
                h::produce::begin(&mut self.ctx, asked, request).await
            }
            ApiKey::Fetch => {
                let Some(request) = body(&self.ctx, &self.peer, r, asked.version) else {
                    return Dispatched::Close;
                };
                h::fetch::begin(&self.ctx, &self.sessions, asked, request, header)
            }
            ApiKey::Metadata => self.later(asked, r, h::metadata::handle),
            ApiKey::DescribeTopicPartitions => self.later(asked, r, h::describe_topic_partitions::handle),
            ApiKey::DescribeCluster => self.later(asked, r, h::describe_cluster::handle),
            ApiKey::ListOffsets => self.later(asked, r, h::list_offsets::handle),
            ApiKey::OffsetForLeaderEpoch => self.later(asked, r, h::offset_for_leader_epoch::handle),
            ApiKey::InitProducerId => self.later(asked, r, h::init_producer_id::handle),
            ApiKey::CreateTopics => self.later(asked, r, h::create_topics::handle),
            ApiKey::DeleteTopics => self.later(asked, r, h::delete_topics::handle),
            ApiKey::CreatePartitions => self.later(asked, r, h::create_partitions::handle),
            ApiKey::DeleteRecords => self.later(asked, r, h::delete_records::handle),
            ApiKey::DescribeConfigs => self.later(asked, r, h::describe_configs::handle),
            ApiKey::AlterConfigs => self.later(asked, r, h::alter_configs::handle),
            ApiKey::IncrementalAlterConfigs => self.later(asked, r, h::incremental_alter_configs::handle),
            ApiKey::ListConfigResources => self.later(asked, r, h::list_config_resources::handle),
            ApiKey::DescribeLogDirs => self.later(asked, r, h::describe_log_dirs::handle),
            ApiKey::DescribeProducers => self.later(asked, r, h::describe_producers::handle),
            _ => unreachable!("only what is served gets here"),
        }
    }

    /// A request whose work is all in its future.
    fn later<R, F>(
        &self,
        asked: Asked,
        r: Reader,
        handle: impl FnOnce(Ctx<E>, R, i16, Peer) -> F + Send + 'static,
    ) -> Dispatched<E>
    where
        R: Request + Send + 'static,
        F: Future<Output = R::Response> + Send + 'static,
    {
        let Some(request) = body::<R, E>(&self.ctx, &self.peer, r, asked.version) else {
            return Dispatched::Close;
        };
        let (ctx, peer) = (self.ctx.clone(), self.peer.clone());
        Dispatched::Pending(Box::pin(async move {
            let response = handle(ctx, request, asked.version, peer).await;
            Some(asked.frame(&response, Vec::new()))
        }))
    }
}

/// What is served, all that ApiVersions advertises: the stable versions of these.
pub const SERVED: &[ApiKey] = &[
    ApiKey::Produce,
    ApiKey::Fetch,
    ApiKey::ListOffsets,
    ApiKey::Metadata,
    ApiKey::ApiVersions,
    ApiKey::CreateTopics,
    ApiKey::DeleteTopics,
    ApiKey::DeleteRecords,
    ApiKey::InitProducerId,
    ApiKey::OffsetForLeaderEpoch,
    ApiKey::DescribeConfigs,
    ApiKey::AlterConfigs,
    ApiKey::DescribeLogDirs,
    ApiKey::CreatePartitions,
    ApiKey::IncrementalAlterConfigs,
    ApiKey::DescribeCluster,
    ApiKey::DescribeProducers,
    ApiKey::ListConfigResources,
    ApiKey::DescribeTopicPartitions,
];

fn served(api_key: ApiKey, version: i16) -> bool {
    SERVED.contains(&api_key) && api_key.stable_versions().contains(&version)
}

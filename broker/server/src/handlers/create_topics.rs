//! CreateTopics, and the topics that Metadata creates automatically.

use brokkr_env::Env;
use brokkr_metadata::image::resource_type::TOPIC;
use brokkr_metadata::records::RECORDS_PER_REQUEST_MAX;
use brokkr_metadata::topic_name::CLUSTER_METADATA_TOPIC;
use brokkr_metadata::{CreateTopics, Reply, Request, refuse_excessive};
use brokkr_wire::messages::create_topics_request::CreatableTopic;
use brokkr_wire::messages::create_topics_response::CreatableTopicResult;
use brokkr_wire::messages::{CreateTopicsRequest, CreateTopicsResponse};
use brokkr_wire::{ErrorCode, Str};

use super::common::is_timed_out;
use super::without_effect;
use crate::ctx::{Ctx, Peer};

/// Kafka's value for "the broker's default".
const DEFAULT: i16 = -1;

/// Upper bound of a created topic's result, with its configuration, in bytes.
const CREATED_BYTES: usize = 10 << 10;

/// Upper bound of the response, in bytes.
pub fn bytes<E: Env>(_ctx: &mut Ctx<E>, request: &CreateTopicsRequest) -> usize {
    match request.topics.len() {
        n if n > RECORDS_PER_REQUEST_MAX => 0,
        n => n * CREATED_BYTES,
    }
}

/// Responds once the topics are committed and this broker has started their partitions. A client that disconnects does not
/// cancel the request.
pub async fn handle<E: Env>(
    ctx: Ctx<E>,
    request: CreateTopicsRequest,
    _version: i16,
    _peer: Peer,
) -> CreateTopicsResponse {
    let names: Vec<Str> = request.topics.iter().map(|t| t.name.clone()).collect();
    match create(&ctx, request).await {
        Ok(response) => response,
        Err(code) => CreateTopicsResponse {
            topics: names.into_iter().map(|name| failed(name, code)).collect(),
            ..CreateTopicsResponse::default()
        },
    }
}

fn failed(name: Str, code: ErrorCode) -> CreatableTopicResult {
    CreatableTopicResult {
        name,
        error_code: code.0,
        error_message: None,
        configs: Some(Vec::new()),
        ..CreatableTopicResult::default()
    }
}

async fn create<E: Env>(
    ctx: &Ctx<E>,
    request: CreateTopicsRequest,
) -> Result<CreateTopicsResponse, ErrorCode> {
    let names = request.topics.iter().map(|t| t.name.as_str());
    if is_timed_out(
        request.timeout_ms,
        names.filter(|name| *name != CLUSTER_METADATA_TOPIC),
    ) {
        return Err(ErrorCode::REQUEST_TIMED_OUT);
    }
    // On the connection's task: the controller has one task for all clients.
    if let Some(refused) = refuse_excessive(&request, ctx.config.num_partitions) {
        return Ok(refused);
    }
    let ids = ctx.env.rng("ids");
    let random = request.topics.iter().map(|_| ids.bytes()).collect();
    for config in request.topics.iter().flat_map(|t| &t.configs) {
        without_effect::log_if_ineffective(&ctx.error_log, TOPIC, &config.name, config.value.as_deref());
    }
    match ctx
        .controller
        .submit(Request::CreateTopics(CreateTopics { request, random }))
        .await?
    {
        Reply::CreateTopics(response) => Ok(response),
        other => unreachable!("the reply is not to CreateTopics: {other:?}"),
    }
}

/// Creates topics of these names with the broker's defaults, where possible. The caller looks the topics up again: one
/// that can't be created stays unknown, and another client may have created one meanwhile.
pub async fn auto_create<E: Env>(ctx: &Ctx<E>, names: Vec<Str>) {
    let topics = names.into_iter().map(|name| CreatableTopic {
        name,
        num_partitions: DEFAULT.into(),
        replication_factor: DEFAULT,
        ..CreatableTopic::default()
    });
    let request = CreateTopicsRequest {
        topics: topics.collect(),
        ..CreateTopicsRequest::default()
    };
    let results = match create(ctx, request).await {
        Ok(response) => response.topics,
        Err(code) => return ctx.error_log.record("topic not auto-created", &code),
    };
    for topic in results.iter().filter(|t| t.error_code != 0) {
        let code = ErrorCode(topic.error_code);
        if code != ErrorCode::TOPIC_ALREADY_EXISTS {
            let why = topic.error_message.as_ref().map_or("", |m| m.as_str());
            ctx.error_log.record(
                "topic not auto-created",
                &format_args!("{}: {code}: {why}", topic.name),
            );
        }
    }
}

//! DeleteTopics: deletes topics and their logs.

use brokkr_env::Env;
use brokkr_metadata::{Reply, Request};
use brokkr_types::Uuid;
use brokkr_wire::messages::delete_topics_response::DeletableTopicResult;
use brokkr_wire::messages::{DeleteTopicsRequest, DeleteTopicsResponse};
use brokkr_wire::{ErrorCode, Str};

use super::common::is_timed_out;
use crate::ctx::{Ctx, Peer};

/// The first version that has TOPIC_DELETION_DISABLED.
const DISABLED_SINCE: i16 = 3;

/// Responds once the deletion is committed and the partitions have stopped.
pub async fn handle<E: Env>(
    ctx: Ctx<E>,
    request: DeleteTopicsRequest,
    version: i16,
    _peer: Peer,
) -> DeleteTopicsResponse {
    let requested: Vec<(Option<Str>, Uuid)> = request
        .topic_names
        .iter()
        .map(|name| (Some(name.clone()), Uuid::ZERO))
        .chain(request.topics.iter().map(|t| (t.name.clone(), t.topic_id)))
        .collect();
    if !ctx.config.delete_topic_enable {
        return match version {
            ..DISABLED_SINCE => failed(
                requested,
                ErrorCode::INVALID_REQUEST,
                Some("Topic deletion is disabled."),
            ),
            _ => failed(requested, ErrorCode::TOPIC_DELETION_DISABLED, None),
        };
    }
    let named_one_way = requested
        .iter()
        .filter(|(name, id)| name.is_some() == (*id == Uuid::ZERO));
    if is_timed_out(request.timeout_ms, named_one_way) {
        return failed(requested, ErrorCode::REQUEST_TIMED_OUT, None);
    }
    match ctx.controller.submit(Request::DeleteTopics(request)).await {
        Ok(Reply::DeleteTopics(response)) => response,
        Ok(other) => unreachable!("the reply is not to DeleteTopics: {other:?}"),
        Err(code) => failed(requested, code, None),
    }
}

fn failed(
    requested: Vec<(Option<Str>, Uuid)>,
    code: ErrorCode,
    message: Option<&'static str>,
) -> DeleteTopicsResponse {
    let responses = requested
        .into_iter()
        .map(|(name, topic_id)| DeletableTopicResult {
            name,
            topic_id,
            error_code: code.0,
            error_message: message.map(Str::from_static),
            ..DeletableTopicResult::default()
        });
    DeleteTopicsResponse {
        responses: responses.collect(),
        ..DeleteTopicsResponse::default()
    }
}

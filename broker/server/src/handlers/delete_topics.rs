//! DeleteTopics.

use brokkr_env::Env;
use brokkr_metadata::{Reply, Request};
use brokkr_types::Uuid;
use brokkr_wire::messages::delete_topics_response::DeletableTopicResult;
use brokkr_wire::messages::{DeleteTopicsRequest, DeleteTopicsResponse};
use brokkr_wire::{ErrorCode, Str};

use super::described::is_late;
use crate::ctx::{Ctx, Peer};

/// The first version that has TOPIC_DELETION_DISABLED.
const DISABLED_SINCE: i16 = 3;

/// Answers the request once the topics are gone from the metadata and their partitions serve nothing more.
pub async fn handle<E: Env>(
    ctx: Ctx<E>,
    request: DeleteTopicsRequest,
    version: i16,
    _peer: Peer,
) -> DeleteTopicsResponse {
    let asked: Vec<(Option<Str>, Uuid)> = request
        .topic_names
        .iter()
        .map(|name| (Some(name.clone()), Uuid::ZERO))
        .chain(request.topics.iter().map(|t| (t.name.clone(), t.topic_id)))
        .collect();
    if !ctx.config.delete_topic_enable {
        return match version {
            ..DISABLED_SINCE => failed(
                asked,
                ErrorCode::INVALID_REQUEST,
                Some("Topic deletion is disabled."),
            ),
            _ => failed(asked, ErrorCode::TOPIC_DELETION_DISABLED, None),
        };
    }
    let named_one_way = asked
        .iter()
        .filter(|(name, id)| name.is_some() == (*id == Uuid::ZERO));
    if is_late(request.timeout_ms, named_one_way) {
        return failed(asked, ErrorCode::REQUEST_TIMED_OUT, None);
    }
    match ctx.controller.ask(Request::DeleteTopics(request)).await {
        Ok(Reply::DeleteTopics(response)) => response,
        Ok(other) => unreachable!("topics were to be deleted: {other:?}"),
        Err(code) => failed(asked, code, None),
    }
}

fn failed(
    asked: Vec<(Option<Str>, Uuid)>,
    code: ErrorCode,
    message: Option<&'static str>,
) -> DeleteTopicsResponse {
    let responses = asked.into_iter().map(|(name, topic_id)| DeletableTopicResult {
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

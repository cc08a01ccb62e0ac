//! CreatePartitions: adds partitions to topics.

use brokkr_env::Env;
use brokkr_metadata::{Reply, Request};
use brokkr_wire::ErrorCode;
use brokkr_wire::messages::create_partitions_response::CreatePartitionsTopicResult;
use brokkr_wire::messages::{CreatePartitionsRequest, CreatePartitionsResponse};

use super::common::is_timed_out;
use crate::ctx::{Ctx, Peer};

/// Responds once the partitions are committed and this broker has started them.
pub async fn handle<E: Env>(
    ctx: Ctx<E>,
    request: CreatePartitionsRequest,
    _version: i16,
    _peer: Peer,
) -> CreatePartitionsResponse {
    let names: Vec<_> = request.topics.iter().map(|t| t.name.clone()).collect();
    let reply = match is_timed_out(request.timeout_ms, names.iter()) {
        true => Err(ErrorCode::REQUEST_TIMED_OUT),
        false => ctx.controller.submit(Request::CreatePartitions(request)).await,
    };
    match reply {
        Ok(Reply::CreatePartitions(response)) => response,
        Ok(other) => unreachable!("the reply is not to CreatePartitions: {other:?}"),
        Err(code) => {
            let results = names.into_iter().map(|name| CreatePartitionsTopicResult {
                name,
                error_code: code.0,
                error_message: None,
                ..CreatePartitionsTopicResult::default()
            });
            CreatePartitionsResponse {
                results: results.collect(),
                ..CreatePartitionsResponse::default()
            }
        }
    }
}

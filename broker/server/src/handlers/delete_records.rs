//! DeleteRecords: raises the start of a partition's log.

use std::collections::BTreeMap;

use brokkr_env::Env;
use brokkr_types::Offset;
use brokkr_wire::ErrorCode;
use brokkr_wire::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsRequest};
use brokkr_wire::messages::delete_records_response::{
    DeleteRecordsPartitionResult, DeleteRecordsResponse, DeleteRecordsTopicResult,
};
use tokio::sync::oneshot;

use super::described::each_topic_once;
use crate::coop::Steps;
use crate::ctx::{Ctx, Peer};
use crate::partition::{Message, Refused};
use crate::partitions::Route;

/// Answers the request, once the new starts are durable.
pub async fn handle<E: Env>(
    mut ctx: Ctx<E>,
    request: DeleteRecordsRequest,
    _version: i16,
    _peer: Peer,
) -> DeleteRecordsResponse {
    let routes = ctx.routes().clone();
    let asked = each_topic_once(request.topics.into_iter().map(|t| (t.name, t.partitions)));
    let (mut topics, mut steps) = (Vec::with_capacity(asked.len()), Steps::default());
    for (name, asked) in asked {
        let route = routes.by_name(&name);
        // As Kafka: of a partition that is listed more than once the last offset counts.
        let asked: BTreeMap<i32, DeleteRecordsPartition> =
            asked.into_iter().map(|p| (p.partition_index, p)).collect();
        let mut partitions = Vec::with_capacity(asked.len());
        for asked in asked.values() {
            steps.step().await;
            let (error_code, low_watermark) = match delete(&ctx, route.as_deref(), asked).await {
                Ok(low) => (ErrorCode::NONE, low.0),
                Err(refused) => (refused.code, -1),
            };
            partitions.push(DeleteRecordsPartitionResult {
                partition_index: asked.partition_index,
                low_watermark,
                error_code: error_code.0,
                ..Default::default()
            });
        }
        topics.push(DeleteRecordsTopicResult {
            name,
            partitions,
            ..Default::default()
        });
    }
    DeleteRecordsResponse {
        topics,
        ..Default::default()
    }
}

async fn delete<E: Env>(
    ctx: &Ctx<E>,
    route: Option<&Route<E>>,
    asked: &DeleteRecordsPartition,
) -> Result<Offset, Refused> {
    let route = route.ok_or_else(|| Refused::of(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION))?;
    if !route.config.delete {
        let why = "only a topic whose cleanup.policy has delete can lose records so";
        return Err(Refused::because(ErrorCode::POLICY_VIOLATION, why));
    }
    let (handle, _) = route.opened(&ctx.env, asked.partition_index).await?;
    let (reply, answer) = oneshot::channel();
    let gone = || Refused::of(ErrorCode::NOT_LEADER_OR_FOLLOWER);
    if !handle
        .send(Message::DeleteRecords(Offset(asked.offset), reply))
        .await
    {
        return Err(gone());
    }
    answer.await.unwrap_or_else(|_| Err(gone()))
}

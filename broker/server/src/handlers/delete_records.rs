//! DeleteRecords: raises the log start offset of partitions.

use std::collections::BTreeMap;

use brokkr_env::Env;
use brokkr_types::Offset;
use brokkr_wire::ErrorCode;
use brokkr_wire::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsRequest};
use brokkr_wire::messages::delete_records_response::{
    DeleteRecordsPartitionResult, DeleteRecordsResponse, DeleteRecordsTopicResult,
};
use tokio::sync::oneshot;

use super::common::each_topic_once;
use crate::coop::Steps;
use crate::ctx::{Ctx, Peer};
use crate::partition::{DataMessage, PartitionError};
use crate::partitions::Route;

/// Responds once the new log start offsets are durable.
pub async fn handle<E: Env>(
    mut ctx: Ctx<E>,
    request: DeleteRecordsRequest,
    _version: i16,
    _peer: Peer,
) -> DeleteRecordsResponse {
    let routes = ctx.routes().clone();
    let requested = each_topic_once(request.topics.into_iter().map(|t| (t.name, t.partitions)));
    let (mut topics, mut steps) = (Vec::with_capacity(requested.len()), Steps::default());
    for (name, requested) in requested {
        let route = routes.by_name(&name);
        // As in Kafka: the last offset wins if a partition is listed more than once.
        let requested: BTreeMap<i32, DeleteRecordsPartition> =
            requested.into_iter().map(|p| (p.partition_index, p)).collect();
        let mut partitions = Vec::with_capacity(requested.len());
        for requested in requested.values() {
            steps.step().await;
            let (error_code, low_watermark) = match delete(&ctx, route.as_deref(), requested).await {
                Ok(low) => (ErrorCode::NONE, low.0),
                Err(error) => (error.code, -1),
            };
            partitions.push(DeleteRecordsPartitionResult {
                partition_index: requested.partition_index,
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
    requested: &DeleteRecordsPartition,
) -> Result<Offset, PartitionError> {
    let route = route.ok_or_else(|| PartitionError::new(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION))?;
    if !route.config.delete {
        let why = "records can only be deleted from topics whose cleanup.policy has delete";
        return Err(PartitionError::with_message(ErrorCode::POLICY_VIOLATION, why));
    }
    let (handle, _) = route
        .open_partition(&ctx.env, &ctx.config.limits, requested.partition_index)
        .await?;
    let (reply, answer) = oneshot::channel();
    let owner_ended = || PartitionError::new(ErrorCode::NOT_LEADER_OR_FOLLOWER);
    if !handle
        .send(DataMessage::DeleteRecords(Offset(requested.offset), reply))
        .await
    {
        return Err(owner_ended());
    }
    answer.await.unwrap_or_else(|_| Err(owner_ended()))
}

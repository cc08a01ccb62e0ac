//! DeleteRecords: raises the start of a partition's log.

use brokkr_env::Env;
use brokkr_types::Offset;
use brokkr_wire::ErrorCode;
use brokkr_wire::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsRequest};
use brokkr_wire::messages::delete_records_response::{
    DeleteRecordsPartitionResult, DeleteRecordsResponse, DeleteRecordsTopicResult,
};
use tokio::sync::oneshot;

use crate::ctx::{Ctx, Peer};
use crate::partition::{Message, Refused};
use crate::partitions::{Hosted, Route};

/// Answers the request, once the new starts are durable.
pub async fn handle<E: Env>(
    mut ctx: Ctx<E>,
    request: DeleteRecordsRequest,
    _version: i16,
    _peer: Peer,
) -> DeleteRecordsResponse {
    let routes = ctx.routes.get().clone();
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let route = routes.by_name(&topic.name);
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for asked in &topic.partitions {
            let (error_code, low_watermark) = match delete(route.as_deref(), asked).await {
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
            name: topic.name,
            partitions,
            ..Default::default()
        });
    }
    DeleteRecordsResponse {
        topics,
        ..Default::default()
    }
}

async fn delete<E: Env>(route: Option<&Route<E>>, asked: &DeleteRecordsPartition) -> Result<Offset, Refused> {
    let route = route.ok_or_else(|| Refused::of(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION))?;
    if !route.config.delete {
        let why = "only a topic whose cleanup.policy has delete can lose records so";
        return Err(Refused::because(ErrorCode::POLICY_VIOLATION, why));
    }
    let handle = match route.partition(asked.partition_index) {
        Hosted::Here(handle) => handle,
        Hosted::Offline => return Err(Refused::of(ErrorCode::KAFKA_STORAGE_ERROR)),
        Hosted::Nowhere => return Err(Refused::of(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION)),
    };
    let (reply, answer) = oneshot::channel();
    let gone = || Refused::of(ErrorCode::NOT_LEADER_OR_FOLLOWER);
    if !handle
        .send(Message::DeleteRecords {
            before: Offset(asked.offset),
            reply,
        })
        .await
    {
        return Err(gone());
    }
    answer.await.unwrap_or_else(|_| Err(gone()))
}

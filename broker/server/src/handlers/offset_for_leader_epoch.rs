//! OffsetForLeaderEpoch (KIP-101, KIP-320): the end offset of a leader epoch in the log.

use brokkr_env::Env;
use brokkr_types::LeaderEpoch;
use brokkr_wire::ErrorCode;
use brokkr_wire::messages::offset_for_leader_epoch_request::{
    OffsetForLeaderEpochRequest, OffsetForLeaderPartition,
};
use brokkr_wire::messages::offset_for_leader_epoch_response::{
    EpochEndOffset, OffsetForLeaderEpochResponse, OffsetForLeaderTopicResult,
};

use crate::coop::Steps;
use crate::ctx::{Ctx, Peer};
use crate::partition::PartitionError;
use crate::partitions::{Route, check_epoch};

/// Returns the response.
pub async fn handle<E: Env>(
    mut ctx: Ctx<E>,
    request: OffsetForLeaderEpochRequest,
    _version: i16,
    _peer: Peer,
) -> OffsetForLeaderEpochResponse {
    let routes = ctx.routes().clone();
    let (mut topics, mut steps) = (Vec::with_capacity(request.topics.len()), Steps::default());
    for topic in request.topics {
        let route = routes.by_name(&topic.topic);
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for requested in &topic.partitions {
            steps.step().await;
            partitions.push(end_of(&ctx, route.as_deref(), requested).await);
        }
        topics.push(OffsetForLeaderTopicResult {
            topic: topic.topic,
            partitions,
            ..Default::default()
        });
    }
    OffsetForLeaderEpochResponse {
        topics,
        ..Default::default()
    }
}

async fn end_of<E: Env>(
    ctx: &Ctx<E>,
    route: Option<&Route<E>>,
    requested: &OffsetForLeaderPartition,
) -> EpochEndOffset {
    let (error_code, leader_epoch, end_offset) = match find_epoch_end(ctx, route, requested).await {
        Ok(Some((epoch, end))) => (ErrorCode::NONE, epoch, end),
        Ok(None) => (ErrorCode::NONE, -1, -1),
        Err(error) => (error.code, -1, -1),
    };
    EpochEndOffset {
        error_code: error_code.0,
        partition: requested.partition,
        leader_epoch,
        end_offset,
        ..Default::default()
    }
}

async fn find_epoch_end<E: Env>(
    ctx: &Ctx<E>,
    route: Option<&Route<E>>,
    requested: &OffsetForLeaderPartition,
) -> Result<Option<(i32, i64)>, PartitionError> {
    let route = route.ok_or_else(|| PartitionError::new(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION))?;
    let (_, view) = route
        .open_partition(&ctx.env, &ctx.config.limits, requested.partition)
        .await?;
    check_epoch(requested.current_leader_epoch, view.leader_epoch)?;
    let end = view
        .reader
        .end_offset_for_epoch(LeaderEpoch(requested.leader_epoch));
    // As in Kafka, and as in Fetch with a last fetched epoch: the end of the epoch in the log, committed or not. A
    // follower that truncated to the high watermark instead could lose records that another replica has committed (R1).
    Ok(end.map(|e| (e.epoch.0, e.end.0)))
}

//! DescribeProducers: who writes to a partition idempotently.

use brokkr_env::Env;
use brokkr_metadata::topic_name;
use brokkr_wire::ErrorCode;
use brokkr_wire::messages::describe_producers_request::DescribeProducersRequest;
use brokkr_wire::messages::describe_producers_response::{
    DescribeProducersResponse, PartitionResponse, ProducerState, TopicResponse,
};
use tokio::sync::oneshot;

use super::described::Listed;
use crate::coop::Steps;
use crate::ctx::{Ctx, Peer};
use crate::partition::{Message, Refused};
use crate::partitions::{Hosted, Route};

/// What a producer takes up, as it is built and encoded, and what a partition without any does, with the sentence why.
const PRODUCER_BYTES: usize = size_of::<ProducerState>() + 40;
const PARTITION_BYTES: usize = size_of::<PartitionResponse>() + 256;

/// What the response takes up at most.
pub fn bytes<E: Env>(ctx: &mut Ctx<E>, request: &DescribeProducersRequest) -> usize {
    let routes = ctx.routes();
    let (mut bytes, mut partitions) = (0, Listed::new());
    for topic in &request.topics {
        let route = routes.by_name(&topic.name);
        for index in &topic.partition_indexes {
            let more = partition_bytes(route.as_deref(), *index);
            if partitions.is_answered((&topic.name, *index), more) {
                bytes += more;
            }
        }
    }
    bytes
}

/// What a partition takes up at most.
fn partition_bytes<E: Env>(route: Option<&Route<E>>, index: i32) -> usize {
    let producers = match route.map(|route| route.partition(index)) {
        Some(Hosted::Here(handle)) => handle.view().producers,
        Some(Hosted::Offline | Hosted::Nowhere) | None => 0,
    };
    PARTITION_BYTES + producers * PRODUCER_BYTES
}

/// Answers the request: topics and partitions as they are listed.
pub async fn handle<E: Env>(
    mut ctx: Ctx<E>,
    request: DescribeProducersRequest,
    _version: i16,
    _peer: Peer,
) -> DescribeProducersResponse {
    let routes = ctx.routes().clone();
    let (mut topics, mut steps, mut listed) = (Vec::new(), Steps::default(), Listed::new());
    for topic in request.topics {
        steps.step().await;
        let name = topic.name;
        let route = routes.by_name(&name);
        let mut partitions = Vec::new();
        for partition_index in topic.partition_indexes {
            steps.step().await;
            let bytes = partition_bytes(route.as_deref(), partition_index);
            if !listed.is_answered((name.clone(), partition_index), bytes) {
                continue;
            }
            let asked = match topic_name::invalid(&name) {
                Some(why) => Err(Refused::because(ErrorCode::INVALID_TOPIC_EXCEPTION, why)),
                None => ask(route.as_deref(), partition_index).await,
            };
            let (code, error_message, active_producers) = match asked {
                Ok(producers) => (ErrorCode::NONE, None, producers),
                Err(refused) => (refused.code, refused.message(), Vec::new()),
            };
            partitions.push(PartitionResponse {
                partition_index,
                error_code: code.0,
                error_message,
                active_producers,
                ..Default::default()
            });
        }
        topics.push(TopicResponse {
            name,
            partitions,
            ..Default::default()
        });
    }
    DescribeProducersResponse {
        topics,
        ..Default::default()
    }
}

async fn ask<E: Env>(route: Option<&Route<E>>, partition: i32) -> Result<Vec<ProducerState>, Refused> {
    let unknown = "This server does not host this topic-partition.";
    let route = route.ok_or_else(|| Refused::because(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, unknown))?;
    let handle = match route.partition(partition) {
        Hosted::Here(handle) => handle,
        Hosted::Offline => return Err(Refused::of(ErrorCode::KAFKA_STORAGE_ERROR)),
        Hosted::Nowhere => return Err(Refused::of(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION)),
    };
    let (reply, answer) = oneshot::channel();
    let gone = || Refused::of(ErrorCode::NOT_LEADER_OR_FOLLOWER);
    if !handle.send(Message::Producers { reply }).await {
        return Err(gone());
    }
    answer.await.map_err(|_| gone())
}

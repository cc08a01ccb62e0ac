//! DescribeProducers: who writes to a partition idempotently.

use brokkr_env::Env;
use brokkr_metadata::topic_name;
use brokkr_wire::messages::describe_producers_request::DescribeProducersRequest;
use brokkr_wire::messages::describe_producers_response::{
    DescribeProducersResponse, PartitionResponse, ProducerState, TopicResponse,
};
use brokkr_wire::{ErrorCode, Str};
use tokio::sync::oneshot;

use crate::ctx::{Ctx, Peer};
use crate::partition::{Message, Refused};
use crate::partitions::{Hosted, Route};

/// Answers the request.
pub async fn handle<E: Env>(
    mut ctx: Ctx<E>,
    request: DescribeProducersRequest,
    _version: i16,
    _peer: Peer,
) -> DescribeProducersResponse {
    let routes = ctx.routes.get().clone();
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let route = routes.by_name(&topic.name);
        let mut partitions = Vec::with_capacity(topic.partition_indexes.len());
        for partition_index in topic.partition_indexes {
            let asked = match topic_name::invalid(&topic.name) {
                Some(why) => Err(Refused::because(ErrorCode::INVALID_TOPIC_EXCEPTION, why)),
                None => ask(route.as_deref(), partition_index).await,
            };
            let (code, error_message, active_producers) = match asked {
                Ok(producers) => (ErrorCode::NONE, None, producers),
                Err(refused) => (refused.code, refused.why.map(Str::from), Vec::new()),
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
            name: topic.name,
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

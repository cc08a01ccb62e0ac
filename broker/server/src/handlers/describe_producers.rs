//! DescribeProducers: the idempotent producers of a partition.

use brokkr_env::Env;
use brokkr_metadata::topic_name;
use brokkr_types::Uuid;
use brokkr_wire::messages::describe_producers_request::DescribeProducersRequest;
use brokkr_wire::messages::describe_producers_response::{
    DescribeProducersResponse, PartitionResponse, ProducerState, TopicResponse,
};
use brokkr_wire::{ErrorCode, Str};
use futures_util::future::BoxFuture;
use tokio::sync::oneshot;

use super::common::{EntryOutcome, ListedEntries};
use crate::coop::Steps;
use crate::ctx::{Ctx, Peer};
use crate::handlers::topic_numbers::TopicNumbers;
use crate::partition::{DataMessage, PartitionError};
use crate::partitions::Route;

/// Bytes of a producer in the response, as it is built and encoded; of a partition with an error message; and of that
/// message.
const PRODUCER_BYTES: usize = size_of::<ProducerState>() + 40;
const PARTITION_BYTES: usize = size_of::<PartitionResponse>() + SENTENCE_BYTES_MAX;
const SENTENCE_BYTES_MAX: usize = 256;

/// Upper bound of the response, in bytes.
pub fn bytes<'a, E: Env>(ctx: &'a mut Ctx<E>, request: &'a DescribeProducersRequest) -> BoxFuture<'a, usize> {
    Box::pin(async {
        let routes = ctx.routes();
        let (mut bytes, mut steps, mut listed) = (0, Steps::default(), ListedEntries::new());
        let mut numbers = TopicNumbers::default();
        for topic in &request.topics {
            steps.step().await;
            let route = routes.by_name(&topic.name);
            let number = numbers.number_of(&topic.name, Uuid::ZERO);
            for index in &topic.partition_indexes {
                steps.step().await;
                if is_answered(&mut listed, route.as_deref(), (number, *index)) {
                    bytes += partition_bytes(route.as_deref(), *index);
                }
            }
        }
        bytes
    })
}

/// Whether the response contains the next partition, given by its topic's number; else it is left out.
fn is_answered<E: Env>(
    listed: &mut ListedEntries<(usize, i32)>,
    route: Option<&Route<E>>,
    (number, index): (usize, i32),
) -> bool {
    let exists = route.is_some_and(|route| route.partition(index).is_some());
    listed.admit((number, index), exists, partition_bytes(route, index)) == EntryOutcome::Answer
}

/// Upper bound of a partition in the response, in bytes.
fn partition_bytes<E: Env>(route: Option<&Route<E>>, index: i32) -> usize {
    let handle = route.and_then(|route| route.partition(index));
    let view = handle.and_then(|handle| handle.view_if_open());
    PARTITION_BYTES + view.map_or(0, |view| view.producers) * PRODUCER_BYTES
}

/// Returns the response: topics and partitions in the order of the request.
pub async fn handle<E: Env>(
    mut ctx: Ctx<E>,
    request: DescribeProducersRequest,
    _version: i16,
    _peer: Peer,
) -> DescribeProducersResponse {
    let routes = ctx.routes().clone();
    let (mut topics, mut steps, mut listed) = (Vec::new(), Steps::default(), ListedEntries::new());
    let mut numbers = TopicNumbers::default();
    for topic in request.topics {
        steps.step().await;
        let name = topic.name;
        let number = numbers.number_of(&name, Uuid::ZERO);
        let route = routes.by_name(&name);
        // Clipped: it quotes the name, and is repeated for each partition.
        let invalid = topic_name::invalid(&name).map(|why| Str::clipped(&why, SENTENCE_BYTES_MAX));
        let mut partitions = Vec::new();
        for partition_index in topic.partition_indexes {
            steps.step().await;
            if !is_answered(&mut listed, route.as_deref(), (number, partition_index)) {
                continue;
            }
            let listed_producers = match &invalid {
                Some(why) => Err(PartitionError::with_message(
                    ErrorCode::INVALID_TOPIC_EXCEPTION,
                    why,
                )),
                None => list_producers(&ctx, route.as_deref(), partition_index).await,
            };
            let (code, error_message, active_producers) = match listed_producers {
                Ok(producers) => (ErrorCode::NONE, None, producers),
                Err(error) => (error.code, error.message_str(), Vec::new()),
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

async fn list_producers<E: Env>(
    ctx: &Ctx<E>,
    route: Option<&Route<E>>,
    partition: i32,
) -> Result<Vec<ProducerState>, PartitionError> {
    let unknown = "This server does not host this topic-partition.";
    let route =
        route.ok_or_else(|| PartitionError::with_message(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, unknown))?;
    let (handle, _) = route
        .open_partition(&ctx.env, &ctx.config.limits, partition)
        .await?;
    let (reply, answer) = oneshot::channel();
    let owner_ended = || PartitionError::new(ErrorCode::NOT_LEADER_OR_FOLLOWER);
    if !handle.send(DataMessage::Producers(reply)).await {
        return Err(owner_ended());
    }
    answer.await.map_err(|_| owner_ended())
}

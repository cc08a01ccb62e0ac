//! DescribeTopicPartitions: topics, page by page (KIP-966).

use std::collections::BTreeMap;
use std::sync::Arc;

use brokkr_env::Env;
use brokkr_metadata::{PartitionImage, TopicImage, topic_name};
use brokkr_wire::messages::describe_topic_partitions_request::{
    DescribeTopicPartitionsRequest, TopicRequest,
};
use brokkr_wire::messages::describe_topic_partitions_response::{
    Cursor, DescribeTopicPartitionsResponse, DescribeTopicPartitionsResponsePartition,
    DescribeTopicPartitionsResponseTopic,
};
use brokkr_wire::{ErrorCode, Str};

use super::common::{Leadership, NO_OPERATIONS, TOPIC_OPERATIONS, leadership, offline_here};
use crate::ctx::{Ctx, Peer};

/// Upper bounds of a partition in the response, and of a topic whose name was collected, in bytes.
const PARTITION_BYTES: usize = 320;
const TOPIC_BYTES: usize = 64;

/// Upper bound of the response, in bytes.
pub fn bytes<E: Env>(ctx: &mut Ctx<E>, request: &DescribeTopicPartitionsRequest) -> usize {
    let limit = ctx.config.max_request_partition_size_limit;
    let partitions = limit.min(request.response_partition_limit).max(1) as usize;
    partitions * PARTITION_BYTES + ctx.image().topics.len() * TOPIC_BYTES
}

/// Returns the response: partitions up to the limit, and a cursor to the next one.
pub async fn handle<E: Env>(
    mut ctx: Ctx<E>,
    request: DescribeTopicPartitionsRequest,
    _version: i16,
    _peer: Peer,
) -> DescribeTopicPartitionsResponse {
    if let Some(cursor) = &request.cursor {
        let requested = |t: &TopicRequest| t.name == cursor.topic_name;
        if cursor.partition_index < 0 || !(request.topics.is_empty() || request.topics.iter().any(requested))
        {
            return invalid_cursor(request.topics);
        }
    }
    let cluster = Arc::clone(ctx.cluster.get());
    let image = &cluster.image;
    let names: Vec<Str> = if request.topics.is_empty() {
        image.topics.iter().map(|t| t.name.clone()).collect()
    } else {
        request
            .topics
            .into_iter()
            .map(|t| (t.name, ()))
            .collect::<BTreeMap<_, _>>()
            .into_keys()
            .collect()
    };
    let (from, mut skip) = match &request.cursor {
        Some(cursor) => (cursor.topic_name.clone(), cursor.partition_index.max(0) as usize),
        None => (Str::default(), 0),
    };
    let mut partitions_left = ctx
        .config
        .max_request_partition_size_limit
        .min(request.response_partition_limit)
        .max(1) as usize;
    let mut response = DescribeTopicPartitionsResponse::default();
    for name in names.into_iter().filter(|n| *n >= from) {
        let first = if name == from {
            std::mem::take(&mut skip)
        } else {
            0
        };
        // As in Kafka: a full page ends, even if the next topic does not exist.
        if partitions_left == 0 {
            let cursor = Cursor {
                topic_name: name,
                partition_index: 0,
                ..Default::default()
            };
            response.next_cursor = Some(cursor);
            break;
        }
        let Some(topic) = image.topics.by_name(&name) else {
            response.topics.push(unknown(name));
            continue;
        };
        let left = topic.partitions().skip(first).count();
        let route = cluster.routes.by_id(topic.id);
        let offline = |index| offline_here(route.as_deref(), index);
        let node_id = ctx.identity.node_id;
        let leadership = |index, p: &PartitionImage| leadership(image, p, node_id, offline(index));
        response
            .topics
            .push(topic_page(topic, first, partitions_left, leadership));
        if left > partitions_left {
            let partition_index = (first + partitions_left) as i32;
            response.next_cursor = Some(Cursor {
                topic_name: name,
                partition_index,
                ..Default::default()
            });
            break;
        }
        partitions_left -= left;
    }
    response
}

/// The response to a cursor that is not in the request.
fn invalid_cursor(requested: Vec<TopicRequest>) -> DescribeTopicPartitionsResponse {
    let topics = requested
        .into_iter()
        .map(|t| DescribeTopicPartitionsResponseTopic {
            error_code: ErrorCode::INVALID_REQUEST.0,
            name: Some(t.name),
            topic_authorized_operations: NO_OPERATIONS,
            ..Default::default()
        });
    DescribeTopicPartitionsResponse {
        topics: topics.collect(),
        ..Default::default()
    }
}

fn unknown(name: Str) -> DescribeTopicPartitionsResponseTopic {
    let code = match topic_name::invalid(&name) {
        Some(_) => ErrorCode::INVALID_TOPIC_EXCEPTION,
        None => ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
    };
    DescribeTopicPartitionsResponseTopic {
        error_code: code.0,
        name: Some(name),
        topic_authorized_operations: TOPIC_OPERATIONS,
        ..Default::default()
    }
}

fn topic_page(
    topic: &TopicImage,
    first: usize,
    max: usize,
    leadership: impl Fn(i32, &PartitionImage) -> Leadership,
) -> DescribeTopicPartitionsResponseTopic {
    let partitions = topic
        .partitions()
        .skip(first)
        .take(max)
        .map(|(partition_index, p)| {
            let leadership = leadership(partition_index, p);
            DescribeTopicPartitionsResponsePartition {
                error_code: leadership.code.0,
                partition_index,
                leader_id: leadership.leader,
                leader_epoch: p.leader_epoch,
                replica_nodes: p.replicas.clone(),
                isr_nodes: p.isr.clone(),
                eligible_leader_replicas: Some(p.elr.clone()),
                last_known_elr: Some(p.last_known_elr.clone()),
                offline_replicas: leadership.offline_replicas,
                ..Default::default()
            }
        });
    DescribeTopicPartitionsResponseTopic {
        name: Some(topic.name.clone()),
        topic_id: topic.id,
        is_internal: topic.is_internal(),
        partitions: partitions.collect(),
        topic_authorized_operations: TOPIC_OPERATIONS,
        ..Default::default()
    }
}

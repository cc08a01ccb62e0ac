//! Metadata: brokers, topics and their leaders.

use std::collections::BTreeSet;
use std::sync::Arc;

use brokkr_env::Env;
use brokkr_metadata::{PartitionImage, TopicImage, topic_name};
use brokkr_types::Uuid;
use brokkr_wire::messages::metadata_request::{MetadataRequest, MetadataRequestTopic};
use brokkr_wire::messages::metadata_response::{
    MetadataResponse, MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use brokkr_wire::{ErrorCode, Str};

use super::common::{CLUSTER_OPERATIONS, NO_OPERATIONS, TOPIC_OPERATIONS, brokers, leadership, offline_here};
use super::create_topics;
use crate::coop::Steps;
use crate::ctx::{Ctx, Peer};
use crate::partitions::ClusterView;

/// The first version that can request topics by id.
const BY_ID_SINCE: i16 = 12;

/// Upper bounds of a topic in the response, without its name, and of a partition, in bytes.
const TOPIC_BYTES: usize = 160;
const PARTITION_BYTES: usize = 240;

/// Upper bound of the response, in bytes.
pub fn bytes<E: Env>(ctx: &mut Ctx<E>, request: &MetadataRequest) -> usize {
    let (config, image) = (Arc::clone(&ctx.config), ctx.image());
    let bytes = |t: &TopicImage| t.name.len() + TOPIC_BYTES + t.partitions.len() * PARTITION_BYTES;
    match &request.topics {
        Some(requested) if !requested.is_empty() => {
            let created = match request.allow_auto_topic_creation && config.auto_create_topics_enable {
                true => TOPIC_BYTES + config.num_partitions.max(1) as usize * PARTITION_BYTES,
                false => 0,
            };
            let found = each_once(requested).map(|t| match &t.name {
                Some(name) => image.topics.by_name(name).map_or(created, |t| bytes(t)),
                None => image.topics.by_id(t.topic_id).map_or(0, |t| bytes(t)),
            });
            found.sum()
        }
        _ => image.topics.iter().map(|t| bytes(t)).sum(),
    }
}

/// Returns the response. Unknown topics are created first if the request and the configuration allow it.
pub async fn handle<E: Env>(
    mut ctx: Ctx<E>,
    request: MetadataRequest,
    version: i16,
    peer: Peer,
) -> MetadataResponse {
    let mut cluster = Arc::clone(ctx.cluster.get());
    // In version 0 an empty list means all topics.
    let requested = request.topics.filter(|topics| version > 0 || !topics.is_empty());
    if let Some(response) = invalid_request(requested.as_deref().unwrap_or_default(), version) {
        return response;
    }
    if let Some(topics) = &requested
        && request.allow_auto_topic_creation
        && ctx.config.auto_create_topics_enable
    {
        let missing: Vec<Str> = topics
            .iter()
            .filter_map(|t| t.name.clone())
            .filter(|name| {
                cluster.image.topics.by_name(name).is_none() && topic_name::invalid(name).is_none()
            })
            .collect();
        if !missing.is_empty() {
            create_topics::auto_create(&ctx, missing).await;
            cluster = Arc::clone(ctx.cluster.get());
        }
    }
    let describe = TopicDescriber {
        cluster: &cluster,
        node_id: ctx.identity.node_id,
        operations: request.include_topic_authorized_operations,
    };
    let (mut topics, mut steps) = (Vec::new(), Steps::default());
    match &requested {
        None => {
            for topic in cluster.image.topics.iter() {
                topics.push(describe.topic(topic));
                steps.step().await;
            }
        }
        Some(requested) => {
            for requested in each_once(requested) {
                topics.push(describe.requested_topic(requested));
                steps.step().await;
            }
        }
    }
    let brokers = brokers(&cluster.image, &peer.listener, false)
        .into_iter()
        .map(|b| MetadataResponseBroker {
            node_id: b.id,
            host: b.host,
            port: b.port,
            rack: b.rack,
            ..Default::default()
        });
    let operations = if request.include_cluster_authorized_operations {
        CLUSTER_OPERATIONS
    } else {
        NO_OPERATIONS
    };
    MetadataResponse {
        brokers: brokers.collect(),
        cluster_id: Some(Str::copied(&ctx.identity.cluster_id)),
        controller_id: ctx.identity.node_id,
        topics,
        cluster_authorized_operations: operations,
        ..Default::default()
    }
}

/// Before topics could be requested by id, each needed a name and no id; otherwise Kafka rejects the whole request.
fn invalid_request(requested: &[MetadataRequestTopic], version: i16) -> Option<MetadataResponse> {
    let named = |t: &MetadataRequestTopic| t.name.is_some() && t.topic_id == Uuid::ZERO;
    if version >= BY_ID_SINCE || requested.iter().all(named) {
        return None;
    }
    let topics = requested.iter().map(|t| MetadataResponseTopic {
        error_code: ErrorCode::INVALID_REQUEST.0,
        name: Some(t.name.clone().unwrap_or_default()),
        topic_id: t.topic_id,
        topic_authorized_operations: NO_OPERATIONS,
        ..Default::default()
    });
    Some(MetadataResponse {
        topics: topics.collect(),
        cluster_authorized_operations: NO_OPERATIONS,
        controller_id: -1,
        ..Default::default()
    })
}

/// As in Kafka: each topic is described once, and if some are requested by id, those without an id are left out.
fn each_once(requested: &[MetadataRequestTopic]) -> impl Iterator<Item = &MetadataRequestTopic> {
    let by_id = requested.iter().any(|t| t.topic_id != Uuid::ZERO);
    let mut seen = BTreeSet::new();
    requested.iter().filter(move |t| match by_id {
        true => t.topic_id != Uuid::ZERO && seen.insert((None, t.topic_id)),
        false => seen.insert((t.name.clone(), Uuid::ZERO)),
    })
}

struct TopicDescriber<'a, E: Env> {
    cluster: &'a ClusterView<E>,
    node_id: i32,
    operations: bool,
}

impl<E: Env> TopicDescriber<'_, E> {
    fn requested_topic(&self, requested: &MetadataRequestTopic) -> MetadataResponseTopic {
        let by_id = requested.topic_id != Uuid::ZERO;
        // As in Kafka: a topic requested by name has the allowed operations, whether or not it exists.
        let failed = |code: ErrorCode| MetadataResponseTopic {
            error_code: code.0,
            name: requested.name.clone().filter(|_| !by_id),
            topic_id: requested.topic_id,
            topic_authorized_operations: if by_id { NO_OPERATIONS } else { self.operations() },
            ..Default::default()
        };
        match &requested.name {
            Some(name) if !by_id => match self.cluster.image.topics.by_name(name) {
                Some(topic) => self.topic(topic),
                None if topic_name::invalid(name).is_some() => failed(ErrorCode::INVALID_TOPIC_EXCEPTION),
                None => failed(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION),
            },
            _ if by_id => match self.cluster.image.topics.by_id(requested.topic_id) {
                Some(topic) => self.topic(topic),
                None => failed(ErrorCode::UNKNOWN_TOPIC_ID),
            },
            _ => failed(ErrorCode::INVALID_REQUEST),
        }
    }

    fn topic(&self, topic: &TopicImage) -> MetadataResponseTopic {
        let route = self.cluster.routes.by_id(topic.id);
        MetadataResponseTopic {
            name: Some(topic.name.clone()),
            topic_id: topic.id,
            is_internal: topic.is_internal(),
            partitions: topic
                .partitions()
                .map(|(index, p)| self.partition(index, p, offline_here(route.as_deref(), index)))
                .collect(),
            topic_authorized_operations: self.operations(),
            ..Default::default()
        }
    }

    fn operations(&self) -> i32 {
        match self.operations {
            true => TOPIC_OPERATIONS,
            false => NO_OPERATIONS,
        }
    }

    fn partition(
        &self,
        partition_index: i32,
        p: &PartitionImage,
        offline_here: bool,
    ) -> MetadataResponsePartition {
        let leadership = leadership(&self.cluster.image, p, self.node_id, offline_here);
        MetadataResponsePartition {
            error_code: leadership.code.0,
            partition_index,
            leader_id: leadership.leader,
            leader_epoch: p.leader_epoch,
            replica_nodes: p.replicas.clone(),
            isr_nodes: p.isr.clone(),
            offline_replicas: leadership.offline_replicas,
            ..Default::default()
        }
    }
}

//! What several answers say in the same way, and several requests are read in the same way.

use std::collections::BTreeMap;
use std::sync::Arc;

use brokkr_metadata::{BrokerImage, Image, PartitionImage};
use brokkr_wire::{ErrorCode, Str};

/// What a client may do with a topic where nobody asks for permission: Kafka's bits for READ, WRITE, CREATE, DELETE, ALTER,
/// DESCRIBE, DESCRIBE_CONFIGS and ALTER_CONFIGS.
pub const TOPIC_OPERATIONS: i32 = 0b1101_1111_1000;
/// And with the cluster: CREATE, ALTER, DESCRIBE, CLUSTER_ACTION, DESCRIBE_CONFIGS, ALTER_CONFIGS, IDEMPOTENT_WRITE.
pub const CLUSTER_OPERATIONS: i32 = 0b1_1111_1010_0000;
/// Nobody asked.
pub const NO_OPERATIONS: i32 = i32::MIN;

/// A broker as clients of a listener see it.
pub struct Seen {
    /// Its id.
    pub id: i32,
    /// Its host.
    pub host: Str,
    /// Its port.
    pub port: i32,
    /// Its rack.
    pub rack: Option<Str>,
    /// Whether it is fenced.
    pub fenced: bool,
}

/// The brokers that can be reached by a listener, fenced ones too if wanted.
pub fn brokers(image: &Image, listener: &str, fenced: bool) -> Vec<Seen> {
    let seen = |b: &Arc<BrokerImage>| {
        let endpoint = b.endpoint(listener)?;
        Some(Seen {
            id: b.id,
            host: endpoint.host.clone(),
            port: i32::from(endpoint.port),
            rack: b.rack.clone(),
            fenced: b.fenced,
        })
    };
    image
        .brokers()
        .filter(|b| fenced || !b.fenced)
        .filter_map(seen)
        .collect()
}

/// The replicas of a partition that are on brokers which are not there.
pub fn offline(image: &Image, partition: &PartitionImage) -> Vec<i32> {
    partition
        .replicas
        .iter()
        .copied()
        .filter(|r| !image.is_active(*r))
        .collect()
}

/// Whether a partition has a leader, as answers say it.
pub fn leader_code(partition: &PartitionImage) -> ErrorCode {
    match partition.leader {
        ..0 => ErrorCode::LEADER_NOT_AVAILABLE,
        _ => ErrorCode::NONE,
    }
}

/// The topics that a request lists, as Kafka reads it: each once, with the partitions of all the times it is listed, and not
/// at all without partitions.
pub fn each_topic_once<P>(listed: impl Iterator<Item = (Str, Vec<P>)>) -> Vec<(Str, Vec<P>)> {
    let mut places = BTreeMap::new();
    let mut topics: Vec<(Str, Vec<P>)> = Vec::new();
    for (name, partitions) in listed.filter(|(_, partitions)| !partitions.is_empty()) {
        let place = *places.entry(name.clone()).or_insert(topics.len());
        match topics.get_mut(place) {
            Some((_, before)) => before.extend(partitions),
            None => topics.push((name, partitions)),
        }
    }
    topics
}

/// `isolation_level`: what is read, all or (KIP-98) what is decided. Kafka stumbles over any other and answers that it
/// doesn't know why; here the client is told.
pub fn isolation_level(level: i8) -> Result<(), ErrorCode> {
    match level {
        0 | 1 => Ok(()),
        _ => Err(ErrorCode::INVALID_REQUEST),
    }
}

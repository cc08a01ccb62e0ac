//! What several answers say in the same way.

use std::sync::Arc;

use brokkr_metadata::{BrokerImage, Image, PartitionImage};

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
    pub host: brokkr_wire::Str,
    /// Its port.
    pub port: i32,
    /// Its rack.
    pub rack: Option<brokkr_wire::Str>,
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

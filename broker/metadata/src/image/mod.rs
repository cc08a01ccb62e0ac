//! The cluster as the metadata log describes it up to some offset.
//!
//! An [`Image`] is a value: a clone costs a few reference counts, and does not change when the original replays more records
//! (persistent maps). A host uses this to undo appended records that were never committed: it keeps the image of the last
//! committed offset.
//!
//! Invariants: a topic id is never reused (M2); a committed record that can't be replayed is an error that takes the log
//! offline, never a panic.

mod delta;
mod replay;
mod replay_error;
#[cfg(test)]
pub(crate) mod tests;
mod topics;
mod write;

use std::sync::Arc;

use brokkr_types::Uuid;
use brokkr_wire::Str;
use brokkr_wire::messages::{
    AccessControlEntryRecord, ClientQuotaRecord, DelegationTokenRecord, ProducerIdsRecord,
    RegisterControllerRecord, UserScramCredentialRecord,
};
use imbl::OrdMap;

pub use crate::config::resolve::Configs;
pub use crate::features::METADATA_VERSION;
pub use delta::{Changed, ImageDelta};
pub use replay::MetadataState;
pub use replay_error::ReplayError;
pub use topics::{
    DIRECTORY_UNASSIGNED, NO_LEADER, NO_LEADER_CHANGE, PartitionImage, TopicImage, TopicsImage,
};
pub use write::record_version;

/// DescribeConfigs' resource types.
pub mod resource_type {
    /// A topic, by name.
    pub const TOPIC: i8 = 2;
    /// A broker, by id; without a name, the cluster-wide default.
    pub const BROKER: i8 = 4;
    /// A broker's loggers.
    pub const BROKER_LOGGER: i8 = 8;
    /// A client metrics subscription.
    pub const CLIENT_METRICS: i8 = 16;
    /// A group.
    pub const GROUP: i8 = 32;
}

/// A resource that can be configured.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct ConfigResource {
    /// One of [`resource_type`].
    pub kind: i8,
    /// Its name.
    pub name: Str,
}

impl ConfigResource {
    /// The topic of this name.
    pub fn topic(name: &str) -> Self {
        Self {
            kind: resource_type::TOPIC,
            name: Str::copied(name),
        }
    }

    /// The broker of this id.
    pub fn broker(id: i32) -> Self {
        Self {
            kind: resource_type::BROKER,
            name: Str::from(id.to_string()),
        }
    }

    /// The cluster-wide default of brokers.
    pub fn cluster() -> Self {
        Self {
            kind: resource_type::BROKER,
            name: Str::EMPTY,
        }
    }

    /// Whether the resource exists only through its configuration (groups, client metrics subscriptions).
    pub fn is_of_any_name(&self) -> bool {
        matches!(self.kind, resource_type::GROUP | resource_type::CLIENT_METRICS)
    }

    /// The approximate memory of its configuration.
    pub fn bytes(&self, configs: &Configs) -> usize {
        let entries = configs
            .iter()
            .map(|(name, value)| name.len() + value.len() + CONFIG_BYTES);
        CONFIGURED_BYTES + self.name.len() + entries.sum::<usize>()
    }
}

/// The approximate memory of a configured resource, and of each of its entries, without their texts.
const CONFIGURED_BYTES: usize = 3 << 10;
const CONFIG_BYTES: usize = 128;

/// An endpoint of a broker.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Endpoint {
    /// The listener's name (`PLAINTEXT`).
    pub listener: Str,
    /// The host for clients.
    pub host: Str,
    /// The port for clients.
    pub port: u16,
    /// Kafka's number of the security protocol: 0 is PLAINTEXT.
    pub security_protocol: i16,
}

/// The levels of a feature that a broker supports.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SupportedFeature {
    /// The feature's name.
    pub name: Str,
    /// The lowest level.
    pub min: i16,
    /// The highest level.
    pub max: i16,
}

/// A registered broker.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BrokerImage {
    /// Its id.
    pub id: i32,
    /// Its broker epoch: the offset at which this incarnation registered.
    pub epoch: i64,
    /// Random for each process.
    pub incarnation_id: Uuid,
    /// Its endpoints.
    pub endpoints: Vec<Endpoint>,
    /// Its supported features.
    pub features: Vec<SupportedFeature>,
    /// Its rack.
    pub rack: Option<Str>,
    /// Whether it is fenced: it leads no partition, and clients don't see it.
    pub fenced: bool,
    /// Whether it is shutting down.
    pub in_controlled_shutdown: bool,
    /// Its online log directories.
    pub directories: Vec<Uuid>,
    /// The cordoned ones among them, which take no new partitions; `None` if the broker doesn't report them.
    pub cordoned_directories: Option<Vec<Uuid>>,
}

impl BrokerImage {
    /// The endpoint of a listener.
    pub fn endpoint(&self, listener: &str) -> Option<&Endpoint> {
        self.endpoints.iter().find(|e| e.listener == *listener)
    }

    /// Whether it may lead and be in an ISR.
    pub fn is_active(&self) -> bool {
        !self.fenced && !self.in_controlled_shutdown
    }
}

/// The position of the last record in an image.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Provenance {
    /// Its offset; -1 for the empty image.
    pub offset: i64,
    /// The quorum epoch in which it was written; -1 if none.
    pub epoch: i32,
}

/// The key of a client quota: its entity, and the quota's name.
type QuotaKey = (Vec<(Str, Option<Str>)>, Str);

/// The cluster's metadata. See the module.
#[derive(Clone, PartialEq, Debug)]
pub struct Image {
    /// The position of its last record.
    pub provenance: Provenance,
    /// `cluster.id`. Not in the log: every replica keeps it in `meta.properties`.
    pub cluster_id: Str,
    /// The topics.
    pub topics: TopicsImage,
    brokers: OrdMap<i32, Arc<BrokerImage>>,
    controllers: OrdMap<i32, Arc<RegisterControllerRecord>>,
    configs: OrdMap<ConfigResource, Configs>,
    of_any_name_bytes: usize,
    features: OrdMap<Str, i16>,
    producer_ids: Option<ProducerIdsRecord>,
    // Not used yet; kept so that a snapshot loses nothing.
    acls: OrdMap<Uuid, Arc<AccessControlEntryRecord>>,
    quotas: OrdMap<QuotaKey, Arc<ClientQuotaRecord>>,
    scram: OrdMap<(Str, i8), Arc<UserScramCredentialRecord>>,
    tokens: OrdMap<Str, Arc<DelegationTokenRecord>>,
}

impl Image {
    /// The image of an empty log.
    pub fn empty(cluster_id: &str) -> Self {
        Self {
            provenance: Provenance {
                offset: -1,
                epoch: -1,
            },
            cluster_id: Str::copied(cluster_id),
            topics: TopicsImage::default(),
            brokers: OrdMap::new(),
            controllers: OrdMap::new(),
            configs: OrdMap::new(),
            of_any_name_bytes: 0,
            features: OrdMap::new(),
            producer_ids: None,
            acls: OrdMap::new(),
            quotas: OrdMap::new(),
            scram: OrdMap::new(),
            tokens: OrdMap::new(),
        }
    }

    /// This image without some of its topics and their configurations.
    pub fn without_topics(&self, topics: impl IntoIterator<Item = Uuid>) -> Self {
        let mut image = self.clone();
        for id in topics {
            if let Ok(name) = image.topics.remove(id) {
                image.configs.remove(&ConfigResource::topic(&name));
            }
        }
        image
    }

    /// A broker, fenced or not.
    pub fn broker(&self, id: i32) -> Option<&Arc<BrokerImage>> {
        self.brokers.get(&id)
    }

    /// All registered brokers, by id.
    pub fn brokers(&self) -> impl Iterator<Item = &Arc<BrokerImage>> {
        self.brokers.values()
    }

    /// Whether the broker is registered, unfenced and not shutting down.
    pub fn is_active(&self, broker: i32) -> bool {
        self.broker(broker).is_some_and(|b| b.is_active())
    }

    /// The configuration of a resource; `None` if it has none.
    pub fn configs(&self, resource: &ConfigResource) -> Option<&Configs> {
        self.configs.get(resource)
    }

    /// The approximate memory of the configurations of groups and client metrics subscriptions. It must be limited: clients
    /// can configure any number of names.
    pub fn of_any_name_bytes(&self) -> usize {
        self.of_any_name_bytes
    }

    /// The configuration of a topic.
    pub fn topic_configs(&self, topic: &str) -> Option<&Configs> {
        self.configs.get(&ConfigResource::topic(topic))
    }

    /// All resources with a configuration.
    pub fn configured(&self) -> impl Iterator<Item = &ConfigResource> {
        self.configs.keys()
    }

    /// A feature's finalized level; 0 where it has none.
    pub fn feature(&self, name: &str) -> i16 {
        self.features.get(name).copied().unwrap_or_default()
    }

    /// All features that have a level, by name.
    pub fn features(&self) -> impl Iterator<Item = (&Str, i16)> {
        self.features.iter().map(|(name, level)| (name, *level))
    }

    /// The level of `metadata.version`; `None` in an empty log.
    pub fn metadata_version(&self) -> Option<i16> {
        self.features.get(METADATA_VERSION).copied()
    }

    /// The first producer id that no block contains (SCENARIOS P11).
    pub fn next_producer_id(&self) -> i64 {
        self.producer_ids.as_ref().map_or(0, |ids| ids.next_producer_id)
    }
}

//! Cached metadata of the cluster: its brokers, and the leader of each partition.

use std::collections::BTreeMap;

use brokkr_types::Uuid;
use brokkr_wire::messages::MetadataResponse;
use brokkr_wire::messages::metadata_response::MetadataResponseTopic;
use brokkr_wire::{ErrorCode, Str};

use crate::TopicPartition;

/// A broker's address.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Broker {
    /// A host name or an IP address.
    pub host: Str,
    /// The port.
    pub port: u16,
}

/// Metadata of a topic.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Topic {
    /// Its id; zero if the broker does not report ids.
    pub id: Uuid,
    /// The error that the broker reported instead of the rest.
    pub error: ErrorCode,
    /// Its partitions, by index.
    pub partitions: BTreeMap<i32, Partition>,
}

/// Metadata of a partition.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Partition {
    /// The leader's node id; -1 if there is none.
    pub leader: i32,
    /// Its leader epoch; -1 if the broker does not report it.
    pub leader_epoch: i32,
    /// The replicas' node ids.
    pub replicas: Vec<i32>,
    /// The in-sync replicas' node ids.
    pub isr: Vec<i32>,
}

/// The leader of a partition.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Leader {
    /// The leader's node id.
    pub node: i32,
    /// Its leader epoch, or -1.
    pub epoch: i32,
    /// The topic's id, or zero.
    pub topic_id: Uuid,
}

/// The cluster's metadata as last reported.
#[derive(Clone, Default, Debug)]
pub struct Metadata {
    /// Its id.
    pub cluster_id: Option<Str>,
    /// Its brokers, by node id.
    pub brokers: BTreeMap<i32, Broker>,
    /// The broker that takes administrative requests, or -1.
    pub controller_id: i32,
    /// The requested topics.
    pub topics: BTreeMap<Str, Topic>,
}

impl Metadata {
    /// The leader of a partition, if it is known.
    pub fn leader(&self, tp: &TopicPartition) -> Option<Leader> {
        let topic = self.topics.get(&tp.topic)?;
        let partition = topic.partitions.get(&tp.partition)?;
        let known = partition.leader >= 0 && self.brokers.contains_key(&partition.leader);
        known.then_some(Leader {
            node: partition.leader,
            epoch: partition.leader_epoch,
            topic_id: topic.id,
        })
    }

    /// The partitions of a topic, empty if the topic is unknown.
    pub fn partitions_of(&self, topic: &str) -> Vec<TopicPartition> {
        let indexes = self.topics.get(topic).map(|t| t.partitions.keys().copied());
        let tp = |p| TopicPartition::new(topic, p);
        indexes.into_iter().flatten().map(tp).collect()
    }

    pub(crate) fn update(&mut self, response: MetadataResponse) {
        if !response.brokers.is_empty() {
            let broker = |b: brokkr_wire::messages::metadata_response::MetadataResponseBroker| {
                let port = u16::try_from(b.port).ok()?;
                let host = b.host.detached();
                Some((b.node_id, Broker { host, port }))
            };
            self.brokers = response.brokers.into_iter().filter_map(broker).collect();
        }
        self.cluster_id = response.cluster_id.map(|id| id.detached());
        self.controller_id = response.controller_id;
        for topic in response.topics {
            if let Some(name) = &topic.name {
                let name = name.detached();
                self.update_topic(name, topic);
            }
        }
    }

    fn update_topic(&mut self, name: Str, reported: MetadataResponseTopic) {
        let mut old = match self.topics.remove(&name) {
            Some(t) if t.id == reported.topic_id => t.partitions,
            _ => BTreeMap::new(),
        };
        let mut partitions = BTreeMap::new();
        for p in reported.partitions {
            let new = Partition {
                leader: p.leader_id,
                leader_epoch: p.leader_epoch,
                replicas: p.replica_nodes,
                isr: p.isr_nodes,
            };
            // A broker that lags reports a leader of an older epoch.
            let kept = match old.remove(&p.partition_index) {
                Some(old) if old.leader_epoch > new.leader_epoch => old,
                _ => new,
            };
            partitions.insert(p.partition_index, kept);
        }
        let topic = Topic {
            id: reported.topic_id,
            error: ErrorCode(reported.error_code),
            partitions,
        };
        self.topics.insert(name, topic);
    }

    /// Applies a leader hint (KIP-951) if it is newer. Returns whether it was.
    pub(crate) fn hint(&mut self, tp: &TopicPartition, leader: i32, epoch: i32) -> bool {
        let topic = self.topics.get_mut(&tp.topic);
        match topic.and_then(|t| t.partitions.get_mut(&tp.partition)) {
            Some(p) if leader >= 0 && epoch > p.leader_epoch => {
                (p.leader, p.leader_epoch) = (leader, epoch);
                true
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use brokkr_wire::messages::metadata_response::{MetadataResponseBroker, MetadataResponsePartition};

    fn response(id: u8, leader: i32, leader_epoch: i32) -> MetadataResponse {
        let partition = MetadataResponsePartition {
            leader_id: leader,
            leader_epoch,
            ..Default::default()
        };
        let topic = MetadataResponseTopic {
            name: Some("t".into()),
            topic_id: Uuid::from_bytes([id; 16]),
            partitions: vec![partition],
            ..Default::default()
        };
        let broker = |node_id| MetadataResponseBroker {
            node_id,
            host: "h".into(),
            port: 9092,
            ..Default::default()
        };
        MetadataResponse {
            brokers: vec![broker(1), broker(2)],
            topics: vec![topic],
            ..Default::default()
        }
    }

    #[test]
    fn an_older_epoch_is_ignored_unless_the_topic_id_changed() {
        let mut m = Metadata::default();
        let tp = TopicPartition::new("t", 0);
        let leader = |m: &mut Metadata, r| {
            m.update(r);
            m.leader(&tp).map(|l| (l.node, l.epoch))
        };
        assert_eq!(leader(&mut m, response(1, 1, 5)), Some((1, 5)));
        assert_eq!(leader(&mut m, response(1, 2, 4)), Some((1, 5)));
        assert_eq!(leader(&mut m, response(1, 2, 6)), Some((2, 6)));
        assert_eq!(leader(&mut m, response(1, -1, 7)), None);
        assert_eq!(leader(&mut m, response(2, 1, 0)), Some((1, 0)));
        assert!(!m.hint(&tp, 2, 0) && m.hint(&tp, 2, 1));
    }
}

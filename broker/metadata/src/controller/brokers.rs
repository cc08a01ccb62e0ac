//! Broker registration, and the producer ids handed to brokers.

use std::collections::BTreeMap;
use std::ops::Range;

use brokkr_types::Uuid;
use brokkr_wire::messages::register_broker_record::{BrokerEndpoint, BrokerFeature};
use brokkr_wire::messages::{
    BrokerRegistrationChangeRecord, MetadataRecord, PartitionChangeRecord, ProducerIdsRecord,
    RegisterBrokerRecord,
};
use brokkr_wire::{ErrorCode, Str};

use super::{ApiError, Controller, Outcome};
use crate::bootstrap::SUPPORTED_FEATURES;
use crate::image::{NO_LEADER, PartitionImage};

/// Producer ids in a block, as in Kafka.
pub const PRODUCER_ID_BLOCK_SIZE: i64 = 1000;

/// Kafka's value for "unfence" in a registration change.
const UNFENCE: i8 = -1;

/// A broker's registration request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Registration {
    /// Its id.
    pub broker_id: i32,
    /// Random for each process.
    pub incarnation_id: Uuid,
    /// Listener name, host and port of each endpoint for clients. All use PLAINTEXT.
    pub endpoints: Vec<(String, String, u16)>,
    /// Its rack.
    pub rack: Option<String>,
    /// Its online log directories.
    pub directories: Vec<Uuid>,
    /// Topic, partition and directory of each log that is in another directory than the metadata says.
    pub moved: Vec<(Uuid, i32, Uuid)>,
    /// The broker epoch of its previous incarnation if that shut down cleanly (KIP-966); else -1.
    pub previous_broker_epoch: i64,
}

impl Controller {
    /// Registers a broker and unfences it at once; changes its partitions before the reply is sent.
    ///
    /// A new incarnation gets a new broker epoch, and every partition that it leads a new leader epoch (SCENARIOS R16):
    /// requests of the previous incarnation are fenced. After an unclean shutdown the broker leaves the ISR and the ELR
    /// wherever another replica can replace it.
    pub(super) fn register_broker(
        &self,
        r: &Registration,
        next_offset: i64,
    ) -> Outcome<(Vec<MetadataRecord>, i64)> {
        self.check_directories(r)?;
        let existing = self.image().broker(r.broker_id);
        let same_life = existing.filter(|b| b.incarnation_id == r.incarnation_id);
        let epoch = same_life.map_or(next_offset, |b| b.epoch);
        let mut records: Vec<MetadataRecord> = vec![registration_record(r, epoch).into()];
        records.push(
            BrokerRegistrationChangeRecord {
                broker_id: r.broker_id,
                broker_epoch: epoch,
                fenced: UNFENCE,
                ..BrokerRegistrationChangeRecord::default()
            }
            .into(),
        );
        if same_life.is_none() {
            let clean = existing.is_some_and(|b| b.epoch == r.previous_broker_epoch);
            self.begin_life(r, clean, &mut records);
        }
        Ok((records, epoch))
    }

    fn check_directories(&self, r: &Registration) -> Outcome<()> {
        let refuse = |message: String| Err(ApiError::new(ErrorCode::INVALID_REGISTRATION, message));
        if r.directories.is_empty() {
            return refuse("No directories specified in request".to_owned());
        }
        for (i, directory) in r.directories.iter().enumerate() {
            if r.directories[..i].contains(directory) {
                return refuse("Duplicate directory ID in request".to_owned());
            }
            let mut others = self.image().brokers().filter(|b| b.id != r.broker_id);
            if let Some(other) = others.find(|b| b.directories.contains(directory)) {
                return refuse(format!(
                    "Broker {} is already registered with directory {directory}",
                    other.id
                ));
            }
        }
        Ok(())
    }

    fn begin_life(&self, r: &Registration, clean: bool, records: &mut Vec<MetadataRecord>) {
        let moved = r.moved.iter().map(|(topic, index, to)| ((*topic, *index), *to));
        let moved: BTreeMap<(Uuid, i32), Uuid> = moved.collect();
        for topic in self.image().topics.iter() {
            for (index, partition) in topic.partitions() {
                let mut change = self.partition_at_begin(partition, r.broker_id, clean);
                if let Some(to) = moved.get(&(topic.id, index)) {
                    let directories = partition.with_directory(r.broker_id, *to);
                    change.get_or_insert_default().directories = Some(directories);
                }
                if let Some(change) = change {
                    records.push(
                        PartitionChangeRecord {
                            partition_id: index,
                            topic_id: topic.id,
                            ..change
                        }
                        .into(),
                    );
                }
            }
        }
    }

    /// The change of a partition when a new incarnation of `broker` registers.
    fn partition_at_begin(
        &self,
        p: &PartitionImage,
        broker: i32,
        clean: bool,
    ) -> Option<PartitionChangeRecord> {
        let without = |of: &[i32]| of.iter().copied().filter(|id| *id != broker).collect::<Vec<_>>();
        let others = without(&p.isr);
        let mut change = PartitionChangeRecord::default();
        if p.isr.contains(&broker) && !clean && others.iter().any(|id| self.image().is_active(*id)) {
            if p.leader == broker {
                let preferred = p.replicas.iter().copied();
                change.leader = preferred
                    .filter(|id| others.contains(id))
                    .find(|id| self.image().is_active(*id))?;
            }
            change.isr = Some(others);
            return Some(change);
        }
        let has_leader = p.leader != NO_LEADER && p.leader != broker;
        if has_leader {
            let leaves = !clean && p.elr.contains(&broker);
            change.eligible_leader_replicas = leaves.then(|| without(&p.elr));
            return leaves.then_some(change);
        }
        if p.isr.contains(&broker) {
            change.leader = broker;
        } else if clean && p.isr.is_empty() && p.elr.contains(&broker) {
            change.leader = broker;
            change.isr = Some(vec![broker]);
            change.eligible_leader_replicas = Some(without(&p.elr));
        } else {
            return None;
        }
        Some(change)
    }

    /// Handles failed log directories of a broker: new partitions are placed into the remaining ones (KIP-858). Existing
    /// partitions keep the failed ones. The last directory is never removed: a registration without directories means that
    /// they are unknown.
    pub(super) fn directories_offline(&self, broker_id: i32, failed: &[Uuid]) -> Vec<MetadataRecord> {
        let Some(broker) = self.image().broker(broker_id) else {
            return Vec::new();
        };
        let left = broker.directories.iter().filter(|d| !failed.contains(d));
        let left: Vec<Uuid> = left.copied().collect();
        if left.is_empty() || left == broker.directories {
            return Vec::new();
        }
        let change = BrokerRegistrationChangeRecord {
            broker_id,
            broker_epoch: broker.epoch,
            log_dirs: left,
            ..BrokerRegistrationChangeRecord::default()
        };
        vec![change.into()]
    }

    /// Allocates the next block of producer ids. The block's end is in the log BEFORE any of its ids is used (P11).
    pub(super) fn allocate_producer_ids(&self) -> Outcome<(Vec<MetadataRecord>, Range<i64>)> {
        let first = self.image().next_producer_id();
        let next = first.checked_add(PRODUCER_ID_BLOCK_SIZE).ok_or_else(|| {
            ApiError::new(
                ErrorCode::UNKNOWN_SERVER_ERROR,
                "Exhausted all producerIds as the next block's end producerId has exceeded the int64 type limit",
            )
        })?;
        let node = self.settings.node_id;
        let record = ProducerIdsRecord {
            broker_id: node,
            broker_epoch: self.image().broker(node).map_or(-1, |b| b.epoch),
            next_producer_id: next,
            ..ProducerIdsRecord::default()
        };
        Ok((vec![record.into()], first..next))
    }
}

fn registration_record(r: &Registration, epoch: i64) -> RegisterBrokerRecord {
    let end_points = r.endpoints.iter().map(|(listener, host, port)| BrokerEndpoint {
        name: Str::from(listener.clone()),
        host: Str::from(host.clone()),
        port: *port,
        ..BrokerEndpoint::default()
    });
    let features = SUPPORTED_FEATURES.iter().map(|(name, min, max)| BrokerFeature {
        name: Str::from_static(name),
        min_supported_version: *min,
        max_supported_version: *max,
        ..BrokerFeature::default()
    });
    RegisterBrokerRecord {
        broker_id: r.broker_id,
        incarnation_id: r.incarnation_id,
        broker_epoch: epoch,
        end_points: end_points.collect(),
        features: features.collect(),
        rack: r.rack.clone().map(Str::from),
        fenced: true,
        log_dirs: r.directories.clone(),
        ..RegisterBrokerRecord::default()
    }
}

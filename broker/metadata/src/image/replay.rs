//! Replay: applies each record to an image.

use std::sync::Arc;

use brokkr_types::Uuid;
use brokkr_wire::Str;
use brokkr_wire::messages::{
    BrokerRegistrationChangeRecord, ClientQuotaRecord, ConfigRecord, FeatureLevelRecord, MetadataRecord,
    PartitionChangeRecord, PartitionRecord, ProducerIdsRecord, RegisterBrokerRecord,
};

use super::replay_error::ReplayError;
use super::topics::PartitionImage;
use super::{BrokerImage, ConfigResource, Endpoint, Image, METADATA_VERSION, QuotaKey, SupportedFeature};
use crate::features::METADATA_VERSIONS;

/// An image being replayed, with the image to return to if the open metadata transaction aborts (KIP-868).
#[derive(Clone, PartialEq, Debug)]
pub struct MetadataState {
    latest: Image,
    /// The image before the open transaction.
    before: Option<Image>,
}

impl MetadataState {
    /// Replay starting from this image.
    pub fn new(image: Image) -> Self {
        Self {
            latest: image,
            before: None,
        }
    }

    /// The image without the records of an open transaction.
    pub fn image(&self) -> &Image {
        self.before.as_ref().unwrap_or(&self.latest)
    }

    /// The image with all replayed records.
    pub fn latest(&self) -> &Image {
        &self.latest
    }

    /// Whether a transaction is open.
    pub fn in_transaction(&self) -> bool {
        self.before.is_some()
    }

    /// Replays the record at `offset`, written in the quorum epoch `epoch`.
    pub fn replay(&mut self, offset: i64, epoch: i32, record: &MetadataRecord) -> Result<(), ReplayError> {
        match record {
            MetadataRecord::BeginTransaction(_) if self.before.is_some() => {
                return Err(ReplayError::Transaction("a transaction begins inside of another"));
            }
            MetadataRecord::BeginTransaction(_) => self.before = Some(self.latest.clone()),
            MetadataRecord::EndTransaction(_) => {
                self.before
                    .take()
                    .ok_or(ReplayError::Transaction("a transaction ends that never began"))?;
            }
            MetadataRecord::AbortTransaction(_) => {
                self.latest = self
                    .before
                    .take()
                    .ok_or(ReplayError::Transaction("a transaction aborts that never began"))?;
            }
            other => self.latest.replay(other)?,
        }
        self.advance(offset, epoch);
        Ok(())
    }

    /// Skips a control record.
    pub fn advance(&mut self, offset: i64, epoch: i32) {
        self.latest.provenance.offset = offset;
        self.latest.provenance.epoch = epoch;
        if let Some(before) = &mut self.before {
            before.provenance = self.latest.provenance;
        }
    }
}

impl Image {
    /// Applies any record except the beginning or end of a transaction.
    pub(super) fn replay(&mut self, record: &MetadataRecord) -> Result<(), ReplayError> {
        use MetadataRecord as R;
        match record {
            R::RegisterBroker(r) => self.register_broker(r),
            R::UnregisterBroker(r) => {
                self.registered(r.broker_id, r.broker_epoch)?;
                self.brokers.remove(&r.broker_id);
            }
            R::FenceBroker(r) => self.registered(r.id, r.epoch)?.fenced = true,
            R::UnfenceBroker(r) => self.registered(r.id, r.epoch)?.fenced = false,
            R::BrokerRegistrationChange(r) => self.change_registration(r)?,
            R::RegisterController(r) => {
                self.controllers.insert(r.controller_id, Arc::new(r.clone()));
            }
            R::Topic(r) => self.topics.create(&r.name, r.topic_id)?,
            R::Partition(r) => self.put_partition(r)?,
            R::PartitionChange(r) => self.change_partition(r)?,
            R::RemoveTopic(r) => {
                let name = self.topics.remove(r.topic_id)?;
                self.configs.remove(&ConfigResource::topic(&name));
            }
            R::ClearElr(r) if r.topic_name.is_empty() => {
                for id in self.topics.ids() {
                    self.clear_elr(id)?;
                }
            }
            R::ClearElr(r) => self.clear_elr(self.topics.id_of(&r.topic_name)?)?,
            R::Config(r) => self.configure(r),
            R::FeatureLevel(r) => self.set_feature(r)?,
            R::ProducerIds(r) => self.set_producer_ids(r)?,
            R::ClientQuota(r) => self.set_quota(r),
            R::AccessControlEntry(r) => {
                self.acls.insert(r.id, Arc::new(r.clone()));
            }
            R::RemoveAccessControlEntry(r) => {
                self.acls.remove(&r.id);
            }
            R::UserScramCredential(r) => {
                self.scram
                    .insert((r.name.detached(), r.mechanism), Arc::new(r.clone()));
            }
            R::RemoveUserScramCredential(r) => {
                self.scram.remove(&(r.name.clone(), r.mechanism));
            }
            R::DelegationToken(r) => {
                self.tokens.insert(r.token_id.detached(), Arc::new(r.clone()));
            }
            R::RemoveDelegationToken(r) => {
                self.tokens.remove(r.token_id.as_str());
            }
            // ZooKeeper's records have no effect; transaction records are handled by the caller.
            R::NoOp(_)
            | R::ZkMigrationState(_)
            | R::BeginTransaction(_)
            | R::EndTransaction(_)
            | R::AbortTransaction(_) => {}
        }
        Ok(())
    }

    fn register_broker(&mut self, r: &RegisterBrokerRecord) {
        let endpoint = |e: &brokkr_wire::messages::register_broker_record::BrokerEndpoint| Endpoint {
            listener: e.name.detached(),
            host: e.host.detached(),
            port: e.port,
            security_protocol: e.security_protocol,
        };
        let feature = |f: &brokkr_wire::messages::register_broker_record::BrokerFeature| SupportedFeature {
            name: f.name.detached(),
            min: f.min_supported_version,
            max: f.max_supported_version,
        };
        let broker = BrokerImage {
            id: r.broker_id,
            epoch: r.broker_epoch,
            incarnation_id: r.incarnation_id,
            endpoints: r.end_points.iter().map(endpoint).collect(),
            features: r.features.iter().map(feature).collect(),
            rack: r.rack.as_ref().map(Str::detached),
            fenced: r.fenced,
            in_controlled_shutdown: r.in_controlled_shutdown,
            directories: r.log_dirs.clone(),
            cordoned_directories: r.cordoned_log_dirs.clone(),
        };
        self.brokers.insert(r.broker_id, Arc::new(broker));
    }

    fn registered(&mut self, id: i32, epoch: i64) -> Result<&mut BrokerImage, ReplayError> {
        let broker = self.brokers.get_mut(&id).ok_or(ReplayError::UnknownBroker(id))?;
        if broker.epoch != epoch {
            return Err(ReplayError::BrokerEpoch {
                broker: id,
                record: epoch,
                registered: broker.epoch,
            });
        }
        Ok(Arc::make_mut(broker))
    }

    fn change_registration(&mut self, r: &BrokerRegistrationChangeRecord) -> Result<(), ReplayError> {
        let broker = self.registered(r.broker_id, r.broker_epoch)?;
        match r.fenced {
            0 => {}
            1 => broker.fenced = true,
            -1 => broker.fenced = false,
            other => {
                return Err(ReplayError::BadValue {
                    field: "BrokerRegistrationChangeRecord.fenced",
                    value: other.into(),
                });
            }
        }
        match r.in_controlled_shutdown {
            0 => {}
            1 => broker.in_controlled_shutdown = true,
            other => {
                return Err(ReplayError::BadValue {
                    field: "BrokerRegistrationChangeRecord.in_controlled_shutdown",
                    value: other.into(),
                });
            }
        }
        if !r.log_dirs.is_empty() {
            broker.directories.clone_from(&r.log_dirs);
        }
        if r.cordoned_log_dirs.is_some() {
            broker.cordoned_directories.clone_from(&r.cordoned_log_dirs);
        }
        Ok(())
    }

    fn put_partition(&mut self, r: &PartitionRecord) -> Result<(), ReplayError> {
        let topic = self.topics.get_mut(r.topic_id)?;
        let partition = Arc::new(PartitionImage::new(r)?);
        let out_of_order = ReplayError::PartitionOrder(r.topic_id, r.partition_id);
        match usize::try_from(r.partition_id) {
            Ok(i) if i == topic.partitions.len() => topic.partitions.push(partition),
            Ok(i) if i < topic.partitions.len() => topic.partitions[i] = partition,
            _ => return Err(out_of_order),
        }
        Ok(())
    }

    fn change_partition(&mut self, r: &PartitionChangeRecord) -> Result<(), ReplayError> {
        let topic = self.topics.get_mut(r.topic_id)?;
        let partition = usize::try_from(r.partition_id)
            .ok()
            .and_then(|i| topic.partitions.get_mut(i))
            .ok_or(ReplayError::UnknownPartition(r.topic_id, r.partition_id))?;
        *partition = Arc::new(partition.changed(r)?);
        Ok(())
    }

    fn clear_elr(&mut self, id: Uuid) -> Result<(), ReplayError> {
        for partition in &mut self.topics.get_mut(id)?.partitions {
            if !partition.elr.is_empty() || !partition.last_known_elr.is_empty() {
                let cleared = PartitionChangeRecord {
                    eligible_leader_replicas: Some(Vec::new()),
                    last_known_elr: Some(Vec::new()),
                    ..PartitionChangeRecord::default()
                };
                *partition = Arc::new(partition.changed(&cleared)?);
            }
        }
        Ok(())
    }

    fn configure(&mut self, r: &ConfigRecord) {
        let resource = ConfigResource {
            kind: r.resource_type,
            name: r.resource_name.detached(),
        };
        let of_any_name = resource.is_of_any_name();
        let bytes = |image: &Self| match image.configs(&resource) {
            Some(configs) if of_any_name => resource.bytes(configs),
            _ => 0,
        };
        self.of_any_name_bytes -= bytes(self);
        match &r.value {
            Some(value) => {
                self.configs
                    .entry(resource.clone())
                    .or_default()
                    .insert(r.name.detached(), value.detached());
            }
            None => {
                if let Some(configs) = self.configs.get_mut(&resource) {
                    configs.remove(r.name.as_str());
                    if configs.is_empty() {
                        self.configs.remove(&resource);
                    }
                }
            }
        }
        self.of_any_name_bytes += bytes(self);
    }

    fn set_feature(&mut self, r: &FeatureLevelRecord) -> Result<(), ReplayError> {
        if r.name == *METADATA_VERSION && !METADATA_VERSIONS.contains(&r.feature_level) {
            return Err(ReplayError::MetadataVersion(r.feature_level));
        }
        if r.feature_level == 0 {
            self.features.remove(r.name.as_str());
        } else {
            self.features.insert(r.name.detached(), r.feature_level);
        }
        Ok(())
    }

    fn set_producer_ids(&mut self, r: &ProducerIdsRecord) -> Result<(), ReplayError> {
        if let Some(before) = &self.producer_ids
            && r.next_producer_id <= before.next_producer_id
        {
            return Err(ReplayError::ProducerIds {
                record: r.next_producer_id,
                before: before.next_producer_id,
            });
        }
        self.producer_ids = Some(r.clone());
        Ok(())
    }

    fn set_quota(&mut self, r: &ClientQuotaRecord) {
        let mut entity: Vec<_> = r
            .entity
            .iter()
            .map(|e| {
                (
                    e.entity_type.detached(),
                    e.entity_name.as_ref().map(Str::detached),
                )
            })
            .collect();
        entity.sort();
        let key: QuotaKey = (entity, r.key.detached());
        if r.remove {
            self.quotas.remove(&key);
        } else {
            self.quotas.insert(key, Arc::new(r.clone()));
        }
    }
}

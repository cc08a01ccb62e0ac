//! Encoding an image as the records of a snapshot.

use brokkr_wire::messages::{
    ConfigRecord, FeatureLevelRecord, MetadataRecord, ProducerIdsRecord, RegisterBrokerRecord, TopicRecord,
    register_broker_record::{BrokerEndpoint, BrokerFeature},
};

use super::{BrokerImage, Image, METADATA_VERSION};

/// The version of a record at a level of `metadata.version`.
pub fn record_version(record: &MetadataRecord, metadata_version: i16) -> i16 {
    let from = |levels: &[i16]| levels.iter().filter(|level| metadata_version >= **level).count() as i16;
    match record {
        // ZooKeeper migration (3.4), directories (3.7-IV2), cordoned ones (4.3): one more field each.
        MetadataRecord::RegisterBroker(_) => 1 + from(&[8, 17, 30]),
        MetadataRecord::BrokerRegistrationChange(_) => 1 + from(&[17, 30]),
        // Directories (3.7-IV2), eligible leader replicas (4.0-IV1).
        MetadataRecord::Partition(_) | MetadataRecord::PartitionChange(_) => from(&[17, 23]),
        _ => 0,
    }
}

impl BrokerImage {
    fn to_record(&self) -> RegisterBrokerRecord {
        RegisterBrokerRecord {
            broker_id: self.id,
            incarnation_id: self.incarnation_id,
            broker_epoch: self.epoch,
            end_points: self
                .endpoints
                .iter()
                .map(|e| BrokerEndpoint {
                    name: e.listener.clone(),
                    host: e.host.clone(),
                    port: e.port,
                    security_protocol: e.security_protocol,
                    ..BrokerEndpoint::default()
                })
                .collect(),
            features: self
                .features
                .iter()
                .map(|f| BrokerFeature {
                    name: f.name.clone(),
                    min_supported_version: f.min,
                    max_supported_version: f.max,
                    ..BrokerFeature::default()
                })
                .collect(),
            rack: self.rack.clone(),
            fenced: self.fenced,
            in_controlled_shutdown: self.in_controlled_shutdown,
            log_dirs: self.directories.clone(),
            cordoned_log_dirs: self.cordoned_directories.clone(),
            ..RegisterBrokerRecord::default()
        }
    }
}

impl Image {
    /// Records whose replay on the empty image yields this image. `metadata.version` comes first, because it determines the
    /// versions of the others; no record refers to a later one.
    pub fn to_records(&self) -> Vec<MetadataRecord> {
        let mut out: Vec<MetadataRecord> = Vec::new();
        let level = |name: &brokkr_wire::Str, level: i16| {
            MetadataRecord::from(FeatureLevelRecord {
                name: name.clone(),
                feature_level: level,
                ..FeatureLevelRecord::default()
            })
        };
        let of_metadata = |(name, _): &(&brokkr_wire::Str, i16)| **name == *METADATA_VERSION;
        out.extend(self.features().filter(of_metadata).map(|(n, l)| level(n, l)));
        out.extend(
            self.features()
                .filter(|f| !of_metadata(f))
                .map(|(n, l)| level(n, l)),
        );
        out.extend(self.brokers.values().map(|b| b.to_record().into()));
        out.extend(
            self.controllers
                .values()
                .map(|c| MetadataRecord::from((**c).clone())),
        );
        for topic in self.topics.iter() {
            out.push(
                TopicRecord {
                    name: topic.name.clone(),
                    topic_id: topic.id,
                    ..TopicRecord::default()
                }
                .into(),
            );
            out.extend(topic.partitions().map(|(i, p)| p.to_record(topic.id, i).into()));
        }
        self.push_configs(&mut out);
        out.extend(self.quotas.values().map(|q| MetadataRecord::from((**q).clone())));
        out.extend(
            self.producer_ids
                .clone()
                .map(|ids: ProducerIdsRecord| MetadataRecord::from(ids)),
        );
        out.extend(self.acls.values().map(|a| MetadataRecord::from((**a).clone())));
        out.extend(self.scram.values().map(|s| MetadataRecord::from((**s).clone())));
        out.extend(self.tokens.values().map(|t| MetadataRecord::from((**t).clone())));
        out
    }

    fn push_configs(&self, out: &mut Vec<MetadataRecord>) {
        for (resource, configs) in &self.configs {
            out.extend(configs.iter().map(|(name, value)| {
                MetadataRecord::from(ConfigRecord {
                    resource_type: resource.kind,
                    resource_name: resource.name.clone(),
                    name: name.clone(),
                    value: Some(value.clone()),
                    ..ConfigRecord::default()
                })
            }));
        }
    }
}

//! The first records of a new cluster.

use brokkr_wire::Str;
use brokkr_wire::messages::{
    BeginTransactionRecord, ConfigRecord, EndTransactionRecord, FeatureLevelRecord, MetadataRecord,
};

pub use crate::features::{
    KRAFT_VERSION, KRAFT_VERSIONS, METADATA_VERSION_LATEST, METADATA_VERSIONS, SUPPORTED_FEATURES,
};

use crate::features::METADATA_VERSION;
use crate::image::ConfigResource;

/// The first records of an empty log, as Kafka's controller writes them: in one metadata transaction, so that a partial
/// write has no effect.
pub fn bootstrap_records() -> Vec<MetadataRecord> {
    vec![
        BeginTransactionRecord {
            name: Some(Str::from_static("Bootstrap records")),
            ..BeginTransactionRecord::default()
        }
        .into(),
        FeatureLevelRecord {
            name: Str::from_static(METADATA_VERSION),
            feature_level: METADATA_VERSION_LATEST,
            ..FeatureLevelRecord::default()
        }
        .into(),
        // As Kafka's formatting does, for all brokers.
        ConfigRecord {
            resource_type: ConfigResource::cluster().kind,
            resource_name: ConfigResource::cluster().name,
            name: Str::from_static("min.insync.replicas"),
            value: Some(Str::from_static("1")),
            ..ConfigRecord::default()
        }
        .into(),
        EndTransactionRecord::default().into(),
    ]
}

//! The first records of a new cluster.

use std::ops::RangeInclusive;

use brokkr_wire::Str;
use brokkr_wire::messages::{
    BeginTransactionRecord, ConfigRecord, EndTransactionRecord, FeatureLevelRecord, MetadataRecord,
};

use crate::image::{ConfigResource, METADATA_VERSION};

/// The supported levels of `metadata.version`: 3.3-IV3 to 4.3-IV0.
pub const METADATA_VERSIONS: RangeInclusive<i16> = 7..=30;

/// The level of `metadata.version` of a new cluster: 4.3-IV0.
pub const METADATA_VERSION_LATEST: i16 = 30;

/// The level of `kraft.version` in a new cluster: voters are records (KIP-853).
pub const KRAFT_VERSION: i16 = 1;

/// The supported levels of `kraft.version`.
pub const KRAFT_VERSIONS: RangeInclusive<i16> = 0..=1;

/// The features of a broker and its controller, with the levels that can be finalized.
pub const SUPPORTED_FEATURES: &[(&str, i16, i16)] = &[
    ("kraft.version", *KRAFT_VERSIONS.start(), *KRAFT_VERSIONS.end()),
    (
        METADATA_VERSION,
        *METADATA_VERSIONS.start(),
        *METADATA_VERSIONS.end(),
    ),
];

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

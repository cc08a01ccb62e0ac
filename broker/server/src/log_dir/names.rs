//! The names of the folders of logs.

use brokkr_metadata::topic_name::INTERNAL_TOPICS;

/// The folder of the metadata log.
pub const METADATA_FOLDER: &str = "__cluster_metadata-0";

/// The name of a partition's folder in its log directory.
pub fn partition_folder(topic: &str, partition: i32) -> String {
    format!("{topic}-{partition}")
}

/// Whether this broker leaves the logs of a topic untouched: those of Kafka's coordinators, which it does not have.
pub fn is_unmanaged_topic(topic: &str) -> bool {
    INTERNAL_TOPICS.contains(&topic)
}

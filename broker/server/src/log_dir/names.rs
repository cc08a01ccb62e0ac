//! The names of logs' folders.

use brokkr_metadata::topic_name::INTERNAL_TOPICS;

/// The folder of the metadata log.
pub const METADATA_FOLDER: &str = "__cluster_metadata-0";

/// The folder of a partition in the log directory.
pub fn partition_folder(topic: &str, partition: i32) -> String {
    format!("{topic}-{partition}")
}

/// Whether the logs of a topic are left as they are: those of Kafka's coordinators, which this broker doesn't have.
pub fn is_unmanaged_topic(topic: &str) -> bool {
    INTERNAL_TOPICS.contains(&topic)
}

//! The identity of a log directory, and of the broker.

use std::sync::Arc;

use brokkr_types::Uuid;

/// The identity of a log directory or of a running broker.
#[derive(Clone, Debug)]
pub struct Identity {
    /// `node.id`.
    pub node_id: i32,
    /// `cluster.id` of `meta.properties`.
    pub cluster_id: Arc<str>,
    /// `directory.id` of `meta.properties`. For a broker, that of the metadata log's directory.
    pub directory_id: Uuid,
}

//! Which broker's a log directory is.

use std::sync::Arc;

use brokkr_types::Uuid;

/// What a broker is, for as long as it runs.
#[derive(Clone, Debug)]
pub struct Identity {
    /// `node.id`.
    pub node_id: i32,
    /// `cluster.id` of `meta.properties`.
    pub cluster_id: Arc<str>,
    /// `directory.id` of `meta.properties`: where it is a broker's, that of the metadata log.
    pub directory_id: Uuid,
}

//! What every handler can reach.

use std::net::SocketAddr;
use std::sync::Arc;

use brokkr_types::Uuid;

/// Who asks.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Where the connection comes from.
    pub addr: SocketAddr,
    /// The name of the listener it came in by (`PLAINTEXT`).
    pub listener: Arc<str>,
}

/// What a broker is, for as long as it runs.
#[derive(Clone, Debug)]
pub struct Identity {
    /// `node.id`.
    pub node_id: i32,
    /// `cluster.id` of `meta.properties`.
    pub cluster_id: Arc<str>,
    /// `directory.id` of `meta.properties`.
    pub directory_id: Uuid,
}

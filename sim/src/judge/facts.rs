//! What the judges know of a run besides the clients' history.

use std::collections::BTreeMap;

use brokkr_history::Process;

use super::deleted::Deleted;
use super::inspector::InspectorFacts;

/// The folder of the broker's metadata.
pub(super) const METADATA: &str = "__cluster_metadata-0";

/// What the judge knows of a run besides the clients' history.
#[derive(Clone, Debug, Default)]
pub struct RunFacts {
    /// The process of the last reader.
    pub last: Process,
    /// Whether the broker expires producers.
    pub forgets: bool,
    /// Records that may be gone.
    pub deleted: Deleted,
    /// After so many requests on its connection a fetch need not wait; `None`: it never need.
    pub followed_max: Option<u64>,
    /// Bytes of each direction of a connection.
    pub buffer_bytes: u64,
    /// Since when all faults have ended and the broker serves, in nanoseconds.
    pub calm_since: i64,
    /// By how much the broker's clock may drift.
    pub drift_ppm: u64,
    /// For the judge of the inspector.
    pub inspector: InspectorFacts,
    /// How many process numbers are between two lives of a consumer.
    pub life: u64,
    /// The ids of the topics at the end, by name.
    pub topics: BTreeMap<String, String>,
}

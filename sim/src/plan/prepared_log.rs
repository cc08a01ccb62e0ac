//! A log that is not empty when the run begins.

use brokkr_workloads::{TopicSpec, Workload};
use serde::{Deserialize, Serialize};

use crate::retention::is_retained;

/// A log that is not empty when the run begins.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PreparedLog {
    /// Its topic.
    pub topic: String,
    /// Its partition.
    pub partition: i32,
    /// Its start and end offset: all earlier records were deleted.
    pub next_offset: i64,
    /// Whether the deleted records are in the active segment, emptied by compaction: that segment's base is 0 then, and its offsets
    /// end at 2^31 - 1.
    #[serde(default)]
    pub compacted: bool,
}

/// Whether the logs of a topic may be prepared: not if it is deleted, or its records are counted.
pub(super) fn can_be_prepared(topic: &TopicSpec, workload: &Workload) -> bool {
    let recreated = workload.recreator.iter().flat_map(|r| &r.topics);
    !is_retained(topic) && recreated.into_iter().all(|name| *name != topic.name)
}

//! Which segments retention deletes: by age, by size, and below the log start offset.

use std::sync::Arc;

use brokkr_types::{Offset, UnixMillis};

use crate::state::config::LogConfig;
use crate::state::segment::{Segment, SegmentSummary};

/// The segments that retention deletes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Expired {
    /// How many sealed segments, from the oldest.
    pub(crate) sealed: usize,
    /// Whether the active segment is expired too; it is deleted after it is rolled.
    pub(crate) active: bool,
}

/// The expired segments of a log at the wall-clock time `wall`; `sealed` is in offset order. A segment with a record
/// at or past the high watermark never expires.
pub(crate) fn expired(
    config: &LogConfig,
    sealed: &[Arc<Segment>],
    active: &SegmentSummary,
    (log_start, high_watermark): (Offset, Offset),
    wall: UnixMillis,
) -> Expired {
    let size_bytes = sealed.iter().map(|s| s.summary.size).sum::<u64>() + active.size;
    let mut over = match u64::try_from(config.retention_bytes) {
        Ok(most) if config.cleanup_delete => size_bytes.saturating_sub(most),
        _ => 0,
    };
    let mut is_due = |summary: &SegmentSummary, is_sealed: bool| {
        let below_start = is_sealed && summary.next <= log_start;
        let too_old = config.cleanup_delete
            && config.retention_ms >= 0
            && wall.0.saturating_sub(summary.largest_timestamp().0) > config.retention_ms;
        let too_much = over > 0 && over >= summary.size;
        if summary.next > high_watermark || !(below_start || too_old || too_much) {
            return false;
        }
        over = over.saturating_sub(summary.size);
        true
    };
    let count = sealed.iter().take_while(|s| is_due(&s.summary, true)).count();
    let active = count == sealed.len() && active.size > 0 && is_due(active, false);
    Expired {
        sealed: count,
        active,
    }
}

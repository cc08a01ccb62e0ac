//! Rolling: the active segment is sealed and the next one begins.
//!
//! The order on disk, each step durable before the next:
//! 1. the old segment is synced, BEFORE anything in the new one may be acknowledged (D1);
//! 2. the new `.log` is created (its directory entry becomes durable with its first sync); batches are written to it
//!    from now on;
//! 3. in the background: the rest of the indexes, the new index files, the producer snapshot and the leader epochs;
//! 4. the manifest lists the sealed segment. Until then recovery scans it.

use std::sync::Arc;

use brokkr_env::{Env, File, Result};
use brokkr_types::{Offset, UnixMillis};

use crate::files::folder::create_fresh;
use crate::files::shared::LogShared;
use crate::formats::{names, snapshot};
use crate::log::Log;
use crate::log::pipeline::RollResult;
use crate::log::staged::{RollPlan, SealPlan, WriteGroup};
use crate::reader::view::Boundary;
use crate::state::segment::{Segment, SegmentBuilder, SegmentSummary};

impl<E: Env> Log<E> {
    /// Stages a roll to a new segment at `base`.
    pub(crate) fn stage_roll(&mut self, base: Offset, wall: UnixMillis) {
        assert!(
            base > self.builder.summary.base,
            "a segment is named by its first offset, and no two by the same"
        );
        let builder = SegmentBuilder::new(base, wall, self.jitter_ms());
        let plan = RollPlan {
            base,
            created: wall,
            last_time: self.builder.time_entry(),
            snapshot: snapshot::encode(base, &self.producers),
            builder,
        };
        self.builder = builder;
        self.pipeline
            .groups
            .push_back(WriteGroup::new(self.builder.summary, Some(Box::new(plan))));
    }

    /// The new segment becomes the active one.
    pub(crate) fn on_rolled(&mut self, rolled: RollResult<E>, plan: RollPlan) {
        let end = self.active.summary.next;
        let summary = self.active.summary;
        self.on_durable(&rolled.old, end, summary.size);
        self.active.extend(summary, &[], plan.last_time.as_slice());
        let fresh = Segment::new(SegmentSummary::new(plan.base, plan.created));
        let old = Arc::new(std::mem::replace(&mut self.active, fresh));
        // BEFORE readers see the segment among the sealed ones: a file is opened only once.
        self.shared
            .dir
            .files
            .insert(std::mem::replace(&mut self.file, rolled.file));
        Arc::make_mut(&mut self.sealed).push(Arc::clone(&old));
        self.background.seal = Some(SealPlan {
            segment: old,
            next_base: plan.base,
            snapshot: plan.snapshot,
        });
        self.keep_undo_within(&plan.builder);
        self.recent.clear();
        self.recent.push_back(Boundary {
            offset: plan.base,
            position: 0,
        });
        self.view = None;
    }
}

/// Steps 1 and 2 of a roll.
pub(crate) async fn roll<E: Env>(
    shared: Arc<LogShared<E>>,
    old: File<E>,
    base: Offset,
) -> Result<RollResult<E>> {
    let synced = old.sync();
    let path = names::path(&shared.folder, base, names::LOG);
    let created = create_fresh(&shared, &path).await;
    // BEFORE the other result is checked: the result of a sync must never be dropped.
    let old = synced.await?;
    Ok(RollResult { old, file: created? })
}

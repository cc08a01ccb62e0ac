//! The parts that a log is assembled from, and its first, empty segment.

use std::sync::Arc;

use brokkr_env::{Durable, Env, File, Rng};
use brokkr_types::Offset;

use crate::error::LogError;
use crate::files::folder::create_fresh;
use crate::files::index_files::make_indexes;
use crate::files::shared::LogShared;
use crate::formats::names;
use crate::state::config::LogConfig;
use crate::state::segment::{Segment, SegmentBuilder, SegmentSummary, Segments};

/// The parts of an opened or created log.
pub(crate) struct LogParts<E: Env> {
    pub(crate) sealed: Segments,
    pub(crate) active: Segment,
    pub(crate) file: File<E>,
    pub(crate) builder: SegmentBuilder,
    pub(crate) log_start: Offset,
    /// The proof that all of it is durable; `None` after a clean stop, whose marker is the proof.
    pub(crate) proof: Option<Durable>,
    /// From this offset on batches may have leader epochs that the checkpoint lacks.
    pub(crate) scanned_from: Offset,
}

/// Creates a first, empty segment at `base`. Durable when this returns.
pub(crate) async fn create_first_segment<E: Env>(
    shared: &Arc<LogShared<E>>,
    config: &LogConfig,
    base: Offset,
) -> Result<LogParts<E>, LogError> {
    let path = names::path(&shared.folder, base, names::LOG);
    let file = create_fresh(shared, &path).await?;
    let proof = file.sync().await?;
    make_indexes(shared, base).await?;
    Ok(first_segment(shared, config, base, file, proof))
}

/// The parts of a log whose only segment, `file`, is empty.
pub(crate) fn first_segment<E: Env>(
    shared: &LogShared<E>,
    config: &LogConfig,
    base: Offset,
    file: File<E>,
    proof: Durable,
) -> LogParts<E> {
    let created = shared.dir.env.wall();
    let builder = SegmentBuilder::new(base, created, draw_jitter(&shared.dir.env.rng("log"), config));
    LogParts {
        sealed: Segments::default(),
        active: Segment::new(SegmentSummary::new(base, created)),
        file,
        builder,
        log_start: base,
        proof: Some(proof),
        scanned_from: base,
    }
}

pub(crate) fn draw_jitter(rng: &Rng, config: &LogConfig) -> i64 {
    let most = config.segment_jitter_ms.min(config.segment_ms);
    u64::try_from(most).map_or(0, |most| if most == 0 { 0 } else { rng.below(most) as i64 })
}

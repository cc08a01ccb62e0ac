//! The parts that a log is assembled from, and its first, empty segment.

use std::sync::Arc;

use brokkr_env::{Durable, Env, File, Rng};
use brokkr_types::Offset;

use crate::error::LogError;
use crate::files::folder::create_fresh;
use crate::files::index_files::make_indexes;
use crate::files::shared::Shared;
use crate::formats::names;
use crate::state::config::LogConfig;
use crate::state::segment::{Head, Segment, Segments, Tip};

/// The parts of a log that was opened.
pub(crate) struct Parts<E: Env> {
    pub(crate) sealed: Segments,
    pub(crate) active: Segment,
    pub(crate) file: File<E>,
    pub(crate) tip: Tip,
    pub(crate) log_start: Offset,
    /// The proof that all of it is durable; without one a clean stop vouches.
    pub(crate) proof: Option<Durable>,
    /// From where on the batches may be of leader epochs that the checkpoint doesn't know.
    pub(crate) scanned_from: Offset,
}

/// A first, empty segment at `base`, durable.
pub(crate) async fn begin_at<E: Env>(
    shared: &Arc<Shared<E>>,
    config: &LogConfig,
    base: Offset,
) -> Result<Parts<E>, LogError> {
    let path = names::path(&shared.folder, base, names::LOG);
    let file = create_fresh(shared, &path).await?;
    let proof = file.sync().await?;
    make_indexes(shared, base).await?;
    Ok(begun_at(shared, config, base, file, proof))
}

/// The parts of a log whose first, empty segment is `file`.
pub(crate) fn begun_at<E: Env>(
    shared: &Shared<E>,
    config: &LogConfig,
    base: Offset,
    file: File<E>,
    proof: Durable,
) -> Parts<E> {
    let created = shared.dir.env.wall();
    let tip = Tip::new(base, created, draw_jitter(&shared.dir.env.rng("log"), config));
    Parts {
        sealed: Segments::default(),
        active: Segment::new(Head::new(base, created)),
        file,
        tip,
        log_start: base,
        proof: Some(proof),
        scanned_from: base,
    }
}

pub(crate) fn draw_jitter(rng: &Rng, config: &LogConfig) -> i64 {
    let most = config.segment_jitter_ms.min(config.segment_ms);
    u64::try_from(most).map_or(0, |most| if most == 0 { 0 } else { rng.below(most) as i64 })
}

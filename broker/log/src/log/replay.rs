//! State that a start reads from the batches: producers and leader epochs.

use std::collections::BTreeSet;

use brokkr_env::{Env, File};
use brokkr_types::Offset;
use brokkr_wire::records::{Batch, BatchHeader};

use crate::error::{Damage, LogError};
use crate::files::folder::{FolderListing, remove_snapshot, write_snapshot};
use crate::files::scan::BatchScan;
use crate::formats::snapshot::DecodedSnapshot;
use crate::formats::{names, snapshot};
use crate::log::Log;
use crate::log::recovery::Recovery;
use crate::state::batch_chain::BatchChain;
use crate::state::control::{BatchKind, batch_kind};
use crate::state::epochs::LeaderEpochs;
use crate::state::producers::Producers;
use crate::state::segment::{SegmentSummary, covering};

/// The largest snapshot or window file that is read.
const SNAPSHOT_BYTES_MAX: u32 = 1 << 30;

/// Builds the producers' state from the latest snapshot with complete windows and the batches after it.
pub(crate) async fn load_producers<E: Env>(
    log: &mut Log<E>,
    listing: &FolderListing,
    recovery: &mut Recovery,
) -> Result<(), LogError> {
    let end = log.written_end();
    let mut partial: Option<Producers> = None;
    let mut from = log
        .sealed
        .first()
        .map_or(log.active.summary.base, |s| s.summary.base);
    let mut newest = None;
    for &offset in listing.snapshots.iter().rev().filter(|offset| **offset <= end) {
        let is_base =
            log.active.summary.base == offset || log.sealed.iter().any(|s| s.summary.base == offset);
        if newest.is_some() && !is_base {
            remove_snapshot(&log.shared, offset).await?;
            continue;
        }
        let Some(DecodedSnapshot { producers, whole }) = read_snapshot(log, offset, listing).await? else {
            tracing::error!(log = log.folder(), %offset, "producer snapshot damaged; removed");
            remove_snapshot(&log.shared, offset).await?;
            continue;
        };
        if newest.is_none() && !is_base {
            log.clean_stop_snapshot = Some(offset);
        }
        newest = newest.or(Some(offset));
        if whole {
            (log.producers, from) = (producers, offset);
            brokkr_types::reached!("producers loaded from a snapshot");
            break;
        }
        // Kafka's snapshot, or one without its window: used for producers without batches in the log.
        partial = partial.or(Some(producers));
    }
    let known = partial.is_none().then_some(&listing.snapshots);
    replay_producers(log, from, known, recovery).await?;
    for (id, producer) in partial.iter().flat_map(Producers::iter) {
        log.producers.load(id, producer.clone());
    }
    Ok(())
}

async fn read_snapshot<E: Env>(
    log: &Log<E>,
    offset: Offset,
    listing: &FolderListing,
) -> Result<Option<DecodedSnapshot>, LogError> {
    let dir = &log.shared.dir.dir;
    let path = |suffix| names::path(log.folder(), offset, suffix);
    let bytes = dir.read(&path(names::SNAPSHOT), SNAPSHOT_BYTES_MAX).await?;
    let has_window = listing
        .names
        .contains(&format!("{:020}.{}", offset.0, names::WINDOW));
    let window = match has_window {
        true => Some(dir.read(&path(names::WINDOW), SNAPSHOT_BYTES_MAX).await?),
        false => None,
    };
    Ok(snapshot::decode(
        &bytes,
        window.as_deref(),
        log.shared.dir.env.now(),
    ))
}

/// Applies the batches from `from` on to the producers. Writes a snapshot at each segment whose base offset has none
/// in `known`: retention may remove the batches before it.
pub(crate) async fn replay_producers<E: Env>(
    log: &mut Log<E>,
    from: Offset,
    known: Option<&BTreeSet<Offset>>,
    recovery: &mut Recovery,
) -> Result<(), LogError> {
    let now = log.shared.dir.env.now();
    for summary in summaries_from(log, from) {
        if summary.base > from && known.is_some_and(|known| !known.contains(&summary.base)) {
            write_snapshot(&log.shared, &snapshot::encode(summary.base, &log.producers)).await?;
        }
        let file = file_of(log, &summary).await?;
        let mut batches = BatchScan::new(&file, 0, summary.size);
        let mut chain = BatchChain::of_segment(summary.base);
        while let Some(batch) = batches.next(&mut chain).await? {
            let header = &batch.header;
            if header.base_offset < from || !header.has_producer_id() {
                continue;
            }
            recovery.replayed_batches += 1;
            let position = batches.position() - batch.bytes.len() as u64;
            match batch_kind(&batch).map_err(|e| damaged(&file, position, header, e.to_string()))? {
                BatchKind::Data => drop(log.producers.apply(header, None, now)),
                BatchKind::EndTxn(marker) => drop(log.producers.apply(header, Some(marker), now)),
                BatchKind::Other => {}
            }
        }
    }
    Ok(())
}

fn damaged<E: Env>(file: &File<E>, position: u64, header: &BatchHeader, what: String) -> LogError {
    LogError::Damaged(Damage {
        file: file.path().to_owned(),
        position,
        offset: header.base_offset,
        what,
    })
}

/// Adds the leader epochs of the batches from `from` on.
pub(crate) async fn add_epochs<E: Env>(
    log: &Log<E>,
    epochs: &mut LeaderEpochs,
    from: Offset,
) -> Result<(), LogError> {
    for summary in summaries_from(log, from) {
        let file = file_of(log, &summary).await?;
        let mut batches = BatchScan::new(&file, 0, summary.size);
        let mut chain = BatchChain::of_segment(summary.base);
        while let Some(Batch { header, .. }) = batches.next(&mut chain).await? {
            if header.next_offset() > from {
                let base = header.base_offset.max(log.log_start);
                epochs.observe(header.partition_leader_epoch, base, header.last_offset());
            }
        }
    }
    Ok(())
}

/// The segments with offsets at `from` or past it.
fn summaries_from<E: Env>(log: &Log<E>, from: Offset) -> Vec<SegmentSummary> {
    let first = covering(&log.sealed, from).unwrap_or(0);
    let sealed = log
        .sealed
        .get(first..)
        .unwrap_or_default()
        .iter()
        .map(|s| s.summary);
    sealed
        .chain([log.active.summary])
        .filter(|h| h.next > from)
        .collect()
}

async fn file_of<E: Env>(log: &Log<E>, summary: &SegmentSummary) -> Result<File<E>, LogError> {
    if summary.base == log.active.summary.base {
        return Ok(log.file.clone());
    }
    Ok(log
        .shared
        .dir
        .files
        .open(&names::path(log.folder(), summary.base, names::LOG))
        .await?)
}

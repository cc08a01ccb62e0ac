//! Recovery after a crash: which batches are kept, which are cut, and what is damage (D1, D2).
//!
//! ```text
//!  listed in the manifest      │ not listed: the active segment, and segments rolled since
//!  ────────────────────────────┼──────────────────── recovery point ────────────────────────────── end of file
//!  there and long enough,      │ every batch valid,     every batch: complete, next in offset and epoch, CRC.
//!  or damage                   │ or damage              The first invalid one ends the log: the tail is cut and counted.
//!                              │                        Kept batches are rewritten and synced
//! ```
//! - Nothing below the recorded recovery point is ever cut: it was durable. An invalid batch there is damage, and the
//!   partition stays offline until it is repaired from another replica. Above it a damaged durable batch can't be
//!   distinguished from one that was never synced (Alagappan et al., protocol-aware recovery), and the log ends
//!   there.
//! - After a failed fsync, pages may be marked clean without being on disk. So the batches kept above the recovery
//!   point are rewritten, the same bytes at the same position, BEFORE the sync that makes them durable.
//! - A recovery point that was recorded before a truncation does not apply to the bytes that were truncated. A
//!   truncation that the crash interrupted is finished first.
//! - Indexes of scanned segments are rebuilt; they were never synced.

use std::collections::BTreeSet;
use std::sync::Arc;

use brokkr_env::{Durable, Env, File};
use brokkr_types::{Offset, UnixMillis};
use brokkr_wire::records::Batch;
use bytes::Bytes;

use crate::error::{Damage, LogError};
use crate::files::checkpoint::CHECKPOINT;
use crate::files::folder::{FolderListing, remove_if_there, remove_snapshot, replace};
use crate::files::index_files::check_indexes;
use crate::files::scan::{BatchScan, SCAN_BYTES, ScanError};
use crate::files::segment_scan::{ScannedSegment, rebuild_indexes, verify_first_batch};
use crate::files::shared::LogShared;
use crate::formats::manifest::{Manifest, PendingTruncation};
use crate::formats::names;
use crate::log::parts::{LogParts, create_first_segment, draw_jitter};
use crate::state::batch_chain::{BatchChain, OffsetGaps};
use crate::state::config::LogConfig;
use crate::state::log_checkpoint::LogCheckpoint;
use crate::state::segment::{Segment, SegmentBuilder, SegmentInfo, SegmentSummary};

/// The outcome of opening a log.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Recovery {
    /// Whether the stop was clean, so that nothing was scanned.
    pub clean: bool,
    /// Bytes above the recovery point that were kept and rewritten.
    pub kept_bytes: u64,
    /// Batches in these bytes.
    pub kept_batches: u64,
    /// Bytes that were cut from the tail.
    pub cut_bytes: u64,
    /// Segments above the cut that were set aside.
    pub cut_segments: u64,
    /// Where and why the log was cut.
    pub cut: Option<Damage>,
    /// Segments whose indexes were rebuilt.
    pub indexes_rebuilt: u64,
    /// Batches that were read again for producer state.
    pub replayed_batches: u64,
}

pub(crate) struct RecoveredLog<E: Env> {
    pub(crate) parts: LogParts<E>,
    pub(crate) recovery: Recovery,
}

struct Recoverer<'a, E: Env> {
    shared: &'a Arc<LogShared<E>>,
    config: &'a LogConfig,
    /// The recovery point: nothing below it is cut.
    point: Offset,
    /// Whether a batch ended at the recovery point when that was recorded, and the log is still the same below it.
    point_is_exact: bool,
    /// The end of an interrupted truncation.
    truncated_to: Option<Offset>,
    /// The end of the log so far.
    chain: BatchChain,
    /// Whether another broker closed the log cleanly: nothing is rewritten or cut, and every invalid batch is damage.
    closed: bool,
    /// The number of offsets that are missing without a known compaction, and the first of them.
    missing: Option<(i64, Offset)>,
    recovery: Recovery,
}

/// A segment that recovery has scanned.
struct RecoveredSegment<E: Env> {
    scanned: ScannedSegment,
    file: File<E>,
    proof: Durable,
    /// Whether the log may continue in the next segment.
    is_whole: bool,
}

/// Recovers a log after an unclean stop.
pub(crate) async fn recover<E: Env>(
    shared: &Arc<LogShared<E>>,
    config: &LogConfig,
    recorded: &LogCheckpoint,
    manifest: Option<&Manifest>,
    listing: &mut FolderListing,
) -> Result<RecoveredLog<E>, LogError> {
    let unlisted = manifest.is_none();
    // Closing the log made it durable up to there, even if the broker's stop was not clean.
    let closed_at = manifest
        .filter(|m| m.pending_truncation == PendingTruncation::None)
        .and_then(|m| Some(m.active?.summary.next));
    let manifest = &match manifest {
        Some(manifest) => manifest.clone(),
        None => manifest_without_file(shared, recorded, listing)?,
    };
    let first_base = manifest.first_base;
    let mut point = recorded.recovery_point.unwrap_or(first_base).max(first_base);
    if recorded.truncations < manifest.truncations {
        point = point.min(manifest.truncated_to.max(first_base));
    }
    let point = closed_at.map_or(point, |at| at.max(point));
    // Without a manifest a gap in a log of this broker may be a lost segment; in a log of Kafka's it may be
    // compaction.
    let gaps = match unlisted {
        false if manifest.gaps => OffsetGaps::WithinSegments,
        false => OffsetGaps::None,
        true if recorded.recovery_point.is_some() && !recorded.foreign => OffsetGaps::Refused,
        true => OffsetGaps::Allowed,
    };
    let mut recoverer = Recoverer {
        shared,
        config,
        point,
        point_is_exact: !unlisted && !recorded.foreign && recorded.truncations == manifest.truncations,
        truncated_to: (manifest.pending_truncation != PendingTruncation::None)
            .then_some(manifest.truncated_to),
        chain: BatchChain::new(
            manifest.sealed.last().map_or(first_base, |s| s.summary.next),
            gaps,
        ),
        closed: recorded.foreign && recorded.clean,
        missing: None,
        recovery: Recovery::default(),
    };
    if unlisted {
        recoverer.refuse_old_formats(listing).await?;
    }
    recoverer.remove_leftovers(manifest, listing).await?;
    // The log was closed, though the broker's stop was not clean.
    let closed = manifest.active.map(|s| (s.summary.base, s.summary.first_crc));
    recoverer.check_active(closed, names::MANIFEST, listing).await?;
    if recorded.truncations == manifest.truncations {
        recoverer
            .check_active(recorded.active, CHECKPOINT, listing)
            .await?;
    }
    let mut sealed = Vec::new();
    for info in &manifest.sealed {
        sealed.push(Arc::new(recoverer.check_sealed(info, listing).await?));
    }
    let scanned_from = recoverer.chain.next;
    // The batches of a compacted segment may end before that.
    recoverer.chain.next = recoverer.chain.next.max(manifest.unlisted_base);
    let mut parts = recoverer.scan_unlisted(&mut sealed, listing).await?;
    // The log start offset only increases between truncations. If it is lower in the manifest, an older manifest was
    // put back.
    let log_start = match recorded.truncations < manifest.truncations {
        true => manifest.log_start,
        false => recorded.log_start.max(manifest.log_start),
    };
    if log_start > parts.active.summary.next {
        parts = recoverer
            .restart_at(manifest, &mut sealed, &parts, log_start)
            .await?;
    }
    if let Some((count, first)) = recoverer
        .missing
        .filter(|_| recorded.foreign && !recorded.compacted)
    {
        let folder = &*shared.folder;
        if shared.dir.error_log.is_first_of("offsets are missing", folder) {
            tracing::warn!(folder, count, %first, "offsets are missing that no compaction is known to have taken");
        }
    }
    let end = parts.active.summary.next;
    parts.sealed = Arc::new(sealed);
    parts.log_start = log_start;
    parts.scanned_from = scanned_from.min(end);
    // A log whose removal was pending starts without producers, too (P10).
    let keep = if manifest.pending_truncation == PendingTruncation::All {
        Offset(-1)
    } else {
        end
    };
    for snapshot in listing.snapshots.split_off(&keep.plus(1)) {
        remove_snapshot(shared, snapshot).await?;
    }
    recoverer.remove_orphans(&parts, listing).await?;
    shared.dir.dir.sync_dir(&shared.folder).await?;
    Ok(RecoveredLog {
        parts,
        recovery: recoverer.recovery,
    })
}

/// A manifest for a log without one: the first file is the first segment, and all of it is scanned.
fn manifest_without_file<E: Env>(
    shared: &LogShared<E>,
    recorded: &LogCheckpoint,
    listing: &FolderListing,
) -> Result<Manifest, LogError> {
    let first_base = listing.logs.first().copied().unwrap_or(recorded.log_start);
    // Kafka records a log start offset only if it is not the base offset of the first segment.
    if recorded.recovery_point.is_some() && !recorded.foreign && first_base > recorded.log_start {
        return Err(LogError::Damaged(Damage {
            file: names::path(&shared.folder, recorded.log_start, names::LOG),
            position: 0,
            offset: recorded.log_start,
            what: "the segment that the log starts in is missing, and brokkr-manifest too".to_owned(),
        }));
    }
    Ok(Manifest {
        first_base,
        truncated_to: first_base,
        log_start: first_base,
        unlisted_base: first_base,
        ..Manifest::default()
    })
}

impl<E: Env> Recoverer<'_, E> {
    fn log_path(&self, base: Offset) -> String {
        names::path(&self.shared.folder, base, names::LOG)
    }

    /// Refuses a log that has messages of format 0 or 1, BEFORE anything in it is changed.
    async fn refuse_old_formats(&self, listing: &FolderListing) -> Result<(), LogError> {
        for base in &listing.logs {
            let file = self.shared.dir.dir.open(&self.log_path(*base)).await?;
            let mut batches = BatchScan::new(&file, 0, file.len());
            let mut chain = BatchChain::of_segment(*base);
            loop {
                match batches.next(&mut chain).await {
                    Ok(Some(_)) => {}
                    Ok(None) | Err(ScanError::Fault(_) | ScanError::Misplaced(_)) => break,
                    Err(ScanError::Io(e)) => return Err(e.into()),
                    Err(ScanError::OldFormat(Damage {
                        file, position, what, ..
                    })) => {
                        let what = format!(
                            "at byte {position}: {what}; convert the topic with Apache Kafka 3 first (a mirror, or a copy by a client)"
                        );
                        return Err(LogError::Malformed { file, what });
                    }
                }
            }
        }
        Ok(())
    }

    /// Removes segments that retention or a truncation had removed from the manifest.
    async fn remove_leftovers(
        &mut self,
        manifest: &Manifest,
        listing: &mut FolderListing,
    ) -> Result<(), LogError> {
        let cut = |base: &Offset| {
            self.truncated_to
                .is_some_and(|to| *base >= to && *base > manifest.first_base)
        };
        let leftover = |base: &&Offset| cut(base) || **base < manifest.first_base;
        for base in listing.logs.clone().iter().filter(leftover) {
            tracing::info!(folder = &*self.shared.folder, %base, "segment left over; removed");
            brokkr_types::reached!("recovery removed what retention had given up");
            listing.logs.remove(base);
            self.remove_segment(*base).await?;
        }
        let listed = |base: &Offset| manifest.sealed.iter().any(|s| s.summary.base == *base);
        let unknown = listing
            .logs
            .iter()
            .find(|base| **base < self.chain.next && !listed(base));
        match unknown {
            None => Ok(()),
            Some(base) => Err(LogError::Damaged(self.damage(
                *base,
                0,
                *base,
                "brokkr-manifest lists the segments around this one and not this one: one of both is another log's".to_owned(),
            ))),
        }
    }

    /// Removes files whose segment is missing: a crash may revert directory entries one by one.
    async fn remove_orphans(&self, parts: &LogParts<E>, listing: &mut FolderListing) -> Result<(), LogError> {
        let active = parts.active.summary.base;
        let has_log = |base: Offset| base == active || parts.sealed.iter().any(|s| s.summary.base == base);
        for name in &listing.names {
            let is_orphan = match names::parse(name) {
                Some((base, names::INDEX | names::TIME_INDEX | names::TXN_INDEX)) => !has_log(base),
                Some((offset, names::WINDOW)) => !listing.snapshots.contains(&offset),
                _ => false,
            };
            if is_orphan {
                brokkr_types::reached!("an index without its segment was removed");
                remove_if_there(self.shared, &format!("{}/{name}", self.shared.folder)).await?;
            }
        }
        // The latest snapshot is read, even below the first segment.
        let first = parts.sealed.first().map_or(active, |s| s.summary.base);
        let mut kept = listing.snapshots.split_off(&first);
        let mut old = std::mem::take(&mut listing.snapshots);
        if kept.is_empty() {
            kept.extend(old.pop_last());
        }
        listing.snapshots = kept;
        for snapshot in old {
            remove_snapshot(self.shared, snapshot).await?;
        }
        Ok(())
    }

    async fn remove_segment(&self, base: Offset) -> Result<(), LogError> {
        for suffix in [names::LOG, names::INDEX, names::TIME_INDEX, names::TXN_INDEX] {
            remove_if_there(self.shared, &names::path(&self.shared.folder, base, suffix)).await?;
        }
        Ok(())
    }

    /// The log ends before its start offset: the records removed below it were not durable. Their offsets were
    /// visible and must not be assigned again (L6), so the log is emptied and restarted at `log_start`.
    async fn restart_at(
        &self,
        manifest: &Manifest,
        sealed: &mut Vec<Arc<Segment>>,
        parts: &LogParts<E>,
        log_start: Offset,
    ) -> Result<LogParts<E>, LogError> {
        tracing::warn!(folder = &*self.shared.folder, %log_start, "the log ends before its start; begun anew there");
        brokkr_types::reached!("a log ended before its start");
        let restarted = Manifest {
            pending_truncation: PendingTruncation::All,
            truncated_to: log_start,
            first_base: log_start,
            unlisted_base: log_start,
            log_start,
            sealed: Vec::new(),
            ..manifest.clone()
        };
        replace(self.shared, names::MANIFEST, restarted.encode()).await?;
        let active = parts.active.summary.base;
        for base in sealed.drain(..).map(|s| s.summary.base).chain([active]) {
            self.remove_segment(base).await?;
        }
        create_first_segment(self.shared, self.config, log_start).await
    }

    fn damage(&self, base: Offset, position: u64, offset: Offset, what: String) -> Damage {
        Damage {
            file: self.log_path(base),
            position,
            offset,
            what,
        }
    }

    /// Checks that a sealed segment is there and long enough; rebuilds its indexes if they don't match.
    async fn check_sealed(
        &mut self,
        info: &SegmentInfo,
        listing: &FolderListing,
    ) -> Result<Segment, LogError> {
        let summary = &info.summary;
        let damage = |position, what: &str| {
            LogError::Damaged(self.damage(summary.base, position, summary.base, what.to_owned()))
        };
        if !listing.logs.contains(&summary.base) {
            return Err(damage(0, "the segment is missing"));
        }
        let file = self.shared.dir.files.open(&self.log_path(summary.base)).await?;
        if file.len() < summary.size {
            return Err(damage(file.len(), "the segment is shorter than it was"));
        }
        verify_first_batch(&file, summary, names::MANIFEST).await?;
        if check_indexes(self.shared, info).await?.is_some() {
            return Ok(Segment::sealed(*info));
        }
        self.recovery.indexes_rebuilt += 1;
        rebuild_indexes(self.shared, &file, info, self.config.index_interval_bytes).await
    }

    /// Checks that a segment, given by its base offset and the CRC of its first batch, is not of another log.
    async fn check_active(
        &self,
        active: Option<(Offset, u32)>,
        source: &str,
        listing: &FolderListing,
    ) -> Result<(), LogError> {
        let Some((base, first_crc)) = active.filter(|(base, _)| listing.logs.contains(base)) else {
            return Ok(());
        };
        let file = self.shared.dir.files.open(&self.log_path(base)).await?;
        let summary = SegmentSummary {
            size: file.len(),
            first_crc,
            ..SegmentSummary::new(base, UnixMillis::NONE)
        };
        verify_first_batch(&file, &summary, source).await
    }

    /// Scans the segments that the manifest doesn't list. The last one becomes the active segment.
    async fn scan_unlisted(
        &mut self,
        sealed: &mut Vec<Arc<Segment>>,
        listing: &mut FolderListing,
    ) -> Result<LogParts<E>, LogError> {
        let mut rest = listing.logs.split_off(&self.chain.next);
        let mut last: Option<RecoveredSegment<E>> = None;
        while let Some(base) = rest.first().copied() {
            let from = self.chain.next;
            if last.as_ref().is_some_and(|l| !l.is_whole) || !self.chain.enter(base) {
                break;
            }
            if last.is_some() {
                self.note_missing(from, base);
            }
            rest.pop_first();
            let segment = self.scan(base).await?;
            if let Some(mut before) = last.replace(segment) {
                self.shared.dir.files.insert(before.file);
                before.scanned.seal();
                sealed.push(Arc::new(before.scanned.write_indexes(self.shared).await?));
            }
        }
        self.check_reaches_point(last.as_ref())?;
        for base in rest {
            self.set_aside(base, &mut listing.names).await?;
        }
        let Some(last) = last else {
            return create_first_segment(self.shared, self.config, self.chain.next).await;
        };
        let start = Offset(0);
        Ok(LogParts {
            sealed: Arc::default(),
            active: last.scanned.write_indexes(self.shared).await?,
            file: last.file,
            builder: last.scanned.builder,
            log_start: start,
            proof: Some(last.proof),
            scanned_from: start,
        })
    }

    /// Counts the offsets between `from` and `to` as missing.
    fn note_missing(&mut self, from: Offset, to: Offset) {
        if to > from {
            let (so_far, first) = self.missing.unwrap_or((0, from));
            self.missing = Some((so_far + (to.0 - from.0), first));
        }
    }

    /// A log that ends before its recovery point has lost durable batches.
    fn check_reaches_point(&self, last: Option<&RecoveredSegment<E>>) -> Result<(), LogError> {
        let end = self.chain.next;
        if end >= self.point {
            return Ok(());
        }
        let what = format!("the log ends here; it was durable up to offset {}", self.point);
        let (base, position) = last.map_or((end, 0), |l| {
            let summary = &l.scanned.builder.summary;
            (summary.base, summary.size)
        });
        Err(LogError::Damaged(self.damage(base, position, end, what)))
    }

    /// Renames a segment that does not continue the log. A crash of this broker leaves none, as it begins a segment
    /// only once the one before is durable. So its records are kept for the operator.
    async fn set_aside(&mut self, base: Offset, names: &mut BTreeSet<String>) -> Result<(), LogError> {
        let path = self.log_path(base);
        if self.closed {
            let what = format!(
                "nothing leads here from offset {}, and the log was closed cleanly",
                self.chain.next
            );
            return Err(LogError::Damaged(self.damage(base, 0, base, what)));
        }
        let bytes = self.shared.dir.dir.open(&path).await?.len();
        if self.recovery.cut.is_none() {
            let what = format!("nothing leads here from offset {}", self.chain.next);
            self.recovery.cut = Some(self.damage(base, 0, base, what));
        }
        self.recovery.cut_bytes += bytes;
        self.recovery.cut_segments += 1;
        if bytes > 0 {
            let aside = (0..)
                .map(|n| format!("{:020}.{}.aside{n}", base.0, names::LOG))
                .find(|name| !names.contains(name))
                .expect("one of so many");
            tracing::warn!(path, bytes, aside, "segment above the end of the log; set aside");
            brokkr_types::reached!("recovery set a segment above the end aside");
            let to = format!("{}/{aside}", self.shared.folder);
            self.shared.dir.dir.rename(&path, &to).await?;
            names.insert(aside);
        }
        self.remove_segment(base).await
    }

    /// Scans one segment. An invalid batch below the recovery point is damage; above it the log is cut there. Kept
    /// batches are rewritten and synced.
    async fn scan(&mut self, base: Offset) -> Result<RecoveredSegment<E>, LogError> {
        let file = self.shared.dir.dir.open(&self.log_path(base)).await?;
        let jitter = draw_jitter(&self.shared.dir.env.rng("log"), self.config);
        let mut scanned = ScannedSegment::new(SegmentBuilder::new(base, self.shared.dir.env.wall(), jitter));
        let cut = self.scan_batches(&file, &mut scanned).await?;
        let end = scanned.builder.summary.size;
        let is_whole = file.len() == end;
        if let Some(damage) = cut {
            self.recovery.cut_bytes += file.len() - end;
            tracing::warn!(%damage, bytes = file.len() - end, "tail cut");
            brokkr_types::reached!("recovery cut a torn tail");
            self.recovery.cut = Some(damage);
        }
        if !is_whole {
            file.truncate(end).await?;
        }
        let proof = file.sync().await?;
        Ok(RecoveredSegment {
            scanned,
            file,
            proof,
            is_whole,
        })
    }

    /// Whether only a torn write can end the log early: this broker wrote it, and no truncation is pending.
    fn only_torn_write_may_end_it(&self) -> bool {
        self.chain.is_own_log() && self.truncated_to.is_none()
    }

    /// Adds batches until the file or the log ends. Returns the damage if an invalid batch ends the log.
    async fn scan_batches(
        &mut self,
        file: &File<E>,
        scanned: &mut ScannedSegment,
    ) -> Result<Option<Damage>, LogError> {
        let mut batches = BatchScan::new(file, 0, file.len());
        let mut rewriter = Rewriter::new(file);
        // The begin of the gap before the last batch.
        let mut gap = None;
        let cut = loop {
            let before = self.chain;
            let batch = match batches.next(&mut self.chain).await {
                Ok(Some(batch)) => batch,
                Ok(None) => break None,
                Err(ScanError::Io(e)) => return Err(e.into()),
                // A torn write never leaves a batch with a right CRC.
                Err(ScanError::Misplaced(damage))
                    if self.only_torn_write_may_end_it() && !batches.prefix_may_be_torn() =>
                {
                    return Err(LogError::Damaged(damage));
                }
                Err(
                    ScanError::Fault(damage) | ScanError::Misplaced(damage) | ScanError::OldFormat(damage),
                ) => {
                    let may_be_torn = !self.only_torn_write_may_end_it() || batches.prefix_may_be_torn();
                    if !may_be_torn && batches.only_prefix_is_wrong().await? {
                        let what = format!("{}; it is whole but for its first 17 bytes", damage.what);
                        return Err(LogError::Damaged(Damage { what, ..damage }));
                    }
                    // After a gap an invalid batch is not a torn tail: the base offset of the batch before it, which
                    // the CRC doesn't cover, may be wrong.
                    let in_gap = gap.is_some_and(|from| self.point_is_exact && from < self.point);
                    if self.closed || self.chain.next < self.point || in_gap {
                        return Err(LogError::Damaged(damage));
                    }
                    break Some(damage);
                }
            };
            let (first, next) = (batch.header.base_offset, batch.header.next_offset());
            if self.point_is_exact && before.next < self.point && next > self.point {
                let (position, point) = (batches.position() - batch.bytes.len() as u64, self.point);
                let what = format!(
                    "it says offsets {first}..{next}, and a batch that was durable ends at offset {point}"
                );
                return Err(LogError::Damaged(Damage {
                    file: file.path().to_owned(),
                    position,
                    offset: before.next,
                    what,
                }));
            }
            gap = (first > before.next).then_some(before.next);
            self.note_missing(before.next, first);
            if self.truncated_to.is_some_and(|to| next > to) {
                self.chain = before;
                break None;
            }
            // A recovery point inside a batch, which only a truncation leaves, does not make that batch durable.
            if next > self.point && !self.closed {
                self.recovery.kept_batches += 1;
                self.recovery.kept_bytes += batch.bytes.len() as u64;
                rewriter.push(scanned.builder.summary.size, &batch).await?;
            }
            scanned.add(&batch.header, self.config.index_interval_bytes);
        };
        rewriter.flush().await?;
        Ok(cut)
    }
}

/// Rewrites batches, the same bytes at the same position, BEFORE the sync that makes them durable: pages that are
/// marked clean may not be on disk.
struct Rewriter<'a, E: Env> {
    file: &'a File<E>,
    at: u64,
    parts: Vec<Bytes>,
    bytes: u64,
}

impl<'a, E: Env> Rewriter<'a, E> {
    fn new(file: &'a File<E>) -> Self {
        Self {
            file,
            at: 0,
            parts: Vec::new(),
            bytes: 0,
        }
    }

    async fn push(&mut self, position: u64, batch: &Batch) -> Result<(), LogError> {
        if self.parts.is_empty() {
            self.at = position;
        }
        self.bytes += batch.bytes.len() as u64;
        self.parts.push(batch.bytes.clone());
        if self.bytes >= u64::from(SCAN_BYTES) {
            self.flush().await?;
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), LogError> {
        if !self.parts.is_empty() {
            self.file
                .write_at(self.at, std::mem::take(&mut self.parts))
                .await?;
            self.bytes = 0;
        }
        Ok(())
    }
}

//! After a crash: what may be believed, what is cut, what is damage (D1, D2).
//!
//! ```text
//!  listed in the manifest      │ not listed: the active segment, and what was rolled since
//!  ────────────────────────────┼──────────────────── recovery point ────────────────────────────── end of file
//!  there, and long enough,     │ every header in its   every batch: whole, next in offset and epoch, CRC.
//!  or it is damage             │ place, or it is        The first that is not ends the log: a tail, cut and counted
//!                              │ damage                 What is kept is written anew and synced
//! ```
//! - Nothing below the recorded recovery point is ever cut: it was durable. What is wrong there is damage, and the partition
//!   stays offline until it is repaired from another replica. Above it nobody can tell a rotted durable batch from one
//!   that was never synced (Alagappan et al., protocol-aware recovery), and the log ends there.
//! - After a failed fsync pages may look clean and not be on the disk. So what is kept above the point is written again, the
//!   same bytes in the same place, BEFORE the sync that vouches for it.
//! - A truncation counts: a recovery point that was recorded before it speaks of bytes that were cut on purpose. One that the
//!   crash interrupted is finished first.
//! - Indexes of what was scanned are built anew; they were never synced.

use std::sync::Arc;

use brokkr_env::{Durable, Env, File};
use brokkr_types::{LeaderEpoch, Offset, Uuid};
use brokkr_wire::records::{Batch, BatchError, BatchHeader};
use bytes::Bytes;

use crate::background::{remove_if_there, remove_snapshot, replace, write_tails};
use crate::config::LogConfig;
use crate::error::{Damage, LogError};
use crate::index::{OffsetEntry, TimeEntry, relative};
use crate::log::draw_jitter;
use crate::manifest::{Cutting, Manifest, SegmentInfo};
use crate::names;
use crate::open::{Listing, Parts, begin_at, indexes_agree};
use crate::scan::{Headers, SCAN_BYTES};
use crate::segment::{Segment, Tip};
use crate::view::Shared;

/// What was recorded of a log, checksummed, when it was last known to be durable: [`crate::Log::checkpoint`].
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Recorded {
    /// The topic's id: of another topic's log in the same folder nothing is known (R11). Zero goes for any.
    pub topic_id: Uuid,
    /// Up to where it was durable. `None`: nothing is known, the whole log is a tail.
    pub recovery_point: Option<Offset>,
    /// Where it started.
    pub log_start: Offset,
    /// How often it had been truncated.
    pub truncations: u64,
    /// Whether the clean-shutdown marker was there, and this checkpoint is the one of that stop.
    pub clean: bool,
}

/// What opening a log came to.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Recovery {
    /// Nothing had to be scanned.
    pub clean: bool,
    /// Bytes above the recovery point that were kept, and written anew.
    pub kept_bytes: u64,
    /// Batches in them.
    pub kept_batches: u64,
    /// Bytes of the tail that were cut.
    pub cut_bytes: u64,
    /// Segments above the cut that were removed.
    pub cut_segments: u64,
    /// Where the log was cut and why: file, position, reason.
    pub cut: Option<Damage>,
    /// Indexes that were built anew.
    pub indexes_rebuilt: u64,
    /// Batches whose headers were read again for the producers' state.
    pub replayed_batches: u64,
}

impl Recorded {
    /// This, if it is of the log of `topic_id`.
    pub(crate) fn of(&self, topic_id: Uuid) -> Self {
        if self.topic_id == topic_id || self.topic_id.is_zero() || topic_id.is_zero() {
            self.clone()
        } else {
            Self::default()
        }
    }
}

pub(crate) struct Recovered<E: Env> {
    pub(crate) parts: Parts<E>,
    pub(crate) recovery: Recovery,
}

struct Recoverer<'a, E: Env> {
    shared: &'a Arc<Shared<E>>,
    config: &'a LogConfig,
    /// Below it nothing is cut.
    point: Offset,
    /// Where a truncation that was interrupted has to end.
    cut_to: Option<Offset>,
    /// The offset that must come next.
    expected: Offset,
    last_epoch: LeaderEpoch,
    recovery: Recovery,
}

/// A segment that was scanned.
struct Scanned<E: Env> {
    tip: Tip,
    offsets: Vec<OffsetEntry>,
    times: Vec<TimeEntry>,
    file: File<E>,
    proof: Durable,
    /// Whether the log goes on behind it.
    whole: bool,
}

/// Recovers a log that was not stopped cleanly.
pub(crate) async fn recover<E: Env>(
    shared: &Arc<Shared<E>>,
    config: &LogConfig,
    recorded: &Recorded,
    manifest: Option<&Manifest>,
    listing: &mut Listing,
) -> Result<Recovered<E>, LogError> {
    let first_base = match manifest {
        Some(manifest) => manifest.first_base,
        None => listing.logs.first().copied().unwrap_or(recorded.log_start),
    };
    let unlisted = manifest.is_none();
    let none = Manifest {
        first_base,
        cut_to: first_base,
        ..Manifest::default()
    };
    let manifest = manifest.unwrap_or(&none);
    let mut point = recorded.recovery_point.unwrap_or(first_base).max(first_base);
    if recorded.truncations < manifest.truncations {
        point = point.min(manifest.cut_to.max(first_base));
    }
    let mut recoverer = Recoverer {
        shared,
        config,
        point,
        cut_to: (manifest.cutting != Cutting::No).then_some(manifest.cut_to),
        expected: manifest.sealed.last().map_or(first_base, |s| s.head.next),
        last_epoch: LeaderEpoch::NONE,
        recovery: Recovery::default(),
    };
    recoverer.remove_leftovers(manifest, listing).await?;
    let mut sealed = Vec::new();
    for info in &manifest.sealed {
        sealed.push(Arc::new(recoverer.check_sealed(info, listing).await?));
    }
    let scanned_from = recoverer.expected;
    let mut parts = recoverer.scan_rest(&mut sealed, listing).await?;
    // The manifest knows better than what was recorded before it, or after it.
    let log_start = if unlisted {
        recorded.log_start.max(first_base)
    } else {
        manifest.log_start
    };
    if log_start > parts.active.head.next {
        // What was deleted was not even durable. Its offsets were shown, and are never given out again (L6).
        tracing::warn!(folder = &*shared.folder, %log_start, "the log ends before its start; begun anew there");
        brokkr_types::reached!("a log ended before its start");
        let anew = Manifest {
            cutting: Cutting::All,
            cut_to: log_start,
            first_base: log_start,
            log_start,
            sealed: Vec::new(),
            ..manifest.clone()
        };
        replace(shared, names::MANIFEST, anew.encode()).await?;
        let all = sealed
            .drain(..)
            .map(|s| s.head.base)
            .chain([parts.active.head.base]);
        for base in all.collect::<Vec<_>>() {
            recoverer.remove_segment(base).await?;
        }
        parts = begin_at(shared, config, log_start).await?;
    }
    let end = parts.active.head.next;
    parts.sealed = Arc::new(sealed);
    parts.log_start = log_start;
    parts.scanned_from = scanned_from.min(end);
    // A log that was to begin anew begins without producers, too (P10).
    let keep = if manifest.cutting == Cutting::All {
        Offset(-1)
    } else {
        end
    };
    for snapshot in listing.snapshots.split_off(&keep.plus(1)) {
        remove_snapshot(shared, snapshot).await?;
    }
    shared.dir.dir.sync_dir(&shared.folder).await?;
    Ok(Recovered {
        parts,
        recovery: recoverer.recovery,
    })
}

impl<E: Env> Recoverer<'_, E> {
    /// Removes segments that retention or a truncation had given up already.
    async fn remove_leftovers(&mut self, manifest: &Manifest, listing: &mut Listing) -> Result<(), LogError> {
        let listed_end = self.expected;
        let leftover = |base: &Offset| {
            let listed = manifest.sealed.iter().any(|s| s.head.base == *base);
            let cut = self
                .cut_to
                .is_some_and(|to| *base >= to && *base > manifest.first_base);
            cut || !listed && *base < listed_end
        };
        for base in listing.logs.iter().copied().filter(leftover).collect::<Vec<_>>() {
            tracing::info!(folder = &*self.shared.folder, %base, "segment left over; removed");
            brokkr_types::reached!("recovery removed what retention had given up");
            listing.logs.remove(&base);
            self.remove_segment(base).await?;
        }
        Ok(())
    }

    async fn remove_segment(&self, base: Offset) -> Result<(), LogError> {
        for suffix in [names::LOG, names::INDEX, names::TIME_INDEX, names::TXN_INDEX] {
            remove_if_there(self.shared, &names::path(&self.shared.folder, base, suffix)).await?;
        }
        Ok(())
    }

    fn damage(&self, base: Offset, position: u64, offset: Offset, what: String) -> Damage {
        Damage {
            file: names::path(&self.shared.folder, base, names::LOG),
            position,
            offset,
            what,
        }
    }

    /// A sealed segment is there and as long as it was; its indexes are rebuilt if they are not.
    async fn check_sealed(&mut self, info: &SegmentInfo, listing: &Listing) -> Result<Segment, LogError> {
        let head = &info.head;
        let damage = |position, what: &str| {
            LogError::Damaged(self.damage(head.base, position, head.base, what.to_owned()))
        };
        if !listing.logs.contains(&head.base) {
            return Err(damage(0, "the segment is missing"));
        }
        let path = names::path(&self.shared.folder, head.base, names::LOG);
        let file = self.shared.dir.files.open(&path).await?;
        if file.len() < head.size {
            return Err(damage(file.len(), "the segment is shorter than it was"));
        }
        if indexes_agree(self.shared, info).await?.is_some() {
            return Ok(Segment::sealed(*info));
        }
        self.recovery.indexes_rebuilt += 1;
        brokkr_types::reached!("an index was rebuilt");
        let mut scanned = Index::new(Tip::new(head.base, head.created, 0));
        let mut headers = Headers::all(&file, 0, head.size);
        while let Some((_, header)) = headers.next(scanned.tip.head.next).await? {
            scanned.add(&header, self.config.index_interval_bytes);
        }
        self.write_indexes(scanned, true).await
    }

    async fn write_indexes(&self, mut index: Index, sealed: bool) -> Result<Segment, LogError> {
        if sealed {
            index.times.extend(index.tip.time_entry());
        }
        let mut segment = Segment::new(index.tip.head);
        segment.extend(index.tip.head, &index.offsets, &index.times);
        write_tails(Arc::clone(self.shared), segment.clone(), true).await?;
        Ok(Segment::sealed(segment.info()))
    }

    /// Scans the segments that the manifest doesn't list; the last one becomes the active one.
    async fn scan_rest(
        &mut self,
        sealed: &mut Vec<Arc<Segment>>,
        listing: &mut Listing,
    ) -> Result<Parts<E>, LogError> {
        let mut rest = listing.logs.split_off(&self.expected);
        let mut last: Option<Scanned<E>> = None;
        while let Some(base) = rest.first().copied() {
            if base != self.expected || last.as_ref().is_some_and(|l| !l.whole) {
                break;
            }
            rest.pop_first();
            let scanned = self.scan(base).await?;
            if let Some(before) = last.replace(scanned) {
                let index = Index {
                    tip: before.tip,
                    offsets: before.offsets,
                    times: before.times,
                };
                self.shared.dir.files.insert(before.file);
                sealed.push(Arc::new(self.write_indexes(index, true).await?));
            }
        }
        if self.expected < self.point {
            let what = format!("the log ends here; it was durable up to offset {}", self.point);
            let base = last.as_ref().map_or(self.expected, |l| l.tip.head.base);
            let position = last.as_ref().map_or(0, |l| l.tip.head.size);
            return Err(LogError::Damaged(self.damage(
                base,
                position,
                self.expected,
                what,
            )));
        }
        for base in rest {
            self.cut_segment(base).await?;
        }
        let Some(last) = last else {
            return begin_at(self.shared, self.config, self.expected).await;
        };
        let index = Index {
            tip: last.tip,
            offsets: last.offsets,
            times: last.times,
        };
        let active = self.write_indexes(index, false).await?;
        let (file, tip, proof) = (last.file, last.tip, Some(last.proof));
        let start = Offset(0);
        Ok(Parts {
            sealed: Arc::default(),
            active,
            file,
            tip,
            log_start: start,
            proof,
            scanned_from: start,
        })
    }

    async fn cut_segment(&mut self, base: Offset) -> Result<(), LogError> {
        let path = names::path(&self.shared.folder, base, names::LOG);
        let bytes = self.shared.dir.dir.open(&path).await?.len();
        if self.recovery.cut.is_none() {
            let what = format!("nothing leads here from offset {}", self.expected);
            self.recovery.cut = Some(self.damage(base, 0, base, what));
        }
        tracing::warn!(path, bytes, "segment above the end of the log; removed");
        brokkr_types::reached!("recovery removed a segment above the end");
        self.recovery.cut_bytes += bytes;
        self.recovery.cut_segments += 1;
        self.remove_segment(base).await
    }

    /// Scans one segment: headers up to the recovery point, everything above it. Cuts what is not the log, writes anew and
    /// syncs what is.
    async fn scan(&mut self, base: Offset) -> Result<Scanned<E>, LogError> {
        let path = names::path(&self.shared.folder, base, names::LOG);
        let file = self.shared.dir.dir.open(&path).await?;
        let jitter = draw_jitter(&self.shared.dir.env.rng("log"), self.config);
        let mut index = Index::new(Tip::new(base, self.shared.dir.env.wall(), jitter));
        self.walk_below_point(&file, &mut index).await?;
        let cut = self.scan_above_point(&file, &mut index).await?;
        let end = index.tip.head.size;
        let whole = file.len() == end;
        if let Some(what) = cut {
            self.recovery.cut_bytes += file.len() - end;
            let damage = self.damage(base, end, self.expected, what);
            tracing::warn!(%damage, bytes = file.len() - end, "tail cut");
            brokkr_types::reached!("recovery cut a torn tail");
            self.recovery.cut = Some(damage);
        }
        if !whole {
            file.truncate(end).await?;
        }
        let proof = file.sync().await?;
        let Index { tip, offsets, times } = index;
        Ok(Scanned {
            tip,
            offsets,
            times,
            file,
            proof,
            whole,
        })
    }

    async fn walk_below_point(&mut self, file: &File<E>, index: &mut Index) -> Result<(), LogError> {
        let mut headers = Headers::all(file, 0, file.len());
        while self.expected < self.point {
            let Some((position, header)) = headers.next(self.expected).await? else {
                break;
            };
            if header.next_offset() > self.point {
                // Only a truncation into the middle of a batch makes such a point: the scan judges the batch.
                break;
            }
            if let Some(what) = self.misplaced(&index.tip, &header) {
                let damage = self.damage(index.tip.head.base, position, self.expected, what);
                return Err(LogError::Damaged(damage));
            }
            self.accept(&header, index);
        }
        Ok(())
    }

    /// Why a batch can't stand where the next one must.
    fn misplaced(&self, tip: &Tip, header: &BatchHeader) -> Option<String> {
        if header.base_offset != self.expected {
            return Some(format!("a batch of offset {}", header.base_offset));
        }
        if header.last_offset_delta < 0 || relative(tip.head.base, header.last_offset()).is_none() {
            return Some(format!(
                "a batch of {} offsets",
                i64::from(header.last_offset_delta) + 1
            ));
        }
        if header.partition_leader_epoch < self.last_epoch {
            let (epoch, last) = (header.partition_leader_epoch, self.last_epoch);
            return Some(format!("a batch of leader epoch {epoch} behind one of {last}"));
        }
        None
    }

    fn accept(&mut self, header: &BatchHeader, index: &mut Index) {
        self.expected = header.next_offset();
        self.last_epoch = header.partition_leader_epoch;
        index.add(header, self.config.index_interval_bytes);
    }

    /// Takes up batches until the file or the log ends. Why, if the log ends first and not by a truncation.
    async fn scan_above_point(
        &mut self,
        file: &File<E>,
        index: &mut Index,
    ) -> Result<Option<String>, LogError> {
        let file_end = file.len();
        let mut wanted = u64::from(SCAN_BYTES);
        loop {
            let at = index.tip.head.size;
            if at == file_end {
                return Ok(None);
            }
            let len = wanted.min(file_end - at);
            let chunk = file.read_at(at, len as u32).await?;
            let ended = self.take_chunk(&chunk, index);
            let kept = (index.tip.head.size - at) as usize;
            if kept > 0 {
                // BEFORE the sync vouches for it: pages that look clean may not be on the disk.
                file.write_at(at, vec![chunk.slice(..kept)]).await?;
                self.recovery.kept_bytes += kept as u64;
            }
            match ended {
                ChunkEnd::More { needed } if at + kept as u64 + needed <= file_end => {
                    wanted = needed.max(u64::from(SCAN_BYTES));
                }
                ChunkEnd::More { needed } => {
                    let left = file_end - at - kept as u64;
                    return Ok(Some(format!("a torn batch: {left} of {needed} bytes")));
                }
                ChunkEnd::Fault(what) => return Ok(Some(what)),
                ChunkEnd::Truncation => return Ok(None),
            }
        }
    }

    /// Takes up the batches at the front of `chunk`.
    fn take_chunk(&mut self, chunk: &Bytes, index: &mut Index) -> ChunkEnd {
        let mut rest = chunk.clone();
        loop {
            if rest.is_empty() {
                return ChunkEnd::More { needed: 0 };
            }
            let batch = match Batch::first(&rest) {
                Ok(batch) => batch,
                Err(BatchError::Partial { needed, .. }) => {
                    return ChunkEnd::More {
                        needed: needed as u64,
                    };
                }
                Err(e) => return ChunkEnd::Fault(e.to_string()),
            };
            if let Err(e) = batch.check_crc() {
                return ChunkEnd::Fault(e.to_string());
            }
            if let Some(what) = self.misplaced(&index.tip, &batch.header) {
                return ChunkEnd::Fault(what);
            }
            if self.cut_to.is_some_and(|to| batch.header.next_offset() > to) {
                return ChunkEnd::Truncation;
            }
            self.accept(&batch.header, index);
            self.recovery.kept_batches += 1;
            rest = rest.slice(batch.bytes.len()..);
        }
    }
}

enum ChunkEnd {
    /// The chunk is used up; the batch that begins at its end needs so many bytes, as far as can be told.
    More { needed: u64 },
    /// What follows is not the log.
    Fault(String),
    /// What follows was to be cut anyway.
    Truncation,
}

/// The indexes of a segment while it is walked.
struct Index {
    tip: Tip,
    offsets: Vec<OffsetEntry>,
    times: Vec<TimeEntry>,
}

impl Index {
    fn new(tip: Tip) -> Self {
        Self {
            tip,
            offsets: Vec::new(),
            times: Vec::new(),
        }
    }

    fn add(&mut self, header: &BatchHeader, index_interval_bytes: u32) {
        let new = self.tip.add(header, index_interval_bytes);
        self.offsets.extend(new.offset);
        self.times.extend(new.time);
    }
}

//! Reads by offset: a range of one segment file that begins with the batch of the offset.
//!
//! At the tail of the log the snapshot's recent write boundaries suffice. Otherwise the offset index gives a batch at
//! or before the offset, and the headers from there on are read. Segments are found by their base offsets.

use std::sync::Arc;

use brokkr_env::{Env, ErrorKind, File};
use brokkr_types::Offset;
use brokkr_wire::records::{BatchError, BatchHeader};
use bytes::Bytes;

use crate::error::{Damage, ReadError};
use crate::files::headers::read;
use crate::formats::names;
use crate::reader::open_segment::{FoundBatch, OpenSegment, Slice};
use crate::reader::view::{Boundary, LogReader, OffsetMetadata, UpTo};
use crate::reader::walk::{HeaderWalk, WalkStart, valid_end};
use crate::state::index::relative;
use crate::state::segment::{Segment, covering};

impl<E: Env> LogReader<E> {
    /// Reads from the batch that contains `offset`, up to `up_to`, at most `max_bytes`, within one segment. With
    /// `at_least_one` a larger first batch is returned whole. `None`: no batch there yet, or the first one exceeds
    /// `max_bytes`.
    ///
    /// Cancel-safe. An offset between `up_to` and the log end offset is not an error (KIP-207).
    pub async fn read(
        &self,
        offset: Offset,
        up_to: UpTo,
        max_bytes: u32,
        at_least_one: bool,
    ) -> Result<Option<Slice<E>>, ReadError> {
        self.check_range(offset)?;
        let limit = self.limit(up_to);
        if offset >= limit.offset {
            return Ok(None);
        }
        let mut index = self.segment_of(offset);
        loop {
            let open = self.open(index).await?;
            let end = self.readable_end(&open, limit).await?;
            if let Some(boundary) = self.boundary(&open, offset)
                && boundary < end
                && end - boundary <= u64::from(max_bytes)
            {
                return open.slice(boundary, end, offset).map(Some);
            }
            if let Some(found) = self.locate(&open, offset, end).await? {
                let whole = found.header.size_bytes() as u64;
                let room = u64::from(max_bytes);
                let len = if at_least_one { room.max(whole) } else { room };
                if len < whole {
                    return Ok(None);
                }
                let to = end.min(found.position + len);
                let to = valid_end(&open, &self.view.epochs, &found, to)
                    .await
                    .map_err(|e| open.or_stale(e))?;
                return open.slice(found.position, to, found.header.base_offset).map(Some);
            }
            if open.is_active || open.segment.summary.next >= limit.offset {
                return Ok(None);
            }
            // Compaction removed the rest of the segment.
            index += 1;
        }
    }

    /// As [`LogReader::read`] with `at_least_one`, but returns the bytes: complete batches, the CRC of each checked.
    /// For replay.
    pub async fn read_bytes(
        &self,
        offset: Offset,
        up_to: UpTo,
        max_bytes: u32,
    ) -> Result<Option<Bytes>, ReadError> {
        let Some(slice) = self.read(offset, up_to, max_bytes, true).await? else {
            return Ok(None);
        };
        let bytes = read(slice.range.file(), slice.range.at(), slice.range.len()).await?;
        let mut batches = brokkr_wire::records::batches(bytes.clone());
        let mut end = 0;
        let wrong = loop {
            match batches.next() {
                Some(Ok(batch)) => match batch.check_crc() {
                    Ok(()) => end = batches.position(),
                    Err(e) => break e,
                },
                Some(Err(e @ BatchError::Partial { .. })) if end == 0 => break e,
                None | Some(Err(BatchError::Partial { .. })) => return Ok(Some(bytes.slice(..end))),
                Some(Err(e)) => break e,
            }
        };
        Err(ReadError::Damaged(Damage {
            file: slice.range.file().path().to_owned(),
            position: slice.range.at() + end as u64,
            offset,
            what: wrong.to_string(),
        }))
    }

    pub(crate) fn check_range(&self, offset: Offset) -> Result<(), ReadError> {
        let (log_start, end) = (self.log_start(), self.log_end());
        if offset < log_start || offset > end {
            return Err(ReadError::OutOfRange {
                offset,
                log_start,
                end,
            });
        }
        Ok(())
    }

    /// The number of the segment that may contain an offset: sealed segments in order, then the active one.
    pub(crate) fn segment_of(&self, offset: Offset) -> usize {
        if offset >= self.view.active.summary.base {
            return self.view.sealed.len();
        }
        covering(&self.view.sealed, offset).unwrap_or(0)
    }

    pub(crate) async fn open(&self, index: usize) -> Result<OpenSegment<'_, E>, ReadError> {
        let view = &self.view;
        let Some(segment) = view.sealed.get(index) else {
            let segment = &view.active;
            // A fresh log has no file; a later snapshot has one.
            let file = view.file.clone().ok_or(ReadError::Stale)?;
            return Ok(OpenSegment {
                segment,
                file,
                truncations: view.truncations,
                gaps: view.gaps,
                is_active: true,
            });
        };
        let path = names::path(&view.shared.folder, segment.summary.base, names::LOG);
        let file = self.open_file(&path, segment).await?;
        let truncations = file.truncations();
        if file.len() < segment.summary.size {
            return Err(self.missing(&path, file.len(), segment, "the segment is shorter than it was"));
        }
        Ok(OpenSegment {
            segment,
            file,
            truncations,
            gaps: view.gaps,
            is_active: false,
        })
    }

    /// Opens a segment's file.
    async fn open_file(&self, path: &str, segment: &Segment) -> Result<File<E>, ReadError> {
        let opened = self.view.shared.dir.files.open(path).await;
        opened.map_err(|e| match e.kind() {
            ErrorKind::NotFound => self.missing(path, 0, segment, "the segment is missing"),
            _ => ReadError::Io(e),
        })
    }

    /// Why bytes of a segment are missing: retention or a truncation removed them since the snapshot was taken;
    /// otherwise it is damage.
    fn missing(&self, path: &str, position: u64, segment: &Segment, what: &str) -> ReadError {
        let status = &self.view.shared.status;
        if status.truncations() != self.view.log_truncations {
            return ReadError::Stale;
        }
        let log_start = status.log_start();
        if segment.summary.next <= log_start {
            return ReadError::OutOfRange {
                offset: segment.summary.base,
                log_start,
                end: self.log_end(),
            };
        }
        ReadError::Damaged(Damage {
            file: path.to_owned(),
            position,
            offset: segment.summary.base,
            what: what.to_owned(),
        })
    }

    /// The position of the batch that begins at `offset`, if it is a recent write boundary.
    fn boundary(&self, open: &OpenSegment<'_, E>, offset: Offset) -> Option<u64> {
        let known = |b: &&Boundary| open.is_active && b.offset == offset;
        self.view.recent.iter().find(known).map(|b| b.position)
    }

    /// The position in this segment where the readable part ends.
    async fn readable_end(&self, open: &OpenSegment<'_, E>, limit: OffsetMetadata) -> Result<u64, ReadError> {
        let summary = &open.segment.summary;
        match limit.position {
            _ if limit.offset >= summary.next => Ok(summary.size),
            Some((base, position)) if base == summary.base => Ok(position),
            _ => {
                let found = self.locate(open, limit.offset, summary.size).await?;
                // A batch that contains the limit is left out.
                Ok(found.map_or(summary.size, |f| f.position))
            }
        }
    }

    /// The first batch before the position `end` that contains `offset` or begins past it.
    pub(crate) async fn locate(
        &self,
        open: &OpenSegment<'_, E>,
        offset: Offset,
        end: u64,
    ) -> Result<Option<FoundBatch>, ReadError> {
        let start = self.walk_start(open, offset).await?;
        let mut walk = HeaderWalk::new(open, &self.view.epochs, start);
        if let WalkStart::Entry(..) = start
            && let Err(why) = walk.check_entry().await
        {
            // An index is derived and may be wrong; the segment can be read without it.
            let why = open.or_stale(why);
            if why == ReadError::Stale {
                return Err(why);
            }
            self.report_index(open.segment, &why);
            walk = HeaderWalk::new(open, &self.view.epochs, self.segment_start(open.segment));
        }
        walk_to(open, walk, offset, end)
            .await
            .map_err(|e| open.or_stale(e))
    }

    /// The header of the batch that contains `offset`, or of the first batch past it.
    pub(crate) async fn batch_at(&self, offset: Offset) -> Result<Option<BatchHeader>, ReadError> {
        let mut index = self.segment_of(offset);
        loop {
            let open = self.open(index).await?;
            let found = self.locate(&open, offset, open.segment.summary.size).await?;
            if found.is_some() || open.is_active {
                return Ok(found.map(|f| f.header));
            }
            index += 1;
        }
    }

    fn segment_start(&self, segment: &Segment) -> WalkStart {
        WalkStart::Known(0, segment.summary.base)
    }

    /// Reports that an index of a segment is wrong: reads begin at the segment's start until the owner has rebuilt
    /// it.
    fn report_index(&self, segment: &Segment, why: &dyn std::fmt::Display) {
        brokkr_types::reached!("an index that pointed elsewhere was not followed");
        if self.view.shared.status.suspect_index(segment.summary.base) {
            let shared = &self.view.shared;
            let what = format_args!("{} {}: {why}", shared.folder, segment.summary.base);
            let error_log = &shared.dir.error_log;
            error_log.record(
                "an index of a segment is wrong; it is walked from its begin until that is built again",
                &what,
            );
        }
    }

    /// A batch at or before `offset` to begin with: the closest one among the recent write boundaries and the index.
    async fn walk_start(&self, open: &OpenSegment<'_, E>, offset: Offset) -> Result<WalkStart, ReadError> {
        let recent = self
            .view
            .recent
            .iter()
            .rev()
            .find(|b| open.is_active && b.offset <= offset);
        if let Some(boundary) = recent {
            return Ok(WalkStart::Known(boundary.position, boundary.offset));
        }
        let segment = open.segment;
        let Some(key) = relative(segment.summary.base, offset) else {
            return Ok(self.segment_start(segment));
        };
        let entry = match segment.offsets.floor_in_memory(key) {
            Ok(entry) => entry,
            Err(()) => {
                self.lookup_in_index(segment, names::INDEX, async |file| {
                    segment.offsets.floor_in_file(file, key).await
                })
                .await
            }
        };
        let floor = entry.map(|e| {
            let last = segment.summary.base.plus(i64::from(e.relative));
            WalkStart::Entry(u64::from(e.position), last)
        });
        Ok(floor.unwrap_or(self.segment_start(segment)))
    }

    /// An offset in the segment before which no record has a timestamp of at least `timestamp`.
    pub(crate) async fn time_floor(
        &self,
        open: &OpenSegment<'_, E>,
        timestamp: i64,
    ) -> Result<Offset, ReadError> {
        let segment = open.segment;
        let entry = match segment.times.floor_in_memory(timestamp) {
            Ok(entry) => entry,
            Err(()) => {
                self.lookup_in_index(segment, names::TIME_INDEX, async |file| {
                    segment.times.floor_in_file(file, timestamp).await
                })
                .await
            }
        };
        let Some(entry) = entry else {
            return Ok(segment.summary.base);
        };
        let offset = segment.summary.base.plus(i64::from(entry.relative));
        let found = self.locate(open, offset, segment.summary.size).await?;
        let matches =
            |f: &FoundBatch| f.header.last_offset() == offset && f.header.max_timestamp == entry.timestamp;
        if found.is_some_and(|f| matches(&f)) {
            return Ok(offset);
        }
        self.report_index(segment, &format_args!("{entry:?} is of no batch"));
        Ok(segment.summary.base)
    }

    /// Looks up an entry in an index file. `None` on errors: without an entry the read takes longer, but succeeds.
    async fn lookup_in_index<T>(
        &self,
        segment: &Segment,
        suffix: &str,
        lookup: impl AsyncFnOnce(&File<E>) -> Result<Option<T>, ReadError>,
    ) -> Option<T> {
        let path = names::path(&self.view.shared.folder, segment.summary.base, suffix);
        let found = match self.view.shared.dir.files.open(&path).await {
            Ok(file) => lookup(&file).await,
            Err(e) => Err(e.into()),
        };
        match found {
            Ok(found) => found,
            // Out of file descriptors; that says nothing about the index.
            Err(ReadError::Io(e)) if e.kind() == ErrorKind::Resources => None,
            Err(why) => {
                self.report_index(segment, &why);
                None
            }
        }
    }

    /// All segments, in offset order.
    pub(crate) fn segments(&self) -> impl Iterator<Item = &Segment> {
        self.view
            .sealed
            .iter()
            .map(Arc::as_ref)
            .chain([&self.view.active])
    }
}

/// The first batch of the walk that begins before the position `end` and contains `offset` or begins past it.
async fn walk_to<E: Env>(
    open: &OpenSegment<'_, E>,
    mut walk: HeaderWalk<'_, E>,
    offset: Offset,
    end: u64,
) -> Result<Option<FoundBatch>, ReadError> {
    while walk.at < end {
        let Some(batch) = walk.next().await? else { break };
        if batch.next <= offset {
            continue;
        }
        let position = batch.position;
        return match (batch.header, &batch.fault) {
            (Some(header), None) => Ok(Some(FoundBatch { position, header })),
            _ => Err(open.damaged(&batch)),
        };
    }
    Ok(None)
}

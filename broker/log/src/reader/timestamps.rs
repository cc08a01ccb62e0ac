//! Reads by timestamp, for ListOffsets.

use brokkr_env::{Env, poll_later};
use brokkr_types::{LeaderEpoch, Offset, UnixMillis};
use brokkr_wire::records::{Batch, BatchError, BatchHeader, DecompressError, Pace};

use crate::error::{Damage, ReadError};
use crate::files::headers::read;
use crate::reader::open_segment::OpenSegment;
use crate::reader::view::{LogReader, UpTo};
use crate::reader::walk::{HeaderWalk, WalkStart, WalkedBatch};
use crate::state::checked_ranges::CheckedRange;

/// A record that was found by its timestamp.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TimestampOffset {
    /// The record's timestamp.
    pub timestamp: UnixMillis,
    /// The record's offset.
    pub offset: Offset,
    /// The leader epoch of its batch.
    pub epoch: LeaderEpoch,
    /// Whether the record itself was found. Otherwise its batch exceeds the memory limit, and this is the batch's
    /// first offset with its largest timestamp: reading from there does not miss the record.
    pub exact: bool,
}

impl<E: Env> LogReader<E> {
    /// The first record below `up_to` with a timestamp of at least `target`. Reads one batch at a time, of at most
    /// `decompressed_max` bytes, compressed and decompressed.
    pub async fn offset_for_timestamp(
        &self,
        target: UnixMillis,
        up_to: UpTo,
        decompressed_max: usize,
    ) -> Result<Option<TimestampOffset>, ReadError> {
        let (start, limit) = (self.log_start(), self.limit(up_to).offset);
        for (index, segment) in self.segments().enumerate() {
            let summary = segment.summary;
            if summary.max_timestamp < target || summary.next <= start || summary.base >= limit {
                continue;
            }
            let open = self.open(index).await?;
            let from = self.time_floor(&open, target.0).await?.max(start);
            let matches = |timestamp: UnixMillis| timestamp >= target;
            let found = self
                .find_record(&open, (from, start), decompressed_max, (target, matches))
                .await?;
            if found.is_some() {
                return Ok(found.filter(|f| f.offset < limit));
            }
        }
        Ok(None)
    }

    /// The first record with the largest timestamp (KIP-734). As in Kafka, `None` if it is not below `up_to`.
    pub async fn offset_of_max_timestamp(
        &self,
        up_to: UpTo,
        decompressed_max: usize,
    ) -> Result<Option<TimestampOffset>, ReadError> {
        let (start, limit) = (self.log_start(), self.limit(up_to).offset);
        let mut youngest: Option<(usize, UnixMillis, Offset)> = None;
        for (index, segment) in self.segments().enumerate() {
            let summary = segment.summary;
            // A segment below the log's start is about to be removed.
            if summary.next <= start || summary.base >= limit {
                continue;
            }
            let (timestamp, from) = match summary.base < start {
                false => (summary.max_timestamp, summary.max_timestamp_offset),
                // The record with the segment's largest timestamp may be deleted.
                true => (self.largest_of_rest(index, start, decompressed_max).await?, start),
            };
            if timestamp.0 >= 0 && youngest.is_none_or(|(_, t, _)| timestamp > t) {
                youngest = Some((index, timestamp, from));
            }
        }
        let Some((index, timestamp, from)) = youngest else {
            return Ok(None);
        };
        let open = self.open(index).await?;
        let found = self
            .find_record(
                &open,
                (from, start),
                decompressed_max,
                (timestamp, |t| t == timestamp),
            )
            .await?;
        Ok(found.filter(|f| f.offset < limit))
    }

    /// The largest timestamp of a segment's records from `start` on. Reads the headers of all batches from there, unless the segment's
    /// own largest timestamp is among them.
    async fn largest_of_rest(
        &self,
        index: usize,
        start: Offset,
        decompressed_max: usize,
    ) -> Result<UnixMillis, ReadError> {
        let open = self.open(index).await?;
        let summary = open.segment.summary;
        let (largest, last_offset) = (summary.max_timestamp, summary.max_timestamp_offset);
        let is_there = |t: UnixMillis| t == largest;
        let from = last_offset.max(start);
        if self
            .find_record(&open, (from, start), decompressed_max, (largest, is_there))
            .await?
            .is_some()
        {
            return Ok(largest);
        }
        let Some(first) = self.locate(&open, start, summary.size).await? else {
            return Ok(UnixMillis::NONE);
        };
        let mut found = UnixMillis::NONE;
        let begin = WalkStart::Known(first.position, first.header.base_offset);
        let mut walk = HeaderWalk::new(&open, &self.view.epochs, begin);
        while let Some(next) = walk.next().await.map_err(|e| open.or_stale(e))? {
            let (position, Some(header), None) = (next.position, next.header, &next.fault) else {
                return Err(open.or_stale(open.damaged(&next)));
            };
            if header.last_offset() < start {
                continue;
            }
            if header.base_offset >= start || header.size_bytes() > decompressed_max {
                check_once(&open, &mut walk, &next, &header).await?;
                found = found.max(header.max_timestamp);
                continue;
            }
            let batch = self
                .read_batch(&open, position, &header)
                .await
                .map_err(|e| open.or_stale(e))?;
            let damaged = |what: String| damaged(&open, position, &header, what);
            let mut pace = Pace::gives_way_by(poll_later);
            let records = match batch.records_at(&mut pace, decompressed_max).await {
                Ok(records) => records,
                Err(BatchError::Decompress(DecompressError::TooLarge { .. })) => {
                    found = found.max(header.max_timestamp);
                    continue;
                }
                Err(e) => return Err(damaged(e.to_string())),
            };
            let mut records = records.iter();
            while let Some(record) = records.next_at(&mut pace).await {
                let record = record.map_err(|e| damaged(e.to_string()))?;
                if header.record_offset(record.offset_delta) >= start {
                    found = found.max(header.record_timestamp(record.timestamp_delta));
                }
            }
        }
        Ok(found)
    }

    /// The leader epoch of the log's first batch, if known.
    pub fn earliest_epoch(&self) -> Option<LeaderEpoch> {
        self.view.epochs.epoch_for(self.log_start())
    }

    /// The first record at `start` or past it whose timestamp matches. Begins with the batch that contains `from`,
    /// and decompresses only batches whose largest timestamp is at least `least`.
    async fn find_record(
        &self,
        open: &OpenSegment<'_, E>,
        (from, start): (Offset, Offset),
        decompressed_max: usize,
        (least, matches): (UnixMillis, impl Fn(UnixMillis) -> bool),
    ) -> Result<Option<TimestampOffset>, ReadError> {
        let end = open.segment.summary.size;
        let Some(first) = self.locate(open, from, end).await? else {
            return Ok(None);
        };
        let begin = WalkStart::Known(first.position, first.header.base_offset);
        let mut walk = HeaderWalk::new(open, &self.view.epochs, begin);
        while let Some(next) = walk.next().await.map_err(|e| open.or_stale(e))? {
            let (position, Some(header), None) = (next.position, next.header, &next.fault) else {
                return Err(open.or_stale(open.damaged(&next)));
            };
            if header.last_offset() < start {
                continue;
            }
            if header.max_timestamp < least {
                check_once(open, &mut walk, &next, &header).await?;
                continue;
            }
            let of_batch = TimestampOffset {
                timestamp: header.max_timestamp,
                offset: header.base_offset.max(start),
                epoch: header.partition_leader_epoch,
                exact: false,
            };
            // BEFORE the batch is read into memory.
            if header.size_bytes() > decompressed_max {
                return Ok(Some(of_batch));
            }
            let batch = self
                .read_batch(open, position, &header)
                .await
                .map_err(|e| open.or_stale(e))?;
            let damaged = |what: String| damaged(open, position, &header, what);
            let mut pace = Pace::gives_way_by(poll_later);
            let records = match batch.records_at(&mut pace, decompressed_max).await {
                Ok(records) => records,
                Err(BatchError::Decompress(DecompressError::TooLarge { .. })) => return Ok(Some(of_batch)),
                Err(e) => return Err(damaged(e.to_string())),
            };
            let mut records = records.iter();
            while let Some(record) = records.next_at(&mut pace).await {
                let record = record.map_err(|e| damaged(e.to_string()))?;
                let timestamp = header.record_timestamp(record.timestamp_delta);
                let offset = header.record_offset(record.offset_delta);
                if offset >= start && matches(timestamp) {
                    let epoch = header.partition_leader_epoch;
                    return Ok(Some(TimestampOffset {
                        timestamp,
                        offset,
                        epoch,
                        exact: true,
                    }));
                }
            }
        }
        Ok(None)
    }

    async fn read_batch(
        &self,
        open: &OpenSegment<'_, E>,
        position: u64,
        header: &BatchHeader,
    ) -> Result<Batch, ReadError> {
        let damaged = |what: String| damaged(open, position, header, what);
        let bytes = read(&open.file, position, header.size_bytes() as u32).await?;
        let batch = Batch::first(&bytes).map_err(|e| damaged(e.to_string()))?;
        batch.check_crc().map_err(|e| damaged(e.to_string()))?;
        Ok(batch)
    }
}

/// Checks the CRC of a batch, once for each batch. BEFORE the batch is skipped: the CRC covers its timestamps.
async fn check_once<E: Env>(
    open: &OpenSegment<'_, E>,
    walk: &mut HeaderWalk<'_, E>,
    next: &WalkedBatch,
    header: &BatchHeader,
) -> Result<(), ReadError> {
    if open.segment.checked_batches.has(next.position, next.from) {
        return Ok(());
    }
    if !walk.is_whole(next).await.map_err(|e| open.or_stale(e))? {
        let what = "its CRC is not right".to_owned();
        return Err(open.or_stale(damaged(open, next.position, header, what)));
    }
    open.segment.checked_batches.add(CheckedRange {
        from: next.position,
        to: walk.at,
        next: next.next,
    });
    Ok(())
}

fn damaged<E: Env>(
    open: &OpenSegment<'_, E>,
    position: u64,
    header: &BatchHeader,
    what: String,
) -> ReadError {
    let file = open.file.path().to_owned();
    ReadError::Damaged(Damage {
        file,
        position,
        offset: header.base_offset,
        what,
    })
}

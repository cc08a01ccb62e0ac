//! A segment: a `.log` file and its indexes, named by its base offset.

use std::sync::Arc;

use brokkr_types::{Offset, UnixMillis};
use brokkr_wire::records::BatchHeader;

use crate::state::checked_ranges::CheckedRanges;
use crate::state::config::LogConfig;
use crate::state::index::{IndexView, OffsetEntry, TimeEntry, relative};

/// Summary of a segment's batches.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct SegmentSummary {
    /// The base offset, which names its files.
    pub(crate) base: Offset,
    /// The offset after its last batch.
    pub(crate) next: Offset,
    /// Size of its `.log` in bytes.
    pub(crate) size: u64,
    /// The largest timestamp of its first batch, from which `segment.ms` counts; -1 if it has no batch.
    pub(crate) first_timestamp: UnixMillis,
    /// The largest timestamp of all its batches.
    pub(crate) max_timestamp: UnixMillis,
    /// The last offset of the first batch with that timestamp.
    pub(crate) max_timestamp_offset: Offset,
    /// When it was created, by the wall clock: replaces timestamps where batches have none.
    pub(crate) created: UnixMillis,
    /// The CRC of its first batch, which distinguishes it from a segment of another log; 0 if it has no batch, or if
    /// unknown.
    pub(crate) first_crc: u32,
}

impl SegmentSummary {
    /// The summary of an empty segment.
    pub(crate) fn new(base: Offset, created: UnixMillis) -> Self {
        Self {
            base,
            next: base,
            size: 0,
            first_timestamp: UnixMillis::NONE,
            max_timestamp: UnixMillis::NONE,
            max_timestamp_offset: base,
            created,
            first_crc: 0,
        }
    }

    /// The timestamp that retention uses: the largest of its records, or the creation time.
    pub(crate) fn largest_timestamp(&self) -> UnixMillis {
        if self.max_timestamp.0 >= 0 {
            self.max_timestamp
        } else {
            self.created
        }
    }

    fn add(&mut self, header: &BatchHeader) {
        if self.size == 0 {
            self.first_timestamp = header.max_timestamp;
            self.first_crc = header.crc;
        }
        if header.max_timestamp > self.max_timestamp {
            self.max_timestamp = header.max_timestamp;
            self.max_timestamp_offset = header.last_offset();
        }
        self.size += header.size_bytes() as u64;
        self.next = header.next_offset();
    }
}

/// Summary of a segment and the sizes of its indexes, as the manifest lists it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct SegmentInfo {
    pub(crate) summary: SegmentSummary,
    pub(crate) offset_entries: u32,
    pub(crate) time_entries: u32,
}

/// A segment that batches are added to: its summary, and when the next index entry and the next roll are due.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct SegmentBuilder {
    pub(crate) summary: SegmentSummary,
    /// Bytes since the last index entry.
    bytes_since_entry: u64,
    pub(crate) offset_entries: u32,
    pub(crate) time_entries: u32,
    last_time_entry: UnixMillis,
    /// Subtracted from `segment.ms` for this segment (`segment.jitter.ms`).
    jitter_ms: i64,
}

/// The index entries that a batch adds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct NewEntries {
    pub(crate) offset: Option<OffsetEntry>,
    pub(crate) time: Option<TimeEntry>,
}

impl SegmentBuilder {
    /// An empty segment.
    pub(crate) fn new(base: Offset, created: UnixMillis, jitter_ms: i64) -> Self {
        Self {
            summary: SegmentSummary::new(base, created),
            bytes_since_entry: 0,
            offset_entries: 0,
            time_entries: 0,
            last_time_entry: UnixMillis::NONE,
            jitter_ms,
        }
    }

    /// The end of a segment that was loaded from disk.
    pub(crate) fn loaded(info: SegmentInfo, last_time_entry: UnixMillis, jitter_ms: i64) -> Self {
        Self {
            summary: info.summary,
            bytes_since_entry: 0,
            offset_entries: info.offset_entries,
            time_entries: info.time_entries,
            last_time_entry,
            jitter_ms,
        }
    }

    /// Whether a batch begins a new segment, by Kafka's conditions.
    pub(crate) fn must_roll(&self, batch: &BatchHeader, config: &LogConfig, wall: UnixMillis) -> bool {
        let summary = &self.summary;
        if summary.size == 0 {
            // An empty segment is rolled only if the batch's offset can't be expressed relative to its base.
            return relative(summary.base, batch.last_offset()).is_none();
        }
        let waited = if summary.first_timestamp.0 >= 0 {
            batch.max_timestamp.0.saturating_sub(summary.first_timestamp.0)
        } else {
            wall.0.saturating_sub(summary.created.0)
        };
        summary.size + batch.size_bytes() as u64 > u64::from(config.segment_bytes)
            || waited > config.segment_ms.saturating_sub(self.jitter_ms)
            || self.index_is_full(config)
            || relative(summary.base, batch.last_offset()).is_none()
    }

    /// Whether an index has no space for another entry.
    pub(crate) fn index_is_full(&self, config: &LogConfig) -> bool {
        // Sealing adds one more entry to the time index.
        self.offset_entries >= config.segment_index_bytes / 8
            || self.time_entries + 1 >= config.segment_index_bytes / 12
    }

    /// Adds a batch at the end. An index entry is due after more than `index_interval_bytes` since the last one.
    pub(crate) fn add(&mut self, batch: &BatchHeader, index_interval_bytes: u32) -> NewEntries {
        let position = self.summary.size;
        self.summary.add(batch);
        let mut new = NewEntries::default();
        if self.bytes_since_entry > u64::from(index_interval_bytes) {
            self.bytes_since_entry = 0;
            new.offset = relative(self.summary.base, batch.last_offset()).map(|relative| OffsetEntry {
                relative,
                position: position as u32,
            });
            self.offset_entries += u32::from(new.offset.is_some());
            new.time = self.time_entry();
        }
        self.bytes_since_entry += batch.size_bytes() as u64;
        new
    }

    /// The time index entry for the largest timestamp so far, if the index lacks it. Due with each offset index
    /// entry, and when the segment is sealed.
    pub(crate) fn time_entry(&mut self) -> Option<TimeEntry> {
        let summary = &self.summary;
        if summary.max_timestamp <= self.last_time_entry {
            return None;
        }
        let relative = relative(summary.base, summary.max_timestamp_offset)?;
        self.last_time_entry = summary.max_timestamp;
        self.time_entries += 1;
        Some(TimeEntry {
            timestamp: summary.max_timestamp,
            relative,
        })
    }
}

/// A segment of a snapshot.
#[derive(Clone, Debug)]
pub(crate) struct Segment {
    pub(crate) summary: SegmentSummary,
    pub(crate) offsets: IndexView<OffsetEntry>,
    pub(crate) times: IndexView<TimeEntry>,
    /// Byte ranges whose headers were checked by reads by offset.
    pub(crate) checked_headers: Arc<CheckedRanges>,
    /// Byte ranges whose CRCs were checked by reads by timestamp.
    pub(crate) checked_batches: Arc<CheckedRanges>,
}

impl Segment {
    pub(crate) fn new(summary: SegmentSummary) -> Self {
        Self {
            summary,
            offsets: IndexView::default(),
            times: IndexView::default(),
            checked_headers: Arc::default(),
            checked_batches: Arc::default(),
        }
    }

    /// A segment whose index entries are all in the files.
    pub(crate) fn sealed(info: SegmentInfo) -> Self {
        let mut segment = Self::new(info.summary);
        segment.offsets.in_file = info.offset_entries;
        segment.times.in_file = info.time_entries;
        segment
    }

    pub(crate) fn info(&self) -> SegmentInfo {
        SegmentInfo {
            summary: self.summary,
            offset_entries: self.offsets.len(),
            time_entries: self.times.len(),
        }
    }

    /// Adds a written group of batches.
    pub(crate) fn extend(&mut self, summary: SegmentSummary, offsets: &[OffsetEntry], times: &[TimeEntry]) {
        self.summary = summary;
        if !offsets.is_empty() {
            Arc::make_mut(&mut self.offsets.tail).extend_from_slice(offsets);
        }
        if !times.is_empty() {
            Arc::make_mut(&mut self.times.tail).extend_from_slice(times);
        }
    }
}

/// The sealed segments, in offset order.
pub(crate) type Segments = Arc<Vec<Arc<Segment>>>;

/// The index of the last segment that begins at `offset` or before it.
pub(crate) fn covering(segments: &[Arc<Segment>], offset: Offset) -> Option<usize> {
    segments
        .partition_point(|s| s.summary.base <= offset)
        .checked_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use brokkr_types::LeaderEpoch;
    use brokkr_wire::records::BatchBuilder;

    fn batch(at: i64, timestamp: i64) -> BatchHeader {
        let mut builder = BatchBuilder::new().at(Offset(at), LeaderEpoch(0));
        builder.push(UnixMillis(timestamp), None, Some(&[0; 900]), &[]);
        builder.build().header
    }

    fn config() -> LogConfig {
        LogConfig {
            segment_bytes: 10_000,
            segment_ms: 1000,
            ..LogConfig::default()
        }
    }

    #[test]
    fn entries_come_after_the_interval_and_name_the_batch_that_begins_there() {
        let mut builder = SegmentBuilder::new(Offset(0), UnixMillis(0), 0);
        let size = batch(0, 0).size_bytes() as u32;
        let mut entries = Vec::new();
        for i in 0..6 {
            let timestamp = [5, 9, 7, 8, 3, 4][i as usize];
            entries.push(builder.add(&batch(i, timestamp), size + 1));
        }
        // More than the interval passed before batches 2 and 4.
        let offset = |relative, position| Some(OffsetEntry { relative, position });
        assert_eq!(entries[2].offset, offset(2, 2 * size));
        assert_eq!(entries[4].offset, offset(4, 4 * size));
        assert_eq!(entries.iter().filter(|e| e.offset.is_some()).count(), 2);
        // The largest timestamp is batch 1's; it is added once.
        assert_eq!(
            entries[2].time,
            Some(TimeEntry {
                timestamp: UnixMillis(9),
                relative: 1
            })
        );
        assert_eq!(entries[4].time, None);
        assert_eq!(builder.time_entry(), None);
    }

    #[test]
    fn a_segment_rolls_by_size_time_index_and_distance() {
        let wall = UnixMillis(0);
        let mut builder = SegmentBuilder::new(Offset(0), wall, 0);
        assert!(
            !builder.must_roll(&batch(0, 1 << 40), &config(), wall),
            "never an empty one"
        );
        assert!(builder.must_roll(&batch(1 << 31, 0), &config(), wall));
        builder.add(&batch(0, 500), 0);
        let rolls = |builder: &SegmentBuilder, b: BatchHeader, c: LogConfig| builder.must_roll(&b, &c, wall);
        assert!(!rolls(&builder, batch(1, 1500), config()));
        assert!(rolls(&builder, batch(1, 1501), config()));
        assert!(rolls(
            &SegmentBuilder {
                jitter_ms: 1,
                ..builder
            },
            batch(1, 1500),
            config()
        ));
        let small = builder.summary.size as u32 * 2;
        assert!(!rolls(
            &builder,
            batch(1, 500),
            LogConfig {
                segment_bytes: small,
                ..config()
            }
        ));
        assert!(rolls(
            &builder,
            batch(1, 500),
            LogConfig {
                segment_bytes: small - 1,
                ..config()
            }
        ));
        assert!(rolls(&builder, batch(1 << 31, 500), config()));
        builder.add(&batch(1, 501), 0);
        assert_eq!(builder.offset_entries, 1);
        assert!(rolls(
            &builder,
            batch(2, 502),
            LogConfig {
                segment_index_bytes: 8,
                ..config()
            }
        ));
    }

    #[test]
    fn without_timestamps_age_is_by_the_wall_clock() {
        let mut builder = SegmentBuilder::new(Offset(0), UnixMillis(100), 0);
        builder.add(&batch(0, -1), 0);
        assert!(!builder.must_roll(&batch(1, -1), &config(), UnixMillis(1100)));
        assert!(builder.must_roll(&batch(1, -1), &config(), UnixMillis(1101)));
    }
}

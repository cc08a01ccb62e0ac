//! Scanning a segment into its summary and indexes, and rebuilding index files from it.

use brokkr_env::{Env, File};
use brokkr_wire::records::{BatchHeader, HEADER_LEN};

use crate::error::{Damage, LogError};
use crate::files::scan::{BatchScan, ScanError};
use crate::files::shared::LogShared;
use crate::formats::names;
use crate::state::batch_chain::BatchChain;
use crate::state::index::{OffsetEntry, TimeEntry, encode};
use crate::state::segment::{Segment, SegmentBuilder, SegmentInfo, SegmentSummary};

/// The summary and indexes of a segment, built by a scan.
pub(crate) struct ScannedSegment {
    pub(crate) builder: SegmentBuilder,
    pub(crate) offsets: Vec<OffsetEntry>,
    pub(crate) times: Vec<TimeEntry>,
}

impl ScannedSegment {
    pub(crate) fn new(builder: SegmentBuilder) -> Self {
        Self {
            builder,
            offsets: Vec::new(),
            times: Vec::new(),
        }
    }

    pub(crate) fn add(&mut self, header: &BatchHeader, index_interval_bytes: u32) {
        let new = self.builder.add(header, index_interval_bytes);
        self.offsets.extend(new.offset);
        self.times.extend(new.time);
    }

    /// Adds the last entry of a sealed segment's time index.
    pub(crate) fn seal(&mut self) {
        self.times.extend(self.builder.time_entry());
    }

    /// Writes the index files, replacing any; durable when this returns. Returns the segment with these indexes.
    pub(crate) async fn write_indexes<E: Env>(&self, shared: &LogShared<E>) -> brokkr_env::Result<Segment> {
        let base = self.builder.summary.base;
        for (suffix, bytes) in [
            (names::INDEX, encode(&self.offsets)),
            (names::TIME_INDEX, encode(&self.times)),
        ] {
            let path = names::path(&shared.folder, base, suffix);
            shared.dir.dir.replace(&path, bytes).await?;
            shared.dir.files.forget(&path);
        }
        Ok(Segment::sealed(SegmentInfo {
            summary: self.builder.summary,
            offset_entries: self.offsets.len() as u32,
            time_entries: self.times.len() as u32,
        }))
    }
}

/// Rebuilds the index files of a sealed segment from its batches.
///
/// # Errors
/// [`LogError::Damaged`] if its batches don't match the manifest's summary.
pub(crate) async fn rebuild_indexes<E: Env>(
    shared: &LogShared<E>,
    file: &File<E>,
    info: &SegmentInfo,
    index_interval_bytes: u32,
) -> Result<Segment, LogError> {
    let summary = &info.summary;
    if shared
        .dir
        .error_log
        .is_first_of("indexes that disagree", file.path())
    {
        tracing::warn!(file = file.path(), "its indexes disagree with it; built anew");
    }
    brokkr_types::reached!("an index was rebuilt");
    let mut scanned = ScannedSegment::new(SegmentBuilder::new(summary.base, summary.created, 0));
    let mut batches = BatchScan::new(file, 0, summary.size);
    let mut chain = BatchChain::of_segment(summary.base);
    while let Some(batch) = batches.next(&mut chain).await? {
        scanned.add(&batch.header, index_interval_bytes);
    }
    // Unknown in a manifest of version 2.
    if summary.first_crc == 0 {
        scanned.builder.summary.first_crc = 0;
    }
    if scanned.builder.summary != *summary {
        return Err(LogError::Damaged(Damage {
            file: file.path().to_owned(),
            position: 0,
            offset: summary.base,
            what: format!(
                "its batches come to {:?}, and brokkr-manifest says {summary:?}",
                scanned.builder.summary
            ),
        }));
    }
    scanned.seal();
    Ok(scanned.write_indexes(shared).await?)
}

/// Checks that a segment begins with the batch whose CRC its summary has. A damaged first batch passes: the read or
/// scan that meets it reports it. `source` names the file that the summary is from.
///
/// # Errors
/// [`LogError::Damaged`] if it begins with another valid batch: it is a segment of another log.
pub(crate) async fn verify_first_batch<E: Env>(
    file: &File<E>,
    summary: &SegmentSummary,
    source: &str,
) -> Result<(), LogError> {
    let end = summary.size.min(file.len());
    if summary.first_crc == 0 || end < HEADER_LEN as u64 {
        return Ok(());
    }
    let first = file.read_at(0, HEADER_LEN as u32).await?;
    let matches = |header: &BatchHeader| header.crc == summary.first_crc;
    if BatchHeader::decode(&first).is_ok_and(|header| matches(&header)) {
        return Ok(());
    }
    let mut chain = BatchChain::of_segment(summary.base);
    match BatchScan::new(file, 0, end).next(&mut chain).await {
        Ok(Some(batch)) if !matches(&batch.header) => Err(LogError::Damaged(Damage {
            file: file.path().to_owned(),
            position: 0,
            offset: summary.base,
            what: format!("it begins with another batch than {source} says: one of both is another log's"),
        })),
        Err(ScanError::Io(e)) => Err(e.into()),
        _ => Ok(()),
    }
}

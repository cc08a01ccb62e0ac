//! Scanning a segment into its summary and indexes, and rebuilding index files from it.

use brokkr_env::{Env, File};
use brokkr_wire::records::{BatchHeader, HEADER_LEN};

use crate::error::{Damage, LogError};
use crate::files::scan::{Scan, ScanError};
use crate::files::shared::Shared;
use crate::formats::names;
use crate::state::chain::Chain;
use crate::state::index::{OffsetEntry, TimeEntry, encode};
use crate::state::segment::{Head, Segment, SegmentInfo, Tip};

/// What a segment's batches come to while they are scanned: its summary and its indexes.
pub(crate) struct SegmentScan {
    pub(crate) tip: Tip,
    pub(crate) offsets: Vec<OffsetEntry>,
    pub(crate) times: Vec<TimeEntry>,
}

impl SegmentScan {
    pub(crate) fn new(tip: Tip) -> Self {
        Self {
            tip,
            offsets: Vec::new(),
            times: Vec::new(),
        }
    }

    pub(crate) fn add(&mut self, header: &BatchHeader, index_interval_bytes: u32) {
        let new = self.tip.add(header, index_interval_bytes);
        self.offsets.extend(new.offset);
        self.times.extend(new.time);
    }

    /// Adds the entry that a sealed segment's time index ends with.
    pub(crate) fn seal(&mut self) {
        self.times.extend(self.tip.time_entry());
    }

    /// Puts the index files in place, whole and durable, and gives the segment that has them.
    pub(crate) async fn write_indexes<E: Env>(&self, shared: &Shared<E>) -> brokkr_env::Result<Segment> {
        let base = self.tip.head.base;
        for (suffix, bytes) in [
            (names::INDEX, encode(&self.offsets)),
            (names::TIME_INDEX, encode(&self.times)),
        ] {
            let path = names::path(&shared.folder, base, suffix);
            shared.dir.dir.replace(&path, bytes).await?;
            shared.dir.files.forget(&path);
        }
        Ok(Segment::sealed(SegmentInfo {
            head: self.tip.head,
            offset_entries: self.offsets.len() as u32,
            time_entries: self.times.len() as u32,
        }))
    }
}

/// Builds the indexes of a sealed segment again from its batches, which must come to what the manifest says.
pub(crate) async fn rebuild_indexes<E: Env>(
    shared: &Shared<E>,
    file: &File<E>,
    info: &SegmentInfo,
    index_interval_bytes: u32,
) -> Result<Segment, LogError> {
    let head = &info.head;
    if shared
        .dir
        .error_log
        .is_first_of("indexes that disagree", file.path())
    {
        tracing::warn!(file = file.path(), "its indexes disagree with it; built anew");
    }
    brokkr_types::reached!("an index was rebuilt");
    let mut scanned = SegmentScan::new(Tip::new(head.base, head.created, 0));
    let mut batches = Scan::new(file, 0, head.size);
    let mut chain = Chain::of_segment(head.base);
    while let Some(batch) = batches.next(&mut chain).await? {
        scanned.add(&batch.header, index_interval_bytes);
    }
    // Not known in an older manifest.
    if head.first_crc == 0 {
        scanned.tip.head.first_crc = 0;
    }
    if scanned.tip.head != *head {
        return Err(LogError::Damaged(Damage {
            file: file.path().to_owned(),
            position: 0,
            offset: head.base,
            what: format!(
                "its batches come to {:?}, and brokkr-manifest says {head:?}",
                scanned.tip.head
            ),
        }));
    }
    scanned.seal();
    Ok(scanned.write_indexes(shared).await?)
}

/// Looks whether a segment begins with the batch that it began with. One that is rotten is left to who reads it; one that is sound is
/// of another log.
pub(crate) async fn is_of_this_log<E: Env>(
    file: &File<E>,
    head: &Head,
    said_by: &str,
) -> Result<(), LogError> {
    let end = head.size.min(file.len());
    if head.first_crc == 0 || end < HEADER_LEN as u64 {
        return Ok(());
    }
    let first = file.read_at(0, HEADER_LEN as u32).await?;
    let is_it = |header: &BatchHeader| header.crc == head.first_crc;
    if BatchHeader::decode(&first).is_ok_and(|header| is_it(&header)) {
        return Ok(());
    }
    let mut chain = Chain::of_segment(head.base);
    match Scan::new(file, 0, end).next(&mut chain).await {
        Ok(Some(batch)) if !is_it(&batch.header) => Err(LogError::Damaged(Damage {
            file: file.path().to_owned(),
            position: 0,
            offset: head.base,
            what: format!("it begins with another batch than {said_by} says: one of both is another log's"),
        })),
        Err(ScanError::Io(e)) => Err(e.into()),
        _ => Ok(()),
    }
}

//! Index files of a segment: lookup, writing, and the check against the segment.

use std::sync::Arc;

use brokkr_env::{Env, Error, ErrorKind, File};
use brokkr_types::{Offset, UnixMillis};

use crate::error::{Damage, LogError, ReadError};
use crate::files::headers::read;
use crate::files::shared::LogShared;
use crate::formats::names;
use crate::state::index::{Entry, IndexView, OffsetEntry, TimeEntry, encode, floor_in_page, relative, rises};
use crate::state::segment::{Segment, SegmentInfo};

/// Bytes of one read of an index.
const PAGE_BYTES: usize = 4096;

impl<T: Entry> IndexView<T> {
    /// The last entry in the file whose key is at most `key`.
    ///
    /// # Errors
    /// [`ReadError::Damaged`] if the entries of a page don't increase.
    pub(crate) async fn floor_in_file<E: Env>(
        &self,
        file: &File<E>,
        key: T::Key,
    ) -> Result<Option<T>, ReadError> {
        let per_page = PAGE_BYTES / T::LEN;
        let pages = (self.in_file as usize).div_ceil(per_page);
        // Binary search for the last page whose first key is at most `key`.
        let (mut lo, mut hi, mut best) = (0, pages, None);
        while lo < hi {
            let mid = lo + (hi - lo) / 2;
            let count = per_page.min(self.in_file as usize - mid * per_page);
            let bytes = read(file, (mid * per_page * T::LEN) as u64, (count * T::LEN) as u32).await?;
            if !rises::<T>(&bytes) {
                return Err(ReadError::Damaged(Damage {
                    file: file.path().to_owned(),
                    position: (mid * per_page * T::LEN) as u64,
                    offset: Offset(0),
                    what: "entries do not rise".to_owned(),
                }));
            }
            let found = floor_in_page::<T>(&bytes, key);
            match found {
                None => hi = mid,
                Some((entry, is_last)) => {
                    best = Some(entry);
                    if !is_last {
                        break;
                    }
                    lo = mid + 1;
                }
            }
        }
        Ok(best)
    }
}

/// Creates the empty index files of a segment.
pub(crate) async fn make_indexes<E: Env>(shared: &LogShared<E>, base: Offset) -> brokkr_env::Result<()> {
    for suffix in [names::INDEX, names::TIME_INDEX] {
        let file = shared
            .dir
            .files
            .open_or_create(&names::path(&shared.folder, base, suffix))
            .await?;
        if !file.is_empty() {
            file.truncate(0).await?;
        }
    }
    Ok(())
}

/// Appends the index entries that are in memory to the files. With `seal`, also cuts the files there and syncs them.
pub(crate) async fn write_tails<E: Env>(
    shared: Arc<LogShared<E>>,
    segment: Segment,
    seal: bool,
) -> brokkr_env::Result<()> {
    let path = |suffix| names::path(&shared.folder, segment.summary.base, suffix);
    write_tail(&shared, &path(names::INDEX), &segment.offsets, seal).await?;
    write_tail(&shared, &path(names::TIME_INDEX), &segment.times, seal).await
}

async fn write_tail<E: Env, T: Entry>(
    shared: &LogShared<E>,
    path: &str,
    view: &IndexView<T>,
    seal: bool,
) -> brokkr_env::Result<()> {
    let file = shared.dir.files.open_or_create(path).await?;
    let at = u64::from(view.in_file) * T::LEN as u64;
    if file.len() < at {
        let what = format!("{path}: {} bytes, {at} were written", file.len());
        return Err(Error::new(ErrorKind::UnexpectedEof, what));
    }
    // An earlier attempt wrote this file and failed at the other. BEFORE the write: on a full disk a write that overwrites can't
    // be taken back, and poisons the directory.
    if file.len() > at {
        file.truncate(at).await?;
    }
    let bytes = encode(&view.tail);
    if !bytes.is_empty() {
        file.write_at(at, vec![bytes]).await?;
    }
    if seal {
        file.sync().await?;
    }
    Ok(())
}

/// Checks the size and the last entry of a segment's index files against its summary. Returns the last timestamp of
/// the time index; `None` if the files don't match. Wrong entries before the last are noticed by the reads that
/// follow them.
pub(crate) async fn check_indexes<E: Env>(
    shared: &LogShared<E>,
    info: &SegmentInfo,
) -> Result<Option<UnixMillis>, LogError> {
    let path = |suffix| names::path(&shared.folder, info.summary.base, suffix);
    let open = async |suffix| match shared.dir.files.open(&path(suffix)).await {
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        other => other.map(Some),
    };
    let (Some(offsets), Some(times)) = (open(names::INDEX).await?, open(names::TIME_INDEX).await?) else {
        return Ok(None);
    };
    let summary = &info.summary;
    let end = relative(summary.base, summary.next).unwrap_or(u32::MAX);
    // Whether the batch is there is checked by the reads that follow the entry: if not, the batch may be what is
    // damaged.
    match last_entry::<E, OffsetEntry>(&offsets, info.offset_entries).await? {
        Some(Some(last)) if last.position == 0 || u64::from(last.position) >= summary.size => {
            return Ok(None);
        }
        Some(Some(last)) if last.relative >= end => return Ok(None),
        None => return Ok(None),
        Some(_) => {}
    }
    match last_entry::<E, TimeEntry>(&times, info.time_entries).await? {
        None => Ok(None),
        Some(None) if summary.max_timestamp.0 < 0 => Ok(Some(UnixMillis::NONE)),
        Some(None) => Ok(None),
        Some(Some(last)) => {
            let expected = (
                summary.max_timestamp,
                relative(summary.base, summary.max_timestamp_offset),
            );
            Ok((expected == (last.timestamp, Some(last.relative))).then_some(last.timestamp))
        }
    }
}

/// The last of an index file's `count` entries (`Some(None)` if `count` is 0); `None` if the file has another size.
async fn last_entry<E: Env, T: Entry>(file: &File<E>, count: u32) -> Result<Option<Option<T>>, LogError> {
    let len = u64::from(count) * T::LEN as u64;
    if file.len() != len {
        return Ok(None);
    }
    if len == 0 {
        return Ok(Some(None));
    }
    let last = file.read_at(len - T::LEN as u64, T::LEN as u32).await?;
    Ok(Some(Some(T::get(&last))))
}

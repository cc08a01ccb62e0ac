//! Sparse indexes: from offset to position, and from timestamp to offset.
//!
//! ```text
//! .index      entry: offset − base u32 │ position u32     a batch's last offset and its position
//! .timeindex  entry: timestamp i64 │ offset − base u32    the largest timestamp so far and the last offset of its batch
//! ```
//! Big-endian, increasing in every column, no header: Kafka's format. An index is derived from its segment and never
//! trusted: readers check that an entry leads to its batch, and recovery rebuilds the indexes of segments that were
//! not sealed.
//!
//! The newest entries of the active segment are only in memory; [`IndexView`] combines both parts.

use std::sync::Arc;

use brokkr_types::{Offset, UnixMillis};
use bytes::Bytes;

/// An index entry.
pub(crate) trait Entry: Copy + PartialEq + std::fmt::Debug + Send + Sync + 'static {
    /// The column that lookups use.
    type Key: Copy + Ord;
    /// Its size in bytes.
    const LEN: usize;
    fn key(&self) -> Self::Key;
    /// Whether it may follow `before`.
    fn follows(&self, before: &Self) -> bool;
    fn put(&self, out: &mut Vec<u8>);
    /// Decodes exactly [`Entry::LEN`] bytes.
    fn get(bytes: &[u8]) -> Self;
}

/// An entry of the offset index.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct OffsetEntry {
    /// The last offset of a batch, relative to the segment's base offset.
    pub(crate) relative: u32,
    /// The position of the batch.
    pub(crate) position: u32,
}

/// An entry of the time index.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct TimeEntry {
    /// The largest timestamp up to this batch.
    pub(crate) timestamp: UnixMillis,
    /// The last offset of the first batch with this timestamp, relative to the segment's base offset.
    pub(crate) relative: u32,
}

impl Entry for OffsetEntry {
    type Key = u32;
    const LEN: usize = 8;

    fn key(&self) -> u32 {
        self.relative
    }

    fn follows(&self, before: &Self) -> bool {
        self.relative > before.relative && self.position > before.position
    }

    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.relative.to_be_bytes());
        out.extend_from_slice(&self.position.to_be_bytes());
    }

    fn get(bytes: &[u8]) -> Self {
        Self {
            relative: u32_at(bytes, 0),
            position: u32_at(bytes, 4),
        }
    }
}

impl Entry for TimeEntry {
    type Key = i64;
    const LEN: usize = 12;

    fn key(&self) -> i64 {
        self.timestamp.0
    }

    fn follows(&self, before: &Self) -> bool {
        self.timestamp > before.timestamp && self.relative > before.relative
    }

    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.timestamp.0.to_be_bytes());
        out.extend_from_slice(&self.relative.to_be_bytes());
    }

    fn get(bytes: &[u8]) -> Self {
        let mut timestamp = [0; 8];
        timestamp.copy_from_slice(&bytes[..8]);
        Self {
            timestamp: UnixMillis(i64::from_be_bytes(timestamp)),
            relative: u32_at(bytes, 8),
        }
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut four = [0; 4];
    four.copy_from_slice(&bytes[at..at + 4]);
    u32::from_be_bytes(four)
}

/// Encodes entries in the file's format.
pub(crate) fn encode<T: Entry>(entries: &[T]) -> Bytes {
    let mut out = Vec::with_capacity(entries.len() * T::LEN);
    for entry in entries {
        entry.put(&mut out);
    }
    out.into()
}

/// The last of `entries` whose key is at most `key`.
pub(crate) fn floor<T: Entry>(entries: &[T], key: T::Key) -> Option<T> {
    let after = entries.partition_point(|e| e.key() <= key);
    after.checked_sub(1).map(|i| entries[i])
}

/// An index at one moment: the first `in_file` entries are in the file, the others in memory.
#[derive(Clone, Debug)]
pub(crate) struct IndexView<T> {
    pub(crate) in_file: u32,
    pub(crate) tail: Arc<Vec<T>>,
}

impl<T> Default for IndexView<T> {
    fn default() -> Self {
        Self {
            in_file: 0,
            tail: Arc::default(),
        }
    }
}

impl<T: Entry> IndexView<T> {
    /// The number of entries.
    pub(crate) fn len(&self) -> u32 {
        self.in_file + self.tail.len() as u32
    }

    /// Removes the `n` oldest entries from memory, once they are in the file.
    pub(crate) fn flushed(&mut self, n: usize) {
        self.in_file += n as u32;
        let tail = Arc::make_mut(&mut self.tail);
        tail.drain(..n);
        if tail.is_empty() {
            // Frees the capacity: an idle partition stays small.
            *tail = Vec::new();
        }
    }

    /// The last entry whose key is at most `key`, if memory suffices to find it. `Ok(None)`: there is none.
    /// `Err(())`: the file has to be read.
    pub(crate) fn floor_in_memory(&self, key: T::Key) -> Result<Option<T>, ()> {
        match floor(&self.tail, key) {
            None if self.in_file > 0 => Err(()),
            found => Ok(found),
        }
    }
}

/// Whether the entries of a page increase in every column.
pub(crate) fn rises<T: Entry>(bytes: &[u8]) -> bool {
    let entries = || bytes.chunks_exact(T::LEN).map(T::get);
    entries().zip(entries().skip(1)).all(|(a, b)| b.follows(&a))
}

/// The last entry of a page whose key is at most `key`, and whether it is the page's last entry.
pub(crate) fn floor_in_page<T: Entry>(bytes: &[u8], key: T::Key) -> Option<(T, bool)> {
    let count = bytes.len() / T::LEN;
    let at = |i: usize| T::get(&bytes[i * T::LEN..(i + 1) * T::LEN]);
    let (mut lo, mut hi) = (0, count);
    while lo < hi {
        let mid = lo + (hi - lo) / 2;
        if at(mid).key() <= key {
            lo = mid + 1
        } else {
            hi = mid
        }
    }
    lo.checked_sub(1).map(|i| (at(i), i + 1 == count))
}

/// The offset relative to a segment's base, if an index can hold it: Kafka reads it as a non-negative `int`.
pub(crate) fn relative(base: Offset, offset: Offset) -> Option<u32> {
    let relative = u32::try_from(offset.0.checked_sub(base.0)?).ok()?;
    (relative <= i32::MAX as u32).then_some(relative)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn rows_are_kafkas() {
        let offset = OffsetEntry {
            relative: 0x0102_0304,
            position: 0x0506_0708,
        };
        assert_eq!(encode(&[offset])[..], [1, 2, 3, 4, 5, 6, 7, 8]);
        let time = TimeEntry {
            timestamp: UnixMillis(0x0102_0304_0506_0708),
            relative: 9,
        };
        assert_eq!(encode(&[time])[..], [1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 9]);
        assert_eq!(
            (
                OffsetEntry::get(&encode(&[offset])),
                TimeEntry::get(&encode(&[time]))
            ),
            (offset, time)
        );
    }

    #[test]
    fn a_relative_offset_is_a_positive_int() {
        assert_eq!(
            relative(Offset(5), Offset(5 + i64::from(i32::MAX))),
            Some(i32::MAX as u32)
        );
        assert_eq!(relative(Offset(5), Offset(6 + i64::from(i32::MAX))), None);
        assert_eq!(relative(Offset(5), Offset(4)), None);
    }

    proptest! {
        #[test]
        fn a_floor_is_the_last_entry_not_past_the_key(
            steps in prop::collection::vec(1..5u32, 0..700), key in 0..3000u32
        ) {
            let mut rows: Vec<OffsetEntry> = Vec::new();
            for step in steps {
                let last = rows.last().copied().unwrap_or(OffsetEntry { relative: 0, position: 0 });
                rows.push(OffsetEntry { relative: last.relative + step, position: last.position + 1 });
            }
            let model = rows.iter().rev().find(|r| r.relative <= key).copied();
            prop_assert_eq!(floor(&rows, key), model);
            prop_assert_eq!(floor_in_page::<OffsetEntry>(&encode(&rows), key).map(|f| f.0), model);
        }
    }
}

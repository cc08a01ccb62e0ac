//! A segment of a snapshot with its open file, and ranges of it.

use brokkr_env::{Env, File, FileRange};
use brokkr_types::Offset;
use brokkr_wire::records::BatchHeader;

use crate::error::ReadError;
use crate::state::segment::Segment;

/// A segment of a snapshot with its open file.
pub(crate) struct OpenSegment<'a, E: Env> {
    pub(crate) segment: &'a Segment,
    pub(crate) file: File<E>,
    pub(crate) truncations: u64,
    /// Whether offsets may be missing in the segment.
    pub(crate) gaps: bool,
    pub(crate) is_active: bool,
}

/// A batch that a read located.
pub(crate) struct FoundBatch {
    pub(crate) position: u64,
    pub(crate) header: BatchHeader,
}

impl<E: Env> OpenSegment<'_, E> {
    /// [`ReadError::Stale`] if the file was truncated since the snapshot was taken, otherwise `error`.
    pub(crate) fn or_stale(&self, error: ReadError) -> ReadError {
        if self.file.truncations() == self.truncations {
            error
        } else {
            ReadError::Stale
        }
    }

    pub(crate) fn slice(&self, from: u64, to: u64, first: Offset) -> Result<Slice<E>, ReadError> {
        let range = self
            .file
            .range_unless_cut(from, (to - from) as u32, self.truncations)
            .ok_or(ReadError::Stale)?;
        Ok(Slice {
            range,
            first,
            segment: self.segment.summary.base,
        })
    }
}

/// The result of a read.
pub struct Slice<E: Env> {
    /// A range of the file: complete batches, except the last, which `max_bytes` may cut, as in Kafka.
    pub range: FileRange<E>,
    /// The base offset of the first batch: at or before the requested offset (W6).
    pub first: Offset,
    /// The base offset of the segment.
    pub segment: Offset,
}

impl<E: Env> std::fmt::Debug for Slice<E> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Slice({:?} from offset {})", self.range, self.first)
    }
}

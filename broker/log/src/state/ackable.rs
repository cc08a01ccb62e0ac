//! The offset up to which a log may be acknowledged, as a value that carries the reason.

use brokkr_env::{Durable, Env, File};
use brokkr_types::Offset;

/// Batches before this offset may be acknowledged and count for the high watermark.
///
/// Only this module constructs it. With `flush.messages` 1, it requires a file's proof of durability:
///
/// ```compile_fail
/// let end = brokkr_log::AckableOffset::Durable(brokkr_log::DurableEnd(brokkr_types::Offset(7)));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AckableOffset {
    /// Everything before survives power loss.
    Durable(DurableEnd),
    /// Everything before is written; the configuration asks for no sync (`flush.messages` above 1).
    Unflushed(WrittenEnd),
}

/// The end of the batches that survive power loss.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DurableEnd(Offset);

/// The end of the batches that are written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WrittenEnd(Offset);

impl AckableOffset {
    /// The first offset that may not be acknowledged.
    pub fn offset(self) -> Offset {
        match self {
            Self::Durable(DurableEnd(offset)) | Self::Unflushed(WrittenEnd(offset)) => offset,
        }
    }

    /// From the proof that `file` is durable up to `position`, which is the position of offset `end`.
    ///
    /// # Panics
    /// If the proof is for another file, for its state before a truncation, or for fewer bytes.
    pub(crate) fn from_proof<E: Env>(proof: &Durable, file: &File<E>, position: u64, end: Offset) -> Self {
        assert_eq!(proof.file(), file.id(), "the proof is of this file");
        assert_eq!(
            proof.truncations(),
            file.truncations(),
            "and of what it holds now"
        );
        assert!(proof.len() >= position, "and reaches far enough");
        Self::Durable(DurableEnd(end))
    }

    /// For a log that was closed after a sync: its checksummed manifest and the clean-shutdown marker, which is
    /// written after it, are the proof.
    pub(crate) fn closed(end: Offset) -> Self {
        Self::Durable(DurableEnd(end))
    }

    pub(crate) fn written(end: Offset) -> Self {
        Self::Unflushed(WrittenEnd(end))
    }
}

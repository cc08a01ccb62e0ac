//! Up to where a log may be acknowledged, as a value that says why.

use brokkr_env::{Durable, Env, File};
use brokkr_types::Offset;

/// Everything before this offset may be acknowledged, voted on, counted to the high watermark.
///
/// Minted here alone. Where the configuration asks for durability (`flush.messages` 1) it comes from a file's proof:
///
/// ```compile_fail
/// let end = brokkr_log::AckableOffset::Durable(brokkr_log::DurableEnd(brokkr_types::Offset(7)));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AckableOffset {
    /// It survives power loss.
    Durable(DurableEnd),
    /// It is written, and the configuration asks for no more.
    Unflushed(WrittenEnd),
}

/// The end of what survives power loss.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DurableEnd(Offset);

/// The end of what is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WrittenEnd(Offset);

impl AckableOffset {
    /// The offset itself: the first that may not.
    pub fn offset(self) -> Offset {
        match self {
            Self::Durable(DurableEnd(offset)) | Self::Unflushed(WrittenEnd(offset)) => offset,
        }
    }

    /// From the proof that `file` is durable up to `position`, where `end` stands.
    ///
    /// # Panics
    /// If the proof is of something else.
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

    /// For a log that was closed with everything synced: the checksummed manifest and the clean-shutdown marker, written
    /// after that, are the proof.
    pub(crate) fn closed(end: Offset) -> Self {
        Self::Durable(DurableEnd(end))
    }

    pub(crate) fn written(end: Offset) -> Self {
        Self::Unflushed(WrittenEnd(end))
    }
}

//! A file that was damaged while the broker was down.

/// The folder of the metadata log.
pub(super) const METADATA: &str = "__cluster_metadata-0";

/// The contents of a file before it was damaged.
pub(super) struct DamagedFile {
    pub(super) path: String,
    pub(super) before: Vec<u8>,
}

//! IO on the files of a log directory and of a partition's folder: open files, listing, scanning, indexes, checkpoints.

pub(crate) mod cache;
pub mod checkpoint;
pub(crate) mod dir;
pub(crate) mod early_syncs;
pub(crate) mod folder;
pub(crate) mod headers;
pub(crate) mod index_files;
pub(crate) mod reserve;
pub(crate) mod scan;
pub(crate) mod segment_scan;
pub(crate) mod shared;

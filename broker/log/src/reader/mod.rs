//! Reads of a log by any task, from an immutable snapshot: by offset and by timestamp.

pub(crate) mod open_segment;
pub(crate) mod read;
pub(crate) mod timestamps;
pub(crate) mod view;
pub(crate) mod walk;

//! The bytes of each file of a log directory: names, encoding, decoding. No IO.

pub(crate) mod bytes;
pub(crate) mod checkpoint;
pub(crate) mod manifest;
pub(crate) mod names;
pub(crate) mod snapshot;
pub(crate) mod text;

//! Files and directories of either world, from the bottom up: what a world implements ([`raw`]), the order of a file's
//! operations as a pure state machine ([`lane`]), [`file`], [`dir`].

pub(crate) mod dir;
pub(crate) mod file;
mod lane;
pub(crate) mod raw;

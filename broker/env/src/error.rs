//! What the world answers when it can't.

use std::fmt;

/// The result of anything asked of the world.
pub type Result<T> = std::result::Result<T, Error>;

/// Why it failed, as far as the broker has to tell one from another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ErrorKind {
    /// No such file or directory.
    NotFound,
    /// Something of that name exists.
    AlreadyExists,
    /// The operating system forbids it.
    PermissionDenied,
    /// Another process holds the lock, or the port.
    InUse,
    /// No room: the disk or a quota is full. What was written of it was cut off again.
    NoSpace,
    /// The machine is short of something else for now: descriptors, memory, threads; or the call was interrupted. What met it
    /// failed and nothing is in doubt: it may be tried again.
    Resources,
    /// An operation submitted before this one on the same file failed; this one was not begun.
    Preceding,
    /// The directory was poisoned by a failed sync or a write of unknown extent: no writing until restart.
    Poisoned,
    /// The directory is not the one that was locked any more: it was unmounted, removed or replaced. Poisons.
    Lost,
    /// A read past the end of the file, or an open one that is shorter than it should be.
    UnexpectedEof,
    /// The connection is gone.
    Disconnected,
    /// The peer refused, or can't be reached.
    Refused,
    /// The world ended before it answered (the node was killed, the process is stopping).
    Gone,
    /// Anything else: an IO error.
    Io,
}

/// A failure, with the sentence to log.
#[derive(Clone, PartialEq, Eq)]
pub struct Error {
    kind: ErrorKind,
    what: Box<str>,
}

impl Error {
    /// A failure of `kind`, told as `what`.
    pub fn new(kind: ErrorKind, what: impl Into<String>) -> Self {
        Self {
            kind,
            what: what.into().into_boxed_str(),
        }
    }

    /// Its kind.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.kind, self.what)
    }
}

impl std::error::Error for Error {}

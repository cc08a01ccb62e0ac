//! Errors of the abstract world.

use std::fmt;

/// The result of an operation of the world.
pub type Result<T> = std::result::Result<T, Error>;

/// The kind of an error, as far as the broker handles kinds differently.
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
    /// The disk or a quota is full. The partial write was cut off again.
    NoSpace,
    /// The machine is temporarily short of descriptors, memory or threads, or the call was interrupted. Only this operation
    /// failed; it can be retried.
    Resources,
    /// An earlier operation on the same file failed, so this one was not started.
    Preceding,
    /// The directory was poisoned by a failed sync or a write of unknown extent: no writing until restart.
    Poisoned,
    /// The path no longer leads to the locked directory: it was unmounted, removed or replaced. Poisons.
    Lost,
    /// The read ends past the end of the file.
    UnexpectedEof,
    /// The connection is gone.
    Disconnected,
    /// The peer refused the connection or is unreachable.
    Refused,
    /// The world ended before it answered (the node was killed, or the process is stopping).
    Gone,
    /// Any other IO error.
    Io,
}

/// An error with a message for the log.
#[derive(Clone, PartialEq, Eq)]
pub struct Error {
    kind: ErrorKind,
    what: Box<str>,
}

impl Error {
    /// Creates an error with this message.
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

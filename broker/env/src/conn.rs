//! Byte streams to peers, and the parts sent on them.

use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{Bytes, BytesMut};

use crate::file::File;
use crate::{Env, Result};

/// Accepts connections.
pub trait Listener<E: Env>: Send + 'static {
    /// Waits for the next connection; returns it with the peer's address. Cancel-safe.
    fn accept(&mut self) -> impl Future<Output = Result<(E::Conn, SocketAddr)>> + Send;
    /// The address it listens on.
    fn local_addr(&self) -> SocketAddr;
}

/// A connected stream. Dropping both halves closes it.
pub trait Conn<E: Env>: Send + 'static {
    /// The read half.
    type Read: ReadHalf;
    /// The write half.
    type Write: WriteHalf<E>;
    /// Splits the connection into its two halves.
    fn split(self) -> (Self::Read, Self::Write);
}

/// The read half of a connection.
pub trait ReadHalf: Send + 'static {
    /// Waits for bytes and appends them to `buf`. Returns how many; 0 means that the peer closed its side. Never grows
    /// `buf`, which must have spare capacity. Cancel-safe.
    fn read(&mut self, buf: &mut BytesMut) -> impl Future<Output = Result<usize>> + Send;
}

/// The write half of a connection. Belongs to one task.
pub trait WriteHalf<E: Env>: Send + 'static {
    /// Sends all parts, in order. NOT cancel-safe: dropping the future closes the connection.
    fn write(&mut self, parts: Vec<Part<E>>) -> impl Future<Output = Result<()>> + Send;
    /// The counter of bytes handed to the network. It also advances while [`WriteHalf::write`] runs.
    fn progress(&self) -> Progress;
    /// Closes the write half: the peer reads end of stream.
    fn shutdown(&mut self) -> impl Future<Output = Result<()>> + Send;
}

/// A byte counter that only grows. Clones share it.
#[derive(Clone, Default, Debug)]
pub struct Progress(Arc<AtomicU64>);

impl Progress {
    /// For worlds: adds bytes that were handed to the network.
    pub fn add(&self, bytes: usize) {
        self.0.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Bytes so far.
    pub fn bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A part of a response or request to send.
pub enum Part<E: Env> {
    /// Bytes in memory.
    Bytes(Bytes),
    /// A range of a file, read when it is sent.
    Range(FileRange<E>),
}

impl<E: Env> Part<E> {
    /// Length in bytes.
    pub fn len(&self) -> usize {
        match self {
            Self::Bytes(b) => b.len(),
            Self::Range(r) => r.len() as usize,
        }
    }

    /// Whether the part has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<E: Env> From<Bytes> for Part<E> {
    fn from(bytes: Bytes) -> Self {
        Self::Bytes(bytes)
    }
}

/// A written range of a file on its way to a socket. Pins the file and delays truncates of the range; see [`File::range`].
pub struct FileRange<E: Env> {
    file: File<E>,
    at: u64,
    len: u32,
    pin: u64,
}

impl<E: Env> FileRange<E> {
    pub(crate) fn new(file: File<E>, at: u64, len: u32, pin: u64) -> Self {
        Self { file, at, len, pin }
    }

    /// The file.
    pub fn file(&self) -> &File<E> {
        &self.file
    }

    /// For worlds: the raw file to read from when the range is sent.
    pub fn raw(&self) -> &E::RawFile {
        self.file.raw()
    }

    /// Position in the file of the first byte.
    pub fn at(&self) -> u64 {
        self.at
    }

    /// Length in bytes.
    pub fn len(&self) -> u32 {
        self.len
    }

    /// Whether it is empty.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl<E: Env> Drop for FileRange<E> {
    fn drop(&mut self) {
        self.file.unpin(self.pin);
    }
}

impl<E: Env> fmt::Debug for FileRange<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[{}..+{}]", self.file.path(), self.at, self.len)
    }
}

//! Byte streams to peers, and what goes out on them.

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
    /// The next connection and where it comes from. Cancel-safe.
    fn accept(&mut self) -> impl Future<Output = Result<(E::Conn, SocketAddr)>> + Send;
    /// Where it listens.
    fn local_addr(&self) -> SocketAddr;
}

/// A connected stream. Dropping both halves closes it.
pub trait Conn<E: Env>: Send + 'static {
    /// What reads from it.
    type Read: ReadHalf;
    /// What writes to it.
    type Write: WriteHalf<E>;
    /// Its two directions.
    fn split(self) -> (Self::Read, Self::Write);
}

/// The direction from the peer.
pub trait ReadHalf: Send + 'static {
    /// Appends what is there to `buf`, waiting until there is something: how many bytes, 0 when the peer has closed its
    /// side. Never grows `buf`, which must have room. Cancel-safe.
    fn read(&mut self, buf: &mut BytesMut) -> impl Future<Output = Result<usize>> + Send;
}

/// The direction to the peer. Belongs to one task.
pub trait WriteHalf<E: Env>: Send + 'static {
    /// Sends all parts, in order. NOT cancel-safe: who drops the future closes the connection.
    fn write(&mut self, parts: Vec<Part<E>>) -> impl Future<Output = Result<()>> + Send;
    /// Counts what was handed to the network so far, also while [`WriteHalf::write`] is under way.
    fn progress(&self) -> Progress;
    /// Tells the peer that nothing more comes.
    fn shutdown(&mut self) -> impl Future<Output = Result<()>> + Send;
}

/// A count of bytes that only grows. Cloning shares it.
#[derive(Clone, Default, Debug)]
pub struct Progress(Arc<AtomicU64>);

impl Progress {
    /// For worlds: so many more bytes were handed over.
    pub fn add(&self, bytes: usize) {
        self.0.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Bytes so far.
    pub fn bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A piece of what is sent.
pub enum Part<E: Env> {
    /// Bytes in memory.
    Bytes(Bytes),
    /// Bytes of a file, read when they leave.
    Range(FileRange<E>),
}

impl<E: Env> Part<E> {
    /// How many bytes it sends.
    pub fn len(&self) -> usize {
        match self {
            Self::Bytes(b) => b.len(),
            Self::Range(r) => r.len() as usize,
        }
    }

    /// Whether it sends none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<E: Env> From<Bytes> for Part<E> {
    fn from(bytes: Bytes) -> Self {
        Self::Bytes(bytes)
    }
}

/// Written bytes of a file on their way to a socket. Pins the file and holds back truncates of it; see [`File::range`].
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

    /// For worlds: the raw file to read from when the bytes leave.
    pub fn raw(&self) -> &E::RawFile {
        self.file.raw()
    }

    /// Where it begins.
    pub fn at(&self) -> u64 {
        self.at
    }

    /// How long it is.
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

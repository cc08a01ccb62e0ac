//! Byte streams to peers, and the parts sent on them.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{Bytes, BytesMut};

use crate::Result;
use crate::files::file::FileRange;
use crate::files::raw::Storage;

/// Accepts connections.
pub trait Listener: Send + 'static {
    /// A connection that it accepts.
    type Conn: Send + 'static;
    /// Waits for the next connection; returns it with the peer's address. Cancel-safe.
    fn accept(&mut self) -> impl Future<Output = Result<(Self::Conn, SocketAddr)>> + Send;
    /// The address it listens on.
    fn local_addr(&self) -> SocketAddr;
}

/// A connected stream. Dropping both halves closes it.
pub trait Conn<S: Storage>: Send + 'static {
    /// The read half.
    type Read: ReadHalf;
    /// The write half.
    type Write: WriteHalf<S>;
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
pub trait WriteHalf<S: Storage>: Send + 'static {
    /// Sends all parts, in order. NOT cancel-safe: dropping the future closes the connection.
    fn write(&mut self, parts: Vec<Part<S>>) -> impl Future<Output = Result<()>> + Send;
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
pub enum Part<S: Storage> {
    /// Bytes in memory.
    Bytes(Bytes),
    /// A range of a file, read when it is sent.
    Range(FileRange<S>),
}

impl<S: Storage> Part<S> {
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

impl<S: Storage> From<Bytes> for Part<S> {
    fn from(bytes: Bytes) -> Self {
        Self::Bytes(bytes)
    }
}

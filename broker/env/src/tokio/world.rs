//! The handle of the real world and its files.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use super::disk::{OsDir, OsFile};
use crate::{Rng, Storage};

/// The real world, on a tokio runtime.
#[derive(Clone)]
pub struct TokioEnv {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub(super) start: std::time::Instant,
    pub(super) rngs: Mutex<BTreeMap<&'static str, Rng>>,
    pub(super) io_threads: usize,
    pub(super) buffers: SocketBuffers,
}

/// Kernel buffer sizes of accepted connections, in bytes; `None` keeps the kernel's default.
///
/// Small buffers are not slow: data sent in pieces that fit the processor's cache crosses memory once, not twice.
#[derive(Clone, Copy, Default, Debug)]
pub struct SocketBuffers {
    /// Sent but not acknowledged bytes.
    pub send: Option<usize>,
    /// Received but not read bytes.
    pub receive: Option<usize>,
}

impl TokioEnv {
    /// A new world. Each log directory gets a pool of at most `io_threads` threads for blocking IO. Must be used on a tokio
    /// runtime with IO and time enabled.
    pub fn new(io_threads: usize) -> Self {
        Self::with_buffers(io_threads, SocketBuffers::default())
    }

    /// [`TokioEnv::new`] with buffer sizes for accepted connections.
    pub fn with_buffers(io_threads: usize, buffers: SocketBuffers) -> Self {
        assert!(io_threads > 0, "IO needs a thread");
        let inner = Inner {
            start: std::time::Instant::now(),
            rngs: Mutex::default(),
            io_threads,
            buffers,
        };
        Self {
            inner: Arc::new(inner),
        }
    }
}

impl Storage for TokioEnv {
    type RawFile = OsFile;
    type RawDir = OsDir;
}

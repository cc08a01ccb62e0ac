//! The abstract IO and time layer: everything that the broker uses of the outside world.
//!
//! There are two worlds: [`tokio`] is the real one (the only code that touches the operating system); the simulator is the
//! other. The same broker runs in both, so it may use nothing that is not in [`Env`].
//!
//! A world implements small raw traits ([`RawFile`], [`RawDir`], [`Conn`]). This crate builds on them what the broker uses,
//! once for both worlds: [`File`] with its order of operations and its proof of durability ([`Durable`]), [`Dir`] with its
//! poison, [`FileRange`] with its pin.
//!
//! The files of this crate import downwards: `error`, `rng`, `submitted`, `published` know nothing of a world; `files` knows
//! [`Storage`], the part of [`Env`] that files need; `conn` sends ranges of files; [`Env`] joins them; `error_log` and
//! [`tokio`] are above it. Rules:
//!
//! - A call submits its file operation, in call order; dropping a [`Submitted`] cancels nothing.
//! - A short or failed write is cut back to the last good length before the next one starts; operations queued after it fail
//!   with [`ErrorKind::Preceding`].
//! - A failed sync, or a write whose extent is unknown, poisons the directory for writing until restart.
//! - Reading from a connection is cancel-safe; writing to one is not, and belongs to one task.
//! - Dropping a [`Task`] detaches it. A panic in a task ends the process.

pub mod conn;
mod error;
mod error_log;
mod files;
mod later;
mod published;
mod rng;
mod submitted;
pub mod tokio;

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

pub use brokkr_types::{Instant, UnixMillis};

pub use conn::{Conn, Listener, Part, Progress, ReadHalf, WriteHalf};
pub use error::{Error, ErrorKind, Result};
pub use error_log::ErrorLog;
pub use files::dir::Dir;
pub use files::file::{Durable, File, FileId, FileRange};
pub use files::raw::{Done, Entry, EntryKind, Poison, RawDir, RawFile, Storage, WriteFailure};
pub use later::poll_later;
pub use published::{Latest, Published, Reader};
pub use rng::Rng;
pub use submitted::{Completer, Submitted, submitted};

/// A world: the only type parameter of the broker.
///
/// No method has a default body: a world that forgot to implement one would use the real world there.
pub trait Env: Storage {
    /// A listening socket.
    type Listener: Listener<Conn = Self::Conn>;
    /// A connected byte stream.
    type Conn: Conn<Self>;

    /// The monotonic clock.
    fn now(&self) -> Instant;

    /// The wall clock, which may jump. Use it only for record timestamps and expiry.
    fn wall(&self) -> UnixMillis;

    /// The stream of random numbers of this name: one for each (node, incarnation, name); all callers share it.
    fn rng(&self, stream: &'static str) -> Rng;

    /// Waits until the monotonic clock reads `at`. Cancel-safe.
    fn sleep_until(&self, at: Instant) -> impl Future<Output = ()> + Send + 'static;

    /// Starts a task. A panic in it ends the process.
    fn spawn(&self, name: &'static str, future: impl Future<Output = ()> + Send + 'static) -> Task;

    /// Opens the directory at `path`. Creates it and its parents durably if they don't exist. Doesn't lock it: [`Dir::lock`]
    /// does.
    fn open_dir(&self, path: &str) -> impl Future<Output = Result<Dir<Self>>> + Send;

    /// Binds and listens. Port 0 picks a free port; see [`Listener::local_addr`].
    fn listen(&self, addr: SocketAddr) -> impl Future<Output = Result<Self::Listener>> + Send;

    /// Connects to `host:port`.
    fn connect(&self, host: &str, port: u16) -> impl Future<Output = Result<Self::Conn>> + Send;

    /// Resolves `host:port` to an address that [`Env::listen`] takes.
    fn resolve(&self, host: &str, port: u16) -> impl Future<Output = Result<SocketAddr>> + Send;
}

/// A spawned task. Awaiting it waits for its end; dropping it detaches it. It can't be aborted; it must be asked to stop.
pub struct Task {
    done: Submitted<()>,
}

impl Task {
    /// For worlds: a task that ends when `done` completes.
    pub fn new(done: Submitted<()>) -> Self {
        Self { done }
    }
}

impl Future for Task {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        // If the completer was dropped, the task was dropped (its node was killed): the handle never completes.
        match Pin::new(&mut self.done).poll(cx) {
            Poll::Ready(Ok(())) => Poll::Ready(()),
            Poll::Ready(Err(_)) | Poll::Pending => Poll::Pending,
        }
    }
}

//! The abstract IO and time layer: all that the broker may ask of the world.
//!
//! Two worlds answer: [`tokio`] is the real one (and the only place that touches the operating system), the simulator's
//! is the other. The same broker runs in both, so what isn't asked through [`Env`] doesn't exist in the seeded one.
//!
//! What a world implements is small and raw ([`RawFile`], [`RawDir`], [`Conn`]); what the broker uses is built over it
//! *here*, once for both: [`File`] with its order of operations and its proof of durability ([`Durable`]), [`Dir`] with
//! its poison, [`FileRange`] with its pin. Rules:
//!
//! - An operation on a file is submitted by the call, in call order; dropping a [`Submitted`] cancels nothing.
//! - A short or failed write is cut back to the last good length before the next one; what was queued behind it fails
//!   with [`ErrorKind::Preceding`].
//! - A failed sync, or a write whose extent is unknown, poisons the directory for writing until restart.
//! - Reading from a connection is cancel-safe; writing to one is not, and belongs to one task.
//! - Dropping a [`Task`] detaches it. A panic in a task ends the process.

pub mod conn;
mod dir;
mod error;
mod error_log;
mod file;
mod lane;
mod later;
mod published;
mod raw;
mod rng;
mod submitted;
pub mod tokio;

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

pub use brokkr_types::{Instant, UnixMillis};

pub use conn::{Conn, FileRange, Listener, Part, Progress, ReadHalf, WriteHalf};
pub use dir::{Dir, Entry, EntryKind};
pub use error::{Error, ErrorKind, Result};
pub use error_log::ErrorLog;
pub use file::{Durable, File, FileId};
pub use later::poll_later;
pub use published::{Latest, Published, Reader};
pub use raw::{Done, Poison, RawDir, RawFile, WriteFailure};
pub use rng::Rng;
pub use submitted::{Completer, Submitted, submitted};

/// A world. The only type parameter there is.
///
/// No default bodies: one that a world forgot would leak reality into it.
pub trait Env: Clone + Send + Sync + 'static {
    /// A file as the world has it.
    type RawFile: RawFile;
    /// A directory as the world has it.
    type RawDir: RawDir<File = Self::RawFile>;
    /// A listening socket.
    type Listener: Listener<Self>;
    /// A connected byte stream.
    type Conn: Conn<Self>;

    /// The monotonic clock.
    fn now(&self) -> Instant;

    /// The wall clock, which may jump; for record timestamps and expiry alone.
    fn wall(&self) -> UnixMillis;

    /// The stream of random numbers of this name: one for each (node, incarnation, name), shared by all who ask.
    fn rng(&self, stream: &'static str) -> Rng;

    /// Waits until the monotonic clock reads `at`. Cancel-safe.
    fn sleep_until(&self, at: Instant) -> impl Future<Output = ()> + Send + 'static;

    /// Starts a task. Its panic ends the process.
    fn spawn(&self, name: &'static str, future: impl Future<Output = ()> + Send + 'static) -> Task;

    /// Opens the directory at `path`, making it (and its parents) if need be, durably. Doesn't lock it: [`Dir::lock`] does.
    fn open_dir(&self, path: &str) -> impl Future<Output = Result<Dir<Self>>> + Send;

    /// Binds and listens. Port 0 takes a free one; [`Listener::local_addr`] tells which.
    fn listen(&self, addr: SocketAddr) -> impl Future<Output = Result<Self::Listener>> + Send;

    /// Connects to `host:port`.
    fn connect(&self, host: &str, port: u16) -> impl Future<Output = Result<Self::Conn>> + Send;

    /// Resolves `host:port` to an address that [`Env::listen`] takes.
    fn resolve(&self, host: &str, port: u16) -> impl Future<Output = Result<SocketAddr>> + Send;
}

/// A started task. Awaiting it waits for its end; dropping it detaches it. There is no abort: ask it to stop.
pub struct Task {
    done: Submitted<()>,
}

impl Task {
    /// For worlds: a task whose end the completer of `done` tells.
    pub fn new(done: Submitted<()>) -> Self {
        Self { done }
    }
}

impl Future for Task {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        // A task whose completer was dropped was dropped itself (its node was killed): it never ends for anybody.
        match Pin::new(&mut self.done).poll(cx) {
            Poll::Ready(Ok(())) => Poll::Ready(()),
            Poll::Ready(Err(_)) | Poll::Pending => Poll::Pending,
        }
    }
}

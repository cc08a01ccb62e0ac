//! The real world: the only place that touches the operating system.
#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "this is the real world; everything else asks it"
)]

mod disk;
mod net;
mod pool;

use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use brokkr_types::{Instant, UnixMillis};

use crate::{Dir, Env, Error, ErrorKind, Result, Rng, Task, submitted};

pub use disk::{OsDir, OsFile};
pub use net::{TcpConn, TcpListener, TcpReadHalf, TcpWriteHalf};

/// The real world, on a tokio runtime.
#[derive(Clone)]
pub struct TokioEnv {
    inner: Arc<Inner>,
}

struct Inner {
    start: std::time::Instant,
    rngs: Mutex<BTreeMap<&'static str, Rng>>,
    io_threads: usize,
    buffers: SocketBuffers,
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

/// Ends the process when a task unwinds: after a panic the state can't be trusted, so abort. (With `panic = "abort"` the
/// process has already ended.)
struct EndsProcess(&'static str);

impl Drop for EndsProcess {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("brokkr: task {:?} panicked; the process ends", self.0);
            std::process::abort();
        }
    }
}

impl Env for TokioEnv {
    type RawFile = OsFile;
    type RawDir = OsDir;
    type Listener = TcpListener;
    type Conn = TcpConn;

    fn now(&self) -> Instant {
        // Starts at 1, so that no reading equals the default.
        Instant::from_nanos(1 + self.inner.start.elapsed().as_nanos() as u64)
    }

    fn wall(&self) -> UnixMillis {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or(Duration::ZERO);
        UnixMillis(since.as_millis() as i64)
    }

    fn rng(&self, stream: &'static str) -> Rng {
        let mut rngs = self.inner.rngs.lock().expect("no panic under this lock");
        rngs.entry(stream)
            .or_insert_with(|| Rng::from_seed(entropy()))
            .clone()
    }

    fn sleep_until(&self, at: Instant) -> impl Future<Output = ()> + Send + 'static {
        // tokio's timer is limited to a few years; no caller sleeps longer.
        const FAR: Duration = Duration::from_secs(365 * 24 * 3600);
        let left = at.saturating_since(self.now()).min(FAR);
        ::tokio::time::sleep(left)
    }

    fn spawn(&self, name: &'static str, future: impl Future<Output = ()> + Send + 'static) -> Task {
        let (completer, done) = submitted();
        ::tokio::spawn(async move {
            let guard = EndsProcess(name);
            future.await;
            drop(guard);
            completer.complete(Ok(()));
        });
        Task::new(done)
    }

    async fn open_dir(&self, path: &str) -> Result<Dir<Self>> {
        let (completer, handle) = submitted();
        let path = path.to_owned();
        let io_threads = self.inner.io_threads;
        // The pool is created only after the directory.
        ::tokio::task::spawn_blocking(move || completer.complete(OsDir::open(&path, io_threads)));
        Ok(Dir::new(handle.await?))
    }

    async fn listen(&self, addr: SocketAddr) -> Result<TcpListener> {
        TcpListener::bind(addr, self.inner.buffers)
    }

    async fn connect(&self, host: &str, port: u16) -> Result<TcpConn> {
        TcpConn::connect(host, port).await
    }

    async fn resolve(&self, host: &str, port: u16) -> Result<SocketAddr> {
        let what = |e: &dyn std::fmt::Display| Error::new(ErrorKind::NotFound, format!("{host}:{port}: {e}"));
        let mut found = ::tokio::net::lookup_host((host, port))
            .await
            .map_err(|e| what(&e))?;
        found.next().ok_or_else(|| what(&"no address"))
    }
}

fn entropy() -> [u8; 32] {
    let mut seed = [0; 32];
    let mut filled = 0;
    while filled < seed.len() {
        filled += rustix::rand::getrandom(&mut seed[filled..], rustix::rand::GetRandomFlags::empty())
            .expect("the operating system has entropy");
    }
    seed
}

/// The failure of a call about `what`.
/// Whether the machine lacks something that it may have again soon, or the call was interrupted.
fn is_short(e: &std::io::Error) -> bool {
    let codes = [
        libc::EMFILE,
        libc::ENFILE,
        libc::ENOBUFS,
        libc::ENOMEM,
        libc::EINTR,
    ];
    e.raw_os_error().is_some_and(|code| codes.contains(&code))
}

fn os_error(what: &str, e: &std::io::Error) -> Error {
    use std::io::ErrorKind as K;
    let short = matches!(
        e.raw_os_error(),
        Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS)
    );
    let kind = match e.kind() {
        _ if short => ErrorKind::Resources,
        K::OutOfMemory | K::Interrupted => ErrorKind::Resources,
        K::NotFound => ErrorKind::NotFound,
        K::AlreadyExists => ErrorKind::AlreadyExists,
        K::PermissionDenied | K::ReadOnlyFilesystem => ErrorKind::PermissionDenied,
        K::AddrInUse | K::WouldBlock | K::ResourceBusy => ErrorKind::InUse,
        K::StorageFull | K::QuotaExceeded | K::FileTooLarge => ErrorKind::NoSpace,
        K::UnexpectedEof => ErrorKind::UnexpectedEof,
        K::ConnectionRefused | K::HostUnreachable | K::NetworkUnreachable | K::TimedOut => ErrorKind::Refused,
        K::ConnectionReset | K::ConnectionAborted | K::BrokenPipe | K::NotConnected => {
            ErrorKind::Disconnected
        }
        _ => ErrorKind::Io,
    };
    Error::new(kind, format!("{what}: {e}"))
}

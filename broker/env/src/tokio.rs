//! The real world: the only place that touches the operating system.
#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "this is the real world; everything else asks it"
)]

mod abort;
mod disk;
mod net;
mod os_error;
mod pool;
mod world;

use std::future::Future;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use brokkr_types::{Instant, UnixMillis};

use crate::{Dir, Env, Error, ErrorKind, Result, Rng, Task, submitted};

pub use disk::{OsDir, OsFile};
pub use net::{TcpConn, TcpListener, TcpReadHalf, TcpWriteHalf};
pub use world::{SocketBuffers, TokioEnv};

use abort::AbortOnPanic;

impl Env for TokioEnv {
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
            let guard = AbortOnPanic(name);
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

//! A node's view of the seeded world: [`brokkr_env::Env`] for one of its lives.
//!
//! Once the life is over every call does nothing: its future never completes.

mod conns;
mod files;
mod sim_env;

use std::future::Future;
use std::net::SocketAddr;

use brokkr_env::{Dir, Env, Error, ErrorKind, Instant, Result, Rng, Storage, Task, UnixMillis, submitted};

use crate::net::{addr_of, node_at};
use crate::trace::{EventKind, conn_of};
pub use conns::{SimConn, SimListener, SimReadHalf, SimWriteHalf};
pub use files::{SimDir, SimFile};
pub use sim_env::SimEnv;
use sim_env::disk;

/// The wall clock at the start of a world: 2026-01-01.
pub(crate) const WALL_START_MS: i64 = 1_767_225_600_000;

impl Storage for SimEnv {
    type RawFile = SimFile;
    type RawDir = SimDir;
}

impl Env for SimEnv {
    type Listener = SimListener;
    type Conn = SimConn;

    fn now(&self) -> Instant {
        Instant::from_nanos(self.clock.shows(self.world.exec().now()))
    }

    fn wall(&self) -> UnixMillis {
        let clock = self.world.clock(self.life.node);
        let since_start = clock.shows(self.world.exec().now()) / 1_000_000;
        UnixMillis(WALL_START_MS + clock.wall_ahead_ms + since_start as i64)
    }

    fn rng(&self, stream: &'static str) -> Rng {
        self.world.rng(self.life, stream)
    }

    fn sleep_until(&self, at: Instant) -> impl Future<Output = ()> + Send + 'static {
        let at = self.clock.moment(at.as_nanos());
        self.world.exec().sleep_until(self.life, at)
    }

    fn spawn(&self, name: &'static str, future: impl Future<Output = ()> + Send + 'static) -> Task {
        let (completer, done) = submitted();
        let future = async move {
            future.await;
            completer.complete(Ok(()));
        };
        self.world.exec().spawn(self.life, name, Box::pin(future));
        Task::new(done)
    }

    async fn open_dir(&self, path: &str) -> Result<Dir<Self>> {
        let root = path.trim_matches('/').to_owned();
        let made = disk(&mut self.world.lock(), self.life.node, |d| {
            d.create_dir(&root)?;
            // Durable, as the contract says: syncs each part of the path in its parent.
            let parents = root.match_indices('/').map(|(i, _)| &root[..i]);
            [""].into_iter()
                .chain(parents)
                .try_for_each(|parent| d.sync_dir(parent))
        });
        made?;
        Ok(Dir::new(SimDir {
            env: self.clone(),
            root: root.into(),
        }))
    }

    async fn listen(&self, addr: SocketAddr) -> Result<SimListener> {
        let mut state = self.world.lock();
        let port = if addr.port() == 0 {
            state.net.free_port()
        } else {
            addr.port()
        };
        let key = (self.life.node, port);
        if state.net.ports.contains_key(&key) {
            return Err(Error::new(
                ErrorKind::InUse,
                format!("listen on {addr}: address in use"),
            ));
        }
        state.net.ports.entry(key).or_default().incarnation = self.life.incarnation;
        Ok(SimListener {
            env: self.clone(),
            port,
        })
    }

    async fn connect(&self, host: &str, port: u16) -> Result<SimConn> {
        let addr = self.resolve(host, port).await?;
        let node = node_at(addr.ip()).expect("resolve gives nodes");
        let refused = || {
            Error::new(
                ErrorKind::Refused,
                format!("connect to {addr}: connection refused"),
            )
        };
        self.tap().record(|| EventKind::Connect { to: node, port });
        let mut at = self
            .world
            .arrival(&mut self.world.lock(), self.life.node, node, 0);
        let blocked = loop {
            self.world.exec().sleep_until(self.life, at).await;
            match self.world.lock().net.connect_block(node, at) {
                Some(blocked) if blocked.silent => at = blocked.until,
                blocked => break blocked.is_some(),
            }
        };
        let (mine, theirs, offered) = {
            let mut state = self.world.lock();
            let (mine, theirs) = state.net.pair(self.life.node, node);
            let from = addr_of(self.life.node, state.net.free_port());
            let offered = !blocked && state.net.offer(node, port, theirs, from);
            (mine, theirs, offered)
        };
        let conn = offered.then_some(conn_of(mine));
        self.tap().record(|| EventKind::Connected { conn, to: node });
        let back = self
            .world
            .arrival(&mut self.world.lock(), node, self.life.node, 0);
        if !offered {
            let mut state = self.world.lock();
            state.net.ends.remove(&mine);
            state.net.ends.remove(&theirs);
        }
        // From here on dropping the connection closes it.
        let conn = offered.then(|| SimConn::new(self.clone(), mine));
        self.world.exec().sleep_until(self.life, back).await;
        conn.ok_or_else(refused)
    }

    async fn resolve(&self, host: &str, port: u16) -> Result<SocketAddr> {
        let unknown = || Error::new(ErrorKind::NotFound, format!("{host}: no such host"));
        let ip = match host {
            "localhost" | "127.0.0.1" | "0.0.0.0" => addr_of(self.life.node, port).ip(),
            _ => host.parse().map_err(|_| unknown())?,
        };
        node_at(ip).map(|n| addr_of(n, port)).ok_or_else(unknown)
    }
}

//! A node's view of the seeded world: [`brokkr_env::Env`] for one of its lives.
//!
//! Once the life is over every call does nothing: what it would answer never comes.

use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::Poll;

use brokkr_env::{
    Conn, Dir, Done, Entry, Env, Error, ErrorKind, FileRange, Instant, Listener, Part, RawDir, RawFile,
    ReadHalf, Result, Rng, Task, UnixMillis, WriteFailure, WriteHalf, submitted,
};
use bytes::{BufMut, Bytes, BytesMut};

use crate::disk::InodeId;
use crate::exec::Life;
use crate::keyed::text;
use crate::net::{EndId, addr_of, node_at};
use crate::trace::{Tap, What, batches_in, conn_of};
use crate::world::{Clock, State, World};

/// Where the wall clock stands when a world begins: 2026-01-01.
pub(crate) const WALL_START_MS: i64 = 1_767_225_600_000;
/// Bytes of a file range that are read, and leave, at a time.
const PIECE_MAX: u32 = 16 * 1024;

/// One life's environment.
#[derive(Clone)]
pub struct SimEnv {
    world: World,
    life: Life,
    /// The node's monotonic clock, which runs through a life as it did at its begin.
    clock: Clock,
}

impl SimEnv {
    pub(crate) fn new(world: World, life: Life) -> Self {
        let clock = world.clock(life.node);
        Self { world, life, clock }
    }

    /// Whose environment it is.
    pub fn life(&self) -> Life {
        self.life
    }

    /// The world it is part of.
    pub fn world(&self) -> &World {
        &self.world
    }

    fn tap(&self) -> &Tap {
        self.world.exec().tap()
    }

    fn dead(&self) -> bool {
        !self.world.exec().alive(self.life)
    }

    /// Answers after `latency`, unless the life ends before.
    fn after<T: Send + 'static>(
        &self,
        latency: impl FnOnce(&mut State) -> u64,
        done: Done<T>,
        f: impl FnOnce(&mut State) -> T + Send + 'static,
    ) {
        if self.dead() {
            return;
        }
        let at = {
            let (now, mut state) = (self.world.exec().now(), self.world.lock());
            let latency = latency(&mut state);
            disk(&mut state, self.life.node, |d| d.ends_at(now, latency))
        };
        let (world, life) = (self.world.clone(), self.life);
        self.world.exec().call_at(self.life, at, move || {
            let result = f(&mut world.lock());
            // The disk works on while the process is paused; only the process doesn't hear of it.
            world.exec().call_awake(life, move || done(result));
        });
    }
}

impl Env for SimEnv {
    type RawFile = SimFile;
    type RawDir = SimDir;
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
            // Durable, as the contract says: each part of the path in the one above.
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
        self.tap().tell(|| What::Connect { to: node, port });
        let mut at = self
            .world
            .arrival(&mut self.world.lock(), self.life.node, node, 0);
        let shut = loop {
            self.world.exec().sleep_until(self.life, at).await;
            match self.world.lock().net.shut_to(node, at) {
                Some(shut) if shut.silent => at = shut.until,
                shut => break shut.is_some(),
            }
        };
        let (mine, theirs, offered) = {
            let mut state = self.world.lock();
            let (mine, theirs) = state.net.pair(self.life.node, node);
            let from = addr_of(self.life.node, state.net.free_port());
            let offered = !shut && state.net.offer(node, port, theirs, from);
            (mine, theirs, offered)
        };
        let conn = offered.then_some(conn_of(mine));
        self.tap().tell(|| What::Connected { conn, to: node });
        let back = self
            .world
            .arrival(&mut self.world.lock(), node, self.life.node, 0);
        if !offered {
            let mut state = self.world.lock();
            state.net.ends.remove(&mine);
            state.net.ends.remove(&theirs);
        }
        // From here on the connection is somebody's to close.
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

/// A file of a node's disk.
pub struct SimFile {
    env: SimEnv,
    inode: InodeId,
    /// Where it was when it was opened.
    path: Arc<str>,
}

/// Why it failed, for a trace.
fn error_of<T>(result: &Result<T>) -> Option<String> {
    result.as_ref().err().map(ToString::to_string)
}

impl Drop for SimFile {
    fn drop(&mut self) {
        let mut state = self.env.world.lock();
        disk(&mut state, self.env.life.node, |d| d.close(self.inode));
    }
}

fn disk<T>(state: &mut State, node: u32, f: impl FnOnce(&mut crate::disk::Disk) -> T) -> T {
    f(state.disks.get_mut(&node).expect("a node that stores has a disk"))
}

impl RawFile for SimFile {
    fn write_at(&self, at: u64, parts: Vec<Bytes>, done: Done<std::result::Result<(), WriteFailure>>) {
        if self.env.dead() {
            return;
        }
        let mut whole = BytesMut::with_capacity(parts.iter().map(Bytes::len).sum());
        parts.iter().for_each(|p| whole.put_slice(p));
        let (life, inode, len, whole) = (self.env.life, self.inode, whole.len() as u64, whole.freeze());
        let mut state = self.env.world.lock();
        let id = World::write_begins(&mut state, life, inode, at, whole.clone());
        drop(state);
        self.env.tap().tell(|| What::Write {
            write: id,
            file: self.path.to_string(),
            at,
            len,
            batches: if self.path.ends_with(".log") {
                batches_in(whole)
            } else {
                Vec::new()
            },
        });
        let (world, path) = (self.env.world.clone(), Arc::clone(&self.path));
        self.env.after(
            move |s| World::disk_latency(s, life.node, len),
            done,
            move |s| {
                let (inode, at, bytes) = World::write_ends(s, id).expect("a write that is under way");
                let failed = |(error, extent_known)| WriteFailure { error, extent_known };
                let written = disk(s, life.node, |d| d.write(inode, at, &bytes)).map_err(failed);
                world.exec().tap().tell(|| What::Wrote {
                    write: id,
                    file: path.to_string(),
                    at,
                    len,
                    error: written.as_ref().err().map(|w| w.error.to_string()),
                });
                written
            },
        );
    }

    fn read_at(&self, at: u64, len: u32, done: Done<Result<Bytes>>) {
        let (node, inode) = (self.env.life.node, self.inode);
        let latency = move |s: &mut State| World::disk_latency(s, node, u64::from(len));
        self.tell_read(at, len, false);
        self.env.after(latency, done, move |s| {
            Ok(disk(s, node, |d| d.read(inode, at, u64::from(len))))
        });
    }

    fn read_resident(&self, at: u64, len: u32) -> Option<Bytes> {
        let (node, inode) = (self.env.life.node, self.inode);
        let mut state = self.env.world.lock();
        // Now and then it isn't in memory, and the caller has to take the long way.
        if state.choices.one_in("read not resident", u64::from(node), 8) {
            return None;
        }
        self.tell_read(at, len, true);
        Some(disk(&mut state, node, |d| d.read(inode, at, u64::from(len))))
    }

    fn sync(&self, done: Done<Result<()>>) {
        if self.env.dead() {
            return;
        }
        let (node, inode) = (self.env.life.node, self.inode);
        let (mark, len) = disk(&mut self.env.world.lock(), node, |d| {
            (d.sync_begin(), d.len(inode))
        });
        let begun = self.env.tap().tell(|| What::Sync {
            file: self.path.to_string(),
            len: Some(len),
        });
        let (world, path) = (self.env.world.clone(), Arc::clone(&self.path));
        self.env.after(
            move |s| World::sync_latency(s, node),
            done,
            move |s| {
                let disk = s.disks.get_mut(&node).expect("a node that stores has a disk");
                let synced = disk.sync_end(inode, mark, &mut s.choices);
                world.exec().tap().tell(|| What::Synced {
                    file: path.to_string(),
                    begun,
                    error: error_of(&synced),
                });
                synced
            },
        );
    }

    fn truncate(&self, len: u64, done: Done<Result<()>>) {
        let (node, inode) = (self.env.life.node, self.inode);
        let (world, path) = (self.env.world.clone(), Arc::clone(&self.path));
        self.env.after(
            move |s| World::disk_latency(s, node, 0),
            done,
            move |s| {
                world.exec().tap().tell(|| What::Truncate {
                    file: path.to_string(),
                    to: len,
                });
                disk(s, node, |d| d.truncate(inode, len));
                Ok(())
            },
        );
    }
}

impl SimFile {
    fn tell_read(&self, at: u64, len: u32, resident: bool) {
        self.env.tap().tell(|| What::Read {
            file: self.path.to_string(),
            at,
            len: u64::from(len),
            resident,
        });
    }
}

/// A directory of a node's disk.
pub struct SimDir {
    env: SimEnv,
    root: Arc<str>,
}

impl SimDir {
    fn path(&self, path: &str) -> String {
        format!("{}/{path}", self.root).trim_matches('/').to_owned()
    }

    fn call<T: Send + 'static>(
        &self,
        done: Done<Result<T>>,
        f: impl FnOnce(&mut crate::disk::Disk) -> Result<T> + Send + 'static,
    ) {
        let node = self.env.life.node;
        self.env.after(
            move |s| World::disk_latency(s, node, 0),
            done,
            move |s| disk(s, node, f),
        );
    }

    /// A change of names, told with how it went.
    fn call_named(
        &self,
        op: &'static str,
        (file, to): (String, Option<String>),
        done: Done<Result<()>>,
        f: impl FnOnce(&mut crate::disk::Disk) -> Result<()> + Send + 'static,
    ) {
        let world = self.env.world.clone();
        self.call(done, move |d| {
            let result = f(d);
            world.exec().tap().tell(|| What::Name {
                op: op.into(),
                file,
                to,
                error: error_of(&result),
            });
            result
        });
    }
}

impl RawDir for SimDir {
    type File = SimFile;

    fn open(&self, path: &str, create: bool, done: Done<Result<(SimFile, u64)>>) {
        let (path, env) = (self.path(path), self.env.clone());
        self.call(done, move |d| {
            let (inode, len) = d.open(&path, create)?;
            env.tap().tell(|| What::Open {
                file: path.clone(),
                made: create,
                len,
            });
            let path = path.into();
            Ok((SimFile { env, inode, path }, len))
        });
    }

    fn rename(&self, from: &str, to: &str, done: Done<Result<()>>) {
        let (from, to) = (self.path(from), self.path(to));
        let told = (from.clone(), Some(to.clone()));
        self.call_named("rename", told, done, move |d| d.rename(&from, &to));
    }

    fn remove(&self, path: &str, done: Done<Result<()>>) {
        let path = self.path(path);
        let told = (path.clone(), None);
        self.call_named("remove", told, done, move |d| d.remove(&path, false));
    }

    fn create_dir(&self, path: &str, done: Done<Result<()>>) {
        let path = self.path(path);
        let told = (path.clone(), None);
        self.call_named("create_dir", told, done, move |d| d.create_dir(&path));
    }

    fn remove_dir(&self, path: &str, done: Done<Result<()>>) {
        let path = self.path(path);
        let told = (path.clone(), None);
        self.call_named("remove_dir", told, done, move |d| d.remove(&path, true));
    }

    fn list(&self, path: &str, done: Done<Result<Vec<Entry>>>) {
        let path = self.path(path);
        self.call(done, move |d| d.list(&path));
    }

    fn sync_dir(&self, path: &str, done: Done<Result<()>>) {
        let (path, node) = (self.path(path), self.env.life.node);
        let begun = self.env.tap().tell(|| What::Sync {
            file: path.clone(),
            len: None,
        });
        let world = self.env.world.clone();
        self.env.after(
            move |s| World::sync_latency(s, node),
            done,
            move |s| {
                let synced = disk(s, node, |d| d.sync_dir(&path));
                world.exec().tap().tell(|| What::Synced {
                    file: path,
                    begun,
                    error: error_of(&synced),
                });
                synced
            },
        );
    }

    fn space(&self, done: Done<Result<(u64, u64)>>) {
        self.call(done, |d| Ok(d.space()));
    }

    fn lock(&self, done: Done<Result<()>>) {
        let (life, root) = (self.env.life, self.root.to_string());
        self.env.after(
            move |s| World::disk_latency(s, life.node, 0),
            done,
            move |s| {
                let holder = *s.locks.entry((life.node, root.clone())).or_insert(life);
                if holder == life {
                    // A second lock by the same process is refused too, as flock on another descriptor is.
                    let twice = s
                        .locks
                        .insert((life.node, format!("{root}#taken")), life)
                        .is_some();
                    if !twice {
                        return Ok(());
                    }
                }
                Err(Error::new(
                    ErrorKind::InUse,
                    format!("{root}: locked by another process"),
                ))
            },
        );
    }
}

/// A listening port.
pub struct SimListener {
    env: SimEnv,
    port: u16,
}

impl Listener<SimEnv> for SimListener {
    async fn accept(&mut self) -> Result<(SimConn, SocketAddr)> {
        let key = (self.env.life.node, self.port);
        let (end, from) = poll_fn(|cx| {
            let mut state = self.env.world.lock();
            let Some(port) = state.net.ports.get_mut(&key) else {
                return Poll::Pending;
            };
            match port.backlog.pop_front() {
                Some(next) => Poll::Ready(next),
                None => {
                    port.acceptor = Some(cx.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await;
        self.env.tap().tell(|| What::Accept { conn: conn_of(end) });
        Ok((SimConn::new(self.env.clone(), end), from))
    }

    fn local_addr(&self) -> SocketAddr {
        addr_of(self.env.life.node, self.port)
    }
}

impl Drop for SimListener {
    fn drop(&mut self) {
        if !self.env.dead() {
            let port = self
                .env
                .world
                .lock()
                .net
                .ports
                .remove(&(self.env.life.node, self.port));
            for (end, _) in port.into_iter().flat_map(|p| p.backlog) {
                self.env.world.close_end(end);
            }
        }
    }
}

/// One end of a connection, while it is somebody's: dropping the last half closes it.
struct Half {
    env: SimEnv,
    end: EndId,
}

impl Half {
    fn gone(&self) -> Error {
        Error::new(
            ErrorKind::Disconnected,
            format!("connection {}: reset by peer", self.end),
        )
    }
}

impl Drop for Half {
    fn drop(&mut self) {
        if self.env.dead() {
            return;
        }
        let mut state = self.env.world.lock();
        let Some(end) = state.net.ends.get_mut(&self.end) else {
            return;
        };
        end.halves -= 1;
        let last = end.halves == 0;
        drop(state);
        if last {
            send_eof(&self.env, self.end);
            self.env.world.close_end(self.end);
        }
    }
}

/// A connected stream.
pub struct SimConn {
    read: SimReadHalf,
    write: SimWriteHalf,
}

impl SimConn {
    fn new(env: SimEnv, end: EndId) -> Self {
        let half = || Half {
            env: env.clone(),
            end,
        };
        Self {
            read: SimReadHalf(half()),
            write: SimWriteHalf(half()),
        }
    }
}

impl Conn<SimEnv> for SimConn {
    type Read = SimReadHalf;
    type Write = SimWriteHalf;

    fn split(self) -> (SimReadHalf, SimWriteHalf) {
        (self.read, self.write)
    }
}

/// The direction from the peer.
pub struct SimReadHalf(Half);

impl ReadHalf for SimReadHalf {
    async fn read(&mut self, buf: &mut BytesMut) -> Result<usize> {
        let room = buf.capacity() - buf.len();
        assert!(room > 0, "a read needs room");
        poll_fn(|cx| {
            let mut state = self.0.env.world.lock();
            let Some(end) = state.net.ends.get_mut(&self.0.end) else {
                return Poll::Ready(Err(self.0.gone()));
            };
            let Some(piece) = end.inbox.front_mut() else {
                if end.eof {
                    return Poll::Ready(Ok(0));
                }
                if end.reset {
                    return Poll::Ready(Err(self.0.gone()));
                }
                end.reader = Some(cx.waker().clone());
                return Poll::Pending;
            };
            let n = piece.len().min(room);
            buf.put_slice(&piece.split_to(n));
            if piece.is_empty() {
                end.inbox.pop_front();
            }
            end.held -= n;
            let waker = end.room.take();
            drop(state);
            self.0.env.tap().tell(|| What::Receive {
                conn: conn_of(self.0.end),
                len: n as u64,
            });
            if let Some(w) = waker {
                w.wake();
            }
            Poll::Ready(Ok(n))
        })
        .await
    }
}

/// The direction to the peer.
pub struct SimWriteHalf(Half);

impl WriteHalf<SimEnv> for SimWriteHalf {
    async fn write(&mut self, parts: Vec<Part<SimEnv>>) -> Result<()> {
        for part in parts {
            match part {
                Part::Bytes(bytes) => self.send(bytes).await?,
                Part::Range(range) => self.send_range(&range).await?,
            }
        }
        Ok(())
    }

    async fn shutdown(&mut self) -> Result<()> {
        send_eof(&self.0.env, self.0.end);
        Ok(())
    }
}

impl SimWriteHalf {
    /// Reads each piece when it leaves, not before: what the file holds then is what the peer gets.
    async fn send_range(&mut self, range: &FileRange<SimEnv>) -> Result<()> {
        let (mut at, end) = (range.at(), range.at() + u64::from(range.len()));
        while at < end {
            let room = self.wait_for_room().await?;
            let want = (end - at).min(u64::from(PIECE_MAX)).min(room as u64);
            let file = range.raw();
            let piece = disk(&mut self.0.env.world.lock(), file.env.life.node, |d| {
                d.read(file.inode, at, want)
            });
            if piece.len() as u64 != want {
                return Err(Error::new(
                    ErrorKind::UnexpectedEof,
                    format!("{range:?}: the file ends before"),
                ));
            }
            at += want;
            self.send_now(piece)?;
        }
        Ok(())
    }

    async fn send(&mut self, mut bytes: Bytes) -> Result<()> {
        while !bytes.is_empty() {
            let room = self.wait_for_room().await?;
            let n = bytes.len().min(room);
            self.send_now(bytes.split_to(n))?;
        }
        Ok(())
    }

    async fn wait_for_room(&mut self) -> Result<usize> {
        poll_fn(|cx| {
            let mut state = self.0.env.world.lock();
            let peer = match state.net.ends.get(&self.0.end) {
                Some(end) if !end.reset => end.peer,
                _ => return Poll::Ready(Err(self.0.gone())),
            };
            let most = state.net.buffer_bytes;
            match state.net.ends.get_mut(&peer) {
                None => Poll::Ready(Err(self.0.gone())),
                Some(p) if p.held < most => Poll::Ready(Ok(most - p.held)),
                Some(p) => {
                    p.room = Some(cx.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await
    }

    fn send_now(&mut self, piece: Bytes) -> Result<()> {
        let world = &self.0.env.world;
        let mut state = world.lock();
        let peer = state.net.ends.get(&self.0.end).ok_or_else(|| self.0.gone())?.peer;
        let Some(to) = state.net.ends.get(&peer).map(|p| p.node) else {
            return Err(self.0.gone());
        };
        let at = world.arrival(&mut state, self.0.env.life.node, to, piece.len() as u64);
        let Some(p) = state.net.ends.get_mut(&peer) else {
            return Err(self.0.gone());
        };
        p.held += piece.len();
        let at = p.last_arrival.max(at);
        p.last_arrival = at;
        let life = world.exec().life(p.node);
        drop(state);
        let (conn, len) = (conn_of(self.0.end), piece.len() as u64);
        self.0.env.tap().tell(|| What::Send {
            conn,
            to,
            len,
            arrives: at,
        });
        self.0.env.tap().sent(self.0.end, to, &piece);
        let shared = world.clone();
        world.exec().call_at(life, at, move || {
            let mut state = shared.lock();
            let Some(p) = state.net.ends.get_mut(&peer) else {
                return;
            };
            if p.reset {
                return;
            }
            p.inbox.push_back(piece);
            let waker = p.reader.take();
            drop(state);
            shared.exec().tap().tell(|| What::Arrive { conn, len });
            if let Some(w) = waker {
                w.wake();
            }
        });
        Ok(())
    }
}

/// Tells the peer of `end`, behind all that was sent, that nothing more comes.
fn send_eof(env: &SimEnv, end: EndId) {
    let world = &env.world;
    let mut state = world.lock();
    let Some(peer) = state.net.ends.get(&end).map(|e| e.peer) else {
        return;
    };
    let Some(to) = state.net.ends.get(&peer).map(|p| p.node) else {
        return;
    };
    let at = world.arrival(&mut state, env.life.node, to, 0);
    let Some(p) = state.net.ends.get_mut(&peer) else {
        return;
    };
    let at = p.last_arrival.max(at);
    p.last_arrival = at;
    let life = world.exec().life(p.node);
    drop(state);
    let shared = world.clone();
    world.exec().call_at(life, at, move || {
        let mut state = shared.lock();
        let waker = state.net.ends.get_mut(&peer).and_then(|p| {
            p.eof = true;
            p.reader.take()
        });
        drop(state);
        shared.exec().tap().tell(|| What::Eof { conn: conn_of(peer) });
        if let Some(w) = waker {
            w.wake();
        }
    });
}

/// A word for the rolling hash.
pub fn word(s: &str) -> u64 {
    text(s)
}

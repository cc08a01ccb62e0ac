//! Listening ports and connections of a node.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::task::Poll;

use brokkr_env::{Conn, Error, ErrorKind, FileRange, Listener, Part, Progress, ReadHalf, Result, WriteHalf};
use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::sim_env::{SimEnv, disk};
use crate::digest::crc_of;
use crate::net::{EndId, addr_of};
use crate::trace::{EventKind, conn_of};
use crate::trigger::Act;

/// A listening port.
pub struct SimListener {
    pub(super) env: SimEnv,
    pub(super) port: u16,
}

impl Listener for SimListener {
    type Conn = SimConn;

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
        self.env.tap().record(|| EventKind::Accept { conn: conn_of(end) });
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

/// One half of an end: dropping the last half closes the connection.
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
    pub(super) fn new(env: SimEnv, end: EndId) -> Self {
        let half = || Half {
            env: env.clone(),
            end,
        };
        Self {
            read: SimReadHalf(half()),
            write: SimWriteHalf(half(), Progress::default()),
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
            if end.inbox.is_empty() {
                if end.eof {
                    return Poll::Ready(Ok(0));
                }
                if end.reset {
                    return Poll::Ready(Err(self.0.gone()));
                }
                end.reader = Some(cx.waker().clone());
                return Poll::Pending;
            }
            let mut n = 0;
            while n < room
                && let Some(piece) = end.inbox.front_mut()
            {
                let taken = piece.len().min(room - n);
                buf.put_slice(&piece[..taken]);
                piece.advance(taken);
                n += taken;
                if piece.is_empty() {
                    end.inbox.pop_front();
                }
            }
            end.held -= n;
            let waker = end.room.take();
            drop(state);
            self.0.env.tap().record(|| EventKind::Receive {
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
pub struct SimWriteHalf(Half, Progress);

/// Bytes that are sent together.
#[derive(Default)]
struct SendBuffer {
    pieces: Vec<Bytes>,
    len: usize,
}

impl SendBuffer {
    fn push(&mut self, piece: Bytes) {
        self.len += piece.len();
        self.pieces.push(piece);
    }

    /// Removes the first `n` bytes.
    fn split_to(&mut self, n: usize) -> Self {
        let mut first = Self::default();
        let mut rest = std::mem::take(&mut self.pieces).into_iter();
        for mut piece in rest.by_ref() {
            if first.len + piece.len() > n {
                first.push(piece.split_to(n - first.len));
                self.pieces.push(piece);
                break;
            }
            first.push(piece);
        }
        self.pieces.extend(rest);
        self.len -= first.len;
        first.pieces.retain(|p| !p.is_empty());
        first
    }
}

impl WriteHalf<SimEnv> for SimWriteHalf {
    async fn write(&mut self, parts: Vec<Part<SimEnv>>) -> Result<()> {
        let (mut flight, mut room) = (SendBuffer::default(), 0);
        for part in parts {
            let (mut at, end) = match &part {
                Part::Bytes(bytes) => (0, bytes.len() as u64),
                Part::Range(range) => (range.at(), range.at() + u64::from(range.len())),
            };
            while at < end {
                if room == 0 {
                    self.send(std::mem::take(&mut flight))?;
                    room = self.wait_for_room().await?;
                }
                let n = (end - at).min(room as u64);
                flight.push(match &part {
                    Part::Bytes(bytes) => bytes.slice(at as usize..(at + n) as usize),
                    Part::Range(range) => self.read(range, at, n)?,
                });
                at += n;
                room -= n as usize;
            }
        }
        self.send(flight)
    }

    fn progress(&self) -> Progress {
        self.1.clone()
    }

    async fn shutdown(&mut self) -> Result<()> {
        send_eof(&self.0.env, self.0.end);
        Ok(())
    }
}

impl SimWriteHalf {
    /// Reads a file range at the time of sending, not before: the peer gets the bytes that the file holds then.
    fn read(&self, range: &FileRange<SimEnv>, at: u64, len: u64) -> Result<Bytes> {
        let file = range.raw();
        let read = disk(&mut self.0.env.world.lock(), file.env.life.node, |d| {
            d.read(file.inode, at, len)
        });
        match read {
            Ok(piece) if piece.len() as u64 == len => Ok(piece),
            read => {
                range.file().suspect();
                let short = || {
                    Error::new(
                        ErrorKind::UnexpectedEof,
                        format!("{range:?}: the file ends before"),
                    )
                };
                Err(read.err().unwrap_or_else(short))
            }
        }
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

    /// Sends bytes together: sometimes they arrive in two parts, split anywhere.
    fn send(&mut self, mut flight: SendBuffer) -> Result<()> {
        let node = u64::from(self.0.env.life.node);
        let cut = {
            let choices = &mut self.0.env.world.lock().choices;
            let cut = flight.len > 1 && choices.one_in("net cut in two", node, 8);
            cut.then(|| 1 + choices.below("net cut at", node, flight.len as u64 - 1))
        };
        if let Some(n) = cut {
            let first = flight.split_to(n as usize);
            self.send_now(first)?;
        }
        if flight.len > 0 {
            self.send_now(flight)?;
        }
        Ok(())
    }

    fn send_now(&mut self, flight: SendBuffer) -> Result<()> {
        let world = &self.0.env.world;
        let mut state = world.lock();
        let peer = state.net.ends.get(&self.0.end).ok_or_else(|| self.0.gone())?.peer;
        let Some(to) = state.net.ends.get(&peer).map(|p| p.node) else {
            return Err(self.0.gone());
        };
        let at = world.arrival(&mut state, self.0.env.life.node, to, flight.len as u64);
        let Some(p) = state.net.ends.get_mut(&peer) else {
            return Err(self.0.gone());
        };
        p.held += flight.len;
        self.1.add(flight.len);
        let at = p.last_arrival.max(at);
        p.last_arrival = at;
        let life = world.exec().life(p.node);
        drop(state);
        let (conn, len, crc) = (conn_of(self.0.end), flight.len as u64, crc_of(&flight.pieces));
        world.exec().note(("send", self.0.end, len, crc));
        world.event(Some(self.0.env.life.node), Act::Send, "");
        self.0.env.tap().record(|| EventKind::Send {
            conn,
            to,
            len,
            crc,
            arrives: at,
        });
        for piece in &flight.pieces {
            self.0.env.tap().sent(self.0.end, to, piece);
        }
        let shared = world.clone();
        world.exec().call_at(life, at, move || {
            let mut state = shared.lock();
            let Some(p) = state.net.ends.get_mut(&peer) else {
                return;
            };
            if p.reset {
                return;
            }
            p.inbox.extend(flight.pieces);
            let waker = p.reader.take();
            drop(state);
            shared.exec().tap().record(|| EventKind::Arrive { conn, len });
            if let Some(w) = waker {
                w.wake();
            }
        });
        Ok(())
    }
}

/// Sends the end of the stream to the peer of `end`, after all sent bytes.
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
        shared
            .exec()
            .tap()
            .record(|| EventKind::Eof { conn: conn_of(peer) });
        if let Some(w) = waker {
            w.wake();
        }
    });
}

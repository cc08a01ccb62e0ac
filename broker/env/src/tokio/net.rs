//! TCP.

use std::io::{self, IoSlice};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd};

use ::tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use ::tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use bytes::{Buf, BytesMut};

use super::os_error::os_error;
use super::world::{SocketBuffers, TokioEnv};
use crate::conn::{Conn, Listener, Part, Progress, ReadHalf, WriteHalf};
use crate::files::raw::RawFile;
use crate::{Error, ErrorKind, FileRange, Result, submitted};

/// The listen backlog.
const BACKLOG: i32 = 4096;
/// Buffers in one call.
const PARTS_MAX: usize = 256;
/// Ranges up to this many bytes are copied and sent with the bytes around them.
const SMALL_RANGE_MAX: u32 = 32 << 10;
/// Copied bytes that wait to be sent.
const COPIED_BYTES_MAX: usize = 256 << 10;
/// File bytes checked for residency, read into the page cache and sent at a time.
const RANGE_PIECE_MAX: u32 = 1 << 20;

/// A listening socket.
pub struct TcpListener {
    listener: ::tokio::net::TcpListener,
    addr: SocketAddr,
}

impl TcpListener {
    /// Listens. A wildcard address of either family listens on both, as in Kafka (Java); on a machine without IPv6 it
    /// listens on IPv4.
    pub(super) fn bind(addr: SocketAddr, buffers: SocketBuffers) -> Result<Self> {
        let bind = |addr: SocketAddr| -> io::Result<Self> {
            use socket2::{Domain, Protocol, Socket, Type};
            let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
            socket.set_reuse_address(true)?;
            socket.set_nonblocking(true)?;
            // Accepted sockets inherit the buffer sizes.
            if let Some(bytes) = buffers.send {
                socket.set_send_buffer_size(bytes)?;
            }
            if let Some(bytes) = buffers.receive {
                socket.set_recv_buffer_size(bytes)?;
            }
            if addr.is_ipv6() {
                socket.set_only_v6(false)?;
            }
            socket.bind(&addr.into())?;
            socket.listen(BACKLOG)?;
            let listener = ::tokio::net::TcpListener::from_std(socket.into())?;
            let addr = listener.local_addr()?;
            Ok(Self { listener, addr })
        };
        let bound = match addr.ip().is_unspecified() {
            true => match bind((Ipv6Addr::UNSPECIFIED, addr.port()).into()) {
                Err(e) if is_without_ipv6(&e) => bind((Ipv4Addr::UNSPECIFIED, addr.port()).into()),
                bound => bound,
            },
            false => bind(addr),
        };
        bound.map_err(|e| os_error(&format!("listen on {addr}"), &e))
    }
}

fn is_without_ipv6(e: &io::Error) -> bool {
    matches!(
        e.raw_os_error(),
        Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL | libc::EPROTONOSUPPORT)
    )
}

impl Listener for TcpListener {
    type Conn = TcpConn;

    async fn accept(&mut self) -> Result<(TcpConn, SocketAddr)> {
        let (stream, peer) = self.listener.accept().await.map_err(|e| os_error("accept", &e))?;
        // A wildcard socket reports IPv4 peers as mapped IPv6 addresses.
        let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
        Ok((TcpConn::new(stream)?, peer))
    }

    fn local_addr(&self) -> SocketAddr {
        self.addr
    }
}

/// A connected socket.
pub struct TcpConn(::tokio::net::TcpStream);

impl TcpConn {
    fn new(stream: ::tokio::net::TcpStream) -> Result<Self> {
        stream.set_nodelay(true).map_err(|e| os_error("connection", &e))?;
        Ok(Self(stream))
    }

    pub(super) async fn connect(host: &str, port: u16) -> Result<Self> {
        let stream = ::tokio::net::TcpStream::connect((host, port)).await;
        Self::new(stream.map_err(|e| os_error(&format!("connect to {host}:{port}"), &e))?)
    }
}

impl Conn<TokioEnv> for TcpConn {
    type Read = TcpReadHalf;
    type Write = TcpWriteHalf;

    fn split(self) -> (TcpReadHalf, TcpWriteHalf) {
        let (read, write) = self.0.into_split();
        (
            TcpReadHalf(read),
            TcpWriteHalf {
                half: write,
                progress: Progress::default(),
            },
        )
    }
}

/// The read half.
pub struct TcpReadHalf(OwnedReadHalf);

impl ReadHalf for TcpReadHalf {
    async fn read(&mut self, buf: &mut BytesMut) -> Result<usize> {
        use bytes::BufMut as _;
        let room = buf.capacity() - buf.len();
        assert!(room > 0, "a read needs spare capacity");
        let n = self.0.read_buf(&mut (&mut *buf).limit(room)).await;
        n.map_err(|e| os_error("read from peer", &e))
    }
}

/// The write half.
pub struct TcpWriteHalf {
    half: OwnedWriteHalf,
    progress: Progress,
}

impl WriteHalf<TokioEnv> for TcpWriteHalf {
    async fn write(&mut self, parts: Vec<Part<TokioEnv>>) -> Result<()> {
        let (mut memory, mut copied) = (Vec::with_capacity(parts.len().min(PARTS_MAX)), 0);
        for part in parts {
            match part {
                Part::Bytes(b) => memory.push(b),
                Part::Range(range) => match small_range(&range) {
                    Some(bytes) => {
                        copied += bytes.len();
                        memory.push(bytes);
                        if copied >= COPIED_BYTES_MAX {
                            self.write_memory(&mut memory, true).await?;
                            copied = 0;
                        }
                    }
                    None => {
                        self.write_memory(&mut memory, true).await?;
                        copied = 0;
                        self.write_range(&range).await?;
                    }
                },
            }
        }
        self.write_memory(&mut memory, false).await
    }

    async fn shutdown(&mut self) -> Result<()> {
        self.half.shutdown().await.map_err(|e| os_error("close", &e))
    }

    fn progress(&self) -> Progress {
        self.progress.clone()
    }
}

/// The bytes of a range that is small and in the page cache: copying them costs less than the calls that avoid the copy.
fn small_range(range: &FileRange<TokioEnv>) -> Option<bytes::Bytes> {
    let len = range.len();
    if len > SMALL_RANGE_MAX {
        return None;
    }
    let bytes = range.raw().read_resident(range.at(), len)?;
    (bytes.len() == len as usize).then_some(bytes)
}

impl TcpWriteHalf {
    /// Sends and clears `parts`. With `more`, the kernel may delay a partial packet: a file range follows.
    async fn write_memory(&mut self, parts: &mut Vec<bytes::Bytes>, more: bool) -> Result<()> {
        let stream = self.half.as_ref();
        let mut first = 0;
        while first < parts.len() {
            if parts[first].is_empty() {
                first += 1;
                continue;
            }
            let sent = stream
                .async_io(Interest::WRITABLE, || {
                    let end = parts.len().min(first + PARTS_MAX);
                    let slices: Vec<IoSlice<'_>> =
                        parts[first..end].iter().map(|p| IoSlice::new(p)).collect();
                    send(stream, &slices, more || end < parts.len())
                })
                .await;
            let mut sent = sent.map_err(|e| os_error("write to peer", &e))?;
            self.progress.add(sent);
            while sent > 0 {
                let n = sent.min(parts[first].len());
                parts[first].advance(n);
                sent -= n;
                if parts[first].is_empty() {
                    first += 1;
                }
            }
        }
        parts.clear();
        Ok(())
    }

    async fn write_range(&mut self, range: &FileRange<TokioEnv>) -> Result<()> {
        let sent = self.send_range(range).await;
        // Only file errors count: a slow or lost peer says nothing about the file.
        if let Err(error) = &sent
            && matches!(error.kind(), ErrorKind::Io | ErrorKind::UnexpectedEof)
        {
            range.file().suspect();
        }
        sent
    }

    async fn send_range(&mut self, range: &FileRange<TokioEnv>) -> Result<()> {
        let (mut at, end) = (range.at(), range.at() + u64::from(range.len()));
        while at < end {
            let piece = (end - at).min(u64::from(RANGE_PIECE_MAX)) as u32;
            if !range.raw().resident(at, piece) {
                let (completer, warmed) = submitted();
                range
                    .raw()
                    .warm(at, piece, Box::new(move |r| completer.complete(r)));
                warmed.await?;
            }
            let piece_end = at + u64::from(piece);
            while at < piece_end {
                at += self.send_file(range, at, (piece_end - at) as usize).await?;
            }
        }
        Ok(())
    }

    async fn send_file(&mut self, range: &FileRange<TokioEnv>, at: u64, len: usize) -> Result<u64> {
        let stream = self.half.as_ref();
        let sent = stream
            .async_io(Interest::WRITABLE, || {
                let mut offset = at;
                let sent = rustix::io::retry_on_intr(|| {
                    rustix::fs::sendfile(stream.as_fd(), range.raw().fd(), Some(&mut offset), len)
                });
                Ok(sent?)
            })
            .await
            .map_err(|e| os_error("write to peer", &e))?;
        if sent == 0 {
            let what = format!("{}: ends before {}", range.file().path(), at + len as u64);
            return Err(Error::new(ErrorKind::UnexpectedEof, what));
        }
        self.progress.add(sent);
        Ok(sent as u64)
    }
}

/// `sendmsg` with flags, so that a frame's header and the file range after it share packets.
fn send(stream: &::tokio::net::TcpStream, slices: &[IoSlice<'_>], more: bool) -> io::Result<usize> {
    // SAFETY: a zeroed msghdr is a valid one without address, control data or buffers.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = slices.as_ptr() as *mut libc::iovec;
    message.msg_iovlen = slices.len() as _;
    let flags = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT | if more { libc::MSG_MORE } else { 0 };
    // SAFETY: IoSlice has iovec's layout (std guarantees it), and the slices outlive the call.
    let n = unsafe { libc::sendmsg(stream.as_raw_fd(), &raw const message, flags) };
    if n < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(n as usize)
    }
}

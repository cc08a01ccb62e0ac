//! One connection: frames in, responses out, in the order of the requests.
//!
//! Two tasks. The reader cuts frames and dispatches each at once: what changes the log is submitted before the next frame
//! is looked at, so that order is kept. What a request still waits for becomes a future; the writer drives the oldest and
//! sends what is ready, in order (W7). Memory is bounded: the bytes of a request are taken from the
//! broker's budget before they are read, and given back when its response has left; a connection has at most
//! [`IN_FLIGHT_MAX`] requests under way, and a peer that neither reads nor writes is dropped.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use brokkr_env::{Conn, Env, Part, ReadHalf, WriteHalf};
use bytes::{Buf, Bytes, BytesMut};
use futures_util::future::FutureExt;
use tokio::sync::{Notify, OwnedSemaphorePermit, mpsc};

use crate::ctx::{Ctx, Peer};
use crate::dispatch::{Dispatch, Dispatched};
use crate::listener::Slot;

/// Requests of one connection under way.
const IN_FLIGHT_MAX: usize = 1024;
/// Responses that leave in one call, in bytes; more wait for the next.
const WRITE_BYTES_MAX: usize = 1 << 20;
/// The buffer of a connection that says little.
const READ_BUFFER_MIN: usize = 1024;
/// The buffer of one that says much.
const READ_BUFFER_MAX: usize = 512 * 1024;
/// A body longer than this is taken from the budget before it is read.
const UNBUDGETED_MAX: usize = 4096;
/// A buffer that nobody filled for so long is given back.
const QUIET: Duration = Duration::from_secs(1);

/// What is sent for one request: nothing, where the client wants no answer.
pub type Response<E> = Vec<Part<E>>;
/// A request under way. `None`: the connection is to be closed.
pub type Pending<E> = Pin<Box<dyn Future<Output = Option<Response<E>>> + Send>>;

/// A request under way with the memory that it holds.
struct UnderWay<E: Env> {
    pending: Pending<E>,
    held: Option<OwnedSemaphorePermit>,
}

/// Serves a connection until either side closes it.
pub async fn serve<E: Env>(ctx: Ctx<E>, conn: E::Conn, peer: Peer, slot: Slot) {
    let (read, write) = conn.split();
    let (tx, rx) = mpsc::channel(IN_FLIGHT_MAX);
    let closed = Arc::new(Notify::new());
    let writer = ctx.env.spawn(
        "conn-writer",
        write_responses(ctx.clone(), write, rx, Arc::clone(&closed)),
    );
    let env = ctx.env.clone();
    let mut reader = Reader {
        read,
        buf: ReadBuffer::new(),
        budgeted: None,
        dispatch: Dispatch::new(ctx, peer),
    };
    let reading = async {
        // What was dispatched is still answered when the peer has closed its side.
        while let Some(under_way) = reader.next().await {
            if tx.send(under_way).await.is_err() {
                break;
            }
        }
    };
    tokio::select! {
        biased;
        () = closed.notified() => {}
        () = reading => {}
    }
    drop(tx);
    drop(reader);
    writer.await;
    drop(env);
    drop(slot);
}

struct Reader<E: Env> {
    read: <E::Conn as Conn<E>>::Read,
    buf: ReadBuffer,
    /// What the frame that is being read has taken from the budget.
    budgeted: Option<OwnedSemaphorePermit>,
    dispatch: Dispatch<E>,
}

impl<E: Env> Reader<E> {
    /// The next request that is under way; `None` when there will be none.
    async fn next(&mut self) -> Option<UnderWay<E>> {
        loop {
            let frame = self.frame().await?;
            let held = self.budgeted.take();
            match self.dispatch.request(frame).await {
                Dispatched::Pending(pending) => return Some(UnderWay { pending, held }),
                Dispatched::Silent => {}
                Dispatched::Close => return None,
            }
        }
    }

    /// The next frame, without its size.
    async fn frame(&mut self) -> Option<Bytes> {
        while self.buf.bytes.len() < 4 {
            self.fill(4).await?;
        }
        let size = i32::from_be_bytes(*self.buf.bytes.first_chunk().expect("four bytes came"));
        let ctx = &self.dispatch.ctx;
        let Ok(size) = usize::try_from(size) else {
            ctx.noise.tell(
                "negative frame size",
                &format_args!("{size} from {}", self.dispatch.peer.addr),
            );
            return None;
        };
        if size > ctx.config.socket_request_max_bytes.max(0) as usize {
            ctx.noise.tell(
                "frame too large",
                &format_args!("{size} bytes from {}", self.dispatch.peer.addr),
            );
            return None;
        }
        if size > UNBUDGETED_MAX {
            self.budgeted = Some(ctx.memory.take(size).await);
        }
        self.buf.bytes.advance(4);
        while self.buf.bytes.len() < size {
            self.fill(size).await?;
        }
        Some(self.buf.bytes.split_to(size).freeze())
    }

    /// Reads once more towards `need` bytes in the buffer. `None`: closed, or idle for too long.
    async fn fill(&mut self, need: usize) -> Option<()> {
        let Dispatch { ctx, peer, .. } = &self.dispatch;
        let idle_max = Duration::from_millis(ctx.config.connections_max_idle_ms.max(0) as u64);
        let deadline = ctx.env.now() + idle_max;
        loop {
            self.buf.make_room(need);
            let buf = &mut self.buf.bytes;
            let room = buf.capacity() - buf.len();
            let quiet = (ctx.env.now() + QUIET).min(deadline);
            let keep = buf.capacity() <= READ_BUFFER_MIN || !buf.is_empty();
            let wake_at = if keep { deadline } else { quiet };
            tokio::select! {
                biased;
                n = self.read.read(buf) => match n {
                    Ok(0) => {
                        if !buf.is_empty() {
                            ctx.noise.tell("truncated frame", &peer.addr);
                        }
                        return None;
                    }
                    Ok(n) => {
                        self.buf.came(n, room);
                        return Some(());
                    }
                    Err(error) => {
                        tracing::debug!(%error, peer = %peer.addr, "connection lost");
                        return None;
                    }
                },
                () = ctx.env.sleep_until(wake_at) => {
                    if ctx.env.now() >= deadline {
                        ctx.noise.tell("idle connection closed", &peer.addr);
                        return None;
                    }
                    self.buf = ReadBuffer::new();
                }
            }
        }
    }
}

/// What came and is not dispatched yet.
struct ReadBuffer {
    bytes: BytesMut,
    /// How large the next buffer is to be.
    want: usize,
}

impl ReadBuffer {
    fn new() -> Self {
        Self {
            bytes: BytesMut::new(),
            want: READ_BUFFER_MIN,
        }
    }

    /// Room for what is missing of a frame whose bytes are budgeted, and for as much again as came lately: so most frames
    /// arrive in one piece and are never moved, and a peer that says little has a small buffer.
    fn make_room(&mut self, need: usize) {
        let (len, room) = (self.bytes.len(), self.bytes.capacity() - self.bytes.len());
        // Past the largest buffer the frame grows by what has come, not by what its size says.
        let target = need.min(len.max(READ_BUFFER_MAX) * 2);
        if room < (target - len).max(self.want / 2) {
            self.bytes.reserve(self.want.max(target) - len);
        }
    }

    /// A read had room for `room` bytes and got `n`.
    fn came(&mut self, n: usize, room: usize) {
        if n == room {
            self.want = (self.want * 2).min(READ_BUFFER_MAX);
        } else if n < self.want / 8 {
            self.want = (self.want / 2).max(READ_BUFFER_MIN);
        }
    }
}

/// Sends responses in the order of their requests. What changes a log was submitted when its request was dispatched, so only the
/// oldest is driven: what is behind it could not leave before it.
async fn write_responses<E: Env>(
    ctx: Ctx<E>,
    mut write: <E::Conn as Conn<E>>::Write,
    mut rx: mpsc::Receiver<UnderWay<E>>,
    closed: Arc<Notify>,
) {
    let mut under_way = VecDeque::new();
    let mut open = true;
    'serve: while open || !under_way.is_empty() {
        tokio::select! {
            biased;
            (first, held) = oldest(&mut under_way) => {
                let Some(mut parts): Option<Response<E>> = first else { break 'serve };
                let mut holding = vec![held];
                let mut last = false;
                while parts.iter().map(Part::len).sum::<usize>() < WRITE_BYTES_MAX
                    && let Some((next, held)) = oldest(&mut under_way).now_or_never()
                {
                    holding.push(held);
                    match next {
                        Some(more) => parts.extend(more),
                        None => {
                            last = true;
                            break;
                        }
                    }
                }
                if !send::<E>(&ctx, &mut write, parts).await || last {
                    break 'serve;
                }
                drop(holding);
            }
            next = rx.recv(), if open && under_way.len() < IN_FLIGHT_MAX => match next {
                Some(u) => {
                    under_way.push_back(u);
                    while under_way.len() < IN_FLIGHT_MAX && let Ok(u) = rx.try_recv() {
                        under_way.push_back(u);
                    }
                }
                None => open = false,
            },
        }
    }
    closed.notify_one();
    drop(write.shutdown().await);
}

/// The oldest response, once it is there, with what its request holds. Never, if there is none. Cancel-safe.
async fn oldest<E: Env>(
    under_way: &mut VecDeque<UnderWay<E>>,
) -> (Option<Response<E>>, Option<OwnedSemaphorePermit>) {
    let response = poll_fn(|cx| match under_way.front_mut() {
        Some(oldest) => oldest.pending.as_mut().poll(cx),
        None => Poll::Pending,
    })
    .await;
    let held = under_way.pop_front().and_then(|u| u.held);
    (response, held)
}

/// Sends; `false` when the peer is gone, or took nothing for too long.
async fn send<E: Env>(ctx: &Ctx<E>, write: &mut <E::Conn as Conn<E>>::Write, parts: Vec<Part<E>>) -> bool {
    if parts.is_empty() {
        return true;
    }
    let patience = Duration::from_millis(ctx.config.connections_max_idle_ms.max(1) as u64);
    tokio::select! {
        biased;
        sent = write.write(parts) => match sent {
            Ok(()) => true,
            Err(error) => {
                tracing::debug!(%error, "connection lost");
                false
            }
        },
        // The write is given up with the connection.
        () = ctx.env.sleep_until(ctx.env.now() + patience) => {
            ctx.noise.tell("slow reader dropped", &"it took nothing for connections.max.idle.ms");
            false
        }
    }
}

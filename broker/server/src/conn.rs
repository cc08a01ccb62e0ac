//! One connection: frames in, responses out, in the order of the requests.
//!
//! Two tasks. The reader cuts frames and dispatches each at once: what changes the log is submitted before the next frame
//! is looked at, so that order is kept. What a request still waits for becomes a future; the writer drives the oldest and
//! sends what is ready, in order (W7). Effects keep that order too: a Produce, which acts when it is dispatched, waits for
//! the requests before it that change something ([`Changing`]).
//!
//! The end of a connection shows when the reader reads, as it does a little while the check of a batch takes long, which then ends.
//! Whenever it waits for anything else (memory, requests before, a full
//! queue), the connection is hurried: a fetch that is parked is answered at once, so that what waits behind it goes on and the
//! reader comes back.
//!
//! Memory is bounded. A read buffer's bytes are taken from the broker's budget before it is made, and it grows by what
//! arrived, not by what a frame's size announces; every frame that was cut from a buffer holds its share until the last
//! slice of it is gone. A connection has one small buffer that costs nothing. At most [`IN_FLIGHT_MAX`] requests are under
//! way. A frame that has begun has a deadline, and a peer whose frame or response is the slowest is dropped when others
//! wait for memory ([`crate::memory`]). A peer that neither reads nor writes for `connections.max.idle.ms` is dropped.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use brokkr_env::{Conn, Env, Instant, Part, Progress, ReadHalf, WriteHalf};
use brokkr_wire::ApiKey;
use bytes::{Buf, Bytes, BytesMut};
use futures_util::future::FutureExt;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{Notify, mpsc};

use crate::coop::{STEPS_MAX, yield_now};
use crate::ctx::{Ctx, Peer};
use crate::dispatch::{Dispatch, Dispatched};
use crate::listener::Slot;
use crate::memory::{Holds, Memory, Overloaded, Share, Watched};

/// Requests of one connection under way.
const IN_FLIGHT_MAX: usize = 1024;
/// Of those, the ones that the writer has not taken yet.
const QUEUE_MAX: usize = 64;
/// Responses that leave in one call, in bytes; more wait for the next.
const WRITE_BYTES_MAX: usize = 1 << 20;
/// Of those, the bytes that are in memory and not in files.
const WRITE_MEMORY_MAX: usize = 64 << 10;
/// Minimum and maximum read buffer of a connection, as it is sized by how much arrives at once.
const READ_BUFFER_MIN: usize = 1024;
const READ_BUFFER_MAX: usize = 512 * 1024;
/// What the requests under way of a connection may hold before it is read no further: decoded, and this part of all that may arrive.
const DECODED_BYTES_MAX: usize = 512 * 1024;
const BUFFERS_PART_MAX: usize = 6;
/// With more requests than this behind it nobody lets a fetch wait.
const BEHIND_PARKED_MAX: usize = 16;
/// The buffer that costs nothing. A connection has one.
const FREE_BUFFER: usize = 4096;
/// A buffer that stayed empty for so long is given back.
const QUIET: Duration = Duration::from_secs(1);
/// How long a frame may take to arrive: this, and its size at [`FRAME_BYTES_PER_SECOND_MIN`].
const FRAME_TIME: Duration = Duration::from_secs(60);
const FRAME_BYTES_PER_SECOND_MIN: u64 = 16 * 1024;

/// What is sent for one request: nothing, where the client wants no answer.
pub struct Response<E: Env> {
    /// The frame, in pieces.
    pub parts: Vec<Part<E>>,
    /// What it takes from the budget until it is sent.
    pub share: Share,
    /// What it answers.
    pub api_key: ApiKey,
    /// When the request had arrived.
    pub received_at: Instant,
}

/// What is known of a response while it leaves.
struct Leaving {
    share: Share,
    api_key: ApiKey,
    received_at: Instant,
}

impl<E: Env> Response<E> {
    fn leave(self) -> (Vec<Part<E>>, Leaving) {
        let leaving = Leaving {
            share: self.share,
            api_key: self.api_key,
            received_at: self.received_at,
        };
        (self.parts, leaving)
    }

    /// Bytes that are in memory.
    fn memory(&self) -> usize {
        let memory = |part: &Part<E>| match part {
            Part::Bytes(bytes) => bytes.len(),
            Part::Range(_) => 0,
        };
        self.parts.iter().map(memory).sum()
    }
}

/// A request under way. `None`: the connection is to be closed.
pub type Pending<E> = Pin<Box<dyn Future<Output = Option<Response<E>>> + Send>>;

/// A request under way with the memory that it holds.
struct UnderWay<E: Env> {
    pending: Pending<E>,
    frame_bytes: usize,
    decoded: Share,
    _buffer: Arc<Share>,
}

/// What the two tasks of a connection, and its requests under way, know of each other.
#[derive(Default)]
pub struct State {
    /// The peer sends nothing more, or nothing more is read from it for now.
    hurried: AtomicBool,
    hurry: Notify,
    /// Requests under way, the bytes of their frames, and what they decoded to.
    requests: AtomicUsize,
    frame_bytes: AtomicUsize,
    decoded_bytes: AtomicUsize,
    /// Some of them were answered.
    fewer: Notify,
    /// The connection is to be closed.
    closed: Notify,
    /// What is dispatched takes long, so that meanwhile the peer's end has to be looked for; and the peer has closed its side.
    long_work: Notify,
    peer_closed: AtomicBool,
    /// What the reader does since it last waited for its peer: appends.
    pub reading: Worked,
    /// What the writer does: all other requests.
    pub answering: Worked,
    /// Requests under way that change what a later one finds.
    changing: AtomicUsize,
    changed: Notify,
}

/// A request that changes what later ones find (a topic that it creates), until it is carried out or given up.
pub struct Changing(Arc<State>);

impl Changing {
    /// For a request that is dispatched now.
    pub fn begin(state: &Arc<State>) -> Self {
        state.changing.fetch_add(1, Ordering::AcqRel);
        Self(Arc::clone(state))
    }
}

impl Drop for Changing {
    fn drop(&mut self) {
        self.0.changing.fetch_sub(1, Ordering::AcqRel);
        self.0.changed.notify_waiters();
    }
}

/// Steps that a task has done for its connection's requests since others had a turn. Each request's long loops give way by themselves;
/// but many requests that are short follow each other in one task.
#[derive(Default)]
pub struct Worked(AtomicUsize);

impl Worked {
    /// So many more are done, or will be at once. Cancel-safe.
    pub async fn steps(&self, steps: usize) {
        let done = self.0.fetch_add(steps, Ordering::Relaxed) + steps;
        if done >= STEPS_MAX {
            self.rest();
            yield_now().await;
        }
    }

    /// The task waits for its peer: so others have a turn.
    pub fn rest(&self) {
        self.0.store(0, Ordering::Relaxed);
    }
}

impl State {
    fn hurry(&self, hurried: bool) {
        self.hurried.store(hurried, Ordering::Release);
        if hurried {
            self.hurry.notify_waiters();
        }
    }

    /// Runs what keeps the reader from reading: while it waits, what is parked is answered.
    async fn not_reading<T>(&self, what: impl Future<Output = T>) -> T {
        let mut what = std::pin::pin!(what);
        // Most of the time it waits for nothing.
        if let Some(done) = what.as_mut().now_or_never() {
            return done;
        }
        self.hurry(true);
        let done = what.await;
        self.hurry(false);
        done
    }

    fn begun<E: Env>(&self, request: &UnderWay<E>) {
        self.frame_bytes.fetch_add(request.frame_bytes, Ordering::Relaxed);
        self.decoded_bytes
            .fetch_add(request.decoded.bytes(), Ordering::Relaxed);
        if self.requests.fetch_add(1, Ordering::AcqRel) == BEHIND_PARKED_MAX {
            self.hurry.notify_waiters();
        }
    }

    fn ended<E: Env>(&self, request: &UnderWay<E>) {
        self.frame_bytes.fetch_sub(request.frame_bytes, Ordering::Relaxed);
        self.decoded_bytes
            .fetch_sub(request.decoded.bytes(), Ordering::Relaxed);
        self.requests.fetch_sub(1, Ordering::AcqRel);
        self.fewer.notify_waiters();
    }

    fn holds_much(&self, frame_bytes_max: usize) -> bool {
        self.decoded_bytes.load(Ordering::Relaxed) > DECODED_BYTES_MAX
            || self.frame_bytes.load(Ordering::Relaxed) > frame_bytes_max
    }

    /// Waits until the requests under way hold little enough for another one. Cancel-safe.
    async fn room(&self, frame_bytes_max: usize) {
        loop {
            let heard = self.fewer.notified();
            if !self.holds_much(frame_bytes_max) {
                return;
            }
            heard.await;
        }
    }

    fn holds(&self, responses: usize) -> Holds {
        Holds {
            buffers: self.frame_bytes.load(Ordering::Relaxed),
            decoded: self.decoded_bytes.load(Ordering::Relaxed),
            responses,
        }
    }

    /// What is dispatched now takes long.
    pub fn works_for_long(&self) {
        self.long_work.notify_one();
    }

    /// Whether the peer is known to have closed its side, while a request was dispatched.
    pub fn is_peer_closed(&self) -> bool {
        self.peer_closed.load(Ordering::Acquire)
    }

    /// Waits until all requests of this connection that change something are carried out. Cancel-safe.
    pub async fn all_changed(&self) {
        loop {
            let heard = self.changed.notified();
            if self.changing.load(Ordering::Acquire) == 0 {
                return;
            }
            heard.await;
        }
    }

    /// Waits until what is parked had better be answered: the peer has closed its side, or so many requests wait behind this one
    /// that soon nothing more would be read, and its end could not be seen. Cancel-safe.
    pub async fn hurried(&self) {
        loop {
            let heard = self.hurry.notified();
            let behind = self.requests.load(Ordering::Acquire) > BEHIND_PARKED_MAX;
            if behind || self.hurried.load(Ordering::Acquire) {
                return;
            }
            heard.await;
        }
    }
}

/// Serves a connection until either side closes it.
pub async fn serve<E: Env>(ctx: Ctx<E>, conn: E::Conn, peer: Peer, slot: Slot) {
    let (read, write) = conn.split();
    let (tx, rx) = mpsc::channel(QUEUE_MAX);
    let state = Arc::<State>::default();
    let sent = write.progress();
    let writer = ctx.env.spawn(
        "conn-writer",
        write_responses(ctx.clone(), write, rx, Arc::clone(&state)),
    );
    let env = ctx.env.clone();
    let frame_bytes_max = ctx.memory.buffer_bytes_max() / BUFFERS_PART_MAX;
    let mut reader = Reader {
        read,
        buf: ReadBuffer::new(),
        sent,
        dispatch: Dispatch::new(ctx, peer, Arc::clone(&state)),
        state: Arc::clone(&state),
    };
    let reading = async {
        // What was dispatched is still answered when the peer has closed its side.
        while let Some(under_way) = reader.next().await {
            state.begun(&under_way);
            let full = match tx.try_send(under_way) {
                Ok(()) if !state.holds_much(frame_bytes_max) => continue,
                Ok(()) => None,
                Err(TrySendError::Closed(_)) => break,
                Err(TrySendError::Full(under_way)) => Some(under_way),
            };
            let taken = state.not_reading(async {
                if let Some(under_way) = full {
                    tx.send(under_way).await.ok()?;
                }
                state.room(frame_bytes_max).await;
                Some(())
            });
            if taken.await.is_none() {
                break;
            }
        }
    };
    tokio::select! {
        biased;
        () = state.closed.notified() => {}
        () = reading => {}
    }
    drop(tx);
    drop(reader);
    // A fetch that waits for records ends with its connection.
    state.hurry(true);
    writer.await;
    drop(env);
    drop(slot);
}

struct Reader<E: Env> {
    read: <E::Conn as Conn<E>>::Read,
    buf: ReadBuffer,
    /// What the peer took of the responses: a sign of life, too.
    sent: Progress,
    dispatch: Dispatch<E>,
    state: Arc<State>,
}

/// Drives what is dispatched. Once it takes long, it is told if the peer closes its side: for that a little more is read.
async fn until_done<E: Env, T>(
    dispatched: impl Future<Output = T>,
    state: &State,
    (read, buf): (&mut <E::Conn as Conn<E>>::Read, &mut BytesMut),
) -> T {
    let mut dispatched = std::pin::pin!(dispatched);
    tokio::select! {
        biased;
        done = &mut dispatched => return done,
        () = state.long_work.notified() => {}
    }
    if buf.capacity() == buf.len() {
        buf.reserve(READ_BUFFER_MIN);
    }
    let mut open = true;
    loop {
        tokio::select! {
            biased;
            done = &mut dispatched => return done,
            n = read.read(buf), if open && buf.capacity() > buf.len() => match n {
                Ok(1..) => {}
                Ok(0) | Err(_) => {
                    state.peer_closed.store(true, Ordering::Release);
                    open = false;
                }
            },
        }
    }
}

/// A frame that has begun to arrive.
struct Begun {
    deadline: Instant,
    watched: Arc<Watched>,
}

/// Waits until a frame that has begun has to give way, if one has.
async fn evicted(begun: Option<&Begun>) {
    match begun {
        Some(begun) => begun.watched.evicted().await,
        None => std::future::pending().await,
    }
}

impl<E: Env> Reader<E> {
    /// The next request that is under way; `None` when there will be none.
    async fn next(&mut self) -> Option<UnderWay<E>> {
        loop {
            let (frame, buffer) = self.frame().await?;
            let frame_bytes = frame.len();
            let dispatched = self.dispatch.request(frame, Arc::clone(&buffer));
            let dispatched =
                until_done::<E, _>(dispatched, &self.state, (&mut self.read, &mut self.buf.bytes));
            match self.state.not_reading(dispatched).await {
                Dispatched::Pending(pending, decoded) => {
                    return Some(UnderWay {
                        pending,
                        frame_bytes,
                        decoded,
                        _buffer: buffer,
                    });
                }
                Dispatched::Silent => {}
                Dispatched::Close => return None,
            }
        }
    }

    /// The next frame, without its size, and the share of the buffer that it is in.
    async fn frame(&mut self) -> Option<(Bytes, Arc<Share>)> {
        while self.buf.bytes.len() < 4 {
            self.fill(4, None).await?;
        }
        let size = i32::from_be_bytes(*self.buf.bytes.first_chunk().expect("four bytes came"));
        let ctx = &self.dispatch.ctx;
        let Ok(size) = usize::try_from(size) else {
            ctx.error_log.record(
                "negative frame size",
                &format_args!("{size} from {}", self.dispatch.peer.addr),
            );
            return None;
        };
        if size > ctx.config.socket_request_max_bytes.max(0) as usize {
            ctx.error_log.record(
                "frame too large",
                &format_args!("{size} bytes from {}", self.dispatch.peer.addr),
            );
            return None;
        }
        self.buf.bytes.advance(4);
        if self.buf.bytes.len() < size {
            let time = FRAME_TIME + Duration::from_secs(size as u64 / FRAME_BYTES_PER_SECOND_MIN);
            let begun = Begun {
                deadline: ctx.env.now() + time,
                watched: ctx.memory.arriving(),
            };
            begun.watched.came(self.buf.bytes.len());
            while self.buf.bytes.len() < size {
                self.fill(size, Some(&begun)).await?;
            }
        }
        Some((
            self.buf.bytes.split_to(size).freeze(),
            Arc::clone(&self.buf.share),
        ))
    }

    /// Reads once more towards `need` bytes in the buffer, of the frame that has begun. `None`: the connection is to be
    /// closed.
    async fn fill(&mut self, need: usize, begun: Option<&Begun>) -> Option<()> {
        let Dispatch { ctx, peer, .. } = &self.dispatch;
        let idle_max = idle_max(ctx);
        let (mut seen, mut idle_from) = (self.sent.bytes(), ctx.env.now());
        loop {
            let room = async {
                let room = self.state.not_reading(self.buf.make_room(need, &ctx.memory));
                match begun {
                    Some(begun) => begun.watched.waiting(&ctx.env, room).await,
                    None => room.await,
                }
            };
            tokio::select! {
                biased;
                made = room => if let Err(Overloaded) = made {
                    ctx.error_log.record("no memory for a request", &peer.addr);
                    return None;
                },
                () = evicted(begun) => {
                    ctx.error_log.record("slow request dropped, for memory was short", &peer.addr);
                    return None;
                }
            }
            let buf = &mut self.buf.bytes;
            let room = buf.capacity() - buf.len();
            let deadline = match begun {
                Some(begun) => begun.deadline.min(idle_from + idle_max),
                None => idle_from + idle_max,
            };
            let keep = self.buf.share.bytes() == 0 && buf.capacity() <= READ_BUFFER_MIN || !buf.is_empty();
            self.state.reading.rest();
            let quiet = (ctx.env.now() + QUIET).min(deadline);
            let wake_at = if keep { deadline } else { quiet };
            tokio::select! {
                biased;
                n = self.read.read(buf) => match n {
                    Ok(0) => {
                        if !buf.is_empty() {
                            ctx.error_log.record("truncated frame", &peer.addr);
                        }
                        return None;
                    }
                    Ok(n) => {
                        if let Some(begun) = begun {
                            begun.watched.came(n);
                        }
                        self.buf.came(n, room);
                        return Some(());
                    }
                    Err(error) => {
                        tracing::debug!(%error, peer = %peer.addr, "connection lost");
                        return None;
                    }
                },
                () = evicted(begun) => {
                    ctx.error_log.record("slow request dropped, for memory was short", &peer.addr);
                    return None;
                }
                () = ctx.env.sleep_until(wake_at) => {
                    let now = ctx.env.now();
                    if self.sent.bytes() != seen {
                        (seen, idle_from) = (self.sent.bytes(), now);
                    }
                    if begun.is_some_and(|b| now >= b.deadline) {
                        ctx.error_log.record("request that took too long to arrive", &peer.addr);
                        return None;
                    }
                    if now >= idle_from + idle_max {
                        ctx.error_log.record("idle connection closed", &peer.addr);
                        return None;
                    }
                    if !keep {
                        self.buf.give_back();
                    }
                }
            }
        }
    }
}

/// `connections.max.idle.ms`; negative is never, as with Kafka.
fn idle_max<E: Env>(ctx: &Ctx<E>) -> Duration {
    const NEVER: Duration = Duration::from_secs(u64::MAX >> 32);
    u64::try_from(ctx.config.connections_max_idle_ms).map_or(NEVER, Duration::from_millis)
}

/// What came and is not dispatched yet.
struct ReadBuffer {
    bytes: BytesMut,
    /// What the buffer takes from the budget. Frames cut from it hold it too: as long as one of them lives, all of the
    /// buffer does.
    share: Arc<Share>,
    /// The share of the buffer that costs nothing: in use while there is another reference.
    free: Arc<Share>,
    /// How large the next buffer is to be.
    want: usize,
}

impl ReadBuffer {
    fn new() -> Self {
        Self {
            bytes: BytesMut::new(),
            share: Arc::default(),
            free: Arc::default(),
            want: READ_BUFFER_MIN,
        }
    }

    /// Gives back a buffer that is empty.
    fn give_back(&mut self) {
        self.bytes = BytesMut::new();
        self.share = Arc::default();
        self.want = READ_BUFFER_MIN;
    }

    /// Makes room for what is missing of a frame, and for as much again as came lately: so most frames arrive in one piece
    /// and are never moved, and a peer that says little has a small buffer. Waits for memory only where there is no room at
    /// all.
    async fn make_room<E: Env>(&mut self, need: usize, memory: &Memory<E>) -> Result<(), Overloaded> {
        let (len, room) = (self.bytes.len(), self.bytes.capacity() - self.bytes.len());
        // The buffer grows by what has come, not by what the frame's size says.
        let target = need.min(len.max(self.want).max(FREE_BUFFER) * 2);
        // Half of it will do for now: a frame that comes in small pieces must not be moved for each of them.
        if room > 0 && room >= (target.saturating_sub(len) / 2).max(self.want / 2) {
            return Ok(());
        }
        let target = self.want.max(target);
        if self.bytes.try_reclaim(target - len) {
            return Ok(());
        }
        let free_is_ours = usize::from(Arc::ptr_eq(&self.share, &self.free));
        if target > FREE_BUFFER || Arc::strong_count(&self.free) > 1 + free_is_ours {
            let (held, unique) = (self.share.bytes(), Arc::strong_count(&self.share) == 1);
            // A buffer that no frame was cut from is replaced: only the difference is taken.
            let more = if unique {
                target.saturating_sub(held)
            } else {
                target
            };
            match memory.try_buffer(more) {
                Some(share) => self.grow(target, share, unique),
                None if room > 0 => {}
                None => {
                    let least = (len * 2).max(FREE_BUFFER).min(target);
                    let more = if unique { least.saturating_sub(held) } else { least };
                    let most = memory.buffer_bytes_max();
                    let more = more.min(most.saturating_sub(held));
                    let share = memory.buffer(more, need).await?;
                    self.grow(least, share, unique);
                }
            }
            return Ok(());
        }
        self.share = Arc::clone(&self.free);
        self.replace(target);
        Ok(())
    }

    /// Moves what is there to a buffer of `capacity`, which `more` was taken for.
    fn grow(&mut self, capacity: usize, more: Share, unique: bool) {
        match Arc::get_mut(&mut self.share) {
            Some(share) if unique => share.join(more),
            _ => self.share = Arc::new(more),
        }
        self.replace(capacity);
    }

    fn replace(&mut self, capacity: usize) {
        let mut bytes = BytesMut::with_capacity(capacity);
        bytes.extend_from_slice(&self.bytes);
        self.bytes = bytes;
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
    state: Arc<State>,
) {
    let taken_max = IN_FLIGHT_MAX - QUEUE_MAX;
    let mut under_way = VecDeque::new();
    let mut open = true;
    'serve: while open || !under_way.is_empty() {
        tokio::select! {
            biased;
            first = oldest(&mut under_way, &state) => {
                let Some(first) = first else { break 'serve };
                let (mut bytes, mut memory) = (bytes_of(&first.parts), first.memory());
                let (mut parts, first) = first.leave();
                let mut responses = vec![first];
                let mut last = false;
                while bytes < WRITE_BYTES_MAX
                    && memory < WRITE_MEMORY_MAX
                    && let Some(next) = oldest(&mut under_way, &state).now_or_never()
                {
                    let Some(next) = next else {
                        last = true;
                        break;
                    };
                    bytes += bytes_of(&next.parts);
                    memory += next.memory();
                    let (more, next) = next.leave();
                    parts.extend(more);
                    responses.push(next);
                }
                if !send::<E>(&ctx, &mut write, parts, &responses, &state).await || last {
                    break 'serve;
                }
            }
            next = rx.recv(), if open && under_way.len() < taken_max => match next {
                Some(u) => {
                    under_way.push_back(u);
                    while under_way.len() < taken_max && let Ok(u) = rx.try_recv() {
                        under_way.push_back(u);
                    }
                }
                None => open = false,
            },
        }
    }
    state.closed.notify_one();
    drop(write.shutdown().await);
}

fn bytes_of<E: Env>(parts: &[Part<E>]) -> usize {
    parts.iter().map(Part::len).sum()
}

/// The oldest response, once it is there. What its request held is given back. Never, if there is none. Cancel-safe.
async fn oldest<E: Env>(under_way: &mut VecDeque<UnderWay<E>>, state: &State) -> Option<Response<E>> {
    let response = poll_fn(|cx| match under_way.front_mut() {
        Some(oldest) => oldest.pending.as_mut().poll(cx),
        None => Poll::Pending,
    })
    .await;
    if let Some(answered) = under_way.pop_front() {
        state.ended(&answered);
    }
    response
}

/// Sends; `false` when the peer is gone, took nothing for too long, or was the slowest when others waited for the memory.
async fn send<E: Env>(
    ctx: &Ctx<E>,
    write: &mut <E::Conn as Conn<E>>::Write,
    parts: Vec<Part<E>>,
    responses: &[Leaving],
    state: &State,
) -> bool {
    if parts.is_empty() {
        return true;
    }
    let progress = write.progress();
    let mut writing = std::pin::pin!(write.write(parts));
    let (begun, idle_max) = (ctx.env.now(), idle_max(ctx));
    let (from, mut seen, mut idle_from) = (progress.bytes(), progress.bytes(), begun);
    // What takes no second is not watched.
    let mut leaving: Option<Arc<Watched>> = None;
    loop {
        let wake_at = (idle_from + idle_max).min(ctx.env.now() + QUIET);
        let evicted = async {
            match &leaving {
                Some(watched) => watched.evicted().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            sent = &mut writing => return match sent {
                Ok(()) => {
                    sent_all(ctx, responses);
                    true
                }
                Err(error) => {
                    tracing::debug!(%error, "connection lost");
                    false
                }
            },
            // The write is given up with the connection.
            () = evicted => {
                ctx.error_log.record("slow reader dropped", &"others waited for the memory of its response");
                return false;
            }
            () = ctx.env.sleep_until(wake_at) => {
                let bytes = progress.bytes();
                let held = responses.iter().map(|r| r.share.bytes()).sum();
                // Anew each time: what waits behind it changes.
                let watched = ctx.memory.leaving(begun, state.holds(held));
                watched.left((bytes - from) as usize);
                leaving = Some(watched);
                if bytes != seen {
                    (seen, idle_from) = (bytes, ctx.env.now());
                } else if ctx.env.now() >= idle_from + idle_max {
                    ctx.error_log.record("slow reader dropped", &"it took nothing for connections.max.idle.ms");
                    return false;
                }
            }
        }
    }
}

/// Counts the time that each took.
fn sent_all<E: Env>(ctx: &Ctx<E>, responses: &[Leaving]) {
    let now = ctx.env.now();
    for response in responses {
        if let Some(api) = ctx.metrics.api(response.api_key) {
            api.total_time.record(now.saturating_since(response.received_at));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use brokkr_env::tokio::TokioEnv;
    use bytes::BufMut;

    #[test]
    fn many_requests_that_are_short_give_way() {
        let state = State::default();
        let short = || state.reading.steps(STEPS_MAX / 4).now_or_never().is_some();
        let at_once: Vec<bool> = (0..8).map(|_| short()).collect();
        assert_eq!(at_once, [true, true, true, false, true, true, true, false]);
    }

    #[test]
    fn a_frame_in_small_pieces_is_moved_a_few_times() {
        const FRAME: usize = 1 << 20;
        let memory = Memory::new(TokioEnv::new(1), 64 << 20);
        for piece in [1, 100, 1460] {
            let (mut buffer, mut moved) = (ReadBuffer::new(), 0);
            while buffer.bytes.len() < FRAME {
                let before = buffer.bytes.capacity();
                let made = buffer.make_room(FRAME, &memory).now_or_never();
                made.expect("memory is free").expect("memory is free");
                moved += usize::from(buffer.bytes.capacity() != before);
                let room = buffer.bytes.capacity() - buffer.bytes.len();
                let n = piece.min(room);
                buffer.bytes.put_bytes(0, n);
                buffer.came(n, room);
            }
            assert!(moved < 40, "{moved} times in pieces of {piece}");
        }
    }
}

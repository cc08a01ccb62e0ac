//! One connection: it reads frames and writes responses in the order of the requests.
//!
//! One task polls a writer and a reader in turns. The reader cuts frames and dispatches each at once: a batch is
//! submitted to its partition before the next frame is decoded, which preserves order. The rest of a request becomes a
//! future; the writer polls the oldest and sends responses that are ready, in order (W7). Effects preserve the order as
//! well: a Produce, which takes effect when it is dispatched, waits for earlier requests that change topics or
//! configurations ([`super::state::MutationGuard`]).
//!
//! Only reading shows that the peer has closed the connection, so the reader also reads a little while the validation
//! of a batch takes long; the validation then ends. Whenever the reader waits for anything else (memory, earlier
//! requests, a full queue), a parked fetch is answered at once, so that the requests behind it continue and the reader
//! gets back to reading.
//!
//! Memory is bounded. The memory of a read buffer is reserved from the broker's budget before the buffer is allocated,
//! and the buffer grows by the bytes that arrived, not by the size that a frame announces. Every frame cut from a
//! buffer holds its reservation until its last slice is dropped. Each connection has one small buffer that needs no
//! reservation. At most `connection.queue` and `connection.pending` requests ([`Limits`](crate::config::Limits)) are
//! pending. A frame that has begun to arrive has a deadline, and the slowest frame or response ends with its connection
//! when others wait for memory ([`super::memory`]). A connection without traffic for `connections.max.idle.ms` is
//! closed.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Duration;

use brokkr_env::{Conn, Env, Instant, Part, Progress, ReadHalf, WriteHalf};
use bytes::{Buf, Bytes, BytesMut};
use futures_util::future::{FutureExt, join};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use super::connections::ConnectionSlot;
use super::dispatch::Dispatcher;
use super::memory::{Evictable, Overloaded, Share};
use super::read_buffer::ReadBuffer;
use super::request::Dispatched;
use super::response::{OutgoingResponse, PendingRequest, Response};
use super::state::ConnectionState;
use crate::ctx::{Ctx, Peer};

/// Bytes that are read while a dispatched request takes long, to notice that the peer closes its side.
const LONG_WORK_READ_BYTES: usize = 1024;
/// A write that takes this long is watched: it may be ended when others wait for memory.
const SLOW_WRITE: Duration = Duration::from_secs(1);
/// A connection is read no further while the frames of its requests under way hold more than this fraction of what all connections may
/// hold in read buffers.
const BUFFERS_PART_MAX: usize = 6;

/// Serves a connection until either side closes it.
pub async fn serve<E: Env>(ctx: Ctx<E>, conn: E::Conn, peer: Peer, slot: ConnectionSlot) {
    let (read, write) = conn.split();
    let (tx, rx) = mpsc::channel(ctx.config.limits.connection_queue);
    let state = Arc::new(ConnectionState::new(&ctx.config.limits));
    let reader = Reader {
        read,
        buffer: ReadBuffer::new(Arc::clone(&ctx.config.limits)),
        written: write.progress(),
        dispatcher: Dispatcher::new(ctx.clone(), peer, Arc::clone(&state)),
        state: Arc::clone(&state),
    };
    // The writer is polled first: what is ready is sent before more is read.
    join(write_responses(ctx, write, rx, state), read_requests(reader, tx)).await;
    drop(slot);
}

/// Dispatches requests until the peer has closed its side or the writer ends.
async fn read_requests<E: Env>(mut reader: Reader<E>, tx: mpsc::Sender<PendingRequest<E>>) {
    let state = Arc::clone(&reader.state);
    tokio::select! {
        biased;
        () = state.closed.notified() => {}
        () = reader.dispatch_all(&tx) => {}
    }
    // Requests that were dispatched are still answered when the peer has closed its side; but a parked fetch ends with its
    // connection.
    drop(tx);
    drop(reader);
    state.set_reader_blocked(true);
}

struct Reader<E: Env> {
    read: <E::Conn as Conn<E>>::Read,
    buffer: ReadBuffer,
    /// Bytes of responses that the peer received: reading them counts as activity.
    written: Progress,
    dispatcher: Dispatcher<E>,
    state: Arc<ConnectionState>,
}

/// Polls a dispatched request. Once it does long work, this also reads a little, so that the work ends if the peer closes
/// its side.
async fn until_done<E: Env, T>(
    mut dispatched: Pin<&mut impl Future<Output = T>>,
    state: &ConnectionState,
    (read, buf): (&mut <E::Conn as Conn<E>>::Read, &mut BytesMut),
) -> T {
    tokio::select! {
        biased;
        done = &mut dispatched => return done,
        () = state.long_work.notified() => {}
    }
    if buf.capacity() == buf.len() {
        buf.reserve(LONG_WORK_READ_BYTES);
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
struct ArrivingFrame {
    deadline: Instant,
    evictable: Arc<Evictable>,
}

/// Waits until the arriving frame is evicted; forever if there is none.
async fn evicted(arriving: Option<&ArrivingFrame>) {
    match arriving {
        Some(frame) => frame.evictable.evicted().await,
        None => std::future::pending().await,
    }
}

impl<E: Env> Reader<E> {
    /// Dispatches one request after the other and passes them on to the writer, until either ends.
    async fn dispatch_all(&mut self, tx: &mpsc::Sender<PendingRequest<E>>) {
        let frame_bytes_max = self.dispatcher.ctx.memory.buffer_bytes_max() / BUFFERS_PART_MAX;
        while let Some(pending) = self.next().await {
            let state = &self.state;
            state.add_pending(&pending);
            let full = match tx.try_send(pending) {
                Ok(()) if !state.is_over_limit(frame_bytes_max) => continue,
                Ok(()) => None,
                Err(TrySendError::Closed(_)) => break,
                Err(TrySendError::Full(pending)) => Some(pending),
            };
            let queued = pin!(async {
                if let Some(pending) = full {
                    tx.send(pending).await.ok()?;
                }
                state.until_below_limit(frame_bytes_max).await;
                Some(())
            });
            if state.while_not_reading(queued).await.is_none() {
                break;
            }
        }
    }

    /// Reads and dispatches frames up to the next request with a response. `None` when the connection ends.
    async fn next(&mut self) -> Option<PendingRequest<E>> {
        loop {
            let (frame, buffer) = self.frame().await?;
            let frame_bytes = frame.len();
            let dispatched = pin!(self.dispatcher.dispatch(frame, Arc::clone(&buffer)));
            let reading = (&mut self.read, &mut self.buffer.bytes);
            let dispatched = pin!(until_done::<E, _>(dispatched, &self.state, reading));
            match self.state.while_not_reading(dispatched).await {
                Dispatched::Pending(pending, decoded) => {
                    return Some(PendingRequest {
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

    /// The next frame, without its size, and the reservation of the buffer that contains it.
    async fn frame(&mut self) -> Option<(Bytes, Arc<Share>)> {
        while self.buffer.bytes.len() < 4 {
            self.read_more(4, None).await?;
        }
        let size = i32::from_be_bytes(*self.buffer.bytes.first_chunk().expect("there are four bytes"));
        let ctx = &self.dispatcher.ctx;
        let Ok(size) = usize::try_from(size) else {
            ctx.error_log.record(
                "negative frame size",
                &format_args!("{size} from {}", self.dispatcher.peer.addr),
            );
            return None;
        };
        if size > ctx.config.socket_request_max_bytes.max(0) as usize {
            ctx.error_log.record(
                "frame too large",
                &format_args!("{size} bytes from {}", self.dispatcher.peer.addr),
            );
            return None;
        }
        self.buffer.bytes.advance(4);
        if self.buffer.bytes.len() < size {
            let limits = &ctx.config.limits;
            let time =
                limits.connection_frame + Duration::from_secs(size as u64 / limits.connection_frame_rate);
            let arriving = ArrivingFrame {
                deadline: ctx.env.now() + time,
                evictable: ctx.memory.evictable_frame(),
            };
            arriving.evictable.add_received(self.buffer.bytes.len());
            while self.buffer.bytes.len() < size {
                self.read_more(size, Some(&arriving)).await?;
            }
        }
        Some((
            self.buffer.bytes.split_to(size).freeze(),
            Arc::clone(&self.buffer.share),
        ))
    }

    /// Reads once, until the buffer has `need` bytes or fewer. `None` if the connection must be closed.
    async fn read_more(&mut self, need: usize, arriving: Option<&ArrivingFrame>) -> Option<()> {
        let Dispatcher { ctx, peer, .. } = &self.dispatcher;
        let idle_max = idle_max(ctx);
        let (mut seen, mut idle_since) = (self.written.bytes(), ctx.env.now());
        loop {
            let reserved = async {
                let reserved = pin!(self.buffer.reserve_for(need, &ctx.memory));
                let reserved = self.state.while_not_reading(reserved);
                match arriving {
                    Some(frame) => frame.evictable.while_waiting(&ctx.env, reserved).await,
                    None => reserved.await,
                }
            };
            tokio::select! {
                biased;
                reserved = reserved => if let Err(Overloaded) = reserved {
                    ctx.error_log.record("no memory for a request", &peer.addr);
                    return None;
                },
                () = evicted(arriving) => {
                    ctx.error_log.record("slow request dropped, for memory was short", &peer.addr);
                    return None;
                }
            }
            let buf = &mut self.buffer.bytes;
            let spare = buf.capacity() - buf.len();
            let deadline = match arriving {
                Some(frame) => frame.deadline.min(idle_since + idle_max),
                None => idle_since + idle_max,
            };
            let keep_buffer = self.buffer.share.bytes() == 0
                && buf.capacity() <= ctx.config.limits.connection_read_buffer_min
                || !buf.is_empty();
            self.state.reading.reset();
            let release_at = (ctx.env.now() + ctx.config.limits.connection_idle_buffer).min(deadline);
            let wake_at = if keep_buffer { deadline } else { release_at };
            // What was written is seen late, and by no more than this.
            let wake_at = wake_at.min(ctx.env.now() + idle_max / IDLE_LOOKS);
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
                        if let Some(frame) = arriving {
                            frame.evictable.add_received(n);
                        }
                        self.buffer.adapt_target(n, spare);
                        return Some(());
                    }
                    Err(error) => {
                        tracing::debug!(%error, peer = %peer.addr, "connection lost");
                        return None;
                    }
                },
                () = evicted(arriving) => {
                    ctx.error_log.record("slow request dropped, for memory was short", &peer.addr);
                    return None;
                }
                () = ctx.env.sleep_until(wake_at) => {
                    let now = ctx.env.now();
                    if self.written.bytes() != seen {
                        (seen, idle_since) = (self.written.bytes(), now);
                    }
                    if arriving.is_some_and(|frame| now >= frame.deadline) {
                        ctx.error_log.record("request that took too long to arrive", &peer.addr);
                        return None;
                    }
                    if now >= idle_since + idle_max {
                        ctx.error_log.record("idle connection closed", &peer.addr);
                        return None;
                    }
                    if !keep_buffer {
                        self.buffer.release();
                    }
                }
            }
        }
    }
}

/// How often a connection looks whether something was written, in the time after which it is closed.
const IDLE_LOOKS: u32 = 4;

/// `connections.max.idle.ms`. As in Kafka, a negative value means never.
fn idle_max<E: Env>(ctx: &Ctx<E>) -> Duration {
    const NEVER: Duration = Duration::from_secs(u64::MAX >> 32);
    u64::try_from(ctx.config.connections_max_idle_ms).map_or(NEVER, Duration::from_millis)
}

/// Sends responses in the order of their requests. Only the oldest future is polled: the ones behind it can't be sent
/// before, and batches were submitted when they were dispatched.
async fn write_responses<E: Env>(
    ctx: Ctx<E>,
    mut write: <E::Conn as Conn<E>>::Write,
    mut rx: mpsc::Receiver<PendingRequest<E>>,
    state: Arc<ConnectionState>,
) {
    let limits = Arc::clone(&ctx.config.limits);
    let pending_max = limits.connection_pending;
    let mut pending = VecDeque::new();
    let mut open = true;
    'serve: while open || !pending.is_empty() {
        tokio::select! {
            biased;
            first = next_response(&mut pending, &state) => {
                let Some(first) = first else { break 'serve };
                let (mut bytes, mut memory) = (parts_bytes(&first.parts), first.memory_bytes());
                let (mut parts, first) = first.into_parts();
                let mut responses = vec![first];
                let mut last = false;
                while bytes < limits.connection_write_bytes
                    && memory < limits.connection_write_memory_bytes
                    && let Some(next) = next_response(&mut pending, &state).now_or_never()
                {
                    let Some(next) = next else {
                        last = true;
                        break;
                    };
                    bytes += parts_bytes(&next.parts);
                    memory += next.memory_bytes();
                    let (more, next) = next.into_parts();
                    parts.extend(more);
                    responses.push(next);
                }
                if !send_responses::<E>(&ctx, &mut write, parts, &responses, &state).await || last {
                    break 'serve;
                }
            }
            next = rx.recv(), if open && pending.len() < pending_max => match next {
                Some(request) => {
                    pending.push_back(request);
                    while pending.len() < pending_max && let Ok(request) = rx.try_recv() {
                        pending.push_back(request);
                    }
                }
                None => open = false,
            },
        }
    }
    state.closed.notify_one();
    drop(write.shutdown().await);
}

fn parts_bytes<E: Env>(parts: &[Part<E>]) -> usize {
    parts.iter().map(Part::len).sum()
}

/// Waits for the response to the oldest request, and releases the request's memory. Never returns while no request is
/// pending. Cancel-safe.
async fn next_response<E: Env>(
    pending: &mut VecDeque<PendingRequest<E>>,
    state: &ConnectionState,
) -> Option<Response<E>> {
    let response = poll_fn(|cx| match pending.front_mut() {
        Some(oldest) => oldest.pending.as_mut().poll(cx),
        None => Poll::Pending,
    })
    .await;
    if let Some(answered) = pending.pop_front() {
        state.remove_pending(&answered);
    }
    response
}

/// Sends the responses. `false` if the peer is gone, received nothing for too long, or was evicted because others waited
/// for memory.
async fn send_responses<E: Env>(
    ctx: &Ctx<E>,
    write: &mut <E::Conn as Conn<E>>::Write,
    parts: Vec<Part<E>>,
    responses: &[OutgoingResponse],
    state: &ConnectionState,
) -> bool {
    if parts.is_empty() {
        return true;
    }
    let progress = write.progress();
    let mut writing = pin!(write.write(parts));
    let (started_at, idle_max) = (ctx.env.now(), idle_max(ctx));
    let (from, mut seen, mut idle_since) = (progress.bytes(), progress.bytes(), started_at);
    // A write of less than a second can't be evicted.
    let mut evictable: Option<Arc<Evictable>> = None;
    loop {
        let wake_at = (idle_since + idle_max).min(ctx.env.now() + SLOW_WRITE);
        let evicted = async {
            match &evictable {
                Some(response) => response.evicted().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            sent = &mut writing => return match sent {
                Ok(()) => {
                    record_total_times(ctx, responses);
                    true
                }
                Err(error) => {
                    tracing::debug!(%error, "connection lost");
                    false
                }
            },
            // The write is abandoned, and so is the connection.
            () = evicted => {
                ctx.error_log.record("slow reader dropped", &"others waited for the memory of its response");
                return false;
            }
            () = ctx.env.sleep_until(wake_at) => {
                let bytes = progress.bytes();
                let held = responses.iter().map(|r| r.share.bytes()).sum();
                // Registered again each time: the requests that wait behind it change.
                let response = ctx.memory.evictable_response(started_at, state.held_bytes(held));
                response.add_sent((bytes - from) as usize);
                evictable = Some(response);
                if bytes != seen {
                    (seen, idle_since) = (bytes, ctx.env.now());
                } else if ctx.env.now() >= idle_since + idle_max {
                    ctx.error_log.record("slow reader dropped", &"it took nothing for connections.max.idle.ms");
                    return false;
                }
            }
        }
    }
}

/// Records the total time of each request.
fn record_total_times<E: Env>(ctx: &Ctx<E>, responses: &[OutgoingResponse]) {
    let now = ctx.env.now();
    for response in responses {
        if let Some(api) = ctx.metrics.api(response.api_key) {
            api.total_time.record(now.saturating_since(response.received_at));
        }
    }
}

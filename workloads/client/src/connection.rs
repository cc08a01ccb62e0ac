//! Requests and responses on one connection.
//!
//! ```text
//!   submit ──► queue ──► writer ──► peer ──► reader ──► Reply
//!                          └─ expect(correlation id, deadline) ─┘
//! ```
//! Two tasks: the writer numbers and writes frames in the order of [`Connection::submit`]'s calls, and the reader matches
//! responses to them in that order. A response out of order, an invalid frame, or a missed deadline closes the connection and
//! fails all pending requests. Like Kafka's own client, this one closes a connection after a timeout, since responses behind
//! a lost one would not arrive either. Reconnecting is left to [`Client`](crate::Client).
//!
//! The outcome of a request is exact: [`Error::NotSent`] means that none of its bytes were sent.

use std::collections::VecDeque;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use brokkr_env::{Conn, Env, Instant, ReadHalf, WriteHalf};
use brokkr_wire::messages::ApiVersionsResponse;
use brokkr_wire::{ApiKey, EncodeError, ErrorCode, Message, Part, Reader, Request, Str, frame};
use bytes::{Bytes, BytesMut};
use tokio::sync::{mpsc, oneshot};

use crate::{Error, Result};

/// Capacity of the queue to the writer of one connection.
const QUEUED_MAX: usize = 1024;
/// Limit of requests that wait for responses on one connection.
const PENDING_MAX: usize = 1024;
/// Bytes to read at once, and growth of the buffer if a frame is larger.
const READ_PIECE: usize = 64 * 1024;

/// Configuration of a connection.
#[derive(Clone, Debug)]
pub struct ConnectionConfig {
    /// The client id in each request.
    pub client_id: Option<Str>,
    /// The largest response; a peer that announces a larger one violates the protocol.
    pub response_bytes_max: usize,
    /// Suspends reading, to imitate a client that stalls.
    pub hold: Hold,
}

/// Suspends reading until an instant: unread data stays in the connection's buffers, so the peer sees backpressure. Clones
/// share the state.
#[derive(Clone, Default, Debug)]
pub struct Hold(Arc<Mutex<Instant>>);

impl Hold {
    /// Reads nothing before `at`. A read that is already in progress may still return.
    pub fn until(&self, at: Instant) {
        *self.0.lock().expect("no panic under this lock") = at;
    }

    fn ends(&self) -> Instant {
        *self.0.lock().expect("no panic under this lock")
    }
}

impl Default for ConnectionConfig {
    fn default() -> Self {
        Self {
            client_id: Some(Str::from_static("brokkr")),
            response_bytes_max: 128 << 20,
            hold: Hold::default(),
        }
    }
}

type Encode = Box<dyn FnOnce(i32, Option<&Str>) -> std::result::Result<Vec<Part>, EncodeError> + Send>;
type ResponseSender = oneshot::Sender<Result<Bytes>>;

struct Outgoing {
    encode: Encode,
    answered: bool,
    deadline: Instant,
    sender: ResponseSender,
}

struct Pending {
    correlation_id: i32,
    deadline: Instant,
    sender: ResponseSender,
}

enum ReaderMessage {
    Expect(Pending),
    WriteFailed(brokkr_env::Error),
}

/// An open connection. Clones share it; it closes when the last clone is dropped and all requests are answered.
pub struct Connection<E: Env> {
    env: E,
    queue: mpsc::Sender<Outgoing>,
    submitted: Arc<AtomicU64>,
}

impl<E: Env> Clone for Connection<E> {
    fn clone(&self) -> Self {
        Self {
            env: self.env.clone(),
            queue: self.queue.clone(),
            submitted: Arc::clone(&self.submitted),
        }
    }
}

impl<E: Env> Connection<E> {
    /// Connects to `host:port`.
    ///
    /// # Errors
    /// [`Error::NotSent`]. Waits as long as the environment's `connect`; callers set the time limit.
    pub async fn open(env: &E, host: &str, port: u16, config: ConnectionConfig) -> Result<Self> {
        let conn = env.connect(host, port).await;
        let conn = conn.map_err(|e| Error::NotSent(e.to_string()))?;
        Ok(Self::over(env, conn, config))
    }

    /// Wraps a stream that is already connected.
    pub fn over(env: &E, conn: E::Conn, config: ConnectionConfig) -> Self {
        let (read, write) = conn.split();
        let (queue, outgoing) = mpsc::channel(QUEUED_MAX);
        let (expect, expected) = mpsc::channel(PENDING_MAX);
        let (alive, ended) = oneshot::channel();
        let writer = Writer {
            env: env.clone(),
            write,
            outgoing,
            expect,
            client_id: config.client_id,
        };
        let reader = ResponseReader {
            env: env.clone(),
            read,
            buf: BytesMut::new(),
            expected,
            pending: VecDeque::new(),
            response_bytes_max: config.response_bytes_max,
            hold: config.hold,
        };
        env.spawn("client writer", writer.run(ended));
        env.spawn("client reader", reader.run(alive));
        Self {
            env: env.clone(),
            queue,
            submitted: Arc::default(),
        }
    }

    /// How many requests were submitted on it.
    pub fn submitted(&self) -> u64 {
        self.submitted.load(Ordering::Relaxed)
    }

    /// Whether the connection accepts no more requests.
    pub fn is_closed(&self) -> bool {
        self.queue.is_closed()
    }

    /// Queues a request at once, in call order. Dropping the reply cancels nothing.
    pub fn submit<R: Request + Send + 'static>(
        &self,
        request: R,
        version: i16,
        timeout: Duration,
    ) -> Reply<R> {
        self.enqueue(request, version, timeout, true)
    }

    /// Sends a request that has no response (a Produce with `acks=0`). The call queues it at once; the future completes when it is
    /// written.
    pub fn submit_unanswered<R: Request + Send + 'static>(
        &self,
        request: R,
        version: i16,
        timeout: Duration,
    ) -> impl Future<Output = Result<()>> + Send + use<R, E> {
        let reply = self.enqueue(request, version, timeout, false);
        async move {
            let response = reply.response.await;
            response.unwrap_or_else(|_| Err(task_ended())).map(drop)
        }
    }

    fn enqueue<R: Request + Send + 'static>(
        &self,
        request: R,
        version: i16,
        timeout: Duration,
        answered: bool,
    ) -> Reply<R> {
        self.submitted.fetch_add(1, Ordering::Relaxed);
        let (sender, response) = oneshot::channel();
        let encode: Encode =
            Box::new(move |id, client: Option<&Str>| frame::encode_request(&request, version, id, client));
        let outgoing = Outgoing {
            encode,
            answered,
            deadline: self.env.now() + timeout,
            sender,
        };
        if let Err(refused) = self.queue.try_send(outgoing) {
            let (why, outgoing) = match refused {
                mpsc::error::TrySendError::Full(o) => ("too many requests wait on the connection", o),
                mpsc::error::TrySendError::Closed(o) => ("the connection is closed", o),
            };
            respond(outgoing.sender, Err(Error::NotSent(why.to_owned())));
        }
        Reply {
            response,
            version,
            request: PhantomData,
        }
    }
}

fn task_ended() -> Error {
    Error::Lost("the connection's task is gone".to_owned())
}

/// The error for a peer that violates the protocol.
fn protocol_error(what: String) -> Error {
    brokkr_types::reached!("a peer broke the protocol");
    tracing::warn!(what, "the peer broke the protocol");
    Error::Protocol(what)
}

fn respond(sender: ResponseSender, result: Result<Bytes>) {
    // The caller may have dropped the reply.
    drop(sender.send(result));
}

/// A future response.
#[must_use = "the request goes on, but its outcome would go unseen"]
pub struct Reply<R: Request> {
    response: oneshot::Receiver<Result<Bytes>>,
    version: i16,
    request: PhantomData<fn() -> R>,
}

impl<R: Request> Future for Reply<R> {
    type Output = Result<R::Response>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let response = ready!(Pin::new(&mut self.response).poll(cx));
        let frame = response.unwrap_or_else(|_| Err(task_ended()));
        Poll::Ready(frame.and_then(|f| decode::<R>(f, self.version)))
    }
}

fn decode<R: Request>(frame: Bytes, version: i16) -> Result<R::Response> {
    let mut r = Reader::new(frame);
    frame::decode_response_header(&mut r, R::API_KEY, version)?;
    let mut version = version;
    if R::API_KEY == ApiKey::ApiVersions {
        // A broker that does not support our version answers in version 0 (KIP-511), whose first field is the error code.
        let mut ahead = r.clone();
        let refused = ahead.i16("ApiVersionsResponse.error_code")? == ErrorCode::UNSUPPORTED_VERSION.0;
        version = if refused {
            ApiVersionsResponse::MIN_VERSION
        } else {
            version
        };
    }
    Ok(R::Response::decode(&mut r, version)?)
}

struct Writer<E: Env> {
    env: E,
    write: <E::Conn as Conn<E>>::Write,
    outgoing: mpsc::Receiver<Outgoing>,
    expect: mpsc::Sender<ReaderMessage>,
    client_id: Option<Str>,
}

impl<E: Env> Writer<E> {
    async fn run(mut self, mut reader_ended: oneshot::Receiver<()>) {
        let mut correlation_id = 0;
        loop {
            let next = tokio::select! {
                biased;
                _ = &mut reader_ended => break,
                next = self.outgoing.recv() => next,
            };
            let Some(outgoing) = next else {
                // All handles were dropped. The reader stays for the pending requests.
                drop(self.write.shutdown().await);
                return;
            };
            correlation_id = i32::wrapping_add(correlation_id, 1) & i32::MAX;
            let parts = match (outgoing.encode)(correlation_id, self.client_id.as_ref()) {
                Ok(parts) => parts,
                Err(e) => {
                    respond(outgoing.sender, Err(e.into()));
                    continue;
                }
            };
            let mut unanswered = None;
            if outgoing.answered {
                let pending = Pending {
                    correlation_id,
                    deadline: outgoing.deadline,
                    sender: outgoing.sender,
                };
                // BEFORE the write, so that the reader knows of a request when its response arrives.
                if let Err(refused) = self.expect.send(ReaderMessage::Expect(pending)).await {
                    if let ReaderMessage::Expect(p) = refused.0 {
                        respond(
                            p.sender,
                            Err(Error::NotSent("the connection is closed".to_owned())),
                        );
                    }
                    break;
                }
            } else {
                unanswered = Some(outgoing.sender);
            }
            let written = tokio::select! {
                biased;
                // Dropping a write closes the connection, which is intended: the reader failed, or the write takes too long.
                _ = &mut reader_ended => None,
                written = self.write.write(to_env(parts)) => Some(written),
                () = self.env.sleep_until(outgoing.deadline) => None,
            };
            match (written, unanswered) {
                (Some(Ok(())), Some(sender)) => respond(sender, Ok(Bytes::new())),
                (Some(Ok(())), None) => {}
                (failed, sender) => {
                    if let Some(sender) = sender {
                        respond(sender, Err(Error::Lost("while writing".to_owned())));
                    }
                    if let Some(Err(e)) = failed {
                        // It doesn't matter if the reader has ended as well.
                        drop(self.expect.send(ReaderMessage::WriteFailed(e)).await);
                    }
                    break;
                }
            }
        }
        self.outgoing.close();
        while let Some(outgoing) = self.outgoing.recv().await {
            let why = "the connection ended before its turn".to_owned();
            respond(outgoing.sender, Err(Error::NotSent(why)));
        }
    }
}

fn to_env<E: Env>(parts: Vec<Part>) -> Vec<brokkr_env::Part<E>> {
    let part = |p| match p {
        Part::Bytes(bytes) => brokkr_env::Part::Bytes(bytes),
        Part::External { .. } => unreachable!("a client's requests are in memory"),
    };
    parts.into_iter().map(part).collect()
}

struct ResponseReader<E: Env> {
    env: E,
    read: <E::Conn as Conn<E>>::Read,
    buf: BytesMut,
    expected: mpsc::Receiver<ReaderMessage>,
    pending: VecDeque<Pending>,
    response_bytes_max: usize,
    hold: Hold,
}

impl<E: Env> ResponseReader<E> {
    /// `_alive` is dropped with this future, which notifies the writer.
    async fn run(mut self, _alive: oneshot::Sender<()>) {
        let end = self.read_until_end().await;
        self.expected.close();
        while let Some(message) = self.expected.recv().await {
            if let ReaderMessage::Expect(pending) = message {
                self.pending.push_back(pending);
            }
        }
        for pending in self.pending {
            respond(pending.sender, Err(end.clone()));
        }
    }

    /// Returns the reason why the connection ended.
    async fn read_until_end(&mut self) -> Error {
        let mut writer_done = false;
        loop {
            if writer_done && self.pending.is_empty() {
                return Error::Lost("closed".to_owned());
            }
            let held = self.hold.ends();
            if held > self.env.now() {
                self.env.sleep_until(held).await;
            }
            if self.buf.capacity() - self.buf.len() < READ_PIECE / 4 {
                self.buf.reserve(READ_PIECE);
            }
            let deadlines = self.pending.iter().map(|p| p.deadline);
            let deadline = deadlines.min().unwrap_or(Instant::FAR_FUTURE);
            tokio::select! {
                biased;
                message = self.expected.recv(), if !writer_done => match message {
                    Some(ReaderMessage::Expect(pending)) => self.pending.push_back(pending),
                    Some(ReaderMessage::WriteFailed(e)) => return Error::Lost(e.to_string()),
                    None => writer_done = true,
                },
                read = self.read.read(&mut self.buf) => match read {
                    Ok(0) => return Error::Lost("the peer closed it".to_owned()),
                    Ok(_) => if let Err(e) = self.take_responses() {
                        return e;
                    },
                    Err(e) => return Error::Lost(e.to_string()),
                },
                () = self.env.sleep_until(deadline) => return Error::TimedOut,
            }
        }
    }

    fn take_responses(&mut self) -> Result<()> {
        while let Some(size) = self.buf.first_chunk::<4>() {
            let size = i32::from_be_bytes(*size);
            let len = usize::try_from(size)
                .ok()
                .filter(|n| (4..=self.response_bytes_max).contains(n));
            let Some(len) = len else {
                return Err(protocol_error(format!("a response of {size} bytes")));
            };
            if self.buf.len() < 4 + len {
                break;
            }
            let frame = self.buf.split_to(4 + len).freeze().slice(4..);
            self.take_response(frame)?;
        }
        Ok(())
    }

    fn take_response(&mut self, frame: Bytes) -> Result<()> {
        // The writer announces a request before it writes it, but the message may still be in the channel.
        while self.pending.is_empty() {
            match self.expected.try_recv() {
                Ok(ReaderMessage::Expect(pending)) => self.pending.push_back(pending),
                Ok(ReaderMessage::WriteFailed(e)) => return Err(Error::Lost(e.to_string())),
                Err(_) => return Err(protocol_error("a response nobody asked for".to_owned())),
            }
        }
        let id = frame.first_chunk::<4>().map(|id| i32::from_be_bytes(*id));
        match self.pending.pop_front() {
            Some(pending) if id == Some(pending.correlation_id) => {
                respond(pending.sender, Ok(frame));
                Ok(())
            }
            Some(pending) => {
                let what = format!("a response to {id:?}, not to {}", pending.correlation_id);
                self.pending.push_front(pending);
                Err(protocol_error(what))
            }
            None => Err(protocol_error("a response nobody asked for".to_owned())),
        }
    }
}

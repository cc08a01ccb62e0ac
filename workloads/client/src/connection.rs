//! Requests and responses on one connection.
//!
//! ```text
//!   submit ──► queue ──► writer ──► peer ──► reader ──► Reply
//!                          └─ expect(correlation id, deadline) ─┘
//! ```
//! Two tasks: the writer numbers and writes frames in the order of [`Connection::submit`]'s calls, the reader matches
//! responses to them in that order. A response out of order, a frame that can't be, or a response that doesn't come by its
//! deadline ends the connection, and with it all that waits: like Kafka's own client, this one doesn't trust a connection that
//! is late, since nothing behind a lost response would come either. Reconnecting is [`Client`](crate::Client)'s.
//!
//! What became of a request is never blurred: [`Error::NotSent`] means that no byte of it left.

use std::collections::VecDeque;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use brokkr_env::{Conn, Env, Instant, Part as EnvPart, ReadHalf, WriteHalf};
use brokkr_wire::messages::ApiVersionsResponse;
use brokkr_wire::{ApiKey, EncodeError, ErrorCode, Message, Part, Reader, Request, Str, frame};
use bytes::{Bytes, BytesMut};
use tokio::sync::{mpsc, oneshot};

use crate::{Error, Result};

/// Requests that wait for the writer on one connection.
const QUEUED_MAX: usize = 1024;
/// Requests that wait for their responses on one connection.
const PENDING_MAX: usize = 1024;
/// Bytes asked for in one read, and grown by when a frame is larger.
const READ_PIECE: usize = 64 * 1024;

/// How a connection behaves.
#[derive(Clone, Debug)]
pub struct ConnectionConfig {
    /// What we call ourselves in each request.
    pub client_id: Option<Str>,
    /// The largest response taken; a peer that announces a larger one broke the protocol.
    pub response_bytes_max: usize,
    /// Whether anything is read at all, to play a client that stands still.
    pub hold: Hold,
}

/// Until when nothing is read: what the peer sends stays in the connection's buffers, and the peer feels it. Cloning shares it.
#[derive(Clone, Default, Debug)]
pub struct Hold(Arc<Mutex<Instant>>);

impl Hold {
    /// Nothing more is read before `at`. What is being read already may still come.
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
type Told = oneshot::Sender<Result<Bytes>>;

struct Outgoing {
    encode: Encode,
    answered: bool,
    deadline: Instant,
    tell: Told,
}

struct Pending {
    correlation_id: i32,
    deadline: Instant,
    tell: Told,
}

enum ToReader {
    Expect(Pending),
    WriteFailed(brokkr_env::Error),
}

/// An open connection. Cloning shares it; it closes when the last clone is gone and everything asked was answered.
pub struct Connection<E: Env> {
    env: E,
    queue: mpsc::Sender<Outgoing>,
}

impl<E: Env> Clone for Connection<E> {
    fn clone(&self) -> Self {
        Self {
            env: self.env.clone(),
            queue: self.queue.clone(),
        }
    }
}

impl<E: Env> Connection<E> {
    /// Connects to `host:port`.
    ///
    /// # Errors
    /// [`Error::NotSent`]. Waits as long as the environment's `connect` does: bound it from outside.
    pub async fn open(env: &E, host: &str, port: u16, config: ConnectionConfig) -> Result<Self> {
        let conn = env.connect(host, port).await;
        let conn = conn.map_err(|e| Error::NotSent(e.to_string()))?;
        Ok(Self::over(env, conn, config))
    }

    /// Speaks over a stream that is connected already.
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
        }
    }

    /// Whether nothing can be asked on it any more.
    pub fn is_closed(&self) -> bool {
        self.queue.is_closed()
    }

    /// Asks. The call itself puts the request in line, in call order; dropping the reply cancels nothing.
    pub fn submit<R: Request + Send + 'static>(
        &self,
        request: R,
        version: i16,
        timeout: Duration,
    ) -> Reply<R> {
        self.put_in_line(request, version, timeout, true)
    }

    /// Sends what has no response (a Produce with `acks=0`). The call itself puts it in line;
    /// the future ends when it is written.
    pub fn submit_unanswered<R: Request + Send + 'static>(
        &self,
        request: R,
        version: i16,
        timeout: Duration,
    ) -> impl Future<Output = Result<()>> + Send + use<R, E> {
        let reply = self.put_in_line(request, version, timeout, false);
        async move {
            let told = reply.told.await;
            told.unwrap_or_else(|_| Err(gone())).map(drop)
        }
    }

    fn put_in_line<R: Request + Send + 'static>(
        &self,
        request: R,
        version: i16,
        timeout: Duration,
        answered: bool,
    ) -> Reply<R> {
        let (tell, told) = oneshot::channel();
        let encode: Encode =
            Box::new(move |id, client: Option<&Str>| frame::encode_request(&request, version, id, client));
        let outgoing = Outgoing {
            encode,
            answered,
            deadline: self.env.now() + timeout,
            tell,
        };
        if let Err(refused) = self.queue.try_send(outgoing) {
            let (why, outgoing) = match refused {
                mpsc::error::TrySendError::Full(o) => ("too many requests wait on the connection", o),
                mpsc::error::TrySendError::Closed(o) => ("the connection is closed", o),
            };
            answer(outgoing.tell, Err(Error::NotSent(why.to_owned())));
        }
        Reply {
            told,
            version,
            request: PhantomData,
        }
    }
}

fn gone() -> Error {
    Error::Lost("the connection's task is gone".to_owned())
}

/// What the peer sent is not what it may send.
fn broken(what: String) -> Error {
    brokkr_types::reached!("a peer broke the protocol");
    tracing::warn!(what, "the peer broke the protocol");
    Error::Protocol(what)
}

fn answer(tell: Told, result: Result<Bytes>) {
    // Who asked may not want to know any more.
    drop(tell.send(result));
}

/// A response to come.
#[must_use = "the request goes on, but its outcome would go unseen"]
pub struct Reply<R: Request> {
    told: oneshot::Receiver<Result<Bytes>>,
    version: i16,
    request: PhantomData<fn() -> R>,
}

impl<R: Request> Future for Reply<R> {
    type Output = Result<R::Response>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let told = ready!(Pin::new(&mut self.told).poll(cx));
        let frame = told.unwrap_or_else(|_| Err(gone()));
        Poll::Ready(frame.and_then(|f| decode::<R>(f, self.version)))
    }
}

fn decode<R: Request>(frame: Bytes, version: i16) -> Result<R::Response> {
    let mut r = Reader::new(frame);
    frame::decode_response_header(&mut r, R::API_KEY, version)?;
    let mut version = version;
    if R::API_KEY == ApiKey::ApiVersions {
        // A broker that doesn't know our version answers in version 0 (KIP-511), whose first field tells.
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
    expect: mpsc::Sender<ToReader>,
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
                // Everybody let go. The reader stays for what was asked.
                drop(self.write.shutdown().await);
                return;
            };
            correlation_id = i32::wrapping_add(correlation_id, 1) & i32::MAX;
            let parts = match (outgoing.encode)(correlation_id, self.client_id.as_ref()) {
                Ok(parts) => parts,
                Err(e) => {
                    answer(outgoing.tell, Err(e.into()));
                    continue;
                }
            };
            let mut unanswered = None;
            if outgoing.answered {
                let pending = Pending {
                    correlation_id,
                    deadline: outgoing.deadline,
                    tell: outgoing.tell,
                };
                // BEFORE the write: the reader knows of a request when its response comes.
                if let Err(refused) = self.expect.send(ToReader::Expect(pending)).await {
                    if let ToReader::Expect(p) = refused.0 {
                        answer(p.tell, Err(Error::NotSent("the connection is closed".to_owned())));
                    }
                    break;
                }
            } else {
                unanswered = Some(outgoing.tell);
            }
            let written = tokio::select! {
                biased;
                // Dropping a write closes the connection, which is meant: the reader gave it up, or it takes too long.
                _ = &mut reader_ended => None,
                written = self.write.write(to_env(parts)) => Some(written),
                () = self.env.sleep_until(outgoing.deadline) => None,
            };
            match (written, unanswered) {
                (Some(Ok(())), Some(tell)) => answer(tell, Ok(Bytes::new())),
                (Some(Ok(())), None) => {}
                (failed, tell) => {
                    if let Some(tell) = tell {
                        answer(tell, Err(Error::Lost("while writing".to_owned())));
                    }
                    if let Some(Err(e)) = failed {
                        // That the reader is gone as well is fine.
                        drop(self.expect.send(ToReader::WriteFailed(e)).await);
                    }
                    break;
                }
            }
        }
        self.outgoing.close();
        while let Some(outgoing) = self.outgoing.recv().await {
            let why = "the connection ended before its turn".to_owned();
            answer(outgoing.tell, Err(Error::NotSent(why)));
        }
    }
}

fn to_env<E: Env>(parts: Vec<Part>) -> Vec<EnvPart<E>> {
    let part = |p| match p {
        Part::Bytes(bytes) => EnvPart::Bytes(bytes),
        Part::External { .. } => unreachable!("a client's requests are in memory"),
    };
    parts.into_iter().map(part).collect()
}

struct ResponseReader<E: Env> {
    env: E,
    read: <E::Conn as Conn<E>>::Read,
    buf: BytesMut,
    expected: mpsc::Receiver<ToReader>,
    pending: VecDeque<Pending>,
    response_bytes_max: usize,
    hold: Hold,
}

impl<E: Env> ResponseReader<E> {
    /// `_alive` is dropped with this future: the writer then knows.
    async fn run(mut self, _alive: oneshot::Sender<()>) {
        let end = self.read_until_end().await;
        self.expected.close();
        while let Some(message) = self.expected.recv().await {
            if let ToReader::Expect(pending) = message {
                self.pending.push_back(pending);
            }
        }
        for pending in self.pending {
            answer(pending.tell, Err(end.clone()));
        }
    }

    /// Why it ended.
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
                    Some(ToReader::Expect(pending)) => self.pending.push_back(pending),
                    Some(ToReader::WriteFailed(e)) => return Error::Lost(e.to_string()),
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
                return Err(broken(format!("a response of {size} bytes")));
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
        // The writer announces a request before it writes it, but the message may still lie in the channel.
        while self.pending.is_empty() {
            match self.expected.try_recv() {
                Ok(ToReader::Expect(pending)) => self.pending.push_back(pending),
                Ok(ToReader::WriteFailed(e)) => return Err(Error::Lost(e.to_string())),
                Err(_) => return Err(broken("a response nobody asked for".to_owned())),
            }
        }
        let id = frame.first_chunk::<4>().map(|id| i32::from_be_bytes(*id));
        match self.pending.pop_front() {
            Some(pending) if id == Some(pending.correlation_id) => {
                answer(pending.tell, Ok(frame));
                Ok(())
            }
            Some(pending) => {
                let what = format!("a response to {id:?}, not to {}", pending.correlation_id);
                self.pending.push_front(pending);
                Err(broken(what))
            }
            None => Err(broken("a response nobody asked for".to_owned())),
        }
    }
}

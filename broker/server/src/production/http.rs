//! The endpoint for metrics and health checks: HTTP/1.1 on a port of its own.
//!
//! It listens before the broker opens its log directories, so that it can report recovery. Memory is bounded: at most
//! [`CONNECTIONS_MAX`] connections; on each, one request with a head of at most [`HEAD_BYTES_MAX`], which has [`HEAD_TIME`]
//! to arrive; and no connection lives longer than [`CONNECTION_TIME`]. If there is no room for another connection, the one
//! whose head has been awaited longest gives way: idle connections can't keep a health check out. At most
//! [`SCRAPES_MAX`] scrapes are built or sent at a time. Metrics are collected and encoded on a thread for blocking work,
//! never on a worker of the runtime: with many partitions that takes milliseconds.
#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a server of the real world: no broker's decision depends on it"
)]

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use brokkr_env::tokio::TokioEnv;
use brokkr_env::{Env, Latest, Published};
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ACCEPT, ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use super::exposition::{self, BrokerStatus, Format};
use super::real_broker::RealBroker;

/// Connections at a time.
const CONNECTIONS_MAX: usize = 16;
/// Of those, the ones that have asked for metrics.
const SCRAPES_MAX: usize = 2;
/// Bytes of a request's head.
const HEAD_BYTES_MAX: usize = 16 << 10;
/// How long a request's head may take to arrive.
const HEAD_TIME: Duration = Duration::from_secs(5);
/// How long a connection may last.
const CONNECTION_TIME: Duration = Duration::from_secs(30);
/// How long to wait after an accept failed (no descriptor is free, say) before the next.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The endpoint. It serves until the process ends.
pub struct Endpoint {
    local_addr: SocketAddr,
    status: Published<BrokerStatus>,
}

impl Endpoint {
    /// Listens; the broker is starting.
    pub async fn start(env: &TokioEnv, (host, port): (&str, u16)) -> std::io::Result<Self> {
        let listener = TcpListener::bind((host, port)).await?;
        let local_addr = listener.local_addr()?;
        let status = Published::new(BrokerStatus::Starting);
        let server = Arc::new(Server {
            env: env.clone(),
            status: status.latest(),
            scrapes: Arc::new(Semaphore::new(SCRAPES_MAX)),
            without_head: Mutex::default(),
        });
        env.spawn("metrics", accept(server, listener));
        Ok(Self { local_addr, status })
    }

    /// The address that it listens at.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// The broker is running from now on.
    pub fn running(&self, broker: &RealBroker) {
        self.status.publish(BrokerStatus::running(broker));
    }

    /// The broker is stopping from now on.
    pub fn stopping(&self) {
        self.status.publish(BrokerStatus::Stopping);
    }
}

struct Server {
    env: TokioEnv,
    status: Latest<BrokerStatus>,
    scrapes: Arc<Semaphore>,
    /// Connections whose head has not arrived, by their numbers: notified to end.
    without_head: Mutex<BTreeMap<u64, Arc<Notify>>>,
}

impl Server {
    fn without_head(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Notify>>> {
        self.without_head.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the connection whose head has been awaited longest. `false` if there is none.
    fn end_oldest_without_head(&self) -> bool {
        let oldest = self.without_head().pop_first();
        oldest.map(|(_, end)| end.notify_one()).is_some()
    }
}

async fn accept(server: Arc<Server>, listener: TcpListener) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    for number in 0.. {
        match listener.accept().await {
            Ok((stream, _)) => {
                let slot = match Arc::clone(&slots).try_acquire_owned() {
                    Ok(slot) => slot,
                    Err(_) if server.end_oldest_without_head() => {
                        let slot = Arc::clone(&slots).acquire_owned().await;
                        slot.expect("the semaphore is never closed")
                    }
                    // All of them have sent their requests.
                    Err(_) => continue,
                };
                let end = Arc::new(Notify::new());
                server.without_head().insert(number, Arc::clone(&end));
                let connection = Connection { number, end, slot };
                let env = server.env.clone();
                env.spawn("metrics-conn", serve(Arc::clone(&server), stream, connection));
            }
            Err(error) => {
                tracing::debug!(%error, "accept failed on metrics.listen");
                let env = &server.env;
                env.sleep_until(env.now() + ACCEPT_PAUSE).await;
            }
        }
    }
}

struct Connection {
    number: u64,
    /// Notified when it must give way.
    end: Arc<Notify>,
    slot: OwnedSemaphorePermit,
}

/// Serves one request.
async fn serve(server: Arc<Server>, stream: TcpStream, Connection { number, end, slot }: Connection) {
    // Holds the scrape's permit until the connection ends: until then its text is in memory.
    let scrape_permit = Mutex::new(None);
    let service = service_fn(|request| {
        server.without_head().remove(&number);
        respond(&server, request, &scrape_permit)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_buf_size(HEAD_BYTES_MAX)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    let deadline = server.env.now() + CONNECTION_TIME;
    tokio::select! {
        biased;
        served = connection => if let Err(error) = served {
            tracing::debug!(%error, "a connection to metrics.listen ended early");
        },
        () = end.notified() => tracing::debug!("a connection to metrics.listen gave way to another"),
        () = server.env.sleep_until(deadline) => tracing::debug!("a connection to metrics.listen took too long"),
    }
    server.without_head().remove(&number);
    drop(slot);
}

async fn respond(
    server: &Server,
    request: Request<Incoming>,
    scrape_permit: &Mutex<Option<OwnedSemaphorePermit>>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let path = request.uri().path();
    if !["/metrics", "/health/live", "/health/ready"].contains(&path) {
        let paths = "not found: there are /metrics, /health/live and /health/ready";
        return Ok(plain(StatusCode::NOT_FOUND, paths));
    }
    if ![Method::GET, Method::HEAD].contains(request.method()) {
        let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD");
        response
            .headers_mut()
            .insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return Ok(response);
    }
    Ok(match path {
        "/metrics" => {
            let scrapes = Arc::clone(&server.scrapes);
            let permit = scrapes
                .acquire_owned()
                .await
                .expect("the semaphore is never closed");
            *scrape_permit.lock().unwrap_or_else(PoisonError::into_inner) = Some(permit);
            metrics(server, format_of(&request)).await
        }
        "/health/live" => plain(StatusCode::OK, "live"),
        _ => match server.status.get().ready() {
            Ok(()) => plain(StatusCode::OK, "ready"),
            Err(why) => plain(StatusCode::SERVICE_UNAVAILABLE, &why),
        },
    })
}

/// Prometheus lists OpenMetrics in its Accept header. Other clients get the older format, which every client reads.
fn format_of(request: &Request<Incoming>) -> Format {
    let mut accepted = request.headers().get_all(ACCEPT).iter();
    let open_metrics = |value: &HeaderValue| {
        value
            .to_str()
            .is_ok_and(|value| value.contains("application/openmetrics-text"))
    };
    match accepted.any(open_metrics) {
        true => Format::OpenMetrics,
        false => Format::Prometheus,
    }
}

async fn metrics(server: &Server, format: Format) -> Response<Full<Bytes>> {
    let status = server.status.get();
    match tokio::task::spawn_blocking(move || exposition::encode(status, format)).await {
        Ok(text) => with_type(StatusCode::OK, format.content_type(), text),
        // The runtime is shutting down.
        Err(error) => plain(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

fn plain(code: StatusCode, sentence: &str) -> Response<Full<Bytes>> {
    with_type(code, "text/plain; charset=utf-8", format!("{sentence}\n"))
}

fn with_type(code: StatusCode, content_type: &'static str, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = code;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

//! A process that opens connections and sees how long they live.

use std::future::Future;
use std::time::Duration;

use brokkr_client::connection::{Connection, ConnectionConfig};
use brokkr_env::{Conn, Env, Part, ReadHalf, Rng, WriteHalf};
use brokkr_history::{Op, Type};
use brokkr_wire::messages::ApiVersionsRequest;
use bytes::{Bytes, BytesMut};
use serde_json::{Value, json};

use crate::spec::{ClientSpec, VisitorSpec};
use crate::{Recorder, Stop};

/// How often it looks whether a connection is closed.
const LOOK: Duration = Duration::from_millis(20);
/// Longest time to connect, and for a response.
const PATIENCE: Duration = Duration::from_secs(2);
/// Time between two visits, in which the broker hears that the connections of the first are closed.
const BETWEEN: Duration = Duration::from_millis(500);
/// Connections beyond the limit that it tries to open.
const BEYOND: u64 = 3;
/// How often it asks on a connection that must stay open, and how many requests are in the time after which others are closed.
const ASKED: u32 = 6;
const ASKED_A_LIMIT: u32 = 2;
/// How long it waits for the end of a connection that nobody closes.
const WITHOUT_LIMIT: Duration = Duration::from_secs(5);

/// Visits until stopped.
///
/// In the history: `visit`, with `what`: `idle` (a request, and then nothing) and `half` (a part of a request), with `open_ms`, how
/// long it stayed open (null: to the end of the visit); `active` (a request now and then), with the number of `answers`; `flood`
/// (`tried` connections), with the number of `answers`.
pub async fn run_visitor<E: Env>(
    env: &E,
    client: &ClientSpec,
    spec: &VisitorSpec,
    recorder: &Recorder,
    stop: &Stop,
) {
    let visitor = Visitor { env, client, spec };
    let rng = env.rng("workload visitor");
    while !stop.is_stopped() {
        let pause = BETWEEN + Duration::from_micros(rng.below(spec.pause_max_ms * 1000 + 1));
        tokio::select! {
            biased;
            () = stop.wait() => return,
            () = env.sleep_until(env.now() + pause) => {}
        }
        let what = ["idle", "half", "active", "flood", "flood"][rng.below(5) as usize];
        let op = |value| Op::Other("visit".to_owned(), value);
        recorder.invoke(env.now(), spec.process, op(json!({"what": what})));
        let seen = tokio::select! {
            biased;
            () = stop.wait() => None,
            seen = visitor.visit(what, &rng) => seen,
        };
        let (type_, value) = match seen {
            Some(seen) => (Type::Ok, seen),
            None => (Type::Fail, json!({"what": what})),
        };
        recorder.complete(env.now(), spec.process, type_, op(value));
    }
}

struct Visitor<'a, E: Env> {
    env: &'a E,
    client: &'a ClientSpec,
    spec: &'a VisitorSpec,
}

impl<E: Env> Visitor<'_, E> {
    async fn visit(&self, what: &str, rng: &Rng) -> Option<Value> {
        match what {
            "idle" => {
                let connection = self.connect().await?;
                self.ask(&connection).await?;
                let open = self.until_closed(&connection).await;
                Some(json!({"what": what, "open_ms": open}))
            }
            "half" => self.half(1 + rng.below(20) as usize).await,
            "active" => {
                let connection = self.connect().await?;
                let mut answers = 0;
                for _ in 0..ASKED {
                    if self.ask(&connection).await.is_none() {
                        break;
                    }
                    answers += 1;
                    let pause = self.limit().unwrap_or(WITHOUT_LIMIT) / ASKED_A_LIMIT;
                    self.env.sleep_until(self.env.now() + pause).await;
                }
                Some(json!({"what": what, "asked": ASKED, "answers": answers}))
            }
            _ => {
                let tried = self.spec.connections_max + BEYOND;
                let mut open = Vec::new();
                let mut answers = 0;
                for _ in 0..tried {
                    let Some(connection) = self.connect().await else {
                        continue;
                    };
                    answers += u64::from(self.ask(&connection).await.is_some());
                    open.push(connection);
                }
                Some(json!({"what": what, "tried": tried, "answers": answers}))
            }
        }
    }

    /// After how long the broker closes a connection.
    fn limit(&self) -> Option<Duration> {
        (self.spec.idle_ms > 0).then(|| Duration::from_millis(self.spec.idle_ms))
    }

    async fn in_time<T>(&self, what: impl Future<Output = Option<T>>) -> Option<T> {
        tokio::select! {
            biased;
            value = what => value,
            () = self.env.sleep_until(self.env.now() + PATIENCE) => None,
        }
    }

    async fn connect(&self) -> Option<Connection<E>> {
        let (host, port) = self.client.bootstrap.first()?;
        let config = ConnectionConfig::default();
        self.in_time(async { Connection::open(self.env, host, *port, config).await.ok() })
            .await
    }

    async fn ask(&self, connection: &Connection<E>) -> Option<()> {
        let request = ApiVersionsRequest {
            client_software_name: "visitor".into(),
            client_software_version: "1".into(),
            ..Default::default()
        };
        connection.submit(request, 3, PATIENCE).await.ok().map(drop)
    }

    /// Waits until the connection is closed, and returns after how many milliseconds; `None` after twice the limit.
    async fn until_closed(&self, connection: &Connection<E>) -> Option<u64> {
        let began = self.env.now();
        let patience = self.limit().map_or(WITHOUT_LIMIT, |limit| limit * 2);
        while self.env.now().saturating_since(began) < patience {
            if connection.is_closed() {
                return Some(self.env.now().saturating_since(began).as_millis() as u64);
            }
            self.env.sleep_until(self.env.now() + LOOK).await;
        }
        None
    }

    /// Sends a part of a request.
    async fn half(&self, bytes: usize) -> Option<Value> {
        let (host, port) = self.client.bootstrap.first()?;
        let connected = async { self.env.connect(host, *port).await.ok() };
        let (mut read, mut write) = self.in_time(connected).await?.split();
        // ApiVersions, of 100 bytes.
        let mut part = vec![0, 0, 0, 100, 0, 18, 0, 3];
        part.resize(part.len() + bytes, 0);
        self.in_time(async { write.write(vec![Part::Bytes(Bytes::from(part))]).await.ok() })
            .await?;
        let began = self.env.now();
        let patience = self.limit().map_or(WITHOUT_LIMIT, |limit| limit * 2);
        let mut buf = BytesMut::with_capacity(64);
        let open = tokio::select! {
            biased;
            _ = read.read(&mut buf) => Some(self.env.now().saturating_since(began).as_millis() as u64),
            () = self.env.sleep_until(began + patience) => None,
        };
        Some(json!({"what": "half", "open_ms": open}))
    }
}

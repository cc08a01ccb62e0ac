//! Plays rude connections, and judges the responses.
//!
//! ```text
//!   writer ── requests, at most `in_flight_max` unanswered ──▶ broker
//!   reader ◀─ responses, each against the oldest unanswered request ─┘
//! ```
//! The broker must respond in order to each request that Kafka's schema allows, if it serves the API (V1, `protocol`). After a
//! malformed request anything is allowed except a wrong response: the broker closes the connection. In a plan with faults a
//! connection may end at any time.

use std::collections::VecDeque;
use std::str::FromStr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use brokkr_env::{Conn, Env, Part, ReadHalf, WriteHalf};
use brokkr_types::Uuid;
use brokkr_wire::Reader as WireReader;
use brokkr_wire::messages::{ApiVersionsResponse, Message as _, ResponseHeader};
use bytes::{Buf, Bytes, BytesMut};
use tokio::sync::Notify;

use super::draw::SERVED;
use super::encode::{Encoded, request};
use super::response::{check, correlation_id};
use super::{Reads, RudeRequest, SharedConnection, Value};
use crate::check::{Violation, folder_in, topic_id};
use crate::env::{SimConn, SimEnv, SimReadHalf, SimWriteHalf};
use crate::exec::{Nanos, lock};
use crate::plan::{BROKER, PORT};
use crate::schema::{api, apis};
use crate::shared::Shared;

/// The node of the first rude connection. No network fault targets these nodes.
pub(crate) const FIRST_RUDE: u32 = 1_000;
/// Response time limit of a request that does not ask the broker to wait.
const PATIENCE: Duration = Duration::from_secs(20);
/// A request that asks the broker to wait longer than this needs no response within the run.
const WAIT_MAX_MS: i64 = 5_000;
/// How long a connection waits for an optional response.
const QUIET: Duration = Duration::from_secs(2);
/// How many times, and how long, a connection is attempted: the broker may be starting.
const CONNECTS_MAX: u32 = 100;
const CONNECT_AGAIN: Duration = Duration::from_millis(50);
/// A larger response is a violation.
const RESPONSE_BYTES_MAX: usize = 64 << 20;

/// A request that was sent.
struct SentRequest {
    of: RudeRequest,
    correlation_id: i32,
    must_be_answered: bool,
    /// When it was sent, or when the previous one was answered.
    since: Nanos,
}

#[derive(Default)]
struct ConnectionState {
    unanswered: VecDeque<SentRequest>,
    /// No more requests will be sent.
    is_all_sent: bool,
    /// The last frame was cut.
    is_cut: bool,
}

/// One active connection.
#[derive(Clone)]
struct RudeSession {
    shared: Shared,
    env: SimEnv,
    spec: SharedConnection,
    flow: Arc<Mutex<ConnectionState>>,
    changed: Arc<(Notify, Notify)>,
}

/// Starts the rude clients of the plan.
pub(crate) fn start(shared: &Shared) {
    for (spec, node) in shared.plan.rude.iter().zip(FIRST_RUDE..) {
        let env = shared.world.env(node);
        let rude = RudeSession {
            shared: shared.clone(),
            env: env.clone(),
            spec: spec.clone(),
            flow: Arc::default(),
            changed: Arc::default(),
        };
        drop(env.spawn("rude", async move { rude.play().await }));
    }
}

impl RudeSession {
    async fn play(self) {
        self.env
            .sleep_until(self.env.now() + Duration::from_millis(self.spec.at_ms))
            .await;
        let Some(conn) = self.connect().await else { return };
        let (read, write) = conn.split();
        let writing = async {
            self.write(write).await;
            std::future::pending::<()>().await;
        };
        tokio::select! {
            biased;
            () = self.read(read) => {}
            () = writing => {}
        }
        self.env
            .sleep_until(self.env.now() + Duration::from_millis(self.spec.stays_ms))
            .await;
    }

    async fn connect(&self) -> Option<SimConn> {
        let host = crate::net::addr_of(BROKER, PORT).ip().to_string();
        for _ in 0..CONNECTS_MAX {
            if let Ok(conn) = self.env.connect(&host, PORT).await {
                return Some(conn);
            }
            self.env.sleep_until(self.env.now() + CONNECT_AGAIN).await;
        }
        self.violation("V1", "the broker refuses connections");
        None
    }

    fn violation(&self, id: &'static str, what: impl std::fmt::Display) {
        // A fault may be the reason for a missing response, but never for a wrong one.
        if id == "protocol" || self.shared.plan.faults.is_empty() {
            let node = self.env.life().node;
            let what = format!("rude connection {}: {what}", node - FIRST_RUDE);
            self.shared.violation(Violation::new(id, what));
        }
    }

    fn count(&self, what: &'static str) {
        self.shared.world.count(what);
    }

    fn now(&self) -> Nanos {
        self.shared.world.exec().now()
    }

    /// The writer: sends all requests, and keeps its half open.
    async fn write(&self, mut write: SimWriteHalf) {
        let all = self.spec.requests.iter();
        let all: Vec<&RudeRequest> = all.flat_map(|r| (0..r.times).map(move |_| r)).collect();
        let mut is_sound = true;
        for (i, of) in all.iter().enumerate() {
            self.wait_for_turn().await;
            let encoded = request(of, i as i32, &|topic| self.id_of(topic));
            let cut = self.spec.cut.filter(|_| i + 1 == all.len());
            is_sound &= encoded.is_valid && cut.is_none() && of.is_served();
            self.is_sent(of, i as i32, is_sound, &encoded, cut.is_some());
            // Like Kafka, the broker closes the connection if an append without acknowledgement fails.
            is_sound &= !of.wants_no_answer() && !encoded.is_dense;
            let mut frame = encoded.frame;
            frame.truncate(cut.map_or(usize::MAX, |n| n as usize));
            if !frame.is_empty() && write.write(vec![Part::Bytes(frame.into())]).await.is_err() {
                break;
            }
        }
        lock(&self.flow).is_all_sent = true;
        self.changed.0.notify_one();
        // Both halves are dropped together.
        std::future::pending::<()>().await;
    }

    async fn wait_for_turn(&self) {
        if self.spec.reads == Reads::Never {
            return;
        }
        while lock(&self.flow).unanswered.len() >= self.spec.in_flight_max.max(1) {
            self.changed.1.notified().await;
        }
    }

    fn is_sent(&self, of: &RudeRequest, correlation_id: i32, must: bool, encoded: &Encoded, is_cut: bool) {
        self.count(match () {
            () if is_cut => "half a request",
            () if of.announces.is_some() => "request of another size",
            () if !encoded.is_valid => "malformed request",
            () => "rude request",
        });
        let mut flow = lock(&self.flow);
        flow.is_cut |= is_cut;
        if !of.wants_no_answer() {
            flow.unanswered.push_back(SentRequest {
                of: of.clone(),
                correlation_id,
                must_be_answered: must && !encoded.is_dense && of.wait_ms() <= WAIT_MAX_MS,
                since: self.now(),
            });
        }
        drop(flow);
        self.changed.0.notify_one();
    }

    fn id_of(&self, topic: &str) -> [u8; 16] {
        let state = self.shared.world.lock();
        let disk = state.disks.get(&BROKER).expect("the broker has a disk");
        let id = topic_id(disk, &folder_in(disk, &self.shared.roots, &format!("{topic}-0")));
        let id = id.and_then(|text| Uuid::from_str(&text).ok());
        id.map_or([0; 16], |id| *id.as_bytes())
    }

    /// The reader: returns when every request is answered, or the connection has to end.
    async fn read(&self, mut read: SimReadHalf) {
        if self.spec.reads == Reads::Never {
            self.count("reads nothing");
            return self.all_is_sent().await;
        }
        let mut came = BytesMut::new();
        loop {
            let (is_over, deadline) = self.outlook();
            if is_over {
                return;
            }
            let room = match self.spec.reads {
                Reads::Slowly { bytes, .. } => bytes.max(1),
                _ => 64 << 10,
            };
            let mut piece = BytesMut::with_capacity(room);
            let deadline = brokkr_env::Instant::from_nanos(deadline);
            tokio::select! {
                biased;
                n = read.read(&mut piece) => match n {
                    Ok(n) if n > 0 => came.extend_from_slice(&piece[..n.min(room)]),
                    _ => return self.closed(),
                },
                () = self.changed.0.notified() => continue,
                () = self.env.sleep_until(deadline) => return self.late(),
            }
            if !self.responses(&mut came) {
                return;
            }
            if let Reads::Slowly { pause_ms, .. } = self.spec.reads {
                self.env
                    .sleep_until(self.env.now() + Duration::from_millis(pause_ms))
                    .await;
            }
        }
    }

    async fn all_is_sent(&self) {
        while !lock(&self.flow).is_all_sent {
            self.changed.0.notified().await;
        }
    }

    /// Whether no more responses are expected, and the deadline of the next response.
    fn outlook(&self) -> (bool, Nanos) {
        let flow = lock(&self.flow);
        let is_over = flow.is_all_sent && (flow.unanswered.is_empty() || flow.is_cut);
        let wait = |s: &SentRequest| match (s.must_be_answered, self.spec.reads) {
            (true, Reads::All) => PATIENCE + Duration::from_millis(s.of.wait_ms().max(0) as u64),
            (true, _) => PATIENCE * 10,
            (false, _) => QUIET,
        };
        let front = flow.unanswered.front();
        let deadline = front.map_or(Nanos::MAX, |s| s.since + wait(s).as_nanos() as Nanos);
        (is_over, deadline)
    }

    fn closed(&self) {
        let flow = lock(&self.flow);
        // The broker may drop a slow reader while others wait for memory.
        let must = |s: &&SentRequest| s.must_be_answered && self.spec.reads == Reads::All;
        if let Some(first) = flow.unanswered.front().filter(must) {
            let what = format!("closed, and not answered: {}", first.of.shown());
            drop(flow);
            self.violation("V1", what);
        }
    }

    fn late(&self) {
        let flow = lock(&self.flow);
        if let Some(first) = flow.unanswered.front().filter(|s| s.must_be_answered) {
            let what = format!("not answered in {PATIENCE:?}: {}", first.of.shown());
            drop(flow);
            if self.spec.reads == Reads::All {
                self.violation("V1", what);
            }
        }
    }

    /// Takes complete responses; `false` if the connection is unusable.
    fn responses(&self, came: &mut BytesMut) -> bool {
        while let Some(size) = came.first_chunk().map(|size| i32::from_be_bytes(*size)) {
            let size = usize::try_from(size).unwrap_or(usize::MAX);
            if size > RESPONSE_BYTES_MAX {
                self.violation("protocol", format_args!("a response of {size} bytes"));
                return false;
            }
            if came.len() < 4 + size {
                return true;
            }
            came.advance(4);
            if let Err(what) = self.response(came.split_to(size).freeze()) {
                self.violation("protocol", what);
                return false;
            }
        }
        true
    }

    fn response(&self, frame: Bytes) -> Result<(), String> {
        let mut flow = lock(&self.flow);
        let of = flow
            .unanswered
            .pop_front()
            .ok_or("a response that nobody asked for")?;
        let now = self.now();
        flow.unanswered
            .iter_mut()
            .for_each(|s| s.since = s.since.max(now));
        drop(flow);
        self.changed.1.notify_one();
        let got = correlation_id(&frame);
        if got != Some(of.correlation_id) {
            return Err(format!(
                "correlation id {got:?}, not {}: {}",
                of.correlation_id,
                of.of.shown()
            ));
        }
        let api = api(&of.of.api).ok_or_else(|| format!("an answer to {}", of.of.shown()))?;
        check(api, of.of.version, &frame).map_err(|e| format!("{e}: the response to {}", of.of.shown()))?;
        let mut tally = lock(&self.shared.rude);
        *tally.answered.entry((&api.name, of.of.version)).or_insert(0) += 1;
        if api.name == "ApiVersions" && tally.served.is_empty() && api.versions.contains(of.of.version) {
            tally.served = served(frame, of.of.version);
        }
        Ok(())
    }
}

/// The versions that an ApiVersions response advertises.
fn served(frame: Bytes, version: i16) -> Vec<(&'static str, i16)> {
    let mut r = WireReader::new(frame);
    let header = ResponseHeader::decode(&mut r, 0);
    let Ok(response) = header.and_then(|_| ApiVersionsResponse::decode(&mut r, version)) else {
        return Vec::new();
    };
    let named = |key: i16| apis().iter().find(|api| api.key == key);
    let all = response
        .api_keys
        .iter()
        .filter_map(|k| Some((named(k.api_key)?, k)));
    // Produce is advertised from version 0 on, but the versions below the first real one are refused (KAFKA-18659).
    all.flat_map(|(api, k)| (k.min_version.max(api.versions.lo)..=k.max_version).map(|v| (&*api.name, v)))
        .collect()
}

impl RudeRequest {
    /// Whether the broker serves this API and version.
    fn is_served(&self) -> bool {
        let key = brokkr_wire::ApiKey::ALL.iter().find(|key| key.name() == self.api);
        SERVED.contains(&&*self.api) && key.is_some_and(|key| key.stable_versions().contains(&self.version))
    }

    /// Whether the broker may close the connection because of it.
    pub(super) fn may_end_it(&self) -> bool {
        self.announces.is_some() || self.body_cut.is_some() || !self.is_served() || self.wants_no_answer()
    }

    fn number(&self, field: &str) -> Option<i64> {
        let Value::Struct(fields) = &self.body else {
            return None;
        };
        match fields.get(field) {
            Some(Value::Int(n)) => Some(*n),
            _ => None,
        }
    }

    /// A Produce with acks=0 is not answered.
    fn wants_no_answer(&self) -> bool {
        self.api == "Produce" && self.number("acks").unwrap_or(0) == 0
    }

    /// How long it asks the broker to wait.
    fn wait_ms(&self) -> i64 {
        if self.api == "Fetch" {
            self.number("max_wait_ms").unwrap_or(0)
        } else {
            0
        }
    }

    /// The beginning of its JSON, for a violation's text.
    fn shown(&self) -> String {
        let text = serde_json::to_string(self).expect("a request can be written");
        let end = text.char_indices().nth(300).map_or(text.len(), |(at, _)| at);
        text[..end].to_owned()
    }
}

//! The producer's task: carries out the decisions of [`State`].

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::pin::Pin;

use brokkr_env::{Env, Instant};
use brokkr_types::{Offset, ProducerEpoch, ProducerId, UnixMillis, Uuid};
use brokkr_wire::messages::produce_request::{PartitionProduceData, TopicProduceData};
use brokkr_wire::messages::produce_response::PartitionProduceResponse;
use brokkr_wire::messages::{InitProducerIdRequest, InitProducerIdResponse, ProduceRequest, ProduceResponse};
use brokkr_wire::{ErrorCode, Str};
use tokio::sync::{mpsc, oneshot};

use super::batch::{BatchId, Identity};
use super::config::{Acks, ProducerConfig};
use super::delivery::SendResult;
use super::record::ProducerRecord;
use super::state::{Outcome, State};
use crate::client::{Link, Peer};
use crate::events::Events;
use crate::{Client, Error, Result, TopicPartition};

/// The first version of Produce that identifies topics by id.
const PRODUCE_TOPIC_ID_VERSION: i16 = 13;
/// Maximum commands to take before the state is examined.
const COMMANDS_AT_ONCE_MAX: usize = 1024;

/// A request of the [`Producer`](super::Producer) to its task.
pub(super) enum Command {
    Send {
        record: ProducerRecord,
        result_sender: oneshot::Sender<SendResult>,
        memory_permit: tokio::sync::OwnedSemaphorePermit,
    },
    Flush(oneshot::Sender<()>),
}

/// A batch in a request.
struct Sent {
    tp: TopicPartition,
    topic_id: Uuid,
    batch: BatchId,
    at: Instant,
}

enum SenderEvent<E: Env> {
    Connected(i32, Result<Link<E>>),
    Produced(i32, Vec<Sent>, Result<Option<ProduceResponse>>),
    Metadata(Result<()>),
    Identified(Result<InitProducerIdResponse>),
}

/// Connection state of a broker.
struct ProducerNode<E: Env> {
    link: Option<Link<E>>,
    connecting: bool,
    requests: usize,
}

pub(super) struct Sender<E: Env> {
    client: Client<E>,
    state: State,
    commands: mpsc::Receiver<Command>,
    open: bool,
    events: Events<SenderEvent<E>>,
    nodes: BTreeMap<i32, ProducerNode<E>>,
    flushes: VecDeque<(BatchId, oneshot::Sender<()>)>,
    metadata: RetriedRequest,
    identity: RetriedRequest,
    failures: u32,
}

/// A request that is in flight at most once, and repeated after a backoff.
struct RetriedRequest {
    in_flight: bool,
    wanted: bool,
    not_before: Instant,
}

impl RetriedRequest {
    fn new() -> Self {
        Self {
            in_flight: false,
            wanted: false,
            not_before: Instant::default(),
        }
    }

    /// Starts the request if it is due. Returns whether it did.
    fn begin(&mut self, now: Instant) -> bool {
        let begins = self.wanted && !self.in_flight && self.not_before <= now;
        self.in_flight |= begins;
        self.wanted &= !begins;
        begins
    }

    fn end(&mut self, not_before: Instant) {
        self.in_flight = false;
        self.not_before = not_before;
    }

    fn next(&self) -> Instant {
        if self.wanted && !self.in_flight {
            self.not_before
        } else {
            Instant::FAR_FUTURE
        }
    }
}

impl<E: Env> Sender<E> {
    pub fn new(client: Client<E>, config: ProducerConfig, commands: mpsc::Receiver<Command>) -> Self {
        Self {
            client,
            state: State::new(config),
            commands,
            open: true,
            events: Events::new(),
            nodes: BTreeMap::new(),
            flushes: VecDeque::new(),
            metadata: RetriedRequest::new(),
            identity: RetriedRequest::new(),
            failures: 0,
        }
    }

    /// Runs until every handle is dropped and every record has its outcome.
    pub async fn run(mut self) {
        while self.open || !self.state.is_idle() {
            let wake = self.pump();
            let env = self.client.env();
            tokio::select! {
                biased;
                event = self.events.next() => self.on_event(event),
                command = self.commands.recv(), if self.open => self.on_commands(command),
                () = env.sleep_until(wake) => {}
            }
        }
    }

    fn on_commands(&mut self, first: Option<Command>) {
        let (now, wall) = (self.client.env().now(), self.client.env().wall());
        let mut next = first;
        for _ in 0..COMMANDS_AT_ONCE_MAX {
            match next {
                None => break,
                Some(Command::Flush(result_sender)) => {
                    let before = self.state.flush();
                    self.flushes.push_back((before, result_sender));
                }
                Some(Command::Send {
                    record,
                    result_sender,
                    memory_permit,
                }) => {
                    self.client.want_topic(&record.to.topic);
                    self.state.push(now, wall, &record, result_sender, memory_permit);
                }
            }
            next = self.commands.try_recv().ok();
        }
        if self.commands.is_closed() && self.commands.is_empty() {
            // All handles were dropped, so no more records will come: don't linger.
            self.open = false;
            self.state.flush();
        }
    }

    /// Does everything that can be done now. Returns when to call it again if no event occurs before.
    fn pump(&mut self) -> Instant {
        let now = self.client.env().now();
        self.state.expire(now);
        self.state.resolve();
        if self.state.needs_identity() {
            self.identity.wanted = true;
        }
        if self.identity.begin(now) {
            self.ask_for_identity();
        }
        while self.send_some(now) {}
        if self.metadata.begin(now) {
            let client = self.client.clone();
            self.events
                .push(async move { SenderEvent::Metadata(client.refresh_metadata().await) });
        }
        while let Some((before, _)) = self.flushes.front()
            && self.state.have_outcomes_before(*before)
            && let Some((_, result_sender)) = self.flushes.pop_front()
        {
            if result_sender.send(()).is_err() {
                tracing::trace!("who flushed doesn't wait any more");
            }
        }
        let requests = self.metadata.next().min(self.identity.next());
        self.state.next_deadline(now).min(requests)
    }

    fn ask_for_identity(&mut self) {
        let client = self.client.clone();
        let request = InitProducerIdRequest {
            transactional_id: None,
            transaction_timeout_ms: i32::MAX,
            ..Default::default()
        };
        self.events
            .push(async move { SenderEvent::Identified(client.ask_any(request).await) });
    }

    /// Sends one request to each broker that has a due batch. Returns whether it sent any.
    fn send_some(&mut self, now: Instant) -> bool {
        let due = self.state.due(now);
        if !due.is_empty() && self.client.metadata_is_stale() {
            self.metadata.wanted = true;
        }
        let mut requests: BTreeMap<i32, (usize, Vec<(Sent, bytes::Bytes)>)> = BTreeMap::new();
        for tp in due {
            let Some(leader) = self.client.with_metadata(|m| m.leader(&tp)) else {
                self.metadata.wanted = true;
                continue;
            };
            if !self.is_ready(leader.node) {
                continue;
            }
            let (size, batches) = requests.entry(leader.node).or_default();
            let more = self.state.due_bytes(&tp, now).unwrap_or(0);
            if !batches.is_empty() && *size + more > self.state.config().request_bytes_max {
                continue;
            }
            if let Some(sending) = self.state.take(&tp, now) {
                *size += sending.bytes.len();
                let sent = Sent {
                    tp,
                    topic_id: leader.topic_id,
                    batch: sending.batch,
                    at: now,
                };
                batches.push((sent, sending.bytes));
            }
        }
        let mut any = false;
        for (node, (_, batches)) in requests {
            any |= !batches.is_empty();
            self.send(node, batches);
        }
        any
    }

    /// Whether a request can be sent to a broker now; if not, an event will wake this task.
    fn is_ready(&mut self, id: i32) -> bool {
        let node = self.nodes.entry(id).or_insert(ProducerNode {
            link: None,
            connecting: false,
            requests: 0,
        });
        if node.link.as_ref().is_some_and(|l| l.connection().is_closed()) {
            node.link = None;
        }
        if node.link.is_some() {
            return node.requests < self.state.config().in_flight_max;
        }
        if !node.connecting {
            node.connecting = true;
            let client = self.client.clone();
            self.events
                .push(async move { SenderEvent::Connected(id, client.link(Peer::Node(id)).await) });
        }
        false
    }

    fn send(&mut self, id: i32, batches: Vec<(Sent, bytes::Bytes)>) {
        let Some(node) = self.nodes.get_mut(&id) else {
            unreachable!("it is ready")
        };
        let Some(link) = &node.link else {
            unreachable!("it is ready")
        };
        let acks = self.state.config().acks;
        let timeout = self.client.config().request_timeout;
        let (sent, request) = produce_request(batches, acks, timeout.as_millis());
        node.requests += 1;
        // The call itself queues the request, so the order of calls is the order of sending.
        let version = match self.client.version_of::<ProduceRequest>(link) {
            Ok(v) if sent.iter().any(|s| s.topic_id.is_zero()) => Ok(v.min(PRODUCE_TOPIC_ID_VERSION - 1)),
            result => result,
        };
        for s in &sent {
            let by_id = matches!(version, Ok(v) if v >= PRODUCE_TOPIC_ID_VERSION);
            let topic_id = if by_id { s.topic_id } else { Uuid::ZERO };
            self.state.sent_to(&s.tp, s.batch, topic_id);
        }
        let result: Pin<Box<dyn Future<Output = Result<Option<ProduceResponse>>> + Send>> = match version {
            Err(e) => Box::pin(async move { Err(e) }),
            Ok(v) if acks == Acks::None => {
                let written = link.connection().submit_unanswered(request, v, timeout);
                Box::pin(async move { written.await.map(|()| None) })
            }
            Ok(v) => {
                let reply = link.submit(request, v);
                Box::pin(async move { reply.await.map(Some) })
            }
        };
        self.events
            .push(async move { SenderEvent::Produced(id, sent, result.await) });
    }

    fn on_event(&mut self, event: SenderEvent<E>) {
        let now = self.client.env().now();
        match event {
            SenderEvent::Connected(id, result) => {
                let Some(node) = self.nodes.get_mut(&id) else {
                    return;
                };
                node.connecting = false;
                match result {
                    Ok(link) => node.link = Some(link),
                    Err(e) => {
                        tracing::debug!(node = id, error = %e, "no connection");
                        self.metadata.wanted = true;
                    }
                }
            }
            SenderEvent::Metadata(result) => {
                if let Err(e) = result {
                    tracing::debug!(error = %e, "no metadata");
                }
                let wait = self.backoff(1);
                self.metadata.end(now + wait);
            }
            SenderEvent::Identified(result) => self.on_identified(result, now),
            SenderEvent::Produced(id, sent, result) => {
                if let Some(node) = self.nodes.get_mut(&id) {
                    node.requests -= 1;
                }
                self.on_produced(sent, result, now);
            }
        }
    }

    fn backoff(&self, failures: u32) -> std::time::Duration {
        self.client.config().backoff().after(failures, self.client.rng())
    }

    fn on_identified(&mut self, result: Result<InitProducerIdResponse>, now: Instant) {
        let wait = self.backoff(1);
        self.identity.end(now + wait);
        let result = result.and_then(|r| Error::check(r.error_code, None).map(|()| r));
        match result {
            Ok(r) => self.state.set_identity(Identity {
                id: ProducerId(r.producer_id),
                epoch: ProducerEpoch(r.producer_epoch),
            }),
            Err(e) if e.is_retriable() => tracing::debug!(error = %e, "no producer id"),
            Err(e) => self.state.fail_all(&e),
        }
    }

    fn on_produced(&mut self, sent: Vec<Sent>, result: Result<Option<ProduceResponse>>, now: Instant) {
        self.failures = match &result {
            Ok(_) => 0,
            Err(_) => self.failures.saturating_add(1),
        };
        let retry_at = now + self.backoff(self.failures.max(1));
        let mut responses = match result {
            Err(e) => {
                self.metadata.wanted = true;
                for s in sent {
                    let outcome = Outcome::Unanswered(e.clone());
                    self.state.on_outcome(&s.tp, s.batch, outcome, now, retry_at);
                }
                return;
            }
            Ok(None) => PartitionResponses::none(),
            Ok(Some(response)) => PartitionResponses::of(response),
        };
        for s in sent {
            let outcome = match responses.take(&s) {
                _ if responses.unanswered => Outcome::Acknowledged {
                    base_offset: None,
                    append_time: None,
                },
                Some(p) => {
                    self.check_timeout(&s, &p, now);
                    self.outcome_of(&s.tp, p)
                }
                None => Outcome::Unanswered(Error::Protocol(format!("no answer about {}", s.tp))),
            };
            self.state.on_outcome(&s.tp, s.batch, outcome, now, retry_at);
        }
    }

    /// A broker must not give a request up before its timeout.
    fn check_timeout(&self, sent: &Sent, answer: &PartitionProduceResponse, now: Instant) {
        let timeout = self.client.config().request_timeout;
        // Clocks drift.
        let is_early = now.saturating_since(sent.at) < timeout.mul_f64(0.99);
        if ErrorCode(answer.error_code) == ErrorCode::REQUEST_TIMED_OUT && is_early {
            crate::error::report_odd("REQUEST_TIMED_OUT before the request's timeout");
        }
    }

    fn outcome_of(&mut self, tp: &TopicPartition, p: PartitionProduceResponse) -> Outcome {
        let code = ErrorCode(p.error_code);
        if !code.is_error() {
            return Outcome::Acknowledged {
                base_offset: (p.base_offset >= 0).then_some(Offset(p.base_offset)),
                append_time: (p.log_append_time_ms >= 0).then_some(UnixMillis(p.log_append_time_ms)),
            };
        }
        crate::report_refusal(code);
        tracing::debug!(%tp, %code, "batch refused");
        let hinted = self
            .client
            .hint(tp, p.current_leader.leader_id, p.current_leader.leader_epoch);
        self.metadata.wanted |= code.is_retriable() && !hinted;
        Outcome::Refused(code, p.error_message.map(|m| m.to_string()))
    }
}

/// The request with these batches, grouped by topic, and its contents.
fn produce_request(
    batches: Vec<(Sent, bytes::Bytes)>,
    acks: Acks,
    timeout_ms: u128,
) -> (Vec<Sent>, ProduceRequest) {
    let mut topics: BTreeMap<Str, TopicProduceData> = BTreeMap::new();
    let mut all = Vec::with_capacity(batches.len());
    for (sent, bytes) in batches {
        let topic = topics
            .entry(sent.tp.topic.clone())
            .or_insert_with(|| TopicProduceData {
                name: sent.tp.topic.clone(),
                topic_id: sent.topic_id,
                ..Default::default()
            });
        topic.partition_data.push(PartitionProduceData {
            index: sent.tp.partition,
            records: Some(bytes.into()),
            ..Default::default()
        });
        all.push(sent);
    }
    let request = ProduceRequest {
        acks: acks.id(),
        timeout_ms: i32::try_from(timeout_ms).unwrap_or(i32::MAX),
        topic_data: topics.into_values().collect(),
        ..Default::default()
    };
    (all, request)
}

/// A response's partitions, indexed by the topic's name or id.
struct PartitionResponses {
    unanswered: bool,
    partitions: Vec<(Str, Uuid, PartitionProduceResponse)>,
}

impl PartitionResponses {
    fn none() -> Self {
        Self {
            unanswered: true,
            partitions: Vec::new(),
        }
    }

    fn of(response: ProduceResponse) -> Self {
        let mut partitions = Vec::new();
        for topic in response.responses {
            for p in topic.partition_responses {
                partitions.push((topic.name.clone(), topic.topic_id, p));
            }
        }
        Self {
            unanswered: false,
            partitions,
        }
    }

    fn take(&mut self, sent: &Sent) -> Option<PartitionProduceResponse> {
        let is_of = |(name, id, p): &(Str, Uuid, PartitionProduceResponse)| {
            let topic = if name.is_empty() {
                *id == sent.topic_id
            } else {
                *name == sent.tp.topic
            };
            topic && p.index == sent.tp.partition
        };
        let index = self.partitions.iter().position(is_of)?;
        Some(self.partitions.swap_remove(index).2)
    }
}

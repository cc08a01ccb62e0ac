//! The producer's task: carries out what [`State`] decides.

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
use super::state::{Outcome, State};
use super::{Acks, Command, ProducerConfig};
use crate::client::{Link, Peer};
use crate::events::Events;
use crate::{Client, Error, Result, TopicPartition};

/// The first version of Produce that names topics by their ids.
const PRODUCE_TOPIC_ID_VERSION: i16 = 13;
/// Commands taken before the state is looked at.
const COMMANDS_AT_ONCE_MAX: usize = 1024;

/// What was sent of one partition in a request.
struct Sent {
    tp: TopicPartition,
    topic_id: Uuid,
    batch: BatchId,
}

enum Event<E: Env> {
    Connected(i32, Result<Link<E>>),
    Produced(i32, Vec<Sent>, Result<Option<ProduceResponse>>),
    Metadata(Result<()>),
    Identified(Result<InitProducerIdResponse>),
}

/// What is known of the way to a broker.
struct Node<E: Env> {
    link: Option<Link<E>>,
    connecting: bool,
    requests: usize,
}

pub(super) struct Sender<E: Env> {
    client: Client<E>,
    state: State,
    commands: mpsc::Receiver<Command>,
    open: bool,
    events: Events<Event<E>>,
    nodes: BTreeMap<i32, Node<E>>,
    flushes: VecDeque<(BatchId, oneshot::Sender<()>)>,
    metadata: Errand,
    identity: Errand,
    failures: u32,
}

/// Something that is asked for once at a time, and again after a backoff.
struct Errand {
    under_way: bool,
    wanted: bool,
    not_before: Instant,
}

impl Errand {
    fn new() -> Self {
        Self {
            under_way: false,
            wanted: false,
            not_before: Instant::default(),
        }
    }

    /// Whether it begins now.
    fn begin(&mut self, now: Instant) -> bool {
        let begins = self.wanted && !self.under_way && self.not_before <= now;
        self.under_way |= begins;
        self.wanted &= !begins;
        begins
    }

    fn end(&mut self, not_before: Instant) {
        self.under_way = false;
        self.not_before = not_before;
    }

    fn next(&self) -> Instant {
        if self.wanted && !self.under_way {
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
            metadata: Errand::new(),
            identity: Errand::new(),
            failures: 0,
        }
    }

    /// Until every handle is dropped and everything has its outcome.
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
                Some(Command::Flush(tell)) => {
                    let before = self.state.flush();
                    self.flushes.push_back((before, tell));
                }
                Some(Command::Send {
                    record,
                    tell,
                    buffered,
                }) => {
                    self.client.want_topic(&record.to.topic);
                    self.state.push(now, wall, &record, tell, buffered);
                }
            }
            next = self.commands.try_recv().ok();
        }
        if self.commands.is_closed() && self.commands.is_empty() {
            // Nobody waits for more: what is here need not linger.
            self.open = false;
            self.state.flush();
        }
    }

    /// Does all that can be done now. When to look again, if nothing happens before.
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
                .push(async move { Event::Metadata(client.refresh_metadata().await) });
        }
        while let Some((before, _)) = self.flushes.front()
            && self.state.is_told_before(*before)
            && let Some((_, tell)) = self.flushes.pop_front()
        {
            if tell.send(()).is_err() {
                tracing::trace!("who flushed doesn't wait any more");
            }
        }
        let errands = self.metadata.next().min(self.identity.next());
        self.state.next_deadline(now).min(errands)
    }

    fn ask_for_identity(&mut self) {
        let client = self.client.clone();
        let request = InitProducerIdRequest {
            transactional_id: None,
            transaction_timeout_ms: i32::MAX,
            ..Default::default()
        };
        self.events
            .push(async move { Event::Identified(client.ask_any(request).await) });
    }

    /// One request to each broker for which there is something: whether any was sent.
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

    /// Whether a request can go to a broker now; if not, something that will wake us is under way.
    fn is_ready(&mut self, id: i32) -> bool {
        let node = self.nodes.entry(id).or_insert(Node {
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
                .push(async move { Event::Connected(id, client.link(Peer::Node(id)).await) });
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
        // The call puts the request in line: what is taken first is sent first.
        let version = match self.client.version_of::<ProduceRequest>(link) {
            Ok(v) if sent.iter().any(|s| s.topic_id.is_zero()) => Ok(v.min(PRODUCE_TOPIC_ID_VERSION - 1)),
            told => told,
        };
        for s in &sent {
            let by_id = matches!(version, Ok(v) if v >= PRODUCE_TOPIC_ID_VERSION);
            let topic_id = if by_id { s.topic_id } else { Uuid::ZERO };
            self.state.sent_to(&s.tp, s.batch, topic_id);
        }
        let told: Pin<Box<dyn Future<Output = Result<Option<ProduceResponse>>> + Send>> = match version {
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
            .push(async move { Event::Produced(id, sent, told.await) });
    }

    fn on_event(&mut self, event: Event<E>) {
        let now = self.client.env().now();
        match event {
            Event::Connected(id, told) => {
                let Some(node) = self.nodes.get_mut(&id) else {
                    return;
                };
                node.connecting = false;
                match told {
                    Ok(link) => node.link = Some(link),
                    Err(e) => {
                        tracing::debug!(node = id, error = %e, "no connection");
                        self.metadata.wanted = true;
                    }
                }
            }
            Event::Metadata(told) => {
                if let Err(e) = told {
                    tracing::debug!(error = %e, "no metadata");
                }
                let wait = self.backoff(1);
                self.metadata.end(now + wait);
            }
            Event::Identified(told) => self.on_identified(told, now),
            Event::Produced(id, sent, told) => {
                if let Some(node) = self.nodes.get_mut(&id) {
                    node.requests -= 1;
                }
                self.on_produced(sent, told, now);
            }
        }
    }

    fn backoff(&self, failures: u32) -> std::time::Duration {
        self.client.config().backoff().after(failures, self.client.rng())
    }

    fn on_identified(&mut self, told: Result<InitProducerIdResponse>, now: Instant) {
        let wait = self.backoff(1);
        self.identity.end(now + wait);
        let told = told.and_then(|r| Error::check(r.error_code, None).map(|()| r));
        match told {
            Ok(r) => self.state.identify(Identity {
                id: ProducerId(r.producer_id),
                epoch: ProducerEpoch(r.producer_epoch),
            }),
            Err(e) if e.is_retriable() => tracing::debug!(error = %e, "no producer id"),
            Err(e) => self.state.fail_all(&e),
        }
    }

    fn on_produced(&mut self, sent: Vec<Sent>, told: Result<Option<ProduceResponse>>, now: Instant) {
        self.failures = match &told {
            Ok(_) => 0,
            Err(_) => self.failures.saturating_add(1),
        };
        let retry_at = now + self.backoff(self.failures.max(1));
        let mut answers = match told {
            Err(e) => {
                self.metadata.wanted = true;
                for s in sent {
                    let outcome = Outcome::Unanswered(e.clone());
                    self.state.learn(&s.tp, s.batch, outcome, now, retry_at);
                }
                return;
            }
            Ok(None) => Answers::none(),
            Ok(Some(response)) => Answers::of(response),
        };
        for s in sent {
            let outcome = match answers.take(&s) {
                _ if answers.unanswered => Outcome::Acknowledged {
                    base_offset: None,
                    append_time: None,
                },
                Some(p) => self.judge(&s.tp, p),
                None => Outcome::Unanswered(Error::Protocol(format!("no answer about {}", s.tp))),
            };
            self.state.learn(&s.tp, s.batch, outcome, now, retry_at);
        }
    }

    fn judge(&mut self, tp: &TopicPartition, p: PartitionProduceResponse) -> Outcome {
        let code = ErrorCode(p.error_code);
        if !code.is_error() {
            return Outcome::Acknowledged {
                base_offset: (p.base_offset >= 0).then_some(Offset(p.base_offset)),
                append_time: (p.log_append_time_ms >= 0).then_some(UnixMillis(p.log_append_time_ms)),
            };
        }
        tracing::debug!(%tp, %code, "batch refused");
        let hinted = self
            .client
            .hint(tp, p.current_leader.leader_id, p.current_leader.leader_epoch);
        self.metadata.wanted |= code.is_retriable() && !hinted;
        Outcome::Refused(code, p.error_message.map(|m| m.to_string()))
    }
}

/// The request of these batches, grouped by topic, and what it holds.
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

/// A response's partitions, to be found by the topic's name or id.
struct Answers {
    unanswered: bool,
    partitions: Vec<(Str, Uuid, PartitionProduceResponse)>,
}

impl Answers {
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

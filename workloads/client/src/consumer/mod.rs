//! A consumer of assigned partitions.
//!
//! One fetch is in flight to each leader; [`Consumer::poll`] returns what arrived since the last call. The consumer skips
//! records below the position, checks CRCs, and reports each irregularity (a damaged batch, a batch before the previous one,
//! a gap) as a [`Fault`] beside the records, for a checker to judge. Positions are kept in the consumer and survive
//! reconnects.

mod config;
mod polled;
mod records;
mod session;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use brokkr_env::{Env, Instant};
use brokkr_types::{Offset, UnixMillis, Uuid};
use brokkr_wire::ErrorCode;
use brokkr_wire::messages::{FetchRequest, FetchResponse, fetch_response};

use crate::admin::{ListedOffset, OffsetSpec};
use crate::client::{Link, Peer};
use crate::connection::Connection;
use crate::events::Events;
use crate::{Client, Error, Result, TopicPartition};
pub use config::{ConsumerConfig, IsolationLevel};
pub use polled::{ConsumerRecord, Ends, Fault, FetchRound, FetchedPartition, Polled};
use session::{RequestedPartition, Session};

/// The first version of Fetch that identifies topics by id.
const FETCH_TOPIC_ID_VERSION: i16 = 13;

/// Where to start reading.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StartAt {
    /// The log start offset.
    Earliest,
    /// The log end.
    Latest,
    /// This offset.
    Offset(Offset),
    /// The first record at or after this time, or the log end.
    Time(UnixMillis),
}

struct Assigned {
    /// Where to start, until the position is resolved.
    start: Option<StartAt>,
    resolving: bool,
    position: Offset,
    /// The topic id of the position, once something was fetched.
    topic_id: Option<Uuid>,
    /// No fetch before this instant.
    not_before: Instant,
    failures: u32,
    /// Out of range, or of a deleted topic: no fetch until a seek.
    lost: bool,
    /// Incremented by each seek, so that responses to older requests are ignored.
    generation: u64,
    ends: Option<Ends>,
}

enum ConsumerEvent<E: Env> {
    Connected(i32, Result<Link<E>>),
    Fetched(i32, Box<Asked<E>>, Result<FetchResponse>),
    Resolved(TopicPartition, u64, Result<ListedOffset>, StartAt),
    Metadata(Result<()>),
}

/// A fetch under way.
struct Asked<E: Env> {
    /// The number of the poll that sent it.
    poll: u64,
    connection: Connection<E>,
    sent_at: Instant,
    /// How many requests were submitted on the connection until then.
    submitted: u64,
    partitions: Vec<RequestedPartition>,
}

struct ConsumerNode<E: Env> {
    link: Option<Link<E>>,
    busy: bool,
    session: Session,
}

/// A consumer. It belongs to one task.
pub struct Consumer<E: Env> {
    client: Client<E>,
    config: ConsumerConfig,
    assigned: BTreeMap<TopicPartition, Assigned>,
    nodes: BTreeMap<i32, ConsumerNode<E>>,
    events: Events<ConsumerEvent<E>>,
    refreshing: bool,
    metadata_wanted: bool,
    metadata_not_before: Instant,
    generation: u64,
    /// How often it was polled.
    polls: u64,
    arrived: Polled,
}

impl<E: Env> Consumer<E> {
    /// A consumer without assigned partitions.
    pub fn new(client: &Client<E>, config: ConsumerConfig) -> Self {
        Self {
            client: client.clone(),
            config,
            assigned: BTreeMap::new(),
            nodes: BTreeMap::new(),
            events: Events::new(),
            refreshing: false,
            metadata_wanted: false,
            metadata_not_before: Instant::default(),
            generation: 0,
            polls: 0,
            arrived: Polled::default(),
        }
    }

    /// Replaces the assignment. A partition that stays assigned keeps its position; a new one begins at `start`.
    pub fn assign(&mut self, partitions: &[TopicPartition], start: StartAt) {
        self.assigned.retain(|tp, _| partitions.contains(tp));
        self.arrived.records.retain(|tp, _| partitions.contains(tp));
        for tp in partitions {
            self.client.want_topic(&tp.topic);
            if !self.assigned.contains_key(tp) {
                self.seek(tp, start);
            }
        }
    }

    /// Moves a partition's position; assigns the partition if it isn't assigned.
    pub fn seek(&mut self, tp: &TopicPartition, start: StartAt) {
        self.generation += 1;
        self.arrived.records.remove(tp);
        let (start, position) = match start {
            StartAt::Offset(offset) => (None, offset),
            start => (Some(start), Offset(0)),
        };
        let assigned = Assigned {
            start,
            resolving: false,
            position,
            topic_id: None,
            not_before: Instant::default(),
            failures: 0,
            lost: false,
            generation: self.generation,
            ends: None,
        };
        self.assigned.insert(tp.clone(), assigned);
    }

    /// The next offset to read, if it is known.
    pub fn position(&self, tp: &TopicPartition) -> Option<Offset> {
        let assigned = self.assigned.get(tp)?;
        assigned.start.is_none().then_some(assigned.position)
    }

    /// The partition's offsets as last reported by the leader.
    pub fn ends(&self, tp: &TopicPartition) -> Option<Ends> {
        self.assigned.get(tp)?.ends
    }

    /// Returns what arrived since the last call; waits up to `timeout` if there is nothing. Cancel-safe.
    pub async fn poll(&mut self, timeout: Duration) -> Polled {
        self.polls += 1;
        let until = self.client.env().now() + timeout;
        loop {
            let wake = self.pump();
            if !self.arrived.is_empty() {
                return std::mem::take(&mut self.arrived);
            }
            let env = self.client.env();
            if env.now() >= until {
                return std::mem::take(&mut self.arrived);
            }
            tokio::select! {
                biased;
                event = self.events.next() => self.on_event(event),
                () = env.sleep_until(wake.min(until)) => {}
            }
        }
    }

    /// Starts all requests that can start now. Returns when to call it again if no event occurs before.
    fn pump(&mut self) -> Instant {
        let now = self.client.env().now();
        let mut wake = Instant::FAR_FUTURE;
        self.resolve_positions(now);
        let mut fetches: BTreeMap<i32, Vec<RequestedPartition>> = BTreeMap::new();
        for (tp, a) in &mut self.assigned {
            if a.not_before > now {
                wake = wake.min(a.not_before);
                continue;
            }
            if a.start.is_some() || a.lost {
                continue;
            }
            let Some(leader) = self.client.with_metadata(|m| m.leader(tp)) else {
                self.metadata_wanted = true;
                continue;
            };
            if *a.topic_id.get_or_insert(leader.topic_id) != leader.topic_id {
                a.lost = true;
                self.arrived.faults.push((tp.clone(), Fault::Recreated));
                continue;
            }
            // The next fetch to this leader is sent after its response.
            if self.nodes.get(&leader.node).is_some_and(|node| node.busy) {
                continue;
            }
            fetches.entry(leader.node).or_default().push(RequestedPartition {
                tp: tp.clone(),
                topic_id: leader.topic_id,
                leader_epoch: leader.epoch,
                generation: a.generation,
                position: a.position,
            });
        }
        for (node, requested) in fetches {
            self.fetch(node, requested);
        }
        self.metadata_wanted |= !self.assigned.is_empty() && self.client.metadata_is_stale();
        if self.metadata_wanted && !self.refreshing {
            if self.metadata_not_before <= now {
                (self.metadata_wanted, self.refreshing) = (false, true);
                let client = self.client.clone();
                self.events
                    .push(async move { ConsumerEvent::Metadata(client.refresh_metadata().await) });
            } else {
                wake = wake.min(self.metadata_not_before);
            }
        }
        wake
    }

    fn resolve_positions(&mut self, now: Instant) {
        for (tp, a) in &mut self.assigned {
            let Some(start) = a.start else { continue };
            if a.resolving || a.not_before > now {
                continue;
            }
            a.resolving = true;
            let spec = match start {
                StartAt::Earliest => OffsetSpec::Earliest,
                StartAt::Latest | StartAt::Offset(_) => OffsetSpec::Latest,
                StartAt::Time(at) => OffsetSpec::At(at),
            };
            let (client, tp, generation) = (self.client.clone(), tp.clone(), a.generation);
            let isolation = self.config.isolation;
            self.events.push(async move {
                let result = client.list_offsets(&tp, spec, isolation).await;
                ConsumerEvent::Resolved(tp, generation, result, start)
            });
        }
    }

    fn fetch(&mut self, id: i32, mut requested: Vec<RequestedPartition>) {
        let node = self.nodes.entry(id).or_insert_with(|| ConsumerNode {
            link: None,
            busy: false,
            session: Session::new(),
        });
        if node.link.as_ref().is_some_and(|l| l.connection().is_closed()) {
            node.link = None;
        }
        node.busy = true;
        let Some(link) = &node.link else {
            let client = self.client.clone();
            self.events
                .push(async move { ConsumerEvent::Connected(id, client.link(Peer::Node(id)).await) });
            return;
        };
        let version = match self.client.version_of::<FetchRequest>(link) {
            Ok(v) if requested.iter().any(|a| a.topic_id.is_zero()) => Ok(v.min(FETCH_TOPIC_ID_VERSION - 1)),
            result => result,
        };
        let result: Pin<Box<dyn Future<Output = Result<FetchResponse>> + Send>> = match version {
            Err(e) => Box::pin(async move { Err(e) }),
            Ok(version) => {
                let mut request = node
                    .session
                    .request(&requested, self.config.sessions, &self.config);
                request.max_wait_ms = i32::try_from(self.config.max_wait.as_millis()).unwrap_or(i32::MAX);
                request.isolation_level = self.config.isolation.id();
                if version < FETCH_TOPIC_ID_VERSION {
                    requested.iter_mut().for_each(|a| a.topic_id = Uuid::ZERO);
                }
                Box::pin(link.submit(request, version))
            }
        };
        let connection = link.connection();
        let asked = Box::new(Asked {
            poll: self.polls,
            submitted: connection.submitted(),
            connection: connection.clone(),
            sent_at: self.client.env().now(),
            partitions: requested,
        });
        self.events
            .push(async move { ConsumerEvent::Fetched(id, asked, result.await) });
    }

    fn backoff(&self, failures: u32) -> Instant {
        let wait = self.client.config().backoff().after(failures, self.client.rng());
        self.client.env().now() + wait
    }

    fn on_event(&mut self, event: ConsumerEvent<E>) {
        match event {
            ConsumerEvent::Connected(id, result) => {
                let Some(node) = self.nodes.get_mut(&id) else {
                    return;
                };
                node.busy = false;
                match result {
                    Ok(link) => node.link = Some(link),
                    Err(e) => {
                        tracing::debug!(node = id, error = %e, "no connection");
                        self.metadata_wanted = true;
                    }
                }
            }
            ConsumerEvent::Metadata(result) => {
                if let Err(e) = result {
                    tracing::debug!(error = %e, "no metadata");
                }
                self.refreshing = false;
                self.metadata_not_before = self.backoff(1);
            }
            ConsumerEvent::Resolved(tp, generation, result, start) => {
                self.on_resolved(&tp, generation, result, start)
            }
            ConsumerEvent::Fetched(id, asked, result) => self.on_fetched(id, &asked, result),
        }
    }

    fn on_resolved(
        &mut self,
        tp: &TopicPartition,
        generation: u64,
        result: Result<ListedOffset>,
        start: StartAt,
    ) {
        let later = self.backoff(1);
        let Some(a) = self.assigned.get_mut(tp).filter(|a| a.generation == generation) else {
            return;
        };
        a.resolving = false;
        match result {
            Ok(ListedOffset {
                offset: Some(offset), ..
            }) => (a.position, a.start) = (offset, None),
            // No record is at or after that time: start at the log end.
            Ok(_) => {
                a.start = Some(match start {
                    StartAt::Time(_) => StartAt::Latest,
                    other => other,
                });
                a.not_before = later;
            }
            Err(e) => {
                a.not_before = later;
                if let Some(code) = e.code().filter(|c| !c.is_retriable()) {
                    self.arrived.faults.push((tp.clone(), Fault::Refused(code)));
                }
            }
        }
    }

    fn on_fetched(&mut self, id: i32, asked: &Asked<E>, result: Result<FetchResponse>) {
        let requested = &asked.partitions;
        let later = self.backoff(1);
        let Some(node) = self.nodes.get_mut(&id) else {
            return;
        };
        node.busy = false;
        let result = result.and_then(|r| Error::check(r.error_code, None).map(|()| r));
        let response = match result {
            Ok(response) => response,
            Err(e) => {
                tracing::debug!(node = id, error = %e, "fetch failed");
                node.session.failed(&e);
                // The next, full request repairs an error of the session alone.
                if !session::is_session_error(&e) {
                    self.metadata_wanted = true;
                    for a in requested {
                        self.delay(a, later);
                    }
                }
                return;
            }
        };
        node.session.answered(response.session_id);
        let mut round = FetchRound {
            poll: asked.poll,
            took: self.client.env().now().saturating_since(asked.sent_at),
            followed_by: asked.connection.submitted() - asked.submitted,
            is_whole: true,
            requested: requested.len(),
            partitions: Vec::new(),
            unchanged: Vec::new(),
        };
        let mut told: Vec<bool> = vec![false; requested.len()];
        for topic in response.responses {
            for data in topic.partitions {
                let is_requested = |a: &&RequestedPartition| {
                    let same = if topic.topic.is_empty() {
                        a.topic_id == topic.topic_id
                    } else {
                        a.tp.topic == topic.topic
                    };
                    same && a.tp.partition == data.partition_index
                };
                let fetched = match requested.iter().position(|a| is_requested(&a)) {
                    Some(i) => {
                        told[i] = true;
                        self.on_partition(&requested[i], data)
                    }
                    None => {
                        // The request removed it from the session, if it was in it.
                        crate::error::report_odd("a partition that was not requested");
                        None
                    }
                };
                round.is_whole &= fetched.is_some();
                round.partitions.extend(fetched);
            }
        }
        for (requested, _) in requested.iter().zip(told).filter(|(_, told)| !told) {
            round.unchanged.extend(self.unchanged(requested));
        }
        self.arrived.fetches.push(round);
    }

    /// What the consumer knows of a partition that a response leaves out.
    fn unchanged(&self, requested: &RequestedPartition) -> Option<FetchedPartition> {
        let a = self.assigned.get(&requested.tp)?;
        let ends = a
            .ends
            .filter(|_| a.generation == requested.generation && a.failures == 0)?;
        Some(FetchedPartition {
            tp: requested.tp.clone(),
            topic_id: requested.topic_id,
            position: requested.position,
            next: requested.position,
            bytes: 0,
            batches: 0,
            ends,
        })
    }

    fn delay(&mut self, requested: &RequestedPartition, until: Instant) {
        if let Some(a) = self.assigned.get_mut(&requested.tp)
            && a.generation == requested.generation
        {
            a.not_before = until;
        }
    }

    /// Returns what the response says of the partition, unless it is an error.
    fn on_partition(
        &mut self,
        requested: &RequestedPartition,
        data: fetch_response::PartitionData,
    ) -> Option<FetchedPartition> {
        let failures = self.assigned.get(&requested.tp).map_or(0, |a| a.failures);
        let later = self.backoff(failures + 1);
        let a = self.assigned.get_mut(&requested.tp)?;
        if a.generation != requested.generation {
            return None;
        }
        let code = ErrorCode(data.error_code);
        if code.is_error() {
            crate::report_refusal(code);
            a.failures = failures.saturating_add(1);
            a.not_before = later;
            a.lost = code == ErrorCode::OFFSET_OUT_OF_RANGE;
            let hint = &data.current_leader;
            let hinted = self.client.hint(&requested.tp, hint.leader_id, hint.leader_epoch);
            self.metadata_wanted |= !hinted && !a.lost;
            if !code.is_retriable() || code == ErrorCode::CORRUPT_MESSAGE {
                self.arrived
                    .faults
                    .push((requested.tp.clone(), Fault::Refused(code)));
            }
            return None;
        }
        let ends = Ends {
            log_start: Offset(data.log_start_offset),
            high_watermark: Offset(data.high_watermark),
            last_stable: Offset(data.last_stable_offset),
        };
        a.ends = Some(ends);
        let read = records::read(data, requested, &self.config);
        a.failures = if read.stuck { failures.saturating_add(1) } else { 0 };
        if read.stuck {
            a.not_before = later;
        }
        a.position = read.position;
        for fault in read.faults {
            self.arrived.faults.push((requested.tp.clone(), fault));
        }
        if !read.records.is_empty() {
            let records = self.arrived.records.entry(requested.tp.clone()).or_default();
            records.extend(read.records);
        }
        Some(FetchedPartition {
            tp: requested.tp.clone(),
            topic_id: requested.topic_id,
            position: requested.position,
            next: read.position,
            bytes: read.bytes,
            batches: read.batches,
            ends,
        })
    }
}

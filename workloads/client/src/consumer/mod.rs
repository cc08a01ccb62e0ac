//! A consumer of assigned partitions.
//!
//! One fetch is under way at each leader; [`Consumer::poll`] gives what came since the last call. Records below the position are
//! skipped, CRCs are checked, and what doesn't fit (a batch that is damaged, a batch before the last one, a gap) comes out as a
//! [`Fault`] beside the records: a checker decides what it means. Positions live here and survive any connection.

mod records;
mod session;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use brokkr_env::{Env, Instant};
use brokkr_types::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, UnixMillis, Uuid};
use brokkr_wire::ErrorCode;
use brokkr_wire::messages::{FetchRequest, FetchResponse, fetch_response};
use brokkr_wire::records::BatchError;
use bytes::Bytes;

use crate::admin::{ListedOffset, OffsetSpec};
use crate::client::{Link, Peer};
use crate::events::Events;
use crate::{Client, Error, Result, TopicPartition};
use session::Session;

/// The first version of Fetch that names topics by their ids.
const FETCH_TOPIC_ID_VERSION: i16 = 13;

/// What a consumer is shown of transactions.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum IsolationLevel {
    /// `read_uncommitted`: everything below the high watermark.
    #[default]
    ReadUncommitted,
    /// `read_committed`: what is decided and not aborted, below the last stable offset.
    ReadCommitted,
}

impl IsolationLevel {
    /// As on the wire.
    pub fn id(self) -> i8 {
        match self {
            Self::ReadUncommitted => 0,
            Self::ReadCommitted => 1,
        }
    }
}

/// How a consumer behaves. Names and meanings are those of Kafka's.
#[derive(Clone, Debug)]
pub struct ConsumerConfig {
    /// `isolation.level`.
    pub isolation: IsolationLevel,
    /// `fetch.max.wait.ms`.
    pub max_wait: Duration,
    /// `fetch.min.bytes`.
    pub min_bytes: i32,
    /// `fetch.max.bytes`.
    pub max_bytes: i32,
    /// `max.partition.fetch.bytes`.
    pub partition_max_bytes: i32,
    /// Whether fetches are incremental (KIP-227).
    pub sessions: bool,
    /// The most that a batch may decompress to.
    pub decompressed_max: usize,
}

impl Default for ConsumerConfig {
    fn default() -> Self {
        Self {
            isolation: IsolationLevel::ReadUncommitted,
            max_wait: Duration::from_millis(500),
            min_bytes: 1,
            max_bytes: 50 << 20,
            partition_max_bytes: 1 << 20,
            sessions: true,
            decompressed_max: 128 << 20,
        }
    }
}

/// Where to read on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StartAt {
    /// The log start offset.
    Earliest,
    /// The end.
    Latest,
    /// This offset.
    Offset(Offset),
    /// The first record at or after this time, or the end.
    Time(UnixMillis),
}

/// A record that was read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConsumerRecord {
    /// The topic that was fetched; zero where that was asked for by name.
    pub topic_id: Uuid,
    /// Its offset.
    pub offset: Offset,
    /// Its time.
    pub timestamp: UnixMillis,
    /// Its key.
    pub key: Option<Bytes>,
    /// Its value.
    pub value: Option<Bytes>,
    /// Its headers.
    pub headers: Vec<(Bytes, Option<Bytes>)>,
    /// The leader epoch of its batch.
    pub leader_epoch: LeaderEpoch,
    /// Who wrote its batch, or -1.
    pub producer_id: ProducerId,
    /// The epoch of who wrote its batch, or -1.
    pub producer_epoch: ProducerEpoch,
}

/// Something that a healthy log wouldn't show, or a broker's refusal that doesn't pass by itself.
#[derive(Clone, PartialEq, Debug)]
pub enum Fault {
    /// The broker's refusal. After OFFSET_OUT_OF_RANGE nothing is fetched until [`Consumer::seek`].
    Refused(ErrorCode),
    /// A batch is damaged; it is fetched again.
    Damaged(BatchError),
    /// A batch ends below the position that was fetched, or begins below the batch before it.
    Backwards {
        /// What was due.
        expected: Offset,
        /// What came: the batch's last offset.
        last: Offset,
    },
    /// The topic was deleted and created again: where we are says nothing of the new one, of which nothing is fetched until
    /// [`Consumer::seek`].
    Recreated,
    /// Offsets are missing. Only compaction may do that.
    Gap {
        /// What was due.
        expected: Offset,
        /// What came.
        got: Offset,
    },
}

/// What a call of [`Consumer::poll`] gives.
#[derive(Clone, Default, Debug)]
pub struct Polled {
    /// Records by partition, in offset order.
    pub records: BTreeMap<TopicPartition, Vec<ConsumerRecord>>,
    /// What was wrong.
    pub faults: Vec<(TopicPartition, Fault)>,
}

impl Polled {
    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty() && self.faults.is_empty()
    }
}

/// What a leader says about a partition's ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ends {
    /// The log start offset.
    pub log_start: Offset,
    /// The high watermark.
    pub high_watermark: Offset,
    /// The last stable offset.
    pub last_stable: Offset,
}

struct Assigned {
    /// Where to begin, as long as that isn't known.
    start: Option<StartAt>,
    resolving: bool,
    position: Offset,
    /// Which topic the position is of, once something of it was fetched.
    topic_id: Option<Uuid>,
    /// Nothing is fetched before this.
    not_before: Instant,
    failures: u32,
    /// Out of range, or of a topic that is gone: nothing is fetched until a seek.
    lost: bool,
    /// Raised by each seek: an answer to an older question is of no use.
    generation: u64,
    ends: Option<Ends>,
}

/// What was fetched of a partition.
#[derive(Clone)]
struct Asked {
    tp: TopicPartition,
    topic_id: Uuid,
    leader_epoch: i32,
    generation: u64,
    position: Offset,
}

enum Event<E: Env> {
    Connected(i32, Result<Link<E>>),
    Fetched(i32, Vec<Asked>, Result<FetchResponse>),
    Resolved(TopicPartition, u64, Result<ListedOffset>, StartAt),
    Metadata(Result<()>),
}

struct Node<E: Env> {
    link: Option<Link<E>>,
    busy: bool,
    session: Session,
}

/// A consumer. Belongs to one task.
pub struct Consumer<E: Env> {
    client: Client<E>,
    config: ConsumerConfig,
    assigned: BTreeMap<TopicPartition, Assigned>,
    nodes: BTreeMap<i32, Node<E>>,
    events: Events<Event<E>>,
    refreshing: bool,
    metadata_wanted: bool,
    metadata_not_before: Instant,
    generation: u64,
    came: Polled,
}

impl<E: Env> Consumer<E> {
    /// A consumer that has nothing assigned.
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
            came: Polled::default(),
        }
    }

    /// Replaces what is assigned. A partition that stays keeps its position; a new one begins at `start`.
    pub fn assign(&mut self, partitions: &[TopicPartition], start: StartAt) {
        self.assigned.retain(|tp, _| partitions.contains(tp));
        self.came.records.retain(|tp, _| partitions.contains(tp));
        for tp in partitions {
            self.client.want_topic(&tp.topic);
            if !self.assigned.contains_key(tp) {
                self.seek(tp, start);
            }
        }
    }

    /// Reads on elsewhere; assigns the partition if it isn't.
    pub fn seek(&mut self, tp: &TopicPartition, start: StartAt) {
        self.generation += 1;
        self.came.records.remove(tp);
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

    /// The offset that comes next, if it is known by now.
    pub fn position(&self, tp: &TopicPartition) -> Option<Offset> {
        let assigned = self.assigned.get(tp)?;
        assigned.start.is_none().then_some(assigned.position)
    }

    /// What the leader said last about the partition's ends.
    pub fn ends(&self, tp: &TopicPartition) -> Option<Ends> {
        self.assigned.get(tp)?.ends
    }

    /// What came since the last call; waits up to `timeout` until there is something. Cancel-safe.
    pub async fn poll(&mut self, timeout: Duration) -> Polled {
        let until = self.client.env().now() + timeout;
        loop {
            let wake = self.pump();
            if !self.came.is_empty() {
                return std::mem::take(&mut self.came);
            }
            let env = self.client.env();
            if env.now() >= until {
                return Polled::default();
            }
            tokio::select! {
                biased;
                event = self.events.next() => self.on_event(event),
                () = env.sleep_until(wake.min(until)) => {}
            }
        }
    }

    /// Begins all that can begin now. When to look again, if nothing happens before.
    fn pump(&mut self) -> Instant {
        let now = self.client.env().now();
        let mut wake = Instant::FAR_FUTURE;
        self.resolve_positions(now);
        let mut fetches: BTreeMap<i32, Vec<Asked>> = BTreeMap::new();
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
                self.came.faults.push((tp.clone(), Fault::Recreated));
                continue;
            }
            // It is asked again once it has answered.
            if self.nodes.get(&leader.node).is_some_and(|node| node.busy) {
                continue;
            }
            fetches.entry(leader.node).or_default().push(Asked {
                tp: tp.clone(),
                topic_id: leader.topic_id,
                leader_epoch: leader.epoch,
                generation: a.generation,
                position: a.position,
            });
        }
        for (node, asked) in fetches {
            self.fetch(node, asked);
        }
        self.metadata_wanted |= !self.assigned.is_empty() && self.client.metadata_is_stale();
        if self.metadata_wanted && !self.refreshing {
            if self.metadata_not_before <= now {
                (self.metadata_wanted, self.refreshing) = (false, true);
                let client = self.client.clone();
                self.events
                    .push(async move { Event::Metadata(client.refresh_metadata().await) });
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
                let told = client.list_offsets(&tp, spec, isolation).await;
                Event::Resolved(tp, generation, told, start)
            });
        }
    }

    fn fetch(&mut self, id: i32, mut asked: Vec<Asked>) {
        let node = self.nodes.entry(id).or_insert_with(|| Node {
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
                .push(async move { Event::Connected(id, client.link(Peer::Node(id)).await) });
            return;
        };
        let version = match self.client.version_of::<FetchRequest>(link) {
            Ok(v) if asked.iter().any(|a| a.topic_id.is_zero()) => Ok(v.min(FETCH_TOPIC_ID_VERSION - 1)),
            told => told,
        };
        let told: Pin<Box<dyn Future<Output = Result<FetchResponse>> + Send>> = match version {
            Err(e) => Box::pin(async move { Err(e) }),
            Ok(version) => {
                let mut request = node.session.request(&asked, self.config.sessions, &self.config);
                request.max_wait_ms = i32::try_from(self.config.max_wait.as_millis()).unwrap_or(i32::MAX);
                request.isolation_level = self.config.isolation.id();
                if version < FETCH_TOPIC_ID_VERSION {
                    asked.iter_mut().for_each(|a| a.topic_id = Uuid::ZERO);
                }
                Box::pin(link.submit(request, version))
            }
        };
        self.events
            .push(async move { Event::Fetched(id, asked, told.await) });
    }

    fn backoff(&self, failures: u32) -> Instant {
        let wait = self.client.config().backoff().after(failures, self.client.rng());
        self.client.env().now() + wait
    }

    fn on_event(&mut self, event: Event<E>) {
        match event {
            Event::Connected(id, told) => {
                let Some(node) = self.nodes.get_mut(&id) else {
                    return;
                };
                node.busy = false;
                match told {
                    Ok(link) => node.link = Some(link),
                    Err(e) => {
                        tracing::debug!(node = id, error = %e, "no connection");
                        self.metadata_wanted = true;
                    }
                }
            }
            Event::Metadata(told) => {
                if let Err(e) = told {
                    tracing::debug!(error = %e, "no metadata");
                }
                self.refreshing = false;
                self.metadata_not_before = self.backoff(1);
            }
            Event::Resolved(tp, generation, told, start) => self.on_resolved(&tp, generation, told, start),
            Event::Fetched(id, asked, told) => self.on_fetched(id, &asked, told),
        }
    }

    fn on_resolved(
        &mut self,
        tp: &TopicPartition,
        generation: u64,
        told: Result<ListedOffset>,
        start: StartAt,
    ) {
        let later = self.backoff(1);
        let Some(a) = self.assigned.get_mut(tp).filter(|a| a.generation == generation) else {
            return;
        };
        a.resolving = false;
        match told {
            Ok(ListedOffset {
                offset: Some(offset), ..
            }) => (a.position, a.start) = (offset, None),
            // No record is that late: the end it is.
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
                    self.came.faults.push((tp.clone(), Fault::Refused(code)));
                }
            }
        }
    }

    fn on_fetched(&mut self, id: i32, asked: &[Asked], told: Result<FetchResponse>) {
        let later = self.backoff(1);
        let Some(node) = self.nodes.get_mut(&id) else {
            return;
        };
        node.busy = false;
        let told = told.and_then(|r| Error::check(r.error_code, None).map(|()| r));
        let response = match told {
            Ok(response) => response,
            Err(e) => {
                tracing::debug!(node = id, error = %e, "fetch failed");
                node.session.failed(&e);
                // An error of the session alone is repaired by the next, full request.
                if !session::is_session_error(&e) {
                    self.metadata_wanted = true;
                    for a in asked {
                        self.delay(a, later);
                    }
                }
                return;
            }
        };
        node.session.answered(response.session_id);
        for topic in response.responses {
            for data in topic.partitions {
                let is_asked = |a: &&Asked| {
                    let same = if topic.topic.is_empty() {
                        a.topic_id == topic.topic_id
                    } else {
                        a.tp.topic == topic.topic
                    };
                    same && a.tp.partition == data.partition_index
                };
                // What nobody asked for in this request may still be in the session: it is forgotten with the next.
                if let Some(asked) = asked.iter().find(is_asked) {
                    self.on_partition(asked, data);
                }
            }
        }
    }

    fn delay(&mut self, asked: &Asked, until: Instant) {
        if let Some(a) = self.assigned.get_mut(&asked.tp)
            && a.generation == asked.generation
        {
            a.not_before = until;
        }
    }

    fn on_partition(&mut self, asked: &Asked, data: fetch_response::PartitionData) {
        let failures = self.assigned.get(&asked.tp).map_or(0, |a| a.failures);
        let later = self.backoff(failures + 1);
        let Some(a) = self.assigned.get_mut(&asked.tp) else {
            return;
        };
        if a.generation != asked.generation {
            return;
        }
        let code = ErrorCode(data.error_code);
        if code.is_error() {
            a.failures = failures.saturating_add(1);
            a.not_before = later;
            a.lost = code == ErrorCode::OFFSET_OUT_OF_RANGE;
            let hint = &data.current_leader;
            let hinted = self.client.hint(&asked.tp, hint.leader_id, hint.leader_epoch);
            self.metadata_wanted |= !hinted && !a.lost;
            if !code.is_retriable() || code == ErrorCode::CORRUPT_MESSAGE {
                self.came.faults.push((asked.tp.clone(), Fault::Refused(code)));
            }
            return;
        }
        a.ends = Some(Ends {
            log_start: Offset(data.log_start_offset),
            high_watermark: Offset(data.high_watermark),
            last_stable: Offset(data.last_stable_offset),
        });
        let read = records::read(data, asked, &self.config);
        a.failures = if read.stuck { failures.saturating_add(1) } else { 0 };
        if read.stuck {
            a.not_before = later;
        }
        a.position = read.position;
        for fault in read.faults {
            self.came.faults.push((asked.tp.clone(), fault));
        }
        if !read.records.is_empty() {
            let records = self.came.records.entry(asked.tp.clone()).or_default();
            records.extend(read.records);
        }
    }
}

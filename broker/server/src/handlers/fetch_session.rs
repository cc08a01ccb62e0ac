//! Fetch sessions (KIP-227): a client that fetches many partitions sends only the partitions that changed.
//!
//! A session belongs to the connection that opened it and ends with the connection. A client that reconnects gets
//! FETCH_SESSION_ID_NOT_FOUND and opens a new session, as it does when Kafka evicts one.
//! `max.incremental.fetch.session.cache.slots` bounds the number of sessions over all connections, and the broker's memory
//! budget bounds their size; a client that gets no session makes full fetches.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

use brokkr_env::Env;
use brokkr_types::Uuid;
use brokkr_wire::messages::fetch_request::{FetchPartition, FetchRequest, FetchTopic};
use brokkr_wire::{ErrorCode, Str};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::handlers::topic_numbers::TopicNumbers;
use crate::net::memory::{Memory, Share};

/// Up to so many partitions that a request names are looked for one by one.
const FEW: usize = 8;
/// Bytes of the memory budget that each partition of a session takes, without its topic's name.
const PARTITION_BYTES: usize = 256;
/// The first version of Fetch that identifies topics by id.
const IDS_SINCE: i16 = 13;
/// The epoch of a fetch without a session, which also closes the given session.
const FINAL_EPOCH: i32 = -1;

/// The slots for fetch sessions of all connections, and the session ids. Cloning shares them.
#[derive(Clone)]
pub struct SessionSlots {
    free: Arc<Semaphore>,
    next_id: Arc<Mutex<i32>>,
}

impl SessionSlots {
    /// Slots for `max` sessions. Session ids count up from `first_id`, which is random, so that ids from before a restart
    /// are not found.
    pub fn new(max: usize, first_id: u32) -> Self {
        let first_id = (first_id & 0x7fff_ffff) as i32;
        Self {
            free: Arc::new(Semaphore::new(max)),
            next_id: Arc::new(Mutex::new(first_id.max(1))),
        }
    }

    /// The number of free slots.
    pub fn free(&self) -> usize {
        self.free.available_permits()
    }

    fn id(&self) -> i32 {
        let mut next = self.next_id.lock().expect("no panic under this lock");
        let id = *next;
        *next = next.checked_add(1).unwrap_or(1);
        id
    }
}

/// A topic partition as the client identified it: by id from Fetch 13 on, by name before.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct TopicIdPartition {
    /// The topic's name; empty if the request has ids.
    pub topic: Str,
    /// The topic's id; zero if the request has names.
    pub topic_id: Uuid,
    /// The partition.
    pub partition: i32,
}

/// A partition of a fetch: what the client requested, and the status that it received last.
#[derive(Clone, Debug)]
pub struct RequestedPartition {
    /// The partition.
    pub key: TopicIdPartition,
    /// The client's latest parameters.
    pub fetch: FetchPartition,
    /// The status in the session's last response that contained the partition.
    pub last_status: Option<PartitionStatus>,
    /// Whether the last response contained its records.
    pub had_records: bool,
}

/// What a response reports of a partition, besides records.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PartitionStatus {
    /// The error.
    pub error_code: i16,
    /// The high watermark.
    pub high_watermark: i64,
    /// The last stable offset.
    pub last_stable_offset: i64,
    /// The log start offset.
    pub log_start_offset: i64,
}

struct FetchSession {
    epoch: i32,
    /// Whether the session identifies topics by id.
    by_ids: bool,
    partitions: Vec<RequestedPartition>,
    share: Share,
    _slot: OwnedSemaphorePermit,
}

/// The fetch sessions of one connection. Cloning shares them.
pub struct FetchSessions<E: Env> {
    slots: SessionSlots,
    /// Sessions of a connection: a client has one, but may open the next before it closes it.
    sessions_max: usize,
    memory: Memory<E>,
    sessions: Arc<Mutex<BTreeMap<i32, FetchSession>>>,
}

impl<E: Env> Clone for FetchSessions<E> {
    fn clone(&self) -> Self {
        Self {
            slots: self.slots.clone(),
            sessions_max: self.sessions_max,
            memory: self.memory.clone(),
            sessions: Arc::clone(&self.sessions),
        }
    }
}

/// What a fetch reads and how it responds, once its session is updated: Kafka's `FetchContext`.
#[derive(Debug)]
pub struct FetchContext {
    /// The partitions to read, in the order in which they get bytes of the response.
    pub partitions: Vec<RequestedPartition>,
    /// The session id in the response; 0 is none.
    pub session_id: i32,
    /// Whether the response omits partitions whose status did not change.
    pub incremental: bool,
}

impl<E: Env> FetchSessions<E> {
    /// For a new connection.
    pub fn new(slots: SessionSlots, sessions_max: usize, memory: Memory<E>) -> Self {
        Self {
            sessions_max,
            slots,
            memory,
            sessions: Arc::default(),
        }
    }

    /// Memory that a copy of the request's session takes, in bytes. Topic names are shared, not copied.
    pub fn copied_bytes(&self, request: &FetchRequest) -> usize {
        self.lock()
            .get(&request.session_id)
            .map_or(0, |s| s.partitions.len() * PARTITION_BYTES)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<i32, FetchSession>> {
        self.sessions.lock().expect("no panic under this lock")
    }

    /// Updates, opens or closes the request's session, and returns what to fetch.
    ///
    /// # Errors
    /// FETCH_SESSION_ID_NOT_FOUND, INVALID_FETCH_SESSION_EPOCH, FETCH_SESSION_TOPIC_ID_ERROR.
    pub fn new_context(&self, request: &FetchRequest, version: i16) -> Result<FetchContext, ErrorCode> {
        let by_ids = version >= IDS_SINCE;
        match (request.session_id, request.session_epoch) {
            (id, FINAL_EPOCH) => {
                self.lock().remove(&id);
                Ok(FetchContext {
                    // These live as long as the request, so they may share its frame.
                    partitions: deduplicated(request, Str::clone),
                    session_id: 0,
                    incremental: false,
                })
            }
            (id, 0) => {
                self.lock().remove(&id);
                let partitions = deduplicated(request, Str::detached);
                let session_id = self.open(&partitions, by_ids);
                Ok(FetchContext {
                    partitions,
                    session_id,
                    incremental: false,
                })
            }
            (id, epoch) => {
                let mut sessions = self.lock();
                let session = sessions
                    .get_mut(&id)
                    .ok_or(ErrorCode::FETCH_SESSION_ID_NOT_FOUND)?;
                if session.epoch != epoch {
                    return Err(ErrorCode::INVALID_FETCH_SESSION_EPOCH);
                }
                if session.by_ids != by_ids {
                    return Err(ErrorCode::FETCH_SESSION_TOPIC_ID_ERROR);
                }
                session.epoch = epoch.checked_add(1).unwrap_or(1);
                session.update(request);
                if session.partitions.is_empty() {
                    // As in Kafka, a session without partitions is closed.
                    sessions.remove(&id);
                    return Ok(FetchContext {
                        partitions: Vec::new(),
                        session_id: 0,
                        incremental: false,
                    });
                }
                let more = bytes(&session.partitions);
                match self
                    .memory
                    .try_session(more.saturating_sub(session.share.bytes()))
                {
                    Some(share) => session.share.join(share),
                    None => {
                        // Without memory the session ends: the client opens another, or makes full fetches.
                        sessions.remove(&id);
                        return Err(ErrorCode::FETCH_SESSION_ID_NOT_FOUND);
                    }
                }
                Ok(FetchContext {
                    partitions: session.partitions.clone(),
                    session_id: id,
                    incremental: true,
                })
            }
        }
    }

    fn open(&self, partitions: &[RequestedPartition], by_ids: bool) -> i32 {
        let mut sessions = self.lock();
        if partitions.is_empty() || sessions.len() >= self.sessions_max {
            return 0;
        }
        let Ok(slot) = Arc::clone(&self.slots.free).try_acquire_owned() else {
            return 0;
        };
        let Some(share) = self.memory.try_session(bytes(partitions)) else {
            return 0;
        };
        let id = self.slots.id();
        sessions.insert(
            id,
            FetchSession {
                epoch: 1,
                by_ids,
                partitions: partitions.to_vec(),
                share,
                _slot: slot,
            },
        );
        id
    }

    /// Caches the status of each partition of a response, and whether it had records. Partitions that had records move to
    /// the end, so that each gets bytes in turn when a response can't hold them all.
    pub fn record_response(&self, context: &FetchContext, statuses: &[(PartitionStatus, bool)]) {
        let mut sessions = self.lock();
        let Some(session) = sessions.get_mut(&context.session_id) else {
            return;
        };
        let mut numbers = TopicNumbers::default();
        let mut indexes: Option<BTreeMap<(usize, i32), usize>> = None;
        for (i, requested) in session.partitions.iter_mut().enumerate() {
            // The order is that of the request, unless a later request has changed the session meanwhile.
            let at = match context
                .partitions
                .get(i)
                .is_some_and(|of| of.key == requested.key)
            {
                true => Some(i),
                false => {
                    let indexes =
                        indexes.get_or_insert_with(|| indexes_of(&context.partitions, &mut numbers));
                    indexes.get(&requested.key.numbered(&mut numbers)).copied()
                }
            };
            requested.had_records = false;
            if let Some((status, had_records)) = at.and_then(|at| statuses.get(at)) {
                (requested.last_status, requested.had_records) = (Some(*status), *had_records);
            }
        }
        session.partitions.sort_by_key(|requested| requested.had_records);
    }
}

impl TopicIdPartition {
    /// The partition with a number in place of its topic.
    fn numbered(&self, numbers: &mut TopicNumbers) -> (usize, i32) {
        (numbers.number_of(&self.topic, self.topic_id), self.partition)
    }
}

/// The index of each partition.
fn indexes_of(
    partitions: &[RequestedPartition],
    numbers: &mut TopicNumbers,
) -> BTreeMap<(usize, i32), usize> {
    let all = partitions.iter().enumerate();
    all.map(|(at, p)| (p.key.numbered(numbers), at)).collect()
}

/// The partitions that a request lists, in order.
fn listed_partitions(request: &FetchRequest) -> impl Iterator<Item = (&FetchTopic, &FetchPartition)> {
    let topics = request.topics.iter();
    topics.flat_map(|topic| topic.partitions.iter().map(move |fetch| (topic, fetch)))
}

/// Each partition that a request lists, once. As in Kafka, which reads the list into a linked hash map, the last entry
/// wins and keeps the first one's position.
fn deduplicated<'r>(request: &'r FetchRequest, keep: impl Fn(&Str) -> Str) -> Vec<RequestedPartition> {
    type Entry<'a> = (&'a FetchTopic, &'a FetchPartition);
    fn key<'a>((topic, fetch): Entry<'a>) -> (&'a str, Uuid, i32) {
        (topic.topic.as_str(), topic.topic_id, fetch.partition)
    }
    let mut name = None;
    let requested = |(topic, fetch): Entry<'r>| {
        requested_partition(topic, shared_name(&mut name, &topic.topic, &keep), fetch)
    };
    // Most clients send sorted lists, which have no duplicates.
    let topics = || request.topics.iter();
    let partitions_in_order = |t: &FetchTopic| t.partitions.is_sorted_by(|a, b| a.partition < b.partition);
    if topics().is_sorted_by(|a, b| (&a.topic, a.topic_id) < (&b.topic, b.topic_id))
        && topics().all(partitions_in_order)
    {
        return listed_partitions(request).map(requested).collect();
    }
    let mut entries: Vec<Entry<'_>> = Vec::new();
    let (mut indexes, mut numbers) = (BTreeMap::new(), TopicNumbers::default());
    let few = listed_partitions(request).nth(FEW).is_none();
    for entry in listed_partitions(request) {
        let at = match few {
            true => entries.iter().position(|before| key(*before) == key(entry)),
            false => {
                let (topic, fetch) = entry;
                let numbered = (numbers.number_of(&topic.topic, topic.topic_id), fetch.partition);
                Some(*indexes.entry(numbered).or_insert(entries.len()))
            }
        };
        match at.and_then(|at| entries.get_mut(at)) {
            Some(before) => *before = entry,
            None => entries.push(entry),
        }
    }
    entries.into_iter().map(requested).collect()
}

/// Copies a topic's name once for all its partitions that follow each other.
fn shared_name<'a>(before: &mut Option<(&'a Str, Str)>, name: &'a Str, keep: impl Fn(&Str) -> Str) -> Str {
    match before {
        Some((of, shared_name)) if std::ptr::eq(*of, name) => shared_name.clone(),
        before => before.insert((name, keep(name))).1.clone(),
    }
}

/// Memory that a session of these partitions takes, in bytes. Names count in full: a client may send any name of any
/// length.
fn bytes(partitions: &[RequestedPartition]) -> usize {
    partitions
        .iter()
        .map(|p| PARTITION_BYTES + p.key.topic.as_str().len())
        .sum()
}

fn requested_partition(topic: &FetchTopic, name: Str, fetch: &FetchPartition) -> RequestedPartition {
    let key = TopicIdPartition {
        topic: name,
        topic_id: topic.topic_id,
        partition: fetch.partition,
    };
    RequestedPartition {
        key,
        fetch: FetchPartition {
            unknown_tagged_fields: Default::default(),
            ..*fetch
        },
        last_status: None,
        had_records: false,
    }
}

impl FetchSession {
    fn update(&mut self, request: &FetchRequest) {
        let many = listed_partitions(request).nth(FEW).is_some();
        // A linear search for each would be quadratic.
        let mut numbers = TopicNumbers::default();
        let mut indexes = many.then(|| indexes_of(&self.partitions, &mut numbers));
        // Detached: a session must not keep the request's frame alive.
        let mut name = None;
        for (topic, fetch) in listed_partitions(request) {
            let new = requested_partition(topic, shared_name(&mut name, &topic.topic, Str::detached), fetch);
            let at = match &indexes {
                Some(indexes) => indexes.get(&new.key.numbered(&mut numbers)).copied(),
                None => self.partitions.iter().position(|p| p.key == new.key),
            };
            if let Some(at) = at {
                self.partitions[at].fetch = new.fetch;
                continue;
            }
            if let Some(indexes) = &mut indexes {
                indexes.insert(new.key.numbered(&mut numbers), self.partitions.len());
            }
            self.partitions.push(new);
        }
        let mut forgotten = BTreeSet::new();
        for topic in &request.forgotten_topics_data {
            let number = numbers.number_of(&topic.topic, topic.topic_id);
            forgotten.extend(topic.partitions.iter().map(|p| (number, *p)));
        }
        if !forgotten.is_empty() {
            self.partitions
                .retain(|p| !forgotten.contains(&p.key.numbered(&mut numbers)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use brokkr_env::tokio::TokioEnv;
    use brokkr_wire::messages::fetch_request::ForgottenTopic;

    fn sessions(slots: SessionSlots) -> FetchSessions<TokioEnv> {
        FetchSessions::new(slots, 8, Memory::new(TokioEnv::new(1), 1 << 20, &Arc::default()))
    }

    fn request(session_id: i32, session_epoch: i32, partitions: &[i32]) -> FetchRequest {
        let fetch = |p: &i32| FetchPartition {
            partition: *p,
            fetch_offset: i64::from(*p),
            ..Default::default()
        };
        let topic = FetchTopic {
            topic: Str::from("t"),
            partitions: partitions.iter().map(fetch).collect(),
            ..Default::default()
        };
        FetchRequest {
            session_id,
            session_epoch,
            topics: vec![topic],
            ..Default::default()
        }
    }

    /// [`FetchSessions::new_context`] for a request with topic names.
    fn context(
        sessions: &FetchSessions<TokioEnv>,
        request: &FetchRequest,
    ) -> Result<FetchContext, ErrorCode> {
        sessions.new_context(request, IDS_SINCE - 1)
    }

    #[test]
    fn a_session_by_names_takes_no_ids_and_one_without_partitions_ends() {
        let sessions = sessions(SessionSlots::new(1, 7));
        context(&sessions, &request(0, 0, &[1])).expect("a session");
        let by_ids = sessions.new_context(&request(7, 1, &[]), IDS_SINCE);
        assert_eq!(by_ids.err(), Some(ErrorCode::FETCH_SESSION_TOPIC_ID_ERROR));
        let mut forget = request(7, 1, &[]);
        forget.forgotten_topics_data = vec![ForgottenTopic {
            topic: Str::from("t"),
            partitions: vec![1],
            ..Default::default()
        }];
        let last = context(&sessions, &forget).expect("its next epoch");
        assert_eq!(
            (last.session_id, last.incremental, last.partitions.len()),
            (0, false, 0)
        );
        assert_eq!(
            context(&sessions, &request(7, 2, &[])).err(),
            Some(ErrorCode::FETCH_SESSION_ID_NOT_FOUND)
        );
        assert_eq!(
            context(&sessions, &request(0, 0, &[1]))
                .expect("the slot is free")
                .session_id,
            8
        );
    }

    fn partitions(context: &FetchContext) -> Vec<i32> {
        context.partitions.iter().map(|p| p.key.partition).collect()
    }

    #[test]
    fn a_session_remembers_adds_and_forgets() {
        let sessions = sessions(SessionSlots::new(10, 7));
        let first = context(&sessions, &request(0, 0, &[1, 2])).expect("a session");
        assert_eq!((first.session_id, first.incremental), (7, false));
        let next = context(&sessions, &request(7, 1, &[3])).expect("its next epoch");
        assert_eq!((partitions(&next), next.incremental), (vec![1, 2, 3], true));
        let mut forget = request(7, 2, &[]);
        let gone = ForgottenTopic {
            topic: Str::from("t"),
            partitions: vec![1],
            ..Default::default()
        };
        forget.forgotten_topics_data = vec![gone];
        assert_eq!(
            partitions(&context(&sessions, &forget).expect("its next epoch")),
            [2, 3]
        );
        assert_eq!(
            context(&sessions, &request(7, 2, &[])).err(),
            Some(ErrorCode::INVALID_FETCH_SESSION_EPOCH)
        );
        assert_eq!(
            context(&sessions, &request(8, 1, &[])).err(),
            Some(ErrorCode::FETCH_SESSION_ID_NOT_FOUND)
        );
    }

    #[test]
    fn a_partition_that_is_listed_again_has_its_first_place_and_its_last_entry() {
        let sessions = sessions(SessionSlots::new(10, 7));
        let many: Vec<i32> = (0..4 * FEW as i32).map(|i| i * 7 % 20).collect();
        for named in [&[1, 0, 1, 2, 0][..], &[0, 0], &many] {
            let mut request = request(0, FINAL_EPOCH, named);
            for (at, p) in request.topics[0].partitions.iter_mut().enumerate() {
                p.fetch_offset = at as i64;
            }
            let context = context(&sessions, &request).expect("a full fetch");
            let seen: Vec<(i32, i64)> = context
                .partitions
                .iter()
                .map(|p| (p.key.partition, p.fetch.fetch_offset))
                .collect();
            let mut expected: Vec<(i32, i64)> = Vec::new();
            for (at, partition) in (0..).zip(named) {
                match expected.iter_mut().find(|(p, _)| p == partition) {
                    Some(before) => before.1 = at,
                    None => expected.push((*partition, at)),
                }
            }
            assert_eq!(seen, expected);
        }
    }

    #[test]
    fn a_session_is_charged_for_the_names_in_it() {
        let memory = Memory::new(TokioEnv::new(1), 800 << 10, &Arc::default());
        let sessions = FetchSessions::new(SessionSlots::new(10, 7), 8, memory.clone());
        let mut named = request(0, 0, &[1, 2, 3]);
        named.topics[0].topic = Str::from("n".repeat(30_000));
        assert_eq!(context(&sessions, &named).expect("a session").session_id, 7);
        assert!(memory.try_session(20 << 10).is_none(), "of 100 KiB");
        // Without memory for a session it is a full fetch.
        assert_eq!(context(&sessions, &named).expect("a full fetch").session_id, 0);
    }

    #[test]
    fn many_partitions_at_once_are_taken_as_one_by_one() {
        let named: Vec<i32> = (0..4 * FEW as i32).map(|i| i * 7 % 20).collect();
        let (at_once, one_by_one) = (
            sessions(SessionSlots::new(1, 7)),
            sessions(SessionSlots::new(1, 7)),
        );
        for sessions in [&at_once, &one_by_one] {
            context(sessions, &request(0, 0, &[3, 1, 50])).expect("a session");
        }
        let offset = |i: usize, mut request: FetchRequest| {
            for (k, p) in request.topics[0].partitions.iter_mut().enumerate() {
                p.fetch_offset = (i + k) as i64;
            }
            request
        };
        let whole = context(&at_once, &offset(0, request(7, 1, &named)));
        let mut last = None;
        for (i, partition) in named.iter().enumerate() {
            let request = offset(i, request(7, 1 + i as i32, &[*partition]));
            last = Some(context(&one_by_one, &request).expect("its next epoch"));
        }
        let seen = |context: &FetchContext| -> Vec<(i32, i64)> {
            let seen = context.partitions.iter();
            seen.map(|p| (p.key.partition, p.fetch.fetch_offset)).collect()
        };
        let (whole, last) = (whole.expect("its next epoch"), last.expect("some are named"));
        assert_eq!(seen(&whole), seen(&last));
        assert_eq!(whole.partitions.len(), 21);
    }

    #[test]
    fn without_a_slot_a_fetch_is_full_and_a_closed_session_gives_its_slot_back() {
        let slots = SessionSlots::new(1, 7);
        let (a, b) = (sessions(slots.clone()), sessions(slots));
        assert_eq!(
            context(&a, &request(0, 0, &[1])).expect("a session").session_id,
            7
        );
        assert_eq!(
            context(&b, &request(0, 0, &[1]))
                .expect("a full fetch")
                .session_id,
            0
        );
        assert_eq!(
            context(&a, &request(7, FINAL_EPOCH, &[]))
                .expect("closed")
                .session_id,
            0
        );
        assert_ne!(
            context(&b, &request(0, 0, &[1])).expect("a session").session_id,
            0
        );
    }

    #[test]
    fn partitions_that_had_records_go_last() {
        let sessions = sessions(SessionSlots::new(10, 7));
        let first = context(&sessions, &request(0, 0, &[1, 2, 3])).expect("a session");
        let status = PartitionStatus {
            error_code: 0,
            high_watermark: 0,
            last_stable_offset: 0,
            log_start_offset: 0,
        };
        sessions.record_response(&first, &[(status, true), (status, false), (status, false)]);
        let next = context(&sessions, &request(7, 1, &[])).expect("its next epoch");
        assert_eq!(partitions(&next), [2, 3, 1]);
        // The response to that comes after a later request has changed the session: it updates only its own partitions.
        let mut later = request(7, 2, &[4]);
        later.forgotten_topics_data = vec![ForgottenTopic {
            topic: Str::from("t"),
            partitions: vec![2],
            ..Default::default()
        }];
        let later = context(&sessions, &later).expect("its next epoch");
        assert_eq!(partitions(&later), [3, 1, 4]);
        sessions.record_response(&next, &[(status, true), (status, true), (status, false)]);
        let last = context(&sessions, &request(7, 3, &[])).expect("its next epoch");
        assert_eq!(partitions(&last), [1, 4, 3]);
        let has_status = |context: &FetchContext| {
            context
                .partitions
                .iter()
                .map(|p| p.last_status.is_some())
                .collect::<Vec<_>>()
        };
        assert_eq!(has_status(&last), [true, false, true]);
    }

    #[test]
    fn a_session_takes_memory_and_ends_where_there_is_none() {
        let memory = Memory::new(TokioEnv::new(1), 64 << 10, &Arc::default());
        let sessions = FetchSessions::new(SessionSlots::new(10, 7), 8, memory.clone());
        let many: Vec<i32> = (0..1000).collect();
        let first = context(&sessions, &request(0, 0, &many)).expect("a full fetch");
        assert_eq!((first.session_id, first.partitions.len()), (0, 1000));
        let few = context(&sessions, &request(0, 0, &[1])).expect("a session");
        assert_eq!(few.session_id, 7);
        let grown = context(&sessions, &request(7, 1, &many));
        assert_eq!(grown.err(), Some(ErrorCode::FETCH_SESSION_ID_NOT_FOUND));
        assert!(sessions.lock().is_empty());
        assert!(memory.try_session(8 << 10).is_some(), "all was given back");
    }
}

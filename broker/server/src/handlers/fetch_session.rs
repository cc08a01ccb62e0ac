//! Fetch sessions (KIP-227): a client that fetches many partitions says only what changed.
//!
//! A session belongs to the connection it was opened on and ends with it: a client that comes by another one is told
//! FETCH_SESSION_ID_NOT_FOUND and opens a new one, as it does when Kafka evicted it. How many there are over all
//! connections is bounded (`max.incremental.fetch.session.cache.slots`), and so is their memory, which comes from the broker's
//! budget; a client that gets none is served full fetches.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

use brokkr_env::Env;
use brokkr_types::Uuid;
use brokkr_wire::messages::fetch_request::{FetchPartition, FetchRequest, FetchTopic};
use brokkr_wire::{ErrorCode, Str};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::handlers::topic_numbers::TopicNumbers;
use crate::net::memory::{Memory, Share};

/// Sessions of one connection: a client has one, but may forget to close it before the next.
const PER_CONNECTION_MAX: usize = 8;
/// Up to so many partitions that a request names are looked for one by one.
const FEW: usize = 8;
/// What a partition of a session takes from the budget, besides its topic's name.
const PARTITION_BYTES: usize = 256;
/// The first version of Fetch whose topics are ids.
const IDS_SINCE: i16 = 13;
/// The epoch that says "no session, and none wanted".
const FINAL_EPOCH: i32 = -1;

/// Places for sessions, over all connections. Cloning shares them.
#[derive(Clone)]
pub struct Slots {
    free: Arc<Semaphore>,
    next_id: Arc<Mutex<i32>>,
}

impl Slots {
    /// Places for `max` sessions. Ids count from `first_id`, so that those of an earlier life mean nothing.
    pub fn new(max: usize, first_id: u32) -> Self {
        let first_id = (first_id & 0x7fff_ffff) as i32;
        Self {
            free: Arc::new(Semaphore::new(max)),
            next_id: Arc::new(Mutex::new(first_id.max(1))),
        }
    }

    /// Places that are free.
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

/// A partition as the client named it: by id from Fetch 13 on, by name before.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Key {
    /// The topic's name, where it was given.
    pub topic: Str,
    /// Its id, where it was given.
    pub topic_id: Uuid,
    /// The partition.
    pub partition: i32,
}

/// What is asked of a partition, and what the client was told of it last.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Which one.
    pub key: Key,
    /// As the client said last.
    pub fetch: FetchPartition,
    /// What the last response said, if any did.
    pub told: Option<Told>,
    /// Whether it had records in it.
    pub had_records: bool,
}

/// What a response said of a partition.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Told {
    /// The error.
    pub error_code: i16,
    /// The high watermark.
    pub high_watermark: i64,
    /// The last stable offset.
    pub last_stable_offset: i64,
    /// The log's start.
    pub log_start_offset: i64,
}

struct Session {
    epoch: i32,
    /// Whether its topics are named by ids.
    by_ids: bool,
    partitions: Vec<Asked>,
    share: Share,
    _slot: OwnedSemaphorePermit,
}

/// One connection's sessions. Cloning shares them.
pub struct Sessions<E: Env> {
    slots: Slots,
    memory: Memory<E>,
    open: Arc<Mutex<BTreeMap<i32, Session>>>,
}

impl<E: Env> Clone for Sessions<E> {
    fn clone(&self) -> Self {
        Self {
            slots: self.slots.clone(),
            memory: self.memory.clone(),
            open: Arc::clone(&self.open),
        }
    }
}

/// How a fetch stands to sessions.
#[derive(Debug)]
pub struct Turn {
    /// What is fetched, in the order in which partitions get room.
    pub partitions: Vec<Asked>,
    /// What the response gives as session id: 0 is none.
    pub session_id: i32,
    /// Whether the response leaves out partitions of which there is nothing new.
    pub incremental: bool,
}

impl<E: Env> Sessions<E> {
    /// For a new connection.
    pub fn new(slots: Slots, memory: Memory<E>) -> Self {
        Self {
            slots,
            memory,
            open: Arc::default(),
        }
    }

    /// What a copy of the partitions takes that the session of a request has so far: their names are shared.
    pub fn bytes(&self, request: &FetchRequest) -> usize {
        self.lock()
            .get(&request.session_id)
            .map_or(0, |s| s.partitions.len() * PARTITION_BYTES)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<i32, Session>> {
        self.open.lock().expect("no panic under this lock")
    }

    /// Takes a request: what it fetches, once its session has been brought up to date.
    pub fn turn(&self, request: &FetchRequest, version: i16) -> Result<Turn, ErrorCode> {
        let by_ids = version >= IDS_SINCE;
        match (request.session_id, request.session_epoch) {
            (id, FINAL_EPOCH) => {
                self.lock().remove(&id);
                Ok(Turn {
                    // They end with the request, and share its frame.
                    partitions: each_once(request, Str::clone),
                    session_id: 0,
                    incremental: false,
                })
            }
            (id, 0) => {
                self.lock().remove(&id);
                let partitions = each_once(request, Str::detached);
                let session_id = self.open(&partitions, by_ids);
                Ok(Turn {
                    partitions,
                    session_id,
                    incremental: false,
                })
            }
            (id, epoch) => {
                let mut open = self.lock();
                let session = open.get_mut(&id).ok_or(ErrorCode::FETCH_SESSION_ID_NOT_FOUND)?;
                if session.epoch != epoch {
                    return Err(ErrorCode::INVALID_FETCH_SESSION_EPOCH);
                }
                if session.by_ids != by_ids {
                    return Err(ErrorCode::FETCH_SESSION_TOPIC_ID_ERROR);
                }
                session.epoch = epoch.checked_add(1).unwrap_or(1);
                session.update(request);
                if session.partitions.is_empty() {
                    // As Kafka: there is nothing left to tell by it.
                    open.remove(&id);
                    return Ok(Turn {
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
                        // The client opens another, or gets full fetches.
                        open.remove(&id);
                        return Err(ErrorCode::FETCH_SESSION_ID_NOT_FOUND);
                    }
                }
                Ok(Turn {
                    partitions: session.partitions.clone(),
                    session_id: id,
                    incremental: true,
                })
            }
        }
    }

    fn open(&self, partitions: &[Asked], by_ids: bool) -> i32 {
        let mut open = self.lock();
        if partitions.is_empty() || open.len() >= PER_CONNECTION_MAX {
            return 0;
        }
        let Ok(slot) = Arc::clone(&self.slots.free).try_acquire_owned() else {
            return 0;
        };
        let Some(share) = self.memory.try_session(bytes(partitions)) else {
            return 0;
        };
        let id = self.slots.id();
        open.insert(
            id,
            Session {
                epoch: 1,
                by_ids,
                partitions: partitions.to_vec(),
                share,
                _slot: slot,
            },
        );
        id
    }

    /// Remembers what a turn's response told of its partitions, each with whether it had records. Those that had go last next time,
    /// so that each gets its turn when there is less room than there are records.
    pub fn told(&self, turn: &Turn, told: &[(Told, bool)]) {
        let mut open = self.lock();
        let Some(session) = open.get_mut(&turn.session_id) else {
            return;
        };
        let mut numbers = TopicNumbers::default();
        let mut places: Option<BTreeMap<(usize, i32), usize>> = None;
        for (i, asked) in session.partitions.iter_mut().enumerate() {
            // They stand as they were asked, unless a later request has changed that meanwhile.
            let at = match turn.partitions.get(i).is_some_and(|of| of.key == asked.key) {
                true => Some(i),
                false => {
                    let places = places.get_or_insert_with(|| places_of(&turn.partitions, &mut numbers));
                    places.get(&asked.key.numbered(&mut numbers)).copied()
                }
            };
            asked.had_records = false;
            if let Some((told, had_records)) = at.and_then(|at| told.get(at)) {
                (asked.told, asked.had_records) = (Some(*told), *had_records);
            }
        }
        session.partitions.sort_by_key(|asked| asked.had_records);
    }
}

impl Key {
    /// The same with a number in the topic's place.
    fn numbered(&self, numbers: &mut TopicNumbers) -> (usize, i32) {
        (numbers.of(&self.topic, self.topic_id), self.partition)
    }
}

/// Where each partition stands.
fn places_of(partitions: &[Asked], numbers: &mut TopicNumbers) -> BTreeMap<(usize, i32), usize> {
    let all = partitions.iter().enumerate();
    all.map(|(at, p)| (p.key.numbered(numbers), at)).collect()
}

/// Everything that a request names, in its order.
fn listed(request: &FetchRequest) -> impl Iterator<Item = (&FetchTopic, &FetchPartition)> {
    let topics = request.topics.iter();
    topics.flat_map(|topic| topic.partitions.iter().map(move |fetch| (topic, fetch)))
}

/// Each partition that a request names, once. As with Kafka, which reads the list into a map, the last entry counts, in the
/// first one's place.
fn each_once<'r>(request: &'r FetchRequest, keep: impl Fn(&Str) -> Str) -> Vec<Asked> {
    type Entry<'a> = (&'a FetchTopic, &'a FetchPartition);
    fn key<'a>((topic, fetch): Entry<'a>) -> (&'a str, Uuid, i32) {
        (topic.topic.as_str(), topic.topic_id, fetch.partition)
    }
    let mut name = None;
    let asked = |(topic, fetch): Entry<'r>| named(topic, kept(&mut name, &topic.topic, &keep), fetch);
    // Most lists are in order.
    let topics = || request.topics.iter();
    let partitions_in_order = |t: &FetchTopic| t.partitions.is_sorted_by(|a, b| a.partition < b.partition);
    if topics().is_sorted_by(|a, b| (&a.topic, a.topic_id) < (&b.topic, b.topic_id))
        && topics().all(partitions_in_order)
    {
        return listed(request).map(asked).collect();
    }
    let mut once: Vec<Entry<'_>> = Vec::new();
    let (mut places, mut numbers) = (BTreeMap::new(), TopicNumbers::default());
    let few = listed(request).nth(FEW).is_none();
    for entry in listed(request) {
        let at = match few {
            true => once.iter().position(|before| key(*before) == key(entry)),
            false => {
                let (topic, fetch) = entry;
                let place = (numbers.of(&topic.topic, topic.topic_id), fetch.partition);
                Some(*places.entry(place).or_insert(once.len()))
            }
        };
        match at.and_then(|at| once.get_mut(at)) {
            Some(before) => *before = entry,
            None => once.push(entry),
        }
    }
    once.into_iter().map(asked).collect()
}

/// A topic's name as it is kept: once for all partitions that follow each other.
fn kept<'a>(before: &mut Option<(&'a Str, Str)>, name: &'a Str, keep: impl Fn(&Str) -> Str) -> Str {
    match before {
        Some((of, kept)) if std::ptr::eq(*of, name) => kept.clone(),
        before => before.insert((name, keep(name))).1.clone(),
    }
}

/// What a session of these takes from the budget. Nothing says that a name is a topic's, or how long it is.
fn bytes(partitions: &[Asked]) -> usize {
    partitions
        .iter()
        .map(|p| PARTITION_BYTES + p.key.topic.as_str().len())
        .sum()
}

fn named(topic: &FetchTopic, name: Str, fetch: &FetchPartition) -> Asked {
    let key = Key {
        topic: name,
        topic_id: topic.topic_id,
        partition: fetch.partition,
    };
    Asked {
        key,
        fetch: FetchPartition {
            unknown_tagged_fields: Default::default(),
            ..*fetch
        },
        told: None,
        had_records: false,
    }
}

impl Session {
    fn update(&mut self, request: &FetchRequest) {
        let many = listed(request).nth(FEW).is_some();
        // To look for each among all of them would take the square of their number.
        let mut numbers = TopicNumbers::default();
        let mut places = many.then(|| places_of(&self.partitions, &mut numbers));
        // Detached: a session must not hold on to the frame it came in.
        let mut name = None;
        for (topic, fetch) in listed(request) {
            let new = named(topic, kept(&mut name, &topic.topic, Str::detached), fetch);
            let at = match &places {
                Some(places) => places.get(&new.key.numbered(&mut numbers)).copied(),
                None => self.partitions.iter().position(|p| p.key == new.key),
            };
            if let Some(at) = at {
                self.partitions[at].fetch = new.fetch;
                continue;
            }
            if let Some(places) = &mut places {
                places.insert(new.key.numbered(&mut numbers), self.partitions.len());
            }
            self.partitions.push(new);
        }
        let mut forgotten = BTreeSet::new();
        for topic in &request.forgotten_topics_data {
            let number = numbers.of(&topic.topic, topic.topic_id);
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

    fn sessions(slots: Slots) -> Sessions<TokioEnv> {
        Sessions::new(slots, Memory::new(TokioEnv::new(1), 1 << 20))
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

    /// As [`Sessions::turn`], with names.
    fn turn(sessions: &Sessions<TokioEnv>, request: &FetchRequest) -> Result<Turn, ErrorCode> {
        sessions.turn(request, IDS_SINCE - 1)
    }

    #[test]
    fn a_session_by_names_takes_no_ids_and_one_without_partitions_ends() {
        let sessions = sessions(Slots::new(1, 7));
        turn(&sessions, &request(0, 0, &[1])).expect("a session");
        let by_ids = sessions.turn(&request(7, 1, &[]), IDS_SINCE);
        assert_eq!(by_ids.err(), Some(ErrorCode::FETCH_SESSION_TOPIC_ID_ERROR));
        let mut forget = request(7, 1, &[]);
        forget.forgotten_topics_data = vec![ForgottenTopic {
            topic: Str::from("t"),
            partitions: vec![1],
            ..Default::default()
        }];
        let last = turn(&sessions, &forget).expect("its next epoch");
        assert_eq!(
            (last.session_id, last.incremental, last.partitions.len()),
            (0, false, 0)
        );
        assert_eq!(
            turn(&sessions, &request(7, 2, &[])).err(),
            Some(ErrorCode::FETCH_SESSION_ID_NOT_FOUND)
        );
        assert_eq!(
            turn(&sessions, &request(0, 0, &[1]))
                .expect("the slot is free")
                .session_id,
            8
        );
    }

    fn partitions(turn: &Turn) -> Vec<i32> {
        turn.partitions.iter().map(|p| p.key.partition).collect()
    }

    #[test]
    fn a_session_remembers_adds_and_forgets() {
        let sessions = sessions(Slots::new(10, 7));
        let first = turn(&sessions, &request(0, 0, &[1, 2])).expect("a session");
        assert_eq!((first.session_id, first.incremental), (7, false));
        let next = turn(&sessions, &request(7, 1, &[3])).expect("its next epoch");
        assert_eq!((partitions(&next), next.incremental), (vec![1, 2, 3], true));
        let mut forget = request(7, 2, &[]);
        let gone = ForgottenTopic {
            topic: Str::from("t"),
            partitions: vec![1],
            ..Default::default()
        };
        forget.forgotten_topics_data = vec![gone];
        assert_eq!(
            partitions(&turn(&sessions, &forget).expect("its next epoch")),
            [2, 3]
        );
        assert_eq!(
            turn(&sessions, &request(7, 2, &[])).err(),
            Some(ErrorCode::INVALID_FETCH_SESSION_EPOCH)
        );
        assert_eq!(
            turn(&sessions, &request(8, 1, &[])).err(),
            Some(ErrorCode::FETCH_SESSION_ID_NOT_FOUND)
        );
    }

    #[test]
    fn a_partition_that_is_listed_again_has_its_first_place_and_its_last_entry() {
        let sessions = sessions(Slots::new(10, 7));
        let many: Vec<i32> = (0..4 * FEW as i32).map(|i| i * 7 % 20).collect();
        for named in [&[1, 0, 1, 2, 0][..], &[0, 0], &many] {
            let mut request = request(0, FINAL_EPOCH, named);
            for (at, p) in request.topics[0].partitions.iter_mut().enumerate() {
                p.fetch_offset = at as i64;
            }
            let turn = turn(&sessions, &request).expect("a full fetch");
            let seen: Vec<(i32, i64)> = turn
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
        let memory = Memory::new(TokioEnv::new(1), 800 << 10);
        let sessions = Sessions::new(Slots::new(10, 7), memory.clone());
        let mut named = request(0, 0, &[1, 2, 3]);
        named.topics[0].topic = Str::from("n".repeat(30_000));
        assert_eq!(turn(&sessions, &named).expect("a session").session_id, 7);
        assert!(memory.try_session(20 << 10).is_none(), "of 100 KiB");
        // What was not opened, for want of memory, is a full fetch.
        assert_eq!(turn(&sessions, &named).expect("a full fetch").session_id, 0);
    }

    #[test]
    fn many_partitions_at_once_are_taken_as_one_by_one() {
        let named: Vec<i32> = (0..4 * FEW as i32).map(|i| i * 7 % 20).collect();
        let (at_once, one_by_one) = (sessions(Slots::new(1, 7)), sessions(Slots::new(1, 7)));
        for sessions in [&at_once, &one_by_one] {
            turn(sessions, &request(0, 0, &[3, 1, 50])).expect("a session");
        }
        let offset = |i: usize, mut request: FetchRequest| {
            for (k, p) in request.topics[0].partitions.iter_mut().enumerate() {
                p.fetch_offset = (i + k) as i64;
            }
            request
        };
        let whole = turn(&at_once, &offset(0, request(7, 1, &named)));
        let mut last = None;
        for (i, partition) in named.iter().enumerate() {
            let request = offset(i, request(7, 1 + i as i32, &[*partition]));
            last = Some(turn(&one_by_one, &request).expect("its next epoch"));
        }
        let seen = |turn: &Turn| -> Vec<(i32, i64)> {
            let seen = turn.partitions.iter();
            seen.map(|p| (p.key.partition, p.fetch.fetch_offset)).collect()
        };
        let (whole, last) = (whole.expect("its next epoch"), last.expect("some are named"));
        assert_eq!(seen(&whole), seen(&last));
        assert_eq!(whole.partitions.len(), 21);
    }

    #[test]
    fn without_a_slot_a_fetch_is_full_and_a_closed_session_gives_its_slot_back() {
        let slots = Slots::new(1, 7);
        let (a, b) = (sessions(slots.clone()), sessions(slots));
        assert_eq!(turn(&a, &request(0, 0, &[1])).expect("a session").session_id, 7);
        assert_eq!(
            turn(&b, &request(0, 0, &[1])).expect("a full fetch").session_id,
            0
        );
        assert_eq!(
            turn(&a, &request(7, FINAL_EPOCH, &[]))
                .expect("closed")
                .session_id,
            0
        );
        assert_ne!(turn(&b, &request(0, 0, &[1])).expect("a session").session_id, 0);
    }

    #[test]
    fn who_had_records_goes_last() {
        let sessions = sessions(Slots::new(10, 7));
        let first = turn(&sessions, &request(0, 0, &[1, 2, 3])).expect("a session");
        let told = Told {
            error_code: 0,
            high_watermark: 0,
            last_stable_offset: 0,
            log_start_offset: 0,
        };
        sessions.told(&first, &[(told, true), (told, false), (told, false)]);
        let next = turn(&sessions, &request(7, 1, &[])).expect("its next epoch");
        assert_eq!(partitions(&next), [2, 3, 1]);
        // The answer to that comes when a later request has already brought another: it is of its own partitions.
        let mut later = request(7, 2, &[4]);
        later.forgotten_topics_data = vec![ForgottenTopic {
            topic: Str::from("t"),
            partitions: vec![2],
            ..Default::default()
        }];
        let later = turn(&sessions, &later).expect("its next epoch");
        assert_eq!(partitions(&later), [3, 1, 4]);
        sessions.told(&next, &[(told, true), (told, true), (told, false)]);
        let last = turn(&sessions, &request(7, 3, &[])).expect("its next epoch");
        assert_eq!(partitions(&last), [1, 4, 3]);
        let was_told = |turn: &Turn| {
            turn.partitions
                .iter()
                .map(|p| p.told.is_some())
                .collect::<Vec<_>>()
        };
        assert_eq!(was_told(&last), [true, false, true]);
    }

    #[test]
    fn a_session_takes_memory_and_ends_where_there_is_none() {
        let memory = Memory::new(TokioEnv::new(1), 64 << 10);
        let sessions = Sessions::new(Slots::new(10, 7), memory.clone());
        let many: Vec<i32> = (0..1000).collect();
        let first = turn(&sessions, &request(0, 0, &many)).expect("a full fetch");
        assert_eq!((first.session_id, first.partitions.len()), (0, 1000));
        let few = turn(&sessions, &request(0, 0, &[1])).expect("a session");
        assert_eq!(few.session_id, 7);
        let grown = turn(&sessions, &request(7, 1, &many));
        assert_eq!(grown.err(), Some(ErrorCode::FETCH_SESSION_ID_NOT_FOUND));
        assert!(sessions.lock().is_empty());
        assert!(memory.try_session(8 << 10).is_some(), "all was given back");
    }
}

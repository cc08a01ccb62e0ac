//! Incremental fetches (KIP-227): the broker remembers what we fetch, we tell what changed.
//!
//! ```text
//!   epoch -1  no session        epoch 0  a new one, everything told        epoch 1 …  what changed since the last
//! ```

use std::collections::BTreeMap;

use brokkr_types::Uuid;
use brokkr_wire::messages::FetchRequest;
use brokkr_wire::messages::fetch_request::{FetchPartition, FetchTopic, ForgottenTopic};
use brokkr_wire::{ErrorCode, Str};

use super::{Asked, ConsumerConfig};
use crate::{Error, TopicPartition};

/// No session.
const EPOCH_FINAL: i32 = -1;
/// Asks for a new one, and closes the old one of this id if there is one.
const EPOCH_INITIAL: i32 = 0;

/// What the broker was told of a partition.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Told {
    topic_id: Uuid,
    position: i64,
    leader_epoch: i32,
}

/// A session with one broker, or none yet.
pub(super) struct Session {
    id: i32,
    epoch: i32,
    told: BTreeMap<TopicPartition, Told>,
    /// Fetches without a session so far.
    turns: usize,
}

/// Whether only the session is broken.
pub(super) fn is_session_error(e: &Error) -> bool {
    matches!(
        e.code(),
        Some(
            ErrorCode::FETCH_SESSION_ID_NOT_FOUND
                | ErrorCode::INVALID_FETCH_SESSION_EPOCH
                | ErrorCode::FETCH_SESSION_TOPIC_ID_ERROR
        )
    )
}

impl Session {
    pub fn new() -> Self {
        Self {
            id: 0,
            epoch: EPOCH_INITIAL,
            told: BTreeMap::new(),
            turns: 0,
        }
    }

    /// The request that fetches what is asked, and nothing else.
    pub fn request(&mut self, asked: &[Asked], sessions: bool, config: &ConsumerConfig) -> FetchRequest {
        let now: BTreeMap<TopicPartition, Told> = asked
            .iter()
            .map(|a| {
                let told = Told {
                    topic_id: a.topic_id,
                    position: a.position.0,
                    leader_epoch: a.leader_epoch,
                };
                (a.tp.clone(), told)
            })
            .collect();
        let full = !sessions || self.epoch == EPOCH_INITIAL;
        let mut request = FetchRequest {
            session_id: if sessions { self.id } else { 0 },
            session_epoch: if sessions { self.epoch } else { EPOCH_FINAL },
            min_bytes: config.min_bytes,
            max_bytes: config.max_bytes,
            ..Default::default()
        };
        let mut topics: BTreeMap<(Str, Uuid), Vec<FetchPartition>> = BTreeMap::new();
        for (tp, told) in &now {
            if full || self.told.get(tp) != Some(told) {
                let key = (tp.topic.clone(), told.topic_id);
                topics.entry(key).or_default().push(FetchPartition {
                    partition: tp.partition,
                    current_leader_epoch: told.leader_epoch,
                    fetch_offset: told.position,
                    partition_max_bytes: config.partition_max_bytes,
                    ..Default::default()
                });
            }
        }
        let mut forgotten: BTreeMap<(Str, Uuid), Vec<i32>> = BTreeMap::new();
        for (tp, told) in &self.told {
            // A topic that was deleted and created again is another: the old one is forgotten, the new one added.
            if !full && now.get(tp).is_none_or(|n| n.topic_id != told.topic_id) {
                let key = (tp.topic.clone(), told.topic_id);
                forgotten.entry(key).or_default().push(tp.partition);
            }
        }
        request.topics = topics
            .into_iter()
            .map(|((topic, topic_id), partitions)| FetchTopic {
                topic,
                topic_id,
                partitions,
                ..Default::default()
            })
            .collect();
        request.forgotten_topics_data = forgotten
            .into_iter()
            .map(|((topic, topic_id), partitions)| ForgottenTopic {
                topic,
                topic_id,
                partitions,
                ..Default::default()
            })
            .collect();
        if full {
            // As Kafka's client: who came first comes last the next time, so that a small limit starves nobody.
            let turn = self.turns;
            self.turns += 1;
            let count = request.topics.len().max(1);
            request.topics.rotate_left(turn % count);
            for t in &mut request.topics {
                let n = t.partitions.len();
                t.partitions.rotate_left(turn / count % n);
            }
        }
        self.told = now;
        request
    }

    /// The broker answered, with the session's id: 0 if it keeps none.
    pub fn answered(&mut self, id: i32) {
        self.id = id;
        if id == 0 {
            self.epoch = EPOCH_INITIAL;
        } else {
            self.epoch = self.epoch.checked_add(1).unwrap_or(1);
        }
    }

    /// The fetch failed: what the broker has of the session is not known any more.
    pub fn failed(&mut self, e: &Error) {
        self.epoch = EPOCH_INITIAL;
        if e.code() == Some(ErrorCode::FETCH_SESSION_ID_NOT_FOUND) {
            self.id = 0;
        }
    }
}

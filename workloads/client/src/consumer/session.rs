//! Incremental fetches (KIP-227): the broker remembers the partitions, and each request lists only changes.
//!
//! ```text
//!   epoch -1  no session        epoch 0  a new session, all partitions     epoch 1 …  changes since the last request
//! ```

use std::collections::BTreeMap;

use brokkr_types::{Offset, Uuid};
use brokkr_wire::messages::FetchRequest;
use brokkr_wire::messages::fetch_request::{FetchPartition, FetchTopic, ForgottenTopic};
use brokkr_wire::{ErrorCode, Str};

use super::config::ConsumerConfig;
use crate::{Error, TopicPartition};

/// No session.
const EPOCH_FINAL: i32 = -1;
/// Requests a new session, and closes the old one of this id if there is one.
const EPOCH_INITIAL: i32 = 0;

/// A partition in a fetch request.
#[derive(Clone)]
pub(super) struct RequestedPartition {
    pub(super) tp: TopicPartition,
    pub(super) topic_id: Uuid,
    pub(super) leader_epoch: i32,
    pub(super) generation: u64,
    pub(super) position: Offset,
}

/// A partition's state as the broker's session has it.
#[derive(Clone, Copy, PartialEq, Eq)]
struct SessionPartition {
    topic_id: Uuid,
    position: i64,
    leader_epoch: i32,
}

/// A session with one broker, or none yet.
pub(super) struct Session {
    id: i32,
    epoch: i32,
    sent: BTreeMap<TopicPartition, SessionPartition>,
    /// Fetches without a session so far.
    turns: usize,
}

/// Whether the error concerns only the session.
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
            sent: BTreeMap::new(),
            turns: 0,
        }
    }

    /// The request that fetches exactly the `requested` partitions.
    pub fn request(
        &mut self,
        requested: &[RequestedPartition],
        sessions: bool,
        config: &ConsumerConfig,
    ) -> FetchRequest {
        let now: BTreeMap<TopicPartition, SessionPartition> = requested
            .iter()
            .map(|a| {
                let sent = SessionPartition {
                    topic_id: a.topic_id,
                    position: a.position.0,
                    leader_epoch: a.leader_epoch,
                };
                (a.tp.clone(), sent)
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
        for (tp, sent) in &now {
            if full || self.sent.get(tp) != Some(sent) {
                let key = (tp.topic.clone(), sent.topic_id);
                topics.entry(key).or_default().push(FetchPartition {
                    partition: tp.partition,
                    current_leader_epoch: sent.leader_epoch,
                    fetch_offset: sent.position,
                    partition_max_bytes: config.partition_max_bytes,
                    ..Default::default()
                });
            }
        }
        let mut forgotten: BTreeMap<(Str, Uuid), Vec<i32>> = BTreeMap::new();
        for (tp, sent) in &self.sent {
            // A topic that was deleted and created again is a different topic: the old one is removed, the new one added.
            if !full && now.get(tp).is_none_or(|n| n.topic_id != sent.topic_id) {
                let key = (tp.topic.clone(), sent.topic_id);
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
            // As in Kafka's client, the partitions that come first now come last the next time, so that a small limit starves
            // none.
            let turn = self.turns;
            self.turns += 1;
            let count = request.topics.len().max(1);
            request.topics.rotate_left(turn % count);
            for t in &mut request.topics {
                let n = t.partitions.len();
                t.partitions.rotate_left(turn / count % n);
            }
        }
        self.sent = now;
        request
    }

    /// The broker answered, with the session's id, or 0 if it keeps none.
    pub fn answered(&mut self, id: i32) {
        self.id = id;
        if id == 0 {
            self.epoch = EPOCH_INITIAL;
        } else {
            self.epoch = self.epoch.checked_add(1).unwrap_or(1);
        }
    }

    /// The fetch failed, so the state of the broker's session is unknown.
    pub fn failed(&mut self, e: &Error) {
        self.epoch = EPOCH_INITIAL;
        if e.code() == Some(ErrorCode::FETCH_SESSION_ID_NOT_FOUND) {
            self.id = 0;
        }
    }
}

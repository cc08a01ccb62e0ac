//! What several answers say in the same way, and several requests are read in the same way.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use brokkr_env::Env;
use brokkr_metadata::{BrokerImage, Image, PartitionImage};
use brokkr_wire::{ErrorCode, Str};

use crate::partitions::Route;

/// What a client may do with a topic where nobody asks for permission: Kafka's bits for READ, WRITE, CREATE, DELETE, ALTER,
/// DESCRIBE, DESCRIBE_CONFIGS and ALTER_CONFIGS.
pub const TOPIC_OPERATIONS: i32 = 0b1101_1111_1000;
/// And with the cluster: CREATE, ALTER, DESCRIBE, CLUSTER_ACTION, DESCRIBE_CONFIGS, ALTER_CONFIGS, IDEMPOTENT_WRITE.
pub const CLUSTER_OPERATIONS: i32 = 0b1_1111_1010_0000;
/// Nobody asked.
pub const NO_OPERATIONS: i32 = i32::MIN;

/// A broker as clients of a listener see it.
pub struct BrokerEndpoint {
    /// Its id.
    pub id: i32,
    /// Its host.
    pub host: Str,
    /// Its port.
    pub port: i32,
    /// Its rack.
    pub rack: Option<Str>,
    /// Whether it is fenced.
    pub fenced: bool,
}

/// The brokers that can be reached by a listener, fenced ones too if wanted.
pub fn brokers(image: &Image, listener: &str, fenced: bool) -> Vec<BrokerEndpoint> {
    let seen = |b: &Arc<BrokerImage>| {
        let endpoint = b.endpoint(listener)?;
        Some(BrokerEndpoint {
            id: b.id,
            host: endpoint.host.clone(),
            port: i32::from(endpoint.port),
            rack: b.rack.clone(),
            fenced: b.fenced,
        })
    };
    image
        .brokers()
        .filter(|b| fenced || !b.fenced)
        .filter_map(seen)
        .collect()
}

/// A partition's leader and replicas as responses give them.
pub struct Leadership {
    /// NONE, or LEADER_NOT_AVAILABLE.
    pub code: ErrorCode,
    /// The leader, -1 where there is none.
    pub leader: i32,
    /// Replicas that can't serve: their broker is not there, or its log of this partition is offline.
    pub offline_replicas: Vec<i32>,
}

/// Who leads a partition. `offline_here`: this broker, `node_id`, has the partition's log but can't serve it; then it does
/// not lead, whatever the image says until a controller has moved the leadership, so that clients back off.
pub fn leadership(image: &Image, partition: &PartitionImage, node_id: i32, offline_here: bool) -> Leadership {
    let gone = |r: &i32| !image.is_active(*r) || (offline_here && *r == node_id);
    let leader = match partition.leader {
        leader if offline_here && leader == node_id => -1,
        leader => leader,
    };
    Leadership {
        code: match leader {
            ..0 => ErrorCode::LEADER_NOT_AVAILABLE,
            _ => ErrorCode::NONE,
        },
        leader,
        offline_replicas: partition.replicas.iter().copied().filter(gone).collect(),
    }
}

/// Whether the log of a topic's partition is here, but offline.
pub fn offline_here<E: Env>(route: Option<&Route<E>>, partition: i32) -> bool {
    let handle = route.and_then(|route| route.partition(partition));
    handle.is_some_and(|handle| handle.is_offline())
}

/// The topics that a request lists, as Kafka reads it: each once, with the partitions of all the times it is listed, and not
/// at all without partitions.
pub fn each_topic_once<P>(listed: impl Iterator<Item = (Str, Vec<P>)>) -> Vec<(Str, Vec<P>)> {
    let mut indexes = BTreeMap::new();
    let mut topics: Vec<(Str, Vec<P>)> = Vec::new();
    for (name, partitions) in listed.filter(|(_, partitions)| !partitions.is_empty()) {
        let index = *indexes.entry(name.clone()).or_insert(topics.len());
        match topics.get_mut(index) {
            Some((_, before)) => before.extend(partitions),
            None => topics.push((name, partitions)),
        }
    }
    topics
}

/// What a response may grow by for what its request lists again.
const REPEATED_BYTES_MAX: usize = 1 << 20;

/// What the answers to things that do not exist, but are answered for being named, may take up in one response. Those are as many as a
/// request has room for: a partition is four bytes of it.
const OF_ANY_NAME_BYTES_MAX: usize = 16 << 20;

/// What a request lists. As Kafka, each is answered as often as it is listed; but a short request must not make a response of
/// any length, so the answers to what is listed again, and to what does not exist, have room of their own.
pub struct ListedEntries<T> {
    seen: BTreeSet<T>,
    repeated_bytes: usize,
    unknown_bytes: usize,
}

/// How something that is listed is answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EntryOutcome {
    /// In full.
    Answer,
    /// Not at all: it is listed again, and the room for such is taken.
    TooManyRepeated,
    /// It does not exist, and the room for such is taken.
    TooManyUnknown,
}

impl<T: Ord> ListedEntries<T> {
    /// Nothing so far.
    pub fn new() -> Self {
        Self {
            seen: BTreeSet::new(),
            repeated_bytes: 0,
            unknown_bytes: 0,
        }
    }

    /// How the next one is answered, where that takes up so many bytes.
    pub fn admit(&mut self, next: T, exists: bool, bytes: usize) -> EntryOutcome {
        let fits = |taken: &mut usize, max| {
            let with = taken.saturating_add(bytes);
            let fits_in = with <= max;
            if fits_in {
                *taken = with;
            }
            fits_in
        };
        if !self.seen.insert(next) && !fits(&mut self.repeated_bytes, REPEATED_BYTES_MAX) {
            return EntryOutcome::TooManyRepeated;
        }
        if !exists && !fits(&mut self.unknown_bytes, OF_ANY_NAME_BYTES_MAX) {
            return EntryOutcome::TooManyUnknown;
        }
        EntryOutcome::Answer
    }
}

/// Whether a request to change topics comes too late to be carried out. As Kafka's controller, which looks at a request's deadline when
/// its turn comes: a timeout of 0 or less has passed by then, and nothing changes. Names that are listed more than once are refused
/// before that, so `valid` are all that might be carried out, as often as they are listed. A timeout above 0 bounds nothing here.
pub fn is_timed_out<T: Ord>(timeout_ms: i32, valid: impl Iterator<Item = T>) -> bool {
    if timeout_ms > 0 {
        return false;
    }
    let mut times = BTreeMap::<T, usize>::new();
    valid.for_each(|one| *times.entry(one).or_default() += 1);
    times.values().any(|times| *times == 1)
}

/// `isolation_level`: what is read, all or (KIP-98) what is decided. Kafka stumbles over any other and answers that it
/// doesn't know why; here the client is told.
pub fn isolation_level(level: i8) -> Result<(), ErrorCode> {
    match level {
        0 | 1 => Ok(()),
        _ => Err(ErrorCode::INVALID_REQUEST),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_short_request_makes_long_has_room_of_its_own() {
        let (half, mut listed) = (OF_ANY_NAME_BYTES_MAX / 2, ListedEntries::new());
        assert_eq!(listed.admit("gone", false, half), EntryOutcome::Answer);
        assert_eq!(listed.admit("gone too", false, half), EntryOutcome::Answer);
        assert_eq!(listed.admit("one more", false, 1), EntryOutcome::TooManyUnknown);
        // What exists is answered, however long its answer is; again only within its room.
        assert_eq!(listed.admit("here", true, 2 * half), EntryOutcome::Answer);
        assert_eq!(
            listed.admit("here", true, REPEATED_BYTES_MAX),
            EntryOutcome::Answer
        );
        assert_eq!(listed.admit("here", true, 1), EntryOutcome::TooManyRepeated);
        assert_eq!(listed.admit("gone", false, 1), EntryOutcome::TooManyRepeated);
    }
}

//! Helpers that several handlers share.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use brokkr_env::Env;
use brokkr_metadata::{BrokerImage, Image, PartitionImage};
use brokkr_wire::{ErrorCode, Str};

use crate::partitions::Route;

/// The operations on a topic that every client is allowed: Kafka's bits for READ, WRITE, CREATE, DELETE, ALTER, DESCRIBE,
/// DESCRIBE_CONFIGS and ALTER_CONFIGS.
pub const TOPIC_OPERATIONS: i32 = 0b1101_1111_1000;
/// The operations on the cluster that every client is allowed: CREATE, ALTER, DESCRIBE, CLUSTER_ACTION, DESCRIBE_CONFIGS,
/// ALTER_CONFIGS, IDEMPOTENT_WRITE.
pub const CLUSTER_OPERATIONS: i32 = 0b1_1111_1010_0000;
/// The value where the client did not request the operations.
pub const NO_OPERATIONS: i32 = i32::MIN;

/// A broker's endpoint at one listener.
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

/// The endpoints of all brokers at a listener. `fenced` includes fenced brokers.
pub fn brokers(image: &Image, listener: &str, fenced: bool) -> Vec<BrokerEndpoint> {
    let endpoint_of = |b: &Arc<BrokerImage>| {
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
        .filter_map(endpoint_of)
        .collect()
}

/// A partition's leader and replicas as responses give them.
pub struct Leadership {
    /// NONE, or LEADER_NOT_AVAILABLE.
    pub code: ErrorCode,
    /// The leader, -1 where there is none.
    pub leader: i32,
    /// Replicas that can't serve: their broker is not active, or its log of this partition is offline.
    pub offline_replicas: Vec<i32>,
}

/// The leadership of a partition. With `offline_here` this broker, `node_id`, has the partition's log but can't serve it.
/// It is then not reported as the leader, even before the controller moves the leadership, so that clients back off.
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

/// Whether this broker has the partition's log, but offline.
pub fn offline_here<E: Env>(route: Option<&Route<E>>, partition: i32) -> bool {
    let handle = route.and_then(|route| route.partition(partition));
    handle.is_some_and(|handle| handle.is_offline())
}

/// The topics of a request as Kafka reads them: each once, with the partitions of all its entries. Topics without
/// partitions are dropped.
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

/// The entries that a request lists. As in Kafka, each is answered as often as it is listed; but a short request must not
/// produce a response of any length, so repeated and unknown entries have limits of their own.
pub struct ListedEntries<T> {
    seen: BTreeSet<T>,
    repeated_bytes: usize,
    unknown_bytes: usize,
}

/// How the response answers an entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EntryOutcome {
    /// The entry is answered.
    Answer,
    /// The entry is repeated and the limit for repeated entries is reached: it is left out.
    TooManyRepeated,
    /// The entry is unknown and the limit for unknown entries is reached.
    TooManyUnknown,
}

impl<T: Ord> ListedEntries<T> {
    /// No entries so far.
    pub fn new() -> Self {
        Self {
            seen: BTreeSet::new(),
            repeated_bytes: 0,
            unknown_bytes: 0,
        }
    }

    /// Decides how the next entry is answered, whose result takes up to `bytes`.
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

/// Whether a request to change topics has timed out. As in Kafka's controller, which checks the deadline when it gets to
/// the request: a timeout of 0 or less has passed by then, and nothing changes. Names that are listed more than once get
/// their errors before that, so `valid` is all names that could be changed, as often as they are listed. A timeout above 0
/// is not enforced.
pub fn is_timed_out<T: Ord>(timeout_ms: i32, valid: impl Iterator<Item = T>) -> bool {
    if timeout_ms > 0 {
        return false;
    }
    let mut times = BTreeMap::<T, usize>::new();
    valid.for_each(|one| *times.entry(one).or_default() += 1);
    times.values().any(|times| *times == 1)
}

/// Checks `isolation_level`: 0 reads all records, 1 those of decided transactions (KIP-98). Kafka answers any other with
/// UNKNOWN_SERVER_ERROR; here it is INVALID_REQUEST.
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
    fn repeated_and_unknown_entries_have_limits() {
        let (half, mut listed) = (OF_ANY_NAME_BYTES_MAX / 2, ListedEntries::new());
        assert_eq!(listed.admit("gone", false, half), EntryOutcome::Answer);
        assert_eq!(listed.admit("gone too", false, half), EntryOutcome::Answer);
        assert_eq!(listed.admit("one more", false, 1), EntryOutcome::TooManyUnknown);
        // An entry that exists is answered whatever its size; repeated, only up to the limit.
        assert_eq!(listed.admit("here", true, 2 * half), EntryOutcome::Answer);
        assert_eq!(
            listed.admit("here", true, REPEATED_BYTES_MAX),
            EntryOutcome::Answer
        );
        assert_eq!(listed.admit("here", true, 1), EntryOutcome::TooManyRepeated);
        assert_eq!(listed.admit("gone", false, 1), EntryOutcome::TooManyRepeated);
    }
}

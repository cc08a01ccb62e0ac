//! Replica placement: chooses the brokers and log directories of new partitions.
//!
//! Replicas are striped over the racks and over the brokers of a rack, as Kafka's placer does, so that brokers lead and
//! follow about equally many partitions, and a rack holds as few replicas of a partition as possible. The start of the
//! stripes is derived from the topic's id, which is random.
//!
//! A replica is placed in its broker's log directory with the fewest partitions. In Kafka the broker chooses; here the
//! partition's record names the directory BEFORE its folder is created, so that a partition whose directory failed is never
//! recreated in another one.

use std::collections::BTreeMap;

use brokkr_types::Uuid;
use brokkr_wire::ErrorCode;

use super::{ApiError, Controller, Outcome};
use crate::image::{BrokerImage, DIRECTORY_UNASSIGNED};

/// The number of partitions in each log directory, including those that the current request creates.
pub(super) struct Spread(BTreeMap<Uuid, usize>);

/// The replicas of a partition, leader first, with their directories.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Placed {
    pub replicas: Vec<i32>,
    pub directories: Vec<Uuid>,
}

impl Controller {
    /// Counts the partitions of each log directory, for brokers with several.
    pub(super) fn spread(&self) -> Spread {
        let mut counts = BTreeMap::new();
        if self.image().brokers().any(|b| b.directories.len() > 1) {
            let topics = self.image().topics.iter();
            let partitions = topics.flat_map(|topic| &topic.partitions);
            for directory in partitions.flat_map(|p| &p.directories) {
                *counts.entry(*directory).or_insert(0) += 1;
            }
        }
        Spread(counts)
    }

    /// Places partitions `from..from + count` of a topic.
    pub(super) fn place(
        &self,
        topic: Uuid,
        from: usize,
        count: usize,
        factor: i16,
        spread: &mut Spread,
    ) -> Outcome<Vec<Placed>> {
        let wanted = usize::try_from(factor).unwrap_or_default();
        let usable: Vec<&BrokerImage> = self
            .image()
            .brokers()
            .map(AsRef::as_ref)
            .filter(|b| has_uncordoned_directory(b))
            .collect();
        let racks = racks(&usable);
        let refuse = |why: String| {
            Err(ApiError::new(
                ErrorCode::INVALID_REPLICATION_FACTOR,
                format!("Unable to replicate the partition {factor} time(s): {why}"),
            ))
        };
        if racks.is_empty() {
            return refuse(
                "All brokers are currently fenced, or have all their log directories cordoned.".to_owned(),
            );
        }
        if wanted > usable.len() {
            return refuse(format!(
                "The target replication factor of {factor} cannot be reached because only {} broker(s) are \
                 registered or some brokers have all their log directories cordoned.",
                usable.len()
            ));
        }
        let start = u64::from_be_bytes(topic.as_bytes()[8..].try_into().expect("eight bytes")) >> 16;
        let place = |i: usize| self.placed(stripe(&racks, start as usize + i, wanted), spread);
        Ok((from..from + count).map(place).collect())
    }

    /// Adds directories to the replicas: for each broker the one with the fewest partitions, the first of several.
    pub(super) fn placed(&self, replicas: Vec<i32>, spread: &mut Spread) -> Placed {
        let mut directory = |id: &i32| {
            let Some(broker) = self.image().broker(*id) else {
                return Uuid::ZERO;
            };
            let cordoned = broker.cordoned_directories.as_deref().unwrap_or_default();
            let count = |d: &&Uuid| {
                (
                    cordoned.contains(d),
                    spread.0.get(*d).copied().unwrap_or_default(),
                )
            };
            let Some(chosen) = broker.directories.iter().min_by_key(count).copied() else {
                return DIRECTORY_UNASSIGNED;
            };
            *spread.0.entry(chosen).or_insert(0) += 1;
            chosen
        };
        Placed {
            directories: replicas.iter().map(&mut directory).collect(),
            replicas,
        }
    }
}

fn has_uncordoned_directory(b: &BrokerImage) -> bool {
    let cordoned = b.cordoned_directories.as_deref().unwrap_or_default();
    b.directories.is_empty() || b.directories.iter().any(|d| !cordoned.contains(d))
}

/// The unfenced brokers of each rack, then the fenced ones. Empty if no broker is unfenced.
fn racks(usable: &[&BrokerImage]) -> Vec<Vec<Vec<i32>>> {
    if usable.iter().all(|b| b.fenced) {
        return Vec::new();
    }
    let mut names: Vec<_> = usable.iter().map(|b| b.rack.clone()).collect();
    names.sort();
    names.dedup();
    let of = |rack: &_, fenced| {
        let of_rack = usable.iter().filter(|b| b.rack == *rack && b.fenced == fenced);
        of_rack.map(|b| b.id).collect::<Vec<i32>>()
    };
    let all = |fenced| {
        let racks = names.iter().map(|rack| of(rack, fenced));
        racks.filter(|rack| !rack.is_empty()).collect::<Vec<_>>()
    };
    [all(false), all(true)]
        .into_iter()
        .filter(|racks| !racks.is_empty())
        .collect()
}

/// Chooses `count` different brokers for the partition at position `at` in the stripes: one from each rack in turn, unfenced
/// brokers before fenced ones, so that the first can lead.
fn stripe(racks: &[Vec<Vec<i32>>], at: usize, count: usize) -> Vec<i32> {
    let mut out = Vec::with_capacity(count);
    for racks in racks {
        let rounds = racks.iter().map(Vec::len).max().unwrap_or_default();
        for round in 0..rounds {
            for i in 0..racks.len() {
                let rack = &racks[(at + i) % racks.len()];
                if out.len() < count && round < rack.len() {
                    // After each round over all racks each rack continues with its next broker.
                    out.push(rack[(at / racks.len() + round) % rack.len()]);
                }
            }
        }
    }
    out
}

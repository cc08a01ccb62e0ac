//! Topics and their partitions.

use std::sync::Arc;

use brokkr_types::Uuid;
use brokkr_wire::Str;
use brokkr_wire::messages::{PartitionChangeRecord, PartitionRecord};
use imbl::{OrdMap, OrdSet};

use super::replay_error::ReplayError;
use crate::topic_name;

/// The leader of a partition without one.
pub const NO_LEADER: i32 = -1;

/// The leader in a change that doesn't concern it.
pub const NO_LEADER_CHANGE: i32 = -2;

/// A partition.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PartitionImage {
    /// The brokers that hold it: replicas, the preferred leader first.
    pub replicas: Vec<i32>,
    /// The log directory of each replica, in their order.
    pub directories: Vec<Uuid>,
    /// The ISR.
    pub isr: Vec<i32>,
    /// The replicas that a reassignment removes.
    pub removing_replicas: Vec<i32>,
    /// The replicas that a reassignment adds.
    pub adding_replicas: Vec<i32>,
    /// The leader, or [`NO_LEADER`].
    pub leader: i32,
    /// 0, or 1 after an unclean election until the leader has recovered.
    pub leader_recovery_state: i8,
    /// Increases by one with each new leader.
    pub leader_epoch: i32,
    /// Increases by one with each change.
    pub partition_epoch: i32,
    /// The ELR: replicas outside of the ISR that have all committed records (KIP-966).
    pub elr: Vec<i32>,
    /// The last replicas that left the ELR, when ISR and ELR are empty.
    pub last_known_elr: Vec<i32>,
}

/// Kafka's directory id of a replica whose directory isn't known yet.
const DIRECTORY_MIGRATING: Uuid = Uuid::ZERO;

/// Kafka's directory id of a replica that its broker may place in any directory.
pub const DIRECTORY_UNASSIGNED: Uuid = Uuid::METADATA_TOPIC;

fn directories_of(directories: &[Uuid], replicas: usize) -> Result<Vec<Uuid>, ReplayError> {
    match directories.len() {
        n if n == replicas => Ok(directories.to_vec()),
        0 => Ok(vec![DIRECTORY_MIGRATING; replicas]),
        n => Err(ReplayError::Directories {
            directories: n,
            replicas,
        }),
    }
}

impl PartitionImage {
    pub(super) fn new(r: &PartitionRecord) -> Result<Self, ReplayError> {
        Ok(Self {
            replicas: r.replicas.clone(),
            directories: directories_of(&r.directories, r.replicas.len())?,
            isr: r.isr.clone(),
            removing_replicas: r.removing_replicas.clone(),
            adding_replicas: r.adding_replicas.clone(),
            leader: r.leader,
            leader_recovery_state: r.leader_recovery_state,
            leader_epoch: r.leader_epoch,
            partition_epoch: r.partition_epoch,
            elr: r.eligible_leader_replicas.clone().unwrap_or_default(),
            last_known_elr: r.last_known_elr.clone().unwrap_or_default(),
        })
    }

    /// The log directory of the partition on this broker, if known.
    pub fn directory(&self, broker: i32) -> Option<Uuid> {
        let at = self.replicas.iter().position(|id| *id == broker)?;
        let known = |id: &Uuid| ![DIRECTORY_MIGRATING, DIRECTORY_UNASSIGNED].contains(id);
        self.directories.get(at).copied().filter(known)
    }

    /// The directories of its replicas, with one broker's replaced.
    pub(crate) fn with_directory(&self, broker: i32, directory: Uuid) -> Vec<Uuid> {
        let replicas = self.replicas.iter().zip(&self.directories);
        let each = replicas.map(|(id, old)| if *id == broker { directory } else { *old });
        each.collect()
    }

    /// Applies `change`: the partition epoch increases by one; the leader epoch increases by one if the change names a
    /// leader, even the same one.
    pub fn changed(&self, change: &PartitionChangeRecord) -> Result<Self, ReplayError> {
        let keep = |new: &Option<Vec<i32>>, old: &Vec<i32>| new.as_ref().unwrap_or(old).clone();
        let replicas = keep(&change.replicas, &self.replicas);
        let directories = change.directories.as_ref().unwrap_or(&self.directories);
        let leads = change.leader != NO_LEADER_CHANGE;
        let recovery = change.leader_recovery_state;
        Ok(Self {
            directories: directories_of(directories, replicas.len())?,
            replicas,
            isr: keep(&change.isr, &self.isr),
            removing_replicas: keep(&change.removing_replicas, &self.removing_replicas),
            adding_replicas: keep(&change.adding_replicas, &self.adding_replicas),
            leader: if leads { change.leader } else { self.leader },
            leader_recovery_state: if recovery < 0 {
                self.leader_recovery_state
            } else {
                recovery
            },
            leader_epoch: self.leader_epoch.wrapping_add(i32::from(leads)),
            partition_epoch: self.partition_epoch.wrapping_add(1),
            elr: keep(&change.eligible_leader_replicas, &self.elr),
            last_known_elr: keep(&change.last_known_elr, &self.last_known_elr),
        })
    }

    pub(crate) fn to_record(&self, topic: Uuid, partition: i32) -> PartitionRecord {
        PartitionRecord {
            partition_id: partition,
            topic_id: topic,
            replicas: self.replicas.clone(),
            isr: self.isr.clone(),
            removing_replicas: self.removing_replicas.clone(),
            adding_replicas: self.adding_replicas.clone(),
            leader: self.leader,
            leader_recovery_state: self.leader_recovery_state,
            leader_epoch: self.leader_epoch,
            partition_epoch: self.partition_epoch,
            directories: self.directories.clone(),
            eligible_leader_replicas: (!self.elr.is_empty()).then(|| self.elr.clone()),
            last_known_elr: (!self.last_known_elr.is_empty()).then(|| self.last_known_elr.clone()),
            ..PartitionRecord::default()
        }
    }
}

/// A topic.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TopicImage {
    /// Its name.
    pub name: Str,
    /// Its id. A recreated topic of the same name has another.
    pub id: Uuid,
    /// Its partitions, by their index.
    pub partitions: Vec<Arc<PartitionImage>>,
}

impl TopicImage {
    /// A partition.
    pub fn partition(&self, index: i32) -> Option<&Arc<PartitionImage>> {
        self.partitions.get(usize::try_from(index).ok()?)
    }

    /// All partitions with their indexes.
    pub fn partitions(&self) -> impl Iterator<Item = (i32, &Arc<PartitionImage>)> {
        (0..).zip(&self.partitions)
    }

    /// Whether the topic is internal.
    pub fn is_internal(&self) -> bool {
        topic_name::is_internal(&self.name)
    }
}

/// All topics, by name and by id.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct TopicsImage {
    by_id: OrdMap<Uuid, Arc<TopicImage>>,
    by_name: OrdMap<Str, Uuid>,
    /// By their names with `.` replaced by `_`, for names that contain either.
    collisions: OrdMap<Str, OrdSet<Str>>,
}

impl TopicsImage {
    /// The topic of this name.
    pub fn by_name(&self, name: &str) -> Option<&Arc<TopicImage>> {
        self.by_id.get(self.by_name.get(name)?)
    }

    /// The topic of this id.
    pub fn by_id(&self, id: Uuid) -> Option<&Arc<TopicImage>> {
        self.by_id.get(&id)
    }

    /// All topics, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<TopicImage>> {
        self.by_name.values().filter_map(|id| self.by_id.get(id))
    }

    /// The topics from `name` on, sorted by name.
    pub fn from_name(&self, name: &Str) -> impl Iterator<Item = &Arc<TopicImage>> {
        self.by_name
            .range(name.clone()..)
            .filter_map(|(_, id)| self.by_id.get(id))
    }

    /// The number of topics.
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Whether there are no topics.
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// A topic whose name differs from `name` only in `.` and `_`, if there is one.
    pub fn colliding(&self, name: &str) -> Option<&Str> {
        let key = topic_name::collision_key(name)?;
        self.collisions.get(key.as_str())?.get_min()
    }

    pub(super) fn create(&mut self, name: &Str, id: Uuid) -> Result<(), ReplayError> {
        if self.by_name.contains_key(name.as_str()) || self.by_id.contains_key(&id) {
            return Err(ReplayError::DuplicateTopic(name.clone()));
        }
        let name = name.detached();
        if let Some(key) = topic_name::collision_key(&name) {
            self.collisions
                .entry(Str::from(key))
                .or_default()
                .insert(name.clone());
        }
        self.by_name.insert(name.clone(), id);
        let topic = TopicImage {
            name,
            id,
            partitions: Vec::new(),
        };
        self.by_id.insert(id, Arc::new(topic));
        Ok(())
    }

    /// Removes a topic; returns its name if it existed.
    pub(super) fn remove(&mut self, id: Uuid) -> Result<Str, ReplayError> {
        let topic = self.by_id.remove(&id).ok_or(ReplayError::UnknownTopic(id))?;
        self.by_name.remove(topic.name.as_str());
        if let Some(key) = topic_name::collision_key(&topic.name)
            && let Some(names) = self.collisions.get_mut(key.as_str())
        {
            names.remove(topic.name.as_str());
            if names.is_empty() {
                self.collisions.remove(key.as_str());
            }
        }
        Ok(topic.name.clone())
    }

    /// Mutable access to the topic; copies it first if another image shares it.
    pub(super) fn get_mut(&mut self, id: Uuid) -> Result<&mut TopicImage, ReplayError> {
        let topic = self.by_id.get_mut(&id).ok_or(ReplayError::UnknownTopic(id))?;
        Ok(Arc::make_mut(topic))
    }

    pub(super) fn id_of(&self, name: &Str) -> Result<Uuid, ReplayError> {
        self.by_name
            .get(name.as_str())
            .copied()
            .ok_or_else(|| ReplayError::UnknownTopicName(name.clone()))
    }

    pub(super) fn ids(&self) -> Vec<Uuid> {
        self.by_id.keys().copied().collect()
    }
}

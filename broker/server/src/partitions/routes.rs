//! The way to the partitions of this broker.

use std::sync::Arc;
use std::time::Duration;

use brokkr_env::Env;
use brokkr_metadata::Image;
use brokkr_types::{Instant, LeaderEpoch, Uuid};
use brokkr_wire::records::Rules;
use brokkr_wire::{ErrorCode, Str};
use imbl::OrdMap;

use crate::config::TopicConfig;
use crate::log_dir::partition_folder;
use crate::metrics::TopicTraffic;
use crate::partition::{PartitionError, PartitionHandle, ViewRef};

/// How long a request that says no time of its own waits for a log that is being opened.
pub const OPENING_WAIT: Duration = Duration::from_secs(10);

/// A partition here: its owner, and its log directory, where that is one that could be opened.
pub struct HostedPartition<E: Env> {
    /// The way to its owner.
    pub handle: PartitionHandle<E>,
    /// Its log directory.
    pub directory: Option<Uuid>,
}

impl<E: Env> Clone for HostedPartition<E> {
    fn clone(&self) -> Self {
        Self {
            handle: self.handle.clone(),
            directory: self.directory,
        }
    }
}

/// A topic as handlers need it.
pub struct Route<E: Env> {
    /// Its name.
    pub name: Str,
    /// Its id.
    pub id: Uuid,
    /// Its configuration, resolved.
    pub config: Arc<TopicConfig>,
    /// What went in and out.
    pub traffic: Arc<TopicTraffic>,
    /// Few as a rule, so copied where it grows.
    pub(super) partitions: Vec<HostedPartition<E>>,
}

impl<E: Env> Route<E> {
    /// What it asks of batches.
    pub fn rules(&self) -> &Rules {
        &self.config.rules
    }

    /// A partition.
    pub fn partition(&self, index: i32) -> Option<&PartitionHandle<E>> {
        let index = usize::try_from(index).ok()?;
        self.partitions.get(index).map(|partition| &partition.handle)
    }

    /// A partition, or the refusal where there is none of that number.
    pub fn partition_or_error(&self, index: i32) -> Result<&PartitionHandle<E>, PartitionError> {
        self.partition(index)
            .ok_or_else(|| PartitionError::new(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION))
    }

    /// A partition and what readers see of it, once its log is open.
    pub async fn open_partition(
        &self,
        env: &E,
        index: i32,
    ) -> Result<(&PartitionHandle<E>, ViewRef<E>), PartitionError> {
        self.open_partition_by(env, index, env.now() + OPENING_WAIT).await
    }

    /// [`Route::open_partition`] with a time until which it waits.
    pub async fn open_partition_by(
        &self,
        env: &E,
        index: i32,
        until: Instant,
    ) -> Result<(&PartitionHandle<E>, ViewRef<E>), PartitionError> {
        let handle = self.partition_or_error(index)?;
        let view = handle.wait_for_view(env, until).await?;
        Ok((handle, view))
    }

    /// The log directory of a partition, where it has one that works or did.
    pub fn directory(&self, index: i32) -> Option<Uuid> {
        let index = usize::try_from(index).ok()?;
        self.partitions.get(index)?.directory
    }

    /// All partitions.
    pub fn partitions(&self) -> impl Iterator<Item = (i32, &HostedPartition<E>)> {
        (0..).zip(&self.partitions)
    }
}

/// All topics. Immutable; a change publishes another, which shares with this one what did not change.
pub struct Routes<E: Env> {
    by_name: OrdMap<Str, Arc<Route<E>>>,
    pub(super) names: OrdMap<Uuid, Str>,
}

impl<E: Env> Clone for Routes<E> {
    fn clone(&self) -> Self {
        Self {
            by_name: self.by_name.clone(),
            names: self.names.clone(),
        }
    }
}

impl<E: Env> Routes<E> {
    pub(super) fn new() -> Self {
        Self {
            by_name: OrdMap::new(),
            names: OrdMap::new(),
        }
    }

    /// A topic by its name.
    pub fn by_name(&self, name: &Str) -> Option<Arc<Route<E>>> {
        self.by_name.get(name).cloned()
    }

    /// A topic by its id.
    pub fn by_id(&self, id: Uuid) -> Option<Arc<Route<E>>> {
        self.by_name(self.names.get(&id)?)
    }

    pub(super) fn insert(&mut self, route: Route<E>) {
        self.names.insert(route.id, route.name.clone());
        self.by_name.insert(route.name.clone(), Arc::new(route));
    }

    pub(super) fn remove(&mut self, id: Uuid) -> Option<Arc<Route<E>>> {
        let name = self.names.remove(&id)?;
        self.by_name.remove(&name)
    }

    /// All topics, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Route<E>>> {
        self.by_name.values()
    }

    /// All partitions that have a log directory, with that and the names of their folders.
    pub fn handles(&self) -> impl Iterator<Item = (Uuid, String, &PartitionHandle<E>)> {
        self.iter().flat_map(|route| {
            route.partitions().filter_map(|(index, partition)| {
                let directory = partition.directory?;
                Some((directory, partition_folder(&route.name, index), &partition.handle))
            })
        })
    }
}

/// What clients see of the cluster at one moment: metadata, and the partitions here that serve it. Never published apart.
pub struct ClusterView<E: Env> {
    /// The cluster's metadata, as far as the partitions here have followed it.
    pub image: Arc<Image>,
    /// The partitions here.
    pub routes: Arc<Routes<E>>,
}

impl<E: Env> ClusterView<E> {
    pub(super) fn new(image: Arc<Image>, routes: Routes<E>) -> Self {
        let routes = Arc::new(routes);
        Self { image, routes }
    }
}

/// KIP-320: whether the client knows the present leader.
pub fn check_epoch(current: i32, leader: LeaderEpoch) -> Result<(), PartitionError> {
    match current {
        -1 => Ok(()),
        c if c < leader.0 => Err(PartitionError::new(ErrorCode::FENCED_LEADER_EPOCH)),
        c if c > leader.0 => Err(PartitionError::new(ErrorCode::UNKNOWN_LEADER_EPOCH)),
        _ => Ok(()),
    }
}

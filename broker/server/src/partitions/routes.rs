//! Routes: how requests find the partitions of this broker.

use std::sync::Arc;

use brokkr_env::Env;
use brokkr_metadata::Image;
use brokkr_types::{Instant, LeaderEpoch, Uuid};
use brokkr_wire::records::Rules;
use brokkr_wire::{ErrorCode, Str};
use imbl::OrdMap;

use crate::config::{Limits, TopicConfig};
use crate::log_dir::partition_folder;
use crate::metrics::TopicTraffic;
use crate::partition::{PartitionError, PartitionHandle, ViewRef};

/// A partition of this broker.
pub struct HostedPartition<E: Env> {
    /// The handle to its owner.
    pub handle: PartitionHandle<E>,
    /// The id of its log directory; `None` if that could not be opened.
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

/// A topic with its partitions on this broker.
pub struct Route<E: Env> {
    /// Its name.
    pub name: Str,
    /// Its id.
    pub id: Uuid,
    /// Its configuration, resolved.
    pub config: Arc<TopicConfig>,
    /// The topic's traffic counters.
    pub traffic: Arc<TopicTraffic>,
    /// Usually few, so the list is copied when it grows.
    pub(super) partitions: Vec<HostedPartition<E>>,
}

impl<E: Env> Route<E> {
    /// The rules that batches must satisfy.
    pub fn rules(&self) -> &Rules {
        &self.config.rules
    }

    /// The handle of a partition.
    pub fn partition(&self, index: i32) -> Option<&PartitionHandle<E>> {
        let index = usize::try_from(index).ok()?;
        self.partitions.get(index).map(|partition| &partition.handle)
    }

    /// The handle of a partition, or UNKNOWN_TOPIC_OR_PARTITION.
    pub fn partition_or_error(&self, index: i32) -> Result<&PartitionHandle<E>, PartitionError> {
        self.partition(index)
            .ok_or_else(|| PartitionError::new(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION))
    }

    /// The handle and the view of a partition, once its log is open.
    pub async fn open_partition(
        &self,
        env: &E,
        limits: &Limits,
        index: i32,
    ) -> Result<(&PartitionHandle<E>, ViewRef<E>), PartitionError> {
        let until = env.now() + limits.partitions_opening_wait;
        self.open_partition_by(env, index, until).await
    }

    /// [`Route::open_partition`] that waits until `until` at most.
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

    /// The id of a partition's log directory; `None` if that could not be opened at the start.
    pub fn directory(&self, index: i32) -> Option<Uuid> {
        let index = usize::try_from(index).ok()?;
        self.partitions.get(index)?.directory
    }

    /// All partitions with their indexes.
    pub fn partitions(&self) -> impl Iterator<Item = (i32, &HostedPartition<E>)> {
        (0..).zip(&self.partitions)
    }
}

/// The routes of all topics. Immutable: a change publishes another one, which shares the unchanged topics.
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

    /// All partitions whose log directory was opened: the directory's id, the partition's folder and its handle.
    pub fn handles(&self) -> impl Iterator<Item = (Uuid, String, &PartitionHandle<E>)> {
        self.iter().flat_map(|route| {
            route.partitions().filter_map(|(index, partition)| {
                let directory = partition.directory?;
                Some((directory, partition_folder(&route.name, index), &partition.handle))
            })
        })
    }
}

/// An immutable view of the cluster: the metadata and the partitions that serve it, always published together.
pub struct ClusterView<E: Env> {
    /// The metadata that the partitions here have applied.
    pub image: Arc<Image>,
    /// The routes to the partitions of this broker.
    pub routes: Arc<Routes<E>>,
}

impl<E: Env> ClusterView<E> {
    pub(super) fn new(image: Arc<Image>, routes: Routes<E>) -> Self {
        let routes = Arc::new(routes);
        Self { image, routes }
    }
}

/// KIP-320: checks the client's leader epoch against the current one; -1 skips the check.
///
/// # Errors
/// FENCED_LEADER_EPOCH, UNKNOWN_LEADER_EPOCH.
pub fn check_epoch(current: i32, leader: LeaderEpoch) -> Result<(), PartitionError> {
    match current {
        -1 => Ok(()),
        c if c < leader.0 => Err(PartitionError::new(ErrorCode::FENCED_LEADER_EPOCH)),
        c if c > leader.0 => Err(PartitionError::new(ErrorCode::UNKNOWN_LEADER_EPOCH)),
        _ => Ok(()),
    }
}

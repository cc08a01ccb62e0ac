//! The broker's context: the state that handlers and background tasks share.

use std::net::SocketAddr;
use std::sync::Arc;

use brokkr_env::{Env, ErrorLog, Reader};
use brokkr_metadata::Image;

use crate::config::BrokerConfig;
use crate::controller::ControllerHandle;
use crate::controller::ProducerIds;
use crate::handlers::fetch_session::SessionSlots;
use crate::log_dir::{Identity, LogDirInfo};
use crate::metrics::Metrics;
use crate::net::connections::Connections;
use crate::net::memory::Memory;
use crate::net::work_slots::WorkSlots;
use crate::partition::change_counter::ChangeCounter;
use crate::partitions::{ClusterView, Routes};

/// The client of a connection.
#[derive(Clone, Debug)]
pub struct Peer {
    /// The client's address.
    pub addr: SocketAddr,
    /// The name of the listener that accepted the connection (`PLAINTEXT`).
    pub listener: Arc<str>,
}

/// What handlers and background tasks need of the broker. Each task has its own, which caches the latest snapshots.
pub struct Ctx<E: Env> {
    /// The environment.
    pub env: E,
    /// The broker's configuration.
    pub config: Arc<BrokerConfig>,
    /// The broker's identity.
    pub identity: Arc<Identity>,
    /// The log directories of partitions, in the order of `log.dirs`.
    pub log_dirs: Arc<[LogDirInfo<E>]>,
    /// The metadata and the routes to the partitions that serve it.
    pub cluster: Reader<ClusterView<E>>,
    /// Counts the states that partitions publish.
    pub changes: ChangeCounter,
    /// The controller.
    pub controller: ControllerHandle,
    /// The allocator of producer ids.
    pub producer_ids: ProducerIds,
    /// The memory budget.
    pub memory: Memory<E>,
    /// Slots for batches that take long to validate.
    pub work_slots: WorkSlots<E>,
    /// The open connections.
    pub connections: Arc<Connections>,
    /// The slots for fetch sessions.
    pub sessions: SessionSlots,
    /// The rate-limited log of errors.
    pub error_log: Arc<ErrorLog>,
    /// The counters.
    pub metrics: Arc<Metrics>,
}

impl<E: Env> Ctx<E> {
    /// Releases the cached snapshots, which pin files. For tasks that may not use them for long.
    pub fn release(&mut self) {
        self.cluster.release();
    }

    /// The cluster metadata. Code that needs the routes as well must take both from one `ClusterView`.
    pub fn image(&mut self) -> &Arc<Image> {
        &self.cluster.get().image
    }

    /// The routes to the partitions of this broker.
    pub fn routes(&mut self) -> &Arc<Routes<E>> {
        &self.cluster.get().routes
    }
}

impl<E: Env> Clone for Ctx<E> {
    fn clone(&self) -> Self {
        Self {
            env: self.env.clone(),
            config: Arc::clone(&self.config),
            identity: Arc::clone(&self.identity),
            log_dirs: Arc::clone(&self.log_dirs),
            cluster: self.cluster.clone(),
            changes: self.changes.clone(),
            controller: self.controller.clone(),
            producer_ids: self.producer_ids.clone(),
            memory: self.memory.clone(),
            work_slots: self.work_slots.clone(),
            connections: Arc::clone(&self.connections),
            sessions: self.sessions.clone(),
            error_log: Arc::clone(&self.error_log),
            metrics: Arc::clone(&self.metrics),
        }
    }
}

//! What every handler can reach.

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

/// Who asks.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Where the connection comes from.
    pub addr: SocketAddr,
    /// The name of the listener it came in by (`PLAINTEXT`).
    pub listener: Arc<str>,
}

/// A broker, as its connections see it. Each has its own, so that each remembers the snapshots it saw last.
pub struct Ctx<E: Env> {
    /// The world.
    pub env: E,
    /// The configuration it was started with.
    pub config: Arc<BrokerConfig>,
    /// Who it is.
    pub identity: Arc<Identity>,
    /// The log directories of partitions, in the order of `log.dirs`.
    pub log_dirs: Arc<[LogDirInfo<E>]>,
    /// The cluster's metadata and the partitions here that follow it.
    pub cluster: Reader<ClusterView<E>>,
    /// Counts what the partitions publish.
    pub changes: ChangeCounter,
    /// Who changes metadata.
    pub controller: ControllerHandle,
    /// Who hands out producer ids.
    pub producer_ids: ProducerIds,
    /// The budget for requests.
    pub memory: Memory<E>,
    /// Turns for batches that take long to check.
    pub work_slots: WorkSlots<E>,
    /// Who is connected.
    pub connections: Arc<Connections>,
    /// Fetch sessions that may still be opened.
    pub sessions: SessionSlots,
    /// What strangers do wrong.
    pub error_log: Arc<ErrorLog>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
}

impl<E: Env> Ctx<E> {
    /// Lets go of the snapshots seen last, which pin files: for whoever may not ask for long.
    pub fn release(&mut self) {
        self.cluster.release();
    }

    /// The cluster's metadata. Whoever needs the routes as well takes both from one `ClusterView`.
    pub fn image(&mut self) -> &Arc<Image> {
        &self.cluster.get().image
    }

    /// The partitions here.
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

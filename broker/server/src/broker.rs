//! A broker: starts, runs and stops.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use brokkr_env::{Dir, Env, Error, ErrorLog, Listener, Task};
use brokkr_metadata::Request;
use brokkr_types::{NodeId, Uuid};
use tokio::sync::{mpsc, oneshot};

use crate::config::BrokerConfig;
use crate::controller::ProducerIds;
use crate::controller::{self, ControllerError};
use crate::ctx::Ctx;
use crate::handlers::fetch_session::SessionSlots;
use crate::handlers::served::SERVED;
use crate::log_dir::{self, LogDirError, LogDirs};
use crate::metrics::Metrics;
use crate::net::memory::Memory;
use crate::net::work_slots::WorkSlots;
use crate::partition::change_counter::ChangeCounter;
use crate::partitions::{self, ManagerCommand, PartitionManager};
use crate::stop::StopSignal;

/// One turn for checking large batches for so many of `num.io.threads`: each takes a processor and up to 32 MiB.
const IO_THREADS_PER_CHECK: usize = 4;

/// Why a broker did not start. Nothing was changed, except if the log directory itself failed.
#[derive(Debug)]
pub enum StartError {
    /// It can't listen at an address.
    Listen(Error),
    /// An address to listen at can't be resolved.
    Resolve(Error),
    /// Its log directories can't be used.
    LogDir(LogDirError),
    /// Its metadata can't be read or written.
    Controller(ControllerError),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listen(e) => write!(f, "can't {e}"),
            Self::Resolve(e) => write!(f, "can't listen on {e}"),
            Self::LogDir(e) => e.fmt(f),
            Self::Controller(e) => e.fmt(f),
        }
    }
}

impl std::error::Error for StartError {}

/// A running broker.
pub struct Broker<E: Env> {
    ctx: Ctx<E>,
    stop: StopSignal,
    addrs: Vec<SocketAddr>,
    partitions: mpsc::Sender<ManagerCommand>,
    drivers: Vec<Task>,
    log_dirs: LogDirs<E>,
}

impl<E: Env> Broker<E> {
    /// Starts a broker. Binds the ports before it touches the log directories; serves connections once this returns.
    pub async fn start(env: E, config: BrokerConfig) -> Result<Self, StartError> {
        let config = Arc::new(config);
        let mut listeners = Vec::new();
        for listener in &config.listeners {
            let addr = env
                .resolve(&listener.host, listener.port)
                .await
                .map_err(StartError::Resolve)?;
            let socket = env.listen(addr).await.map_err(StartError::Listen)?;
            listeners.push((Arc::<str>::from(listener.name.as_str()), socket));
        }
        let addrs: Vec<SocketAddr> = listeners.iter().map(|(_, l)| l.local_addr()).collect();
        let log_dirs = log_dir::open(&env, &config).await.map_err(StartError::LogDir)?;
        let identity = Arc::new(log_dirs.metadata.identity.clone());

        let error_log = Arc::new(ErrorLog::new(env.clone()));
        let changes = ChangeCounter::default();
        let metrics = Arc::new(Metrics::new(SERVED));
        let (partitions, cluster) = partitions::start(PartitionManager {
            env: env.clone(),
            error_log: Arc::clone(&error_log),
            changes: changes.clone(),
            node: NodeId(identity.node_id),
            log_dirs: log_dirs.clone(),
            config: Arc::clone(&config),
            folders: partitions::FolderState::default(),
            traffic: Arc::clone(&metrics.traffic),
        });
        let controller = controller::start(&env, &error_log, &config, &log_dirs, &addrs, partitions.clone())
            .await
            .map_err(StartError::Controller)?;
        let memory = config.memory_bytes();
        let work_slots = (config.num_io_threads.max(0) as usize / IO_THREADS_PER_CHECK).max(1);
        let slots = config.max_incremental_fetch_session_cache_slots.max(0) as usize;
        let ctx = Ctx {
            env: env.clone(),
            identity,
            log_dirs: log_dirs.describe(&config).into(),
            cluster,
            changes,
            producer_ids: ProducerIds::start(
                &env,
                controller.clone(),
                config.limits.controller_producer_id_queue,
            ),
            controller,
            memory: Memory::new(env.clone(), memory, &config.limits),
            work_slots: WorkSlots::new(env.clone(), work_slots, &config.limits),
            connections: Arc::default(),
            sessions: SessionSlots::new(slots, env.rng("fetch-session").next_u64() as u32),
            error_log,
            metrics,
            config,
        };
        let stop = StopSignal::default();
        let mut drivers = vec![
            env.spawn(
                "checkpoints",
                log_dir::checkpoints(ctx.clone(), log_dirs.clone(), stop.clone()),
            ),
            env.spawn(
                "retention",
                retention(ctx.clone(), partitions.clone(), stop.clone()),
            ),
        ];
        if log_dirs.has_several() {
            for dir in &log_dirs.online {
                let (id, dir) = (dir.id(), dir.logs.dir().clone());
                let failure = directory_failure(ctx.clone(), id, dir, partitions.clone(), stop.clone());
                drivers.push(env.spawn("log-dir", failure));
            }
        }
        for (name, socket) in listeners {
            let accept = crate::net::listener::accept(ctx.clone(), name, socket, stop.clone());
            drivers.push(env.spawn("accept", accept));
        }
        Ok(Self {
            ctx,
            stop,
            addrs,
            partitions,
            drivers,
            log_dirs,
        })
    }

    /// The addresses that it listens at, in the order of `listeners`.
    pub fn local_addrs(&self) -> &[SocketAddr] {
        &self.addrs
    }

    /// Its log directories.
    pub(crate) fn log_dirs(&self) -> &LogDirs<E> {
        &self.log_dirs
    }

    /// The context of its handlers.
    pub fn ctx(&self) -> &Ctx<E> {
        &self.ctx
    }

    /// Waits until the log of each existing partition is open, or could not be opened. Cancel-safe.
    pub async fn opened(&self) {
        let mut ctx = self.ctx.clone();
        let routes = Arc::clone(ctx.routes());
        ctx.release();
        for (.., handle) in routes.handles() {
            handle.opening_finished().await;
        }
    }

    /// Stops cleanly: accepts no connections, abandons pending requests, flushes and closes the logs. `true` if the next
    /// start needs no recovery.
    pub async fn stop(self) -> bool {
        let Self {
            ctx,
            stop,
            partitions,
            drivers,
            log_dirs,
            ..
        } = self;
        stop.trigger();
        for driver in drivers {
            driver.await;
        }
        let (done, closed) = oneshot::channel();
        let sent = partitions.send(ManagerCommand::Close(done)).await.is_ok();
        let logs = if sent { closed.await.ok() } else { None };
        let metadata = ctx.controller.close().await;
        match (logs, metadata) {
            (Some(logs), Some((folder, recorded, broker_epoch))) => {
                log_dirs
                    .record_clean_stop(logs, (folder, recorded), broker_epoch)
                    .await
            }
            _ => false,
        }
    }
}

/// Waits until a log directory fails; then its partitions go offline, and it gets no new ones. Not run if there is only
/// one directory: reads continue there, no other could serve, and no metadata can be written.
async fn directory_failure<E: Env>(
    ctx: Ctx<E>,
    id: Uuid,
    dir: Dir<E>,
    partitions: mpsc::Sender<ManagerCommand>,
    stop: StopSignal,
) {
    let why = tokio::select! {
        biased;
        () = stop.wait() => return,
        why = dir.until_poisoned() => why,
    };
    tracing::error!(%id, %why, "a log directory failed: its partitions are offline until the next start");
    drop(partitions.send(ManagerCommand::LogDirFailed(id)).await);
    if let Err(code) = ctx.controller.submit(Request::DirectoriesOffline(vec![id])).await {
        tracing::error!(%id, %code, "the failure of a log directory could not be noted in the metadata");
    }
}

async fn retention<E: Env>(ctx: Ctx<E>, partitions: mpsc::Sender<ManagerCommand>, stop: StopSignal) {
    let every = Duration::from_millis(ctx.config.log_retention_check_interval_ms.max(1) as u64);
    loop {
        tokio::select! {
            biased;
            () = stop.wait() => return,
            () = ctx.env.sleep_until(ctx.env.now() + every) => drop(partitions.send(ManagerCommand::Retention).await),
        }
    }
}

//! The task that hosts the controller: it owns the metadata log, with this node as the only voter.
//!
//! A request is decided against the state that includes all appended records. Its records are replayed and appended as one
//! batch. Once the batch is durable it is committed, for there is one voter; then the partitions here apply the new image,
//! and only then the reply is sent (M2). A failed append restores the state.
//!
//! ```text
//!   request ─ decide ─ replay ─ append ─ durable ─ partitions apply, image and routes published ─ reply
//! ```
//!
//! A start (`load`) replays the latest snapshot and the log behind it, begins a new quorum epoch (`quorum-state` is
//! durable BEFORE anything is appended in the epoch), and registers this broker: a new incarnation raises the leader
//! epochs of the partitions that it leads.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use brokkr_env::{Env, ErrorKind, ErrorLog, Published};
use brokkr_log::{Event, Log, LogCheckpoint, LogDir, LogError};
use brokkr_metadata::config::is_applied;
use brokkr_metadata::records::{Control, encode_control, encode_records};
use brokkr_metadata::snapshot::QuorumState;
use brokkr_metadata::{ConfigResource, Controller, ImageDelta, Registration, Reply, Request, Settings};
use brokkr_types::{Instant, LeaderEpoch, Offset, Uuid};
use brokkr_wire::ErrorCode;
use brokkr_wire::messages::leader_change_message::{LeaderChangeMessage, Voter};
use brokkr_wire::messages::{KRaftVersionRecord, MetadataRecord};
use brokkr_wire::records::{Batch, Origin};
use tokio::sync::{mpsc, oneshot};

use crate::config::{BrokerConfig, Limits};
use crate::log_dir::{Identity, LogDirs, METADATA_FOLDER, OwnedLogDir, is_unmanaged_topic, partition_folder};
use crate::partitions::ManagerCommand;

use super::error::{ControllerError, content_error};
use super::handle::{ControllerHandle, ControllerMessage};
use super::load::{self, LoadedMetadata};

/// The disk space that an append may use.
#[derive(Clone, Copy, PartialEq, Eq)]
enum DiskSpace {
    /// The free space of the disk.
    Free,
    /// The directory's reserve too: without this record no client could free space on a full disk.
    Reserved,
}

pub(super) struct Host<E: Env> {
    pub(super) env: E,
    pub(super) limits: Arc<Limits>,
    pub(super) error_log: Arc<ErrorLog>,
    pub(super) log: Log<E>,
    pub(super) logs: LogDir<E>,
    pub(super) controller: Controller,
    pub(super) quorum: QuorumState,
    pub(super) epoch: LeaderEpoch,
    pub(super) broker_epoch: i64,
    pub(super) recorded: Published<LogCheckpoint>,
    pub(super) partitions: mpsc::Sender<ManagerCommand>,
    /// Whether the first image was sent to the partitions.
    pub(super) has_published: bool,
    /// Whether the partitions applied every image. Once they are closing, the folders of a deleted topic may stay until the next
    /// start, which must find the deletion in the log.
    pub(super) is_followed: bool,
    /// Whether the logs of all deleted topics are gone. Until then no snapshot leaves out that the topics were deleted.
    pub(super) are_deleted: bool,
    pub(super) bytes_since_snapshot: u64,
    pub(super) snapshot_every_bytes: u64,
    /// Snapshots that failed since the last success, and when the next may be tried.
    pub(super) snapshot_failures: u32,
    pub(super) snapshot_not_before: Instant,
}

/// Starts the host: replays the metadata, registers this broker, and lets the partitions apply the image. Everything is
/// committed when it returns.
pub async fn start<E: Env>(
    env: &E,
    error_log: &Arc<ErrorLog>,
    config: &BrokerConfig,
    log_dirs: &LogDirs<E>,
    addrs: &[SocketAddr],
    partitions: mpsc::Sender<ManagerCommand>,
) -> Result<ControllerHandle, ControllerError> {
    let log_dir = &log_dirs.metadata;
    let identity = &log_dir.identity;
    let LoadedMetadata {
        mut log,
        controller,
        quorum,
        last_epoch,
        bytes,
        deleted,
        bootstrap,
    } = load::load(env, log_dir, config, addrs).await?;
    let controller = controller.with_settings(settings(config));
    let epoch = LeaderEpoch(last_epoch.max(load::read_quorum_epoch(&log_dir.logs).await?) + 1);
    while let Err(error) = load::write_quorum_state(&log_dir.logs, identity.node_id, epoch).await {
        if !log_dir.logs.free_reserve_after(&error).await {
            return Err(error.into());
        }
    }
    log_dir.logs.assign_epoch(&mut log, epoch).await?;
    let mut host = Host {
        env: env.clone(),
        limits: Arc::clone(&config.limits),
        error_log: Arc::clone(error_log),
        recorded: Published::new(log.checkpoint()),
        log,
        logs: log_dir.logs.clone(),
        controller,
        quorum,
        epoch,
        broker_epoch: -1,
        partitions,
        has_published: false,
        is_followed: true,
        are_deleted: true,
        bytes_since_snapshot: bytes,
        snapshot_every_bytes: config.metadata_log_max_record_bytes_between_snapshots.max(1) as u64,
        snapshot_failures: 0,
        snapshot_not_before: env.now(),
    };
    // Folders that a crash left of deleted topics may be deleted. The send fails only if the broker is stopping.
    let _ = host.partitions.send(ManagerCommand::TopicsDeleted(deleted)).await;
    host.begin_epoch(identity, &bootstrap).await?;
    host.register(config, identity, log_dirs, addrs).await?;
    host.warn_about_ineffective_configs(identity.node_id);
    let (tx, rx) = mpsc::channel(config.limits.controller_queue);
    let handle = ControllerHandle {
        queue: tx,
        recorded: host.recorded.reader(),
    };
    env.spawn("controller", host.run(rx));
    Ok(handle)
}

/// Defaults for new topics.
fn settings(config: &BrokerConfig) -> Settings {
    Settings {
        node_id: config.node_id,
        num_partitions: config.num_partitions,
        default_replication_factor: i16::try_from(config.default_replication_factor).unwrap_or(i16::MAX),
        file: config.set.clone(),
    }
}

/// Version 0, without directory ids: Kafka 4.3.0 reads no other version, whatever its schema says.
fn leader_change(node_id: i32) -> LeaderChangeMessage {
    let voter = || Voter {
        voter_id: node_id,
        ..Default::default()
    };
    LeaderChangeMessage {
        version: 0,
        leader_id: node_id,
        voters: vec![voter()],
        granting_voters: vec![voter()],
        ..Default::default()
    }
}

impl<E: Env> Host<E> {
    /// Begins the epoch. Appends a LeaderChange record, in an empty log the voters too, and the records that a new leader
    /// appends before it processes requests. `bootstrap` are the records for an empty log that the tool that formatted the
    /// directory left.
    async fn begin_epoch(
        &mut self,
        identity: &Identity,
        bootstrap: &[MetadataRecord],
    ) -> Result<(), ControllerError> {
        let (end, now) = (self.log.log_end(), self.env.wall());
        let mut controls = vec![Control::LeaderChange(leader_change(identity.node_id))];
        if end == Offset(0) {
            // The bootstrap snapshot has these too; Kafka's first leader repeats them in the log.
            controls.push(Control::KRaftVersion(KRaftVersionRecord {
                kraft_version: self.quorum.kraft_version,
                ..Default::default()
            }));
            controls.extend(self.quorum.voters.clone().map(Control::Voters));
        }
        let batch =
            encode_control(&controls, end, self.epoch, now).map_err(|e| content_error(METADATA_FOLDER, e))?;
        self.append(&batch, DiskSpace::Reserved)
            .await
            .map_err(|e| content_error(METADATA_FOLDER, e))?;
        self.controller
            .advance(end.0 + controls.len() as i64 - 1, self.epoch.0);
        let first_records = match self.controller.image().metadata_version() {
            None if !bootstrap.is_empty() => bootstrap.to_vec(),
            _ => self.controller.activation_records(),
        };
        if !first_records.is_empty() {
            self.commit(&first_records, DiskSpace::Reserved)
                .await
                .map_err(|e| content_error(METADATA_FOLDER, e))?;
        }
        Ok(())
    }

    async fn register(
        &mut self,
        config: &BrokerConfig,
        identity: &Identity,
        log_dirs: &LogDirs<E>,
        addrs: &[SocketAddr],
    ) -> Result<(), ControllerError> {
        let listeners = config.listeners.iter().zip(addrs);
        let bound = |name: &str| {
            listeners
                .clone()
                .find(|(l, _)| l.name == name)
                .map_or(0, |(_, a)| a.port())
        };
        let endpoints = config.advertised_listeners.iter().map(|l| {
            // Port 0 was bound to a free port; clients can't connect to a wildcard address.
            let port = if l.port == 0 { bound(&l.name) } else { l.port };
            let host = if l.is_wildcard() {
                "localhost"
            } else {
                l.host.as_str()
            };
            (l.name.clone(), host.to_owned(), port)
        });
        let registration = Registration {
            broker_id: identity.node_id,
            incarnation_id: Uuid::from_random(self.env.rng("incarnation").bytes()),
            endpoints: endpoints.collect(),
            rack: config.broker_rack.clone(),
            directories: log_dirs.online.iter().map(OwnedLogDir::id).collect(),
            moved: self.moved_partitions(log_dirs, identity.node_id).await,
            previous_broker_epoch: log_dirs.last_broker_epoch().unwrap_or(-1),
        };
        match self.process(Request::RegisterBroker(registration)).await {
            Ok(Reply::Registered(Ok(epoch))) => self.broker_epoch = epoch,
            Ok(other) => return Err(content_error("registration", format_args!("{other:?}"))),
            Err(code) => return Err(content_error("registration", code)),
        }
        Ok(())
    }

    /// Logs configurations in the metadata that have no effect in this broker. They stay until a client deletes them.
    fn warn_about_ineffective_configs(&self, node_id: i32) {
        let image = self.controller.image();
        let me = ConfigResource::broker(node_id);
        let set = [&me, &ConfigResource::cluster()].map(|resource| image.configs(resource));
        for name in set.into_iter().flatten().flat_map(|configs| configs.keys()) {
            if !is_applied(name) {
                tracing::warn!(
                    "{name} is configured in the cluster metadata, and has no effect: it is not applied while the broker runs yet"
                );
            }
        }
    }

    /// The partitions of this broker whose logs are in another directory than their record says, or that have no directory
    /// in their record. Each with the directory that it is in, or gets.
    async fn moved_partitions(&self, log_dirs: &LogDirs<E>, node_id: i32) -> Vec<(Uuid, i32, Uuid)> {
        let online = &log_dirs.online;
        let mut moved = Vec::new();
        let mut counts: BTreeMap<Uuid, usize> = BTreeMap::new();
        for topic in self.controller.image().topics.iter() {
            for (index, partition) in topic.partitions() {
                if !partition.replicas.contains(&node_id) || is_unmanaged_topic(&topic.name) {
                    continue;
                }
                let folder = partition_folder(&topic.name, index);
                let has = |dir: &&OwnedLogDir<E>| dir.folders.contains(&folder);
                let assigned = partition.directory(node_id);
                let mut found = assigned.filter(|id| online.iter().filter(has).any(|dir| dir.id() == *id));
                for dir in online.iter().filter(has) {
                    if found.is_some() {
                        break;
                    }
                    let id = dir.logs.topic_id(&folder).await.unwrap_or_default();
                    let is_its = id == topic.id || (id.is_zero() && assigned.is_none());
                    found = is_its.then(|| dir.id());
                }
                if found.is_none() && assigned.is_none() && log_dirs.failed.is_empty() {
                    let has = |dir: &&OwnedLogDir<E>| counts.get(&dir.id()).copied().unwrap_or_default();
                    found = online.iter().min_by_key(has).map(OwnedLogDir::id);
                }
                if let Some(to) = found {
                    *counts.entry(to).or_insert(0) += 1;
                    if assigned != found {
                        tracing::warn!(log = folder, directory = %to, "noted to be in this log directory");
                        moved.push((topic.id, index, to));
                    }
                }
            }
        }
        moved
    }

    async fn run(mut self, mut queue: mpsc::Receiver<ControllerMessage>) {
        loop {
            let message = tokio::select! {
                biased;
                message = queue.recv() => message,
                // The log's background work continues; errors of appends go to the task that waits for them.
                _ = self.log.next_event() => continue,
            };
            let Some(message) = message else { return };
            match message {
                ControllerMessage::Request(request, reply) => {
                    let answer = self.process(request).await;
                    drop(reply.send(answer));
                    self.snapshot_if_due().await;
                }
                ControllerMessage::Close(reply) => {
                    let closed = self.log.close().await.ok();
                    let end =
                        closed.map(|recorded| (METADATA_FOLDER.to_owned(), recorded, self.broker_epoch));
                    return drop(reply.send(end));
                }
            }
        }
    }

    async fn process(&mut self, request: Request) -> Result<Reply, ErrorCode> {
        let space = match &request {
            Request::CreateTopics(_) | Request::CreatePartitions(_) | Request::AllocateProducerIds => {
                DiskSpace::Free
            }
            _ => DiskSpace::Reserved,
        };
        let (records, reply) = self
            .controller
            .decide(self.env.now(), self.log.log_end().0, request);
        if !records.is_empty() {
            self.commit(&records, space).await.map_err(|error| {
                self.error_log.record("metadata not changed", &error);
                ErrorCode::KAFKA_STORAGE_ERROR
            })?;
            self.publish_image(ImageDelta::of(&records)).await;
        }
        Ok(reply)
    }

    /// Lets the partitions here apply the committed change. BEFORE the reply: a client that learns of a topic can use it.
    async fn publish_image(&mut self, changed: ImageDelta) {
        // The first image is new to the partitions as a whole.
        let delta = match std::mem::replace(&mut self.has_published, true) {
            true => changed,
            false => ImageDelta::Everything,
        };
        let image = Arc::new(self.controller.image().clone());
        let (done, followed) = oneshot::channel();
        let command = ManagerCommand::ApplyImage(image, delta, done);
        let followed = match self.partitions.send(command).await {
            Ok(()) => followed.await.ok(),
            Err(_) => None,
        };
        self.is_followed &= followed.is_some();
        self.are_deleted = followed.unwrap_or(false);
    }

    /// Appends records as one batch and waits until they are durable, and so committed. On an error the state is
    /// unchanged.
    async fn commit(&mut self, records: &[MetadataRecord], space: DiskSpace) -> Result<(), LogError> {
        let before = self.controller.clone();
        let base = self.log.log_end();
        for (offset, record) in (base.0..).zip(records) {
            self.controller
                .replay(offset, self.epoch.0, record)
                .unwrap_or_else(|e| panic!("the records of a decision can be replayed: {e}: {record:?}"));
        }
        let version = self.controller.image().metadata_version().unwrap_or(0);
        let batch = encode_records(records, version, base, self.epoch, self.env.wall())
            .unwrap_or_else(|e| panic!("the records of a decision can be encoded: {e}"));
        let appended = self.append(&batch, space).await;
        if appended.is_err() {
            self.controller = before;
        }
        appended
    }

    async fn append(&mut self, batch: &Batch, space: DiskSpace) -> Result<(), LogError> {
        while let Err(error) = self.try_append(batch).await {
            if space == DiskSpace::Free || !self.logs.free_reserve_after(&error).await {
                return Err(error);
            }
        }
        Ok(())
    }

    async fn try_append(&mut self, batch: &Batch) -> Result<(), LogError> {
        let (now, wall) = (self.env.now(), self.env.wall());
        let storage = |e: &dyn fmt::Display| {
            LogError::Io(brokkr_env::Error::new(
                ErrorKind::Io,
                format!("{METADATA_FOLDER}: {e}"),
            ))
        };
        let at = self
            .log
            .append(batch, Origin::Coordinator, self.epoch, now, wall)
            .map_err(|e| storage(&e))?;
        let end = at.last_offset.plus(1);
        loop {
            match self.log.next_event().await {
                Event::Ackable(ackable) if ackable.offset() >= end => break,
                Event::Ackable(_) => {}
                Event::Failed { error, .. } => return Err(LogError::Io(error)),
            }
        }
        self.log.set_high_watermark(end);
        self.bytes_since_snapshot += batch.bytes.len() as u64;
        self.recorded.publish(self.log.checkpoint());
        Ok(())
    }
}

//! The metadata log's host: the quorum of one voter, for now.
//!
//! One task owns `__cluster_metadata-0`. A request is decided against the state as appended; its records are replayed and
//! appended as one batch; when that is durable it is committed (one voter), the partitions here follow the new image, and
//! only then the answer leaves (M2). A failed append takes the state back.
//!
//! ```text
//!   request ─ decide ─ replay ─ append ─ durable ─ partitions follow, image and routes published ─ reply
//! ```
//!
//! A start (`load`) replays the latest snapshot and the log behind it, begins a new quorum epoch (`quorum-state` is durable BEFORE
//! anything is written in it), and registers this broker: its new incarnation bumps the leader epochs of what it leads.

mod load;
mod snapshots;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;

use brokkr_env::{Env, ErrorKind, ErrorLog, Published, Reader};
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

use crate::config::BrokerConfig;
use crate::ctx::Identity;
use crate::log_dir::{LogDirs, Owned};
use crate::partitions::{self, Ask};

use load::Replayed;
pub use load::{may_start, voters_in};

/// The folder of the metadata log.
pub const FOLDER: &str = "__cluster_metadata-0";
const QUEUE_MAX: usize = 256;

/// Metadata can't be read or written.
#[derive(Debug)]
pub enum ControllerError {
    /// Its log.
    Log(LogError),
    /// The directory.
    Io(brokkr_env::Error),
    /// Something in it can't be understood: where, and what.
    Content(String, String),
}

impl fmt::Display for ControllerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Log(e) => write!(f, "cluster metadata: {e}"),
            Self::Io(e) => write!(f, "cluster metadata: {e}"),
            Self::Content(place, what) => write!(f, "cluster metadata: {place}: {what}"),
        }
    }
}

impl From<LogError> for ControllerError {
    fn from(e: LogError) -> Self {
        Self::Log(e)
    }
}

impl From<brokkr_env::Error> for ControllerError {
    fn from(e: brokkr_env::Error) -> Self {
        Self::Io(e)
    }
}

fn content(place: impl fmt::Display, what: impl fmt::Display) -> ControllerError {
    ControllerError::Content(place.to_string(), what.to_string())
}

enum Message {
    Ask(Request, oneshot::Sender<Result<Reply, ErrorCode>>),
    Close(oneshot::Sender<Option<(String, LogCheckpoint, i64)>>),
}

/// The handle. Cloning shares the host.
#[derive(Clone)]
pub struct ControllerHandle {
    queue: mpsc::Sender<Message>,
    recorded: Reader<LogCheckpoint>,
}

impl ControllerHandle {
    /// Asks for a change, and waits until it is committed and the partitions here have followed.
    pub async fn ask(&self, request: Request) -> Result<Reply, ErrorCode> {
        let (tx, rx) = oneshot::channel();
        let gone = ErrorCode::NOT_CONTROLLER;
        self.queue
            .send(Message::Ask(request, tx))
            .await
            .map_err(|_| gone)?;
        rx.await.map_err(|_| gone)?
    }

    /// Requests that wait for the host.
    pub fn queued(&self) -> usize {
        self.queue.max_capacity() - self.queue.capacity()
    }

    /// A block of producer ids that nobody had before.
    pub async fn allocate_producer_ids(&self) -> Result<Range<i64>, ErrorCode> {
        match self.ask(Request::AllocateProducerIds).await? {
            Reply::ProducerIds(block) => block,
            other => unreachable!("ids were asked for: {other:?}"),
        }
    }

    /// What is to be recorded of the metadata log.
    pub fn recorded(&self) -> (String, LogCheckpoint) {
        (
            FOLDER.to_owned(),
            LogCheckpoint::clone(self.recorded.clone().get()),
        )
    }

    /// Closes the log: what is to be recorded of it, and this life's broker epoch. `None` if it failed.
    pub async fn close(&self) -> Option<(String, LogCheckpoint, i64)> {
        let (tx, rx) = oneshot::channel();
        self.queue.send(Message::Close(tx)).await.ok()?;
        rx.await.ok()?
    }
}

/// What a record may be written with.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Room {
    /// What is free on the disk.
    Free,
    /// The directory's reserve too: without this record nobody could make room on a full disk.
    Reserved,
}

struct Host<E: Env> {
    env: E,
    error_log: Arc<ErrorLog>,
    log: Log<E>,
    logs: LogDir<E>,
    controller: Controller,
    quorum: QuorumState,
    epoch: LeaderEpoch,
    broker_epoch: i64,
    recorded: Published<LogCheckpoint>,
    partitions: mpsc::Sender<Ask>,
    /// Whether they have followed a first image.
    is_followed: bool,
    bytes_since_snapshot: u64,
    snapshot_every_bytes: u64,
    /// Snapshots that failed since the last one that didn't, and when the next may be tried.
    snapshot_failures: u32,
    snapshot_not_before: Instant,
}

/// Starts the host: replays, registers this broker, and lets the partitions follow. Everything is committed when it returns.
pub async fn start<E: Env>(
    env: &E,
    error_log: &Arc<ErrorLog>,
    config: &BrokerConfig,
    log_dirs: &LogDirs<E>,
    addrs: &[SocketAddr],
    partitions: mpsc::Sender<Ask>,
) -> Result<ControllerHandle, ControllerError> {
    let log_dir = &log_dirs.metadata;
    let identity = &log_dir.identity;
    let Replayed {
        mut log,
        controller,
        quorum,
        last_epoch,
        bytes,
        deleted,
        bootstrap,
    } = load::load(env, log_dir, config, addrs).await?;
    let controller = controller.with_settings(settings(config));
    let epoch = LeaderEpoch(last_epoch.max(load::quorum_state(&log_dir.logs).await?) + 1);
    while let Err(error) = load::write_quorum_state(&log_dir.logs, identity.node_id, epoch).await {
        if !log_dir.logs.free_reserve_after(&error).await {
            return Err(error.into());
        }
    }
    log_dir.logs.assign_epoch(&mut log, epoch).await?;
    let mut host = Host {
        env: env.clone(),
        error_log: Arc::clone(error_log),
        recorded: Published::new(log.checkpoint()),
        log,
        logs: log_dir.logs.clone(),
        controller,
        quorum,
        epoch,
        broker_epoch: -1,
        partitions,
        is_followed: false,
        bytes_since_snapshot: bytes,
        snapshot_every_bytes: config.metadata_log_max_record_bytes_between_snapshots.max(1) as u64,
        snapshot_failures: 0,
        snapshot_not_before: env.now(),
    };
    // What a crash left of them may go. The partitions end with the broker; nobody hears of it then.
    let _ = host.partitions.send(Ask::Deleted(deleted)).await;
    host.lead(identity, &bootstrap).await?;
    host.register(config, identity, log_dirs, addrs).await?;
    host.warn_of_unapplied(identity.node_id);
    let (tx, rx) = mpsc::channel(QUEUE_MAX);
    let handle = ControllerHandle {
        queue: tx,
        recorded: host.recorded.reader(),
    };
    env.spawn("controller", host.run(rx));
    Ok(handle)
}

/// What topics get where nobody says.
fn settings(config: &BrokerConfig) -> Settings {
    Settings {
        node_id: config.node_id,
        num_partitions: config.num_partitions,
        default_replication_factor: i16::try_from(config.default_replication_factor).unwrap_or(i16::MAX),
        file: config.set.clone(),
    }
}

/// In version 0, without directory ids: Kafka 4.3.0 reads no other, whatever its schema says.
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
    /// Begins the epoch: a LeaderChange, in an empty log who votes, and what a leader owes before it decides anything.
    /// `bootstrap` are the records that whoever formatted the directory left for an empty log.
    async fn lead(
        &mut self,
        identity: &Identity,
        bootstrap: &[MetadataRecord],
    ) -> Result<(), ControllerError> {
        let (end, now) = (self.log.log_end(), self.env.wall());
        let mut controls = vec![Control::LeaderChange(leader_change(identity.node_id))];
        if end == Offset(0) {
            // The bootstrap snapshot says so too; Kafka's first leader repeats it in the log.
            controls.push(Control::KRaftVersion(KRaftVersionRecord {
                kraft_version: self.quorum.kraft_version,
                ..Default::default()
            }));
            controls.extend(self.quorum.voters.clone().map(Control::Voters));
        }
        let batch = encode_control(&controls, end, self.epoch, now).map_err(|e| content(FOLDER, e))?;
        self.append(&batch, Room::Reserved)
            .await
            .map_err(|e| content(FOLDER, e))?;
        self.controller
            .advance(end.0 + controls.len() as i64 - 1, self.epoch.0);
        let owed = match self.controller.image().metadata_version() {
            None if !bootstrap.is_empty() => bootstrap.to_vec(),
            _ => self.controller.activation_records(),
        };
        if !owed.is_empty() {
            self.commit(&owed, Room::Reserved)
                .await
                .map_err(|e| content(FOLDER, e))?;
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
            // Port 0 was taken as a free one; a wildcard can't be connected to.
            let port = if l.port == 0 { bound(&l.name) } else { l.port };
            let host = if l.is_everywhere() {
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
            directories: log_dirs.online.iter().map(Owned::id).collect(),
            moved: self.moved(log_dirs, identity.node_id).await,
            previous_broker_epoch: log_dirs.last_broker_epoch().unwrap_or(-1),
        };
        match self.carry_out(Request::RegisterBroker(registration)).await {
            Ok(Reply::Registered(Ok(epoch))) => self.broker_epoch = epoch,
            Ok(other) => return Err(content("registration", format_args!("{other:?}"))),
            Err(code) => return Err(content("registration", code)),
        }
        Ok(())
    }

    /// Logs what an earlier or another broker left configured that has no effect here. It stays until somebody deletes it.
    fn warn_of_unapplied(&self, node_id: i32) {
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

    /// The partitions here whose logs were found in another directory than the metadata has, or nowhere while it has none.
    async fn moved(&self, log_dirs: &LogDirs<E>, node_id: i32) -> Vec<(Uuid, i32, Uuid)> {
        let online = &log_dirs.online;
        let mut moved = Vec::new();
        let mut counts: BTreeMap<Uuid, usize> = BTreeMap::new();
        for topic in self.controller.image().topics.iter() {
            for (index, partition) in topic.partitions() {
                if !partition.replicas.contains(&node_id) || partitions::is_left_alone(&topic.name) {
                    continue;
                }
                let folder = partitions::folder(&topic.name, index);
                let has = |dir: &&Owned<E>| dir.folders.contains(&folder);
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
                    let has = |dir: &&Owned<E>| counts.get(&dir.id()).copied().unwrap_or_default();
                    found = online.iter().min_by_key(has).map(Owned::id);
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

    async fn run(mut self, mut queue: mpsc::Receiver<Message>) {
        loop {
            let message = tokio::select! {
                biased;
                message = queue.recv() => message,
                // What the log does beside appending goes on; to all else, somebody listens who waits for it.
                _ = self.log.next_event() => continue,
            };
            let Some(message) = message else { return };
            match message {
                Message::Ask(request, reply) => {
                    let answer = self.carry_out(request).await;
                    drop(reply.send(answer));
                    self.snapshot_if_due().await;
                }
                Message::Close(reply) => {
                    let closed = self.log.close().await.ok();
                    let end = closed.map(|recorded| (FOLDER.to_owned(), recorded, self.broker_epoch));
                    return drop(reply.send(end));
                }
            }
        }
    }

    async fn carry_out(&mut self, request: Request) -> Result<Reply, ErrorCode> {
        let room = match &request {
            Request::CreateTopics(_) | Request::CreatePartitions(_) | Request::AllocateProducerIds => {
                Room::Free
            }
            _ => Room::Reserved,
        };
        let (records, reply) = self
            .controller
            .decide(self.env.now(), self.log.log_end().0, request);
        if !records.is_empty() {
            self.commit(&records, room).await.map_err(|error| {
                self.error_log.record("metadata not changed", &error);
                ErrorCode::KAFKA_STORAGE_ERROR
            })?;
            self.follow(ImageDelta::of(&records)).await;
        }
        Ok(reply)
    }

    /// Publishes what was committed to the partitions here. BEFORE the response leaves: a client that learns of a topic finds it.
    async fn follow(&mut self, changed: ImageDelta) {
        // The first image is all new to them.
        let delta = match std::mem::replace(&mut self.is_followed, true) {
            true => changed,
            false => ImageDelta::Everything,
        };
        let image = Arc::new(self.controller.image().clone());
        let (done, followed) = oneshot::channel();
        if self
            .partitions
            .send(Ask::Follow(image, delta, done))
            .await
            .is_ok()
        {
            drop(followed.await);
        }
    }

    /// Appends records as one batch, and waits until they are durable: committed. On failure the state is as before.
    async fn commit(&mut self, records: &[MetadataRecord], room: Room) -> Result<(), LogError> {
        let before = self.controller.clone();
        let base = self.log.log_end();
        for (offset, record) in (base.0..).zip(records) {
            self.controller
                .replay(offset, self.epoch.0, record)
                .unwrap_or_else(|e| panic!("a record that was decided can be replayed: {e}: {record:?}"));
        }
        let version = self.controller.image().metadata_version().unwrap_or(0);
        let batch = encode_records(records, version, base, self.epoch, self.env.wall())
            .unwrap_or_else(|e| panic!("a record that was decided can be encoded: {e}"));
        let appended = self.append(&batch, room).await;
        if appended.is_err() {
            self.controller = before;
        }
        appended
    }

    async fn append(&mut self, batch: &Batch, room: Room) -> Result<(), LogError> {
        while let Err(error) = self.try_append(batch).await {
            if room == Room::Free || !self.logs.free_reserve_after(&error).await {
                return Err(error);
            }
        }
        Ok(())
    }

    async fn try_append(&mut self, batch: &Batch) -> Result<(), LogError> {
        let (now, wall) = (self.env.now(), self.env.wall());
        let storage = |e: &dyn fmt::Display| {
            LogError::Io(brokkr_env::Error::new(ErrorKind::Io, format!("{FOLDER}: {e}")))
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

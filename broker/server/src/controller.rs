//! The metadata log's host: the quorum of one voter, for now.
//!
//! One task owns `__cluster_metadata-0`. A request is decided against the state as appended; its records are replayed and
//! appended as one batch; when that is durable it is committed (one voter), the partitions here follow the new image, and
//! only then the answer leaves (M2). A failed append takes the state back.
//!
//! ```text
//!   request ─ decide ─ replay ─ append ─ durable ─ image published ─ partitions follow ─ reply
//! ```
//!
//! A start replays the latest snapshot and the log behind it, begins a new quorum epoch (`quorum-state` is durable BEFORE
//! anything is written in it), and registers this broker: its new incarnation bumps the leader epochs of what it leads.

use std::fmt;
use std::net::SocketAddr;
use std::ops::Range;

use brokkr_env::{Env, ErrorKind, Published, Reader};
use brokkr_log::{Event, Log, LogConfig, LogDir, LogError, Recorded, UpTo};
use brokkr_metadata::records::{Control, Entry, decode_batch, encode_control, encode_records};
use brokkr_metadata::snapshot::{self, QuorumState, Snapshot, SnapshotId};
use brokkr_metadata::{Controller, Image, Registration, Reply, Request, Settings};
use brokkr_types::{LeaderEpoch, Offset, UnixMillis, Uuid};
use brokkr_wire::messages::leader_change_message::{LeaderChangeMessage, Voter};
use brokkr_wire::messages::voters_record::{
    Endpoint, KRaftVersionFeature, Voter as VoterEntry, VotersRecord,
};
use brokkr_wire::messages::{KRaftVersionRecord, MetadataRecord};
use brokkr_wire::records::{Batch, Origin, batches};
use brokkr_wire::{ErrorCode, Str};
use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use crate::config::BrokerConfig;
use crate::ctx::Identity;
use crate::log_dir::Owned;
use crate::partitions::Ask;

/// The folder of the metadata log.
pub const FOLDER: &str = "__cluster_metadata-0";
const QUORUM_STATE: &str = "__cluster_metadata-0/quorum-state";
const QUEUE_MAX: usize = 256;
/// Bytes that a replay reads at once.
const REPLAY_BYTES: u32 = 1 << 20;
const SNAPSHOT_BYTES_MAX: u32 = 1 << 30;
/// Snapshots that are kept: the latest, and one more in case it turns out damaged.
const SNAPSHOTS_KEPT: usize = 2;

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
    Close(oneshot::Sender<Option<(String, Recorded, i64)>>),
}

/// The handle. Cloning shares the host.
#[derive(Clone)]
pub struct ControllerHandle {
    queue: mpsc::Sender<Message>,
    recorded: Reader<Recorded>,
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

    /// A block of producer ids that nobody had before.
    pub async fn allocate_producer_ids(&self) -> Result<Range<i64>, ErrorCode> {
        match self.ask(Request::AllocateProducerIds).await? {
            Reply::ProducerIds(block) => block,
            other => unreachable!("ids were asked for: {other:?}"),
        }
    }

    /// What is to be recorded of the metadata log.
    pub fn recorded(&self) -> (String, Recorded) {
        (FOLDER.to_owned(), Recorded::clone(self.recorded.clone().get()))
    }

    /// Closes the log: what is to be recorded of it, and this life's broker epoch. `None` if it failed.
    pub async fn close(&self) -> Option<(String, Recorded, i64)> {
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
    log: Log<E>,
    logs: LogDir<E>,
    controller: Controller,
    quorum: QuorumState,
    epoch: LeaderEpoch,
    broker_epoch: i64,
    images: Published<Image>,
    recorded: Published<Recorded>,
    partitions: mpsc::Sender<Ask>,
    bytes_since_snapshot: u64,
    snapshot_every_bytes: u64,
}

/// Starts the host: replays, registers this broker, and lets the partitions follow. Everything is committed when it returns.
pub async fn start<E: Env>(
    env: &E,
    config: &BrokerConfig,
    log_dir: &Owned<E>,
    addrs: &[SocketAddr],
    partitions: mpsc::Sender<Ask>,
) -> Result<(ControllerHandle, Reader<Image>), ControllerError> {
    let identity = &log_dir.identity;
    let log = open_log(env, log_dir, identity, config).await?;
    let replayed = replay(&log_dir.logs, log, &identity.cluster_id).await?;
    let Replayed {
        mut log,
        controller,
        quorum,
        last_epoch,
        bytes,
    } = replayed;
    let controller = controller.with_settings(settings(config));
    let epoch = LeaderEpoch(last_epoch.max(quorum_state(&log_dir.logs).await?) + 1);
    while let Err(error) = write_quorum_state(&log_dir.logs, identity.node_id, epoch).await {
        if !log_dir.logs.makes_room_after(&error).await {
            return Err(error.into());
        }
    }
    log_dir.logs.assign_epoch(&mut log, epoch).await?;
    let mut host = Host {
        env: env.clone(),
        images: Published::new(controller.image().clone()),
        recorded: Published::new(log.checkpoint()),
        log,
        logs: log_dir.logs.clone(),
        controller,
        quorum,
        epoch,
        broker_epoch: -1,
        partitions,
        bytes_since_snapshot: bytes,
        snapshot_every_bytes: config.metadata_log_max_record_bytes_between_snapshots.max(1) as u64,
    };
    host.lead(identity).await?;
    host.register(config, identity, log_dir, addrs).await?;
    let images = host.images.reader();
    let (tx, rx) = mpsc::channel(QUEUE_MAX);
    let handle = ControllerHandle {
        queue: tx,
        recorded: host.recorded.reader(),
    };
    env.spawn("controller", host.run(rx));
    Ok((handle, images))
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

async fn open_log<E: Env>(
    env: &E,
    log_dir: &Owned<E>,
    identity: &Identity,
    config: &BrokerConfig,
) -> Result<Log<E>, ControllerError> {
    let config = LogConfig {
        segment_bytes: config.metadata_log_segment_bytes.unsigned_abs(),
        cleanup_delete: false,
        retention_ms: -1,
        ..LogConfig::default()
    };
    // The bootstrap snapshot is written last: without it what is there was never used.
    let first = format!("{FOLDER}/{}", SnapshotId::BOOTSTRAP.file_name());
    let logs = &log_dir.logs;
    let begun = match logs.dir().list(FOLDER).await {
        Ok(entries) => entries
            .iter()
            .any(|e| SnapshotId::from_file_name(&e.name).is_some()),
        Err(e) if e.kind() == ErrorKind::NotFound => false,
        Err(e) => return Err(e.into()),
    };
    if begun {
        let recorded = log_dir.recorded(FOLDER).cloned().unwrap_or_default();
        let (log, recovery) = logs.open_log(FOLDER, &config, &recorded).await?;
        if !recovery.clean {
            tracing::info!(?recovery, "cluster metadata recovered");
        }
        return Ok(log);
    }
    if log_dir
        .recorded(FOLDER)
        .is_some_and(|r| r.recovery_point.is_some_and(|p| p.0 > 0))
    {
        return Err(content(FOLDER, "its snapshots are missing"));
    }
    if log_dir.folders.contains(FOLDER) {
        // A first start that was interrupted.
        Log::<E>::open(logs, FOLDER, config.clone(), &Recorded::default())
            .await?
            .0
            .delete()
            .await?;
    }
    let log = Log::create(logs, FOLDER, Uuid::METADATA_TOPIC, config).await?;
    let bootstrap = snapshot::bootstrap(&voters(identity), env.wall()).map_err(|e| content(&first, e))?;
    logs.dir().replace(&first, bootstrap).await?;
    Ok(log)
}

/// The one voter: this node, at the listener that a controller will have.
fn voters(identity: &Identity) -> VotersRecord {
    let endpoint = Endpoint {
        name: Str::from_static("CONTROLLER"),
        host: Str::from_static("localhost"),
        port: 9093,
        ..Default::default()
    };
    let voter = VoterEntry {
        voter_id: identity.node_id,
        voter_directory_id: identity.directory_id,
        endpoints: vec![endpoint],
        kraft_version_feature: KRaftVersionFeature {
            min_supported_version: 0,
            max_supported_version: 1,
            ..Default::default()
        },
        ..Default::default()
    };
    VotersRecord {
        version: 0,
        voters: vec![voter],
        ..Default::default()
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

struct Replayed<E: Env> {
    log: Log<E>,
    controller: Controller,
    quorum: QuorumState,
    last_epoch: i32,
    /// Bytes of the log behind the snapshot.
    bytes: u64,
}

/// The state that the latest snapshot and the log behind it make.
async fn replay<E: Env>(
    logs: &LogDir<E>,
    mut log: Log<E>,
    cluster_id: &str,
) -> Result<Replayed<E>, ControllerError> {
    let (id, snapshot) = latest_snapshot(logs, cluster_id).await?;
    let mut controller = Controller::new(snapshot.image);
    let mut quorum = snapshot.quorum;
    let (mut offset, mut last_epoch, mut bytes) = (Offset(id.end_offset), id.epoch, 0);
    // A snapshot may be ahead of what a power loss left of the log: never of what was committed.
    if log.log_end() < offset {
        log.truncate_fully_and_start_at(offset).await?;
    }
    let reader = log.reader();
    while offset < reader.log_end() {
        let piece = reader
            .read_bytes(offset, UpTo::LogEnd, REPLAY_BYTES)
            .await
            .map_err(LogError::from)?;
        let Some(piece) = piece.filter(|p| !p.is_empty()) else {
            return Err(content(
                FOLDER,
                format_args!("nothing can be read at offset {offset}"),
            ));
        };
        bytes += piece.len() as u64;
        for batch in batches(piece) {
            let batch = batch.map_err(|e| content(FOLDER, e))?;
            batch.check_crc().map_err(|e| content(FOLDER, e))?;
            last_epoch = batch.header.partition_leader_epoch.0;
            replay_batch(&batch, &mut controller, &mut quorum)?;
            offset = batch.header.next_offset();
        }
    }
    Ok(Replayed {
        log,
        controller,
        quorum,
        last_epoch,
        bytes,
    })
}

fn replay_batch(
    batch: &Batch,
    controller: &mut Controller,
    quorum: &mut QuorumState,
) -> Result<(), ControllerError> {
    let epoch = batch.header.partition_leader_epoch.0;
    for (offset, entry) in decode_batch(batch).map_err(|e| content(FOLDER, e))? {
        if offset <= controller.image().provenance.offset {
            continue;
        }
        let at = |e: &dyn fmt::Display| content(FOLDER, format_args!("offset {offset}: {e}"));
        match entry {
            Entry::Metadata(record) => controller.replay(offset, epoch, &record).map_err(|e| at(&e))?,
            Entry::Control(control) => {
                quorum.replay(&control).map_err(|e| at(&e))?;
                controller.advance(offset, epoch);
            }
            Entry::UnknownControl(_) => controller.advance(offset, epoch),
        }
    }
    Ok(())
}

/// The latest snapshot that is whole.
async fn latest_snapshot<E: Env>(
    logs: &LogDir<E>,
    cluster_id: &str,
) -> Result<(SnapshotId, Snapshot), ControllerError> {
    let entries = logs.dir().list(FOLDER).await?;
    let mut ids: Vec<SnapshotId> = entries
        .iter()
        .filter_map(|e| SnapshotId::from_file_name(&e.name))
        .collect();
    ids.sort();
    let mut last = content(FOLDER, "there is no snapshot");
    for id in ids.into_iter().rev() {
        let path = format!("{FOLDER}/{}", id.file_name());
        let bytes = logs.dir().read(&path, SNAPSHOT_BYTES_MAX).await?;
        match snapshot::read(&bytes, id, cluster_id) {
            Ok(snapshot) => return Ok((id, snapshot)),
            Err(error) => {
                tracing::error!(path, %error, "damaged snapshot; trying an older one");
                last = content(path, error);
            }
        }
    }
    Err(last)
}

/// The voters that a directory's latest snapshot names, each with its directory; `None` where it names none, or can't be
/// read: then a start says why.
pub async fn voters_in<E: Env>(logs: &LogDir<E>) -> Option<Vec<(i32, Uuid)>> {
    let entries = logs.dir().list(FOLDER).await.ok()?;
    let ids = entries.iter().filter_map(|e| SnapshotId::from_file_name(&e.name));
    let id = ids.max()?;
    let path = format!("{FOLDER}/{}", id.file_name());
    let bytes = logs.dir().read(&path, SNAPSHOT_BYTES_MAX).await.ok()?;
    let voters = snapshot::read(&bytes, id, "")
        .ok()?
        .quorum
        .voters?
        .voters
        .into_iter();
    Some(voters.map(|v| (v.voter_id, v.voter_directory_id)).collect())
}

/// The last quorum epoch that this voter knew of.
async fn quorum_state<E: Env>(logs: &LogDir<E>) -> Result<i32, ControllerError> {
    match logs.dir().read(QUORUM_STATE, 1 << 16).await {
        Ok(text) => serde_json::from_slice::<serde_json::Value>(&text)
            .ok()
            .and_then(|v| v.get("leaderEpoch")?.as_i64()?.try_into().ok())
            .ok_or_else(|| content(QUORUM_STATE, "no leaderEpoch in it")),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(0),
        Err(e) => Err(e.into()),
    }
}

/// Notes, durably, that this voter leads `epoch`: as Kafka's QuorumStateData, version 1.
async fn write_quorum_state<E: Env>(
    logs: &LogDir<E>,
    node_id: i32,
    epoch: LeaderEpoch,
) -> Result<(), LogError> {
    let none = Uuid::ZERO;
    let text = format!(
        r#"{{"leaderId":{node_id},"leaderEpoch":{epoch},"votedId":-1,"votedDirectoryId":"{none}","data_version":1}}"#
    );
    Ok(logs.dir().replace(QUORUM_STATE, Bytes::from(text)).await?)
}

impl<E: Env> Host<E> {
    /// Begins the epoch: a LeaderChange, in an empty log who votes, and what a leader owes before it decides anything.
    async fn lead(&mut self, identity: &Identity) -> Result<(), ControllerError> {
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
        let owed = self.controller.activation_records();
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
        log_dir: &Owned<E>,
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
            let host = if l.host == "0.0.0.0" {
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
            directories: vec![identity.directory_id],
            previous_broker_epoch: log_dir.clean().and_then(|c| c.broker_epoch).unwrap_or(-1),
        };
        match self.carry_out(Request::RegisterBroker(registration)).await {
            Ok(Reply::Registered(Ok(epoch))) => self.broker_epoch = epoch,
            Ok(other) => return Err(content("registration", format_args!("{other:?}"))),
            Err(code) => return Err(content("registration", code)),
        }
        Ok(())
    }

    async fn run(mut self, mut queue: mpsc::Receiver<Message>) {
        while let Some(message) = queue.recv().await {
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
                tracing::warn!(%error, "metadata not changed");
                ErrorCode::KAFKA_STORAGE_ERROR
            })?;
            let image = self.controller.image().clone();
            let (done, followed) = oneshot::channel();
            if self
                .partitions
                .send(Ask::Follow(Box::new(image.clone()), done))
                .await
                .is_ok()
            {
                drop(followed.await);
            }
            self.images.publish(image);
        }
        Ok(reply)
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
            if room == Room::Free || !self.logs.makes_room_after(&error).await {
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

    async fn snapshot_if_due(&mut self) {
        if self.bytes_since_snapshot < self.snapshot_every_bytes {
            return;
        }
        match self.snapshot().await {
            Ok(()) => self.bytes_since_snapshot = 0,
            Err(error) => tracing::warn!(%error, "no snapshot of the metadata; the log is kept"),
        }
    }

    /// Writes a snapshot of all that is committed, then lets go of the log before it, and of older snapshots.
    async fn snapshot(&mut self) -> Result<(), ControllerError> {
        let end = self.log.log_end();
        let id = SnapshotId {
            end_offset: end.0,
            epoch: self.epoch.0,
        };
        let whole = Snapshot {
            image: self.controller.image().clone(),
            quorum: self.quorum.clone(),
            last_timestamp: self.env.wall(),
        };
        let path = format!("{FOLDER}/{}", id.file_name());
        let bytes =
            snapshot::write(&whole, id, UnixMillis(self.env.wall().0)).map_err(|e| content(&path, e))?;
        self.logs.dir().replace(&path, bytes).await?;
        self.log.advance_log_start(end).await?;
        let entries = self.logs.dir().list(FOLDER).await?;
        let mut old: Vec<SnapshotId> = entries
            .iter()
            .filter_map(|e| SnapshotId::from_file_name(&e.name))
            .collect();
        old.sort();
        for id in old.iter().rev().skip(SNAPSHOTS_KEPT) {
            self.logs
                .dir()
                .remove(&format!("{FOLDER}/{}", id.file_name()))
                .await?;
        }
        Ok(())
    }
}

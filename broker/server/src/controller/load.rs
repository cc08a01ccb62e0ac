//! Loads the metadata at a start: the latest intact snapshot, and the log behind it.
//!
//! | found | |
//! | --- | --- |
//! | nothing | a new cluster: a bootstrap snapshot with this node as the voter (KIP-853), then an empty log |
//! | a log from offset 0 and no snapshot | Apache Kafka with `controller.quorum.voters`: the log alone |
//! | `bootstrap.checkpoint` and an empty log | formatted by Apache Kafka and never started: its records come first |
//! | snapshots and a log that does not reach back to one of them, or ends below the durable offset | refused |
//! | nothing, beside folders of partitions | refused: the metadata of these partitions is missing |

use std::fmt;
use std::net::SocketAddr;

use brokkr_env::{Env, ErrorKind};
use brokkr_log::{Log, LogCheckpoint, LogConfig, LogDir, LogError, UpTo};
use brokkr_metadata::records::{Control, Entry, decode_batch};
use brokkr_metadata::snapshot::{self, QuorumState, Snapshot, SnapshotId};
use brokkr_metadata::{Controller, Image};
use brokkr_types::{LeaderEpoch, Offset, Uuid};
use brokkr_wire::Str;
use brokkr_wire::messages::voters_record::{Endpoint, KRaftVersionFeature, VotersRecord};
use brokkr_wire::messages::{MetadataRecord, voters_record};
use brokkr_wire::records::{Batch, BatchError, batches};
use bytes::Bytes;

use super::error::{ControllerError, content_error};
use crate::config::BrokerConfig;
use crate::log_dir::{Identity, METADATA_FOLDER, OwnedLogDir};

const QUORUM_STATE: &str = "__cluster_metadata-0/quorum-state";
/// The records that Apache Kafka's format command leaves for the first start.
const BOOTSTRAP: &str = "bootstrap.checkpoint";
/// Bytes that a replay reads at once.
const REPLAY_BYTES: u32 = 1 << 20;
const SNAPSHOT_BYTES_MAX: u32 = 1 << 30;
/// The first batch of a log, which names the voters, is smaller.
const FIRST_BATCH_BYTES: u32 = 16 << 10;

/// The metadata that a start loaded.
pub(super) struct LoadedMetadata<E: Env> {
    pub(super) log: Log<E>,
    pub(super) controller: Controller,
    pub(super) quorum: QuorumState,
    pub(super) last_epoch: i32,
    /// Bytes of the log behind the snapshot.
    pub(super) bytes: u64,
    /// Topics that were deleted since the snapshot, with their names.
    pub(super) deleted: Vec<(Uuid, Str)>,
    /// The first records of an empty log, if a tool left some.
    pub(super) bootstrap: Vec<MetadataRecord>,
}

/// Checks that this broker can start with the existing metadata, BEFORE anything is written.
pub async fn check_startable<E: Env>(log_dir: &OwnedLogDir<E>) -> Result<(), ControllerError> {
    let logs = &log_dir.logs;
    let recorded = log_dir.recorded(METADATA_FOLDER).cloned().unwrap_or_default();
    if snapshots(logs).await?.is_empty() && log_bytes(logs).await? == 0 {
        return check_not_lost(log_dir, &recorded);
    }
    check_directory_id(logs, &log_dir.identity).await?;
    if log_dir.remembered.foreign {
        check_voters_in_log(logs, &log_dir.identity).await?;
    }
    Ok(())
}

/// Checks a whole log that another broker wrote for other controllers.
async fn check_voters_in_log<E: Env>(logs: &LogDir<E>, identity: &Identity) -> Result<(), ControllerError> {
    let mut segments: Vec<_> = names(logs)
        .await?
        .into_iter()
        .filter(|n| n.ends_with(".log"))
        .collect();
    segments.sort();
    for name in segments {
        let path = format!("{METADATA_FOLDER}/{name}");
        let file = logs.dir().open(&path).await?;
        let (mut at, mut wanted) = (0, u64::from(REPLAY_BYTES));
        while at < file.len() {
            let bytes = file.read_at(at, wanted.min(file.len() - at) as u32).await?;
            let begun_at = at;
            let mut ends = None;
            for batch in batches(bytes) {
                match batch {
                    Ok(batch) => {
                        at += batch.bytes.len() as u64;
                        let entries = match batch.header.attributes.is_control() && batch.check_crc().is_ok()
                        {
                            true => decode_batch(&batch).unwrap_or_default(),
                            false => Vec::new(),
                        };
                        for (offset, entry) in entries {
                            if let Entry::Control(control) = entry {
                                check_single_voter(&control, identity).map_err(|e| {
                                    content_error(&path, format_args!("offset {offset}: {e}"))
                                })?;
                            }
                        }
                    }
                    Err(error) => ends = Some(error),
                }
            }
            wanted = match ends {
                _ if at > begun_at => u64::from(REPLAY_BYTES),
                Some(BatchError::Partial { needed, .. })
                    if (needed as u64) <= file.len() - at && needed as u64 > wanted =>
                {
                    needed as u64
                }
                // Opening the log reports what can't be read.
                _ => break,
            };
        }
    }
    Ok(())
}

/// Opens the metadata log, creates it in a new directory, and replays it.
pub(super) async fn load<E: Env>(
    env: &E,
    log_dir: &OwnedLogDir<E>,
    config: &BrokerConfig,
    addrs: &[SocketAddr],
) -> Result<LoadedMetadata<E>, ControllerError> {
    let identity = &log_dir.identity;
    let log = open_log(env, log_dir, config, addrs).await?;
    let mut replayed = replay(&log_dir.logs, log, identity).await?;
    remove_unfinished(&log_dir.logs).await?;
    if replayed.controller.image().metadata_version().is_none() {
        replayed.bootstrap = bootstrap_records(&log_dir.logs).await?;
    }
    Ok(replayed)
}

async fn open_log<E: Env>(
    env: &E,
    log_dir: &OwnedLogDir<E>,
    config: &BrokerConfig,
    addrs: &[SocketAddr],
) -> Result<Log<E>, ControllerError> {
    let log_config = LogConfig {
        segment_bytes: config.metadata_log_segment_bytes.unsigned_abs(),
        cleanup_delete: false,
        retention_ms: -1,
        ..LogConfig::default()
    };
    let logs = &log_dir.logs;
    let recorded = log_dir.recorded(METADATA_FOLDER).cloned().unwrap_or_default();
    let bytes = log_bytes(logs).await?;
    let begun = !snapshots(logs).await?.is_empty() || bytes > 0;
    if begun {
        check_directory_id(logs, &log_dir.identity).await?;
        let (log, recovery) = logs.open_log(METADATA_FOLDER, &log_config, &recorded).await?;
        if !recovery.clean {
            tracing::info!(?recovery, "cluster metadata recovered");
        }
        return Ok(log);
    }
    check_not_lost(log_dir, &recorded)?;
    let log = match log_dir.folders.contains(METADATA_FOLDER) {
        // A first start was interrupted: the log has no records.
        true => {
            let (mut log, _) = logs
                .open_log(METADATA_FOLDER, &log_config, &LogCheckpoint::default())
                .await?;
            log.set_topic_id(Uuid::METADATA_TOPIC).await?;
            log
        }
        false => Log::create(logs, METADATA_FOLDER, Uuid::METADATA_TOPIC, log_config).await?,
    };
    // LAST: a directory without the bootstrap snapshot was never used.
    if !has_file(logs, BOOTSTRAP).await? {
        let first = format!("{METADATA_FOLDER}/{}", SnapshotId::BOOTSTRAP.file_name());
        let voters = voters(&log_dir.identity, config, addrs);
        let bootstrap = snapshot::bootstrap(&voters, env.wall()).map_err(|e| content_error(&first, e))?;
        logs.dir().replace(&first, bootstrap).await?;
    }
    Ok(log)
}

/// Checks that a directory without metadata is new and did not lose it.
fn check_not_lost<E: Env>(log_dir: &OwnedLogDir<E>, recorded: &LogCheckpoint) -> Result<(), ControllerError> {
    let remedy = "put it back from a backup; or move the folders of partitions and brokkr-checkpoint away to begin with nothing";
    if recorded.recovery_point.is_some_and(|p| p.0 > 0) {
        return Err(content_error(
            METADATA_FOLDER,
            format_args!("the metadata of the cluster is missing: {remedy}"),
        ));
    }
    match log_dir.folders.iter().find(|name| *name != METADATA_FOLDER) {
        None => Ok(()),
        Some(name) => Err(content_error(
            METADATA_FOLDER,
            format_args!(
                "the metadata of the cluster, which knows of {name} and others here, is missing: {remedy}"
            ),
        )),
    }
}

/// Checks that the log belongs to this directory, if its first batch still exists and contains the voters.
async fn check_directory_id<E: Env>(logs: &LogDir<E>, identity: &Identity) -> Result<(), ControllerError> {
    let segments = names(logs).await?.into_iter().filter(|n| n.ends_with(".log"));
    let Some(first) = segments.min() else {
        return Ok(());
    };
    let path = format!("{METADATA_FOLDER}/{first}");
    let file = logs.dir().open(&path).await?;
    let bytes = file.read_at(0, FIRST_BATCH_BYTES.min(file.len() as u32)).await?;
    // Opening the log reports what can't be read here.
    let batch = Batch::first(&bytes)
        .ok()
        .filter(|batch| batch.check_crc().is_ok());
    let entries = batch.and_then(|batch| decode_batch(&batch).ok());
    for (_, entry) in entries.into_iter().flatten() {
        let Entry::Control(Control::Voters(voters)) = entry else {
            continue;
        };
        let me = voters.voters.iter().find(|v| v.voter_id == identity.node_id);
        if let Some(me) = me.filter(|me| me.voter_directory_id != identity.directory_id) {
            return Err(content_error(
                path,
                format_args!(
                    "it is of directory {}, and this is directory {}: put back the file that belongs here",
                    me.voter_directory_id, identity.directory_id
                ),
            ));
        }
    }
    Ok(())
}

/// Bytes of the metadata log's segments, whichever broker wrote them.
async fn log_bytes<E: Env>(logs: &LogDir<E>) -> Result<u64, ControllerError> {
    let mut bytes = 0;
    for name in names(logs).await? {
        if name.ends_with(".log") {
            bytes += logs.dir().open(&format!("{METADATA_FOLDER}/{name}")).await?.len();
        }
    }
    Ok(bytes)
}

async fn names<E: Env>(logs: &LogDir<E>) -> Result<Vec<String>, ControllerError> {
    match logs.dir().list(METADATA_FOLDER).await {
        Ok(entries) => Ok(entries.into_iter().map(|e| e.name).collect()),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        Err(e) => Err(e.into()),
    }
}

async fn has_file<E: Env>(logs: &LogDir<E>, name: &str) -> Result<bool, ControllerError> {
    Ok(logs.dir().list("").await?.iter().any(|e| e.name == name))
}

/// The ids of the snapshots, oldest first.
pub(super) async fn snapshots<E: Env>(logs: &LogDir<E>) -> Result<Vec<SnapshotId>, ControllerError> {
    let names = names(logs).await?;
    let mut ids: Vec<_> = names
        .iter()
        .filter_map(|n| SnapshotId::from_file_name(n))
        .collect();
    ids.sort();
    Ok(ids)
}

/// Removes snapshots that were not finished: a crash, or a full disk, ended them. Their names are not used again.
pub(super) async fn remove_unfinished<E: Env>(logs: &LogDir<E>) -> Result<(), ControllerError> {
    let is_unfinished = |name: &str| {
        let finished = name.strip_suffix(".tmp").and_then(SnapshotId::from_file_name);
        finished.is_some()
    };
    for name in names(logs).await?.into_iter().filter(|name| is_unfinished(name)) {
        brokkr_types::reached!("an unfinished snapshot of the metadata was removed");
        match logs.dir().remove(&format!("{METADATA_FOLDER}/{name}")).await {
            Err(e) if e.kind() != ErrorKind::NotFound => return Err(e.into()),
            _ => {}
        }
    }
    Ok(())
}

/// The one voter: this node, at its controller listener, or without one at its first advertised listener.
fn voters(identity: &Identity, config: &BrokerConfig, addrs: &[SocketAddr]) -> VotersRecord {
    let name = config
        .set
        .get("controller.listener.names")
        .and_then(|names| names.split(',').next());
    let name = name
        .map(str::trim)
        .filter(|n| !n.is_empty())
        .unwrap_or("CONTROLLER");
    let (host, port) = controller_listener(config, name).unwrap_or_else(|| {
        let host = config
            .advertised_listeners
            .first()
            .map_or("", |l| l.host.as_str());
        let host = if matches!(host, "" | "0.0.0.0" | "::") {
            "localhost"
        } else {
            host
        };
        (host.to_owned(), addrs.first().map_or(0, SocketAddr::port))
    });
    let endpoint = Endpoint {
        name: Str::from(name.to_owned()),
        host: Str::from(host),
        port,
        ..Default::default()
    };
    let voter = voters_record::Voter {
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

/// The configured address of the listener of this name, which this broker does not open yet.
fn controller_listener(config: &BrokerConfig, name: &str) -> Option<(String, u16)> {
    let listed = ["advertised.listeners", "listeners"]
        .iter()
        .filter_map(|key| config.set.get(*key));
    listed.flat_map(|all| all.split(',')).find_map(|each| {
        let (listener, address) = each.trim().split_once("://")?;
        let (host, port) = address.rsplit_once(':')?;
        let port = port.parse().ok().filter(|port| *port > 0)?;
        let host = if host.is_empty() { "localhost" } else { host };
        listener
            .eq_ignore_ascii_case(name)
            .then(|| (host.to_owned(), port))
    })
}

/// Reads the records that Apache Kafka's format command left.
async fn bootstrap_records<E: Env>(logs: &LogDir<E>) -> Result<Vec<MetadataRecord>, ControllerError> {
    if !has_file(logs, BOOTSTRAP).await? {
        return Ok(Vec::new());
    }
    let bytes = logs.dir().read(BOOTSTRAP, SNAPSHOT_BYTES_MAX).await?;
    let mut records = Vec::new();
    for batch in batches(bytes) {
        let batch = batch.map_err(|e| content_error(BOOTSTRAP, e))?;
        batch.check_crc().map_err(|e| content_error(BOOTSTRAP, e))?;
        for (_, entry) in decode_batch(&batch).map_err(|e| content_error(BOOTSTRAP, e))? {
            if let Entry::Metadata(record) = entry {
                records.push(record);
            }
        }
    }
    Ok(records)
}

/// Replays the latest snapshot and the log behind it.
async fn replay<E: Env>(
    logs: &LogDir<E>,
    mut log: Log<E>,
    identity: &Identity,
) -> Result<LoadedMetadata<E>, ControllerError> {
    let (id, snapshot) = match latest_snapshot(logs, &identity.cluster_id).await? {
        Some(latest) => latest,
        None if log.log_start() == Offset(0) => (SnapshotId::BOOTSTRAP, empty_snapshot(&identity.cluster_id)),
        None => {
            let start = log.log_start();
            return Err(content_error(
                METADATA_FOLDER,
                format_args!(
                    "no snapshot can be read, and the log starts at offset {start}: put one back from a backup"
                ),
            ));
        }
    };
    let mut controller = Controller::new(snapshot.image);
    let mut quorum = snapshot.quorum;
    let (mut offset, mut last_epoch, mut bytes) = (Offset(id.end_offset), id.epoch, 0);
    let (start, end) = (log.log_start(), log.log_end());
    if end < offset && log.size_bytes() == 0 {
        // A follower that fetched the snapshot and nothing behind it.
        log.truncate_fully_and_start_at(offset).await?;
    } else if end < offset || start > offset {
        let name = id.file_name();
        return Err(content_error(
            METADATA_FOLDER,
            format_args!(
                "the log has offsets {start} to {end}, and the latest snapshot that can be read is {name}"
            ),
        ));
    }
    let mut deleted = Vec::new();
    let reader = log.reader();
    while offset < reader.log_end() {
        let piece = reader
            .read_bytes(offset, UpTo::LogEnd, REPLAY_BYTES)
            .await
            .map_err(LogError::from)?;
        let Some(piece) = piece.filter(|p| !p.is_empty()) else {
            return Err(content_error(
                METADATA_FOLDER,
                format_args!("nothing can be read at offset {offset}"),
            ));
        };
        bytes += piece.len() as u64;
        for batch in batches(piece) {
            let next = batch.map_err(|e| e.to_string()).and_then(|batch| {
                last_epoch = batch.header.partition_leader_epoch.0;
                replay_batch(&batch, identity, &mut controller, &mut quorum, &mut deleted)?;
                Ok(batch.header.next_offset())
            });
            offset = match next {
                Ok(next) => next,
                Err(what) => return Err(content_error(segment_of(logs, offset).await?, what)),
            };
        }
    }
    Ok(LoadedMetadata {
        log,
        controller,
        quorum,
        last_epoch,
        bytes,
        deleted,
        bootstrap: Vec::new(),
    })
}

/// The state before a log's first offset.
fn empty_snapshot(cluster_id: &str) -> Snapshot {
    Snapshot {
        image: Image::empty(cluster_id),
        quorum: QuorumState::default(),
        last_timestamp: brokkr_types::UnixMillis::NONE,
    }
}

/// The path of the segment that contains an offset.
async fn segment_of<E: Env>(logs: &LogDir<E>, offset: Offset) -> Result<String, ControllerError> {
    let base = |name: &String| {
        name.strip_suffix(".log")
            .and_then(|base| base.parse::<i64>().ok())
    };
    let names = names(logs).await?.into_iter();
    let segment = names
        .filter(|name| base(name).is_some_and(|base| base <= offset.0))
        .max();
    Ok(segment.map_or(METADATA_FOLDER.to_owned(), |name| {
        format!("{METADATA_FOLDER}/{name}")
    }))
}

fn replay_batch(
    batch: &Batch,
    identity: &Identity,
    controller: &mut Controller,
    quorum: &mut QuorumState,
    deleted: &mut Vec<(Uuid, Str)>,
) -> Result<(), String> {
    let epoch = batch.header.partition_leader_epoch.0;
    for (offset, entry) in decode_batch(batch).map_err(|e| e.to_string())? {
        if offset <= controller.image().provenance.offset {
            continue;
        }
        let at = |e: &dyn fmt::Display| format!("offset {offset}: {e}");
        match entry {
            Entry::Metadata(record) => {
                if let MetadataRecord::RemoveTopic(removed) = &record {
                    let topic = controller.image().topics.by_id(removed.topic_id);
                    deleted.extend(topic.map(|topic| (topic.id, topic.name.clone())));
                }
                controller.replay(offset, epoch, &record).map_err(|e| at(&e))?;
            }
            Entry::Control(control) => {
                check_single_voter(&control, identity).map_err(|e| at(&e))?;
                quorum.replay(&control).map_err(|e| at(&e))?;
                controller.advance(offset, epoch);
            }
            Entry::UnknownControl(_) => controller.advance(offset, epoch),
        }
    }
    Ok(())
}

/// Checks that a LeaderChange record has no voter but this node. It is the only record that contains static voters
/// (`controller.quorum.voters`).
fn check_single_voter(control: &Control, identity: &Identity) -> Result<(), String> {
    let Control::LeaderChange(change) = control else {
        return Ok(());
    };
    match change.voters.iter().find(|v| v.voter_id != identity.node_id) {
        None => Ok(()),
        Some(other) => Err(format!(
            "the cluster has other controllers (node {}); only a cluster of one node is served yet",
            other.voter_id
        )),
    }
}

/// The latest intact snapshot; `None` if none can be read.
async fn latest_snapshot<E: Env>(
    logs: &LogDir<E>,
    cluster_id: &str,
) -> Result<Option<(SnapshotId, Snapshot)>, ControllerError> {
    let mut last = None;
    for id in snapshots(logs).await?.into_iter().rev() {
        let path = format!("{METADATA_FOLDER}/{}", id.file_name());
        let read = match logs.dir().read(&path, SNAPSHOT_BYTES_MAX).await {
            Ok(bytes) => snapshot::read(&bytes, id, cluster_id).map_err(|e| e.to_string()),
            Err(e) if e.kind() == ErrorKind::Resources => return Err(e.into()),
            Err(e) => Err(e.to_string()),
        };
        match read {
            Ok(snapshot) => return Ok(Some((id, snapshot))),
            Err(error) => {
                tracing::error!(path, error, "damaged snapshot; trying an older one");
                last = Some(content_error(path, error));
            }
        }
    }
    if let Some(error) = last {
        // A log from offset 0 on needs no snapshot.
        tracing::error!(%error, "no snapshot of the metadata can be read");
    }
    Ok(None)
}

/// The file name of a directory's latest snapshot, and the voters in it, each with its directory id. `None` if it has none
/// or can't be read; the start then reports why.
pub async fn voters_in<E: Env>(logs: &LogDir<E>) -> Option<(String, Vec<(i32, Uuid)>)> {
    let entries = logs.dir().list(METADATA_FOLDER).await.ok()?;
    let ids = entries.iter().filter_map(|e| SnapshotId::from_file_name(&e.name));
    let id = ids.max()?;
    let path = format!("{METADATA_FOLDER}/{}", id.file_name());
    let bytes = logs.dir().read(&path, SNAPSHOT_BYTES_MAX).await.ok()?;
    let voters = snapshot::read(&bytes, id, "")
        .ok()?
        .quorum
        .voters?
        .voters
        .into_iter();
    let voters = voters.map(|v| (v.voter_id, v.voter_directory_id));
    Some((id.file_name(), voters.collect()))
}

/// Reads the last quorum epoch of this voter.
pub(super) async fn read_quorum_epoch<E: Env>(logs: &LogDir<E>) -> Result<i32, ControllerError> {
    match logs.dir().read(QUORUM_STATE, 1 << 16).await {
        Ok(text) => serde_json::from_slice::<serde_json::Value>(&text)
            .ok()
            .and_then(|v| v.get("leaderEpoch")?.as_i64()?.try_into().ok())
            .ok_or_else(|| content_error(QUORUM_STATE, "no leaderEpoch in it")),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(0),
        Err(e) => Err(e.into()),
    }
}

/// Records durably that this voter leads `epoch`, as Kafka's QuorumStateData, version 1.
pub(super) async fn write_quorum_state<E: Env>(
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

//! A partition assigned to this broker: finds its log, creates it, or sets aside the log of another topic.
//!
//! A folder is deleted only if a committed record says that its topic was deleted. Every other folder that is not the
//! partition's is set aside as in Kafka, as `TOPIC-N.UNIQUEID-stray`. A log is created only where there is no folder, and
//! not if records of the partition were durable.

use std::sync::Arc;
use std::time::Duration;

use brokkr_env::{Env, ErrorKind, ErrorLog};
use brokkr_log::{FreshLog, Log, LogCheckpoint, LogDir, LogError};
use brokkr_replication::Leader;
use brokkr_types::{LeaderEpoch, NodeId, Offset, Uuid};
use imbl::OrdSet;
use tokio::sync::Semaphore;

use super::message::CloseResult;
use crate::config::TopicConfig;

/// A partition's log as its owner holds it.
pub(super) enum OwnedLog<E: Env> {
    /// Nothing was ever appended to the log; most of its files don't exist yet.
    Fresh(FreshLog<E>),
    /// The log is open for appends.
    Open(Box<Log<E>>),
}

/// Topics that were deleted, by committed records.
pub type DeletedTopics = OrdSet<Uuid>;

/// A partition that this broker must serve.
pub struct Assignment<E: Env> {
    /// The topic's id.
    pub topic_id: Uuid,
    /// The partition's folder in its log directory.
    pub folder: Box<str>,
    /// Its log directory; `None` if that could not be opened at the start.
    pub log_dir: Option<AssignedLogDir<E>>,
    /// The leader epoch.
    pub leader_epoch: LeaderEpoch,
    /// The replicas.
    pub replicas: Vec<NodeId>,
    /// The in-sync replicas.
    pub isr: Vec<NodeId>,
    /// The topic's resolved configuration.
    pub config: Arc<TopicConfig>,
}

/// The log directory of an assigned partition, with what it recorded of the partition.
pub struct AssignedLogDir<E: Env> {
    /// The directory's logs.
    pub logs: LogDir<E>,
    /// The directory's checkpoint of the log; `None` if there is none, or if the log was opened since the start.
    pub recorded: Option<LogCheckpoint>,
    /// Whether the folder existed at the start.
    pub has_folder: bool,
    /// Topics deleted before this partition was assigned.
    pub deleted: DeletedTopics,
    /// Permits that bound how many logs of this directory are opened at a time.
    pub openings: Arc<Semaphore>,
}

/// The report of a log that can't be deleted.
pub const NOT_DELETED: &str = "log not deleted; it will be tried again";

impl<E: Env> Assignment<E> {
    pub(super) fn leader(&self, node: NodeId, log: &OwnedLog<E>) -> Leader {
        let (start, ackable) = match log {
            OwnedLog::Fresh(_) => (Offset(0), Offset(0)),
            OwnedLog::Open(log) => (log.log_start(), log.ackable().offset()),
        };
        let mut leader = Leader::new(
            self.leader_epoch,
            self.replicas.iter().copied(),
            self.isr.iter().copied(),
            self.config.min_insync_replicas,
            start,
        );
        leader.on_ackable(node, ackable);
        leader
    }

    /// The result of closing a log that was never opened: the state is that of the last stop.
    pub(super) fn close_unopened(&self) -> CloseResult {
        match &self.log_dir {
            Some(AssignedLogDir {
                recorded: Some(recorded),
                ..
            }) if recorded.clean => CloseResult::Clean(Some(recorded.clone())),
            // The log of a new partition was not created.
            Some(AssignedLogDir {
                recorded: None,
                has_folder: false,
                ..
            }) => CloseResult::Clean(None),
            _ => CloseResult::Unclean,
        }
    }

    /// Deletes a log that is not open. Returns whether it is gone.
    pub(super) async fn delete(&self, error_log: &ErrorLog) -> bool {
        let Some(log_dir) = &self.log_dir else {
            // The directory is missing. The folder is set aside when the directory is back.
            return true;
        };
        let after = Duration::from_millis(self.config.log.file_delete_delay_ms);
        match log_dir.logs.delete_log(&self.folder, after).await {
            Err(LogError::Io(e)) if e.kind() == ErrorKind::NotFound => true,
            Err(error) => {
                let what = format_args!("{}: {error}", self.folder);
                error_log.record(NOT_DELETED, &what);
                false
            }
            Ok(()) => true,
        }
    }

    /// Opens the existing log, or creates one.
    ///
    /// # Errors
    /// `LogError::Malformed` if the log may have lost records or belongs to another topic by one of its files only; IO
    /// errors.
    pub(super) async fn open(&self, error_log: &ErrorLog) -> Result<OwnedLog<E>, LogError> {
        let log_dir = self.log_dir.as_ref().expect("the caller checked it");
        let (logs, folder) = (&log_dir.logs, &*self.folder);
        match logs.dir().list(folder).await {
            Ok(_) => {}
            Err(e) if e.kind() == ErrorKind::NotFound => {
                self.check_not_lost(log_dir.recorded.as_ref())?;
                return self.create(logs).await;
            }
            Err(e) => return Err(e.into()),
        }
        let recorded = log_dir.recorded.clone().unwrap_or_default();
        if let Some(fresh) = logs.fresh(folder, self.topic_id, &recorded).await? {
            brokkr_types::reached!("a fresh log was found");
            return Ok(OwnedLog::Fresh(fresh));
        }
        let mut id = logs.topic_id(folder).await?;
        if id.is_zero() {
            // Only the checkpoint has the id.
            id = recorded.topic_id;
        }
        if !id.is_zero() && id != self.topic_id {
            let by_manifest = logs.topic_id_by_manifest(folder).await?;
            // A file with a checksum says that the log is this topic's, so `partition.metadata`, which has none, is wrong.
            if recorded.topic_id == self.topic_id || by_manifest == self.topic_id {
                return Err(LogError::Malformed {
                    file: format!("{folder}/partition.metadata"),
                    what: format!(
                        "it says topic id {id}, but this is the log of topic id {}: put the right file back, or remove it",
                        self.topic_id
                    ),
                });
            }
            // R11: the log of an earlier topic of the same name is not this topic's.
            self.delete_or_set_aside(log_dir, error_log, id).await?;
            return self.create(logs).await;
        }
        let (mut log, recovery) = logs.open_log(folder, &self.config.log, &recorded).await?;
        if recovery.clean {
            brokkr_types::reached!("a log opened without a scan");
        } else {
            tracing::info!(log = folder, ?recovery, "recovered");
        }
        if log.topic_id().is_zero() {
            if id != self.topic_id && log.log_end() > Offset(0) {
                drop(log);
                self.delete_or_set_aside(log_dir, error_log, Uuid::ZERO).await?;
                return self.create(logs).await;
            }
            // The checkpoint says that it is this topic's; or the log is empty, since a crash interrupted its creation.
            log.set_topic_id(self.topic_id).await?;
            brokkr_types::reached!("a lost partition.metadata was written again");
            if error_log.is_first_of("partition.metadata written again", folder) {
                tracing::warn!(log = folder, id = %self.topic_id, "partition.metadata written again");
            }
        }
        log.begin_epoch(self.leader_epoch);
        Ok(OwnedLog::Open(Box::new(log)))
    }

    async fn create(&self, logs: &LogDir<E>) -> Result<OwnedLog<E>, LogError> {
        let fresh = FreshLog::create(logs, &self.folder, self.topic_id).await?;
        Ok(OwnedLog::Fresh(fresh))
    }

    async fn delete_or_set_aside(
        &self,
        log_dir: &AssignedLogDir<E>,
        error_log: &ErrorLog,
        id: Uuid,
    ) -> Result<(), LogError> {
        let delay = Duration::from_millis(self.config.log.file_delete_delay_ms);
        let is_deleted = log_dir.deleted.contains(&id);
        delete_or_set_aside(&log_dir.logs, error_log, &self.folder, id, is_deleted, delay).await
    }

    /// Checks that a missing folder had no durable records.
    fn check_not_lost(&self, recorded: Option<&LogCheckpoint>) -> Result<(), LogError> {
        let is_this_topics = |r: &&LogCheckpoint| r.topic_id == self.topic_id || r.foreign;
        let Some(lost) = recorded.filter(|r| is_this_topics(r) && r.recovery_point > Some(Offset(0))) else {
            return Ok(());
        };
        Err(LogError::Malformed {
            file: self.folder.to_string(),
            what: format!(
                "the folder is missing, though its records were durable up to offset {}: put it back, or delete the topic",
                lost.recovery_point.unwrap_or_default()
            ),
        })
    }
}

/// Deletes the folder of a log that no partition here has, if its topic `id` (zero: unknown) was deleted; else sets it
/// aside.
pub async fn delete_or_set_aside<E: Env>(
    logs: &LogDir<E>,
    error_log: &ErrorLog,
    folder: &str,
    id: Uuid,
    is_deleted: bool,
    delay: Duration,
) -> Result<(), LogError> {
    if is_deleted {
        tracing::info!(folder, %id, "deleting what a deleted topic left");
        brokkr_types::reached!("what a deleted topic left was deleted");
        return logs.delete_log(folder, delay).await;
    }
    let stray = logs.set_aside(folder).await?;
    brokkr_types::reached!("a folder of no partition was set aside");
    if error_log.is_first_of("a log that no partition has: set aside", folder) {
        tracing::error!(
            folder,
            %id,
            stray,
            "no partition of the cluster has this log, and no record says that its topic was deleted: set aside. To have its \
             records back, restore the cluster metadata that knows the topic, stop, and give the folder its old name; else \
             remove it"
        );
    }
    Ok(())
}

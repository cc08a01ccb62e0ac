//! How an owner comes by its log, and what it does without one.
//!
//! A folder is removed only if a committed record says that its topic was deleted. Every other folder that is not the partition's is
//! set aside as Kafka does, `TOPIC-N.UNIQUEID-stray`. A log is made only where there is nothing, and not where records were durable.

use std::sync::Arc;
use std::time::Duration;

use brokkr_env::{Env, ErrorKind, ErrorLog};
use brokkr_log::{FreshLog, LogCheckpoint, LogDir, LogError};
use brokkr_replication::Leader;
use brokkr_types::{LeaderEpoch, NodeId, Offset, Uuid};
use brokkr_wire::ErrorCode;
use imbl::OrdSet;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::owner::{OwnedLog, Owner};
use super::{Closed, Control, Message, PartitionState, Refused};
use crate::config::TopicConfig;

/// How long an owner waits before it tries again to open a log: at first, and at most.
const RETRY_AFTER: Duration = Duration::from_secs(1);
const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);

/// Topics that were deleted, by committed records.
pub type DeletedTopics = OrdSet<Uuid>;

/// A partition that this broker is to serve.
pub struct Assignment<E: Env> {
    /// The topic's id.
    pub topic_id: Uuid,
    /// The partition's folder in its log directory.
    pub folder: Box<str>,
    /// Its log directory; `None` where that is none of those that could be opened.
    pub place: Option<Place<E>>,
    /// The leader's epoch.
    pub leader_epoch: LeaderEpoch,
    /// The brokers that hold it.
    pub replicas: Vec<NodeId>,
    /// Those in sync.
    pub isr: Vec<NodeId>,
    /// The topic's configuration.
    pub config: Arc<TopicConfig>,
}

/// The log directory of a partition.
pub struct Place<E: Env> {
    /// Its logs.
    pub logs: LogDir<E>,
    /// What it remembers of the log, if the log was not opened in this life.
    pub recorded: Option<LogCheckpoint>,
    /// Whether the start found a folder of this name.
    pub has_folder: bool,
    /// Topics that were deleted before this partition was assigned.
    pub deleted: DeletedTopics,
    /// Permits for opening logs of this directory.
    pub openings: Arc<Semaphore>,
}

/// What an owner without an open log does next.
enum Next {
    TryAgain,
    End,
}

impl<E: Env> Owner<E> {
    /// Opens the log, however often that takes. `None`: the owner is to end.
    pub(super) async fn open(&mut self, assignment: &mut Assignment<E>) -> Option<(OwnedLog<E>, Leader)> {
        let mut attempts = 0u32;
        loop {
            let turn = match assignment.place.as_ref().map(|place| Arc::clone(&place.openings)) {
                Some(openings) => Some(self.turn(openings, assignment).await?),
                None => None,
            };
            let Some(turn) = turn.flatten() else {
                // Without a directory, or its directory failed: for good.
                self.go_offline();
                self.without_log(assignment, None).await;
                return None;
            };
            let opened = assignment.open(&self.error_log).await;
            drop(turn);
            let error = match opened {
                Ok(mut log) => {
                    let leader = assignment.leader(self.node, &log);
                    if let OwnedLog::Open(log) = &mut log {
                        log.set_high_watermark(leader.high_watermark());
                    }
                    return Some((log, leader));
                }
                Err(error) => error,
            };
            brokkr_types::reached!("a log went offline when it was opened");
            let retry_at = may_pass(&error).then(|| {
                let after = (RETRY_AFTER * 2u32.saturating_pow(attempts)).min(RETRY_AFTER_MAX);
                let what = format_args!("{}, again after {after:?}: {error}", assignment.folder);
                self.error_log
                    .record("offline: its log can't be opened now; tried again", &what);
                self.env.now() + after
            });
            if retry_at.is_none() {
                self.log_damaged(&assignment.folder, &error);
            }
            attempts += 1;
            self.go_offline();
            match self.without_log(assignment, retry_at).await {
                Next::TryAgain => {}
                Next::End => return None,
            }
        }
    }

    /// An operator has to look at each of these logs, so each has a line of its own, up to a limit.
    fn log_damaged(&self, folder: &str, error: &LogError) {
        if self
            .error_log
            .is_first_of("offline: its log can't be opened", folder)
        {
            tracing::error!(log = folder, %error, "offline: its log can't be opened; nothing of it was changed");
        } else {
            let what = format_args!("{folder}: {error}");
            self.error_log
                .record("offline: still more logs can't be opened", &what);
        }
    }

    /// Waits for a permit to open the log. `None`: the owner is to end. Without a permit: the log directory failed.
    async fn turn(
        &mut self,
        openings: Arc<Semaphore>,
        assignment: &mut Assignment<E>,
    ) -> Option<Option<OwnedSemaphorePermit>> {
        let mut turn = std::pin::pin!(openings.acquire_owned());
        loop {
            tokio::select! {
                biased;
                control = self.control.recv() => match control? {
                    Control::Configure(config) => assignment.config = config,
                    Control::Retention => {}
                    Control::Abandon => return Some(None),
                    Control::Close(reply) => {
                        drop(reply.send(assignment.closed_unopened()));
                        return None;
                    }
                    Control::Delete(reply) => {
                        assignment.delete(&self.error_log).await;
                        let _ = reply.send(());
                        return None;
                    }
                },
                turn = &mut turn => return Some(Some(turn.expect("it is never closed"))),
            }
        }
    }

    /// Publishes that nothing is served, and says so to the requests that wait.
    pub(super) fn go_offline(&mut self) {
        self.outlet.publish(PartitionState::Offline);
        self.outlet.tell(true);
    }

    /// Refuses everything until the log is to be opened again, or the owner is to end.
    async fn without_log(
        &mut self,
        assignment: &mut Assignment<E>,
        retry_at: Option<brokkr_types::Instant>,
    ) -> Next {
        let retry = async {
            match retry_at {
                Some(at) => self.env.sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        let mut retry = std::pin::pin!(retry);
        loop {
            tokio::select! {
                biased;
                control = self.control.recv() => match control {
                    None => return Next::End,
                    Some(Control::Configure(config)) => assignment.config = config,
                    Some(Control::Retention | Control::Abandon) => {}
                    Some(Control::Close(reply)) => {
                        // It is looked at again at the next start.
                        drop(reply.send(Closed::Unclean));
                        return Next::End;
                    }
                    Some(Control::Delete(reply)) => {
                        // A topic of the same name would have its log there.
                        assignment.delete(&self.error_log).await;
                        let _ = reply.send(());
                        return Next::End;
                    }
                },
                message = self.queue.recv() => match message {
                    None => return Next::End,
                    Some(message) => refuse(message),
                },
                () = &mut retry => return Next::TryAgain,
            }
        }
    }
}

pub(super) fn refuse(message: Message) {
    let refused = Refused::of(ErrorCode::KAFKA_STORAGE_ERROR);
    match message {
        Message::Append(append) => drop(append.reply.send(Err(refused))),
        Message::DeleteRecords(_, reply) => drop(reply.send(Err(refused))),
        Message::Producers(reply) => drop(reply),
    }
}

/// Whether an error may pass by itself.
fn may_pass(error: &LogError) -> bool {
    match error {
        LogError::Io(e) => !matches!(e.kind(), ErrorKind::Poisoned | ErrorKind::Gone),
        _ => false,
    }
}

impl<E: Env> Assignment<E> {
    fn leader(&self, node: NodeId, log: &OwnedLog<E>) -> Leader {
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

    /// How a log is closed that was not opened yet: as the last stop left it.
    fn closed_unopened(&self) -> Closed {
        match &self.place {
            Some(Place {
                recorded: Some(recorded),
                ..
            }) if recorded.clean => Closed::Clean(Some(recorded.clone())),
            // The log of a new partition was not made yet.
            Some(Place {
                recorded: None,
                has_folder: false,
                ..
            }) => Closed::Clean(None),
            _ => Closed::Unclean,
        }
    }

    /// Deletes a log that nobody has open.
    async fn delete(&self, error_log: &ErrorLog) {
        let Some(place) = &self.place else {
            // It is in a directory that is not there: set aside when that comes back.
            return;
        };
        let after = Duration::from_millis(self.config.log.file_delete_delay_ms);
        match place.logs.delete_log(&self.folder, after).await {
            Err(LogError::Io(e)) if e.kind() == ErrorKind::NotFound => {}
            Err(error) => {
                let what = format_args!("{}: {error}", self.folder);
                error_log.record("log not deleted; a start will", &what);
            }
            Ok(()) => {}
        }
    }

    /// Opens the log that is there, or makes one.
    async fn open(&self, error_log: &ErrorLog) -> Result<OwnedLog<E>, LogError> {
        let place = self.place.as_ref().expect("the caller looked");
        let (logs, folder) = (&place.logs, &*self.folder);
        match logs.dir().list(folder).await {
            Ok(_) => {}
            Err(e) if e.kind() == ErrorKind::NotFound => {
                self.is_not_lost(place.recorded.as_ref())?;
                return self.create(logs).await;
            }
            Err(e) => return Err(e.into()),
        }
        let recorded = place.recorded.clone().unwrap_or_default();
        if let Some(fresh) = logs.fresh(folder, self.topic_id, &recorded).await? {
            brokkr_types::reached!("a fresh log was found");
            return Ok(OwnedLog::Fresh(fresh));
        }
        let mut id = logs.topic_id(folder).await?;
        if id.is_zero() {
            // Only the checkpoint knows.
            id = recorded.topic_id;
        }
        if !id.is_zero() && id != self.topic_id {
            let by_manifest = logs.topic_id_by_manifest(folder).await?;
            // What has a checksum says that the log is this topic's: `partition.metadata`, which has none, is wrong.
            if recorded.topic_id == self.topic_id || by_manifest == self.topic_id {
                return Err(LogError::Malformed {
                    file: format!("{folder}/partition.metadata"),
                    what: format!(
                        "it says topic id {id}, but this is the log of topic id {}: put the right file back, or remove it",
                        self.topic_id
                    ),
                });
            }
            // R11: what a topic of the same name left behind is not this one's.
            self.remove_or_set_aside(place, error_log, id).await?;
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
                self.remove_or_set_aside(place, error_log, Uuid::ZERO).await?;
                return self.create(logs).await;
            }
            // The checkpoint knows it for this topic's; or there is nothing in it: a creation that a crash interrupted.
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

    async fn remove_or_set_aside(
        &self,
        place: &Place<E>,
        error_log: &ErrorLog,
        id: Uuid,
    ) -> Result<(), LogError> {
        let delay = Duration::from_millis(self.config.log.file_delete_delay_ms);
        let is_deleted = place.deleted.contains(&id);
        remove_or_set_aside(&place.logs, error_log, &self.folder, id, is_deleted, delay).await
    }

    /// A folder that is missing must not be one that had records.
    fn is_not_lost(&self, recorded: Option<&LogCheckpoint>) -> Result<(), LogError> {
        let is_its = |r: &&LogCheckpoint| r.topic_id == self.topic_id || r.foreign;
        let Some(lost) = recorded.filter(|r| is_its(r) && r.recovery_point > Some(Offset(0))) else {
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

/// Removes a folder whose log is of the topic `id` (zero: not known) and of no partition here, if that topic was deleted; else sets
/// it aside.
pub async fn remove_or_set_aside<E: Env>(
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

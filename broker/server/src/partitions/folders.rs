//! The folders of partitions: opened, made, deleted, set aside.
//!
//! Nothing unknown is deleted. A folder is removed only if a committed record says that its topic was deleted: one that this
//! life saw, or that the start found in the metadata log (whose snapshots are written AFTER what they leave out is gone from
//! the disk, but for log directories that are away). Every other folder that belongs to no partition is set aside as Kafka does,
//! `TOPIC-N.UNIQUEID-stray`, and stays until an operator removes it. A log is made only where there is nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use brokkr_env::{Env, ErrorKind};
use brokkr_log::{Log, LogConfig, LogError, Recorded};
use brokkr_metadata::topic_name::INTERNAL_TOPICS;
use brokkr_metadata::{Image, PartitionImage, TopicImage};
use brokkr_replication::Leader;
use brokkr_types::{Instant, LeaderEpoch, NodeId, Offset, Uuid};
use tokio::sync::oneshot;

use super::{Hosted, Manager, Route, Routes, folder};
use crate::controller;
use crate::partition::{self, Message};

/// How long what failed for want of something waits before it is tried again: at first, and at most.
const RETRY_AFTER: Duration = Duration::from_secs(1);
const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);
/// Logs that can't be opened are logged one by one up to this number; those behind it as repeated failures.
const DAMAGED_LINES_MAX: usize = 100;

/// What a manager knows of folders, between two images.
#[derive(Default)]
pub struct Known {
    /// Topics that were deleted, by committed records.
    pub deleted: BTreeSet<Uuid>,
    /// Partitions whose log could not be opened or made, for a reason that may pass, and how often that was tried.
    pub failed: BTreeMap<(Uuid, i32), u32>,
    /// When they are tried again.
    pub retry_at: Option<Instant>,
    /// How many logs could not be opened, for a reason that stays.
    damaged: usize,
    /// Folders of which what the directory remembers holds no more: their logs were opened, or went.
    used: BTreeSet<String>,
    /// Whether the folders that a start found were looked through.
    swept: bool,
    /// The directory (by its place in [`crate::log_dir::LogDirs::online`]) of each folder that was placed in one.
    placed: BTreeMap<String, usize>,
}

/// Whether the logs of a topic are left as they are: those of Kafka's coordinators, which this broker doesn't have.
pub fn is_left_alone(topic: &str) -> bool {
    INTERNAL_TOPICS.contains(&topic)
}

/// Whether an error may pass by itself.
fn may_pass(error: &LogError) -> bool {
    match error {
        LogError::Io(e) => !matches!(e.kind(), ErrorKind::Poisoned | ErrorKind::Gone),
        _ => false,
    }
}

impl<E: Env> Manager<E> {
    /// Waits until something that failed is due again. Cancel-safe.
    pub(super) async fn retry_due(&self) {
        match self.known.retry_at {
            Some(at) => self.env.sleep_until(at).await,
            None => std::future::pending().await,
        }
    }

    /// The directory that a partition has its log in: that of its record, found or not. Of a partition whose record has none it
    /// is where its folder is, or else the one with the fewest; but a partition that may be in a directory that failed at the
    /// start is nowhere.
    pub(super) fn place(&mut self, image: &PartitionImage, folder: &str) -> Option<usize> {
        let at = self.find(image, folder).or_else(|| {
            let free = image.directory(self.node.0).is_none() && self.log_dirs.failed.is_empty();
            if self.log_dirs.online.len() == 1 {
                return free.then_some(0);
            }
            let has = |at: &usize| self.known.placed.values().filter(|p| *p == at).count();
            (0..self.log_dirs.online.len()).filter(|_| free).min_by_key(has)
        })?;
        self.known.placed.insert(folder.to_owned(), at);
        Some(at)
    }

    fn find(&self, image: &PartitionImage, folder: &str) -> Option<usize> {
        let online = &self.log_dirs.online;
        match image.directory(self.node.0) {
            Some(id) => online.iter().position(|dir| dir.id() == id),
            None => {
                let placed = self.known.placed.get(folder).copied();
                placed.or_else(|| online.iter().position(|dir| dir.folders.contains(folder)))
            }
        }
    }

    /// A partition whose log directory is not there. It is never made anew in another one.
    pub(super) fn without_directory(&self, image: &PartitionImage, folder: &str) -> Hosted<E> {
        let directory = image.directory(self.node.0).unwrap_or_default();
        self.noise.tell(
            "offline: its log directory is none of those that could be opened. Bring it back and start again, or delete the topic",
            &format_args!("{folder} in {directory}"),
        );
        Hosted::Offline
    }

    /// Ends the owners of the partitions of a log directory that failed: what waits for them is answered.
    pub(super) async fn abandon(&self, directory: Uuid, routes: &Routes<E>) {
        for (_, folder, handle) in routes.handles().filter(|(of, ..)| *of == directory) {
            self.noise.tell(
                "offline: its log directory failed",
                &format_args!("{folder} in {directory}"),
            );
            let (reply, _) = oneshot::channel();
            handle.send(Message::Close { reply }).await;
        }
    }

    /// Takes up what became of a partition's log: one that failed and may not the next time is tried again.
    pub(super) fn note(
        &mut self,
        at: usize,
        partition: (Uuid, i32),
        folder: &str,
        hosted: Result<Hosted<E>, LogError>,
    ) -> Hosted<E> {
        self.log_dirs.online[at].folders.remove(folder);
        let error = match hosted {
            Ok(hosted) => {
                self.known.failed.remove(&partition);
                self.known.used.insert(folder.to_owned());
                return hosted;
            }
            Err(error) => error,
        };
        // It may be there by now, in part.
        self.log_dirs.online[at].folders.insert(folder.to_owned());
        brokkr_types::reached!("a log went offline when it was opened");
        if may_pass(&error) {
            let times = self.known.failed.entry(partition).or_insert(0);
            let after = (RETRY_AFTER * 2u32.saturating_pow(*times)).min(RETRY_AFTER_MAX);
            *times += 1;
            let what = format_args!("{folder}, again after {after:?}: {error}");
            self.noise
                .tell("offline: its log can't be opened now; tried again", &what);
            let at = self.env.now() + after;
            self.known.retry_at = Some(self.known.retry_at.map_or(at, |before| before.min(at)));
        } else {
            self.known.failed.remove(&partition);
            self.tell_damaged(folder, &error);
        }
        Hosted::Offline
    }

    /// An operator has to look at each of these logs, so each has a line of its own, up to a limit.
    fn tell_damaged(&mut self, folder: &str, error: &LogError) {
        self.known.damaged += 1;
        if self.known.damaged <= DAMAGED_LINES_MAX {
            tracing::error!(log = folder, %error, "offline: its log can't be opened; nothing of it was changed");
        } else {
            let what = format_args!("{folder}: {error}");
            self.noise.tell("offline: still more logs can't be opened", &what);
        }
    }

    /// Looks once through the folders that the start found: what no partition of the image has is deleted if its topic was, and
    /// else set aside.
    pub(super) async fn sweep(&mut self, image: &Image) {
        if std::mem::replace(&mut self.known.swept, true) {
            return;
        }
        let is_known = |name: &str, at: usize| {
            image.topics.iter().any(|topic| {
                let rest = name.strip_prefix(&*topic.name).and_then(|r| r.strip_prefix('-'));
                rest.and_then(|r| r.parse::<i32>().ok())
                    .and_then(|index| topic.partition(index))
                    .is_some_and(|p| is_left_alone(&topic.name) || self.find(p, name) == Some(at))
            })
        };
        let mut unknown = Vec::new();
        for (at, dir) in self.log_dirs.online.iter().enumerate() {
            let names = dir.folders.iter().filter(|name| *name != controller::FOLDER);
            unknown.extend(
                names
                    .filter(|name| !is_known(name, at))
                    .map(|name| (at, name.clone())),
            );
        }
        for (at, name) in &unknown {
            let gone = match self.log_dirs.online[*at].logs.topic_id(name).await {
                Ok(id) => self.remove_or_set_aside(*at, name, id, Duration::ZERO).await,
                Err(error) => Err(error),
            };
            match gone {
                Ok(()) => drop(self.log_dirs.online[*at].folders.remove(name)),
                Err(error) => tracing::warn!(folder = name, %error, "of no partition, and left where it is"),
            }
        }
    }

    /// A folder whose log is of the topic `id` (zero: nobody knows) and of no partition here.
    async fn remove_or_set_aside(
        &self,
        at: usize,
        folder: &str,
        id: Uuid,
        delay: Duration,
    ) -> Result<(), LogError> {
        let logs = &self.log_dirs.online[at].logs;
        if self.known.deleted.contains(&id) {
            tracing::info!(folder, %id, "deleting what a deleted topic left");
            brokkr_types::reached!("what a deleted topic left was deleted");
            return logs.delete_log(folder, delay).await;
        }
        let stray = logs.set_aside(folder).await?;
        brokkr_types::reached!("a folder of no partition was set aside");
        if self
            .noise
            .has_own_line("a log that no partition has: set aside", folder)
        {
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

    pub(super) async fn host(
        &self,
        at: usize,
        topic: &TopicImage,
        index: i32,
        image: &PartitionImage,
        config: LogConfig,
        min_insync: usize,
    ) -> Result<Hosted<E>, LogError> {
        let mut log = self.open(at, topic, &folder(&topic.name, index), config).await?;
        let epoch = LeaderEpoch(image.leader_epoch);
        let logs = &self.log_dirs.online[at].logs;
        logs.assign_epoch(&mut log, epoch).await?;
        let end = log.ackable().offset();
        let nodes = |ids: &[i32]| ids.iter().map(|id| NodeId(*id)).collect::<Vec<_>>();
        let mut leader = Leader::new(
            epoch,
            nodes(&image.replicas),
            nodes(&image.isr),
            min_insync,
            log.log_start(),
        );
        leader.on_ackable(self.node, end);
        Ok(Hosted::Here(partition::start(
            &self.env,
            &self.noise,
            self.node,
            log,
            leader,
        )))
    }

    async fn open(
        &self,
        at: usize,
        topic: &TopicImage,
        folder: &str,
        config: LogConfig,
    ) -> Result<Log<E>, LogError> {
        let dir = &self.log_dirs.online[at];
        let logs = &dir.logs;
        let recorded = dir.recorded(folder);
        let recorded = recorded.filter(|_| !self.known.used.contains(folder));
        let exists =
            dir.folders.contains(folder) && logs.dir().list("").await?.iter().any(|e| e.name == folder);
        if !exists {
            not_lost(topic, folder, recorded)?;
            return Log::create(logs, folder, topic.id, config).await;
        }
        let recorded = recorded.cloned().unwrap_or_default();
        let mut id = logs.topic_id(folder).await?;
        if id.is_zero() {
            // Only the checkpoint knows.
            id = recorded.topic_id;
        }
        let delay = Duration::from_millis(config.file_delete_delay_ms);
        if !id.is_zero() && id != topic.id {
            // What has a checksum says that the log is this topic's: `partition.metadata`, which has none, is wrong.
            if recorded.topic_id == topic.id || logs.topic_id_by_manifest(folder).await? == topic.id {
                return Err(LogError::Malformed {
                    file: format!("{folder}/partition.metadata"),
                    what: format!(
                        "it says topic id {id}, but this is the log of topic id {}: put the right file back, or remove it",
                        topic.id
                    ),
                });
            }
            // R11: what a topic of the same name left behind is not this one's.
            self.remove_or_set_aside(at, folder, id, delay).await?;
            return Log::create(logs, folder, topic.id, config).await;
        }
        let (mut log, recovery) = logs.open_log(folder, &config, &recorded).await?;
        if recovery.clean {
            brokkr_types::reached!("a log opened without a scan");
        } else {
            tracing::info!(log = folder, ?recovery, "recovered");
        }
        if !log.topic_id().is_zero() {
            return Ok(log);
        }
        if id == topic.id || log.log_end() == Offset(0) {
            // The checkpoint knows it for this topic's; or there is nothing in it: a creation that a crash interrupted.
            log.set_topic_id(topic.id).await?;
            brokkr_types::reached!("a lost partition.metadata was written again");
            if self
                .noise
                .has_own_line("partition.metadata written again", folder)
            {
                tracing::warn!(log = folder, id = %topic.id, "partition.metadata written again");
            }
            return Ok(log);
        }
        drop(log);
        self.remove_or_set_aside(at, folder, Uuid::ZERO, delay).await?;
        Log::create(logs, folder, topic.id, config).await
    }

    pub(super) async fn delete(&mut self, route: &Route<E>) {
        self.known.deleted.insert(route.id);
        self.known.failed.retain(|(id, _), _| *id != route.id);
        let after = Duration::from_millis(route.config.log.file_delete_delay_ms);
        for (index, hosted) in route.partitions() {
            let folder = folder(&route.name, index);
            let Some(at) = self.known.placed.remove(&folder) else {
                // It is in a directory that is not there: set aside when that comes back.
                continue;
            };
            // Found again by a topic of the same name if the deletion fails, and by the next start.
            self.log_dirs.online[at].folders.insert(folder.clone());
            self.known.used.insert(folder.clone());
            match hosted {
                Hosted::Here(handle) => {
                    let (reply, deleted) = oneshot::channel();
                    if handle.send(Message::Delete { reply }).await {
                        drop(deleted.await);
                    }
                }
                // Nobody has it open, but it stands where a topic of the same name would have its log.
                Hosted::Offline => match self.log_dirs.online[at].logs.delete_log(&folder, after).await {
                    Err(error) if !is_gone(&error) => {
                        let what = format_args!("{folder}: {error}");
                        self.noise.tell("log not deleted; a start will", &what);
                    }
                    _ => {}
                },
                Hosted::Nowhere => {}
            }
        }
    }
}

fn is_gone(error: &LogError) -> bool {
    matches!(error, LogError::Io(e) if e.kind() == ErrorKind::NotFound)
}

/// A folder that is missing must not be one that had records.
fn not_lost(topic: &TopicImage, folder: &str, recorded: Option<&Recorded>) -> Result<(), LogError> {
    let lost =
        recorded.filter(|r| (r.topic_id == topic.id || r.foreign) && r.recovery_point > Some(Offset(0)));
    match lost {
        None => Ok(()),
        Some(lost) => Err(LogError::Malformed {
            file: folder.to_owned(),
            what: format!(
                "the folder is missing, though its records were durable up to offset {}: put it back, or delete the topic",
                lost.recovery_point.unwrap_or_default()
            ),
        }),
    }
}

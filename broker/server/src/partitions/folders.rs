//! Assigns partitions to log directories, and cleans up folders that belong to no partition.
//!
//! Unknown folders are never deleted. A folder is deleted only if a committed record says that its topic was deleted: a
//! record of this run, or one that the start found in the metadata log. (A metadata snapshot, which leaves the topic out,
//! is written AFTER the folders are gone from the disk, except in log directories that are missing.) Every other folder
//! that belongs to no partition is set aside as in Kafka, as `TOPIC-N.UNIQUEID-stray`, and stays until an operator removes
//! it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use brokkr_env::{Env, ErrorKind};
use brokkr_log::LogError;
use brokkr_log::checkpoint::split_folder;
use brokkr_metadata::{Image, PartitionImage, TopicImage};
use brokkr_types::{LeaderEpoch, NodeId, Uuid};
use brokkr_wire::Str;
use futures_util::stream::{self, StreamExt};
use tokio::sync::{Semaphore, oneshot};

use super::manager::PartitionManager;
use super::routes::{HostedPartition, Route};
use crate::config::TopicConfig;
use crate::log_dir::{METADATA_FOLDER, is_unmanaged_topic, partition_folder};
use crate::partition::{
    self, AssignedLogDir, Assignment, ControlMessage, DeletedTopics, delete_or_set_aside,
};

/// What the manager knows of partition folders.
#[derive(Default)]
pub struct FolderState {
    /// Topics that were deleted, by committed records.
    deleted: DeletedTopics,
    /// The names of topics that were deleted before this start, until the folders found at the start are checked.
    deleted_names: BTreeSet<Str>,
    /// Folders assigned since the start: the directory's checkpoint of them is out of date.
    assigned: BTreeSet<String>,
    /// Whether the folders found at the start were checked.
    is_swept: bool,
    /// The directory of each assigned folder, as an index of [`crate::log_dir::LogDirs::online`].
    dir_of_folder: BTreeMap<String, usize>,
    /// The number of assigned folders in each directory.
    folder_counts: Vec<usize>,
    /// Folders of deleted topics that could not be deleted, each with its directory and topic.
    undeleted: Vec<(usize, String, Uuid)>,
    /// Directories that failed: nothing in them can be deleted before a start.
    failed: BTreeSet<usize>,
    /// Permits for opening logs, for each directory.
    openings: Vec<Arc<Semaphore>>,
}

impl FolderState {
    /// Whether no folder of a deleted topic is left, except in directories that failed.
    pub(super) fn are_deleted(&self) -> bool {
        self.undeleted.is_empty()
    }

    /// A directory failed.
    pub(super) fn fail(&mut self, at: usize) {
        self.failed.insert(at);
        self.undeleted.retain(|(of, ..)| *of != at);
    }

    /// Adds topics that were deleted before this start.
    pub(super) fn add_deleted(&mut self, topics: Vec<(Uuid, Str)>) {
        for (id, name) in topics {
            self.deleted.insert(id);
            self.deleted_names.insert(name);
        }
    }
}

impl<E: Env> PartitionManager<E> {
    /// Assigns a partition to a directory: the one in its record, if it is online. A partition without a directory in its
    /// record goes where its folder is, or else to the directory with the fewest; but not if it may be in a directory that
    /// failed at the start.
    fn assign_dir(&mut self, image: &PartitionImage, folder: &str) -> Option<usize> {
        let online = self.log_dirs.online.len();
        self.folders.folder_counts.resize(online, 0);
        let at = self.find(image, folder).or_else(|| {
            let free = image.directory(self.node.0).is_none() && self.log_dirs.failed.is_empty();
            let counts = &self.folders.folder_counts;
            (0..online).filter(|_| free).min_by_key(|at| counts[*at])
        })?;
        if self.folders.dir_of_folder.insert(folder.to_owned(), at).is_none() {
            self.folders.folder_counts[at] += 1;
        }
        Some(at)
    }

    fn find(&self, image: &PartitionImage, folder: &str) -> Option<usize> {
        let online = &self.log_dirs.online;
        match image.directory(self.node.0) {
            Some(id) => online.iter().position(|dir| dir.id() == id),
            None => {
                let assigned = self.folders.dir_of_folder.get(folder).copied();
                assigned.or_else(|| online.iter().position(|dir| dir.folders.contains(folder)))
            }
        }
    }

    /// Starts the owner of a new partition. A partition whose log directory is missing is never created in another one.
    pub(super) fn start_partition(
        &mut self,
        topic: &TopicImage,
        index: i32,
        image: &PartitionImage,
        config: &Arc<TopicConfig>,
    ) -> HostedPartition<E> {
        let folder = partition_folder(&topic.name, index);
        let at = self.assign_dir(image, &folder);
        let directory = at.map(|at| self.log_dirs.online[at].id());
        let log_dir = at.map(|at| self.assigned_log_dir(at, &folder));
        if log_dir.is_none() {
            let directory = image.directory(self.node.0).unwrap_or_default();
            self.error_log.record(
                "offline: its log directory is none of those that could be opened. Bring it back and start again, or delete the topic",
                &format_args!("{folder} in {directory}"),
            );
        }
        let nodes = |ids: &[i32]| ids.iter().map(|id| NodeId(*id)).collect::<Vec<_>>();
        let assignment = Assignment {
            topic_id: topic.id,
            folder: folder.into(),
            log_dir,
            leader_epoch: LeaderEpoch(image.leader_epoch),
            replicas: nodes(&image.replicas),
            isr: nodes(&image.isr),
            config: Arc::clone(config),
        };
        let handle = partition::start(
            &self.env,
            &self.error_log,
            &self.changes,
            self.node,
            &self.config.limits,
            assignment,
        );
        HostedPartition { handle, directory }
    }

    fn assigned_log_dir(&mut self, at: usize, folder: &str) -> AssignedLogDir<E> {
        let opening_max = self.config.limits.partitions_opening;
        let openings = &mut self.folders.openings;
        openings.resize_with(self.log_dirs.online.len(), || {
            Arc::new(Semaphore::new(opening_max))
        });
        let is_new = self.folders.assigned.insert(folder.to_owned());
        let dir = &mut self.log_dirs.online[at];
        let has_folder = dir.folders.remove(folder);
        AssignedLogDir {
            logs: dir.logs.clone(),
            recorded: dir.recorded(folder).filter(|_| is_new).cloned(),
            has_folder,
            deleted: self.folders.deleted.clone(),
            openings: Arc::clone(&self.folders.openings[at]),
        }
    }

    /// Checks once the folders found at the start: deletes those of deleted topics, and sets aside the others that no
    /// partition of the image has.
    pub(super) async fn remove_unknown_folders(&mut self, image: &Image) {
        if std::mem::replace(&mut self.folders.is_swept, true) {
            return;
        }
        let is_known = |name: &str, at: usize| {
            let topic =
                split_folder(name).and_then(|(topic, index)| Some((image.topics.by_name(topic)?, index)));
            topic.is_some_and(|(topic, index)| {
                let partition = topic.partition(index);
                partition.is_some_and(|p| is_unmanaged_topic(&topic.name) || self.find(p, name) == Some(at))
            })
        };
        let mut unknown = Vec::new();
        for (at, dir) in self.log_dirs.online.iter().enumerate() {
            let names = dir.folders.iter().filter(|name| *name != METADATA_FOLDER);
            unknown.extend(
                names
                    .filter(|name| !is_known(name, at))
                    .map(|name| (at, name.clone())),
            );
        }
        for (at, name) in &unknown {
            match self.remove_unknown_folder(*at, name).await {
                Ok(()) => drop(self.log_dirs.online[*at].folders.remove(name)),
                Err(error) => tracing::warn!(folder = name, %error, "of no partition, and left where it is"),
            }
        }
        self.folders.deleted_names.clear();
    }

    /// Deletes or sets aside a folder that belongs to no partition.
    async fn remove_unknown_folder(&self, at: usize, name: &str) -> Result<(), LogError> {
        let dir = &self.log_dirs.online[at];
        let id = dir.logs.topic_id(name).await?;
        let is_deleted = self.folders.deleted.contains(&id);
        let topic = split_folder(name).map(|(topic, _)| topic);
        let has_deleted_name = topic.is_some_and(|topic| self.folders.deleted_names.contains(topic));
        if id.is_zero() && has_deleted_name && dir.logs.is_fresh(name).await? {
            // `partition.metadata` of a log that nothing was appended to may be missing. The directory's checkpoint may
            // be of an earlier topic of this name.
            brokkr_types::reached!("what a deleted topic left was deleted");
            return dir.logs.remove_fresh(name).await;
        }
        delete_or_set_aside(&dir.logs, &self.error_log, name, id, is_deleted, Duration::ZERO).await
    }

    /// Tries again to delete what could not be deleted.
    pub(super) async fn delete_again(&mut self) {
        for (at, folder, id) in std::mem::take(&mut self.folders.undeleted) {
            match self.delete_left(at, &folder, id).await {
                Ok(true) => {}
                Ok(false) => self.folders.undeleted.push((at, folder, id)),
                Err(error) => {
                    let what = format_args!("{folder}: {error}");
                    self.error_log.record(partition::NOT_DELETED, &what);
                    self.folders.undeleted.push((at, folder, id));
                }
            }
        }
    }

    /// Returns whether nothing is left.
    async fn delete_left(&self, at: usize, folder: &str, id: Uuid) -> Result<bool, LogError> {
        let logs = &self.log_dirs.online[at].logs;
        if self.folders.dir_of_folder.contains_key(folder) {
            // A new topic of this name has the folder now: whoever opens its log deletes what is there.
            return Ok(logs.topic_id(folder).await? != id);
        }
        match logs.delete_log(folder, Duration::ZERO).await {
            Err(LogError::Io(e)) if e.kind() == ErrorKind::NotFound => {}
            deleted => {
                deleted?;
                brokkr_types::reached!("a log that could not be deleted was deleted later");
            }
        }
        logs.dir().sync_dir("").await?;
        Ok(true)
    }

    /// Deletes the logs of deleted topics, some at a time. Durable when this returns.
    pub(super) async fn delete_logs(&mut self, deleted_topics: &[Arc<Route<E>>]) {
        let mut handles = Vec::new();
        for route in deleted_topics {
            self.folders.deleted.insert(route.id);
            for (index, partition) in route.partitions() {
                let folder = partition_folder(&route.name, index);
                let at = self.folders.dir_of_folder.remove(&folder);
                if let Some(at) = at {
                    self.folders.folder_counts[at] -= 1;
                }
                handles.push((partition.handle.clone(), at.map(|at| (at, folder, route.id))));
            }
        }
        let deleting = stream::iter(handles).map(|(handle, place)| async move {
            let (reply, deleted) = oneshot::channel();
            let sent = handle.send_control(ControlMessage::Delete(reply)).await;
            let is_gone = sent && deleted.await.unwrap_or(false);
            place.filter(|_| !is_gone)
        });
        let mut left: Vec<_> = deleting
            .buffered(self.config.limits.partitions_closing)
            .filter_map(|place| async { place })
            .collect()
            .await;
        left.retain(|(at, ..)| !self.folders.failed.contains(at));
        self.folders.undeleted.extend(left);
        // The folders of fresh logs must be durably gone as well, BEFORE a metadata snapshot leaves out the deletion.
        for dir in &self.log_dirs.online {
            if let Err(error) = dir.logs.dir().sync_dir("").await {
                self.error_log
                    .record("a log directory not synced after a deletion", &error);
            }
        }
    }
}

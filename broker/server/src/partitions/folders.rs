//! Where partitions have their logs, and what becomes of folders that no partition has.
//!
//! Nothing unknown is deleted. A folder is removed only if a committed record says that its topic was deleted: one that this
//! life saw, or that the start found in the metadata log (whose snapshots are written AFTER what they leave out is gone from
//! the disk, but for log directories that are away). Every other folder that belongs to no partition is set aside as Kafka does,
//! `TOPIC-N.UNIQUEID-stray`, and stays until an operator removes it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use brokkr_env::Env;
use brokkr_log::LogError;
use brokkr_log::checkpoint::split_folder;
use brokkr_metadata::{Image, PartitionImage, TopicImage};
use brokkr_types::{LeaderEpoch, NodeId, Uuid};
use brokkr_wire::Str;
use futures_util::stream::{self, StreamExt};
use tokio::sync::{Semaphore, oneshot};

use super::manager::{CLOSING_MAX, PartitionManager};
use super::routes::{HostedPartition, Route};
use crate::config::TopicConfig;
use crate::log_dir::{METADATA_FOLDER, is_unmanaged_topic, partition_folder};
use crate::partition::{
    self, AssignedLogDir, Assignment, ControlMessage, DeletedTopics, delete_or_set_aside,
};

/// Logs of one directory that are opened at the same time.
const OPENING_MAX: usize = 16;

/// What a manager knows of folders, between two images.
#[derive(Default)]
pub struct FolderState {
    /// Topics that were deleted, by committed records.
    deleted: DeletedTopics,
    /// The names of those that were deleted before this life, until the folders that the start found were looked through.
    deleted_names: BTreeSet<Str>,
    /// Folders of which what the directory remembers holds no more: they were assigned in this life.
    assigned: BTreeSet<String>,
    /// Whether the folders that a start found were looked through.
    is_swept: bool,
    /// The directory (by its place in [`crate::log_dir::LogDirs::online`]) of each folder that was placed in one.
    dir_of_folder: BTreeMap<String, usize>,
    /// How many folders were placed in each directory.
    folder_counts: Vec<usize>,
    /// For each directory, permits for opening logs.
    openings: Vec<Arc<Semaphore>>,
}

impl FolderState {
    /// These topics were deleted before this life.
    pub(super) fn add_deleted(&mut self, topics: Vec<(Uuid, Str)>) {
        for (id, name) in topics {
            self.deleted.insert(id);
            self.deleted_names.insert(name);
        }
    }
}

impl<E: Env> PartitionManager<E> {
    /// The directory that a partition has its log in: that of its record, found or not. Of a partition whose record has none it
    /// is where its folder is, or else the one with the fewest; but a partition that may be in a directory that failed at the
    /// start is nowhere.
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

    /// Starts the owner of a partition that is new here. A partition whose log directory is not there is never made anew in another.
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
        let handle = partition::start(&self.env, &self.error_log, &self.changes, self.node, assignment);
        HostedPartition { handle, directory }
    }

    fn assigned_log_dir(&mut self, at: usize, folder: &str) -> AssignedLogDir<E> {
        let openings = &mut self.folders.openings;
        openings.resize_with(self.log_dirs.online.len(), || {
            Arc::new(Semaphore::new(OPENING_MAX))
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

    /// Looks once through the folders that the start found: what no partition of the image has is deleted if its topic was, and
    /// else set aside.
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

    /// A folder of no partition.
    async fn remove_unknown_folder(&self, at: usize, name: &str) -> Result<(), LogError> {
        let dir = &self.log_dirs.online[at];
        let id = dir.logs.topic_id(name).await?;
        let is_deleted = self.folders.deleted.contains(&id);
        let recorded = dir.recorded(name).cloned().unwrap_or_default();
        let topic = split_folder(name).map(|(topic, _)| topic);
        let was_named_so = topic.is_some_and(|topic| self.folders.deleted_names.contains(topic));
        if id.is_zero() && was_named_so && dir.logs.is_fresh(name, &recorded).await? {
            // `partition.metadata` of a log that nothing was appended to need not be there any more.
            brokkr_types::reached!("what a deleted topic left was deleted");
            return dir.logs.remove_fresh(name).await;
        }
        delete_or_set_aside(&dir.logs, &self.error_log, name, id, is_deleted, Duration::ZERO).await
    }

    /// Deletes the logs of topics that are gone, some at a time. Durable when this returns.
    pub(super) async fn delete_logs(&mut self, deleted_topics: &[Arc<Route<E>>]) {
        let mut handles = Vec::new();
        for route in deleted_topics {
            self.folders.deleted.insert(route.id);
            for (index, partition) in route.partitions() {
                let folder = partition_folder(&route.name, index);
                if let Some(at) = self.folders.dir_of_folder.remove(&folder) {
                    self.folders.folder_counts[at] -= 1;
                }
                handles.push(partition.handle.clone());
            }
        }
        let deleting = stream::iter(handles).map(|handle| async move {
            let (reply, deleted) = oneshot::channel();
            if handle.send_control(ControlMessage::Delete(reply)).await {
                drop(deleted.await);
            }
        });
        deleting.buffered(CLOSING_MAX).for_each(|()| async {}).await;
        // What a fresh log leaves is gone for good too, BEFORE a snapshot of the metadata leaves out that the topic was deleted.
        for dir in &self.log_dirs.online {
            if let Err(error) = dir.logs.dir().sync_dir("").await {
                self.error_log
                    .record("a log directory not synced after a deletion", &error);
            }
        }
    }
}

//! The task that starts and ends the owners of partitions.
//!
//! It applies each committed metadata change: it starts and ends the owners of the affected partitions, and publishes the
//! image and its [`Routes`] as one [`ClusterView`]. It does not wait for logs to be opened; requests do. The controller
//! replies after the view is published, so a client that learns of a topic can use it.
//!
//! A deleted topic disappears from Metadata and from the routes at the same moment, BEFORE its logs are deleted. A client
//! whose request fails and that then requests Metadata never sees the old topic.

use std::collections::BTreeMap;
use std::sync::Arc;

use brokkr_env::{Env, ErrorLog, Published};
use brokkr_log::LogCheckpoint;
use brokkr_metadata::{Image, ImageDelta, TopicImage};
use brokkr_types::{NodeId, Uuid};
use brokkr_wire::Str;
use futures_util::stream::{self, StreamExt};
use tokio::sync::{mpsc, oneshot};

use super::folders::FolderState;
use super::routes::{ClusterView, Route, Routes};
use crate::config::{BrokerConfig, TopicConfig};
use crate::coop::Steps;
use crate::log_dir::{LogDirs, is_unmanaged_topic};
use crate::metrics::{TopicTraffic, Traffic};
use crate::partition::change_counter::ChangeCounter;
use crate::partition::{CloseResult, ControlMessage};

/// Commands to the manager.
pub enum ManagerCommand {
    /// Applies this image, which differs from the last by the delta. Replies after the view is published: whether the logs of all
    /// deleted topics are gone.
    ApplyImage(Arc<Image>, ImageDelta, oneshot::Sender<bool>),
    /// These topics were deleted before this start, by committed records: their folders may be deleted. BEFORE the first
    /// image.
    TopicsDeleted(Vec<(Uuid, Str)>),
    /// Runs retention on all partitions.
    Retention,
    /// A log directory, given by its id, failed: its partitions go offline.
    LogDirFailed(Uuid),
    /// Closes all logs and ends the task. The reply is what to record of each log, by directory id, for each directory
    /// whose logs were all closed cleanly.
    Close(oneshot::Sender<BTreeMap<Uuid, BTreeMap<String, LogCheckpoint>>>),
}

/// The state of the task.
pub struct PartitionManager<E: Env> {
    /// The environment.
    pub env: E,
    /// This broker's node id.
    pub node: NodeId,
    /// The rate-limited error log.
    pub error_log: Arc<ErrorLog>,
    /// Counts the states that partitions publish.
    pub changes: ChangeCounter,
    /// The log directories.
    pub log_dirs: LogDirs<E>,
    /// The broker's configuration.
    pub config: Arc<BrokerConfig>,
    /// The folders of partitions.
    pub folders: FolderState,
    /// The traffic of all topics.
    pub traffic: Arc<Traffic>,
}

/// Starts the task.
pub fn start<E: Env>(
    manager: PartitionManager<E>,
) -> (mpsc::Sender<ManagerCommand>, brokkr_env::Reader<ClusterView<E>>) {
    let (tx, rx) = mpsc::channel(16);
    let empty = Arc::new(Image::empty(&manager.log_dirs.metadata.identity.cluster_id));
    let views = Published::new(ClusterView::new(empty, Routes::new()));
    let reader = views.reader();
    let env = manager.env.clone();
    env.spawn("partitions", run(manager, views, rx));
    (tx, reader)
}

async fn run<E: Env>(
    mut manager: PartitionManager<E>,
    views: Published<ClusterView<E>>,
    mut commands: mpsc::Receiver<ManagerCommand>,
) {
    // Not a reader: that would pin deleted files between two changes.
    let latest = views.latest();
    while let Some(command) = commands.recv().await {
        let now = latest.get();
        match command {
            ManagerCommand::TopicsDeleted(topics) => manager.folders.add_deleted(topics),
            ManagerCommand::ApplyImage(image, delta, done) => {
                manager.delete_again().await;
                let mut routes = Routes::clone(&now.routes);
                let deleted = manager.remove_deleted(&mut routes, &image, &delta);
                if !deleted.is_empty() {
                    // BEFORE logs are deleted: otherwise a request could reach a log that is being deleted and fail with
                    // OFFSET_OUT_OF_RANGE.
                    let before = now.image.without_topics(deleted.iter().map(|route| route.id));
                    views.publish(ClusterView::new(Arc::new(before), routes.clone()));
                    manager.delete_logs(&deleted).await;
                }
                manager.remove_unknown_folders(&image).await;
                manager.apply_delta(&mut routes, &image, &delta).await;
                views.publish(ClusterView::new(image, routes));
                // The checkpoint must drop the deleted topics.
                manager.changes.increment();
                let _ = done.send(manager.folders.are_deleted());
            }
            ManagerCommand::Retention => {
                manager.delete_again().await;
                for (.., handle) in now.routes.handles() {
                    // A log that nothing was ever appended to has nothing to delete; its owner is not woken.
                    if handle.view_if_open().is_some_and(|view| view.recorded.is_some()) {
                        handle.send_control(ControlMessage::Retention).await;
                    }
                }
            }
            ManagerCommand::LogDirFailed(id) => {
                if let Some(at) = manager.log_dirs.online.iter().position(|dir| dir.id() == id) {
                    manager.folders.fail(at);
                }
                for (_, _, handle) in now.routes.handles().filter(|(of, ..)| *of == id) {
                    handle.send_control(ControlMessage::LogDirFailed).await;
                }
            }
            ManagerCommand::Close(done) => {
                let clean = {
                    let closing_max = manager.config.limits.partitions_closing;
                    close_all(&now.routes, &manager.log_dirs, closing_max).await
                };
                views.publish(ClusterView::new(Arc::clone(&now.image), Routes::new()));
                drop(done.send(clean));
                return;
            }
        }
    }
}

/// Closes all logs. Returns what to record of them, for each directory whose logs were all closed cleanly.
async fn close_all<E: Env>(
    routes: &Routes<E>,
    log_dirs: &LogDirs<E>,
    closing_max: usize,
) -> BTreeMap<Uuid, BTreeMap<String, LogCheckpoint>> {
    let handles = routes
        .handles()
        .map(|(directory, folder, handle)| (directory, folder, handle.clone()));
    let handles: Vec<_> = handles.collect();
    let closing = stream::iter(handles).map(|(directory, folder, handle)| async move {
        let (reply, closed) = oneshot::channel();
        let sent = handle.send_control(ControlMessage::Close(reply)).await;
        let closed = if sent { closed.await.ok() } else { None };
        (directory, folder, closed.unwrap_or(CloseResult::Unclean))
    });
    let mut closing = std::pin::pin!(closing.buffered(closing_max));
    let mut logs: BTreeMap<_, _> = log_dirs
        .online
        .iter()
        .map(|dir| (dir.id(), BTreeMap::new()))
        .collect();
    while let Some((directory, folder, closed)) = closing.next().await {
        match (closed, logs.get_mut(&directory)) {
            (CloseResult::Clean(Some(recorded)), Some(logs)) => drop(logs.insert(folder, recorded)),
            // An offline partition counts too: the next start must recover it.
            (CloseResult::Unclean, Some(_)) => drop(logs.remove(&directory)),
            (CloseResult::Clean(_), _) | (CloseResult::Unclean, None) => {}
        }
    }
    logs
}

impl<E: Env> PartitionManager<E> {
    /// Removes the topics from the routes that the image no longer has, and returns them.
    fn remove_deleted(
        &self,
        routes: &mut Routes<E>,
        image: &Image,
        delta: &ImageDelta,
    ) -> Vec<Arc<Route<E>>> {
        let is_deleted = |id: &Uuid| image.topics.by_id(*id).is_none();
        let deleted: Vec<Uuid> = match delta {
            ImageDelta::Everything => routes.names.keys().copied().filter(is_deleted).collect(),
            ImageDelta::Changed(changed) => changed.topics.iter().copied().filter(is_deleted).collect(),
        };
        deleted.into_iter().filter_map(|id| routes.remove(id)).collect()
    }

    /// Applies the delta to the topics that exist.
    async fn apply_delta(&mut self, routes: &mut Routes<E>, image: &Image, delta: &ImageDelta) {
        let mut configs = Configs::default();
        match delta.topics_touched(image) {
            None => {
                let mut steps = Steps::default();
                for topic in image.topics.iter() {
                    steps.step().await;
                    self.apply_topic(routes, image, topic, &mut configs).await;
                }
            }
            Some(topics) => {
                for topic in topics {
                    self.apply_topic(routes, image, &topic, &mut configs).await;
                }
            }
        }
    }

    async fn apply_topic(
        &mut self,
        routes: &mut Routes<E>,
        image: &Image,
        topic: &TopicImage,
        configs: &mut Configs,
    ) {
        if is_unmanaged_topic(&topic.name) {
            return;
        }
        let before = routes.by_id(topic.id);
        let config = configs.resolve(&self.config, image, topic, before.as_deref());
        let mut partitions = match &before {
            Some(route) => route.partitions.clone(),
            None => Vec::new(),
        };
        let is_configured = before.as_ref().is_some_and(|route| route.config != config);
        if is_configured {
            for partition in &partitions {
                let configure = ControlMessage::Configure(Arc::clone(&config));
                partition.handle.send_control(configure).await;
            }
        }
        let existing = partitions.len();
        for (index, partition) in topic.partitions().skip(existing) {
            partitions.push(self.start_partition(topic, index, partition, &config));
        }
        if before.is_none() || is_configured || partitions.len() > existing {
            let traffic = before.as_ref().map(|route| Arc::clone(&route.traffic));
            routes.insert(Route {
                name: topic.name.clone(),
                id: topic.id,
                config,
                traffic: traffic.unwrap_or_else(|| TopicTraffic::new(&self.traffic)),
                partitions,
            });
        }
    }
}

/// Resolved configurations of topics under one image. Topics without a configuration of their own share one.
#[derive(Default)]
struct Configs {
    default: Option<Arc<TopicConfig>>,
}

impl Configs {
    fn resolve<E: Env>(
        &mut self,
        config: &BrokerConfig,
        image: &Image,
        topic: &TopicImage,
        before: Option<&Route<E>>,
    ) -> Arc<TopicConfig> {
        let own = image.topic_configs(&topic.name).is_some();
        let resolve = || TopicConfig::resolve(config, image, &topic.name);
        let resolved = match own {
            true => Arc::new(resolve()),
            false => Arc::clone(self.default.get_or_insert_with(|| Arc::new(resolve()))),
        };
        match before {
            Some(route) if *route.config == *resolved => Arc::clone(&route.config),
            _ => resolved,
        }
    }
}

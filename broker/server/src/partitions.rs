//! The partitions of this broker, and the way to them.
//!
//! One task follows the metadata: of each committed change it starts and ends the owners of the partitions that it touches, and
//! publishes the image and its [`Routes`] as one [`ClusterView`]. It waits for no log to be opened: owners do that, and requests wait
//! for them. The controller answers a change after the view is published, so a client that learns of a topic finds it.
//!
//! A deleted topic leaves Metadata and the routes at the same moment, BEFORE its logs go. A client that is refused its data and
//! then asks Metadata never sees the old topic there.

mod folders;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use brokkr_env::{Env, ErrorLog, Published};
use brokkr_log::LogCheckpoint;
use brokkr_metadata::{Image, ImageDelta, TopicImage};
use brokkr_types::{Instant, LeaderEpoch, NodeId, Uuid};
use brokkr_wire::records::Rules;
use brokkr_wire::{ErrorCode, Str};
use futures_util::stream::{self, StreamExt};
use imbl::OrdMap;
use tokio::sync::{mpsc, oneshot};

pub use folders::{Known, is_left_alone};

use crate::changes::Changes;
use crate::config::{BrokerConfig, TopicConfig};
use crate::coop::Steps;
use crate::log_dir::LogDirs;
use crate::metrics::{TopicTraffic, Traffic};
use crate::partition::{Closed, Control, Handle, Refused, ViewRef};

/// Logs that are closed, or deleted, at the same time.
const CLOSING_MAX: usize = 16;
/// How long a request that says no time of its own waits for a log that is being opened.
pub const OPENING_WAIT: Duration = Duration::from_secs(10);

/// What the task is asked.
pub enum Ask {
    /// Follow this image, in which the delta changed. Answered after the view is published.
    Follow(Arc<Image>, ImageDelta, oneshot::Sender<()>),
    /// These topics were deleted, by committed records: what they left may go. BEFORE the first image.
    Deleted(Vec<(Uuid, Str)>),
    /// Delete what retention says, everywhere.
    Retention,
    /// A log directory failed: its partitions go offline.
    DirectoryFailed(Uuid),
    /// Stop all. What is to be recorded of each log, for each directory (by its id) whose logs were all closed cleanly.
    Close(oneshot::Sender<BTreeMap<Uuid, BTreeMap<String, LogCheckpoint>>>),
}

/// A partition here: its owner, and its log directory, where that is one that could be opened.
pub struct Hosted<E: Env> {
    /// The way to its owner.
    pub handle: Handle<E>,
    /// Its log directory.
    pub directory: Option<Uuid>,
}

impl<E: Env> Clone for Hosted<E> {
    fn clone(&self) -> Self {
        Self {
            handle: self.handle.clone(),
            directory: self.directory,
        }
    }
}

/// A topic as handlers need it.
pub struct Route<E: Env> {
    /// Its name.
    pub name: Str,
    /// Its id.
    pub id: Uuid,
    /// Its configuration, resolved.
    pub config: Arc<TopicConfig>,
    /// What went in and out.
    pub traffic: Arc<TopicTraffic>,
    /// Few as a rule, so copied where it grows.
    partitions: Vec<Hosted<E>>,
}

impl<E: Env> Route<E> {
    /// What it asks of batches.
    pub fn rules(&self) -> &Rules {
        &self.config.rules
    }

    /// A partition.
    pub fn partition(&self, index: i32) -> Option<&Handle<E>> {
        let index = usize::try_from(index).ok()?;
        self.partitions.get(index).map(|hosted| &hosted.handle)
    }

    /// A partition, or the refusal where there is none of that number.
    pub fn known(&self, index: i32) -> Result<&Handle<E>, Refused> {
        self.partition(index)
            .ok_or_else(|| Refused::of(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION))
    }

    /// A partition and what readers see of it, once its log is open.
    pub async fn opened(&self, env: &E, index: i32) -> Result<(&Handle<E>, ViewRef<E>), Refused> {
        self.opened_until(env, index, env.now() + OPENING_WAIT).await
    }

    /// [`Route::opened`] with a time until which it waits.
    pub async fn opened_until(
        &self,
        env: &E,
        index: i32,
        until: Instant,
    ) -> Result<(&Handle<E>, ViewRef<E>), Refused> {
        let handle = self.known(index)?;
        let view = handle.opened(env, until).await?;
        Ok((handle, view))
    }

    /// The log directory of a partition, where it has one that works or did.
    pub fn directory(&self, index: i32) -> Option<Uuid> {
        let index = usize::try_from(index).ok()?;
        self.partitions.get(index)?.directory
    }

    /// All partitions.
    pub fn partitions(&self) -> impl Iterator<Item = (i32, &Hosted<E>)> {
        (0..).zip(&self.partitions)
    }
}

/// All topics. Immutable; a change publishes another, which shares with this one what did not change.
pub struct Routes<E: Env> {
    by_name: OrdMap<Str, Arc<Route<E>>>,
    names: OrdMap<Uuid, Str>,
}

impl<E: Env> Clone for Routes<E> {
    fn clone(&self) -> Self {
        Self {
            by_name: self.by_name.clone(),
            names: self.names.clone(),
        }
    }
}

impl<E: Env> Routes<E> {
    fn new() -> Self {
        Self {
            by_name: OrdMap::new(),
            names: OrdMap::new(),
        }
    }

    /// A topic by its name.
    pub fn by_name(&self, name: &Str) -> Option<Arc<Route<E>>> {
        self.by_name.get(name).cloned()
    }

    /// A topic by its id.
    pub fn by_id(&self, id: Uuid) -> Option<Arc<Route<E>>> {
        self.by_name(self.names.get(&id)?)
    }

    fn put(&mut self, route: Route<E>) {
        self.names.insert(route.id, route.name.clone());
        self.by_name.insert(route.name.clone(), Arc::new(route));
    }

    fn remove(&mut self, id: Uuid) -> Option<Arc<Route<E>>> {
        let name = self.names.remove(&id)?;
        self.by_name.remove(&name)
    }

    /// All topics, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Route<E>>> {
        self.by_name.values()
    }

    /// All partitions that have a log directory, with that and the names of their folders.
    pub fn handles(&self) -> impl Iterator<Item = (Uuid, String, &Handle<E>)> {
        self.iter().flat_map(|route| {
            route.partitions().filter_map(|(index, hosted)| {
                let directory = hosted.directory?;
                Some((directory, folder(&route.name, index), &hosted.handle))
            })
        })
    }
}

/// What clients see of the cluster at one moment: metadata, and the partitions here that serve it. Never published apart.
pub struct ClusterView<E: Env> {
    /// The cluster's metadata, as far as the partitions here have followed it.
    pub image: Arc<Image>,
    /// The partitions here.
    pub routes: Arc<Routes<E>>,
}

impl<E: Env> ClusterView<E> {
    fn new(image: Arc<Image>, routes: Routes<E>) -> Self {
        let routes = Arc::new(routes);
        Self { image, routes }
    }
}

/// The folder of a partition in the log directory.
pub fn folder(topic: &str, partition: i32) -> String {
    format!("{topic}-{partition}")
}

/// KIP-320: whether the client knows the present leader.
pub fn check_epoch(current: i32, leader: LeaderEpoch) -> Result<(), Refused> {
    match current {
        -1 => Ok(()),
        c if c < leader.0 => Err(Refused::of(ErrorCode::FENCED_LEADER_EPOCH)),
        c if c > leader.0 => Err(Refused::of(ErrorCode::UNKNOWN_LEADER_EPOCH)),
        _ => Ok(()),
    }
}

/// What the task works with.
pub struct Manager<E: Env> {
    /// The world.
    pub env: E,
    /// Who we are.
    pub node: NodeId,
    /// Where repeated failures are logged.
    pub error_log: Arc<ErrorLog>,
    /// Counts what the partitions publish.
    pub changes: Changes,
    /// The log directories.
    pub log_dirs: LogDirs<E>,
    /// The broker's configuration.
    pub config: Arc<BrokerConfig>,
    /// What it knows besides.
    pub known: Known,
    /// What went in and out of all topics.
    pub traffic: Arc<Traffic>,
}

/// Starts the task.
pub fn start<E: Env>(manager: Manager<E>) -> (mpsc::Sender<Ask>, brokkr_env::Reader<ClusterView<E>>) {
    let (tx, rx) = mpsc::channel(16);
    let nothing = Arc::new(Image::empty(&manager.log_dirs.metadata.identity.cluster_id));
    let views = Published::new(ClusterView::new(nothing, Routes::new()));
    let reader = views.reader();
    let env = manager.env.clone();
    env.spawn("partitions", run(manager, views, rx));
    (tx, reader)
}

async fn run<E: Env>(
    mut manager: Manager<E>,
    views: Published<ClusterView<E>>,
    mut asks: mpsc::Receiver<Ask>,
) {
    // Not a reader: between two changes it would pin what was deleted.
    let latest = views.latest();
    while let Some(ask) = asks.recv().await {
        let now = latest.get();
        match ask {
            Ask::Deleted(topics) => manager.known.were_deleted(topics),
            Ask::Follow(image, delta, done) => {
                let mut routes = Routes::clone(&now.routes);
                let gone = manager.gone(&mut routes, &image, &delta);
                if !gone.is_empty() {
                    // BEFORE logs go: no request reaches a log that is being deleted, and is refused as out of range.
                    let before = now.image.without_topics(gone.iter().map(|route| route.id));
                    views.publish(ClusterView::new(Arc::new(before), routes.clone()));
                    manager.delete(&gone).await;
                }
                manager.sweep(&image).await;
                manager.follow(&mut routes, &image, &delta).await;
                views.publish(ClusterView::new(image, routes));
                // What is to be recorded of topics that are gone.
                manager.changes.note();
                let _ = done.send(());
            }
            Ask::Retention => {
                for (.., handle) in now.routes.handles() {
                    // A log that nothing was ever appended to has nothing to delete, and is left asleep.
                    if handle.view_if_open().is_some_and(|view| view.recorded.is_some()) {
                        handle.control(Control::Retention).await;
                    }
                }
            }
            Ask::DirectoryFailed(id) => {
                for (_, _, handle) in now.routes.handles().filter(|(of, ..)| *of == id) {
                    handle.control(Control::Abandon).await;
                }
            }
            Ask::Close(done) => {
                let clean = close_all(&now.routes, &manager.log_dirs).await;
                views.publish(ClusterView::new(Arc::clone(&now.image), Routes::new()));
                drop(done.send(clean));
                return;
            }
        }
    }
}

/// Closes all logs. Of each directory whose logs were all closed cleanly, what is to be recorded of them.
async fn close_all<E: Env>(
    routes: &Routes<E>,
    log_dirs: &LogDirs<E>,
) -> BTreeMap<Uuid, BTreeMap<String, LogCheckpoint>> {
    let handles = routes
        .handles()
        .map(|(directory, folder, handle)| (directory, folder, handle.clone()));
    let handles: Vec<_> = handles.collect();
    let closing = stream::iter(handles).map(|(directory, folder, handle)| async move {
        let (reply, closed) = oneshot::channel();
        let asked = handle.control(Control::Close(reply)).await;
        let closed = if asked { closed.await.ok() } else { None };
        (directory, folder, closed.unwrap_or(Closed::Unclean))
    });
    let mut closing = std::pin::pin!(closing.buffered(CLOSING_MAX));
    let mut logs: BTreeMap<_, _> = log_dirs
        .online
        .iter()
        .map(|dir| (dir.id(), BTreeMap::new()))
        .collect();
    while let Some((directory, folder, closed)) = closing.next().await {
        match (closed, logs.get_mut(&directory)) {
            (Closed::Clean(Some(recorded)), Some(logs)) => drop(logs.insert(folder, recorded)),
            // One that is offline too: it is looked at again at the next start.
            (Closed::Unclean, Some(_)) => drop(logs.remove(&directory)),
            (Closed::Clean(_), _) | (Closed::Unclean, None) => {}
        }
    }
    logs
}

impl<E: Env> Manager<E> {
    /// Takes the topics out of the routes that the image has no more.
    fn gone(&self, routes: &mut Routes<E>, image: &Image, delta: &ImageDelta) -> Vec<Arc<Route<E>>> {
        let is_gone = |id: &Uuid| image.topics.by_id(*id).is_none();
        let gone: Vec<Uuid> = match delta {
            ImageDelta::Everything => routes.names.keys().copied().filter(is_gone).collect(),
            ImageDelta::Changed(changed) => changed.topics.iter().copied().filter(is_gone).collect(),
        };
        gone.into_iter().filter_map(|id| routes.remove(id)).collect()
    }

    /// Takes up what the delta changed of the topics that there are.
    async fn follow(&mut self, routes: &mut Routes<E>, image: &Image, delta: &ImageDelta) {
        let mut configs = Configs::default();
        match delta.topics_touched(image) {
            None => {
                let mut steps = Steps::default();
                for topic in image.topics.iter() {
                    steps.step().await;
                    self.follow_topic(routes, image, topic, &mut configs).await;
                }
            }
            Some(topics) => {
                for topic in topics {
                    self.follow_topic(routes, image, &topic, &mut configs).await;
                }
            }
        }
    }

    async fn follow_topic(
        &mut self,
        routes: &mut Routes<E>,
        image: &Image,
        topic: &TopicImage,
        configs: &mut Configs,
    ) {
        if is_left_alone(&topic.name) {
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
            for hosted in &partitions {
                let configure = Control::Configure(Arc::clone(&config));
                hosted.handle.control(configure).await;
            }
        }
        let known = partitions.len();
        for (index, partition) in topic.partitions().skip(known) {
            partitions.push(self.host(topic, index, partition, &config));
        }
        if before.is_none() || is_configured || partitions.len() > known {
            let traffic = before.as_ref().map(|route| Arc::clone(&route.traffic));
            routes.put(Route {
                name: topic.name.clone(),
                id: topic.id,
                config,
                traffic: traffic.unwrap_or_else(|| TopicTraffic::new(&self.traffic)),
                partitions,
            });
        }
    }
}

/// Configurations of topics under one image. Topics for which nothing is configured share one.
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

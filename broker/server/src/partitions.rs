//! The partitions of this broker, and the way to them.
//!
//! One task follows the metadata: it opens, makes and deletes logs as each image says, and publishes the image and its
//! [`Routes`] as one [`ClusterView`]. The controller answers a change when that is done, so that who was told of a topic finds it.
//!
//! A deleted topic leaves Metadata and the routes at the same moment, BEFORE its logs go. A client that is refused its data and
//! then asks Metadata never sees the old topic there.

mod folders;

use std::collections::BTreeMap;
use std::sync::Arc;

use brokkr_env::{Env, Noise, Published};
use brokkr_log::{LogError, Recorded};
use brokkr_metadata::{Image, PartitionImage, TopicImage};
use brokkr_types::{LeaderEpoch, NodeId, Uuid};
use brokkr_wire::records::Rules;
use brokkr_wire::{ErrorCode, Str};
use futures_util::stream::{self, FuturesOrdered, StreamExt};
use tokio::sync::{mpsc, oneshot};

pub use folders::{Known, is_left_alone};

use crate::config::{BrokerConfig, TopicConfig};
use crate::log_dir::LogDirs;
use crate::metrics::{TopicTraffic, Traffic};
use crate::partition::{Handle, Message, Refused};

/// Logs that are opened at the same time.
const OPENING_MAX: usize = 16;

/// What the task is asked.
pub enum Ask {
    /// Follow this image; told when its partitions are here and published.
    Follow(Arc<Image>, oneshot::Sender<()>),
    /// These topics were deleted, by committed records: what they left may go. BEFORE the first image.
    Deleted(Vec<Uuid>),
    /// Try again what failed for want of something that the machine may have by now.
    Retry,
    /// Delete what retention says, everywhere.
    Retention,
    /// A log directory failed: its partitions go offline.
    DirectoryFailed(Uuid),
    /// Stop all. What is to be recorded of each log, for each directory (by its id) whose logs were all closed cleanly.
    Close(oneshot::Sender<BTreeMap<Uuid, BTreeMap<String, Recorded>>>),
}

/// Where a partition is.
pub enum Hosted<E: Env> {
    /// Here, with an owner.
    Here(Handle<E>),
    /// Here, but its log is damaged or can't be read, or its log directory failed: nothing is served from it until an operator
    /// has looked.
    Offline,
    /// There is none of that number.
    Nowhere,
}

impl<E: Env> Clone for Hosted<E> {
    fn clone(&self) -> Self {
        match self {
            Self::Here(h) => Self::Here(h.clone()),
            Self::Offline => Self::Offline,
            Self::Nowhere => Self::Nowhere,
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
    pub config: TopicConfig,
    /// What it asks of batches.
    pub rules: Rules,
    /// What went in and out.
    pub traffic: Arc<TopicTraffic>,
    partitions: Vec<Hosted<E>>,
    /// Of each partition the log directory, where it has one that works or did.
    directories: Vec<Option<Uuid>>,
    nowhere: Hosted<E>,
}

impl<E: Env> Route<E> {
    /// Where a partition is.
    pub fn partition(&self, index: i32) -> &Hosted<E> {
        usize::try_from(index)
            .ok()
            .and_then(|i| self.partitions.get(i))
            .unwrap_or(&self.nowhere)
    }

    /// The log directory of a partition, where it has one that works or did.
    pub fn directory(&self, index: i32) -> Option<Uuid> {
        let index = usize::try_from(index).ok()?;
        self.directories.get(index).copied().flatten()
    }

    /// All partitions.
    pub fn partitions(&self) -> impl Iterator<Item = (i32, &Hosted<E>)> {
        (0..).zip(&self.partitions)
    }
}

/// All topics. Immutable; a change publishes another.
pub struct Routes<E: Env> {
    by_name: BTreeMap<Str, Arc<Route<E>>>,
    names: BTreeMap<Uuid, Str>,
}

impl<E: Env> Routes<E> {
    fn new() -> Self {
        Self {
            by_name: BTreeMap::new(),
            names: BTreeMap::new(),
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

    /// The topics that are in the image as well, if that isn't all.
    fn without_gone(&self, image: &Image) -> Option<Self> {
        let mut left = Self::new();
        for route in self
            .iter()
            .filter(|r| image.topics.by_id(r.id).is_some_and(|t| t.name == r.name))
        {
            left.names.insert(route.id, route.name.clone());
            left.by_name.insert(route.name.clone(), Arc::clone(route));
        }
        (left.names.len() < self.names.len()).then_some(left)
    }

    /// The same without the partitions of a log directory: those are offline.
    fn without(&self, directory: Uuid) -> Self {
        let mut left = Self::new();
        for route in self.iter() {
            let hosted = |(index, hosted): (i32, &Hosted<E>)| match hosted {
                Hosted::Here(_) if route.directory(index) == Some(directory) => Hosted::Offline,
                other => other.clone(),
            };
            let offline = Route {
                name: route.name.clone(),
                id: route.id,
                config: route.config.clone(),
                rules: route.rules,
                traffic: Arc::clone(&route.traffic),
                partitions: route.partitions().map(hosted).collect(),
                directories: route.directories.clone(),
                nowhere: Hosted::Nowhere,
            };
            left.names.insert(route.id, route.name.clone());
            left.by_name.insert(route.name.clone(), Arc::new(offline));
        }
        left
    }

    /// All topics, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Route<E>>> {
        self.by_name.values()
    }

    /// All partitions that have owners, with their log directories and the names of their folders.
    pub fn handles(&self) -> impl Iterator<Item = (Uuid, String, &Handle<E>)> {
        self.iter().flat_map(|route| {
            route.partitions().filter_map(|(index, hosted)| match hosted {
                Hosted::Here(handle) => {
                    let directory = route.directory(index).expect("an owner's log is in a directory");
                    Some((directory, folder(&route.name, index), handle))
                }
                Hosted::Offline | Hosted::Nowhere => None,
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

    /// The view without the topics that `next` has no more, if there are any. What `next` has besides is not in it yet.
    fn without_gone(&self, next: &Image) -> Option<Self> {
        let routes = self.routes.without_gone(next)?;
        let gone = self.image.topics.iter().map(|t| t.id);
        let gone = gone.filter(|id| next.topics.by_id(*id).is_none());
        Some(Self::new(Arc::new(self.image.without_topics(gone)), routes))
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
    pub noise: Arc<Noise>,
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
    loop {
        let ask = tokio::select! {
            biased;
            ask = asks.recv() => ask,
            () = manager.retry_due() => Some(Ask::Retry),
        };
        let Some(ask) = ask else { return };
        let now = latest.get();
        match ask {
            Ask::Deleted(topics) => manager.known.deleted.extend(topics),
            Ask::Retry => {
                let routes = manager.follow(&now.routes, &now.image).await;
                views.publish(ClusterView::new(Arc::clone(&now.image), routes));
            }
            Ask::Follow(image, done) => {
                // BEFORE logs go: nobody is sent to one that is being deleted, and told that its offset is out of range.
                if let Some(left) = now.without_gone(&image) {
                    views.publish(left);
                }
                manager.sweep(&image).await;
                let routes = manager.follow(&now.routes, &image).await;
                views.publish(ClusterView::new(image, routes));
                let _ = done.send(());
            }
            Ask::Retention => {
                for (.., handle) in now.routes.handles() {
                    handle.send(Message::Retention).await;
                }
            }
            Ask::DirectoryFailed(id) => {
                // BEFORE the owners end: whoever they wake finds the partition offline.
                let left = ClusterView::new(Arc::clone(&now.image), now.routes.without(id));
                views.publish(left);
                manager.abandon(id, &now.routes).await;
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
) -> BTreeMap<Uuid, BTreeMap<String, Recorded>> {
    let closing = routes.handles().map(|(directory, folder, handle)| async move {
        let (reply, closed) = oneshot::channel();
        let asked = handle.send(Message::Close { reply }).await;
        let closed = if asked { closed.await.ok().flatten() } else { None };
        (directory, folder, closed)
    });
    let mut closing = stream::iter(closing.collect::<Vec<_>>()).buffered(OPENING_MAX);
    let mut logs: BTreeMap<_, _> = log_dirs
        .online
        .iter()
        .map(|dir| (dir.id(), BTreeMap::new()))
        .collect();
    for route in routes.iter() {
        for (index, hosted) in route.partitions() {
            // A damaged partition is not closed, and looked at again at the next start.
            if let (Hosted::Offline, Some(directory)) = (hosted, route.directory(index)) {
                logs.remove(&directory);
            }
        }
    }
    while let Some((directory, folder, closed)) = closing.next().await {
        match (closed, logs.get_mut(&directory)) {
            (Some(recorded), Some(logs)) => drop(logs.insert(folder, recorded)),
            (None, Some(_)) => drop(logs.remove(&directory)),
            (_, None) => {}
        }
    }
    logs
}

impl<E: Env> Manager<E> {
    async fn follow(&mut self, now: &Routes<E>, image: &Image) -> Routes<E> {
        self.known.retry_at = None;
        let mut coming = Vec::new();
        for topic in image.topics.iter().filter(|t| !folders::is_left_alone(&t.name)) {
            let before = now.by_name(&topic.name).filter(|r| r.id == topic.id);
            let config = TopicConfig::resolve(&self.config, image, &topic.name);
            let (partitions, directories) = match &before {
                Some(route) => (route.partitions.clone(), route.directories.clone()),
                None => (Vec::new(), Vec::new()),
            };
            let traffic = before.as_ref().map(|route| Arc::clone(&route.traffic));
            if before.is_some_and(|r| r.config != config) {
                configure(&partitions, &config).await;
            }
            coming.push(Coming {
                topic,
                config,
                traffic: traffic.unwrap_or_else(|| TopicTraffic::new(&self.traffic)),
                partitions,
                directories,
            });
        }
        for opened in self.open_all(&coming).await {
            let coming: &mut Coming<'_, E> = &mut coming[opened.topic];
            let (topic, index) = (coming.topic, opened.index);
            let folder = folder(&topic.name, index);
            let (hosted, directory) = match opened.hosted {
                Some((at, hosted)) => (
                    self.note(at, (topic.id, index), &folder, hosted),
                    Some(self.log_dirs.online[at].id()),
                ),
                None => (self.without_directory(opened.image, &folder), None),
            };
            match coming.partitions.get_mut(index as usize) {
                Some(place) => *place = hosted,
                None => {
                    coming.partitions.push(hosted);
                    coming.directories.push(directory);
                }
            }
        }
        let mut next = Routes::new();
        for coming in coming {
            let route = coming.route();
            next.names.insert(route.id, route.name.clone());
            next.by_name.insert(route.name.clone(), Arc::new(route));
        }
        for old in now.iter().filter(|r| next.names.get(&r.id) != Some(&r.name)) {
            self.delete(old).await;
        }
        next
    }

    /// Opens or makes the logs of all partitions that are new or failed before: some at a time, over all topics.
    async fn open_all<'a>(&mut self, coming: &[Coming<'a, E>]) -> Vec<Opened<'a, E>> {
        let mut to_open = Vec::new();
        for (place, coming) in coming.iter().enumerate() {
            let topic = coming.topic;
            for (index, image) in topic.partitions() {
                let is_new = index as usize >= coming.partitions.len();
                if is_new || self.known.failed.contains_key(&(topic.id, index)) {
                    let at = self.place(image, &folder(&topic.name, index));
                    to_open.push((place, index, image, at));
                }
            }
        }
        let me = &*self;
        let mut to_open = to_open.into_iter();
        // Made one by one: each is as large as all that opening a log may need.
        let mut opening = FuturesOrdered::new();
        let mut opened = Vec::new();
        loop {
            while opening.len() < OPENING_MAX
                && let Some((place, index, image, at)) = to_open.next()
            {
                let Coming { topic, config, .. } = &coming[place];
                opening.push_back(async move {
                    let hosted = match at {
                        Some(at) => {
                            let (log, min_insync) = (config.log.clone(), config.min_insync_replicas);
                            Some((at, me.host(at, topic, index, image, log, min_insync).await))
                        }
                        None => None,
                    };
                    Opened {
                        topic: place,
                        index,
                        image,
                        hosted,
                    }
                });
            }
            match opening.next().await {
                Some(each) => opened.push(each),
                None => return opened,
            }
        }
    }
}

/// What became of a partition's log: in which directory, if there is one for it.
struct Opened<'a, E: Env> {
    topic: usize,
    index: i32,
    image: &'a PartitionImage,
    hosted: Option<(usize, Result<Hosted<E>, LogError>)>,
}

/// Tells the owners of partitions of their topic's configuration.
async fn configure<E: Env>(partitions: &[Hosted<E>], config: &TopicConfig) {
    for hosted in partitions {
        if let Hosted::Here(handle) = hosted {
            let min_insync = config.min_insync_replicas;
            let log = config.log.clone();
            handle.send(Message::Configure { log, min_insync }).await;
        }
    }
}

/// A topic whose route is being made: partitions that are here stay, new ones are opened or made.
struct Coming<'a, E: Env> {
    topic: &'a TopicImage,
    config: TopicConfig,
    traffic: Arc<TopicTraffic>,
    partitions: Vec<Hosted<E>>,
    directories: Vec<Option<Uuid>>,
}

impl<E: Env> Coming<'_, E> {
    fn route(self) -> Route<E> {
        Route {
            name: self.topic.name.clone(),
            id: self.topic.id,
            rules: self.config.rules,
            config: self.config,
            traffic: self.traffic,
            partitions: self.partitions,
            directories: self.directories,
            nowhere: Hosted::Nowhere,
        }
    }
}

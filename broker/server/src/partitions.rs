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

use brokkr_env::{Env, Published};
use brokkr_log::{LogError, Recorded};
use brokkr_metadata::{Image, TopicImage};
use brokkr_types::{LeaderEpoch, NodeId, Uuid};
use brokkr_wire::records::Rules;
use brokkr_wire::{ErrorCode, Str};
use futures_util::stream::{self, FuturesOrdered, StreamExt};
use tokio::sync::{mpsc, oneshot};

pub use folders::{Known, is_left_alone};

use crate::config::{BrokerConfig, TopicConfig};
use crate::log_dir;
use crate::noise::Noise;
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
    /// Stop all. What is to be recorded of each log; `None` if not every log was closed cleanly.
    Close(oneshot::Sender<Option<BTreeMap<String, Recorded>>>),
}

/// Where a partition is.
pub enum Hosted<E: Env> {
    /// Here, with an owner.
    Here(Handle<E>),
    /// Here, but its log is damaged or can't be read: nothing is served from it until an operator has looked.
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
    partitions: Vec<Hosted<E>>,
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

    /// All topics, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Route<E>>> {
        self.by_name.values()
    }

    /// All partitions that have owners, with the names of their folders.
    pub fn handles(&self) -> impl Iterator<Item = (String, &Handle<E>)> {
        self.iter().flat_map(|route| {
            route.partitions().filter_map(|(index, hosted)| match hosted {
                Hosted::Here(handle) => Some((folder(&route.name, index), handle)),
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
    /// The log directory.
    pub log_dir: log_dir::Owned<E>,
    /// The broker's configuration.
    pub config: Arc<BrokerConfig>,
    /// What it knows besides.
    pub known: Known,
}

/// Starts the task.
pub fn start<E: Env>(manager: Manager<E>) -> (mpsc::Sender<Ask>, brokkr_env::Reader<ClusterView<E>>) {
    let (tx, rx) = mpsc::channel(16);
    let nothing = Arc::new(Image::empty(&manager.log_dir.identity.cluster_id));
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
    let mut reader = views.reader();
    loop {
        let ask = tokio::select! {
            biased;
            ask = asks.recv() => ask,
            () = manager.retry_due() => Some(Ask::Retry),
        };
        let Some(ask) = ask else { return };
        let now = Arc::clone(reader.get());
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
                for (_, handle) in now.routes.handles() {
                    handle.send(Message::Retention).await;
                }
            }
            Ask::Close(done) => {
                let clean = close_all(&now.routes).await;
                views.publish(ClusterView::new(Arc::clone(&now.image), Routes::new()));
                drop(done.send(clean));
                return;
            }
        }
    }
}

async fn close_all<E: Env>(routes: &Routes<E>) -> Option<BTreeMap<String, Recorded>> {
    let closing = routes.handles().map(|(folder, handle)| async move {
        let (reply, closed) = oneshot::channel();
        let asked = handle.send(Message::Close { reply }).await;
        let closed = if asked { closed.await.ok().flatten() } else { None };
        Some((folder, closed?))
    });
    let mut closing = stream::iter(closing.collect::<Vec<_>>()).buffered(OPENING_MAX);
    // A damaged partition is not closed, and looked at again at the next start.
    let mut clean = !routes
        .iter()
        .any(|r| r.partitions().any(|(_, h)| matches!(h, Hosted::Offline)));
    let mut logs = BTreeMap::new();
    while let Some(closed) = closing.next().await {
        match closed {
            Some((folder, recorded)) => drop(logs.insert(folder, recorded)),
            None => clean = false,
        }
    }
    clean.then_some(logs)
}

impl<E: Env> Manager<E> {
    async fn follow(&mut self, now: &Routes<E>, image: &Image) -> Routes<E> {
        self.known.retry_at = None;
        let mut coming = Vec::new();
        for topic in image.topics.iter().filter(|t| !folders::is_left_alone(&t.name)) {
            let before = now.by_name(&topic.name).filter(|r| r.id == topic.id);
            let config = TopicConfig::resolve(&self.config, image, &topic.name);
            let partitions = before.as_ref().map_or(Vec::new(), |r| r.partitions.clone());
            if before.is_some_and(|r| r.config != config) {
                configure(&partitions, &config).await;
            }
            coming.push(Coming {
                topic,
                config,
                partitions,
            });
        }
        for (place, index, hosted) in self.open_all(&coming).await {
            let coming: &mut Coming<'_, E> = &mut coming[place];
            let topic = coming.topic;
            let hosted = self.note((topic.id, index), &folder(&topic.name, index), hosted);
            match coming.partitions.get_mut(index as usize) {
                Some(place) => *place = hosted,
                None => coming.partitions.push(hosted),
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
    async fn open_all(&self, coming: &[Coming<'_, E>]) -> Vec<(usize, i32, Result<Hosted<E>, LogError>)> {
        let to_open = coming.iter().enumerate().flat_map(|(place, coming)| {
            let known = coming.partitions.len();
            let again = |index: i32| self.known.failed.contains_key(&(coming.topic.id, index));
            coming
                .topic
                .partitions()
                .filter(move |(index, _)| *index as usize >= known || again(*index))
                .map(move |(index, image)| (place, index, image))
        });
        let mut to_open = to_open.collect::<Vec<_>>().into_iter();
        // Made one by one: each is as large as all that opening a log may need.
        let mut opening = FuturesOrdered::new();
        let mut opened = Vec::new();
        loop {
            while opening.len() < OPENING_MAX
                && let Some((place, index, image)) = to_open.next()
            {
                let Coming { topic, config, .. } = &coming[place];
                opening.push_back(async move {
                    let min_insync = config.min_insync_replicas;
                    let hosted = self
                        .host(topic, index, image, config.log.clone(), min_insync)
                        .await;
                    (place, index, hosted)
                });
            }
            match opening.next().await {
                Some(each) => opened.push(each),
                None => return opened,
            }
        }
    }
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
    partitions: Vec<Hosted<E>>,
}

impl<E: Env> Coming<'_, E> {
    fn route(self) -> Route<E> {
        Route {
            name: self.topic.name.clone(),
            id: self.topic.id,
            rules: self.config.rules,
            config: self.config,
            partitions: self.partitions,
            nowhere: Hosted::Nowhere,
        }
    }
}

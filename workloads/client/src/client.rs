//! A cluster's client: connections to the brokers, their API versions, and cached metadata.
//!
//! Each call sends its request once. The caller decides whether to retry ([`Client::retrying`]), since only the caller knows
//! what a second attempt would mean.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use brokkr_env::{Env, Instant, Rng};
use brokkr_wire::messages::{ApiVersionsRequest, ApiVersionsResponse, MetadataRequest, metadata_request};
use brokkr_wire::{ApiKey, ErrorCode, Message, Request, Str};

use crate::connection::{Connection, ConnectionConfig, Reply};
use crate::metadata::Metadata;
use crate::retry::Backoff;
use crate::{Error, Result, TopicPartition};

/// Configuration of a client. Names and meanings are those of Kafka's clients.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// `bootstrap.servers`: host and port of the first brokers to connect to.
    pub bootstrap: Vec<(String, u16)>,
    /// Configuration of each connection.
    pub connection: ConnectionConfig,
    /// `request.timeout.ms`: longest time to wait for a response.
    pub request_timeout: Duration,
    /// `socket.connection.setup.timeout.ms`: longest time to connect and to receive ApiVersions.
    pub connect_timeout: Duration,
    /// `retry.backoff.ms` and, for connections, `reconnect.backoff.ms`.
    pub backoff_min: Duration,
    /// `retry.backoff.max.ms` and, for connections, `reconnect.backoff.max.ms`.
    pub backoff_max: Duration,
    /// `default.api.timeout.ms`: longest time of an admin call with all its attempts.
    pub api_timeout: Duration,
    /// `metadata.max.age.ms`.
    pub metadata_age_max: Duration,
    /// `allow.auto.create.topics`.
    pub allow_auto_topic_creation: bool,
    /// Upper limits of request versions, to imitate older clients.
    pub versions_max: BTreeMap<ApiKey, i16>,
}

impl ClientConfig {
    /// Kafka's defaults, with the bootstrap server `host:port`.
    pub fn new(host: &str, port: u16) -> Self {
        Self {
            bootstrap: vec![(host.to_owned(), port)],
            connection: ConnectionConfig::default(),
            request_timeout: Duration::from_secs(30),
            connect_timeout: Duration::from_secs(10),
            backoff_min: Duration::from_millis(100),
            backoff_max: Duration::from_secs(1),
            api_timeout: Duration::from_secs(60),
            metadata_age_max: Duration::from_secs(300),
            allow_auto_topic_creation: false,
            versions_max: BTreeMap::new(),
        }
    }

    pub(crate) fn backoff(&self) -> Backoff {
        Backoff {
            min: self.backoff_min,
            max: self.backoff_max,
        }
    }
}

/// The broker that a request goes to.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Peer {
    /// The bootstrap server of this index.
    Bootstrap(usize),
    /// The broker of this node id.
    Node(i32),
}

/// An open connection and the API versions of its broker.
pub struct Link<E: Env> {
    connection: Connection<E>,
    versions: Arc<BTreeMap<i16, (i16, i16)>>,
    request_timeout: Duration,
}

impl<E: Env> Clone for Link<E> {
    fn clone(&self) -> Self {
        Self {
            connection: self.connection.clone(),
            versions: Arc::clone(&self.versions),
            request_timeout: self.request_timeout,
        }
    }
}

impl<E: Env> Link<E> {
    /// The connection.
    pub fn connection(&self) -> &Connection<E> {
        &self.connection
    }

    /// The latest stable version of a request that both sides support.
    ///
    /// # Errors
    /// [`Error::UnsupportedVersion`].
    pub fn version<R: Request>(&self) -> Result<i16> {
        self.version_up_to::<R>(i16::MAX)
    }

    /// As [`Link::version`], but not above `max`.
    pub fn version_up_to<R: Request>(&self, max: i16) -> Result<i16> {
        let unsupported = Error::UnsupportedVersion(R::API_KEY);
        let ours = R::API_KEY.stable_versions();
        let Some((low, high)) = self.versions.get(&(R::API_KEY as i16)) else {
            return Err(unsupported);
        };
        let version = max.min(*ours.end()).min(*high);
        if version >= *ours.start().max(low) {
            Ok(version)
        } else {
            Err(unsupported)
        }
    }

    /// Queues a request in this version, in call order; the reply is a future.
    pub fn submit<R: Request + Send + 'static>(&self, request: R, version: i16) -> Reply<R> {
        self.connection.submit(request, version, self.request_timeout)
    }

    /// Sends a request in the latest version and waits for the response.
    pub async fn ask<R: Request + Send + 'static>(&self, request: R) -> Result<R::Response> {
        let version = self.version::<R>()?;
        self.submit(request, version).await
    }
}

struct Slot<E: Env> {
    open: Option<(String, u16, Link<E>)>,
    failures: u32,
    not_before: Instant,
}

struct Shared<E: Env> {
    metadata: Metadata,
    refreshed: Option<Instant>,
    /// The topics whose metadata are refreshed.
    wanted: BTreeSet<Str>,
    slots: BTreeMap<Peer, Arc<tokio::sync::Mutex<Slot<E>>>>,
    rotation: usize,
    /// How many attempts of unknown outcome were made again.
    repeated: u64,
}

struct Inner<E: Env> {
    env: E,
    config: ClientConfig,
    rng: Rng,
    /// Never held across an await.
    shared: Mutex<Shared<E>>,
}

/// A cluster's client. Clones share connections and metadata.
pub struct Client<E: Env>(Arc<Inner<E>>);

impl<E: Env> Clone for Client<E> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<E: Env> Client<E> {
    /// A client without connections.
    ///
    /// # Panics
    /// If there is no bootstrap server.
    pub fn new(env: &E, config: ClientConfig) -> Self {
        assert!(!config.bootstrap.is_empty(), "a client needs a bootstrap server");
        let shared = Shared {
            metadata: Metadata::default(),
            refreshed: None,
            wanted: BTreeSet::new(),
            slots: BTreeMap::new(),
            rotation: 0,
            repeated: 0,
        };
        Self(Arc::new(Inner {
            env: env.clone(),
            config,
            rng: env.rng("client"),
            shared: Mutex::new(shared),
        }))
    }

    /// The environment.
    pub fn env(&self) -> &E {
        &self.0.env
    }

    /// The configuration.
    pub fn config(&self) -> &ClientConfig {
        &self.0.config
    }

    pub(crate) fn rng(&self) -> &Rng {
        &self.0.rng
    }

    fn shared(&self) -> MutexGuard<'_, Shared<E>> {
        self.0.shared.lock().expect("no panic under this lock")
    }

    /// The cached metadata.
    pub fn metadata(&self) -> Metadata {
        self.shared().metadata.clone()
    }

    /// Calls `look` with the cached metadata.
    pub fn with_metadata<T>(&self, look: impl FnOnce(&Metadata) -> T) -> T {
        look(&self.shared().metadata)
    }

    pub(crate) fn hint(&self, tp: &TopicPartition, leader: i32, epoch: i32) -> bool {
        self.shared().metadata.hint(tp, leader, epoch)
    }

    /// Whether the metadata are older than `metadata_age_max`, or lack a topic.
    pub(crate) fn metadata_is_stale(&self) -> bool {
        let now = self.0.env.now();
        let shared = self.shared();
        let fresh = shared
            .refreshed
            .is_some_and(|at| now.saturating_since(at) < self.0.config.metadata_age_max);
        !fresh
    }

    /// Includes `topic` in the metadata from now on.
    pub fn want_topic(&self, topic: &str) {
        let mut shared = self.shared();
        if !shared.wanted.contains(topic) {
            shared.wanted.insert(Str::copied(topic));
            shared.refreshed = None;
        }
    }

    /// How many attempts of unknown outcome administrative calls have made again. Such an attempt may still be carried out, after those
    /// that followed it.
    pub fn repeated(&self) -> u64 {
        self.shared().repeated
    }

    /// Requests the metadata of all wanted topics from one broker after another, until one answers.
    pub async fn refresh_metadata(&self) -> Result<()> {
        let mut failed = Error::NoLeader;
        for peer in self.peers() {
            match self.refresh_from(peer).await {
                Ok(()) => return Ok(()),
                Err(e) => {
                    tracing::debug!(?peer, error = %e, "no metadata");
                    failed = e;
                }
            }
        }
        Err(failed)
    }

    async fn refresh_from(&self, peer: Peer) -> Result<()> {
        let link = self.link(peer).await?;
        let wanted: Vec<Str> = self.shared().wanted.iter().cloned().collect();
        let topic = |name| metadata_request::MetadataRequestTopic {
            name: Some(name),
            ..Default::default()
        };
        let request = MetadataRequest {
            topics: Some(wanted.into_iter().map(topic).collect()),
            allow_auto_topic_creation: self.0.config.allow_auto_topic_creation,
            ..Default::default()
        };
        let version = self.version_of::<MetadataRequest>(&link)?;
        let response = link.submit(request, version).await?;
        Error::check(response.error_code, None)?;
        let now = self.0.env.now();
        let mut shared = self.shared();
        shared.metadata.update(response);
        shared.refreshed = Some(now);
        Ok(())
    }

    /// All brokers that can be asked, rotated at each call. Known brokers come before bootstrap servers, since they are the
    /// current cluster.
    fn peers(&self) -> Vec<Peer> {
        let mut shared = self.shared();
        shared.rotation += 1;
        let rotation = shared.rotation;
        let mut nodes: Vec<Peer> = shared.metadata.brokers.keys().copied().map(Peer::Node).collect();
        let mut bootstrap: Vec<Peer> = (0..self.0.config.bootstrap.len()).map(Peer::Bootstrap).collect();
        for peers in [&mut nodes, &mut bootstrap] {
            let len = peers.len().max(1);
            peers.rotate_left(rotation % len);
        }
        nodes.extend(bootstrap);
        nodes
    }

    /// The version for a request: the latest that both sides support and the configuration allows.
    pub fn version_of<R: Request>(&self, link: &Link<E>) -> Result<i16> {
        let max = self.0.config.versions_max.get(&R::API_KEY);
        link.version_up_to::<R>(max.copied().unwrap_or(i16::MAX))
    }

    /// Sends a request to any broker that can be reached.
    pub async fn ask_any<R: Request + Send + Sync + 'static>(&self, request: R) -> Result<R::Response> {
        let mut failed = Error::NoLeader;
        for peer in self.peers() {
            // The next broker is asked only if the request was certainly not sent to this one.
            match self.ask(peer, request.clone()).await {
                Err(e @ Error::NotSent(_)) => failed = e,
                result => return result,
            }
        }
        Err(failed)
    }

    /// Sends a request to a broker.
    pub async fn ask<R: Request + Send + 'static>(&self, peer: Peer, request: R) -> Result<R::Response> {
        let link = self.link(peer).await?;
        let version = self.version_of::<R>(&link)?;
        link.submit(request, version).await
    }

    /// Sends a request to the controller.
    pub async fn ask_controller<R: Request + Send + Sync + 'static>(
        &self,
        request: R,
    ) -> Result<R::Response> {
        let node = self.with_metadata(|m| {
            m.brokers
                .contains_key(&m.controller_id)
                .then_some(m.controller_id)
        });
        match node {
            Some(node) => self.ask(Peer::Node(node), request).await,
            None => self.ask_any(request).await,
        }
    }

    /// The leader of a partition, from the cached metadata or after one refresh.
    pub async fn leader_of(&self, tp: &TopicPartition) -> Result<crate::metadata::Leader> {
        self.want_topic(&tp.topic);
        if let Some(leader) = self.with_metadata(|m| m.leader(tp)) {
            return Ok(leader);
        }
        self.refresh_metadata().await?;
        self.with_metadata(|m| match m.leader(tp) {
            Some(leader) => Ok(leader),
            None => match m.topics.get(&tp.topic).map(|t| t.error) {
                Some(code) if code.is_error() => Err(Error::Broker(code, None)),
                _ => Err(Error::NoLeader),
            },
        })
    }

    /// An open connection to a broker: the existing one, or a new one after the backoff.
    ///
    /// # Errors
    /// Always [`Error::NotSent`], or the failure of the ApiVersions request: the caller's request was not sent.
    pub async fn link(&self, peer: Peer) -> Result<Link<E>> {
        let (host, port) = self.address(peer)?;
        let slot = Arc::clone(self.shared().slots.entry(peer).or_insert_with(|| {
            Arc::new(tokio::sync::Mutex::new(Slot {
                open: None,
                failures: 0,
                not_before: Instant::default(),
            }))
        }));
        let mut slot = slot.lock().await;
        match &slot.open {
            Some((h, p, link)) if (h, *p) == (&host, port) && !link.connection.is_closed() => {
                return Ok(link.clone());
            }
            _ => slot.open = None,
        }
        self.0.env.sleep_until(slot.not_before).await;
        match self.open(&host, port).await {
            Ok(link) => {
                slot.failures = 0;
                slot.open = Some((host, port, link.clone()));
                // The backoff also applies after success, for connections that close at once.
                slot.not_before = self.0.env.now() + self.0.config.backoff().after(1, &self.0.rng);
                Ok(link)
            }
            Err(e) => {
                slot.failures = slot.failures.saturating_add(1);
                let wait = self.0.config.backoff().after(slot.failures, &self.0.rng);
                slot.not_before = self.0.env.now() + wait;
                Err(e)
            }
        }
    }

    fn address(&self, peer: Peer) -> Result<(String, u16)> {
        match peer {
            Peer::Bootstrap(i) => match self.0.config.bootstrap.get(i) {
                Some((host, port)) => Ok((host.clone(), *port)),
                None => Err(Error::NotSent(format!("no bootstrap server {i}"))),
            },
            Peer::Node(id) => self.with_metadata(|m| match m.brokers.get(&id) {
                Some(b) => Ok((b.host.to_string(), b.port)),
                None => Err(Error::NotSent(format!("no broker {id} is known"))),
            }),
        }
    }

    async fn open(&self, host: &str, port: u16) -> Result<Link<E>> {
        let give_up = self.0.env.now() + self.0.config.connect_timeout;
        let opened = tokio::select! {
            biased;
            opened = Connection::open(&self.0.env, host, port, self.0.config.connection.clone()) => opened?,
            () = self.0.env.sleep_until(give_up) => return Err(Error::NotSent("no connection in time".to_owned())),
        };
        let timeout = give_up.saturating_since(self.0.env.now());
        let versions = ask_versions(&opened, timeout).await;
        // Whatever happened to that request, the caller's own was not sent.
        let versions = versions.map_err(|e| Error::NotSent(format!("asking for versions: {e}")))?;
        Ok(Link {
            connection: opened,
            versions: Arc::new(versions),
            request_timeout: self.0.config.request_timeout,
        })
    }

    /// Retries within `timeout`, with growing backoff between attempts.
    pub fn retrying(&self, timeout: Duration) -> Retrying<E> {
        Retrying {
            client: self.clone(),
            until: self.0.env.now() + timeout,
            failures: 0,
        }
    }
}

async fn ask_versions<E: Env>(
    connection: &Connection<E>,
    timeout: Duration,
) -> Result<BTreeMap<i16, (i16, i16)>> {
    let request = ApiVersionsRequest {
        client_software_name: Str::from_static("brokkr-client"),
        client_software_version: Str::from_static(env!("CARGO_PKG_VERSION")),
        ..Default::default()
    };
    let newest = ApiKey::ApiVersions.max_stable();
    let mut response = connection.submit(request.clone(), newest, timeout).await?;
    if ErrorCode(response.error_code) == ErrorCode::UNSUPPORTED_VERSION {
        let key = ApiKey::ApiVersions as i16;
        let supported = response.api_keys.iter().find(|k| k.api_key == key);
        let version = supported.map_or(ApiVersionsResponse::MIN_VERSION, |k| k.max_version);
        let version = version.clamp(ApiVersionsResponse::MIN_VERSION, newest);
        response = connection.submit(request, version, timeout).await?;
    }
    Error::check(response.error_code, None)?;
    let range = |k: &brokkr_wire::messages::api_versions_response::ApiVersion| {
        (k.api_key, (k.min_version, k.max_version))
    };
    Ok(response.api_keys.iter().map(range).collect())
}

/// State of a call that is retried.
pub struct Retrying<E: Env> {
    client: Client<E>,
    until: Instant,
    failures: u32,
}

impl<E: Env> Retrying<E> {
    /// Waits after a failed attempt; returns when the next attempt is due.
    ///
    /// # Errors
    /// The failure, if it is not retriable or the time is up.
    pub async fn wait(&mut self, failed: Error) -> Result<()> {
        self.failures += 1;
        let env = self.client.env();
        let at = env.now()
            + self
                .client
                .config()
                .backoff()
                .after(self.failures, self.client.rng());
        if !failed.is_retriable() || at >= self.until {
            return Err(failed);
        }
        let is_known = failed.is_unsent()
            || failed
                .code()
                .is_some_and(|code| code != ErrorCode::REQUEST_TIMED_OUT);
        self.client.shared().repeated += u64::from(!is_known);
        env.sleep_until(at).await;
        Ok(())
    }
}

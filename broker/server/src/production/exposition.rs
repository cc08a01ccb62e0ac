//! The content of the endpoint: whether the broker is ready, and its metrics as text.
//!
//! Metrics are read at a scrape: the counters of [`crate::metrics`], and the state of everything else. Metrics that Kafka
//! has too have the names of its Prometheus exporter (`kafka_server_brokertopicmetrics_bytesin_total`), even where that
//! means milliseconds instead of seconds; the others begin with `brokkr_`. `broker/OPERATIONS.md` lists all of them.

use std::fmt::{self, Write};
use std::sync::Arc;

use brokkr_env::Dir;
use brokkr_env::tokio::TokioEnv;
use brokkr_log::LogDir;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::encoding::text;
use prometheus_client::registry::Registry;

use super::families::Families;
use super::process;
use super::real_broker::RealBroker;
use crate::ctx::Ctx;
use crate::log_dir::{LogDirs, OwnedLogDir};
use crate::partitions::ClusterView;

/// The phase of the broker's life.
pub enum BrokerStatus {
    /// It opens its log directories and recovers its logs.
    Starting,
    /// It serves requests.
    Running(Box<RunningBroker>),
    /// It is stopping.
    Stopping,
}

/// A running broker.
pub struct RunningBroker {
    ctx: Ctx<TokioEnv>,
    directories: Vec<LogDirStatus>,
}

/// A log directory and whether it works.
struct LogDirStatus {
    path: String,
    /// `None` if it could not be opened at the start.
    open: Option<(Dir<TokioEnv>, LogDir<TokioEnv>)>,
}

impl LogDirStatus {
    fn has_failed(&self) -> bool {
        self.open.as_ref().is_none_or(|(dir, _)| dir.poisoned().is_some())
    }
}

/// The text format of metrics.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// Prometheus 0.0.4.
    Prometheus,
}

impl Format {
    /// The value of the Content-Type header.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

impl BrokerStatus {
    /// The status of a running broker.
    pub fn running(broker: &RealBroker) -> Self {
        Self::Running(Box::new(RunningBroker {
            ctx: broker.ctx().clone(),
            directories: directories(broker.log_dirs()),
        }))
    }

    /// Whether the broker serves requests and all log directories work.
    ///
    /// # Errors
    /// The reason if not, in a sentence.
    pub fn ready(&self) -> Result<(), String> {
        match self {
            Self::Starting => Err("starting: the metadata is being recovered".to_owned()),
            Self::Stopping => Err("stopping".to_owned()),
            Self::Running(running) => {
                let failed = running.directories.iter().filter(|dir| dir.has_failed());
                let failed: Vec<&str> = failed.map(|dir| dir.path.as_str()).collect();
                match failed.is_empty() {
                    true => Ok(()),
                    false => Err(format!("log directories that failed: {}", failed.join(", "))),
                }
            }
        }
    }

    /// Kafka's code (`org.apache.kafka.metadata.BrokerState`).
    fn broker_state(&self) -> i64 {
        match self {
            Self::Starting => 1,
            Self::Running(_) => 3,
            Self::Stopping => 7,
        }
    }
}

/// The directory of the metadata log and those of partitions.
fn directories(log_dirs: &LogDirs<TokioEnv>) -> Vec<LogDirStatus> {
    let opened = |owned: &OwnedLogDir<TokioEnv>| LogDirStatus {
        path: owned.path.clone(),
        open: Some((owned.logs.dir().clone(), owned.logs.clone())),
    };
    let mut directories = vec![opened(&log_dirs.metadata)];
    let others = log_dirs
        .online
        .iter()
        .filter(|dir| dir.path != log_dirs.metadata.path);
    directories.extend(others.map(opened));
    directories.extend(log_dirs.failed.iter().map(|path| LogDirStatus {
        path: path.clone(),
        open: None,
    }));
    directories
}

/// Encodes the metrics of a broker. Takes milliseconds if there are many partitions.
pub fn encode(status: Arc<BrokerStatus>, format: Format) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Scrape(status)));
    let mut open_metrics = String::new();
    text::encode(&mut open_metrics, &registry).expect("a String takes everything");
    match format {
        Format::OpenMetrics => open_metrics,
        Format::Prometheus => prometheus_text(&open_metrics),
    }
}

/// Converts the text to Prometheus' older format, where a counter's family has the name of its samples, and there is no
/// end marker.
fn prometheus_text(open_metrics: &str) -> String {
    let mut text = String::with_capacity(open_metrics.len() + open_metrics.len() / 64);
    let mut help = None;
    for line in open_metrics.split_inclusive('\n') {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            help = rest.split_once(' ');
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' '))
        {
            let total = if kind == "counter\n" { "_total" } else { "" };
            if let Some((name, help)) = help.take() {
                let _ = write!(text, "# HELP {name}{total} {help}");
            }
            let _ = write!(text, "# TYPE {name}{total} {kind}");
        } else if !line.starts_with('#') {
            text.push_str(line);
        }
    }
    text
}

/// One scrape.
struct Scrape(Arc<BrokerStatus>);

impl fmt::Debug for Scrape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scrape").finish_non_exhaustive()
    }
}

impl Collector for Scrape {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut families = Families::new(encoder);
        let version = env!("CARGO_PKG_VERSION");
        families
            .gauge("brokkr_build_info", "Version of the broker; the value is 1.")?
            .with(&[("version", version)], 1u64)?;
        families
            .gauge("brokkr_ready", "Whether /health/ready answers 200: 1 or 0.")?
            .with(&[], u64::from(self.0.ready().is_ok()))?;
        families
            .gauge(
                "kafka_server_kafkaserver_brokerstate",
                "1: starting, 3: running, 7: stopping.",
            )?
            .with(&[], self.0.broker_state())?;
        process::encode(&mut families)?;
        match &*self.0 {
            BrokerStatus::Running(running) => running.encode(&mut families),
            BrokerStatus::Starting | BrokerStatus::Stopping => Ok(()),
        }
    }
}

impl RunningBroker {
    fn encode(&self, families: &mut Families<'_>) -> fmt::Result {
        let view = Arc::clone(self.ctx.cluster.clone().get());
        self.requests(families)?;
        self.connections(families)?;
        self.memory(families)?;
        self.log_directories(families)?;
        self.queues(families, &view)?;
        cluster(families, &view)?;
        traffic(families, &self.ctx, &view)?;
        partitions(families, &view)
    }

    fn requests(&self, families: &mut Families<'_>) -> fmt::Result {
        let apis = self.ctx.metrics.apis();
        let help = "Requests that arrived, by API and version.";
        let mut family = families.counter("kafka_network_requestmetrics_requests", help)?;
        for api in apis {
            for (version, n) in api.requests() {
                let labels = [("request", api.api_key.name()), ("version", &version.to_string())];
                family.with(&labels, n)?;
            }
        }
        let help = "Error codes in responses, NONE included: one for each topic, partition or resource that has one.";
        let mut family = families.counter("kafka_network_requestmetrics_errors", help)?;
        for api in apis {
            for (code, n) in api.errors() {
                let name = code.name().map_or_else(|| code.0.to_string(), str::to_owned);
                family.with(&[("request", api.api_key.name()), ("error", &name)], n)?;
            }
        }
        let requested = || apis.iter().filter(|api| api.requests().next().is_some());
        let help = "Bytes of requests.";
        let mut family = families.counter("brokkr_request_bytes", help)?;
        for api in requested() {
            family.with(&[("request", api.api_key.name())], api.request_bytes.get())?;
        }
        let help = "Bytes of responses.";
        let mut family = families.counter("brokkr_response_bytes", help)?;
        for api in requested() {
            family.with(&[("request", api.api_key.name())], api.response_bytes.get())?;
        }
        let help = "Milliseconds from a request's arrival until its response was handed to the kernel.";
        let mut family = families.millis("kafka_network_requestmetrics_totaltimems", help)?;
        for api in requested() {
            family.with(&[("request", api.api_key.name())], &api.total_time.values())?;
        }
        let help = "Seconds from a request's arrival until its response was complete.";
        let mut family = families.seconds("brokkr_request_handler_seconds", help)?;
        for api in requested() {
            family.with(&[("request", api.api_key.name())], &api.handler_time.values())?;
        }
        Ok(())
    }

    fn connections(&self, families: &mut Families<'_>) -> fmt::Result {
        let counts = self.ctx.connections.count();
        let listeners: Vec<_> = self
            .ctx
            .config
            .listeners
            .iter()
            .map(|listener| {
                let counts = counts.get(listener.name.as_str()).copied().unwrap_or_default();
                (listener.name.as_str(), counts)
            })
            .collect();
        let help = "Connections that are open, by listener.";
        let mut family = families.gauge("kafka_server_socket_server_metrics_connection_count", help)?;
        for (listener, counts) in &listeners {
            family.with(&[("listener", listener)], counts.open as u64)?;
        }
        let help = "Connections that were accepted, by listener.";
        let mut family = families.counter("kafka_server_socket_server_metrics_connection_creation", help)?;
        for (listener, counts) in &listeners {
            family.with(&[("listener", listener)], counts.accepted)?;
        }
        let help = "Connections that were closed at once because of max.connections or max.connections.per.ip, by listener.";
        let mut family = families.counter("brokkr_connections_refused", help)?;
        for (listener, counts) in &listeners {
            family.with(&[("listener", listener)], counts.refused)?;
        }
        let slots = usize::try_from(self.ctx.config.max_incremental_fetch_session_cache_slots).unwrap_or(0);
        let open = slots.saturating_sub(self.ctx.sessions.free());
        families
            .gauge(
                "kafka_server_fetchsessioncache_numincrementalfetchsessions",
                "Fetch sessions that are open.",
            )?
            .with(&[], open as u64)?;
        let help = "Errors of peers, disks and limits that the broker logs at a limited rate, by kind.";
        let mut family = families.counter("brokkr_errors", help)?;
        for (kind, n) in self.ctx.error_log.counts() {
            family.with(&[("kind", kind)], n)?;
        }
        Ok(())
    }

    fn memory(&self, families: &mut Families<'_>) -> fmt::Result {
        let pools = self.ctx.memory.pools();
        let help = "Bytes of each memory pool (queued.max.request.bytes).";
        let mut family = families.gauge("brokkr_memory_pool_capacity_bytes", help)?;
        for pool in &pools {
            family.with(&[("pool", pool.name)], pool.capacity_bytes as u64)?;
        }
        let mut family = families.gauge(
            "brokkr_memory_pool_used_bytes",
            "Bytes taken of each memory pool.",
        )?;
        for pool in &pools {
            family.with(&[("pool", pool.name)], pool.used_bytes as u64)?;
        }
        let help = "Requests, responses and checks of batches that wait for bytes of each memory pool.";
        let mut family = families.gauge("brokkr_memory_pool_waiting", help)?;
        for pool in &pools {
            family.with(&[("pool", pool.name)], pool.waiting as u64)?;
        }
        let used: usize = pools.iter().map(|pool| pool.used_bytes).sum();
        let all: usize = pools.iter().map(|pool| pool.capacity_bytes).sum();
        families
            .gauge(
                "kafka_network_socketserver_memorypoolused",
                "Bytes taken of all memory pools.",
            )?
            .with(&[], used as u64)?;
        families
            .gauge(
                "kafka_network_socketserver_memorypoolavailable",
                "Bytes free in all memory pools.",
            )?
            .with(&[], all.saturating_sub(used) as u64)
    }

    fn log_directories(&self, families: &mut Families<'_>) -> fmt::Result {
        let failed = self.directories.iter().filter(|dir| dir.has_failed()).count();
        families
            .gauge(
                "kafka_log_logmanager_offlinelogdirectorycount",
                "Log directories that failed.",
            )?
            .with(&[], failed as u64)?;
        let help = "Whether a log directory failed: 1 or 0.";
        let mut family = families.gauge("kafka_log_logmanager_logdirectoryoffline", help)?;
        for dir in &self.directories {
            family.with(&[("logDirectory", &dir.path)], u64::from(dir.has_failed()))?;
        }
        let help = "Milliseconds that each sync behind an append took from its submission, by log directory.";
        let mut family = families.millis("kafka_log_logflushstats_logflushrateandtimems", help)?;
        for dir in &self.directories {
            if let Some((_, logs)) = &dir.open {
                family.with(&[("logDirectory", &dir.path)], &logs.syncs().values())?;
            }
        }
        Ok(())
    }

    fn queues(&self, families: &mut Families<'_>, view: &ClusterView<TokioEnv>) -> fmt::Result {
        let queued = || view.routes.handles().map(|(.., handle)| handle.queued() as u64);
        let help = "Appends and other messages in the queues of all partitions.";
        families
            .gauge("brokkr_partition_queue_messages", help)?
            .with(&[], queued().sum::<u64>())?;
        let help = "Messages in the longest queue of a partition.";
        families
            .gauge("brokkr_partition_queue_messages_max", help)?
            .with(&[], queued().max().unwrap_or(0))?;
        let help = "Changes of metadata that wait for the controller.";
        families
            .gauge("brokkr_controller_queue_requests", help)?
            .with(&[], self.ctx.controller.queued() as u64)
    }
}

fn cluster(families: &mut Families<'_>, view: &ClusterView<TokioEnv>) -> fmt::Result {
    let (mut online, mut offline) = (0u64, 0u64);
    for (_, partition) in view.routes.iter().flat_map(|route| route.partitions()) {
        match partition.handle.is_offline() {
            true => offline += 1,
            false => online += 1,
        }
    }
    let (mut topics, mut partitions) = (0u64, 0u64);
    for topic in view.image.topics.iter() {
        topics += 1;
        partitions += topic.partitions().count() as u64;
    }
    for (name, help, value) in [
        (
            "kafka_server_replicamanager_partitioncount",
            "Partitions of this broker, those that are offline included.",
            online + offline,
        ),
        (
            "kafka_server_replicamanager_leadercount",
            "Partitions that this broker leads.",
            online,
        ),
        (
            "kafka_server_replicamanager_offlinereplicacount",
            "Partitions of this broker that are offline: their log is damaged or their log directory failed.",
            offline,
        ),
        (
            "kafka_controller_kafkacontroller_offlinepartitionscount",
            "Partitions of the cluster that no broker serves.",
            offline,
        ),
        (
            "kafka_controller_kafkacontroller_activecontrollercount",
            "Whether this node is the active controller: 1 or 0.",
            1,
        ),
        (
            "kafka_controller_kafkacontroller_globaltopiccount",
            "Topics of the cluster.",
            topics,
        ),
        (
            "kafka_controller_kafkacontroller_globalpartitioncount",
            "Partitions of the cluster.",
            partitions,
        ),
    ] {
        families.gauge(name, help)?.with(&[], value)?;
    }
    Ok(())
}

fn traffic(families: &mut Families<'_>, ctx: &Ctx<TokioEnv>, view: &ClusterView<TokioEnv>) -> fmt::Result {
    use crate::metrics::Traffic;
    type Get = fn(&Traffic) -> u64;
    let metrics: [(&str, &str, Get); 5] = [
        (
            "kafka_server_brokertopicmetrics_bytesin",
            "Bytes of batches that were appended; without a topic: of all topics.",
            |t| t.bytes_in.get(),
        ),
        (
            "kafka_server_brokertopicmetrics_bytesout",
            "Bytes of records in responses to Fetch; without a topic: of all topics.",
            |t| t.bytes_out.get(),
        ),
        (
            "kafka_server_brokertopicmetrics_messagesin",
            "Records that were appended; without a topic: of all topics.",
            |t| t.messages_in.get(),
        ),
        (
            "kafka_server_brokertopicmetrics_totalproducerequests",
            "Batches for partitions that came with Produce; without a topic: of all topics.",
            |t| t.produce_requests.get(),
        ),
        (
            "kafka_server_brokertopicmetrics_totalfetchrequests",
            "Partitions that Fetch was answered for; without a topic: of all topics.",
            |t| t.fetch_requests.get(),
        ),
    ];
    for (name, help, get) in metrics {
        let mut family = families.counter(name, help)?;
        family.with(&[], get(&ctx.metrics.traffic))?;
        for route in view.routes.iter() {
            family.with(&[("topic", &route.name)], get(&route.traffic.topic))?;
        }
    }
    Ok(())
}

fn partitions(families: &mut Families<'_>, view: &ClusterView<TokioEnv>) -> fmt::Result {
    // Each partition's values come from one view.
    let mut rows = Vec::new();
    for route in view.routes.iter() {
        for (index, partition) in route.partitions() {
            if let Some(log) = partition.handle.view_if_open() {
                let ends = [log.log_start, log.log_end, log.high_watermark].map(|offset| offset.0);
                let size = i64::try_from(log.size_bytes).unwrap_or(i64::MAX);
                rows.push((&route.name, index.to_string(), [ends[0], ends[1], ends[2], size]));
            }
        }
    }
    let metrics = [
        (
            "kafka_log_log_logstartoffset",
            "First offset of a partition's log.",
        ),
        (
            "kafka_log_log_logendoffset",
            "Offset of the next record of a partition's log.",
        ),
        (
            "brokkr_partition_high_watermark",
            "High watermark of a partition: records below it are committed.",
        ),
        ("kafka_log_log_size", "Bytes of a partition's segments."),
    ];
    for (i, (name, help)) in metrics.into_iter().enumerate() {
        let mut family = families.gauge(name, help)?;
        for (topic, partition, values) in &rows {
            family.with(&[("topic", topic), ("partition", partition)], values[i])?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_older_format_has_the_same_samples() {
        let open_metrics = "# HELP a Counts.\n# TYPE a counter\na_total{x=\"# HELP\"} 1\n# HELP b Is.\n# TYPE b gauge\nb 2\n# EOF\n";
        assert_eq!(
            prometheus_text(open_metrics),
            "# HELP a_total Counts.\n# TYPE a_total counter\na_total{x=\"# HELP\"} 1\n# HELP b Is.\n# TYPE b gauge\nb 2\n"
        );
    }

    #[test]
    fn a_broker_that_starts_or_stops_is_not_ready_and_has_metrics_of_its_process() {
        for (status, state) in [(BrokerStatus::Starting, 1), (BrokerStatus::Stopping, 7)] {
            assert!(status.ready().is_err());
            let text = encode(Arc::new(status), Format::OpenMetrics);
            assert!(
                text.contains(&format!("\nkafka_server_kafkaserver_brokerstate {state}\n")),
                "{text}"
            );
            assert!(text.contains("\nbrokkr_ready 0\n") && text.contains("\nprocess_resident_memory_bytes "));
            assert!(text.ends_with("\n# EOF\n"));
        }
    }
}

//! Parameters of a workload: plain data, so that a plan can store and change it. Times are in milliseconds.

use std::collections::BTreeMap;
use std::time::Duration;

use brokkr_client::{Acks, ClientConfig, ConsumerConfig, IsolationLevel, ProducerConfig, TopicPartition};
use brokkr_types::Sequence;
use brokkr_wire::ApiKey;
use brokkr_wire::records::CompressionType;
use serde::{Deserialize, Serialize};

/// Topics, and the processes that use them.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Workload {
    /// Configuration of all its clients.
    pub client: ClientSpec,
    /// The topics, which are created first.
    pub topics: Vec<TopicSpec>,
    /// The producer processes.
    pub producers: Vec<ProducerSpec>,
    /// The consumer processes.
    pub consumers: Vec<ConsumerSpec>,
    /// The admin process.
    pub admin: Option<AdminSpec>,
    /// The process that deletes topics and creates them again.
    #[serde(default)]
    pub recreator: Option<RecreatorSpec>,
    /// The process that administers topics of its own.
    #[serde(default)]
    pub operator: Option<OperatorSpec>,
    /// The process that asks about topics of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inspector: Option<InspectorSpec>,
    /// The process that opens connections.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub visitor: Option<VisitorSpec>,
}

/// Configuration of a client.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ClientSpec {
    /// The bootstrap servers.
    pub bootstrap: Vec<(String, u16)>,
    /// `request.timeout.ms`.
    pub request_timeout_ms: u64,
    /// `socket.connection.setup.timeout.ms`.
    pub connect_timeout_ms: u64,
    /// `retry.backoff.ms`.
    pub backoff_min_ms: u64,
    /// `retry.backoff.max.ms`.
    pub backoff_max_ms: u64,
    /// Longest time of an admin call with all its attempts.
    pub api_timeout_ms: u64,
    /// The latest version to use, by API key, to imitate older clients.
    #[serde(default)]
    pub versions_max: BTreeMap<i16, i16>,
}

impl ClientSpec {
    /// Short timeouts as in Jepsen's tests, with the bootstrap server `host:port`.
    pub fn new(host: &str, port: u16) -> Self {
        Self {
            bootstrap: vec![(host.to_owned(), port)],
            request_timeout_ms: 3_000,
            connect_timeout_ms: 3_000,
            backoff_min_ms: 50,
            backoff_max_ms: 500,
            api_timeout_ms: 10_000,
            versions_max: BTreeMap::new(),
        }
    }

    pub(crate) fn config(&self) -> ClientConfig {
        let version = |(key, max): (&i16, &i16)| Some((ApiKey::from_i16(*key)?, *max));
        let mut config = ClientConfig::new("", 0);
        config.bootstrap = self.bootstrap.clone();
        config.request_timeout = Duration::from_millis(self.request_timeout_ms);
        config.connect_timeout = Duration::from_millis(self.connect_timeout_ms);
        config.backoff_min = Duration::from_millis(self.backoff_min_ms);
        config.backoff_max = Duration::from_millis(self.backoff_max_ms);
        config.api_timeout = Duration::from_millis(self.api_timeout_ms);
        config.versions_max = self.versions_max.iter().filter_map(version).collect();
        config
    }
}

/// A topic.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TopicSpec {
    /// Its name.
    pub name: String,
    /// Number of partitions.
    pub partitions: i32,
    /// Replication factor; -1 for the broker's default.
    pub replication_factor: i16,
    /// Its configurations, by name.
    #[serde(default)]
    pub configs: BTreeMap<String, String>,
}

impl TopicSpec {
    /// Its partitions.
    pub fn all(&self) -> Vec<(String, i32)> {
        (0..self.partitions).map(|p| (self.name.clone(), p)).collect()
    }
}

pub(crate) fn partitions(of: &[(String, i32)]) -> Vec<TopicPartition> {
    of.iter().map(|(t, p)| TopicPartition::new(t, *p)).collect()
}

/// A process that sends unique values, a few in each operation.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ProducerSpec {
    /// Its number, which is part of all its values.
    pub process: u64,
    /// After an operation of unknown outcome its number grows by this, which is more than the number of processes.
    pub process_stride: u64,
    /// The partitions; each value goes to a random one.
    pub partitions: Vec<(String, i32)>,
    /// Maximum sends in an operation; they are all in flight at once.
    pub sends_max: u64,
    /// The longest pause between operations.
    pub pause_max_ms: u64,
    /// Maximum number of operations; `None` for no limit.
    pub operations_max: Option<u64>,
    /// Maximum padding behind a value.
    pub padding_bytes_max: u64,
    /// `enable.idempotence`.
    pub idempotent: bool,
    /// `acks`: 0, 1 or -1.
    pub acks: i16,
    /// `linger.ms`.
    pub linger_ms: u64,
    /// Maximum records in a batch.
    pub batch_records_max: usize,
    /// `max.in.flight.requests.per.connection`.
    pub in_flight_max: usize,
    /// `retries`; `None` for Kafka's default, the maximum.
    pub retries_max: Option<u32>,
    /// `delivery.timeout.ms`.
    pub delivery_timeout_ms: u64,
    /// `compression.type`, as its id.
    pub compression: u8,
    /// The first sequence of its producer ids; near `i32::MAX` to make them wrap.
    #[serde(default)]
    pub first_sequence: i32,
    /// How often it was killed before, so that its values are new after each kill.
    #[serde(default)]
    pub lives_before: u64,
    /// After this many operations it crashes and restarts with another producer id.
    #[serde(default)]
    pub restarts_after: Option<u64>,
    /// Number of keys of its records, shared with all producers that have the same number; each key's records of a topic go
    /// to one partition. 0: one key of its own, sent to any partition.
    #[serde(default)]
    pub keys: u64,
    /// Maximum number of headers of a record.
    #[serde(default)]
    pub headers_max: u64,
    /// Records are up to that much older than the wall clock, so that timestamps are out of order.
    #[serde(default)]
    pub older_max_ms: u64,
}

impl ProducerSpec {
    /// An idempotent producer with five small batches in flight.
    pub fn idempotent(process: u64, process_stride: u64, partitions: Vec<(String, i32)>) -> Self {
        Self {
            process,
            process_stride,
            partitions,
            sends_max: 12,
            pause_max_ms: 20,
            operations_max: None,
            padding_bytes_max: 40,
            idempotent: true,
            acks: -1,
            linger_ms: 0,
            batch_records_max: 3,
            in_flight_max: 5,
            retries_max: None,
            delivery_timeout_ms: 10_000,
            compression: 0,
            first_sequence: 0,
            lives_before: 0,
            restarts_after: None,
            keys: 0,
            headers_max: 0,
            older_max_ms: 0,
        }
    }

    pub(crate) fn config(&self) -> ProducerConfig {
        ProducerConfig {
            acks: match self.acks {
                0 => Acks::None,
                1 => Acks::Leader,
                _ => Acks::All,
            },
            idempotent: self.idempotent,
            linger: Duration::from_millis(self.linger_ms),
            batch_records_max: self.batch_records_max,
            in_flight_max: self.in_flight_max,
            retries_max: self.retries_max.unwrap_or(u32::MAX),
            delivery_timeout: Duration::from_millis(self.delivery_timeout_ms),
            compression: CompressionType::from_id(self.compression).unwrap_or(CompressionType::None),
            first_sequence: Sequence(self.first_sequence),
            ..ProducerConfig::default()
        }
    }
}

/// A process that reads partitions from the beginning and then follows their ends.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ConsumerSpec {
    /// Its number.
    pub process: u64,
    /// The partitions.
    pub partitions: Vec<(String, i32)>,
    /// Whether `isolation.level` is `read_committed`.
    pub read_committed: bool,
    /// Whether fetches use incremental sessions.
    pub sessions: bool,
    /// `fetch.max.wait.ms`.
    pub max_wait_ms: u64,
    /// `fetch.min.bytes`.
    pub min_bytes: i32,
    /// `fetch.max.bytes`.
    pub max_bytes: i32,
    /// `max.partition.fetch.bytes`.
    pub partition_max_bytes: i32,
    /// Longest time a poll waits.
    pub poll_timeout_ms: u64,
    /// After this many polls it starts again from the beginning.
    pub rewind_after: Option<u64>,
    /// Longest time to read to the end after all producers stopped.
    pub drain_timeout_ms: u64,
    /// The longest pause between polls.
    #[serde(default)]
    pub pause_max_ms: u64,
    /// After this many polls it stalls, and does not even read what has been sent to it.
    #[serde(default)]
    pub stuck_after: Option<u64>,
    /// Duration of a stall.
    #[serde(default)]
    pub stuck_ms: u64,
}

impl ConsumerSpec {
    /// A consumer with Kafka's defaults and small fetches.
    pub fn tailing(process: u64, partitions: Vec<(String, i32)>) -> Self {
        Self {
            process,
            partitions,
            read_committed: false,
            sessions: true,
            max_wait_ms: 200,
            min_bytes: 1,
            max_bytes: 1 << 20,
            partition_max_bytes: 16 << 10,
            poll_timeout_ms: 500,
            rewind_after: None,
            drain_timeout_ms: 30_000,
            pause_max_ms: 0,
            stuck_after: None,
            stuck_ms: 0,
        }
    }

    pub(crate) fn config(&self) -> ConsumerConfig {
        ConsumerConfig {
            isolation: if self.read_committed {
                IsolationLevel::ReadCommitted
            } else {
                IsolationLevel::ReadUncommitted
            },
            max_wait: Duration::from_millis(self.max_wait_ms),
            min_bytes: self.min_bytes,
            max_bytes: self.max_bytes,
            partition_max_bytes: self.partition_max_bytes,
            sessions: self.sessions,
            ..ConsumerConfig::default()
        }
    }
}

/// A process that occasionally deletes records.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct AdminSpec {
    /// Its number.
    pub process: u64,
    /// As [`ProducerSpec::process_stride`].
    pub process_stride: u64,
    /// The partitions whose records it deletes.
    pub partitions: Vec<(String, i32)>,
    /// The longest pause between two deletions.
    pub pause_max_ms: u64,
    /// The partitions that it asks for offsets by time.
    #[serde(default)]
    pub queried: Vec<(String, i32)>,
}

/// A process that administers topics of its own: creates and deletes them, adds partitions, changes configurations, sends a
/// few records, and looks at what became of them.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct OperatorSpec {
    /// Its number.
    pub process: u64,
    /// As [`ProducerSpec::process_stride`].
    pub process_stride: u64,
    /// The names of its topics begin so.
    pub prefix: String,
    /// Most topics at a time.
    pub topics_max: usize,
    /// The longest pause between two operations.
    pub pause_max_ms: u64,
}

/// A process that changes topics of its own, alone, and asks a broker everything about them.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct InspectorSpec {
    /// Its number.
    pub process: u64,
    /// As [`ProducerSpec::process_stride`].
    pub process_stride: u64,
    /// The names of its topics begin so.
    pub prefix: String,
    /// Most topics at a time.
    pub topics_max: usize,
    /// The longest pause between two operations.
    pub pause_max_ms: u64,
    /// Whether it is another client now and then, of any version.
    #[serde(default)]
    pub any_versions: bool,
}

/// A process that opens connections, on a node of its own, and sees how long they live.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct VisitorSpec {
    /// Its number.
    pub process: u64,
    /// The longest pause between two visits.
    pub pause_max_ms: u64,
    /// The broker's `connections.max.idle.ms`; 0 if it closes none.
    pub idle_ms: u64,
    /// The broker's `max.connections.per.ip`.
    pub connections_max: u64,
}

/// A process that repeatedly deletes topics of the workload and creates them again. It deletes by id, so that a late request
/// does not affect a later topic. When it is stopped all its topics exist.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RecreatorSpec {
    /// Its number.
    pub process: u64,
    /// As [`ProducerSpec::process_stride`].
    pub process_stride: u64,
    /// The names of its topics.
    pub topics: Vec<String>,
    /// The longest time that a topic exists.
    pub stays_max_ms: u64,
    /// The longest time that a topic does not exist.
    pub gone_max_ms: u64,
}

//! The controller: turns requests into records, given the state.
//!
//! [`Controller::decide`] only reads the state. Its host appends the records as one batch (a request is carried out whole or
//! not at all), calls [`Controller::replay`] for each appended record, and sends the [`Reply`] once they are committed. To
//! undo uncommitted records the host keeps an older clone: the state uses persistent maps, so a clone is cheap.
//!
//! Error codes and messages are Kafka's, word for word: tools and tests show them.

mod brokers;
mod configs;
mod loggers;
mod placement;
mod topics;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use brokkr_types::{Instant, Uuid};
use brokkr_wire::messages::{
    AbortTransactionRecord, AlterConfigsRequest, AlterConfigsResponse, CreatePartitionsRequest,
    CreatePartitionsResponse, CreateTopicsRequest, CreateTopicsResponse, DeleteTopicsRequest,
    DeleteTopicsResponse, IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse, MetadataRecord,
};
use brokkr_wire::{ErrorCode, Str};

pub use brokers::{PRODUCER_ID_BLOCK_SIZE, Registration};
pub use loggers::ROOT_LOGGER;
pub use topics::refuse_excessive;

use crate::bootstrap::bootstrap_records;
use crate::config::resolve::Layers;
use crate::image::{ConfigResource, Image, MetadataState, ReplayError};
use crate::records::{BATCH_BYTES_MAX, RECORDS_PER_REQUEST_MAX};

/// The controller's settings.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settings {
    /// The node that it runs on; its configuration defines the topic defaults.
    pub node_id: i32,
    /// `num.partitions`
    pub num_partitions: i32,
    /// `default.replication.factor`
    pub default_replication_factor: i16,
    /// Values from the file and the command line.
    pub file: BTreeMap<String, String>,
}

impl Default for Settings {
    /// Node 1 with default values.
    fn default() -> Self {
        Self {
            node_id: 1,
            num_partitions: 1,
            default_replication_factor: 1,
            file: BTreeMap::new(),
        }
    }
}

/// A CreateTopics request, with the randomness for topic ids.
#[derive(Clone, PartialEq, Debug)]
pub struct CreateTopics {
    /// The request.
    pub request: CreateTopicsRequest,
    /// Sixteen random bytes for each topic of the request, in its order. Topics without bytes fail.
    pub random: Vec<[u8; 16]>,
}

/// A request to the controller.
#[derive(Clone, PartialEq, Debug)]
pub enum Request {
    /// A broker registers.
    RegisterBroker(Registration),
    /// Log directories of this node failed.
    DirectoriesOffline(Vec<Uuid>),
    /// Allocates a block of producer ids for this node.
    AllocateProducerIds,
    /// Creates topics.
    CreateTopics(CreateTopics),
    /// Deletes topics.
    DeleteTopics(DeleteTopicsRequest),
    /// Adds partitions to topics.
    CreatePartitions(CreatePartitionsRequest),
    /// Replaces configurations of resources.
    AlterConfigs(AlterConfigsRequest),
    /// Changes keys of resources.
    IncrementalAlterConfigs(IncrementalAlterConfigsRequest),
}

/// A reply, to the request of the same name.
#[derive(Clone, PartialEq, Debug)]
pub enum Reply {
    /// The broker epoch.
    Registered(Result<i64, ApiError>),
    /// Done.
    DirectoriesOffline,
    /// The block of ids.
    ProducerIds(Result<Range<i64>, ErrorCode>),
    /// A result for each topic, in the request's order.
    CreateTopics(CreateTopicsResponse),
    /// A result for each topic, in the request's order.
    DeleteTopics(DeleteTopicsResponse),
    /// A result for each topic, in the request's order.
    CreatePartitions(CreatePartitionsResponse),
    /// A result for each resource, in the request's order.
    AlterConfigs(AlterConfigsResponse),
    /// A result for each resource, in the request's order.
    IncrementalAlterConfigs(IncrementalAlterConfigsResponse),
}

/// A refused request, or a refused part of one: the error code and message for the client.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiError {
    /// Kafka's error code.
    pub code: ErrorCode,
    /// Kafka's error message, if it has one.
    pub message: Option<String>,
}

impl ApiError {
    /// An error with a message.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: Some(message.into()),
        }
    }

    /// An error without a message.
    pub fn bare(code: ErrorCode) -> Self {
        Self { code, message: None }
    }

    /// The message for a response, clipped to its limit.
    pub fn message_str(&self) -> Option<Str> {
        self.message.as_deref().map(Str::message)
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.message {
            Some(message) => write!(f, "{}: {message}", self.code),
            None => self.code.fmt(f),
        }
    }
}

impl fmt::Debug for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for ApiError {}

/// The result of a request, or its error.
type Outcome<T> = Result<T, ApiError>;

/// The error code and message of a result, for a response.
fn code_and_message<T>(outcome: &Outcome<T>) -> (i16, Option<Str>) {
    match outcome {
        Ok(_) => (0, None),
        Err(e) => (e.code.0, e.message_str()),
    }
}

/// The error for a request whose records don't fit one batch.
fn too_large() -> ApiError {
    ApiError::new(
        ErrorCode::POLICY_VIOLATION,
        "Unable to perform excessively large batch operation.",
    )
}

/// The remaining space for a request's records: they become one batch, within Kafka's limits for both.
struct Budget {
    records: usize,
    bytes: usize,
}

impl Budget {
    /// The limits of one request.
    fn new() -> Self {
        Self {
            records: RECORDS_PER_REQUEST_MAX,
            bytes: BATCH_BYTES_MAX,
        }
    }

    /// Returns the outcome unchanged if its records still fit.
    fn spend<T>(&mut self, outcome: Outcome<T>, records: impl Fn(&T) -> &[MetadataRecord]) -> Outcome<T> {
        let value = outcome?;
        let records = records(&value);
        let bytes: usize = records.iter().map(bytes_at_most).sum();
        if records.len() > self.records || bytes > self.bytes {
            return Err(too_large());
        }
        self.records -= records.len();
        self.bytes -= bytes;
        Ok(value)
    }
}

/// Maximum length of a record that a request causes.
fn bytes_at_most(record: &MetadataRecord) -> usize {
    const FIXED: usize = 128;
    let variable = match record {
        MetadataRecord::Config(r) => {
            r.resource_name.len() + r.name.len() + r.value.as_ref().map_or(0, |v| v.len())
        }
        MetadataRecord::Partition(r) => r.replicas.len() * (4 + 4 + 16),
        _ => 0,
    };
    FIXED + variable
}

/// The controller's state machine.
#[derive(Clone, PartialEq, Debug)]
pub struct Controller {
    state: MetadataState,
    settings: Arc<Settings>,
}

impl Controller {
    /// A controller that continues from this image, with default settings.
    pub fn new(image: Image) -> Self {
        Self {
            state: MetadataState::new(image),
            settings: Arc::default(),
        }
    }

    /// The same controller with these settings.
    #[must_use]
    pub fn with_settings(self, settings: Settings) -> Self {
        Self {
            settings: Arc::new(settings),
            ..self
        }
    }

    /// The image, without the records of an open metadata transaction.
    pub fn image(&self) -> &Image {
        self.state.image()
    }

    /// The records that a new leader writes before it decides on requests: the end of a metadata transaction that its
    /// predecessor left open, and the bootstrap records of a new cluster. Often none.
    pub fn activation_records(&self) -> Vec<MetadataRecord> {
        let mut records = Vec::new();
        if self.state.in_transaction() {
            let aborted = AbortTransactionRecord {
                reason: Some(Str::from_static("Controller failover")),
                ..AbortTransactionRecord::default()
            };
            records.push(aborted.into());
        }
        if self.image().metadata_version().is_none() {
            records.extend(bootstrap_records());
        }
        records
    }

    /// Replays the record at `offset`, written in the quorum epoch `epoch`.
    ///
    /// # Errors
    /// The log can't contain this record: the log must be taken offline.
    pub fn replay(&mut self, offset: i64, epoch: i32, record: &MetadataRecord) -> Result<(), ReplayError> {
        self.state.replay(offset, epoch, record)
    }

    /// Skips a control record at `offset`.
    pub fn advance(&mut self, offset: i64, epoch: i32) {
        self.state.advance(offset, epoch);
    }

    /// Decides on a request. Returns the records that carry it out, and the reply to send once they are committed. Without
    /// records the reply can be sent at once. The first record will be at `next_offset`.
    pub fn decide(&self, _now: Instant, next_offset: i64, request: Request) -> (Vec<MetadataRecord>, Reply) {
        match request {
            Request::RegisterBroker(registration) => {
                let (records, outcome) = split(self.register_broker(&registration, next_offset));
                (records, Reply::Registered(outcome))
            }
            Request::DirectoriesOffline(failed) => {
                let records = self.directories_offline(self.settings.node_id, &failed);
                (records, Reply::DirectoriesOffline)
            }
            Request::AllocateProducerIds => {
                let (records, outcome) = split(self.allocate_producer_ids());
                (records, Reply::ProducerIds(outcome.map_err(|e| e.code)))
            }
            Request::CreateTopics(create) => {
                let (records, response) = self.create_topics(&create);
                (records, Reply::CreateTopics(response))
            }
            Request::DeleteTopics(request) => {
                let (records, response) = self.delete_topics(&request);
                (records, Reply::DeleteTopics(response))
            }
            Request::CreatePartitions(request) => {
                let (records, response) = self.create_partitions(&request);
                (records, Reply::CreatePartitions(response))
            }
            Request::AlterConfigs(request) => {
                let (records, response) = self.alter_configs(&request);
                (records, Reply::AlterConfigs(response))
            }
            Request::IncrementalAlterConfigs(request) => {
                let (records, response) = self.incremental_alter_configs(&request);
                (records, Reply::IncrementalAlterConfigs(response))
            }
        }
    }

    /// The configuration layers of this node.
    fn layers(&self) -> Layers<'_> {
        let image = self.image();
        Layers {
            broker: image.configs(&ConfigResource::broker(self.settings.node_id)),
            cluster: image.configs(&ConfigResource::cluster()),
            file: Some(&self.settings.file),
        }
    }
}

fn split<T>(outcome: Outcome<(Vec<MetadataRecord>, T)>) -> (Vec<MetadataRecord>, Outcome<T>) {
    match outcome {
        Ok((records, value)) => (records, Ok(value)),
        Err(e) => (Vec::new(), Err(e)),
    }
}

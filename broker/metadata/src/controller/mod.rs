//! What the controller decides: requests against the state, as records.
//!
//! [`Controller::decide`] looks and changes nothing; its host appends the records as one batch (a request is carried out whole or
//! not at all), calls [`Controller::replay`] for each as it stands in the log, and lets the [`Reply`] out once they are committed.
//! To take back what was never committed the host keeps a clone from before: the state is persistent, a clone is cheap.
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

/// What the controller was started with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settings {
    /// The node that it runs on, whose configuration gives topics their defaults.
    pub node_id: i32,
    /// `num.partitions`
    pub num_partitions: i32,
    /// `default.replication.factor`
    pub default_replication_factor: i16,
    /// What was set in the file and on the command line.
    pub file: BTreeMap<String, String>,
}

impl Default for Settings {
    /// Node 1, nothing set.
    fn default() -> Self {
        Self {
            node_id: 1,
            num_partitions: 1,
            default_replication_factor: 1,
            file: BTreeMap::new(),
        }
    }
}

/// Topics to create, with the randomness for their ids.
#[derive(Clone, PartialEq, Debug)]
pub struct CreateTopics {
    /// As it came.
    pub request: CreateTopicsRequest,
    /// Sixteen random bytes for each topic of the request, in its order. With fewer, the topics behind fail.
    pub random: Vec<[u8; 16]>,
}

/// What can be asked.
#[derive(Clone, PartialEq, Debug)]
pub enum Request {
    /// A broker begins a life.
    RegisterBroker(Registration),
    /// Log directories of this node failed.
    DirectoriesOffline(Vec<Uuid>),
    /// Producer ids that nobody had before, for this node.
    AllocateProducerIds,
    /// New topics.
    CreateTopics(CreateTopics),
    /// Topics are to go.
    DeleteTopics(DeleteTopicsRequest),
    /// Topics are to have more partitions.
    CreatePartitions(CreatePartitionsRequest),
    /// Resources are to be configured so and no other way.
    AlterConfigs(AlterConfigsRequest),
    /// Keys of resources are to be changed.
    IncrementalAlterConfigs(IncrementalAlterConfigsRequest),
}

/// What is answered, each to the request of its name.
#[derive(Clone, PartialEq, Debug)]
pub enum Reply {
    /// The broker epoch.
    Registered(Result<i64, ApiError>),
    /// Noted.
    DirectoriesOffline,
    /// The ids.
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

/// A request, or a part of one, that is refused: whoever asked is told the code and the sentence.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiError {
    /// Kafka's code.
    pub code: ErrorCode,
    /// Kafka's sentence, where it has one.
    pub message: Option<String>,
}

impl ApiError {
    /// An error with a sentence.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: Some(message.into()),
        }
    }

    /// An error without one.
    pub fn bare(code: ErrorCode) -> Self {
        Self { code, message: None }
    }

    /// The sentence, as responses have it: clipped.
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

/// Either what was asked for or why not.
type Outcome<T> = Result<T, ApiError>;

/// The code and sentence of an outcome, as responses have them.
fn told<T>(outcome: &Outcome<T>) -> (i16, Option<Str>) {
    match outcome {
        Ok(_) => (0, None),
        Err(e) => (e.code.0, e.message_str()),
    }
}

/// Why a request that would write more than one batch holds is refused.
fn too_large() -> ApiError {
    ApiError::new(
        ErrorCode::POLICY_VIOLATION,
        "Unable to perform excessively large batch operation.",
    )
}

/// How much one request may still write: it becomes one batch, and Kafka's limits for both are kept.
struct Budget {
    records: usize,
    bytes: usize,
}

impl Budget {
    /// What a request has.
    fn new() -> Self {
        Self {
            records: RECORDS_PER_REQUEST_MAX,
            bytes: BATCH_BYTES_MAX,
        }
    }

    /// The outcome again, if its records still fit.
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

/// How long a record that a request can cause is at most.
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

/// The cluster's state and what may become of it.
#[derive(Clone, PartialEq, Debug)]
pub struct Controller {
    state: MetadataState,
    settings: Arc<Settings>,
}

impl Controller {
    /// A controller that goes on from this image, with the default settings.
    pub fn new(image: Image) -> Self {
        Self {
            state: MetadataState::new(image),
            settings: Arc::default(),
        }
    }

    /// The same with these settings.
    #[must_use]
    pub fn with_settings(self, settings: Settings) -> Self {
        Self {
            settings: Arc::new(settings),
            ..self
        }
    }

    /// The image: without what an open metadata transaction has done so far.
    pub fn image(&self) -> &Image {
        self.state.image()
    }

    /// What a new leader writes before it decides anything: the end of a metadata transaction in which the one before it died,
    /// and what a cluster begins with, if this one hasn't begun. Often nothing.
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
    /// The log can't have this record: it is to be taken offline.
    pub fn replay(&mut self, offset: i64, epoch: i32, record: &MetadataRecord) -> Result<(), ReplayError> {
        self.state.replay(offset, epoch, record)
    }

    /// Passes over a control record at `offset`.
    pub fn advance(&mut self, offset: i64, epoch: i32) {
        self.state.advance(offset, epoch);
    }

    /// What a request comes to: the records that carry it out, and what is answered once they are committed. No records:
    /// there is nothing to wait for. The first record will stand at `next_offset`.
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

    /// Where the values of this node come from.
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

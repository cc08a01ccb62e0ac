//! A client with one request at a time: topics, offsets, producer ids, reading back.

use crate::error::BenchError;
use brokkr_wire::messages::api_versions_request::ApiVersionsRequest;
use brokkr_wire::messages::api_versions_response::ApiVersion;
use brokkr_wire::messages::create_topics_request::{
    CreatableTopic, CreatableTopicConfig, CreateTopicsRequest,
};
use brokkr_wire::messages::delete_topics_request::{DeleteTopicState, DeleteTopicsRequest};
use brokkr_wire::messages::init_producer_id_request::InitProducerIdRequest;
use brokkr_wire::messages::list_offsets_request::{
    ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic,
};
use brokkr_wire::messages::metadata_request::{MetadataRequest, MetadataRequestTopic};
use brokkr_wire::messages::metadata_response::MetadataResponsePartition;
use brokkr_wire::{ApiKey, Message, Part, Reader, Request, Str, frame};
use bytes::Bytes;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// The last version of Produce that names topics; later ones use ids.
pub const PRODUCE_VERSION: i16 = 12;
/// The last version of Fetch that names topics; later ones use ids.
pub const FETCH_VERSION: i16 = 12;
const METADATA_VERSION: i16 = 12;
const LIST_OFFSETS_VERSION: i16 = 7;
const CREATE_TOPICS_VERSION: i16 = 5;
const DELETE_TOPICS_VERSION: i16 = 6;
const INIT_PRODUCER_ID_VERSION: i16 = 4;
const VERSIONS: [(ApiKey, i16); 7] = [
    (ApiKey::Produce, PRODUCE_VERSION),
    (ApiKey::Fetch, FETCH_VERSION),
    (ApiKey::Metadata, METADATA_VERSION),
    (ApiKey::ListOffsets, LIST_OFFSETS_VERSION),
    (ApiKey::CreateTopics, CREATE_TOPICS_VERSION),
    (ApiKey::DeleteTopics, DELETE_TOPICS_VERSION),
    (ApiKey::InitProducerId, INIT_PRODUCER_ID_VERSION),
];

/// Longest time to wait for a response; after it the measurement has failed.
pub const RESPONSE_TIMEOUT: Duration = Duration::from_secs(60);
const LEADERS_MAX: Duration = Duration::from_secs(120);
const LEADERS_POLL: Duration = Duration::from_millis(100);
/// Largest response; a larger size field is corrupt.
const FRAME_BYTES_MAX: usize = 256 << 20;

/// Opens a socket to a broker, with the options that all modules here need.
pub fn connect(addr: SocketAddr) -> Result<TcpStream, BenchError> {
    let stream = TcpStream::connect(addr).map_err(BenchError::io(format!("connecting to {addr}")))?;
    let set_up = || {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(RESPONSE_TIMEOUT))?;
        stream.set_write_timeout(Some(RESPONSE_TIMEOUT))
    };
    set_up().map_err(BenchError::io(format!("a socket to {addr}")))?;
    Ok(stream)
}

/// A request's frame in one piece.
pub fn request_bytes<R: Request>(
    request: &R,
    version: i16,
    correlation_id: i32,
) -> Result<Vec<u8>, BenchError> {
    let client_id = Str::from_static("brokkr-bench");
    let mut bytes = Vec::new();
    for part in frame::encode_request(request, version, correlation_id, Some(&client_id))? {
        match part {
            Part::Bytes(part) => bytes.extend_from_slice(&part),
            Part::External { .. } => return Err(BenchError::Wire("a request with external records".into())),
        }
    }
    Ok(bytes)
}

/// A connection with one request in flight.
pub struct Client {
    addr: SocketAddr,
    stream: TcpStream,
    correlation_id: i32,
    /// The last response; its memory is reused for the next one if it is not shared any more.
    answer: Bytes,
}

impl Client {
    /// Connects and checks that the broker supports the versions used here.
    pub fn connect(addr: SocketAddr) -> Result<Self, BenchError> {
        let mut client = Self {
            addr,
            stream: connect(addr)?,
            correlation_id: 0,
            answer: Bytes::new(),
        };
        let served = client.call(&ApiVersionsRequest::default(), 0)?;
        BenchError::check(served.error_code, || "ApiVersions".into())?;
        for (api_key, version) in VERSIONS {
            let fits = |v: &&ApiVersion| {
                v.api_key == api_key as i16 && (v.min_version..=v.max_version).contains(&version)
            };
            if served.api_keys.iter().find(fits).is_none() {
                let problem = format!("{addr} does not serve {api_key:?} in version {version}");
                return Err(BenchError::Usage(problem));
            }
        }
        Ok(client)
    }

    /// Sends a request and waits for the response. Drop the previous response first to save an allocation.
    pub fn call<R: Request>(&mut self, request: &R, version: i16) -> Result<R::Response, BenchError> {
        self.correlation_id += 1;
        let bytes = request_bytes(request, version, self.correlation_id)?;
        let failed = || format!("{} to {}", R::NAME, self.addr);
        self.stream.write_all(&bytes).map_err(BenchError::io(failed()))?;
        let mut size = [0; 4];
        self.stream
            .read_exact(&mut size)
            .map_err(BenchError::io(failed()))?;
        let size = usize::try_from(i32::from_be_bytes(size)).unwrap_or(usize::MAX);
        if size > FRAME_BYTES_MAX {
            return Err(BenchError::Wire(format!(
                "{}: a response of {size} bytes",
                failed()
            )));
        }
        let mut body = std::mem::take(&mut self.answer)
            .try_into_mut()
            .unwrap_or_default();
        body.resize(size, 0);
        self.stream
            .read_exact(&mut body)
            .map_err(BenchError::io(failed()))?;
        self.answer = body.freeze();
        let mut reader = Reader::new(self.answer.clone());
        let header = frame::decode_response_header(&mut reader, R::API_KEY, version)?;
        if header.correlation_id != self.correlation_id {
            return Err(BenchError::Check(format!(
                "{}: a response to {} instead of {}",
                failed(),
                header.correlation_id,
                self.correlation_id
            )));
        }
        Ok(R::Response::decode(&mut reader, version)?)
    }

    /// Creates a topic with one replica and waits until every partition has a leader.
    pub fn create_topic(
        &mut self,
        name: &str,
        partitions: i32,
        configs: &[(&str, &str)],
    ) -> Result<(), BenchError> {
        let topic = CreatableTopic {
            name: Str::copied(name),
            num_partitions: partitions,
            replication_factor: 1,
            configs: configs
                .iter()
                .map(|(key, value)| CreatableTopicConfig {
                    name: Str::copied(key),
                    value: Some(Str::copied(value)),
                    ..CreatableTopicConfig::default()
                })
                .collect(),
            ..CreatableTopic::default()
        };
        let request = CreateTopicsRequest {
            topics: vec![topic],
            ..CreateTopicsRequest::default()
        };
        let response = self.call(&request, CREATE_TOPICS_VERSION)?;
        for topic in &response.topics {
            BenchError::check(topic.error_code, || {
                format!(
                    "creating {name}: {}",
                    topic.error_message.as_deref().unwrap_or_default()
                )
            })?;
        }
        let deadline = Instant::now() + LEADERS_MAX;
        while !self.has_leaders(name, partitions)? {
            if Instant::now() > deadline {
                return Err(BenchError::Check(format!(
                    "{name} has partitions without a leader"
                )));
            }
            std::thread::sleep(LEADERS_POLL);
        }
        Ok(())
    }

    /// Whether every partition has a leader that serves it (Kafka reports a leader before that leader has the log).
    fn has_leaders(&mut self, name: &str, partitions: i32) -> Result<bool, BenchError> {
        let request = MetadataRequest {
            topics: Some(vec![MetadataRequestTopic {
                name: Some(Str::copied(name)),
                ..MetadataRequestTopic::default()
            }]),
            allow_auto_topic_creation: false,
            ..MetadataRequest::default()
        };
        let response = self.call(&request, METADATA_VERSION)?;
        let led = |p: &MetadataResponsePartition| p.error_code == 0 && p.leader_id >= 0;
        let reported = response.topics.iter().any(|topic| {
            topic.error_code == 0
                && topic.partitions.len() == usize::try_from(partitions).unwrap_or(0)
                && topic.partitions.iter().all(led)
        });
        match reported.then(|| self.end_offsets(name, partitions)) {
            Some(Ok(_)) => Ok(true),
            Some(Err(BenchError::Broker { code, .. })) if code.is_retriable() => Ok(false),
            Some(Err(e)) => Err(e),
            None => Ok(false),
        }
    }

    /// Deletes a topic.
    pub fn delete_topic(&mut self, name: &str) -> Result<(), BenchError> {
        let request = DeleteTopicsRequest {
            topics: vec![DeleteTopicState {
                name: Some(Str::copied(name)),
                ..DeleteTopicState::default()
            }],
            timeout_ms: 60_000,
            ..DeleteTopicsRequest::default()
        };
        let response = self.call(&request, DELETE_TOPICS_VERSION)?;
        for topic in &response.responses {
            BenchError::check(topic.error_code, || format!("deleting {name}"))?;
        }
        Ok(())
    }

    /// The log end offset of each partition.
    pub fn end_offsets(&mut self, topic: &str, partitions: i32) -> Result<Vec<i64>, BenchError> {
        let request = ListOffsetsRequest {
            replica_id: -1,
            topics: vec![ListOffsetsTopic {
                name: Str::copied(topic),
                partitions: (0..partitions)
                    .map(|partition_index| ListOffsetsPartition {
                        partition_index,
                        timestamp: -1,
                        ..ListOffsetsPartition::default()
                    })
                    .collect(),
                ..ListOffsetsTopic::default()
            }],
            ..ListOffsetsRequest::default()
        };
        let response = self.call(&request, LIST_OFFSETS_VERSION)?;
        let mut ends = vec![-1; usize::try_from(partitions).unwrap_or(0)];
        for partition in response.topics.iter().flat_map(|t| &t.partitions) {
            let index = partition.partition_index;
            BenchError::check(partition.error_code, || format!("ListOffsets of {topic}-{index}"))?;
            if let Some(end) = usize::try_from(index).ok().and_then(|i| ends.get_mut(i)) {
                *end = partition.offset;
            }
        }
        Ok(ends)
    }

    /// The id and epoch of a new idempotent producer.
    pub fn producer_id(&mut self) -> Result<(i64, i16), BenchError> {
        let request = InitProducerIdRequest {
            transaction_timeout_ms: 60_000,
            ..InitProducerIdRequest::default()
        };
        let response = self.call(&request, INIT_PRODUCER_ID_VERSION)?;
        BenchError::check(response.error_code, || "InitProducerId".into())?;
        Ok((response.producer_id, response.producer_epoch))
    }
}

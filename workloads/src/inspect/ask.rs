//! The requests of an inspector. Each is sent again until it is answered, with success or with an error that is an answer.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI32, Ordering};

use brokkr_client::client::Peer;
use brokkr_client::metadata::Leader;
use brokkr_client::{Client, Error, Result, TopicPartition, report_refusal};
use brokkr_env::Env;
use brokkr_types::{ProducerEpoch, ProducerId, Sequence, UnixMillis, Uuid};
use brokkr_wire::messages::{
    AlterConfigsRequest, CreateTopicsRequest, DeleteRecordsRequest, DescribeConfigsRequest,
    DescribeLogDirsRequest, DescribeTopicPartitionsRequest, FetchRequest, IncrementalAlterConfigsRequest,
    InitProducerIdRequest, ListOffsetsRequest, MetadataRequest, OffsetForLeaderEpochRequest, ProduceRequest,
    ProduceResponse, alter_configs_request, create_topics_request, delete_records_request,
    describe_configs_request, describe_log_dirs_request, describe_topic_partitions_request, fetch_request,
    incremental_alter_configs_request, list_offsets_request, metadata_request,
    offset_for_leader_epoch_request, produce_request,
};
use brokkr_wire::records::{BatchBuilder, CompressionType, HEADER_LEN, batches};
use brokkr_wire::{ApiKey, ErrorCode, Records, Str};
use bytes::Bytes;
use serde_json::{Value, json};

use super::configs::INSPECTED_CONFIGS;

/// `ConfigResource.Type.BROKER`.
const RESOURCE_BROKER: i8 = 4;
/// `ConfigResource.Type.TOPIC`.
const RESOURCE_TOPIC: i8 = 2;
/// Longest time of a fetch without records.
const FETCH_WAIT_MS: i32 = 100;
/// Largest size of a decompressed batch.
const DECOMPRESSED_MAX: usize = 1 << 20;
/// Longest list of pages: more are a circle.
const PAGES_MAX: usize = 100;
/// The first versions of ListOffsets with leader epochs, and with the largest timestamp.
const EPOCHS_VERSION: i16 = 4;
const LARGEST_VERSION: i16 = 7;

/// The error of a client that was answered with something else than it asked for.
fn odd(what: impl std::fmt::Display) -> Error {
    Error::Protocol(format!("the response is of something else: {what}"))
}

/// The code, unless the request must be sent again: it is retriable, and none of `answers`.
fn settled(code: i16, answers: &[ErrorCode]) -> Result<i16> {
    let error = ErrorCode(code);
    if error.is_retriable() && !answers.contains(&error) {
        report_refusal(error);
        return Err(Error::Broker(error, None));
    }
    Ok(code)
}

/// The only one.
fn one<T>(all: Vec<T>) -> Result<T> {
    let n = all.len();
    let mut all = all.into_iter();
    match (all.next(), all.next()) {
        (Some(one), None) => Ok(one),
        _ => Err(odd(format_args!("{n} results for one"))),
    }
}

fn success(code: i16) -> Result<()> {
    let error = ErrorCode(code);
    if error.is_error() {
        report_refusal(error);
        return Err(Error::Broker(error, None));
    }
    Ok(())
}

pub(super) async fn producer_id<E: Env>(client: &Client<E>) -> Result<(i64, i16)> {
    let request = InitProducerIdRequest {
        transactional_id: None,
        transaction_timeout_ms: 60_000,
        ..Default::default()
    };
    let pick = |r: brokkr_wire::messages::InitProducerIdResponse| {
        success(r.error_code)?;
        Ok((r.producer_id, r.producer_epoch))
    };
    client.manage(request, pick).await
}

/// `create`, with `topic`, `partitions`, `configs`, and `dry`: whether it is not made; answered with `error` (the name is refused) and `id`.
pub(super) async fn create<E: Env>(
    client: &Client<E>,
    name: &str,
    partitions: i32,
    configs: &BTreeMap<&str, &str>,
    is_dry: bool,
) -> Result<Value> {
    let config = |(name, value): (&&str, &&str)| create_topics_request::CreatableTopicConfig {
        name: Str::copied(name),
        value: Some(Str::copied(value)),
        ..Default::default()
    };
    let topic = create_topics_request::CreatableTopic {
        name: Str::copied(name),
        num_partitions: partitions,
        replication_factor: -1,
        configs: configs.iter().map(config).collect(),
        ..Default::default()
    };
    let request = CreateTopicsRequest {
        topics: vec![topic],
        timeout_ms: 3_000,
        validate_only: is_dry,
        ..Default::default()
    };
    let pick = |r: brokkr_wire::messages::CreateTopicsResponse| {
        let topic = one(r.topics)?;
        if ErrorCode(topic.error_code) != ErrorCode::INVALID_TOPIC_EXCEPTION {
            success(topic.error_code)?;
        }
        Ok(json!({"error": topic.error_code, "id": topic.topic_id.to_string()}))
    };
    client.manage(request, pick).await
}

/// Replaces all configurations of a topic by one, or by none.
pub(super) async fn replace_configs<E: Env>(
    client: &Client<E>,
    topic: &str,
    key: &str,
    value: Option<&str>,
) -> Result<()> {
    let config = value.map(|value| alter_configs_request::AlterableConfig {
        name: Str::copied(key),
        value: Some(Str::copied(value)),
        ..Default::default()
    });
    let resource = alter_configs_request::AlterConfigsResource {
        resource_type: RESOURCE_TOPIC,
        resource_name: Str::copied(topic),
        configs: config.into_iter().collect(),
        ..Default::default()
    };
    let request = AlterConfigsRequest {
        resources: vec![resource],
        ..Default::default()
    };
    let pick = |r: brokkr_wire::messages::AlterConfigsResponse| success(one(r.responses)?.error_code);
    client.manage(request, pick).await
}

/// `configs`, with `topic`; answered with the value of each inspected configuration, where it is from, and all values that it could have,
/// each with where it is from.
pub(super) async fn configs<E: Env>(client: &Client<E>, topic: &str) -> Result<Value> {
    let keys = INSPECTED_CONFIGS
        .iter()
        .map(|(key, _)| Str::copied(key))
        .collect();
    let request = DescribeConfigsRequest {
        resources: vec![describe_configs_request::DescribeConfigsResource {
            resource_type: RESOURCE_TOPIC,
            resource_name: Str::copied(topic),
            configuration_keys: Some(keys),
            ..Default::default()
        }],
        include_synonyms: true,
        ..Default::default()
    };
    let text = |value: &Option<Str>| value.as_ref().map(|v| v.to_string());
    let pick = |r: brokkr_wire::messages::DescribeConfigsResponse| {
        let result = one(r.results)?;
        success(result.error_code)?;
        let mut found = serde_json::Map::new();
        for c in &result.configs {
            let of = |s: &brokkr_wire::messages::describe_configs_response::DescribeConfigsSynonym| {
                json!([text(&s.value), s.source])
            };
            let all: Vec<_> = c.synonyms.iter().map(of).collect();
            found.insert(c.name.to_string(), json!([text(&c.value), c.config_source, all]));
        }
        Ok(Value::Object(found))
    };
    client.manage(request, pick).await
}

/// `broker_configs`: the configurations of all brokers; answered with the value of each and whether it is a secret.
pub(super) async fn broker_configs<E: Env>(client: &Client<E>) -> Result<Value> {
    let request = DescribeConfigsRequest {
        resources: vec![describe_configs_request::DescribeConfigsResource {
            resource_type: RESOURCE_BROKER,
            resource_name: Str::from_static(""),
            configuration_keys: None,
            ..Default::default()
        }],
        ..Default::default()
    };
    let pick = |r: brokkr_wire::messages::DescribeConfigsResponse| {
        let result = one(r.results)?;
        success(result.error_code)?;
        let of = |c: &brokkr_wire::messages::describe_configs_response::DescribeConfigsResourceResult| {
            let value = c.value.as_ref().map(|v| v.to_string());
            (c.name.to_string(), json!([value, c.is_sensitive]))
        };
        Ok(Value::Object(result.configs.iter().map(of).collect()))
    };
    client.manage(request, pick).await
}

/// Which topics a Metadata request names.
pub(super) enum Named<'a> {
    All,
    None,
    ByName(&'a [String]),
    ById(&'a [Uuid]),
}

/// `metadata`; answered with the `topics` whose name begins with `prefix`, or that were named (error, id, partitions), and with the
/// `count` of all.
pub(super) async fn metadata<E: Env>(client: &Client<E>, named: Named<'_>, prefix: &str) -> Result<Value> {
    let by_name = |name: &String| metadata_request::MetadataRequestTopic {
        name: Some(Str::copied(name)),
        ..Default::default()
    };
    let by_id = |id: &Uuid| metadata_request::MetadataRequestTopic {
        name: None,
        topic_id: *id,
        ..Default::default()
    };
    let topics = match named {
        Named::All => None,
        Named::None => Some(Vec::new()),
        Named::ByName(names) => Some(names.iter().map(by_name).collect()),
        Named::ById(ids) => Some(ids.iter().map(by_id).collect()),
    };
    let is_all = topics.is_none();
    let request = MetadataRequest {
        topics,
        allow_auto_topic_creation: false,
        ..Default::default()
    };
    let pick = |r: brokkr_wire::messages::MetadataResponse| {
        let mut found = serde_json::Map::new();
        for topic in &r.topics {
            let name = topic.name.as_ref().map(|n| n.to_string()).unwrap_or_default();
            if is_all && !name.starts_with(prefix) {
                continue;
            }
            let partitions: Vec<_> = topic.partitions.iter().map(|p| p.partition_index).collect();
            let id = topic.topic_id.to_string();
            let key = if name.is_empty() { id.clone() } else { name };
            found.insert(key, json!([topic.error_code, id, partitions]));
        }
        Ok(json!({"topics": found, "count": r.topics.len()}))
    };
    client.manage(request, pick).await
}

/// A record to append.
#[derive(Clone)]
pub(super) struct NewRecord {
    pub n: u64,
    pub timestamp: i64,
    pub padding: usize,
}

impl NewRecord {
    fn value(&self) -> Bytes {
        let mut text = self.n.to_string().into_bytes();
        text.resize(text.len() + self.padding, b'.');
        text.into()
    }
}

/// The number of a record in its value.
fn number(value: Option<&[u8]>) -> Option<u64> {
    let text = std::str::from_utf8(value?).ok()?;
    text.trim_end_matches('.').parse().ok()
}

/// What is wrong with a batch that no client may send.
#[derive(Clone, Copy)]
pub(super) enum Flaw {
    /// A byte of the last record.
    Checksum,
    /// An offset that no record has.
    Gap,
    /// The same, with a header of a batch without a gap.
    HiddenGap,
    /// A record less than the header says.
    Count,
    /// It says that it is a control batch.
    Control,
}

impl Flaw {
    pub const ALL: [Self; 5] = [
        Self::Checksum,
        Self::Gap,
        Self::HiddenGap,
        Self::Count,
        Self::Control,
    ];
}

/// A batch to append.
#[derive(Clone)]
pub(super) struct Append {
    /// `new`; `again`: it was acknowledged before; `gap`: with a later sequence than is due; `stale`: of an older epoch; `flawed`.
    pub kind: &'static str,
    pub topic_id: Uuid,
    pub acks: i16,
    pub codec: u8,
    pub identity: (i64, i16),
    pub sequence: i32,
    pub records: Vec<NewRecord>,
    pub flaw: Option<Flaw>,
}

impl Append {
    fn batch(&self) -> Bytes {
        let codec = CompressionType::from_id(self.codec).unwrap_or(CompressionType::None);
        let (id, epoch) = self.identity;
        let mut builder = BatchBuilder::new()
            .compression(codec, codec.default_level())
            .producer(ProducerId(id), ProducerEpoch(epoch), Sequence(self.sequence));
        let has_gap = matches!(self.flaw, Some(Flaw::Gap | Flaw::HiddenGap));
        for (delta, record) in self.records.iter().enumerate() {
            let key = record.n.to_be_bytes();
            builder.push_at(
                delta as i32 + i32::from(has_gap),
                UnixMillis(record.timestamp),
                Some(&key),
                Some(&record.value()),
                &[],
            );
        }
        let batch = builder.build();
        let (mut header, mut bytes) = (batch.header, batch.bytes.to_vec());
        match self.flaw {
            None | Some(Flaw::Gap) => return batch.bytes,
            Some(Flaw::Checksum) => {
                if let Some(last) = bytes.last_mut() {
                    *last ^= 1;
                }
                return bytes.into();
            }
            Some(Flaw::HiddenGap) => header.last_offset_delta -= 1,
            Some(Flaw::Count) => {
                header.records_count += 1;
                header.last_offset_delta += 1;
            }
            Some(Flaw::Control) => header.attributes = header.attributes.with_control(true),
        }
        let (front, records) = bytes.split_at_mut(HEADER_LEN);
        header.crc = header.compute_crc(records);
        if let Ok(front) = front.try_into() {
            header.encode(front);
        }
        bytes.into()
    }

    /// `append`, with its `kind`, `now` (the client's time), `topic`, `partition`, `acks`, `codec`, the batch's `bytes`, `producer` (id, epoch, first sequence) and
    /// `records` (number, timestamp, length of the value); answered with `error`, `base`, `append_time` and `log_start`.
    pub fn asked(&self, tp: &TopicPartition, now: UnixMillis) -> Value {
        let record = |r: &NewRecord| json!([r.n, r.timestamp, r.value().len()]);
        json!({
            "what": "append",
            "kind": self.kind,
            "now": now.0,
            "topic": &*tp.topic,
            "partition": tp.partition,
            "acks": self.acks,
            "codec": self.codec,
            "bytes": self.batch().len(),
            "producer": [self.identity.0, self.identity.1, self.sequence],
            "records": self.records.iter().map(record).collect::<Vec<_>>(),
        })
    }

    fn request(&self, tp: &TopicPartition) -> ProduceRequest {
        ProduceRequest {
            acks: self.acks,
            timeout_ms: 3_000,
            topic_data: vec![produce_request::TopicProduceData {
                name: tp.topic.clone(),
                topic_id: self.topic_id,
                partition_data: vec![produce_request::PartitionProduceData {
                    index: tp.partition,
                    records: Some(Records::Bytes(self.batch())),
                    ..Default::default()
                }],
                ..Default::default()
            }],
            ..Default::default()
        }
    }

    fn answer(&self, response: ProduceResponse) -> Result<Value> {
        let answer = one(one(response.responses)?.partition_responses)?;
        // As many are in sync as there are replicas: never fewer than asked for.
        let mut answers = vec![ErrorCode::NOT_ENOUGH_REPLICAS];
        answers.extend(self.flaw.map(|_| ErrorCode::CORRUPT_MESSAGE));
        let error = settled(answer.error_code, &answers)?;
        Ok(json!({
            "error": error,
            "base": answer.base_offset,
            "append_time": answer.log_append_time_ms,
            "log_start": answer.log_start_offset,
        }))
    }

    /// Sends it; with `alter`, behind a change of the topic's configuration, before that is answered.
    pub async fn send<E: Env>(
        &self,
        client: &Client<E>,
        tp: &TopicPartition,
        alter: Option<(&str, &str)>,
    ) -> Result<Value> {
        let Some((key, value)) = alter else {
            return client
                .ask_leader(tp, |_| self.request(tp), |r| self.answer(r))
                .await;
        };
        let resource = incremental_alter_configs_request::AlterConfigsResource {
            resource_type: RESOURCE_TOPIC,
            resource_name: tp.topic.clone(),
            configs: vec![incremental_alter_configs_request::AlterableConfig {
                name: Str::copied(key),
                value: Some(Str::copied(value)),
                ..Default::default()
            }],
            ..Default::default()
        };
        let change = IncrementalAlterConfigsRequest {
            resources: vec![resource],
            ..Default::default()
        };
        let leader = client.leader_of(tp).await?;
        let link = client.link(Peer::Node(leader.node)).await?;
        let versions = (
            client.version_of::<IncrementalAlterConfigsRequest>(&link)?,
            client.version_of::<ProduceRequest>(&link)?,
        );
        let changed = link.submit(change, versions.0);
        let produced = link.submit(self.request(tp), versions.1);
        success(one(changed.await?.responses)?.error_code)?;
        self.answer(produced.await?)
    }
}

/// `read`, with `topic`, `partition`, `from` and `bytes_max`; answered with `error`, `high_watermark`, `last_stable`, `log_start`, the
/// `batches` (first offset, last offset, bytes, codec, whether they have the time of the append) and the `records` (offset, number,
/// timestamp, length of the value, leader epoch; the number is null if key and value don't agree).
pub(super) async fn read<E: Env>(
    client: &Client<E>,
    tp: &TopicPartition,
    topic_id: Uuid,
    from: i64,
    bytes_max: i32,
) -> Result<Value> {
    let request = |leader: Leader| FetchRequest {
        max_wait_ms: FETCH_WAIT_MS,
        min_bytes: 1,
        max_bytes: bytes_max,
        topics: vec![fetch_request::FetchTopic {
            topic: tp.topic.clone(),
            topic_id,
            partitions: vec![fetch_request::FetchPartition {
                partition: tp.partition,
                current_leader_epoch: leader.epoch,
                fetch_offset: from,
                partition_max_bytes: bytes_max,
                ..Default::default()
            }],
            ..Default::default()
        }],
        ..Default::default()
    };
    client
        .ask_leader(tp, request, |response| {
            success(response.error_code)?;
            let part = one(one(response.responses)?.partitions)?;
            let error = settled(part.error_code, &[])?;
            let bytes = match part.records {
                Some(Records::Bytes(bytes)) => bytes,
                _ => Bytes::new(),
            };
            let (batches, records) = contents(bytes)?;
            Ok(json!({
                "error": error,
                "high_watermark": part.high_watermark,
                "last_stable": part.last_stable_offset,
                "log_start": part.log_start_offset,
                "batches": batches,
                "records": records,
            }))
        })
        .await
}

fn contents(bytes: Bytes) -> Result<(Vec<Value>, Vec<Value>)> {
    let (mut found, mut records) = (Vec::new(), Vec::new());
    for batch in batches(bytes) {
        // The last one may be cut.
        let Ok(batch) = batch else { break };
        batch.check_crc().map_err(odd)?;
        let header = &batch.header;
        let codec = header.attributes.compression().map_err(odd)? as i8;
        let is_append_time =
            header.attributes.timestamp_type() == brokkr_wire::records::TimestampType::LogAppendTime;
        found.push(json!([
            header.base_offset.0,
            header.last_offset().0,
            header.size_bytes(),
            codec,
            is_append_time
        ]));
        for record in &batch.records(DECOMPRESSED_MAX).map_err(odd)? {
            let record = record.map_err(odd)?;
            let n = number(record.value).filter(|n| record.key == Some(&n.to_be_bytes()));
            records.push(json!([
                header.record_offset(record.offset_delta).0,
                n,
                header.record_timestamp(record.timestamp_delta).0,
                record.value.map_or(0, <[u8]>::len),
                header.partition_leader_epoch.0,
            ]));
        }
    }
    Ok((found, records))
}

/// `offsets`, with `topic`, `partition`, `timestamp`, and `epoch`: how much the leader epoch of the request is ahead, if that is not 0.
/// Answered with how much the epoch was `ahead`, the `timestamp` that was asked for, `error`, `offset`, `of` (the record's timestamp) and `leader_epoch` (null: the version has none).
pub(super) async fn list_offsets<E: Env>(
    client: &Client<E>,
    tp: &TopicPartition,
    topic_id: Uuid,
    timestamp: i64,
    ahead: i32,
) -> Result<Value> {
    if client.leader_of(tp).await?.topic_id != topic_id {
        // An earlier topic of this name had other epochs.
        client.refresh_metadata().await?;
    }
    let leader = client.leader_of(tp).await?;
    if leader.topic_id != topic_id {
        return Err(Error::NoLeader);
    }
    let known = leader.epoch;
    let version = client.config().versions_max.get(&ApiKey::ListOffsets).copied();
    let has_epochs = version.is_none_or(|version| version >= EPOCHS_VERSION);
    let has_largest = version.is_none_or(|version| version >= LARGEST_VERSION);
    // The epoch -1 is none.
    let ahead = if known + ahead < 0 || !has_epochs {
        0
    } else {
        ahead
    };
    let timestamp = if timestamp == -3 && !has_largest {
        -1
    } else {
        timestamp
    };
    let request = |leader: Leader| ListOffsetsRequest {
        replica_id: -1,
        topics: vec![list_offsets_request::ListOffsetsTopic {
            name: tp.topic.clone(),
            partitions: vec![list_offsets_request::ListOffsetsPartition {
                partition_index: tp.partition,
                current_leader_epoch: leader.epoch + ahead,
                timestamp,
                ..Default::default()
            }],
            ..Default::default()
        }],
        timeout_ms: 3_000,
        ..Default::default()
    };
    let answers: &[ErrorCode] = match ahead {
        0 => &[],
        _ => &[ErrorCode::FENCED_LEADER_EPOCH, ErrorCode::UNKNOWN_LEADER_EPOCH],
    };
    client
        .ask_leader(tp, request, |response| {
            let part = one(one(response.topics)?.partitions)?;
            let error = settled(part.error_code, answers)?;
            Ok(json!({
                "ahead": ahead,
                "timestamp": timestamp,
                "error": error,
                "offset": part.offset,
                "of": part.timestamp,
                "leader_epoch": has_epochs.then_some(part.leader_epoch),
            }))
        })
        .await
}

/// `epoch_end`, with `topic` and `partition`; answered with `current` (the leader epoch of the metadata), `asked`, `error`,
/// `leader_epoch` and `end`.
pub(super) async fn epoch_end<E: Env>(client: &Client<E>, tp: &TopicPartition, back: i32) -> Result<Value> {
    let (current, asked) = (AtomicI32::new(-1), AtomicI32::new(-1));
    let request = |leader: Leader| {
        current.store(leader.epoch, Ordering::Relaxed);
        asked.store((leader.epoch - back).max(0), Ordering::Relaxed);
        OffsetForLeaderEpochRequest {
            replica_id: -1,
            topics: vec![offset_for_leader_epoch_request::OffsetForLeaderTopic {
                topic: tp.topic.clone(),
                partitions: vec![offset_for_leader_epoch_request::OffsetForLeaderPartition {
                    partition: tp.partition,
                    current_leader_epoch: leader.epoch,
                    leader_epoch: asked.load(Ordering::Relaxed),
                    ..Default::default()
                }],
                ..Default::default()
            }],
            ..Default::default()
        }
    };
    client
        .ask_leader(tp, request, |response| {
            let part = one(one(response.topics)?.partitions)?;
            let error = settled(part.error_code, &[])?;
            Ok(json!({
                "current": current.load(Ordering::Relaxed),
                "asked": asked.load(Ordering::Relaxed),
                "error": error,
                "leader_epoch": part.leader_epoch,
                "end": part.end_offset,
            }))
        })
        .await
}

/// `delete_records`, with `topic`, `partition` and `before`; answered with `error` and `low`.
pub(super) async fn delete_records<E: Env>(
    client: &Client<E>,
    tp: &TopicPartition,
    before: i64,
) -> Result<Value> {
    let request = |_| DeleteRecordsRequest {
        topics: vec![delete_records_request::DeleteRecordsTopic {
            name: tp.topic.clone(),
            partitions: vec![delete_records_request::DeleteRecordsPartition {
                partition_index: tp.partition,
                offset: before,
                ..Default::default()
            }],
            ..Default::default()
        }],
        timeout_ms: 3_000,
        ..Default::default()
    };
    client
        .ask_leader(tp, request, |response| {
            let part = one(one(response.topics)?.partitions)?;
            let error = settled(part.error_code, &[])?;
            Ok(json!({"error": error, "low": part.low_watermark}))
        })
        .await
}

/// `pages`, with `topics` and the size of a `page`; answered with the `partitions` of each topic, in the order in which they were listed.
pub(super) async fn pages<E: Env>(client: &Client<E>, names: &[String], page: i32) -> Result<Value> {
    let mut found: BTreeMap<String, Vec<i32>> = BTreeMap::new();
    let mut cursor = None;
    for _ in 0..PAGES_MAX {
        let topic = |name: &String| describe_topic_partitions_request::TopicRequest {
            name: Str::copied(name),
            ..Default::default()
        };
        let request = DescribeTopicPartitionsRequest {
            topics: names.iter().map(topic).collect(),
            response_partition_limit: page,
            cursor,
            ..Default::default()
        };
        let response = client.manage(request, Ok).await?;
        for topic in response.topics {
            success(topic.error_code)?;
            let name = topic.name.map(|n| n.to_string()).unwrap_or_default();
            let of = found.entry(name).or_default();
            of.extend(topic.partitions.iter().map(|p| p.partition_index));
        }
        cursor = response
            .next_cursor
            .map(|c| describe_topic_partitions_request::Cursor {
                topic_name: c.topic_name,
                partition_index: c.partition_index,
                ..Default::default()
            });
        if cursor.is_none() {
            return Ok(json!({"partitions": found}));
        }
    }
    Err(odd("pages without an end"))
}

/// `directories`, with `topic`; answered with each of its `partitions` that a log directory has, as often as they have it.
pub(super) async fn directories<E: Env>(client: &Client<E>, name: &str, partitions: i32) -> Result<Value> {
    let request = DescribeLogDirsRequest {
        topics: Some(vec![describe_log_dirs_request::DescribableLogDirTopic {
            topic: Str::copied(name),
            partitions: (0..partitions + 1).collect(),
            ..Default::default()
        }]),
        ..Default::default()
    };
    client
        .manage(request, |response| {
            success(response.error_code)?;
            let mut found = Vec::new();
            for dir in response.results {
                success(dir.error_code)?;
                let topics = dir.topics.iter().filter(|t| &*t.name == name);
                found.extend(topics.flat_map(|t| t.partitions.iter().map(|p| p.partition_index)));
            }
            if found.len() < partitions as usize {
                // A log that is still being made or opened is not listed.
                return Err(Error::NoLeader);
            }
            found.sort_unstable();
            Ok(json!({"partitions": found}))
        })
        .await
}

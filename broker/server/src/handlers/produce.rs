//! Produce: validates the batches, sends each to its partition's owner in the order of the request, and responds when all
//! are committed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use brokkr_env::Env;
use brokkr_types::{Offset, UnixMillis, Uuid};
use brokkr_wire::messages::produce_request::{PartitionProduceData, ProduceRequest};
use brokkr_wire::messages::produce_response::{
    BatchIndexAndErrorMessage, PartitionProduceResponse, ProduceResponse, TopicProduceResponse,
};
use brokkr_wire::records::{
    BatchError, BatchHeader, CompressionConfig, CompressionType, DecompressError, NO_KEY, Pace, RecordError,
    Rules, Validated, check, check_at, compression,
};
use brokkr_wire::{ErrorCode, Records, Str};
use bytes::Bytes;
use futures_util::FutureExt;
use tokio::sync::oneshot;

use crate::config::Limits;
use crate::coop::{self, Steps};
use crate::ctx::Ctx;
use crate::handlers::topic_numbers::TopicNumbers;
use crate::net::memory::{Overloaded, Share};
use crate::net::request::{Dispatched, RequestContext};
use crate::net::state::ConnectionState;
use crate::partition::{Append, AppendResult, BatchMemory, DataMessage, PartitionError};
use crate::partitions::Route;

/// A partition of the request on its way to a response.
enum PartitionProgress {
    /// The owner has the batch.
    Waiting {
        index: i32,
        result: oneshot::Receiver<AppendResult>,
        log_start: Offset,
    },
    /// The response is known: an error.
    Done(PartitionProduceResponse),
}

struct TopicProgress {
    name: Str,
    id: Uuid,
    partitions: Vec<PartitionProgress>,
}

/// The first version that allows zstd.
const ZSTD_FROM: i16 = 7;

/// Validates and submits every batch of the request. Runs on the connection's reader, in the order of its requests.
pub async fn begin<E: Env>(
    ctx: &mut Ctx<E>,
    rc: RequestContext,
    request: ProduceRequest,
    share: Share,
) -> Dispatched<E> {
    let mut steps = Steps::default();
    let mut topics = Vec::with_capacity(request.topic_data.len());
    let bad_acks = !matches!(request.acks, -1..=1);
    let lacks_transactional_id =
        request.transactional_id.is_none() && has_transactional(&request, &mut steps).await;
    let mut repeated = repeated_partitions(&request, &mut steps).await;
    let mut numbers = TopicNumbers::default();
    for topic in request.topic_data {
        if topic.partition_data.is_empty() {
            continue;
        }
        let number = match repeated.is_empty() {
            true => 0,
            false => numbers.number_of(&topic.name, topic.topic_id),
        };
        let route = if rc.version >= 13 {
            ctx.routes().by_id(topic.topic_id)
        } else {
            ctx.routes().by_name(&topic.name)
        };
        let unknown = if rc.version >= 13 {
            ErrorCode::UNKNOWN_TOPIC_ID
        } else {
            ErrorCode::UNKNOWN_TOPIC_OR_PARTITION
        };
        let name = route
            .as_ref()
            .map_or_else(|| topic.name.clone(), |r| r.name.clone());
        let mut partitions = Vec::with_capacity(topic.partition_data.len());
        for data in topic.partition_data {
            steps.step().await;
            let index = data.index;
            let again = repeated.get_mut(&(number, index));
            let is_repeated = again.is_some();
            if again.is_some_and(|is_answered| std::mem::replace(is_answered, true)) {
                continue;
            }
            let partition = match &route {
                _ if lacks_transactional_id => {
                    Err(PartitionError::new(ErrorCode::TRANSACTIONAL_ID_AUTHORIZATION_FAILED).into())
                }
                None => Err(PartitionError::new(unknown).into()),
                Some(_) if bad_acks => Err(PartitionError::new(ErrorCode::INVALID_REQUIRED_ACKS).into()),
                Some(_) if is_repeated => Err(listed_more_than_once().into()),
                Some(route) => submit_batch(ctx, &rc, route, data, request.acks == -1).await,
            };
            partitions.push(
                partition.unwrap_or_else(|e| PartitionProgress::Done(error_response(&name, index, &e))),
            );
        }
        topics.push(TopicProgress {
            name: topic.name,
            id: topic.topic_id,
            partitions,
        });
    }
    if request.acks == 0 {
        finish_without_acks(topics)
    } else {
        await_appends(ctx, rc, topics, request.timeout_ms, share)
    }
}

/// Why a partition's batch was not appended.
enum ProduceError {
    Partition(PartitionError),
    /// The records are invalid. The offset is the log start offset.
    Records(RecordError, Offset),
}

impl From<PartitionError> for ProduceError {
    fn from(e: PartitionError) -> Self {
        Self::Partition(e)
    }
}

fn no_transactions() -> PartitionError {
    PartitionError::with_message(
        ErrorCode::INVALID_TXN_STATE,
        "this broker does not serve transactions yet",
    )
}

/// Whether a batch of the request is transactional. As in Kafka, this is checked before anything else, and only for each
/// partition's first batch; bytes that are no batch don't count.
async fn has_transactional(request: &ProduceRequest, steps: &mut Steps) -> bool {
    for data in request.topic_data.iter().flat_map(|t| &t.partition_data) {
        steps.step().await;
        if let Some(Records::Bytes(bytes)) = &data.records
            && BatchHeader::decode(bytes).is_ok_and(|header| header.attributes.is_transactional())
        {
            return true;
        }
    }
    false
}

/// A topic's number in the request (see [`TopicNumbers`]), and a partition.
type NumberedPartition = (usize, i32);

/// The partitions that a request lists more than once. The value is whether the response has the error already: `false` at
/// first.
async fn repeated_partitions(
    request: &ProduceRequest,
    steps: &mut Steps,
) -> BTreeMap<NumberedPartition, bool> {
    let (mut seen, mut repeated) = (BTreeSet::new(), BTreeMap::new());
    let topics = &request.topic_data;
    if topics.len() > 1 || topics.iter().any(|t| t.partition_data.len() > 1) {
        let mut numbers = TopicNumbers::default();
        for topic in topics.iter().filter(|topic| !topic.partition_data.is_empty()) {
            let number = numbers.number_of(&topic.name, topic.topic_id);
            for data in &topic.partition_data {
                steps.step().await;
                let partition = (number, data.index);
                if !seen.insert(partition) {
                    repeated.insert(partition, false);
                }
            }
        }
    }
    repeated
}

/// A response has one result per partition. Kafka appends only the last of the batches and acknowledges all of them.
fn listed_more_than_once() -> PartitionError {
    PartitionError::with_message(
        ErrorCode::INVALID_REQUEST,
        "the partition is listed more than once; nothing was appended to it",
    )
}

/// Validates a batch by its topic's rules, inline or in slices, with memory from the budget. Returns the batch and the
/// memory of its rewritten copy, if there is one.
async fn validate_batch<E: Env>(
    ctx: &Ctx<E>,
    connection: &ConnectionState,
    records: Bytes,
    rules: &Rules,
    log_start: Offset,
) -> Result<(Validated, Share), ProduceError> {
    let now = ctx.env.wall();
    let rejected = |e| ProduceError::Records(e, log_start);
    let with_share = async |batch: Validated| {
        let bytes = if batch.rebuilt { batch.batch.bytes.len() } else { 0 };
        let share = ctx.memory.check(bytes).await.map_err(overloaded)?;
        Ok((batch, share))
    };
    let limits = &ctx.config.limits;
    let source = BatchHeader::decode(&records)
        .ok()
        .and_then(|h| h.attributes.compression().ok());
    let plain = matches!(source, None | Some(CompressionType::None));
    let rebuilds = match rules.compression {
        CompressionConfig::Fixed { codec, .. } => Some(codec) != source,
        CompressionConfig::Uncompressed => !plain,
        CompressionConfig::Producer => false,
    };
    if plain && !rebuilds {
        let done = match records.len() {
            n if n <= limits.check_quick_bytes => {
                connection.reading.steps(coop::steps_of(records.len())).await;
                check(records, rules, now)
            }
            _ => Box::pin(check_at(&mut coop::pace(), records, rules, now)).await,
        };
        return with_share(done.map_err(rejected)?).await;
    }
    if records.len() <= limits.check_quick_bytes
        && let (Some(done), units) = validate_inline(limits, records.clone(), rules, now)
    {
        connection.reading.steps(coop::steps_of(units)).await;
        return with_share(done.map_err(rejected)?).await;
    }
    brokkr_types::reached!("a batch waited for its turn to be checked");
    let validated = Box::pin(validate_in_slices(
        ctx,
        connection,
        (source, rebuilds),
        records,
        rules,
    ));
    let done = validated.await.map_err(overloaded)?;
    done.map_err(rejected)
}

/// Validates a batch inline, unless that takes too much work or memory (`None`). Returns the work units spent as well.
fn validate_inline(
    limits: &Limits,
    records: Bytes,
    rules: &Rules,
    now: UnixMillis,
) -> (Option<Result<Validated, RecordError>>, usize) {
    let quick = Rules {
        decompressed_max: limits.check_quick_decompressed_bytes.min(rules.decompressed_max),
        ..*rules
    };
    let mut pace = Pace::gives_way_first_after(limits.check_quick_work);
    let done = match check_at(&mut pace, records, &quick, now).now_or_never() {
        Some(Err(RecordError::Batch(BatchError::Decompress(DecompressError::TooLarge { .. })))) => None,
        done => done,
    };
    (done, limits.check_quick_work.saturating_sub(pace.left_units()))
}

/// Validates a batch in slices, on a work slot, with memory from the budget.
async fn validate_in_slices<E: Env>(
    ctx: &Ctx<E>,
    connection: &ConnectionState,
    (source, rebuilds): (Option<CompressionType>, bool),
    records: Bytes,
    rules: &Rules,
) -> Result<Result<(Validated, Share), RecordError>, Overloaded> {
    let limits = &ctx.config.limits;
    let usual = limits.check_usual_decompressed_bytes;
    let deadline = ctx.work_slots.deadline();
    let now = ctx.env.wall();
    let decompressed_limit = decompressed_max(ctx, rules, copies(source, rebuilds));
    let mut decompressed_max = match records.len() {
        n if n <= limits.check_quick_bytes => limits.check_quick_decompressed_bytes.min(decompressed_limit),
        _ => usual.min(decompressed_limit),
    };
    connection.start_long_work();
    let is_given_up = |slices| slices >= limits.check_slices_unwanted && connection.is_peer_closed();
    loop {
        let bytes = check_bytes(source, rebuilds, (records.len(), decompressed_max), rules);
        // BEFORE a work slot is taken.
        let is_long = rebuilds && decompressed_max.max(records.len()) > limits.check_quick_decompressed_bytes;
        let [mut share, long] = ctx.memory.check_in_slices(bytes, is_long).await?;
        let rules = Rules {
            decompressed_max,
            ..*rules
        };
        let mut pace = coop::pace();
        let work = check_at(&mut pace, records.clone(), &rules, now);
        let done = ctx.work_slots.run(deadline, &is_given_up, work).await?;
        drop(long);
        match done {
            // Retry with more memory. BEFORE it waits for that, the loop releases its reservation.
            Err(RecordError::Batch(BatchError::Decompress(DecompressError::TooLarge { .. })))
                if decompressed_max < decompressed_limit =>
            {
                decompressed_max = match decompressed_max < usual {
                    true => usual.min(decompressed_limit),
                    false => decompressed_limit,
                };
            }
            Err(error) => return Ok(Err(error)),
            Ok(batch) => {
                share.shrink(if batch.rebuilt { batch.batch.bytes.len() } else { 0 });
                return Ok(Ok((batch, share)));
            }
        }
    }
}

/// Upper bound of the memory that the validation of a batch takes, in bytes, by its size and the limit of what it
/// decompresses to.
fn check_bytes(
    source: Option<CompressionType>,
    rebuilds: bool,
    (bytes, decompressed_max): (usize, usize),
    rules: &Rules,
) -> usize {
    let copies = copies(source, false);
    let records = if copies == 0 { bytes } else { decompressed_max };
    let rebuilt_bytes = match (rebuilds, rules.compression) {
        (false, _) | (true, CompressionConfig::Producer) => 0,
        (true, compression) => {
            // While the buffer grows it exists twice.
            let message_bytes = usize::try_from(rules.max_message_bytes).unwrap_or(0);
            let context = match compression {
                CompressionConfig::Fixed { codec, .. } => compression::context_bytes_max(codec, records),
                CompressionConfig::Uncompressed | CompressionConfig::Producer => 0,
            };
            2 * message_bytes.min(records) + context
        }
    };
    copies * decompressed_max + rebuilt_bytes
}

/// How many copies of a batch's decompressed records exist while it is validated.
pub(super) fn copies(source: Option<CompressionType>, rebuilds: bool) -> usize {
    let decompressed = match source {
        None | Some(CompressionType::None) => 0,
        // zstd's window, which may hold all records, is a separate buffer.
        Some(CompressionType::Zstd) => 2,
        Some(CompressionType::Gzip | CompressionType::Snappy | CompressionType::Lz4) => 1,
    };
    // A recompression may take long, so such a batch must be smaller.
    decompressed + if rebuilds { 2 } else { 0 }
}

/// The limit of what a batch's records may decompress to: the topic's, unless the memory pool is smaller.
pub(super) fn decompressed_max<E: Env>(ctx: &Ctx<E>, rules: &Rules, copies: usize) -> usize {
    let pool_share = ctx.memory.check_bytes_max() / copies.max(1);
    rules
        .decompressed_max
        .min(pool_share.max(ctx.config.limits.check_quick_decompressed_bytes))
}

fn overloaded(_: Overloaded) -> ProduceError {
    let why = "the broker is too busy for this request now";
    PartitionError::with_message(ErrorCode::REQUEST_TIMED_OUT, why).into()
}

async fn submit_batch<E: Env>(
    ctx: &Ctx<E>,
    rc: &RequestContext,
    route: &Route<E>,
    data: PartitionProduceData,
    acks_all: bool,
) -> Result<PartitionProgress, ProduceError> {
    let handle = route.partition_or_error(data.index)?;
    // While the log is being opened, the batch waits in the owner's queue.
    let log_start = handle.view()?.map_or(Offset(0), |view| view.log_start);
    let rules = Rules {
        zstd: rc.version >= ZSTD_FROM,
        ..*route.rules()
    };
    route.traffic.produced();
    let records = match data.records {
        Some(Records::Bytes(bytes)) => bytes,
        Some(Records::External { .. }) | None => {
            return Err(ProduceError::Records(RecordError::NoBatch, Offset(-1)));
        }
    };
    let (batch, rebuilt) = validate_batch(ctx, &rc.connection, records, &rules, log_start).await?;
    if batch.batch.header.attributes.is_transactional() {
        return Err(no_transactions().into());
    }
    let memory = BatchMemory {
        buffer: Arc::clone(&rc.buffer),
        rebuilt,
    };
    let (reply, result) = oneshot::channel();
    let queue_permit = handle.reserve_queue(batch.batch.bytes.len()).await;
    if !handle
        .send(DataMessage::Append(Box::new(Append {
            batch,
            acks_all,
            memory,
            queue_permit,
            traffic: Arc::clone(&route.traffic),
            reply,
        })))
        .await
    {
        return Err(PartitionError::new(ErrorCode::NOT_LEADER_OR_FOLLOWER).into());
    }
    Ok(PartitionProgress::Waiting {
        index: data.index,
        result,
        log_start,
    })
}

fn error_response(topic: &str, index: i32, why: &ProduceError) -> PartitionProduceResponse {
    let base = PartitionProduceResponse {
        index,
        base_offset: -1,
        log_append_time_ms: -1,
        log_start_offset: -1,
        ..Default::default()
    };
    match why {
        ProduceError::Partition(e) => PartitionProduceResponse {
            error_code: e.code.0,
            error_message: e.message_str(),
            ..base
        },
        ProduceError::Records(e, log_start) => PartitionProduceResponse {
            error_code: e.code(),
            log_start_offset: if is_rejected_by_log(e) { log_start.0 } else { -1 },
            error_message: Some(Str::message(&e.to_string())),
            record_errors: e
                .record_errors()
                .iter()
                .map(|r| record_error(topic, index, r))
                .collect(),
            ..base
        },
    }
}

/// Whether Kafka rejects this in its log, whose responses contain the log start offset. Bytes that are no batch, corrupt
/// batches and batches that are too large are rejected before, or without it.
fn is_rejected_by_log(e: &RecordError) -> bool {
    match e {
        RecordError::NoBatch
        | RecordError::MoreThanOneBatch
        | RecordError::ZstdNotAllowed
        | RecordError::Batch(BatchError::Partial { .. } | BatchError::OldFormat(_)) => false,
        e => !matches!(
            ErrorCode(e.code()),
            ErrorCode::CORRUPT_MESSAGE | ErrorCode::MESSAGE_TOO_LARGE
        ),
    }
}

fn record_error(topic: &str, partition: i32, (index, why): &(i32, String)) -> BatchIndexAndErrorMessage {
    let why = match why.as_str() {
        NO_KEY => format!("{NO_KEY} in topic partition {topic}-{partition}"),
        why => why.to_owned(),
    };
    BatchIndexAndErrorMessage {
        batch_index: *index,
        batch_index_error_message: Some(Str::message(&why)),
        ..Default::default()
    }
}

/// acks=0 has no response. As in Kafka, the connection closes to signal an error.
fn finish_without_acks<E: Env>(topics: Vec<TopicProgress>) -> Dispatched<E> {
    let failed = topics
        .iter()
        .flat_map(|t| &t.partitions)
        .any(|p| matches!(p, PartitionProgress::Done(r) if r.error_code != 0));
    if failed {
        Dispatched::Close
    } else {
        Dispatched::Silent
    }
}

fn await_appends<E: Env>(
    ctx: &Ctx<E>,
    rc: RequestContext,
    topics: Vec<TopicProgress>,
    timeout_ms: i32,
    share: Share,
) -> Dispatched<E> {
    let ctx = ctx.clone();
    let pending = Box::pin(async move {
        // From the request's arrival, so that the timeouts of pipelined requests don't add up.
        let deadline = rc.received_at
            + Duration::from_millis(timeout_ms.max(0) as u64).max(ctx.config.limits.produce_disk_wait);
        let mut timer = std::pin::pin!(ctx.env.sleep_until(deadline));
        let mut late = false;
        let mut response = ProduceResponse::default();
        for topic in topics {
            let mut partition_responses = Vec::with_capacity(topic.partitions.len());
            for partition in topic.partitions {
                partition_responses.push(match partition {
                    PartitionProgress::Done(done) => done,
                    PartitionProgress::Waiting {
                        index,
                        mut result,
                        log_start,
                    } => {
                        let result = tokio::select! {
                            biased;
                            result = &mut result => Some(result),
                            () = &mut timer, if !late => {
                                late = true;
                                None
                            }
                            () = std::future::ready(()), if late => None,
                        };
                        partition_response(index, result, log_start)
                    }
                });
            }
            response.responses.push(TopicProduceResponse {
                name: topic.name,
                topic_id: topic.id,
                partition_responses,
                ..Default::default()
            });
        }
        rc.response(&ctx, &response, Vec::new())
    });
    Dispatched::Pending(pending, share)
}

fn partition_response(
    index: i32,
    result: Option<Result<AppendResult, oneshot::error::RecvError>>,
    log_start: Offset,
) -> PartitionProduceResponse {
    let error = match result {
        Some(Ok(Ok(info))) => {
            return PartitionProduceResponse {
                index,
                base_offset: info.base_offset.0,
                log_append_time_ms: match info.log_append_time {
                    UnixMillis::NONE => -1,
                    at => at.0,
                },
                log_start_offset: info.log_start.0,
                ..Default::default()
            };
        }
        Some(Ok(Err(refusal))) => refusal,
        // The owner is gone, so whether the batch was written is unknown (P8).
        Some(Err(_)) => PartitionError::new(ErrorCode::NOT_LEADER_OR_FOLLOWER),
        None => PartitionError::new(ErrorCode::REQUEST_TIMED_OUT),
    };
    let mut response = error_response("", index, &ProduceError::Partition(error));
    response.log_start_offset = match ErrorCode(response.error_code) {
        // The log did not reject it, or Kafka does not report the offset.
        ErrorCode::NOT_LEADER_OR_FOLLOWER
        | ErrorCode::UNKNOWN_TOPIC_OR_PARTITION
        | ErrorCode::REQUEST_TIMED_OUT
        | ErrorCode::KAFKA_STORAGE_ERROR
        | ErrorCode::RECORD_LIST_TOO_LARGE => -1,
        _ => log_start.0,
    };
    // No hint at another leader (KIP-951): the partition was deleted or the broker stops, and there is no other broker.
    // Before version 10 the field does not exist.
    response
}

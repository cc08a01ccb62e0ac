//! Produce: validates, hands each batch to its partition's owner in order, and answers when all are committed.

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

use crate::coop::{self, Steps};
use crate::ctx::Ctx;
use crate::handlers::topic_numbers::TopicNumbers;
use crate::net::memory::{Overloaded, Share};
use crate::net::request::{Dispatched, RequestContext};
use crate::net::state::State;
use crate::partition::{Answer, Append, Held, Message, Refused};
use crate::partitions::Route;

/// A partition's part of the request.
enum Part {
    /// With its owner.
    Waiting {
        index: i32,
        answer: oneshot::Receiver<Answer>,
        log_start: Offset,
    },
    /// Answered already.
    Done(PartitionProduceResponse),
}

struct Topic {
    name: Str,
    id: Uuid,
    parts: Vec<Part>,
}

/// A batch up to this size that decompresses to no more than the other is checked where it arrives; any other that is or
/// gets compressed waits for a turn.
const QUICK_BYTES_MAX: usize = 64 << 10;
pub(super) const QUICK_DECOMPRESSED_MAX: usize = 256 << 10;
/// What most batches decompress to at most. Memory for more is only taken for those that do.
pub(super) const MOST_DECOMPRESSED_MAX: usize = 8 << 20;
/// How much work the check of such a batch may be: some milliseconds. What pretends to be small waits for turns.
const QUICK_UNITS_MAX: usize = 3 << 20;
/// After so many slices of work the check of a batch ends whose producer has closed its side: it can't be waiting for long.
const SLICES_FOR_NOBODY_MAX: usize = 64;
/// The first version that allows zstd.
const ZSTD_FROM: i16 = 7;

/// What a client's timeout bounds is the wait for followers: with Kafka a leader's own write takes as long as it takes. Here no answer
/// waits longer than this for a disk that hangs, if the client's timeout isn't longer.
const OWN_DISK: Duration = Duration::from_secs(1);

/// Hands every batch of the request on. Runs in the order of the connection's requests.
pub async fn begin<E: Env>(
    ctx: &mut Ctx<E>,
    rc: RequestContext,
    request: ProduceRequest,
    share: Share,
) -> Dispatched<E> {
    let mut steps = Steps::default();
    let mut topics = Vec::with_capacity(request.topic_data.len());
    let bad_acks = !matches!(request.acks, -1..=1);
    let unnamed = request.transactional_id.is_none() && has_transactional(&request, &mut steps).await;
    let mut twice = listed_twice(&request, &mut steps).await;
    let mut numbers = TopicNumbers::default();
    for topic in request.topic_data {
        if topic.partition_data.is_empty() {
            continue;
        }
        let number = match twice.is_empty() {
            true => 0,
            false => numbers.of(&topic.name, topic.topic_id),
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
        let mut parts = Vec::with_capacity(topic.partition_data.len());
        for data in topic.partition_data {
            steps.step().await;
            let index = data.index;
            let again = twice.get_mut(&(number, index));
            let is_twice = again.is_some();
            if again.is_some_and(|told| std::mem::replace(told, true)) {
                continue;
            }
            let part = match &route {
                _ if unnamed => Err(Refused::of(ErrorCode::TRANSACTIONAL_ID_AUTHORIZATION_FAILED).into()),
                None => Err(Refused::of(unknown).into()),
                Some(_) if bad_acks => Err(Refused::of(ErrorCode::INVALID_REQUIRED_ACKS).into()),
                Some(_) if is_twice => Err(listed_again().into()),
                Some(route) => hand_on(ctx, &rc, route, data, request.acks == -1).await,
            };
            parts.push(part.unwrap_or_else(|e| Part::Done(refused(&name, index, &e))));
        }
        topics.push(Topic {
            name: topic.name,
            id: topic.topic_id,
            parts,
        });
    }
    if request.acks == 0 {
        unanswered(topics)
    } else {
        answered(ctx, rc, topics, request.timeout_ms, share)
    }
}

/// Why a partition's batch was not taken.
enum NotTaken {
    Refused(Refused),
    /// For its records, by a log that starts there.
    Records(RecordError, Offset),
}

impl From<Refused> for NotTaken {
    fn from(r: Refused) -> Self {
        Self::Refused(r)
    }
}

fn no_transactions() -> Refused {
    Refused::because(
        ErrorCode::INVALID_TXN_STATE,
        "this broker does not serve transactions yet",
    )
}

/// Whether a batch of the request says that it belongs to a transaction. As Kafka: only each partition's first is looked at,
/// before anything else is; and what is no batch says nothing.
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

/// A topic's number in the request, and a partition.
type Place = (usize, i32);

/// The partitions that a request lists more than once, and whether that has been answered: no, so far.
async fn listed_twice(request: &ProduceRequest, steps: &mut Steps) -> BTreeMap<Place, bool> {
    let (mut seen, mut twice) = (BTreeSet::new(), BTreeMap::new());
    let topics = &request.topic_data;
    if topics.len() > 1 || topics.iter().any(|t| t.partition_data.len() > 1) {
        let mut numbers = TopicNumbers::default();
        for topic in topics.iter().filter(|topic| !topic.partition_data.is_empty()) {
            let number = numbers.of(&topic.name, topic.topic_id);
            for data in &topic.partition_data {
                steps.step().await;
                let place = (number, data.index);
                if !seen.insert(place) {
                    twice.insert(place, false);
                }
            }
        }
    }
    twice
}

/// One answer can't tell of two batches. Kafka appends the last and drops the others, which its answer then acknowledges.
fn listed_again() -> Refused {
    Refused::because(
        ErrorCode::INVALID_REQUEST,
        "the partition is listed more than once; nothing was appended to it",
    )
}

/// Checks a batch by the rules of its topic, with the memory and in the turns that this takes.
async fn checked<E: Env>(
    ctx: &Ctx<E>,
    connection: &State,
    records: Bytes,
    rules: &Rules,
    log_start: Offset,
) -> Result<(Validated, Share), NotTaken> {
    let now = ctx.env.wall();
    let refused = |e| NotTaken::Records(e, log_start);
    let with_share = async |batch: Validated| {
        let bytes = if batch.rebuilt { batch.batch.bytes.len() } else { 0 };
        let share = ctx.memory.check(bytes).await.map_err(overloaded)?;
        Ok((batch, share))
    };
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
            ..=QUICK_BYTES_MAX => {
                connection.reading.steps(coop::steps_of(records.len())).await;
                check(records, rules, now)
            }
            _ => Box::pin(check_at(&mut coop::pace(), records, rules, now)).await,
        };
        return with_share(done.map_err(refused)?).await;
    }
    if records.len() <= QUICK_BYTES_MAX
        && let (Some(done), units) = checked_quickly(records.clone(), rules, now)
    {
        connection.reading.steps(coop::steps_of(units)).await;
        return with_share(done.map_err(refused)?).await;
    }
    brokkr_types::reached!("a batch waited for its turn to be checked");
    let checked = Box::pin(checked_in_turns(
        ctx,
        connection,
        (source, rebuilds),
        records,
        rules,
    ));
    let done = checked.await.map_err(overloaded)?;
    done.map_err(refused)
}

/// Checks a batch in one go, if that takes no more than a moment and little memory; and the work that this was, in units.
fn checked_quickly(
    records: Bytes,
    rules: &Rules,
    now: UnixMillis,
) -> (Option<Result<Validated, RecordError>>, usize) {
    let quick = Rules {
        decompressed_max: QUICK_DECOMPRESSED_MAX.min(rules.decompressed_max),
        ..*rules
    };
    let mut pace = Pace::gives_way_first_after(QUICK_UNITS_MAX);
    let done = match check_at(&mut pace, records, &quick, now).now_or_never() {
        Some(Err(RecordError::Batch(BatchError::Decompress(DecompressError::TooLarge { .. })))) => None,
        done => done,
    };
    (done, QUICK_UNITS_MAX.saturating_sub(pace.left_units()))
}

/// Checks a batch in turns, with the memory that this takes.
async fn checked_in_turns<E: Env>(
    ctx: &Ctx<E>,
    connection: &State,
    (source, rebuilds): (Option<CompressionType>, bool),
    records: Bytes,
    rules: &Rules,
) -> Result<Result<(Validated, Share), RecordError>, Overloaded> {
    let deadline = ctx.checking.deadline();
    let now = ctx.env.wall();
    let most = decompressed_max(ctx, rules, copies(source, rebuilds));
    let mut decompressed_max = match records.len() {
        ..=QUICK_BYTES_MAX => QUICK_DECOMPRESSED_MAX.min(most),
        _ => MOST_DECOMPRESSED_MAX.min(most),
    };
    connection.works_for_long();
    let is_given_up = |slices| slices >= SLICES_FOR_NOBODY_MAX && connection.is_peer_closed();
    loop {
        let bytes = bytes_of_check(source, rebuilds, (records.len(), decompressed_max), rules);
        // BEFORE a turn is taken.
        let takes_long = rebuilds && decompressed_max.max(records.len()) > QUICK_DECOMPRESSED_MAX;
        let [mut share, long] = ctx.memory.check_in_turns(bytes, takes_long).await?;
        let rules = Rules {
            decompressed_max,
            ..*rules
        };
        let mut pace = coop::pace();
        let work = check_at(&mut pace, records.clone(), &rules, now);
        let done = ctx.checking.run(deadline, &is_given_up, work).await?;
        drop(long);
        match done {
            // Again, with the memory that this takes. BEFORE it waits for that it gives back what it has.
            Err(RecordError::Batch(BatchError::Decompress(DecompressError::TooLarge { .. })))
                if decompressed_max < most =>
            {
                decompressed_max = match decompressed_max < MOST_DECOMPRESSED_MAX {
                    true => MOST_DECOMPRESSED_MAX.min(most),
                    false => most,
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

/// What the check of a batch takes at most that has so many bytes, and decompresses to so many.
fn bytes_of_check(
    source: Option<CompressionType>,
    rebuilds: bool,
    (bytes, decompressed_max): (usize, usize),
    rules: &Rules,
) -> usize {
    let copies = copies(source, false);
    let records = if copies == 0 { bytes } else { decompressed_max };
    let anew = match (rebuilds, rules.compression) {
        (false, _) | (true, CompressionConfig::Producer) => 0,
        (true, compression) => {
            // While it grows it may be there twice.
            let most = usize::try_from(rules.max_message_bytes).unwrap_or(0);
            let context = match compression {
                CompressionConfig::Fixed { codec, .. } => compression::context_bytes_max(codec, records),
                CompressionConfig::Uncompressed | CompressionConfig::Producer => 0,
            };
            2 * most.min(records) + context
        }
    };
    copies * decompressed_max + anew
}

/// How often the records of a batch are in memory while it is checked.
pub(super) fn copies(source: Option<CompressionType>, rebuilds: bool) -> usize {
    let decompressed = match source {
        None | Some(CompressionType::None) => 0,
        // What it looks back at, which may be all, is a buffer of its own.
        Some(CompressionType::Zstd) => 2,
        Some(CompressionType::Gzip | CompressionType::Snappy | CompressionType::Lz4) => 1,
    };
    // A batch that is written anew may take long to compress: it may not be as large.
    decompressed + if rebuilds { 2 } else { 0 }
}

/// What the records of a batch may decompress to: as the topic says, if there can be memory for that.
pub(super) fn decompressed_max<E: Env>(ctx: &Ctx<E>, rules: &Rules, copies: usize) -> usize {
    let held = ctx.memory.check_bytes_max() / copies.max(1);
    rules.decompressed_max.min(held.max(QUICK_DECOMPRESSED_MAX))
}

fn overloaded(_: Overloaded) -> NotTaken {
    let why = "the broker is too busy for this request now";
    Refused::because(ErrorCode::REQUEST_TIMED_OUT, why).into()
}

async fn hand_on<E: Env>(
    ctx: &Ctx<E>,
    rc: &RequestContext,
    route: &Route<E>,
    data: PartitionProduceData,
    acks_all: bool,
) -> Result<Part, NotTaken> {
    let handle = route.known(data.index)?;
    // While the log is being opened the batch waits in the owner's queue.
    let log_start = handle.view()?.map_or(Offset(0), |view| view.log_start);
    let rules = Rules {
        zstd: rc.version >= ZSTD_FROM,
        ..*route.rules()
    };
    route.traffic.produced();
    let records = match data.records {
        Some(Records::Bytes(bytes)) => bytes,
        Some(Records::External { .. }) | None => {
            return Err(NotTaken::Records(RecordError::NoBatch, Offset(-1)));
        }
    };
    let (batch, rebuilt) = checked(ctx, &rc.connection, records, &rules, log_start).await?;
    if batch.batch.header.attributes.is_transactional() {
        return Err(no_transactions().into());
    }
    let held = Held {
        buffer: Arc::clone(&rc.buffer),
        rebuilt,
    };
    let (reply, answer) = oneshot::channel();
    let room = handle.room(batch.batch.bytes.len()).await;
    if !handle
        .send(Message::Append(Box::new(Append {
            batch,
            acks_all,
            held,
            room,
            traffic: Arc::clone(&route.traffic),
            reply,
        })))
        .await
    {
        return Err(Refused::of(ErrorCode::NOT_LEADER_OR_FOLLOWER).into());
    }
    Ok(Part::Waiting {
        index: data.index,
        answer,
        log_start,
    })
}

fn refused(topic: &str, index: i32, why: &NotTaken) -> PartitionProduceResponse {
    let base = PartitionProduceResponse {
        index,
        base_offset: -1,
        log_append_time_ms: -1,
        log_start_offset: -1,
        ..Default::default()
    };
    match why {
        NotTaken::Refused(r) => PartitionProduceResponse {
            error_code: r.code.0,
            error_message: r.message(),
            ..base
        },
        NotTaken::Records(e, log_start) => PartitionProduceResponse {
            error_code: e.code(),
            log_start_offset: if judged_by_log(e) { log_start.0 } else { -1 },
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

/// Whether Kafka's log is what refuses this: then it says where the log starts. What is no batch, damaged or too large
/// doesn't come that far, or is not told.
fn judged_by_log(e: &RecordError) -> bool {
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

/// acks=0: nobody is answered; that something was refused shows by the connection's end, as in Kafka.
fn unanswered<E: Env>(topics: Vec<Topic>) -> Dispatched<E> {
    let failed = topics
        .iter()
        .flat_map(|t| &t.parts)
        .any(|p| matches!(p, Part::Done(r) if r.error_code != 0));
    if failed {
        Dispatched::Close
    } else {
        Dispatched::Silent
    }
}

fn answered<E: Env>(
    ctx: &Ctx<E>,
    rc: RequestContext,
    topics: Vec<Topic>,
    timeout_ms: i32,
    share: Share,
) -> Dispatched<E> {
    let ctx = ctx.clone();
    let pending = Box::pin(async move {
        // From the request's arrival: the timeouts of pipelined ones don't add up.
        let deadline = rc.received_at + Duration::from_millis(timeout_ms.max(0) as u64).max(OWN_DISK);
        let mut timer = std::pin::pin!(ctx.env.sleep_until(deadline));
        let mut late = false;
        let mut response = ProduceResponse::default();
        for topic in topics {
            let mut partition_responses = Vec::with_capacity(topic.parts.len());
            for part in topic.parts {
                partition_responses.push(match part {
                    Part::Done(done) => done,
                    Part::Waiting {
                        index,
                        mut answer,
                        log_start,
                    } => {
                        let answer = tokio::select! {
                            biased;
                            a = &mut answer => Some(a),
                            () = &mut timer, if !late => {
                                late = true;
                                None
                            }
                            () = std::future::ready(()), if late => None,
                        };
                        outcome(index, answer, log_start)
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

fn outcome(
    index: i32,
    answer: Option<Result<Answer, oneshot::error::RecvError>>,
    log_start: Offset,
) -> PartitionProduceResponse {
    let refusal = match answer {
        Some(Ok(Ok(placed))) => {
            return PartitionProduceResponse {
                index,
                base_offset: placed.base_offset.0,
                log_append_time_ms: match placed.log_append_time {
                    UnixMillis::NONE => -1,
                    at => at.0,
                },
                log_start_offset: placed.log_start.0,
                ..Default::default()
            };
        }
        Some(Ok(Err(refusal))) => refusal,
        // The owner is gone: nobody knows whether it was written (P8).
        Some(Err(_)) => Refused::of(ErrorCode::NOT_LEADER_OR_FOLLOWER),
        None => Refused::of(ErrorCode::REQUEST_TIMED_OUT),
    };
    let mut response = refused("", index, &NotTaken::Refused(refusal));
    response.log_start_offset = match ErrorCode(response.error_code) {
        // The log didn't judge it, or Kafka doesn't tell.
        ErrorCode::NOT_LEADER_OR_FOLLOWER
        | ErrorCode::UNKNOWN_TOPIC_OR_PARTITION
        | ErrorCode::REQUEST_TIMED_OUT
        | ErrorCode::KAFKA_STORAGE_ERROR
        | ErrorCode::RECORD_LIST_TOO_LARGE => -1,
        _ => log_start.0,
    };
    // No hint of a leader (KIP-951): the partition was deleted here or the broker stops, and there is no other broker. (Before
    // version 10 the field doesn't even exist.)
    response
}

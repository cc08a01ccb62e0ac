//! Fetch: ranges of files below the high watermark, straight to the socket; parks without polling until there is enough.
//!
//! Keeps L5 (nothing at or past the high watermark), W6 (the batch that holds the offset, whole, even where it is larger
//! than every limit) and R19 (each partition is answered from one snapshot).

use std::sync::Arc;
use std::time::Duration;

use brokkr_env::{Env, Error, ErrorKind, FileRange};
use brokkr_log::{ReadError, UpTo};
use brokkr_types::Offset;
use brokkr_wire::messages::fetch_request::FetchRequest;
use brokkr_wire::messages::fetch_response::{FetchResponse, FetchableTopicResponse, PartitionData};
use brokkr_wire::{ErrorCode, Records};
use bytes::Bytes;

use super::common::isolation_level;
use crate::coop::Steps;
use crate::ctx::{Ctx, Peer};
use crate::handlers::fetch_session::{FetchContext, FetchSessions, PartitionStatus, RequestedPartition};
use crate::metrics::TopicTraffic;
use crate::net::memory::{HeldBytes, Share};
use crate::net::request::{Dispatched, RequestContext, response_share};
use crate::partition::{PartitionError, PartitionHandle, View, Waiter};
use crate::partitions::{OPENING_WAIT, check_epoch};

/// `isolation_level` of a consumer that reads only what is decided (KIP-98).
const READ_COMMITTED: i8 = 1;
/// The first version in which topics have ids and no names.
const IDS_SINCE: i16 = 13;
/// Who fetches without being a replica.
const CONSUMER: i32 = -1;
/// A fetch of more partitions than this, that waits for many bytes, looks again only at those that changed.
const FEW: usize = 8;
/// A read is tried again so often when retention or a truncation made its snapshot stale.
const STALE_RETRIES_MAX: usize = 3;
/// What a partition's part of a response takes up at most, besides its records.
const RESPONSE_PARTITION_BYTES: usize = 400;
/// How much of a file that could not be read is read at a time, before more of it is promised.
const CHECKED_BYTES: u32 = 256 << 10;

/// What was found for a partition.
struct PartitionRead<E: Env> {
    status: PartitionStatus,
    range: Option<FileRange<E>>,
    /// Where the fetcher's log leaves ours: epoch and end offset.
    diverging: Option<(i32, i64)>,
    /// Where it is counted, if there is such a topic.
    traffic: Option<Arc<TopicTraffic>>,
}

/// Everything found in one pass.
struct FetchPass<E: Env> {
    reads: Vec<PartitionRead<E>>,
    bytes: usize,
    /// Something that is answered at once, whatever there is to read: an error, or where the fetcher's log diverges. A
    /// partition that doesn't exist is no such thing: as with Kafka the others are waited for.
    urgent: bool,
    /// A partition's log is offline. Answered when the time is up: a client that asks again at once must not be answered
    /// at once, again and again.
    offline: bool,
    /// Where to wait for more: the partition, the high watermark seen, and its place among those that are fetched.
    wait_for: Vec<(PartitionHandle<E>, Option<Offset>, usize)>,
}

/// Begins a fetch. What it reads and waits for is in the future.
pub fn begin<E: Env>(
    ctx: &Ctx<E>,
    sessions: &FetchSessions<E>,
    rc: RequestContext,
    request: FetchRequest,
    peer: &Peer,
    share: Share,
) -> Dispatched<E> {
    if let Err(code) = validate(&request) {
        let response = error_response(&request, rc.version, code);
        let response = rc.response(ctx, &response, Vec::new());
        return Dispatched::Pending(Box::pin(std::future::ready(response)), share);
    }
    let held = HeldBytes {
        buffers: rc.buffer.bytes(),
        decoded: share.bytes(),
        responses: 0,
    };
    let (ctx, sessions, peer) = (ctx.clone(), sessions.clone(), peer.clone());
    let context = sessions.new_context(&request, rc.version);
    let pending = Box::pin(async move {
        let context = match context {
            Ok(context) => context,
            Err(code) => {
                let response = FetchResponse {
                    error_code: code.0,
                    ..Default::default()
                };
                return rc.response(&ctx, &response, Vec::new());
            }
        };
        rc.connection.answering.steps(context.partitions.len()).await;
        let response_bytes = context.partitions.len() * RESPONSE_PARTITION_BYTES + rc.repeated_bytes();
        let pass = fetch(&ctx, &rc, &request, &context, held).await;
        let response_share = response_share(&ctx, &peer, response_bytes).await?;
        let read_committed = request.isolation_level == READ_COMMITTED;
        let (response, ranges, statuses) = build_response(&context, pass, read_committed).await;
        if context.session_id != 0 {
            sessions.record_response(&context, &statuses);
        }
        let mut response = rc.response(&ctx, &response, ranges)?;
        response.share = response_share;
        Some(response)
    });
    Dispatched::Pending(pending, share)
}

/// Kafka stumbles over these and answers that it doesn't know why; here the client is told.
fn validate(request: &FetchRequest) -> Result<(), ErrorCode> {
    isolation_level(request.isolation_level)?;
    match request.max_bytes {
        ..0 => Err(ErrorCode::INVALID_REQUEST),
        _ => Ok(()),
    }
}

/// The answer to a request that is refused as it stands. As in Kafka, partitions are told of while topics have names.
fn error_response(request: &FetchRequest, version: i16, code: ErrorCode) -> FetchResponse {
    let partition = |index| PartitionData {
        partition_index: index,
        error_code: code.0,
        high_watermark: -1,
        last_stable_offset: -1,
        log_start_offset: -1,
        aborted_transactions: Some(Vec::new()),
        preferred_read_replica: -1,
        records: Some(Records::Bytes(Bytes::new())),
        ..Default::default()
    };
    let named = request.topics.iter().filter(|_| version < IDS_SINCE);
    let responses = named.map(|t| FetchableTopicResponse {
        topic: t.topic.clone(),
        partitions: t.partitions.iter().map(|p| partition(p.partition)).collect(),
        ..Default::default()
    });
    FetchResponse {
        error_code: code.0,
        responses: responses.collect(),
        ..Default::default()
    }
}

async fn fetch<E: Env>(
    ctx: &Ctx<E>,
    rc: &RequestContext,
    request: &FetchRequest,
    context: &FetchContext,
    held: HeldBytes,
) -> FetchPass<E> {
    let mut ctx = ctx.clone();
    let wait = Duration::from_millis(request.max_wait_ms.max(0) as u64);
    let deadline = rc.received_at + wait;
    let min_bytes = request.min_bytes.max(0) as usize;
    let mut unpark = std::pin::pin!(rc.connection.until_unpark());
    let mut is_last = false;
    let mut unknown_at_first: Option<Vec<usize>> = None;
    loop {
        let pass = read_partitions(
            &mut ctx,
            rc.version,
            request,
            context,
            unknown_at_first.as_deref(),
        )
        .await;
        let nothing_to_wait_for = pass.wait_for.is_empty() && !pass.offline;
        // Logs that are being opened are waited for, whatever the request says, unless there is something else to answer.
        let is_opening = pass.bytes == 0 && pass.wait_for.iter().any(|(_, seen, _)| seen.is_none());
        let deadline = if is_opening {
            deadline.max(rc.received_at + OPENING_WAIT)
        } else {
            deadline
        };
        let enough =
            (pass.bytes >= min_bytes && !is_opening) || pass.urgent || nothing_to_wait_for || is_last;
        if enough || ctx.env.now() >= deadline {
            return pass;
        }
        unknown_at_first.get_or_insert_with(|| {
            let reads = pass.reads.iter().enumerate();
            let unknown = reads.filter(|(_, read)| is_unknown(ErrorCode(read.status.error_code)));
            unknown.map(|(at, _)| at).collect()
        });
        // To look again at a few, or where the first byte is enough, costs no more than to know what changed.
        let mut readable = match context.partitions.len() > FEW && min_bytes > 1 {
            true => Some(ReadableBytes::of(&pass)),
            false => None,
        };
        let waiter = Arc::new(match readable {
            Some(_) => Waiter::tracking_partitions(),
            None => Waiter::default(),
        });
        for (handle, seen, at) in &pass.wait_for {
            handle.register_waiter(*seen, &waiter, *at);
        }
        // BEFORE the wait: what was found so far pins files, and so do the routes.
        drop(pass);
        ctx.release();
        let parked = ctx.memory.evictable_fetch(held);
        loop {
            tokio::select! {
                biased;
                () = &mut unpark => {
                    brokkr_types::reached!("a parked fetch ended with its connection");
                    is_last = true;
                    break;
                }
                () = parked.evicted() => {
                    is_last = true;
                    break;
                }
                // AFTER those: it may be told all the time.
                () = waiter.notified() => {
                    brokkr_types::reached!("a parked fetch was woken");
                    let Some(readable) = &mut readable else { break };
                    let enough = readable.update(&mut ctx, rc.version, request, context, &waiter, min_bytes).await;
                    ctx.release();
                    if enough || ctx.env.now() >= deadline {
                        break;
                    }
                }
                () = ctx.env.sleep_until(deadline) => {
                    brokkr_types::reached!("a parked fetch waited in vain");
                    break;
                }
            }
        }
    }
}

/// What a parked fetch of many partitions has found of each, in bytes, so that it need only look again at what changed. What it
/// would find may be less (each partition is counted as if it were the first), never more.
struct ReadableBytes {
    by_partition: Vec<usize>,
    total: usize,
}

impl ReadableBytes {
    fn of<E: Env>(pass: &FetchPass<E>) -> Self {
        let bytes = pass
            .reads
            .iter()
            .map(|f| f.range.as_ref().map_or(0, |r| r.len() as usize));
        Self {
            by_partition: bytes.collect(),
            total: pass.bytes,
        }
    }

    /// Looks again at the partitions that have more. Whether to look at all: there may be enough, or something is to be answered.
    async fn update<E: Env>(
        &mut self,
        ctx: &mut Ctx<E>,
        version: i16,
        request: &FetchRequest,
        context: &FetchContext,
        waiter: &Arc<Waiter>,
        min_bytes: usize,
    ) -> bool {
        let changed = waiter.take_changed();
        if changed.any_ended {
            return true;
        }
        let bytes_max = request.max_bytes.clamp(0, ctx.config.fetch_max_bytes) as usize;
        let mut steps = Steps::default();
        for at in changed.indexes {
            steps.step().await;
            let requested = &context.partitions[at];
            let replica_id = replica_id(version, request);
            let read = read_partition(ctx, version, replica_id, requested, bytes_max, true).await;
            let Ok((read, handle, seen)) = read else {
                return true;
            };
            if read.diverging.is_some() {
                return true;
            }
            let bytes = read.range.as_ref().map_or(0, |r| r.len() as usize);
            self.total = self.total - self.by_partition[at] + bytes;
            self.by_partition[at] = bytes;
            handle.register_waiter(seen, waiter, at);
        }
        self.total >= min_bytes
    }
}

/// Whether there is no such topic, or partition.
fn is_unknown(code: ErrorCode) -> bool {
    [ErrorCode::UNKNOWN_TOPIC_ID, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION].contains(&code)
}

/// Looks once at every partition. `unknown`: when it looks again, the places of those that were unknown at first. As with Kafka,
/// which finds the topics of a request once, one that is unknown since then is a partition that is gone, and is answered at
/// once.
async fn read_partitions<E: Env>(
    ctx: &mut Ctx<E>,
    version: i16,
    request: &FetchRequest,
    context: &FetchContext,
    unknown_at_first: Option<&[usize]>,
) -> FetchPass<E> {
    let bytes_max = request.max_bytes.clamp(0, ctx.config.fetch_max_bytes) as usize;
    let mut pass = FetchPass {
        reads: Vec::with_capacity(context.partitions.len()),
        bytes: 0,
        urgent: false,
        offline: false,
        wait_for: Vec::with_capacity(context.partitions.len()),
    };
    let replica_id = replica_id(version, request);
    let mut steps = Steps::default();
    for (at, requested) in context.partitions.iter().enumerate() {
        steps.step().await;
        let bytes_left = bytes_max.saturating_sub(pass.bytes);
        let read = match read_partition(ctx, version, replica_id, requested, bytes_left, pass.bytes == 0)
            .await
        {
            Ok((read, handle, seen)) => {
                pass.urgent |= read.diverging.is_some();
                pass.wait_for.push((handle, seen, at));
                read
            }
            Err(mut error) => {
                let was_known = unknown_at_first.is_some_and(|unknown| unknown.binary_search(&at).is_err());
                match error.code {
                    code if is_unknown(code) && was_known => {
                        error.code = ErrorCode::UNKNOWN_TOPIC_OR_PARTITION;
                        pass.urgent = true;
                    }
                    code if is_unknown(code) => {}
                    ErrorCode::KAFKA_STORAGE_ERROR => pass.offline = true,
                    _ => pass.urgent = true,
                }
                failed_read(&error)
            }
        };
        pass.bytes += read.range.as_ref().map_or(0, |r| r.len() as usize);
        pass.reads.push(read);
    }
    pass
}

/// Who fetches.
fn replica_id(version: i16, request: &FetchRequest) -> i32 {
    match version {
        15.. => request.replica_state.replica_id,
        _ => request.replica_id,
    }
}

/// Looks at one partition: what is found, whom to wait for, and the high watermark that was seen. A partition whose log is being
/// opened has none: it is waited for, and refused when the wait ends.
async fn read_partition<E: Env>(
    ctx: &mut Ctx<E>,
    version: i16,
    replica_id: i32,
    requested: &RequestedPartition,
    bytes_left: usize,
    first: bool,
) -> Result<(PartitionRead<E>, PartitionHandle<E>, Option<Offset>), PartitionError> {
    if replica_id != CONSUMER && replica_id >= 0 {
        // One broker has no followers. Who tells an epoch may know of a later assignment, so Kafka.
        return Err(PartitionError::new(match requested.fetch.current_leader_epoch {
            ..0 => ErrorCode::NOT_LEADER_OR_FOLLOWER,
            _ => ErrorCode::UNKNOWN_LEADER_EPOCH,
        }));
    }
    let routes = ctx.routes();
    let (route, unknown) = if version >= 13 {
        (routes.by_id(requested.key.topic_id), ErrorCode::UNKNOWN_TOPIC_ID)
    } else {
        (
            routes.by_name(&requested.key.topic),
            ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
        )
    };
    let route = route.ok_or_else(|| PartitionError::new(unknown))?;
    let id = route.id;
    let handle = route.partition_or_error(requested.key.partition)?.clone();
    let fetch = &requested.fetch;
    if fetch.partition_max_bytes < 0 {
        // As with `max_bytes`.
        return Err(PartitionError::new(ErrorCode::INVALID_REQUEST));
    }
    let bytes_max = bytes_left.min(fetch.partition_max_bytes as usize);
    for _ in 0..STALE_RETRIES_MAX {
        let Some(view) = handle.view()? else {
            let opening = PartitionError::new(ErrorCode::NOT_LEADER_OR_FOLLOWER);
            return Ok((failed_read(&opening), handle, None));
        };
        let seen = Some(view.high_watermark);
        // Here, and nowhere else, Kafka takes every negative epoch for none.
        check_epoch(fetch.current_leader_epoch.max(-1), view.leader_epoch)?;
        // As Kafka: a fetcher that is behind the log's start begins anew, whatever its log has.
        if fetch.fetch_offset < view.log_start.0 {
            return Err(PartitionError::new(ErrorCode::OFFSET_OUT_OF_RANGE));
        }
        if let Some(diverging) = diverging_epoch(&view, fetch.last_fetched_epoch, fetch.fetch_offset)? {
            return Ok((
                partition_read(&view, None, Some(diverging), &route.traffic),
                handle,
                seen,
            ));
        }
        match read_range(&view, fetch.fetch_offset, bytes_max, first).await {
            Ok(range) => return Ok((partition_read(&view, range, None, &route.traffic), handle, seen)),
            Err(ReadError::Stale) => {}
            // Its files are gone because its topic is: that says nothing of the offset.
            Err(_) if ctx.routes().by_id(id).is_none() => {
                brokkr_types::reached!("a log was read while its topic was deleted");
                return Err(PartitionError::new(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION));
            }
            Err(error) => {
                if matches!(error, ReadError::Damaged(_) | ReadError::Io(_)) {
                    let log = crate::log_dir::partition_folder(&route.name, requested.key.partition);
                    if ctx.error_log.is_first_of("a read failed", &log) {
                        tracing::warn!(log, %error, "a read failed; further ones of this log are counted");
                    }
                }
                return Err(PartitionError::with_message(ErrorCode(error.code()), &error));
            }
        }
    }
    Err(PartitionError::new(ErrorCode::NOT_LEADER_OR_FOLLOWER))
}

async fn read_range<E: Env>(
    view: &View<E>,
    offset: i64,
    bytes_max: usize,
    first: bool,
) -> Result<Option<FileRange<E>>, ReadError> {
    let offset = Offset(offset);
    // Past the end it is out of range; between high watermark and end it is only early (KIP-207).
    if offset >= view.high_watermark && offset <= view.log_end && offset >= view.log_start {
        return Ok(None);
    }
    let bytes_max = u32::try_from(bytes_max).unwrap_or(u32::MAX);
    let reader = &view.reader;
    let slice = reader.read(offset, UpTo::HighWatermark, bytes_max, first).await?;
    let Some(range) = slice.map(|s| s.range) else {
        return Ok(None);
    };
    if !range.file().is_suspect() || verify_readable(&range).await.is_ok() {
        return Ok(Some(range));
    }
    // BEFORE anybody is promised what can't be read: the batch asked for alone may be well.
    let slice = reader.read(offset, UpTo::HighWatermark, 0, true).await?;
    let Some(range) = slice.map(|s| s.range) else {
        return Ok(None);
    };
    let checked = verify_readable(&range).await;
    checked.inspect_err(|_| brokkr_types::reached!("a fetch was refused what can't be read"))?;
    Ok(Some(range).filter(|_| first))
}

/// A piece at a time: a fetch may ask for much.
async fn verify_readable<E: Env>(range: &FileRange<E>) -> Result<(), ReadError> {
    let (mut at, end) = (range.at(), range.at() + u64::from(range.len()));
    while at < end {
        let len = u64::from(CHECKED_BYTES).min(end - at) as u32;
        let bytes = range.file().read_at(at, len).await?;
        // The file may end before its time, too.
        if bytes.len() as u32 != len {
            let what = format!("{range:?}: the file ends before");
            return Err(ReadError::Io(Error::new(ErrorKind::UnexpectedEof, what)));
        }
        at += u64::from(len);
    }
    Ok(())
}

/// Where the fetcher's log leaves ours (KIP-595), if it says what it fetched last.
fn diverging_epoch<E: Env>(
    view: &View<E>,
    last_fetched_epoch: i32,
    offset: i64,
) -> Result<Option<(i32, i64)>, PartitionError> {
    if last_fetched_epoch < 0 {
        return Ok(None);
    }
    let end = view
        .reader
        .end_offset_for_epoch(brokkr_types::LeaderEpoch(last_fetched_epoch));
    // An epoch that never was here, later than all of ours: nothing can be said of where it ends.
    let end = end.ok_or_else(|| PartitionError::new(ErrorCode::OFFSET_OUT_OF_RANGE))?;
    let diverges = end.epoch.0 < last_fetched_epoch || end.end.0 < offset;
    Ok(diverges.then_some((end.epoch.0, end.end.0)))
}

fn partition_read<E: Env>(
    view: &View<E>,
    range: Option<FileRange<E>>,
    diverging: Option<(i32, i64)>,
    traffic: &Arc<TopicTraffic>,
) -> PartitionRead<E> {
    let status = PartitionStatus {
        error_code: 0,
        high_watermark: view.high_watermark.0,
        last_stable_offset: view.last_stable().0,
        log_start_offset: view.log_start.0,
    };
    PartitionRead {
        status,
        range,
        diverging,
        traffic: Some(Arc::clone(traffic)),
    }
}

fn failed_read<E: Env>(error: &PartitionError) -> PartitionRead<E> {
    let status = PartitionStatus {
        error_code: error.code.0,
        high_watermark: -1,
        last_stable_offset: -1,
        log_start_offset: -1,
    };
    PartitionRead {
        status,
        range: None,
        diverging: None,
        traffic: None,
    }
}

/// What is said of a partition, but for its records.
fn partition_data<E: Env>(
    requested: &RequestedPartition,
    read: &PartitionRead<E>,
    read_committed: bool,
) -> PartitionData {
    let status = &read.status;
    // As in Kafka an empty list, and not none, where no log was asked; and there are no transactions that could have been
    // aborted.
    let empty = match status.error_code {
        0 => read_committed,
        code => is_unknown(ErrorCode(code)),
    };
    let mut data = PartitionData {
        partition_index: requested.key.partition,
        error_code: status.error_code,
        high_watermark: status.high_watermark,
        last_stable_offset: status.last_stable_offset,
        log_start_offset: status.log_start_offset,
        aborted_transactions: empty.then(Vec::new),
        preferred_read_replica: -1,
        records: Some(Records::Bytes(Bytes::new())),
        ..Default::default()
    };
    if let Some((epoch, end_offset)) = read.diverging {
        data.diverging_epoch.epoch = epoch;
        data.diverging_epoch.end_offset = end_offset;
    }
    data
}

type BuiltResponse<E> = (
    FetchResponse,
    Vec<Option<FileRange<E>>>,
    Vec<(PartitionStatus, bool)>,
);

/// The response, its ranges by token, and what a session has to remember of each partition.
async fn build_response<E: Env>(
    context: &FetchContext,
    pass: FetchPass<E>,
    read_committed: bool,
) -> BuiltResponse<E> {
    let mut response = FetchResponse {
        session_id: context.session_id,
        ..Default::default()
    };
    let (mut ranges, mut statuses) = (Vec::new(), Vec::with_capacity(context.partitions.len()));
    let mut steps = Steps::default();
    for (requested, read) in context.partitions.iter().zip(pass.reads) {
        steps.step().await;
        if let Some(traffic) = &read.traffic {
            traffic.fetched(read.range.as_ref().map_or(0, |range| u64::from(range.len())));
        }
        let is_changed = read.range.is_some()
            || read.status.error_code != 0
            || requested.last_status != Some(read.status)
            || read.diverging.is_some_and(|(epoch, _)| epoch >= 0);
        statuses.push((read.status, read.range.is_some()));
        if context.incremental && !is_changed {
            continue;
        }
        let mut data = partition_data(requested, &read, read_committed);
        if let Some(range) = read.range {
            data.records = Some(Records::External {
                token: ranges.len() as u32,
                len: range.len(),
            });
            ranges.push(Some(range));
        }
        let same = |t: &FetchableTopicResponse| {
            t.topic == requested.key.topic && t.topic_id == requested.key.topic_id
        };
        match response.responses.last_mut().filter(|t| same(t)) {
            Some(topic) => topic.partitions.push(data),
            None => response.responses.push(FetchableTopicResponse {
                topic: requested.key.topic.clone(),
                topic_id: requested.key.topic_id,
                partitions: vec![data],
                ..Default::default()
            }),
        }
    }
    (response, ranges, statuses)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handlers::fetch_session::TopicIdPartition;
    use brokkr_env::tokio::TokioEnv;
    use brokkr_types::Uuid;
    use brokkr_wire::Str;
    use futures_util::FutureExt;

    fn requested(partition: i32) -> RequestedPartition {
        RequestedPartition {
            key: TopicIdPartition {
                topic: Str::from_static("t"),
                topic_id: Uuid::ZERO,
                partition,
            },
            fetch: Default::default(),
            last_status: None,
            had_records: false,
        }
    }

    #[tokio::test]
    async fn a_response_of_many_partitions_is_made_in_several_polls() {
        let context = |partitions| FetchContext {
            partitions: (0..partitions).map(requested).collect(),
            session_id: 0,
            incremental: false,
        };
        let pass = |partitions: i32| FetchPass::<TokioEnv> {
            reads: (0..partitions)
                .map(|_| failed_read(&PartitionError::new(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION)))
                .collect(),
            bytes: 0,
            urgent: false,
            offline: false,
            wait_for: Vec::new(),
        };
        let few = context(100);
        let (response, ..) = build_response(&few, pass(100), false)
            .now_or_never()
            .expect("at once");
        assert_eq!(response.responses[0].partitions.len(), 100);
        let many = context(1000);
        assert!(build_response(&many, pass(1000), false).now_or_never().is_none());
        let (response, ..) = build_response(&many, pass(1000), false).await;
        assert_eq!(response.responses[0].partitions.len(), 1000);
    }
}

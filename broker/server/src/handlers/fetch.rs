//! Fetch: responds with ranges of log files below the high watermark, which go from the file to the socket without a copy.
//! A fetch that finds fewer than `min_bytes` parks until there is enough; it never polls.
//!
//! Keeps L5 (nothing at or past the high watermark), W6 (the batch that contains the offset is returned whole, even where
//! it is larger than every limit) and R19 (each partition is answered from one snapshot).

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
use crate::partitions::check_epoch;

/// `isolation_level` of a consumer that reads only records of decided transactions (KIP-98).
const READ_COMMITTED: i8 = 1;
/// The first version that identifies topics by id instead of name.
const IDS_SINCE: i16 = 13;
/// The replica id of a client that is not a replica.
const CONSUMER: i32 = -1;
/// Upper bound of a partition's part of the response, without its records.
const RESPONSE_PARTITION_BYTES: usize = 400;
/// How much of a file that could not be read is read at a time, before more of it is promised.
const CHECKED_BYTES: u32 = 256 << 10;

/// The result of reading one partition.
struct PartitionRead<E: Env> {
    status: PartitionStatus,
    range: Option<FileRange<E>>,
    /// Epoch and end offset at which the fetcher's log diverges from this one.
    diverging: Option<(i32, i64)>,
    /// The topic's traffic counters; `None` if the topic is unknown.
    traffic: Option<Arc<TopicTraffic>>,
}

/// The result of one pass over all partitions of a fetch.
struct FetchPass<E: Env> {
    reads: Vec<PartitionRead<E>>,
    bytes: usize,
    /// Whether the response leaves at once, whatever there is to read: a partition has an error, or the fetcher's log
    /// diverges. An unknown partition is not urgent: as in Kafka, the fetch waits for the other partitions.
    urgent: bool,
    /// Whether a partition's log is offline. The response waits for the deadline, or else a client that retries at once
    /// would do so in a tight loop.
    offline: bool,
    /// The partitions to wait for: the handle, the high watermark seen (`None` while the log opens), and the index in the
    /// fetch.
    wait_for: Vec<(PartitionHandle<E>, Option<Offset>, usize)>,
}

/// Starts a fetch. The returned future does the reading and the waiting.
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

/// Rejects values on which Kafka fails with UNKNOWN_SERVER_ERROR; here the client gets INVALID_REQUEST.
fn validate(request: &FetchRequest) -> Result<(), ErrorCode> {
    isolation_level(request.isolation_level)?;
    match request.max_bytes {
        ..0 => Err(ErrorCode::INVALID_REQUEST),
        _ => Ok(()),
    }
}

/// The response to an invalid request. As in Kafka it lists the partitions only in versions that name topics.
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
        // The fetch waits for logs that are being opened, whatever its `max_wait_ms`, unless there is something else to
        // return.
        let is_opening = pass.bytes == 0 && pass.wait_for.iter().any(|(_, seen, _)| seen.is_none());
        let deadline = if is_opening {
            deadline.max(rc.received_at + ctx.config.limits.partitions_opening_wait)
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
        // Re-reading a few partitions, or waiting for the first byte, costs no more than tracking which ones changed.
        let mut readable =
            match context.partitions.len() > ctx.config.limits.fetch_few_partitions && min_bytes > 1 {
                true => Some(ReadableBytes::new(&pass)),
                false => None,
            };
        let waiter = Arc::new(match readable {
            Some(_) => Waiter::tracking_partitions(),
            None => Waiter::default(),
        });
        for (handle, seen, at) in &pass.wait_for {
            handle.register_waiter(*seen, &waiter, *at);
        }
        // BEFORE the wait: the reads pin files, and so does the snapshot of the routes.
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
                // AFTER those two: a waiter can be notified all the time.
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

/// Readable bytes of each partition of a large parked fetch, so that only the partitions that changed are read again. It
/// may overestimate (each partition is read as if it were the first), never underestimate.
struct ReadableBytes {
    by_partition: Vec<usize>,
    total: usize,
}

impl ReadableBytes {
    fn new<E: Env>(pass: &FetchPass<E>) -> Self {
        let bytes = pass
            .reads
            .iter()
            .map(|f| f.range.as_ref().map_or(0, |r| r.len() as usize));
        Self {
            by_partition: bytes.collect(),
            total: pass.bytes,
        }
    }

    /// Re-reads the partitions that changed. Returns whether the fetch must make a full pass: there may be enough bytes,
    /// or a partition has an error.
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

/// Whether the code says that the topic or partition does not exist.
fn is_unknown(code: ErrorCode) -> bool {
    [ErrorCode::UNKNOWN_TOPIC_ID, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION].contains(&code)
}

/// Reads every partition once. `unknown_at_first` is given for every pass but the first: indexes of the partitions that
/// were unknown in the first pass. As in Kafka, which resolves the topics of a request once, a partition that becomes
/// unknown later was deleted, and the response leaves at once.
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

/// The replica id of the fetcher; [`CONSUMER`] if it is a client.
fn replica_id(version: i16, request: &FetchRequest) -> i32 {
    match version {
        15.. => request.replica_state.replica_id,
        _ => request.replica_id,
    }
}

/// Reads one partition. Returns the read, the handle to wait on, and the high watermark that the read saw. While the log
/// is being opened there is no high watermark: the fetch waits, and answers NOT_LEADER_OR_FOLLOWER when the wait ends.
async fn read_partition<E: Env>(
    ctx: &mut Ctx<E>,
    version: i16,
    replica_id: i32,
    requested: &RequestedPartition,
    bytes_left: usize,
    first: bool,
) -> Result<(PartitionRead<E>, PartitionHandle<E>, Option<Offset>), PartitionError> {
    if replica_id != CONSUMER && replica_id >= 0 {
        // A cluster of one broker has no followers. As in Kafka, a replica that sends a leader epoch may know of a later
        // assignment.
        return Err(PartitionError::new(match requested.fetch.current_leader_epoch {
            ..0 => ErrorCode::NOT_LEADER_OR_FOLLOWER,
            _ => ErrorCode::UNKNOWN_LEADER_EPOCH,
        }));
    }
    let stale_retries = ctx.config.limits.fetch_stale_retries;
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
        // As for `max_bytes`.
        return Err(PartitionError::new(ErrorCode::INVALID_REQUEST));
    }
    let bytes_max = bytes_left.min(fetch.partition_max_bytes as usize);
    for _ in 0..stale_retries {
        let Some(view) = handle.view()? else {
            let opening = PartitionError::new(ErrorCode::NOT_LEADER_OR_FOLLOWER);
            return Ok((failed_read(&opening), handle, None));
        };
        let seen = Some(view.high_watermark);
        // Only in Fetch does Kafka treat every negative epoch as absent.
        check_epoch(fetch.current_leader_epoch.max(-1), view.leader_epoch)?;
        // As in Kafka: a fetcher below the log start offset starts over, even if its log diverges.
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
            // The files are gone because the topic was deleted; that does not make the offset out of range.
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
    // Past the log end the offset is out of range; between the high watermark and the log end there is nothing to return
    // yet (KIP-207).
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
    // BEFORE the response promises bytes that can't be read: the first batch alone may be intact.
    let slice = reader.read(offset, UpTo::HighWatermark, 0, true).await?;
    let Some(range) = slice.map(|s| s.range) else {
        return Ok(None);
    };
    let checked = verify_readable(&range).await;
    checked.inspect_err(|_| brokkr_types::reached!("a fetch was refused what can't be read"))?;
    Ok(Some(range).filter(|_| first))
}

/// Reads the whole range, a piece at a time, since a fetch may ask for many bytes.
async fn verify_readable<E: Env>(range: &FileRange<E>) -> Result<(), ReadError> {
    let (mut at, end) = (range.at(), range.at() + u64::from(range.len()));
    while at < end {
        let len = u64::from(CHECKED_BYTES).min(end - at) as u32;
        let bytes = range.file().read_at(at, len).await?;
        // A truncated file is an error as well.
        if bytes.len() as u32 != len {
            let what = format!("{range:?}: the file ends before");
            return Err(ReadError::Io(Error::new(ErrorKind::UnexpectedEof, what)));
        }
        at += u64::from(len);
    }
    Ok(())
}

/// Where the fetcher's log diverges from this one (KIP-595), if the fetcher sent its last fetched epoch.
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
    // The epoch is later than all epochs of this log, so its end is unknown.
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

/// A partition's response without its records.
fn partition_data<E: Env>(
    requested: &RequestedPartition,
    read: &PartitionRead<E>,
    read_committed: bool,
) -> PartitionData {
    let status = &read.status;
    // As in Kafka the list is empty, and not null, where no log was read. There are no transactions that could have been
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

/// The response, its file ranges by token, and for each partition the status that the session caches.
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

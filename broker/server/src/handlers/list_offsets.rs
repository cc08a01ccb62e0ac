//! ListOffsets: offsets by timestamp, and by special timestamps such as EARLIEST.

use std::collections::BTreeSet;
use std::time::Duration;

use brokkr_env::Env;
use brokkr_log::{LogReader, UpTo};
use brokkr_types::UnixMillis;
use brokkr_wire::ErrorCode;
use brokkr_wire::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsRequest};
use brokkr_wire::messages::list_offsets_response::{
    ListOffsetsPartitionResponse, ListOffsetsResponse, ListOffsetsTopicResponse,
};
use brokkr_wire::records::{CompressionType, Rules};

use super::common::{each_topic_once, isolation_level};
use super::produce::{copies, decompressed_max};
use crate::coop::{STEPS_MAX, Steps};
use crate::ctx::{Ctx, Peer};
use crate::net::memory::Overloaded;
use crate::partition::PartitionError;
use crate::partitions::{Route, check_epoch};

/// The special timestamps, each with the first version that has it.
const LATEST: (i64, i16) = (-1, 1);
const EARLIEST: (i64, i16) = (-2, 1);
const MAX_TIMESTAMP: (i64, i16) = (-3, 7);
const EARLIEST_LOCAL: (i64, i16) = (-4, 8);
const LATEST_TIERED: (i64, i16) = (-5, 9);
const EARLIEST_PENDING_UPLOAD: (i64, i16) = (-6, 11);

/// The first version that returns the leader epoch.
const EPOCH_SINCE: i16 = 4;

/// Timestamp, offset and leader epoch of the record.
type FoundOffset = (i64, i64, i32);
const NOTHING: FoundOffset = (-1, -1, -1);

/// Returns the response.
pub async fn handle<E: Env>(
    mut ctx: Ctx<E>,
    request: ListOffsetsRequest,
    version: i16,
    _peer: Peer,
) -> ListOffsetsResponse {
    let routes = ctx.routes().clone();
    let isolation = isolation_level(request.isolation_level);
    let requested = each_topic_once(request.topics.into_iter().map(|t| (t.name, t.partitions)));
    let (mut topics, mut steps) = (Vec::with_capacity(requested.len()), Steps::default());
    for (name, requested) in requested {
        let route = routes.by_name(&name);
        let mut partitions = Vec::with_capacity(requested.len());
        let mut seen = BTreeSet::new();
        let repeated: BTreeSet<i32> = (requested.iter().map(|p| p.partition_index))
            .filter(|index| !seen.insert(*index))
            .collect();
        for requested in requested {
            steps.step().await;
            // As in Kafka: a partition that is listed twice is answered once, with an error.
            let found = match (repeated.contains(&requested.partition_index), isolation) {
                (true, _) if !seen.remove(&requested.partition_index) => continue,
                (true, _) => Err(PartitionError::new(ErrorCode::INVALID_REQUEST)),
                (false, Err(code)) => Err(PartitionError::new(code)),
                (false, Ok(())) => find_offset(&ctx, route.as_deref(), &requested, version).await,
            };
            // These decompress a batch: about as much work as there is between two yields.
            if requested.timestamp >= 0 || requested.timestamp == MAX_TIMESTAMP.0 {
                steps.steps(STEPS_MAX).await;
            }
            partitions.push(response(requested.partition_index, found, version));
        }
        topics.push(ListOffsetsTopicResponse {
            name,
            partitions,
            ..Default::default()
        });
    }
    ListOffsetsResponse {
        topics,
        ..Default::default()
    }
}

fn response(
    partition_index: i32,
    found: Result<FoundOffset, PartitionError>,
    version: i16,
) -> ListOffsetsPartitionResponse {
    let (error_code, (timestamp, offset, leader_epoch)) = match found {
        Ok(found) => (ErrorCode::NONE, found),
        Err(error) => (error.code, NOTHING),
    };
    ListOffsetsPartitionResponse {
        partition_index,
        error_code: error_code.0,
        timestamp,
        offset,
        leader_epoch: if version >= EPOCH_SINCE { leader_epoch } else { -1 },
        ..Default::default()
    }
}

/// How long a search by time first waits for the view of a log whose start was raised.
const STALE_PAUSE: Duration = Duration::from_millis(5);

async fn find_offset<E: Env>(
    ctx: &Ctx<E>,
    route: Option<&Route<E>>,
    requested: &ListOffsetsPartition,
    version: i16,
) -> Result<FoundOffset, PartitionError> {
    let route = route.ok_or_else(|| PartitionError::new(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION))?;
    let mut pause = STALE_PAUSE;
    for _ in 0..ctx.config.limits.fetch_stale_retries {
        match find_in_view(ctx, route, requested, version).await {
            // The log's start was raised while its old segments were read by time. The owner publishes the new view once it has
            // renamed their files.
            Err(error) if error.code == ErrorCode::OFFSET_OUT_OF_RANGE => {
                brokkr_types::reached!("a log's start overtook a search by time");
                ctx.env.sleep_until(ctx.env.now() + pause).await;
                pause *= 2;
            }
            found => return found,
        }
    }
    find_in_view(ctx, route, requested, version).await
}

async fn find_in_view<E: Env>(
    ctx: &Ctx<E>,
    route: &Route<E>,
    requested: &ListOffsetsPartition,
    version: i16,
) -> Result<FoundOffset, PartitionError> {
    let (_, view) = route
        .open_partition(&ctx.env, &ctx.config.limits, requested.partition_index)
        .await?;
    check_epoch(requested.current_leader_epoch, view.leader_epoch)?;
    let earliest_epoch = || view.reader.earliest_epoch().map_or(-1, |e| e.0);
    match requested.timestamp {
        t if t == LATEST.0 => Ok((-1, view.last_stable().0, view.leader_epoch.0)),
        t if t == EARLIEST.0 || t == EARLIEST_LOCAL.0 && version >= EARLIEST_LOCAL.1 => {
            Ok((-1, view.log_start.0, earliest_epoch()))
        }
        t if t == MAX_TIMESTAMP.0 && version >= MAX_TIMESTAMP.1 => {
            by_time(ctx, &view.reader, None, route.rules()).await
        }
        // There is no tiered storage.
        t if t == LATEST_TIERED.0 && version >= LATEST_TIERED.1 => Ok(NOTHING),
        t if t == EARLIEST_PENDING_UPLOAD.0 && version >= EARLIEST_PENDING_UPLOAD.1 => Ok(NOTHING),
        t if t < 0 => Err(PartitionError::new(ErrorCode::UNSUPPORTED_VERSION)),
        t => by_time(ctx, &view.reader, Some(UnixMillis(t)), route.rules()).await,
    }
}

/// The first record with a timestamp of at least `target`, or without a target the first with the largest timestamp. The
/// batch is decompressed with little memory first; if that is not enough, on a work slot, with memory from the budget, up
/// to the topic's limit. If that is not enough either, the result is the batch's first offset.
async fn by_time<E: Env>(
    ctx: &Ctx<E>,
    reader: &LogReader<E>,
    target: Option<UnixMillis>,
    rules: &Rules,
) -> Result<FoundOffset, PartitionError> {
    let limits = &ctx.config.limits;
    let find = async |max| {
        let found = match target {
            Some(target) => {
                reader
                    .offset_for_timestamp(target, UpTo::HighWatermark, max)
                    .await
            }
            None => reader.offset_of_max_timestamp(UpTo::HighWatermark, max).await,
        };
        found.map_err(|e| PartitionError::with_message(ErrorCode(e.code()), &e))
    };
    let mut found = find(limits.check_quick_decompressed_bytes).await?;
    if found.is_some_and(|f| !f.exact) {
        let overloaded = |Overloaded| {
            let why = "the broker is too busy for this request now";
            PartitionError::with_message(ErrorCode::REQUEST_TIMED_OUT, why)
        };
        let deadline = ctx.work_slots.deadline();
        // The copies of the codec that takes most, and the batch itself.
        let copies = 1 + copies(Some(CompressionType::Zstd), false);
        let decompressed_limit = decompressed_max(ctx, rules, copies);
        for max in [
            limits.check_usual_decompressed_bytes.min(decompressed_limit),
            decompressed_limit,
        ] {
            let shares = ctx
                .memory
                .check_in_slices(max * copies, false)
                .await
                .map_err(overloaded)?;
            let finding = ctx.work_slots.run(deadline, |_| false, find(max));
            found = finding.await.map_err(overloaded)??;
            drop(shares);
            if found.is_none_or(|f| f.exact) {
                break;
            }
        }
    }
    Ok(found.map_or(NOTHING, |f| (f.timestamp.0, f.offset.0, f.epoch.0)))
}

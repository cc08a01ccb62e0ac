//! DescribeLogDirs: the size of each partition's log, and the free space of each log directory.

use std::collections::{BTreeMap, BTreeSet};

use brokkr_env::Env;
use brokkr_types::Uuid;
use brokkr_wire::messages::describe_log_dirs_request::DescribeLogDirsRequest;
use brokkr_wire::messages::describe_log_dirs_response::{
    DescribeLogDirsPartition, DescribeLogDirsResponse, DescribeLogDirsResult, DescribeLogDirsTopic,
};
use brokkr_wire::{ErrorCode, Str};

use crate::coop::Steps;
use crate::ctx::{Ctx, Peer};
use crate::partition::PartitionHandle;
use crate::partitions::Routes;

/// Upper bound of a partition in the response, in bytes.
const PARTITION_BYTES: usize = 96;
/// Upper bound of a topic in the response, without its name, in bytes.
const TOPIC_BYTES: usize = 128;

/// Upper bound of the response, in bytes.
pub fn bytes<E: Env>(ctx: &mut Ctx<E>, _request: &DescribeLogDirsRequest) -> usize {
    // A topic may be in each of the directories.
    let dirs = ctx.log_dirs.len();
    let topics = ctx.image().topics.iter();
    topics
        .map(|t| t.partitions.len() * PARTITION_BYTES + dirs * (t.name.len() + TOPIC_BYTES))
        .sum()
}

/// Returns the response.
pub async fn handle<E: Env>(
    mut ctx: Ctx<E>,
    request: DescribeLogDirsRequest,
    _version: i16,
    _peer: Peer,
) -> DescribeLogDirsResponse {
    let routes = ctx.routes().clone();
    let requested: Option<BTreeMap<Str, BTreeSet<i32>>> = request.topics.map(|topics| {
        let mut requested = BTreeMap::<Str, BTreeSet<i32>>::new();
        for topic in topics {
            requested.entry(topic.topic).or_default().extend(topic.partitions);
        }
        requested
    });
    let mut results = Vec::with_capacity(ctx.log_dirs.len());
    for log_dir_info in ctx.log_dirs.iter() {
        let space = match &log_dir_info.dir {
            Some((id, dir)) if dir.poisoned().is_none() => dir.space().await.ok().map(|space| (*id, space)),
            _ => None,
        };
        let log_dir = Str::from(log_dir_info.path.clone());
        results.push(match space {
            Some((id, (usable, total))) => DescribeLogDirsResult {
                log_dir,
                topics: topics(&routes, requested.as_ref(), id).await,
                total_bytes: total as i64,
                usable_bytes: usable as i64,
                ..Default::default()
            },
            None => DescribeLogDirsResult {
                error_code: ErrorCode::KAFKA_STORAGE_ERROR.0,
                log_dir,
                total_bytes: -1,
                usable_bytes: -1,
                ..Default::default()
            },
        });
    }
    DescribeLogDirsResponse {
        results,
        ..Default::default()
    }
}

/// The open partitions in a log directory, of the requested ones.
async fn topics<E: Env>(
    routes: &Routes<E>,
    requested: Option<&BTreeMap<Str, BTreeSet<i32>>>,
    directory: Uuid,
) -> Vec<DescribeLogDirsTopic> {
    let (mut topics, mut steps) = (Vec::new(), Steps::default());
    for route in routes.iter() {
        steps.step().await;
        let wanted = match requested {
            None => None,
            Some(requested) => match requested.get(&route.name) {
                None => continue,
                some => some,
            },
        };
        let mut partitions = Vec::new();
        for (index, hosted) in route.partitions() {
            steps.step().await;
            let is_wanted = wanted.is_none_or(|wanted| wanted.contains(&index));
            if is_wanted && hosted.directory == Some(directory) {
                partitions.extend(described(index, &hosted.handle));
            }
        }
        if !partitions.is_empty() {
            topics.push(DescribeLogDirsTopic {
                name: route.name.clone(),
                partitions,
                ..Default::default()
            });
        }
    }
    topics
}

fn described<E: Env>(partition_index: i32, handle: &PartitionHandle<E>) -> Option<DescribeLogDirsPartition> {
    let view = handle.view_if_open()?;
    Some(DescribeLogDirsPartition {
        partition_index,
        partition_size: view.size_bytes as i64,
        offset_lag: 0,
        ..Default::default()
    })
}

//! DescribeLogDirs: what is stored, and how much room is left.

use std::collections::{BTreeMap, BTreeSet};

use brokkr_env::Env;
use brokkr_wire::messages::describe_log_dirs_request::DescribeLogDirsRequest;
use brokkr_wire::messages::describe_log_dirs_response::{
    DescribeLogDirsPartition, DescribeLogDirsResponse, DescribeLogDirsResult, DescribeLogDirsTopic,
};
use brokkr_wire::{ErrorCode, Str};

use crate::ctx::{Ctx, Peer};
use crate::partitions::{Hosted, Route};

/// What a partition takes up at most.
const PARTITION_BYTES: usize = 96;

/// What the response takes up at most.
pub fn bytes<E: Env>(ctx: &mut Ctx<E>, _request: &DescribeLogDirsRequest) -> usize {
    let image = ctx.image();
    image
        .topics
        .iter()
        .map(|t| t.partitions.len() * PARTITION_BYTES)
        .sum()
}

/// Answers the request.
pub async fn handle<E: Env>(
    mut ctx: Ctx<E>,
    request: DescribeLogDirsRequest,
    _version: i16,
    _peer: Peer,
) -> DescribeLogDirsResponse {
    let routes = ctx.routes().clone();
    let asked: Option<BTreeMap<Str, BTreeSet<i32>>> = request.topics.map(|topics| {
        let mut asked = BTreeMap::<Str, BTreeSet<i32>>::new();
        for topic in topics {
            asked.entry(topic.topic).or_default().extend(topic.partitions);
        }
        asked
    });
    let mut topics = Vec::new();
    for route in routes.iter() {
        let wanted = match &asked {
            None => None,
            Some(asked) => match asked.get(&route.name) {
                None => continue,
                some => some,
            },
        };
        let partitions: Vec<_> = described(route)
            .filter(|p| wanted.is_none_or(|wanted| wanted.contains(&p.partition_index)))
            .collect();
        if !partitions.is_empty() {
            topics.push(DescribeLogDirsTopic {
                name: route.name.clone(),
                partitions,
                ..Default::default()
            });
        }
    }
    let (error_code, (usable, total)) = match (ctx.dir.poisoned(), ctx.dir.space().await) {
        (None, Ok((usable, total))) => (ErrorCode::NONE, (usable as i64, total as i64)),
        _ => (ErrorCode::KAFKA_STORAGE_ERROR, (-1, -1)),
    };
    let result = DescribeLogDirsResult {
        error_code: error_code.0,
        log_dir: Str::from(ctx.config.log_dir().to_owned()),
        topics: if error_code.is_error() { Vec::new() } else { topics },
        total_bytes: total,
        usable_bytes: usable,
        ..Default::default()
    };
    DescribeLogDirsResponse {
        results: vec![result],
        ..Default::default()
    }
}

fn described<E: Env>(route: &Route<E>) -> impl Iterator<Item = DescribeLogDirsPartition> + '_ {
    route
        .partitions()
        .filter_map(|(partition_index, hosted)| match hosted {
            Hosted::Here(handle) => Some(DescribeLogDirsPartition {
                partition_index,
                partition_size: handle.view().size_bytes as i64,
                offset_lag: 0,
                ..Default::default()
            }),
            Hosted::Offline | Hosted::Nowhere => None,
        })
}

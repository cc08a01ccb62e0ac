//! A failing log directory takes its own partitions offline and no others; a broker that starts without it serves the others.
//!
//! While one of two directories fails, a client queries the log ends of the partitions in the other. The broker may be killed,
//! paused or cut off meanwhile, but within that life it must serve these partitions in the end (V1).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use brokkr_client::{Client, ClientConfig};
use brokkr_env::{Env, Instant};
use brokkr_wire::messages::ListOffsetsRequest;
use brokkr_wire::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use brokkr_wire::{ErrorCode, Str};

use super::Director;
use super::action::MILLI;
use super::process::Process;
use crate::check::Violation;
use crate::exec::Nanos;
use crate::net::addr_of;
use crate::plan::{BROKER, Kind, PORT};
use crate::shared::{Shared, WORLD};

/// What the broker logs when it knows that a directory failed.
const KNOWN: &str = "a log directory failed";
const QUERY_INTERVAL: Duration = Duration::from_millis(300);
/// Partitions of a topic that is created meanwhile, and the least time to query them.
const PARTITIONS_NEW: i32 = 2;
const NEW_WAIT: Duration = Duration::from_secs(1);

impl Director {
    /// Starts the query, if nothing else happens to the disk until the directory of the fault `i` works again.
    pub(super) fn probe(&self, i: usize) {
        let fault = &self.shared.plan.faults[i];
        let Kind::DirectoryFails { directory, for_ms } = fault.kind else {
            return;
        };
        let from = self.begin + fault.at_ms.saturating_sub(5_000) * MILLI;
        let until = self.begin + (fault.at_ms + for_ms) * MILLI;
        if self.disk_fails_between(from, until, fault.id) || !matches!(self.process, Process::Up(_)) {
            return;
        }
        let partitions = self.partitions_elsewhere(directory);
        // Once the broker knows that the directory failed, it must place new topics in the other one.
        let is_alone = !self.disk_fails_between(self.begin, until, fault.id);
        let is_known = is_alone && self.shared.is_named(KNOWN);
        let new = (directory > 0 && is_known).then(|| format!("probe{i}"));
        if !partitions.is_empty() {
            self.env
                .spawn("probe", probe(self.shared.clone(), new, partitions, until));
        }
    }

    /// Whether a fault other than `but` makes the disk fail between these times.
    fn disk_fails_between(&self, from: Nanos, until: Nanos, but: u64) -> bool {
        let fails = |kind: &Kind| {
            matches!(
                kind,
                Kind::SyncFails { .. }
                    | Kind::WriteFails { .. }
                    | Kind::NoSpace { .. }
                    | Kind::OperationFails { .. }
                    | Kind::DirectoryFails { .. }
            )
        };
        let is_then = |at_ms: u64| (from..=until).contains(&(self.begin + at_ms * MILLI));
        let mut others = self.shared.plan.faults.iter().filter(|f| f.id != but);
        // A fault that waited for its event struck later than the plan's time.
        let struck = (from..=until).contains(&self.disk_fault_at);
        struck || others.any(|f| fails(&f.kind) && is_then(f.at_ms))
    }

    /// Whether the only fault of the disk is that a directory without the metadata fails.
    pub(super) fn only_second_fails(&self) -> bool {
        let first = &self.shared.roots[0];
        self.on_disk(|d| {
            let is_second = d.failed_dir.as_ref().is_some_and(|dir| dir != first);
            let is_well = d.failing.is_none() && d.failing_syncs + d.failing_writes == 0;
            is_second && d.capacity == u64::MAX && is_well
        })
    }

    /// Checks a failed start for which a failing directory without the metadata was the only reason.
    pub(super) fn check_refusal(&self, why: &str) {
        let Some(since) = self.started_without.filter(|_| self.only_second_fails()) else {
            return;
        };
        if !self.disk_fails_between(since, self.now(), u64::MAX) {
            let what = format!("a start failed for a log directory that it could leave out: {why}");
            self.shared.violation(Violation::new("liveness", what));
        }
    }

    /// The partitions of permanent topics whose logs are in other directories than this one.
    fn partitions_elsewhere(&self, directory: usize) -> BTreeSet<(String, i32)> {
        let workload = &self.shared.plan.workload;
        let comes_and_goes = |name: &String| workload.recreator.iter().any(|r| r.topics.contains(name));
        let topics = workload.topics.iter().filter(|t| !comes_and_goes(&t.name));
        let others = self
            .shared
            .roots
            .iter()
            .enumerate()
            .filter(|(i, _)| *i != directory);
        let roots: Vec<&String> = others.map(|(_, root)| root).collect();
        self.on_disk(|d| {
            let is_there = |(topic, partition): &(String, i32)| {
                let name = format!("{topic}-{partition}");
                let is_in = |root: &&String| d.list(&format!("{root}/{name}")).is_ok();
                !self.shared.is_damaged(&name) && roots.iter().any(is_in)
            };
            topics.flat_map(|t| t.all()).filter(is_there).collect()
        })
    }
}

async fn probe(shared: Shared, new: Option<String>, mut partitions: BTreeSet<(String, i32)>, until: Nanos) {
    let env = shared.world.env(WORLD);
    let life = shared.world.exec().life(BROKER);
    let host = addr_of(BROKER, PORT).ip().to_string();
    let client = Client::new(&env, ClientConfig::new(&host, PORT));
    let until = Instant::from_nanos(until - QUERY_INTERVAL.as_nanos() as Nanos);
    if let Some(topic) = new {
        let made = tokio::select! {
            biased;
            made = client.create_topic(&topic, PARTITIONS_NEW, -1, &[]) => made.is_ok(),
            () = env.sleep_until(until) => false,
        };
        // Time to make their logs.
        if made && env.now() + NEW_WAIT < until {
            partitions.extend((0..PARTITIONS_NEW).map(|p| (topic.clone(), p)));
        }
    }
    let mut refused = BTreeMap::new();
    loop {
        tokio::select! {
            biased;
            answers = query(&client, &partitions) => {
                for (partition, code) in answers {
                    match code {
                        ErrorCode::NONE => drop(partitions.remove(&partition)),
                        code => drop(refused.insert(partition, code)),
                    }
                }
            }
            () = env.sleep_until(until) => {}
        }
        let is_alive = shared.world.exec().life(BROKER) == life;
        if partitions.is_empty() || !is_alive {
            return;
        }
        if env.now() >= until {
            break;
        }
        env.sleep_until(env.now() + QUERY_INTERVAL).await;
    }
    for ((topic, partition), code) in refused {
        if partitions.contains(&(topic.clone(), partition)) {
            let what = format!(
                "{topic}-{partition} is not served ({code}), and it is the other log directory that failed"
            );
            shared.violation(Violation::new("V1", what));
        }
    }
}

/// The broker's error code for each partition; empty if the broker does not respond.
async fn query<E: Env>(
    client: &Client<E>,
    partitions: &BTreeSet<(String, i32)>,
) -> Vec<((String, i32), ErrorCode)> {
    let topic = |(name, index): &(String, i32)| ListOffsetsTopic {
        name: Str::copied(name),
        partitions: vec![ListOffsetsPartition {
            partition_index: *index,
            current_leader_epoch: -1,
            timestamp: -1,
            ..Default::default()
        }],
        ..Default::default()
    };
    let request = ListOffsetsRequest {
        replica_id: -1,
        topics: partitions.iter().map(topic).collect(),
        ..Default::default()
    };
    let Ok(response) = client.ask_any(request).await else {
        return Vec::new();
    };
    let answers = response.topics.into_iter().filter_map(|t| {
        let answer = t.partitions.first()?;
        let partition = (t.name.as_str().to_owned(), answer.partition_index);
        Some((partition, ErrorCode(answer.error_code)))
    });
    answers.collect()
}

//! The plan as a document.

use std::collections::BTreeMap;

use brokkr::config::BrokerConfig;
use brokkr_workloads::{TopicSpec, Workload};
use serde::{Deserialize, Serialize};

use super::error::PlanError;
use super::fault::{Fault, Kind};
use super::format::FORMAT;
use super::nodes::{FIRST_CLIENT, ROOT};
use super::prepared_log::{PreparedLog, can_be_prepared};
use crate::exec::Strategy;
use crate::net::BUFFER_BYTES;
use crate::rude::SharedConnection;

/// Settings that the broker of every plan has.
pub const BROKER_ALWAYS: [&str; 3] = ["listeners", "log.dir", "log.retention.ms"];
/// How long a written batch may wait for a sync where not each is synced.
pub const FLUSH_MS: &str = "log.flush.interval.ms";
/// Settings that the judges read from the broker's first configuration.
const JUDGED_BY: [&str; 7] = [
    "listeners",
    "log.dir",
    "log.dirs",
    "log.retention.ms",
    "log.flush.interval.messages",
    FLUSH_MS,
    "producer.id.expiration.ms",
];

/// How a node's clocks differ from the world's.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeClock {
    /// The drift of its monotonic clock.
    pub drift_ppm: i64,
    /// By how much its wall clock is ahead.
    pub wall_ahead_ms: i64,
}

/// A run, before it is executed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// [`FORMAT`].
    pub format: u32,
    /// The commit that it was made with, if known.
    pub commit: String,
    /// The seed of all choices that the plan does not fix.
    pub seed: u64,
    /// Virtual seconds; no faults occur in the last quarter.
    pub secs: u64,
    /// The scheduling strategy.
    pub scheduler: Strategy,
    /// The seed of the scheduling order, if it is not `seed`: a shrunk plan that no longer fails may fail with another order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheduler_seed: Option<u64>,
    /// The drift of the broker's monotonic clock, and how far its wall clock is ahead.
    pub drift_ppm: i64,
    /// See `drift_ppm`.
    pub wall_ahead_ms: i64,
    /// The clients' clocks that differ from the world's, by node.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub clocks: BTreeMap<u32, NodeClock>,
    /// Buffer bytes of each direction of a connection.
    #[serde(default = "buffer_bytes_usual")]
    pub buffer_bytes: usize,
    /// The broker's configuration.
    pub broker: BTreeMap<String, String>,
    /// The clients' workload.
    pub workload: Workload,
    /// Logs that are not empty when the run begins.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub prepared: Vec<PreparedLog>,
    /// The faults, by time.
    pub faults: Vec<Fault>,
    /// Connections of rude clients, besides the workload's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rude: Vec<SharedConnection>,
}

fn buffer_bytes_usual() -> usize {
    BUFFER_BYTES
}

impl Plan {
    /// Reads a plan.
    pub fn parse(text: &str) -> Result<Self, PlanError> {
        let value: serde_json::Value = serde_json::from_str(text).map_err(PlanError::Json)?;
        Self::check_format(&value)?;
        // From the text, not the value: its errors know their line.
        let plan: Self = serde_json::from_str(text).map_err(PlanError::Json)?;
        plan.check()?;
        Ok(plan)
    }

    /// Checks that a document has this code's format, or names none.
    pub(crate) fn check_format(value: &serde_json::Value) -> Result<(), PlanError> {
        match value["format"].as_u64() {
            Some(n) if n != u64::from(FORMAT) => Err(PlanError::Format(n)),
            _ => Ok(()),
        }
    }

    /// Checks that the plan's broker can start, also with each later configuration.
    ///
    /// # Errors
    /// [`PlanError::Broker`], [`PlanError::Judged`] and [`PlanError::Prepared`].
    pub fn check(&self) -> Result<(), PlanError> {
        for log in &self.prepared {
            let most = if log.compacted {
                i64::from(i32::MAX)
            } else {
                i64::MAX >> 1
            };
            let topic = self.workload.topics.iter().find(|t| t.name == log.topic);
            let is_there = |t: &TopicSpec| {
                (0..t.partitions).contains(&log.partition) && can_be_prepared(t, &self.workload)
            };
            if !topic.is_some_and(is_there) || !(1..=most).contains(&log.next_offset) {
                return Err(PlanError::Prepared(log.clone()));
            }
        }
        let mut settings = self.broker.clone();
        BrokerConfig::new(settings.clone()).map_err(PlanError::Broker)?;
        for fault in &self.faults {
            let Kind::Restart { broker, .. } = &fault.kind else {
                continue;
            };
            if let Some(key) = broker.keys().find(|key| JUDGED_BY.contains(&key.as_str())) {
                return Err(PlanError::Judged(key.clone()));
            }
            settings.extend(broker.clone());
            BrokerConfig::new(settings.clone()).map_err(PlanError::Broker)?;
        }
        Ok(())
    }

    /// Whether acknowledged records are durable, by the broker's configuration.
    pub fn is_flushed(&self) -> bool {
        let every = self.broker.get("log.flush.interval.messages");
        every.is_none_or(|n| n == "1")
    }

    /// The broker's log directories, the one with the metadata first.
    pub fn roots(&self) -> Vec<String> {
        let dirs = self.broker.get("log.dirs").or_else(|| self.broker.get("log.dir"));
        dirs.map_or(ROOT, String::as_str)
            .split(',')
            .map(str::to_owned)
            .collect()
    }

    /// The workload as the judges must take it: a producer that is killed restarts under another id.
    pub(crate) fn judged(&self) -> Workload {
        let mut workload = self.workload.clone();
        for (spec, node) in workload.producers.iter_mut().zip(FIRST_CLIENT..) {
            let is_killed = |f: &Fault| match f.kind {
                Kind::KillClient { client, .. } => client == node,
                Kind::Blackout { .. } => true,
                _ => false,
            };
            if self.faults.iter().any(is_killed) {
                spec.restarts_after.get_or_insert(u64::MAX);
            }
        }
        workload
    }
}

//! The result of a run: one line of JSON for each seed.

use std::collections::BTreeMap;

use crate::account::RuleCount;
use serde::{Deserialize, Serialize};

/// `1 fault`, `2 faults`.
pub fn many(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

/// The verdict on a run.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Everything held.
    Pass,
    /// A violation was found.
    Violation,
    /// Too little happened for a verdict.
    Inconclusive,
    /// The same seed gave a different run.
    Nondeterminism,
}

impl Verdict {
    /// The process's exit code for the verdict.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Pass => 0,
            Self::Violation => 1,
            Self::Inconclusive => 3,
            Self::Nondeterminism => 4,
        }
    }
}

/// Operations by outcome.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Ops {
    /// They happened.
    pub ok: u64,
    /// They certainly did not happen.
    pub fail: u64,
    /// Their outcome is unknown.
    pub info: u64,
}

/// A violated invariant.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Violated {
    /// Its id.
    pub id: String,
    /// A description.
    pub what: String,
}

/// The report of one seed.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// The verdict.
    pub verdict: Verdict,
    /// The rolling hash over all events.
    pub hash: String,
    /// The number of events.
    pub events: u64,
    /// Time that passed in the world.
    pub virtual_s: f64,
    /// Wall time of the run; the parent process sets it.
    pub wall_s: f64,
    /// Peak memory of the run's process; the parent process sets it, too.
    #[serde(default)]
    pub rss_max_bytes: u64,
    /// Faults by family.
    pub faults: BTreeMap<String, u64>,
    /// How many times each rare state was reached.
    pub reached: BTreeMap<String, u64>,
    /// How often each event occurred, before all faults ended, at which a fault can strike.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub events_of: BTreeMap<String, u64>,
    /// How often clients were answered with each error code.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub refused: BTreeMap<String, u64>,
    /// Operations of clients.
    pub ops: Ops,
    /// Rude clients' requests that were answered, by API and version. Served versions without an answer are listed with 0.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub requests: BTreeMap<String, u64>,
    /// How often each rule was applied and left out.
    #[serde(default)]
    pub rules: BTreeMap<String, RuleCount>,
    /// The violations.
    pub violations: Vec<Violated>,
}

impl Report {
    /// The report of a run of which nothing else is known.
    pub fn empty(seed: u64, verdict: Verdict) -> Self {
        Self {
            seed,
            verdict,
            hash: String::new(),
            events: 0,
            virtual_s: 0.0,
            wall_s: 0.0,
            rss_max_bytes: 0,
            faults: BTreeMap::new(),
            reached: BTreeMap::new(),
            events_of: BTreeMap::new(),
            refused: BTreeMap::new(),
            ops: Ops::default(),
            requests: BTreeMap::new(),
            rules: BTreeMap::new(),
            violations: Vec::new(),
        }
    }
}

//! What a run came to: one line of JSON a seed.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// How a run is judged.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Everything held.
    Pass,
    /// Something did not.
    Violation,
    /// Too little happened to say.
    Inconclusive,
    /// The same seed gave another run.
    Nondeterminism,
}

impl Verdict {
    /// The process's exit code for it.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Pass => 0,
            Self::Violation => 1,
            Self::Inconclusive => 3,
            Self::Nondeterminism => 4,
        }
    }
}

/// Operations by how they ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Ops {
    /// They happened.
    pub ok: u64,
    /// They surely did not.
    pub fail: u64,
    /// Nobody knows.
    pub info: u64,
}

/// A violated invariant.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Violated {
    /// Its id.
    pub id: String,
    /// What was seen.
    pub what: String,
}

/// One seed's line.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// The verdict.
    pub verdict: Verdict,
    /// The rolling hash over all events.
    pub hash: String,
    /// How many events there were.
    pub events: u64,
    /// How much time passed in the world.
    pub virtual_s: f64,
    /// How much passed outside of it; the parent process sets it.
    pub wall_s: f64,
    /// The most memory the run's process ever had; the parent process sets it, too.
    #[serde(default)]
    pub rss_max_bytes: u64,
    /// Faults by family.
    pub faults: BTreeMap<String, u64>,
    /// Rare states that were reached, and how often.
    pub reached: BTreeMap<String, u64>,
    /// Operations of clients.
    pub ops: Ops,
    /// Of rude clients' requests: how many were answered, by API and version. Those that are served and were not are there with 0.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub requests: BTreeMap<String, u64>,
    /// What did not hold.
    pub violations: Vec<Violated>,
}

//! Families of faults, and which of them a run has.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A family of faults, which can be enabled and disabled.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Family {
    /// kill -9.
    Kill,
    /// Power loss.
    Power,
    /// Clean stop.
    Stop,
    /// SIGSTOP.
    Pause,
    /// A sync that fails and drops its pages.
    Sync,
    /// A write that fails with EIO.
    Write,
    /// No space, temporarily.
    Space,
    /// A slow or hanging disk.
    Slow,
    /// Cuts, delays and resets.
    Net,
    /// Narrow links, clients that are clogged one after another, connections that are refused or get no answer.
    Link,
    /// Clocks that drift, and steps of the wall clock.
    Clock,
    /// Tasks that run far behind others (PCT).
    Sched,
    /// Damage to durable data: flipped bits, unreadable sectors, misdirected writes.
    Rot,
    /// Restarts with another configuration.
    Config,
    /// kill -9 of clients, and of all nodes at once.
    Client,
    /// Clients that send extreme and malformed requests.
    Rude,
    /// Files that are missing, empty, older or swapped when the broker starts.
    File,
    /// One of two log directories that fails for a while.
    Directory,
}

/// All families.
pub const FAMILIES: [Family; 18] = [
    Family::Kill,
    Family::Power,
    Family::Stop,
    Family::Pause,
    Family::Sync,
    Family::Write,
    Family::Space,
    Family::Slow,
    Family::Net,
    Family::Link,
    Family::Clock,
    Family::Sched,
    Family::Rot,
    Family::Config,
    Family::Client,
    Family::Rude,
    Family::File,
    Family::Directory,
];

impl Family {
    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::Power => "power",
            Self::Stop => "stop",
            Self::Pause => "pause",
            Self::Sync => "sync",
            Self::Write => "write",
            Self::Space => "space",
            Self::Slow => "slow",
            Self::Net => "net",
            Self::Link => "link",
            Self::Clock => "clock",
            Self::Sched => "sched",
            Self::Rot => "rot",
            Self::Config => "config",
            Self::Client => "client",
            Self::Rude => "rude",
            Self::File => "file",
            Self::Directory => "directory",
        }
    }

    /// How many faults there are in 45 seconds, on average, if the family is enabled.
    pub(super) fn usual(self) -> u64 {
        match self {
            Self::Kill | Self::Power | Self::Slow | Self::Rot => 3,
            Self::Net => 6,
            Self::Link | Self::Client => 2,
            Self::Stop | Self::Pause | Self::Sync | Self::Write | Self::Space | Self::Clock => 1,
            Self::Config | Self::Directory => 1,
            Self::Sched | Self::Rude | Self::File => 0,
        }
    }
}

/// Which faults a run has.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Faults {
    /// None.
    None,
    /// Those that the seed draws.
    #[default]
    Default,
    /// These families, in every seed.
    Only(Vec<Family>),
    /// All families, in every seed, more often than on any real machine: only safety must hold.
    Unlimited,
    /// No faults, and a small workload beside rude clients that send this many requests.
    Requests(u64),
}

impl std::str::FromStr for Faults {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "none" => return Ok(Self::None),
            "default" => return Ok(Self::Default),
            "unlimited" => return Ok(Self::Unlimited),
            _ => {}
        }
        if let Some(n) = text.strip_prefix("requests:") {
            return n.parse().map(Self::Requests).map_err(|e| format!("{n:?}: {e}"));
        }
        let family = |name: &str| {
            FAMILIES.into_iter().find(|f| f.name() == name).ok_or_else(|| {
                let all: Vec<_> = FAMILIES.iter().map(|f| f.name()).collect();
                format!(
                    "no family {name:?}: none, default, unlimited, or a list of {}",
                    all.join(",")
                )
            })
        };
        text.split(',')
            .map(family)
            .collect::<Result<_, _>>()
            .map(Self::Only)
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Default => f.write_str("default"),
            Self::Unlimited => f.write_str("unlimited"),
            Self::Requests(n) => write!(f, "requests:{n}"),
            Self::Only(list) => {
                let names: Vec<_> = list.iter().map(|l| l.name()).collect();
                f.write_str(&names.join(","))
            }
        }
    }
}

//! A run as data: everything that a seed decides in advance, in one JSON document that can be edited and run again.
//!
//! A seed derives the broker's configuration, its clock, the clients' workload, the scheduling strategy, and a list of faults with
//! their times. Choices that only the run can make (which bytes a power loss takes, how long a packet takes) are keyed by the seed;
//! each fault has its own key, its `id`, so that removing one fault leaves the others' effects unchanged.
//!
//! Swarm (Groce et al., ISSTA 2012): each family of faults is off in about a third of the seeds, so that one family does not hide
//! bugs from another.

mod error;
mod swarm;

use std::collections::BTreeMap;
use std::fmt;

use brokkr::config::BrokerConfig;
use brokkr_workloads::{TopicSpec, Workload};
use serde::{Deserialize, Serialize};

use crate::disk::{Damage, FileDamage};
use crate::exec::Strategy;
use crate::keyed::Keyed;
use crate::net::BUFFER_BYTES;
use crate::prepared::{self, PreparedLog};
use crate::rude;
pub use error::PlanError;
use swarm::{Draw, broker, kind, workload};

/// The format of plans that this code reads and writes.
pub const FORMAT: u32 = 1;
/// The commit that this simulator was built from, if known.
pub const COMMIT: &str = match option_env!("BROKKR_COMMIT") {
    Some(commit) => commit,
    None => "unknown",
};
/// The broker's node, port and log directory.
pub const BROKER: u32 = 1;
/// See [`BROKER`].
pub const PORT: u16 = 9092;
/// See [`BROKER`].
pub const ROOT: &str = "data";
/// The second log directory, if there are two. The metadata log is in the first.
pub const SECOND_ROOT: &str = "data2";
/// The node of the first client; the others follow.
pub const FIRST_CLIENT: u32 = 10;
/// After an operation of unknown outcome a client continues under a process number that is higher by this.
const STRIDE: u64 = 1000;
/// First process numbers of consumers and of the admin.
const FIRST_CONSUMER: u64 = 100;
const ADMIN: u64 = 200;
/// The process that deletes topics and creates them again.
const RECREATOR: u64 = 250;
/// Settings that the broker of every plan has.
pub const BROKER_ALWAYS: [&str; 3] = ["listeners", "log.dir", "log.retention.ms"];
/// Settings that the judges read from the broker's first configuration.
const JUDGED_BY: [&str; 6] = [
    "listeners",
    "log.dir",
    "log.dirs",
    "log.retention.ms",
    "log.flush.interval.messages",
    "producer.id.expiration.ms",
];
/// Under PCT a task loses its priority once in so many polls: one of these.
pub const PCT_CHANGE_ONE_IN: [u64; 3] = [20, 100, 1000];
/// The process that reads everything at the end.
pub const LAST_READER: u64 = 300;

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
    fn usual(self) -> u64 {
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

/// One fault.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Fault {
    /// The key of its choices.
    pub id: u64,
    /// When, from the start of the run.
    pub at_ms: u64,
    /// What happens.
    #[serde(flatten)]
    pub kind: Kind,
}

/// A kind of fault, with its parameters.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Kind {
    /// Kills the broker's process; it is restarted after `down_ms`.
    Kill { down_ms: u64 },
    /// Kills a client's process; it is restarted after `down_ms` under another identity.
    KillClient { client: u32, down_ms: u64 },
    /// The broker loses power, and all clients die at the same moment.
    Blackout { down_ms: u64 },
    /// Power loss; the power comes back after `down_ms`. With `unsynced` it waits a while for data to lose: until a log has an
    /// unsynced write, at first one that is long enough to be torn.
    PowerLoss {
        down_ms: u64,
        #[serde(default)]
        unsynced: bool,
    },
    /// Stops the broker cleanly, and restarts it `down_ms` after it has stopped.
    CleanStop { down_ms: u64 },
    /// Pauses the broker's process.
    Pause { for_ms: u64 },
    /// The next sync fails. The operator notices and ends the process `restart_ms` later.
    SyncFails { restart_ms: u64, power: bool },
    /// The next write fails with EIO, in the middle. Then as with `SyncFails`.
    WriteFails { restart_ms: u64, power: bool },
    /// Only this many bytes are free, for a while.
    NoSpace { free_bytes: u64, for_ms: u64 },
    /// Disk operations take this many times as long, for a while.
    SlowDisk { times: u64, for_ms: u64 },
    /// No disk operation completes, for a while.
    HangingDisk { for_ms: u64 },
    /// Cuts the link between the broker and a client (all clients, if none is named).
    Cut {
        client: Option<u32>,
        to_broker: bool,
        from_broker: bool,
        for_ms: u64,
    },
    /// Adds latency between the broker and all clients.
    Delay { by_ms: u64, for_ms: u64 },
    /// Limits the bandwidth between the broker and a client (all clients, if none is named), in each direction.
    Narrow {
        client: Option<u32>,
        bytes_per_s: u64,
        for_ms: u64,
    },
    /// Cuts off clients one after another; they reconnect in another order.
    Swizzle { for_ms: u64 },
    /// The broker's node accepts no connections: it refuses, or does not answer. Existing connections stay.
    Shut { silent: bool, for_ms: u64 },
    /// A client's connections are reset; with `half_open`, only the client learns of it.
    Reset { client: u32, half_open: bool },
    /// The wall clock of the broker, or of a client, steps.
    ClockStep {
        by_ms: i64,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        client: Option<u32>,
    },
    /// The disk silently damages a file of a partition. If it is a segment of its log, the judges check only what the broker shows
    /// of the partition from then on (D2): there is no other copy.
    Damage {
        topic: String,
        partition: i32,
        how: Damage,
    },
    /// One of the broker's log directories can't be read, written or synced for a while; then the operator ends the process.
    /// Without a second directory nothing happens.
    DirectoryFails { directory: usize, for_ms: u64 },
    /// The broker is stopped or killed, and while it is down one of the files that `file` names is damaged: a path in a log
    /// directory, with one `*` in its last part. Afterwards the broker either serves everything, or its log names the file.
    DamageFile {
        file: String,
        how: FileDamage,
        kill: bool,
        down_ms: u64,
    },
    /// The broker is stopped or killed, and restarted with these settings besides its own, from here on.
    Restart {
        kill: bool,
        down_ms: u64,
        broker: BTreeMap<String, String>,
    },
}

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
    pub rude: Vec<rude::SharedConnection>,
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
                (0..t.partitions).contains(&log.partition) && prepared::can_be(t, &self.workload)
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

    /// The scenario of speed measurements: one broker with default settings, three producers and two consumers with about this many
    /// operations a second in total (a record sent and a poll count one each), and every family of faults.
    pub fn standard(seed: u64, secs: u64, operations_per_s: u64) -> Self {
        let mut draw = Draw(Keyed::new(seed));
        let workload = swarm::standard(operations_per_s);
        let broker = swarm::plain();
        let plan = Self::quiet(seed, secs, broker, workload);
        let is_usual = |f: &Family| !matches!(f, Family::Rude | Family::File);
        let families = FAMILIES.into_iter().filter(is_usual).collect();
        plan.with_faults(&mut draw, &Faults::Only(families), true)
    }

    /// The plan of a seed.
    pub fn of(seed: u64, secs: u64, faults: &Faults) -> Self {
        if let Faults::Requests(n) = faults {
            return Self::requests(seed, secs, *n);
        }
        let mut draw = Draw(Keyed::new(seed));
        let flushed = faults == &Faults::None || draw.of("unflushed", 6) > 0;
        let churn = draw.of("churn", 6) == 0;
        let workload = workload(&mut draw, churn);
        let buffer_bytes = match draw.of("buffer", 4) {
            _ if churn => 500,
            0 => 500,
            1 => 16 << 10,
            _ => BUFFER_BYTES,
        };
        let mut broker = broker(&mut draw, flushed, churn, &workload);
        if draw.of("two log directories", 5) == 0 {
            broker.insert("log.dirs".to_owned(), format!("{ROOT},{SECOND_ROOT}"));
        }
        let prepared = swarm::prepared(&mut draw, &workload);
        let plan = Self {
            buffer_bytes,
            prepared,
            ..Self::quiet(seed, secs, broker, workload)
        };
        plan.with_faults(&mut draw, faults, flushed)
    }

    /// Rude clients with this many requests, and a small workload that must not suffer.
    fn requests(seed: u64, secs: u64, requests: u64) -> Self {
        let mut broker = swarm::plain();
        swarm::tight(&mut broker);
        let plan = Self::quiet(seed, secs, broker, swarm::small());
        Self {
            rude: rude::fuzz(seed, requests, plan.secs * 750),
            ..plan
        }
    }

    /// A plan without faults.
    fn quiet(seed: u64, secs: u64, broker: BTreeMap<String, String>, workload: Workload) -> Self {
        Self {
            format: FORMAT,
            commit: COMMIT.to_owned(),
            seed,
            secs: secs.max(1),
            scheduler: Strategy::Random,
            scheduler_seed: None,
            drift_ppm: 0,
            wall_ahead_ms: 0,
            clocks: BTreeMap::new(),
            buffer_bytes: BUFFER_BYTES,
            broker,
            prepared: Vec::new(),
            workload,
            faults: Vec::new(),
            rude: Vec::new(),
        }
    }

    fn with_faults(mut self, draw: &mut Draw, faults: &Faults, flushed: bool) -> Self {
        let clients = (self.workload.producers.len() + self.workload.consumers.len()) as u64;
        for family in FAMILIES {
            let often = match faults {
                Faults::None | Faults::Requests(_) => continue,
                Faults::Default if draw.one("family off", family as u64, 3) == 0 => continue,
                Faults::Default => 1,
                Faults::Only(list) if list.contains(&family) => 1,
                Faults::Only(_) => continue,
                Faults::Unlimited => 3,
            };
            // Most seeds leave these out: they cost time, or leave less to judge.
            let is_rare = matches!(family, Family::Rude | Family::File);
            if is_rare && faults == &Faults::Default && draw.one("rare family", family as u64, 3) > 0 {
                continue;
            }
            // A power loss may take unflushed records, and no rule would be left to judge.
            let loses = matches!(
                family,
                Family::Power | Family::Sync | Family::Write | Family::Directory
            );
            if !flushed && loses || family == Family::Directory && self.roots().len() < 2 {
                continue;
            }
            self.add_faults(draw, family, often, clients);
        }
        self.faults.sort_by_key(|f| (f.at_ms, f.id));
        self
    }

    fn add_faults(&mut self, draw: &mut Draw, family: Family, often: u64, clients: u64) {
        match family {
            Family::Rude => {
                self.rude = rude::connections(self.seed, self.secs * 750);
                swarm::tight(&mut self.broker);
            }
            Family::File => {
                let fault = swarm::damaged_file(draw, self);
                self.faults.push(fault);
            }
            Family::Sched => self.scheduler = Strategy::Pct(PCT_CHANGE_ONE_IN[draw.of("pct", 3) as usize]),
            Family::Clock => {
                let most = if often > 1 { 200_000 } else { 300 };
                self.drift_ppm = draw.of("drift", 2 * most + 1) as i64 - most as i64;
                self.wall_ahead_ms = draw.of("wall ahead", 20_001) as i64 - 10_000;
                for client in (FIRST_CLIENT..).take(clients as usize) {
                    let drift_ppm =
                        draw.one("client's drift", client.into(), 2 * most + 1) as i64 - most as i64;
                    let wall_ahead_ms =
                        draw.one("client's wall ahead", client.into(), 20_001) as i64 - 10_000;
                    let clock = NodeClock {
                        drift_ppm,
                        wall_ahead_ms,
                    };
                    self.clocks.insert(client, clock);
                }
            }
            _ => {}
        }
        let (span_ms, key) = (self.secs * 750, family as u64);
        let usual = family.usual() * often * span_ms;
        // At least one fault in short runs.
        let most = (2 * usual / 45_000).max(u64::from(usual > 0));
        let n = if most == 0 {
            0
        } else {
            1 + draw.one("how many", key, most)
        };
        for i in 0..n {
            let id = key * 1000 + i;
            let at_ms = 300 + draw.one("at", id, span_ms.max(301) - 300);
            let kind = kind(draw, family, id, often > 1, self);
            // Some deaths come in pairs: the second during recovery from the first.
            if let Kind::Kill { down_ms } | Kind::PowerLoss { down_ms, .. } = kind
                && draw.one("again", id, 3) == 0
            {
                let again = Fault {
                    id: id + 500,
                    at_ms: at_ms + down_ms + 1 + draw.one("dies after", id, 60),
                    kind: if draw.one("by power", id, 2) == 0 && family == Family::Power {
                        Kind::PowerLoss {
                            down_ms: 5,
                            unsynced: false,
                        }
                    } else {
                        Kind::Kill { down_ms: 5 }
                    },
                };
                self.faults.push(again);
            }
            self.faults.push(Fault { id, at_ms, kind });
        }
        if family == Family::Net {
            self.cut_links_before_ends(draw);
        }
    }

    /// Before some ends of the process the broker's outgoing links are cut, so clients never receive the last responses and retry.
    fn cut_links_before_ends(&mut self, draw: &mut Draw) {
        let ends = self
            .faults
            .iter()
            .filter(|f| matches!(f.kind, Kind::Kill { .. } | Kind::CleanStop { .. }));
        let mut cuts = Vec::new();
        for Fault { id, at_ms, .. } in ends {
            if draw.one("unheard", *id, 3) == 0 {
                let before = 1 + draw.one("unheard for", *id, 300);
                cuts.push(Fault {
                    id: id + 700,
                    at_ms: at_ms.saturating_sub(before),
                    kind: Kind::Cut {
                        client: None,
                        to_broker: false,
                        from_broker: true,
                        for_ms: before + 50,
                    },
                });
            }
        }
        self.faults.extend(cuts);
    }
}

#[cfg(test)]
mod tests;

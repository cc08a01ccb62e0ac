//! A run as data: everything that a seed decides beforehand, in one JSON document that anyone may change and run again.
//!
//! A seed derives the broker's configuration, its clock, who does what, how tasks are chosen, and a list of faults with
//! their times. What only the run itself can decide (which bytes a power loss takes, how long a packet takes) comes from the
//! seed by key; a fault has its own key, its `id`, so that one that is taken out leaves what the others do as it was.
//!
//! Swarm (Groce et al., ISSTA 2012): a whole family of faults is off in about a third of the seeds, so that what one of them
//! hides is seen without it.

use std::collections::BTreeMap;
use std::fmt;

use brokkr::config::{BrokerConfig, StartupError};
use brokkr_workloads::{AdminSpec, ClientSpec, ConsumerSpec, ProducerSpec, TopicSpec, Workload};
use serde::{Deserialize, Serialize};

use crate::exec::Strategy;
use crate::keyed::Keyed;
use crate::net::{BUFFER_BYTES, addr_of};

/// The format of plans that this code reads and writes.
pub const FORMAT: u32 = 1;
/// The commit that this simulator was built from, where that is known.
pub const COMMIT: &str = match option_env!("BROKKR_COMMIT") {
    Some(commit) => commit,
    None => "unknown",
};
/// The broker's node and port, and where its data are.
pub const BROKER: u32 = 1;
/// See [`BROKER`].
pub const PORT: u16 = 9092;
/// See [`BROKER`].
pub const ROOT: &str = "data";
/// The node of the first client; the others follow.
pub const FIRST_CLIENT: u32 = 10;
/// After an operation of unknown outcome a process goes on under a number that is this much higher.
const STRIDE: u64 = 1000;
/// Process numbers of consumers and of the admin begin here.
const FIRST_CONSUMER: u64 = 100;
const ADMIN: u64 = 200;
/// The settings that the broker of every plan has.
pub const BROKER_ALWAYS: [&str; 3] = ["listeners", "log.dir", "log.retention.ms"];
/// The process that reads everything at the end.
pub const LAST_READER: u64 = 300;

/// A family of faults, which can be switched on and off.
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
    /// A sync that fails, and its pages.
    Sync,
    /// A write that fails with EIO.
    Write,
    /// No space, for a while.
    Space,
    /// A slow or hanging disk.
    Slow,
    /// Cuts, delays and resets.
    Net,
    /// Clocks that drift, and steps of the wall clock.
    Clock,
    /// Tasks that run far behind others (PCT).
    Sched,
}

/// All families.
pub const FAMILIES: [Family; 11] = [
    Family::Kill,
    Family::Power,
    Family::Stop,
    Family::Pause,
    Family::Sync,
    Family::Write,
    Family::Space,
    Family::Slow,
    Family::Net,
    Family::Clock,
    Family::Sched,
];

impl Family {
    /// As it is called on the command line.
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
            Self::Clock => "clock",
            Self::Sched => "sched",
        }
    }

    /// How many there are in 45 seconds, on average, where the family is on.
    fn usual(self) -> u64 {
        match self {
            Self::Kill | Self::Power | Self::Slow => 3,
            Self::Net => 6,
            Self::Stop | Self::Pause | Self::Sync | Self::Write | Self::Space | Self::Clock => 1,
            Self::Sched => 0,
        }
    }
}

/// Which faults there are.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Faults {
    /// None at all.
    None,
    /// What the seed says.
    #[default]
    Default,
    /// These families, in every seed.
    Only(Vec<Family>),
    /// All families, in every seed, and more of each than any machine has: only safety must hold.
    Unlimited,
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
    /// What its choices are keyed by.
    pub id: u64,
    /// When, from the begin of the run.
    pub at_ms: u64,
    /// What.
    #[serde(flatten)]
    pub kind: Kind,
}

/// What befalls the world.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Kind {
    /// The broker's process dies; it is started again after `down_ms`.
    Kill { down_ms: u64 },
    /// The power goes, and comes back after `down_ms`. With `unsynced` as soon as there is something to lose: it waits a while
    /// until some log was written and not synced yet.
    PowerLoss {
        down_ms: u64,
        #[serde(default)]
        unsynced: bool,
    },
    /// The broker is told to stop, and started again `down_ms` after it has.
    CleanStop { down_ms: u64 },
    /// The broker's process stands still.
    Pause { for_ms: u64 },
    /// The next sync fails. Somebody notices and ends the process `restart_ms` later.
    SyncFails { restart_ms: u64, power: bool },
    /// The next write fails with EIO, in the middle. As above.
    WriteFails { restart_ms: u64, power: bool },
    /// Only so many bytes are free, for a while.
    NoSpace { free_bytes: u64, for_ms: u64 },
    /// The disk takes so many times as long, for a while.
    SlowDisk { times: u64, for_ms: u64 },
    /// Nothing on the disk ends, for a while.
    HangingDisk { for_ms: u64 },
    /// Nothing gets through between the broker and a client (all of them, if none is named).
    Cut {
        client: Option<u32>,
        to_broker: bool,
        from_broker: bool,
        for_ms: u64,
    },
    /// Everything takes longer between the broker and all clients.
    Delay { by_ms: u64, for_ms: u64 },
    /// A client's connections are reset; with `half_open`, only the client learns of it.
    Reset { client: u32, half_open: bool },
    /// The broker's wall clock jumps.
    ClockStep { by_ms: i64 },
}

/// A run, before it runs.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// [`FORMAT`].
    pub format: u32,
    /// The commit it was made with, where that is known.
    pub commit: String,
    /// What decides everything that the plan doesn't.
    pub seed: u64,
    /// Virtual seconds; the last quarter is calm.
    pub secs: u64,
    /// How the next task is chosen.
    pub scheduler: Strategy,
    /// What decides who runs next, where that is not the seed: a small plan that no longer fails may with another order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheduler_seed: Option<u64>,
    /// The drift of the broker's monotonic clock, and by how much its wall clock is ahead.
    pub drift_ppm: i64,
    /// See `drift_ppm`.
    pub wall_ahead_ms: i64,
    /// Bytes that a direction of a connection holds.
    #[serde(default = "buffer_bytes_usual")]
    pub buffer_bytes: usize,
    /// The broker's configuration.
    pub broker: BTreeMap<String, String>,
    /// What clients do.
    pub workload: Workload,
    /// What befalls them, by time.
    pub faults: Vec<Fault>,
}

fn buffer_bytes_usual() -> usize {
    BUFFER_BYTES
}

/// Why a text is no plan.
#[derive(Debug)]
pub enum PlanError {
    /// It can't be read.
    Json(serde_json::Error),
    /// It is of another format.
    Format(u64),
    /// Its broker can't be started.
    Broker(StartupError),
}

impl fmt::Display for PlanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Json(e) => write!(f, "not a plan: {e}"),
            Self::Broker(e) => write!(f, "the plan's broker: {e}"),
            Self::Format(n) => write!(f, "a plan of format {n}; this is a simulator for format {FORMAT}"),
        }
    }
}

impl std::error::Error for PlanError {}

impl Plan {
    /// Reads a plan.
    pub fn parse(text: &str) -> Result<Self, PlanError> {
        let value: serde_json::Value = serde_json::from_str(text).map_err(PlanError::Json)?;
        Self::check_format(&value)?;
        // From the text, not the value: errors then know their line.
        let plan: Self = serde_json::from_str(text).map_err(PlanError::Json)?;
        plan.check()?;
        Ok(plan)
    }

    /// Whether a document says that it is of the format of this code, or nothing of it.
    pub(crate) fn check_format(value: &serde_json::Value) -> Result<(), PlanError> {
        match value["format"].as_u64() {
            Some(n) if n != u64::from(FORMAT) => Err(PlanError::Format(n)),
            _ => Ok(()),
        }
    }

    /// Whether its broker can be started.
    ///
    /// # Errors
    /// [`PlanError::Broker`].
    pub fn check(&self) -> Result<(), PlanError> {
        BrokerConfig::new(self.broker.clone()).map_err(PlanError::Broker)?;
        Ok(())
    }

    /// What a seed makes of a run.
    pub fn of(seed: u64, secs: u64, faults: &Faults) -> Self {
        let mut draw = Draw(Keyed::new(seed));
        let flushed = faults == &Faults::None || draw.of("unflushed", 6) > 0;
        let churn = draw.of("churn", 6) == 0;
        let workload = workload(&mut draw, churn);
        let clients = (workload.producers.len() + workload.consumers.len()) as u64;
        let mut plan = Self {
            format: FORMAT,
            commit: COMMIT.to_owned(),
            seed,
            secs: secs.max(1),
            scheduler: Strategy::Random,
            scheduler_seed: None,
            drift_ppm: 0,
            wall_ahead_ms: 0,
            buffer_bytes: match draw.of("buffer", 4) {
                _ if churn => 500,
                0 => 500,
                1 => 16 << 10,
                _ => BUFFER_BYTES,
            },
            broker: broker(&mut draw, flushed, churn),
            workload,
            faults: Vec::new(),
        };
        for family in FAMILIES {
            let often = match faults {
                Faults::None => continue,
                Faults::Default if draw.one("family off", family as u64, 3) == 0 => continue,
                Faults::Default => 1,
                Faults::Only(list) if list.contains(&family) => 1,
                Faults::Only(_) => continue,
                Faults::Unlimited => 3,
            };
            // What is not flushed may be lost with the power, and no rule would be left to judge.
            let loses = matches!(family, Family::Power | Family::Sync | Family::Write);
            if !flushed && loses && *faults != Faults::Unlimited {
                continue;
            }
            plan.befall(&mut draw, family, often, clients);
        }
        plan.faults.sort_by_key(|f| (f.at_ms, f.id));
        plan
    }

    fn befall(&mut self, draw: &mut Draw, family: Family, often: u64, clients: u64) {
        match family {
            Family::Sched => self.scheduler = Strategy::Pct([20, 100, 1000][draw.of("pct", 3) as usize]),
            Family::Clock => {
                let most = if often > 1 { 200_000 } else { 300 };
                self.drift_ppm = draw.of("drift", 2 * most + 1) as i64 - most as i64;
                self.wall_ahead_ms = draw.of("wall ahead", 20_001) as i64 - 10_000;
            }
            _ => {}
        }
        let (span_ms, key) = (self.secs * 750, family as u64);
        let usual = family.usual() * often * span_ms;
        // In short runs something, too.
        let most = (2 * usual / 45_000).max(u64::from(usual > 0));
        let n = if most == 0 {
            0
        } else {
            1 + draw.one("how many", key, most)
        };
        for i in 0..n {
            let id = key * 1000 + i;
            let at_ms = 300 + draw.one("at", id, span_ms.max(301) - 300);
            let kind = kind(draw, family, id, often > 1, clients);
            // Some deaths come in pairs: the second one while the first is being recovered from.
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
    }
}

/// Choices by name.
struct Draw(Keyed);

impl Draw {
    fn of(&mut self, kind: &'static str, n: u64) -> u64 {
        self.0.below(kind, 0, n)
    }

    fn one(&mut self, kind: &'static str, entity: u64, n: u64) -> u64 {
        self.0.below(kind, entity, n)
    }
}

fn kind(draw: &mut Draw, family: Family, id: u64, unlimited: bool, clients: u64) -> Kind {
    let down_ms = [0, 5, 100, 1500][draw.one("down for", id, 4) as usize];
    let for_ms = 50 + draw.one("for", id, if unlimited { 15_000 } else { 4_000 });
    let client = FIRST_CLIENT + draw.one("which client", id, clients) as u32;
    let power = draw.one("by power", id, 2) == 0;
    match family {
        Family::Kill => Kind::Kill { down_ms },
        Family::Power => Kind::PowerLoss {
            down_ms,
            unsynced: power,
        },
        Family::Stop => Kind::CleanStop { down_ms },
        Family::Pause => Kind::Pause { for_ms },
        Family::Sync => Kind::SyncFails {
            restart_ms: for_ms,
            power,
        },
        Family::Write => Kind::WriteFails {
            restart_ms: for_ms,
            power,
        },
        Family::Space => Kind::NoSpace {
            free_bytes: draw.one("free", id, 20_000),
            for_ms,
        },
        Family::Slow if draw.one("hangs", id, 4) == 0 => Kind::HangingDisk { for_ms },
        Family::Slow => Kind::SlowDisk {
            times: 2 + draw.one("slower", id, 40),
            for_ms,
        },
        Family::Net => match draw.one("net", id, 6) {
            0..2 => Kind::Reset {
                client,
                half_open: power,
            },
            2 => Kind::Delay {
                by_ms: 1 + draw.one("delay", id, 500),
                for_ms,
            },
            n => Kind::Cut {
                client: (n > 3).then_some(client),
                to_broker: n != 4,
                from_broker: n != 5,
                for_ms,
            },
        },
        Family::Clock => {
            let most = if unlimited { 1 << 32 } else { 30_000 };
            Kind::ClockStep {
                by_ms: draw.one("step", id, 2 * most) as i64 - most as i64,
            }
        }
        Family::Sched => unreachable!("it is a strategy, not a fault"),
    }
}

/// With `churn` segments are small, and go as soon as their records are deleted.
fn broker(draw: &mut Draw, flushed: bool, churn: bool) -> BTreeMap<String, String> {
    let listener = format!("PLAINTEXT://{}:{PORT}", addr_of(BROKER, PORT).ip());
    let mut set = BTreeMap::from([
        ("listeners".to_owned(), listener),
        ("log.dir".to_owned(), ROOT.to_owned()),
        ("log.retention.ms".to_owned(), "-1".to_owned()),
    ]);
    let mut put = |key: &str, value: u64| drop(set.insert(key.to_owned(), value.to_string()));
    if !flushed {
        put("log.flush.interval.messages", 2 + draw.of("flush every", 1 << 20));
    }
    if draw.of("small segments", 2) == 0 {
        put("log.segment.bytes", 1 << 20);
    }
    match draw.of("index", 4) {
        _ if churn => {
            put("log.index.interval.bytes", 0);
            put("log.index.size.max.bytes", 96);
        }
        0 => put("log.index.interval.bytes", draw.of("index interval", 200)),
        1 => {
            // Room for eight entries: segments end by their index.
            put("log.index.interval.bytes", 0);
            put("log.index.size.max.bytes", 96);
        }
        _ => {}
    }
    if draw.of("expiry", 3) == 0 {
        // More than a delivery takes at most, so that nobody is forgotten who still asks.
        put("producer.id.expiration.ms", 15_000);
        put("log.retention.check.interval.ms", 2_000);
    } else if churn || draw.of("retention", 3) == 0 {
        // What DeleteRecords gave up goes soon, and another segment comes in its place.
        put("log.retention.check.interval.ms", 500);
    }
    set
}

/// With `churn` records are deleted as fast as they come, under readers who begin again and again.
fn workload(draw: &mut Draw, churn: bool) -> Workload {
    let topic = |draw: &mut Draw, i| TopicSpec {
        name: format!("t{i}"),
        partitions: 1 + draw.one("partitions", i, 3) as i32,
        replication_factor: 1,
        configs: BTreeMap::new(),
    };
    let mut topics: Vec<_> = (0..=draw.of("topics", 2)).map(|i| topic(draw, i)).collect();
    // Everything through one partition, in batches of one record: the whole window is in flight at once.
    let narrow = draw.of("narrow", 4) == 0;
    if narrow {
        topics.truncate(1);
        topics[0].partitions = 1;
    }
    let all: Vec<(String, i32)> = topics.iter().flat_map(TopicSpec::all).collect();
    let producers = 1 + draw.of("producers", 3);
    let consumers = 1 + draw.of("consumers", 2);
    let mut client = ClientSpec::new(&addr_of(BROKER, PORT).ip().to_string(), PORT);
    if draw.of("older client", 4) == 0 {
        // Produce and Fetch with topics by their names, ListOffsets before leader epochs.
        client.versions_max = [(0, 9), (1, 11), (2, 3)].into();
    }
    Workload {
        client,
        producers: (0..producers)
            .map(|i| {
                let spec = producer(draw, i, producers, &all);
                match () {
                    () if narrow => bursts(spec),
                    () if churn => ProducerSpec {
                        padding_bytes_max: 8_000,
                        ..spec
                    },
                    () => spec,
                }
            })
            .collect(),
        consumers: (0..consumers)
            .map(|i| {
                let spec = consumer(draw, i, &all);
                if churn { from_the_start(spec) } else { spec }
            })
            .collect(),
        admin: (churn || draw.of("admin", 2) == 0).then(|| AdminSpec {
            process: ADMIN,
            process_stride: STRIDE,
            partitions: all[..1].to_vec(),
            pause_max_ms: match draw.of("admin's pause", 2) {
                _ if churn => 500,
                0 => 8_000,
                _ => 2_000,
            },
        }),
        topics,
    }
}

fn producer(draw: &mut Draw, i: u64, of: u64, all: &[(String, i32)]) -> ProducerSpec {
    let mut spec = ProducerSpec::idempotent(i, STRIDE, all.to_vec());
    spec.sends_max = [1, 4, 12][draw.one("sends", i, 3) as usize];
    spec.padding_bytes_max = [0, 40, 1_000, 8_000][draw.one("padding", i, 4) as usize];
    // Records a second, of all producers.
    let rate = [10, 25, 25, 100][draw.of("rate", 4) as usize];
    spec.pause_max_ms = (spec.sends_max + 1) * 1_000 * of / rate;
    spec.delivery_timeout_ms = [10_000, 10_000, 1_500][draw.one("delivery timeout", i, 3) as usize];
    spec.batch_records_max = 1 + draw.one("batch records", i, 6) as usize;
    spec.linger_ms = draw.one("linger", i, 3);
    spec.compression = [0, 0, 0, 1, 2, 3, 4][draw.one("compression", i, 7) as usize];
    if draw.one("not idempotent", i, 6) == 0 {
        spec.idempotent = false;
        spec.acks = [0, 1, -1][draw.one("acks", i, 3) as usize];
        spec.in_flight_max = 1 + draw.one("in flight", i, 5) as usize;
    }
    if draw.one("ends early", i, 5) == 0 {
        spec.operations_max = Some(1 + draw.one("operations", i, 200));
    }
    if draw.one("wraps", i, 4) == 0 {
        // Sequences end at 2^31 - 1, after a while that a run does not have.
        spec.first_sequence = i32::MAX - draw.one("sequences left", i, 60) as i32;
    }
    if draw.one("restarts", i, 4) == 0 {
        spec.restarts_after = Some(3 + draw.one("restarts after", i, 40));
    }
    spec
}

fn bursts(spec: ProducerSpec) -> ProducerSpec {
    ProducerSpec {
        sends_max: 12,
        batch_records_max: 1,
        linger_ms: 0,
        padding_bytes_max: spec.padding_bytes_max.min(1_000),
        pause_max_ms: spec.pause_max_ms.max(200),
        ..spec
    }
}

fn from_the_start(spec: ConsumerSpec) -> ConsumerSpec {
    ConsumerSpec {
        rewind_after: Some(6),
        max_bytes: 1 << 20,
        partition_max_bytes: 1 << 20,
        ..spec
    }
}

fn consumer(draw: &mut Draw, i: u64, all: &[(String, i32)]) -> ConsumerSpec {
    let mut spec = ConsumerSpec::tailing(FIRST_CONSUMER + i, all.to_vec());
    spec.sessions = draw.one("sessions", i, 2) == 0;
    spec.max_bytes = [1, 5_000, 1 << 20][draw.one("fetch bytes", i, 3) as usize];
    spec.partition_max_bytes = [1, 700, 16 << 10, 1 << 20][draw.one("partition bytes", i, 4) as usize];
    spec.min_bytes = [1, 1, 5_000][draw.one("min bytes", i, 3) as usize];
    // Rarely: who reads a batch at a time and begins again does nothing else.
    spec.rewind_after = (draw.one("rewinds", i, 3) == 0).then_some(1500);
    // Who reads a batch at a time need not reach the end, as long as he moves.
    spec.drain_timeout_ms = 6_000;
    spec
}

#[cfg(test)]
mod tests;

//! Draws a seed's swarm of configurations, clients and faults, each choice under its own name.

use std::collections::BTreeMap;

use brokkr::config::limits;
use brokkr_workloads::{
    AdminSpec, ClientSpec, ConsumerSpec, InspectorSpec, OperatorSpec, ProducerSpec, RecreatorSpec, TopicSpec,
    VisitorSpec, Workload,
};

use brokkr_wire::ApiKey;
use brokkr_wire::records::CompressionType;

use super::document::{FLUSH_MS, Plan};
use super::family::Family;
use super::fault::{Fault, Kind};
use super::nodes::{
    ADMIN, BROKER, FIRST_CLIENT, FIRST_CONSUMER, INSPECTOR, OPERATOR, PORT, RECREATOR, ROOT, STRIDE, VISITOR,
};
use super::prepared_log::{PreparedLog, can_be_prepared};
use crate::disk::{Damage, FileDamage};
use crate::keyed::Keyed;
use crate::net::addr_of;
use crate::reached;
use crate::retention::is_retained;
use crate::trigger::{Act, Trigger};

pub(super) const FLUSH: &str = "log.flush.interval.messages";
/// The memory budget.
const MEMORY: &str = "queued.max.request.bytes";

/// Choices by name.
pub(super) struct Draw(pub(super) Keyed);

impl Draw {
    pub(super) fn of(&mut self, kind: &'static str, n: u64) -> u64 {
        self.0.below(kind, 0, n)
    }

    pub(super) fn one(&mut self, kind: &'static str, entity: u64, n: u64) -> u64 {
        self.0.below(kind, entity, n)
    }
}

pub(super) fn kind(draw: &mut Draw, family: Family, id: u64, unlimited: bool, plan: &Plan) -> Kind {
    let workload = &plan.workload;
    let clients = (workload.producers.len() + workload.consumers.len()) as u64;
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
        Family::Stop => Kind::CleanStop {
            down_ms,
            power: draw.one("power fails after a stop", id, 3) == 0,
        },
        Family::Pause => Kind::Pause { for_ms },
        Family::Sync | Family::Write | Family::Space if draw.one("one operation", id, 2) == 0 => {
            let may = |(act, _): &&(Act, &str)| match act {
                Act::Send => false,
                // A failed sync may take unflushed records.
                Act::Sync => plan.is_flushed(),
                _ => true,
            };
            let all: Vec<_> = EVENTS.iter().filter(may).collect();
            let (act, of) = *all[draw.one("operation", id, all.len() as u64) as usize];
            Kind::OperationFails {
                act,
                of: of.to_owned(),
                no_space: family == Family::Space,
                restart_ms: for_ms,
                power,
            }
        }
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
        Family::Link => match draw.one("link", id, 4) {
            0..2 => Kind::Narrow {
                client: power.then_some(client),
                bytes_per_s: [2_000, 10_000, 100_000][draw.one("bytes a second", id, 3) as usize],
                for_ms,
            },
            2 => Kind::Swizzle { for_ms },
            _ => Kind::Shut {
                silent: power,
                for_ms,
            },
        },
        Family::Clock => {
            let most = if unlimited { 1 << 32 } else { 30_000 };
            Kind::ClockStep {
                by_ms: draw.one("step", id, 2 * most) as i64 - most as i64,
                client: (draw.one("a client's step", id, 3) == 0).then_some(client),
            }
        }
        Family::Rot => {
            let all: Vec<_> = workload.topics.iter().flat_map(TopicSpec::all).collect();
            // One partition in a run: the others are judged in full.
            let which = if unlimited { id } else { 0 };
            let (topic, partition) = all[draw.one("damaged", which, all.len() as u64) as usize].clone();
            // Most seeds damage only an index, which must do no harm: little can be judged of a partition with a damaged log.
            let only_index = draw.of("log damaged", 4) > 0;
            Kind::Damage {
                topic,
                partition,
                how: match draw.one("damage", id, 5) {
                    _ if only_index => Damage::IndexRot,
                    0 => Damage::BitRot,
                    1 => Damage::Unreadable,
                    2 => Damage::LostWrite,
                    3 => Damage::MisdirectedWrite,
                    _ => Damage::IndexRot,
                },
            }
        }
        Family::Directory => Kind::DirectoryFails {
            directory: draw.one("which directory", id, 3).min(1) as usize,
            for_ms: 3_000 + draw.one("directory for", id, 9_000),
        },
        Family::Config => Kind::Restart {
            kill: power,
            down_ms,
            broker: settings(draw, id),
        },
        // A power loss may take unflushed records, and no rule would be left to judge.
        Family::Client if draw.one("all", id, 4) == 0 && !plan.broker.contains_key(FLUSH) => {
            Kind::Blackout { down_ms }
        }
        Family::Client => Kind::KillClient { client, down_ms },
        Family::Sched | Family::Rude | Family::File => unreachable!("they are no faults of a moment"),
    }
}

/// Operations that faults wait for, and that may fail.
const EVENTS: [(Act, &str); 38] = [
    (Act::Write, "log"),
    (Act::Write, "index"),
    (Act::Write, "time index"),
    (Act::Write, "manifest"),
    (Act::Write, "epochs"),
    (Act::Write, "producers"),
    (Act::Write, "checkpoint"),
    (Act::Write, "metadata log"),
    (Act::Write, "metadata snapshot"),
    (Act::Sync, "log"),
    (Act::Sync, "index"),
    (Act::Sync, "time index"),
    (Act::Sync, "producers"),
    (Act::Sync, "window"),
    (Act::Sync, "manifest"),
    (Act::Sync, "epochs"),
    (Act::Sync, "checkpoint"),
    (Act::Sync, "folder"),
    (Act::Sync, "metadata log"),
    (Act::Sync, "metadata snapshot"),
    (Act::Create, "log"),
    (Act::Create, "index"),
    (Act::Create, "folder"),
    (Act::Create, "manifest"),
    (Act::Create, "metadata snapshot"),
    (Act::Rename, "manifest"),
    (Act::Rename, "epochs"),
    (Act::Rename, "checkpoint"),
    (Act::Rename, "producers"),
    (Act::Rename, "deleted file"),
    (Act::Rename, "deleted folder"),
    (Act::Rename, "metadata snapshot"),
    (Act::Remove, "deleted file"),
    (Act::Remove, "deleted folder"),
    (Act::Remove, "producers"),
    (Act::Remove, "log"),
    (Act::Truncate, "log"),
    (Act::Send, ""),
];

/// The event that a fault waits for: half of those whose moment matters have one.
pub(super) fn trigger(draw: &mut Draw, id: u64, kind: &Kind) -> Option<Trigger> {
    let matters = match kind {
        Kind::Kill { .. } | Kind::CleanStop { .. } | Kind::Pause { .. } | Kind::Reset { .. } => true,
        Kind::SyncFails { .. } | Kind::WriteFails { .. } | Kind::NoSpace { .. } => true,
        Kind::PowerLoss { unsynced, .. } => !unsynced,
        _ => false,
    };
    if !matters || draw.one("at an event", id, 2) == 0 {
        return None;
    }
    let which = draw.one("event", id, EVENTS.len() as u64 + 12) as usize;
    let (act, of) = match EVENTS.get(which) {
        Some((act, of)) => (*act, *of),
        None => {
            let names = reached::NAMES;
            let which = draw.one("reached", id, names.len() as u64) as usize;
            (Act::Reached, names[which])
        }
    };
    let halvings = draw.one("how many events before", id, 6);
    Some(Trigger {
        act,
        of: of.to_owned(),
        nth: draw.one("events before", id, 1 << halvings),
        after: act != Act::Send && act != Act::Reached && draw.one("after the event", id, 2) == 0,
    })
}

/// The settings of every broker.
pub(super) fn plain() -> BTreeMap<String, String> {
    let listener = format!("PLAINTEXT://{}:{PORT}", addr_of(BROKER, PORT).ip());
    BTreeMap::from([
        ("listeners".to_owned(), listener),
        ("log.dir".to_owned(), ROOT.to_owned()),
        ("log.retention.ms".to_owned(), "-1".to_owned()),
    ])
}

/// See [`Plan::standard`]: four of five operations are sends, if a batch sent is polled at once.
pub(super) fn standard(operations_per_s: u64) -> Workload {
    let topic = TopicSpec {
        name: "t0".to_owned(),
        partitions: 3,
        replication_factor: 1,
        configs: BTreeMap::new(),
    };
    let all = topic.all();
    // A higher rate sends larger batches.
    let (producers, sends_max) = (3, (operations_per_s / 50).clamp(12, 200));
    // Pauses and batches are half of their maximum on average.
    let pause_max_ms = (sends_max + 1) * 1_000 * producers * 5 / (4 * operations_per_s.max(1));
    let producer = |i| ProducerSpec {
        sends_max,
        pause_max_ms,
        // Like Kafka's clients: waiting records are sent as one batch.
        batch_records_max: 100,
        ..ProducerSpec::idempotent(i, STRIDE, all.clone())
    };
    Workload {
        client: ClientSpec::new(&addr_of(BROKER, PORT).ip().to_string(), PORT),
        producers: (0..producers).map(producer).collect(),
        consumers: (0..2)
            .map(|i| ConsumerSpec::tailing(FIRST_CONSUMER + i, all.clone()))
            .collect(),
        admin: None,
        recreator: None,
        operator: None,
        inspector: None,
        visitor: None,
        topics: vec![topic],
    }
}

/// Derived files of a partition's folder: whatever happens to one of them, everything is served.
const DERIVED: [&str; 4] = ["*.index", "*.timeindex", "*.snapshot", "*.window"];
/// Other files of a partition's folder.
const ESSENTIAL: [&str; 4] = [
    "*.log",
    "partition.metadata",
    "brokkr-manifest",
    "leader-epoch-checkpoint",
];
/// Files of the log directory itself, and of the metadata.
const OF_THE_DIRECTORY: [&str; 9] = [
    "meta.properties",
    "brokkr-checkpoint",
    "recovery-point-offset-checkpoint",
    "log-start-offset-checkpoint",
    "replication-offset-checkpoint",
    "__cluster_metadata-0/*.log",
    "__cluster_metadata-0/*.checkpoint",
    "__cluster_metadata-0/brokkr-manifest",
    "__cluster_metadata-0/quorum-state",
];

/// Damage to one file of any kind, once in a run.
pub(super) fn damaged_file(draw: &mut Draw, plan: &Plan) -> Fault {
    let id = Family::File as u64 * 1000;
    let all: Vec<_> = plan.workload.topics.iter().flat_map(TopicSpec::all).collect();
    let (topic, partition) = &all[draw.one("file of", id, all.len() as u64) as usize];
    let names = match draw.one("file", id, 3) {
        0 => &DERIVED[..],
        1 => &ESSENTIAL[..],
        _ => &OF_THE_DIRECTORY[..],
    };
    let name = names[draw.one("which file", id, names.len() as u64) as usize];
    let file = match names == &OF_THE_DIRECTORY[..] {
        true => name.to_owned(),
        false => format!("{topic}-{partition}/{name}"),
    };
    let how = FileDamage::ALL[draw.one("how", id, FileDamage::ALL.len() as u64) as usize];
    // Only after a clean stop does the broker know where each log ends, and can tell that a shorter one is damaged.
    let kill = names == &DERIVED[..] && draw.one("killed", id, 2) == 0;
    let span_ms = plan.secs * 750;
    Fault {
        id,
        when: None,
        at_ms: span_ms / 3 + draw.one("at", id, span_ms / 2 + 1),
        kind: Kind::DamageFile {
            file,
            how,
            kill,
            down_ms: 5,
        },
    }
}

/// Settings that reach limits early: the metadata log gets snapshots soon.
pub(super) fn tight(broker: &mut BTreeMap<String, String>) {
    // Rude clients take all that there is.
    broker.remove(MEMORY);
    for (key, value) in [
        ("metadata.log.max.record.bytes.between.snapshots", 20_000),
        ("metadata.log.segment.bytes", 8 << 20),
    ] {
        broker.insert(key.to_owned(), value.to_string());
    }
}

/// A writer and a reader that show whether the broker still serves others.
pub(super) fn small() -> Workload {
    let mut workload = standard(50);
    workload.topics[0].partitions = 1;
    let all = workload.topics[0].all();
    workload.producers.truncate(1);
    workload.consumers.truncate(1);
    workload.producers[0].partitions.clone_from(&all);
    workload.consumers[0].partitions = all;
    workload
}

/// Some logs begin at large offsets, or with a segment that is close to its last offset.
pub(super) fn prepared(draw: &mut Draw, workload: &Workload) -> Vec<PreparedLog> {
    if draw.of("prepared", 6) > 0 {
        return Vec::new();
    }
    let topics = workload.topics.iter().filter(|t| can_be_prepared(t, workload));
    let all = topics.flat_map(TopicSpec::all).zip(0..);
    let some = all.filter(|(_, i)| *i == 0 || draw.one("prepared too", *i, 2) == 0);
    let some: Vec<_> = some.collect();
    some.into_iter()
        .map(|((topic, partition), i)| {
            let compacted = draw.one("compacted", i, 2) == 0;
            let end = if compacted || draw.one("end of", i, 2) == 0 {
                1 << 31
            } else {
                1 << 32
            };
            PreparedLog {
                topic,
                partition,
                next_offset: end - 1 - draw.one("before the end", i, 200) as i64,
                compacted,
            }
        })
        .collect()
}

/// Settings that an operator changes between two starts.
fn settings(draw: &mut Draw, id: u64) -> BTreeMap<String, String> {
    let mut set = BTreeMap::new();
    for (i, (key, values)) in SETTINGS.into_iter().enumerate() {
        let which = id * SETTINGS.len() as u64 + i as u64;
        if draw.one("set", which, 2) == 0 {
            let value = values[draw.one("set to", which, values.len() as u64) as usize];
            set.insert(key.to_owned(), value.to_string());
        }
    }
    set
}

/// Settings that a restart may change, with their values.
const SETTINGS: [(&str, &[u64]); 5] = [
    ("log.segment.bytes", &[1 << 20, 2 << 20, 1 << 30]),
    ("log.index.interval.bytes", &[0, 100, 4096]),
    ("log.index.size.max.bytes", &[96, 10 << 20]),
    ("log.retention.check.interval.ms", &[500, 2_000, 300_000]),
    ("max.incremental.fetch.session.cache.slots", &[1, 1_000]),
];

/// The broker's settings. With `churn` segments are small and are removed as soon as their records are deleted.
pub(super) fn broker(
    draw: &mut Draw,
    flushed: bool,
    churn: bool,
    workload: &Workload,
) -> BTreeMap<String, String> {
    let mut set = plain();
    let mut put = |key: &str, value: u64| drop(set.insert(key.to_owned(), value.to_string()));
    if !flushed {
        put(FLUSH, 2 + draw.of("flush every", 1 << 20));
        if let n @ 1.. = draw.of("flush after", 4) {
            put(FLUSH_MS, [0, 50, 500, 3_000][n as usize]);
        }
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
            // Room for eight entries: a full index ends its segment.
            put("log.index.interval.bytes", 0);
            put("log.index.size.max.bytes", 96);
        }
        _ => {}
    }
    if draw.of("expiry", 3) == 0 {
        // Longer than a delivery may take, so that no active producer expires.
        put("producer.id.expiration.ms", 15_000);
        put("log.retention.check.interval.ms", 2_000);
    } else if churn || draw.of("retention", 3) == 0 {
        // Segments below a deleted offset are removed soon, and new ones are created.
        put("log.retention.check.interval.ms", 500);
    }
    if workload.operator.is_some() || workload.inspector.is_some() {
        // The metadata log gets snapshots soon, and its segments end soon.
        put(
            "metadata.log.max.record.bytes.between.snapshots",
            [500, 5_000][draw.of("snapshots", 2) as usize],
        );
    }
    if let Some(visitor) = &workload.visitor {
        put("max.connections.per.ip", visitor.connections_max);
    }
    if workload.topics.iter().any(is_retained) {
        put("log.retention.check.interval.ms", 500);
    }
    if let Some(visitor) = &workload.visitor {
        let idle = match visitor.idle_ms {
            0 => "-1".to_owned(),
            ms => ms.to_string(),
        };
        set.insert("connections.max.idle.ms".to_owned(), idle);
    }
    if draw.of("small memory", 8) == 0 {
        // Requests, responses and checks wait for each other, and parked fetches give way.
        let bytes = [1 << 20, 2 << 20, 8 << 20][draw.of("memory", 3) as usize];
        set.insert(MEMORY.to_owned(), bytes.to_string());
    }
    small_limits(draw, &mut set);
    set
}

/// Half of the brokers have small limits: a quarter of all, each somewhere between the least and the default.
pub(super) fn small_limits(draw: &mut Draw, set: &mut BTreeMap<String, String>) {
    if draw.of("small limits", 2) == 0 {
        return;
    }
    for (key, limit) in limits() {
        if draw.one(limit.name, 0, 4) == 0 {
            let halvings = u64::from((limit.default / limit.least).ilog2()) + 1;
            let value = limit.default >> draw.one(limit.name, 1, halvings + 1);
            set.insert(key, value.max(limit.least).to_string());
        }
    }
}

/// The workload. With `churn` records are deleted as fast as they come, and readers restart again and again.
pub(super) fn workload(draw: &mut Draw, churn: bool) -> Workload {
    let topic = |draw: &mut Draw, i| TopicSpec {
        name: format!("t{i}"),
        partitions: 1 + draw.one("partitions", i, 3) as i32,
        replication_factor: 1,
        configs: BTreeMap::new(),
    };
    let mut topics: Vec<_> = (0..=draw.of("topics", 2)).map(|i| topic(draw, i)).collect();
    // Everything goes through one partition, in batches of one record: the whole window is in flight at once.
    let narrow = draw.of("narrow", 4) == 0;
    if narrow {
        topics.truncate(1);
        topics[0].partitions = 1;
    }
    if draw.of("retained", 5) == 0
        && let Some(topic) = topics.last_mut()
    {
        topic.configs = retained(draw);
    }
    if draw.of("append time", 6) == 0
        && let Some(topic) = topics.first_mut()
    {
        let (key, value) = ("message.timestamp.type", "LogAppendTime");
        topic.configs.insert(key.to_owned(), value.to_owned());
    }
    if draw.of("topic's compression", 6) == 0
        && let Some(topic) = topics.first_mut()
    {
        let codecs = ["uncompressed", "gzip", "snappy", "lz4", "zstd"];
        let codec = codecs[draw.of("topic's codec", 5) as usize];
        topic
            .configs
            .insert("compression.type".to_owned(), codec.to_owned());
    }
    let older = draw.of("older client", 4) == 0;
    // A client that identifies topics by name can't tell which incarnation it reached, so nothing could be judged. tests/peers.rs
    // covers the responses to it while its topic is deleted.
    let recreator = (draw.of("recreated", 4) == 0 && !older && !narrow).then(|| recreator(draw));
    topics.extend(recreator.iter().flat_map(|r| &r.topics).map(|name| TopicSpec {
        name: name.clone(),
        partitions: 1 + draw.of("recreated partitions", 2) as i32,
        replication_factor: 1,
        configs: BTreeMap::new(),
    }));
    let keys = [0, 0, 0, 0, 1 + draw.of("how many keys", 16)][draw.of("keys", 5) as usize];
    let all: Vec<(String, i32)> = topics.iter().flat_map(TopicSpec::all).collect();
    let producers = 1 + draw.of("producers", 3);
    let consumers = 1 + draw.of("consumers", 2);
    let client = ClientSpec::new(&addr_of(BROKER, PORT).ip().to_string(), PORT);
    let mut workload = Workload {
        client,
        producers: (0..producers)
            .map(|i| {
                let spec = ProducerSpec {
                    keys,
                    ..producer(draw, i, producers, &all)
                };
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
            // By time: of topics that stay.
            queried: all
                .iter()
                .filter(|(topic, _)| recreator.iter().all(|r| !r.topics.contains(topic)))
                .cloned()
                .collect(),
            pause_max_ms: match draw.of("admin's pause", 2) {
                _ if churn => 500,
                0 => 8_000,
                _ => 2_000,
            },
        }),
        operator: (draw.of("operator", 3) == 0).then(|| OperatorSpec {
            process: OPERATOR,
            process_stride: STRIDE,
            prefix: "own".to_owned(),
            topics_max: 1 + draw.of("operator's topics", 4) as usize,
            pause_max_ms: [300, 1_500, 5_000][draw.of("operator's pause", 3) as usize],
        }),
        inspector: (draw.of("inspector", 2) == 0).then(|| InspectorSpec {
            process: INSPECTOR,
            process_stride: STRIDE,
            prefix: "insp".to_owned(),
            topics_max: 1 + draw.of("inspector's topics", 2) as usize,
            pause_max_ms: [150, 600, 2_000][draw.of("inspector's pause", 3) as usize],
            any_versions: draw.of("inspector of any version", 2) == 0,
        }),
        visitor: (draw.of("visitor", 3) == 0).then(|| VisitorSpec {
            process: VISITOR,
            pause_max_ms: [100, 1_000][draw.of("visitor's pause", 2) as usize],
            idle_ms: [2_400, 2_400, 4_000, 0][draw.of("idle connections", 4) as usize],
            connections_max: 12 + draw.of("connections of an address", 20),
        }),
        recreator,
        topics,
    };
    if older {
        older_client(draw, &mut workload);
    }
    workload
}

/// Limits the versions of the clients' requests: one in three is a client of a time, before topic ids and leader epochs; otherwise half
/// of the APIs have any older version.
fn older_client(draw: &mut Draw, workload: &mut Workload) {
    let versions = &mut workload.client.versions_max;
    if draw.of("of one time", 3) == 0 {
        *versions = [
            (ApiKey::Produce, 9),
            (ApiKey::Fetch, 11),
            (ApiKey::ListOffsets, 3),
        ]
        .map(|(api, version)| (api as i16, version))
        .into();
        return;
    }
    // These processes identify topics by id.
    let by_id = workload.operator.is_some() || workload.inspector.is_some();
    let has_zstd = workload.inspector.is_some()
        || workload
            .producers
            .iter()
            .any(|p| p.compression == CompressionType::Zstd as u8)
        || workload.topics.iter().any(|t| {
            t.configs
                .get("compression.type")
                .is_some_and(|codec| codec == "zstd")
        });
    let isolated = workload.consumers.iter().any(|c| c.read_committed);
    for (api, usual, ids, zstd) in OLDER {
        let least = [
            if by_id { ids } else { 0 },
            if has_zstd { zstd } else { 0 },
            usual,
            // The first that has an isolation level.
            if isolated && api == ApiKey::ListOffsets {
                2
            } else {
                0
            },
        ];
        let least = least.into_iter().fold(*api.versions().start(), i16::max);
        let choices = u64::from((api.max_stable() - least).unsigned_abs()) + 1;
        if draw.one("older api", api as u64, 2) == 0 {
            versions.insert(
                api as i16,
                least + draw.one("older version", api as u64, choices) as i16,
            );
        }
    }
    let is_below = |versions: &BTreeMap<i16, i16>, api: ApiKey, version| {
        versions.get(&(api as i16)).is_some_and(|max| *max < version)
    };
    // Without ids in its metadata a client has none to send.
    if is_below(versions, ApiKey::Metadata, 10) {
        for api in [ApiKey::Produce, ApiKey::Fetch] {
            let max = versions.entry(api as i16).or_insert(12);
            *max = (*max).min(12);
        }
    }
    // The first version with sessions.
    if is_below(versions, ApiKey::Fetch, 7) {
        workload.consumers.iter_mut().for_each(|c| c.sessions = false);
    }
}

/// APIs that clients call, with the first version that says what every client needs (not to make a topic, and where a log starts), the first that a process needs that knows topics by id
/// and asks for what a response carries, and the first with zstd.
const OLDER: [(ApiKey, i16, i16, i16); 14] = [
    (ApiKey::Produce, 0, 5, 7),
    (ApiKey::Fetch, 5, 5, 10),
    (ApiKey::ListOffsets, 0, 0, 0),
    (ApiKey::Metadata, 4, 10, 0),
    (ApiKey::CreateTopics, 0, 7, 0),
    (ApiKey::DeleteTopics, 0, 6, 0),
    (ApiKey::DeleteRecords, 0, 0, 0),
    (ApiKey::InitProducerId, 0, 0, 0),
    (ApiKey::OffsetForLeaderEpoch, 0, 0, 0),
    (ApiKey::DescribeConfigs, 0, 0, 0),
    (ApiKey::AlterConfigs, 0, 0, 0),
    (ApiKey::IncrementalAlterConfigs, 0, 0, 0),
    (ApiKey::DescribeLogDirs, 0, 0, 0),
    (ApiKey::CreatePartitions, 0, 0, 0),
];

/// Segments end after a few batches, and are removed soon.
fn retained(draw: &mut Draw) -> BTreeMap<String, String> {
    let mut set = BTreeMap::new();
    let mut put = |key: &str, value: u64| drop(set.insert(key.to_owned(), value.to_string()));
    put("index.interval.bytes", 0);
    put("segment.index.bytes", 96);
    let how = draw.of("retained how", 3);
    if how != 0 {
        put(
            "retention.bytes",
            [1_000, 10_000, 100_000][draw.of("retained bytes", 3) as usize],
        );
    }
    if how != 1 {
        put(
            "retention.ms",
            [1_000, 5_000, 15_000][draw.of("retained ms", 3) as usize],
        );
    }
    set
}

fn recreator(draw: &mut Draw) -> RecreatorSpec {
    RecreatorSpec {
        process: RECREATOR,
        process_stride: STRIDE,
        topics: vec!["r0".to_owned()],
        stays_max_ms: [1_000, 10_000][draw.of("recreated stays", 2) as usize],
        gone_max_ms: [0, 300, 3_000][draw.of("recreated gone", 3) as usize],
    }
}

fn producer(draw: &mut Draw, i: u64, of: u64, all: &[(String, i32)]) -> ProducerSpec {
    let mut spec = ProducerSpec::idempotent(i, STRIDE, all.to_vec());
    spec.sends_max = [1, 4, 12][draw.one("sends", i, 3) as usize];
    spec.padding_bytes_max = [0, 40, 1_000, 8_000][draw.one("padding", i, 4) as usize];
    // Records per second, of all producers.
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
        // Sequences wrap at 2^31 - 1, which a run would not reach by itself.
        spec.first_sequence = i32::MAX - draw.one("sequences left", i, 60) as i32;
    }
    spec.headers_max = [0, 0, 1, 4][draw.one("headers", i, 4) as usize];
    if draw.one("older", i, 3) == 0 {
        spec.older_max_ms = [1, 100, 60_000][draw.one("older by", i, 3) as usize];
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
    spec.read_committed = draw.one("read committed", i, 3) == 0;
    spec.max_bytes = [1, 5_000, 1 << 20][draw.one("fetch bytes", i, 3) as usize];
    spec.partition_max_bytes = [1, 700, 16 << 10, 1 << 20][draw.one("partition bytes", i, 4) as usize];
    spec.min_bytes = [1, 1, 5_000][draw.one("min bytes", i, 3) as usize];
    // Rarely: a reader of single batches that restarts does nothing else.
    spec.rewind_after = (draw.one("rewinds", i, 3) == 0).then_some(1500);
    // A reader of single batches need not reach the end, but must make progress.
    spec.drain_timeout_ms = 6_000;
    if draw.one("slow", i, 5) == 0 {
        spec.pause_max_ms = [100, 1_500][draw.one("slow by", i, 2) as usize];
    }
    if draw.one("stands still", i, 5) == 0 {
        spec.stuck_after = Some(5 + draw.one("stands still after", i, 60));
        spec.stuck_ms = [800, 2_500, 6_000][draw.one("stands still for", i, 3) as usize];
    }
    spec
}

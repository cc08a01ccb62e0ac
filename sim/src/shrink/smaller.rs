//! The dimensions in which a plan can be made smaller, and the steps in each.

use brokkr_workloads::{ClientSpec, ConsumerSpec, ProducerSpec};

use super::changed::changed;
use super::rude;
use crate::exec::Strategy;
use crate::net::BUFFER_BYTES;
use crate::plan::{BROKER_ALWAYS, Fault, Kind, Plan};

/// A change that makes a plan smaller, or leaves it unchanged.
pub type PlanChange = Box<dyn Fn(&mut Plan)>;

/// A dimension, with its steps.
pub enum Dimension {
    /// The faults, by delta debugging.
    Faults,
    /// Complete plans to try, the largest steps first, repeatedly.
    Other(&'static str, fn(&Plan) -> Vec<Plan>),
    /// Independent changes.
    Each(&'static str, fn(&Plan) -> Vec<PlanChange>),
}

/// This many of the first dimensions reduce a lot; the others only simplify the plan for its reader.
pub const ROUGH: usize = 7;

/// In order of benefit: a shorter run makes every later step faster.
pub const DIMENSIONS: &[Dimension] = &[
    Dimension::Other("less time", times),
    Dimension::Faults,
    Dimension::Other("fewer rude clients", rude::connections),
    Dimension::Other("fewer rude requests", rude::requests),
    Dimension::Other("fewer clients", clients),
    Dimension::Other("fewer partitions", partitions),
    Dimension::Other("fewer operations", operations),
    Dimension::Each("a plain world", plain_world),
    Dimension::Each("fewer settings", settings),
    Dimension::Each("plain clients", plain_clients),
    Dimension::Each("simpler faults", simpler_faults),
    Dimension::Other("shorter faults", shorter_faults),
    Dimension::Other("slower clients", rates),
    Dimension::Other("simpler requests", rude::values),
];

/// A shorter version of a plan: faults after its calm time are removed.
fn shortened(plan: &Plan, secs: u64, at: impl Fn(u64) -> u64) -> Plan {
    changed(plan, |p| {
        p.secs = secs;
        p.faults.iter_mut().for_each(|f| f.at_ms = at(f.at_ms));
        p.faults.retain(|f| f.at_ms < secs * 750);
        p.rude.iter_mut().for_each(|c| c.at_ms = c.at_ms.min(secs * 700));
    })
}

/// The earliest time of the first fault: the broker has to be up.
const FIRST_FAULT_MS: u64 = 300;

/// A run for these faults: they come at once, and the run ends soon after.
pub fn only(plan: &Plan, faults: &[Fault]) -> Plan {
    let at = |f: Option<&Fault>| f.map_or(0, |f| f.at_ms);
    let (first, last) = (at(faults.first()), at(faults.last()));
    let ahead = first.saturating_sub(AFTER_START_MS);
    let secs = ((last - ahead + AFTER_FAULTS_MS) / 750).clamp(1, plan.secs);
    let of_them = Plan {
        faults: faults.to_vec(),
        ..plan.clone()
    };
    shortened(&of_them, secs, |at| at.saturating_sub(ahead))
}

/// Time for the broker and its clients to start, and time after the last fault.
const AFTER_START_MS: u64 = 1_000;
const AFTER_FAULTS_MS: u64 = 1_500;

fn times(plan: &Plan) -> Vec<Plan> {
    let now = plan.secs;
    let mut to: Vec<u64> = [
        now / 12,
        now / 6,
        now / 3,
        now / 2,
        now * 3 / 4,
        now.saturating_sub(1),
    ]
    .into();
    to.retain(|secs| (1..now).contains(secs));
    to.dedup();
    let first = plan.faults.iter().map(|f| f.at_ms).min().unwrap_or(0);
    let ahead = first.saturating_sub(FIRST_FAULT_MS);
    let mut plans = Vec::new();
    for secs in to {
        plans.push(shortened(plan, secs, |at| at));
        // The same faults earlier, or closer together.
        if ahead > 0 {
            plans.push(shortened(plan, secs, |at| at - ahead));
        }
        if !plan.faults.is_empty() {
            plans.push(shortened(plan, secs, |at| (at * secs / now).max(FIRST_FAULT_MS)));
        }
    }
    plans
}

fn clients(plan: &Plan) -> Vec<Plan> {
    let w = &plan.workload;
    let mut plans = Vec::new();
    let others = w.admin.is_some()
        || w.recreator.is_some()
        || w.operator.is_some()
        || w.inspector.is_some()
        || w.visitor.is_some();
    if w.producers.len() > 1 || !w.consumers.is_empty() || others {
        // A single producer.
        plans.extend((0..w.producers.len()).map(|i| {
            changed(plan, |p| {
                p.workload.producers = vec![w.producers[i].clone()];
                p.workload.consumers.clear();
                p.workload.admin = None;
                p.workload.recreator = None;
                p.workload.operator = None;
                p.workload.inspector = None;
                p.workload.visitor = None;
            })
        }));
    }
    if w.visitor.is_some() {
        plans.push(changed(plan, |p| p.workload.visitor = None));
    }
    if w.inspector.is_some() {
        plans.push(changed(plan, |p| p.workload.inspector = None));
    }
    if w.operator.is_some() {
        plans.push(changed(plan, |p| p.workload.operator = None));
    }
    if w.recreator.is_some() {
        plans.push(changed(plan, |p| p.workload.recreator = None));
    }
    if w.admin.is_some() {
        plans.push(changed(plan, |p| p.workload.admin = None));
    }
    // From the end on, so that the others keep their nodes.
    plans.extend(
        (0..w.consumers.len())
            .rev()
            .map(|i| changed(plan, |p| drop(p.workload.consumers.remove(i)))),
    );
    plans.extend(
        (0..w.producers.len())
            .rev()
            .map(|i| changed(plan, |p| drop(p.workload.producers.remove(i)))),
    );
    plans
}

/// Removes a partition from all clients.
fn without(plan: &Plan, gone: impl Fn(&str, i32) -> bool) -> Option<Plan> {
    let stays = |all: &mut Vec<(String, i32)>| all.retain(|(topic, i)| !gone(topic, *i));
    let plan = changed(plan, |p| {
        for topic in &mut p.workload.topics {
            topic.partitions = (0..topic.partitions)
                .take_while(|i| !gone(&topic.name, *i))
                .count() as i32;
        }
        p.workload.topics.retain(|t| t.partitions > 0);
        p.prepared.retain(|log| !gone(&log.topic, log.partition));
        p.workload
            .producers
            .iter_mut()
            .for_each(|c| stays(&mut c.partitions));
        p.workload
            .consumers
            .iter_mut()
            .for_each(|c| stays(&mut c.partitions));
        if let Some(admin) = &mut p.workload.admin {
            stays(&mut admin.partitions);
            stays(&mut admin.queried);
        }
        p.workload.admin.take_if(|a| a.partitions.is_empty());
        let left: Vec<_> = p.workload.topics.iter().map(|t| t.name.clone()).collect();
        let recreated = p.workload.recreator.iter_mut();
        recreated.for_each(|r| r.topics.retain(|t| left.contains(t)));
        p.workload.recreator.take_if(|r| r.topics.is_empty());
    });
    // A client without partitions is removed as a client.
    let w = &plan.workload;
    let all_busy = w.producers.iter().all(|c| !c.partitions.is_empty())
        && w.consumers.iter().all(|c| !c.partitions.is_empty());
    (all_busy && !w.topics.is_empty()).then_some(plan)
}

fn partitions(plan: &Plan) -> Vec<Plan> {
    let topics = &plan.workload.topics;
    let mut plans: Vec<Plan> = Vec::new();
    for only in topics {
        plans.extend(without(plan, |t, i| t != only.name || i > 0));
    }
    for only in topics {
        plans.extend(without(plan, |t, _| t != only.name));
    }
    for less in topics {
        plans.extend(without(plan, |t, i| t == less.name && i == less.partitions - 1));
    }
    plans
}

fn operations(plan: &Plan) -> Vec<Plan> {
    let mut plans = Vec::new();
    for (i, producer) in plan.workload.producers.iter().enumerate() {
        let most = producer.operations_max.unwrap_or(1 << 10);
        let fewer = [1, most / 16, most / 4, most / 2]
            .into_iter()
            .filter(|n| *n > 0 && *n < most);
        plans.extend(fewer.map(|n| changed(plan, |p| p.workload.producers[i].operations_max = Some(n))));
    }
    plans
}

fn rates(plan: &Plan) -> Vec<Plan> {
    let mut plans = Vec::new();
    for (i, producer) in plan.workload.producers.iter().enumerate() {
        if producer.sends_max > 1 {
            let to = |n| changed(plan, |p| p.workload.producers[i].sends_max = n);
            plans.extend([to(1), to(producer.sends_max / 2)]);
        }
        // Fewer operations a second, down to one.
        if producer.pause_max_ms < 1_000 {
            plans.push(changed(plan, |p| {
                p.workload.producers[i].pause_max_ms = producer.pause_max_ms * 4 + 10
            }));
        }
    }
    plans
}

fn plain_world(_: &Plan) -> Vec<PlanChange> {
    vec![
        Box::new(|p| p.scheduler = Strategy::Random),
        Box::new(|p| p.drift_ppm = 0),
        Box::new(|p| p.wall_ahead_ms = 0),
        Box::new(|p| p.clocks.clear()),
        Box::new(|p| p.prepared.clear()),
        Box::new(|p| p.buffer_bytes = BUFFER_BYTES),
    ]
}

fn settings(plan: &Plan) -> Vec<PlanChange> {
    let all = plan
        .broker
        .keys()
        .filter(|key| !BROKER_ALWAYS.contains(&key.as_str()));
    all.map(|key| -> PlanChange {
        let key = key.clone();
        Box::new(move |p| drop(p.broker.remove(&key)))
    })
    .collect()
}

fn plain_clients(plan: &Plan) -> Vec<PlanChange> {
    let mut changes: Vec<PlanChange> = vec![
        Box::new(|p| p.workload.client.versions_max.clear()),
        Box::new(|p| {
            let plain = ClientSpec::new("", 0);
            let bootstrap = std::mem::take(&mut p.workload.client.bootstrap);
            let versions_max = std::mem::take(&mut p.workload.client.versions_max);
            p.workload.client = ClientSpec {
                bootstrap,
                versions_max,
                ..plain
            };
        }),
        Box::new(|p| p.workload.topics.iter_mut().for_each(|t| t.configs.clear())),
    ];
    for i in 0..plan.workload.producers.len() {
        for change in PRODUCER {
            changes.push(Box::new(move |p| {
                p.workload.producers.get_mut(i).into_iter().for_each(change)
            }));
        }
    }
    for i in 0..plan.workload.consumers.len() {
        for change in CONSUMER {
            changes.push(Box::new(move |p| {
                p.workload.consumers.get_mut(i).into_iter().for_each(change)
            }));
        }
    }
    changes
}

const PRODUCER: [fn(&mut ProducerSpec); 11] = [
    |s| s.first_sequence = 0,
    |s| s.restarts_after = None,
    |s| s.keys = 0,
    |s| s.padding_bytes_max = 0,
    |s| s.compression = 0,
    |s| s.linger_ms = 0,
    |s| s.batch_records_max = 1,
    |s| s.in_flight_max = s.in_flight_max.min(1),
    |s| s.delivery_timeout_ms = 10_000,
    |s| s.retries_max = None,
    |s| (s.idempotent, s.acks) = (true, -1),
];

const CONSUMER: [fn(&mut ConsumerSpec); 7] = [
    |s| s.sessions = false,
    |s| s.read_committed = false,
    |s| s.rewind_after = None,
    |s| s.pause_max_ms = 0,
    |s| s.stuck_after = None,
    |s| s.min_bytes = 1,
    |s| {
        let plain = ConsumerSpec::tailing(0, Vec::new());
        (s.max_bytes, s.partition_max_bytes) = (plain.max_bytes, plain.partition_max_bytes);
    },
];

fn simpler_faults(plan: &Plan) -> Vec<PlanChange> {
    (0..plan.faults.len())
        .map(|i| -> PlanChange {
            Box::new(move |p| {
                p.faults
                    .get_mut(i)
                    .into_iter()
                    .for_each(|f| f.kind = simpler(&f.kind))
            })
        })
        .collect()
}

/// A simpler fault than this one.
fn simpler(kind: &Kind) -> Kind {
    let mut kind = kind.clone();
    match &mut kind {
        Kind::Restart { broker, .. } if !broker.is_empty() => drop(broker.pop_first()),
        Kind::Kill { down_ms }
        | Kind::KillClient { down_ms, .. }
        | Kind::Blackout { down_ms }
        | Kind::Restart { down_ms, .. } => *down_ms = 0,
        Kind::CleanStop { down_ms, power } => (*down_ms, *power) = (0, false),
        Kind::PowerLoss { down_ms, unsynced } => (*down_ms, *unsynced) = (0, false),
        Kind::SyncFails { power, .. }
        | Kind::WriteFails { power, .. }
        | Kind::OperationFails { power, .. } => *power = false,
        Kind::Cut {
            client,
            to_broker,
            from_broker,
            ..
        } => (*client, *to_broker, *from_broker) = (None, true, true),
        Kind::Narrow { client, .. } => *client = None,
        Kind::Shut { silent, .. } => *silent = false,
        Kind::Reset { half_open, .. } => *half_open = false,
        _ => {}
    }
    kind
}

fn shorter_faults(plan: &Plan) -> Vec<Plan> {
    let mut plans = Vec::new();
    for i in 0..plan.faults.len() {
        for divided_by in [8, 2] {
            plans.push(changed(plan, |p| {
                if let Some(ms) = lasts(&mut p.faults[i].kind)
                    && *ms >= LASTS_MIN_MS * divided_by
                {
                    *ms /= divided_by;
                }
            }));
        }
    }
    plans
}

/// Shorter durations are not reduced further.
const LASTS_MIN_MS: u64 = 20;

fn lasts(kind: &mut Kind) -> Option<&mut u64> {
    match kind {
        Kind::Pause { for_ms }
        | Kind::NoSpace { for_ms, .. }
        | Kind::SlowDisk { for_ms, .. }
        | Kind::HangingDisk { for_ms }
        | Kind::Cut { for_ms, .. }
        | Kind::Delay { for_ms, .. }
        | Kind::Narrow { for_ms, .. }
        | Kind::Swizzle { for_ms }
        | Kind::Shut { for_ms, .. }
        | Kind::DirectoryFails { for_ms, .. }
        | Kind::SyncFails {
            restart_ms: for_ms, ..
        }
        | Kind::WriteFails {
            restart_ms: for_ms, ..
        }
        | Kind::OperationFails {
            restart_ms: for_ms, ..
        } => Some(for_ms),
        _ => None,
    }
}

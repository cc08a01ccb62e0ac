//! Adds what the trace knows to a snapshot.

use std::collections::{BTreeMap, BTreeSet};

use super::model::{FaultState, OperationState, PartitionState, ProcessState, TaskState, WorldState};
use super::snapshot::Snapshot;
use crate::exec::{Nanos, ObservedTask};
use crate::explain::{Band, Trace, WakeupLink, bands, bands_at, disk_operations, fault_text, operations};
use crate::page::{Chart, charts};
use crate::plan::{Plan, node_name};
use crate::trace::EventKind;

/// The state of a run of `plan` at a time, from a snapshot and the trace of the whole run.
pub fn state(plan: &Plan, at: Nanos, snapshot: Snapshot, trace: &Trace) -> WorldState {
    let (run_begins, run_ends) = trace.span();
    let bands = bands(plan, trace.events());
    let now: Vec<&Band> = bands_at(&bands, at).collect();
    let charts = charts(trace.events());
    let tasks = tasks(&snapshot, trace, at);
    WorldState {
        seed: plan.seed,
        at,
        last_event_at: snapshot.now,
        run_begins,
        run_ends,
        processes: processes(plan, &snapshot, &now),
        faults: faults(plan, &snapshot, &now),
        partitions: snapshot
            .partitions
            .into_iter()
            .map(|(folder, log)| {
                let log = with_promises(log, charts.get(folder.rsplit('/').next().unwrap_or_default()), at);
                (folder, log)
            })
            .collect(),
        disks: snapshot.disks,
        writes: snapshot.writes,
        operations: operations(trace, at)
            .iter()
            .filter_map(|o| {
                let wait = o.wait_at(at, run_ends)?;
                Some(OperationState {
                    node: o.begun.node,
                    what: o.text(),
                    begun: o.begun.t,
                    ends: o.ended.map(|e| e.t),
                    waits_since: wait.from.t,
                    after: wait.from.text.clone(),
                    next: wait.to.map(|to| (to.t, to.text.clone())),
                })
            })
            .collect(),
        links: snapshot.links,
        ports: snapshot.ports,
        connections: snapshot.connections,
        tasks,
    }
}

fn processes(plan: &Plan, snapshot: &Snapshot, bands: &[&Band]) -> Vec<ProcessState> {
    let banded = bands.iter().filter(|b| b.class != "fault").map(|b| b.node);
    let nodes: BTreeSet<u32> = snapshot.lives.keys().copied().chain(banded).collect();
    let one = |node: u32| {
        let tasks = snapshot.tasks.iter().filter(|t| t.life.node == node).count();
        let band = bands.iter().find(|b| b.node == node && b.class != "fault");
        let clock = snapshot.clocks.get(&node).copied().unwrap_or_default();
        ProcessState {
            node,
            name: node_name(plan, node),
            life: snapshot.lives.get(&node).copied().unwrap_or(0),
            state: match band {
                Some(band) => band.class,
                None if snapshot.paused.contains(&node) => "paused",
                None if tasks > 0 => "up",
                None => "idle",
            },
            why: band.map(|b| b.text.clone()),
            span: band.map(|b| (b.from, b.to)),
            tasks,
            drift_ppm: clock.drift_ppm,
            wall_ahead_ms: clock.wall_ahead_ms,
        }
    };
    nodes.into_iter().map(one).collect()
}

fn faults(plan: &Plan, snapshot: &Snapshot, bands: &[&Band]) -> Vec<FaultState> {
    // Each fault is a band of the world's, too.
    let lasting = bands.iter().filter(|b| b.class == "fault" && b.node == 0);
    let lasting = lasting.map(|b| FaultState {
        text: b.text.clone(),
        span: Some((b.from, b.to)),
        events_left: None,
    });
    let armed = snapshot.armed.iter().filter_map(|(i, left)| {
        Some(FaultState {
            text: fault_text(plan, plan.faults.get(*i)?),
            span: None,
            events_left: Some(*left),
        })
    });
    lasting.chain(armed).collect()
}

/// A partition with what the broker told clients of it last.
fn with_promises(log: PartitionState, chart: Option<&Chart>, at: Nanos) -> PartitionState {
    let last = |points: &[i64]| {
        let until = points.chunks_exact(2).take_while(|p| p[0] <= at as i64);
        until.last().map(|p| (p[1], p[0] as Nanos))
    };
    PartitionState {
        high_watermark: chart.and_then(|c| last(&c.high_watermark)),
        last_stable_offset: chart.and_then(|c| last(&c.last_stable_offset)),
        ..log
    }
}

fn tasks(snapshot: &Snapshot, trace: &Trace, at: Nanos) -> Vec<TaskState> {
    let mut disk: BTreeMap<u64, Vec<String>> = BTreeMap::new();
    for operation in disk_operations(trace, at) {
        let what = match &operation.begun.what {
            EventKind::Write { file, at, len, .. } => format!("its write to {file} at {at}, {len} bytes"),
            EventKind::Sync { file, .. } => format!("its sync of {file}"),
            _ => continue,
        };
        if let Some(id) = operation.begun.id {
            disk.entry(id).or_default().push(what);
        }
    }
    let one = |task: &ObservedTask| {
        let mut waits_for = Vec::new();
        if task.is_ready {
            waits_for.push(match snapshot.paused.contains(&task.life.node) {
                true => "the end of its node's pause".to_owned(),
                false => "its turn".to_owned(),
            });
        }
        waits_for.extend(task.timer.map(|t| format!("a timer at {} s", seconds(t))));
        waits_for.extend(snapshot.waits.get(&task.waker).into_iter().flatten().cloned());
        waits_for.extend(disk.get(&task.id).into_iter().flatten().cloned());
        TaskState {
            id: task.id,
            node: task.life.node,
            name: task.name,
            waits_since: task.ran_at,
            waits_for,
            woken_by: trace.causes().get(task.woken_by).map(woken_by),
        }
    };
    snapshot.tasks.iter().map(one).collect()
}

fn woken_by(link: &WakeupLink) -> (String, Nanos) {
    let text = match (&link.task, link.note) {
        (Some(task), Some(_)) => format!("task {task} of node {}, which made it", link.node),
        (Some(task), None) => format!("task {task} of node {}", link.node),
        (None, _) => link.who(),
    };
    (text, link.t)
}

/// A time in seconds.
pub(super) fn seconds(t: Nanos) -> String {
    format!("{}.{:06}", t / 1_000_000_000, t % 1_000_000_000 / 1_000)
}

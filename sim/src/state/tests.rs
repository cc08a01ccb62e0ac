use std::io;

use super::*;
use crate::explain::Trace;
use crate::plan::{BROKER, Faults, Plan};
use crate::scenario::{run, run_observed};
use crate::trace::{JsonLines, Tracer};
use std::sync::{Arc, Mutex};

/// A trace in memory.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        crate::exec::lock(&self.0).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn observed(plan: &Plan, at: u64) -> (String, Option<WorldState>) {
    let lines = Lines::default();
    let tracer = Tracer::new(Box::new(JsonLines(lines.clone())));
    let (report, traced, snapshot) = run_observed(plan.clone(), tracer, at);
    traced.expect("memory can be written");
    let trace = Trace::read(&crate::exec::lock(&lines.0)[..]).expect("it is a trace");
    (report.hash, snapshot.map(|s| state(plan, at, s, &trace)))
}

#[test]
fn a_state_has_all_parts_and_changes_nothing_in_the_run() {
    let plan = Plan::of(7, 4, &Faults::None);
    let (hash, observed_state) = observed(&plan, 3_000_000_000);
    assert_eq!(hash, run(plan.clone()).hash, "observing a run changes it");
    let state = observed_state.expect("the run lasts so long");
    assert!(state.last_event_at <= state.at && state.at < state.run_ends);
    let broker = state
        .processes
        .iter()
        .find(|p| p.node == BROKER)
        .expect("the broker");
    assert_eq!((broker.state, broker.life), ("up", 0));
    assert!(broker.tasks > 3, "{broker:?}");
    let metadata = state
        .partitions
        .get("data/__cluster_metadata-0")
        .expect("the metadata");
    assert!(
        metadata.log_end > 0 && metadata.durable_end <= metadata.log_end,
        "{metadata:?}"
    );
    let served = state.partitions.values().filter(|p| p.high_watermark.is_some());
    for log in served {
        let (high_watermark, at) = log.high_watermark.expect("it was filtered");
        assert!(high_watermark <= log.log_end && at <= state.at, "{log:?}");
    }
    let disk = &state.disks[&BROKER];
    assert!(
        disk.files
            .iter()
            .any(|f| f.path == "data/meta.properties" && f.durable_len > 0)
    );
    assert!(!state.ports.is_empty() && !state.connections.is_empty());
    assert_eq!(state.faults, []);
    // Somebody waits for a timer, somebody for a connection.
    for what in ["a timer at", "bytes on connection", "a connection to port"] {
        let waits = |t: &TaskState| t.waits_for.iter().any(|w| w.contains(what));
        assert!(state.tasks.iter().any(waits), "{what}: {:?}", state.tasks);
    }
    assert!(state.tasks.iter().all(|t| t.waits_since <= state.at));
    let text = text(&state);
    for part in [
        "seed 7 at 3.000000 s",
        "data/__cluster_metadata-0",
        "tasks of node 1",
        "life 0",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let (_, again) = observed(&plan, 3_000_000_000);
    assert_eq!(again, Some(state), "the same state the second time");
}

#[test]
fn a_run_that_ended_before_has_no_state() {
    let plan = Plan::of(7, 2, &Faults::None);
    assert_eq!(observed(&plan, 900_000_000_000).1, None);
}

//! The times in which a node was down, starting or paused, and in which a fault lasted.

use std::collections::BTreeMap;

use serde::Serialize;

use super::fault::{fault_text, lasting};
use crate::exec::Nanos;
use crate::plan::{FIRST_CLIENT, Fault, Plan};
use crate::trace::{Event, EventKind};

/// A time that is shown as a band in a node's lane.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Band {
    /// The node.
    pub node: u32,
    /// When it begins.
    pub from: Nanos,
    /// When it ends.
    pub to: Nanos,
    /// `down`, `starting`, `paused` or `fault`.
    pub class: &'static str,
    /// What it is, in words.
    pub text: String,
}

/// The world's lane has a band for every fault.
const WORLD: u32 = 0;
const MILLI: Nanos = 1_000_000;

/// The bands of a run, by their begin.
pub fn bands(plan: &Plan, events: &[Event]) -> Vec<Band> {
    let mut found = Bands {
        plan,
        done: Vec::new(),
        open: BTreeMap::new(),
        lasting: Vec::new(),
    };
    for event in events {
        found.take(event);
    }
    let end = events.last().map_or(0, |e| e.t);
    found.end_faults(end);
    let open: Vec<u32> = found.open.keys().copied().collect();
    open.into_iter().for_each(|node| found.close(node, end));
    found.done.sort_by_key(|band| band.from);
    found.done
}

struct Bands<'a> {
    plan: &'a Plan,
    done: Vec<Band>,
    /// The state of a node that is not up.
    open: BTreeMap<u32, Band>,
    /// Faults that may still last.
    lasting: Vec<Band>,
}

impl Bands<'_> {
    fn take(&mut self, event: &Event) {
        let t = event.t;
        match &event.what {
            EventKind::Kill { of } => self.begin(*of, t, "down", "killed (kill -9)"),
            EventKind::PowerLoss { of } => self.begin(*of, t, "down", "without power"),
            EventKind::Ended { of } => self.begin(*of, t, "down", "its process has ended"),
            EventKind::Start { of } => self.begin(*of, t, "starting", "starts: opens and recovers its logs"),
            EventKind::Started { of, how } => {
                self.close(*of, t);
                if !how.starts_with("serves") {
                    self.begin(*of, t, "down", how);
                }
            }
            EventKind::Pause { of } => self.begin(*of, t, "paused", "paused (SIGSTOP)"),
            EventKind::Resume { of } => self.resume(*of, t),
            EventKind::Fault { fault } => self.fault(t, fault),
            EventKind::Calm => self.end_faults(t),
            // A client has no event for its start: it is up when it does something.
            _ if event.node >= FIRST_CLIENT => self.close(event.node, t),
            _ => {}
        }
    }

    fn begin(&mut self, node: u32, t: Nanos, class: &'static str, text: &str) {
        self.close(node, t);
        let band = Band {
            node,
            from: t,
            to: t,
            class,
            text: text.to_owned(),
        };
        self.open.insert(node, band);
    }

    fn close(&mut self, node: u32, t: Nanos) {
        if let Some(band) = self.open.remove(&node) {
            self.done.push(Band { to: t, ..band });
        }
    }

    /// A process that was killed while it was paused stays down.
    fn resume(&mut self, node: u32, t: Nanos) {
        if self.open.get(&node).is_some_and(|band| band.class == "paused") {
            self.close(node, t);
        }
    }

    fn fault(&mut self, t: Nanos, fault: &serde_json::Value) {
        let Ok(fault) = serde_json::from_value::<Fault>(fault.clone()) else {
            return;
        };
        let Some((for_ms, node)) = lasting(&fault.kind) else {
            return;
        };
        let w = &self.plan.workload;
        let clients = FIRST_CLIENT..FIRST_CLIENT + (w.producers.len() + w.consumers.len()) as u32;
        let nodes = match node {
            Some(node) => vec![node],
            None => clients.collect(),
        };
        let text = fault_text(self.plan, &fault);
        self.lasting
            .extend(nodes.into_iter().chain([WORLD]).map(|node| Band {
                node,
                from: t,
                to: t + for_ms * MILLI,
                class: "fault",
                text: text.clone(),
            }));
    }

    /// All faults end by then.
    fn end_faults(&mut self, t: Nanos) {
        let ended = self.lasting.drain(..).map(|band| Band {
            to: band.to.min(t),
            ..band
        });
        self.done.extend(ended);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{BROKER, Faults};
    use serde_json::json;

    fn event(ms: u64, node: u32, what: EventKind) -> Event {
        Event {
            n: ms,
            t: ms * MILLI,
            node,
            life: 0,
            task: None,
            id: None,
            by: None,
            what,
        }
    }

    #[test]
    fn deaths_starts_pauses_and_faults_become_bands() {
        let plan = Plan::of(4, 20, &Faults::None);
        let cut = json!({"kind": "cut", "id": 1, "at_ms": 0, "client": 10, "to_broker": true, "from_broker": true, "for_ms": 5000});
        let of = BROKER;
        let how = |text: &str| EventKind::Started {
            of,
            how: text.to_owned(),
        };
        let events = [
            event(1000, 0, EventKind::Start { of }),
            event(1010, 0, how("serves, its logs are open")),
            event(1020, 0, EventKind::Kill { of: 10 }),
            event(1030, 0, EventKind::Fault { fault: cut }),
            event(1040, 10, EventKind::Connect { to: 1, port: 1 }),
            event(1050, 0, EventKind::Pause { of }),
            event(1060, 0, EventKind::PowerLoss { of }),
            event(1070, 0, EventKind::Resume { of }),
            event(1080, 0, EventKind::Start { of }),
            event(1085, 0, how("the start failed: no")),
            event(1090, 0, EventKind::Calm),
            event(1100, 0, EventKind::Pause { of }),
        ];
        let found: Vec<_> = bands(&plan, &events)
            .into_iter()
            .map(|b| (b.node, b.from / MILLI, b.to / MILLI, b.class))
            .collect();
        assert_eq!(
            found,
            [
                (1, 1000, 1010, "starting"),
                (10, 1020, 1040, "down"),
                (10, 1030, 1090, "fault"),
                (0, 1030, 1090, "fault"),
                (1, 1050, 1060, "paused"),
                (1, 1060, 1080, "down"),
                (1, 1080, 1085, "starting"),
                (1, 1085, 1100, "down"),
                (1, 1100, 1100, "paused"),
            ]
        );
    }
}

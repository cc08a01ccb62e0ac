//! The events of a run as the page's script reads them: in columns, with differences instead of large numbers.
//!
//! ```text
//!   n, t     of each event, the difference to the event before
//!   by       the event's number minus its cause's; 0 for none
//!   node     the index among the nodes
//!   task     the index of its name among the strings, or -1
//!   what     the event itself (see `pack`)
//!   arrives  of requests and responses: the row, and how many nanoseconds later the last byte arrives
//! ```
//! Rows are the events without the scheduler's, and those of the scheduler's that caused them.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde_json::{Value, json};

use super::charts::{Chart, charts};
use super::pack::Packer;
use crate::exec::Nanos;
use crate::explain::{Band, Causes, Explanation, Trace, WakeupLink, bands};
use crate::plan::{Plan, node_name};
use crate::trace::Event;

/// Of a longer trace the earliest events are left out, except those of the explanation.
const EVENTS_MAX: usize = 400_000;

/// See the module.
#[derive(Default, Serialize)]
pub struct Data {
    strings: Vec<String>,
    shapes: Vec<Vec<String>>,
    nodes: Vec<(u32, String)>,
    n: Vec<u64>,
    t: Vec<Nanos>,
    by: Vec<u64>,
    node: Vec<usize>,
    life: Vec<u32>,
    task: Vec<i64>,
    what: Vec<Value>,
    arrives: Vec<(usize, Nanos)>,
    bands: Vec<Band>,
    charts: BTreeMap<String, Chart>,
    /// The partitions that the explanation is about.
    partitions: BTreeSet<String>,
    /// The picked events of the explanation, with their text.
    picked: Vec<(u64, String)>,
    /// The runs and timers that led to the violation, the last one first.
    chain: Vec<u64>,
    /// The number of events that were left out.
    pub left_out: usize,
}

/// A row before it is packed.
struct Row {
    t: Nanos,
    node: u32,
    life: u32,
    task: Option<String>,
    by: u64,
    what: Value,
}

impl Data {
    /// The data of a run.
    pub fn new(plan: &Plan, trace: &Trace, explanation: &Explanation) -> Self {
        Self::of(plan, trace, explanation, EVENTS_MAX)
    }

    fn of(plan: &Plan, trace: &Trace, explanation: &Explanation, events_max: usize) -> Self {
        let events = trace.events();
        let cut = events.len().saturating_sub(events_max);
        let picked: BTreeSet<u64> = explanation.picked.iter().map(|(n, _)| *n).collect();
        let is_kept = |(i, event): &(usize, &Event)| *i >= cut || picked.contains(&event.n);
        let kept: Vec<&Event> = events
            .iter()
            .enumerate()
            .filter(is_kept)
            .map(|(_, e)| e)
            .collect();
        let mut data = Self {
            bands: bands(plan, events),
            charts: charts(events),
            partitions: explanation.partitions.clone(),
            picked: explanation.picked.clone(),
            chain: explanation.chain.clone(),
            left_out: events.len() - kept.len(),
            ..Self::default()
        };
        data.put(plan, rows(&kept, trace.causes()));
        data.put_arrivals(&kept, trace);
        data
    }

    fn put(&mut self, plan: &Plan, rows: BTreeMap<u64, Row>) {
        let banded = self.bands.iter().map(|band| band.node);
        let nodes: BTreeSet<u32> = rows.values().map(|row| row.node).chain(banded).collect();
        let indexes: BTreeMap<u32, usize> = nodes.iter().copied().zip(0..).collect();
        self.nodes = nodes
            .into_iter()
            .map(|node| (node, node_name(plan, node)))
            .collect();
        let mut packer = Packer::default();
        let (mut n_before, mut t_before) = (0, 0);
        for (n, row) in rows {
            self.n.push(n - n_before);
            self.t.push(row.t - t_before);
            (n_before, t_before) = (n, row.t);
            self.by.push(if row.by > 0 { n - row.by } else { 0 });
            self.node.push(indexes[&row.node]);
            self.life.push(row.life);
            self.task
                .push(row.task.map_or(-1, |task| packer.string(&task) as i64));
            self.what.push(packer.event(&row.what));
        }
        (self.strings, self.shapes) = packer.into_tables();
    }

    /// Adds when requests and responses arrive: with the last bytes that were sent before on their connection.
    fn put_arrivals(&mut self, kept: &[&Event], trace: &Trace) {
        let mut number = 0;
        let row_of: BTreeMap<u64, usize> = self
            .n
            .iter()
            .zip(0..)
            .map(|(difference, row)| {
                number += difference;
                (number, row)
            })
            .collect();
        for event in kept {
            if let Some(arrives) = trace.arrives(event.n) {
                self.arrives
                    .push((row_of[&event.n], arrives.saturating_sub(event.t)));
            }
        }
    }

    /// The data as JSON.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("it can be written")
    }
}

/// The kept events and all that caused them, by number.
fn rows(kept: &[&Event], causes: &Causes) -> BTreeMap<u64, Row> {
    let mut rows = BTreeMap::new();
    for event in kept {
        let mut what = serde_json::to_value(&event.what).expect("an event can be written");
        shorten(&mut what);
        let row = Row {
            t: event.t,
            node: event.node,
            life: event.life,
            task: event.task.as_deref().map(str::to_owned),
            by: event.by.unwrap_or(0),
            what,
        };
        rows.insert(event.n, row);
        let mut at = event.by.unwrap_or(0);
        while let Some(link) = causes.get(at)
            && !rows.contains_key(&at)
        {
            rows.insert(at, cause(link));
            at = link.by;
        }
    }
    rows
}

fn cause(link: &WakeupLink) -> Row {
    let kind = if link.task.is_some() { "run" } else { "timer" };
    let what = match link.note {
        Some(note) => json!({"e": kind, "note": note}),
        None => json!({"e": kind}),
    };
    Row {
        t: link.t,
        node: link.node,
        life: 0,
        task: link.task.as_deref().map(str::to_owned),
        by: link.by,
        what,
    }
}

/// Leaves out checksums, which only a comparison of two traces needs.
fn shorten(what: &mut Value) {
    if let Value::Object(fields) = what {
        fields.remove("crc");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::page::pack::unpacked;
    use crate::plan::Faults;

    const LINES: &str = r#"{"n":3,"t":1000000000,"node":10,"life":0,"task":"producer","id":1,"e":"run"}
{"n":4,"t":1000000000,"node":10,"life":0,"task":"producer","id":1,"by":3,"e":"send","conn":2,"to":1,"len":9,"crc":5,"arrives":1000000700}
{"n":5,"t":1000000000,"node":10,"life":0,"task":"producer","id":1,"by":3,"e":"request","conn":2,"to":1,"api":"Produce","version":13,"correlation":7,"len":9}
{"n":6,"t":1000000700,"node":1,"life":0,"by":3,"e":"timer"}
{"n":7,"t":1000000700,"node":1,"life":0,"by":6,"e":"arrive","conn":2,"len":9}
{"n":9,"t":1000000800,"node":1,"life":2,"task":"partition","id":3,"by":6,"e":"run"}
{"n":10,"t":1000000800,"node":1,"life":2,"task":"partition","id":3,"by":9,"e":"write","write":1,"file":"data/t0-0/0.log","at":0,"len":9,"crc":1}
{"n":11,"t":1000000800,"node":8,"life":0,"task":"idle","id":4,"e":"run"}
"#;

    fn data(events_max: usize, picked: &[u64]) -> Data {
        let plan = Plan::of(4, 20, &Faults::None);
        let trace = Trace::read(LINES.as_bytes()).expect("it is a trace");
        let explanation = Explanation {
            picked: picked.iter().map(|n| (*n, "a text".to_owned())).collect(),
            ..Explanation::default()
        };
        Data::of(&plan, &trace, &explanation, events_max)
    }

    #[test]
    fn rows_are_the_events_and_what_caused_them() {
        let data = data(10, &[]);
        // Not: bytes that were sent and arrived, and a run that caused nothing.
        assert_eq!(data.n, [3, 2, 1, 3, 1]);
        assert_eq!(data.t, [1_000_000_000, 0, 700, 100, 0]);
        assert_eq!(data.by, [0, 2, 3, 3, 1]);
        let names: Vec<&str> = data.nodes.iter().map(|(_, name)| name.as_str()).collect();
        assert_eq!(names[0], "broker");
        assert!(names[1].starts_with("producer"), "{names:?}");
        assert_eq!(data.node, [1, 1, 0, 0, 0]);
        assert_eq!(data.life[4], 2);
        assert_eq!(data.arrives, [(1, 700)]);
        let what = |row: usize| unpacked(&data.what[row], &data.strings, &data.shapes);
        assert_eq!(what(2), json!({"e": "timer", "note": "bytes arrive"}));
        assert_eq!(
            what(4),
            json!({"e": "write", "write": 1, "file": "data/t0-0/0.log", "at": 0, "len": 9})
        );
        assert_eq!(data.strings[data.task[3] as usize], "partition");
        assert_eq!((data.task[2], data.left_out), (-1, 0));
        assert!(data.charts.is_empty() && data.bands.is_empty());
    }

    #[test]
    fn the_earliest_events_of_a_long_trace_are_left_out() {
        let few = data(1, &[]);
        assert_eq!((few.left_out, few.n.last()), (1, Some(&1)));
        assert_eq!(few.arrives, []);
        let with_picked = data(1, &[5]);
        assert_eq!((with_picked.left_out, with_picked.n.len()), (0, 5));
    }
}

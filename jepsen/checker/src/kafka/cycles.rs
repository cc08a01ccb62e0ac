//! Cycles among operations: write-write (G0), with write-read (G1c), and both with realtime.
//!
//! An operation precedes another if the other read what it sent (`wr`), if the other's record follows its record in a log (`ww`, only
//! where asked for: records of Kafka's transactions interleave), or if it ended before the other began (`realtime`). A cycle is a
//! contradiction. There are no anti-dependencies (`rw`): a poll that doesn't see a record proves nothing about it. Nor are there
//! edges for a process's order, since each process does one thing at a time and realtime has them all.
//!
//! Each component of the graph gives one cycle of each kind, a short one. Elle's `…-cycle-exists` and `cycle-search-timeout`, which
//! say that a search was given up, do not occur: a component always yields its cycle in linear time.

use brokkr_history::Type;
use serde_json::{Value, json};

use super::records::Known;
use super::store::{F, NONE, Row};
use crate::Finding;
use crate::graph::{Cycles, Graph, REALTIME, Rel, Span, Step, WR, WW};

/// What was found.
pub(super) struct Found {
    pub(super) cycles: Vec<(&'static str, Vec<Finding>)>,
    /// Nothing relates any two operations.
    pub(super) empty: bool,
}

/// Looks for cycles; with `ww_deps` also among writes.
pub(super) fn find(known: Known<'_>, ww_deps: bool) -> Found {
    let graph = graph(known, ww_deps);
    let empty = graph.is_empty();
    let mut cycles = Vec::new();
    if !graph.components(WW | WR | REALTIME).is_empty() {
        let (ww, data) = (graph.components(WW), graph.components(WW | WR));
        let kinds = [
            ("G0", WW, WW, ww.clone(), [].as_slice()),
            ("G1c", WW | WR, WR, data.clone(), [].as_slice()),
            (
                "G0-realtime",
                WW | REALTIME,
                WW,
                graph.components(WW | REALTIME),
                ww.as_slice(),
            ),
            (
                "G1c-realtime",
                WW | WR | REALTIME,
                WR,
                graph.components(WW | WR | REALTIME),
                data.as_slice(),
            ),
        ];
        for (name, rels, required, components, within) in kinds {
            let mut search = Cycles::new(&graph);
            // Where data alone contradict each other time adds nothing.
            let fresh = components
                .iter()
                .filter(|c| !within.iter().any(|w| c.binary_search(&w[0]).is_ok()));
            let found = fresh.filter_map(|c| search.find(c, rels, required));
            cycles.push((name, found.map(|cycle| finding(known, &cycle)).collect()));
        }
    }
    Found { cycles, empty }
}

fn graph(known: Known<'_>, ww_deps: bool) -> Graph {
    let store = known.store;
    let span = |row: &super::store::OpRow| {
        let of_graph = row.f == F::Micro;
        Span {
            began: Some(row.began).filter(|b| of_graph && *b != NONE),
            ended: Some(row.index).filter(|_| of_graph && row.type_ == Type::Ok),
        }
    };
    let spans: Vec<_> = store.ops.iter().map(span).collect();
    let mut edges: Vec<(u32, u32, Rel)> = Vec::new();
    let mut link = |a: u32, b: u32, rel| {
        if a != NONE && b != NONE && a != b && edges.last() != Some(&(a, b, rel)) {
            edges.push((a, b, rel));
        }
    };
    for (op, _) in store.rows() {
        for read in store.reads_of(op) {
            link(known.facts.writer[read.value as usize], op, WR);
        }
    }
    if ww_deps {
        for key in 0..super::store::number(store.keys.len()) {
            for pair in known.orders.by_index(key).windows(2) {
                // Of a value that stands in several places only one counts.
                if known.orders.previous(key, pair[1]) == Some(pair[0]) {
                    link(
                        known.facts.writer[pair[0] as usize],
                        known.facts.writer[pair[1] as usize],
                        WW,
                    );
                }
            }
        }
    }
    Graph::new(&spans, &edges)
}

/// The first micro-operation of `rows` that has `value`.
fn micro(rows: &[Row], value: u32) -> Option<u32> {
    rows.iter().find(|r| r.value == value).map(|r| r.micro)
}

/// Why `a` precedes `b`: as data, and as a sentence.
fn step(known: Known<'_>, a: u32, b: u32, rel: Rel) -> (Value, String) {
    let store = known.store;
    let (t1, t2) = (store.index(a), store.index(b));
    if rel == REALTIME {
        let (ended, began) = (&store.ops[a as usize], &store.ops[b as usize]);
        let mut data = json!({"type": "realtime", "ops": [t1, t2]});
        let mut why = format!("operation {t1} had ended before {t2} began (at {})", began.began);
        if ended.process == began.process {
            data["process"] = json!(ended.process);
            why += &format!(", both by process {}", ended.process);
        }
        return (data, why);
    }
    if rel == WR {
        let reads = store.reads_of(b);
        let value = reads
            .iter()
            .map(|r| r.value)
            .find(|v| known.facts.writer[*v as usize] == a);
        let value = value.expect("an edge has a reason");
        let key = known.key(store.key_of(value));
        let data = json!({
            "type": "wr", "key": key, "value": known.json(value),
            "a_mop": micro(store.writes_of(a), value), "b_mop": micro(reads, value),
        });
        return (
            data,
            format!(
                "operation {t1} sent {} to {key}, which {t2} read",
                store.val(value)
            ),
        );
    }
    let writes = store.writes_of(b).iter().map(|w| w.value);
    let pairs = writes.filter_map(|v| Some((known.orders.previous(store.key_of(v), v)?, v)));
    let mut ours = pairs.filter(|(before, v)| {
        known.facts.writer[*before as usize] == a && known.facts.writer[*v as usize] == b
    });
    let (before, value) = ours.next().expect("an edge has a reason");
    let key = known.key(store.key_of(value));
    let data = json!({
        "type": "ww", "key": key, "value": known.json(before), "value2": known.json(value),
        "a_mop": micro(store.writes_of(a), before), "b_mop": micro(store.writes_of(b), value),
    });
    let (before, value) = (store.val(before), store.val(value));
    (
        data,
        format!("operation {t1} sent {before} to {key}, right before {value} of {t2}"),
    )
}

fn finding(known: Known<'_>, cycle: &[Step]) -> Finding {
    let next = |i: usize| cycle[(i + 1) % cycle.len()].0;
    let (mut steps, mut reasons) = (Vec::new(), Vec::new());
    for (i, (op, rel)) in cycle.iter().enumerate() {
        let (data, why) = step(known, *op, next(i), *rel);
        steps.push(data);
        reasons.push(why);
    }
    let mut ops: Vec<_> = cycle.iter().map(|(op, _)| known.store.index(*op)).collect();
    ops.push(ops[0]);
    let last = reasons.pop().expect("a cycle has steps");
    let text = format!("{}; yet {last}: a contradiction", reasons.join("; "));
    Finding::new(json!({"cycle": ops, "steps": steps}), ops.iter().copied(), text)
}

//! Cycles among operations: write-write (G0), with write-read (G1c), and both with realtime.
//!
//! An operation precedes another if the other read its record (`wr`), if the other's record follows its record in a log
//! (`ww`, only with the option, since records of Kafka's transactions interleave), or if it ended before the other began
//! (`realtime`). A cycle is a contradiction. There are no anti-dependencies (`rw`): a poll that does not return a record
//! proves nothing about it. There are no edges for process order either, since each process does one thing at a time and
//! realtime contains them.
//!
//! Each component of the graph yields one short cycle of each kind. With `ww` edges, cycles without them come first, and only
//! cycles that need one are allowed. Elle's `…-cycle-exists` and `cycle-search-timeout`, which
//! report an abandoned search, do not occur: finding a cycle of a component takes linear time.

use brokkr_history::Type;
use serde_json::{Value, json};

use super::records::HistoryView;
use super::store::{NONE, OpKind, Row};
use crate::Finding;
use crate::graph::{Cycles, Graph, OpSpan, REALTIME, Rel, Step, WR, WW};

/// Cycles found in a history.
pub(super) struct FoundCycles {
    pub(super) cycles: Vec<(&'static str, Vec<Finding>)>,
    /// Whether no two operations are related.
    pub(super) empty: bool,
}

/// Why a cycle is allowed that only the order of writes closes.
const ONLY_WITH_WRITES: &str =
    "only the order of writes closes it, and Kafka does not isolate the writes of a transaction from others";

/// A kind of cycle.
struct CycleKind {
    name: &'static str,
    /// The edges that it may have, and the one that it must have.
    rels: Rel,
    required: Rel,
}

/// Cycles of data alone, and with realtime.
const KINDS: [CycleKind; 4] = [
    CycleKind {
        name: "G0",
        rels: WW,
        required: WW,
    },
    CycleKind {
        name: "G1c",
        rels: WW | WR,
        required: WR,
    },
    CycleKind {
        name: "G0-realtime",
        rels: WW | REALTIME,
        required: WW,
    },
    CycleKind {
        name: "G1c-realtime",
        rels: WW | WR | REALTIME,
        required: WR,
    },
];

/// Searches for cycles; with `ww_deps` also among writes.
pub(super) fn find(view: HistoryView<'_>, ww_deps: bool) -> FoundCycles {
    let graph = graph(view, ww_deps);
    let empty = graph.is_empty();
    let mut cycles = Vec::new();
    if !graph.components(WW | WR | REALTIME).is_empty() {
        for kind in &KINDS {
            let found = cycles_of(&graph, kind);
            let findings = found.into_iter().map(|(cycle, needs_writes)| {
                let finding = finding(view, &cycle);
                match needs_writes {
                    true => finding.waived(ONLY_WITH_WRITES),
                    false => finding,
                }
            });
            cycles.push((kind.name, findings.collect()));
        }
    }
    FoundCycles { cycles, empty }
}

/// A short cycle for each component, and whether it needs the order of writes. What reads alone contradict comes first.
fn cycles_of(graph: &Graph, kind: &CycleKind) -> Vec<(Vec<Step>, bool)> {
    let mut search = Search {
        cycles: Cycles::new(graph),
        of_data: Operations::of(graph, &graph.components(kind.rels & !REALTIME)),
        required: kind.required,
    };
    let mut found = Vec::new();
    let reads = kind.rels & !WW;
    let of_reads = match kind.required {
        WR => graph.components(reads),
        _ => Vec::new(),
    };
    for component in &of_reads {
        found.extend(search.find(component, reads).map(|cycle| (cycle, false)));
    }
    let judged = Operations::of(graph, &of_reads);
    for component in graph.components(kind.rels) {
        if !judged.meet(&component) {
            let cycle = search.find(&component, kind.rels);
            found.extend(cycle.map(|cycle| (cycle, kind.required == WR)));
        }
    }
    found
}

/// The operations of some components.
struct Operations(Vec<bool>);

impl Operations {
    fn of(graph: &Graph, components: &[Vec<u32>]) -> Self {
        let mut inside = vec![false; graph.ops()];
        for op in components.iter().flatten() {
            inside[*op as usize] = true;
        }
        Self(inside)
    }

    /// Whether one of them is in a component.
    fn meet(&self, component: &[u32]) -> bool {
        component.iter().any(|op| self.0[*op as usize])
    }
}

struct Search<'a> {
    cycles: Cycles<'a>,
    /// The operations of components of data alone.
    of_data: Operations,
    required: Rel,
}

impl Search<'_> {
    /// A cycle in a component. With realtime among the edges it has a step of realtime: without one it is an anomaly of data
    /// alone.
    fn find(&mut self, component: &[u32], rels: Rel) -> Option<Vec<Step>> {
        if rels & REALTIME == 0 || !self.of_data.meet(component) {
            return self.cycles.find(component, rels, self.required);
        }
        self.cycles.find_through_time(component, rels, self.required)
    }
}

fn graph(view: HistoryView<'_>, ww_deps: bool) -> Graph {
    let store = view.store;
    let span = |row: &super::store::OpRow| {
        let of_graph = row.f == OpKind::Micro;
        OpSpan {
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
            link(view.facts.writer[read.value as usize], op, WR);
        }
    }
    if ww_deps {
        for key in 0..super::store::number(store.keys.len()) {
            for pair in view.orders.by_index(key).windows(2) {
                // Of a value at several positions only one counts.
                if view.orders.previous(key, pair[1]) == Some(pair[0]) {
                    link(
                        view.facts.writer[pair[0] as usize],
                        view.facts.writer[pair[1] as usize],
                        WW,
                    );
                }
            }
        }
    }
    Graph::new(&spans, &edges)
}

/// The first micro-operation of `rows` with `value`.
fn micro(rows: &[Row], value: u32) -> Option<u32> {
    rows.iter().find(|r| r.value == value).map(|r| r.micro())
}

/// The reason why `a` precedes `b`, as data and as a sentence.
fn step(view: HistoryView<'_>, a: u32, b: u32, rel: Rel) -> (Value, String) {
    let store = view.store;
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
            .find(|v| view.facts.writer[*v as usize] == a);
        let value = value.expect("an edge has a reason");
        let key = view.key(store.key_of(value));
        let data = json!({
            "type": "wr", "key": key, "value": view.json(value),
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
    let pairs = writes.filter_map(|v| Some((view.orders.previous(store.key_of(v), v)?, v)));
    let mut ours = pairs.filter(|(before, v)| {
        view.facts.writer[*before as usize] == a && view.facts.writer[*v as usize] == b
    });
    let (before, value) = ours.next().expect("an edge has a reason");
    let key = view.key(store.key_of(value));
    let data = json!({
        "type": "ww", "key": key, "value": view.json(before), "value2": view.json(value),
        "a_mop": micro(store.writes_of(a), before), "b_mop": micro(store.writes_of(b), value),
    });
    let (before, value) = (store.val(before), store.val(value));
    (
        data,
        format!("operation {t1} sent {before} to {key}, right before {value} of {t2}"),
    )
}

fn finding(view: HistoryView<'_>, cycle: &[Step]) -> Finding {
    let next = |i: usize| cycle[(i + 1) % cycle.len()].0;
    let (mut steps, mut reasons) = (Vec::new(), Vec::new());
    for (i, (op, rel)) in cycle.iter().enumerate() {
        let (data, why) = step(view, *op, next(i), *rel);
        steps.push(data);
        reasons.push(why);
    }
    let mut ops: Vec<_> = cycle.iter().map(|(op, _)| view.store.index(*op)).collect();
    ops.push(ops[0]);
    let last = reasons.pop().expect("a cycle has steps");
    let text = format!("{}; yet {last}: a contradiction", reasons.join("; "));
    Finding::new(json!({"cycle": ops, "steps": steps}), ops.iter().copied(), text)
}

//! A precedence graph over operations, its strongly connected components, and short cycles in them.
//!
//! Realtime order (one operation ended before the other began) has too many edges to store. Instead every ended operation has
//! an edge to an instant, each instant to the next one, and an instant to the operations that began after it and before the
//! next one. `n` operations have at most `n` instants, and a path through instants alone is one realtime step.
//!
//! ```text
//!  op a ──▶ (ended a) ──▶ (ended b) ──▶ op d
//!               └────────▶ op c
//! ```

use std::collections::VecDeque;

/// Kinds of edges, as bits.
pub(crate) type Rel = u8;
/// One wrote the record that follows the other's record.
pub(crate) const WW: Rel = 1;
/// One read what the other wrote.
pub(crate) const WR: Rel = 2;
/// One began after the other ended.
pub(crate) const REALTIME: Rel = 4;

/// After this many edges a search for a shorter cycle stops.
const SEARCH_EDGES_MAX: u64 = 20_000_000;
/// Maximum number of cycles searched in one component, of which the shortest is kept.
const SEARCHES_MAX: usize = 64;

/// Positions in the history at which an operation began and ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OpSpan {
    /// `None`: the beginning was not recorded, so nothing is known to precede the operation.
    pub(crate) began: Option<u32>,
    /// `None`: it is not known to have ended, so it precedes nothing.
    pub(crate) ended: Option<u32>,
}

/// A graph over operations `0..n`; nodes from `n` on are instants.
pub(crate) struct Graph {
    ops: u32,
    /// Data edges; those of operation `o` are in `from[o]..from[o + 1]`.
    from: Vec<u32>,
    to: Vec<u32>,
    rel: Vec<Rel>,
    /// The instant at which each operation ended.
    instant: Vec<u32>,
    /// Operations by beginning; those that began at instant `i` are in `begun[i]..begun[i + 1]`.
    begin_order: Vec<u32>,
    begun: Vec<u32>,
}

const NONE: u32 = u32::MAX;

fn size(n: usize) -> u32 {
    u32::try_from(n).expect("fewer than 2³² of everything in a history")
}

impl Graph {
    /// Builds the graph of these operations and data edges.
    pub(crate) fn new(spans: &[OpSpan], edges: &[(u32, u32, Rel)]) -> Self {
        let ops = spans.len();
        let mut from = vec![0u32; ops + 1];
        for (a, ..) in edges {
            from[*a as usize + 1] += 1;
        }
        for i in 0..ops {
            from[i + 1] += from[i];
        }
        let mut next = from.clone();
        let (mut to, mut rel) = (vec![0; edges.len()], vec![0; edges.len()]);
        for (a, b, r) in edges {
            let at = next[*a as usize] as usize;
            (to[at], rel[at]) = (*b, *r);
            next[*a as usize] += 1;
        }
        let mut graph = Self {
            ops: size(ops),
            from,
            to,
            rel,
            instant: Vec::new(),
            begin_order: Vec::new(),
            begun: Vec::new(),
        };
        graph.keep_time(spans);
        graph
    }

    fn keep_time(&mut self, spans: &[OpSpan]) {
        let mut ends: Vec<_> = (0u32..)
            .zip(spans)
            .filter_map(|(o, s)| s.ended.map(|e| (e, o)))
            .collect();
        let mut begins: Vec<_> = (0u32..)
            .zip(spans)
            .filter_map(|(o, s)| s.began.map(|b| (b, o)))
            .collect();
        ends.sort_unstable();
        begins.sort_unstable();
        self.instant = vec![NONE; spans.len()];
        for (i, (_, op)) in (0u32..).zip(&ends) {
            self.instant[*op as usize] = i;
        }
        let mut begins = begins.into_iter().peekable();
        // An operation that began before any ended follows nothing.
        let first = ends.first().map_or(u32::MAX, |e| e.0);
        while begins.next_if(|(b, _)| *b < first).is_some() {}
        for i in 0..ends.len() {
            self.begun.push(size(self.begin_order.len()));
            let until = ends.get(i + 1).map_or(u32::MAX, |e| e.0);
            while let Some((_, op)) = begins.next_if(|(b, _)| *b < until) {
                self.begin_order.push(op);
            }
        }
        self.begun.push(size(self.begin_order.len()));
    }

    /// Whether no two operations are related.
    pub(crate) fn is_empty(&self) -> bool {
        self.to.is_empty() && self.begin_order.is_empty()
    }

    /// Number of operations.
    pub(crate) fn ops(&self) -> usize {
        self.ops as usize
    }

    fn nodes(&self) -> usize {
        self.ops as usize + self.begun.len() - 1
    }

    pub(crate) fn is_op(&self, node: u32) -> bool {
        node < self.ops
    }

    /// The `i`-th edge of a node.
    fn edge(&self, node: u32, i: u32) -> Option<(u32, Rel)> {
        if node < self.ops {
            let op = node as usize;
            let at = self.from[op] + i;
            if at < self.from[op + 1] {
                return Some((self.to[at as usize], self.rel[at as usize]));
            }
            let instant = self.instant[op];
            return (at == self.from[op + 1] && instant != NONE).then(|| (self.ops + instant, REALTIME));
        }
        let instant = (node - self.ops) as usize;
        let at = self.begun[instant] + i;
        if at < self.begun[instant + 1] {
            return Some((self.begin_order[at as usize], REALTIME));
        }
        let last = instant + 2 == self.begun.len();
        (at == self.begun[instant + 1] && !last).then(|| (node + 1, REALTIME))
    }

    /// Components of at least two operations over edges of these kinds, each sorted (Tarjan's algorithm, without recursion).
    pub(crate) fn components(&self, kinds: Rel) -> Vec<Vec<u32>> {
        let nodes = self.nodes();
        let mut search = Tarjan {
            graph: self,
            kinds,
            seen: vec![0; nodes],
            low: vec![0; nodes],
            clock: 0,
            open: Vec::new(),
            found: Vec::new(),
        };
        for root in 0..self.ops {
            if search.seen[root as usize] == 0 {
                search.visit(root);
            }
        }
        search.found.sort();
        search.found
    }
}

struct Tarjan<'a> {
    graph: &'a Graph,
    kinds: Rel,
    /// When a node was first visited, from 1.
    seen: Vec<u32>,
    /// The earliest open node that it reaches; `NONE` once its component is closed.
    low: Vec<u32>,
    clock: u32,
    open: Vec<u32>,
    found: Vec<Vec<u32>>,
}

impl Tarjan<'_> {
    fn enter(&mut self, node: u32, path: &mut Vec<(u32, u32)>) {
        self.clock += 1;
        self.seen[node as usize] = self.clock;
        self.low[node as usize] = self.clock;
        self.open.push(node);
        path.push((node, 0));
    }

    fn visit(&mut self, root: u32) {
        let mut path = Vec::new();
        self.enter(root, &mut path);
        while let Some((node, i)) = path.last_mut() {
            let (node, edge) = (*node, self.graph.edge(*node, *i));
            *i += 1;
            match edge {
                Some((_, rel)) if rel & self.kinds == 0 => {}
                Some((to, _)) if self.seen[to as usize] == 0 => self.enter(to, &mut path),
                Some((to, _)) => {
                    let low = self.low[to as usize];
                    let mine = &mut self.low[node as usize];
                    *mine = (*mine).min(if low == NONE { NONE } else { self.seen[to as usize] });
                }
                None => {
                    path.pop();
                    let low = self.low[node as usize];
                    if let Some((parent, _)) = path.last() {
                        let parents = &mut self.low[*parent as usize];
                        *parents = (*parents).min(low);
                    }
                    if low == self.seen[node as usize] {
                        self.close(node);
                    }
                }
            }
        }
    }

    fn close(&mut self, first: u32) {
        let at = self
            .open
            .iter()
            .rposition(|n| *n == first)
            .expect("an open node is on the stack");
        for node in &self.open[at..] {
            self.low[*node as usize] = NONE;
        }
        if self.open.len() - at > 1 {
            let mut ops: Vec<_> = self.open[at..]
                .iter()
                .copied()
                .filter(|n| self.graph.is_op(*n))
                .collect();
            if ops.len() > 1 {
                ops.sort_unstable();
                self.found.push(ops);
            }
        }
        self.open.truncate(at);
    }
}

/// A step of a cycle: the operation, and the kind of its edge to the next one.
pub(crate) type Step = (u32, Rel);

/// Finds short cycles; reuses its memory between searches.
pub(crate) struct Cycles<'a> {
    graph: &'a Graph,
    /// The search in which a node was last reached.
    round: Vec<u32>,
    /// Predecessor and edge kind on the path.
    back: Vec<(u32, Rel)>,
    rounds: u32,
    edges: u64,
    /// The component of each operation, for the component being searched.
    component: Vec<u32>,
    components: u32,
}

impl<'a> Cycles<'a> {
    pub(crate) fn new(graph: &'a Graph) -> Self {
        let nodes = graph.nodes();
        Self {
            graph,
            round: vec![0; nodes],
            back: vec![(0, 0); nodes],
            rounds: 0,
            edges: 0,
            component: vec![0; graph.ops as usize],
            components: 0,
        }
    }

    /// A short cycle in a component over edges of these `kinds`, with an edge of `required`; `None` if there is no such edge.
    pub(crate) fn find(&mut self, component: &[u32], kinds: Rel, required: Rel) -> Option<Vec<Step>> {
        self.enter(component);
        let (mut best, mut searches): (Option<Vec<Step>>, _) = (None, 0);
        for a in component {
            let mut i = 0;
            while let Some((b, rel)) = self.graph.edge(*a, i) {
                i += 1;
                if rel & required == 0 || rel & kinds == 0 || !self.inside(b) {
                    continue;
                }
                let max = best.as_ref().map_or(usize::MAX, Vec::len);
                if let Some(mut path) = self.path(b, *a, kinds, max) {
                    path.insert(0, (*a, rel & required));
                    best = Some(path);
                }
                searches += 1;
                let short = best.as_ref().is_some_and(|b| b.len() == 2);
                if short || searches >= SEARCHES_MAX || self.edges > SEARCH_EDGES_MAX {
                    return best;
                }
            }
        }
        best
    }

    /// A short cycle in a component over edges of these `kinds` that has a step of realtime, and an edge of `required`. It may
    /// miss one in a component with several cycles.
    pub(crate) fn find_through_time(
        &mut self,
        component: &[u32],
        kinds: Rel,
        required: Rel,
    ) -> Option<Vec<Step>> {
        self.enter(component);
        let mut best: Option<Vec<Step>> = None;
        for (searches, op) in component.iter().enumerate() {
            if searches >= SEARCHES_MAX || self.edges > SEARCH_EDGES_MAX {
                break;
            }
            let instant = self.graph.instant[*op as usize];
            if instant == NONE {
                continue;
            }
            let max = best.as_ref().map_or(usize::MAX, Vec::len);
            let path = self.path(self.graph.ops + instant, *op, kinds, max);
            if let Some(mut path) = path.filter(|p| p.iter().any(|(_, rel)| rel & required != 0)) {
                path.insert(0, (*op, REALTIME));
                best = Some(path);
            }
        }
        best
    }

    fn enter(&mut self, component: &[u32]) {
        self.components += 1;
        for op in component {
            self.component[*op as usize] = self.components;
        }
        self.edges = 0;
    }

    fn inside(&self, op: u32) -> bool {
        self.graph.is_op(op) && self.component[op as usize] == self.components
    }

    /// The shortest path from `a` to `b` inside of the component, of fewer than `max - 1` steps; instants cost nothing.
    fn path(&mut self, a: u32, b: u32, kinds: Rel, max: usize) -> Option<Vec<Step>> {
        self.rounds += 1;
        self.round[a as usize] = self.rounds;
        let mut due = VecDeque::from([a]);
        while let Some(node) = due.pop_front() {
            if node == b {
                let path = self.steps(a, b);
                return (path.len() + 1 < max).then_some(path);
            }
            let mut i = 0;
            while let Some((to, rel)) = self.graph.edge(node, i) {
                i += 1;
                self.edges += 1;
                let instant = !self.graph.is_op(to);
                let leads = rel & kinds != 0 && self.round[to as usize] != self.rounds;
                if !leads || !(instant || self.inside(to)) {
                    continue;
                }
                self.round[to as usize] = self.rounds;
                self.back[to as usize] = (node, rel);
                // Only a step to an operation has a cost.
                if instant {
                    due.push_front(to);
                } else {
                    due.push_back(to);
                }
            }
        }
        None
    }

    /// The steps of the path that was found, without instants.
    fn steps(&self, a: u32, b: u32) -> Vec<Step> {
        let (mut steps, mut at) = (Vec::new(), b);
        while at != a {
            let (from, rel) = self.back[at as usize];
            if self.graph.is_op(from) {
                steps.push((from, rel));
            }
            at = from;
        }
        steps.reverse();
        steps
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(began: u32, ended: u32) -> OpSpan {
        let (began, ended) = (Some(began), Some(ended));
        OpSpan { began, ended }
    }

    #[test]
    fn realtime_edges_go_from_ended_to_later_begun() {
        // 0: 0-1, 1: 2-5, 2: 3-4, 3: 6-7
        let spans = [span(0, 1), span(2, 5), span(3, 4), span(6, 7)];
        let graph = Graph::new(&spans, &[]);
        let mut cycles = Cycles::new(&graph);
        let mut before = |a, b| cycles.path_any(a, b).is_some();
        let pairs: Vec<_> = (0..4)
            .flat_map(|a| (0..4).map(move |b| (a, b)))
            .filter(|(a, b)| a != b && before(*a, *b))
            .collect();
        assert_eq!(pairs, [(0, 1), (0, 2), (0, 3), (1, 3), (2, 3)]);
        assert_eq!(graph.components(REALTIME), Vec::<Vec<u32>>::new());
    }

    impl Cycles<'_> {
        fn path_any(&mut self, a: u32, b: u32) -> Option<Vec<Step>> {
            self.components += 1;
            self.component.fill(self.components);
            self.path(a, b, REALTIME, usize::MAX)
        }
    }

    #[test]
    fn cycles_are_short_and_have_the_required_edge() {
        let none = OpSpan {
            began: None,
            ended: None,
        };
        let edges = [
            (0, 1, WW),
            (1, 2, WW),
            (2, 3, WR),
            (3, 0, WW),
            (1, 0, WW),
            (4, 4, WW),
            (5, 4, WR),
        ];
        let graph = Graph::new(&[none; 6], &edges);
        assert_eq!(graph.components(WW), [vec![0, 1]]);
        assert_eq!(graph.components(WW | WR), [vec![0, 1, 2, 3]]);
        let mut cycles = Cycles::new(&graph);
        assert_eq!(cycles.find(&[0, 1], WW, WW), Some(vec![(0, WW), (1, WW)]));
        let all = [0, 1, 2, 3];
        assert_eq!(
            cycles.find(&all, WW | WR, WR),
            Some(vec![(2, WR), (3, WW), (0, WW), (1, WW)])
        );
        assert_eq!(cycles.find(&[0, 1], WW | WR, WR), None);
    }

    #[test]
    fn time_and_data_close_a_cycle() {
        // Operation 0 read a record of operation 1, which began after 0 had ended.
        let graph = Graph::new(&[span(0, 1), span(2, 3)], &[(1, 0, WR)]);
        assert_eq!(graph.components(WR), Vec::<Vec<u32>>::new());
        assert_eq!(graph.components(WR | REALTIME), [vec![0, 1]]);
        let found = Cycles::new(&graph).find(&[0, 1], WR | REALTIME, WR);
        assert_eq!(found, Some(vec![(1, WR), (0, REALTIME)]));
    }
}

//! Draws picked events with one lane for each node.
//!
//! ```text
//!        time s  W   B   P0
//!      3.214151  │   │   ●    process 0 sends 7 to t0-0
//!      3.214151  │   ◀───●    asks …
//!      3.300100  ●   ✗   │    kill -9 of node 1
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use crate::plan::{BROKER, FIRST_CLIENT, Plan};
use crate::trace::EventKind;

use super::line::{cut, seconds};
use super::pick::PickedEvent;

/// Width of a lane.
const WIDTH: usize = 7;
/// Longer times without shown events are marked.
const PAUSE_MIN_MS: u64 = 200;

/// The label above a node's lane.
fn label(plan: &Plan, node: u32) -> String {
    let w = &plan.workload;
    let index = node.checked_sub(FIRST_CLIENT).map(|i| i as usize);
    match (node, index) {
        (0, _) => "world".to_owned(),
        (BROKER, _) => "broker".to_owned(),
        (_, Some(i)) if i < w.producers.len() => format!("p{}", w.producers[i].process),
        (_, Some(i)) if i < w.producers.len() + w.consumers.len() => {
            format!("c{}", w.consumers[i - w.producers.len()].process)
        }
        (n, _) if n == FIRST_CLIENT - 1 => "adm".to_owned(),
        (n, _) if n == FIRST_CLIENT - 2 => "last".to_owned(),
        (n, _) => format!("n{n}"),
    }
}

/// See the module.
pub fn draw(text: &mut String, plan: &Plan, picked: &[PickedEvent<'_>]) {
    let nodes: BTreeSet<u32> = picked
        .iter()
        .flat_map(|p| [Some(p.event.node), p.to])
        .flatten()
        .chain([BROKER])
        .collect();
    let lanes: BTreeMap<u32, usize> = nodes.iter().copied().zip(0..).collect();
    let _ = write!(text, "{:>11} s ", "time");
    for node in &nodes {
        let _ = write!(text, "{:<WIDTH$}", label(plan, *node));
    }
    let _ = writeln!(text);
    let (mut down, mut before) = (BTreeSet::new(), None);
    for p in picked {
        let ms = p.event.t / 1_000_000;
        if let Some(before) = before
            && ms - before > PAUSE_MIN_MS
        {
            let _ = writeln!(text, "{:>13}{}", "", row(&lanes, &down, None).trim_end());
        }
        before = Some(ms);
        match p.event.what {
            EventKind::Kill { of } | EventKind::PowerLoss { of } | EventKind::Ended { of } => {
                down.insert(of);
            }
            EventKind::Start { of } => drop(down.remove(&of)),
            _ => {}
        }
        let row = row(&lanes, &down, Some(p));
        let _ = writeln!(text, "{}  {row} {}", seconds(p.event.t), cut(&p.text));
    }
}

fn row(lanes: &BTreeMap<u32, usize>, down: &BTreeSet<u32>, picked: Option<&PickedEvent<'_>>) -> String {
    let mut cells: Vec<char> = vec![' '; lanes.len() * WIDTH];
    for (node, lane) in lanes {
        cells[lane * WIDTH] = match (down.contains(node), picked) {
            (true, _) => ' ',
            (false, Some(_)) => '│',
            (false, None) => '┊',
        };
    }
    let Some(p) = picked else {
        return cells.into_iter().collect();
    };
    let from = lanes[&p.event.node] * WIDTH;
    if let Some(to) =
        p.to.and_then(|to| lanes.get(&to))
            .map(|lane| lane * WIDTH)
            .filter(|to| *to != from)
    {
        let (a, b) = (from.min(to), from.max(to));
        cells[a..b].fill('─');
        cells[to] = if to > from { '▶' } else { '◀' };
    }
    cells[from] = '●';
    if let EventKind::Kill { of } | EventKind::PowerLoss { of } = p.event.what
        && let Some(lane) = lanes.get(&of)
    {
        cells[lane * WIDTH] = '✗';
    }
    cells.into_iter().collect()
}

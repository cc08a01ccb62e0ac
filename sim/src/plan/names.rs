//! Names of the nodes, as traces and pages show them.

use std::collections::BTreeMap;

use super::document::Plan;
use super::nodes::{BROKER, FIRST_CLIENT};

/// The names of a plan's nodes, except those of rude clients.
pub fn node_names(plan: &Plan) -> BTreeMap<u32, String> {
    let mut names = BTreeMap::from([
        (0, "world".to_owned()),
        (BROKER, "broker".to_owned()),
        (FIRST_CLIENT - 4, "growth check".to_owned()),
        (FIRST_CLIENT - 3, "leftovers check".to_owned()),
        (FIRST_CLIENT - 2, "last reader".to_owned()),
        (FIRST_CLIENT - 1, "admin".to_owned()),
    ]);
    let w = &plan.workload;
    let producers = w.producers.iter().map(|p| format!("producer {}", p.process));
    let consumers = w.consumers.iter().map(|c| format!("consumer {}", c.process));
    names.extend((FIRST_CLIENT..).zip(producers.chain(consumers)));
    names
}

/// The name of a node.
pub fn node_name(plan: &Plan, node: u32) -> String {
    node_names(plan)
        .remove(&node)
        .unwrap_or_else(|| format!("node {node}"))
}

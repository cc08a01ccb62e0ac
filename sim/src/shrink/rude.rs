//! Reduces the rude clients of a plan, and simplifies their requests.

use super::changed::changed;
use crate::plan::Plan;

/// Fewer connections: large parts are removed first.
pub(super) fn connections(plan: &Plan) -> Vec<Plan> {
    let n = plan.rude.len();
    without_parts(n)
        .into_iter()
        .map(|(from, to)| changed(plan, |p| drop(p.rude.drain(from..to))))
        .collect()
}

/// Fewer requests in each connection.
pub(super) fn requests(plan: &Plan) -> Vec<Plan> {
    let mut plans = Vec::new();
    for (i, connection) in plan.rude.iter().enumerate() {
        for (from, to) in without_parts(connection.requests.len()) {
            plans.push(changed(plan, |p| drop(p.rude[i].requests.drain(from..to))));
        }
    }
    plans
}

/// Simpler values, and connections without special behaviour.
pub(super) fn values(plan: &Plan) -> Vec<Plan> {
    let mut plans = Vec::new();
    for (i, connection) in plan.rude.iter().enumerate() {
        plans.push(changed(plan, |p| {
            let c = &mut p.rude[i];
            (c.in_flight_max, c.stays_ms, c.cut) = (1, 0, None);
            c.reads = Default::default();
        }));
        for (j, request) in connection.requests.iter().enumerate() {
            plans.push(changed(plan, |p| p.rude[i].requests[j].client_id = None));
            for body in request.body.simpler() {
                plans.push(changed(plan, |p| p.rude[i].requests[j].body = body));
            }
        }
    }
    plans
}

/// Parts of `n` things, from halves to single ones.
fn without_parts(n: usize) -> Vec<(usize, usize)> {
    let mut parts = Vec::new();
    let mut size = n;
    while size > 0 {
        parts.extend((0..n).step_by(size).map(|from| (from, (from + size).min(n))));
        size /= 2;
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_go_from_large_to_single() {
        assert_eq!(without_parts(3), [(0, 3), (0, 1), (1, 2), (2, 3)]);
        assert_eq!(without_parts(0), []);
    }
}

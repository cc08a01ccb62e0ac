//! Makes a failing plan smaller: removes everything that the failure does not need, in every dimension, as long as the plan fails
//! in the same way.
//!
//! Faults are reduced by delta debugging (ddmin; Zeller and Hildebrandt, TSE 2002), everything else greedily, the largest steps
//! first: time, clients, topics, the scheduler, the clock, the broker's configuration, the workload's features and rates, and the
//! faults' parameters. All dimensions repeat until nothing gets smaller. A seed's choices are keyed (see `plan`), so a removal
//! mostly leaves the rest unchanged; where it doesn't, another task order may still fail, and the plan keeps that order's seed.
//!
//! An [`Oracle`] runs the plans and decides whether they fail: this module does not know how.

mod changed;
mod rude;
mod smaller;

use std::fmt;

use crate::plan::{Fault, Plan};
use crate::report::many;

pub use smaller::Dimension;

/// A plan to try.
#[derive(Clone, PartialEq, Debug)]
pub struct Candidate {
    /// The plan.
    pub plan: Plan,
    /// In how many task orders to try it, its own included.
    pub orders: u64,
}

/// Runs plans.
pub trait Oracle {
    /// The first of these plans that still fails in the same way, possibly in another task order. None if none fails, or the time
    /// is over.
    fn first_failing(&mut self, candidates: Vec<Candidate>) -> Option<Plan>;

    /// Whether the time is over.
    fn is_over(&self) -> bool;

    /// Called when a plan got smaller by this step.
    fn smaller(&mut self, by: &str, plan: &Plan);
}

/// The size of a plan.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Size {
    /// Faults.
    pub faults: usize,
    /// Producers, consumers, the admin, the recreator, the operator and the inspector.
    pub clients: usize,
    /// Virtual seconds.
    pub secs: u64,
    /// Partitions of all topics.
    pub partitions: usize,
    /// Settings of the broker.
    pub settings: usize,
}

impl Size {
    /// The size of a plan.
    pub fn of(plan: &Plan) -> Self {
        let w = &plan.workload;
        Self {
            faults: plan.faults.len(),
            clients: w.producers.len()
                + w.consumers.len()
                + [
                    w.admin.is_some(),
                    w.recreator.is_some(),
                    w.operator.is_some(),
                    w.inspector.is_some(),
                    w.visitor.is_some(),
                ]
                .into_iter()
                .filter(|there| *there)
                .count(),
            secs: plan.secs,
            partitions: w
                .topics
                .iter()
                .map(|t| t.partitions.unsigned_abs() as usize)
                .sum(),
            settings: plan.broker.len(),
        }
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}, {}, {} s, {}, {}",
            many(self.faults, "fault"),
            many(self.clients, "client"),
            self.secs,
            many(self.partitions, "partition"),
            many(self.settings, "setting")
        )
    }
}

/// Efforts in sequence, each repeated until nothing gets smaller: how many of the dimensions, and how many task orders for each
/// step.
const EFFORTS: [(usize, u64); 5] = [
    (smaller::ROUGH, 1),
    (smaller::ROUGH, 4),
    (smaller::DIMENSIONS.len(), 4),
    (smaller::DIMENSIONS.len(), 16),
    (smaller::DIMENSIONS.len(), 64),
];
/// The last efforts are only for plans that this many orders did not reduce to
const ORDERS_FEW: u64 = 4;
/// this few faults.
const FAULTS_FEW: usize = 3;
/// A plan with a fraction of the time costs that fraction, so more orders are tried: at most this many times as many.
const ORDERS_TIMES_MAX: u64 = 8;

/// Makes a failing plan as small as the oracle's time allows, with at most `orders_max` task orders for a step.
pub fn shrink(plan: Plan, oracle: &mut impl Oracle, orders_max: u64) -> Plan {
    let mut shrinking = Shrinking {
        begin: plan.clone(),
        plan,
        oracle,
        orders: 1,
    };
    for (dimensions, orders) in EFFORTS {
        if orders > ORDERS_FEW && shrinking.plan.faults.len() <= FAULTS_FEW {
            break;
        }
        shrinking.orders = orders.min(orders_max);
        if shrinking.orders > 1 && shrinking.plan.faults.len() > FAULTS_FEW {
            shrinking.some_of_the_faults();
        }
        loop {
            let before = shrinking.plan.clone();
            for dimension in &smaller::DIMENSIONS[..dimensions] {
                if shrinking.oracle.is_over() {
                    return shrinking.plan;
                }
                shrinking.dimension(dimension);
            }
            if shrinking.plan == before {
                break;
            }
        }
    }
    shrinking.plan
}

struct Shrinking<'a, O> {
    begin: Plan,
    plan: Plan,
    oracle: &'a mut O,
    orders: u64,
}

impl<O: Oracle> Shrinking<'_, O> {
    fn dimension(&mut self, dimension: &Dimension) {
        match dimension {
            Dimension::Faults => self.ddmin(),
            Dimension::Other(name, candidates) => while self.greedy(name, *candidates) {},
            Dimension::Each(name, changes) => self.one_by_one(name, changes(&self.plan)),
        }
    }

    /// Takes the first of the plans that fails. Returns whether there was one.
    fn takes(&mut self, name: &str, mut plans: Vec<Plan>) -> bool {
        plans.retain(|p| *p != self.plan);
        let candidate = |plan: Plan| {
            let times = self.plan.secs / plan.secs.max(1);
            let orders = match self.orders {
                1 => 1,
                n => n * times.clamp(1, ORDERS_TIMES_MAX),
            };
            Candidate { plan, orders }
        };
        let candidates: Vec<Candidate> = plans.into_iter().map(candidate).collect();
        if candidates.is_empty() || self.oracle.is_over() {
            return false;
        }
        let Some(smaller) = self.oracle.first_failing(candidates) else {
            return false;
        };
        self.oracle.smaller(name, &smaller);
        self.plan = smaller;
        true
    }

    fn greedy(&mut self, name: &str, candidates: fn(&Plan) -> Vec<Plan>) -> bool {
        let some = candidates(&self.plan);
        self.takes(name, some)
    }

    /// Independent small changes: tries all at once, then halves, down to single ones.
    fn one_by_one(&mut self, name: &str, changes: Vec<smaller::PlanChange>) {
        let mut groups = vec![changes];
        while let Some(group) = groups.pop() {
            let mut some = self.plan.clone();
            group.iter().for_each(|change| change(&mut some));
            if some != self.plan && !self.takes(name, vec![some]) {
                groups.extend(halves(group));
            }
        }
    }

    /// If the failure depends on luck, many faults or operations only make it more likely: a few faults in a short run that is as
    /// busy may suffice, in some order.
    fn some_of_the_faults(&mut self) {
        let busy = Plan {
            workload: self.begin.workload.clone(),
            scheduler: self.begin.scheduler,
            ..self.plan.clone()
        };
        let few = (1..=FAULTS_FEW).flat_map(|n| self.plan.faults.windows(n));
        let plans = few.map(|faults| smaller::only(&busy, faults)).collect();
        self.takes("some of the faults", plans);
    }

    /// ddmin over the faults, after trying without any.
    fn ddmin(&mut self) {
        let mut parts = 1;
        while !self.plan.faults.is_empty() && !self.oracle.is_over() {
            let (faults, len) = (self.plan.faults.clone(), self.plan.faults.len());
            let bounds = (0..parts).map(|i| (i * len / parts, (i + 1) * len / parts));
            let only = bounds.clone().map(|(a, b)| faults[a..b].to_vec());
            let without = bounds.map(|(a, b)| [&faults[..a], &faults[b..]].concat());
            let all: Vec<Vec<Fault>> = match parts {
                // With two parts, the complement of one is the other.
                1 => without.collect(),
                2 => only.collect(),
                _ => only.chain(without).collect(),
            };
            let with = |faults| Plan {
                faults,
                ..self.plan.clone()
            };
            let plans = all.into_iter().map(with).collect();
            parts = match self.takes("fewer faults", plans) {
                // One of the parts is left, or all but one.
                true if self.plan.faults.len() * parts < len + parts => 2,
                true => (parts - 1).max(2),
                false if parts >= len => return,
                false => parts * 2,
            };
            parts = parts.min(self.plan.faults.len());
        }
    }
}

fn halves<T>(mut all: Vec<T>) -> Vec<Vec<T>> {
    if all.len() < 2 {
        return Vec::new();
    }
    let rest = all.split_off(all.len() / 2);
    vec![all, rest]
}

#[cfg(test)]
mod tests;

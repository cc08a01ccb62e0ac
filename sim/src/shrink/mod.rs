//! Makes a failing plan small: takes away what it fails without, in every dimension, as long as it fails in the same way.
//!
//! Faults go by delta debugging (ddmin; Zeller and Hildebrandt, TSE 2002), everything else greedily, most ambitious first:
//! time, clients, topics, the scheduler, the clock, the broker's configuration, features and rates of the workload, and what each fault has for
//! parameters. All of it again, until nothing gets smaller. A choice of the seed is keyed (see `plan`), so what is taken out mostly leaves
//! the rest as it was; where it doesn't, another order of tasks may fail still, and the plan keeps that order's seed.
//!
//! Whether a plan fails is asked of an [`Oracle`], who runs it: nothing here knows how.

mod smaller;

use std::fmt;

use crate::plan::{Fault, Plan};

pub use smaller::Smaller;

/// Runs plans.
pub trait Oracle {
    /// Of these plans the first that still fails in the same way, maybe with another scheduler seed. None: none does, or there is no
    /// time left.
    fn first_failing(&mut self, plans: Vec<Plan>) -> Option<Plan>;

    /// Whether no time is left.
    fn is_over(&self) -> bool;

    /// A plan got smaller by this.
    fn smaller(&mut self, by: &str, plan: &Plan);
}

/// How large a plan is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Size {
    /// Faults.
    pub faults: usize,
    /// Producers, consumers and the admin.
    pub clients: usize,
    /// Virtual seconds.
    pub secs: u64,
    /// Partitions of all topics.
    pub partitions: i32,
    /// Settings of the broker.
    pub settings: usize,
}

impl Size {
    /// Of a plan.
    pub fn of(plan: &Plan) -> Self {
        let w = &plan.workload;
        Self {
            faults: plan.faults.len(),
            clients: w.producers.len() + w.consumers.len() + usize::from(w.admin.is_some()),
            secs: plan.secs,
            partitions: w.topics.iter().map(|t| t.partitions).sum(),
            settings: plan.broker.len(),
        }
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} faults, {} clients, {} s, {} partitions, {} settings",
            self.faults, self.clients, self.secs, self.partitions, self.settings
        )
    }
}

/// Rounds over all dimensions: each plan gets strictly smaller, so this is never reached but by an oracle that is not one.
const ROUNDS_MAX: usize = 50;

/// Makes a plan that fails as small as the oracle's time allows.
pub fn shrink(plan: Plan, oracle: &mut impl Oracle) -> Plan {
    let mut plan = plan;
    for _ in 0..ROUNDS_MAX {
        let before = plan.clone();
        for dimension in smaller::DIMENSIONS {
            plan = match dimension {
                Smaller::Faults => ddmin(plan, oracle),
                Smaller::Other(name, candidates) => greedy(plan, oracle, name, *candidates),
                Smaller::Each(name, candidates) => one_by_one(plan, oracle, name, *candidates),
            };
            if oracle.is_over() {
                return plan;
            }
        }
        if plan == before {
            break;
        }
    }
    plan
}

/// Takes the first candidate that fails, and asks again for candidates.
fn greedy(mut plan: Plan, oracle: &mut impl Oracle, name: &str, candidates: fn(&Plan) -> Vec<Plan>) -> Plan {
    loop {
        let some: Vec<Plan> = candidates(&plan).into_iter().filter(|c| *c != plan).collect();
        if some.is_empty() || oracle.is_over() {
            return plan;
        }
        let Some(smaller) = oracle.first_failing(some) else {
            return plan;
        };
        oracle.smaller(name, &smaller);
        plan = smaller;
    }
}

/// Small changes that have nothing to do with each other: all of them at once, else one after the other.
fn one_by_one(
    mut plan: Plan,
    oracle: &mut impl Oracle,
    name: &str,
    changes: fn(&Plan) -> Vec<smaller::Change>,
) -> Plan {
    let all = changes(&plan);
    let mut every = plan.clone();
    all.iter().for_each(|change| change(&mut every));
    if every == plan {
        return plan;
    }
    if let Some(smaller) = oracle.first_failing(vec![every]) {
        oracle.smaller(name, &smaller);
        return smaller;
    }
    // Halves of what is left, down to single ones.
    let mut groups: Vec<Vec<smaller::Change>> = halves(all);
    while let Some(group) = groups.pop() {
        let mut some = plan.clone();
        group.iter().for_each(|change| change(&mut some));
        if some == plan || oracle.is_over() {
            continue;
        }
        match oracle.first_failing(vec![some]) {
            Some(smaller) => {
                oracle.smaller(name, &smaller);
                plan = smaller;
            }
            None => groups.extend(halves(group)),
        }
    }
    plan
}

fn halves<T>(mut all: Vec<T>) -> Vec<Vec<T>> {
    if all.len() < 2 {
        return Vec::new();
    }
    let rest = all.split_off(all.len() / 2);
    vec![all, rest]
}

fn with_faults(plan: &Plan, faults: Vec<Fault>) -> Plan {
    Plan {
        faults,
        ..plan.clone()
    }
}

/// ddmin over the faults, after asking whether it takes any.
fn ddmin(mut plan: Plan, oracle: &mut impl Oracle) -> Plan {
    if plan.faults.is_empty() {
        return plan;
    }
    if let Some(smaller) = oracle.first_failing(vec![with_faults(&plan, Vec::new())]) {
        oracle.smaller("no faults", &smaller);
        return smaller;
    }
    let mut parts = 2;
    while plan.faults.len() > 1 && !oracle.is_over() {
        let (faults, len) = (plan.faults.clone(), plan.faults.len());
        let bounds: Vec<(usize, usize)> = (0..parts)
            .map(|i| (i * len / parts, (i + 1) * len / parts))
            .collect();
        let only = bounds
            .iter()
            .map(|(a, b)| with_faults(&plan, faults[*a..*b].to_vec()));
        let without = bounds.iter().map(|(a, b)| {
            let rest = [&faults[..*a], &faults[*b..]].concat();
            with_faults(&plan, rest)
        });
        // In two parts what is without the one is only the other.
        let some: Vec<Plan> = if parts == 2 {
            only.collect()
        } else {
            only.chain(without).collect()
        };
        match oracle.first_failing(some) {
            Some(smaller) => {
                oracle.smaller("fewer faults", &smaller);
                parts = if smaller.faults.len() * parts <= len + parts {
                    2
                } else {
                    (parts - 1).max(2)
                };
                plan = smaller;
            }
            None if parts >= len => break,
            None => parts = (parts * 2).min(len),
        }
        parts = parts.min(plan.faults.len().max(2));
    }
    plan
}

#[cfg(test)]
mod tests;

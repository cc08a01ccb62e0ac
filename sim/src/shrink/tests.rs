use super::*;
use crate::exec::Strategy;
use crate::plan::{Faults, Kind};

/// An oracle: a plan fails as long as it satisfies the predicate.
struct Needs<F> {
    needs: F,
    tried: usize,
    tried_max: usize,
    steps: Vec<Size>,
}

impl<F: Fn(&Plan) -> bool> Oracle for Needs<F> {
    fn first_failing(&mut self, candidates: Vec<Candidate>) -> Option<Plan> {
        self.tried += candidates.len();
        let mut plans = candidates.into_iter().map(|c| c.plan);
        plans.find(|p| (self.needs)(p))
    }

    fn is_over(&self) -> bool {
        self.tried >= self.tried_max
    }

    fn smaller(&mut self, _: &str, plan: &Plan) {
        self.steps.push(Size::of(plan));
    }
}

fn needs<F: Fn(&Plan) -> bool>(needs: F) -> Needs<F> {
    Needs {
        needs,
        tried: 0,
        tried_max: usize::MAX,
        steps: Vec::new(),
    }
}

fn plan(seed: u64) -> Plan {
    let plan = Plan::of(seed, 60, &Faults::Unlimited);
    assert!(plan.faults.len() > 20);
    plan
}

#[test]
fn a_plan_without_requirements_shrinks_to_nothing() {
    for seed in 0..10 {
        let mut oracle = needs(|_| true);
        let small = shrink(plan(seed), &mut oracle, 4);
        let size = Size::of(&small);
        assert_eq!(
            (size.faults, size.secs, size.partitions, size.settings),
            (0, 1, 1, 3),
            "{size}"
        );
        assert_eq!(
            (small.scheduler, small.drift_ppm, small.wall_ahead_ms),
            (Strategy::Random, 0, 0)
        );
        assert!(size.clients <= 1, "{size}");
        assert!(small.check().is_ok());
    }
}

#[test]
fn only_the_required_parts_stay() {
    for seed in 0..10 {
        let begin = plan(seed);
        let ids: Vec<u64> = begin.faults.iter().map(|f| f.id).collect();
        let (a, b) = (ids[3], ids[ids.len() - 2]);
        let mut oracle = needs(|p: &Plan| {
            let has = |id| p.faults.iter().any(|f| f.id == id);
            has(a)
                && has(b)
                && p.workload.producers.len() >= 2.min(begin.workload.producers.len())
                && p.secs >= 7
        });
        let small = shrink(begin.clone(), &mut oracle, 4);
        assert_eq!(small.faults.len(), 2, "seed {seed}");
        assert_eq!(small.secs, 7);
        assert_eq!(
            small.workload.producers.len(),
            2.min(begin.workload.producers.len())
        );
        assert!(small.workload.consumers.is_empty() && small.workload.admin.is_none());
        // Each reported step made the plan smaller in some dimension, and none added faults.
        assert!(oracle.steps.windows(2).all(|w| w[1].faults <= w[0].faults));
        assert!(oracle.tried < 500, "{} runs", oracle.tried);
    }
}

#[test]
fn parameters_get_simpler_and_shorter() {
    let mut begin = plan(1);
    begin.faults.truncate(1);
    begin.faults[0].kind = Kind::Cut {
        client: Some(11),
        to_broker: true,
        from_broker: false,
        for_ms: 4_000,
    };
    // The failure needs a cut towards the broker, of a tenth of a second.
    let mut oracle = needs(|p: &Plan| {
        let mut cuts = p.faults.iter();
        cuts.any(|f| {
            matches!(
                f.kind,
                Kind::Cut {
                    to_broker: true,
                    for_ms: 100..,
                    ..
                }
            )
        })
    });
    let small = shrink(begin, &mut oracle, 4);
    let expected = |for_ms| Kind::Cut {
        client: None,
        to_broker: true,
        from_broker: true,
        for_ms,
    };
    assert_eq!(small.faults.len(), 1);
    assert_eq!(small.faults[0].kind, expected(125));
}

#[test]
fn shrinking_ends_when_the_time_is_over() {
    let mut oracle = needs(|_| true);
    oracle.tried_max = 0;
    let begin = plan(2);
    let small = shrink(begin.clone(), &mut oracle, 4);
    // The first dimension may have tried once.
    assert_eq!(small.faults.len(), begin.faults.len());
}

#[test]
fn a_failure_by_luck_shrinks_to_one_fault_in_a_busy_run() {
    // Many faults, or one and many operations: removing single faults gets nowhere once operations are few.
    let begin = plan(3);
    let ops = |p: &Plan| {
        p.workload
            .producers
            .iter()
            .map(|p| p.operations_max.unwrap_or(1000))
            .sum::<u64>()
    };
    let mut oracle = needs(|p: &Plan| p.faults.len() as u64 * ops(p).max(1) > 200 && !p.faults.is_empty());
    let small = shrink(begin.clone(), &mut oracle, 4);
    assert_eq!(small.faults.len(), 1, "{}", Size::of(&small));
    // No other order is tried: it would gain nothing.
    let mut oracle = needs(|p: &Plan| p.faults.len() > 5);
    assert_eq!(shrink(begin, &mut oracle, 1).faults.len(), 6);
}

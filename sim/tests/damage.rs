//! Whole runs on damaged disks, and on prepared ones.

use std::collections::BTreeMap;

use brokkr_sim::disk::Damage;
use brokkr_sim::plan::{Family, Faults, Kind, Plan, PlanError};
use brokkr_sim::report::Verdict;
use brokkr_sim::scenario;

fn play(plan: Plan) -> (BTreeMap<String, u64>, BTreeMap<String, u64>) {
    let report = scenario::run(plan);
    assert_eq!(report.verdict, Verdict::Pass, "{report:?}");
    (report.faults, report.reached)
}

const ALL: [Damage; 5] = [
    Damage::BitRot,
    Damage::Unreadable,
    Damage::LostWrite,
    Damage::MisdirectedWrite,
    Damage::IndexRot,
];

/// A plan of a few seconds with this damage.
fn damaging(seed: u64, damage: Damage) -> Plan {
    let families = vec![Family::Rot, Family::Power, Family::Kill];
    let mut plan = Plan::of(seed, 8, &Faults::Only(families));
    for fault in &mut plan.faults {
        if let Kind::Damage { how, .. } = &mut fault.kind {
            *how = damage;
        }
    }
    plan
}

#[test]
fn disk_damage_is_found_and_nothing_else_suffers() {
    let (mut faults, mut reached) = (BTreeMap::new(), BTreeMap::new());
    for (seed, how) in (0..25).zip(ALL.into_iter().cycle()) {
        let (occurred_faults, saw) = play(damaging(seed, how));
        for (all, one) in [(&mut faults, occurred_faults), (&mut reached, saw)] {
            one.into_iter()
                .for_each(|(name, n)| *all.entry(name).or_insert(0) += n);
        }
    }
    for family in [
        "bit rot",
        "sector unreadable",
        "write lost for good",
        "write misdirected",
    ] {
        assert!(faults.contains_key(family), "no {family}: {faults:?}");
    }
    assert!(
        reached.contains_key("a log went offline when it was opened"),
        "{reached:?}"
    );
}

/// The first plan from this seed on with a log prepared this way.
fn old(compacted: bool) -> Plan {
    let is_old = |plan: &Plan| plan.prepared.iter().any(|log| log.compacted == compacted);
    let mut plans = (0..).map(|seed| Plan::of(seed, 10, &Faults::None));
    plans.find(is_old).expect("one in six or so")
}

#[test]
fn a_run_may_begin_with_large_offsets_or_a_full_segment() {
    for compacted in [false, true] {
        let mut plan = old(compacted);
        plan.prepared.retain(|log| log.compacted == compacted);
        for log in &mut plan.prepared {
            log.next_offset = (1 << 31) - 6;
        }
        let (_, reached) = play(plan);
        let rolled = reached.contains_key("a segment rolled by size or time");
        assert_eq!(
            rolled, compacted,
            "a segment whose base is 0 ends there: {reached:?}"
        );
    }
}

#[test]
fn invalid_preparations_and_restarts_are_refused() {
    let text = |change: &dyn Fn(&mut Plan)| {
        let mut plan = old(true);
        change(&mut plan);
        Plan::parse(&serde_json::to_string(&plan).expect("it is data"))
    };
    assert!(text(&|_| {}).is_ok());
    let refused = text(&|p| p.prepared[0].next_offset = 1 << 31);
    assert!(matches!(refused, Err(PlanError::Prepared(_))), "{refused:?}");
    let refused = text(&|p| p.prepared[0].topic = "t9".to_owned());
    assert!(matches!(refused, Err(PlanError::Prepared(_))), "{refused:?}");
    let restart = |key: &str, value: &str| {
        let families = Faults::Only(vec![Family::Config]);
        let mut plan = Plan::of(1, 60, &families);
        let set = plan.faults.iter_mut().find_map(|f| match &mut f.kind {
            Kind::Restart { broker, .. } => Some(broker),
            _ => None,
        });
        let set = set.expect("a restart");
        set.insert(key.to_owned(), value.to_owned());
        Plan::parse(&serde_json::to_string(&plan).expect("it is data"))
    };
    assert!(restart("log.segment.bytes", "2097152").is_ok());
    let refused = restart("log.flush.interval.messages", "7");
    assert!(matches!(refused, Err(PlanError::Judged(_))), "{refused:?}");
    let refused = restart("log.segment.bytes", "many");
    assert!(matches!(refused, Err(PlanError::Broker(_))), "{refused:?}");
}

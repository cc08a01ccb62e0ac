use brokkr::config::BrokerConfig;

use super::*;
use crate::exec::Strategy;

fn kinds(plan: &Plan) -> Vec<&Kind> {
    plan.faults.iter().map(|f| &f.kind).collect()
}

#[test]
fn a_plan_survives_a_round_trip() {
    for seed in 0..50 {
        let plan = Plan::of(seed, 60, &Faults::Default);
        let text = serde_json::to_string_pretty(&plan).expect("it is data");
        assert_eq!(Plan::parse(&text).expect("it is a plan"), plan);
    }
}

#[test]
fn an_invalid_plan_is_refused() {
    let mut plan = Plan::of(1, 60, &Faults::Default);
    plan.format = 2;
    let text = serde_json::to_string(&plan).expect("it is data");
    assert!(matches!(Plan::parse(&text), Err(PlanError::Format(2))));
    let odd = text.replace("\"format\":2", "\"format\":1,\"colour\":3");
    assert!(matches!(Plan::parse(&odd), Err(PlanError::Json(_))));
    assert!(matches!(Plan::parse("{\"format\":1"), Err(PlanError::Json(_))));
    plan.format = FORMAT;
    plan.broker.insert("log.dirr".to_owned(), "x".to_owned());
    let text = serde_json::to_string(&plan).expect("it is data");
    assert!(matches!(Plan::parse(&text), Err(PlanError::Broker(_))));
}

#[test]
fn disabling_a_family_leaves_the_others_unchanged() {
    for seed in 0..30 {
        let all = Plan::of(seed, 60, &Faults::Only(FAMILIES.to_vec()));
        let rest: Vec<_> = FAMILIES.into_iter().filter(|f| *f != Family::Net).collect();
        let without = Plan::of(seed, 60, &Faults::Only(rest));
        let is_net =
            |f: &&Fault| matches!(f.kind, Kind::Cut { .. } | Kind::Delay { .. } | Kind::Reset { .. });
        let expected: Vec<_> = all.faults.iter().filter(|f| !is_net(f)).collect();
        assert_eq!(without.faults.iter().collect::<Vec<_>>(), expected);
        assert_eq!(without.workload, all.workload);
    }
}

#[test]
fn the_switches_select_families() {
    let none = Plan::of(5, 60, &"none".parse().expect("a switch"));
    assert!(none.faults.is_empty() && none.scheduler == Strategy::Random && none.drift_ppm == 0);
    let two: Faults = "power,space".parse().expect("a switch");
    let (mut power, mut space) = (0, 0);
    for seed in 0..20 {
        for kind in kinds(&Plan::of(seed, 60, &two)) {
            match kind {
                Kind::PowerLoss { .. } => power += 1,
                Kind::NoSpace { .. } | Kind::OperationFails { .. } => space += 1,
                Kind::Kill { .. } => {}
                other => panic!("{other:?}"),
            }
        }
    }
    assert!(power > 20 && space > 10, "{power} {space}");
    assert!("power,dragons".parse::<Faults>().is_err());
    let most = |faults| {
        (0..20)
            .map(|s| Plan::of(s, 60, &faults).faults.len())
            .sum::<usize>()
    };
    assert!(most(Faults::Unlimited) > 2 * most(Faults::Default));
}

#[test]
fn links_are_cut_before_some_ends() {
    let (mut crashes, mut cut_before) = (0, 0);
    for seed in 0..50 {
        let plan = Plan::of(
            seed,
            60,
            &Faults::Only(vec![Family::Kill, Family::Stop, Family::Net]),
        );
        let is_end = |f: &&Fault| matches!(f.kind, Kind::Kill { .. } | Kind::CleanStop { .. });
        for end in plan.faults.iter().filter(is_end) {
            crashes += 1;
            let hides = |f: &Fault| match f.kind {
                Kind::Cut {
                    client: None,
                    to_broker: false,
                    from_broker: true,
                    for_ms,
                } => f.at_ms < end.at_ms && end.at_ms < f.at_ms + for_ms,
                _ => false,
            };
            cut_before += u32::from(plan.faults.iter().any(hides));
        }
    }
    assert!(
        cut_before * 5 > crashes && cut_before * 2 < crashes,
        "{cut_before} of {crashes}"
    );
}

#[test]
fn some_plans_have_two_log_directories() {
    let families = Faults::Only(vec![Family::Directory]);
    let (mut two, mut first_fails, mut second_fails) = (0, 0, 0);
    for seed in 0..200 {
        let plan = Plan::of(seed, 60, &families);
        let roots = plan.roots();
        assert_eq!(roots[0], ROOT);
        let config = BrokerConfig::new(plan.broker.clone()).expect("valid").0;
        assert_eq!(config.log_dirs(), roots);
        assert_eq!(config.metadata_log_dir(), ROOT);
        two += u32::from(roots == [ROOT, SECOND_ROOT]);
        for fault in &plan.faults {
            match fault.kind {
                Kind::DirectoryFails { directory: 0, .. } => first_fails += 1,
                Kind::DirectoryFails { .. } => second_fails += 1,
                ref other => panic!("{other:?}"),
            }
            assert_eq!(roots.len(), 2, "seed {seed}");
        }
    }
    assert!((20..80).contains(&two), "{two}");
    assert!(
        first_fails > 5 && second_fails > first_fails,
        "{first_fails} {second_fails}"
    );
}

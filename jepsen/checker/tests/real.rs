//! Verdicts on histories of real brokers that were killed and started again; `histories/README.md` says how they were recorded.

use brokkr_checker::kafka::{Kafka, Options};
use brokkr_checker::{Valid, Verdict};
use brokkr_history::{MicroOp, NEMESIS, Op, Operation, Reader, Type, Val, names};

const HISTORIES: [(&str, &str); 4] = [
    ("brokkr-flushed", include_str!("histories/brokkr-flushed.jsonl")),
    (
        "brokkr-unflushed",
        include_str!("histories/brokkr-unflushed.jsonl"),
    ),
    ("kafka-flushed", include_str!("histories/kafka-flushed.jsonl")),
    ("kafka-unflushed", include_str!("histories/kafka-unflushed.jsonl")),
];
/// How often each broker was killed.
const KILLS: usize = 4;

fn read(text: &str) -> Vec<Operation> {
    let mut reader = Reader::new(text.as_bytes());
    let history: Result<Vec<_>, _> = reader.by_ref().collect();
    assert_eq!(reader.torn(), None);
    history.expect("it is a history")
}

fn verdict(history: &[Operation]) -> Verdict {
    let mut checker = Kafka::new(Options::default());
    for operation in history {
        checker
            .push(operation.clone())
            .expect("a history of sends and polls");
    }
    checker.finish().verdict()
}

/// A kill of the process alone takes nothing from the page cache, so flushed or not each broker keeps what it acknowledged.
#[test]
fn no_broker_loses_an_acknowledged_record_when_it_is_killed() {
    for (name, text) in HISTORIES {
        let history = read(text);
        let verdict = verdict(&history);
        assert_eq!(verdict.valid(), Valid::Yes, "{name}: {}", verdict.to_json());
        let kills = history
            .iter()
            .filter(|o| o.process == NEMESIS && o.op.f() == "kill");
        assert_eq!(kills.count(), KILLS, "{name}");
        // There was something to judge, and something to get wrong.
        for (what, least) in [
            ("acked", 100),
            ("read", 100),
            ("digests", 200),
            ("listings", 5),
            ("deletes", 2),
        ] {
            assert!(
                verdict.counted[what] >= least,
                "{name}: {what}: {:?}",
                verdict.counted
            );
        }
        let of_send = &verdict.notes["stats"]["send"];
        assert!(
            of_send["info"].as_u64().max(of_send["fail"].as_u64()) > Some(0),
            "{name}: {of_send}"
        );
    }
}

/// What the simulator's judge exempts is waived in the history that it writes.
#[test]
fn a_history_of_the_simulator_is_judged_as_in_it() {
    let history = read(include_str!("histories/simulator.jsonl"));
    let verdict = verdict(&history);
    assert_eq!(verdict.valid(), Valid::Yes, "{}", verdict.to_json());
    assert!(verdict.counted["acked"] > 20, "{:?}", verdict.counted);
    let waivers = |o: &&Operation| o.process == NEMESIS && o.op.f() == names::WAIVE;
    assert!(history.iter().filter(waivers).count() > 0);
    let without: Vec<_> = history.iter().filter(|o| !waivers(o)).cloned().collect();
    assert_eq!(self::verdict(&without).valid(), Valid::No);
}

/// Kafka does not promise that a deletion survives a kill; without the waivers it would be blamed for it.
#[test]
fn kafka_may_take_back_a_deletion() {
    let history = read(include_str!("histories/kafka-flushed.jsonl"));
    let verdict = verdict(&history);
    let taken_back = verdict.findings("earliest-too-low");
    assert!(!taken_back.is_empty() && taken_back.iter().all(|f| f.waived.is_some()));
}

/// The record that was acknowledged last, lost.
#[test]
fn a_lost_record_is_found_in_each_history() {
    for (name, text) in HISTORIES {
        let mut history = read(text);
        let lost = last_acknowledged(&history);
        for operation in &mut history {
            let Op::Poll(micro_ops) = &mut operation.op else {
                continue;
            };
            let polls = micro_ops.iter_mut().filter_map(|micro| match micro {
                MicroOp::Poll(polls) => polls.as_mut(),
                MicroOp::Send { .. } => None,
            });
            polls.flat_map(|polls| polls.values_mut()).for_each(|records| {
                records.retain(|(_, value)| *value != lost);
            });
            // They count records, of which there is one less.
            operation.details = Default::default();
        }
        let verdict = verdict(&history);
        assert_eq!(verdict.valid(), Valid::No, "{name}");
        let named = |f: &&brokkr_checker::Finding| f.text.contains(&lost.to_string());
        let unseen = verdict.findings("unseen").iter().filter(named).count();
        assert_eq!(unseen, 1, "{name}: {lost}: {}", verdict.to_json());
    }
}

/// The value of the acknowledged send that ended last.
fn last_acknowledged(history: &[Operation]) -> Val {
    let acknowledged = history.iter().rev().filter(|o| o.type_ == Type::Ok);
    let mut values = acknowledged.filter_map(|o| match o.op.micro_ops() {
        [
            MicroOp::Send {
                offset: Some(_),
                value,
                ..
            },
            ..,
        ] => Some(value.clone()),
        _ => None,
    });
    values.next().expect("something was acknowledged")
}

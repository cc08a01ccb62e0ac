//! Histories of a correct Kafka are always valid, and each planted anomaly is always found.

mod common;

use brokkr_checker::kafka::{Kafka, Options};
use brokkr_checker::{Valid, Verdict};
use brokkr_history::{MicroOp, Op, Operation, Type, Val};
use common::{KafkaModel, poll, send};
use proptest::prelude::*;
use serde_json::{Value, json};

fn verdict(history: &[Operation], options: Options) -> Verdict {
    let mut kafka = Kafka::new(options);
    for operation in history {
        kafka
            .push(operation.clone())
            .expect("processes do one thing at a time");
    }
    kafka.finish().verdict()
}

fn with_ww() -> Options {
    Options {
        ww_deps: true,
        ..Options::default()
    }
}

/// The number of findings of an anomaly whose field has this value.
fn found(model: &KafkaModel, anomaly: &str, field: &str, value: Value) -> usize {
    let verdict = verdict(&model.writer.0, with_ww());
    let of = verdict.findings(anomaly).iter().filter(|f| {
        let here = &f.data[field];
        *here == value || here.as_array().is_some_and(|a| a.contains(&value))
    });
    of.filter(|f| !f.text.is_empty() && f.ops.iter().all(|op| *op < model.writer.0.len() as u64))
        .count()
}

/// A model whose first log has at least three records, all of them read.
fn model(seed: u64, steps: usize) -> KafkaModel {
    let mut model = KafkaModel::new(seed).run(steps);
    for i in 0..3 {
        let (at, value) = (model.end_of("t-0"), 1_000_000 + i);
        model.writer.send(5000, &[("t-0", Some(at), value)], Type::Ok);
        model.logs.get_mut("t-0").expect("a log").push((at, value));
        model.writer.poll(5001, "t-0", &[(at, value)]);
    }
    model
}

const A: i64 = 2_000_001;
const B: i64 = 2_000_002;

/// The last three records of the first log.
fn last_three(model: &KafkaModel) -> [(i64, i64); 3] {
    let log = &model.logs["t-0"];
    log[log.len() - 3..].try_into().expect("three")
}

/// Removes a value from all polls.
fn hide(model: &mut KafkaModel, value: i64) {
    for o in &mut model.writer.0 {
        let (Op::Poll(micro) | Op::Txn(micro)) = &mut o.op else {
            continue;
        };
        for m in micro {
            if let MicroOp::Poll(Some(polls)) = m {
                polls
                    .values_mut()
                    .for_each(|records| records.retain(|(_, v)| *v != Val::Int(value)));
            }
        }
    }
}

fn txn(model: &mut KafkaModel, process: u64, micro: Vec<MicroOp>) -> u64 {
    model.writer.both(
        process,
        Op::Txn(vec![MicroOp::Poll(None)]),
        Type::Ok,
        Op::Txn(micro),
    )
}

/// Whether an operation of this name succeeded, or there is none.
fn succeeded_if_used(history: &[Operation], f: &str) -> bool {
    let of_name = || history.iter().filter(|o| o.op.f() == f);
    of_name().next().is_none() || of_name().any(|o| o.type_ == Type::Ok)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn a_correct_kafka_is_valid(seed: u64, steps in 0usize..300) {
        let model = KafkaModel::new(seed).run(steps);
        for options in [Options::default(), with_ww()] {
            let mut verdict = verdict(&model.writer.0, options);
            // Records of one send may be apart, which is allowed.
            verdict.anomalies.remove("int-send-skip");
            prop_assert_eq!(&verdict.anomalies, &std::collections::BTreeMap::new());
            let judged = ["send", "poll", "txn"].iter().all(|f| succeeded_if_used(&model.writer.0, f));
            let judged = judged && verdict.counted["acked"] > 0;
            prop_assert_eq!(verdict.valid(), if judged { Valid::Yes } else { Valid::Unknown });
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn lost_writes_are_found(seed: u64, steps in 0usize..200) {
        let mut model = model(seed, steps);
        let (_, value) = last_three(&model)[1];
        hide(&mut model, value);
        prop_assert_eq!(found(&model, "lost-write", "value", json!(value)), 1);
        prop_assert_eq!(verdict(&model.writer.0, Options::default()).valid(), Valid::No);
        // Except if a process requested the deletion.
        let before = last_three(&model)[2].0;
        let delete = Op::Other("delete_records".to_owned(), json!({"key": "t-0", "before": before}));
        model.writer.both(77, delete.clone(), Type::Ok, delete);
        prop_assert_eq!(found(&model, "lost-write", "value", json!(value)), 0);
        prop_assert_eq!(found(&model, "unseen", "values", json!(value)), 0);
    }

    #[test]
    fn lost_records_of_a_crashed_transaction_are_found(seed: u64, steps in 0usize..200) {
        let mut model = model(seed, steps);
        let at = model.end_of("t-0");
        model.writer.send(70, &[("t-0", Some(at), A), ("other", None, B)], Type::Info);
        model.writer.send(71, &[("t-0", Some(at + 1), 7_000_000)], Type::Ok);
        model.writer.poll(72, "t-0", &[(at + 1, 7_000_000)]);
        prop_assert_eq!(found(&model, "lost-write", "value", json!(A)), 0);
        // A read of one record proves that the other was written as well.
        model.writer.poll(73, "other", &[(0, B)]);
        prop_assert_eq!(found(&model, "lost-write", "value", json!(A)), 1);
    }

    #[test]
    fn unseen_and_duplicates_and_conflicts_are_found(seed: u64, steps in 0usize..200) {
        let mut model = model(seed, steps);
        let at = model.end_of("t-0");
        model.writer.send(70, &[("t-0", Some(at), A)], Type::Ok);
        prop_assert_eq!(found(&model, "unseen", "values", json!(A)), 1);
        let [(_, first), (second, _), _] = last_three(&model);
        model.writer.poll(71, "t-0", &[(at + 1, first)]);
        prop_assert_eq!(found(&model, "duplicate", "value", json!(first)), 1);
        model.writer.poll(72, "t-0", &[(second, A)]);
        prop_assert_eq!(found(&model, "inconsistent-offsets", "offset", json!(second)), 1);
    }

    #[test]
    fn aborted_precommitted_and_phantom_reads_are_found(seed: u64, steps in 0usize..200) {
        let mut model = model(seed, steps);
        let at = model.end_of("t-0");
        model.writer.send(70, &[("t-0", None, A)], Type::Fail);
        let reader = model.writer.poll(71, "t-0", &[(at, A)]);
        prop_assert_eq!(found(&model, "G1a", "reader", json!(reader)), 1);
        let own = txn(&mut model, 72, vec![send("t-0", Some(at + 1), B), poll("t-0", &[(at + 1, B)])]);
        prop_assert_eq!(found(&model, "precommitted-read", "op", json!(own)), 1);
        let reader = model.writer.poll(73, "t-0", &[(at + 2, -5)]);
        prop_assert_eq!(found(&model, "phantom", "reader", json!(reader)), 1);
    }

    #[test]
    fn skips_and_steps_back_of_polls_are_found(seed: u64, steps in 0usize..200) {
        let mut model = model(seed, steps);
        let [a, b, c] = last_three(&model);
        model.writer.poll(70, "t-0", &[a]);
        let over = model.writer.poll(70, "t-0", &[c]);
        prop_assert_eq!(found(&model, "poll-skip", "ops", json!(over)), 1);
        prop_assert_eq!(found(&model, "poll-skip", "skipped", json!(b.1)), 1);
        let back = model.writer.poll(70, "t-0", &[b]);
        prop_assert_eq!(found(&model, "nonmonotonic-poll", "ops", json!(back)), 1);
        let over = model.writer.poll(71, "t-0", &[a, c]);
        prop_assert_eq!(found(&model, "int-poll-skip", "op", json!(over)), 1);
        let back = model.writer.poll(72, "t-0", &[b, a]);
        prop_assert_eq!(found(&model, "int-nonmonotonic-poll", "op", json!(back)), 1);
        // An empty poll in between excuses nothing.
        model.writer.poll(73, "t-0", &[b]);
        model.writer.poll(73, "t-0", &[]);
        let back = model.writer.poll(73, "t-0", &[a]);
        prop_assert_eq!(found(&model, "nonmonotonic-poll", "ops", json!(back)), 1);
        // A new assignment does, and so does a seek to the beginning.
        let assign = |keys: &[&str]| Op::Assign(keys.iter().map(|k| (*k).into()).collect());
        model.writer.both(73, assign(&["x"]), Type::Ok, assign(&["x"]));
        model.writer.both(73, assign(&["x", "t-0"]), Type::Ok, assign(&["x", "t-0"]));
        let again = model.writer.poll(73, "t-0", &[a]);
        prop_assert_eq!(found(&model, "nonmonotonic-poll", "ops", json!(again)), 0);
        model.writer.both(73, assign(&["t-0"]), Type::Ok, assign(&["t-0"]));
        model.writer.0.last_mut().expect("written").seek_to_beginning = true;
        let again = model.writer.poll(73, "t-0", &[a]);
        prop_assert_eq!(found(&model, "nonmonotonic-poll", "ops", json!(again)), 0);
        // And so does a rebalance within an operation.
        let moved = model.writer.poll(74, "t-0", &[b, a]);
        model.writer.0.last_mut().expect("written").rebalanced = vec!["t-0".into()];
        prop_assert_eq!(found(&model, "int-nonmonotonic-poll", "op", json!(moved)), 0);
    }

    #[test]
    fn disorder_of_sends_is_found(seed: u64, steps in 0usize..200) {
        let mut model = model(seed, steps);
        let at = model.end_of("t-0");
        model.writer.send(70, &[("t-0", Some(at + 1), A)], Type::Ok);
        let back = model.writer.send(70, &[("t-0", Some(at), B)], Type::Ok);
        prop_assert_eq!(found(&model, "nonmonotonic-send", "ops", json!(back)), 1);
        // With realtime and offsets it is a cycle, too.
        prop_assert_eq!(found(&model, "G0-realtime", "cycle", json!(back)), 1);
        let back = model.writer.send(71, &[("t-0", Some(at + 5), 3_000_000), ("t-0", Some(at + 3), 3_000_001)], Type::Ok);
        prop_assert_eq!(found(&model, "int-nonmonotonic-send", "op", json!(back)), 1);
        let over = model.writer.send(72, &[("t-0", Some(at + 6), 3_000_002), ("t-0", Some(at + 8), 3_000_003)], Type::Ok);
        model.writer.send(73, &[("t-0", Some(at + 7), 3_000_004)], Type::Ok);
        prop_assert_eq!(found(&model, "int-send-skip", "op", json!(over)), 1);
    }

    #[test]
    fn cycles_are_found(seed: u64, steps in 0usize..200) {
        let mut model = model(seed, steps);
        // Two transactions that read each other's records.
        let both = Op::Txn(vec![MicroOp::Poll(None)]);
        model.writer.write(Type::Invoke, 70, both.clone());
        model.writer.write(Type::Invoke, 71, both);
        let one = model.writer.write(Type::Ok, 70, Op::Txn(vec![send("p", Some(0), A), poll("q", &[(0, B)])]));
        model.writer.write(Type::Ok, 71, Op::Txn(vec![send("q", Some(0), B), poll("p", &[(0, A)])]));
        prop_assert_eq!(found(&model, "G1c", "cycle", json!(one)), 1);
        prop_assert_eq!(verdict(&model.writer.0, Options::default()).valid(), Valid::No);
        // A read of a record that is sent later.
        let early = model.writer.poll(72, "r", &[(0, A)]);
        model.writer.send(73, &[("r", Some(0), A)], Type::Ok);
        prop_assert_eq!(found(&model, "G1c-realtime", "cycle", json!(early)), 1);
        // Two operations whose records are in opposite orders in two logs.
        let sends = |offsets: [i64; 2], v| Op::Send(vec![send("s", Some(offsets[0]), v), send("u", Some(offsets[1]), v)]);
        model.writer.write(Type::Invoke, 74, sends([0, 1], A));
        model.writer.write(Type::Invoke, 75, sends([1, 0], B));
        let one = model.writer.write(Type::Ok, 74, sends([0, 1], A));
        model.writer.write(Type::Ok, 75, sends([1, 0], B));
        prop_assert_eq!(found(&model, "G0", "cycle", json!(one)), 1);
    }

    #[test]
    fn intermediate_reads_are_found_where_asked_for(seed: u64, steps in 0usize..200) {
        let mut model = model(seed, steps);
        let at = model.end_of("t-0");
        model.writer.send(70, &[("t-0", Some(at), A), ("t-0", Some(at + 1), B)], Type::Ok);
        let reader = model.writer.poll(71, "t-0", &[(at, A)]);
        let options = Options { intermediate_reads: true, ..Options::default() };
        let verdict = verdict(&model.writer.0, options);
        let ours = verdict.findings("G1b").iter().filter(|f| f.data["reader"] == json!(reader));
        prop_assert_eq!(ours.count(), 1);
    }
}

#[test]
fn a_history_without_related_operations_is_invalid() {
    let mut writer = common::HistoryWriter::default();
    writer.send(0, &[("x", Some(0), 1)], Type::Ok);
    let verdict = verdict(
        &writer.0,
        Options {
            allow: ["unseen"].into(),
            ..Options::default()
        },
    );
    assert_eq!(verdict.valid(), Valid::No);
    assert_eq!(verdict.findings("empty-transaction-graph").len(), 1);
}

#[test]
fn a_process_that_does_two_things_at_once_is_refused() {
    let mut writer = common::HistoryWriter::default();
    let op = Op::Poll(vec![MicroOp::Poll(None)]);
    writer.write(Type::Invoke, 0, op.clone());
    writer.write(Type::Invoke, 0, op);
    let mut kafka = Kafka::new(Options::default());
    kafka.push(writer.0[0].clone()).expect("one thing");
    let refused = kafka.push(writer.0[1].clone()).expect_err("two things");
    assert_eq!(
        (refused.index, refused.what.as_str()),
        (1, "process 0 has not ended operation 0 yet")
    );
}

/// A published history of lags: the records that a poll has not returned, and since when it could have.
#[test]
fn lags_and_unseen_records_over_time() {
    let mut writer = common::HistoryWriter::default();
    let assign = |keys: &[&str]| Op::Assign(keys.iter().map(|k| (*k).into()).collect());
    writer.both(0, assign(&["x"]), Type::Ok, assign(&["x"]));
    writer.poll(0, "x", &[]);
    writer.send(0, &[("x", Some(0), 1)], Type::Ok);
    writer.poll(0, "x", &[]);
    writer.send(1, &[("x", Some(2), 3), ("x", Some(3), 4)], Type::Ok);
    writer.poll(0, "x", &[]);
    writer.poll(0, "x", &[(0, 1), (1, 2)]);
    writer.both(0, assign(&["x", "y"]), Type::Ok, assign(&["x", "y"]));
    writer.poll(0, "x", &[]);
    writer.both(0, assign(&["y"]), Type::Ok, assign(&["y"]));
    writer.both(0, assign(&["x"]), Type::Ok, assign(&["x"]));
    writer.poll(0, "x", &[]);
    writer.poll(0, "x", &[(0, 1), (1, 2), (2, 3), (3, 4)]);
    writer.send(1, &[("x", None, 2)], Type::Info);
    let mut kafka = Kafka::new(Options::default());
    for mut operation in writer.0 {
        operation.time /= 10;
        kafka.push(operation).expect("processes do one thing at a time");
    }
    let analysis = kafka.finish();
    let totals = analysis.unread_totals();
    let totals: Vec<_> = totals.into_iter().filter(|(time, _)| *time < 14).collect();
    assert_eq!(totals, [(3, 0), (5, 1), (7, 1), (9, 3), (11, 3), (13, 2)]);
    let lags: Vec<_> = analysis
        .realtime_lags()
        .into_iter()
        .map(|l| (l.time, l.key, l.lag))
        .collect();
    let expected = [
        (2, "x", 0),
        (6, "x", 1),
        (10, "x", 5),
        (12, "x", 3),
        (16, "x", 7),
        (16, "y", 0),
        (22, "x", 17),
        (24, "x", 0),
    ];
    assert_eq!(lags, expected.map(|(t, k, l)| (t, k.to_owned(), l)));
    let worst = &analysis.verdict().notes["worst_realtime_lag"];
    assert_eq!(*worst, json!({"time": 22, "process": 0, "key": "x", "lag": 17}));
    let unseen: Vec<_> = analysis
        .unseen_series()
        .into_iter()
        .map(|u| (u.time, u.unseen.get("x").copied()))
        .collect();
    assert_eq!(
        unseen[1..6],
        [
            (5, Some(1)),
            (7, Some(1)),
            (9, Some(3)),
            (11, Some(3)),
            (13, Some(2))
        ]
    );
}

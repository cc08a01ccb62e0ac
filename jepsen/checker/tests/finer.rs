//! Exact limits of the checkers' waivers: one handwritten history for each, and beside it the nearest one with the opposite
//! verdict.

mod common;

use brokkr_checker::kafka::{Kafka, Options};
use brokkr_checker::linear::{Limits, Linear, Model, Registers, Topics};
use brokkr_checker::metadata::Metadata;
use brokkr_checker::{Valid, Verdict};
use brokkr_history::{Key, MicroOp, Op, Type};
use common::{HistoryWriter, poll, send};
use serde_json::{Value, json};

/// The verdict of the Kafka checker, without `unseen`.
fn kafka(writer: &HistoryWriter, ww_deps: bool) -> Verdict {
    let allow = ["unseen"].into();
    let mut kafka = Kafka::new(Options {
        ww_deps,
        allow,
        ..Options::default()
    });
    for operation in &writer.0 {
        kafka
            .push(operation.clone())
            .expect("processes do one thing at a time");
    }
    kafka.finish().verdict()
}

fn linear<M: Model>(model: M, writer: &HistoryWriter) -> Valid {
    let mut linear = Linear::new(model, Limits::default());
    for operation in &writer.0 {
        linear.push(operation.clone()).expect("a history of this model");
    }
    linear.finish().expect("a history of this model").valid()
}

fn metadata(writer: &HistoryWriter) -> Verdict {
    let mut metadata = Metadata::default();
    for operation in &writer.0 {
        metadata.push(operation.clone()).expect("a history of metadata");
    }
    metadata.finish().expect("a history of metadata")
}

fn op(f: &str, value: Value) -> Op {
    Op::Other(f.to_owned(), value)
}

impl HistoryWriter {
    /// Writes an operation with its answer.
    fn answered(&mut self, process: u64, f: &str, request: Value, answered: Value) -> u64 {
        self.both(process, op(f, request), Type::Ok, op(f, answered))
    }
}

/// Three records in `x`, sent one by one and all read.
fn three_records_read() -> HistoryWriter {
    let mut writer = HistoryWriter::default();
    for offset in 0..3 {
        writer.send(0, &[("x", Some(offset), offset)], Type::Ok);
    }
    writer.poll(1, "x", &[(0, 0), (1, 1), (2, 2)]);
    writer
}

#[test]
fn records_of_one_send_may_interleave_with_others() {
    let mut writer = HistoryWriter::default();
    let both = [("x", Some(0), 1), ("x", Some(2), 3)];
    let sends = |offsets: bool| {
        let sends = both.map(|(key, offset, value)| send(key, offset.filter(|_| offsets), value));
        Op::Send(sends.into())
    };
    writer.write(Type::Invoke, 0, sends(false));
    writer.send(1, &[("x", Some(1), 2)], Type::Ok);
    writer.write(Type::Ok, 0, sends(true));
    writer.poll(2, "x", &[(0, 1), (1, 2), (2, 3)]);
    let verdict = kafka(&writer, false);
    assert_eq!(verdict.findings("int-send-skip").len(), 1);
    assert_eq!(verdict.valid(), Valid::Yes);
}

#[test]
fn a_subscriber_may_be_moved_to_another_position() {
    let keys = || vec![Key::from("x")];
    let subscribe = |process, type_| (process, Op::Subscribe(keys()), type_);
    let assign = (2, Op::Assign(keys()), Type::Ok);
    let cases = [
        (vec![subscribe(2, Type::Ok)], Valid::Yes),
        (vec![], Valid::No),
        // Only the subscriber, only if it succeeds, and only until it assigns.
        (vec![subscribe(3, Type::Ok)], Valid::No),
        (vec![subscribe(2, Type::Fail)], Valid::No),
        (vec![subscribe(2, Type::Ok), assign], Valid::No),
    ];
    for (before, valid) in cases {
        let mut writer = three_records_read();
        for (process, op, type_) in before.clone() {
            writer.both(process, op.clone(), type_, op);
        }
        writer.poll(2, "x", &[(0, 0)]);
        writer.poll(2, "x", &[(2, 2)]);
        writer.poll(2, "x", &[(1, 1)]);
        let verdict = kafka(&writer, false);
        assert_eq!(verdict.findings("poll-skip").len(), 1);
        assert_eq!(verdict.findings("nonmonotonic-poll").len(), 1);
        assert_eq!(verdict.valid(), valid, "{before:?}");
    }
}

/// Two transactions that read each other's records.
fn crossed_transactions() -> (HistoryWriter, u64) {
    let mut writer = HistoryWriter::default();
    let request = Op::Txn(vec![MicroOp::Poll(None)]);
    writer.write(Type::Invoke, 0, request.clone());
    writer.write(Type::Invoke, 1, request);
    let txn =
        |sends, reads, mine, theirs| Op::Txn(vec![send(sends, Some(0), mine), poll(reads, &[(0, theirs)])]);
    let first = writer.write(Type::Ok, 0, txn("p", "q", 1, 2));
    writer.write(Type::Ok, 1, txn("q", "p", 2, 1));
    (writer, first)
}

/// A transaction that reads a record of another one, and whose own record is before the other's.
fn crossed_write(writer: &mut HistoryWriter) {
    let request = Op::Txn(vec![MicroOp::Poll(None)]);
    writer.write(Type::Invoke, 5, request.clone());
    writer.write(Type::Invoke, 6, request);
    let first = Op::Txn(vec![send("v", Some(0), 1), send("w", Some(2), 2)]);
    writer.write(Type::Ok, 5, first);
    let second = Op::Txn(vec![poll("v", &[(0, 1)]), send("w", Some(1), 3)]);
    writer.write(Type::Ok, 6, second);
}

#[test]
fn cycles_are_allowed_only_if_the_order_of_writes_closes_them() {
    let (mut writer, first) = crossed_transactions();
    for ww_deps in [true, false] {
        let verdict = kafka(&writer, ww_deps);
        let [cycle] = verdict.findings("G1c") else {
            panic!("one cycle: {verdict:?}")
        };
        assert!(cycle.ops.contains(&first));
        assert_eq!(verdict.valid(), Valid::No, "ww_deps: {ww_deps}");
    }
    let mut writes = HistoryWriter::default();
    crossed_write(&mut writes);
    for (ww_deps, cycles) in [(true, 1), (false, 0)] {
        let verdict = kafka(&writes, ww_deps);
        assert_eq!(verdict.findings("G1c").len(), cycles, "ww_deps: {ww_deps}");
        assert_eq!(verdict.valid(), Valid::Yes, "ww_deps: {ww_deps}");
    }
    // One does not excuse the other.
    crossed_write(&mut writer);
    let both = kafka(&writer, true);
    let waived: Vec<_> = both.findings("G1c").iter().map(|f| f.waived.is_some()).collect();
    assert_eq!((waived, both.valid()), (vec![false, true], Valid::No));
}

/// A contradiction of data does not hide one of realtime in the same component.
#[test]
fn a_cycle_of_realtime_is_found_beside_one_of_data() {
    let (mut writer, _) = crossed_transactions();
    // Process 0's next operation is read by one that ended before it began, and that the cycle depends on.
    let request = Op::Txn(vec![MicroOp::Poll(None)]);
    let early = Op::Txn(vec![poll("s", &[(0, 9)]), send("r", Some(0), 8)]);
    writer.both(2, request.clone(), Type::Ok, early);
    let late = Op::Txn(vec![poll("r", &[(0, 8)]), send("s", Some(0), 9)]);
    writer.both(3, request, Type::Ok, late);
    let verdict = kafka(&writer, false);
    assert_eq!(verdict.findings("G1c").len(), 2);
    let [cycle] = verdict.findings("G1c-realtime") else {
        panic!("one cycle: {verdict:?}")
    };
    let steps = cycle.data["steps"].as_array().expect("steps");
    let kinds: Vec<_> = steps.iter().map(|step| step["type"].as_str()).collect();
    assert_eq!(kinds, [Some("realtime"), Some("wr")]);
}

#[test]
fn realtime_adds_nothing_to_a_cycle_of_data() {
    let (mut writer, _) = crossed_transactions();
    assert!(kafka(&writer, false).findings("G1c-realtime").is_empty());
    // Another cycle, which only realtime closes.
    writer.poll(2, "r", &[(0, 7)]);
    writer.send(3, &[("r", Some(0), 7)], Type::Ok);
    let verdict = kafka(&writer, false);
    let of = |anomaly| verdict.findings(anomaly).len();
    assert_eq!((of("G1c"), of("G1c-realtime")), (1, 1));
}

#[test]
fn deleted_records_are_not_skipped() {
    for (before, skips) in [(2, 0), (1, 1), (0, 1)] {
        let mut writer = three_records_read();
        writer.poll(2, "x", &[(0, 0)]);
        let deleted = json!({"key": "x", "before": before});
        writer.answered(4, "delete_records", deleted.clone(), deleted);
        writer.poll(2, "x", &[(2, 2)]);
        let verdict = kafka(&writer, false);
        assert_eq!(verdict.findings("poll-skip").len(), skips, "before {before}");
    }
}

#[test]
fn a_send_of_unknown_outcome_is_not_lost() {
    for (type_, lost) in [(Type::Ok, 1), (Type::Info, 0), (Type::Fail, 0)] {
        let mut writer = HistoryWriter::default();
        writer.send(0, &[("x", None, 1)], type_);
        // Its offset is known from a poll of unknown outcome.
        let read = Op::Poll(vec![poll("x", &[(0, 1)])]);
        writer.both(1, Op::Poll(vec![MicroOp::Poll(None)]), Type::Info, read);
        writer.send(2, &[("x", Some(1), 2)], Type::Ok);
        writer.poll(3, "x", &[(1, 2)]);
        assert_eq!(
            kafka(&writer, false).findings("lost-write").len(),
            lost,
            "{type_:?}"
        );
    }
    // If one record of an operation was read, the operation happened with all of its records.
    let mut writer = HistoryWriter::default();
    writer.send(0, &[("x", Some(0), 1), ("x", Some(1), 2)], Type::Info);
    writer.poll(3, "x", &[(1, 2)]);
    assert_eq!(kafka(&writer, false).findings("lost-write").len(), 1);
}

#[test]
fn cas_succeeds_only_if_the_register_held_the_old_value() {
    for (held, valid) in [(1, Valid::Yes), (2, Valid::No)] {
        let mut writer = HistoryWriter::default();
        writer.answered(0, "write", json!(["x", 1]), json!(["x", 1]));
        let cas = json!(["x", [held, 3]]);
        writer.answered(0, "cas", cas.clone(), cas);
        writer.answered(0, "read", json!(["x", null]), json!(["x", 3]));
        assert_eq!(linear(Registers, &writer), valid, "swapped {held}");
    }
}

#[test]
fn a_failed_write_did_not_happen() {
    for (type_, valid) in [
        (Type::Ok, Valid::Yes),
        (Type::Info, Valid::Yes),
        (Type::Fail, Valid::No),
    ] {
        let mut writer = HistoryWriter::default();
        let write = op("write", json!(["x", 2]));
        writer.both(0, write.clone(), type_, write);
        writer.answered(1, "read", json!(["x", null]), json!(["x", 2]));
        assert_eq!(linear(Registers, &writer), valid, "{type_:?}");
    }
}

#[test]
fn the_controllers_answers_about_topics_are_checked() {
    let created = ("create-topic", json!({"topic": "t", "id": "a"}));
    let there = ("create-topic", json!({"topic": "t", "exists": true}));
    let deleted = |id: Option<&str>| match id {
        Some(id) => ("delete-topic", json!({"topic": "t", "id": id})),
        None => ("delete-topic", json!({"topic": "t"})),
    };
    let gone = ("delete-topic", json!({"topic": "t", "exists": false}));
    let cases = [
        (vec![created.clone(), there.clone()], Valid::Yes),
        (vec![there.clone()], Valid::No),
        (vec![created.clone(), deleted(None), there], Valid::No),
        (vec![gone.clone()], Valid::Yes),
        (vec![created.clone(), gone.clone()], Valid::No),
        (
            vec![created.clone(), deleted(Some("a")), gone.clone()],
            Valid::Yes,
        ),
        (vec![created.clone(), deleted(Some("b")), gone], Valid::No),
        (vec![created.clone(), deleted(None), created.clone()], Valid::Yes),
        (vec![created.clone(), created], Valid::No),
        (vec![deleted(None)], Valid::No),
        (vec![deleted(Some("a"))], Valid::No),
    ];
    for (answered, valid) in cases {
        let mut writer = HistoryWriter::default();
        for (f, value) in &answered {
            writer.answered(0, f, json!({"topic": "t"}), value.clone());
        }
        assert_eq!(linear(Topics, &writer), valid, "{answered:?}");
    }
}

#[test]
fn a_broker_does_not_go_back_to_an_older_topic_id() {
    for (broker, backs) in [(1, 1), (2, 0)] {
        let mut writer = HistoryWriter::default();
        let t = || json!({"topic": "t"});
        writer.answered(0, "create-topic", t(), json!({"topic": "t", "id": "a"}));
        writer.answered(0, "delete-topic", t(), t());
        writer.answered(0, "create-topic", t(), json!({"topic": "t", "id": "b"}));
        let shown = |broker: i64, id: &str| json!({"broker": broker, "topics": {"t": {"id": id}}});
        // It need not have shown the older id before.
        for (broker, id) in [(1, "b"), (broker, "a")] {
            writer.answered(9, "metadata", json!({"broker": broker}), shown(broker, id));
        }
        let verdict = metadata(&writer);
        assert_eq!(
            verdict.findings("nonmonotonic-metadata").len(),
            backs,
            "broker {broker}"
        );
        assert_eq!(verdict.valid(), if backs == 0 { Valid::Yes } else { Valid::No });
    }
}

#[test]
fn a_new_incarnation_of_a_coordinator_may_return_older_offsets() {
    for (incarnation, backs) in [(1, 1), (2, 0)] {
        let mut writer = HistoryWriter::default();
        for offset in [5, 6] {
            let commit = json!({"group": "g", "key": "k", "offset": offset});
            writer.answered(0, "commit", commit.clone(), commit);
        }
        for (incarnation, offset) in [(1, 6), (incarnation, 5)] {
            let answered = json!({"group": "g", "key": "k", "coordinator": 3, "incarnation": incarnation, "offset": offset});
            writer.answered(1, "committed", answered.clone(), answered);
        }
        let verdict = metadata(&writer);
        assert_eq!(
            verdict.findings("nonmonotonic-offset").len(),
            backs,
            "incarnation {incarnation}"
        );
    }
}

#[test]
fn without_answers_the_verdict_is_unknown() {
    let mut writer = HistoryWriter::default();
    writer.answered(
        0,
        "create-topic",
        json!({"topic": "t"}),
        json!({"topic": "t", "id": "a"}),
    );
    assert_eq!(metadata(&writer).valid(), Valid::Unknown);
    writer.answered(
        1,
        "metadata",
        json!({"broker": 1}),
        json!({"broker": 1, "topics": {}}),
    );
    writer.answered(
        1,
        "metadata",
        json!({"broker": 1}),
        json!({"broker": 1, "topics": {"t": {"id": "a"}}}),
    );
    assert_eq!(metadata(&writer).valid(), Valid::Yes);
}

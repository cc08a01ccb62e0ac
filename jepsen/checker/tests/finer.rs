//! What the judges excuse, and what they don't: one history for each, written by hand, and beside it the nearest one that comes out
//! the other way.

mod common;

use brokkr_checker::kafka::{Kafka, Options};
use brokkr_checker::linear::{Limits, Linear, Model, Registers, Topics};
use brokkr_checker::metadata::Metadata;
use brokkr_checker::{Valid, Verdict};
use brokkr_history::{Key, MicroOp, Op, Type};
use common::{Pen, poll, send};
use serde_json::{Value, json};

/// What Jepsen's Kafka workload says; `unseen` is left to others.
fn kafka(pen: &Pen, ww_deps: bool) -> Verdict {
    let allow = ["unseen"].into();
    let mut kafka = Kafka::new(Options {
        ww_deps,
        allow,
        ..Options::default()
    });
    for operation in &pen.0 {
        kafka.push(operation.clone()).expect("one thing at a time");
    }
    kafka.finish().verdict()
}

fn linear<M: Model>(model: M, pen: &Pen) -> Valid {
    let mut linear = Linear::new(model, Limits::default());
    for operation in &pen.0 {
        linear.push(operation.clone()).expect("a history of this model");
    }
    linear.finish().expect("a history of this model").valid()
}

fn metadata(pen: &Pen) -> Verdict {
    let mut metadata = Metadata::default();
    for operation in &pen.0 {
        metadata.push(operation.clone()).expect("a history of metadata");
    }
    metadata.finish().expect("a history of metadata")
}

fn op(f: &str, value: Value) -> Op {
    Op::Other(f.to_owned(), value)
}

impl Pen {
    /// Asks, and is told this.
    fn told(&mut self, process: u64, f: &str, asked: Value, told: Value) -> u64 {
        self.both(process, op(f, asked), Type::Ok, op(f, told))
    }
}

/// Three records in `x`, sent one by one, and all read by somebody.
fn three() -> Pen {
    let mut pen = Pen::default();
    for offset in 0..3 {
        pen.send(0, &[("x", Some(offset), offset)], Type::Ok);
    }
    pen.poll(1, "x", &[(0, 0), (1, 1), (2, 2)]);
    pen
}

#[test]
fn records_of_others_may_stand_between_those_of_one_send() {
    let mut pen = Pen::default();
    let both = [("x", Some(0), 1), ("x", Some(2), 3)];
    let sends = |offsets: bool| {
        let sends = both.map(|(key, offset, value)| send(key, offset.filter(|_| offsets), value));
        Op::Send(sends.into())
    };
    pen.write(Type::Invoke, 0, sends(false));
    pen.send(1, &[("x", Some(1), 2)], Type::Ok);
    pen.write(Type::Ok, 0, sends(true));
    pen.poll(2, "x", &[(0, 1), (1, 2), (2, 3)]);
    let verdict = kafka(&pen, false);
    assert_eq!(verdict.findings("int-send-skip").len(), 1);
    assert_eq!(verdict.valid(), Valid::Yes);
}

#[test]
fn who_subscribes_may_find_himself_elsewhere() {
    for (subscribes, valid) in [(true, Valid::Yes), (false, Valid::No)] {
        let mut pen = three();
        if subscribes {
            let keys = Op::Subscribe(vec![Key::from("x")]);
            pen.both(3, keys.clone(), Type::Ok, keys);
        }
        pen.poll(2, "x", &[(0, 0)]);
        pen.poll(2, "x", &[(2, 2)]);
        pen.poll(2, "x", &[(1, 1)]);
        let verdict = kafka(&pen, false);
        assert_eq!(verdict.findings("poll-skip").len(), 1);
        assert_eq!(verdict.findings("nonmonotonic-poll").len(), 1);
        assert_eq!(verdict.valid(), valid, "subscribes: {subscribes}");
    }
}

/// Two transactions that read each other's records.
fn crosswise() -> (Pen, u64) {
    let mut pen = Pen::default();
    let asked = Op::Txn(vec![MicroOp::Poll(None)]);
    pen.write(Type::Invoke, 0, asked.clone());
    pen.write(Type::Invoke, 1, asked);
    let txn =
        |sends, reads, mine, theirs| Op::Txn(vec![send(sends, Some(0), mine), poll(reads, &[(0, theirs)])]);
    let first = pen.write(Type::Ok, 0, txn("p", "q", 1, 2));
    pen.write(Type::Ok, 1, txn("q", "p", 2, 1));
    (pen, first)
}

#[test]
fn circles_of_reads_are_allowed_only_where_writes_are_ordered_too() {
    let (pen, first) = crosswise();
    for (ww_deps, valid) in [(true, Valid::Yes), (false, Valid::No)] {
        let verdict = kafka(&pen, ww_deps);
        let [circle] = verdict.findings("G1c") else {
            panic!("one circle: {verdict:?}")
        };
        assert!(circle.ops.contains(&first));
        assert_eq!(verdict.valid(), valid, "ww_deps: {ww_deps}");
    }
}

#[test]
fn time_adds_nothing_to_what_data_alone_contradict() {
    let (mut pen, _) = crosswise();
    assert!(kafka(&pen, false).findings("G1c-realtime").is_empty());
    // Another circle, that only time closes.
    pen.poll(2, "r", &[(0, 7)]);
    pen.send(3, &[("r", Some(0), 7)], Type::Ok);
    let verdict = kafka(&pen, false);
    let of = |anomaly| verdict.findings(anomaly).len();
    assert_eq!((of("G1c"), of("G1c-realtime")), (1, 1));
}

#[test]
fn what_was_deleted_is_not_skipped() {
    for (before, skips) in [(2, 0), (1, 1), (0, 1)] {
        let mut pen = three();
        pen.poll(2, "x", &[(0, 0)]);
        let deleted = json!({"key": "x", "before": before});
        pen.told(4, "delete_records", deleted.clone(), deleted);
        pen.poll(2, "x", &[(2, 2)]);
        let verdict = kafka(&pen, false);
        assert_eq!(verdict.findings("poll-skip").len(), skips, "before {before}");
    }
}

#[test]
fn a_send_of_which_nobody_knows_is_not_lost() {
    for (type_, lost) in [(Type::Ok, 1), (Type::Info, 0), (Type::Fail, 0)] {
        let mut pen = Pen::default();
        pen.send(0, &[("x", None, 1)], type_);
        // Where it would stand is known from one who can't say whether he saw it.
        let read = Op::Poll(vec![poll("x", &[(0, 1)])]);
        pen.both(1, Op::Poll(vec![MicroOp::Poll(None)]), Type::Info, read);
        pen.send(2, &[("x", Some(1), 2)], Type::Ok);
        pen.poll(3, "x", &[(1, 2)]);
        assert_eq!(kafka(&pen, false).findings("lost-write").len(), lost, "{type_:?}");
    }
    // One of whose records one was seen did happen, with all of its records.
    let mut pen = Pen::default();
    pen.send(0, &[("x", Some(0), 1), ("x", Some(1), 2)], Type::Info);
    pen.poll(3, "x", &[(1, 2)]);
    assert_eq!(kafka(&pen, false).findings("lost-write").len(), 1);
}

#[test]
fn a_register_is_swapped_only_if_it_held_that() {
    for (held, valid) in [(1, Valid::Yes), (2, Valid::No)] {
        let mut pen = Pen::default();
        pen.told(0, "write", json!(["x", 1]), json!(["x", 1]));
        let cas = json!(["x", [held, 3]]);
        pen.told(0, "cas", cas.clone(), cas);
        pen.told(0, "read", json!(["x", null]), json!(["x", 3]));
        assert_eq!(linear(Registers, &pen), valid, "swapped {held}");
    }
}

#[test]
fn what_failed_did_not_happen() {
    for (type_, valid) in [
        (Type::Ok, Valid::Yes),
        (Type::Info, Valid::Yes),
        (Type::Fail, Valid::No),
    ] {
        let mut pen = Pen::default();
        let write = op("write", json!(["x", 2]));
        pen.both(0, write.clone(), type_, write);
        pen.told(1, "read", json!(["x", null]), json!(["x", 2]));
        assert_eq!(linear(Registers, &pen), valid, "{type_:?}");
    }
}

#[test]
fn what_the_controller_answers_about_a_topic_is_true() {
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
    for (told, valid) in cases {
        let mut pen = Pen::default();
        for (f, value) in &told {
            pen.told(0, f, json!({"topic": "t"}), value.clone());
        }
        assert_eq!(linear(Topics, &pen), valid, "{told:?}");
    }
}

#[test]
fn a_broker_does_not_go_back_to_a_topic_s_older_id() {
    for (broker, backs) in [(1, 1), (2, 0)] {
        let mut pen = Pen::default();
        let t = || json!({"topic": "t"});
        pen.told(0, "create-topic", t(), json!({"topic": "t", "id": "a"}));
        pen.told(0, "delete-topic", t(), t());
        pen.told(0, "create-topic", t(), json!({"topic": "t", "id": "b"}));
        let shown = |broker: i64, id: &str| json!({"broker": broker, "topics": {"t": {"id": id}}});
        // It need not have shown the older one before.
        for (broker, id) in [(1, "b"), (broker, "a")] {
            pen.told(9, "metadata", json!({"broker": broker}), shown(broker, id));
        }
        let verdict = metadata(&pen);
        assert_eq!(
            verdict.findings("nonmonotonic-metadata").len(),
            backs,
            "broker {broker}"
        );
        assert_eq!(verdict.valid(), if backs == 0 { Valid::Yes } else { Valid::No });
    }
}

#[test]
fn a_coordinator_s_new_life_owes_nothing_to_the_one_before() {
    for (incarnation, backs) in [(1, 1), (2, 0)] {
        let mut pen = Pen::default();
        for offset in [5, 6] {
            let commit = json!({"group": "g", "key": "k", "offset": offset});
            pen.told(0, "commit", commit.clone(), commit);
        }
        for (incarnation, offset) in [(1, 6), (incarnation, 5)] {
            let told = json!({"group": "g", "key": "k", "coordinator": 3, "incarnation": incarnation, "offset": offset});
            pen.told(1, "committed", told.clone(), told);
        }
        let verdict = metadata(&pen);
        assert_eq!(
            verdict.findings("nonmonotonic-offset").len(),
            backs,
            "incarnation {incarnation}"
        );
    }
}

#[test]
fn where_nobody_answered_nothing_is_shown() {
    let mut pen = Pen::default();
    pen.told(
        0,
        "create-topic",
        json!({"topic": "t"}),
        json!({"topic": "t", "id": "a"}),
    );
    assert_eq!(metadata(&pen).valid(), Valid::Unknown);
    pen.told(
        1,
        "metadata",
        json!({"broker": 1}),
        json!({"broker": 1, "topics": {}}),
    );
    pen.told(
        1,
        "metadata",
        json!({"broker": 1}),
        json!({"broker": 1, "topics": {"t": {"id": "a"}}}),
    );
    assert_eq!(metadata(&pen).valid(), Valid::Yes);
}

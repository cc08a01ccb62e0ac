//! The rules beyond Jepsen's: for each a history that breaks it, and the nearest one that does not.

mod common;

use brokkr_checker::kafka::{Kafka, Options};
use brokkr_checker::{Valid, Verdict};
use brokkr_history::{Key, MicroOp, Op, Operation, Polls, Seek, Type, Val};
use common::{HistoryWriter, poll, send};
use serde_json::{Value, json};

fn judged(history: &[Operation], options: Options) -> Verdict {
    let mut kafka = Kafka::new(options);
    for operation in history {
        kafka.push(operation.clone()).expect("a history");
    }
    kafka.finish().verdict()
}

fn verdict(writer: &HistoryWriter) -> Verdict {
    judged(&writer.0, Options::default())
}

fn count(writer: &HistoryWriter, anomaly: &str) -> usize {
    verdict(writer).findings(anomaly).len()
}

/// Records with these values in `x`, at offsets of the same numbers, sent one by one.
fn sent(values: impl IntoIterator<Item = i64>) -> HistoryWriter {
    let mut writer = HistoryWriter::default();
    for value in values {
        writer.send(0, &[("x", Some(value), value)], Type::Ok);
    }
    writer
}

fn records(offsets: impl IntoIterator<Item = i64>) -> Vec<(i64, i64)> {
    offsets.into_iter().map(|o| (o, o)).collect()
}

impl HistoryWriter {
    fn other(&mut self, f: &str, type_: Type, asked: Value, answered: Value) -> u64 {
        let op = |value| Op::Other(f.to_owned(), value);
        self.both(9, op(asked), type_, op(answered))
    }

    fn delete(&mut self, type_: Type, before: i64) -> u64 {
        let value = json!({"key": "x", "before": before});
        self.other("delete_records", type_, value.clone(), value)
    }

    fn assign(&mut self, process: u64, keys: &[&str], seeks: &[(&str, Seek)]) -> u64 {
        let op = Op::Assign(keys.iter().map(|k| Key::from(*k)).collect());
        let index = self.both(process, op.clone(), Type::Ok, op);
        let seeks = seeks.iter().map(|(key, seek)| (Key::from(*key), *seek));
        self.last().seeks = seeks.collect();
        index
    }

    fn last(&mut self) -> &mut Operation {
        self.0.last_mut().expect("written")
    }
}

#[test]
fn nothing_judged_is_no_verdict() {
    // Two polls are related in real time, and nothing else happened.
    let mut writer = HistoryWriter::default();
    writer.poll(1, "x", &[]);
    writer.poll(1, "x", &[]);
    let empty = verdict(&writer);
    assert_eq!((empty.valid(), empty.counted["acked"]), (Valid::Unknown, 0));
    assert_eq!(empty.gave_up.as_deref(), Some("no record was acknowledged"));
    // Records that nobody read, where that is allowed.
    let mut writer = sent([0]);
    let options = || Options {
        allow: ["unseen"].into(),
        ..Options::default()
    };
    writer.poll(1, "x", &[]);
    let mut unread = judged(&writer.0, options());
    assert_eq!(unread.valid(), Valid::Yes);
    unread.require("read", 1).expect("it is counted");
    assert_eq!(
        unread.gave_up.as_deref(),
        Some("read: 0 were judged, and 1 are required")
    );
    writer.poll(1, "x", &[(0, 0)]);
    assert_eq!(judged(&writer.0, options()).valid(), Valid::Yes);
    // An operation that is used and never succeeds.
    let request = Op::Txn(vec![MicroOp::Poll(None)]);
    writer.both(2, request.clone(), Type::Fail, request.clone());
    let failing = verdict(&writer);
    assert_eq!(failing.gave_up.as_deref(), Some("no txn ever succeeded"));
    assert_eq!(failing.valid(), Valid::Unknown);
    writer.both(2, request.clone(), Type::Ok, request);
    assert_eq!(verdict(&writer).valid(), Valid::Yes);
}

#[test]
fn a_verdict_says_what_it_counted() {
    let mut writer = sent([0, 1]);
    writer.poll(1, "x", &records([0, 1]));
    writer.poll(2, "x", &records([0]));
    writer.poll(2, "y", &[]);
    writer.delete(Type::Info, 0);
    let value = json!(null);
    writer.other("dance", Type::Ok, value.clone(), value);
    writer.0.push(Operation::new(
        writer.0.len() as u64,
        0,
        Type::Ok,
        7,
        Op::Poll(Vec::new()),
    ));
    writer.write(Type::Invoke, 8, Op::Poll(vec![MicroOp::Poll(None)]));
    let said = verdict(&writer).to_json();
    let counted = json!({"acked": 2, "deletes": 1, "digests": 0, "listings": 0, "read": 2, "shown": 3});
    assert_eq!(said["counted"], counted);
    let stats = |ok, info, unfinished| json!({"ok": ok, "fail": 0, "info": info, "unfinished": unfinished});
    let expected = json!({"delete-records": stats(0, 1, 0), "poll": stats(4, 0, 1), "send": stats(2, 0, 0)});
    assert_eq!(said["stats"], expected);
    assert_eq!(said["not_judged"], json!({"dance": 1}));
    assert_eq!(said["uninvoked"], json!(1));
    assert_eq!(said["readers"], json!({"x": 2}));
}

#[test]
fn counts_may_be_required() {
    let mut writer = sent([0, 1]);
    writer.poll(1, "x", &records([0, 1]));
    for (what, least, valid) in [
        ("acked", 2, Valid::Yes),
        ("acked", 3, Valid::Unknown),
        ("read", 2, Valid::Yes),
    ] {
        let mut verdict = verdict(&writer);
        verdict.require(what, least).expect("it is counted");
        assert_eq!(verdict.valid(), valid, "{what} {least}");
    }
    let unknown = verdict(&writer)
        .require("axed", 1)
        .expect_err("it is not counted");
    assert_eq!(
        unknown.counted,
        ["acked", "deletes", "digests", "listings", "read", "shown"]
    );
}

#[test]
fn values_are_unique_for_each_key() {
    let mut kafka = Kafka::new(Options::default());
    let mut writer = sent([0]);
    writer.send(0, &[("y", Some(0), 0)], Type::Ok);
    for operation in &writer.0 {
        kafka.push(operation.clone()).expect("values of two keys");
    }
    writer.send(1, &[("x", Some(3), 0)], Type::Info);
    kafka
        .push(writer.0[4].clone())
        .expect("invocations are not compared");
    let twice = kafka.push(writer.0[5].clone()).expect_err("a value of one key");
    assert_eq!(
        (twice.index, twice.what.as_str()),
        (5, "0 was sent to x before; values are unique")
    );
    // A send that never ended may be the one of a completion without an invocation.
    let mut writer = sent([0]);
    writer.write(Type::Invoke, 1, Op::Send(vec![send("x", None, 0)]));
    writer.poll(2, "x", &records([0]));
    assert_eq!(verdict(&writer).valid(), Valid::Yes);
}

#[test]
fn each_anomaly_names_its_invariant() {
    let mut writer = sent([0]);
    writer.poll(1, "x", &[(0, 5)]);
    let said = verdict(&writer).to_json();
    assert_eq!(
        said["invariants"],
        json!({"inconsistent-offsets": "L6", "lost-write": "L1", "phantom": "D2", "unseen": "L1"})
    );
}

#[test]
fn a_deletion_excuses_no_skip_before_it() {
    for (late, skips) in [(false, 0), (true, 1)] {
        let mut writer = sent(0..3);
        writer.poll(1, "x", &records(0..3));
        writer.poll(2, "x", &records([0]));
        if !late {
            writer.delete(Type::Ok, 2);
        }
        writer.poll(2, "x", &records([2]));
        if late {
            writer.delete(Type::Ok, 2);
        }
        assert_eq!(count(&writer, "poll-skip"), skips, "late: {late}");
    }
    // A poll that ends after the deletion began may be affected; so may any if it is not known when it began.
    let mut writer = sent(0..3);
    writer.poll(1, "x", &records(0..3));
    writer.poll(2, "x", &records([0]));
    writer.write(Type::Invoke, 2, Op::Poll(vec![MicroOp::Poll(None)]));
    let value = json!({"key": "x", "before": 2});
    writer.write(
        Type::Invoke,
        9,
        Op::Other("delete-records".to_owned(), value.clone()),
    );
    writer.write(Type::Ok, 2, Op::Poll(vec![poll("x", &records([2]))]));
    assert_eq!(count(&writer, "poll-skip"), 0);
    let mut writer = sent(0..3);
    writer.poll(1, "x", &records(0..3));
    writer.poll(2, "x", &records([0]));
    writer.poll(2, "x", &records([2]));
    assert_eq!(count(&writer, "poll-skip"), 1);
    writer.write(Type::Ok, 9, Op::Other("delete-records".to_owned(), value));
    assert_eq!(count(&writer, "poll-skip"), 0);
}

#[test]
fn a_deletion_excuses_no_loss_after_it() {
    // Nobody read record 1; 2 was read.
    let lost = |type_, before, delete_first: bool| {
        let mut writer = sent([0]);
        if delete_first {
            writer.delete(type_, before);
        }
        writer.send(0, &[("x", Some(1), 1), ("x", Some(2), 2)], Type::Ok);
        if !delete_first {
            writer.delete(type_, before);
        }
        writer.poll(1, "x", &records([2]));
        let verdict = verdict(&writer);
        let lost = verdict
            .findings("lost-write")
            .iter()
            .map(|f| f.data["value"].clone());
        let lost: Vec<_> = lost.collect();
        json!(lost)
    };
    // All records that were there, or those below 2.
    assert_eq!(lost(Type::Ok, -1, false), json!([]));
    assert_eq!(lost(Type::Ok, 2, false), json!([]));
    assert_eq!(lost(Type::Ok, 1, false), json!([1]));
    // A record that is sent later was not there.
    assert_eq!(lost(Type::Ok, -1, true), json!([1]));
    assert_eq!(lost(Type::Ok, 2, true), json!([1]));
    // Of unknown outcome it may be carried out later; failed, never.
    assert_eq!(lost(Type::Info, -1, true), json!([]));
    assert_eq!(lost(Type::Fail, -1, false), json!([0, 1]));
}

#[test]
fn a_send_may_have_its_own_outcome() {
    let history = |outcomes: [Option<Type>; 3], read: &[(i64, i64)]| {
        let mut writer = HistoryWriter::default();
        let sends = [("x", Some(0), 0), ("x", Some(1), 1), ("x", None, 2)];
        writer.send(0, &sends, Type::Info);
        for (i, outcome) in outcomes.into_iter().enumerate() {
            outcome
                .into_iter()
                .for_each(|o| writer.last().details.set_outcome(i, o));
        }
        writer.send(1, &[("x", Some(3), 3)], Type::Ok);
        writer.poll(2, "x", read);
        verdict(&writer)
    };
    let values = |v: &Verdict, anomaly: &str| -> Vec<Value> {
        let findings = v.findings(anomaly).iter();
        findings.map(|f| f.data["value"].clone()).collect()
    };
    use Type::{Fail, Info, Ok};
    // An acknowledged record is lost, whatever became of the others.
    let lost = history([Some(Ok), Some(Info), Some(Fail)], &[(3, 3)]);
    assert_eq!(values(&lost, "lost-write"), [0]);
    assert_eq!(lost.findings("unseen")[0].data["values"], json!([0]));
    // A record that was certainly not written is read.
    let aborted = history(
        [Some(Ok), Some(Info), Some(Fail)],
        &[(0, 0), (1, 1), (2, 2), (3, 3)],
    );
    assert_eq!(values(&aborted, "G1a"), [2]);
    // Without outcomes of their own, one record proves all.
    let proven = history([None; 3], &[(1, 1), (3, 3)]);
    assert_eq!(values(&proven, "lost-write"), [0]);
    let apart = history([Some(Info); 3], &[(1, 1), (3, 3)]);
    assert_eq!(values(&apart, "lost-write"), Vec::<Value>::new());
}

/// Kafka commits the records of a transaction together, whatever their acknowledgements.
#[test]
fn a_transaction_has_one_outcome() {
    let mut writer = HistoryWriter::default();
    let sends = Op::Txn(vec![send("x", Some(0), 0)]);
    writer.both(0, sends.clone(), Type::Fail, sends);
    writer.last().details.set_outcome(0, Type::Ok);
    writer.send(1, &[("x", Some(1), 1)], Type::Ok);
    writer.poll(2, "x", &records([1]));
    assert_eq!(
        verdict(&writer).anomalies.keys().copied().collect::<Vec<_>>(),
        Vec::<&str>::new()
    );
}

#[test]
fn an_append_is_above_what_was_known_before_it() {
    // Acknowledged before.
    let mut writer = sent([5, 6]);
    assert_eq!(count(&writer, "append-before-past"), 0);
    let before = writer.0.len() as u64 - 1;
    let late = writer.send(1, &[("x", Some(4), 4)], Type::Ok);
    let said = verdict(&writer);
    assert_eq!(
        said.findings("append-before-past")[0].data["ops"],
        json!([before, late])
    );
    assert_eq!(said.valid(), Valid::No);
    // Shown before; and in another key.
    let mut writer = HistoryWriter::default();
    writer.write(Type::Invoke, 0, Op::Send(vec![send("x", None, 5)]));
    writer.poll(1, "x", &[(5, 5)]);
    writer.send(2, &[("y", Some(4), 4)], Type::Ok);
    assert_eq!(count(&writer, "append-before-past"), 0);
    writer.send(2, &[("x", Some(4), 4)], Type::Ok);
    assert_eq!(count(&writer, "append-before-past"), 1);
    // Both at once.
    let mut writer = HistoryWriter::default();
    writer.write(Type::Invoke, 0, Op::Send(vec![send("x", None, 4)]));
    writer.send(1, &[("x", Some(5), 5)], Type::Ok);
    writer.write(Type::Ok, 0, Op::Send(vec![send("x", Some(4), 4)]));
    assert_eq!(count(&writer, "append-before-past"), 0);
}

#[test]
fn a_seek_is_of_its_keys_alone() {
    let skips = |seeks: &[(&str, Seek)]| {
        let mut writer = HistoryWriter::default();
        for key in ["x", "y"] {
            (0..3).for_each(|n| {
                writer.send(0, &[(key, Some(n), n)], Type::Ok);
            });
            writer.poll(1, key, &records(0..3));
        }
        writer.assign(2, &["x", "y"], &[]);
        writer.poll(2, "x", &records([0]));
        writer.poll(2, "y", &records([0]));
        writer.assign(2, &["x", "y"], seeks);
        writer.poll(2, "x", &records([2]));
        writer.poll(2, "y", &records([2]));
        let verdict = verdict(&writer);
        let keys = |anomaly: &str| {
            let findings = verdict.findings(anomaly).iter();
            findings.map(|f| f.data["key"].clone()).collect::<Vec<_>>()
        };
        (keys("poll-skip"), keys("wrong-start"))
    };
    assert_eq!(skips(&[]), (vec![json!("x"), json!("y")], vec![]));
    assert_eq!(skips(&[("x", Seek::Offset(2))]), (vec![json!("y")], vec![]));
    assert_eq!(
        skips(&[("x", Seek::Beginning)]),
        (vec![json!("y")], vec![json!("x")])
    );
}

#[test]
fn a_reader_starts_where_it_sought() {
    let start = |seek, deleted: Option<i64>, first: i64| {
        let mut writer = sent(0..5);
        writer.poll(1, "x", &records(0..5));
        if let Some(before) = deleted {
            writer.delete(Type::Ok, before);
        }
        writer.assign(2, &["x"], &[("x", seek)]);
        writer.poll(2, "x", &[]);
        writer.poll(2, "x", &records(first..5));
        count(&writer, "wrong-start")
    };
    assert_eq!(start(Seek::Beginning, None, 0), 0);
    assert_eq!(start(Seek::Beginning, None, 1), 1);
    assert_eq!(start(Seek::Beginning, Some(1), 1), 0);
    assert_eq!(start(Seek::Beginning, Some(1), 2), 1);
    assert_eq!(start(Seek::Offset(2), None, 2), 0);
    assert_eq!(start(Seek::Offset(2), None, 3), 1);
    assert_eq!(start(Seek::Offset(2), None, 1), 1);
    assert_eq!(start(Seek::Offset(2), Some(3), 3), 0);
    // At the end there was record 4.
    assert_eq!(start(Seek::End, None, 4), 1);
    let mut writer = sent(0..2);
    writer.poll(1, "x", &records(0..2));
    writer.assign(2, &["x"], &[("x", Seek::End)]);
    writer.send(0, &[("x", Some(2), 2)], Type::Ok);
    writer.poll(2, "x", &records([2]));
    assert_eq!(verdict(&writer).valid(), Valid::Yes);
    // `seek-to-beginning?` is a seek of all keys.
    let mut writer = sent(0..2);
    writer.poll(1, "x", &records(0..2));
    writer.assign(2, &["x"], &[]);
    writer.last().seek_to_beginning = true;
    writer.poll(2, "x", &records([1]));
    let said = verdict(&writer);
    let finding = &said.findings("wrong-start")[0];
    assert_eq!(finding.data["skipped"], json!([0]));
    assert_eq!(
        finding.text,
        "process 2 sought the beginning of x and read 1 first, although 0 is before it"
    );
}

#[test]
fn content_is_shown_as_it_was_sent() {
    let content = |sent: Option<u32>, shown: [Option<u32>; 2]| {
        let mut writer = HistoryWriter::default();
        writer.send(0, &[("x", Some(0), 0)], Type::Ok);
        sent.into_iter()
            .for_each(|d| writer.last().details.set_digest(0, 0, d));
        for (process, digest) in [1, 2].into_iter().zip(shown) {
            let both = Op::Poll(vec![poll("w", &[(0, 7)]), poll("x", &records([0]))]);
            writer.both(process, Op::Poll(vec![MicroOp::Poll(None)]), Type::Ok, both);
            digest
                .into_iter()
                .for_each(|d| writer.last().details.set_digest(1, 0, d));
        }
        writer.send(0, &[("w", Some(0), 7)], Type::Info);
        let verdict = judged(
            &writer.0,
            Options {
                allow: ["G1c-realtime"].into(),
                ..Options::default()
            },
        );
        (
            verdict.findings("wrong-content").len(),
            verdict.counted["digests"],
            verdict.valid(),
        )
    };
    assert_eq!(content(Some(1), [Some(1), Some(1)]), (0, 2, Valid::Yes));
    assert_eq!(content(Some(1), [Some(1), Some(2)]), (1, 1 + 1, Valid::No));
    // Without one of the digests nothing can be compared; but two readers were shown the same.
    assert_eq!(content(None, [Some(1), None]), (0, 0, Valid::Yes));
    assert_eq!(content(Some(1), [None, None]), (0, 0, Valid::Yes));
    assert_eq!(content(None, [Some(1), Some(2)]), (1, 0, Valid::No));
}

/// A poll's digests count the records of all its keys, in the order of the keys.
#[test]
fn digests_belong_to_their_records() {
    let line = |digest: u32| {
        format!(
            r#"{{"index":0,"type":"ok","process":0,"f":"send","value":[["send","a",[0,1,11]],["send","b",[0,2,12]],["send","b",[1,3,13]]]}}
{{"index":1,"type":"ok","process":1,"f":"poll","value":[["poll",{{"b":[[0,2,12],[1,3,{digest}]],"a":[[0,1,11]]}}]]}}"#
        )
    };
    for (digest, wrong) in [(13, vec![]), (12, vec![json!(3)])] {
        let text = line(digest);
        let read = brokkr_history::Reader::new(text.as_bytes());
        let history: Vec<_> = read.map(|o| o.expect("a history")).collect();
        let verdict = judged(&history, Options::default());
        let found = verdict
            .findings("wrong-content")
            .iter()
            .map(|f| f.data["value"].clone());
        assert_eq!(found.collect::<Vec<_>>(), wrong);
        assert_eq!(verdict.counted["digests"], 3);
    }
}

#[test]
fn a_tombstone_is_a_record() {
    let tombstone = |shown: Option<Val>| {
        let mut writer = sent([0]);
        let sent = |offset| {
            let value = Val::Tombstone(1);
            Op::Send(vec![MicroOp::Send {
                key: "x".into(),
                offset,
                value,
            }])
        };
        writer.both(0, sent(None), Type::Ok, sent(Some(1)));
        writer.send(0, &[("x", Some(2), 2)], Type::Ok);
        let mut records = vec![(0, Val::Int(0)), (2, Val::Int(2))];
        shown.into_iter().for_each(|value| records.insert(1, (1, value)));
        let polls = Polls::from([("x".into(), records)]);
        let polled = Op::Poll(vec![MicroOp::Poll(Some(polls))]);
        writer.both(1, Op::Poll(vec![MicroOp::Poll(None)]), Type::Ok, polled);
        let verdict = verdict(&writer);
        verdict.anomalies.keys().copied().collect::<Vec<_>>()
    };
    assert_eq!(tombstone(Some(Val::Tombstone(1))), Vec::<&str>::new());
    assert_eq!(tombstone(None), ["int-poll-skip", "lost-write", "unseen"]);
    // The record is there, and has a value.
    let value = tombstone(Some(Val::Int(1)));
    assert_eq!(value, ["inconsistent-offsets", "lost-write", "phantom", "unseen"]);
}

#[test]
fn lag_has_a_limit_if_one_is_set() {
    let mut writer = HistoryWriter::default();
    writer.assign(1, &["x"], &[]);
    writer.send(0, &[("x", Some(0), 0)], Type::Ok);
    let behind = writer.0.len() as i64 * 10;
    writer.poll(1, "x", &[]);
    writer.poll(1, "x", &[]);
    writer.poll(1, "x", &records([0]));
    let lag = behind + 20 - (behind - 10);
    for (max, valid) in [
        (None, Valid::Yes),
        (Some(lag), Valid::Yes),
        (Some(lag - 1), Valid::No),
    ] {
        let verdict = judged(
            &writer.0,
            Options {
                lag_max: max,
                ..Options::default()
            },
        );
        assert_eq!(verdict.valid(), valid, "{max:?}");
        if valid == Valid::No {
            let [finding] = verdict.findings("lag") else {
                panic!("{verdict:?}")
            };
            assert_eq!(
                (&finding.data["lag"], &finding.data["process"]),
                (&json!(lag), &json!(1))
            );
        }
    }
}

#[test]
fn listed_offsets_agree_with_what_is_known() {
    let listed = |earliest: i64, latest: i64| {
        let mut writer = sent(0..4);
        writer.poll(1, "x", &records(0..4));
        let (asked, low) = (
            json!({"key": "x", "before": 2}),
            json!({"key": "x", "before": 2, "low_watermark": 2}),
        );
        writer.other("delete_records", Type::Ok, asked, low);
        let answer = json!({"key": "x", "earliest": earliest, "latest": latest});
        writer.other("list_offsets", Type::Ok, json!({"key": "x"}), answer);
        let verdict = verdict(&writer);
        assert_eq!(verdict.counted["listings"], 1);
        verdict.anomalies.keys().copied().collect::<Vec<_>>()
    };
    assert_eq!(listed(2, 4), Vec::<&str>::new());
    assert_eq!(listed(2, 3), ["latest-too-low"]);
    assert_eq!(listed(1, 4), ["earliest-too-low"]);
    // What is sent while it lists is not known before.
    let mut writer = sent([0]);
    writer.poll(1, "x", &records([0]));
    let op = |value| Op::Other("list-offsets".to_owned(), value);
    writer.write(Type::Invoke, 9, op(json!({"key": "x"})));
    writer.send(0, &[("x", Some(1), 1)], Type::Ok);
    writer.write(Type::Ok, 9, op(json!({"key": "x", "earliest": 0, "latest": 1})));
    writer.poll(1, "x", &records([1]));
    assert_eq!(verdict(&writer).valid(), Valid::Yes);
}

#[test]
fn a_deleted_record_does_not_come_back() {
    for (sought_after, found) in [(true, 1), (false, 0)] {
        let mut writer = sent(0..3);
        writer.poll(1, "x", &records(0..3));
        let seek = [("x", Seek::Beginning)];
        if !sought_after {
            writer.assign(2, &["x"], &seek);
        }
        let (asked, low) = (
            json!({"key": "x", "before": 1}),
            json!({"key": "x", "before": 1, "low_watermark": 1}),
        );
        writer.other("delete_records", Type::Ok, asked, low);
        if sought_after {
            writer.assign(2, &["x"], &seek);
        }
        // Without a seek it may have fetched them before.
        writer.poll(2, "x", &records(0..3));
        assert_eq!(
            count(&writer, "deleted-read"),
            found,
            "sought after: {sought_after}"
        );
    }
}

/// No number of a history overflows.
#[test]
fn the_highest_offset_is_an_offset() {
    let last = i64::MAX;
    let mut writer = HistoryWriter::default();
    writer.send(0, &[("x", Some(last), 0)], Type::Ok);
    writer.poll(1, "x", &[(last, 0)]);
    writer.delete(Type::Ok, -1);
    writer.delete(Type::Info, last);
    writer.assign(2, &["x"], &[("x", Seek::End)]);
    writer.poll(2, "x", &[(last, 0)]);
    writer.assign(2, &["x"], &[("x", Seek::Offset(last))]);
    writer.poll(2, "x", &[(last, 0)]);
    let answer = json!({"key": "x", "earliest": last, "latest": last});
    writer.other("list_offsets", Type::Ok, json!({"key": "x"}), answer);
    for operation in &mut writer.0 {
        operation.time = if operation.index % 2 == 0 {
            i64::MIN
        } else {
            i64::MAX
        };
    }
    let mut kafka = Kafka::new(Options {
        lag_max: Some(0),
        ..Options::default()
    });
    for operation in &writer.0 {
        kafka.push(operation.clone()).expect("a history");
    }
    let analysis = kafka.finish();
    let found: Vec<_> = analysis.verdict().anomalies.into_keys().collect();
    assert_eq!(found, ["latest-too-low"]);
    assert_eq!(analysis.unread_totals().last(), Some(&(i64::MAX, 0)));
}

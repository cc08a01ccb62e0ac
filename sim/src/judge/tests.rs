//! Each rule of the judge, kept and broken.

use super::*;
use brokkr_history::Op;
use brokkr_workloads::{ClientSpec, value_of};
use serde_json::json;

const LAST: Process = 90;

fn workload() -> Workload {
    Workload {
        client: ClientSpec::new("b", 1),
        topics: Vec::new(),
        producers: vec![ProducerSpec::idempotent(0, 100, Vec::new())],
        consumers: Vec::new(),
        admin: None,
        recreator: None,
        operator: None,
        inspector: None,
        visitor: None,
    }
}

fn op(process: Process, type_: Type, op: Op) -> Operation {
    Operation::new(0, 0, type_, process, op)
}

fn sent(type_: Type, counter: u64, offset: Option<i64>) -> Operation {
    let value = value_of(0, counter).into();
    let key = "t-0".into();
    op(0, type_, Op::Send(vec![MicroOp::Send { key, offset, value }]))
}

fn polled(process: Process, what: &[(i64, u64)]) -> Operation {
    let messages = what.iter().map(|(o, c)| (*o, value_of(0, *c).into())).collect();
    let polls = [("t-0".into(), messages)].into();
    op(process, Type::Ok, Op::Poll(vec![MicroOp::Poll(Some(polls))]))
}

fn ids(history: &[Operation]) -> Vec<&'static str> {
    noted(history, Notes::default())
}

fn noted(history: &[Operation], notes: Notes) -> Vec<&'static str> {
    let facts = RunFacts {
        life: 1 << 20,
        calm_since: i64::MAX,
        buffer_bytes: 1 << 16,
        drift_ppm: 0,
        followed_max: None,
        last: LAST,
        deleted: Deleted::requested(history),
        ..RunFacts::default()
    };
    let workload = workload();
    let judge = rules(&workload, history, &notes, &facts);
    judge.violations.iter().map(|v| v.id).collect()
}

#[test]
fn each_rule_can_fail() {
    let (a, b) = (sent(Type::Ok, 0, Some(0)), sent(Type::Ok, 1, Some(1)));
    let both = [(0, 0), (1, 1)];
    assert_eq!(ids(&[a.clone(), b.clone(), polled(LAST, &both)]), [""; 0]);
    assert_eq!(ids(&[a.clone(), b.clone(), polled(LAST, &both[..1])]), ["L1"]);
    assert_eq!(
        ids(&[a.clone(), b.clone(), polled(LAST, &[(0, 0), (2, 1)])]),
        ["I2"]
    );
    assert_eq!(
        ids(&[a.clone(), b, polled(LAST, &[(0, 0), (1, 1), (2, 1)])]),
        ["I1"]
    );
    let refused = sent(Type::Fail, 1, None);
    assert_eq!(ids(&[a.clone(), refused, polled(LAST, &both)]), ["I1"]);
    let open = sent(Type::Info, 1, None);
    let shown = polled(5, &both);
    assert_eq!(
        ids(&[a.clone(), open.clone(), shown, polled(LAST, &both[..1])]),
        ["L6"]
    );
    let other = polled(5, &[(0, 1)]);
    assert_eq!(ids(&[a, open.clone(), other, polled(LAST, &both)]), ["L6"]);
    let (late, early) = (sent(Type::Ok, 0, Some(1)), sent(Type::Ok, 1, Some(0)));
    let swapped = polled(LAST, &[(0, 1), (1, 0)]);
    // By the acknowledged offsets, and by what the reader was shown.
    assert_eq!(ids(&[late, early, swapped]), ["I3", "I3"]);
    assert_eq!(ids(&[open, polled(LAST, &[(0, 7)])]), ["D2"]);
}

#[test]
fn log_ends_never_go_back() {
    let about = |f: &str, type_, value| op(7, type_, Op::Other(f.to_owned(), value));
    let asked = || about("list_offsets", Type::Invoke, json!({"key": "t-0"}));
    let listed = |earliest: i64, latest: i64| {
        let value = json!({"key": "t-0", "earliest": earliest, "latest": latest});
        about("list_offsets", Type::Ok, value)
    };
    let (a, all) = (sent(Type::Ok, 0, Some(0)), polled(LAST, &[(0, 0)]));
    assert_eq!(ids(&[a.clone(), asked(), listed(0, 1), all.clone()]), [""; 0]);
    assert_eq!(ids(&[a.clone(), asked(), listed(0, 0), all.clone()]), ["L4"]);
    // The request was sent before the acknowledgement.
    assert_eq!(ids(&[asked(), a.clone(), listed(0, 0), all.clone()]), [""; 0]);
    let deleted = json!({"key": "t-0", "before": 1, "low_watermark": 1});
    let deleted = about("delete_records", Type::Ok, deleted);
    let gone = polled(LAST, &[]);
    assert_eq!(
        ids(&[a.clone(), deleted.clone(), asked(), listed(1, 1), gone.clone()]),
        [""; 0]
    );
    assert_eq!(
        ids(&[a.clone(), deleted.clone(), asked(), listed(0, 1), gone]),
        ["D1"]
    );
    assert_eq!(ids(&[a, deleted, all]), ["D1"]);
}

#[test]
fn the_notes_of_producers_are_judged() {
    let batch = |process, refused_as_gap| AckedBatch {
        time: 0,
        process,
        topic: "t".to_owned(),
        topic_id: None,
        partition: 0,
        producer_id: 3,
        producer_epoch: 0,
        base_sequence: 0,
        base_offset: Some(0),
        records_count: 1,
        acks: -1,
        attempts: 1,
        refused_as_gap,
        log_append_time: None,
        records: vec![(Some(0), value_of(process, 0))],
    };
    let with = |acked| Notes {
        acked,
        ..Notes::default()
    };
    assert_eq!(noted(&[], with(vec![batch(0, false), batch(0, false)])), [""; 0]);
    assert_eq!(noted(&[], with(vec![batch(0, false), batch(1, false)])), ["I4"]);
    assert_eq!(noted(&[], with(vec![batch(0, true)])), ["I2"]);
}

#[test]
fn a_logged_batch_is_not_out_of_order_unless_it_was_appended_late() {
    let refused = || Notes {
        out_of_order: vec![OutOfOrder {
            time: 0,
            process: 0,
            topic: "t".to_owned(),
            partition: 0,
            value: value_of(0, 1),
        }],
        ..Notes::default()
    };
    for (before, id) in [
        (sent(Type::Ok, 0, Some(0)), Some("I2")),
        (sent(Type::Info, 0, None), None),
    ] {
        let history = |log: &[(i64, u64)]| {
            let ours = sent(Type::Info, 1, None);
            noted(&[before.clone(), ours, polled(LAST, log)], refused())
        };
        assert_eq!(history(&[(0, 0), (1, 1)]), id.into_iter().collect::<Vec<_>>());
        assert_eq!(history(&[(0, 0)]), [""; 0]);
    }
}

#[test]
fn deleted_records_may_be_gone() {
    let value = serde_json::json!({"key": "t-0", "before": 1});
    let delete = op(7, Type::Info, Op::Other("delete_records".to_owned(), value));
    let (a, b) = (sent(Type::Ok, 0, Some(0)), sent(Type::Ok, 1, Some(1)));
    assert_eq!(
        ids(&[a.clone(), b.clone(), delete.clone(), polled(LAST, &[(1, 1)])]),
        [""; 0]
    );
    assert_eq!(ids(&[a, b, delete, polled(LAST, &[])]), ["L1"]);
}

/// Ids of topics with one partition.
const A: &str = "AAAAAAAAAAAAAAAAAAAAAA";
const B: &str = "BAAAAAAAAAAAAAAAAAAAAA";

fn key(id: &str) -> String {
    format!("r0@{id}-0")
}

/// Operations at the times 0, 1, 2, …, in milliseconds.
fn timed(history: Vec<Operation>) -> Vec<Operation> {
    let at = |(i, o): (usize, Operation)| Operation {
        index: i as u64,
        time: i as i64 * 1_000_000,
        ..o
    };
    history.into_iter().enumerate().map(at).collect()
}

fn topic_op(f: &str, type_: Type, id: Option<&str>) -> Operation {
    let value = match id {
        Some(id) => json!({"topic": "r0", "id": id}),
        None => json!({"topic": "r0"}),
    };
    op(250, type_, Op::Other(f.to_owned(), value))
}

/// A send of the `counter`th value: its invocation, and its acknowledgement under that id.
fn sends_to(counter: u64, to: Option<(&str, i64)>) -> Vec<Operation> {
    let send = |type_, key: String, offset| {
        let value = value_of(0, counter).into();
        let key = Key::from(key);
        op(0, type_, Op::Send(vec![MicroOp::Send { key, offset, value }]))
    };
    let end = match to {
        Some((id, offset)) => send(Type::Ok, key(id), Some(offset)),
        None => send(Type::Info, "r0-0".to_owned(), None),
    };
    vec![send(Type::Invoke, "r0-0".to_owned(), None), end]
}

fn polls_of(process: Process, id: &str, what: &[(i64, u64)]) -> Vec<Operation> {
    let messages: Vec<_> = what.iter().map(|(o, c)| (*o, value_of(0, *c).into())).collect();
    let polls = [(Key::from(key(id)), messages)].into();
    let poll = |type_, polls| op(process, type_, Op::Poll(vec![MicroOp::Poll(polls)]));
    vec![poll(Type::Invoke, None), poll(Type::Ok, Some(polls))]
}

/// Deletes the topic of id A, and creates one of id B.
fn recreation() -> Vec<Operation> {
    vec![
        topic_op("delete_topic", Type::Invoke, Some(A)),
        topic_op("delete_topic", Type::Ok, Some(A)),
        topic_op("create_topic", Type::Invoke, None),
        topic_op("create_topic", Type::Ok, Some(B)),
    ]
}

fn recreated(history: &[&[Operation]], at_end: &str) -> Vec<&'static str> {
    let history = timed(history.concat());
    let mut workload = workload();
    workload.recreator = Some(brokkr_workloads::RecreatorSpec {
        process: 250,
        process_stride: 1000,
        topics: vec!["r0".to_owned()],
        stays_max_ms: 1,
        gone_max_ms: 1,
    });
    let facts = RunFacts {
        inspector: InspectorFacts::default(),
        life: 1 << 20,
        calm_since: i64::MAX,
        buffer_bytes: 1 << 16,
        drift_ppm: 0,
        followed_max: None,
        last: LAST,
        forgets: false,
        deleted: Deleted::requested(&history),
        topics: [("r0".to_owned(), at_end.to_owned())].into(),
    };
    let (found, _) = judge(&workload, history, &Notes::default(), &facts);
    let mut ids: Vec<_> = found.iter().map(|v| v.id).collect();
    ids.dedup();
    ids
}

#[test]
fn only_records_of_deleted_topics_may_be_gone() {
    let old = sends_to(0, Some((A, 0)));
    let shown = polls_of(5, A, &[(0, 0)]);
    let new = sends_to(1, Some((B, 0)));
    let all = polls_of(LAST, B, &[(0, 1)]);
    assert_eq!(recreated(&[&old, &shown, &recreation(), &new, &all], B), [""; 0]);
    // A record that the new topic acknowledged is lost.
    assert_eq!(
        recreated(&[&old, &recreation(), &new, &polls_of(LAST, B, &[])], B),
        ["L1"]
    );
    // No client asked to delete the old topic.
    assert_eq!(recreated(&[&old, &polls_of(LAST, B, &[])], B), ["L1"]);
}

#[test]
fn no_record_of_a_deleted_topic_is_shown_under_a_new_id() {
    let new = sends_to(1, Some((B, 1)));
    let both = polls_of(LAST, B, &[(0, 0), (1, 1)]);
    // Acknowledged by the old topic, and shown by the new one.
    let old = sends_to(0, Some((A, 0)));
    assert!(recreated(&[&old, &recreation(), &new, &both], B).contains(&"M2"));
    // The topic of the send is unknown, but the send had ended before.
    let old = sends_to(0, None);
    assert!(recreated(&[&old, &recreation(), &new, &both], B).contains(&"M2"));
    // The send was still pending.
    let (began, ended) = old.split_at(1);
    assert_eq!(recreated(&[began, &recreation(), ended, &new, &both], B), [""; 0]);
}

#[test]
fn a_topic_exists_until_its_deletion_and_never_after() {
    let all = polls_of(LAST, B, &[]);
    assert_eq!(recreated(&[&recreation(), &all], B), [""; 0]);
    // The old topic exists, and the new one does not.
    assert_eq!(recreated(&[&recreation(), &polls_of(LAST, A, &[])], A), ["M2"]);
    let mut twice = recreation();
    twice.extend(recreation());
    assert_eq!(recreated(&[&twice, &all], B), ["M2"]);
    // A send is acknowledged after the deletion was.
    let late = sends_to(0, Some((A, 0)));
    assert_eq!(recreated(&[&recreation(), &late, &all], B), ["M2"]);
    let (began, ended) = late.split_at(1);
    assert_eq!(recreated(&[began, &recreation(), ended, &all], B), [""; 0]);
}

#[test]
fn each_reader_sees_each_producer_s_records_in_order() {
    let assign = op(5, Type::Ok, Op::Assign(Vec::new()));
    let (a, b) = (sent(Type::Ok, 0, Some(0)), sent(Type::Ok, 1, Some(1)));
    let producers: BTreeMap<Process, ProducerSpec> =
        [(0, ProducerSpec::idempotent(0, 100, Vec::new()))].into();
    let ids = |history: &[Operation], spec: &ProducerSpec, acked: &[u64], forgets| {
        let deleted = Deleted::default();
        let views = Views {
            producers: &[(0, spec)].into(),
            acked: acked.iter().map(|c| value_of(0, *c)).collect(),
            forgets,
            deleted: &deleted,
        };
        views
            .judge(history, &mut Account::default())
            .iter()
            .map(|v| v.id)
            .collect::<Vec<_>>()
    };
    let plain = &producers[&0];
    let polls = |what: &[&[(i64, u64)]]| -> Vec<Operation> { what.iter().map(|w| polled(5, w)).collect() };
    assert_eq!(ids(&polls(&[&[(0, 0)], &[(1, 1)]]), plain, &[], false), [""; 0]);
    assert_eq!(ids(&polls(&[&[(0, 1)], &[(1, 0)]]), plain, &[], false), ["I3"]);
    assert_eq!(ids(&polls(&[&[(1, 1)], &[(1, 1)]]), plain, &[], false), ["L6"]);
    let again = [polled(5, &[(0, 0), (1, 1)]), assign, polled(5, &[(0, 0)]), a, b];
    assert_eq!(ids(&again, plain, &[], false), [""; 0]);
    // It may have been appended late, unless it was acknowledged.
    let late = polls(&[&[(0, 1)], &[(1, 0)]]);
    assert_eq!(ids(&late, plain, &[1], true), [""; 0]);
    assert_eq!(ids(&late, plain, &[0, 1], true), ["I3"]);
    let returns = ProducerSpec {
        restarts_after: Some(3),
        ..plain.clone()
    };
    assert_eq!(ids(&late, &returns, &[1], false), [""; 0]);
    assert_eq!(ids(&late, &returns, &[0, 1], false), ["I3"]);
}

#[test]
fn a_record_is_in_the_partition_it_was_sent_to() {
    let a = sent(Type::Info, 0, None);
    let messages = vec![(0, value_of(0, 0).into())];
    let polls = [("t-1".into(), messages)].into();
    let elsewhere = op(LAST, Type::Ok, Op::Poll(vec![MicroOp::Poll(Some(polls))]));
    assert!(ids(&[a, elsewhere]).contains(&"D2"));
}

#[test]
fn irregularities_of_readers_are_excused_only_where_records_may_be_gone() {
    let ids_of = |before: i64, at: i64, what: &str| {
        let fault = ClientFault {
            time: 0,
            process: 5,
            topic: "t".to_owned(),
            partition: 0,
            at,
            what: what.to_owned(),
        };
        let notes = Notes {
            faults: vec![fault],
            ..Notes::default()
        };
        let value = json!({"key": "t-0", "before": before});
        noted(
            &[op(7, Type::Info, Op::Other("delete_records".to_owned(), value))],
            notes,
        )
    };
    let ids = |at, what: &str| ids_of(3, at, what);
    let gap = "Gap { expected: Offset(2), got: Offset(5) }";
    let backwards = "Backwards { expected: Offset(2), last: Offset(1) }";
    for (what, below, above) in [
        (gap, Some("L6"), Some("L6")),
        (backwards, Some("L6"), Some("L6")),
        ("Refused(OFFSET_OUT_OF_RANGE)", None, Some("L6")),
        ("Refused(CORRUPT_MESSAGE)", Some("C1"), Some("C1")),
        ("Damaged(Crc)", Some("D2"), Some("D2")),
    ] {
        assert_eq!(ids(2, what), below.into_iter().collect::<Vec<_>>(), "{what}");
        assert_eq!(ids(3, what), above.into_iter().collect::<Vec<_>>(), "{what}");
        let unknown = ids_of(0, -1, what);
        assert_eq!(
            unknown,
            above.into_iter().collect::<Vec<_>>(),
            "{what}: nothing is deleted"
        );
    }
}

#[test]
fn the_jepsen_checker_runs_too() {
    let with = |acks: i16, idempotent: bool, deleted: &Deleted, history: &[Operation]| {
        let mut spec = ProducerSpec::idempotent(0, 100, Vec::new());
        (spec.acks, spec.idempotent) = (acks, idempotent);
        let checker = jepsen::Checker {
            producers: &[(0, &spec)].into(),
            deleted,
            recreated: &BTreeSet::new(),
            forgets: false,
        };
        let found = checker.judge(history.to_vec(), &mut Account::default());
        found.into_iter().map(|v| (v.id, v.what)).collect::<Vec<_>>()
    };
    let of = |history: Vec<Operation>| timed(history);
    let (a, b) = (sent(Type::Ok, 0, Some(0)), sent(Type::Ok, 1, Some(1)));
    let none = Deleted::default();
    let right = of(vec![a.clone(), b.clone(), polled(5, &[(0, 0), (1, 1)])]);
    assert_eq!(with(-1, true, &none, &right), []);
    // One record is skipped and never read.
    let skips = of(vec![
        a.clone(),
        b.clone(),
        sent(Type::Ok, 2, Some(2)),
        polled(5, &[(0, 0), (2, 2)]),
    ]);
    let ids: Vec<_> = with(-1, true, &none, &skips)
        .into_iter()
        .map(|(id, _)| id)
        .collect();
    assert!(ids.contains(&"L1") && ids.contains(&"L6"), "{ids:?}");
    let mut deleted = Deleted::default();
    deleted.raise("t-0", 2);
    assert_eq!(with(-1, true, &deleted, &skips), []);
    // The reader goes back.
    let back = of(vec![
        a.clone(),
        b.clone(),
        polled(5, &[(0, 0), (1, 1)]),
        polled(5, &[(0, 0)]),
    ]);
    assert_eq!(with(-1, true, &none, &back)[0].0, "L6");
    // One record is stored twice, which a producer that is not idempotent may cause.
    let twice = of(vec![a, b, polled(5, &[(0, 0), (1, 1), (2, 0)])]);
    assert!(with(-1, true, &none, &twice).iter().any(|(id, _)| *id == "I1"));
    assert_eq!(with(-1, false, &none, &twice), []);
}

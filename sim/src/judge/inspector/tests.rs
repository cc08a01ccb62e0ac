use brokkr_history::Op;
use serde_json::json;

use super::*;

fn op(type_: Type, value: Value) -> Operation {
    Operation::new(0, 0, type_, 0, Op::Other("inspect".to_owned(), value))
}

fn create() -> Value {
    json!({"what": "create", "topic": "a", "partitions": 2, "configs": {"max.message.bytes": "2000"}, "dry": false, "answer": {"error": 0, "id": "I"}})
}

fn append(base: i64, records: Value, error: i64) -> Value {
    json!({
        "what": "append", "now": 1_000, "topic": "a", "partition": 0, "acks": -1, "codec": 0, "bytes": 300, "producer": [7, 0, base],
        "records": records, "answer": {"error": error, "base": base, "append_time": -1, "log_start": 0},
    })
}

/// Three records, at 1000, 1005 and 1005 ms.
fn filled() -> Vec<Value> {
    let first = append(0, json!([[0, 1000, 5], [1, 1005, 5]]), 0);
    vec![create(), first, append(2, json!([[2, 1005, 5]]), 0)]
}

/// The ids of the violations after these operations.
fn ids(mut before: Vec<Value>, then: Value) -> Vec<&'static str> {
    before.push(then);
    let history: Vec<_> = before.into_iter().map(|value| op(Type::Ok, value)).collect();
    let facts = InspectorFacts {
        crashes: Vec::new(),
        forgets: false,
        others_change_defaults: false,
        clocks_off_ms: 60_000,
    };
    let found = judge(&history, false, &facts, &mut Account::default());
    found.into_iter().map(|v| v.id).collect()
}

fn read(from: i64, high_watermark: i64, batches: Value, records: Value) -> Value {
    json!({
        "what": "read", "topic": "a", "partition": 0, "from": from, "bytes_max": 1,
        "answer": {
            "error": 0, "high_watermark": high_watermark, "last_stable": high_watermark, "log_start": 0, "batches": batches,
            "records": records,
        },
    })
}

fn whole() -> Value {
    let batches = json!([[0, 1, 300, 0, false], [2, 2, 300, 0, false]]);
    read(
        0,
        3,
        batches,
        json!([[0, 0, 1000, 5, 4], [1, 1, 1005, 5, 4], [2, 2, 1005, 5, 6]]),
    )
}

#[test]
fn a_partition_is_read_as_it_was_written() {
    assert_eq!(ids(filled(), whole()), [""; 0]);
    let batch = json!([[2, 2, 300, 0, false]]);
    let last = |n: i64, time: i64, len: i64| read(2, 3, batch.clone(), json!([[2, n, time, len, 4]]));
    assert_eq!(ids(filled(), last(2, 1005, 5)), [""; 0]);
    for wrong in [last(1, 1005, 5), last(2, 1006, 5), last(2, 1005, 6)] {
        assert_eq!(ids(filled(), wrong), ["L6"]);
    }
    assert_eq!(
        ids(filled(), read(2, 2, json!([]), json!([]))),
        ["L1"],
        "the high watermark"
    );
    assert_eq!(ids(filled(), read(2, 3, json!([]), json!([]))), ["C1"], "nothing");
    let large = json!([[2, 2, 2001, 0, false]]);
    assert_eq!(ids(filled(), read(2, 3, large, json!([]))), ["C1"]);
    let recoded = json!([[2, 2, 300, 1, false]]);
    assert_eq!(ids(filled(), read(2, 3, recoded, json!([]))), ["L6"]);
}

#[test]
fn a_batch_is_refused_for_a_reason_alone() {
    let one = |time: i64| json!([[3, time, 5]]);
    let far = 1_000 + 3_600_000;
    assert_eq!(ids(filled(), append(3, one(1000), 0)), [""; 0]);
    assert_eq!(ids(filled(), append(2, one(1000), 0)), ["L1"]);
    assert_eq!(ids(filled(), append(-1, one(1000), 87)), ["C1"]);
    assert_eq!(ids(filled(), append(-1, one(far + 60_001), 32)), [""; 0]);
    assert_eq!(ids(filled(), append(3, one(far + 60_001), 0)), ["C1"]);
    assert_eq!(
        ids(filled(), append(3, one(far + 1), 0)),
        [""; 0],
        "clocks differ"
    );
    let mut large = append(3, one(1000), 0);
    large["bytes"] = 2001.into();
    assert_eq!(ids(filled(), large.clone()), ["C1"]);
    large["answer"]["error"] = 10.into();
    assert_eq!(ids(filled(), large), [""; 0]);
}

#[test]
fn offsets_epochs_and_producers_are_known() {
    let offsets = |timestamp: i64, offset: i64, of: i64| {
        json!({
            "what": "offsets", "topic": "a", "partition": 0, "timestamp": timestamp, "epoch": 0,
            "answer": {"timestamp": timestamp, "ahead": 0, "error": 0, "offset": offset, "of": of, "leader_epoch": 4},
        })
    };
    for (timestamp, offset, of, wrong) in [
        (-1, 3, -1, None),
        (-1, 2, -1, Some("L1")),
        (-2, 0, -1, None),
        (-3, 1, 1005, None),
        (-3, 2, 1005, Some("C1")),
        (1001, 1, 1005, None),
        (1006, -1, -1, None),
        (1006, 2, 1005, Some("C1")),
    ] {
        let found = ids(filled(), offsets(timestamp, offset, of));
        assert_eq!(found, Vec::from_iter(wrong), "{timestamp} {offset}");
    }
    let fenced = |error: i64| json!({"what": "offsets", "topic": "a", "partition": 0, "timestamp": -1, "answer": {"ahead": -1, "error": error}});
    assert_eq!(ids(filled(), fenced(74)), [""; 0]);
    assert_eq!(ids(filled(), fenced(75)), ["C1"]);
    let epoch = |asked: i64, epoch: i64, end: i64| {
        json!({
            "what": "epoch_end", "topic": "a", "partition": 0,
            "answer": {"current": 6, "asked": asked, "error": 0, "leader_epoch": epoch, "end": end},
        })
    };
    let known = || [filled(), vec![whole()]].concat();
    for right in [
        epoch(4, 4, 2),
        epoch(5, 4, 2),
        epoch(6, 6, 3),
        epoch(7, -1, -1),
        epoch(3, 9, 9),
    ] {
        assert_eq!(ids(known(), right), [""; 0]);
    }
    for wrong in [epoch(5, 5, 2), epoch(4, 4, 3), epoch(6, 6, 2), epoch(7, 7, 3)] {
        assert_eq!(ids(known(), wrong), ["C1"]);
    }
    assert_eq!(ids(filled(), epoch(5, 5, 2)), [""; 0], "not all was read");
    let producers = |all: Value| json!({"what": "producers", "topic": "a", "partition": 0, "answer": all});
    assert_eq!(ids(filled(), producers(json!([[7, 0, 2, 1005, -1]]))), [""; 0]);
    for wrong in [
        json!([]),
        json!([[7, 0, 1, 1005, -1]]),
        json!([[7, 0, 2, 1000, -1]]),
    ] {
        assert_eq!(ids(filled(), producers(wrong)), ["C1"]);
    }
}

#[test]
fn deletions_and_configurations_stay() {
    let delete = |before: i64, error: i64, low: i64| json!({"what": "delete_records", "topic": "a", "partition": 0, "before": before, "answer": {"error": error, "low": low}});
    assert_eq!(ids(filled(), delete(2, 0, 2)), [""; 0]);
    assert_eq!(ids(filled(), delete(-1, 0, 3)), [""; 0]);
    assert_eq!(ids(filled(), delete(2, 0, 1)), ["C1"]);
    assert_eq!(ids(filled(), delete(4, 1, -1)), [""; 0]);
    assert_eq!(ids(filled(), delete(4, 0, 3)), ["C1"]);
    let deleted = [filled(), vec![delete(2, 0, 2)]].concat();
    assert_eq!(ids(deleted.clone(), delete(1, 0, 1)), ["C1"]);
    assert_eq!(
        ids(deleted, read(2, 3, json!([]), json!([]))),
        ["D1"],
        "the log start"
    );
    let alter = |whole: bool, configs: Value| json!({"what": "alter", "topic": "a", "config": "compression.type", "value": "gzip", "whole": whole, "answer": {"configs": configs}});
    let both = json!({"max.message.bytes": "2000", "compression.type": "gzip"});
    assert_eq!(ids(filled(), alter(false, both.clone())), [""; 0]);
    assert_eq!(ids(filled(), alter(true, both)), ["M2"]);
    let pages = |all: Value| json!({"what": "pages", "topics": ["a"], "page": 1, "answer": {"partitions": {"a": all}}});
    assert_eq!(ids(filled(), pages(json!([0, 1]))), [""; 0]);
    assert_eq!(ids(filled(), pages(json!([0]))), ["M2"]);
    let dry = json!({"what": "add_partition", "topic": "a", "partitions": 3, "dry": true, "answer": {}});
    assert_eq!(
        ids([filled(), vec![dry]].concat(), pages(json!([0, 1, 2]))),
        ["M2"]
    );
}

#[test]
fn nothing_is_known_after_a_change_of_unknown_outcome() {
    let mut history: Vec<_> = filled().into_iter().map(|value| op(Type::Ok, value)).collect();
    history.push(op(Type::Info, append(3, json!([[3, 1000, 5]]), 0)));
    history.push(op(Type::Ok, read(0, 9, json!([]), json!([]))));
    assert_eq!(
        judge(
            &history,
            false,
            &InspectorFacts::default(),
            &mut Account::default()
        ),
        []
    );
}

#[test]
fn topics_follow_a_default() {
    let default = |of_one: bool, value: Option<&str>| json!({"what": "default", "of_one": of_one, "config": "compression.type", "value": value, "answer": {}});
    let configs = |value: &str, source: i8, all: Value| {
        let own = |default: &str| json!([default, 5, [[default, 5]]]);
        json!({"what": "configs", "topic": "a", "answer": {
            "max.message.bytes": ["2000", 1, [["2000", 1], ["1048588", 5]]],
            "message.timestamp.type": own("CreateTime"),
            "compression.type": [value, source, all],
            "min.insync.replicas": ["1", 3, [["1", 3], ["1", 5]]],
            "message.timestamp.after.max.ms": own("3600000"),
        }})
    };
    let of_all = configs("gzip", 3, json!([["gzip", 3], ["producer", 5]]));
    let both = configs(
        "uncompressed",
        2,
        json!([["uncompressed", 2], ["gzip", 3], ["producer", 5]]),
    );
    let none = configs("producer", 5, json!([["producer", 5]]));
    let after = |changes: &[Value]| [vec![create()], changes.to_vec()].concat();
    assert_eq!(ids(after(&[]), none.clone()), [""; 0]);
    assert_eq!(ids(after(&[]), of_all.clone()), ["M2"]);
    let all = default(false, Some("gzip"));
    assert_eq!(ids(after(std::slice::from_ref(&all)), of_all.clone()), [""; 0]);
    assert_eq!(ids(after(std::slice::from_ref(&all)), none.clone()), ["M2"]);
    let one = default(true, Some("uncompressed"));
    assert_eq!(ids(after(&[all.clone(), one.clone()]), both), [""; 0]);
    assert_eq!(
        ids(after(&[all.clone(), one, default(true, None)]), of_all),
        [""; 0]
    );
    let read = |codec: i64| read(0, 2, json!([[0, 1, 300, codec, false]]), json!([]));
    let appended = [
        after(&[all]),
        vec![append(0, json!([[0, 1000, 5], [1, 1005, 5]]), 0)],
    ]
    .concat();
    assert_eq!(ids(appended.clone(), read(1)), [""; 0]);
    assert_eq!(ids(appended.clone(), read(0)), ["L6"]);
    // Once the outcome of a change is unknown, either is right.
    let mut history: Vec<_> = vec![
        op(Type::Ok, create()),
        op(Type::Info, default(false, Some("gzip"))),
    ];
    history.extend([appended[2].clone(), read(0)].map(|value| op(Type::Ok, value)));
    let found = judge(
        &history,
        false,
        &InspectorFacts::default(),
        &mut Account::default(),
    );
    assert_eq!(found, []);
}

#[test]
fn names_collide_while_there_is_a_topic() {
    let make = |name: &str, error: i64| json!({"what": "create", "topic": name, "partitions": 1, "configs": {}, "dry": false, "answer": {"error": error, "id": "J"}});
    let one = || vec![make("i_0", 0)];
    assert_eq!(ids(one(), make("i.0", 17)), [""; 0]);
    assert_eq!(ids(one(), make("i.0", 0)), ["C1"]);
    assert_eq!(ids(one(), make("i.1", 17)), ["C1"], "there is no reason");
    let deleted = || {
        [
            one(),
            vec![json!({"what": "delete", "topic": "i_0", "answer": {}})],
        ]
        .concat()
    };
    assert_eq!(ids(deleted(), make("i.0", 17)), ["C1"], "it was deleted");
    assert_eq!(ids(deleted(), make("i_0", 0)), [""; 0]);
    let named = |named: &str, topics: Value, count: i64| json!({"what": "metadata", "named": named, "topics": ["i_0"], "answer": {"topics": topics, "count": count}});
    let right = json!({"i_0": [0, "J", [0]]});
    assert_eq!(ids(one(), named("all", right.clone(), 4)), [""; 0]);
    assert_eq!(ids(one(), named("none", json!({}), 0)), [""; 0]);
    assert_eq!(ids(one(), named("none", right.clone(), 1)), ["C1"]);
    for wrong in [
        json!({}),
        json!({"i_0": [0, "K", [0]]}),
        json!({"i_0": [0, "J", [0, 1]]}),
        json!({"i_0": [3, "J", []]}),
    ] {
        assert_eq!(ids(one(), named("names", wrong.clone(), 1)), ["M2"], "{wrong}");
    }
    assert_eq!(ids(deleted(), named("all", right, 1)), ["M2"]);
    assert_eq!(
        ids(deleted(), named("names", json!({"i_0": [3, "0", []]}), 1)),
        [""; 0]
    );
}

#[test]
fn duplicates_gaps_stale_epochs_and_flaws_are_told_apart() {
    let of = |kind: &str, producer: Value, base: i64, error: i64| {
        let mut batch = append(base, json!([[9, 1000, 5]]), error);
        batch["kind"] = kind.into();
        batch["producer"] = producer;
        batch
    };
    // The last batch has sequence 2.
    for (kind, producer, base, error, wrong) in [
        ("again", json!([7, 0, 2]), 2, 0, None),
        ("again", json!([7, 0, 2]), 3, 0, Some("I1")),
        ("gap", json!([7, 0, 5]), -1, 45, None),
        ("gap", json!([7, 0, 5]), 3, 0, Some("C1")),
        ("stale", json!([7, -1, 3]), -1, 47, None),
        ("stale", json!([7, -1, 3]), 3, 0, Some("C1")),
        ("flawed", json!([7, 0, 3]), -1, 87, None),
        ("flawed", json!([7, 0, 3]), -1, 2, None),
        ("flawed", json!([7, 0, 3]), 3, 0, Some("C1")),
        ("flawed", json!([7, 0, 3]), -1, 45, Some("C1")),
        ("new", json!([7, 0, 3]), -1, 45, Some("C1")),
    ] {
        let found = ids(filled(), of(kind, producer, base, error));
        assert_eq!(found, Vec::from_iter(wrong), "{kind} {error}");
    }
}

#[test]
fn leader_epochs_rise_with_each_crash() {
    let end = |current: i64| json!({"what": "epoch_end", "topic": "a", "partition": 0, "answer": {"current": current, "asked": current, "error": 0, "leader_epoch": current, "end": 3}});
    let found = |crashes: &[i64], current: i64| {
        let known = [filled(), vec![whole()]].concat();
        let mut history: Vec<_> = known.into_iter().map(|value| op(Type::Ok, value)).collect();
        for (at, value) in [(10, end(7)), (20, end(current))] {
            let mut invoke = op(Type::Invoke, value.clone());
            invoke.time = at;
            let mut ok = op(Type::Ok, value);
            ok.time = at + 1;
            history.extend([invoke, ok]);
        }
        let facts = InspectorFacts {
            crashes: crashes.to_vec(),
            ..InspectorFacts::default()
        };
        judge(&history, false, &facts, &mut Account::default()).len()
    };
    assert_eq!(found(&[], 7), 0);
    assert_eq!(found(&[], 6), 1);
    assert_eq!(found(&[15], 8), 0);
    assert_eq!(found(&[15], 7), 1);
    // It may have been answered before.
    assert_eq!(found(&[20], 7), 0);
}

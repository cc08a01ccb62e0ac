//! The JSON schema accepts what is a history, and refuses what the reader refuses.

mod common;

use brokkr_history::{Reader, Syntax, Writer};
use common::operation;
use jsonschema::Validator;
use proptest::prelude::*;
use serde_json::Value;

fn schema() -> Validator {
    let schema: Value = serde_json::from_str(include_str!("../schema.json")).expect("it is JSON");
    jsonschema::draft202012::meta::validate(&schema).expect("it is a schema");
    jsonschema::validator_for(&schema).expect("it is a schema")
}

fn check(schema: &Validator, operation: &Value) {
    if let Err(e) = schema.validate(operation) {
        panic!("{operation}: {e}");
    }
}

#[test]
fn a_recorded_history_is_of_the_schema() {
    let schema = schema();
    let lines = include_str!("../../cli/tests/histories/brokkr-one-second.jsonl").lines();
    assert_eq!(lines.clone().count(), 662);
    for line in lines {
        check(&schema, &serde_json::from_str(line).expect("it is JSON"));
    }
}

#[test]
fn histories_of_killed_brokers_and_of_the_simulator_are_of_the_schema() {
    let schema = schema();
    for history in [
        include_str!("../../checker/tests/histories/brokkr-flushed.jsonl"),
        include_str!("../../checker/tests/histories/brokkr-unflushed.jsonl"),
        include_str!("../../checker/tests/histories/kafka-flushed.jsonl"),
        include_str!("../../checker/tests/histories/kafka-unflushed.jsonl"),
        include_str!("../../checker/tests/histories/simulator.jsonl"),
    ] {
        assert!(history.lines().count() > 200);
        for line in history.lines() {
            check(&schema, &serde_json::from_str(line).expect("it is JSON"));
        }
    }
}

#[test]
fn the_checkers_cases_are_of_the_schema() {
    let schema = schema();
    let mut operations = 0;
    for cases in [
        include_str!("../../checker/tests/cases/kafka.json"),
        include_str!("../../checker/tests/cases/more.json"),
    ] {
        let cases: Value = serde_json::from_str(cases).expect("it is JSON");
        for case in cases["cases"].as_array().expect("cases") {
            for operation in case["history"].as_array().into_iter().flatten() {
                check(&schema, operation);
                operations += 1;
            }
        }
    }
    assert!(operations > 200, "{operations}");
}

proptest! {
    #[test]
    fn whatever_is_written_is_of_the_schema(operation in operation()) {
        let mut writer = Writer::with_syntax(Vec::new(), Syntax::Json);
        writer.write(&operation).expect("writing to a Vec never fails");
        let line = writer.finish().expect("writing to a Vec never fails");
        let line: Value = serde_json::from_slice(&line).expect("it is JSON");
        prop_assert!(schema().is_valid(&line), "{}", line);
    }
}

/// Each line differs from an accepted one in one place.
#[test]
fn what_is_no_operation_is_refused_by_both() {
    let schema = schema();
    let lines = [
        (
            r#"{"type":"begin","process":0,"f":"poll"}"#,
            r#"{"type":"invoke","process":0,"f":"poll"}"#,
        ),
        (
            r#"{"type":"ok","process":-1,"f":"poll"}"#,
            r#"{"type":"ok","process":1,"f":"poll"}"#,
        ),
        (
            r#"{"type":"ok","process":"x","f":"poll"}"#,
            r#"{"type":"ok","process":"nemesis","f":"poll"}"#,
        ),
        (
            r#"{"type":"ok","process":0}"#,
            r#"{"type":"ok","process":0,"f":"dance"}"#,
        ),
        (
            r#"{"index":-1,"type":"ok","process":0,"f":"poll"}"#,
            r#"{"index":0,"type":"ok","process":0,"f":"poll"}"#,
        ),
        (
            r#"{"time":"x","type":"ok","process":0,"f":"poll"}"#,
            r#"{"time":-1,"type":"ok","process":0,"f":"poll"}"#,
        ),
        (
            r#"{"type":"ok","process":0,"f":"send","value":[["send","x"]]}"#,
            r#"{"type":"ok","process":0,"f":"send","value":[["send","x",1]]}"#,
        ),
        (
            r#"{"type":"ok","process":0,"f":"send","value":[["send","x",[0,1,-1]]]}"#,
            r#"{"type":"ok","process":0,"f":"send","value":[["send","x",[0,1,4294967295]]]}"#,
        ),
        (
            r#"{"type":"ok","process":0,"f":"send","value":[["send","x",[-1,1]]]}"#,
            r#"{"type":"ok","process":0,"f":"send","value":[["send","x",[null,1]]]}"#,
        ),
        (
            r#"{"type":"ok","process":0,"f":"send","value":[["send","x",1,"invoke"]]}"#,
            r#"{"type":"ok","process":0,"f":"send","value":[["send","x",1,"fail"]]}"#,
        ),
        (
            r#"{"type":"ok","process":0,"f":"txn","value":[["send","x",{"stone":1}]]}"#,
            r#"{"type":"ok","process":0,"f":"txn","value":[["send","x",{"tombstone":1}]]}"#,
        ),
        (
            r#"{"type":"ok","process":0,"f":"poll","value":[["poll",{"x":[[0]]}]]}"#,
            r#"{"type":"ok","process":0,"f":"poll","value":[["poll",{"x":[[0,1]]}]]}"#,
        ),
        (
            r#"{"type":"ok","process":0,"f":"poll","value":[["poll",{},1]]}"#,
            r#"{"type":"ok","process":0,"f":"poll","value":[["poll",{}]]}"#,
        ),
        (
            r#"{"type":"ok","process":0,"f":"poll","value":[["pull"]]}"#,
            r#"{"type":"ok","process":0,"f":"pull","value":[["pull"]]}"#,
        ),
        (
            r#"{"type":"ok","process":0,"f":"assign","value":[null]}"#,
            r#"{"type":"ok","process":0,"f":"assign","value":[1,"x"]}"#,
        ),
        (
            r#"{"type":"ok","process":0,"f":"assign","value":["x"],"seek":{"x":"start"}}"#,
            r#"{"type":"ok","process":0,"f":"assign","value":["x"],"seek":{"x":"end"}}"#,
        ),
        (
            r#"{"type":"ok","process":0,"f":"poll","rebalance-log":[1]}"#,
            r#"{"type":"ok","process":0,"f":"poll","rebalance-log":[{"keys":["x"]}]}"#,
        ),
    ];
    for (wrong, right) in lines {
        for (line, valid) in [(wrong, false), (right, true)] {
            let read = Reader::new(line.as_bytes()).next().expect("a line");
            let value: Value = serde_json::from_str(line).expect("it is JSON");
            assert_eq!((read.is_ok(), schema.is_valid(&value)), (valid, valid), "{line}");
        }
    }
}

/// Values of operations by name: the reader takes any, and the judges refuse what the schema refuses.
#[test]
fn values_of_named_operations() {
    let schema = schema();
    let cases = [
        ("read", r#"["x",null]"#, r#"["x"]"#),
        ("cas", r#"["x",[1,2]]"#, r#"["x",1]"#),
        (
            "commit",
            r#"{"group":"g","key":"x","offset":1}"#,
            r#"{"group":"g","offset":1}"#,
        ),
        ("create_topic", r#"{"topic":"t","id":"A"}"#, r#"{"id":"A"}"#),
        ("delete-records", r#"{"key":"x","before":-1}"#, r#"{"key":"x"}"#),
        (
            "list_offsets",
            r#"{"key":"x","earliest":0,"latest":7}"#,
            r#"{"key":"x","latest":-1}"#,
        ),
        (
            "metadata",
            r#"{"broker":1,"topics":{"t":{"id":"A","partitions":{"0":{"leader":1,"epoch":2}}},"u":null}}"#,
            r#"{"broker":1,"topics":{"t":{"partitions":{}}}}"#,
        ),
    ];
    let waiver = |value: &str| {
        let line = format!(r#"{{"type":"info","process":"nemesis","f":"waive","value":{value}}}"#);
        schema.is_valid(&serde_json::from_str(&line).expect("it is JSON"))
    };
    assert!(waiver(
        r#"{"anomaly":"unseen","key":"x","values":[1],"why":"damaged"}"#
    ));
    assert!(!waiver(r#"{"anomaly":"unseen"}"#) && !waiver("null"));
    for (f, right, wrong) in cases {
        for (value, valid) in [(right, true), (wrong, false)] {
            let line = format!(r#"{{"type":"ok","process":0,"f":"{f}","value":{value}}}"#);
            let value: Value = serde_json::from_str(&line).expect("it is JSON");
            assert_eq!(schema.is_valid(&value), valid, "{line}");
        }
    }
}

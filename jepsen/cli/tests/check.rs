//! The binary: exit codes, formats, waivers.

mod common;

use common::{Directory, code, run};
use serde_json::{Value, json};

const VALID: &str = r#"{"index":0,"time":0,"type":"invoke","process":0,"f":"send","value":[["send","x",1]]}
{"index":1,"time":1,"type":"ok","process":0,"f":"send","value":[["send","x",[0,1]]]}
{"index":2,"time":2,"type":"invoke","process":1,"f":"poll","value":[["poll"]]}
{"index":3,"time":3,"type":"ok","process":1,"f":"poll","value":[["poll",{"x":[[0,1]]}]]}
"#;

fn check(args: &[&str], input: &str) -> (i32, Value) {
    let output = run(&[&["check", "-", "--format", "json"], args].concat(), input);
    (
        code(&output),
        serde_json::from_slice(&output.stdout).unwrap_or(Value::Null),
    )
}

#[test]
fn exit_codes_and_json() {
    let (code, said) = check(&[], VALID);
    assert_eq!(
        (code, &said["valid"], &said["anomalies"]),
        (0, &json!(true), &json!({}))
    );

    let unseen = VALID.replace("[[0,1]]", "[]");
    let (code, said) = check(&[], &unseen);
    assert_eq!((code, &said["valid"]), (1, &json!(false)));
    assert_eq!(
        said["anomalies"]["unseen"],
        json!([{"key": "x", "count": 1, "values": [1]}])
    );
    assert_eq!(
        said["explanations"]["unseen"][0],
        json!("1 acknowledged records of x were never read, the first is 1")
    );

    assert_eq!(said["evidence"]["unseen"], json!([[1]]));

    let (code, said) = check(&["--allow", "unseen"], &unseen);
    assert_eq!(
        (code, &said["valid"], &said["allowed"]),
        (0, &json!(true), &json!(["unseen"]))
    );

    let nothing = r#"{"index":0,"type":"ok","process":0,"f":"poll","value":[]}"#;
    let (code, said) = check(&["--workload", "exactly-once"], nothing);
    assert_eq!((code, &said["valid"]), (3, &json!("unknown")));
}

#[test]
fn malformed_input_is_reported_with_its_place() {
    for (input, place) in [
        (format!("{VALID}nonsense"), "line 5, column 1: "),
        (
            VALID.replace(r#""index":2"#, r#""index":3"#),
            "line 3, column 10: index 3, not 2",
        ),
        (
            VALID.replace(r#"ok","process":0"#, r#"ok","process":7"#),
            "line 3",
        ),
    ] {
        let output = run(&["check", "-"], &input);
        let said = String::from_utf8_lossy(&output.stderr);
        if input.contains("process\":7") {
            // A completion without an invocation is accepted.
            assert_eq!(code(&output), 0, "{said}");
        } else {
            assert_eq!(code(&output), 2, "{said}");
            assert!(said.contains(place), "{said}");
        }
    }
    let twice = VALID.replace(r#""type":"ok","process":0"#, r#""type":"invoke","process":0"#);
    let output = run(&["check", "-"], &twice);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(code(&output), 2);
    assert!(
        said.contains("line 2, column 1: operation 1: process 0 has not ended operation 0 yet"),
        "{said}"
    );
}

#[test]
fn a_torn_last_line_is_left_out_and_said() {
    let (whole, unfinished) = (
        VALID.len(),
        r#"{"index":4,"time":5,"type":"invoke","process":0,"f":"send","value":[["send","x",2]]}"#,
    );
    let torn = format!("{VALID}{unfinished}\n{}", &VALID[..whole / 5]);
    let (code_, said) = check(&[], &torn);
    assert_eq!((code_, &said["torn"]), (0, &json!(6)));
    assert_eq!(said["stats"]["send"]["unfinished"], json!(1));
    let output = run(&["check", "-"], &torn);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        text.starts_with("line 6, column 1: the last line is torn"),
        "{text}"
    );
    let output = run(&["convert", "-", "--to", "json"], &torn);
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!((code(&output), text.lines().count()), (0, 5));
    assert!(String::from_utf8_lossy(&output.stderr).contains("line 6"));
    let (_, said) = check(&[], VALID);
    assert_eq!(said["torn"], Value::Null);
}

#[test]
fn a_waiver_allows_the_findings_that_it_names() {
    let unseen = VALID.replace("[[0,1]]", "[]");
    let waive = |value: &str| {
        format!(
            "{unseen}{{\"index\":4,\"type\":\"info\",\"process\":\"nemesis\",\"f\":\"waive\",\"value\":{value}}}\n"
        )
    };
    let why = "the disk was damaged";
    for (value, due) in [
        (json!({"anomaly": "unseen", "why": why}), 0),
        (
            json!({"anomaly": "unseen", "key": "x", "values": [1], "why": why}),
            0,
        ),
        (json!({"anomaly": "unseen", "key": "y", "why": why}), 1),
        (json!({"anomaly": "unseen", "values": [2], "why": why}), 1),
        (json!({"anomaly": "unseen", "values": [], "why": why}), 1),
        (json!({"anomaly": "duplicate", "why": why}), 1),
        (json!({"anomaly": "unsen", "why": why}), 2),
        (json!({"anomaly": "unseen"}), 2),
        (json!({"anomaly": "unseen", "key": 7, "why": why}), 2),
        (json!({"anomaly": "unseen", "values": 1, "why": why}), 2),
        (json!(null), 2),
    ] {
        let (code, said) = check(&[], &waive(&value.to_string()));
        assert_eq!(code, due, "{value}");
        if due == 0 {
            assert_eq!(said["waived"]["unseen"], json!([why]));
        }
    }
}

#[test]
fn wrong_options_are_refused() {
    for args in [
        &["check", "-", "--allow", "unsen"][..],
        &["check", "-", "--workload", "kaffka"],
        &["check", "/nonexistent/history"],
        &["check"],
    ] {
        let output = run(args, VALID);
        assert_eq!(code(&output), 2, "{args:?}");
        assert!(!output.stderr.is_empty());
    }
}

#[test]
fn text_shows_the_operations() {
    let dir = Directory::new("text");
    let file = dir.write("history.jsonl", &VALID.replace("[[0,1]]", "[[0,2]]"));
    let output = run(&["check", &file], "");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(code(&output), 1);
    for part in [
        "phantom D2 (1)\n  - operation 3 read 2 from x, which no operation sent\n      {\"index\":3,",
        "\njudged: acked 1, deletes 0, digests 0, listings 0, read 1, shown 1\n",
        "\nINVALID\n",
    ] {
        assert!(said.contains(part), "{said}");
    }
}

/// Neither an empty history nor one of another workload is valid.
#[test]
fn nothing_judged_is_inconclusive() {
    for workload in [
        "kafka",
        "exactly-once",
        "registers",
        "offsets",
        "topics",
        "metadata",
        "topic-ids",
    ] {
        let (code, said) = check(&["--workload", workload], "");
        let valid = said["valid"].clone();
        match workload {
            // Jepsen's checker calls it invalid.
            "kafka" => assert_eq!((code, valid), (1, json!(false))),
            _ => assert_eq!((code, valid), (3, json!("unknown")), "{workload}"),
        }
        if !["kafka", "exactly-once", "topic-ids"].contains(&workload) {
            let (code, said) = check(&["--workload", workload], VALID);
            assert_eq!(
                (code, &said["not_judged"]),
                (3, &json!({"poll": 1, "send": 1})),
                "{workload}"
            );
        }
    }
}

/// The names and values are those that `workloads/src/recreate.rs` records.
#[test]
fn recorded_topics_are_judged() {
    let line = |index: u64, type_: &str, f: &str, value: &str| {
        format!(
            r#"{{"index":{index},"time":{index},"type":"{type_}","process":250,"f":"{f}","value":{value}}}"#
        ) + "\n"
    };
    let history = [
        line(0, "invoke", "create_topic", r#"{"topic":"r0"}"#),
        line(1, "ok", "create_topic", r#"{"topic":"r0","id":"a"}"#),
        line(2, "invoke", "delete_topic", r#"{"topic":"r0","id":"a"}"#),
        line(3, "ok", "delete_topic", r#"{"topic":"r0","id":"a"}"#),
    ];
    let judge = ["--workload", "topics", "--require", "calls=2"];
    assert_eq!(check(&judge, &history.concat()).0, 0);
    let other = history.concat().replace(
        r#""ok","process":250,"f":"delete_topic","value":{"topic":"r0","id":"a""#,
        r#""ok","process":250,"f":"delete_topic","value":{"topic":"r0","id":"b""#,
    );
    assert_eq!(check(&judge, &other).0, 1);
}

#[test]
fn counts_may_be_required() {
    assert_eq!(check(&["--require", "acked=1,read=1"], VALID).0, 0);
    let (exit_code, said) = check(&["--require", "acked=2", "--require", "read=1"], VALID);
    assert_eq!(
        (exit_code, &said["gave_up"]),
        (3, &json!("acked: 1 were judged, and 2 are required"))
    );
    // What is invalid stays so.
    let unseen = VALID.replace("[[0,1]]", "[]");
    assert_eq!(check(&["--require", "read=1"], &unseen).0, 1);
    for wrong in ["axed=1", "acked", "acked=x"] {
        let output = run(&["check", "-", "--require", wrong], VALID);
        assert_eq!(code(&output), 2, "{wrong}");
    }
}

#[test]
fn lag_may_have_a_limit() {
    let assign = r#"{"index":0,"time":0,"type":"invoke","process":1,"f":"assign","value":["x"]}
{"index":1,"time":0,"type":"ok","process":1,"f":"assign","value":["x"]}
{"index":2,"time":0,"type":"invoke","process":0,"f":"send","value":[["send","x",1]]}
{"index":3,"time":1000000,"type":"ok","process":0,"f":"send","value":[["send","x",[0,1]]]}
{"index":4,"time":8000000,"type":"invoke","process":1,"f":"poll","value":[["poll"]]}
{"index":5,"time":8000000,"type":"ok","process":1,"f":"poll","value":[["poll",{}]]}
{"index":6,"time":9000000,"type":"invoke","process":1,"f":"poll","value":[["poll"]]}
{"index":7,"time":9000000,"type":"ok","process":1,"f":"poll","value":[["poll",{"x":[[0,1]]}]]}
"#;
    assert_eq!(check(&[], assign).0, 0);
    assert_eq!(check(&["--lag-max", "7ms"], assign).0, 0);
    let (code, said) = check(&["--lag-max", "6ms"], assign);
    assert_eq!(
        (code, &said["anomalies"]["lag"][0]["lag"]),
        (1, &json!(7_000_000))
    );
    assert_eq!(said["invariants"]["lag"], json!("V1"));
}

#[test]
fn notations_convert_into_each_other() {
    let edn = run(&["convert", "-", "--to", "edn"], VALID);
    assert_eq!(code(&edn), 0);
    let edn = String::from_utf8(edn.stdout).expect("text");
    assert!(
        edn.starts_with(
            "{:index 0, :time 0, :type :invoke, :process 0, :f :send, :value [[:send \"x\" 1]]}\n"
        ),
        "{edn}"
    );
    let json = run(&["convert", "-", "--to", "json"], &edn);
    assert_eq!(String::from_utf8(json.stdout).expect("text"), VALID);
    assert_eq!(check(&[], &edn).0, 0);
}

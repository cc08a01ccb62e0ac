//! The binary: exit codes, formats, waivers.
#![expect(
    clippy::disallowed_methods,
    reason = "a test of a command line tool writes files for it"
)]

use std::io::Write;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

const VALID: &str = r#"{"index":0,"time":0,"type":"invoke","process":0,"f":"send","value":[["send","x",1]]}
{"index":1,"time":1,"type":"ok","process":0,"f":"send","value":[["send","x",[0,1]]]}
{"index":2,"time":2,"type":"invoke","process":1,"f":"poll","value":[["poll"]]}
{"index":3,"time":3,"type":"ok","process":1,"f":"poll","value":[["poll",{"x":[[0,1]]}]]}
"#;

fn run(args: &[&str], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_brokkr-jepsen"))
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    let mut stdin = child.stdin.take().expect("piped");
    // With a wrong option it ends before it reads.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    child.wait_with_output().expect("it ends")
}

fn code(output: &Output) -> i32 {
    output.status.code().expect("it was not killed")
}

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
    let dir = std::env::temp_dir().join(format!("brokkr-jepsen-{}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("a directory");
    let file = dir.join("history.jsonl");
    std::fs::write(&file, VALID.replace("[[0,1]]", "[[0,2]]")).expect("a file");
    let output = run(&["check", file.to_str().expect("text")], "");
    std::fs::remove_dir_all(&dir).expect("it was there");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(code(&output), 1);
    for part in [
        "phantom D2 (1)\n  - operation 3 read 2 from x, which no operation sent\n      {\"index\":3,",
        "\nINVALID\n",
    ] {
        assert!(said.contains(part), "{said}");
    }
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

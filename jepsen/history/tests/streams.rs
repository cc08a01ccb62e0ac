//! Histories survive writing and reading, and malformed input is reported with its place.

mod common;

use brokkr_history::{
    MicroOp, NEMESIS, Op, Operation, Polls, ReadError, Reader, Seek, Syntax, Type, UNKNOWN_OFFSET, Val,
    Writer,
};
use common::operation;
use proptest::prelude::*;

const LINES: &str = r#"{"index":0,"time":0,"type":"invoke","process":3,"f":"assign","value":["t-0","11"]}
{"index":1,"time":5,"type":"invoke","process":0,"f":"txn","value":[["send","t-0",-7],["send","t-0","a"],["poll"]]}
{"index":2,"time":6,"type":"ok","process":0,"f":"txn","value":[["send","t-0",[12,-7]],["send","t-0","a"],["poll",{"11":[[2,null],[null,1]],"t-0":[]}]]}
{"index":3,"time":7,"type":"info","process":9,"f":"crash","value":{"why":[1,2.5,true]}}
{"index":4,"time":8,"type":"info","process":"nemesis","f":"kill","value":null}
{"index":5,"time":9,"type":"ok","process":0,"f":"poll","value":[["poll",{}]],"rebalance-log":[{"keys":["t-0"]}]}
{"index":6,"time":9,"type":"ok","process":3,"f":"assign","value":["t-0"],"seek-to-beginning?":true}
{"index":7,"time":10,"type":"info","process":0,"f":"send","value":[["send","t-0",[13,7,4294967295],"ok"],["send","t-0",[null,8,0],"fail"],["send","t-1",9,"info"],["send","t-1",{"tombstone":10}]]}
{"index":8,"time":11,"type":"ok","process":4,"f":"poll","value":[["poll"],["poll",{"t-0":[[13,7,5],[14,8]],"t-1":[[null,{"tombstone":10},6]]}]]}
{"index":9,"time":12,"type":"ok","process":3,"f":"assign","value":["a","b","c"],"seek":{"a":7,"b":"beginning","c":"end"}}
"#;

fn read(text: &str) -> Result<Vec<Operation>, ReadError> {
    Reader::new(text.as_bytes()).collect()
}

fn written(history: &[Operation], syntax: Syntax) -> String {
    let mut w = Writer::with_syntax(Vec::new(), syntax);
    for o in history {
        w.write(o).expect("writing to a Vec never fails");
    }
    String::from_utf8(w.finish().expect("writing to a Vec never fails")).expect("it is text")
}

/// The place and message of the error.
fn fault(text: &str) -> (u64, u64, String) {
    match read(text) {
        Err(ReadError::Garbage { at, what }) => (at.line, at.column, what),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_text_of_edn_may_hold_control_characters() {
    let line = "{:index 0, :type :invoke, :process 0, :f :txn, :value [[:send \"t\u{1}\t\n\" 1]]}\n";
    let read: Result<Vec<Operation>, _> = Reader::with_syntax(line.as_bytes(), Syntax::Edn).collect();
    let history = read.expect("it is a history");
    let sent = MicroOp::Send {
        key: "t\u{1}\t\n".into(),
        offset: None,
        value: Val::Int(1),
    };
    assert_eq!(history[0].op.micro_ops(), [sent]);
}

#[test]
fn written_histories_equal_the_ones_read() {
    let history = read(LINES).expect("it is a history");
    assert_eq!(written(&history, Syntax::Json), LINES);
    let sent = MicroOp::Send {
        key: "t-0".into(),
        offset: Some(12),
        value: Val::Int(-7),
    };
    let polled = MicroOp::Poll(Some(Polls::from([
        ("11".into(), vec![(2, Val::Null), (UNKNOWN_OFFSET, Val::Int(1))]),
        ("t-0".into(), vec![]),
    ])));
    assert_eq!(history[2].op.micro_ops()[0], sent);
    assert_eq!(history[2].op.micro_ops()[2], polled);
    assert_eq!(
        (history[4].process, history[6].seek_to_beginning),
        (NEMESIS, true)
    );
    let details = &history[7].details;
    let outcomes: Vec<_> = (0..4).map(|micro| details.outcome(micro)).collect();
    assert_eq!(
        outcomes,
        [Some(Type::Ok), Some(Type::Fail), Some(Type::Info), None]
    );
    assert_eq!(
        (details.digest(0, 0), details.digest(1, 0)),
        (Some(u32::MAX), Some(0))
    );
    let MicroOp::Send {
        offset: None,
        value: Val::Tombstone(10),
        ..
    } = history[7].op.micro_ops()[3]
    else {
        panic!("{:?}", history[7]);
    };
    let digests: Vec<_> = (0..3)
        .map(|record| history[8].details.digest(1, record))
        .collect();
    assert_eq!(digests, [Some(5), None, Some(6)]);
    let seeks = [("a", Seek::Offset(7)), ("b", Seek::Beginning), ("c", Seek::End)];
    assert_eq!(
        history[9].seeks,
        seeks.map(|(key, seek)| (key.into(), seek)).into()
    );
    assert_eq!(
        read(&written(&history, Syntax::Edn)).expect("it is a history"),
        history
    );
}

#[test]
fn jepsens_own_notation() {
    let text = r#"; a comment, and what Jepsen prints
#jepsen.history.Op{:index 0, :time 12, :type :invoke, :process 4, :f :txn, :value [[:send 11 641] [:poll]]}
#_ {:discarded true}
{:process 4 :type :ok :f :txn :time 13 :error nil :keys #{1 2}
 :value [[:send 11 [537 641]] [:poll {11 ([536 :a] [nil "b"])}]]}
{:type :info, :process :nemesis, :f :start-partition, :value {"n1" #{"n2"} :ratio 22/7 :big 12345678901234567890N}}
"#;
    let history = read(text).expect("it is a history");
    assert_eq!(history.len(), 3);
    let sent = MicroOp::Send {
        key: "11".into(),
        offset: Some(537),
        value: Val::Int(641),
    };
    let records = vec![(536, Val::from("a")), (UNKNOWN_OFFSET, Val::from("b"))];
    let polled = MicroOp::Poll(Some(Polls::from([("11".into(), records)])));
    assert_eq!(history[1].op, Op::Txn(vec![sent, polled]));
    assert_eq!(
        (history[1].index, history[1].time, history[1].type_),
        (1, 13, Type::Ok)
    );
    let listed = format!("[{}]", text.replace("#_ {:discarded true}", ""));
    assert_eq!(read(&listed).expect("it is a history"), history);
}

#[test]
fn a_list_of_operations_is_a_history() {
    let listed = format!("[{}]", LINES.trim_end().replace('\n', ",\n"));
    assert_eq!(read(&listed).expect("a list"), read(LINES).expect("lines"));
    assert_eq!(read("[]").expect("empty"), []);
    assert_eq!(read(" \n").expect("empty"), []);
}

#[test]
fn malformed_input_is_reported_with_its_place() {
    let first = LINES.lines().next().expect("a line");
    let line = |value: &str| {
        format!("{first}\n{{\"index\":1,\"type\":\"ok\",\"process\":0,\"f\":\"poll\",\"value\":{value}}}")
    };
    let cases = [
        (format!("{first}\n{first}"), (2, 10), "index 0, not 1"),
        (
            format!("[{}", first.replace("\"f\":\"assign\",", "\"f\":\"ass")),
            (1, 59),
            "`,` or `}` is due",
        ),
        (
            format!("[{}", &first[..60]),
            (1, 62),
            "the history ends amid an operation",
        ),
        (line("[[\"pull\"]]"), (2, 57), "no micro-operation \"pull\""),
        (
            line("[[\"poll\",{\"x\":[[1]]}]]"),
            (2, 70),
            "[offset, value] or [offset, value, digest] is due",
        ),
        (
            line("[[\"send\",\"x\",[-2,1]]]"),
            (2, 69),
            "an offset is a natural number, or nothing",
        ),
        (
            line("[[\"send\",\"x\",{}]]"),
            (2, 68),
            "a value is an integer, a text or nothing, not a map other than {\"tombstone\": number}",
        ),
        (
            line("[[\"send\",\"x\",[1,1,-1]]]"),
            (2, 73),
            "a digest is a natural number below 2³²",
        ),
        (
            line("[[\"send\",\"x\",1,\"invoke\"]]"),
            (2, 70),
            "an outcome is ok, fail or info",
        ),
        (
            line("null,\"seek\":{\"x\":\"start\"}"),
            (2, 72),
            "a seek is an offset, \"beginning\" or \"end\"",
        ),
        (line("[[\"poll\"],]"), (2, 65), "a value is due here"),
        (line("[[\"poll\"] 1]"), (2, 65), "`,` or `]` is due"),
        (
            first.replace("invoke", "begin"),
            (1, 28),
            "a type is invoke, ok, fail or info, not \"begin\"",
        ),
        (
            first.replace("\"f\"", "\"g\""),
            (1, 1),
            "the operation has no \"f\"",
        ),
        (
            "hello".to_owned(),
            (1, 1),
            "a history begins with a map, or a list of maps",
        ),
        (
            "{:type\n :ok".to_owned(),
            (2, 5),
            "the history ends amid an operation",
        ),
        (
            "\u{1}".to_owned(),
            (1, 1),
            "a history begins with a map, or a list of maps",
        ),
        ("[".repeat(100_000), (1, 131), "nested more than 128 deep"),
        ("{\"é\" 1}".to_owned(), (1, 6), "`:` is due"),
        ("[{\"index\":01}]".to_owned(), (1, 11), "\"01\" is no number"),
    ];
    let expected: Vec<_> = cases
        .iter()
        .map(|(_, (line, column), what)| (*line, *column, (*what).to_owned()))
        .collect();
    let said: Vec<_> = cases.iter().map(|(text, ..)| fault(text)).collect();
    assert_eq!(said, expected);
}

/// A recorder that was killed leaves the beginning of a line.
#[test]
fn a_last_line_that_is_torn_is_left_out() {
    for syntax in [Syntax::Json, Syntax::Edn] {
        let text = written(&read(LINES).expect("it is a history"), syntax);
        for len in 0..=text.len() {
            let torn_text = &text.as_bytes()[..len];
            let mut reader = Reader::with_syntax(torn_text, syntax);
            let history: Vec<_> = reader
                .by_ref()
                .map(|o| o.unwrap_or_else(|e| panic!("{len} bytes: {e}")))
                .collect();
            let rest = torn_text.rsplit(|b| *b == b'\n').next().unwrap_or_default();
            // A whole operation that only lacks its line's end is one.
            let is_whole = rest.is_empty() || text.as_bytes().get(len).is_none_or(|b| *b == b'\n');
            let lines = torn_text.iter().filter(|b| **b == b'\n').count();
            assert_eq!(history.len(), lines + usize::from(is_whole && !rest.is_empty()));
            let place = reader.torn().map(|at| (at.line, at.column));
            let due = (!is_whole).then_some((lines as u64 + 1, 1));
            assert_eq!(place, due, "{len} bytes");
        }
    }
}

#[test]
fn a_line_that_is_torn_amid_a_history_is_an_error() {
    let lines: Vec<_> = LINES.lines().collect();
    for len in 1..lines[1].len() {
        if !lines[1].is_char_boundary(len) {
            continue;
        }
        for rest in [format!("\n{}\n", lines[2]), "\n".to_owned()] {
            let text = format!("{}\n{}{rest}", lines[0], &lines[1][..len]);
            let mut reader = Reader::new(text.as_bytes());
            let read: Result<Vec<_>, _> = reader.by_ref().collect();
            assert!(read.is_err() && reader.torn().is_none(), "{text}");
        }
    }
}

/// Jepsen prints Java objects in fields that no judge reads.
#[test]
fn fields_that_are_not_read_may_hold_anything() {
    let text = "{:index 0, :type :info, :process 0, :f :poll, :error #object[Foo 0x7f \"x\"]}\n";
    assert_eq!(read(text).expect("it is a history").len(), 1);
    let (.., what) = fault("{:index 0x7f}");
    assert_eq!(
        what,
        "an index is an integer, not a number that is no 64-bit integer"
    );
}

#[test]
fn bytes_that_are_no_text_are_refused() {
    let bytes = b"{\"index\":0,\"type\":\"ok\",\"process\":0,\"f\":\"\xff\"}".as_slice();
    let read: Result<Vec<_>, _> = Reader::new(bytes).collect();
    assert!(matches!(read, Err(ReadError::Garbage { .. })));
}

proptest! {
    #[test]
    fn any_history_survives_both_notations(mut history in proptest::collection::vec(operation(), 0..8)) {
        for (i, o) in history.iter_mut().enumerate() {
            o.index = i as u64;
        }
        for syntax in [Syntax::Json, Syntax::Edn] {
            let text = written(&history, syntax);
            let again: Result<Vec<_>, _> = Reader::with_syntax(text.as_bytes(), syntax).collect();
            prop_assert_eq!(again.expect("it is a history"), history.clone());
        }
    }

    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64), text in "[\\[\\]{}():#\"\\\\a0-9, -]{0,40}") {
        for bytes in [bytes.as_slice(), text.as_bytes()] {
            for syntax in [Syntax::Json, Syntax::Edn] {
                let _: Result<Vec<_>, _> = Reader::with_syntax(bytes, syntax).collect();
            }
        }
    }
}

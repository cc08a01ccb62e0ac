use brokkr_workloads::value_of;
use serde_json::json;

use super::*;
use crate::plan::{Faults, LAST_READER};
use crate::report::{Verdict, Violated};
use crate::trace::{Answer, ObservedBatch};

const LOG: &str = "data/t0-0/00000000000000000000.log";

/// Writes a trace like a run's.
#[derive(Default)]
struct TraceBuilder {
    lines: String,
    n: u64,
}

impl TraceBuilder {
    fn put(
        &mut self,
        ms: u64,
        node: u32,
        task: Option<&'static str>,
        by: Option<u64>,
        what: EventKind,
    ) -> u64 {
        self.n += 1;
        let event = Event {
            n: self.n,
            t: ms * 1_000_000,
            node,
            life: 0,
            task: task.map(Into::into),
            id: task.map(|_| 1),
            by,
            what,
        };
        let _ = writeln!(
            self.lines,
            "{}",
            serde_json::to_string(&event).expect("an event can be written")
        );
        self.n
    }

    /// A task of a node runs and performs these actions; returns the run's number.
    fn run(&mut self, ms: u64, node: u32, task: &'static str, by: u64, actions: Vec<EventKind>) -> u64 {
        let run = self.put(ms, node, Some(task), (by > 0).then_some(by), EventKind::Run);
        for what in actions {
            self.put(ms, node, Some(task), Some(run), what);
        }
        run
    }

    fn device(&mut self, ms: u64, node: u32, by: u64, what: EventKind) -> u64 {
        let timer = self.put(ms, node, None, Some(by), EventKind::Timer);
        self.put(ms, node, None, Some(timer), what);
        timer
    }
}

fn op(process: u64, type_: &str, f: &str, value: serde_json::Value) -> EventKind {
    EventKind::Op {
        process,
        type_: type_.to_owned(),
        f: f.to_owned(),
        value,
    }
}

fn batch(base: i64, values: &[i64]) -> ObservedBatch {
    ObservedBatch {
        base,
        last: base + values.len() as i64 - 1,
        producer: 3,
        epoch: 0,
        sequence: 4,
        values: values.to_vec(),
    }
}

/// A broker that responds before it syncs, and loses power; with unrelated events of a run.
fn acknowledged_before_sync() -> (String, i64) {
    let (other, lost) = (value_of(1, 8), value_of(1, 9));
    let mut builder = TraceBuilder::default();
    builder.run(
        900,
        0,
        "world",
        0,
        vec![
            EventKind::Start { of: 1 },
            EventKind::Fault {
                fault: json!({"kind": "kill", "id": 9, "at_ms": 1}),
            },
        ],
    );
    builder.run(
        950,
        10,
        "producer",
        0,
        vec![op(1, "invoke", "send", json!([["send", "t0-0", other]]))],
    );
    builder.run(
        960,
        10,
        "producer",
        0,
        vec![op(1, "ok", "send", json!([["send", "t0-0", [11, other]]]))],
    );
    let asked = builder.run(
        1000,
        10,
        "producer",
        0,
        vec![
            op(1, "invoke", "send", json!([["send", "t0-0", lost]])),
            EventKind::Request {
                conn: 2,
                to: 1,
                api: "Produce".into(),
                version: 13,
                correlation: 7,
                len: 80,
                batches: vec![batch(0, &[lost])],
            },
        ],
    );
    let arrived = builder.device(1001, 1, asked, EventKind::Arrive { conn: 2, len: 84 });
    let file = LOG.to_owned();
    let written = builder.run(
        1001,
        1,
        "partition",
        arrived,
        vec![EventKind::Write {
            write: 5,
            file: file.clone(),
            at: 100,
            len: 70,
            crc: 0,
            batches: vec![batch(12, &[lost])],
        }],
    );
    let wrote = builder.device(
        1002,
        1,
        written,
        EventKind::Wrote {
            write: 5,
            file: file.clone(),
            at: 100,
            len: 70,
            error: None,
        },
    );
    let answered = builder.run(
        1002,
        1,
        "partition",
        wrote,
        vec![
            EventKind::Response {
                conn: 2,
                to: 10,
                api: "Produce".into(),
                correlation: 7,
                len: 50,
                answers: vec![Answer {
                    base: Some(12),
                    ..Answer::default()
                }],
            },
            EventKind::Sync {
                file: file.clone(),
                len: Some(170),
            },
        ],
    );
    let received = builder.device(1003, 10, answered, EventKind::Arrive { conn: 2, len: 54 });
    builder.run(
        1003,
        10,
        "producer",
        received,
        vec![op(1, "ok", "send", json!([["send", "t0-0", [12, lost]]]))],
    );
    builder.run(
        2000,
        0,
        "world",
        0,
        vec![
            EventKind::Fault {
                fault: json!({"kind": "power_loss", "id": 4, "at_ms": 1000, "down_ms": 5}),
            },
            EventKind::PowerLoss { of: 1 },
            EventKind::Lost {
                file,
                at: 100,
                len: 70,
                how: "gone".into(),
                batches: vec![batch(12, &[lost])],
            },
            EventKind::Start { of: 1 },
        ],
    );
    for (from, to) in [(0, 5), (5, 12)] {
        let shown: Vec<_> = (from..to).map(|offset| json!([offset, offset])).collect();
        builder.run(
            3000,
            8,
            "reader",
            0,
            vec![op(LAST_READER, "ok", "poll", json!([["poll", {"t0-0": shown}]]))],
        );
    }
    (builder.lines, lost)
}

fn report(violations: Vec<(&str, String)>) -> Report {
    let violated = |(id, what): (&str, String)| Violated {
        id: id.to_owned(),
        what,
    };
    Report {
        violations: violations.into_iter().map(violated).collect(),
        ..Report::empty(1, Verdict::Violation)
    }
}

fn plan() -> Plan {
    let mut plan = Plan::of(1, 4, &Faults::None);
    plan.broker
        .insert("log.flush.interval.messages".to_owned(), "77".to_owned());
    plan
}

/// The explanation of the violation nearest to the cause.
fn explained(report: &Report, trace: &Trace) -> String {
    let explained = explain(&plan(), report, trace, &Focus::Violation(None));
    explained.expect("the run has violations").text
}

#[test]
fn a_lost_record_is_followed_from_its_send_to_its_loss() {
    let (lines, lost) = acknowledged_before_sync();
    let trace = Trace::read(lines.as_bytes()).expect("it is a trace");
    let what = format!("{lost} was acknowledged at t0-0 offset 12 and is lost");
    let report = report(vec![("I3", "something else".to_owned()), ("L1", what)]);
    let story = explained(&report, &trace);
    // In this order; unrelated events are left out.
    let expected = [
        "log.flush.interval.messages = 77",
        "L1 does not hold",
        "also I3: something else",
        "is record 9 of producer 1; it is about t0-0 offset 12",
        "broker",
        "process 1 sends",
        "◀",
        "Produce #7: producer 3:0 seq 4..=4",
        "bytes 100..170: offsets 12..=12",
        "are in the page cache, not durable",
        "▶",
        "answer #7: partition 0: written at 12",
        "begins to sync",
        "stands at t0-0 offset 12",
        "┊",
        "fault power_loss down_ms 5",
        "✗",
        "bytes 100..170 are gone",
        "node 1 is started",
        "process 300 is shown of t0-0 the offsets 5..=11",
        "who woke whom",
        "node 10  producer",
        "node 1   bytes arrive",
        "a write is in the page cache",
        "node 10  bytes arrive",
    ];
    let mut rest = story.as_str();
    for part in expected {
        let at = rest
            .find(part)
            .unwrap_or_else(|| panic!("{part:?} is not in:\n{rest}\n--- of\n{story}"));
        rest = &rest[at + part.len()..];
    }
    assert!(
        !story.contains("kill") && !story.contains("offsets 0..=4"),
        "{story}"
    );
    assert!(!story.contains("is durable"), "the sync never ended:\n{story}");
    // A node that is down has no lane.
    let lanes_of = |part| {
        let line = story.lines().find(|l| l.contains(part)).expect("it is there");
        line.chars().filter(|c| "│●◀▶✗".contains(*c)).count()
    };
    assert_eq!(lanes_of("process 1 sends"), lanes_of("are gone") + 1, "{story}");
}

#[test]
fn the_chain_leads_to_a_panic() {
    let mut builder = TraceBuilder::default();
    let a = builder.run(
        1000,
        10,
        "producer",
        0,
        vec![op(1, "invoke", "send", json!([["send", "t0-0", 5]]))],
    );
    let b = builder.device(1001, 1, a, EventKind::Arrive { conn: 1, len: 9 });
    builder.run(
        1001,
        1,
        "partition",
        b,
        vec![EventKind::Panic {
            message: "panicked at x.rs:1:2:\nno".into(),
        }],
    );
    let trace = Trace::read(builder.lines.as_bytes()).expect("it is a trace");
    let report = report(vec![(
        "panic",
        "task \"partition\" of node 1: panicked at x.rs:1:2:\nno".to_owned(),
    )]);
    let story = explained(&report, &trace);
    let chain = story.split("who woke whom").nth(1).expect("a chain");
    for part in [
        "PANICS",
        "node 10  producer",
        "bytes arrive",
        "node 1   partition",
    ] {
        assert!(chain.contains(part), "{part}:\n{story}");
    }
}

#[test]
fn an_invalid_trace_is_refused_and_a_passing_run_has_no_explanation() {
    assert!(Trace::read(&b"{\"n\":1}\n{}\n"[..]).is_err());
    let (lines, _) = acknowledged_before_sync();
    let cut = &lines.as_bytes()[..lines.len() - 20];
    assert!(
        Trace::read(cut).is_ok(),
        "a process that died ends in the middle of a line"
    );
    let trace = Trace::read(&b""[..]).expect("nothing happened");
    assert!(explained(&report(Vec::new()), &trace).contains("nothing to explain"));
}

#[test]
fn long_explanations_drop_the_least_important_events() {
    let (lines, lost) = acknowledged_before_sync();
    let trace = Trace::read(lines.as_bytes()).expect("it is a trace");
    let what = format!("{lost} was acknowledged at t0-0 offset 12 and is lost");
    let subject = Subject::of(&what, &plan(), &trace.events);
    let all = pick::pick(&subject, &what, &trace.events);
    let (len, times): (usize, Vec<u64>) = (all.len(), all.iter().map(|p| p.event.n).collect());
    for most in 0..=len + 1 {
        let some = pick::most_important(pick::pick(&subject, &what, &trace.events), most);
        assert_eq!(some.len(), most.min(len));
        let kept: Vec<u64> = some.iter().map(|p| p.event.n).collect();
        assert!(kept.windows(2).all(|w| w[0] < w[1]) && kept.iter().all(|n| times.contains(n)));
    }
    // The most important: the send, its acknowledgement, the write, the loss and the read that missed it.
    let few = pick::most_important(all, 3);
    assert!(
        few.iter().any(|p| p.text.contains("sends")),
        "{:?}",
        few.iter().map(|p| &p.text).collect::<Vec<_>>()
    );
}

#[test]
fn a_value_and_an_offset_have_the_same_story_also_in_a_run_that_passes() {
    let (lines, lost) = acknowledged_before_sync();
    let trace = Trace::read(lines.as_bytes()).expect("it is a trace");
    let passed = Report::empty(1, Verdict::Pass);
    let story = |focus: &Focus| explain(&plan(), &passed, &trace, focus).expect("the run has it");
    let (of_value, of_offset) = (
        story(&Focus::Value(lost)),
        story(&Focus::Offset("t0-0".to_owned(), 12)),
    );
    assert_eq!(
        (&of_value.picked, &of_value.chain),
        (&of_offset.picked, &of_offset.chain)
    );
    assert!(of_value.violation.is_none() && of_value.partitions.contains("t0-0"));
    let mut rest = of_value.text.as_str();
    for part in [
        "the story of value",
        "was sent by process 1 to t0-0 at 1.000000 s; acknowledged at t0-0 offset 12 at 1.003000 s; no client read it",
        "process 1 sends",
        "Produce #7",
        "bytes 100..170: offsets 12..=12",
        "answer #7: partition 0: written at 12",
        "begins to sync",
        "bytes 100..170 are gone",
        "who woke whom",
        "a write is in the page cache",
    ] {
        let at = rest
            .find(part)
            .unwrap_or_else(|| panic!("{part:?} is not in:\n{rest}"));
        rest = &rest[at + part.len()..];
    }
    // Neither what happened before it was sent, nor the read of other offsets after its story.
    for other in ["kill", "process 300", "is durable"] {
        assert!(!of_value.text.contains(other), "{other}: {}", of_value.text);
    }
}

#[test]
fn what_the_run_does_not_have_is_an_error_that_says_what_it_has() {
    let (lines, lost) = acknowledged_before_sync();
    let trace = Trace::read(lines.as_bytes()).expect("it is a trace");
    let failed = report(vec![("L1", "it is lost".to_owned())]);
    for (focus, parts) in [
        (
            Focus::Value(lost + 1),
            ["process 1 sent 2 values", &lost.to_string()[..]],
        ),
        (
            Focus::Value(-3),
            ["no client sent the value -3", "process 1 sent 2 values"],
        ),
        (Focus::Offset("t9-0".to_owned(), 1), ["no partition t9-0", "t0-0"]),
        (
            Focus::Offset("t0-0".to_owned(), 99),
            ["nothing stood at t0-0 offset 99", "0 to 12 were written"],
        ),
        (
            Focus::Moment(99_000_000_000),
            ["from 0.900000 to 3.000000 s", "99.000000 s is not in it"],
        ),
        (
            Focus::Moment(5),
            ["from 0.900000 to 3.000000 s", "0.000000 s is not in it"],
        ),
        (
            Focus::Violation(Some("D1".to_owned())),
            ["D1 holds in this run", "violates L1"],
        ),
    ] {
        let error = explain(&plan(), &failed, &trace, &focus)
            .err()
            .expect("the run does not have it");
        for part in parts {
            assert!(error.to_string().contains(part), "{part}: {error}");
        }
    }
}

#[test]
fn a_moment_shows_what_is_in_flight_and_what_holds_it() {
    let mut builder = TraceBuilder::default();
    let value = value_of(1, 5);
    let request = |correlation| EventKind::Request {
        conn: 2,
        to: 1,
        api: "Produce".into(),
        version: 13,
        correlation,
        len: 80,
        batches: vec![batch(0, &[value])],
    };
    builder.run(1000, 0, "world", 0, vec![EventKind::Start { of: 1 }]);
    builder.run(
        1100,
        0,
        "world",
        0,
        vec![EventKind::Started {
            of: 1,
            how: "serves".to_owned(),
        }],
    );
    let send = op(1, "invoke", "send", json!([["send", "t0-0", value]]));
    builder.run(2000, 10, "producer", 0, vec![send, request(7)]);
    builder.run(2100, 0, "world", 0, vec![EventKind::Pause { of: 1 }]);
    builder.run(4000, 0, "world", 0, vec![EventKind::Resume { of: 1 }]);
    let write = EventKind::Write {
        write: 5,
        file: LOG.to_owned(),
        at: 100,
        len: 70,
        crc: 0,
        batches: vec![batch(12, &[value])],
    };
    builder.run(4001, 1, "partition", 0, vec![write]);
    let wrote = EventKind::Wrote {
        write: 5,
        file: LOG.to_owned(),
        at: 100,
        len: 70,
        error: None,
    };
    builder.device(4500, 1, 0, wrote);
    let told = op(1, "ok", "send", json!([["send", "t0-0", [12, value]]]));
    builder.run(5000, 10, "producer", 0, vec![told]);
    let trace = Trace::read(builder.lines.as_bytes()).expect("it is a trace");
    let at = |ms: u64| {
        let focus = Focus::Moment(ms * 1_000_000);
        let explained = explain(&plan(), &Report::empty(1, Verdict::Pass), &trace, &focus);
        explained.expect("the run lasts so long")
    };
    let paused = at(3000);
    for part in [
        "broker: paused (SIGSTOP), from 2.100000 to 4.000000 s",
        "1 operation of clients in flight",
        "it began at 2.000000 s, it ends at 5.000000 s, after 3000.000 ms",
        "it waits 2001.000 ms, since 2.000000 s (Produce #7",
        "until 4.001000 s (writes t0-0",
        "meanwhile: paused (SIGSTOP)",
        "no disk operation under way",
    ] {
        assert!(paused.text.contains(part), "{part}: {}", paused.text);
    }
    assert!(paused.partitions.contains("t0-0") && !paused.picked.is_empty());
    let writing = at(4200);
    for part in [
        "every node is up",
        "1 disk operation under way",
        "it ends at 4.500000 s, after 499.000 ms",
        "its longest wait is 2001.000 ms",
    ] {
        assert!(writing.text.contains(part), "{part}: {}", writing.text);
    }
    assert!(at(1500).text.contains("no operation of clients in flight"));
}

use std::collections::BTreeMap;

use brokkr_workloads::value_of;
use serde_json::json;

use super::*;
use crate::plan::{Faults, LAST_READER};
use crate::report::{Ops, Verdict, Violated};
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
        seed: 1,
        verdict: Verdict::Violation,
        hash: String::new(),
        events: 0,
        virtual_s: 0.0,
        wall_s: 0.0,
        rss_max_bytes: 0,
        faults: BTreeMap::new(),
        reached: BTreeMap::new(),
        events_of: BTreeMap::new(),
        refused: BTreeMap::new(),
        ops: Ops::default(),
        requests: BTreeMap::new(),
        rules: BTreeMap::new(),
        violations: violations.into_iter().map(violated).collect(),
    }
}

fn plan() -> Plan {
    let mut plan = Plan::of(1, 4, &Faults::None);
    plan.broker
        .insert("log.flush.interval.messages".to_owned(), "77".to_owned());
    plan
}

#[test]
fn a_lost_record_is_followed_from_its_send_to_its_loss() {
    let (lines, lost) = acknowledged_before_sync();
    let trace = Trace::read(lines.as_bytes()).expect("it is a trace");
    let what = format!("{lost} was acknowledged at t0-0 offset 12 and is lost");
    let report = report(vec![("I3", "something else".to_owned()), ("L1", what)]);
    let story = explain(&plan(), &report, &trace, None).text;
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
    let story = explain(&plan(), &report, &trace, None).text;
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
    assert!(
        explain(&plan(), &report(Vec::new()), &trace, None)
            .text
            .contains("nothing to explain")
    );
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

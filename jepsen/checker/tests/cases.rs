//! Published cases: small histories, and the findings that a checker must and must not report (`cases/README.md`).

use std::collections::BTreeMap;

use brokkr_checker::kafka::{Analysis, Kafka, Options, max_offsets};
use brokkr_checker::{Valid, Verdict};
use brokkr_history::{MicroOp, Op, Operation, Polls, Type, Val};
use serde::Deserialize;
use serde_json::{Value, json};

#[derive(Deserialize)]
struct Cases {
    format: String,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    kind: String,
    #[serde(default)]
    options: BTreeMap<String, bool>,
    #[serde(default)]
    history: Vec<Value>,
    #[serde(default)]
    log: Vec<Option<Vec<Val>>>,
    expect: BTreeMap<String, Value>,
    absent: Vec<String>,
}

impl Case {
    fn history(&self) -> Vec<Operation> {
        let lines: Vec<_> = self.history.iter().map(|o| o.to_string() + "\n").collect();
        let read = brokkr_history::Reader::new(lines.concat().leak().as_bytes());
        read.map(|o| o.expect("a case has a history")).collect()
    }

    fn analysis(&self) -> Analysis {
        let ww_deps = self.options.get("ww_deps").copied().unwrap_or_default();
        analysis(self.history(), ww_deps)
    }
}

fn analysis(history: Vec<Operation>, ww_deps: bool) -> Analysis {
    let mut kafka = Kafka::new(Options {
        ww_deps,
        ..Options::default()
    });
    for operation in history {
        kafka.push(operation).expect("processes do one thing at a time");
    }
    kafka.finish()
}

fn data(verdict: &Verdict, anomaly: &str) -> Vec<Value> {
    verdict.findings(anomaly).iter().map(|f| f.data.clone()).collect()
}

/// A cycle may begin anywhere: rotates it to begin with the lowest operation.
fn rotated(mut finding: Value) -> Value {
    let Some(cycle) = finding["cycle"].as_array() else {
        return finding;
    };
    let mut ops = cycle[1..].to_vec();
    let mut steps = finding["steps"].as_array().expect("a cycle has steps").clone();
    ops.rotate_right(1);
    let least = (0..ops.len())
        .min_by_key(|i| ops[*i].as_u64())
        .expect("a cycle has operations");
    ops.rotate_left(least);
    steps.rotate_left(least);
    ops.push(ops[0].clone());
    finding["cycle"] = ops.into();
    finding["steps"] = steps.into();
    finding
}

/// Sorts findings, since their order is not specified.
fn sorted(findings: Vec<Value>) -> Vec<String> {
    let mut findings: Vec<_> = findings.into_iter().map(|f| rotated(f).to_string()).collect();
    findings.sort();
    findings
}

fn check_analysis(case: &Case) {
    let verdict = case.analysis().verdict();
    for (anomaly, expected) in &case.expect {
        let expected = expected.as_array().expect("findings").clone();
        assert_eq!(
            sorted(data(&verdict, anomaly)),
            sorted(expected),
            "{}: {anomaly}",
            case.name
        );
    }
    for anomaly in &case.absent {
        if anomaly == "*" {
            assert_eq!(verdict.anomalies, BTreeMap::new(), "{}", case.name);
        }
        assert_eq!(
            data(&verdict, anomaly),
            Vec::<Value>::new(),
            "{}: {anomaly}",
            case.name
        );
    }
}

fn check_max_offsets(case: &Case) {
    let history = case.history();
    let max: BTreeMap<_, _> = max_offsets(&history[0])
        .into_iter()
        .map(|(k, o)| (k.to_string(), o))
        .collect();
    assert_eq!(json!(max), case.expect["max_offsets"], "{}", case.name);
}

/// A log as polls, one for each value at each offset.
fn history_of(log: &[Option<Vec<Val>>]) -> Vec<Operation> {
    let values = log
        .iter()
        .enumerate()
        .flat_map(|(offset, values)| values.iter().flatten().map(move |v| (offset, v)));
    let poll = |(i, (offset, value)): (usize, (usize, &Val))| {
        let polls = Polls::from([("x".into(), vec![(offset as i64, value.clone())])]);
        Operation::new(
            i as u64,
            0,
            Type::Ok,
            i as u64,
            Op::Poll(vec![MicroOp::Poll(Some(polls))]),
        )
    };
    values.enumerate().map(poll).collect()
}

fn check_log_index(case: &Case) {
    let orders = analysis(history_of(&case.log), false).version_orders();
    let order = &orders["x"];
    let last: Vec<_> = order
        .last_index_to_values
        .iter()
        .map(|v| if v.is_empty() { Value::Null } else { json!(v) })
        .collect();
    assert_eq!(
        Value::from(last),
        case.expect["last_index_to_values"],
        "{}",
        case.name
    );
    let first: BTreeMap<_, _> = order
        .value_to_first_index
        .iter()
        .map(|(v, i)| (v.to_string(), *i))
        .collect();
    assert_eq!(json!(first), case.expect["value_to_first_index"], "{}", case.name);
}

fn check_version_orders(case: &Case) {
    let orders = case.analysis().version_orders();
    for (key, expected) in case.expect["version_orders"].as_object().expect("orders by key") {
        let log: BTreeMap<_, _> = orders[key]
            .log
            .iter()
            .map(|(o, values)| (o.to_string(), json!(values)))
            .collect();
        assert_eq!(json!(log), expected["log"], "{}", case.name);
        let expected = expected["by_index"].as_array().expect("a list");
        assert_eq!(orders[key].by_index.len(), expected.len(), "{}", case.name);
        // If an index has several values, any of them is accepted.
        for (ours, (theirs, values)) in orders[key]
            .by_index
            .iter()
            .zip(expected.iter().zip(orders[key].log.values()))
        {
            assert!(
                json!(ours) == *theirs || (values.len() > 1 && values.contains(ours)),
                "{}",
                case.name
            );
        }
    }
    let conflicts = data(&case.analysis().verdict(), "inconsistent-offsets");
    assert_eq!(
        Value::from(conflicts),
        case.expect["inconsistent-offsets"],
        "{}",
        case.name
    );
}

fn check_unseen_series(case: &Case) {
    let series = case.analysis().unseen_series();
    let series: Vec<_> = series
        .iter()
        .map(|u| json!({"time": u.time, "unseen": u.unseen}))
        .collect();
    assert_eq!(Value::from(series), case.expect["unseen_series"], "{}", case.name);
}

fn check(cases: &str, count: usize) {
    let cases: Cases = serde_json::from_str(cases).expect("cases");
    assert_eq!(
        (cases.format.as_str(), cases.cases.len()),
        ("kafka-anomaly-cases/1", count)
    );
    for case in &cases.cases {
        match case.kind.as_str() {
            "analysis" => check_analysis(case),
            "max-offsets" => check_max_offsets(case),
            "log-index" => check_log_index(case),
            "version-orders" => check_version_orders(case),
            "unseen-series" => check_unseen_series(case),
            "checker" => {
                let valid = case.analysis().verdict().valid() == Valid::Yes;
                assert_eq!(json!(valid), case.expect["valid"], "{}", case.name);
            }
            other => panic!("{}: no kind {other:?}", case.name),
        }
    }
}

#[test]
fn all_cases() {
    check(include_str!("cases/kafka.json"), 21);
}

#[test]
fn all_further_cases() {
    check(include_str!("cases/more.json"), 19);
}

//! Linearizability: compared with brute force, and on histories that are or are not linearizable by construction.

mod common;

use brokkr_checker::linear::{CommittedOffsets, Limits, Linear, Model, Registers, Topics};
use brokkr_checker::{Valid, Verdict};
use brokkr_history::{Op, Operation, Type};
use common::{HistoryWriter, random};
use proptest::prelude::*;
use proptest::test_runner::TestRng;
use serde_json::{Value, json};

fn verdict<M: Model>(model: M, history: &[Operation], limits: Limits) -> Verdict {
    let mut linear = Linear::new(model, limits);
    for operation in history {
        linear.push(operation.clone()).expect("a history of this model");
    }
    linear.finish().expect("a history of this model")
}

/// Whether an order was found; a history without any call has one.
fn valid<M: Model>(model: M, history: &[Operation]) -> bool {
    let verdict = verdict(model, history, Limits::default());
    assert_eq!(verdict.gave_up.is_some(), verdict.counted["calls"] == 0);
    verdict.valid() != Valid::No
}

fn op(f: &str, value: Value) -> Op {
    Op::Other(f.to_owned(), value)
}

/// A register with concurrent clients; each operation takes effect at some time while it runs.
fn register_history(random: &mut TestRng, clients: u64, steps: usize, keys: u64) -> HistoryWriter {
    struct Running {
        f: &'static str,
        key: u64,
        args: Value,
        /// Its answer, once it has taken effect.
        answer: Option<Option<Value>>,
    }
    let (mut writer, mut state) = (HistoryWriter::default(), vec![Value::Null; keys as usize]);
    let mut running: Vec<(u64, Option<Running>)> = (0..clients).map(|p| (p, None)).collect();
    let mut unknown = 0;
    for _ in 0..steps {
        let at = random.random_range(0..clients) as usize;
        let (process, doing) = &mut running[at];
        match doing {
            None => {
                let (key, n) = (random.random_range(0..keys), random.random_range(0..4));
                let (f, args) = match random.random_range(0..3) {
                    0 => ("read", Value::Null),
                    1 => ("write", json!(n)),
                    _ => ("cas", json!([n, random.random_range(0..4)])),
                };
                writer.write(Type::Invoke, *process, op(f, json!([key, args])));
                *doing = Some(Running {
                    f,
                    key,
                    args,
                    answer: None,
                });
            }
            Some(r) if r.answer.is_none() => {
                let held = &mut state[r.key as usize];
                r.answer = Some(match r.f {
                    "read" => Some(held.clone()),
                    "write" => {
                        *held = r.args.clone();
                        Some(r.args.clone())
                    }
                    _ if *held == r.args[0] => {
                        *held = r.args[1].clone();
                        Some(r.args.clone())
                    }
                    _ => None,
                });
            }
            Some(r) => {
                let answer = r.answer.take().flatten();
                // Each operation of unknown outcome may double the work of proving that no order exists.
                let known = unknown == 3 || !random.random_ratio(1, 8);
                let type_ = match &answer {
                    _ if !known => Type::Info,
                    Some(_) => Type::Ok,
                    None => Type::Fail,
                };
                let args = if r.f == "read" && !known {
                    Value::Null
                } else {
                    answer.unwrap_or(r.args.clone())
                };
                writer.write(type_, *process, op(r.f, json!([r.key, args])));
                *doing = None;
                if !known {
                    unknown += 1;
                    *process += 1000;
                }
            }
        }
    }
    writer
}

/// Whether a history of one register is linearizable, by trying all orders.
fn brute(history: &[Operation]) -> bool {
    struct Known {
        began: u64,
        ended: u64,
        unknown: bool,
        f: String,
        value: Value,
    }
    let mut calls: Vec<Known> = Vec::new();
    for o in history.iter().filter(|o| o.type_ == Type::Invoke) {
        let Op::Other(f, invoked) = &o.op else {
            unreachable!("registers only")
        };
        let end = history
            .iter()
            .find(|e| e.index > o.index && e.process == o.process);
        let (ended, unknown, value) = match end {
            Some(e) if e.type_ == Type::Fail => continue,
            Some(e) if e.type_ == Type::Ok => {
                let Op::Other(_, value) = &e.op else {
                    unreachable!("registers only")
                };
                (e.index, false, value[1].clone())
            }
            _ => (u64::MAX, true, invoked[1].clone()),
        };
        calls.push(Known {
            began: o.index,
            ended,
            unknown,
            f: f.clone(),
            value,
        });
    }
    fn go(calls: &[Known], done: u32, state: &Value) -> bool {
        let due = |i: &usize| done & (1 << i) == 0;
        if (0..calls.len()).filter(due).all(|i| calls[i].unknown) {
            return true;
        }
        let first_end = (0..calls.len())
            .filter(due)
            .map(|i| calls[i].ended)
            .min()
            .unwrap_or(u64::MAX);
        (0..calls.len())
            .filter(due)
            .filter(|i| calls[*i].began < first_end)
            .any(|i| {
                let c = &calls[i];
                let next = match c.f.as_str() {
                    "read" => (c.unknown || c.value == *state).then(|| state.clone()),
                    "write" => Some(c.value.clone()),
                    _ => (c.value[0] == *state).then(|| c.value[1].clone()),
                };
                next.is_some_and(|next| go(calls, done | 1 << i, &next))
            })
    }
    go(&calls, 0, &Value::Null)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn a_registers_history_is_linearizable(seed: u64, clients in 1u64..6, steps in 0usize..400, keys in 1u64..4) {
        let mut random = random(seed);
        let mut writer = register_history(&mut random, clients, steps, keys);
        prop_assert!(valid(Registers, &writer.0));
        // This value was never written.
        writer.write(Type::Invoke, 99, op("read", json!([0, null])));
        let read = writer.write(Type::Ok, 99, op("read", json!([0, "never"])));
        let verdict = verdict(Registers, &writer.0, Limits::default());
        prop_assert_eq!(verdict.findings("nonlinearizable").len(), 1);
        prop_assert_eq!(&verdict.findings("nonlinearizable")[0].data["op"], &json!(read));
        prop_assert!(verdict.findings("nonlinearizable")[0].ops.contains(&read));
    }

    #[test]
    fn the_search_agrees_with_brute_force(seed: u64, clients in 1u64..5, steps in 0usize..22, lies in 0u64..4) {
        let mut random = random(seed);
        let mut writer = register_history(&mut random, clients, steps, 1);
        for _ in 0..lies {
            let n = random.random_range(0..4);
            let len = writer.0.len();
            if len == 0 { continue }
            let o = &mut writer.0[random.random_range(0..len)];
            if let (Type::Ok, Op::Other(f, value)) = (o.type_, &mut o.op) && f == "read" {
                *value = json!([0, n]);
            }
        }
        prop_assert_eq!(valid(Registers, &writer.0), brute(&writer.0));
    }
}

#[test]
fn a_stale_read_is_found_among_many_operations() {
    let mut writer = HistoryWriter::default();
    for n in 0..20_000 {
        let write = op("write", json!(["x", n]));
        writer.both(n % 3, write.clone(), Type::Ok, write);
    }
    assert!(valid(Registers, &writer.0));
    let read = |v: Value| op("read", json!(["x", v]));
    writer.both(7, read(Value::Null), Type::Ok, read(json!(19_998)));
    assert!(!valid(Registers, &writer.0));
}

#[test]
fn a_search_that_takes_too_long_is_given_up() {
    let mut writer = HistoryWriter::default();
    for process in 0..24 {
        writer.write(Type::Invoke, process, op("write", json!(["x", process])));
    }
    for process in 0..24 {
        writer.write(Type::Ok, process, op("write", json!(["x", process])));
    }
    let read = |v: Value| op("read", json!(["x", v]));
    writer.both(99, read(Value::Null), Type::Ok, read(json!("never")));
    let (steps, bytes) = (
        Limits {
            steps_max: 10_000,
            ..Limits::default()
        },
        Limits {
            bytes_max: 100_000,
            ..Limits::default()
        },
    );
    for limits in [steps, bytes] {
        let verdict = verdict(Registers, &writer.0, limits);
        assert_eq!(verdict.valid(), Valid::Unknown);
        assert_eq!(verdict.to_json()["valid"], json!("unknown"));
    }
}

#[test]
fn without_an_operation_of_the_model_the_verdict_is_unknown() {
    let mut writer = HistoryWriter::default();
    assert_eq!(
        verdict(Registers, &writer.0, Limits::default()).valid(),
        Valid::Unknown
    );
    writer.send(0, &[("x", Some(0), 1)], Type::Ok);
    let other = verdict(Topics, &writer.0, Limits::default());
    assert_eq!(other.valid(), Valid::Unknown);
    assert_eq!(other.notes["not_judged"], json!({"send": 1}));
    let write = op("write", json!(["x", 1]));
    writer.both(0, write.clone(), Type::Ok, write);
    let judged = verdict(Registers, &writer.0, Limits::default());
    assert_eq!((judged.valid(), judged.counted["calls"]), (Valid::Yes, 1));
    assert_eq!(judged.notes["not_judged"], json!({"send": 1}));
}

/// The workloads' recorder writes names with `_`.
#[test]
fn names_of_operations_may_have_either_dash() {
    let done = json!({"topic": "t", "id": "a"});
    let gone = op("delete_topic", json!({"topic": "t"}));
    let mut writer = HistoryWriter::default();
    writer.both(
        0,
        op("create_topic", json!({"topic": "t"})),
        Type::Ok,
        op("create_topic", done),
    );
    writer.both(0, gone.clone(), Type::Ok, gone.clone());
    assert!(valid(Topics, &writer.0));
    writer.both(0, gone.clone(), Type::Ok, gone);
    assert!(!valid(Topics, &writer.0));
}

#[test]
fn committed_offsets() {
    let commit = |offset: i64| op("commit", json!({"group": "g", "key": "t-0", "offset": offset}));
    let request = op("committed", json!({"group": "g", "key": "t-0"}));
    let answer = |offset: Value| op("committed", json!({"group": "g", "key": "t-0", "offset": offset}));
    let mut writer = HistoryWriter::default();
    writer.both(0, request.clone(), Type::Ok, answer(Value::Null));
    writer.both(0, commit(5), Type::Ok, commit(5));
    writer.both(0, commit(7), Type::Info, commit(7));
    writer.both(1, request.clone(), Type::Ok, answer(json!(5)));
    writer.both(1, request.clone(), Type::Ok, answer(json!(7)));
    assert!(valid(CommittedOffsets, &writer.0));
    writer.both(1, request, Type::Ok, answer(json!(5)));
    assert!(!valid(CommittedOffsets, &writer.0));
    let mut linear = Linear::new(CommittedOffsets, Limits::default());
    let bad = Operation::new(
        0,
        0,
        Type::Ok,
        0,
        op("commit", json!({"group": "g", "key": "t-0"})),
    );
    assert_eq!(
        linear.push(bad).expect_err("no offset").what,
        "a \"commit\" lacks an offset"
    );
}

#[test]
fn topics() {
    let create = |more: Value| op("create-topic", more);
    let t = || json!({"topic": "t"});
    let mut writer = HistoryWriter::default();
    writer.both(0, create(t()), Type::Ok, create(json!({"topic": "t", "id": "a"})));
    writer.both(
        1,
        create(t()),
        Type::Ok,
        create(json!({"topic": "t", "exists": true})),
    );
    writer.both(2, op("delete-topic", t()), Type::Info, op("delete-topic", t()));
    writer.both(1, create(t()), Type::Ok, create(json!({"topic": "t", "id": "b"})));
    assert!(valid(Topics, &writer.0));
    // Both exist at once.
    writer.both(1, create(t()), Type::Ok, create(json!({"topic": "t", "id": "c"})));
    assert!(!valid(Topics, &writer.0));
}

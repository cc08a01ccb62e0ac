//! Exactly-once processing is valid; each violation is found.

mod common;

use brokkr_checker::exactly_once::{ExactlyOnce, ExactlyOnceOptions};
use brokkr_checker::{Valid, Verdict};
use brokkr_history::{MicroOp, Op, Operation, Type};
use common::{HistoryWriter, poll, random, send};
use proptest::prelude::*;
use serde_json::{Value, json};

fn verdict(history: &[Operation]) -> Verdict {
    let mut judge = ExactlyOnce::new(ExactlyOnceOptions::default());
    for operation in history {
        judge
            .push(operation.clone())
            .expect("processes do one thing at a time");
    }
    judge.finish().expect("processes do one thing at a time")
}

/// A processor that may crash at any time; its transaction is in the log completely or not at all.
struct Processed {
    writer: HistoryWriter,
    input: Vec<(i64, i64)>,
    output: Vec<(i64, i64)>,
    committed: i64,
    process: u64,
}

impl Processed {
    fn new(seed: u64, inputs: i64) -> Self {
        let (mut random, mut writer) = (random(seed), HistoryWriter::default());
        let mut input = Vec::new();
        for value in 0..inputs {
            let offset = input.last().map_or(0, |(o, _)| o + 1) + random.random_range(0..2);
            writer.send(1, &[("in-0", Some(offset), value)], Type::Ok);
            input.push((offset, value));
        }
        let mut all = Self {
            writer,
            input,
            output: Vec::new(),
            committed: 0,
            process: 10,
        };
        while all.input.last().is_some_and(|(o, _)| *o >= all.committed) {
            let type_ = match random.random_range(0..4) {
                0 => Type::Fail,
                1 => Type::Info,
                _ => Type::Ok,
            };
            let happens = type_ == Type::Ok || (type_ == Type::Info && random.random_ratio(1, 2));
            all.process(1 + random.random_range(0..3), type_, happens);
        }
        all
    }

    fn process(&mut self, n: usize, type_: Type, happens: bool) -> u64 {
        let records: Vec<_> = self
            .input
            .iter()
            .copied()
            .filter(|(o, _)| *o >= self.committed)
            .take(n)
            .collect();
        let mut micro = vec![poll("in-0", &records)];
        for (_, value) in &records {
            let offset = self.output.len() as i64;
            if happens {
                self.output.push((offset, *value));
            }
            micro.push(send("out-0", (type_ == Type::Ok).then_some(offset), *value));
        }
        if happens {
            self.committed = records.last().map_or(self.committed, |(o, _)| o + 1);
        }
        self.process += 1;
        let begun = Op::Txn(vec![MicroOp::Poll(None)]);
        self.writer.both(self.process, begun, type_, Op::Txn(micro))
    }

    /// Reads the output and the committed offset.
    fn judge_final(mut self, offset: i64) -> Verdict {
        for records in self.output.clone().chunks(4) {
            self.writer.poll(2, "out-0", records);
        }
        let answer = json!({"group": "g", "key": "in-0", "offset": offset});
        let op = |value| Op::Other("committed".to_owned(), value);
        self.writer
            .both(3, op(json!({"group": "g", "key": "in-0"})), Type::Ok, op(answer));
        verdict(&self.writer.0)
    }

    fn more(&mut self, value: i64) -> i64 {
        let offset = self.input.last().map_or(0, |(o, _)| o + 1);
        self.writer.send(1, &[("in-0", Some(offset), value)], Type::Ok);
        self.input.push((offset, value));
        offset
    }
}

fn first(verdict: &Verdict, anomaly: &str, field: &str) -> Value {
    verdict.findings(anomaly)[0].data[field].clone()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(120))]

    #[test]
    fn exactly_once_is_valid(seed: u64, inputs in 0i64..60) {
        let all = Processed::new(seed, inputs);
        let committed = all.committed;
        let processed = all.writer.0.iter().any(|o| o.type_ == Type::Ok && matches!(o.op, Op::Txn(_)));
        let verdict = all.judge_final(committed);
        prop_assert_eq!(&verdict.anomalies, &std::collections::BTreeMap::new());
        prop_assert_eq!(verdict.valid(), if processed { Valid::Yes } else { Valid::Unknown });
    }

    #[test]
    fn an_effect_too_many_or_too_few_is_found(seed: u64, inputs in 1i64..40, which: u64) {
        let mut all = Processed::new(seed, inputs);
        let (committed, at) = (all.committed, (which % all.output.len() as u64) as usize);
        let (_, value) = all.output[at];
        let next = all.output.len() as i64;
        all.output.push((next, value));
        let doubled = all.judge_final(committed);
        prop_assert_eq!(&doubled.findings("effect-duplicated")[0].data["value"], &json!(value));

        let mut all = Processed::new(seed, inputs);
        // This record is known only to its crashed sender; an acknowledged one would be known to exist.
        let offset = all.more(777);
        all.process(1, Type::Info, false);
        all.more(778);
        all.committed = offset + 1;
        all.process(1, Type::Ok, true);
        let committed = all.committed;
        let missing = all.judge_final(committed);
        prop_assert_eq!(&missing.findings("effect-missing")[0].data["value"], &json!(777));
        prop_assert_eq!(missing.valid(), Valid::No);
    }

    #[test]
    fn effects_and_offsets_that_disagree_are_found(seed: u64, inputs in 1i64..40) {
        let mut all = Processed::new(seed, inputs);
        let (before, _) = (all.committed, all.more(777));
        all.process(1, Type::Info, true);
        prop_assert_eq!(first(&all.judge_final(before), "effect-ahead", "value"), json!(777));

        let mut all = Processed::new(seed, inputs);
        let (before, offset) = (all.committed, all.more(777));
        all.process(1, Type::Ok, true);
        prop_assert_eq!(first(&all.judge_final(before), "offset-behind", "processed"), json!(offset + 1));

        let all = Processed::new(seed, inputs);
        let committed = all.committed;
        prop_assert_eq!(all.judge_final(committed + 3).findings("offset-ahead").len(), 1);
    }

    #[test]
    fn unknown_aborted_and_repeated_effects_are_found(seed: u64, inputs in 1i64..40) {
        let mut all = Processed::new(seed, inputs);
        let (committed, next) = (all.committed, all.output.len() as i64);
        all.output.push((next, 999));
        prop_assert_eq!(first(&all.judge_final(committed), "effect-unknown", "value"), json!(999));

        let mut all = Processed::new(seed, inputs);
        all.more(777);
        all.process(1, Type::Fail, true);
        let committed = all.committed;
        prop_assert_eq!(first(&all.judge_final(committed), "effect-aborted", "value"), json!(777));

        let mut all = Processed::new(seed, inputs);
        let before = all.committed;
        all.more(777);
        all.process(1, Type::Ok, true);
        all.committed = before;
        all.process(1, Type::Ok, true);
        let committed = all.committed;
        let twice = all.judge_final(committed);
        prop_assert_eq!(&twice.findings("input-twice")[0].data["value"], &json!(777));
        prop_assert_eq!(&twice.findings("effect-duplicated")[0].data["value"], &json!(777));
    }
}

fn with_options(history: &[Operation], options: ExactlyOnceOptions) -> Verdict {
    let mut judge = ExactlyOnce::new(options);
    for operation in history {
        judge
            .push(operation.clone())
            .expect("processes do one thing at a time");
    }
    judge.finish().expect("processes do one thing at a time")
}

/// Two inputs, each processed by one transaction, which may send to several outputs.
fn two_inputs(outputs: impl Fn(i64) -> Vec<MicroOp>) -> HistoryWriter {
    let mut writer = HistoryWriter::default();
    for value in 0..2 {
        writer.send(1, &[("in-0", Some(value), value)], Type::Ok);
    }
    for value in 0..2 {
        let mut micro = vec![poll("in-0", &[(value, value)])];
        micro.extend(outputs(value));
        let begun = Op::Txn(vec![MicroOp::Poll(None)]);
        writer.both(10, begun, Type::Ok, Op::Txn(micro));
    }
    writer
}

impl HistoryWriter {
    fn committed(&mut self, group: &str, offset: i64) {
        let op = |value| Op::Other("committed".to_owned(), value);
        let asked = json!({"group": group, "key": "in-0"});
        let answer = json!({"group": group, "key": "in-0", "offset": offset});
        self.both(3, op(asked), Type::Ok, op(answer));
    }
}

#[test]
fn groups_are_judged_apart() {
    let mut writer = two_inputs(|v| vec![send("out-0", Some(v), v)]);
    writer.poll(2, "out-0", &[(0, 0), (1, 1)]);
    // Another group processes the same input into another output.
    let begun = || Op::Txn(vec![MicroOp::Poll(None)]);
    let other = Op::Txn(vec![poll("in-0", &[(0, 0)]), send("copy-0", Some(0), 0)]);
    writer.both(20, begun(), Type::Ok, other);
    writer.committed("g", 2);
    assert_eq!(verdict(&writer.0).anomalies, std::collections::BTreeMap::new());
    writer.committed("h", 1);
    let several = verdict(&writer.0);
    assert_eq!(several.valid(), Valid::Unknown);
    let of = |group: &str, output: &str| {
        let options = ExactlyOnceOptions {
            group: Some(group.to_owned()),
            outputs: vec![output.to_owned()],
            ..ExactlyOnceOptions::default()
        };
        with_options(&writer.0, options)
    };
    assert_eq!(of("g", "out").valid(), Valid::Yes);
    assert_eq!(
        (
            of("h", "copy").valid(),
            of("h", "copy").notes["unprocessed"].clone()
        ),
        (Valid::Yes, json!(1))
    );
    // The offset of one group is not that of the other.
    assert_eq!(of("h", "out").findings("offset-behind").len(), 1);
    assert_eq!(of("g", "copy").findings("effect-missing").len(), 1);
}

#[test]
fn an_effect_is_once_in_each_output() {
    let both = |v: i64| vec![send("out-0", None, v), send("log-0", None, v)];
    let options = || ExactlyOnceOptions {
        outputs: vec!["out".to_owned(), "log".to_owned()],
        ..ExactlyOnceOptions::default()
    };
    for (second, missing) in [(vec![(0, 0), (1, 1)], 0), (vec![(0, 0)], 1)] {
        let mut writer = two_inputs(both);
        writer.poll(2, "out-0", &[(0, 0), (1, 1)]);
        writer.poll(2, "log-0", &second);
        let verdict = with_options(&writer.0, options());
        assert_eq!(verdict.findings("effect-missing").len(), missing);
        assert_eq!(verdict.findings("effect-duplicated").len(), 0);
        writer.poll(2, "log-0", &[(7, 0)]);
        let verdict = with_options(&writer.0, options());
        assert_eq!(verdict.findings("effect-duplicated").len(), 1);
    }
}

#[test]
fn effects_keep_the_order_of_their_inputs() {
    for (effects, reordered) in [([(0, 0), (1, 1)], 0), ([(0, 1), (1, 0)], 1)] {
        let mut writer = two_inputs(|v| vec![send("out-0", None, v)]);
        writer.poll(2, "out-0", &effects);
        let verdict = verdict(&writer.0);
        assert_eq!(verdict.findings("effect-reordered").len(), reordered);
        assert_eq!(
            verdict.valid(),
            if reordered == 0 { Valid::Yes } else { Valid::No }
        );
    }
}

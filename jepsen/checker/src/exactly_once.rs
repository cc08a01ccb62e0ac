//! Input, output and committed offset as one unit: the guarantee of consume–transform–produce (T1).
//!
//! Processors poll input partitions and send to output partitions in one operation (`txn`), which also commits the polled
//! offsets. Each input record has one effect: an output record of the *same value* (input values are unique over all input
//! keys). Polls of output partitions by other processes show the effects, and `committed` shows the group's final offset.
//!
//! ```text
//! f: "send",      value: [["send", "in-0", [4, 17]]]
//! f: "txn",       value: [["poll", {"in-0": [[4, 17]]}], ["send", "out-1", [9, 17]]]
//! f: "poll",      value: [["poll", {"out-1": [[9, 17]]}]]
//! f: "committed", value: {"group": "g", "key": "in-0", "offset": 5}
//! ```
//!
//! | anomaly | meaning |
//! | --- | --- |
//! | `input-twice` | two operations that happened polled the same input record |
//! | `effect-duplicated` | an effect is in the output more than once |
//! | `effect-missing` | the input is below the committed offset, but its effect is missing |
//! | `effect-ahead` | the effect exists, but the input is not below the committed offset |
//! | `effect-aborted` | the effect exists, although the operation that sent it failed |
//! | `effect-unknown` | an output record that is no input's effect |
//! | `offset-behind` | the committed offset is below what a completed operation polled |
//! | `offset-ahead` | the committed offset is above what any operation polled |
//!
//! If no `committed` is answered after all processing, the offset is assumed to be at least what successful operations
//! polled, and `effect-ahead` and `offset-ahead` are not judged. `effect-missing` assumes that the output was read to its
//! end, as `unseen` does for any history: waive it if the output was not.

use std::collections::{BTreeMap, BTreeSet};

use brokkr_history::{Key, MicroOp, Op, Operation, Polls, Type, UNKNOWN_OFFSET, Val};
use serde_json::{Value, json};

use crate::linear::{CommittedOffsets, Model, OffsetCall};
use crate::pairs::{Pair, Pairs};
use crate::{Finding, Malformed, Verdict};

/// The anomalies that this checker reports.
pub const ANOMALIES: &[&str] = &[
    "input-twice",
    "effect-duplicated",
    "effect-missing",
    "effect-ahead",
    "effect-aborted",
    "effect-unknown",
    "offset-behind",
    "offset-ahead",
];

/// Options of the checker.
#[derive(Clone, Debug)]
pub struct ExactlyOnceOptions {
    /// Input keys or topics (a key belongs to a topic if it is the topic, `-` and a number).
    pub inputs: Vec<String>,
    /// Output keys or topics.
    pub outputs: Vec<String>,
    /// Anomalies that do not make a history invalid.
    pub allow: BTreeSet<&'static str>,
}

impl Default for ExactlyOnceOptions {
    fn default() -> Self {
        Self {
            inputs: vec!["in".to_owned()],
            outputs: vec!["out".to_owned()],
            allow: BTreeSet::new(),
        }
    }
}

fn is_of(key: &Key, names: &[String]) -> bool {
    let number = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    let topic = key
        .as_str()
        .rsplit_once('-')
        .filter(|(_, n)| number(n))
        .map(|(topic, _)| topic);
    names
        .iter()
        .any(|n| n == key.as_str() || Some(n.as_str()) == topic)
}

/// A position in a log.
type LogPosition = (Key, i64);

/// Everything known of one value.
#[derive(Default)]
struct Effect {
    /// Its input position.
    input: Option<LogPosition>,
    /// The operations that polled it as input: those that succeeded, and those of unknown outcome.
    polled: Vec<u64>,
    /// Its output positions, and the operation that read or sent it there.
    outputs: BTreeMap<LogPosition, u64>,
    /// The operations that sent it as output, and their outcomes.
    sent: Vec<(u64, Type)>,
    /// The first operation that read it as output.
    read: Option<u64>,
}

/// How far one input key was processed.
#[derive(Default)]
struct Progress {
    /// How far successful operations polled, by the time they ended.
    done: Vec<(u64, i64)>,
    /// How far any operation that may have happened polled.
    possible: i64,
    /// Answers of `committed`: when the operation began and ended, and the offset.
    answers: Vec<(u64, u64, i64)>,
}

/// Judges a history incrementally.
pub struct ExactlyOnce {
    options: ExactlyOnceOptions,
    pairs: Pairs,
    effects: BTreeMap<Val, Effect>,
    progress: BTreeMap<Key, Progress>,
    /// When the last processing that may have happened ended; the far future if it never did.
    processed: Option<u64>,
}

impl ExactlyOnce {
    /// A checker with these options.
    pub fn new(options: ExactlyOnceOptions) -> Self {
        Self {
            options,
            pairs: Pairs::default(),
            effects: BTreeMap::new(),
            progress: BTreeMap::new(),
            processed: None,
        }
    }

    /// Adds the next operation.
    ///
    /// # Errors
    /// If a process does two things at once, or an answer is malformed.
    pub fn push(&mut self, operation: Operation) -> Result<(), Malformed> {
        self.pairs
            .push(operation)?
            .map_or(Ok(()), |pair| self.add(&pair, false))
    }

    fn add(&mut self, pair: &Pair, open: bool) -> Result<(), Malformed> {
        let ended = &pair.ended;
        let began = pair.invoked.as_ref().map_or(ended.index, |o| o.index);
        if let Op::Other(f, _) = &ended.op {
            if f == "committed" && ended.type_ == Type::Ok {
                self.answer(began, ended)?;
            }
            return Ok(());
        }
        let mut micro_ops = ended.op.micro_ops();
        if micro_ops.is_empty() && ended.type_ != Type::Ok {
            micro_ops = pair.invoked.as_ref().map_or(&[], |o| o.op.micro_ops());
        }
        let sends_output =
            |m: &MicroOp| matches!(m, MicroOp::Send { key, .. } if is_of(key, &self.options.outputs));
        let processes = matches!(ended.op, Op::Txn(_)) || micro_ops.iter().any(sends_output);
        for micro in micro_ops {
            match micro {
                MicroOp::Send { key, offset, value } => self.send(ended, key, *offset, value),
                MicroOp::Poll(Some(polls)) => self.poll(ended, polls, processes),
                MicroOp::Poll(None) => {}
            }
        }
        if processes && ended.type_ != Type::Fail {
            let end = if open { u64::MAX } else { ended.index };
            self.processed = self.processed.max(Some(end));
        }
        Ok(())
    }

    fn answer(&mut self, began: u64, ended: &Operation) -> Result<(), Malformed> {
        let index = ended.index;
        let call = CommittedOffsets
            .call(ended)
            .map_err(|what| Malformed { index, what })?;
        if let Some(((_, key), OffsetCall::Committed(offset))) = call {
            let progress = self.progress.entry(key.into()).or_default();
            progress.answers.push((began, index, offset.unwrap_or(0)));
        }
        Ok(())
    }

    fn send(&mut self, ended: &Operation, key: &Key, offset: Option<i64>, value: &Val) {
        let effect = self.effects.entry(value.clone()).or_default();
        if is_of(key, &self.options.inputs) {
            if let (Some(offset), true) = (offset, ended.type_ == Type::Ok) {
                effect.input.get_or_insert((key.clone(), offset));
            }
        } else if is_of(key, &self.options.outputs) {
            effect.sent.push((ended.index, ended.type_));
            if let (Some(offset), true) = (offset, ended.type_ == Type::Ok) {
                effect.outputs.entry((key.clone(), offset)).or_insert(ended.index);
            }
        }
    }

    fn poll(&mut self, ended: &Operation, polls: &Polls, processes: bool) {
        for (key, records) in polls {
            let input = is_of(key, &self.options.inputs);
            if !input && !is_of(key, &self.options.outputs) {
                continue;
            }
            for (offset, value) in records
                .iter()
                .filter(|(o, v)| *o != UNKNOWN_OFFSET && *v != Val::Null)
            {
                let effect = self.effects.entry(value.clone()).or_default();
                let at = (key.clone(), *offset);
                if !input {
                    effect.outputs.entry(at).or_insert(ended.index);
                    effect.read.get_or_insert(ended.index);
                    continue;
                }
                effect.input.get_or_insert(at);
                if processes && ended.type_ == Type::Ok {
                    effect.polled.push(ended.index);
                }
            }
            let last = records.iter().map(|(offset, _)| offset + 1).max();
            if let Some(next) = last.filter(|_| input && processes && ended.type_ != Type::Fail) {
                let progress = self.progress.entry(key.clone()).or_default();
                progress.possible = progress.possible.max(next);
                if ended.type_ == Type::Ok {
                    progress.done.push((ended.index, next));
                }
            }
        }
    }

    /// Ends the history; returns the verdict.
    ///
    /// # Errors
    /// If an unfinished operation is malformed.
    pub fn finish(mut self) -> Result<Verdict, Malformed> {
        for pair in self.pairs.unfinished() {
            self.add(&pair, true)?;
        }
        let mut verdict = Verdict::new();
        verdict.allowed = self.options.allow.clone();
        if self.effects.values().all(|e| e.polled.is_empty()) {
            verdict.gave_up = Some("no input was processed".to_owned());
        }
        let committed: BTreeMap<_, _> = self
            .progress
            .iter()
            .map(|(key, p)| (key, p.committed(self.processed)))
            .collect();
        for (value, effect) in &self.effects {
            judge(&mut verdict, value, effect, &committed);
        }
        for (key, progress) in &self.progress {
            progress.judge(&mut verdict, key, committed[key].is_final);
        }
        Ok(verdict)
    }
}

/// Bounds of a key's committed offset.
#[derive(Clone, Copy)]
struct CommittedBounds {
    /// Lower bound.
    offset: i64,
    /// Exact offset, if it is known.
    is_final: bool,
    /// The operation that shows it.
    op: Option<u64>,
}

impl Progress {
    fn committed(&self, processed: Option<u64>) -> CommittedBounds {
        let last = self.answers.iter().max();
        match last.filter(|(began, ..)| processed.is_none_or(|p| p < *began)) {
            Some((_, op, offset)) => CommittedBounds {
                offset: *offset,
                is_final: true,
                op: Some(*op),
            },
            None => {
                let most = self.done.iter().max_by_key(|(_, next)| *next);
                let (op, offset) = most.map_or((None, 0), |(op, next)| (Some(*op), *next));
                CommittedBounds {
                    offset,
                    is_final: false,
                    op,
                }
            }
        }
    }

    fn judge(&self, verdict: &mut Verdict, key: &Key, is_final: bool) {
        let (mut done, mut furthest) = (self.done.iter().peekable(), None::<(i64, u64)>);
        let mut answers = self.answers.clone();
        answers.sort_unstable();
        for (began, op, offset) in answers {
            while let Some((by, next)) = done.next_if(|(ended, _)| *ended < began) {
                furthest = furthest.max(Some((*next, *by)));
            }
            let Some((next, by)) = furthest.filter(|(next, _)| *next > offset) else {
                continue;
            };
            let data = json!({"key": key, "committed": offset, "processed": next, "ops": [by, op]});
            let text = format!(
                "operation {by} processed {key} up to {next}, and operation {op} returned {offset} as the committed offset"
            );
            verdict.add("offset-behind", [Finding::new(data, [by, op], text)]);
        }
        if let Some((_, op, offset)) = self
            .answers
            .iter()
            .max()
            .filter(|(.., o)| is_final && *o > self.possible)
        {
            let data = json!({"key": key, "committed": offset, "processed": self.possible, "op": op});
            let text = format!(
                "operation {op} returned {offset} as the committed offset of {key}; no operation processed more than {}",
                self.possible
            );
            verdict.add("offset-ahead", [Finding::new(data, [*op], text)]);
        }
    }
}

fn places(outputs: &BTreeMap<LogPosition, u64>) -> Value {
    outputs.keys().map(|(key, offset)| json!([key, offset])).collect()
}

fn judge(verdict: &mut Verdict, value: &Val, effect: &Effect, committed: &BTreeMap<&Key, CommittedBounds>) {
    let outputs = places(&effect.outputs);
    let ops = || {
        effect
            .outputs
            .values()
            .copied()
            .chain(effect.sent.iter().map(|(op, _)| *op))
    };
    if effect.polled.len() > 1 {
        let data = json!({"value": value, "input": effect.input, "ops": effect.polled});
        let text = format!("input {value} was processed by operations {:?}", effect.polled);
        verdict.add(
            "input-twice",
            [Finding::new(data, effect.polled.iter().copied(), text)],
        );
    }
    if effect.outputs.len() > 1 {
        let data = json!({"value": value, "input": effect.input, "outputs": outputs});
        let text = format!(
            "the effect of {value} is in the output {} times: {outputs}",
            effect.outputs.len()
        );
        verdict.add("effect-duplicated", [Finding::new(data, ops(), text)]);
    }
    let failed = !effect.sent.is_empty() && effect.sent.iter().all(|(_, type_)| *type_ == Type::Fail);
    if let Some(reader) = effect.read.filter(|_| failed) {
        let data = json!({"value": value, "outputs": outputs, "writer": effect.sent[0].0, "reader": reader});
        let text = format!("operation {reader} read {value} in the output, although its send failed");
        verdict.add(
            "effect-aborted",
            [Finding::new(data, ops().chain([reader]), text)],
        );
    }
    let Some((key, offset)) = &effect.input else {
        if !effect.outputs.is_empty() {
            let data = json!({"value": value, "outputs": outputs});
            let text = format!("{value} is in the output, but in no input");
            verdict.add("effect-unknown", [Finding::new(data, ops(), text)]);
        }
        return;
    };
    let Some(done) = committed.get(key) else { return };
    let data = json!({"value": value, "input": [key, offset], "committed": done.offset, "outputs": outputs});
    if *offset < done.offset && effect.outputs.is_empty() {
        let text = format!(
            "input {value} (offset {offset} of {key}) is below the committed {}, but its effect is missing",
            done.offset
        );
        let ops = effect.polled.iter().copied().chain(done.op);
        verdict.add("effect-missing", [Finding::new(data, ops, text)]);
    } else if *offset >= done.offset && done.is_final && effect.read.is_some() {
        let text = format!(
            "the effect of {value} is in the output, but its input (offset {offset} of {key}) is not below the committed {}",
            done.offset
        );
        verdict.add("effect-ahead", [Finding::new(data, ops().chain(done.op), text)]);
    }
}

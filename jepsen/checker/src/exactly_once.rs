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
//! | `effect-duplicated` | an effect is in one output (of those that the options name) more than once |
//! | `effect-missing` | the input is below the committed offset, but its effect is missing; or only a part of it is there |
//! | `effect-ahead` | the effect exists, but the input is not below the committed offset |
//! | `effect-aborted` | the effect exists, although the operation that sent it failed |
//! | `effect-unknown` | an output record that is no input's effect |
//! | `effect-reordered` | two inputs of one key have their effects in one output key in the opposite order |
//! | `offset-behind` | the committed offset is below what a completed operation polled |
//! | `offset-ahead` | the committed offset is above what any operation polled |
//!
//! One group is judged. If `committed` is answered for several, the options name the group; a transaction that sends, but
//! nothing to the outputs that the options name, is another group's.
//!
//! If no `committed` is answered after all processing, the offset is assumed to be at least what successful operations
//! polled, and `effect-ahead` and `offset-ahead` are not judged. `effect-missing` assumes that the output was read to its
//! end, as `unseen` does for any history: waive it if the output was not.

use std::collections::{BTreeMap, BTreeSet};

use brokkr_history::{Key, MicroOp, Op, Operation, Polls, Type, UNKNOWN_OFFSET, Val, names};
use serde_json::{Value, json};

use crate::linear::{CommittedOffsets, Model, OffsetCall};
use crate::pairs::{Pair, Pairs};
use crate::{Finding, Malformed, Verdict, invariant};

/// The anomalies that this checker reports.
pub const ANOMALIES: &[&str] = &[
    "input-twice",
    "effect-duplicated",
    "effect-missing",
    "effect-ahead",
    "effect-aborted",
    "effect-unknown",
    "effect-reordered",
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
    /// The group whose committed offsets count; `None` if there is only one.
    pub group: Option<String>,
    /// Anomalies that do not make a history invalid.
    pub allow: BTreeSet<&'static str>,
}

impl Default for ExactlyOnceOptions {
    fn default() -> Self {
        Self {
            inputs: vec!["in".to_owned()],
            outputs: vec!["out".to_owned()],
            group: None,
            allow: BTreeSet::new(),
        }
    }
}

fn is_of(key: &Key, names: &[String]) -> bool {
    name_of(key, names).is_some()
}

/// The key or topic of these names to which a key belongs, by its number.
fn name_of(key: &Key, names: &[String]) -> Option<usize> {
    let number = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    let topic = key
        .as_str()
        .rsplit_once('-')
        .filter(|(_, n)| number(n))
        .map(|(topic, _)| topic);
    names
        .iter()
        .position(|n| n == key.as_str() || Some(n.as_str()) == topic)
}

/// The names of the operations that this judge judges.
const JUDGED: &[&str] = &[names::SEND, names::POLL, names::TXN, names::COMMITTED];

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
    /// The operations that sent it as output, their outcomes, and to where.
    sent: Vec<(u64, Type, Key)>,
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
    /// The groups whose committed offsets were answered.
    groups: BTreeSet<String>,
    /// When the last processing that may have happened ended; the far future if it never did.
    processed: Option<u64>,
}

impl ExactlyOnce {
    /// A checker with these options.
    pub fn new(options: ExactlyOnceOptions) -> Self {
        Self {
            options,
            pairs: Pairs::of(JUDGED),
            effects: BTreeMap::new(),
            progress: BTreeMap::new(),
            groups: BTreeSet::new(),
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
            if f == names::COMMITTED && ended.type_ == Type::Ok {
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
        let sends = micro_ops.iter().any(|m| matches!(m, MicroOp::Send { .. }));
        let is_txn = matches!(ended.op, Op::Txn(_));
        let processes = (is_txn && !sends) || micro_ops.iter().any(sends_output);
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
        if let Some(((group, key), OffsetCall::Committed(offset))) = call {
            if !is_of(&key.as_str().into(), &self.options.inputs)
                || self.options.group.as_ref().is_some_and(|g| *g != group)
            {
                return Ok(());
            }
            self.groups.insert(group);
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
            effect.sent.push((ended.index, ended.type_, key.clone()));
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
            let last = records.iter().map(|(offset, _)| offset.saturating_add(1)).max();
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
        let named = ANOMALIES.iter();
        verdict.invariants = named.filter_map(|name| Some((*name, invariant(name)?))).collect();
        self.count(&mut verdict);
        if self.groups.len() > 1 {
            let groups: Vec<_> = std::mem::take(&mut self.groups).into_iter().collect();
            verdict.give_up(format!(
                "offsets of several groups were fetched ({}): name one",
                groups.join(", ")
            ));
            return Ok(verdict);
        }
        let committed: BTreeMap<_, _> = self
            .progress
            .iter()
            .map(|(key, p)| (key, p.committed(self.processed)))
            .collect();
        for (value, effect) in &self.effects {
            judge(&mut verdict, value, effect, &committed, &self.options.outputs);
        }
        for (key, progress) in &self.progress {
            progress.judge(&mut verdict, key, committed[key].is_final);
        }
        verdict.add("effect-reordered", self.reordered());
        Ok(verdict)
    }

    /// Counts what there was to judge, and gives up where that is nothing.
    fn count(&self, verdict: &mut Verdict) {
        let count = |is: fn(&&Effect) -> bool| self.effects.values().filter(is).count() as u64;
        let (inputs, processed) = (count(|e| e.input.is_some()), count(|e| !e.polled.is_empty()));
        verdict.counted.insert("inputs", inputs);
        verdict.counted.insert("processed", processed);
        verdict
            .counted
            .insert("effects", count(|e| !e.outputs.is_empty()));
        self.pairs.report(verdict);
        verdict.notes.insert(
            "unprocessed",
            json!(count(|e| e.input.is_some() && e.polled.is_empty())),
        );
        if processed == 0 {
            verdict.give_up("no input was processed");
        }
    }

    /// Effects whose order in an output key is not that of their inputs in an input key.
    fn reordered(&self) -> Vec<Finding> {
        /// Offsets of an input and its effect, the value, and the operation that shows the effect.
        type Step<'a> = (i64, i64, &'a Val, u64);
        let mut by_keys: BTreeMap<(&Key, &Key), Vec<Step<'_>>> = BTreeMap::new();
        for (value, effect) in &self.effects {
            let (Some((from, at)), 1) = (&effect.input, effect.outputs.len()) else {
                continue;
            };
            for ((to, offset), op) in &effect.outputs {
                by_keys
                    .entry((from, to))
                    .or_default()
                    .push((*at, *offset, value, *op));
            }
        }
        let mut findings = Vec::new();
        for ((from, to), mut all) in by_keys {
            all.sort_unstable();
            for pair in all.windows(2).filter(|pair| pair[0].1 >= pair[1].1) {
                let [(_, first, a, first_op), (_, second, b, second_op)] = [pair[0], pair[1]];
                let data = json!({
                    "input": from, "output": to, "values": [a, b], "offsets": [first, second],
                });
                let text = format!(
                    "{a} is before {b} in {from}, and its effect after that of {b} in {to} ({first}, {second})"
                );
                findings.push(Finding::new(data, [first_op, second_op], text));
            }
        }
        findings
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

/// The most often that an effect is in one output, and an output to which an operation sent it that has effects elsewhere,
/// although it is missing there.
fn spread(effect: &Effect, names: &[String]) -> (usize, Option<(u64, Key)>) {
    let mut times = vec![0; names.len()];
    for name in effect.outputs.keys().filter_map(|(key, _)| name_of(key, names)) {
        times[name] += 1;
    }
    // With several senders it is not known whose effect is there.
    let senders: BTreeSet<u64> = effect.sent.iter().map(|(op, ..)| *op).collect();
    let is_torn = |to: &Key| name_of(to, names).is_some_and(|name| times[name] == 0);
    let sent = effect
        .sent
        .iter()
        .filter(|_| senders.len() == 1 && !effect.outputs.is_empty());
    let missing = sent.filter(|(_, type_, to)| *type_ != Type::Fail && is_torn(to));
    let missing = missing.map(|(op, _, to)| (*op, to.clone())).next();
    (times.into_iter().max().unwrap_or(0), missing)
}

fn judge(
    verdict: &mut Verdict,
    value: &Val,
    effect: &Effect,
    committed: &BTreeMap<&Key, CommittedBounds>,
    names: &[String],
) {
    let outputs = places(&effect.outputs);
    let ops = || {
        effect
            .outputs
            .values()
            .copied()
            .chain(effect.sent.iter().map(|(op, ..)| *op))
    };
    if effect.polled.len() > 1 {
        let data = json!({"value": value, "input": effect.input, "ops": effect.polled});
        let text = format!("input {value} was processed by operations {:?}", effect.polled);
        verdict.add(
            "input-twice",
            [Finding::new(data, effect.polled.iter().copied(), text)],
        );
    }
    let (times, torn) = spread(effect, names);
    if let Some((sender, to)) = torn {
        let data = json!({"value": value, "input": effect.input, "outputs": outputs, "missing_in": to});
        let text =
            format!("operation {sender} sent the effect of {value} to {to} too, and it is only in {outputs}");
        verdict.add("effect-missing", [Finding::new(data, ops(), text)]);
    }
    if times > 1 {
        let data = json!({"value": value, "input": effect.input, "outputs": outputs});
        let text = format!("the effect of {value} is in the output {times} times: {outputs}");
        verdict.add("effect-duplicated", [Finding::new(data, ops(), text)]);
    }
    let failed = !effect.sent.is_empty() && effect.sent.iter().all(|(_, type_, _)| *type_ == Type::Fail);
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

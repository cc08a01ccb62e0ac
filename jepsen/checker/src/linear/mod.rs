//! Linearizability: is there an order of all operations, each somewhere between its call and its return, in which a sequential object
//! gives the very answers that were seen?
//!
//! The search is that of Wing and Gong with Lowe's memory of what was tried (Porcupine's algorithm): take any operation whose call
//! precedes every return that is still due, see whether the object may answer so, go on, and step back where nothing fits. Three
//! things keep it near linear where histories are near sequential:
//! - objects are judged one by one (`Model::object`): a history is linearizable if and only if each object's part is;
//! - what was tried is remembered as (how many operations from the start are all done, a window of bits after them, state), so that
//!   memory grows with how much runs at once and not with the length of the history;
//! - an operation whose outcome nobody knows may take effect at any later time or never. These are what makes searches long: they
//!   are tried last, equal ones in order, and never where fewer of them did not help.
//!
//! The search counts its steps and gives up after a number of them; no clock is asked.

mod models;
mod search;

use std::fmt::Debug;
use std::hash::Hash;

use brokkr_history::{Operation, Type};
use serde_json::json;

pub use models::{Answer, CommittedOffsets, OffsetCall, RegisterCall, Registers, Topic, TopicCall, Topics};
use search::{Call, Outcome};

use crate::pairs::{Pair, Pairs};
use crate::table::Table;
use crate::{Finding, Malformed, Verdict};

/// Which object an operation is of, and what it asks; none if it is nothing to the model.
pub type Asked<M> = Option<(<M as Model>::Object, <M as Model>::Call)>;

/// A sequential object, of which there may be many.
pub trait Model {
    /// What names an object.
    type Object: Clone + Eq + Ord + Hash + Debug;
    /// What an object holds.
    type State: Clone + Eq + Hash + Debug;
    /// What is asked of an object, and what it answered if that is known.
    type Call: Clone + Eq + Hash + Debug;

    /// How its operations are named in messages.
    const NAME: &'static str;

    /// Reads an operation; none if it is nothing to this model. `ended` of an operation whose outcome is unknown is its invocation.
    ///
    /// # Errors
    /// What is wrong with it.
    fn call(&self, ended: &Operation) -> Result<Asked<Self>, String>;

    /// What an object holds at first.
    fn initial(&self, object: &Self::Object) -> Self::State;

    /// What an object holds after the call, if it may answer so; of a call with `answer_known` false any answer will do.
    fn step(&self, state: &Self::State, call: &Self::Call, answer_known: bool) -> Option<Self::State>;

    /// Whether the call never changes anything.
    fn is_read(&self, call: &Self::Call) -> bool;
}

/// How far to search.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// How many steps one object's search may take; each that leads on is remembered, in some hundred bytes.
    pub steps_max: u64,
}

impl Default for Limits {
    fn default() -> Self {
        let steps_max = 10_000_000;
        Self { steps_max }
    }
}

/// The one anomaly that this checker reports.
pub const ANOMALIES: &[&str] = &["nonlinearizable"];

/// Judges a history as it streams by.
pub struct Linear<M: Model> {
    model: M,
    limits: Limits,
    pairs: Pairs,
    objects: Table<M::Object>,
    calls: Vec<Vec<Call<M::Call>>>,
}

impl<M: Model> Linear<M> {
    /// A judge by this model.
    pub fn new(model: M, limits: Limits) -> Self {
        Self {
            model,
            limits,
            pairs: Pairs::default(),
            objects: Table::default(),
            calls: Vec::new(),
        }
    }

    /// Takes the next operation.
    ///
    /// # Errors
    /// If it is none that this model knows under this name, or a process does two things at once.
    pub fn push(&mut self, operation: Operation) -> Result<(), Malformed> {
        self.pairs.push(operation)?.map_or(Ok(()), |pair| self.add(&pair))
    }

    fn add(&mut self, pair: &Pair) -> Result<(), Malformed> {
        let ended = &pair.ended;
        if ended.type_ == Type::Fail {
            // It did not happen; nothing is to be explained.
            return Ok(());
        }
        let answer_known = ended.type_ == Type::Ok;
        let telling = pair.invoked.as_ref().filter(|_| !answer_known).unwrap_or(ended);
        let index = telling.index;
        let call = self
            .model
            .call(telling)
            .map_err(|what| Malformed { index, what })?;
        let Some((object, call)) = call else { return Ok(()) };
        if !answer_known && self.model.is_read(&call) {
            return Ok(());
        }
        let (object, new) = self.objects.number(object);
        if new {
            self.calls.push(Vec::new());
        }
        self.calls[object as usize].push(Call {
            call,
            began: pair.invoked.as_ref().map_or(ended.index, |o| o.index),
            ended: answer_known.then_some(ended.index),
        });
        Ok(())
    }

    /// There are no more operations; the verdict.
    ///
    /// # Errors
    /// If what never ended is none that this model knows.
    pub fn finish(mut self) -> Result<Verdict, Malformed> {
        for pair in self.pairs.unfinished() {
            self.add(&pair)?;
        }
        let mut verdict = Verdict::new();
        let mut objects: Vec<_> = self.objects.things().iter().cloned().zip(self.calls).collect();
        objects.sort_by(|a, b| a.0.cmp(&b.0));
        for (object, calls) in objects {
            match search::search(&self.model, &object, calls, self.limits) {
                Outcome::Linearizable => {}
                Outcome::GaveUp { steps } => {
                    let what = format!(
                        "{} {object:?}: no order in {steps} steps, and not all were tried",
                        M::NAME
                    );
                    verdict.gave_up.get_or_insert(what);
                }
                Outcome::Not(stuck) => verdict.add("nonlinearizable", [stuck.finding::<M>(&object)]),
            }
        }
        Ok(verdict)
    }
}

impl<C: Debug, S: Debug> search::Stuck<C, S> {
    fn finding<M: Model>(self, object: &M::Object) -> Finding {
        let last = self.order.last().copied();
        let op = self.due.0;
        let text = format!(
            "{} {object:?}: after {} operations{} it holds {:?}; then no order explains operation {op}, {:?}",
            M::NAME,
            self.len,
            last.map(|l| format!(", the last of them {l},"))
                .unwrap_or_default(),
            self.state,
            self.due.1,
        );
        let data = json!({
            "object": format!("{object:?}"), "op": op, "state": format!("{:?}", self.state),
            "order": self.order, "running": self.running,
        });
        let ops = self.order.iter().copied().chain(self.running).chain([op]);
        Finding::new(data, ops, text)
    }
}

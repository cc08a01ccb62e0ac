//! Linearizability: is there an order of all operations, each at some point between its call and its return, in which a
//! sequential object gives exactly the observed answers?
//!
//! The search is that of Wing and Gong with Lowe's cache of configurations (as in Porcupine): take any operation whose call
//! precedes every return that is still due, check whether the object may answer so, continue, and backtrack where nothing
//! fits. Three measures keep it nearly linear for histories that are nearly sequential:
//! - objects are judged one by one (`Model::object`): a history is linearizable if and only if each object's part is;
//! - a configuration is stored as (number of operations from the start that are all linearized, a window of bits after them,
//!   state), so memory grows with concurrency and not with the length of the history;
//! - an operation of unknown outcome may take effect at any later time or never. Such operations make searches long: they are
//!   tried last, equal ones in order, and never where fewer of them did not help.
//!
//! The search counts its steps and the bytes that it stores, and gives up after a maximum; it uses no clock.

mod model;
mod models;
mod search;

use std::fmt::Debug;

use brokkr_history::{Operation, Type};
use serde_json::json;

pub use model::{Model, ObjectCall};
pub use models::{Answer, CommittedOffsets, OffsetCall, RegisterCall, Registers, Topic, TopicCall, Topics};
pub use search::Limits;
use search::{Call, Outcome};

use crate::pairs::{Pair, Pairs};
use crate::table::Interner;
use crate::{Finding, Malformed, Verdict};

/// The only anomaly of this checker.
pub const ANOMALIES: &[&str] = &["nonlinearizable"];

/// Judges a history incrementally.
pub struct Linear<M: Model> {
    model: M,
    limits: Limits,
    pairs: Pairs,
    objects: Interner<M::Object>,
    calls: Vec<Vec<Call<M::Call>>>,
}

impl<M: Model> Linear<M> {
    /// A checker for this model.
    pub fn new(model: M, limits: Limits) -> Self {
        Self {
            model,
            limits,
            pairs: Pairs::of(M::NAMES),
            objects: Interner::default(),
            calls: Vec::new(),
        }
    }

    /// Adds the next operation.
    ///
    /// # Errors
    /// If it is malformed for this model, or a process does two things at once.
    pub fn push(&mut self, operation: Operation) -> Result<(), Malformed> {
        self.pairs.push(operation)?.map_or(Ok(()), |pair| self.add(&pair))
    }

    fn add(&mut self, pair: &Pair) -> Result<(), Malformed> {
        let ended = &pair.ended;
        if ended.type_ == Type::Fail {
            // It did not happen, so it needs no explanation.
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

    /// Ends the history; returns the verdict.
    ///
    /// # Errors
    /// If an unfinished operation is malformed for this model.
    pub fn finish(mut self) -> Result<Verdict, Malformed> {
        for pair in self.pairs.unfinished() {
            self.add(&pair)?;
        }
        let mut verdict = Verdict::new();
        verdict
            .invariants
            .extend(M::INVARIANT.map(|id| ("nonlinearizable", id)));
        let calls = self.calls.iter().map(Vec::len).sum::<usize>() as u64;
        verdict.counted.insert("objects", self.calls.len() as u64);
        verdict.counted.insert("calls", calls);
        self.pairs.report(&mut verdict);
        if calls == 0 {
            verdict.give_up(format!("no operation was of a {}", M::NAME));
        }
        let mut objects: Vec<_> = self.objects.items().iter().cloned().zip(self.calls).collect();
        objects.sort_by(|a, b| a.0.cmp(&b.0));
        for (object, calls) in objects {
            match search::search(&self.model, &object, calls, self.limits) {
                Outcome::Linearizable => {}
                Outcome::GaveUp { steps, bytes } => {
                    let what = format!(
                        "{} {object:?}: no order in {steps} steps and {bytes} bytes, and not all were tried",
                        M::NAME
                    );
                    verdict.give_up(what);
                }
                Outcome::Not(stuck) => verdict.add("nonlinearizable", [stuck.finding::<M>(&object)]),
            }
        }
        Ok(verdict)
    }
}

impl<C: Debug, S: Debug> search::DeadEnd<C, S> {
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

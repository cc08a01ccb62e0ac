//! Matches completions with invocations, and counts them.

use std::collections::BTreeMap;

use brokkr_history::{NEMESIS, Operation, Process, Type, names};
use serde_json::{Map, Value, json};

use crate::{Malformed, Verdict};

/// An invocation with its completion.
pub(crate) struct Pair {
    /// The invocation, if it was recorded.
    pub(crate) invoked: Option<Operation>,
    /// The completion. For an unfinished operation [`Pairs::unfinished`] sets the invocation, as `info`.
    pub(crate) ended: Operation,
}

/// How many operations of a name ended how.
#[derive(Clone, Copy, Default, Debug)]
struct Outcomes {
    ok: u64,
    fail: u64,
    info: u64,
    unfinished: u64,
}

/// Matches the operations of a history incrementally.
pub(crate) struct Pairs {
    /// The names of the operations that the judge judges.
    judged: &'static [&'static str],
    running: BTreeMap<Process, Operation>,
    outcomes: BTreeMap<String, Outcomes>,
    /// Number of completions without an invocation.
    uninvoked: u64,
}

impl Pairs {
    /// For a judge of operations of these names (see [`brokkr_history::names`]).
    pub(crate) fn of(judged: &'static [&'static str]) -> Self {
        Self {
            judged,
            running: BTreeMap::new(),
            outcomes: BTreeMap::new(),
            uninvoked: 0,
        }
    }

    /// Adds the next operation; a completion returns a pair. Operations of the nemesis are ignored.
    pub(crate) fn push(&mut self, operation: Operation) -> Result<Option<Pair>, Malformed> {
        if operation.process == NEMESIS {
            return Ok(None);
        }
        let index = operation.index;
        if operation.type_ == Type::Invoke {
            let process = operation.process;
            return match self.running.insert(process, operation) {
                None => Ok(None),
                Some(before) => {
                    let what = format!("process {process} has not ended operation {} yet", before.index);
                    Err(Malformed { index, what })
                }
            };
        }
        let invoked = self.running.remove(&operation.process);
        if let Some(invoked) = &invoked
            && !names::is_same(invoked.op.f(), operation.op.f())
        {
            let (at, began, ended) = (invoked.index, invoked.op.f(), operation.op.f());
            let what = format!("a {ended:?} ends operation {at}, which is a {began:?}");
            return Err(Malformed { index, what });
        }
        self.uninvoked += u64::from(invoked.is_none());
        let outcomes = self.outcomes_of(operation.op.f());
        match operation.type_ {
            Type::Ok => outcomes.ok += 1,
            Type::Fail => outcomes.fail += 1,
            Type::Invoke | Type::Info => outcomes.info += 1,
        }
        let ended = operation;
        Ok(Some(Pair { invoked, ended }))
    }

    fn outcomes_of(&mut self, f: &str) -> &mut Outcomes {
        let f = names::canonical(f);
        if !self.outcomes.contains_key(&*f) {
            self.outcomes.insert(f.clone().into_owned(), Outcomes::default());
        }
        self.outcomes.get_mut(&*f).expect("inserted above")
    }

    /// The operations that never ended, of unknown outcome, by index.
    pub(crate) fn unfinished(&mut self) -> Vec<Pair> {
        let mut left: Vec<_> = std::mem::take(&mut self.running).into_values().collect();
        left.sort_by_key(|o| o.index);
        for o in &left {
            self.outcomes_of(o.op.f()).unfinished += 1;
        }
        let pair = |o: Operation| {
            let invoked = Some(o.clone());
            let ended = Operation {
                type_: Type::Info,
                ..o
            };
            Pair { invoked, ended }
        };
        left.into_iter().map(pair).collect()
    }

    /// The first of these names that occurs in the history without ever succeeding.
    pub(crate) fn never_succeeded(&self, names: &[&'static str]) -> Option<&'static str> {
        let never = |f: &&&'static str| self.outcomes.get(**f).is_some_and(|o| o.ok == 0);
        names.iter().find(never).copied()
    }

    /// Notes how many operations ended how (`stats`), which names no rule of this judge is about (`not_judged`), and the
    /// number of completions without an invocation (`uninvoked`), which have no order in real time.
    pub(crate) fn report(&self, verdict: &mut Verdict) {
        let (mut stats, mut not_judged) = (Map::new(), Map::new());
        for (f, n) in &self.outcomes {
            let all = n.ok + n.fail + n.info + n.unfinished;
            if self.judged.contains(&f.as_str()) {
                let of = json!({"ok": n.ok, "fail": n.fail, "info": n.info, "unfinished": n.unfinished});
                stats.insert(f.clone(), of);
            } else {
                not_judged.insert(f.clone(), json!(all));
            }
        }
        verdict.notes.insert("stats", Value::Object(stats));
        if !not_judged.is_empty() {
            verdict.notes.insert("not_judged", Value::Object(not_judged));
        }
        if self.uninvoked > 0 {
            verdict.notes.insert("uninvoked", json!(self.uninvoked));
        }
    }
}

//! Matches completions with invocations.

use std::collections::BTreeMap;

use brokkr_history::{NEMESIS, Operation, Process, Type};

use crate::Malformed;

/// An invocation with its completion.
pub(crate) struct Pair {
    /// The invocation, if it was recorded.
    pub(crate) invoked: Option<Operation>,
    /// The completion. For an unfinished operation [`Pairs::unfinished`] sets the invocation, as `info`.
    pub(crate) ended: Operation,
}

/// Matches the operations of a history incrementally.
#[derive(Default)]
pub(crate) struct Pairs {
    running: BTreeMap<Process, Operation>,
}

impl Pairs {
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
            && invoked.op.f() != operation.op.f()
        {
            let (at, began, ended) = (invoked.index, invoked.op.f(), operation.op.f());
            let what = format!("a {ended:?} ends operation {at}, which is a {began:?}");
            return Err(Malformed { index, what });
        }
        let ended = operation;
        Ok(Some(Pair { invoked, ended }))
    }

    /// The operations that never ended, of unknown outcome, by index.
    pub(crate) fn unfinished(&mut self) -> Vec<Pair> {
        let mut left: Vec<_> = std::mem::take(&mut self.running).into_values().collect();
        left.sort_by_key(|o| o.index);
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
}

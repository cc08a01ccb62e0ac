//! Collects a history from many clients.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

use crate::{Key, Op, Operation, Process, Seek, Type};

#[derive(Default)]
struct State {
    operations: Vec<Operation>,
    /// The processes that are doing something.
    busy: BTreeSet<Process>,
}

/// Collects a history. Clones share it. The caller passes times of one clock.
#[derive(Clone, Default)]
pub struct Recorder {
    state: Arc<Mutex<State>>,
}

impl Recorder {
    /// An empty history.
    pub fn new() -> Self {
        Self::default()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic under this lock")
    }

    /// A process begins an operation.
    ///
    /// # Panics
    /// If it is already doing something.
    pub fn invoke(&self, time: i64, process: Process, op: Op) {
        let mut state = self.lock();
        let idle = state.busy.insert(process);
        assert!(idle, "process {process} does one thing at a time");
        push(&mut state, time, Type::Invoke, process, op);
    }

    /// A process ends its operation.
    ///
    /// # Panics
    /// If it was doing nothing, or `type_` is [`Type::Invoke`].
    pub fn complete(&self, time: i64, process: Process, type_: Type, op: Op) {
        self.complete_with(time, process, type_, op, |_| {});
    }

    /// A process ends its operation; `finish` sets the optional fields, such as digests, before anyone sees it.
    ///
    /// # Panics
    /// If it was doing nothing, or `type_` is [`Type::Invoke`].
    pub fn complete_with(
        &self,
        time: i64,
        process: Process,
        type_: Type,
        op: Op,
        finish: impl FnOnce(&mut Operation),
    ) {
        assert_ne!(type_, Type::Invoke, "a completion is not an invocation");
        let mut state = self.lock();
        let busy = state.busy.remove(&process);
        assert!(busy, "process {process} was doing nothing");
        finish(push(&mut state, time, type_, process, op));
    }

    /// A process ends its assignment, and reads on at these places in the partitions that it sought.
    ///
    /// # Panics
    /// If it was doing nothing.
    pub fn assigned(&self, time: i64, process: Process, keys: Vec<Key>, seeks: BTreeMap<Key, Seek>) {
        self.complete_with(time, process, Type::Ok, Op::Assign(keys), |o| o.seeks = seeks);
    }

    /// A process ends its assignment, and reads all its partitions from the beginning, including those it had before.
    ///
    /// # Panics
    /// If it was doing nothing.
    pub fn assigned_from_beginning(&self, time: i64, process: Process, keys: Vec<Key>) {
        self.complete_with(time, process, Type::Ok, Op::Assign(keys), |o| {
            o.seek_to_beginning = true;
        });
    }

    /// Number of operations.
    pub fn len(&self) -> usize {
        self.lock().operations.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The history so far. Unfinished operations have no completion, which is equivalent to `info`.
    pub fn history(&self) -> Vec<Operation> {
        self.lock().operations.clone()
    }

    /// Calls `at` with the history so far, which is locked meanwhile.
    pub fn look<T>(&self, at: impl FnOnce(&[Operation]) -> T) -> T {
        at(&self.lock().operations)
    }

    /// Takes the history, which is empty afterwards.
    pub fn take(&self) -> Vec<Operation> {
        std::mem::take(&mut *self.lock()).operations
    }
}

fn push(state: &mut State, time: i64, type_: Type, process: Process, op: Op) -> &mut Operation {
    let index = state.operations.len() as u64;
    state
        .operations
        .push_mut(Operation::new(index, time, type_, process, op))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indexes_are_dense_and_shared() {
        let (a, b) = (Recorder::new(), Recorder::new());
        let c = a.clone();
        a.invoke(1, 0, Op::Assign(Vec::new()));
        c.invoke(2, 1, Op::Assign(Vec::new()));
        a.complete(3, 0, Type::Ok, Op::Assign(Vec::new()));
        let seen: Vec<_> = c.history().iter().map(|o| (o.index, o.process)).collect();
        assert_eq!(seen, [(0, 0), (1, 1), (2, 0)]);
        assert!(b.is_empty());
        a.invoke(4, 0, Op::Assign(Vec::new()));
        a.assigned_from_beginning(5, 0, Vec::new());
        assert!(
            c.take()
                .iter()
                .rev()
                .map(|o| o.seek_to_beginning)
                .eq([true, false, false, false, false])
        );
    }

    #[test]
    #[should_panic(expected = "one thing at a time")]
    fn a_process_does_one_thing_at_a_time() {
        let r = Recorder::new();
        r.invoke(1, 0, Op::Assign(Vec::new()));
        r.invoke(2, 0, Op::Assign(Vec::new()));
    }
}

//! Records a history from many clients, in memory or as it happens to a file.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::sync::{Arc, Mutex, MutexGuard};

use serde_json::Value;

use crate::{Key, NEMESIS, Op, Operation, Process, Seek, Type, Writer};

#[derive(Default)]
struct State {
    /// The history, unless it is written to `stream`.
    operations: Vec<Operation>,
    stream: Option<Stream>,
    /// Number of operations.
    len: u64,
    /// The processes that are doing something.
    busy: BTreeSet<Process>,
}

/// The destination of a history that is written as it happens.
struct Stream {
    writer: Writer<Box<dyn Write + Send>>,
    /// The first error. Nothing is written after it, so that only the last line can be torn.
    failed: Option<io::Error>,
    is_broken: bool,
}

impl Stream {
    fn write(&mut self, operation: &Operation) {
        if self.is_broken {
            return;
        }
        let written = self.writer.write(operation);
        if let Err(error) = written.and_then(|()| self.writer.flush()) {
            self.is_broken = true;
            self.failed = Some(error);
        }
    }
}

impl State {
    fn push(&mut self, operation: Operation) {
        self.len += 1;
        match &mut self.stream {
            Some(stream) => stream.write(&operation),
            None => self.operations.push(operation),
        }
    }
}

/// Records a history. Clones share it. The caller passes times of one clock.
#[derive(Clone, Default)]
pub struct Recorder {
    state: Arc<Mutex<State>>,
}

impl Recorder {
    /// An empty history, kept in memory.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty history that is written to `to` as JSON lines, an operation before the call that records it returns. If `to`
    /// is a file, a process that is killed afterwards has lost no operation: they are in the operating system's cache. A
    /// power failure may lose them, since nothing is synced.
    ///
    /// Nothing is kept in memory: [`Self::history`], [`Self::look`] and [`Self::take`] have no operations. `to` should not be
    /// buffered; each operation is one write. After an error of `to` nothing more is written, see [`Self::has_failed`].
    pub fn streaming(to: impl Write + Send + 'static) -> Self {
        let stream = Stream {
            writer: Writer::new(Box::new(to)),
            failed: None,
            is_broken: false,
        };
        let state = State {
            stream: Some(stream),
            ..State::default()
        };
        Self {
            state: Arc::new(Mutex::new(state)),
        }
    }

    /// Whether the history could not be written.
    pub fn has_failed(&self) -> bool {
        self.lock().stream.as_ref().is_some_and(|s| s.is_broken)
    }

    /// Takes the error because of which the history could not be written.
    pub fn take_error(&self) -> Option<io::Error> {
        self.lock().stream.as_mut()?.failed.take()
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
        let operation = Operation::new(state.len, time, Type::Invoke, process, op);
        state.push(operation);
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
        let mut operation = Operation::new(state.len, time, type_, process, op);
        finish(&mut operation);
        state.push(operation);
    }

    /// The nemesis injected a fault, or ended one. Its operations are [`Type::Info`] and have no invocation.
    pub fn nemesis(&self, time: i64, f: &str, value: Value) {
        let mut state = self.lock();
        let op = Op::Other(f.to_owned(), value);
        let operation = Operation::new(state.len, time, Type::Info, NEMESIS, op);
        state.push(operation);
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
        usize::try_from(self.lock().len).unwrap_or(usize::MAX)
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
        let mut state = self.lock();
        let stream = state.stream.take();
        let taken = std::mem::take(&mut *state).operations;
        state.stream = stream;
        taken
    }
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

    /// A writer that others can look into, and that fails after some bytes.
    #[derive(Clone, Default)]
    struct Disk {
        bytes: Arc<Mutex<Vec<u8>>>,
        room: Option<usize>,
    }

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let mut written = self.bytes.lock().expect("no panic under this lock");
            let room = self.room.unwrap_or(usize::MAX) - written.len();
            if room == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            let n = bytes.len().min(room);
            written.extend_from_slice(&bytes[..n]);
            Ok(n)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// The operations that are on the disk, and whether the last is torn.
    fn on(disk: &Disk) -> (Vec<Operation>, bool) {
        let bytes = disk.bytes.lock().expect("no panic under this lock").clone();
        let mut reader = crate::Reader::new(bytes.as_slice());
        let read: Result<Vec<_>, _> = reader.by_ref().collect();
        (read.expect("it is a history"), reader.torn().is_some())
    }

    #[test]
    fn each_operation_is_written_before_the_call_returns() {
        let disk = Disk::default();
        let r = Recorder::streaming(disk.clone());
        r.invoke(1, 0, Op::Assign(vec!["x".into()]));
        assert_eq!(on(&disk).0.len(), 1);
        r.assigned(2, 0, vec!["x".into()], [("x".into(), Seek::Beginning)].into());
        r.nemesis(3, "kill", serde_json::json!({"signal": 9}));
        let (history, torn) = on(&disk);
        assert!(!torn && !r.has_failed() && r.history().is_empty());
        assert_eq!((history.len(), r.len()), (3, 3));
        assert_eq!((history[1].seeks.len(), history[2].process), (1, NEMESIS));
    }

    #[test]
    fn nothing_follows_a_line_that_could_not_be_written() {
        let disk = Disk {
            room: Some(200),
            ..Disk::default()
        };
        let r = Recorder::streaming(disk.clone());
        for process in 0..5 {
            r.invoke(1, process, Op::Assign(vec!["x".into()]));
        }
        let (history, torn) = on(&disk);
        assert_eq!((history.len(), torn, r.has_failed()), (2, true, true));
        let error = r.take_error().map(|e| e.kind());
        assert_eq!(error, Some(io::ErrorKind::StorageFull));
        assert!(r.take_error().is_none() && r.has_failed());
    }
}

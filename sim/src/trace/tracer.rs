//! Numbers events and names their actor.

use std::borrow::Cow;
use std::io;

use super::event::{Event, EventKind};
use super::frames::Frames;
use super::sink::Sink;
use crate::life::{Life, Nanos};

/// The actor of the present events.
#[derive(Clone, Copy)]
struct Context {
    life: Life,
    task: Option<(u64, &'static str)>,
    by: u64,
}

/// Returns what clients have recorded since the last call.
type Probe = Box<dyn FnMut() -> Vec<EventKind> + std::marker::Send>;

/// Numbers events and passes them to the sink.
pub struct Tracer {
    sink: Box<dyn Sink>,
    probe: Option<Probe>,
    /// Reassembles frames from the bytes that are sent.
    pub frames: Frames,
    n: u64,
    /// The time of the next events.
    pub(super) now: Nanos,
    context: Context,
    failed: Option<io::Error>,
}

impl Tracer {
    /// A tracer that writes to `sink`.
    pub fn new(sink: Box<dyn Sink>) -> Self {
        Self {
            sink,
            probe: None,
            frames: Frames::default(),
            n: 0,
            now: 0,
            context: OUTSIDE,
            failed: None,
        }
    }

    /// Sets the probe: it is called after each task's run, and returns what clients have recorded.
    pub(crate) fn set_probe(&mut self, probe: impl FnMut() -> Vec<EventKind> + std::marker::Send + 'static) {
        self.probe = Some(Box::new(probe));
    }

    /// A task's run or a timer begins: it is the cause of all events until [`Tracer::pause`]. Returns the event's number.
    pub(crate) fn begin(
        &mut self,
        now: Nanos,
        life: Life,
        task: Option<(u64, &'static str)>,
        by: u64,
    ) -> u64 {
        self.now = now;
        self.context = Context { life, task, by };
        self.context.by = self.record(if task.is_some() {
            EventKind::Run
        } else {
            EventKind::Timer
        });
        self.context.by
    }

    /// The task's run or the timer ends.
    pub(crate) fn pause(&mut self) {
        if self.context.task.is_some()
            && let Some(mut probe) = self.probe.take()
        {
            for what in probe() {
                self.record(what);
            }
            self.probe = Some(probe);
        }
        self.context = OUTSIDE;
    }

    /// Records an event. Returns its number.
    pub fn record(&mut self, what: EventKind) -> u64 {
        self.n += 1;
        let c = self.context;
        let event = Event {
            n: self.n,
            t: self.now,
            node: c.life.node,
            life: c.life.incarnation,
            task: c.task.map(|(_, name)| Cow::Borrowed(name)),
            id: c.task.map(|(id, _)| id),
            by: (c.by > 0).then_some(c.by),
            what,
        };
        if self.failed.is_none() {
            self.failed = self.sink.event(&event).err();
        }
        self.n
    }

    /// Ends the trace. Returns the first error of the sink.
    pub fn end(&mut self) -> io::Result<()> {
        match self.failed.take() {
            Some(error) => Err(error),
            None => self.sink.end(),
        }
    }
}

/// The actor outside of any task.
const OUTSIDE: Context = Context {
    life: Life {
        node: 0,
        incarnation: 0,
    },
    task: None,
    by: 0,
};

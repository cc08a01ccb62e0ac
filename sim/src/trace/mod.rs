//! The trace of a run, event by event: complete in a repeated run; disabled in campaigns, where each trace point costs one load.
//!
//! ```text
//!   {"n":812,"t":1002340100,"node":1,"life":0,"task":"partition","id":14,"by":809,"e":"run"}
//!   {"n":813,"t":1002340100,"node":1,"life":0,"task":"partition","id":14,"by":812,"e":"write","file":"data/t0-0/…
//! ```
//! `n` numbers events, `t` is the world's time in nanoseconds (it begins at one second), `node` and `life` identify the actor, and
//! `task` with its `id` the task, if it was not a device. `by` is the cause, an earlier event: for a task's run, what woke it; for
//! a timer or an arrival, what scheduled it; for everything else, the run of the task that did it.
//!
//! Sinks: JSON lines, Perfetto's trace events ([`perfetto`]), and a text without the scheduler's events ([`text`]). Tracing changes
//! nothing in the world: a traced run has the same hash.

pub mod diff;
mod frames;
mod images;
pub mod perfetto;
mod tap;
pub mod text;

use std::borrow::Cow;
use std::io::{self, Write};

use brokkr_history::Operation;
use brokkr_wire::records::batches;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

pub use frames::{Frames, conn_of};
pub use images::Images;
pub use tap::Tap;

use crate::exec::{Life, Nanos};

/// Size limit when a compressed batch is decompressed to read its values.
const DECOMPRESSED_BYTES_MAX: usize = 64 << 20;

/// One event.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Event {
    /// Its number, from 1.
    pub n: u64,
    /// When, in nanoseconds of the world.
    pub t: Nanos,
    /// The node.
    pub node: u32,
    /// The node's life.
    pub life: u32,
    /// The task; none for a timer or a device.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task: Option<Cow<'static, str>>,
    /// The task's id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<u64>,
    /// The event that caused it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<u64>,
    /// What happened.
    #[serde(flatten)]
    pub what: EventKind,
}

/// A batch of records, as observed in bytes that were written or sent.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ObservedBatch {
    /// Its first offset; in a request, the producer's own count.
    pub base: i64,
    /// Its last offset.
    pub last: i64,
    /// The producer id, or -1.
    pub producer: i64,
    /// The producer epoch, or -1.
    pub epoch: i16,
    /// Its first record's sequence, or -1.
    pub sequence: i32,
    /// The workload's values in it.
    pub values: Vec<i64>,
}

/// A partition's part of a Produce or Fetch response.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Answer {
    /// The partition's number.
    pub partition: i32,
    /// Kafka's name of the error, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Produce: the offset of the first record.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base: Option<i64>,
    /// Fetch: the high watermark.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub high_watermark: Option<i64>,
    /// Fetch: the batches.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub batches: Vec<ObservedBatch>,
}

/// What happened.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(tag = "e", rename_all = "snake_case")]
#[expect(
    missing_docs,
    reason = "fields are what they are called; lengths in bytes, times in nanoseconds"
)]
pub enum EventKind {
    /// A task was spawned.
    Spawn { spawned: u64, name: Cow<'static, str> },
    /// A task runs up to its next wait.
    Run,
    /// A task completed.
    End,
    /// A task panicked.
    Panic { message: String },
    /// A timer of a node fires, or a device completes an operation.
    Timer,
    /// A fault of the plan is due.
    Fault { fault: serde_json::Value },
    /// All faults end here.
    Calm,
    /// A broker is started.
    Start { of: u32 },
    /// It serves, or the start failed.
    Started { of: u32, how: String },
    /// A broker is stopped cleanly.
    Stop { of: u32 },
    /// A broker's process ended by itself.
    Ended { of: u32 },
    /// kill -9.
    Kill { of: u32 },
    /// A node loses power.
    PowerLoss { of: u32 },
    /// SIGSTOP.
    Pause { of: u32 },
    /// SIGCONT.
    Resume { of: u32 },
    /// A file was opened; `made`, if it was not there before.
    Open { file: String, made: bool, len: u64 },
    /// Another change of names: `op` is rename, remove, create_dir, remove_dir.
    Name {
        op: Cow<'static, str>,
        file: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        to: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        error: Option<String>,
    },
    /// A write is under way.
    Write {
        write: u64,
        file: String,
        at: u64,
        len: u64,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        batches: Vec<ObservedBatch>,
    },
    /// The write is in the page cache, or it failed.
    Wrote {
        write: u64,
        file: String,
        at: u64,
        len: u64,
        #[serde(skip_serializing_if = "Option::is_none")]
        error: Option<String>,
    },
    /// The process died before the write was in the page cache.
    WriteDropped { write: u64 },
    /// A read. `resident`: from memory, at once.
    Read {
        file: String,
        at: u64,
        len: u64,
        resident: bool,
    },
    /// A sync begins: it covers earlier writes in the first `len` bytes of a file, or the names in a directory.
    Sync {
        file: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        len: Option<u64>,
    },
    /// A sync ended. `begun` is the event of its begin.
    Synced {
        file: String,
        begun: u64,
        #[serde(skip_serializing_if = "Option::is_none")]
        error: Option<String>,
    },
    /// A file was truncated.
    Truncate { file: String, to: u64 },
    /// A power loss changed these bytes.
    Lost {
        file: String,
        at: u64,
        len: u64,
        how: Cow<'static, str>,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        batches: Vec<ObservedBatch>,
    },
    /// A node connects.
    Connect { to: u32, port: u16 },
    /// The connection is in the listener's backlog, or was refused.
    Connected {
        #[serde(skip_serializing_if = "Option::is_none")]
        conn: Option<u64>,
        to: u32,
    },
    /// A listener accepted a connection.
    Accept { conn: u64 },
    /// Bytes leave.
    Send {
        conn: u64,
        to: u32,
        len: u64,
        arrives: Nanos,
    },
    /// A request is complete with the last bytes sent.
    Request {
        conn: u64,
        to: u32,
        api: Cow<'static, str>,
        version: i16,
        correlation: i32,
        len: u64,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        batches: Vec<ObservedBatch>,
    },
    /// A response is complete with the last bytes sent.
    Response {
        conn: u64,
        to: u32,
        api: Cow<'static, str>,
        correlation: i32,
        len: u64,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        answers: Vec<Answer>,
    },
    /// Bytes arrived at the node.
    Arrive { conn: u64, len: u64 },
    /// A reader received bytes.
    Receive { conn: u64, len: u64 },
    /// The end of a stream arrived.
    Eof { conn: u64 },
    /// A node's connection was reset.
    Reset { conn: u64 },
    /// A client began an operation, or learned its outcome.
    Op {
        process: u64,
        #[serde(rename = "type")]
        type_: String,
        f: String,
        value: serde_json::Value,
    },
    /// The broker's code reached a rare state.
    Reached { name: String },
    /// A line of a node's log.
    Log {
        level: Cow<'static, str>,
        target: String,
        text: String,
    },
    /// An invariant does not hold.
    Violation { invariant: String, what: String },
}

impl EventKind {
    /// A line of a history.
    pub(crate) fn of_operation(o: &Operation) -> Self {
        let mut line = serde_json::to_value(o).expect("an operation can be written");
        Self::Op {
            process: o.process,
            type_: format!("{:?}", o.type_).to_lowercase(),
            f: o.op.f().to_owned(),
            value: line["value"].take(),
        }
    }

    /// Whether it concerns the scheduler or single pieces of a stream: left out of the text format.
    pub fn is_fine_grained(&self) -> bool {
        use EventKind::{Arrive, End, Read, Receive, Run, Send, Spawn, Timer};
        matches!(
            self,
            Spawn { .. } | Run | End | Timer | Read { .. } | Send { .. } | Arrive { .. } | Receive { .. }
        )
    }
}

/// A destination of events.
pub trait Sink: std::marker::Send {
    /// Writes the next event.
    fn event(&mut self, event: &Event) -> io::Result<()>;
    /// Completes the output.
    fn end(&mut self) -> io::Result<()>;
}

/// Lines of JSON.
pub struct JsonLines<W>(pub W);

impl<W: Write + std::marker::Send> Sink for JsonLines<W> {
    fn event(&mut self, event: &Event) -> io::Result<()> {
        serde_json::to_writer(&mut self.0, event)?;
        self.0.write_all(b"\n")
    }

    fn end(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

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
    now: Nanos,
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

/// The complete batches in a piece of a log, up to the first bytes that are not one.
pub fn batches_in(bytes: Bytes) -> Vec<ObservedBatch> {
    batches(bytes)
        .map_while(Result::ok)
        .map(|batch| {
            let h = &batch.header;
            let records = batch.records(DECOMPRESSED_BYTES_MAX);
            let values = records.iter().flat_map(|all| all.iter());
            ObservedBatch {
                base: h.base_offset.0,
                last: h.last_offset().0,
                producer: h.producer_id.0,
                epoch: h.producer_epoch.0,
                sequence: h.base_sequence.0,
                values: values.filter_map(|r| value_in(r.ok()?.value?)).collect(),
            }
        })
        .collect()
}

/// The value that a workload wrote: its digits, padded with dots.
fn value_in(bytes: &[u8]) -> Option<i64> {
    let end = bytes.iter().position(|b| *b == b'.').unwrap_or(bytes.len());
    std::str::from_utf8(&bytes[..end]).ok()?.parse().ok()
}

#[cfg(test)]
mod tests;

//! What happened in a run, event by event: complete in a repeat, off in campaigns, where it costs a load at each place.
//!
//! ```text
//!   {"n":812,"t":1002340100,"node":1,"life":0,"task":"partition","id":14,"by":809,"e":"run"}
//!   {"n":813,"t":1002340100,"node":1,"life":0,"task":"partition","id":14,"by":812,"e":"write","file":"data/t0-0/…
//! ```
//! `n` numbers events, `t` is the world's time in nanoseconds (it begins at one second), `node` and `life` say who, and `task` with its `id`
//! which of its tasks, if it was one and not a device. `by` is the cause, an event before it: of a task that runs, what woke it; of a
//! timer or an arrival, what set it going; of anything else, the run of the task that did it.
//!
//! Sinks: lines of JSON, Perfetto's trace events ([`perfetto`]), and a text without the scheduler's part ([`text`]). Tracing changes
//! nothing in the world: a traced run has the hash of the run.

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

/// What a compressed batch may become when its values are looked at.
const DECOMPRESSED_BYTES_MAX: usize = 64 << 20;

/// One event.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Event {
    /// Its number, from 1.
    pub n: u64,
    /// When, in nanoseconds of the world.
    pub t: Nanos,
    /// Where.
    pub node: u32,
    /// In which of the node's lives.
    pub life: u32,
    /// By which task; none, if it was a timer or a device.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task: Option<Cow<'static, str>>,
    /// The task's number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<u64>,
    /// The event that is its cause.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<u64>,
    /// What.
    #[serde(flatten)]
    pub what: What,
}

/// A batch of records, as it was seen in bytes that were written or sent.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct BatchSeen {
    /// Its first offset; in a request the producer's own count.
    pub base: i64,
    /// Its last offset.
    pub last: i64,
    /// Whose it is, or -1.
    pub producer: i64,
    /// In which epoch, or -1.
    pub epoch: i16,
    /// Its first record's sequence, or -1.
    pub sequence: i32,
    /// What a workload sent in it.
    pub values: Vec<i64>,
}

/// A partition's part of a response to a Produce or a Fetch.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Answer {
    /// The partition's number.
    pub partition: i32,
    /// Kafka's name of the error, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// To a Produce: the first record's offset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base: Option<i64>,
    /// To a Fetch: how far consumers may read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub high_watermark: Option<i64>,
    /// To a Fetch: what was read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub batches: Vec<BatchSeen>,
}

/// What happened.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(tag = "e", rename_all = "snake_case")]
#[expect(
    missing_docs,
    reason = "fields are what they are called; lengths in bytes, times in nanoseconds"
)]
pub enum What {
    /// A task was made.
    Spawn { spawned: u64, name: Cow<'static, str> },
    /// A task runs up to its next wait.
    Run,
    /// It came to its end.
    End,
    /// It panicked.
    Panic { message: String },
    /// A timer of a node fires, or a device is done with something.
    Timer,
    /// A fault of the plan is due.
    Fault { fault: serde_json::Value },
    /// From here on nothing befalls anybody.
    Calm,
    /// A broker is started.
    Start { of: u32 },
    /// It serves, or it failed.
    Started { of: u32, how: String },
    /// It is told to stop.
    Stop { of: u32 },
    /// Its process ended by itself.
    Ended { of: u32 },
    /// kill -9.
    Kill { of: u32 },
    /// The power of a node goes.
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
        batches: Vec<BatchSeen>,
    },
    /// It is in the page cache, or it failed.
    Wrote {
        write: u64,
        file: String,
        at: u64,
        len: u64,
        #[serde(skip_serializing_if = "Option::is_none")]
        error: Option<String>,
    },
    /// Its process died before it was there.
    WriteDropped { write: u64 },
    /// A read. `resident`: from memory, at once.
    Read {
        file: String,
        at: u64,
        len: u64,
        resident: bool,
    },
    /// A sync begins: it covers what was written before, in the first `len` bytes of a file; or the names in a directory.
    Sync {
        file: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        len: Option<u64>,
    },
    /// It ended. `begun` is the event of its begin.
    Synced {
        file: String,
        begun: u64,
        #[serde(skip_serializing_if = "Option::is_none")]
        error: Option<String>,
    },
    /// A file was cut.
    Truncate { file: String, to: u64 },
    /// A power loss changed what stood there.
    Lost {
        file: String,
        at: u64,
        len: u64,
        how: Cow<'static, str>,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        batches: Vec<BatchSeen>,
    },
    /// A connection is asked for.
    Connect { to: u32, port: u16 },
    /// It was put before the listener, or nobody listens.
    Connected {
        #[serde(skip_serializing_if = "Option::is_none")]
        conn: Option<u64>,
        to: u32,
    },
    /// A listener took it.
    Accept { conn: u64 },
    /// Bytes leave.
    Send {
        conn: u64,
        to: u32,
        len: u64,
        arrives: Nanos,
    },
    /// A whole request left with the last bytes sent.
    Request {
        conn: u64,
        to: u32,
        api: Cow<'static, str>,
        version: i16,
        correlation: i32,
        len: u64,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        batches: Vec<BatchSeen>,
    },
    /// A whole response left.
    Response {
        conn: u64,
        to: u32,
        api: Cow<'static, str>,
        correlation: i32,
        len: u64,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        answers: Vec<Answer>,
    },
    /// Bytes reached the node.
    Arrive { conn: u64, len: u64 },
    /// Bytes were read by who waits for them.
    Receive { conn: u64, len: u64 },
    /// Nothing more will be sent.
    Eof { conn: u64 },
    /// A node's connection was reset.
    Reset { conn: u64 },
    /// A client began something, or learned how it ended.
    Op {
        process: u64,
        #[serde(rename = "type")]
        type_: String,
        f: String,
        value: serde_json::Value,
    },
    /// The broker's code told that it came by a rare state.
    Reached { name: String },
    /// A line of somebody's log.
    Log {
        level: Cow<'static, str>,
        target: String,
        text: String,
    },
    /// Something does not hold.
    Violation { invariant: String, what: String },
}

impl What {
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

    /// Whether it is of the scheduler, or of single pieces of a stream: left out of what people read.
    pub fn is_fine(&self) -> bool {
        use What::{Arrive, End, Read, Receive, Run, Send, Spawn, Timer};
        matches!(
            self,
            Spawn { .. } | Run | End | Timer | Read { .. } | Send { .. } | Arrive { .. } | Receive { .. }
        )
    }
}

/// Where events go.
pub trait Sink: std::marker::Send {
    /// The next event.
    fn event(&mut self, event: &Event) -> io::Result<()>;
    /// There are no more.
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

/// Who does what happens now.
#[derive(Clone, Copy)]
struct Context {
    life: Life,
    task: Option<(u64, &'static str)>,
    by: u64,
}

/// What clients have noted since it was last asked.
type Probe = Box<dyn FnMut() -> Vec<What> + std::marker::Send>;

/// Numbers events and hands them on.
pub struct Tracer {
    sink: Box<dyn Sink>,
    probe: Option<Probe>,
    /// Follows what is sent.
    pub frames: Frames,
    n: u64,
    now: Nanos,
    context: Context,
    failed: Option<io::Error>,
}

impl Tracer {
    /// Hands events to `sink`.
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

    /// After each task's run `probe` is asked what clients have noted.
    pub(crate) fn ask(&mut self, probe: impl FnMut() -> Vec<What> + std::marker::Send + 'static) {
        self.probe = Some(Box::new(probe));
    }

    /// A task runs from here on, or a timer fires: what is told until [`Tracer::pause`] is its doing. Gives the event's number.
    pub(crate) fn begin(
        &mut self,
        now: Nanos,
        life: Life,
        task: Option<(u64, &'static str)>,
        by: u64,
    ) -> u64 {
        self.now = now;
        self.context = Context { life, task, by };
        self.context.by = self.tell(if task.is_some() { What::Run } else { What::Timer });
        self.context.by
    }

    /// The task waits again, or the timer is through.
    pub(crate) fn pause(&mut self) {
        if self.context.task.is_some()
            && let Some(mut probe) = self.probe.take()
        {
            for what in probe() {
                self.tell(what);
            }
            self.probe = Some(probe);
        }
        self.context = OUTSIDE;
    }

    /// Something happens. Gives its number.
    pub fn tell(&mut self, what: What) -> u64 {
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

    /// There is no more. The first error of the sink, if it had one.
    pub fn end(&mut self) -> io::Result<()> {
        match self.failed.take() {
            Some(error) => Err(error),
            None => self.sink.end(),
        }
    }
}

/// Nobody in particular.
const OUTSIDE: Context = Context {
    life: Life {
        node: 0,
        incarnation: 0,
    },
    task: None,
    by: 0,
};

/// The whole batches in a piece of a log, up to the first thing that is none.
pub fn batches_in(bytes: Bytes) -> Vec<BatchSeen> {
    batches(bytes)
        .map_while(Result::ok)
        .map(|batch| {
            let h = &batch.header;
            let records = batch.records(DECOMPRESSED_BYTES_MAX);
            let values = records.iter().flat_map(|all| all.iter());
            BatchSeen {
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

/// The value that a workload wrote: its digits, and dots behind them.
fn value_in(bytes: &[u8]) -> Option<i64> {
    let end = bytes.iter().position(|b| *b == b'.').unwrap_or(bytes.len());
    std::str::from_utf8(&bytes[..end]).ok()?.parse().ok()
}

#[cfg(test)]
mod tests;

//! What a trace consists of.

use std::borrow::Cow;

use brokkr_history::Operation;
use serde::{Deserialize, Serialize};

use crate::life::Nanos;

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
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Answer {
    /// The topic's name, if a response named it before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topic: Option<String>,
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
    /// Fetch: the last stable offset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_stable_offset: Option<i64>,
    /// The log's start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_start: Option<i64>,
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
        /// CRC-32 of the bytes.
        crc: u32,
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
        /// CRC-32 of the bytes.
        crc: u32,
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

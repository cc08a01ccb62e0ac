//! Histories: what clients did and which responses they got, as JSON lines or EDN.
//!
//! A history records invocations and completions, and does not judge them: that is the checker's task. One operation a line,
//! in order:
//!
//! ```text
//! {"index":0,"time":1000,"type":"invoke","process":0,"f":"send","value":[["send","t-0",7]]}
//! {"index":1,"time":2000,"type":"ok","process":0,"f":"send","value":[["send","t-0",[12,7]]]}
//! {"index":2,"time":2500,"type":"invoke","process":1,"f":"poll","value":[["poll"]]}
//! {"index":3,"time":2600,"type":"ok","process":1,"f":"poll","value":[["poll",{"t-0":[[12,7]]}]]}
//! ```
//! `index` is dense, `time` is in nanoseconds of one clock. Each process does one thing at a time: an `invoke`, then one of
//! `ok` (it happened), `fail` (it did not happen), `info` (the outcome is unknown; the process does nothing more under its
//! number). `f` is `send`, `poll` or `txn` with micro-operations, `assign` or `subscribe` with a list of keys, or another
//! name with any value. A key names a partition; it may be a JSON integer or string, and is compared as a string. Values are
//! unique per key.
//!
//! The encoding is that of Jepsen's Kafka workload (jepsen-io/jepsen, `tests/kafka.clj`), in JSON or in Jepsen's own EDN:
//!
//! ```text
//! {:index 1, :time 2000, :type :ok, :process 0, :f :send, :value [[:send "t-0" [12 7]]]}
//! ```
//! Also: `"rebalance-log": [{"keys": […]}]` names keys that were moved during an operation, and process `"nemesis"` injects
//! faults. Beyond Jepsen's format, and optional:
//!
//! ```text
//! ["send", key, [offset, value], "ok"]         a send's own outcome: "ok", "fail" or "info", where those of an operation differ
//! [offset, value, digest]                      of a send (there offset may be null) or a polled record: see `digest`
//! {"tombstone": 17}                            a value: a record without a value; its number is in its key or a header
//! "seek": {key: offset, "beginning" or "end"}  of an `assign`: where the process reads on
//! "seek-to-beginning?": true                   of an `assign`: a seek of all its keys to the beginning
//! ```
//! [`names`] lists the operations that judges know; `jepsen/history/schema.json` is the JSON notation as a JSON schema.

mod details;
mod micro;
pub mod names;
mod read;
mod recorder;
mod stage;
mod write;

pub use details::{Content, Details, Digest, digest};
pub use micro::{Key, MicroOp, Polls, UNKNOWN_OFFSET, Val};
pub use read::{Place, ReadError, Reader, Syntax};
pub use recorder::Recorder;
pub use stage::Type;
pub use write::Writer;

use std::collections::BTreeMap;

use micro::DetailedOps;
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

/// A process, which does one thing at a time.
pub type Process = u64;

/// The process that injects faults; it is not a client, and may do several things at once.
pub const NEMESIS: Process = Process::MAX;

/// What an operation does.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Op {
    /// Only sends.
    Send(Vec<MicroOp>),
    /// Only polls.
    Poll(Vec<MicroOp>),
    /// Both, in a transaction.
    Txn(Vec<MicroOp>),
    /// The process reads these partitions from now on.
    Assign(Vec<Key>),
    /// The process is a group's member with these topics from now on.
    Subscribe(Vec<Key>),
    /// Anything else, by its name.
    Other(String, serde_json::Value),
}

impl Op {
    /// Its name.
    pub fn f(&self) -> &str {
        match self {
            Self::Send(_) => names::SEND,
            Self::Poll(_) => names::POLL,
            Self::Txn(_) => names::TXN,
            Self::Assign(_) => names::ASSIGN,
            Self::Subscribe(_) => names::SUBSCRIBE,
            Self::Other(f, _) => f,
        }
    }

    /// Its micro-operations, if it is of those.
    pub fn micro_ops(&self) -> &[MicroOp] {
        match self {
            Self::Send(m) | Self::Poll(m) | Self::Txn(m) => m,
            _ => &[],
        }
    }
}

/// Where a process reads on after a seek.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Seek {
    /// At the first record that is still there.
    Beginning,
    /// After the last record.
    End,
    /// At the first record of this offset or a higher one.
    Offset(i64),
}

impl Serialize for Seek {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Beginning => s.serialize_str("beginning"),
            Self::End => s.serialize_str("end"),
            Self::Offset(offset) => s.serialize_i64(*offset),
        }
    }
}

/// One line of a history.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Operation {
    /// Its place in the history.
    pub index: u64,
    /// The time in nanoseconds.
    pub time: i64,
    /// Whether it begins or how it ended.
    pub type_: Type,
    /// The process.
    pub process: Process,
    /// The operation.
    pub op: Op,
    /// Keys whose partitions were moved away, or back, while it ran: the order within it proves nothing about them.
    pub rebalanced: Vec<Key>,
    /// Of an `assign`: the process reads its partitions from the beginning, whatever its position was.
    pub seek_to_beginning: bool,
    /// Of an `assign`: where the process reads on, for each partition that it sought.
    pub seeks: BTreeMap<Key, Seek>,
    /// Outcomes of single sends, and digests of records.
    pub details: Details,
}

impl Operation {
    /// An operation without the optional fields.
    pub fn new(index: u64, time: i64, type_: Type, process: Process, op: Op) -> Self {
        Self {
            index,
            time,
            type_,
            process,
            op,
            rebalanced: Vec::new(),
            seek_to_beginning: false,
            seeks: BTreeMap::new(),
            details: Details::default(),
        }
    }
}

#[derive(Serialize)]
struct Rebalance<'a> {
    keys: &'a [Key],
}

impl Serialize for Operation {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let mut map = s.serialize_map(None)?;
        map.serialize_entry("index", &self.index)?;
        map.serialize_entry("time", &self.time)?;
        map.serialize_entry("type", &self.type_)?;
        match self.process {
            NEMESIS => map.serialize_entry("process", "nemesis")?,
            process => map.serialize_entry("process", &process)?,
        }
        map.serialize_entry("f", self.op.f())?;
        match &self.op {
            Op::Send(m) | Op::Poll(m) | Op::Txn(m) => {
                let details = &self.details;
                map.serialize_entry("value", &DetailedOps { ops: m, details })?;
            }
            Op::Assign(keys) | Op::Subscribe(keys) => map.serialize_entry("value", keys)?,
            Op::Other(_, value) => map.serialize_entry("value", value)?,
        }
        if !self.rebalanced.is_empty() {
            let keys = &self.rebalanced;
            map.serialize_entry("rebalance-log", &[Rebalance { keys }])?;
        }
        if self.seek_to_beginning {
            map.serialize_entry("seek-to-beginning?", &true)?;
        }
        if !self.seeks.is_empty() {
            map.serialize_entry("seek", &self.seeks)?;
        }
        map.end()
    }
}

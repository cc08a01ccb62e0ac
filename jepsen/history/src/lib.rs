//! What clients did and what came of it: operations, as JSON lines.
//!
//! A history says what was invoked and what came back, never what should have come back: that is the checker's. One operation
//! a line, in order:
//!
//! ```text
//! {"index":0,"time":1000,"type":"invoke","process":0,"f":"send","value":[["send","t-0",7]]}
//! {"index":1,"time":2000,"type":"ok","process":0,"f":"send","value":[["send","t-0",[12,7]]]}
//! {"index":2,"time":2500,"type":"invoke","process":1,"f":"poll","value":[["poll"]]}
//! {"index":3,"time":2600,"type":"ok","process":1,"f":"poll","value":[["poll",{"t-0":[[12,7]]}]]}
//! ```
//! `index` is dense, `time` in nanoseconds of one clock. Each process does one thing at a time; it is `invoke` first, then
//! one of `ok` (it happened), `fail` (it did not), `info` (nobody knows; the process does nothing more under its number).
//! `f` is `send`, `poll` or `txn` with micro-operations, `assign` or `subscribe` with a list of keys, or something else with
//! any value. A key names a partition; JSON's integers and strings both do, and compare as strings. Values are unique per key.
//!
//! The encoding is that of Jepsen's Kafka workload (jepsen-io/jepsen, `tests/kafka.clj`), in JSON.

mod micro;
mod recorder;
mod stream;

pub use micro::{Key, MicroOp, Polls, Val};
pub use recorder::Recorder;
pub use stream::{ReadError, Reader, Writer};

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Who does one thing at a time.
pub type Process = u64;

/// Whether an operation begins or how it ended.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Type {
    /// It begins.
    Invoke,
    /// It happened.
    Ok,
    /// It did not happen.
    Fail,
    /// Nobody knows whether it happened.
    Info,
}

/// What an operation does, and to what.
#[derive(Clone, PartialEq, Eq, Debug)]
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
            Self::Send(_) => "send",
            Self::Poll(_) => "poll",
            Self::Txn(_) => "txn",
            Self::Assign(_) => "assign",
            Self::Subscribe(_) => "subscribe",
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

/// One line of a history.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Operation {
    /// Its place in the history.
    pub index: u64,
    /// Nanoseconds.
    pub time: i64,
    /// Whether it begins or how it ended.
    pub type_: Type,
    /// Who does it.
    pub process: Process,
    /// What.
    pub op: Op,
}

#[derive(Serialize)]
struct Line<'a, V> {
    index: u64,
    time: i64,
    r#type: Type,
    process: Process,
    f: &'a str,
    value: V,
}

impl Serialize for Operation {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        fn line<'a, V>(o: &'a Operation, value: V) -> Line<'a, V> {
            Line {
                index: o.index,
                time: o.time,
                r#type: o.type_,
                process: o.process,
                f: o.op.f(),
                value,
            }
        }
        match &self.op {
            Op::Send(m) | Op::Poll(m) | Op::Txn(m) => line(self, m).serialize(s),
            Op::Assign(keys) | Op::Subscribe(keys) => line(self, keys).serialize(s),
            Op::Other(_, value) => line(self, value).serialize(s),
        }
    }
}

#[derive(Deserialize)]
struct RawLine {
    index: u64,
    #[serde(default)]
    time: i64,
    r#type: Type,
    process: Process,
    f: String,
    #[serde(default)]
    value: serde_json::Value,
}

impl<'de> Deserialize<'de> for Operation {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let raw = RawLine::deserialize(d)?;
        let micro = |v| serde_json::from_value::<Vec<MicroOp>>(v);
        let keys = |v| serde_json::from_value::<Vec<Key>>(v);
        let op = match raw.f.as_str() {
            "send" => micro(raw.value).map(Op::Send),
            "poll" => micro(raw.value).map(Op::Poll),
            "txn" => micro(raw.value).map(Op::Txn),
            "assign" => keys(raw.value).map(Op::Assign),
            "subscribe" => keys(raw.value).map(Op::Subscribe),
            _ => Ok(Op::Other(raw.f, raw.value)),
        };
        Ok(Self {
            index: raw.index,
            time: raw.time,
            type_: raw.r#type,
            process: raw.process,
            op: op.map_err(D::Error::custom)?,
        })
    }
}

//! Sends and polls, the parts of an operation.

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::de::{Error, MapAccess, Visitor};
use serde::ser::{SerializeMap, SerializeSeq};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{Details, Digest, names};

/// The name of a partition. Cheap to clone; an integer is converted to its decimal text.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Arc<str>);

impl Key {
    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Key {
    fn from(s: &str) -> Self {
        Self(s.into())
    }
}

impl From<String> for Key {
    fn from(s: String) -> Self {
        Self(s.into())
    }
}

impl Borrow<str> for Key {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

impl Serialize for Key {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        match Val::deserialize(d)? {
            Val::Text(text) => Ok(Self(text)),
            Val::Int(n) => Ok(n.to_string().into()),
            Val::Null | Val::Tombstone(_) => Err(D::Error::custom("a key is a text or an integer")),
        }
    }
}

/// The name of the number of a [`Val::Tombstone`].
pub(crate) const TOMBSTONE: &str = "tombstone";

/// The value of a record.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Val {
    /// Unknown, or none.
    Null,
    /// A number.
    Int(i64),
    /// A text.
    Text(Arc<str>),
    /// A record without a value, which deletes its key where a log is compacted. Its number is in its key or a header.
    Tombstone(i64),
}

impl From<i64> for Val {
    fn from(n: i64) -> Self {
        Self::Int(n)
    }
}

impl From<&str> for Val {
    fn from(s: &str) -> Self {
        Self::Text(s.into())
    }
}

impl fmt::Display for Val {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Int(n) => n.fmt(f),
            Self::Text(s) => s.fmt(f),
            Self::Tombstone(n) => write!(f, "tombstone {n}"),
        }
    }
}

impl Serialize for Val {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => s.serialize_unit(),
            Self::Int(n) => s.serialize_i64(*n),
            Self::Text(text) => s.serialize_str(text),
            Self::Tombstone(n) => {
                let mut map = s.serialize_map(Some(1))?;
                map.serialize_entry(TOMBSTONE, n)?;
                map.end()
            }
        }
    }
}

impl<'de> Deserialize<'de> for Val {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct ValVisitor;
        impl<'de> Visitor<'de> for ValVisitor {
            type Value = Val;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an integer, a text, a tombstone or null")
            }
            fn visit_i64<X: Error>(self, n: i64) -> Result<Val, X> {
                Ok(Val::Int(n))
            }
            fn visit_u64<X: Error>(self, n: u64) -> Result<Val, X> {
                i64::try_from(n).map(Val::Int).map_err(X::custom)
            }
            fn visit_str<X: Error>(self, s: &str) -> Result<Val, X> {
                Ok(Val::from(s))
            }
            fn visit_unit<X: Error>(self) -> Result<Val, X> {
                Ok(Val::Null)
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Val, A::Error> {
                match (map.next_entry::<String, i64>()?, map.next_key::<String>()?) {
                    (Some((name, n)), None) if name == TOMBSTONE => Ok(Val::Tombstone(n)),
                    _ => Err(A::Error::custom("a value of a map is {\"tombstone\": number}")),
                }
            }
        }
        d.deserialize_any(ValVisitor)
    }
}

/// Stands for an offset that a poll did not return; JSON and EDN have null there.
pub const UNKNOWN_OFFSET: i64 = -1;

/// The records of a poll: for each partition offsets and values, in the order in which they arrived.
pub type Polls = BTreeMap<Key, Vec<(i64, Val)>>;

/// A part of an operation.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum MicroOp {
    /// `["send", key, value]`, or once it is acknowledged `["send", key, [offset, value]]`. [`Details`] may hold its own outcome
    /// and its digest.
    Send {
        /// The partition.
        key: Key,
        /// The record's offset, if it was returned.
        offset: Option<i64>,
        /// The value.
        value: Val,
    },
    /// `["poll"]`, or with its result `["poll", {key: [[offset, value], …]}]`.
    Poll(Option<Polls>),
}

impl Serialize for MicroOp {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let details = &Details::default();
        DetailedOp {
            op: self,
            micro: 0,
            details,
        }
        .serialize(s)
    }
}

/// An operation's micro-operations with their details.
pub(crate) struct DetailedOps<'a> {
    pub(crate) ops: &'a [MicroOp],
    pub(crate) details: &'a Details,
}

impl Serialize for DetailedOps<'_> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let details = self.details;
        let ops = self.ops.iter().enumerate();
        s.collect_seq(ops.map(|(micro, op)| DetailedOp { op, micro, details }))
    }
}

struct DetailedOp<'a> {
    op: &'a MicroOp,
    micro: usize,
    details: &'a Details,
}

impl Serialize for DetailedOp<'_> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        match self.op {
            MicroOp::Send { key, offset, value } => {
                let outcome = self.details.outcome(self.micro);
                let digest = self.details.digest(self.micro, 0);
                let mut seq = s.serialize_seq(Some(3 + usize::from(outcome.is_some())))?;
                seq.serialize_element(names::SEND)?;
                seq.serialize_element(key)?;
                match (offset, digest) {
                    (None, None) => seq.serialize_element(value)?,
                    (_, None) => seq.serialize_element(&(offset, value))?,
                    (_, Some(digest)) => seq.serialize_element(&(offset, value, digest))?,
                }
                if let Some(outcome) = outcome {
                    seq.serialize_element(&outcome)?;
                }
                seq.end()
            }
            MicroOp::Poll(polls) => {
                let mut seq = s.serialize_seq(Some(1 + usize::from(polls.is_some())))?;
                seq.serialize_element(names::POLL)?;
                if let Some(polls) = polls {
                    let (micro, details) = (self.micro, self.details);
                    seq.serialize_element(&PollResult {
                        polls,
                        micro,
                        details,
                    })?;
                }
                seq.end()
            }
        }
    }
}

/// [`Polls`] with null for [`UNKNOWN_OFFSET`], and with digests.
struct PollResult<'a> {
    polls: &'a Polls,
    micro: usize,
    details: &'a Details,
}

impl Serialize for PollResult<'_> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let mut map = s.serialize_map(Some(self.polls.len()))?;
        let mut first = 0;
        for (key, records) in self.polls {
            let of = self;
            map.serialize_entry(key, &Records { of, first, records })?;
            first += records.len();
        }
        map.end()
    }
}

/// The records of a key; `first` counts the records of the keys before.
struct Records<'a> {
    of: &'a PollResult<'a>,
    first: usize,
    records: &'a [(i64, Val)],
}

impl Serialize for Records<'_> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let PollResult { micro, details, .. } = self.of;
        s.collect_seq(
            self.records
                .iter()
                .enumerate()
                .map(|(i, (offset, value))| Record {
                    offset: (*offset != UNKNOWN_OFFSET).then_some(*offset),
                    value,
                    digest: details.digest(*micro, self.first + i),
                }),
        )
    }
}

struct Record<'a> {
    offset: Option<i64>,
    value: &'a Val,
    digest: Option<Digest>,
}

impl Serialize for Record<'_> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        match self.digest {
            Some(digest) => (self.offset, self.value, digest).serialize(s),
            None => (self.offset, self.value).serialize(s),
        }
    }
}

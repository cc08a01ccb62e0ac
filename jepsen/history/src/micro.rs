//! Sends and polls, the parts of an operation.

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::de::{Error, Visitor};
use serde::ser::{SerializeMap, SerializeSeq};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

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
            Val::Null => Err(D::Error::custom("a key is not null")),
        }
    }
}

/// The value of a record.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Val {
    /// Unknown, or none.
    Null,
    /// A number.
    Int(i64),
    /// A text.
    Text(Arc<str>),
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
        }
    }
}

impl Serialize for Val {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => s.serialize_unit(),
            Self::Int(n) => s.serialize_i64(*n),
            Self::Text(text) => s.serialize_str(text),
        }
    }
}

impl<'de> Deserialize<'de> for Val {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct ValVisitor;
        impl Visitor<'_> for ValVisitor {
            type Value = Val;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an integer, a text or null")
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
    /// `["send", key, value]`, or once it is acknowledged `["send", key, [offset, value]]`.
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
        match self {
            Self::Send { key, offset, value } => {
                let mut seq = s.serialize_seq(Some(3))?;
                seq.serialize_element("send")?;
                seq.serialize_element(key)?;
                match offset {
                    Some(offset) => seq.serialize_element(&(offset, value))?,
                    None => seq.serialize_element(value)?,
                }
                seq.end()
            }
            Self::Poll(polls) => {
                let mut seq = s.serialize_seq(Some(1 + usize::from(polls.is_some())))?;
                seq.serialize_element("poll")?;
                if let Some(polls) = polls {
                    seq.serialize_element(&PollResult(polls))?;
                }
                seq.end()
            }
        }
    }
}

/// [`Polls`] with null for [`UNKNOWN_OFFSET`].
struct PollResult<'a>(&'a Polls);

impl Serialize for PollResult<'_> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let mut map = s.serialize_map(Some(self.0.len()))?;
        for (key, records) in self.0 {
            map.serialize_entry(key, &Records(records))?;
        }
        map.end()
    }
}

struct Records<'a>(&'a [(i64, Val)]);

impl Serialize for Records<'_> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let known = |offset: i64| (offset != UNKNOWN_OFFSET).then_some(offset);
        s.collect_seq(self.0.iter().map(|(offset, value)| (known(*offset), value)))
    }
}

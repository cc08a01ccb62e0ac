//! Clients that are rude: what strangers, broken libraries and attackers send. As data, in the plan.
//!
//! A [`RudeConnection`] sends requests that are valid by Kafka's schema but extreme, or that lie about their lengths; it stops in the
//! middle of a frame, reads slowly or not at all, or says nothing. Its requests stand in the plan in full ([`Value`]), so that a finding
//! does not depend on what draws them. The judge (`play`) asks that every valid request is answered, in its turn, with a
//! response that can be read, within a bound; and that nothing of it hurts the other clients.

mod draw;
mod encode;
mod judge;
mod play;
mod records;
mod response;
mod value;

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub(crate) use draw::{connections, fuzz};
pub(crate) use judge::{judge, watch};
pub(crate) use play::{FIRST_RUDE, Tally, start};
pub use records::{RecordBatch, Records};
pub use value::{Special, Value};

/// Topics that rude clients may change and delete. The judges of the workload know nothing of them.
pub(crate) const TOPICS: [&str; 4] = ["x0", "x1", "x2", "x3"];

/// One connection of a rude client.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RudeConnection {
    /// When it connects, from the begin of the run.
    pub at_ms: u64,
    /// Requests that are under way at once, at most.
    pub in_flight_max: usize,
    /// How it reads.
    #[serde(default, skip_serializing_if = "Reads::is_all")]
    pub reads: Reads,
    /// Of the last request only so many bytes are sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cut: Option<u64>,
    /// How long it stays open after that, or after the last response.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub stays_ms: u64,
    /// What it sends.
    pub requests: Vec<RudeRequest>,
}

/// A connection that several plans share: a shrinker holds many plans which differ in one of them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SharedConnection(Arc<RudeConnection>);

impl Deref for SharedConnection {
    type Target = RudeConnection;

    fn deref(&self) -> &RudeConnection {
        &self.0
    }
}

impl DerefMut for SharedConnection {
    fn deref_mut(&mut self) -> &mut RudeConnection {
        Arc::make_mut(&mut self.0)
    }
}

impl From<RudeConnection> for SharedConnection {
    fn from(connection: RudeConnection) -> Self {
        Self(Arc::new(connection))
    }
}

impl Serialize for SharedConnection {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        RudeConnection::serialize(self, s)
    }
}

impl<'de> Deserialize<'de> for SharedConnection {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        RudeConnection::deserialize(d).map(Self::from)
    }
}

fn given<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(d).map(Some)
}

fn once() -> u64 {
    1
}

fn is_once(n: &u64) -> bool {
    *n == 1
}

fn is_zero(n: &u64) -> bool {
    *n == 0
}

/// How a connection reads its responses.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reads {
    /// As they come.
    #[default]
    All,
    /// So many bytes at once, with a pause after each.
    Slowly {
        /// Bytes.
        bytes: usize,
        /// The pause.
        pause_ms: u64,
    },
    /// Not at all: it closes the connection once all is sent.
    Never,
}

impl Reads {
    fn is_all(&self) -> bool {
        *self == Self::All
    }
}

/// One request of a rude client.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RudeRequest {
    /// Kafka's name of it, as `Fetch`; or a number, where there is none.
    pub api: String,
    /// In which version.
    pub version: i16,
    /// The client's id. (Null is one that is sent.)
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub client_id: Option<Value>,
    /// How often it is sent, one after the other.
    #[serde(default = "once", skip_serializing_if = "is_once")]
    pub times: u64,
    /// The size that the frame announces, where that is not its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub announces: Option<i32>,
    /// The body is cut off after so many bytes, and the frame is as long as what is left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body_cut: Option<u64>,
    /// The fields. Those that are missing have their defaults.
    #[serde(default, skip_serializing_if = "Value::is_empty")]
    pub body: Value,
}

//! Rude clients: the requests of misbehaving peers, broken libraries and attackers, as data in the plan.
//!
//! A [`RudeConnection`] sends requests that are valid by Kafka's schema but extreme, or that claim wrong lengths; it stops in the
//! middle of a frame, reads slowly or not at all, or sends nothing. The plan contains its requests in full ([`Value`]), so that a
//! finding does not depend on the code that draws them. The judge (`play`) requires that the broker responds to every valid
//! request, in order, with a decodable response, within a bound; and that other clients do not suffer.

mod draw;
mod encode;
mod judge;
mod play;
mod records;
mod response;
mod tally;
mod value;

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub(crate) use draw::{connections, fuzz};
pub(crate) use judge::{judge, watch};
pub(crate) use play::{FIRST_RUDE, start};
pub use records::{RecordBatch, Records};
pub(crate) use tally::RudeTally;
pub use value::{Special, Value};

/// Topics that rude clients may change and delete. The workload's judges ignore them.
pub(crate) const TOPICS: [&str; 4] = ["x0", "x1", "x2", "x3"];

/// One connection of a rude client.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RudeConnection {
    /// When it connects, from the start of the run.
    pub at_ms: u64,
    /// Maximum number of requests in flight.
    pub in_flight_max: usize,
    /// How it reads.
    #[serde(default, skip_serializing_if = "Reads::is_all")]
    pub reads: Reads,
    /// If set, only this many bytes of the last request are sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cut: Option<u64>,
    /// How long it stays open after the last request or the last response.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub stays_ms: u64,
    /// Its requests.
    pub requests: Vec<RudeRequest>,
}

/// A connection that several plans share: a shrinker holds many plans that differ in one connection.
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
    /// As they arrive.
    #[default]
    All,
    /// A few bytes at a time, with a pause after each read.
    Slowly {
        /// Bytes of each read.
        bytes: usize,
        /// The pause after each read.
        pause_ms: u64,
    },
    /// Never: it closes the connection once everything is sent.
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
    /// Kafka's name of the API, e.g. `Fetch`; or a number that has no name.
    pub api: String,
    /// The request's version.
    pub version: i16,
    /// The client id. (A null is sent as null.)
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub client_id: Option<Value>,
    /// How many times it is sent.
    #[serde(default = "once", skip_serializing_if = "is_once")]
    pub times: u64,
    /// The size that the frame announces, if it is not the real one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub announces: Option<i32>,
    /// Cuts the body after this many bytes; the frame's size is that of the rest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body_cut: Option<u64>,
    /// The fields. Missing ones have their defaults.
    #[serde(default, skip_serializing_if = "Value::is_empty")]
    pub body: Value,
}

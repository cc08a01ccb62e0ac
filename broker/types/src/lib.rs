//! The vocabulary of all crates: times, offsets, epochs, ids, and two contracts: [`Replicated`] (a state machine replayed
//! from a log) and [`reached!`] (reports a rare state).
//!
//! Depends on no other crate of the workspace. The newtypes prevent swapping two integers where that would lose data.

mod count;
mod ids;
mod limits;
mod replicated;
mod time;
mod uuid;

pub use count::{BOUNDS_MICROS, Counter, Histogram, HistogramValues};
pub use ids::{
    BrokerEpoch, LeaderEpoch, NodeId, Offset, PartitionIndex, ProducerEpoch, ProducerId, Sequence,
};
pub use limits::{Limit, LimitValue};
pub use replicated::Replicated;
pub use time::{Instant, UnixMillis};
pub use uuid::{ParseUuidError, Uuid};

/// Reports that the run reached a rare state (`reached!("leader elected while a txn was open")`).
///
/// Emits a tracing event with target `reached`. In production no subscriber takes it and it costs one static load. The
/// simulator counts the names; a campaign in which a listed name never occurred fails.
#[macro_export]
macro_rules! reached {
    ($name:literal) => {
        ::tracing::event!(target: "reached", ::tracing::Level::TRACE, name = $name)
    };
}

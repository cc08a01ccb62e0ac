//! What every part speaks of: times, offsets, epochs, ids, and the two contracts that have no better home,
//! [`Replicated`] (a state machine fed by a log) and [`reached!`] (a rare state worth counting).
//!
//! Depends on nothing. The newtypes are here so that two integers can't be swapped where that would lose data.

mod count;
mod ids;
mod replicated;
mod time;
mod uuid;

pub use count::{BOUNDS_MICROS, Counter, Histogram, HistogramValues};
pub use ids::{
    BrokerEpoch, LeaderEpoch, NodeId, Offset, PartitionIndex, ProducerEpoch, ProducerId, Sequence,
};
pub use replicated::Replicated;
pub use time::{Instant, UnixMillis};
pub use uuid::{ParseUuidError, Uuid};

/// Says that the run came by a rare state (`reached!("leader elected while a txn was open")`).
///
/// A tracing event of the target `reached`. In production nobody listens and it costs one static load; the simulator
/// counts the names and a campaign in which a listed name never occurred fails.
#[macro_export]
macro_rules! reached {
    ($name:literal) => {
        ::tracing::event!(target: "reached", ::tracing::Level::TRACE, name = $name)
    };
}

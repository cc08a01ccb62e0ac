//! A state machine replayed from a log.

use crate::Instant;

/// State replayed from a log: cluster metadata now; groups, transactions and shares later.
///
/// Pure: no clock, no randomness, no IO. `decide` reads the state, `replay` changes it. The host appends the records that
/// `decide` returned, replays each one when it is appended, and sends the reply only after the records are committed.
pub trait Replicated {
    /// A request.
    type Request;
    /// The reply to a request, sent once the records are committed.
    type Reply;
    /// A record of the log.
    type Record;

    /// Decides on a request in the state as appended so far. Returns the records that carry it out, and the reply that is
    /// valid once they are committed. Changes nothing.
    fn decide(&self, now: Instant, request: Self::Request) -> (Vec<Self::Record>, Self::Reply);

    /// Applies a record appended at `offset`.
    fn replay(&mut self, offset: i64, record: &Self::Record);
}

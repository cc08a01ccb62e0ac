//! A state machine fed by a log.

use crate::Instant;

/// State that is a replay of a log: cluster metadata now; groups, transactions and shares later.
///
/// Pure: no clock, no randomness, no IO. `decide` looks, `replay` changes. The host appends what `decide` returned,
/// replays each record when it is appended, and lets an answer out only when its records are committed.
pub trait Replicated {
    /// What is asked.
    type Request;
    /// What is answered, once the records are committed.
    type Reply;
    /// What is written.
    type Record;

    /// Judges a request against the state as appended so far: the records that would carry it out, and the answer that
    /// holds once they are committed. Changes nothing.
    fn decide(&self, now: Instant, request: Self::Request) -> (Vec<Self::Record>, Self::Reply);

    /// Applies a record that now stands in the log at `offset`.
    fn replay(&mut self, offset: i64, record: &Self::Record);
}

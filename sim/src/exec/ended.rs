//! How a run ends.

use crate::life::Life;

/// How a run ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Ended {
    /// The world was stopped, or its time was up.
    Stopped,
    /// Nothing was ready and no timer was left.
    Quiet,
    /// A task panicked, with this message.
    Panicked(Life, &'static str, String),
    /// Tasks kept each other busy without time passing.
    Livelock,
}

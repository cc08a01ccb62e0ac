//! The stage of an operation that an entry of a history tells.

use serde::{Deserialize, Serialize};

/// Whether an operation begins or how it ended.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Type {
    /// It begins.
    Invoke,
    /// It happened.
    Ok,
    /// It did not happen.
    Fail,
    /// The outcome is unknown.
    Info,
}

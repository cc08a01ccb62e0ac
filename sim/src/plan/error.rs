//! Errors of a plan's text.

use std::fmt;

use brokkr::config::StartupError;

use super::format::FORMAT;
use super::prepared_log::PreparedLog;

/// Why a text is not a valid plan.
#[derive(Debug)]
pub enum PlanError {
    /// It is not valid JSON of a plan.
    Json(serde_json::Error),
    /// It has another format.
    Format(u64),
    /// Its broker can't start.
    Broker(StartupError),
    /// A log can't be prepared this way.
    Prepared(PreparedLog),
    /// A restart changes a setting by which the whole run is judged.
    Judged(String),
}

impl fmt::Display for PlanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Json(e) => write!(f, "not a plan: {e}"),
            Self::Broker(e) => write!(f, "the plan's broker: {e}"),
            Self::Prepared(log) => write!(
                f,
                "{log:?}: no topic that stays and keeps all, or no offset that such a log can go on at"
            ),
            Self::Judged(key) => write!(f, "a restart can't change {key}: the whole run is judged by it"),
            Self::Format(n) => write!(f, "a plan of format {n}; this is a simulator for format {FORMAT}"),
        }
    }
}

impl std::error::Error for PlanError {}

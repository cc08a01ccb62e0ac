//! Why metadata can't be read or written.

use std::fmt;

use brokkr_log::LogError;

/// Metadata can't be read or written.
#[derive(Debug)]
pub enum ControllerError {
    /// Its log.
    Log(LogError),
    /// The directory.
    Io(brokkr_env::Error),
    /// Something in it can't be understood: where, and what.
    Content(String, String),
}

impl fmt::Display for ControllerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Log(e) => write!(f, "cluster metadata: {e}"),
            Self::Io(e) => write!(f, "cluster metadata: {e}"),
            Self::Content(place, what) => write!(f, "cluster metadata: {place}: {what}"),
        }
    }
}

impl From<LogError> for ControllerError {
    fn from(e: LogError) -> Self {
        Self::Log(e)
    }
}

impl From<brokkr_env::Error> for ControllerError {
    fn from(e: brokkr_env::Error) -> Self {
        Self::Io(e)
    }
}

/// An error in what was read: where, and what.
pub(super) fn content_error(place: impl fmt::Display, what: impl fmt::Display) -> ControllerError {
    ControllerError::Content(place.to_string(), what.to_string())
}

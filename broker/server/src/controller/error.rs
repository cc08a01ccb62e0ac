//! Why the cluster metadata can't be read or written.

use std::fmt;

use brokkr_log::LogError;

/// Why the cluster metadata can't be read or written.
#[derive(Debug)]
pub enum ControllerError {
    /// An error of the metadata log.
    Log(LogError),
    /// An error of the directory.
    Io(brokkr_env::Error),
    /// The content is invalid: the file, and the reason.
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

/// Invalid content: the file, and the reason.
pub(super) fn content_error(place: impl fmt::Display, what: impl fmt::Display) -> ControllerError {
    ControllerError::Content(place.to_string(), what.to_string())
}

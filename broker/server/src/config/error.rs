//! Why a broker can't start with a configuration.

use std::fmt;

use brokkr_metadata::config::ConfigError;

/// An invalid configuration: the operator's error. One line says what to change.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum StartupError {
    /// The key is unknown.
    UnknownKey {
        /// The key.
        key: String,
        /// A known key with a similar name.
        nearest: Option<String>,
    },
    /// The value is invalid for its key.
    Value(ConfigError),
    /// A listener is invalid.
    Listener(String),
}

impl fmt::Display for StartupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownKey {
                key,
                nearest: Some(nearest),
            } => {
                write!(f, "unknown configuration key {key}; did you mean {nearest}?")
            }
            Self::UnknownKey { key, nearest: None } => write!(f, "unknown configuration key {key}"),
            Self::Value(e) => e.fmt(f),
            Self::Listener(what) => f.write_str(what),
        }
    }
}

impl std::error::Error for StartupError {}

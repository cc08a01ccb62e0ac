//! Why a broker can't be started with a configuration.

use std::fmt;

use brokkr_metadata::config::ConfigError;

/// What can't be started with. The operator's fault; one line says what to change.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum StartupError {
    /// Nobody knows this key.
    UnknownKey {
        /// The key.
        key: String,
        /// A key that is called alike.
        nearest: Option<String>,
    },
    /// A value that its key can't have.
    Value(ConfigError),
    /// A listener that can't be read.
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

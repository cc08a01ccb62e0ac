//! Error codes of responses.

use std::fmt;

/// A Kafka error code; may be one that this list doesn't contain.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(transparent)]
pub struct ErrorCode(pub i16);

include!(concat!(env!("OUT_DIR"), "/error_code.rs"));

impl ErrorCode {
    /// Kafka's name, as in `NOT_LEADER_OR_FOLLOWER`; `None` for a code that Kafka 4.3.0 doesn't have.
    pub fn name(self) -> Option<&'static str> {
        Some(self.info()?.0)
    }

    /// Whether the same request may succeed later.
    pub fn is_retriable(self) -> bool {
        self.info().is_some_and(|(_, retriable)| retriable)
    }

    /// Whether this is an error (not NONE).
    pub fn is_error(self) -> bool {
        self != Self::NONE
    }
}

impl From<ErrorCode> for i16 {
    fn from(code: ErrorCode) -> Self {
        code.0
    }
}

impl From<i16> for ErrorCode {
    fn from(code: i16) -> Self {
        Self(code)
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "error {}", self.0),
        }
    }
}

impl fmt::Debug for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

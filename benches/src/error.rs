//! What can end a measurement.

use brokkr_wire::{DecodeError, EncodeError, ErrorCode};
use std::{fmt, io};

/// Why there is no result.
#[derive(Debug)]
pub enum BenchError {
    /// The caller asked for what can't be done.
    Usage(String),
    /// A socket, file or process failed.
    Io {
        /// What was being done.
        what: String,
        /// How it failed.
        source: io::Error,
    },
    /// A request that can't be encoded, or an answer that is none.
    Wire(String),
    /// The broker refused.
    Broker {
        /// What was asked.
        what: String,
        /// Its answer.
        code: ErrorCode,
    },
    /// The broker's answers or its data are wrong: an offset, a count, a CRC.
    Check(String),
}

impl BenchError {
    /// For `map_err` on IO.
    pub fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }

    /// An error if `code` is one.
    pub fn check(code: i16, what: impl FnOnce() -> String) -> Result<(), Self> {
        let code = ErrorCode(code);
        if code.is_error() {
            return Err(Self::Broker { what: what(), code });
        }
        Ok(())
    }

    /// The exit code that goes with it.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            _ => 1,
        }
    }
}

impl fmt::Display for BenchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(what) | Self::Wire(what) | Self::Check(what) => f.write_str(what),
            Self::Io { what, source } => write!(f, "{what}: {source}"),
            Self::Broker { what, code } => write!(f, "{what}: {code}"),
        }
    }
}

impl std::error::Error for BenchError {}

impl From<DecodeError> for BenchError {
    fn from(e: DecodeError) -> Self {
        Self::Wire(e.to_string())
    }
}

impl From<EncodeError> for BenchError {
    fn from(e: EncodeError) -> Self {
        Self::Wire(e.to_string())
    }
}

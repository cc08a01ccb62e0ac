//! Errors that end a measurement.

use brokkr_wire::{DecodeError, EncodeError, ErrorCode};
use std::{fmt, io};

/// Why a measurement has no result.
#[derive(Debug)]
pub enum BenchError {
    /// The caller asked for something impossible.
    Usage(String),
    /// A socket, file or process failed.
    Io {
        /// The operation that failed.
        what: String,
        /// The cause.
        source: io::Error,
    },
    /// A request can't be encoded, or a response can't be decoded.
    Wire(String),
    /// The broker answered with an error code.
    Broker {
        /// The request.
        what: String,
        /// The error code.
        code: ErrorCode,
    },
    /// The broker's response or its data is wrong: an offset, a count, a CRC.
    Check(String),
}

impl BenchError {
    /// Wraps an IO error, for `map_err`.
    pub fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }

    /// Fails if `code` is an error.
    pub fn check(code: i16, what: impl FnOnce() -> String) -> Result<(), Self> {
        let code = ErrorCode(code);
        if code.is_error() {
            return Err(Self::Broker { what: what(), code });
        }
        Ok(())
    }

    /// The process's exit code for this error.
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

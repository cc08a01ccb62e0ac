//! Errors of requests, and whether the request may have been carried out.

use std::fmt;

use brokkr_wire::{ApiKey, DecodeError, EncodeError, ErrorCode};

/// The result of a request.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a request failed.
#[derive(Clone, PartialEq, Debug)]
pub enum Error {
    /// None of its bytes were sent: there is no connection, or it closed before the request was written.
    NotSent(String),
    /// The connection ended between the request and its response.
    Lost(String),
    /// No response arrived in time. The connection was closed.
    TimedOut,
    /// The peer violated the protocol. The connection was closed.
    Protocol(String),
    /// The broker supports no version of this request that this client supports.
    UnsupportedVersion(ApiKey),
    /// The request can't be encoded.
    Encode(EncodeError),
    /// The broker answered with an error code.
    Broker(ErrorCode, Option<String>),
    /// The metadata has no leader of the partition.
    NoLeader,
}

impl Error {
    /// Whether the request was certainly not carried out, as far as the connection knows. The meaning of a broker's error
    /// code depends on the request.
    pub fn is_unsent(&self) -> bool {
        matches!(
            self,
            Self::NotSent(_) | Self::UnsupportedVersion(_) | Self::Encode(_) | Self::NoLeader
        )
    }

    /// Whether the same request may succeed later.
    pub fn is_retriable(&self) -> bool {
        match self {
            Self::NotSent(_) | Self::Lost(_) | Self::TimedOut | Self::NoLeader => true,
            Self::Protocol(_) | Self::UnsupportedVersion(_) | Self::Encode(_) => false,
            Self::Broker(code, _) => code.is_retriable(),
        }
    }

    /// The error code, if the broker answered with one.
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Broker(code, _) => Some(*code),
            _ => None,
        }
    }

    /// `Ok` for no error, else [`Error::Broker`].
    pub(crate) fn check(code: i16, message: Option<&str>) -> Result<()> {
        match ErrorCode(code) {
            ErrorCode::NONE => Ok(()),
            code => {
                report_refusal(code);
                Err(Self::Broker(code, message.map(str::to_owned)))
            }
        }
    }
}

/// Reports a broker's error code to whoever listens: the simulator judges whether there was a reason.
pub fn report_refusal(code: ErrorCode) {
    report_odd(code.name().unwrap_or("unknown"));
}

/// As [`report_refusal`], of an answer for which there can be no reason.
pub(crate) fn report_odd(what: &'static str) {
    tracing::event!(target: "refused", tracing::Level::TRACE, name = what);
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotSent(why) => write!(f, "not sent: {why}"),
            Self::Lost(why) => write!(f, "connection lost: {why}"),
            Self::TimedOut => f.write_str("no response in time"),
            Self::Protocol(what) => write!(f, "the peer broke the protocol: {what}"),
            Self::UnsupportedVersion(key) => write!(f, "no common version of {key}"),
            Self::Encode(e) => e.fmt(f),
            Self::Broker(code, None) => code.fmt(f),
            Self::Broker(code, Some(message)) => write!(f, "{code}: {message}"),
            Self::NoLeader => f.write_str("no known leader"),
        }
    }
}

impl std::error::Error for Error {}

impl From<EncodeError> for Error {
    fn from(e: EncodeError) -> Self {
        Self::Encode(e)
    }
}

impl From<DecodeError> for Error {
    fn from(e: DecodeError) -> Self {
        Self::Protocol(e.to_string())
    }
}

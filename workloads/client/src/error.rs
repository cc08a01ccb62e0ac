//! Why a request has no good answer, and whether it may have been carried out all the same.

use std::fmt;

use brokkr_wire::{ApiKey, DecodeError, EncodeError, ErrorCode};

/// The result of a request.
pub type Result<T> = std::result::Result<T, Error>;

/// A request without a good answer.
#[derive(Clone, PartialEq, Debug)]
pub enum Error {
    /// Not a byte of it left: there is no connection, or it ended before the request's turn.
    NotSent(String),
    /// The connection ended between the request and its response.
    Lost(String),
    /// No response came in time. The connection was closed for it.
    TimedOut,
    /// The peer broke the protocol. The connection was closed for it.
    Protocol(String),
    /// The broker doesn't speak a version of this request that we do.
    UnsupportedVersion(ApiKey),
    /// We can't encode it.
    Encode(EncodeError),
    /// The broker refused.
    Broker(ErrorCode, Option<String>),
    /// The metadata doesn't say who leads the partition, or don't know it.
    NoLeader,
}

impl Error {
    /// Whether the request was surely not carried out as far as the connection goes. What a code of the broker's means
    /// depends on the request.
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

    /// The broker's code, if it was the broker that refused.
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Broker(code, _) => Some(*code),
            _ => None,
        }
    }

    /// `Ok` for no error, else the broker's refusal.
    pub(crate) fn check(code: i16, message: Option<&str>) -> Result<()> {
        match ErrorCode(code) {
            ErrorCode::NONE => Ok(()),
            code => Err(Self::Broker(code, message.map(str::to_owned))),
        }
    }
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

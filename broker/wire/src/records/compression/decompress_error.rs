//! Errors of decompression.

use std::fmt;

use super::compression_type::CompressionType;

/// A decompression error.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DecompressError {
    /// The output exceeds the caller's limit.
    TooLarge {
        /// The limit.
        max: usize,
    },
    /// The stream is invalid for its codec, or cut off.
    Corrupt {
        /// The codec.
        codec: CompressionType,
        /// The error.
        what: &'static str,
    },
}

impl fmt::Display for DecompressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge { max } => write!(f, "the records decompress to more than {max} bytes"),
            Self::Corrupt { codec, what } => write!(f, "the records are not valid {codec}: {what}"),
        }
    }
}

impl std::error::Error for DecompressError {}

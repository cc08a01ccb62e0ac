//! What a frame consists of beside plain values: record batches and the parts to send.

use bytes::Bytes;

/// Record batches, opaque to the codec.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Records {
    /// In memory. Decoding always yields this, a slice of the frame.
    Bytes(Bytes),
    /// Elsewhere: the code that sends the frame replaces `token` by the data, such as a range of a file.
    External {
        /// Chosen by the caller.
        token: u32,
        /// Its length in bytes.
        len: u32,
    },
}

impl Records {
    /// The length in bytes.
    pub fn len(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::External { len, .. } => *len as usize,
        }
    }

    /// Whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes, if they are here.
    pub fn as_bytes(&self) -> Option<&Bytes> {
        match self {
            Self::Bytes(bytes) => Some(bytes),
            Self::External { .. } => None,
        }
    }
}

impl Default for Records {
    fn default() -> Self {
        Self::Bytes(Bytes::new())
    }
}

impl From<Bytes> for Records {
    fn from(bytes: Bytes) -> Self {
        Self::Bytes(bytes)
    }
}

/// A part of a frame. Parts are sent in order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Part {
    /// These bytes.
    Bytes(Bytes),
    /// The data that the caller's `token` names.
    External {
        /// As in [`Records::External`].
        token: u32,
        /// Its length in bytes.
        len: u32,
    },
}

impl Part {
    /// The length in bytes.
    pub fn len(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::External { len, .. } => *len as usize,
        }
    }

    /// Whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

//! Encoding and decoding of values, used by the generated messages.

mod arrays;
mod element;
mod error;
mod parts;
mod reader;
mod str;
mod tagged;
mod writer;

pub use element::Element;
pub use error::{DecodeError, DecodeErrorKind, EncodeError, EncodeErrorKind};
pub use parts::{Part, Records};
pub use reader::Reader;
pub use str::{MESSAGE_LEN_MAX, Str};
pub use tagged::{RawTaggedField, TaggedFields};
pub use writer::{COPY_MAX, Writer};

/// Imports of the generated modules.
pub(crate) mod generated {
    pub use brokkr_types::Uuid;
    pub use bytes::Bytes;

    pub use super::{DecodeError, Element, Reader, Records, Str, TaggedFields, Writer};
    pub use crate::ErrorCode;
    pub use crate::api_key::ApiKey;
    pub use crate::messages::{Message, Request, TypedRecord};
}

//! How values become bytes and bytes become values: what the generated messages are made of.

mod element;
mod error;
mod reader;
mod str;
mod tagged;
mod writer;

pub use element::Element;
pub use error::{DecodeError, DecodeErrorKind, EncodeError, EncodeErrorKind};
pub use reader::Reader;
pub use str::{MESSAGE_LEN_MAX, Str};
pub use tagged::{RawTaggedField, TaggedFields};
pub use writer::{COPY_MAX, Part, Records, Writer};

/// What the generated modules use.
pub(crate) mod generated {
    pub use brokkr_types::Uuid;
    pub use bytes::Bytes;

    pub use super::{DecodeError, Element, Reader, Records, Str, TaggedFields, Writer};
    pub use crate::ErrorCode;
    pub use crate::api_key::ApiKey;
    pub use crate::messages::{Message, Request, TypedRecord};
}

//! Kafka 4.3.0's messages, one module each, generated from the tables under `schema/`.
//!
//! Names of structures are Kafka's, those of fields are Kafka's in snake case (`type_` for `type`). A field that its
//! version lacks decodes to its default, which is also what `Default` gives. Arrays with map keys are plain vectors.

use std::ops::RangeInclusive;

use crate::api_key::ApiKey;
use crate::codec::{DecodeError, DecodeErrorKind, Element, EncodeError, EncodeErrorKind, Reader, Writer};

/// A message of the tables: a request, response, header, or the key or value of a record.
///
/// Only generated structures implement it.
pub trait Message: Element + Clone + std::fmt::Debug + PartialEq {
    /// Kafka's name, as in `FetchRequest`.
    const NAME: &'static str;
    /// The oldest valid version.
    const MIN_VERSION: i16;
    /// The newest valid version.
    const MAX_VERSION: i16;
    /// The first flexible version (KIP-482): compact lengths and tagged fields.
    const FLEXIBLE_FROM: Option<i16>;

    /// The valid versions.
    fn versions() -> RangeInclusive<i16> {
        Self::MIN_VERSION..=Self::MAX_VERSION
    }

    /// Decodes the message and advances the reader past it. Bytes after it are not an error (as in Kafka); use
    /// [`decode_exact`] or [`Reader::expect_end`] to refuse them.
    fn decode(r: &mut Reader, version: i16) -> Result<Self, DecodeError> {
        r.begin(Self::NAME, version, Self::versions())?;
        let mut message = Self::default();
        message.fill(
            r,
            version,
            Self::FLEXIBLE_FROM.is_some_and(|from| version >= from),
            "",
        )?;
        Ok(message)
    }

    /// Encodes the message. After an error the writer can't be used any more.
    fn encode(&self, w: &mut Writer, version: i16) -> Result<(), EncodeError> {
        if !Self::versions().contains(&version) {
            return Err(EncodeError::new(
                Self::NAME,
                "",
                EncodeErrorKind::UnknownVersion(version),
            ));
        }
        w.begin(Self::NAME, version);
        self.write(
            w,
            version,
            Self::FLEXIBLE_FROM.is_some_and(|from| version >= from),
            "",
        );
        w.end()
    }
}

/// A request, with its [`Response`](Request::Response).
pub trait Request: Message {
    /// Its API key.
    const API_KEY: ApiKey;
    /// Its response, in the same version.
    type Response: Message;
}

/// A message in a record of one of Kafka's own logs, identified by a type.
pub trait TypedRecord: Message {
    /// The type: a metadata record's or tiered-storage record's key, the first two bytes of a coordinator's keys and values
    /// (of a value its own version comes first instead).
    const RECORD_TYPE: i16;
}

/// Decodes a message that takes up all of `bytes`.
pub fn decode_exact<M: Message>(bytes: bytes::Bytes, version: i16) -> Result<M, DecodeError> {
    let mut r = Reader::new(bytes);
    let message = M::decode(&mut r, version)?;
    r.expect_end()?;
    Ok(message)
}

/// Encodes the message into one buffer.
pub fn encode_to_bytes<M: Message>(message: &M, version: i16) -> Result<bytes::Bytes, EncodeError> {
    let mut w = Writer::new();
    message.encode(&mut w, version)?;
    w.into_bytes()
}

/// The version of the frame around a metadata record.
const METADATA_FRAME_VERSION: u32 = 1;

impl MetadataRecord {
    /// Decodes the value of a metadata record; returns the record and its version:
    /// `frame_version:uvarint(1) record_type:uvarint version:uvarint body`.
    pub fn decode(value: bytes::Bytes) -> Result<(Self, i16), DecodeError> {
        let mut r = Reader::new(value);
        r.begin("MetadataRecord", 0, 0..=0)?;
        let frame = r.uvarint("frame_version")?;
        if frame != METADATA_FRAME_VERSION {
            return Err(r.error("frame_version", DecodeErrorKind::UnknownFrameVersion(frame)));
        }
        let record_type = r.uvarint("record_type")?;
        let version = i16::try_from(r.uvarint("version")?).unwrap_or(i16::MAX);
        let known = match i16::try_from(record_type) {
            Ok(known) => Self::read_body(&mut r, known, version)?,
            Err(_) => None,
        };
        let Some(record) = known else {
            return Err(r.error("record_type", DecodeErrorKind::UnknownRecordType(record_type)));
        };
        r.expect_end()?;
        Ok((record, version))
    }

    /// Encodes the value of a metadata record, with its frame.
    pub fn encode(&self, version: i16) -> Result<bytes::Bytes, EncodeError> {
        let mut w = Writer::with_capacity(64);
        w.uvarint(METADATA_FRAME_VERSION);
        w.uvarint(self.record_type() as u32);
        w.uvarint(version.max(0) as u32);
        self.write_body(&mut w, version)?;
        w.into_bytes()
    }
}

include!(concat!(env!("OUT_DIR"), "/messages.rs"));

//! Decodes values from a frame.

use std::ops::RangeInclusive;

use brokkr_types::Uuid;
use bytes::Bytes;

use super::parts::Records;
use super::{DecodeError, DecodeErrorKind, RawTaggedField, Str, TaggedFields};

/// Maximum length of a string, in bytes: Kafka's limit, even where the length prefix could express more.
const STRING_LEN_MAX: usize = i16::MAX as usize;

/// A cursor in a frame. Decoded strings, bytes and records are slices of the frame, never copies.
///
/// A length is never trusted before its bytes are present. Elements of an array are decoded one by one into a vector whose
/// initial capacity is bounded by the remaining bytes. Nothing recurses: messages nest only as deep as the tables.
#[derive(Clone, Debug)]
pub struct Reader {
    buf: Bytes,
    pos: usize,
    /// The end of reading: of the frame, or of the tagged field being read.
    end: usize,
    /// The message being read, for errors.
    message: &'static str,
    /// Memory used by decoded arrays and unknown tags, and its limit.
    decoded_bytes: usize,
    decoded_bytes_max: usize,
}

/// The state of reading a structure's tagged fields.
pub struct Tags {
    left: u32,
    last: Option<u32>,
    /// The reader's end outside the tagged field.
    outer_end: usize,
    field: &'static str,
}

impl Reader {
    /// A reader of a trusted `frame`.
    pub fn new(frame: Bytes) -> Self {
        Self::limited(frame, usize::MAX)
    }

    /// A reader of a `frame` from an untrusted peer: decoded values may use up to `decoded_bytes_max` bytes of memory
    /// besides the frame. (An empty string of one byte becomes a structure of many.)
    pub fn limited(frame: Bytes, decoded_bytes_max: usize) -> Self {
        let end = frame.len();
        Self {
            buf: frame,
            pos: 0,
            end,
            message: "frame",
            decoded_bytes: 0,
            decoded_bytes_max,
        }
    }

    /// Memory used by the arrays and unknown tags decoded so far, in bytes.
    pub fn decoded_bytes(&self) -> usize {
        self.decoded_bytes
    }

    /// Counts memory against the limit, before it is allocated.
    pub(super) fn charge(&mut self, bytes: usize, field: &'static str) -> Result<(), DecodeError> {
        self.decoded_bytes = self.decoded_bytes.saturating_add(bytes);
        if self.decoded_bytes > self.decoded_bytes_max {
            let kind = DecodeErrorKind::TooMuch {
                max: self.decoded_bytes_max,
            };
            return Err(self.error(field, kind));
        }
        Ok(())
    }

    /// Bytes read so far.
    pub fn offset(&self) -> usize {
        self.pos
    }

    /// Remaining bytes.
    #[inline]
    pub fn remaining(&self) -> usize {
        self.end - self.pos
    }

    /// All remaining bytes, as a slice of the frame.
    pub fn rest(&mut self) -> Bytes {
        let rest = self.buf.slice(self.pos..self.end);
        self.pos = self.end;
        rest
    }

    /// An error if bytes remain.
    pub fn expect_end(&self) -> Result<(), DecodeError> {
        match self.remaining() {
            0 => Ok(()),
            left => Err(self.error("", DecodeErrorKind::TrailingBytes(left))),
        }
    }

    /// An error for `field` at the current position.
    #[cold]
    pub(crate) fn error(&self, field: &'static str, kind: DecodeErrorKind) -> DecodeError {
        DecodeError::new(self.message, field, self.pos, kind)
    }

    #[cold]
    #[inline(never)]
    fn truncated(&self, field: &'static str, needed: usize) -> DecodeError {
        self.error(
            field,
            DecodeErrorKind::Truncated {
                needed,
                left: self.remaining(),
            },
        )
    }

    /// Begins a message; errors contain its name.
    pub(crate) fn begin(
        &mut self,
        message: &'static str,
        version: i16,
        versions: RangeInclusive<i16>,
    ) -> Result<(), DecodeError> {
        self.message = message;
        if versions.contains(&version) {
            Ok(())
        } else {
            Err(self.error("", DecodeErrorKind::UnknownVersion(version)))
        }
    }

    #[inline]
    fn take<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], DecodeError> {
        match self.buf[..self.end]
            .get(self.pos..)
            .and_then(|rest| rest.first_chunk::<N>())
        {
            Some(bytes) => {
                self.pos += N;
                Ok(*bytes)
            }
            None => Err(self.truncated(field, N)),
        }
    }

    fn take_slice(&mut self, len: usize, field: &'static str) -> Result<Bytes, DecodeError> {
        if len > self.remaining() {
            return Err(self.truncated(field, len));
        }
        let bytes = self.buf.slice(self.pos..self.pos + len);
        self.pos += len;
        Ok(bytes)
    }

    /// A bool: any byte except 0 is true.
    pub fn bool(&mut self, field: &'static str) -> Result<bool, DecodeError> {
        Ok(self.take::<1>(field)? != [0])
    }

    /// One byte.
    pub fn i8(&mut self, field: &'static str) -> Result<i8, DecodeError> {
        Ok(i8::from_be_bytes(self.take(field)?))
    }

    /// Two bytes, as all integers most significant first.
    pub fn i16(&mut self, field: &'static str) -> Result<i16, DecodeError> {
        Ok(i16::from_be_bytes(self.take(field)?))
    }

    /// Two bytes, without a sign.
    pub fn u16(&mut self, field: &'static str) -> Result<u16, DecodeError> {
        Ok(u16::from_be_bytes(self.take(field)?))
    }

    /// Four bytes.
    pub fn i32(&mut self, field: &'static str) -> Result<i32, DecodeError> {
        Ok(i32::from_be_bytes(self.take(field)?))
    }

    /// Four bytes, without a sign.
    pub fn u32(&mut self, field: &'static str) -> Result<u32, DecodeError> {
        Ok(u32::from_be_bytes(self.take(field)?))
    }

    /// Eight bytes.
    pub fn i64(&mut self, field: &'static str) -> Result<i64, DecodeError> {
        Ok(i64::from_be_bytes(self.take(field)?))
    }

    /// Eight bytes, IEEE 754.
    pub fn f64(&mut self, field: &'static str) -> Result<f64, DecodeError> {
        Ok(f64::from_be_bytes(self.take(field)?))
    }

    /// Sixteen bytes.
    pub fn uuid(&mut self, field: &'static str) -> Result<Uuid, DecodeError> {
        Ok(Uuid::from_bytes(self.take(field)?))
    }

    /// One to five bytes of seven bits, the least significant first.
    pub fn uvarint(&mut self, field: &'static str) -> Result<u32, DecodeError> {
        match self.buf[..self.end].get(self.pos) {
            Some(&byte) if byte < 0x80 => {
                self.pos += 1;
                Ok(u32::from(byte))
            }
            _ => self.uvarint_long(field),
        }
    }

    #[inline(never)]
    fn uvarint_long(&mut self, field: &'static str) -> Result<u32, DecodeError> {
        let start = self.pos;
        let mut value: u64 = 0;
        for shift in [0, 7, 14, 21, 28] {
            let [byte] = self.take::<1>(field)?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 && value <= u64::from(u32::MAX) {
                return Ok(value as u32);
            }
        }
        self.pos = start;
        Err(self.error(field, DecodeErrorKind::BadVarint))
    }

    /// A length, or `None` for null. The fixed encoding has `fixed` bytes (2 or 4).
    pub(super) fn len(
        &mut self,
        flex: bool,
        fixed: u8,
        field: &'static str,
    ) -> Result<Option<usize>, DecodeError> {
        if flex {
            return Ok((self.uvarint(field)? as usize).checked_sub(1));
        }
        let len = if fixed == 2 {
            i32::from(self.i16(field)?)
        } else {
            self.i32(field)?
        };
        match usize::try_from(len) {
            Ok(len) => Ok(Some(len)),
            Err(_) if len == -1 => Ok(None),
            Err(_) => Err(self.error(field, DecodeErrorKind::NegativeLength(len))),
        }
    }

    #[cold]
    #[inline(never)]
    pub(super) fn null(&self, field: &'static str) -> DecodeError {
        self.error(field, DecodeErrorKind::NullNotAllowed)
    }

    /// Null, if it is allowed.
    pub(super) fn no_value<T>(
        &self,
        to: &mut Option<T>,
        nullable: bool,
        field: &'static str,
    ) -> Result<(), DecodeError> {
        if !nullable {
            return Err(self.null(field));
        }
        *to = None;
        Ok(())
    }

    /// A string. `flex`: in the encoding of flexible versions.
    pub fn str(&mut self, to: &mut Str, flex: bool, field: &'static str) -> Result<(), DecodeError> {
        match self.len(flex, 2, field)? {
            Some(len) => *to = self.str_of(len, field)?,
            None => return Err(self.null(field)),
        }
        Ok(())
    }

    /// A string or, where `nullable`, null.
    pub fn str_opt(
        &mut self,
        to: &mut Option<Str>,
        flex: bool,
        nullable: bool,
        field: &'static str,
    ) -> Result<(), DecodeError> {
        match self.len(flex, 2, field)? {
            Some(len) => *to = Some(self.str_of(len, field)?),
            None => self.no_value(to, nullable, field)?,
        }
        Ok(())
    }

    fn str_of(&mut self, len: usize, field: &'static str) -> Result<Str, DecodeError> {
        if len > STRING_LEN_MAX {
            return Err(self.error(field, DecodeErrorKind::LengthTooLong(len as u32)));
        }
        let at = self.pos;
        Str::from_utf8(self.take_slice(len, field)?)
            .map_err(|_| DecodeError::new(self.message, field, at, DecodeErrorKind::InvalidUtf8))
    }

    /// Bytes, as a slice of the frame.
    pub fn bytes(&mut self, to: &mut Bytes, flex: bool, field: &'static str) -> Result<(), DecodeError> {
        match self.len(flex, 4, field)? {
            Some(len) => *to = self.take_slice(len, field)?,
            None => return Err(self.null(field)),
        }
        Ok(())
    }

    /// Bytes or, where `nullable`, null.
    pub fn bytes_opt(
        &mut self,
        to: &mut Option<Bytes>,
        flex: bool,
        nullable: bool,
        field: &'static str,
    ) -> Result<(), DecodeError> {
        match self.len(flex, 4, field)? {
            Some(len) => *to = Some(self.take_slice(len, field)?),
            None => self.no_value(to, nullable, field)?,
        }
        Ok(())
    }

    /// Record batches, not decoded, as a slice of the frame.
    pub(crate) fn records(
        &mut self,
        to: &mut Records,
        flex: bool,
        field: &'static str,
    ) -> Result<(), DecodeError> {
        match self.len(flex, 4, field)? {
            Some(len) => *to = Records::Bytes(self.take_slice(len, field)?),
            None => return Err(self.null(field)),
        }
        Ok(())
    }

    pub(crate) fn records_opt(
        &mut self,
        to: &mut Option<Records>,
        flex: bool,
        nullable: bool,
        field: &'static str,
    ) -> Result<(), DecodeError> {
        match self.len(flex, 4, field)? {
            Some(len) => *to = Some(Records::Bytes(self.take_slice(len, field)?)),
            None => self.no_value(to, nullable, field)?,
        }
        Ok(())
    }

    /// Begins a structure's tagged fields; `field` is the structure's name.
    pub(crate) fn tags(&mut self, field: &'static str) -> Result<Tags, DecodeError> {
        let left = self.uvarint(field)?;
        Ok(Tags {
            left,
            last: None,
            outer_end: self.end,
            field,
        })
    }

    /// The next tag. Until the next call the reader is limited to its value. `None` after the last one.
    pub(crate) fn next_tag(&mut self, tags: &mut Tags) -> Result<Option<u32>, DecodeError> {
        if tags.last.is_some() {
            if self.pos != self.end {
                let left = self.remaining();
                return Err(self.error(tags.field, DecodeErrorKind::TagSize { left }));
            }
            self.end = tags.outer_end;
        }
        if tags.left == 0 {
            return Ok(None);
        }
        tags.left -= 1;
        let tag = self.uvarint(tags.field)?;
        if let Some(last) = tags.last
            && tag <= last
        {
            let kind = if tag == last {
                DecodeErrorKind::DuplicateTag(tag)
            } else {
                DecodeErrorKind::TagOrder(tag)
            };
            return Err(self.error(tags.field, kind));
        }
        tags.last = Some(tag);
        let size = self.uvarint(tags.field)? as usize;
        if size > self.remaining() {
            return Err(self.truncated(tags.field, size));
        }
        self.end = self.pos + size;
        Ok(Some(tag))
    }

    /// Keeps the current tagged field as unknown.
    #[cold]
    pub(crate) fn unknown_tag(
        &mut self,
        tag: u32,
        unknown: &mut TaggedFields,
        field: &'static str,
    ) -> Result<(), DecodeError> {
        self.charge(size_of::<RawTaggedField>(), field)?;
        let data = self.rest();
        unknown.push(RawTaggedField { tag, data });
        Ok(())
    }

    /// All tagged fields of a structure that knows none.
    pub(crate) fn unknown_tags(
        &mut self,
        unknown: &mut TaggedFields,
        field: &'static str,
    ) -> Result<(), DecodeError> {
        let mut tags = self.tags(field)?;
        while tags.left > 0
            && let Some(tag) = self.next_tag(&mut tags)?
        {
            self.unknown_tag(tag, unknown, field)?;
        }
        self.end = tags.outer_end;
        Ok(())
    }

    /// The error for a known tag in a version that lacks it.
    #[cold]
    pub(crate) fn tag_not_in_version(&self, tag: u32, field: &'static str) -> DecodeError {
        self.error(field, DecodeErrorKind::TagNotInVersion(tag))
    }
}

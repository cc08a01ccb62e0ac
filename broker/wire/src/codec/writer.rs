//! Encodes values into the parts of a frame.

use brokkr_types::Uuid;
use bytes::Bytes;

use super::parts::{Part, Records};
use super::{EncodeError, EncodeErrorKind, Str, TaggedFields};

/// Values of at most this length are copied; longer ones become their own part. A part costs an entry in the socket's vector
/// and a reference, about as much as a copy of this size.
pub const COPY_MAX: usize = 512;

/// A buffer is shrunk if its capacity exceeds twice its length by more than this.
const SPARE_MAX: usize = 4096;

/// Encodes a frame.
///
/// One pass, without computing sizes in advance: small values go into one buffer, and a size that precedes its data (of the
/// frame, of a tagged field) is written into reserved space afterwards. A tagged field reserves one byte; a field of 128
/// bytes or more is moved by the additional bytes of its size. Bytes and records longer than [`COPY_MAX`] aren't copied: the
/// buffer is cut at their position.
///
/// The first error sticks: later writes have no effect, and [`Writer::into_parts`] returns the error.
///
/// ```text
///   buf   | size, header, fields … ^ fields … ^ fields |        cuts, by position in buf:  ^ Bytes  ^ External
///   parts   Bytes(slice of buf), Bytes, slice, External, slice
/// ```
#[derive(Debug, Default)]
pub struct Writer {
    buf: Vec<u8>,
    cuts: Vec<(usize, Part)>,
    /// The total length of all cuts.
    cut_len: usize,
    /// The number of open tagged fields. Inside one, everything is copied, because it may have to move.
    tags_open: u32,
    error: Option<EncodeError>,
    message: &'static str,
    version: i16,
}

/// The state of writing a structure's tagged fields.
pub struct TagWriter<'a> {
    unknown: &'a [super::RawTaggedField],
    /// The smallest tag allowed next.
    next: u64,
    /// The position of the open field's size byte.
    size_at: usize,
    field: &'static str,
}

impl Writer {
    /// An empty frame.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty frame with capacity for `capacity` small bytes.
    pub fn with_capacity(capacity: usize) -> Self {
        Self {
            buf: Vec::with_capacity(capacity),
            ..Self::default()
        }
    }

    /// Bytes written so far, including cuts.
    pub fn len(&self) -> usize {
        self.buf.len() + self.cut_len
    }

    /// Whether nothing was written.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The parts of the frame, all non-empty; or the first error.
    pub fn into_parts(mut self) -> Result<Vec<Part>, EncodeError> {
        if let Some(error) = self.error {
            return Err(error);
        }
        if self.buf.capacity() > SPARE_MAX + 2 * self.buf.len() {
            self.buf.shrink_to_fit();
        }
        let buf = Bytes::from(self.buf);
        let mut parts = Vec::with_capacity(2 * self.cuts.len() + 1);
        let mut from = 0;
        for (at, part) in self.cuts {
            if at > from {
                parts.push(Part::Bytes(buf.slice(from..at)));
            }
            parts.push(part);
            from = at;
        }
        if from < buf.len() {
            parts.push(Part::Bytes(buf.slice(from..)));
        }
        Ok(parts)
    }

    /// The frame as one buffer, copied if there were cuts; or the first error. External records are an error: their bytes
    /// aren't in memory.
    pub fn into_bytes(self) -> Result<Bytes, EncodeError> {
        let len = self.len();
        let mut parts = self.into_parts()?;
        if parts.len() == 1
            && let Some(Part::Bytes(bytes)) = parts.pop()
        {
            return Ok(bytes);
        }
        let mut all = Vec::with_capacity(len);
        for part in &parts {
            match part {
                Part::Bytes(bytes) => all.extend_from_slice(bytes),
                Part::External { .. } => {
                    return Err(EncodeError::new(
                        "frame",
                        "records",
                        EncodeErrorKind::ExternalNotAllowed,
                    ));
                }
            }
        }
        Ok(Bytes::from(all))
    }

    /// The first error so far.
    pub fn error(&self) -> Option<&EncodeError> {
        self.error.as_ref()
    }

    #[cold]
    #[inline(never)]
    pub(crate) fn fail(&mut self, field: &'static str, kind: EncodeErrorKind) {
        let message = self.message;
        self.error
            .get_or_insert_with(|| EncodeError::new(message, field, kind));
    }

    /// Begins a message; errors contain its name.
    pub(crate) fn begin(&mut self, message: &'static str, version: i16) {
        self.message = message;
        self.version = version;
    }

    /// The first error, at a message's end.
    pub(crate) fn end(&self) -> Result<(), EncodeError> {
        match &self.error {
            None => Ok(()),
            Some(error) => Err(error.clone()),
        }
    }

    /// Overwrites the four bytes at `at`, which must be before any cut.
    pub(crate) fn patch_i32(&mut self, at: usize, value: i32) {
        self.buf[at..at + 4].copy_from_slice(&value.to_be_bytes());
    }

    /// A byte, 1 for true.
    pub fn bool(&mut self, value: bool) {
        self.buf.push(u8::from(value));
    }

    /// One byte.
    pub fn i8(&mut self, value: i8) {
        self.raw(&value.to_be_bytes());
    }

    /// Two bytes, as all integers most significant first.
    pub fn i16(&mut self, value: i16) {
        self.raw(&value.to_be_bytes());
    }

    /// Two bytes, without a sign.
    pub fn u16(&mut self, value: u16) {
        self.raw(&value.to_be_bytes());
    }

    /// Four bytes.
    pub fn i32(&mut self, value: i32) {
        self.raw(&value.to_be_bytes());
    }

    /// Four bytes, without a sign.
    pub fn u32(&mut self, value: u32) {
        self.raw(&value.to_be_bytes());
    }

    /// Eight bytes.
    pub fn i64(&mut self, value: i64) {
        self.raw(&value.to_be_bytes());
    }

    /// Eight bytes, IEEE 754.
    pub fn f64(&mut self, value: f64) {
        self.raw(&value.to_be_bytes());
    }

    /// Sixteen bytes.
    pub fn uuid(&mut self, value: Uuid) {
        self.raw(value.as_bytes());
    }

    /// Bytes as they are, copied.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.buf.extend_from_slice(bytes);
    }

    /// One to five bytes of seven bits, the least significant first.
    pub fn uvarint(&mut self, mut value: u32) {
        while value >= 0x80 {
            self.buf.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.buf.push(value as u8);
    }

    /// A length. The fixed encoding has `fixed` bytes (2 or 4).
    pub(super) fn write_len(&mut self, len: usize, flex: bool, fixed: u8, field: &'static str) {
        let most = if fixed == 2 {
            i16::MAX as usize
        } else {
            i32::MAX as usize
        };
        if len > most {
            self.fail(field, EncodeErrorKind::TooLong(len));
        } else if flex {
            self.uvarint(len as u32 + 1);
        } else if fixed == 2 {
            self.i16(len as i16);
        } else {
            self.i32(len as i32);
        }
    }

    #[inline(never)]
    pub(super) fn null(&mut self, flex: bool, fixed: u8, nullable: bool, field: &'static str) {
        if !nullable {
            self.fail(field, EncodeErrorKind::NullNotAllowed);
        } else if flex {
            self.uvarint(0);
        } else if fixed == 2 {
            self.i16(-1);
        } else {
            self.i32(-1);
        }
    }

    /// A string. `flex`: in the encoding of flexible versions.
    pub fn str(&mut self, value: &str, flex: bool, field: &'static str) {
        self.write_len(value.len(), flex, 2, field);
        self.raw(value.as_bytes());
    }

    /// A string or, where `nullable`, null.
    pub fn str_opt(&mut self, value: &Option<Str>, flex: bool, nullable: bool, field: &'static str) {
        match value {
            Some(value) => self.str(value, flex, field),
            None => self.null(flex, 2, nullable, field),
        }
    }

    /// Bytes; a long value becomes its own part.
    pub fn bytes(&mut self, value: &Bytes, flex: bool, field: &'static str) {
        self.write_len(value.len(), flex, 4, field);
        self.shared(value);
    }

    /// Bytes or, where `nullable`, null.
    pub fn bytes_opt(&mut self, value: &Option<Bytes>, flex: bool, nullable: bool, field: &'static str) {
        match value {
            Some(value) => self.bytes(value, flex, field),
            None => self.null(flex, 4, nullable, field),
        }
    }

    /// Bytes without a length prefix; a long value becomes its own part.
    pub fn shared(&mut self, value: &Bytes) {
        if value.len() <= COPY_MAX || self.tags_open > 0 {
            self.raw(value);
        } else {
            self.cut(Part::Bytes(value.clone()));
        }
    }

    fn cut(&mut self, part: Part) {
        self.cut_len += part.len();
        self.cuts.push((self.buf.len(), part));
    }

    pub(crate) fn records(&mut self, value: &Records, flex: bool, field: &'static str) {
        match value {
            Records::Bytes(bytes) => self.bytes(bytes, flex, field),
            Records::External { token, len } => {
                if self.tags_open > 0 {
                    self.fail(field, EncodeErrorKind::ExternalNotAllowed);
                }
                self.write_len(*len as usize, flex, 4, field);
                if *len > 0 {
                    self.cut(Part::External {
                        token: *token,
                        len: *len,
                    });
                }
            }
        }
    }

    pub(crate) fn records_opt(
        &mut self,
        value: &Option<Records>,
        flex: bool,
        nullable: bool,
        field: &'static str,
    ) {
        match value {
            Some(value) => self.records(value, flex, field),
            None => self.null(flex, 4, nullable, field),
        }
    }

    /// The error for a non-default value of a field that this version lacks.
    #[cold]
    #[inline(never)]
    pub(crate) fn not_in_version(&mut self, field: &'static str) {
        let version = self.version;
        self.fail(field, EncodeErrorKind::NotInVersion(version));
    }

    /// The unknown tagged fields of a structure that knows none.
    pub(crate) fn unknown_tags(&mut self, unknown: &TaggedFields, flex: bool, field: &'static str) {
        if flex && unknown.is_empty() {
            self.buf.push(0);
        } else if flex {
            let tags = self.tags(0, unknown, field);
            self.tags_end(tags);
        } else if !unknown.is_empty() {
            let version = self.version;
            self.fail(field, EncodeErrorKind::TagsNotInVersion(version));
        }
    }

    /// Begins a structure's tagged fields; `known` known ones follow.
    pub(crate) fn tags<'a>(
        &mut self,
        known: u32,
        unknown: &'a TaggedFields,
        field: &'static str,
    ) -> TagWriter<'a> {
        self.uvarint(known + unknown.len() as u32);
        TagWriter {
            unknown,
            next: 0,
            size_at: 0,
            field,
        }
    }

    /// Begins the known field `tag` if it is `present`, after writing the unknown fields with smaller tags.
    pub(crate) fn tag(&mut self, tags: &mut TagWriter<'_>, tag: u32, present: bool) -> bool {
        self.unknown_below(tags, u64::from(tag));
        tags.next = u64::from(tag) + 1;
        if present {
            self.uvarint(tag);
            tags.size_at = self.buf.len();
            self.buf.push(0);
            self.tags_open += 1;
        }
        present
    }

    /// Ends the field begun by [`Writer::tag`]: writes its size before it.
    pub(crate) fn tag_end(&mut self, tags: &mut TagWriter<'_>) {
        self.tags_open -= 1;
        let start = tags.size_at + 1;
        let size = self.buf.len() - start;
        let Ok(size) = u32::try_from(size) else {
            return self.fail(tags.field, EncodeErrorKind::TooLong(size));
        };
        if size < 0x80 {
            self.buf[tags.size_at] = size as u8;
        } else {
            let mut prefix = Self::new();
            prefix.uvarint(size);
            self.buf.splice(tags.size_at..start, prefix.buf);
        }
    }

    /// Writes the unknown fields after the last known one.
    pub(crate) fn tags_end(&mut self, mut tags: TagWriter<'_>) {
        self.unknown_below(&mut tags, u64::MAX);
    }

    fn unknown_below(&mut self, tags: &mut TagWriter<'_>, below: u64) {
        while let [first, rest @ ..] = tags.unknown {
            let tag = u64::from(first.tag);
            if tag < tags.next {
                self.fail(tags.field, EncodeErrorKind::TagOrder(first.tag));
            }
            if tag >= below {
                break;
            }
            self.uvarint(first.tag);
            self.uvarint(first.data.len() as u32);
            self.raw(&first.data);
            tags.next = tag + 1;
            tags.unknown = rest;
        }
    }
}

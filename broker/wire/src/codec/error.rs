//! Errors of decoding (the peer's fault) and of encoding (the caller's fault).

use std::fmt;

/// Bytes that can't be decoded as the message: the fault of the peer, or of a damaged disk.
///
/// One word wide, so that results of hot reads stay in registers; allocated only for an error.
#[derive(Clone, PartialEq, Eq)]
pub struct DecodeError(Box<DecodeFault>);

#[derive(Clone, PartialEq, Eq)]
struct DecodeFault {
    message: &'static str,
    field: &'static str,
    offset: usize,
    kind: DecodeErrorKind,
}

/// What is wrong with the bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DecodeErrorKind {
    /// The bytes end before the value does.
    Truncated {
        /// Bytes that the value needs from its start.
        needed: usize,
        /// Bytes that remain there.
        left: usize,
    },
    /// A length below -1.
    NegativeLength(i32),
    /// An array longer than the remaining bytes could hold, or a string longer than Kafka's limit of 32,767 bytes.
    LengthTooLong(u32),
    /// The decoded value exceeds the reader's memory limit.
    TooMuch {
        /// The limit, in bytes.
        max: usize,
    },
    /// A string that isn't UTF-8.
    InvalidUtf8,
    /// Null where this version allows none.
    NullNotAllowed,
    /// A variable-length integer of more than five bytes or more than 32 bits.
    BadVarint,
    /// A tag occurs twice in one structure.
    DuplicateTag(u32),
    /// A tag follows a greater one; tags must ascend.
    TagOrder(u32),
    /// A known tag in a version that doesn't have it.
    TagNotInVersion(u32),
    /// The value of a tagged field is shorter than its size says.
    TagSize {
        /// The unread bytes.
        left: usize,
    },
    /// A version of the message that doesn't exist.
    UnknownVersion(i16),
    /// An API key that doesn't exist.
    UnknownApiKey(i16),
    /// A record type that doesn't exist.
    UnknownRecordType(u32),
    /// A version of a metadata record's frame that doesn't exist.
    UnknownFrameVersion(u32),
    /// Bytes follow the end of the message.
    TrailingBytes(usize),
}

impl DecodeError {
    #[cold]
    #[inline(never)]
    pub(crate) fn new(
        message: &'static str,
        field: &'static str,
        offset: usize,
        kind: DecodeErrorKind,
    ) -> Self {
        Self(Box::new(DecodeFault {
            message,
            field,
            offset,
            kind,
        }))
    }

    /// The message being decoded, as in `FetchRequest`.
    pub fn message(&self) -> &'static str {
        self.0.message
    }

    /// The structure and field being decoded, as in `FetchTopic.partitions`; empty if the error concerns the whole message.
    pub fn field(&self) -> &'static str {
        self.0.field
    }

    /// The position of the error in bytes from the reader's start.
    pub fn offset(&self) -> usize {
        self.0.offset
    }

    /// What is wrong.
    pub fn kind(&self) -> DecodeErrorKind {
        self.0.kind
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fault = &self.0;
        write!(f, "{}", fault.message)?;
        if !fault.field.is_empty() {
            write!(f, ", {}", fault.field)?;
        }
        write!(f, " at byte {}: ", fault.offset)?;
        match fault.kind {
            DecodeErrorKind::Truncated { needed, left } => write!(f, "needs {needed} bytes, {left} are left"),
            DecodeErrorKind::NegativeLength(n) => write!(f, "a length of {n}"),
            DecodeErrorKind::LengthTooLong(n) => write!(f, "a length of {n} is too long"),
            DecodeErrorKind::TooMuch { max } => write!(f, "it decodes to more than {max} bytes"),
            DecodeErrorKind::InvalidUtf8 => f.write_str("not UTF-8"),
            DecodeErrorKind::NullNotAllowed => f.write_str("null is not allowed"),
            DecodeErrorKind::BadVarint => f.write_str("a variable-length integer past 32 bits"),
            DecodeErrorKind::DuplicateTag(tag) => write!(f, "tag {tag} comes twice"),
            DecodeErrorKind::TagOrder(tag) => write!(f, "tag {tag} follows a greater one"),
            DecodeErrorKind::TagNotInVersion(tag) => write!(f, "tag {tag} does not exist in this version"),
            DecodeErrorKind::TagSize { left } => write!(f, "the tagged field has {left} bytes left over"),
            DecodeErrorKind::UnknownVersion(v) => write!(f, "no version {v}"),
            DecodeErrorKind::UnknownApiKey(key) => write!(f, "no API key {key}"),
            DecodeErrorKind::UnknownRecordType(t) => write!(f, "no record type {t}"),
            DecodeErrorKind::UnknownFrameVersion(v) => write!(f, "no frame version {v}"),
            DecodeErrorKind::TrailingBytes(n) => write!(f, "{n} bytes follow the end"),
        }
    }
}

impl fmt::Debug for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for DecodeError {}

/// A value that can't be encoded in the requested version: the caller's fault.
#[derive(Clone, PartialEq, Eq)]
pub struct EncodeError(Box<EncodeFault>);

#[derive(Clone, PartialEq, Eq)]
struct EncodeFault {
    message: &'static str,
    field: &'static str,
    kind: EncodeErrorKind,
}

/// What is wrong with the value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EncodeErrorKind {
    /// A version of the message that doesn't exist.
    UnknownVersion(i16),
    /// A non-default value of a field that this version lacks.
    NotInVersion(i16),
    /// Null where this version allows none.
    NullNotAllowed,
    /// Longer than its length prefix can express.
    TooLong(usize),
    /// Unknown tagged fields in a version that has no tagged fields.
    TagsNotInVersion(i16),
    /// Unknown tagged fields that don't ascend, repeat, or use the tag of a known field.
    TagOrder(u32),
    /// External records where the bytes are needed: in a tagged field, or in a single buffer.
    ExternalNotAllowed,
}

impl EncodeError {
    #[cold]
    #[inline(never)]
    pub(crate) fn new(message: &'static str, field: &'static str, kind: EncodeErrorKind) -> Self {
        Self(Box::new(EncodeFault { message, field, kind }))
    }

    /// The message being encoded.
    pub fn message(&self) -> &'static str {
        self.0.message
    }

    /// The structure and field, as in `FetchTopic.partitions`; empty if the error concerns the whole message.
    pub fn field(&self) -> &'static str {
        self.0.field
    }

    /// What is wrong.
    pub fn kind(&self) -> EncodeErrorKind {
        self.0.kind
    }
}

impl fmt::Display for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fault = &self.0;
        write!(f, "{}", fault.message)?;
        if !fault.field.is_empty() {
            write!(f, ", {}", fault.field)?;
        }
        match fault.kind {
            EncodeErrorKind::UnknownVersion(v) => write!(f, ": no version {v}"),
            EncodeErrorKind::NotInVersion(v) => write!(f, ": set, but version {v} has no such field"),
            EncodeErrorKind::NullNotAllowed => f.write_str(": null is not allowed"),
            EncodeErrorKind::TooLong(n) => write!(f, ": a length of {n} is too long"),
            EncodeErrorKind::TagsNotInVersion(v) => write!(f, ": tagged fields, but version {v} has none"),
            EncodeErrorKind::TagOrder(tag) => {
                write!(f, ": unknown tag {tag} is known, twice or out of order")
            }
            EncodeErrorKind::ExternalNotAllowed => {
                f.write_str(": the bytes of external records are not here")
            }
        }
    }
}

impl fmt::Debug for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for EncodeError {}

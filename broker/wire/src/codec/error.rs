//! What can be wrong with bytes (the peer's fault) or with a value (the caller's).

use std::fmt;

/// Bytes that are not the message they were read as: the peer's fault, or a damaged disk's.
///
/// One word wide, so that the results of hot reads stay in registers; made only where something is wrong.
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
    /// The bytes end before the value does: so many more are needed than are left.
    Truncated {
        /// Bytes that the value needs from its beginning.
        needed: usize,
        /// Bytes that are left there.
        left: usize,
    },
    /// A length below -1.
    NegativeLength(i32),
    /// An array longer than the bytes that are left could hold, or a string past Kafka's limit of 32,767 bytes.
    LengthTooLong(u32),
    /// What is decoded takes up more memory than its reader may spend.
    TooMuch {
        /// In bytes.
        max: usize,
    },
    /// A string that isn't UTF-8.
    InvalidUtf8,
    /// Null where this version allows none.
    NullNotAllowed,
    /// A variable-length integer of more than five bytes or more than 32 bits.
    BadVarint,
    /// This tag has come already in the same structure.
    DuplicateTag(u32),
    /// Tags must ascend; this one follows a greater one.
    TagOrder(u32),
    /// A known tag in a version that doesn't have it.
    TagNotInVersion(u32),
    /// A tagged field's value ends so many bytes before the size that was told.
    TagSize {
        /// Bytes left over.
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
    /// So many bytes follow the message's end.
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

    /// The message that was being read, as in `FetchRequest`.
    pub fn message(&self) -> &'static str {
        self.0.message
    }

    /// The structure and field that was being read, as in `FetchTopic.partitions`; empty where the message as a whole is
    /// wrong.
    pub fn field(&self) -> &'static str {
        self.0.field
    }

    /// Where it began, in bytes from the reader's beginning.
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

/// A value that its message, in the version asked for, can't carry: the caller's fault.
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
    /// The field has a value other than its default, and this version has no such field.
    NotInVersion(i16),
    /// Null where this version allows none.
    NullNotAllowed,
    /// Longer than the length before it can say.
    TooLong(usize),
    /// Unknown tagged fields in a version that has no tagged fields.
    TagsNotInVersion(i16),
    /// Unknown tagged fields that don't ascend, come twice, or bear the tag of a known field.
    TagOrder(u32),
    /// External records where the bytes themselves are needed: in a tagged field, or in one piece.
    ExternalNotAllowed,
}

impl EncodeError {
    #[cold]
    #[inline(never)]
    pub(crate) fn new(message: &'static str, field: &'static str, kind: EncodeErrorKind) -> Self {
        Self(Box::new(EncodeFault { message, field, kind }))
    }

    /// The message that was being written.
    pub fn message(&self) -> &'static str {
        self.0.message
    }

    /// The structure and field, as in `FetchTopic.partitions`; empty where the message as a whole is wrong.
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

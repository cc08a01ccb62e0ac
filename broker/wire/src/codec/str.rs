//! A string that shares the bytes it was decoded from.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Deref;

use bytes::Bytes;

/// Maximum length of an error message in a response, in bytes. Messages quote peers' texts, and a string of 32,767 bytes
/// with a sentence around it can't be encoded.
pub const MESSAGE_LEN_MAX: usize = 1024;

/// An immutable UTF-8 string, cheap to clone. A decoded one is a slice of its frame and keeps the whole frame alive; use
/// [`Str::detached`] for strings that outlive the request.
#[derive(Clone, Default)]
pub struct Str(Bytes);

impl Str {
    /// The empty string.
    pub const EMPTY: Self = Self(Bytes::new());

    /// A static string.
    pub const fn from_static(s: &'static str) -> Self {
        Self(Bytes::from_static(s.as_bytes()))
    }

    /// A copy of `s` in its own memory.
    pub fn copied(s: &str) -> Self {
        Self(Bytes::copy_from_slice(s.as_bytes()))
    }

    /// An error message for a response: `text`, clipped to [`MESSAGE_LEN_MAX`] bytes at a character boundary. Use it for
    /// every message that may quote a peer's text.
    pub fn message(text: &str) -> Self {
        Self::clipped(text, MESSAGE_LEN_MAX)
    }

    /// The same, clipped to `len_max` bytes (more than ten), for a message repeated for many partitions.
    pub fn clipped(text: &str, len_max: usize) -> Self {
        const CLIPPED: &str = " [clipped]";
        if text.len() <= len_max {
            return Self::copied(text);
        }
        let end = text.floor_char_boundary(len_max.saturating_sub(CLIPPED.len()));
        Self::from(format!("{}{CLIPPED}", &text[..end]))
    }

    /// Converts bytes to a string without a copy; returns the bytes if they aren't UTF-8.
    pub fn from_utf8(bytes: Bytes) -> Result<Self, Bytes> {
        match std::str::from_utf8(&bytes) {
            Ok(_) => Ok(Self(bytes)),
            Err(_) => Err(bytes),
        }
    }

    /// A copy in its own memory, which doesn't keep a frame alive.
    #[must_use]
    pub fn detached(&self) -> Self {
        Self::copied(self)
    }

    /// Whether both share the same bytes in memory.
    pub fn shares(&self, other: &Self) -> bool {
        std::ptr::eq(&raw const *self.0, &raw const *other.0)
    }

    /// The text.
    #[inline]
    pub fn as_str(&self) -> &str {
        // SAFETY: every constructor takes a `str` or has checked that its bytes are UTF-8, and `Bytes` never change.
        unsafe { std::str::from_utf8_unchecked(&self.0) }
    }

    /// The bytes of the text, shared.
    pub fn as_bytes(&self) -> &Bytes {
        &self.0
    }
}

// Compares bytes, like `str`, but skips the comparison if both share the same memory: a peer may repeat a long name for many
// partitions.
impl PartialEq for Str {
    fn eq(&self, other: &Self) -> bool {
        self.shares(other) || self.0 == other.0
    }
}

impl Eq for Str {}

impl Ord for Str {
    fn cmp(&self, other: &Self) -> Ordering {
        match self.shares(other) {
            true => Ordering::Equal,
            false => self.0.cmp(&other.0),
        }
    }
}

impl PartialOrd for Str {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Deref for Str {
    type Target = str;

    #[inline]
    fn deref(&self) -> &str {
        self.as_str()
    }
}

impl AsRef<str> for Str {
    fn as_ref(&self) -> &str {
        self
    }
}

// Lets a map keyed by `Str` be searched with a `str`: both compare by bytes, and `Hash` is `str`'s own.
impl Borrow<str> for Str {
    fn borrow(&self) -> &str {
        self
    }
}

impl Hash for Str {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

impl From<&'static str> for Str {
    fn from(s: &'static str) -> Self {
        Self::from_static(s)
    }
}

impl From<String> for Str {
    fn from(s: String) -> Self {
        Self(Bytes::from(s.into_bytes()))
    }
}

impl From<Str> for String {
    fn from(s: Str) -> Self {
        s.as_str().to_owned()
    }
}

impl From<Str> for Bytes {
    fn from(s: Str) -> Self {
        s.0
    }
}

impl PartialEq<str> for Str {
    fn eq(&self, other: &str) -> bool {
        self.as_str() == other
    }
}

impl PartialEq<&str> for Str {
    fn eq(&self, other: &&str) -> bool {
        self.as_str() == *other
    }
}

impl PartialEq<Str> for str {
    fn eq(&self, other: &Str) -> bool {
        self == other.as_str()
    }
}

impl PartialEq<Str> for &str {
    fn eq(&self, other: &Str) -> bool {
        *self == other.as_str()
    }
}

impl fmt::Display for Str {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self.as_str(), f)
    }
}

impl fmt::Debug for Str {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_clipped_between_characters() {
        assert_eq!(Str::message("short"), "short");
        let exact = "x".repeat(MESSAGE_LEN_MAX);
        assert_eq!(Str::message(&exact), exact.as_str());
        for lead in 0..4 {
            let long = format!("{}{}", "x".repeat(lead), "\u{1f980}".repeat(9000));
            let clipped = Str::message(&long);
            assert!(clipped.len() <= MESSAGE_LEN_MAX && clipped.len() > MESSAGE_LEN_MAX - 4);
            assert!(clipped.ends_with("\u{1f980} [clipped]"));
        }
    }
}

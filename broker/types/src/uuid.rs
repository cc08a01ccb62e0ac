//! 128-bit ids in Kafka's text format.

use std::fmt;
use std::str::FromStr;

/// A topic, directory or cluster id. Shown as Kafka shows it: 22 characters of URL-safe base64 without padding.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Uuid([u8; 16]);

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

impl Uuid {
    /// Kafka's `ZERO_UUID`: no id.
    pub const ZERO: Self = Self([0; 16]);
    /// Kafka's `METADATA_TOPIC_ID`, the id of `__cluster_metadata`.
    pub const METADATA_TOPIC: Self = Self([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);

    /// The id of these bytes, most significant first.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The bytes, most significant first, as on the wire.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// A version-4 id of 16 random bytes. Kafka never hands out an id that starts with a dash (it would look like an
    /// option on a command line), nor one of its reserved ones: neither does this, by clearing the topmost bit.
    pub const fn from_random(mut bytes: [u8; 16]) -> Self {
        bytes[6] = (bytes[6] & 0x0f) | 0x40;
        bytes[8] = (bytes[8] & 0x3f) | 0x80;
        bytes[0] &= 0x7f;
        Self(bytes)
    }

    /// Whether this is [`Uuid::ZERO`].
    pub fn is_zero(&self) -> bool {
        *self == Self::ZERO
    }
}

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bits = u128::from_be_bytes(self.0);
        let mut out = [0u8; 22];
        for (i, c) in out.iter_mut().enumerate() {
            // 21 groups of 6 bits from the top, then 2 bits padded with zeros.
            let shift = 128 - 6 * (i as i32 + 1);
            let six = if shift >= 0 { bits >> shift } else { bits << -shift } & 0x3f;
            *c = ALPHABET[six as usize];
        }
        f.write_str(std::str::from_utf8(&out).map_err(|_| fmt::Error)?)
    }
}

impl fmt::Debug for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is not 22 characters of URL-safe base64.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ParseUuidError;

impl fmt::Display for ParseUuidError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an id is 22 characters of URL-safe base64")
    }
}

impl std::error::Error for ParseUuidError {}

impl FromStr for Uuid {
    type Err = ParseUuidError;

    fn from_str(s: &str) -> Result<Self, ParseUuidError> {
        if s.len() != 22 {
            return Err(ParseUuidError);
        }
        let mut bits: u128 = 0;
        for (i, c) in s.bytes().enumerate() {
            let six = ALPHABET.iter().position(|a| *a == c).ok_or(ParseUuidError)? as u128;
            bits = if i < 21 {
                (bits << 6) | six
            } else {
                (bits << 2) | (six >> 4)
            };
        }
        Ok(Self(bits.to_be_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_kafkas() {
        assert_eq!(Uuid::ZERO.to_string(), "AAAAAAAAAAAAAAAAAAAAAA");
        assert_eq!(Uuid::METADATA_TOPIC.to_string(), "AAAAAAAAAAAAAAAAAAAAAQ");
        let id = Uuid::from_bytes(std::array::from_fn(|i| (i * 17) as u8));
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!("nonsense".parse::<Uuid>(), Err(ParseUuidError));
    }

    #[test]
    fn a_random_id_never_starts_with_a_dash() {
        for top in 0..=255u8 {
            let id = Uuid::from_random([top; 16]);
            assert!(!id.to_string().starts_with('-'), "{id}");
            assert!(!id.is_zero() && id != Uuid::METADATA_TOPIC);
        }
    }
}

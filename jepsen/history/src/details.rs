//! Optional facts about single sends and records: outcomes and digests.
//!
//! They are kept beside the micro-operations, since most histories have none of them.

use std::collections::BTreeMap;

use crate::stage::Type;

/// A digest of a record's content; see [`digest`].
pub type Digest = u32;

/// Outcomes of single sends, and digests of records, of one operation.
#[derive(Clone, Default, PartialEq, Eq, Hash, Debug)]
pub struct Details {
    outcomes: BTreeMap<usize, Type>,
    /// By micro-operation and record.
    digests: BTreeMap<(usize, usize), Digest>,
}

impl Details {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.outcomes.is_empty() && self.digests.is_empty()
    }

    /// The outcome of the send that is the `micro`th micro-operation, if it has one of its own.
    pub fn outcome(&self, micro: usize) -> Option<Type> {
        self.outcomes.get(&micro).copied()
    }

    /// Sets the outcome of a send: [`Type::Ok`], [`Type::Fail`] or [`Type::Info`].
    ///
    /// # Panics
    /// If it is [`Type::Invoke`].
    pub fn set_outcome(&mut self, micro: usize, outcome: Type) {
        assert_ne!(outcome, Type::Invoke, "an invocation is not an outcome");
        self.outcomes.insert(micro, outcome);
    }

    /// The digest of a record. `record` counts the records of the `micro`th micro-operation: a send has one, and a poll has
    /// those of its keys in the order of [`crate::Polls`].
    pub fn digest(&self, micro: usize, record: usize) -> Option<Digest> {
        self.digests.get(&(micro, record)).copied()
    }

    /// Sets the digest of a record; the arguments are those of [`Self::digest`].
    pub fn set_digest(&mut self, micro: usize, record: usize, digest: Digest) {
        self.digests.insert((micro, record), digest);
    }
}

/// The content of a record, for its [`digest`].
#[derive(Clone, Copy, Debug)]
pub struct Content<'a> {
    /// The key; `None` is Kafka's null.
    pub key: Option<&'a [u8]>,
    /// The value; `None` is a tombstone.
    pub value: Option<&'a [u8]>,
    /// Names and values of the headers, in order.
    pub headers: &'a [(&'a [u8], Option<&'a [u8]>)],
    /// The timestamp in milliseconds; `None` if the broker sets it (`LogAppendTime`), so that the sender can't know it.
    pub timestamp: Option<i64>,
}

/// The digest of a record's content: the CRC-32 of zlib and `java.util.zip` over this, with big-endian integers of 32 bits (of
/// 64 for the timestamp, which is −1 if there is none):
///
/// ```text
/// key length │ key │ value length │ value │ number of headers │ name length │ name │ value length │ value │ … │ timestamp
/// ```
/// The length of a null is −1. A checker only compares digests, so recorders may agree on another definition.
///
/// ```
/// use brokkr_history::{Content, digest};
/// let content = Content { key: Some(b"k"), value: Some(b"v"), headers: &[], timestamp: Some(7) };
/// assert_eq!(digest(&content), 0x7cad_5d0a);
/// assert_ne!(digest(&Content { key: None, ..content }), digest(&content));
/// ```
pub fn digest(content: &Content<'_>) -> Digest {
    let mut crc = crc32fast::Hasher::new();
    let field = |crc: &mut crc32fast::Hasher, bytes: Option<&[u8]>| match bytes {
        Some(bytes) => {
            crc.update(&length(bytes.len()));
            crc.update(bytes);
        }
        None => crc.update(&(-1i32).to_be_bytes()),
    };
    field(&mut crc, content.key);
    field(&mut crc, content.value);
    crc.update(&length(content.headers.len()));
    for (name, value) in content.headers {
        field(&mut crc, Some(name));
        field(&mut crc, *value);
    }
    crc.update(&content.timestamp.unwrap_or(-1).to_be_bytes());
    crc.finalize()
}

/// A length as Kafka has it; no record reaches the limit.
fn length(n: usize) -> [u8; 4] {
    i32::try_from(n).unwrap_or(i32::MAX).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_of_the_content_counts() {
        let headers: [(&[u8], Option<&[u8]>); 2] = [(b"a", Some(b"1")), (b"b", None)];
        let swapped = [headers[1], headers[0]];
        let content = Content {
            key: Some(b"k"),
            value: Some(b"v"),
            headers: &headers,
            timestamp: Some(1),
        };
        let all = [
            content,
            Content { key: None, ..content },
            Content {
                key: Some(b""),
                ..content
            },
            Content {
                key: Some(b"kv"),
                value: Some(b""),
                ..content
            },
            Content {
                value: None,
                ..content
            },
            Content {
                headers: &[],
                ..content
            },
            Content {
                headers: &swapped,
                ..content
            },
            Content {
                timestamp: Some(2),
                ..content
            },
            Content {
                timestamp: None,
                ..content
            },
        ];
        let mut digests = all.map(|c| digest(&c)).to_vec();
        digests.sort_unstable();
        digests.dedup();
        assert_eq!(digests.len(), all.len());
    }
}

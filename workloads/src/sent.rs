//! What a record carries besides its value: whether a consumer is shown what the producer sent.

use brokkr_client::ProducerRecord;
use brokkr_client::consumer::ConsumerRecord;
use brokkr_history::{Content, Digest};
use bytes::Bytes;

/// What was sent with a value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct SentRecord {
    /// The timestamp, in milliseconds.
    pub timestamp: i64,
    /// Of the key, the value with its padding, and the headers.
    pub digest: u32,
    /// The difference that was noted last, and the offset.
    noted: Option<(i64, Difference)>,
    /// Of all of it, as a history has it; `None` if the history has no digests.
    pub content: Option<Digest>,
}

impl SentRecord {
    /// Of a record to send. It must have a timestamp.
    pub fn of(record: &ProducerRecord) -> Self {
        Self {
            timestamp: record.timestamp.map_or(-1, |t| t.0),
            digest: digest(record.key.as_ref(), record.value.as_ref(), &record.headers),
            noted: None,
            content: None,
        }
    }

    /// Whether this difference at this offset was not the last that was noted: a record may be read very often.
    pub fn is_news(&mut self, offset: i64, difference: Difference) -> bool {
        self.noted.replace((offset, difference)) != Some((offset, difference))
    }

    /// How a record that was shown differs from this one; `None` if it does not.
    pub fn differs(self, shown: &ConsumerRecord) -> Option<Difference> {
        let digest = digest(shown.key.as_ref(), shown.value.as_ref(), &shown.headers);
        match () {
            () if digest != self.digest => Some(Difference::Content),
            () if shown.timestamp.0 != self.timestamp => Some(Difference::Timestamp {
                sent: self.timestamp,
                shown: shown.timestamp.0,
            }),
            () => None,
        }
    }
}

/// How a record that was shown differs from the one that was sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub enum Difference {
    /// Its key, value or headers differ.
    Content,
    /// Its timestamp differs; with `message.timestamp.type=LogAppendTime` it may.
    Timestamp {
        /// In milliseconds.
        sent: i64,
        /// In milliseconds.
        shown: i64,
    },
}

/// The history's digest of a record to send. It must have a timestamp.
pub(crate) fn content_sent(record: &ProducerRecord) -> Digest {
    let timestamp = record.timestamp.map(|t| t.0);
    content(
        record.key.as_ref(),
        record.value.as_ref(),
        &record.headers,
        timestamp,
    )
}

/// The history's digest of a record that was shown.
pub(crate) fn content_of(record: &ConsumerRecord) -> Digest {
    let timestamp = Some(record.timestamp.0);
    content(
        record.key.as_ref(),
        record.value.as_ref(),
        &record.headers,
        timestamp,
    )
}

fn content(
    key: Option<&Bytes>,
    value: Option<&Bytes>,
    headers: &[(Bytes, Option<Bytes>)],
    timestamp: Option<i64>,
) -> Digest {
    let headers: Vec<_> = headers
        .iter()
        .map(|(name, value)| (&name[..], value.as_deref()))
        .collect();
    brokkr_history::digest(&Content {
        key: key.map(|key| &key[..]),
        value: value.map(|value| &value[..]),
        headers: &headers,
        timestamp,
    })
}

/// The CRC-32 of a record's parts, each with its length before it.
fn digest(key: Option<&Bytes>, value: Option<&Bytes>, headers: &[(Bytes, Option<Bytes>)]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    let mut add = |part: Option<&Bytes>| {
        let len = part.map_or(-1, |part| part.len() as i64);
        hasher.update(&len.to_le_bytes());
        hasher.update(part.map_or(&[], |part| part));
    };
    add(key);
    add(value);
    for (name, value) in headers {
        add(Some(name));
        add(value.as_ref());
    }
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;
    use brokkr_client::TopicPartition;
    use brokkr_types::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, UnixMillis, Uuid};

    #[test]
    fn each_difference_is_seen() {
        let bytes = |text: &'static str| Some(Bytes::from(text));
        let headers = vec![(Bytes::from("a"), bytes("b")), (Bytes::from("c"), None)];
        let sent = ProducerRecord {
            headers: headers.clone(),
            timestamp: Some(UnixMillis(7)),
            ..ProducerRecord::new(TopicPartition::new("t", 0), bytes("k"), bytes("1.."))
        };
        let same = ConsumerRecord {
            topic_id: Uuid::ZERO,
            offset: Offset(3),
            timestamp: UnixMillis(7),
            key: bytes("k"),
            value: bytes("1.."),
            headers: headers.clone(),
            leader_epoch: LeaderEpoch(0),
            producer_id: ProducerId(1),
            producer_epoch: ProducerEpoch(0),
        };
        let is = |shown: &ConsumerRecord| SentRecord::of(&sent).differs(shown);
        assert_eq!(is(&same), None);
        assert_eq!(content_sent(&sent), content_of(&same));
        let later = ConsumerRecord {
            timestamp: UnixMillis(8),
            ..same.clone()
        };
        assert_eq!(is(&later), Some(Difference::Timestamp { sent: 7, shown: 8 }));
        assert_ne!(content_sent(&sent), content_of(&later));
        let moved = vec![(Bytes::from("a"), None), (Bytes::from("c"), bytes("b"))];
        for other in [
            ConsumerRecord {
                key: None,
                ..same.clone()
            },
            ConsumerRecord {
                key: bytes(""),
                ..same.clone()
            },
            ConsumerRecord {
                value: bytes("1."),
                ..same.clone()
            },
            ConsumerRecord {
                headers: headers[..1].to_vec(),
                ..same.clone()
            },
            ConsumerRecord {
                headers: moved,
                ..same
            },
        ] {
            assert_eq!(is(&other), Some(Difference::Content), "{other:?}");
            assert_ne!(content_sent(&sent), content_of(&other), "{other:?}");
        }
    }
}

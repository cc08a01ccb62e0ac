//! A record to send.

use brokkr_types::UnixMillis;
use bytes::Bytes;

use crate::TopicPartition;

/// A record to send.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ProducerRecord {
    /// The partition.
    pub to: TopicPartition,
    /// Its key.
    pub key: Option<Bytes>,
    /// Its value.
    pub value: Option<Bytes>,
    /// Its headers.
    pub headers: Vec<(Bytes, Option<Bytes>)>,
    /// Its timestamp; the environment's wall clock if there is none.
    pub timestamp: Option<UnixMillis>,
}

impl ProducerRecord {
    /// A record without headers, with the time at which it is sent.
    pub fn new(to: TopicPartition, key: Option<Bytes>, value: Option<Bytes>) -> Self {
        Self {
            to,
            key,
            value,
            headers: Vec::new(),
            timestamp: None,
        }
    }

    pub(super) fn size_bytes(&self) -> usize {
        let len = |b: &Option<Bytes>| b.as_ref().map_or(0, Bytes::len);
        let header = |(k, v): &(Bytes, Option<Bytes>)| k.len() + len(v) + 10;
        len(&self.key) + len(&self.value) + self.headers.iter().map(header).sum::<usize>() + 32
    }
}

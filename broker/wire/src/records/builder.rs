//! Building batches: for clients, the metadata log, control batches, and recompression.

use super::header::{BatchHeader, HEADER_LEN, MAGIC_V2};
use super::varint::{put_varint, put_varlong, varint_len, varlong_len};
use super::{Attributes, Batch, CompressionType, ControlType, Header, Headers, TimestampType, compression};
use brokkr_types::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, Sequence, UnixMillis};

/// Collects records into one batch.
///
/// ```
/// use brokkr_types::UnixMillis;
/// use brokkr_wire::records::{BatchBuilder, CompressionType};
///
/// let mut builder = BatchBuilder::new().compression(CompressionType::Lz4, 9);
/// builder.push(UnixMillis(1_700_000_000_000), Some(b"key"), Some(b"value"), &[]);
/// let batch = builder.build();
/// assert_eq!(batch.header.records_count, 1);
/// ```
#[derive(Clone, Debug)]
pub struct BatchBuilder {
    header: BatchHeader,
    compression: CompressionType,
    level: i32,
    log_append_time: Option<UnixMillis>,
    records: Vec<u8>,
    scratch: Vec<u8>,
}

impl Default for BatchBuilder {
    fn default() -> Self {
        Self::new()
    }
}

impl BatchBuilder {
    /// An empty batch at offset 0, uncompressed, without producer and leader epoch.
    pub fn new() -> Self {
        Self {
            header: BatchHeader {
                base_offset: Offset(0),
                batch_length: 0,
                partition_leader_epoch: LeaderEpoch::NONE,
                magic: MAGIC_V2,
                crc: 0,
                attributes: Attributes::default(),
                last_offset_delta: -1,
                base_timestamp: UnixMillis::NONE,
                max_timestamp: UnixMillis::NONE,
                producer_id: ProducerId::NONE,
                producer_epoch: ProducerEpoch(-1),
                base_sequence: Sequence::NONE,
                records_count: 0,
            },
            compression: CompressionType::None,
            level: 0,
            log_append_time: None,
            records: Vec::new(),
            scratch: Vec::new(),
        }
    }

    /// Compresses the records; see [`compression::compress`] for the levels.
    #[must_use]
    pub fn compression(mut self, codec: CompressionType, level: i32) -> Self {
        (self.compression, self.level) = (codec, level);
        self
    }

    /// Sets the batch's offset and leader epoch.
    #[must_use]
    pub fn at(mut self, base_offset: Offset, epoch: LeaderEpoch) -> Self {
        (self.header.base_offset, self.header.partition_leader_epoch) = (base_offset, epoch);
        self
    }

    /// Sets the idempotent producer. A control batch has no sequence: [`Sequence::NONE`].
    #[must_use]
    pub fn producer(mut self, id: ProducerId, epoch: ProducerEpoch, base_sequence: Sequence) -> Self {
        (self.header.producer_id, self.header.producer_epoch) = (id, epoch);
        self.header.base_sequence = base_sequence;
        self
    }

    /// Makes the batch part of its producer's transaction.
    #[must_use]
    pub fn transactional(mut self) -> Self {
        self.header.attributes = self.header.attributes.with_transactional(true);
        self
    }

    /// Makes it a control batch, to be filled by [`BatchBuilder::push_control`].
    #[must_use]
    pub fn control(mut self) -> Self {
        self.header.attributes = self.header.attributes.with_control(true);
        self
    }

    /// Sets the append time as the timestamp of all records.
    #[must_use]
    pub fn log_append_time(mut self, now: UnixMillis) -> Self {
        self.log_append_time = Some(now);
        self
    }

    /// Appends a record at the next offset.
    ///
    /// # Panics
    /// If the batch has 2³¹ records already or the record is 2 GiB or larger: a caller's bug.
    pub fn push(
        &mut self,
        timestamp: UnixMillis,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[Header<'_>],
    ) {
        let delta = self.next_offset_delta();
        self.push_at(delta, timestamp, key, value, headers);
    }

    /// Appends a record at `offset_delta` past the batch's offset, leaving gaps as compaction does.
    ///
    /// # Panics
    /// As [`BatchBuilder::push`], and if the offset is not past the last record's.
    pub fn push_at(
        &mut self,
        offset_delta: i32,
        timestamp: UnixMillis,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[Header<'_>],
    ) {
        let mut encoded = std::mem::take(&mut self.scratch);
        encoded.clear();
        for header in headers {
            put_nullable(&mut encoded, Some(header.key));
            put_nullable(&mut encoded, header.value);
        }
        let count = i32::try_from(headers.len()).expect("a record has fewer than 2^31 headers");
        self.push_encoded(
            offset_delta,
            timestamp,
            key,
            value,
            Headers {
                count,
                bytes: &encoded,
            },
        );
        self.scratch = encoded;
    }

    /// Appends a control record.
    ///
    /// # Panics
    /// If this is not a control batch.
    pub fn push_control(&mut self, timestamp: UnixMillis, control: ControlType, value: &[u8]) {
        assert!(
            self.header.attributes.is_control(),
            "a control record outside of a control batch"
        );
        self.push(timestamp, Some(&control.key()), Some(value), &[]);
    }

    pub(super) fn push_encoded(
        &mut self,
        offset_delta: i32,
        timestamp: UnixMillis,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: Headers<'_>,
    ) {
        assert!(
            offset_delta > self.header.last_offset_delta,
            "offsets in a batch rise"
        );
        if self.header.records_count == 0 {
            self.header.base_timestamp = timestamp;
        }
        let timestamp_delta = timestamp.0.wrapping_sub(self.header.base_timestamp.0);
        let out = &mut self.records;
        let len = record_len((timestamp_delta, offset_delta), key, value, headers);
        put_varint(out, i32::try_from(len).expect("a record is below 2 GiB"));
        out.push(0);
        put_varlong(out, timestamp_delta);
        put_varint(out, offset_delta);
        put_nullable(out, key);
        put_nullable(out, value);
        put_varint(out, headers.count);
        out.extend_from_slice(headers.bytes);

        self.header.records_count += 1;
        self.header.last_offset_delta = offset_delta;
        self.header.max_timestamp = self.header.max_timestamp.max(timestamp);
    }

    /// The number of records.
    pub fn records_count(&self) -> i32 {
        self.header.records_count
    }

    /// The uncompressed size of the batch.
    pub fn size_bytes(&self) -> usize {
        HEADER_LEN + self.records.len()
    }

    /// Whether there are no records.
    pub fn is_empty(&self) -> bool {
        self.header.records_count == 0
    }

    fn next_offset_delta(&self) -> i32 {
        self.header
            .last_offset_delta
            .checked_add(1)
            .expect("a batch has at most 2^31 records")
    }

    /// Builds the batch.
    ///
    /// # Panics
    /// If nothing was pushed, or it is of 2 GiB or more.
    pub fn build(&self) -> Batch {
        assert!(!self.is_empty(), "a batch has records");
        let mut header = self.header;
        header.attributes = header.attributes.with_compression(self.compression);
        if let Some(now) = self.log_append_time {
            header.attributes = header
                .attributes
                .with_timestamp_type(TimestampType::LogAppendTime);
            header.max_timestamp = now;
        }
        match self.compression {
            CompressionType::None => Batch::assemble(header, &self.records),
            codec => Batch::assemble(header, &compression::compress(codec, self.level, &self.records)),
        }
    }
}

/// What follows the length of a record, in bytes.
pub(super) fn record_len(
    (timestamp_delta, offset_delta): (i64, i32),
    key: Option<&[u8]>,
    value: Option<&[u8]>,
    headers: Headers<'_>,
) -> usize {
    1 + varlong_len(timestamp_delta)
        + varint_len(offset_delta)
        + nullable_len(key)
        + nullable_len(value)
        + varint_len(headers.count)
        + headers.bytes.len()
}

fn nullable_len(field: Option<&[u8]>) -> usize {
    match field {
        None => 1,
        Some(bytes) => varlong_len(bytes.len() as i64) + bytes.len(),
    }
}

pub(super) fn put_nullable(out: &mut Vec<u8>, field: Option<&[u8]>) {
    match field {
        None => put_varint(out, -1),
        Some(bytes) => {
            put_varlong(out, bytes.len() as i64);
            out.extend_from_slice(bytes);
        }
    }
}

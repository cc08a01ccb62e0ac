//! Recompresses a batch whose topic has another compression type.
//!
//! Records are encoded and compressed in pieces: besides the input, memory holds only the output.

use super::builder::{put_nullable, record_len};
use super::compression::{Compressor, TooMany};
use super::header::MAGIC_V2;
use super::pace::Pace;
use super::varint::{put_varint, put_varlong, varint_len};
use super::{
    Attributes, Batch, BatchError, BatchHeader, CompressionType, HEADER_LEN, Record, RecordError,
    TimestampType,
};
use brokkr_types::{LeaderEpoch, UnixMillis};

/// Records measured between two checks of the pace, and the units for each.
const LENGTHS_AT_ONCE: i32 = 4096;
const LENGTH_UNITS: usize = 16;
/// Encoded records buffered before they are compressed. Larger records are not copied.
const PIECE_BYTES: usize = 16 << 10;

/// The input and the settings of recompressing a batch.
pub(super) struct Rebuild<'a> {
    /// The original header.
    pub header: &'a BatchHeader,
    /// The records, decompressed and validated.
    pub body: &'a [u8],
    /// The maximum timestamp of the records.
    pub max_timestamp: UnixMillis,
    /// The new codec and its level.
    pub target: (CompressionType, i32),
    /// The append time, if records have that timestamp type.
    pub log_append_time: Option<UnixMillis>,
    /// `max.message.bytes`.
    pub max_message_bytes: i32,
}

impl Rebuild<'_> {
    /// Builds the batch, with a [`Pace`]. Cancel-safe.
    ///
    /// # Errors
    /// [`RecordError::TooLarge`], as soon as it is certain; the size in it is a lower bound.
    pub async fn build(self, pace: &mut Pace) -> Result<Batch, RecordError> {
        let too_large = |size_bytes| RecordError::TooLarge {
            size_bytes,
            max: self.max_message_bytes,
        };
        let (base_timestamp, len) = self.records_len(pace).await?;
        let bytes_max = usize::try_from(self.max_message_bytes).unwrap_or(0);
        let first = match self.target.0 {
            CompressionType::None if HEADER_LEN + len > bytes_max => return Err(too_large(HEADER_LEN + len)),
            CompressionType::None => len,
            _ => (len / 4).min(bytes_max),
        };
        let mut out = Vec::with_capacity(HEADER_LEN + first);
        out.resize(HEADER_LEN, 0);
        let compressor = Compressor::new(self.target, len, out, bytes_max);
        let out = self.compress(pace, compressor, base_timestamp).await?;
        let mut out = out.map_err(|TooMany(size_bytes)| too_large(size_bytes))?;
        out.shrink_to_fit();
        Ok(Batch::completed(pace, self.header(base_timestamp), out).await)
    }

    fn header(&self, base_timestamp: UnixMillis) -> BatchHeader {
        let from = self.header.attributes;
        let attributes = Attributes::default()
            .with_transactional(from.is_transactional())
            .with_control(from.is_control())
            .with_compression(self.target.0);
        let (attributes, max_timestamp) = match self.log_append_time {
            Some(now) => (attributes.with_timestamp_type(TimestampType::LogAppendTime), now),
            None => (attributes, self.max_timestamp),
        };
        BatchHeader {
            base_offset: self.header.base_offset,
            batch_length: 0,
            partition_leader_epoch: LeaderEpoch::NONE,
            magic: MAGIC_V2,
            crc: 0,
            attributes,
            last_offset_delta: self.header.records_count - 1,
            base_timestamp,
            max_timestamp,
            producer_id: self.header.producer_id,
            producer_epoch: self.header.producer_epoch,
            base_sequence: self.header.base_sequence,
            records_count: self.header.records_count,
        }
    }

    /// The timestamp of the first record, and the encoded length of all records.
    async fn records_len(&self, pace: &mut Pace) -> Result<(UnixMillis, usize), RecordError> {
        let (mut rest, mut base_timestamp, mut len) = (self.body, UnixMillis::NONE, 0);
        for index in 0..self.header.records_count {
            let record = take(&mut rest, index)?;
            let timestamp = self.header.record_timestamp(record.timestamp_delta);
            if index == 0 {
                base_timestamp = timestamp;
            }
            let body_len = body_len(&record, timestamp_delta(timestamp, base_timestamp), index);
            len += varint_len(length(body_len)) + body_len;
            if index % LENGTHS_AT_ONCE == LENGTHS_AT_ONCE - 1 {
                pace.work(LENGTH_UNITS * LENGTHS_AT_ONCE as usize).await;
            }
        }
        Ok((base_timestamp, len))
    }

    async fn compress(
        &self,
        pace: &mut Pace,
        compressor: Compressor,
        base_timestamp: UnixMillis,
    ) -> Result<Result<Vec<u8>, TooMany>, RecordError> {
        let mut out = Pieces {
            compressor,
            piece: Vec::new(),
        };
        let mut rest = self.body;
        for index in 0..self.header.records_count {
            let record = take(&mut rest, index)?;
            let timestamp = self.header.record_timestamp(record.timestamp_delta);
            let delta = timestamp_delta(timestamp, base_timestamp);
            if let Err(too_many) = out.put(pace, &record, delta, index).await {
                return Ok(Err(too_many));
            }
        }
        Ok(out.finish(pace).await)
    }
}

fn take<'a>(rest: &mut &'a [u8], index: i32) -> Result<Record<'a>, RecordError> {
    Record::take_seen(rest).map_err(|fault| BatchError::Record { index, fault }.into())
}

fn timestamp_delta(timestamp: UnixMillis, base_timestamp: UnixMillis) -> i64 {
    timestamp.0.wrapping_sub(base_timestamp.0)
}

fn body_len(record: &Record<'_>, timestamp_delta: i64, offset_delta: i32) -> usize {
    let deltas = (timestamp_delta, offset_delta);
    record_len(deltas, record.key, record.value, record.headers)
}

fn length(body_len: usize) -> i32 {
    i32::try_from(body_len).expect("a record is below 2 GiB")
}

/// Encodes records and passes them to the compressor.
struct Pieces {
    compressor: Compressor,
    piece: Vec<u8>,
}

impl Pieces {
    async fn put(
        &mut self,
        pace: &mut Pace,
        record: &Record<'_>,
        timestamp_delta: i64,
        offset_delta: i32,
    ) -> Result<(), TooMany> {
        let body_len = body_len(record, timestamp_delta, offset_delta);
        let piece = &mut self.piece;
        put_varint(piece, length(body_len));
        piece.push(0);
        put_varlong(piece, timestamp_delta);
        put_varint(piece, offset_delta);
        if body_len <= PIECE_BYTES {
            put_nullable(piece, record.key);
            put_nullable(piece, record.value);
            put_varint(piece, record.headers.count);
            piece.extend_from_slice(record.headers.bytes);
        } else {
            for field in [record.key, record.value] {
                match field {
                    None => put_nullable(&mut self.piece, None),
                    Some(bytes) => {
                        put_varlong(&mut self.piece, bytes.len() as i64);
                        self.put_bytes(pace, bytes).await?;
                    }
                }
            }
            put_varint(&mut self.piece, record.headers.count);
            self.put_bytes(pace, record.headers.bytes).await?;
        }
        match self.piece.len() {
            ..PIECE_BYTES => Ok(()),
            _ => self.flush(pace).await,
        }
    }

    async fn put_bytes(&mut self, pace: &mut Pace, bytes: &[u8]) -> Result<(), TooMany> {
        if bytes.len() < PIECE_BYTES {
            self.piece.extend_from_slice(bytes);
            return Ok(());
        }
        self.flush(pace).await?;
        self.compressor.write(pace, bytes).await
    }

    async fn flush(&mut self, pace: &mut Pace) -> Result<(), TooMany> {
        self.compressor.write(pace, &self.piece).await?;
        self.piece.clear();
        Ok(())
    }

    async fn finish(mut self, pace: &mut Pace) -> Result<Vec<u8>, TooMany> {
        self.flush(pace).await?;
        self.compressor.finish(pace).await
    }
}

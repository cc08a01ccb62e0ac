//! Validates records before a leader appends them, like Kafka's `LogValidator` and the checks around it.
//!
//! The order is Kafka's, so that a batch with several errors gets the same error code: exactly one batch of format 2, base
//! offset, size, CRC, header, then every record. A valid batch keeps its bytes, except:
//! - if its timestamp type or maximum timestamp is wrong: then its header and CRC are rewritten;
//! - if the topic has another compression type: then it is rebuilt.
//!
//! Differences from Kafka 4.3:
//! - a batch whose records don't have the offset deltas 0, 1, 2 … is INVALID_RECORD; Kafka stores it as it is when it is
//!   not compressed (consumers then see offsets twice, or never), and trips over it when it is;
//! - a transactional batch without a producer id is INVALID_RECORD; Kafka's clients can't make such batches, and its
//!   broker doesn't look;
//! - where Kafka answers UNKNOWN_SERVER_ERROR because of an unhandled exception, this is specific: INVALID_RECORD if records
//!   can't be decompressed, UNSUPPORTED_COMPRESSION_TYPE for an unknown codec;
//! - decompressed records have a limit, above which the error is MESSAGE_TOO_LARGE;
//! - at most [`RECORD_ERRORS_MAX`] record errors are listed.

use super::pace::{self, Pace};
use super::rebuild::Rebuild;
use super::{
    Batch, BatchError, BatchHeader, CompressionType, RECORD_ERRORS_MAX, Record, RecordError, TimestampType,
    batches, compression,
};
use brokkr_types::{Offset, UnixMillis};
use bytes::Bytes;

/// Kafka's message for a record without a key in a compacted topic. Kafka adds ` in topic partition T-0`.
pub const NO_KEY: &str = "Compacted topic cannot accept message without key";

/// Records checked between two checks of the pace, and their bytes without those of the last.
const SCANNED_MAX: usize = 8192;
const SCANNED_BYTES_MAX: usize = 64 << 10;
/// Units for a record, and for each of its bytes: two bytes may be a header.
const RECORD_UNITS: usize = 16;
const UNITS_PER_BYTE: usize = 2;

/// Default limit of a batch's decompressed records, in bytes; Kafka has no such limit.
pub const DECOMPRESSED_MAX: usize = 128 << 20;

/// A topic's `compression.type`, with the level of its codec.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum CompressionConfig {
    /// `producer`: as received.
    #[default]
    Producer,
    /// `uncompressed`.
    Uncompressed,
    /// The name of a codec.
    Fixed {
        /// The codec.
        codec: CompressionType,
        /// `compression.<codec>.level`.
        level: i32,
    },
}

/// The origin of an append.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Origin {
    /// A producer, over Produce.
    Client,
    /// A coordinator on this broker: may append control records, and at any offset.
    Coordinator,
    /// A leader, through Fetch: the batch has its offset; only damage is checked.
    Replica,
}

/// A topic's rules for a batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rules {
    /// Whether `cleanup.policy` contains `compact`: every record needs a key.
    pub compaction: bool,
    /// `message.timestamp.type`.
    pub timestamp_type: TimestampType,
    /// `message.timestamp.before.max.ms`: how far behind the broker's clock a record may be.
    pub timestamp_before_max_ms: i64,
    /// `message.timestamp.after.max.ms`: how far ahead of it.
    pub timestamp_after_max_ms: i64,
    /// `max.message.bytes`: the maximum size of a batch, both received and stored.
    pub max_message_bytes: i32,
    /// `compression.type`.
    pub compression: CompressionConfig,
    /// The origin of the append.
    pub origin: Origin,
    /// Whether zstd is allowed: since Produce 7.
    pub zstd: bool,
    /// Maximum size of decompressed records, in bytes.
    pub decompressed_max: usize,
}

impl Default for Rules {
    /// The rules for a producer's batch, with Kafka's defaults for a topic.
    fn default() -> Self {
        Self {
            compaction: false,
            timestamp_type: TimestampType::CreateTime,
            timestamp_before_max_ms: i64::MAX,
            timestamp_after_max_ms: 3_600_000,
            max_message_bytes: 1_048_588,
            compression: CompressionConfig::Producer,
            origin: Origin::Client,
            zstd: true,
            decompressed_max: DECOMPRESSED_MAX,
        }
    }
}

/// A valid batch, and facts learned while validating it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Validated {
    /// The batch to append; its offset is not assigned yet ([`Batch::placed`]).
    pub batch: Batch,
    /// The largest timestamp of the batch, for the time index.
    pub max_timestamp: UnixMillis,
    /// The index of the first record with that timestamp.
    pub offset_delta_of_max_timestamp: i32,
    /// The number of records.
    pub records_count: i32,
    /// `log_append_time_ms` in the response to the producer: the time, or -1 if records keep their timestamps.
    pub log_append_time: UnixMillis,
    /// Whether the records were rewritten.
    pub rebuilt: bool,
}

/// Validates records to be appended at `now`: [`check`], then [`Validated::stamped`] with `now`.
///
/// # Errors
/// [`RecordError`].
pub fn validate(records: Bytes, rules: &Rules, now: UnixMillis) -> Result<Validated, RecordError> {
    check(records, rules, now).map(|validated| validated.stamped(now))
}

impl Validated {
    /// The batch as appended at `now`: sets the append time if the topic's timestamp type is LogAppendTime. The appender
    /// calls it in offset order, so that timestamps increase with offsets as long as the clock does.
    #[must_use]
    pub fn stamped(self, now: UnixMillis) -> Self {
        if self.log_append_time == UnixMillis::NONE {
            return self;
        }
        Self {
            batch: self.batch.stamped(TimestampType::LogAppendTime, now),
            max_timestamp: now,
            log_append_time: now,
            ..self
        }
    }
}

/// Validates records to be appended at about `now`: one batch, as a Produce request contains it for a partition (or, from a
/// leader, one of those that [`batches`] splits a Fetch response into). One pass over the records, without allocations
/// unless they are compressed or invalid. If the topic's timestamp type is LogAppendTime, `log_append_time` is set and the
/// batch must still be [`Validated::stamped`].
///
/// Does not check sequences and epochs against the producer's earlier batches: the log does.
///
/// # Errors
/// [`RecordError`].
pub fn check(records: Bytes, rules: &Rules, now: UnixMillis) -> Result<Validated, RecordError> {
    pace::done(check_at(&mut Pace::at_once(), records, rules, now))
}

/// As [`check`], with a [`Pace`]. Cancel-safe.
///
/// # Errors
/// [`RecordError`].
pub async fn check_at(
    pace: &mut Pace,
    records: Bytes,
    rules: &Rules,
    now: UnixMillis,
) -> Result<Validated, RecordError> {
    let batch = single(records)?;
    if rules.origin == Origin::Replica {
        return replicated(pace, batch).await;
    }
    check_header(pace, &batch, rules).await?;

    let header = &batch.header;
    let source = header.attributes.compression()?;
    let body =
        compression::decompress_bytes(pace, source, batch.records_bytes(), rules.decompressed_max).await?;
    let scan = Scan::over(pace, header, &body, rules, now).await?;

    // A control batch keeps its compression, as in Kafka.
    let target = match rules.compression {
        CompressionConfig::Uncompressed if !header.attributes.is_control() => (CompressionType::None, 0),
        CompressionConfig::Fixed { codec, level } if !header.attributes.is_control() => (codec, level),
        _ => (source, source.default_level()),
    };
    let (max_timestamp, log_append_time) = match rules.timestamp_type {
        TimestampType::CreateTime => (scan.max_timestamp, UnixMillis::NONE),
        TimestampType::LogAppendTime => (now, now),
    };
    let rebuilt = target.0 != source;
    let records_count = header.records_count;
    let batch = if rebuilt {
        let rebuild = Rebuild {
            header,
            body: &body,
            max_timestamp: scan.max_timestamp,
            target,
            log_append_time: (rules.timestamp_type == TimestampType::LogAppendTime).then_some(now),
            max_message_bytes: rules.max_message_bytes,
        };
        rebuild.build(pace).await?
    } else {
        match rules.timestamp_type {
            TimestampType::CreateTime => {
                batch
                    .stamped_at(pace, TimestampType::CreateTime, max_timestamp)
                    .await
            }
            TimestampType::LogAppendTime => batch,
        }
    };
    Ok(Validated {
        batch,
        max_timestamp,
        offset_delta_of_max_timestamp: match rules.timestamp_type {
            TimestampType::CreateTime => scan.index_of_max_timestamp,
            TimestampType::LogAppendTime => 0,
        },
        records_count,
        log_append_time,
        rebuilt,
    })
}

/// The only batch. Trailing bytes too short for another batch are ignored, as in Kafka.
fn single(records: Bytes) -> Result<Batch, RecordError> {
    let mut batches = batches(records);
    let first = match batches.next() {
        None => return Err(RecordError::NoBatch),
        Some(Err(e)) if e.is_partial() => return Err(RecordError::NoBatch),
        Some(first) => first?,
    };
    match batches.next() {
        None => Ok(first),
        Some(Err(e)) if e.is_partial() => Ok(first),
        Some(Ok(_) | Err(BatchError::OldFormat(_))) => Err(RecordError::MoreThanOneBatch),
        Some(Err(e)) => Err(e.into()),
    }
}

async fn replicated(pace: &mut Pace, batch: Batch) -> Result<Validated, RecordError> {
    batch.check_crc_at(pace).await?;
    let header = &batch.header;
    if header.records_count < 0 || header.last_offset_delta < 0 {
        return Err(count_error(header));
    }
    Ok(Validated {
        max_timestamp: header.max_timestamp,
        offset_delta_of_max_timestamp: header.last_offset_delta,
        records_count: header.records_count,
        log_append_time: UnixMillis::NONE,
        rebuilt: false,
        batch,
    })
}

async fn check_header(pace: &mut Pace, batch: &Batch, rules: &Rules) -> Result<(), RecordError> {
    let header = &batch.header;
    let client = rules.origin == Origin::Client;
    if !rules.zstd && header.attributes.compression() == Ok(CompressionType::Zstd) {
        return Err(RecordError::ZstdNotAllowed);
    }
    if client && header.base_offset != Offset(0) {
        return Err(RecordError::BaseOffset(header.base_offset));
    }
    check_size(batch, rules)?;
    batch.check_crc_at(pace).await?;
    if header.records_count <= 0 || header.last_offset_delta != header.records_count - 1 {
        return Err(count_error(header));
    }
    if client && header.attributes.is_control() {
        return Err(RecordError::Control);
    }
    // A coordinator's markers have no sequence. The log checks the epoch.
    if client && header.has_producer_id() && header.base_sequence.0 < 0 {
        return Err(RecordError::Producer(header.producer_id));
    }
    if header.attributes.is_transactional() && !header.has_producer_id() {
        return Err(RecordError::Transactional);
    }
    Ok(())
}

fn check_size(batch: &Batch, rules: &Rules) -> Result<(), RecordError> {
    let size_bytes = batch.bytes.len();
    if i64::try_from(size_bytes).is_ok_and(|size| size <= i64::from(rules.max_message_bytes)) {
        Ok(())
    } else {
        Err(RecordError::TooLarge {
            size_bytes,
            max: rules.max_message_bytes,
        })
    }
}

fn count_error(header: &BatchHeader) -> RecordError {
    RecordError::Count {
        records_count: header.records_count,
        last_offset_delta: header.last_offset_delta,
    }
}

/// The results of the pass over the records.
struct Scan {
    max_timestamp: UnixMillis,
    index_of_max_timestamp: i32,
}

impl Scan {
    async fn over(
        pace: &mut Pace,
        header: &BatchHeader,
        body: &[u8],
        rules: &Rules,
        now: UnixMillis,
    ) -> Result<Self, RecordError> {
        let mut scan = Self {
            max_timestamp: UnixMillis::NONE,
            index_of_max_timestamp: 0,
        };
        let mut faults = Faults::default();
        let (mut rest, mut index) = (body, 0);
        while index < header.records_count {
            let (before, first) = (rest.len(), index);
            let ended = scan.records(&mut index, &mut rest, &mut faults, (header, rules, now))?;
            let scanned = (before - rest.len(), (index - first) as usize);
            pace.work(UNITS_PER_BYTE * scanned.0 + RECORD_UNITS * scanned.1)
                .await;
            if ended == ScanEnd::ManyHeaders {
                let record = Record::take_at(pace, &mut rest).await;
                let record = record.map_err(|fault| BatchError::Record { index, fault })?;
                scan.record(index, &record, &mut faults, (header, rules, now))?;
                index += 1;
            }
        }
        if !rest.is_empty() {
            return Err(BatchError::TrailingBytes(rest.len()).into());
        }
        faults.into_result().map(|()| scan)
    }

    /// Scans records from `index` on, at least one, until the pace must be checked.
    fn records(
        &mut self,
        index: &mut i32,
        rest: &mut &[u8],
        faults: &mut Faults,
        of: (&BatchHeader, &Rules, UnixMillis),
    ) -> Result<ScanEnd, RecordError> {
        let rest_min = rest.len().saturating_sub(SCANNED_BYTES_MAX);
        // Not with the iterator: its items, results in options, cost as much as all the rest of this loop.
        for _ in 0..SCANNED_MAX {
            let before = *rest;
            let fault = |fault| BatchError::Record { index: *index, fault };
            let Some(record) = Record::take_short(rest).map_err(fault)? else {
                *rest = before;
                return Ok(ScanEnd::ManyHeaders);
            };
            self.record(*index, &record, faults, of)?;
            *index += 1;
            if *index >= of.0.records_count || rest.len() < rest_min {
                break;
            }
        }
        Ok(ScanEnd::InOneGo)
    }

    #[inline(always)]
    fn record(
        &mut self,
        index: i32,
        record: &Record<'_>,
        faults: &mut Faults,
        (header, rules, now): (&BatchHeader, &Rules, UnixMillis),
    ) -> Result<(), RecordError> {
        if record.offset_delta != index {
            return Err(RecordError::OffsetDelta {
                index,
                offset_delta: record.offset_delta,
            });
        }
        let timestamp = header.record_timestamp(record.timestamp_delta);
        if let Some(fault) = Fault::of(header, record, timestamp, rules, now) {
            faults.push(index, &fault);
        }
        if timestamp > self.max_timestamp {
            (self.max_timestamp, self.index_of_max_timestamp) = (timestamp, index);
        }
        Ok(())
    }
}

/// The reason why a scan stopped.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ScanEnd {
    /// The pace must be checked, or there are no more records.
    InOneGo,
    /// The next record has too many headers.
    ManyHeaders,
}

/// An invalid record.
enum Fault {
    NoKey,
    TimestampRange {
        timestamp: UnixMillis,
        from: i64,
        to: i64,
    },
    TimestampType,
}

impl Fault {
    #[inline]
    fn of(
        header: &BatchHeader,
        record: &Record<'_>,
        timestamp: UnixMillis,
        rules: &Rules,
        now: UnixMillis,
    ) -> Option<Self> {
        if rules.compaction && record.key.is_none() {
            return Some(Self::NoKey);
        }
        if rules.timestamp_type == TimestampType::CreateTime && timestamp != UnixMillis::NONE {
            // Wraps like Kafka's subtraction: a timestamp near the limits of i64 then counts as far in the future.
            let behind = now.0.wrapping_sub(timestamp.0);
            let out_of_range = behind > rules.timestamp_before_max_ms
                || behind.wrapping_neg() > rules.timestamp_after_max_ms;
            return out_of_range.then(|| Self::TimestampRange {
                timestamp,
                from: now.0.saturating_sub(rules.timestamp_before_max_ms),
                to: now.0.saturating_add(rules.timestamp_after_max_ms),
            });
        }
        (header.attributes.timestamp_type() == TimestampType::LogAppendTime).then_some(Self::TimestampType)
    }
}

impl Fault {
    /// The error message for the producer of record `index`, in Kafka's words.
    fn sentence(&self, index: i32) -> String {
        match self {
            Self::NoKey => NO_KEY.to_owned(),
            Self::TimestampRange { timestamp, from, to } => format!(
                "Timestamp {timestamp} of message with offset {index} is out of range. The timestamp should be within \
                 [{from}, {to}]"
            ),
            Self::TimestampType => "producers may not set the timestamp type to LogAppendTime".to_owned(),
        }
    }
}

#[derive(Default)]
struct Faults {
    timestamp: bool,
    count: usize,
    errors: Vec<(i32, String)>,
}

impl Faults {
    #[cold]
    fn push(&mut self, index: i32, fault: &Fault) {
        self.timestamp |= !matches!(fault, Fault::NoKey);
        self.count += 1;
        if self.errors.len() < RECORD_ERRORS_MAX {
            self.errors.push((index, fault.sentence(index)));
        }
    }

    fn into_result(self) -> Result<(), RecordError> {
        match self {
            Self { count: 0, .. } => Ok(()),
            Self {
                timestamp,
                count,
                errors,
            } => Err(RecordError::Records {
                timestamp,
                count,
                errors,
            }),
        }
    }
}

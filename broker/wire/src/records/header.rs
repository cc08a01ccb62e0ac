//! The header of a batch, 61 bytes.

use super::{BatchError, CompressionType};
use brokkr_types::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, Sequence, UnixMillis};

/// Length of the header.
pub const HEADER_LEN: usize = 61;
/// Bytes of a batch that `batch_length` does not count: base offset and the length itself.
pub const LOG_OVERHEAD: usize = 12;
/// Bytes that determine a batch's size and format: up to and including `magic`, at the same position in every format.
pub const MAGIC_END: usize = 17;
/// The only supported format.
pub const MAGIC_V2: i8 = 2;

/// Position of `base_offset` (i64).
pub const BASE_OFFSET_AT: usize = 0;
/// Position of `batch_length` (i32).
pub const BATCH_LENGTH_AT: usize = 8;
/// Position of `partition_leader_epoch` (i32).
pub const PARTITION_LEADER_EPOCH_AT: usize = 12;
/// Position of `magic` (i8).
pub const MAGIC_AT: usize = 16;
/// Position of `crc` (u32).
pub const CRC_AT: usize = 17;
/// Position of `attributes` (i16); the CRC covers the bytes from here to the batch's end.
pub const ATTRIBUTES_AT: usize = 21;
/// Position of `last_offset_delta` (i32).
pub const LAST_OFFSET_DELTA_AT: usize = 23;
/// Position of `base_timestamp` (i64).
pub const BASE_TIMESTAMP_AT: usize = 27;
/// Position of `max_timestamp` (i64).
pub const MAX_TIMESTAMP_AT: usize = 35;
/// Position of `producer_id` (i64).
pub const PRODUCER_ID_AT: usize = 43;
/// Position of `producer_epoch` (i16).
pub const PRODUCER_EPOCH_AT: usize = 51;
/// Position of `base_sequence` (i32).
pub const BASE_SEQUENCE_AT: usize = 53;
/// Position of `records_count` (i32).
pub const RECORDS_COUNT_AT: usize = 57;

/// The smallest `batch_length` of format 2: a header and no records.
pub const BATCH_LENGTH_MIN: i32 = (HEADER_LEN - LOG_OVERHEAD) as i32;
/// The smallest `batch_length` of any format.
pub(super) const BATCH_LENGTH_V0_MIN: i32 = 14;

const _: () = assert!(RECORDS_COUNT_AT + 4 == HEADER_LEN && MAGIC_AT + 1 == MAGIC_END);

const COMPRESSION_MASK: i16 = 0x07;
const TIMESTAMP_TYPE_BIT: i16 = 0x08;
const TRANSACTIONAL_BIT: i16 = 0x10;
const CONTROL_BIT: i16 = 0x20;
const DELETE_HORIZON_BIT: i16 = 0x40;

/// The clock of a batch's timestamps.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum TimestampType {
    /// CreateTime: each record has its producer's timestamp.
    #[default]
    CreateTime,
    /// LogAppendTime: every record of the batch has the leader's time of the append, `max_timestamp`.
    LogAppendTime,
}

/// A batch's flags. Bits 0–2 compression, 3 timestamp type, 4 transactional, 5 control, 6 delete horizon.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Attributes(pub i16);

impl Attributes {
    /// The compression type of the records.
    ///
    /// # Errors
    /// [`BatchError::CompressionType`] for ids that Kafka never assigned.
    pub fn compression(self) -> Result<CompressionType, BatchError> {
        let id = (self.0 & COMPRESSION_MASK) as u8;
        CompressionType::from_id(id).ok_or(BatchError::CompressionType(id))
    }

    /// The timestamp type.
    pub fn timestamp_type(self) -> TimestampType {
        if self.0 & TIMESTAMP_TYPE_BIT == 0 {
            TimestampType::CreateTime
        } else {
            TimestampType::LogAppendTime
        }
    }

    /// Whether the batch belongs to a transaction.
    pub fn is_transactional(self) -> bool {
        self.0 & TRANSACTIONAL_BIT != 0
    }

    /// Whether the batch holds control records, which consumers don't see.
    pub fn is_control(self) -> bool {
        self.0 & CONTROL_BIT != 0
    }

    /// Whether `base_timestamp` is the time from which compaction may drop the batch's tombstones and markers
    /// (KIP-534).
    pub fn has_delete_horizon(self) -> bool {
        self.0 & DELETE_HORIZON_BIT != 0
    }

    /// The attributes with another compression type.
    #[must_use]
    pub fn with_compression(self, compression: CompressionType) -> Self {
        Self((self.0 & !COMPRESSION_MASK) | i16::from(compression.id()))
    }

    /// The attributes with another timestamp type.
    #[must_use]
    pub fn with_timestamp_type(self, timestamp_type: TimestampType) -> Self {
        self.with(TIMESTAMP_TYPE_BIT, timestamp_type == TimestampType::LogAppendTime)
    }

    /// The attributes with or without the transactional flag.
    #[must_use]
    pub fn with_transactional(self, on: bool) -> Self {
        self.with(TRANSACTIONAL_BIT, on)
    }

    /// The attributes with or without the control flag.
    #[must_use]
    pub fn with_control(self, on: bool) -> Self {
        self.with(CONTROL_BIT, on)
    }

    /// The attributes with or without the delete-horizon flag.
    #[must_use]
    pub fn with_delete_horizon(self, on: bool) -> Self {
        self.with(DELETE_HORIZON_BIT, on)
    }

    fn with(self, bit: i16, on: bool) -> Self {
        Self(if on { self.0 | bit } else { self.0 & !bit })
    }
}

/// A batch's header, field by field in the order of its bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BatchHeader {
    /// The offset of the first record, unless compaction removed it. Not covered by the CRC.
    pub base_offset: Offset,
    /// Bytes after this field: size − [`LOG_OVERHEAD`]. Not covered by the CRC.
    pub batch_length: i32,
    /// The epoch of the leader that appended the batch. Not covered by the CRC.
    pub partition_leader_epoch: LeaderEpoch,
    /// The format, always [`MAGIC_V2`].
    pub magic: i8,
    /// CRC-32C of everything from the attributes on.
    pub crc: u32,
    /// Flags.
    pub attributes: Attributes,
    /// The offset of the last record minus `base_offset`; compaction keeps it.
    pub last_offset_delta: i32,
    /// The base of the records' timestamp deltas; with the delete-horizon flag, the delete horizon.
    pub base_timestamp: UnixMillis,
    /// The maximum timestamp, or the append time.
    pub max_timestamp: UnixMillis,
    /// The producer; [`ProducerId::NONE`] if it isn't idempotent.
    pub producer_id: ProducerId,
    /// The producer epoch.
    pub producer_epoch: ProducerEpoch,
    /// The sequence of the first record; -1 if none.
    pub base_sequence: Sequence,
    /// The number of records; less than `last_offset_delta + 1` after compaction.
    pub records_count: i32,
}

impl BatchHeader {
    /// Decodes the header at the start of `bytes`, which need not contain the records.
    ///
    /// # Errors
    /// [`BatchError::Partial`] if bytes are missing; [`BatchError::Length`], [`BatchError::OldFormat`] and
    /// [`BatchError::Magic`] if it is not a batch of format 2.
    pub fn decode(bytes: &[u8]) -> Result<Self, BatchError> {
        check_front(bytes)?;
        let Some(header) = bytes.first_chunk::<HEADER_LEN>() else {
            return Err(BatchError::Partial {
                needed: HEADER_LEN,
                have: bytes.len(),
            });
        };
        Ok(Self::from_chunk(header))
    }

    fn from_chunk(bytes: &[u8; HEADER_LEN]) -> Self {
        fn at<const N: usize>(bytes: &[u8; HEADER_LEN], at: usize) -> [u8; N] {
            std::array::from_fn(|i| bytes[at + i])
        }
        Self {
            base_offset: Offset(i64::from_be_bytes(at(bytes, BASE_OFFSET_AT))),
            batch_length: i32::from_be_bytes(at(bytes, BATCH_LENGTH_AT)),
            partition_leader_epoch: LeaderEpoch(i32::from_be_bytes(at(bytes, PARTITION_LEADER_EPOCH_AT))),
            magic: bytes[MAGIC_AT] as i8,
            crc: u32::from_be_bytes(at(bytes, CRC_AT)),
            attributes: Attributes(i16::from_be_bytes(at(bytes, ATTRIBUTES_AT))),
            last_offset_delta: i32::from_be_bytes(at(bytes, LAST_OFFSET_DELTA_AT)),
            base_timestamp: UnixMillis(i64::from_be_bytes(at(bytes, BASE_TIMESTAMP_AT))),
            max_timestamp: UnixMillis(i64::from_be_bytes(at(bytes, MAX_TIMESTAMP_AT))),
            producer_id: ProducerId(i64::from_be_bytes(at(bytes, PRODUCER_ID_AT))),
            producer_epoch: ProducerEpoch(i16::from_be_bytes(at(bytes, PRODUCER_EPOCH_AT))),
            base_sequence: Sequence(i32::from_be_bytes(at(bytes, BASE_SEQUENCE_AT))),
            records_count: i32::from_be_bytes(at(bytes, RECORDS_COUNT_AT)),
        }
    }

    /// Encodes the header. `crc` is written as it is.
    pub fn encode(&self, out: &mut [u8; HEADER_LEN]) {
        let mut put = |at: usize, bytes: &[u8]| out[at..at + bytes.len()].copy_from_slice(bytes);
        put(BASE_OFFSET_AT, &self.base_offset.0.to_be_bytes());
        put(BATCH_LENGTH_AT, &self.batch_length.to_be_bytes());
        put(
            PARTITION_LEADER_EPOCH_AT,
            &self.partition_leader_epoch.0.to_be_bytes(),
        );
        put(MAGIC_AT, &self.magic.to_be_bytes());
        put(CRC_AT, &self.crc.to_be_bytes());
        put(ATTRIBUTES_AT, &self.attributes.0.to_be_bytes());
        put(LAST_OFFSET_DELTA_AT, &self.last_offset_delta.to_be_bytes());
        put(BASE_TIMESTAMP_AT, &self.base_timestamp.0.to_be_bytes());
        put(MAX_TIMESTAMP_AT, &self.max_timestamp.0.to_be_bytes());
        put(PRODUCER_ID_AT, &self.producer_id.0.to_be_bytes());
        put(PRODUCER_EPOCH_AT, &self.producer_epoch.0.to_be_bytes());
        put(BASE_SEQUENCE_AT, &self.base_sequence.0.to_be_bytes());
        put(RECORDS_COUNT_AT, &self.records_count.to_be_bytes());
    }

    /// Computes the CRC of this header and these records (compressed, if they are).
    pub fn compute_crc(&self, records: &[u8]) -> u32 {
        let mut header = [0; HEADER_LEN];
        self.encode(&mut header);
        crc32c::crc32c_append(crc32c::crc32c(&header[ATTRIBUTES_AT..]), records)
    }

    /// The size of the whole batch in bytes.
    pub fn size_bytes(&self) -> usize {
        LOG_OVERHEAD + usize::try_from(self.batch_length).unwrap_or(0)
    }

    /// The offset of the last record, even if compaction removed it. Saturates: `base_offset` may be anything.
    pub fn last_offset(&self) -> Offset {
        Offset(
            self.base_offset
                .0
                .saturating_add(i64::from(self.last_offset_delta)),
        )
    }

    /// The offset after the last record. Saturates.
    pub fn next_offset(&self) -> Offset {
        Offset(self.last_offset().0.saturating_add(1))
    }

    /// The sequence of the last record; [`Sequence::NONE`] if none.
    pub fn last_sequence(&self) -> Sequence {
        if self.base_sequence == Sequence::NONE {
            Sequence::NONE
        } else {
            self.base_sequence.plus(self.last_offset_delta)
        }
    }

    /// Whether an idempotent producer wrote it.
    pub fn has_producer_id(&self) -> bool {
        self.producer_id.is_some()
    }

    /// The timestamp of a record with this `timestamp_delta`: its own, or the append time.
    pub fn record_timestamp(&self, timestamp_delta: i64) -> UnixMillis {
        match self.attributes.timestamp_type() {
            TimestampType::CreateTime => UnixMillis(self.base_timestamp.0.wrapping_add(timestamp_delta)),
            TimestampType::LogAppendTime => self.max_timestamp,
        }
    }

    /// The offset of a record with this `offset_delta`. Saturates.
    pub fn record_offset(&self, offset_delta: i32) -> Offset {
        Offset(self.base_offset.0.saturating_add(i64::from(offset_delta)))
    }

    /// The header after the batch is placed at `offset`; its CRC does not change.
    #[must_use]
    pub fn placed(&self, offset: Offset, epoch: LeaderEpoch) -> Self {
        Self {
            base_offset: offset,
            partition_leader_epoch: epoch,
            ..*self
        }
    }
}

/// The size of a batch of format 2 that starts with these bytes, or an error.
pub(super) fn check_front(bytes: &[u8]) -> Result<usize, BatchError> {
    let partial = |needed| BatchError::Partial {
        needed,
        have: bytes.len(),
    };
    let Some(front) = bytes.first_chunk::<LOG_OVERHEAD>() else {
        return Err(partial(LOG_OVERHEAD));
    };
    let [.., a, b, c, d] = *front;
    let length = i32::from_be_bytes([a, b, c, d]);
    if length < BATCH_LENGTH_V0_MIN {
        return Err(BatchError::Length(length));
    }
    let size = LOG_OVERHEAD + length as usize;
    match bytes.get(MAGIC_AT).map(|magic| *magic as i8) {
        None => Err(partial(size)),
        Some(magic @ (0 | 1)) => Err(BatchError::OldFormat(magic)),
        Some(MAGIC_V2) if length < BATCH_LENGTH_MIN => Err(BatchError::Length(length)),
        Some(MAGIC_V2) => Ok(size),
        Some(magic) => Err(BatchError::Magic(magic)),
    }
}

//! Record batches of rude requests: valid ones, and ones with false fields.

use brokkr_types::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, Sequence, UnixMillis};
use brokkr_wire::records::{BatchBuilder, BatchHeader, CompressionType, HEADER_LEN};
use serde::{Deserialize, Serialize};

use crate::env::WALL_START_MS;

/// Several batches in sequence.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Records {
    /// The batches.
    pub batches: Vec<RecordBatch>,
    /// Cuts the concatenated batches after this many bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cut: Option<u64>,
}

/// One batch. Missing fields are as in a well-behaved client's batch.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RecordBatch {
    /// Number of records.
    pub records: u32,
    /// Length of each value: zeros, which compress very well.
    #[serde(skip_serializing_if = "is_default")]
    pub value_bytes: u32,
    /// The codec's id.
    #[serde(skip_serializing_if = "is_default")]
    pub compression: u8,
    /// Producer id, epoch and base sequence.
    #[serde(skip_serializing_if = "is_default")]
    pub producer: Option<(i64, i16, i32)>,
    /// Overrides the magic.
    #[serde(skip_serializing_if = "is_default")]
    pub magic: Option<i8>,
    /// Overrides the base offset.
    #[serde(skip_serializing_if = "is_default")]
    pub base_offset: Option<i64>,
    /// Overrides the length.
    #[serde(skip_serializing_if = "is_default")]
    pub length: Option<i32>,
    /// Overrides the attributes.
    #[serde(skip_serializing_if = "is_default")]
    pub attributes: Option<i16>,
    /// Overrides the last offset delta.
    #[serde(skip_serializing_if = "is_default")]
    pub last_offset_delta: Option<i32>,
    /// Overrides the first and the largest timestamp.
    #[serde(skip_serializing_if = "is_default")]
    pub timestamps: Option<(i64, i64)>,
    /// Overrides the number of records.
    #[serde(skip_serializing_if = "is_default")]
    pub count: Option<i32>,
    /// Flips a bit of this byte of the records; the CRC is right.
    #[serde(skip_serializing_if = "is_default")]
    pub flipped: Option<u32>,
    /// Makes the CRC wrong.
    #[serde(skip_serializing_if = "is_default")]
    pub wrong_crc: bool,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl Records {
    /// The encoded batches.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut all: Vec<u8> = self.batches.iter().flat_map(RecordBatch::encode).collect();
        if let Some(cut) = self.cut {
            all.truncate(cut as usize);
        }
        all
    }
}

impl RecordBatch {
    fn encode(&self) -> Vec<u8> {
        let codec = CompressionType::from_id(self.compression).unwrap_or(CompressionType::None);
        let mut builder = BatchBuilder::new().compression(codec, codec.default_level());
        if let Some((id, epoch, sequence)) = self.producer {
            builder = builder.producer(ProducerId(id), ProducerEpoch(epoch), Sequence(sequence));
        }
        let value = vec![0; self.value_bytes as usize];
        for _ in 0..self.records.max(1) {
            builder.push(UnixMillis(WALL_START_MS), None, Some(&value), &[]);
        }
        let mut bytes = builder.build().placed(Offset(0), LeaderEpoch(-1)).concat();
        if self.records == 0 {
            bytes.truncate(HEADER_LEN);
            bytes[8..12].copy_from_slice(&((HEADER_LEN - 12) as i32).to_be_bytes());
            bytes[57..61].fill(0);
        }
        self.lie(&mut bytes);
        bytes
    }

    /// Overwrites the false fields (KIP-98's layout), then updates the CRC.
    fn lie(&self, bytes: &mut [u8]) {
        let mut put = |at: usize, what: &[u8]| bytes[at..at + what.len()].copy_from_slice(what);
        self.base_offset.iter().for_each(|n| put(0, &n.to_be_bytes()));
        self.attributes.iter().for_each(|n| put(21, &n.to_be_bytes()));
        self.last_offset_delta
            .iter()
            .for_each(|n| put(23, &n.to_be_bytes()));
        self.timestamps.iter().for_each(|(first, largest)| {
            put(27, &first.to_be_bytes());
            put(35, &largest.to_be_bytes());
        });
        self.count.iter().for_each(|n| put(57, &n.to_be_bytes()));
        if let Some(at) = self.flipped
            && let Some(byte) = bytes.get_mut(HEADER_LEN + at as usize)
        {
            *byte ^= 0xff;
        }
        if let Ok(header) = BatchHeader::decode(bytes) {
            let crc = header.compute_crc(&bytes[HEADER_LEN..]) ^ u32::from(self.wrong_crc);
            bytes[17..21].copy_from_slice(&crc.to_be_bytes());
        }
        // AFTER the header was decoded: with these it can't be.
        self.length
            .iter()
            .for_each(|n| bytes[8..12].copy_from_slice(&n.to_be_bytes()));
        self.magic.iter().for_each(|n| bytes[16] = *n as u8);
    }
}

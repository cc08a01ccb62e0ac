//! A batch as opaque bytes: found, checked and assigned an offset, never copied.

use super::header::{self, ATTRIBUTES_AT, HEADER_LEN, MAGIC_AT, PARTITION_LEADER_EPOCH_AT};
use super::pace::{self, PIECE_MAX, Pace};
use super::{BatchError, BatchHeader, Records, TimestampType, compression};
use brokkr_types::{LeaderEpoch, Offset, UnixMillis};
use bytes::{BufMut, Bytes, BytesMut};

/// Bytes copied or checksummed in one unit of work.
const BYTES_PER_UNIT: usize = 4;

/// One whole batch of format 2. `header` is decoded from the first 61 of `bytes`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Batch {
    /// The header, decoded.
    pub header: BatchHeader,
    /// The whole batch, header and records: a slice of its frame or file.
    pub bytes: Bytes,
}

impl Batch {
    /// The batch at the start of `bytes`. Does not check its CRC.
    ///
    /// # Errors
    /// Those of [`BatchHeader::decode`]; [`BatchError::Partial`] also where records are missing.
    pub fn first(bytes: &Bytes) -> Result<Self, BatchError> {
        let size = header::check_front(bytes)?;
        if bytes.len() < size {
            return Err(BatchError::Partial {
                needed: size,
                have: bytes.len(),
            });
        }
        Ok(Self {
            header: BatchHeader::decode(bytes)?,
            bytes: bytes.slice(..size),
        })
    }

    /// Checks the CRC.
    ///
    /// # Errors
    /// [`BatchError::Crc`].
    pub fn check_crc(&self) -> Result<(), BatchError> {
        pace::done(self.check_crc_at(&mut Pace::at_once()))
    }

    /// As [`Batch::check_crc`], with a [`Pace`]. Cancel-safe.
    ///
    /// # Errors
    /// [`BatchError::Crc`].
    pub async fn check_crc_at(&self, pace: &mut Pace) -> Result<(), BatchError> {
        let computed = crc_at(pace, 0, &self.bytes[ATTRIBUTES_AT..]).await;
        if computed == self.header.crc {
            Ok(())
        } else {
            Err(BatchError::Crc {
                stored: self.header.crc,
                computed,
            })
        }
    }

    /// The bytes of the records, possibly compressed.
    pub fn records_bytes(&self) -> Bytes {
        self.bytes.slice(HEADER_LEN..)
    }

    /// The records, for iteration. Compressed records are decompressed first, to at most `decompressed_max` bytes;
    /// uncompressed ones aren't copied.
    ///
    /// # Errors
    /// [`BatchError::CompressionType`], [`BatchError::Decompress`], [`BatchError::RecordsCount`].
    pub fn records(&self, decompressed_max: usize) -> Result<Records, BatchError> {
        pace::done(self.records_at(&mut Pace::at_once(), decompressed_max))
    }

    /// As [`Batch::records`], with a [`Pace`]. Cancel-safe.
    ///
    /// # Errors
    /// As [`Batch::records`].
    pub async fn records_at(&self, pace: &mut Pace, decompressed_max: usize) -> Result<Records, BatchError> {
        let codec = self.header.attributes.compression()?;
        let body = compression::decompress_bytes(pace, codec, self.records_bytes(), decompressed_max).await?;
        Records::new(self.header, body)
    }

    /// The parts to write to place the batch at `offset` in leader epoch `epoch`: 16 new bytes, then the rest of the batch
    /// unchanged. The CRC covers neither field, so it stays valid.
    pub fn placed(&self, offset: Offset, epoch: LeaderEpoch) -> [Bytes; 2] {
        let mut front = BytesMut::with_capacity(MAGIC_AT);
        front.put_i64(offset.0);
        front.put_i32(self.header.batch_length);
        front.put_i32(epoch.0);
        [front.freeze(), self.bytes.slice(PARTITION_LEADER_EPOCH_AT + 4..)]
    }

    /// The batch with this timestamp type and maximum timestamp, and a matching CRC. Unchanged if it has them already, else
    /// a copy: the CRC has to read every byte anyway.
    #[must_use]
    pub fn stamped(self, timestamp_type: TimestampType, max_timestamp: UnixMillis) -> Self {
        pace::done(self.stamped_at(&mut Pace::at_once(), timestamp_type, max_timestamp))
    }

    /// As [`Batch::stamped`], with a [`Pace`].
    pub(super) async fn stamped_at(
        self,
        pace: &mut Pace,
        timestamp_type: TimestampType,
        max_timestamp: UnixMillis,
    ) -> Self {
        let attributes = self.header.attributes.with_timestamp_type(timestamp_type);
        if attributes == self.header.attributes && max_timestamp == self.header.max_timestamp {
            return self;
        }
        let header = BatchHeader {
            attributes,
            max_timestamp,
            ..self.header
        };
        let mut bytes = Vec::with_capacity(self.bytes.len());
        bytes.resize(HEADER_LEN, 0);
        for piece in self.bytes[HEADER_LEN..].chunks(PIECE_MAX) {
            bytes.extend_from_slice(piece);
            pace.work(piece.len() / BYTES_PER_UNIT).await;
        }
        Self::completed(pace, header, bytes).await
    }

    /// A batch of this header and these records, with correct `batch_length` and `crc`.
    ///
    /// # Panics
    /// If the batch would be larger than 2 GiB.
    pub(super) fn assemble(header: BatchHeader, records: &[u8]) -> Self {
        let mut bytes = Vec::with_capacity(HEADER_LEN + records.len());
        bytes.resize(HEADER_LEN, 0);
        bytes.extend_from_slice(records);
        pace::done(Self::completed(&mut Pace::at_once(), header, bytes))
    }

    /// As [`Batch::assemble`], for records with space for the header before them.
    ///
    /// # Panics
    /// If the batch would be larger than 2 GiB.
    pub(super) async fn completed(pace: &mut Pace, mut header: BatchHeader, mut bytes: Vec<u8>) -> Self {
        header.batch_length =
            i32::try_from(bytes.len() - header::LOG_OVERHEAD).expect("a batch is below 2 GiB");
        let (front, records) = bytes
            .split_first_chunk_mut::<HEADER_LEN>()
            .expect("there is room for a header");
        header.crc = crc_at(pace, header.compute_crc(&[]), records).await;
        header.encode(front);
        Self {
            header,
            bytes: Bytes::from(bytes),
        }
    }
}

/// Extends `crc` by these bytes.
async fn crc_at(pace: &mut Pace, crc: u32, bytes: &[u8]) -> u32 {
    let mut crc = crc;
    for piece in bytes.chunks(PIECE_MAX) {
        crc = crc32c::crc32c_append(crc, piece);
        pace.work(piece.len() / BYTES_PER_UNIT).await;
    }
    crc
}

/// Splits a records field or a part of a log into batches, without copies and without checking CRCs.
///
/// After an error the iterator ends. A batch cut off at the end is [`BatchError::Partial`]; [`Batches::position`] is the end
/// of the whole batches.
pub fn batches(bytes: Bytes) -> Batches {
    Batches {
        rest: bytes,
        position: 0,
        done: false,
    }
}

/// An iterator over batches, see [`batches`].
#[derive(Clone, Debug)]
pub struct Batches {
    rest: Bytes,
    position: usize,
    done: bool,
}

impl Batches {
    /// The length in bytes of the batches returned so far.
    pub fn position(&self) -> usize {
        self.position
    }
}

impl Iterator for Batches {
    type Item = Result<Batch, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done || self.rest.is_empty() {
            return None;
        }
        let batch = Batch::first(&self.rest);
        match &batch {
            Ok(batch) => {
                let size = batch.bytes.len();
                self.position += size;
                self.rest = self.rest.slice(size..);
            }
            Err(_) => self.done = true,
        }
        Some(batch)
    }
}

impl std::iter::FusedIterator for Batches {}

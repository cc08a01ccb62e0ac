//! Scanning the batches of a segment: complete, with CRC, in order. All state derived from a log comes from such a
//! scan.

use brokkr_env::{Env, Error, File};
use brokkr_wire::records::header::{ATTRIBUTES_AT, CRC_AT, LAST_OFFSET_DELTA_AT, RECORDS_COUNT_AT};
use brokkr_wire::records::{Batch, BatchError, HEADER_LEN, LOG_OVERHEAD};
use bytes::Bytes;

use crate::error::{Damage, LogError};
use crate::state::batch_chain::BatchChain;

/// The smallest unit that a disk writes atomically, in bytes.
const SECTOR_BYTES: u64 = 512;
/// How far the end of a batch with a wrong length is searched, and the bytes of one read.
const CRC_SEARCH_BYTES_MAX: u64 = 16 << 20;
const CRC_SEARCH_READ_BYTES: u64 = 256 << 10;
/// Bytes of one read of a full scan.
pub(crate) const SCAN_BYTES: u32 = 1 << 20;

/// Searches for a length at which a batch's CRC is right, ignoring the length in its header.
struct CrcLengthSearch {
    stored: u32,
    crc: u32,
}

impl CrcLengthSearch {
    /// Begins with the bytes of a header; also returns the bytes after it. `None`: not a header that this broker
    /// writes.
    fn new(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let (header, rest) = bytes.split_at_checked(HEADER_LEN)?;
        let int = |at: usize| Some(i32::from_be_bytes(*header.get(at..)?.first_chunk()?));
        let (delta, count) = (int(LAST_OFFSET_DELTA_AT)?, int(RECORDS_COUNT_AT)?);
        if delta < 0 || count != delta.wrapping_add(1) {
            return None;
        }
        let search = Self {
            stored: int(CRC_AT)? as u32,
            crc: crc32c::crc32c(&header[ATTRIBUTES_AT..]),
        };
        Some((search, rest))
    }

    fn extend(&mut self, bytes: &[u8]) -> bool {
        bytes.iter().any(|byte| {
            self.crc = crc32c::crc32c_append(self.crc, std::slice::from_ref(byte));
            self.crc == self.stored
        })
    }
}

/// Why a scan ended before its range did.
#[derive(Debug)]
pub(crate) enum ScanError {
    /// The file can't be read.
    Io(Error),
    /// There is no valid batch at this position.
    Fault(Damage),
    /// A valid batch, by its CRC, that can't follow the one before it.
    Misplaced(Damage),
    /// A valid message of format 0 or 1.
    OldFormat(Damage),
}

impl From<ScanError> for LogError {
    fn from(e: ScanError) -> Self {
        match e {
            ScanError::Io(e) => Self::Io(e),
            ScanError::Fault(damage) | ScanError::Misplaced(damage) | ScanError::OldFormat(damage) => {
                Self::Damaged(damage)
            }
        }
    }
}

/// Reads the batches of a segment one by one: complete, with a right CRC, each in order after the one before.
pub(crate) struct BatchScan<'a, E: Env> {
    file: &'a File<E>,
    at: u64,
    end: u64,
    /// Bytes from `at` on that are already read.
    chunk: Bytes,
}

impl<'a, E: Env> BatchScan<'a, E> {
    /// The batches between two positions. `from` must be a batch's.
    pub(crate) fn new(file: &'a File<E>, from: u64, end: u64) -> Self {
        Self {
            file,
            at: from,
            end,
            chunk: Bytes::new(),
        }
    }

    /// The position of the next batch.
    pub(crate) fn position(&self) -> u64 {
        self.at
    }

    /// The next batch, with which `chain` has moved on; `None` at the end of the range.
    pub(crate) async fn next(&mut self, chain: &mut BatchChain) -> Result<Option<Batch>, ScanError> {
        let mut wanted = u64::from(SCAN_BYTES);
        let batch = loop {
            let left = self.end - self.at;
            if left == 0 {
                return Ok(None);
            }
            match Batch::first(&self.chunk) {
                Ok(batch) => break batch,
                Err(BatchError::Partial { needed, .. }) if needed as u64 > left => {
                    return Err(self.fault(chain, format!("a torn batch: {left} of {needed} bytes")));
                }
                Err(BatchError::Partial { needed, .. }) => {
                    wanted = wanted.max(needed as u64).min(left);
                    self.chunk = self.read(wanted as u32).await?;
                }
                Err(BatchError::OldFormat(magic)) => return Err(self.old_format(chain, magic).await?),
                Err(e) => return Err(self.fault(chain, e.to_string())),
            }
        };
        if let Err(e) = batch.check_crc() {
            return Err(self.fault(chain, e.to_string()));
        }
        if let Some(what) = chain.misplaced(&batch.header) {
            return Err(ScanError::Misplaced(self.damage(chain, what)));
        }
        chain.accept(&batch.header);
        self.at += batch.bytes.len() as u64;
        self.chunk = self.chunk.slice(batch.bytes.len()..);
        Ok(Some(batch))
    }

    /// Whether a torn write can have lost a part of the batch's first 17 bytes and kept the bytes after them: a
    /// sector boundary lies among these, or right after them.
    pub(crate) fn prefix_may_be_torn(&self) -> bool {
        self.at % SECTOR_BYTES + CRC_AT as u64 >= SECTOR_BYTES
    }

    /// Whether the bytes here match the CRC of a batch at some other length. Then only the first 17 bytes, which the
    /// CRC doesn't cover, are wrong. A torn write causes that only if [`BatchScan::prefix_may_be_torn`].
    pub(crate) async fn only_prefix_is_wrong(&self) -> Result<bool, ScanError> {
        let end = self.end.min(self.at + CRC_SEARCH_BYTES_MAX);
        let mut search: Option<CrcLengthSearch> = None;
        let mut at = self.at;
        while at < end {
            let len = (end - at).min(CRC_SEARCH_READ_BYTES) as u32;
            let bytes = self.file.read_at(at, len).await.map_err(ScanError::Io)?;
            let found = match &mut search {
                Some(search) => search.extend(&bytes),
                None => {
                    let Some((begun, rest)) = CrcLengthSearch::new(&bytes) else {
                        return Ok(false);
                    };
                    search.insert(begun).extend(rest)
                }
            };
            if found {
                return Ok(true);
            }
            at += u64::from(len);
        }
        Ok(false)
    }

    async fn read(&self, len: u32) -> Result<Bytes, ScanError> {
        self.file.read_at(self.at, len).await.map_err(ScanError::Io)
    }

    fn damage(&self, chain: &BatchChain, what: String) -> Damage {
        Damage {
            file: self.file.path().to_owned(),
            position: self.at,
            offset: chain.next,
            what,
        }
    }

    fn fault(&self, chain: &BatchChain, what: String) -> ScanError {
        ScanError::Fault(self.damage(chain, what))
    }

    /// A message of format 0 or 1 must match its own checksum (CRC-32 from the magic on): one flipped bit turns magic
    /// 2 into 0.
    async fn old_format(&self, chain: &BatchChain, magic: i8) -> Result<ScanError, ScanError> {
        let damage = self.damage(chain, BatchError::OldFormat(magic).to_string());
        let size = self
            .chunk
            .get(8..12)
            .and_then(|b| b.first_chunk())
            .map(|b| i32::from_be_bytes(*b));
        let len = u64::try_from(size.unwrap_or(0)).unwrap_or(0) + LOG_OVERHEAD as u64;
        if len <= self.end - self.at {
            let message = self.read(len as u32).await?;
            let crc = message
                .get(12..16)
                .and_then(|b| b.first_chunk())
                .map(|b| u32::from_be_bytes(*b));
            let body = message.get(16..).unwrap_or_default();
            if crc == Some(crc32fast::hash(body)) {
                return Ok(ScanError::OldFormat(damage));
            }
        }
        Ok(ScanError::Fault(damage))
    }
}

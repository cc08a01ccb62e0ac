//! Reading batch headers without their records.

use brokkr_env::{Env, File};
use brokkr_types::Offset;
use brokkr_wire::records::{BatchHeader, HEADER_LEN};
use bytes::Bytes;

use crate::error::{Damage, ReadError};
use crate::files::scan::SCAN_BYTES;

/// Bytes of one read when only the next few headers are needed.
pub(crate) const HEADER_READ_BYTES_MIN: u32 = 4096;

/// Bytes of one read when all headers of a range are needed.
const HEADER_READ_BYTES_MAX: u32 = 64 << 10;

/// Bytes of a file: from the page cache if they are there, otherwise by a read on an IO thread.
pub(crate) async fn read<E: Env>(file: &File<E>, at: u64, len: u32) -> brokkr_env::Result<Bytes> {
    match file.read_resident(at, len) {
        Some(bytes) => Ok(bytes),
        None => file.read_at(at, len).await,
    }
}

/// Reads the headers of the batches between two positions of a file. The first position must be a batch's.
pub(crate) struct HeaderReader<'a, E: Env> {
    file: &'a File<E>,
    at: u64,
    end: u64,
    /// Bytes of one read.
    chunk: u32,
    /// Bytes read from the page cache since the task last yielded.
    resident_bytes: u32,
    buf: Bytes,
    buf_at: u64,
}

impl<'a, E: Env> HeaderReader<'a, E> {
    /// Expects to read a few headers only.
    pub(crate) fn peek(file: &'a File<E>, from: u64, end: u64) -> Self {
        Self {
            file,
            at: from,
            end,
            chunk: HEADER_READ_BYTES_MIN,
            resident_bytes: 0,
            buf: Bytes::new(),
            buf_at: from,
        }
    }

    pub(crate) fn damage(&self, position: u64, offset: Offset, what: String) -> ReadError {
        Self::damage_of(self.file, position, offset, what)
    }

    fn damage_of(file: &File<E>, position: u64, offset: Offset, what: String) -> ReadError {
        ReadError::Damaged(Damage {
            file: file.path().to_owned(),
            position,
            offset,
            what,
        })
    }

    /// Bytes of the file. After [`SCAN_BYTES`] from the page cache one read goes through an IO thread, so that other
    /// tasks run.
    pub(crate) async fn bytes(&mut self, at: u64, len: u32) -> Result<Bytes, ReadError> {
        let len = (self.end.saturating_sub(at)).min(len.into()) as u32;
        self.resident_bytes += len;
        if self.resident_bytes <= SCAN_BYTES {
            return Ok(read(self.file, at, len).await?);
        }
        self.resident_bytes = 0;
        Ok(self.file.read_at(at, len).await?)
    }

    /// Whether the batch at `position` matches its CRC. Read in pieces, so memory is bounded.
    pub(crate) async fn is_whole(&mut self, position: u64, header: &BatchHeader) -> Result<bool, ReadError> {
        let end = position + header.size_bytes() as u64;
        let (mut at, mut crc) = (position + HEADER_LEN as u64, header.compute_crc(&[]));
        while at < end {
            let bytes = self
                .bytes(at, (end - at).min(HEADER_READ_BYTES_MAX.into()) as u32)
                .await?;
            if bytes.is_empty() {
                return Ok(false);
            }
            crc = crc32c::crc32c_append(crc, &bytes);
            at += bytes.len() as u64;
        }
        Ok(crc == header.crc)
    }

    /// Expects to read all headers of the next `range_bytes` bytes.
    pub(crate) fn reading_all(self, range_bytes: u64) -> Self {
        let chunk = range_bytes.clamp(HEADER_READ_BYTES_MIN.into(), HEADER_READ_BYTES_MAX.into()) as u32;
        Self { chunk, ..self }
    }

    /// Continues at another position.
    pub(crate) fn seek(&mut self, at: u64) {
        (self.at, self.buf, self.buf_at) = (at, Bytes::new(), at);
    }

    /// The next header and its position; `None` at the end.
    ///
    /// # Errors
    /// [`ReadError::Damaged`] if no batch is there; the report names `expected` as its offset.
    pub(crate) async fn next(&mut self, expected: Offset) -> Result<Option<(u64, BatchHeader)>, ReadError> {
        if self.at >= self.end {
            return Ok(None);
        }
        let at = self.at;
        let damage = |what: String| Self::damage_of(self.file, at, expected, what);
        let left = self.end - at;
        if left < HEADER_LEN as u64 {
            return Err(damage(format!("{left} bytes where a batch should be")));
        }
        if self.buf.len() as u64 + self.buf_at < at + HEADER_LEN as u64 {
            (self.buf, self.buf_at) = (self.bytes(at, self.chunk).await?, at);
        }
        let in_buf = (at - self.buf_at) as usize;
        let header = BatchHeader::decode(&self.buf[in_buf..]).map_err(|e| damage(e.to_string()))?;
        let size = header.size_bytes() as u64;
        if size > left {
            return Err(damage(format!("a batch of {size} bytes where {left} are left")));
        }
        self.at = at + size;
        Ok(Some((at, header)))
    }
}

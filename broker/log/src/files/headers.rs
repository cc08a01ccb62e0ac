//! Reading batch headers without their records.

use brokkr_env::{Env, File};
use brokkr_types::Offset;
use brokkr_wire::records::{BatchHeader, HEADER_LEN};
use bytes::Bytes;

use crate::error::{Damage, ReadError};
use crate::files::scan::SCAN_BYTES;

/// How much is read at a time where only the next few headers are wanted.
pub(crate) const HEADER_READ_BYTES_MIN: u32 = 4096;

/// How much is read at a time where all headers of a range are.
const HEADER_READ_BYTES_MAX: u32 = 64 << 10;

/// Bytes of a file, from memory if they are there.
pub(crate) async fn read<E: Env>(file: &File<E>, at: u64, len: u32) -> brokkr_env::Result<Bytes> {
    match file.read_resident(at, len) {
        Some(bytes) => Ok(bytes),
        None => file.read_at(at, len).await,
    }
}

/// The headers of the batches between two positions of a file, the first of which is a batch's begin.
pub(crate) struct HeaderReader<'a, E: Env> {
    file: &'a File<E>,
    at: u64,
    end: u64,
    /// How much is read at a time.
    chunk: u32,
    /// How much came from memory since somebody else had a turn.
    resident_bytes: u32,
    buf: Bytes,
    buf_at: u64,
}

impl<'a, E: Env> HeaderReader<'a, E> {
    /// For the next few headers.
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

    /// Bytes of the file, as they stand. Now and then the file is asked although they are in memory: others get a turn.
    pub(crate) async fn bytes(&mut self, at: u64, len: u32) -> Result<Bytes, ReadError> {
        let len = (self.end.saturating_sub(at)).min(len.into()) as u32;
        self.resident_bytes += len;
        if self.resident_bytes <= SCAN_BYTES {
            return Ok(read(self.file, at, len).await?);
        }
        self.resident_bytes = 0;
        Ok(self.file.read_at(at, len).await?)
    }

    /// Whether a batch that stands there is what its CRC says. It is read in pieces, however large it is.
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

    /// For all headers of so many bytes.
    pub(crate) fn chunk(self, stretch: u64) -> Self {
        let chunk = stretch.clamp(HEADER_READ_BYTES_MIN.into(), HEADER_READ_BYTES_MAX.into()) as u32;
        Self { chunk, ..self }
    }

    /// Goes on at another place.
    pub(crate) fn seek(&mut self, at: u64) {
        (self.at, self.buf, self.buf_at) = (at, Bytes::new(), at);
    }

    /// The next header and where it stands; `None` at the end. What is not a batch is damage: `expected` is the offset
    /// the report names.
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

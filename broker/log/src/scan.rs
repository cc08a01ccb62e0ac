//! Walking over the batches of a file by their headers, without reading the records.

use brokkr_env::{Env, File};
use brokkr_types::Offset;
use brokkr_wire::records::{BatchHeader, HEADER_LEN};
use bytes::Bytes;

use crate::error::{Damage, ReadError};

/// How much is read at a time where only the next few headers are wanted.
pub(crate) const PEEK_BYTES: u32 = 4096;
/// How much is read at a time where everything is.
pub(crate) const SCAN_BYTES: u32 = 1 << 20;

/// Bytes of a file, from memory if they are there.
pub(crate) async fn read<E: Env>(file: &File<E>, at: u64, len: u32) -> brokkr_env::Result<Bytes> {
    match file.read_resident(at, len) {
        Some(bytes) => Ok(bytes),
        None => file.read_at(at, len).await,
    }
}

/// The headers of the batches between two positions of a file, the first of which is a batch's begin.
pub(crate) struct Headers<'a, E: Env> {
    file: &'a File<E>,
    at: u64,
    end: u64,
    read_max: u32,
    last_size: u64,
    buf: Bytes,
    buf_at: u64,
}

impl<'a, E: Env> Headers<'a, E> {
    /// For the next few headers.
    pub(crate) fn peek(file: &'a File<E>, from: u64, end: u64) -> Self {
        Self {
            file,
            at: from,
            end,
            read_max: PEEK_BYTES,
            last_size: 0,
            buf: Bytes::new(),
            buf_at: from,
        }
    }

    /// For all of them: reads ahead, but for batches so large that only their headers are worth reading.
    pub(crate) fn all(file: &'a File<E>, from: u64, end: u64) -> Self {
        Self {
            read_max: SCAN_BYTES,
            ..Self::peek(file, from, end)
        }
    }

    /// The next header and where it stands; `None` at the end. What is not a batch is damage: `expected` is the offset
    /// the report names.
    pub(crate) async fn next(&mut self, expected: Offset) -> Result<Option<(u64, BatchHeader)>, ReadError> {
        if self.at >= self.end {
            return Ok(None);
        }
        let at = self.at;
        let damage = |what: String| {
            ReadError::Damaged(Damage {
                file: self.file.path().to_owned(),
                position: at,
                offset: expected,
                what,
            })
        };
        let left = self.end - at;
        if left < HEADER_LEN as u64 {
            return Err(damage(format!("{left} bytes where a batch should be")));
        }
        if self.buf.len() as u64 + self.buf_at < at + HEADER_LEN as u64 {
            let sparse = self.last_size > u64::from(4 * PEEK_BYTES);
            let len = u64::from(if sparse { PEEK_BYTES } else { self.read_max }).min(left);
            (self.buf, self.buf_at) = (read(self.file, at, len as u32).await?, at);
        }
        let in_buf = (at - self.buf_at) as usize;
        let header = BatchHeader::decode(&self.buf[in_buf..]).map_err(|e| damage(e.to_string()))?;
        let size = header.size_bytes() as u64;
        if size > left {
            return Err(damage(format!("a batch of {size} bytes where {left} are left")));
        }
        (self.at, self.last_size) = (at + size, size);
        Ok(Some((at, header)))
    }
}

//! Decoding of big-endian integers, and the checksum at the end of Brokkr's own files.

/// Undecoded bytes. Each read returns `None` past the end.
pub(crate) struct ByteReader<'a>(pub(crate) &'a [u8]);

macro_rules! take {
    ($($name:ident -> $int:ty),*) => {
        $(pub(crate) fn $name(&mut self) -> Option<$int> {
            let (front, rest) = self.0.split_first_chunk()?;
            self.0 = rest;
            Some(<$int>::from_be_bytes(*front))
        })*
    };
}

impl ByteReader<'_> {
    take!(u8 -> u8, u16 -> u16, i16 -> i16, u32 -> u32, i32 -> i32, u64 -> u64, i64 -> i64);
}

/// The body of one of Brokkr's own files, `body │ crc32 u32`; `None` if its CRC-32 is wrong.
pub(crate) fn verify_crc(bytes: &[u8]) -> Option<&[u8]> {
    let (body, crc) = bytes.split_last_chunk::<4>()?;
    (crc32fast::hash(body) == u32::from_be_bytes(*crc)).then_some(body)
}

/// Appends the CRC-32 to one of Brokkr's own files.
pub(crate) fn append_crc(mut body: Vec<u8>) -> bytes::Bytes {
    let crc = crc32fast::hash(&body);
    body.extend_from_slice(&crc.to_be_bytes());
    body.into()
}

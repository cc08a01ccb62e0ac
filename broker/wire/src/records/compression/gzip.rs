//! gzip, by flate2 with zlib-rs.

use super::{CompressionType, DecompressError, grown, lengthen};
use flate2::bufread::MultiGzDecoder;
use flate2::write::GzEncoder;
use std::io::{ErrorKind, Read, Write};

pub(super) fn compress(level: i32, data: &[u8]) -> Vec<u8> {
    let level = match u32::try_from(level) {
        Ok(level) => flate2::Compression::new(level.min(9)),
        Err(_) => flate2::Compression::default(),
    };
    let mut encoder = GzEncoder::new(Vec::with_capacity(data.len() / 2 + 64), level);
    encoder.write_all(data).expect("a Vec takes every write");
    encoder.finish().expect("a Vec takes every write")
}

pub(super) fn decompress(data: &[u8], max: usize) -> Result<Vec<u8>, DecompressError> {
    let mut decoder = MultiGzDecoder::new(data);
    let (mut out, mut filled) = (Vec::new(), 0);
    loop {
        if filled == out.len() {
            lengthen(&mut out, grown(filled, data.len(), max), data.len(), max);
        }
        match decoder.read(&mut out[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(e) => return Err(corrupt(e.kind())),
        }
        if filled > max {
            return Err(DecompressError::TooLarge { max });
        }
    }
    out.truncate(filled);
    Ok(out)
}

fn corrupt(kind: ErrorKind) -> DecompressError {
    let what = match kind {
        ErrorKind::UnexpectedEof => "cut off",
        _ => "malformed",
    };
    DecompressError::Corrupt {
        codec: CompressionType::Gzip,
        what,
    }
}

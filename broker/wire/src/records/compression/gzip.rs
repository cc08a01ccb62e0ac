//! gzip, by flate2 with zlib-rs.

use super::{CompressionType, DecompressError, grown, lengthen};
use crate::records::pace::{PIECE_MAX, Pace};
use flate2::bufread::GzDecoder;
use flate2::write::GzEncoder;
use std::io::{ErrorKind, Read, Write};

/// A header, a trailer, and a little between them.
const MEMBER_LEN_MIN: usize = 10 + 1 + 8;

pub(super) fn compress(level: i32, data: &[u8]) -> Vec<u8> {
    let level = match u32::try_from(level) {
        Ok(level) => flate2::Compression::new(level.min(9)),
        Err(_) => flate2::Compression::default(),
    };
    let mut encoder = GzEncoder::new(Vec::with_capacity(data.len() / 2 + 64), level);
    encoder.write_all(data).expect("a Vec takes every write");
    encoder.finish().expect("a Vec takes every write")
}

/// As Java's GZIPInputStream, which Kafka's brokers and clients read with: behind a member comes another, or something that is
/// ignored.
pub(super) async fn decompress(pace: &mut Pace, data: &[u8], max: usize) -> Result<Vec<u8>, DecompressError> {
    let (mut out, mut filled) = (Vec::new(), 0);
    let mut decoder = GzDecoder::new(data);
    loop {
        if filled == out.len() {
            lengthen(&mut out, grown(filled, data.len(), max), data.len(), max);
        }
        let end = out.len().min(filled + PIECE_MAX);
        match decoder.read(&mut out[filled..end]) {
            Ok(0) => {
                let rest = decoder.into_inner();
                decoder = GzDecoder::new(rest);
                if rest.len() < MEMBER_LEN_MIN || decoder.header().is_none() {
                    break;
                }
            }
            Ok(n) => {
                filled += n;
                pace.bytes(n).await;
            }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::pace::done;

    fn decompress(data: &[u8], max: usize) -> Result<Vec<u8>, DecompressError> {
        done(super::decompress(&mut Pace::at_once(), data, max))
    }

    #[test]
    fn what_follows_the_last_member_is_ignored() {
        let data = b"a rose is a rose is a rose".repeat(40);
        let member = compress(6, &data);
        for junk in [
            &b"zz"[..],
            &[0],
            &[0; 512],
            &[0x1f, 0x8b],
            b"\x1f\x8bno header of a member",
            &member[..12],
        ] {
            let packed = [&member, junk].concat();
            assert_eq!(decompress(&packed, data.len()), Ok(data.clone()), "{junk:?}");
        }
        assert_eq!(decompress(&member.repeat(2), 10_000), Ok(data.repeat(2)));
        // One that began well has to end well.
        let cut = [&member, &member[..member.len() - 1]].concat();
        assert_eq!(decompress(&cut, 10_000), Err(corrupt(ErrorKind::UnexpectedEof)));
    }
}

//! Snappy, in the frame that snappy-java calls a stream and everyone else calls Xerial's.
//!
//! ```text
//! 82 'SNAPPY' 00 │ version i32 = 1 │ compatible version i32 = 1 │ n × ( length i32 │ raw block )
//! ```
//! Numbers are big-endian. Frames may follow each other. Without the magic the whole is one raw block.

use super::{CompressionType, DecompressError, lengthen};
use crate::records::pace::Pace;

const MAGIC: [u8; 8] = [0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0];
const HEADER_LEN: usize = 16;
const VERSION: i32 = 1;
/// snappy-java's default; what it decompresses to is held in memory by readers.
const BLOCK_LEN: usize = 32 * 1024;
/// A block's densest element copies 64 bytes and takes up 3. What claims to expand by more is lying.
const EXPANSION_MAX: usize = 64 / 3 + 1;

pub(super) fn compress(data: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEADER_LEN + data.len() / 2 + 64);
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&VERSION.to_be_bytes());
    out.extend_from_slice(&VERSION.to_be_bytes());
    let mut encoder = snap::raw::Encoder::new();
    for block in data.chunks(BLOCK_LEN) {
        let length_at = out.len();
        let block_at = length_at + 4;
        out.resize(block_at + snap::raw::max_compress_len(block.len()), 0);
        let len = encoder
            .compress(block, &mut out[block_at..])
            .expect("the buffer is as large as asked for");
        out.truncate(block_at + len);
        out[length_at..block_at].copy_from_slice(&(len as u32).to_be_bytes());
    }
    out
}

pub(super) async fn decompress(pace: &mut Pace, data: &[u8], max: usize) -> Result<Vec<u8>, DecompressError> {
    let mut out = Vec::new();
    if !data.starts_with(&MAGIC) {
        block(data, &mut out, max)?;
        return Ok(out);
    }
    let mut rest = data;
    while !rest.is_empty() {
        rest = match rest.strip_prefix(&MAGIC) {
            Some(versions) => header(versions)?,
            None => {
                // As snappy-java: too little for a length is ignored.
                let Some((length, rest)) = rest.split_first_chunk() else {
                    break;
                };
                let length = usize::try_from(i32::from_be_bytes(*length))
                    .map_err(|_| corrupt("negative length of a block"))?;
                let (raw, rest) = rest.split_at_checked(length).ok_or_else(|| corrupt("cut off"))?;
                let filled = out.len();
                block(raw, &mut out, max)?;
                pace.bytes(out.len() - filled).await;
                rest
            }
        };
    }
    Ok(out)
}

/// Reads what follows the magic: a version, and the oldest version that can read it.
fn header(versions: &[u8]) -> Result<&[u8], DecompressError> {
    let (version, rest) = versions.split_first_chunk().ok_or_else(|| corrupt("cut off"))?;
    let (_compatible, rest) = rest.split_first_chunk::<4>().ok_or_else(|| corrupt("cut off"))?;
    if i32::from_be_bytes(*version) < VERSION {
        return Err(corrupt("version before the first"));
    }
    Ok(rest)
}

fn block(raw: &[u8], out: &mut Vec<u8>, max: usize) -> Result<(), DecompressError> {
    let len = snap::raw::decompress_len(raw).map_err(|_| corrupt("no length in a block"))?;
    if raw.is_empty() || len > raw.len().saturating_mul(EXPANSION_MAX) {
        return Err(corrupt("impossible length of a block"));
    }
    let filled = out.len();
    if len > max - filled {
        return Err(DecompressError::TooLarge { max });
    }
    lengthen(out, filled + len, raw.len(), max);
    match snap::raw::Decoder::new().decompress(raw, &mut out[filled..]) {
        Ok(n) if n == len => Ok(()),
        _ => Err(corrupt("malformed block")),
    }
}

fn corrupt(what: &'static str) -> DecompressError {
    DecompressError::Corrupt {
        codec: CompressionType::Snappy,
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
    fn a_raw_block_and_frames_in_a_row_are_read() {
        let data = b"a rose is a rose is a rose is a rose".repeat(40);
        let raw = snap::raw::Encoder::new().compress_vec(&data).unwrap();
        assert_eq!(decompress(&raw, 10_000).unwrap(), data);

        let twice = [compress(&data), compress(&data)].concat();
        assert_eq!(decompress(&twice, 10_000).unwrap(), data.repeat(2));
    }

    #[test]
    fn what_is_too_little_for_a_block_is_ignored() {
        for junk in [&b"z"[..], b"zzz"] {
            let packed = [&compress(b"x"), junk].concat();
            assert_eq!(decompress(&packed, 10), Ok(b"x".to_vec()));
        }
    }

    #[test]
    fn a_version_before_the_first_is_refused() {
        let mut packed = compress(b"x");
        packed[11] = 0;
        assert_eq!(decompress(&packed, 10), Err(corrupt("version before the first")));
    }

    #[test]
    fn a_claimed_length_is_not_believed() {
        // 2^31 bytes, it says, in a block of 7 bytes.
        let raw = [0x80, 0x80, 0x80, 0x80, 0x08, 0, 0];
        assert_eq!(
            decompress(&raw, usize::MAX),
            Err(corrupt("impossible length of a block"))
        );
    }

    #[test]
    fn the_densest_block_passes() {
        // Length 64,001; the literal 'a'; then copies of 64 bytes from 1 back, 3 bytes each.
        let mut raw = vec![0x81, 0xf4, 0x03, 0, b'a'];
        for _ in 0..1000 {
            raw.extend([(63 << 2) | 2, 1, 0]);
        }
        assert_eq!(decompress(&raw, 64_001).unwrap(), vec![b'a'; 64_001]);
    }
}

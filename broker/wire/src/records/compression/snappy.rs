//! Snappy, in snappy-java's stream format, usually called Xerial's.
//!
//! ```text
//! 82 'SNAPPY' 00 │ version i32 = 1 │ compatible version i32 = 1 │ n × ( length i32 │ raw block )
//! ```
//! Numbers are big-endian. Several frames may follow each other. Without the magic the data is one raw block.

use super::compression_type::CompressionType;
use super::decompress_error::DecompressError;
use super::output::lengthen;
use crate::records::pace::{PIECE_MAX, Pace};

const MAGIC: [u8; 8] = [0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0];
const HEADER_LEN: usize = 16;
const VERSION: i32 = 1;
/// snappy-java's default block size; readers hold a decompressed block in memory.
pub(super) const BLOCK_LEN: usize = 32 * 1024;
/// The densest element of a block copies 64 bytes and takes 3. A block that claims a higher ratio is invalid.
const EXPANSION_MAX: usize = 64 / 3 + 1;

/// Units for a block or header, and for each byte of it, besides its output.
const BLOCK_UNITS: usize = 256;
const UNITS_PER_BYTE: usize = 4;
/// Output produced at a time of a block that is larger than [`PIECE_MAX`].
const LARGE_PIECE: usize = 32 << 10;

pub(super) fn compress(data: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEADER_LEN + data.len() / 2 + 64);
    begin(&mut out);
    let mut encoder = snap::raw::Encoder::new();
    for block in data.chunks(BLOCK_LEN) {
        put_block(&mut encoder, block, &mut out);
    }
    out
}

pub(super) fn begin(out: &mut Vec<u8>) {
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&VERSION.to_be_bytes());
    out.extend_from_slice(&VERSION.to_be_bytes());
}

/// Compresses a block of up to [`BLOCK_LEN`] bytes.
pub(super) fn put_block(encoder: &mut snap::raw::Encoder, block: &[u8], out: &mut Vec<u8>) {
    let length_at = out.len();
    let block_at = length_at + 4;
    out.resize(block_at + snap::raw::max_compress_len(block.len()), 0);
    let len = encoder
        .compress(block, &mut out[block_at..])
        .expect("the buffer has the required size");
    out.truncate(block_at + len);
    out[length_at..block_at].copy_from_slice(&(len as u32).to_be_bytes());
}

pub(super) async fn decompress(pace: &mut Pace, data: &[u8], max: usize) -> Result<Vec<u8>, DecompressError> {
    let mut out = Vec::new();
    if !data.starts_with(&MAGIC) {
        block(pace, data, &mut out, max).await?;
        return Ok(out);
    }
    let mut rest = data;
    while !rest.is_empty() {
        rest = match rest.strip_prefix(&MAGIC) {
            Some(versions) => {
                pace.work(BLOCK_UNITS).await;
                header(versions)?
            }
            None => {
                // Like snappy-java, ignores trailing bytes too short for a length.
                let Some((length, rest)) = rest.split_first_chunk() else {
                    break;
                };
                let length = usize::try_from(i32::from_be_bytes(*length))
                    .map_err(|_| corrupt("negative length of a block"))?;
                let (raw, rest) = rest.split_at_checked(length).ok_or_else(|| corrupt("cut off"))?;
                block(pace, raw, &mut out, max).await?;
                rest
            }
        };
    }
    Ok(out)
}

/// Reads the fields after the magic: the version, and the oldest compatible version.
fn header(versions: &[u8]) -> Result<&[u8], DecompressError> {
    let (version, rest) = versions.split_first_chunk().ok_or_else(|| corrupt("cut off"))?;
    let (_compatible, rest) = rest.split_first_chunk::<4>().ok_or_else(|| corrupt("cut off"))?;
    if i32::from_be_bytes(*version) < VERSION {
        return Err(corrupt("version before the first"));
    }
    Ok(rest)
}

async fn block(pace: &mut Pace, raw: &[u8], out: &mut Vec<u8>, max: usize) -> Result<(), DecompressError> {
    let len = snap::raw::decompress_len(raw).map_err(|_| corrupt("no length in a block"))?;
    if raw.is_empty() || len > raw.len().saturating_mul(EXPANSION_MAX) {
        return Err(corrupt("impossible length of a block"));
    }
    let filled = out.len();
    if len > max - filled {
        return Err(DecompressError::TooLarge { max });
    }
    if len.max(raw.len()) > PIECE_MAX {
        return large_block(pace, raw, len, out).await;
    }
    pace.work(BLOCK_UNITS + UNITS_PER_BYTE * raw.len() + len).await;
    lengthen(out, filled + len, raw.len(), max);
    match snap::raw::Decoder::new().decompress(raw, &mut out[filled..]) {
        Ok(n) if n == len => Ok(()),
        _ => Err(corrupt("malformed block")),
    }
}

/// Decompresses a block of `len` bytes in pieces, which the library can't do. Without Xerial's frame one block holds all
/// data.
async fn large_block(
    pace: &mut Pace,
    raw: &[u8],
    len: usize,
    out: &mut Vec<u8>,
) -> Result<(), DecompressError> {
    let malformed = || corrupt("malformed block");
    let start = out.len();
    out.reserve_exact(len);
    let mut rest = raw;
    // The length was read before.
    while take::<1>(&mut rest).ok_or_else(malformed)?[0] >= 0x80 {}
    while !rest.is_empty() {
        let (before, from) = (rest.len(), out.len());
        while !rest.is_empty() && out.len() - from < LARGE_PIECE {
            element(&mut rest, start, start + len, out).ok_or_else(malformed)?;
        }
        pace.work(UNITS_PER_BYTE * (before - rest.len()) + out.len() - from)
            .await;
    }
    match out.len() - start == len {
        true => Ok(()),
        false => Err(malformed()),
    }
}

/// Decodes one element of a block: a literal, or a copy of output that the block produced since `start`. `None` if it is
/// invalid.
fn element(rest: &mut &[u8], start: usize, end: usize, out: &mut Vec<u8>) -> Option<()> {
    let [tag] = *take(rest)?;
    let bits = usize::from(tag >> 2);
    let (len, offset) = match tag & 3 {
        0 => {
            let len = match bits {
                60 => usize::from(take::<1>(rest)?[0]),
                61 => usize::from(u16::from_le_bytes(*take(rest)?)),
                62 => {
                    let [a, b, c] = *take(rest)?;
                    u32::from_le_bytes([a, b, c, 0]) as usize
                }
                63 => u32::from_le_bytes(*take(rest)?) as usize,
                len => len,
            };
            let (literal, after) = rest.split_at_checked(len.checked_add(1)?)?;
            *rest = after;
            if literal.len() > end - out.len() {
                return None;
            }
            out.extend_from_slice(literal);
            return Some(());
        }
        1 => (
            4 + (bits & 7),
            usize::from(tag >> 5) << 8 | usize::from(take::<1>(rest)?[0]),
        ),
        2 => (bits + 1, usize::from(u16::from_le_bytes(*take(rest)?))),
        _ => (bits + 1, u32::from_le_bytes(*take(rest)?) as usize),
    };
    if offset == 0 || offset > out.len() - start || len > end - out.len() {
        return None;
    }
    let from = out.len() - offset;
    if offset >= len {
        out.extend_from_within(from..from + len);
    } else {
        // The copy overlaps its own output.
        for at in from..from + len {
            out.push(out[at]);
        }
    }
    Some(())
}

fn take<'a, const N: usize>(rest: &mut &'a [u8]) -> Option<&'a [u8; N]> {
    let (taken, after) = rest.split_first_chunk()?;
    *rest = after;
    Some(taken)
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
    fn trailing_bytes_too_short_for_a_block_are_ignored() {
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
        // A block of 7 bytes that claims 2^31 bytes.
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

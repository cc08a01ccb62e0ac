//! The subset of LZ4's frame format that Kafka's clients support.
//!
//! ```text
//! magic u32 │ FLG │ BD │ [content size u64] │ header checksum
//! │ n × ( length u32, topmost bit: not compressed │ block │ [block checksum u32] ) │ 0 u32 │ [content checksum u32]
//! ```
//! Numbers are little-endian. The Java client reads only frames with independent blocks, so other frames are refused (its
//! consumers could not read them). Like that client, this code does not check a content checksum: the batch has a CRC.

use super::compression_type::CompressionType;
use super::decompress_error::DecompressError;
use super::output::lengthen;
use crate::records::pace::Pace;
use lz4_flex::block;
use twox_hash::XxHash32;

const MAGIC: [u8; 4] = [0x04, 0x22, 0x4d, 0x18];
const FLG_VERSION: u8 = 0b0100_0000;
const FLG_VERSION_MASK: u8 = 0b1100_0000;
const FLG_INDEPENDENT: u8 = 0b0010_0000;
const FLG_BLOCK_CHECKSUM: u8 = 0b0001_0000;
const FLG_CONTENT_SIZE: u8 = 0b0000_1000;
const FLG_CONTENT_CHECKSUM: u8 = 0b0000_0100;
const FLG_RESERVED: u8 = 0b0000_0011;
const BD_64_KIB: u8 = 4 << 4;
const BD_RESERVED: u8 = 0b1000_1111;
pub(super) const BLOCK_LEN: usize = 64 * 1024;
/// Flag in a block's length: the block is stored uncompressed.
const STORED: u32 = 1 << 31;
/// Units for a block, and for each byte of it, besides its output.
const BLOCK_UNITS: usize = 256;
const UNITS_PER_BYTE: usize = 4;
/// Each byte of a block's input yields at most this many bytes of output: a length continues in bytes that add up to 255
/// each.
const EXPANSION_MAX: usize = 255;

pub(super) fn compress(data: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(data.len() / 2 + 64);
    begin(&mut out);
    for chunk in data.chunks(BLOCK_LEN) {
        put_block(chunk, &mut out);
    }
    end(&mut out);
    out
}

pub(super) fn begin(out: &mut Vec<u8>) {
    out.extend_from_slice(&MAGIC);
    let descriptor = [FLG_VERSION | FLG_INDEPENDENT, BD_64_KIB];
    out.extend_from_slice(&descriptor);
    out.push(header_checksum(&descriptor));
}

/// Compresses a block of up to [`BLOCK_LEN`] bytes.
pub(super) fn put_block(chunk: &[u8], out: &mut Vec<u8>) {
    let length_at = out.len();
    let block_at = length_at + 4;
    out.resize(block_at + block::get_maximum_output_size(chunk.len()), 0);
    let len = block::compress_into(chunk, &mut out[block_at..]).expect("the buffer has the required size");
    let length = if len < chunk.len() {
        out.truncate(block_at + len);
        len as u32
    } else {
        out.truncate(block_at);
        out.extend_from_slice(chunk);
        chunk.len() as u32 | STORED
    };
    out[length_at..block_at].copy_from_slice(&length.to_le_bytes());
}

pub(super) fn end(out: &mut Vec<u8>) {
    out.extend_from_slice(&[0; 4]);
}

pub(super) async fn decompress(pace: &mut Pace, data: &[u8], max: usize) -> Result<Vec<u8>, DecompressError> {
    let mut rest = data;
    let frame = Frame::take(&mut rest)?;
    let mut out = Output {
        bytes: Vec::new(),
        filled: 0,
        max,
    };
    loop {
        let word = u32::from_le_bytes(*take(&mut rest)?);
        let len = (word & !STORED) as usize;
        if len == 0 {
            break;
        }
        if len > frame.block_len_max {
            return Err(corrupt("block larger than its frame allows"));
        }
        let (packed, after) = rest.split_at_checked(len).ok_or_else(|| corrupt("cut off"))?;
        rest = after;
        if frame.has(FLG_BLOCK_CHECKSUM)
            && u32::from_le_bytes(*take(&mut rest)?) != XxHash32::oneshot(0, packed)
        {
            return Err(corrupt("wrong checksum of a block"));
        }
        let filled = out.filled;
        out.block(packed, word & STORED != 0, frame.block_len_max)?;
        pace.work(BLOCK_UNITS + UNITS_PER_BYTE * packed.len() + out.filled - filled)
            .await;
    }
    if frame.has(FLG_CONTENT_CHECKSUM) {
        take::<4>(&mut rest)?;
    }
    // Like Kafka's decoder, ignores bytes after the frame.
    out.bytes.truncate(out.filled);
    Ok(out.bytes)
}

struct Frame {
    flags: u8,
    block_len_max: usize,
}

impl Frame {
    fn take(rest: &mut &[u8]) -> Result<Self, DecompressError> {
        if *take(rest)? != MAGIC {
            return Err(corrupt("wrong magic"));
        }
        let start = *rest;
        let &[flags, block] = take(rest)?;
        if flags & FLG_VERSION_MASK != FLG_VERSION || flags & FLG_RESERVED != 0 {
            return Err(corrupt("unsupported version or dictionary"));
        }
        if flags & FLG_INDEPENDENT == 0 {
            return Err(corrupt(
                "blocks depend on each other, which Kafka's clients can't read",
            ));
        }
        if block & BD_RESERVED != 0 || block < BD_64_KIB {
            return Err(corrupt("impossible block size"));
        }
        let frame = Self {
            flags,
            block_len_max: 1 << (2 * (block >> 4) + 8),
        };
        if frame.has(FLG_CONTENT_SIZE) {
            take::<8>(rest)?;
        }
        let descriptor = &start[..start.len() - rest.len()];
        let [checksum] = *take(rest)?;
        if checksum != header_checksum(descriptor) {
            return Err(corrupt("wrong checksum of the header"));
        }
        Ok(frame)
    }

    fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

struct Output {
    /// Longer than its used part: zeroed once, although each block may ask for more space than it needs.
    bytes: Vec<u8>,
    filled: usize,
    max: usize,
}

impl Output {
    fn block(&mut self, packed: &[u8], stored: bool, block_len_max: usize) -> Result<(), DecompressError> {
        let too_large = DecompressError::TooLarge { max: self.max };
        let left = self.max - self.filled;
        if stored {
            if packed.len() > left {
                return Err(too_large);
            }
            self.reserve(packed.len()).copy_from_slice(packed);
            self.filled += packed.len();
            return Ok(());
        }
        let possible = block_len_max.min(packed.len() * EXPANSION_MAX);
        let room = self.reserve(possible.min(left));
        match block::decompress_into(packed, room) {
            Ok(len) => self.filled += len,
            Err(block::DecompressError::OutputTooSmall { .. }) if left < possible => return Err(too_large),
            Err(_) => return Err(corrupt("malformed block")),
        }
        Ok(())
    }

    fn reserve(&mut self, len: usize) -> &mut [u8] {
        let end = self.filled + len;
        if self.bytes.len() < end {
            lengthen(&mut self.bytes, end, 0, self.max);
        }
        &mut self.bytes[self.filled..end]
    }
}

fn header_checksum(descriptor: &[u8]) -> u8 {
    (XxHash32::oneshot(0, descriptor) >> 8) as u8
}

fn take<'a, const N: usize>(rest: &mut &'a [u8]) -> Result<&'a [u8; N], DecompressError> {
    let (taken, after) = rest.split_first_chunk().ok_or_else(|| corrupt("cut off"))?;
    *rest = after;
    Ok(taken)
}

fn corrupt(what: &'static str) -> DecompressError {
    DecompressError::Corrupt {
        codec: CompressionType::Lz4,
        what,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::pace::done;
    use lz4_flex::frame::{BlockMode, BlockSize, FrameEncoder, FrameInfo};
    use std::io::Write;

    fn encoded(info: FrameInfo, data: &[u8]) -> Vec<u8> {
        let mut encoder = FrameEncoder::with_frame_info(info, Vec::new());
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    }

    fn data() -> Vec<u8> {
        (0..300_000u32).map(|i| (i % 251 * (i / 5000)) as u8).collect()
    }

    fn decompress(data: &[u8], max: usize) -> Result<Vec<u8>, DecompressError> {
        done(super::decompress(&mut Pace::at_once(), data, max))
    }

    #[test]
    fn frames_of_another_encoder_are_read() {
        let data = data();
        let plain = || FrameInfo::new().block_mode(BlockMode::Independent);
        for info in [
            plain().block_size(BlockSize::Max64KB),
            plain().block_size(BlockSize::Max256KB).block_checksums(true),
            plain().block_size(BlockSize::Max1MB).content_checksum(true),
            plain()
                .block_size(BlockSize::Max4MB)
                .content_size(Some(data.len() as u64)),
        ] {
            let packed = encoded(info, &data);
            assert_eq!(decompress(&packed, data.len()).unwrap(), data);
        }
    }

    #[test]
    fn another_decoder_reads_ours() {
        let data = data();
        let packed = compress(&data);
        assert!(packed.len() < data.len());
        let mut out = Vec::new();
        std::io::copy(&mut lz4_flex::frame::FrameDecoder::new(&packed[..]), &mut out).unwrap();
        assert_eq!(out, data);
    }

    #[test]
    fn dependent_blocks_and_wrong_checksums_are_refused() {
        let data = data();
        let linked = encoded(FrameInfo::new().block_mode(BlockMode::Linked), &data);
        assert!(matches!(
            decompress(&linked, data.len()),
            Err(DecompressError::Corrupt { .. })
        ));

        let mut header = compress(&data);
        header[6] ^= 1;
        assert_eq!(
            decompress(&header, data.len()),
            Err(corrupt("wrong checksum of the header"))
        );

        let info = FrameInfo::new()
            .block_mode(BlockMode::Independent)
            .block_checksums(true);
        let mut block = encoded(info, &data);
        let at = block.len() - 5;
        block[at] ^= 1;
        assert_eq!(
            decompress(&block, data.len()),
            Err(corrupt("wrong checksum of a block"))
        );
    }

    #[test]
    fn bytes_after_the_frame_are_ignored() {
        let packed = compress(b"x");
        for junk in [&packed[..], b"zz", &[0; 100]] {
            let packed = [&packed, junk].concat();
            assert_eq!(decompress(&packed, 2), Ok(b"x".to_vec()));
        }
    }

    #[test]
    fn incompressible_blocks_are_stored() {
        let mut state = 1u32;
        let noise: Vec<u8> = std::iter::repeat_with(|| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        })
        .take(100_000)
        .collect();
        let packed = compress(&noise);
        assert_eq!(packed.len(), 7 + 2 * 4 + noise.len() + 4);
        assert_eq!(decompress(&packed, noise.len()).unwrap(), noise);
    }
}

//! gzip, with flate2 and zlib-rs. Members are parsed here, because flate2's member reader continues until it produces
//! output, no matter how much input produces none.
//!
//! ```text
//! 1f 8b │ 08 │ flags u8 │ mtime u32 │ xfl u8 │ os u8 │ [length u16, extra] │ [name 00] │ [comment 00] │ [crc u16]
//! │ deflated │ crc u32 │ size u32
//! ```
//! Numbers are little-endian (RFC 1952).

use super::compression_type::CompressionType;
use super::decompress_error::DecompressError;
use super::output::next_capacity;
use crate::records::pace::{PIECE_MAX, Pace};
use flate2::write::GzEncoder;
use flate2::{Crc, Decompress, FlushDecompress, Status};
use std::io::Write;

const MAGIC: [u8; 3] = [0x1f, 0x8b, 8];
const FLAG_CRC: u8 = 1 << 1;
const FLAG_EXTRA: u8 = 1 << 2;
const FLAG_NAME: u8 = 1 << 3;
const FLAG_COMMENT: u8 = 1 << 4;
const FLAGS_RESERVED: u8 = 0b1110_0000;
/// A header, a trailer, and some bytes between them.
const MEMBER_LEN_MIN: usize = 10 + 1 + 8;

/// Input passed to the library at a time, and the units for each byte of it besides its output: a block of fifty bytes can
/// have tables that take a microsecond to build and produce no output.
const INPUT_MAX: usize = 8 << 10;
const UNITS_PER_BYTE: usize = 16;
/// Units for a call and for a member.
const CALL_UNITS: usize = 128;
const MEMBER_UNITS: usize = 4096;

pub(super) fn compress(level: i32, data: &[u8]) -> Vec<u8> {
    let mut encoder = encoder(level, Vec::with_capacity(data.len() / 2 + 64));
    encoder.write_all(data).expect("writing to a Vec can't fail");
    encoder.finish().expect("writing to a Vec can't fail")
}

pub(super) fn encoder(level: i32, out: Vec<u8>) -> GzEncoder<Vec<u8>> {
    let level = match u32::try_from(level) {
        Ok(level) => flate2::Compression::new(level.min(9)),
        Err(_) => flate2::Compression::default(),
    };
    GzEncoder::new(out, level)
}

/// Input compressed at a time. For text of two letters level 9 takes over two microseconds a byte, 7 a tenth of that.
pub(super) fn step_bytes(level: i32) -> usize {
    match level {
        ..=0 => 2 << 10,
        1..=3 => 8 << 10,
        4..=7 => 2 << 10,
        8.. => 512,
    }
}

/// Like Java's GZIPInputStream, with which Kafka's brokers and clients read: a member is followed by another one, or by
/// bytes that are ignored.
pub(super) async fn decompress(pace: &mut Pace, data: &[u8], max: usize) -> Result<Vec<u8>, DecompressError> {
    let mut rest = data;
    take_header(&mut rest)?;
    let mut inflate = Decompress::new(false);
    let (mut out, mut filled) = (Vec::new(), 0);
    loop {
        let mut crc = Crc::new();
        loop {
            if filled == out.len() {
                if filled == out.capacity() {
                    out.reserve_exact(next_capacity(filled, data.len(), max) - filled);
                }
                // In pieces: zeroing the buffer takes time too.
                out.resize(out.capacity().min(filled + PIECE_MAX), 0);
            }
            let input = &rest[..rest.len().min(INPUT_MAX)];
            let before = (inflate.total_in(), inflate.total_out());
            let status = inflate.decompress(input, &mut out[filled..], FlushDecompress::None);
            let read = (inflate.total_in() - before.0) as usize;
            let written = (inflate.total_out() - before.1) as usize;
            let status = status.map_err(|_| corrupt(MALFORMED))?;
            crc.update(&out[filled..filled + written]);
            rest = &rest[read..];
            filled += written;
            if filled > max {
                return Err(DecompressError::TooLarge { max });
            }
            pace.work(CALL_UNITS + UNITS_PER_BYTE * read + written).await;
            match status {
                Status::StreamEnd => break,
                Status::Ok | Status::BufError if read + written > 0 => {}
                Status::Ok | Status::BufError if rest.is_empty() => return Err(corrupt(CUT_OFF)),
                Status::Ok | Status::BufError => return Err(corrupt(MALFORMED)),
            }
        }
        let (sum, size) = (*take(&mut rest)?, *take(&mut rest)?);
        if u32::from_le_bytes(sum) != crc.sum() || u32::from_le_bytes(size) != crc.amount() {
            return Err(corrupt(MALFORMED));
        }
        pace.work(MEMBER_UNITS).await;
        if rest.len() < MEMBER_LEN_MIN || take_header(&mut rest).is_err() {
            break;
        }
        inflate.reset(false);
    }
    out.truncate(filled);
    Ok(out)
}

fn take_header(rest: &mut &[u8]) -> Result<(), DecompressError> {
    let start = *rest;
    let [magic @ .., flags] = *take::<4>(rest)?;
    if magic != MAGIC || flags & FLAGS_RESERVED != 0 {
        return Err(corrupt(MALFORMED));
    }
    take::<6>(rest)?;
    if flags & FLAG_EXTRA != 0 {
        let len = u16::from_le_bytes(*take(rest)?);
        (_, *rest) = rest
            .split_at_checked(usize::from(len))
            .ok_or_else(|| corrupt(CUT_OFF))?;
    }
    for flag in [FLAG_NAME, FLAG_COMMENT] {
        if flags & flag != 0 {
            let end = rest.iter().position(|b| *b == 0);
            *rest = &rest[end.ok_or_else(|| corrupt(CUT_OFF))? + 1..];
        }
    }
    if flags & FLAG_CRC != 0 {
        let mut crc = Crc::new();
        crc.update(&start[..start.len() - rest.len()]);
        if u16::from_le_bytes(*take(rest)?) != crc.sum() as u16 {
            return Err(corrupt(MALFORMED));
        }
    }
    Ok(())
}

fn take<'a, const N: usize>(rest: &mut &'a [u8]) -> Result<&'a [u8; N], DecompressError> {
    let (taken, after) = rest.split_first_chunk().ok_or_else(|| corrupt(CUT_OFF))?;
    *rest = after;
    Ok(taken)
}

const CUT_OFF: &str = "cut off";
const MALFORMED: &str = "malformed";

fn corrupt(what: &'static str) -> DecompressError {
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
    fn bytes_after_the_last_member_are_ignored() {
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
        // A member that began correctly must end correctly.
        let cut = [&member, &member[..member.len() - 1]].concat();
        assert_eq!(decompress(&cut, 10_000), Err(corrupt(CUT_OFF)));
    }

    #[test]
    fn members_of_other_encoders_are_read_and_damaged_ones_refused() {
        let data = b"a rose is a rose is a rose".repeat(4000);
        let builder = || {
            let some = || flate2::GzBuilder::new().mtime(7).operating_system(3);
            [
                some(),
                some().extra("more"),
                some().filename("name"),
                some().comment("comment"),
                some().extra("").filename("name").comment("comment"),
            ]
        };
        for builder in builder() {
            let mut encoder = builder.write(Vec::new(), flate2::Compression::fast());
            encoder.write_all(&data).unwrap();
            let packed = encoder.finish().unwrap();
            assert_eq!(decompress(&packed, data.len()), Ok(data.clone()));
            // The checksum or the size is wrong.
            for at in [packed.len() - 8, packed.len() - 1] {
                let mut damaged = packed.clone();
                damaged[at] ^= 1;
                assert_eq!(decompress(&damaged, data.len()), Err(corrupt(MALFORMED)));
            }
        }
        let member = compress(6, &data);
        let (fixed, deflated) = member.split_at(10);
        let mut fixed = fixed.to_vec();
        fixed[3] = FLAG_CRC;
        let mut crc = Crc::new();
        crc.update(&fixed);
        for (wrong, expected) in [(0, Ok(data.clone())), (1, Err(corrupt(MALFORMED)))] {
            let sum = (crc.sum() as u16 ^ wrong).to_le_bytes();
            let packed = [&fixed[..], &sum, deflated].concat();
            assert_eq!(decompress(&packed, data.len()), expected);
        }
    }
}

//! zstd, by the reference library.

use super::{CompressionType, DecompressError, grown};
use zstd::zstd_safe::{DCtx, InBuffer, OutBuffer, get_error_name};

pub(super) fn compress(level: i32, data: &[u8]) -> Vec<u8> {
    zstd::bulk::compress(data, level).expect("zstd compresses whatever fits into memory")
}

/// The window, which a frame may set to 128 MiB, is zstd's own buffer: set aside, but touched only as far as output goes.
pub(super) fn decompress(data: &[u8], max: usize) -> Result<Vec<u8>, DecompressError> {
    let mut context = DCtx::create();
    let mut input = InBuffer::around(data);
    let mut out = Vec::new();
    loop {
        if out.len() == out.capacity() {
            out.reserve_exact(grown(out.len(), data.len(), max) - out.len());
        }
        let filled = out.len();
        let mut output = OutBuffer::around_pos(&mut out, filled);
        let wanted = context.decompress_stream(&mut output, &mut input);
        let wanted = wanted.map_err(|code| corrupt(get_error_name(code)))?;
        if out.len() > max {
            return Err(DecompressError::TooLarge { max });
        }
        if input.pos() == data.len() {
            // 0: a frame ended exactly here. Otherwise only output that had no room can be outstanding.
            if wanted == 0 && !data.is_empty() {
                return Ok(out);
            }
            if out.len() < out.capacity() {
                return Err(corrupt("cut off"));
            }
        }
    }
}

fn corrupt(what: &'static str) -> DecompressError {
    DecompressError::Corrupt {
        codec: CompressionType::Zstd,
        what,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn frames_without_a_size_and_frames_in_a_row_are_read() {
        let data: Vec<u8> = (0..500_000u32).map(|i| (i / 100) as u8).collect();
        let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 3).unwrap();
        encoder.write_all(&data).unwrap();
        let streamed = encoder.finish().unwrap();
        assert_eq!(decompress(&streamed, data.len()).unwrap(), data);

        let both = [streamed, compress(1, &data)].concat();
        assert_eq!(decompress(&both, 2 * data.len()).unwrap(), data.repeat(2));
    }
}

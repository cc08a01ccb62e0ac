//! Compression of a batch's records: all of them as one stream, in one of four formats.
//!
//! Input is untrusted, so [`decompress`] takes the maximum output size. Output grows as it is produced; a claimed size is
//! never allocated in advance, and output past the limit is an error.
//!
//! | codec | written | read |
//! | --- | --- | --- |
//! | gzip | one member | any number of members, and what follows them |
//! | snappy | Xerial's frame (snappy-java), 32 KiB blocks | that, or one raw block, which librdkafka sends |
//! | lz4 | a frame of independent 64 KiB blocks, no checksum but the header's | any frame of independent blocks, and what follows it |
//! | zstd | one frame with its size | any number of frames, windows up to 128 MiB as zstd's own default |

mod compression_type;
mod compressor;
mod decompress_error;
mod gzip;
mod lz4;
mod output;
mod snappy;
mod zstd;

pub use compression_type::CompressionType;
pub(super) use compressor::{Compressor, TooMany};
pub use decompress_error::DecompressError;

use super::pace::{self, Pace};
use bytes::Bytes;

/// Compresses `data`. `level` is Kafka's `compression.<codec>.level`: gzip takes 1 to 9 and -1 for its default, zstd
/// -131072 to 22; lz4 accepts Kafka's 1 to 17 and always writes what Kafka writes at its default, 9 (so its key says that it is not implemented); the others have none.
///
/// # Panics
/// If the codec runs out of memory.
pub fn compress(codec: CompressionType, level: i32, data: &[u8]) -> Vec<u8> {
    match codec {
        CompressionType::None => data.to_vec(),
        CompressionType::Gzip => gzip::compress(level, data),
        CompressionType::Snappy => snappy::compress(data),
        CompressionType::Lz4 => lz4::compress(data),
        CompressionType::Zstd => zstd::compress(level, data),
    }
}

/// Maximum memory for compressing `len` bytes, besides the input and the output.
pub fn context_bytes_max(codec: CompressionType, len: usize) -> usize {
    match codec {
        CompressionType::None => 0,
        CompressionType::Gzip => 512 << 10,
        CompressionType::Snappy | CompressionType::Lz4 => 256 << 10,
        CompressionType::Zstd => zstd::context_bytes_max(len),
    }
}

/// Decompresses to at most `max` bytes; with [`CompressionType::None`] it copies.
///
/// # Errors
/// [`DecompressError`].
pub fn decompress(codec: CompressionType, data: &[u8], max: usize) -> Result<Bytes, DecompressError> {
    pace::done(decompress_at(&mut Pace::at_once(), codec, data, max))
}

/// As [`decompress`], with a [`Pace`]: yields between pieces, or between blocks if the codec has them. Cancel-safe.
async fn decompress_at(
    pace: &mut Pace,
    codec: CompressionType,
    data: &[u8],
    max: usize,
) -> Result<Bytes, DecompressError> {
    let out = match codec {
        CompressionType::None if data.len() > max => return Err(DecompressError::TooLarge { max }),
        CompressionType::None => data.to_vec(),
        CompressionType::Gzip => gzip::decompress(pace, data, max).await?,
        CompressionType::Snappy => snappy::decompress(pace, data, max).await?,
        CompressionType::Lz4 => lz4::decompress(pace, data, max).await?,
        CompressionType::Zstd => zstd::decompress(pace, data, max).await?,
    };
    Ok(Bytes::from(out))
}

/// As [`decompress_at`], but returns uncompressed data as it is, whatever its size: it takes no memory.
pub(super) async fn decompress_bytes(
    pace: &mut Pace,
    codec: CompressionType,
    data: Bytes,
    max: usize,
) -> Result<Bytes, DecompressError> {
    match codec {
        CompressionType::None => Ok(data),
        codec => decompress_at(pace, codec, &data, max).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    #[test]
    fn ids_are_kafkas() {
        for (id, name) in ["none", "gzip", "snappy", "lz4", "zstd"].into_iter().enumerate() {
            let codec = CompressionType::from_id(id as u8).unwrap();
            assert_eq!((codec.id(), codec.name()), (id as u8, name));
        }
        assert_eq!(CompressionType::from_id(5), None);
    }

    #[test]
    fn the_limit_is_exact() {
        let data: Vec<u8> = (0..200_000u32).map(|i| (i / 7 * 31) as u8).collect();
        for codec in CompressionType::ALL {
            for len in [0, 1, 1000, 65_536, 65_537, data.len()] {
                let packed = compress(codec, codec.default_level(), &data[..len]);
                let unpacked =
                    decompress(codec, &packed, len).unwrap_or_else(|e| panic!("{codec} {len}: {e}"));
                assert_eq!(unpacked, data[..len], "{codec}");
                if len > 0 {
                    let too_large = DecompressError::TooLarge { max: len - 1 };
                    assert_eq!(
                        decompress(codec, &packed, len - 1),
                        Err(too_large),
                        "{codec} {len}"
                    );
                }
            }
        }
    }

    #[test]
    fn decompressing_to_many_bytes_yields() {
        let data: Vec<u8> = (0..4_000_000u32).map(|i| (i / 7 * 31) as u8).collect();
        for codec in &CompressionType::ALL[1..] {
            let packed = compress(*codec, codec.default_level(), &data);
            let breaks = |mut pace: Pace| {
                let mut work = pin!(decompress_at(&mut pace, *codec, &packed, data.len()));
                let mut cx = Context::from_waker(Waker::noop());
                let mut breaks = 0;
                loop {
                    match work.as_mut().poll(&mut cx) {
                        Poll::Pending => breaks += 1,
                        Poll::Ready(done) => {
                            assert!(done.is_ok_and(|done| done == data), "{codec}");
                            return breaks;
                        }
                    }
                }
            };
            assert_eq!(breaks(Pace::at_once()), 0, "{codec}");
            let breaks = breaks(Pace::gives_way());
            assert!(
                (data.len() / pace::PIECE_MAX / 2..).contains(&breaks),
                "{codec}: {breaks}"
            );
        }
    }

    #[test]
    fn a_cut_off_frame_is_corrupt() {
        let data: Vec<u8> = (0..100_000u32).map(|i| (i.wrapping_mul(i) >> 3) as u8).collect();
        for codec in &CompressionType::ALL[1..] {
            let packed = compress(*codec, codec.default_level(), &data);
            for len in [0, 1, 3, 10, 20, packed.len() / 2, packed.len() - 1] {
                let got = decompress(*codec, &packed[..len], 1 << 20);
                assert!(
                    matches!(got, Err(DecompressError::Corrupt { .. })),
                    "{codec} cut to {len}: {got:?}"
                );
            }
        }
    }
}

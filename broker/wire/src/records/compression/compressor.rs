//! Streaming compression, with a pace and an output limit.

use std::io::Write;

use flate2::write::GzEncoder;

use super::{CompressionType, gzip, lz4, snappy, zstd};
use crate::records::pace::{BREAK_UNITS, Pace};

/// Compresses a stream of known length. Decompressing its output yields the same data as that of [`super::compress`], but
/// the bytes may differ.
pub(in crate::records) struct Compressor {
    kind: Kind,
    /// The output, except for gzip, whose encoder owns it.
    out: Vec<u8>,
    out_bytes_max: usize,
    /// Input that is not compressed yet, less than one step.
    held: Vec<u8>,
    step_bytes: usize,
    step_units: usize,
}

enum Kind {
    None,
    Gzip(GzEncoder<Vec<u8>>),
    Snappy(Box<snap::raw::Encoder>),
    Lz4,
    Zstd(zstd::Encoder),
}

/// The output exceeds its limit. Contains the output's length so far.
pub(in crate::records) struct TooMany(pub usize);

impl Compressor {
    /// Compresses `len` bytes. Appends the output to `out`, until that holds `out_bytes_max` bytes.
    pub fn new(
        (codec, level): (CompressionType, i32),
        len: usize,
        mut out: Vec<u8>,
        out_bytes_max: usize,
    ) -> Self {
        // In the worst case, compressing one piece takes about as long as the time between two yields.
        let (step_bytes, step_units) = match codec {
            CompressionType::None => (BREAK_UNITS, BREAK_UNITS / 4),
            CompressionType::Gzip => (gzip::step_bytes(level), BREAK_UNITS),
            CompressionType::Snappy => (snappy::BLOCK_LEN, BREAK_UNITS / 2),
            CompressionType::Lz4 => (lz4::BLOCK_LEN, BREAK_UNITS),
            CompressionType::Zstd => (zstd::step_bytes(level), BREAK_UNITS),
        };
        if codec == CompressionType::Lz4 {
            lz4::begin(&mut out);
        }
        let kind = match codec {
            CompressionType::None => Kind::None,
            CompressionType::Gzip => Kind::Gzip(gzip::encoder(level, std::mem::take(&mut out))),
            CompressionType::Snappy => {
                snappy::begin(&mut out);
                Kind::Snappy(Box::new(snap::raw::Encoder::new()))
            }
            CompressionType::Lz4 => Kind::Lz4,
            CompressionType::Zstd => Kind::Zstd(zstd::Encoder::new(level, len)),
        };
        Self {
            kind,
            out,
            out_bytes_max,
            held: Vec::with_capacity(step_bytes.min(len)),
            step_bytes,
            step_units,
        }
    }

    /// Compresses more of the stream.
    pub async fn write(&mut self, pace: &mut Pace, data: &[u8]) -> Result<(), TooMany> {
        let mut rest = data;
        while self.held.len() + rest.len() > self.step_bytes {
            let (taken, after) = rest.split_at(self.step_bytes - self.held.len());
            rest = after;
            if self.held.is_empty() {
                self.step(taken, false)?;
            } else {
                self.held.extend_from_slice(taken);
                self.step_of_held(false)?;
            }
            pace.work(self.step_units).await;
        }
        self.held.extend_from_slice(rest);
        Ok(())
    }

    /// Ends the stream and returns the output.
    pub async fn finish(mut self, pace: &mut Pace) -> Result<Vec<u8>, TooMany> {
        self.step_of_held(true)?;
        pace.work(self.step_units).await;
        let out = match self.kind {
            Kind::Gzip(encoder) => encoder.finish().expect("writing to a Vec can't fail"),
            Kind::None | Kind::Snappy(_) | Kind::Lz4 | Kind::Zstd(_) => self.out,
        };
        match out.len() {
            len if len > self.out_bytes_max => Err(TooMany(len)),
            _ => Ok(out),
        }
    }

    fn step_of_held(&mut self, last: bool) -> Result<(), TooMany> {
        let mut held = std::mem::take(&mut self.held);
        self.step(&held, last)?;
        held.clear();
        self.held = held;
        Ok(())
    }

    fn step(&mut self, piece: &[u8], last: bool) -> Result<(), TooMany> {
        let out = &mut self.out;
        let len = match &mut self.kind {
            Kind::None => {
                out.extend_from_slice(piece);
                out.len()
            }
            Kind::Gzip(encoder) => {
                encoder.write_all(piece).expect("writing to a Vec can't fail");
                encoder.get_ref().len()
            }
            Kind::Snappy(encoder) => {
                if !piece.is_empty() {
                    snappy::put_block(encoder, piece, out);
                }
                out.len()
            }
            Kind::Lz4 => {
                if !piece.is_empty() {
                    lz4::put_block(piece, out);
                }
                if last {
                    lz4::end(out);
                }
                out.len()
            }
            Kind::Zstd(encoder) => {
                encoder.write(piece, out, last);
                out.len()
            }
        };
        match len > self.out_bytes_max {
            true => Err(TooMany(len)),
            false => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{compress, decompress};
    use super::*;
    use crate::records::pace::done;

    fn compressed(
        kind: (CompressionType, i32),
        data: &[u8],
        piece: usize,
        out_bytes_max: usize,
    ) -> Result<Vec<u8>, TooMany> {
        let mut pace = Pace::at_once();
        let mut compressor = Compressor::new(kind, data.len(), b"before".to_vec(), out_bytes_max);
        done(async {
            for piece in data.chunks(piece) {
                compressor.write(&mut pace, piece).await?;
            }
            compressor.finish(&mut pace).await
        })
    }

    fn data(len: usize) -> Vec<u8> {
        let words = (0..len as u32 / 4).map(|i| format!("{} ", i.wrapping_mul(2_654_435_761) % 5000));
        let mut data = words.collect::<String>().into_bytes();
        data.truncate(len);
        data
    }

    #[test]
    fn streamed_output_decompresses_like_one_shot_output() {
        let all = data(500_000);
        for codec in CompressionType::ALL {
            let levels: &[i32] = match codec {
                CompressionType::Gzip => &[-1, 1, 4, 9],
                CompressionType::Zstd => &[-5, 1, 3, 5, 9, 13, 19, 22],
                _ => &[0],
            };
            for level in levels {
                for (len, piece) in [
                    (0, 1),
                    (1, 1),
                    (5000, 7),
                    (32 << 10, 32 << 10),
                    (64 << 10, 1 << 20),
                    (all.len(), 1000),
                    (all.len(), 1 << 20),
                ] {
                    let data = &all[..len];
                    let got = compressed((codec, *level), data, piece, usize::MAX);
                    let got = got.unwrap_or_else(|_| panic!("there is room"));
                    let packed = got.strip_prefix(b"before").unwrap();
                    let context = format!("{codec} at level {level}, {len} bytes by {piece}");
                    assert_eq!(decompress(codec, packed, len).unwrap(), data, "{context}");
                    let at_once = compress(codec, *level, data);
                    assert!(
                        packed.len() <= at_once.len() + at_once.len() / 5 + 32,
                        "{context}: {} bytes, and {} at once",
                        packed.len(),
                        at_once.len()
                    );
                    // The ends of blocks and matches depend on the pieces.
                    let may_differ = matches!(codec, CompressionType::Gzip | CompressionType::Zstd);
                    assert!(may_differ || packed == at_once, "{context}");
                }
            }
        }
    }

    #[test]
    fn it_ends_when_there_is_too_much() {
        let data = data(500_000);
        for codec in CompressionType::ALL {
            let level = codec.default_level();
            let whole = compressed((codec, level), &data, 1 << 20, usize::MAX);
            let whole = whole.unwrap_or_else(|_| panic!("there is room")).len();
            assert!(compressed((codec, level), &data, 1 << 20, whole).is_ok());
            for max in [whole - 1, whole / 2, 10] {
                match compressed((codec, level), &data, 1 << 20, max) {
                    Ok(_) => panic!("{codec} has more than {max} bytes"),
                    Err(TooMany(len)) => {
                        assert!(len > max && len <= whole && len < max + (300 << 10), "{len}")
                    }
                }
            }
        }
    }
}

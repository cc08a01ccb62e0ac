//! zstd, with the reference library.
//!
//! Contexts are reused: creating one queries the processor's features, which is slow on a virtual machine because the host
//! answers.

use super::compression_type::CompressionType;
use super::decompress_error::DecompressError;
use super::output::next_capacity;
use crate::records::pace::{PIECE_MAX, Pace};
use std::sync::Mutex;
use zstd::zstd_safe::zstd_sys::ZSTD_EndDirective;
use zstd::zstd_safe::{
    CCtx, CParameter, DCtx, InBuffer, OutBuffer, ResetDirective, compress_bound, get_error_name,
};

/// Idle contexts. They are interchangeable.
struct Idle<T>(Mutex<Vec<T>>);

/// Maximum number of idle contexts, and their maximum size.
const IDLE_MAX: usize = 4;
const IDLE_BYTES_MAX: usize = 4 << 20;

/// Size of the intermediate buffer, used if the output has more free space than may be filled at once. It is not part of the
/// accounted memory, so it is small.
const COPIED_BYTES: usize = 64 << 10;

/// The levels from which tables and searches are limited, and the limits.
const CAPPED_FROM: i32 = 9;
const WINDOW_LOG_MAX: u32 = 21;
const TABLE_LOG_MAX: u32 = 20;
const SEARCH_CAPPED_FROM: i32 = 22;
const SEARCH_LOG_MAX: u32 = 7;
/// For a source of up to this size the tables are smaller than the limits at every level.
const SMALL_TABLES_MAX: usize = 256 << 10;

/// From this level on, blocks of a stream compressed in pieces are 8 KiB.
const BLOCKS_SHORTER_FROM: i32 = 13;
/// Output space for one call.
const OUTPUT_MIN: usize = 4 << 10;

/// Input passed to the library at a time, and the units for each byte of it besides its output: a block of twenty bytes can
/// have tables that take microseconds to build, and produce almost no output.
const INPUT_MAX: usize = 8 << 10;
const UNITS_PER_BYTE: usize = 16;
/// Units for a call; a frame without output is a call too.
const CALL_UNITS: usize = 1024;

static COMPRESSING: Idle<CCtx<'static>> = Idle(Mutex::new(Vec::new()));
static DECOMPRESSING: Idle<DCtx<'static>> = Idle(Mutex::new(Vec::new()));

impl<T> Idle<T> {
    fn take(&self) -> Option<T> {
        self.0.lock().expect("no panic under this lock").pop()
    }

    fn give_back(&self, context: T, bytes: usize) {
        let mut idle = self.0.lock().expect("no panic under this lock");
        if idle.len() < IDLE_MAX && bytes <= IDLE_BYTES_MAX {
            idle.push(context);
        }
    }
}

/// Sets the level, and limits its tables: those of level 22 would take over 700 MiB. The limits change neither the levels
/// below these nor sources up to 256 KiB, for which zstd's tables are small.
fn configure(context: &mut CCtx<'static>, level: i32, len: usize) {
    let mut set = |parameter| {
        let done = context.set_parameter(parameter);
        done.map_err(get_error_name).expect("zstd has the parameter");
    };
    set(CParameter::CompressionLevel(level));
    if level >= CAPPED_FROM && len > SMALL_TABLES_MAX {
        set(CParameter::WindowLog(WINDOW_LOG_MAX));
        set(CParameter::ChainLog(TABLE_LOG_MAX));
        set(CParameter::HashLog(TABLE_LOG_MAX));
    }
    if level >= SEARCH_CAPPED_FROM {
        set(CParameter::SearchLog(SEARCH_LOG_MAX));
    }
}

/// Maximum memory of a context that compresses `len` bytes.
pub(super) fn context_bytes_max(len: usize) -> usize {
    match len {
        ..=SMALL_TABLES_MAX => 6 << 20,
        _ => 12 << 20,
    }
}

pub(super) fn compress(level: i32, data: &[u8]) -> Vec<u8> {
    let mut context = COMPRESSING.take().unwrap_or_else(CCtx::create);
    configure(&mut context, level, data.len());
    let mut out = Vec::with_capacity(compress_bound(data.len()));
    let done = context.compress2(&mut out, data);
    done.map_err(get_error_name)
        .expect("compression fails only without memory");
    give_back(context);
    out
}

/// Input compressed at a time. The worst-case time for a byte depends on the level: 5 ns (3), 60 ns (12), 700 ns (19).
pub(super) fn step_bytes(level: i32) -> usize {
    match level {
        ..=4 => 32 << 10,
        5..BLOCKS_SHORTER_FROM => 16 << 10,
        BLOCKS_SHORTER_FROM.. => 8 << 10,
    }
}

/// Streaming compression.
pub(super) struct Encoder {
    /// `None` only while it is dropped.
    context: Option<CCtx<'static>>,
    /// Whether each step is flushed as a block: otherwise zstd collects 128 KiB for a block, which takes too long at these
    /// levels.
    step_is_block: bool,
}

impl Encoder {
    /// Begins a stream of `len` bytes.
    pub(super) fn new(level: i32, len: usize) -> Self {
        let mut context = COMPRESSING.take().unwrap_or_else(CCtx::create);
        configure(&mut context, level, len);
        let pledged = context.set_pledged_src_size(Some(len as u64));
        pledged
            .map_err(get_error_name)
            .expect("nothing has been compressed yet");
        Self {
            context: Some(context),
            step_is_block: level > 4,
        }
    }

    /// Appends the output for `piece` to `out`; with the last piece, all remaining output.
    ///
    /// # Panics
    /// If the number of bytes differs from the announced length.
    pub(super) fn write(&mut self, piece: &[u8], out: &mut Vec<u8>, last: bool) {
        let context = self
            .context
            .as_mut()
            .expect("the context exists until the encoder is dropped");
        let end = match (last, self.step_is_block) {
            (true, _) => ZSTD_EndDirective::ZSTD_e_end,
            (false, true) => ZSTD_EndDirective::ZSTD_e_flush,
            (false, false) => ZSTD_EndDirective::ZSTD_e_continue,
        };
        let mut input = InBuffer::around(piece);
        loop {
            out.reserve(compress_bound(piece.len()).min(OUTPUT_MIN));
            let filled = out.len();
            let left = context.compress_stream2(&mut OutBuffer::around_pos(out, filled), &mut input, end);
            let left = left.map_err(get_error_name);
            let left = left.expect("the stream has the announced length");
            if input.pos() == piece.len() && (left == 0 || end == ZSTD_EndDirective::ZSTD_e_continue) {
                return;
            }
        }
    }
}

impl Drop for Encoder {
    fn drop(&mut self) {
        if let Some(context) = self.context.take() {
            give_back(context);
        }
    }
}

/// Resets the context before it is reused.
fn give_back(mut context: CCtx<'static>) {
    if context.reset(ResetDirective::SessionAndParameters).is_ok() {
        let bytes = context.sizeof();
        COMPRESSING.give_back(context, bytes);
    }
}

/// The window, up to 128 MiB as the frame says, is zstd's own buffer: allocated, but touched only as far as output is
/// produced.
pub(super) async fn decompress(pace: &mut Pace, data: &[u8], max: usize) -> Result<Vec<u8>, DecompressError> {
    let mut context = DECOMPRESSING.take().unwrap_or_else(DCtx::create);
    // The stream owns the context until it is returned: no lock is held across a yield.
    let out = decompress_in(&mut context, pace, data, max).await;
    // Discards the state of a cut-off or refused frame.
    if context.reset(ResetDirective::SessionAndParameters).is_ok() {
        let bytes = context.sizeof();
        DECOMPRESSING.give_back(context, bytes);
    }
    out
}

async fn decompress_in(
    context: &mut DCtx<'static>,
    pace: &mut Pace,
    data: &[u8],
    max: usize,
) -> Result<Vec<u8>, DecompressError> {
    let mut rest = data;
    let (mut out, mut piece) = (Vec::new(), Vec::new());
    loop {
        if out.len() == out.capacity() {
            out.reserve_exact(next_capacity(out.len(), data.len(), max) - out.len());
        }
        let filled = out.len();
        let mut input = InBuffer::around(&rest[..rest.len().min(INPUT_MAX)]);
        let (wanted, full) = if out.capacity() - filled <= PIECE_MAX {
            let wanted = context.decompress_stream(&mut OutBuffer::around_pos(&mut out, filled), &mut input);
            (wanted, out.len() == out.capacity())
        } else {
            // A call fills all the output space that it gets, which would take too long here.
            piece.clear();
            piece.reserve_exact(COPIED_BYTES);
            let wanted = context.decompress_stream(&mut OutBuffer::around(&mut piece), &mut input);
            out.extend_from_slice(&piece);
            (wanted, piece.len() == piece.capacity())
        };
        let wanted = wanted.map_err(|code| corrupt(get_error_name(code)))?;
        if out.len() > max {
            return Err(DecompressError::TooLarge { max });
        }
        let read = input.pos();
        rest = &rest[read..];
        pace.work(CALL_UNITS + UNITS_PER_BYTE * read + out.len() - filled)
            .await;
        if rest.is_empty() {
            // 0 means that a frame ended exactly here. Otherwise only output that didn't fit can be outstanding.
            if wanted == 0 && !data.is_empty() {
                return Ok(out);
            }
            if !full {
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
    use crate::records::pace::done;
    use std::io::Write;

    fn decompress(data: &[u8], max: usize) -> Result<Vec<u8>, DecompressError> {
        done(super::decompress(&mut Pace::at_once(), data, max))
    }

    #[test]
    fn a_context_takes_no_more_than_is_said() {
        let data: Vec<u8> = (0..5_000_000u32).map(|i| (i / 7 * 31) as u8).collect();
        for len in [1000, SMALL_TABLES_MAX, SMALL_TABLES_MAX + 1, 600_000, data.len()] {
            for level in [-131_072, -1].into_iter().chain(1..=22) {
                let mut context = CCtx::create();
                configure(&mut context, level, len);
                let pledged = context.set_pledged_src_size(Some(len as u64));
                pledged.map_err(get_error_name).unwrap();
                let (mut out, mut input) = (Vec::with_capacity(100), InBuffer::around(&data[..1000]));
                let begun = context.compress_stream(&mut OutBuffer::around(&mut out), &mut input);
                begun.map_err(get_error_name).unwrap();
                let (bytes, most) = (context.sizeof(), context_bytes_max(len));
                assert!(bytes <= most, "{bytes} bytes for {len} at level {level}");
            }
        }
    }

    #[test]
    fn a_refused_stream_leaves_no_state_for_the_next() {
        let good = compress(3, &[7; 100_000]);
        for _ in 0..3 {
            assert!(decompress(&good[..good.len() / 2], 1 << 20).is_err());
            assert!(decompress(b"(\xb5/\xfd no frame", 1 << 20).is_err());
            assert!(decompress(&good, 10).is_err());
            assert_eq!(decompress(&good, 1 << 20).unwrap(), [7; 100_000]);
        }
    }

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

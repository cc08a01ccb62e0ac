//! Memory limits of records: validating an uncompressed batch allocates nothing, and decompression bombs are stopped at the
//! limit.

#![expect(
    clippy::disallowed_macros,
    reason = "an allocator knows its caller by its thread alone"
)]

use brokkr_types::UnixMillis;
use brokkr_wire::records::{
    Batch, BatchBuilder, BatchError, CompressionConfig, CompressionType, DecompressError, HEADER_LEN, Header,
    MESSAGE_TOO_LARGE, Origin, Rules, TimestampType, compression, header, validate,
};
use bytes::Bytes;
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

const MIB: usize = 1 << 20;

const RULES: Rules = Rules {
    compaction: false,
    timestamp_type: TimestampType::CreateTime,
    timestamp_before_max_ms: i64::MAX,
    timestamp_after_max_ms: i64::MAX,
    max_message_bytes: 1_048_588,
    compression: CompressionConfig::Producer,
    origin: Origin::Client,
    zstd: true,
    decompressed_max: MIB,
};

/// Counts Rust's allocations in the current thread. zstd's window is allocated in C and not counted.
struct Counting;

thread_local! {
    /// A test's own: what the harness and other tests allocate meanwhile doesn't count.
    static LIVE: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

// SAFETY: all calls go to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let live = LIVE.get() + layout.size().cast_signed();
        LIVE.set(live);
        PEAK.set(PEAK.get().max(live));
        // SAFETY: the caller's contract is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.set(LIVE.get() - layout.size().cast_signed());
        // SAFETY: the caller's contract is the same.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The peak allocation while `f` ran.
fn peak_of<T>(f: impl FnOnce() -> T) -> (usize, T) {
    LIVE.set(0);
    PEAK.set(0);
    let result = f();
    (PEAK.get().cast_unsigned(), result)
}

#[test]
fn bombs_are_refused_within_the_limit() {
    let zeros = vec![0; 256 * MIB];
    for codec in &CompressionType::ALL[1..] {
        let bomb = compression::compress(*codec, codec.default_level(), &zeros);
        assert!(bomb.len() < zeros.len() / 20, "{codec}: {}", bomb.len());
        for max in [0, 100_000, 4 * MIB] {
            let (peak, result) = peak_of(|| compression::decompress(*codec, &bomb, max));
            assert_eq!(result, Err(DecompressError::TooLarge { max }), "{codec}");
            // A growing buffer exists twice for a moment, and decompress() copies its input.
            let allowed = 2 * max + bomb.len() + 128 * 1024;
            assert!(peak <= allowed, "{codec}: {peak} bytes for a limit of {max}");
        }
    }
}

#[test]
fn sizes_that_are_only_claimed_are_not_allocated() {
    // Each claims about a gigabyte in its header and contains nothing.
    let claims: [(CompressionType, &[u8]); 4] = [
        (
            CompressionType::Snappy,
            &[0x80, 0x80, 0x80, 0x80, 0x04, 0xfe, 0xff],
        ),
        (
            CompressionType::Snappy,
            b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01\x40\0\0\0\x80\x80\x80\x80\x04",
        ),
        (
            CompressionType::Lz4,
            b"\x04\x22\x4d\x18\x60\x70\x73\xff\xff\x3f\x00\x00",
        ),
        (
            CompressionType::Zstd,
            &[0x28, 0xb5, 0x2f, 0xfd, 0xa0, 0, 0, 0, 0x40, 0x01, 0, 0],
        ),
    ];
    for (codec, stream) in claims {
        let (peak, result) = peak_of(|| compression::decompress(codec, stream, usize::MAX));
        assert!(
            matches!(result, Err(DecompressError::Corrupt { .. })),
            "{codec}: {result:?}"
        );
        assert!(peak < 64 * 1024, "{codec}: {peak}");
    }
}

#[test]
fn a_plain_batch_is_judged_without_allocating() {
    let mut builder = BatchBuilder::new();
    for i in 0..560 {
        let headers = [Header {
            key: b"h",
            value: Some(b"v"),
        }];
        builder.push(
            UnixMillis(i),
            Some(b"key"),
            Some(&[7; 90]),
            &headers[..i as usize % 2],
        );
    }
    let bytes = builder.build().bytes;
    // The first slice of a Bytes allocates its reference count; a frame's batches are slices already.
    let _frame = bytes.clone();
    let (peak, result) = peak_of(|| validate(bytes, &RULES, UnixMillis(1)));
    assert_eq!(result.unwrap().records_count, 560);
    assert_eq!(peak, 0);
}

#[test]
fn a_batch_that_claims_records_is_not_believed() {
    let mut builder = BatchBuilder::new();
    builder.push(UnixMillis(1), Some(b"k"), None, &[]);
    let mut bytes = builder.build().bytes.to_vec();
    bytes[header::RECORDS_COUNT_AT..]
        .iter_mut()
        .take(4)
        .for_each(|b| *b = 0x7f);
    // A record of 2^31-1 bytes, or with that many headers.
    for body in [
        &[0xfe, 0xff, 0xff, 0xff, 0x0f][..],
        &[18, 0, 0, 0, 1, 1, 0xfe, 0xff, 0xff, 0xff, 0x0f],
    ] {
        let mut bytes = bytes[..HEADER_LEN].to_vec();
        bytes.extend(body);
        let length = (bytes.len() - 12) as i32;
        bytes[header::BATCH_LENGTH_AT..][..4].copy_from_slice(&length.to_be_bytes());
        let batch = Batch::first(&Bytes::from(bytes)).unwrap();
        let (peak, read) = peak_of(|| {
            batch
                .records(MIB)
                .unwrap()
                .iter()
                .map(|r| r.is_err())
                .collect::<Vec<_>>()
        });
        assert_eq!(read, [true]);
        assert!(peak < 1024, "{peak}");
    }
}

#[test]
fn a_producer_of_bombs_is_told_its_batch_is_too_large() {
    for codec in &CompressionType::ALL[1..] {
        let mut builder = BatchBuilder::new().compression(*codec, codec.default_level());
        builder.push(UnixMillis(1), None, Some(&vec![0; 2 * MIB]), &[]);
        let batch = builder.build();
        let (peak, result) = peak_of(|| validate(batch.bytes.clone(), &RULES, UnixMillis(1)));
        let error = result.unwrap_err();
        assert_eq!(error.code(), MESSAGE_TOO_LARGE, "{codec}: {error}");
        assert!(peak <= 2 * MIB + 128 * 1024, "{codec}: {peak}");
        let records = batch.records(MIB).unwrap_err();
        assert_eq!(
            records,
            BatchError::Decompress(DecompressError::TooLarge { max: MIB })
        );
        assert!(
            validate(
                batch.bytes,
                &Rules {
                    decompressed_max: 3 * MIB,
                    ..RULES
                },
                UnixMillis(1)
            )
            .is_ok()
        );
    }
}

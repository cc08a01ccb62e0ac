//! Validating a batch yields regularly, whatever its content: small requests must not block a thread for long.

use brokkr_types::UnixMillis;
use brokkr_wire::records::{
    Batch, BatchBuilder, CompressionConfig, CompressionType, HEADER_LEN, MESSAGE_TOO_LARGE, Pace,
    RecordError, Rules, Validated, check_at, compression, header,
};
use bytes::Bytes;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

const MIB: usize = 1 << 20;

const RULES: Rules = Rules {
    compaction: false,
    timestamp_type: brokkr_wire::records::TimestampType::CreateTime,
    timestamp_before_max_ms: i64::MAX,
    timestamp_after_max_ms: i64::MAX,
    max_message_bytes: 100 << 20,
    compression: CompressionConfig::Producer,
    origin: brokkr_wire::records::Origin::Client,
    zstd: true,
    decompressed_max: 64 * MIB,
};

/// A batch that claims this many records, compressed to `stream`.
fn batch(codec: CompressionType, records_count: i32, stream: &[u8]) -> Bytes {
    let mut builder = BatchBuilder::new();
    builder.push(UnixMillis(1), None, None, &[]);
    let mut bytes = builder.build().bytes[..HEADER_LEN].to_vec();
    bytes.extend(stream);
    let length = i32::try_from(bytes.len() - 12).unwrap();
    let mut put = |at: usize, field: &[u8]| bytes[at..][..field.len()].copy_from_slice(field);
    put(header::BATCH_LENGTH_AT, &length.to_be_bytes());
    put(header::ATTRIBUTES_AT, &i16::from(codec.id()).to_be_bytes());
    put(header::ATTRIBUTES_AT + 2, &(records_count - 1).to_be_bytes());
    put(header::RECORDS_COUNT_AT, &records_count.to_be_bytes());
    let crc = crc32c::crc32c(&bytes[header::ATTRIBUTES_AT..]);
    bytes[header::ATTRIBUTES_AT - 4..][..4].copy_from_slice(&crc.to_be_bytes());
    Bytes::from(bytes)
}

/// Counts the yields while a batch is validated; returns the result too.
fn breaks(batch: &Bytes, rules: &Rules) -> (usize, Result<Validated, RecordError>) {
    let mut pace = Pace::gives_way();
    let mut work = pin!(check_at(&mut pace, batch.clone(), rules, UnixMillis(1)));
    let mut cx = Context::from_waker(Waker::noop());
    let mut breaks = 0;
    loop {
        match work.as_mut().poll(&mut cx) {
            Poll::Pending => breaks += 1,
            Poll::Ready(done) => return (breaks, done),
        }
    }
}

fn varint(out: &mut Vec<u8>, value: usize) {
    let mut rest = value * 2;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

/// A record with this many empty headers.
fn record(offset_delta: usize, headers: usize) -> Vec<u8> {
    let mut body = vec![0, 0];
    varint(&mut body, offset_delta);
    body.extend([1, 1]);
    varint(&mut body, headers);
    body.resize(body.len() + 2 * headers, 0);
    let mut record = Vec::new();
    varint(&mut record, body.len());
    record.extend(body);
    record
}

#[test]
fn streams_without_output_give_way() {
    let empty = |codec: CompressionType| compression::compress(codec, codec.default_level(), b"");
    let gzip_blocks = |n: usize| {
        let member = b"\x1f\x8b\x08\0\0\0\0\0\0\xff".to_vec();
        [
            member,
            [0, 0, 0, 0xff, 0xff].repeat(n),
            vec![1, 0, 0, 0xff, 0xff],
            vec![0; 8],
        ]
        .concat()
    };
    let zstd_blocks = |n: usize| {
        let frame = [0x28, 0xb5, 0x2f, 0xfd, 0, 0].to_vec();
        [frame, vec![0; 3 * n], vec![1, 0, 0]].concat()
    };
    let lz4_blocks = |n: usize| {
        let packed = empty(CompressionType::Lz4);
        let (frame, end) = packed.split_at(packed.len() - 4);
        [frame, &[1, 0, 0, 0, 0].repeat(n), end].concat()
    };
    let snappy_blocks = |n: usize| [empty(CompressionType::Snappy), [0, 0, 0, 1, 0].repeat(n)].concat();
    // Each names a stream, how often it repeats what makes no output, and how many of those a break may be apart.
    let streams = [
        (
            "members",
            CompressionType::Gzip,
            empty(CompressionType::Gzip).repeat(40_000),
            40_000,
            100,
        ),
        (
            "blocks",
            CompressionType::Gzip,
            gzip_blocks(400_000),
            400_000,
            20_000,
        ),
        (
            "frames",
            CompressionType::Zstd,
            empty(CompressionType::Zstd).repeat(100_000),
            100_000,
            1000,
        ),
        (
            "skipped",
            CompressionType::Zstd,
            b"\x50\x2a\x4d\x18\0\0\0\0".repeat(100_000),
            100_000,
            1000,
        ),
        (
            "blocks",
            CompressionType::Zstd,
            zstd_blocks(400_000),
            400_000,
            20_000,
        ),
        ("blocks", CompressionType::Lz4, lz4_blocks(100_000), 100_000, 5000),
        (
            "blocks",
            CompressionType::Snappy,
            snappy_blocks(100_000),
            100_000,
            5000,
        ),
        (
            "headers",
            CompressionType::Snappy,
            empty(CompressionType::Snappy).repeat(100_000),
            100_000,
            5000,
        ),
    ];
    for (what, codec, stream, parts, apart_max) in streams {
        let (breaks, result) = breaks(&batch(codec, 1, &stream), &RULES);
        let error = result.expect_err("there is no record").to_string();
        assert!(error.contains("invalid record 0"), "{codec} {what}: {error}");
        assert!(breaks >= parts / apart_max, "{codec} {what}: {breaks} breaks");
    }
}

#[test]
fn a_block_of_snappy_gives_way_however_large_it_is() {
    // Incompressible data, compressible data, and copies that overlap their own output.
    let mut state = 1u32;
    let mut data: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    })
    .take(MIB)
    .collect();
    data.extend((0..15 * MIB).map(|i| (i / 3000 * (i % 7)) as u8));
    data.extend(vec![7; MIB]);
    let mut builder = BatchBuilder::new();
    builder.push(UnixMillis(1), None, Some(&data), &[]);
    let records = builder.build().records_bytes();
    // Without Xerial's frame, whose blocks have 32 KiB, one block holds all data.
    let framed = compression::compress(CompressionType::Snappy, 0, &records);
    assert!(framed.len() < records.len());
    let raw = snap::raw::Encoder::new().compress_vec(&records).unwrap();
    let (breaks, result) = breaks(&batch(CompressionType::Snappy, 1, &raw), &RULES);
    let validated = result.unwrap();
    assert_eq!(
        validated
            .batch
            .records(64 * MIB)
            .unwrap()
            .iter()
            .next()
            .unwrap()
            .unwrap()
            .value,
        Some(&data[..])
    );
    assert!(breaks >= 2 * data.len() / (512 << 10), "{breaks} breaks");
}

#[test]
fn records_with_many_headers_give_way() {
    const HEADERS: usize = 3_000_000;
    let many_in_one = record(0, HEADERS);
    let many_in_all: Vec<u8> = (0..3000).flat_map(|i| record(i, HEADERS / 3000)).collect();
    for (records, count) in [(many_in_one, 1), (many_in_all, 3000)] {
        for codec in [CompressionType::None, CompressionType::Zstd] {
            let stream = compression::compress(codec, codec.default_level(), &records);
            let (breaks, result) = breaks(&batch(codec, count, &stream), &RULES);
            result.unwrap();
            assert!(
                breaks >= HEADERS / 100_000,
                "{codec}, {count} records: {breaks} breaks"
            );
        }
    }
    // Where the last header goes past its record, and where a byte follows it.
    let mut cut = record(0, HEADERS);
    let last = cut.len() - 1;
    cut[last] = 2;
    let longer = {
        let mut body = record(0, HEADERS).split_off(4);
        body.push(0);
        let mut record = Vec::new();
        varint(&mut record, body.len());
        record.extend(body);
        record
    };
    for (bytes, why) in [
        (cut, "a field ends outside the record"),
        (longer, "its length is not that of its fields"),
    ] {
        let error = breaks(&batch(CompressionType::None, 1, &bytes), &RULES)
            .1
            .unwrap_err()
            .to_string();
        assert!(error.contains(why), "{error}");
    }
}

#[test]
fn records_that_are_compressed_anew_give_way() {
    let many_in_one = record(0, 3_000_000);
    let stream = compression::compress(CompressionType::Gzip, 1, &many_in_one);
    let batch = batch(CompressionType::Gzip, 1, &stream);
    let (as_it_is, _) = breaks(&batch, &RULES);
    for codec in [
        CompressionType::None,
        CompressionType::Snappy,
        CompressionType::Lz4,
        CompressionType::Zstd,
    ] {
        let compression = match codec {
            CompressionType::None => CompressionConfig::Uncompressed,
            codec => CompressionConfig::Fixed {
                codec,
                level: codec.default_level(),
            },
        };
        let rules = Rules { compression, ..RULES };
        let (anew, result) = breaks(&batch, &rules);
        assert!(result.unwrap().rebuilt);
        assert!(
            anew >= as_it_is + many_in_one.len() / (512 << 10),
            "{codec}: {anew} breaks, not {as_it_is}"
        );
    }
}

#[test]
fn compressing_gives_way_often_and_ends_once_the_batch_is_too_large() {
    // Letters a and b: the slowest input for level 9.
    let mut state = 1u32;
    let data: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        b'a' + (state >> 31) as u8
    })
    .take(400_000)
    .collect();
    let mut builder = BatchBuilder::new();
    builder.push(UnixMillis(1), None, Some(&data), &[]);
    let batch = builder.build().bytes;
    for (codec, level, apart_max) in [
        (CompressionType::Gzip, 9, 512),
        (CompressionType::Gzip, 6, 2 << 10),
        (CompressionType::Zstd, 19, 8 << 10),
        (CompressionType::Zstd, 3, 32 << 10),
    ] {
        let rules = Rules {
            compression: CompressionConfig::Fixed { codec, level },
            ..RULES
        };
        let (breaks, result) = breaks(&batch, &rules);
        assert!(result.unwrap().rebuilt);
        assert!(
            breaks >= data.len() / apart_max,
            "{codec} at level {level}: {breaks} breaks"
        );
    }
    // One that grows, by the limit that its producer's compression just met.
    let records = Batch::first(&batch).unwrap().records_bytes();
    let packed = compression::compress(CompressionType::Gzip, 9, &records);
    let batch = self::batch(CompressionType::Gzip, 1, &packed);
    for (codec, level) in [(CompressionType::Lz4, 9), (CompressionType::Zstd, -50)] {
        let to = |max_message_bytes| Rules {
            compression: CompressionConfig::Fixed { codec, level },
            max_message_bytes,
            ..RULES
        };
        let (whole, result) = breaks(&batch, &to(RULES.max_message_bytes));
        assert!(result.unwrap().batch.bytes.len() > 2 * batch.len(), "{codec}");
        let (early, result) = breaks(&batch, &to(i32::try_from(batch.len()).unwrap()));
        assert_eq!(result.unwrap_err().code(), MESSAGE_TOO_LARGE);
        assert!(early < whole, "{codec}: {early} of {whole} breaks");
    }
}

#[test]
fn a_large_batch_that_is_not_compressed_gives_way() {
    let mut builder = BatchBuilder::new();
    builder.push(UnixMillis(1), None, Some(&vec![7; 64 * MIB]), &[]);
    let (breaks, result) = breaks(&builder.build().bytes, &RULES);
    result.unwrap();
    assert!(breaks >= 16, "{breaks} breaks");
}

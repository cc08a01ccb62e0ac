//! Damaged batches: no input causes a panic, and the CRC detects the damage.

use brokkr_types::UnixMillis;
use brokkr_wire::records::{
    Batch, BatchBuilder, CompressionConfig, CompressionType, ControlType, HEADER_LEN, Header, Origin, Rules,
    TimestampType, batches, compression, header, validate,
};
use bytes::Bytes;
use proptest::prelude::RngExt;
use proptest::test_runner::{RngAlgorithm, TestRng};

const MAX: usize = 64 * 1024;
const CASES: usize = 250_000;

/// The same mutations in every run.
fn rng(seed: u8) -> TestRng {
    TestRng::from_seed(RngAlgorithm::XorShift, &[seed; 16])
}

fn originals() -> Vec<Batch> {
    let plain = CompressionType::ALL.into_iter().map(|codec| {
        let mut builder = BatchBuilder::new().compression(codec, codec.default_level());
        for i in 0..6 {
            let headers = [
                Header {
                    key: b"h",
                    value: None,
                },
                Header {
                    key: b"",
                    value: Some(b"v"),
                },
            ];
            let key: Option<&[u8]> = if i == 3 { None } else { Some(b"key") };
            builder.push(
                UnixMillis(1000 + i),
                key,
                Some(&[i as u8; 30]),
                &headers[..i as usize % 3],
            );
        }
        builder.build()
    });
    let mut control = BatchBuilder::new().control();
    control.push_control(UnixMillis(5), ControlType::Commit, &[0; 6]);
    plain.chain([control.build()]).collect()
}

fn rules(rng: &mut TestRng) -> Rules {
    let codec = CompressionType::ALL[rng.random_range(0..5)];
    Rules {
        compaction: rng.random(),
        timestamp_type: [TimestampType::CreateTime, TimestampType::LogAppendTime][rng.random_range(0..2)],
        timestamp_before_max_ms: i64::MAX,
        timestamp_after_max_ms: 3_600_000,
        max_message_bytes: 1_048_588,
        compression: [
            CompressionConfig::Producer,
            CompressionConfig::Fixed { codec, level: 1 },
        ][usize::from(rng.random_ratio(1, 8))],
        origin: [Origin::Client, Origin::Coordinator, Origin::Replica][rng.random_range(0..3)],
        zstd: true,
        decompressed_max: MAX,
    }
}

fn mutate(rng: &mut TestRng, bytes: &mut Vec<u8>, from: usize) {
    for _ in 0..1 + rng.random_range(0..3) {
        let at = from + rng.random_range(0..bytes.len() - from);
        match rng.random_range(0..5) {
            0 => bytes[at] ^= 1 << rng.random_range(0..8),
            1 => bytes[at] = [0, 0x7f, 0x80, 0xff][rng.random_range(0..4)],
            2 => bytes[at] = rng.random(),
            3 if bytes.len() > from + 1 => bytes.truncate(at.max(from + 1)),
            _ => {
                let copied = bytes[at..].to_vec();
                bytes.extend(&copied[..copied.len().min(8)]);
            }
        }
    }
}

/// Reads every part of the batch.
fn exercise(bytes: &Bytes) {
    for batch in batches(bytes.clone()).flatten() {
        let header = &batch.header;
        let _ = (
            header.next_offset(),
            header.last_sequence(),
            header.size_bytes(),
            batch.check_crc(),
        );
        let Ok(records) = batch.records(MAX) else { continue };
        for record in records.iter().flatten() {
            let _ = (record.headers.iter().count(), ControlType::from_key(record.key));
            let _ = (
                header.record_timestamp(record.timestamp_delta),
                header.record_offset(record.offset_delta),
            );
        }
    }
}

#[test]
fn damage_never_panics_and_never_passes_the_crc() {
    let (originals, mut rng) = (originals(), rng(1));
    let mut told = 0;
    for _ in 0..CASES / 2 {
        let original = &originals[rng.random_range(0..originals.len())];
        let mut bytes = original.bytes.to_vec();
        mutate(&mut rng, &mut bytes, 0);
        let bytes = Bytes::from(bytes);
        exercise(&bytes);
        let verdict = validate(bytes.clone(), &rules(&mut rng), UnixMillis(2000));
        let covered = header::CRC_AT..original.bytes.len();
        if let Some(mutated) = bytes.get(covered.clone())
            && mutated != &original.bytes[covered]
            && let Ok(batch) = Batch::first(&bytes)
            && batch.bytes.len() == original.bytes.len()
        {
            assert!(batch.check_crc().is_err());
            assert!(verdict.is_err(), "accepted: {bytes:?}");
            told += 1;
        }
    }
    assert!(told > CASES / 20, "{told}");
}

/// A peer can compute a CRC too: behind a valid CRC everything else must be checked.
#[test]
fn lies_with_a_right_crc_never_panic_and_what_is_accepted_is_sound() {
    let (originals, mut rng) = (originals(), rng(2));
    let (mut accepted, mut refused) = (0, 0);
    for _ in 0..CASES / 2 {
        let mut bytes = originals[rng.random_range(0..originals.len())].bytes.to_vec();
        let from = if rng.random_ratio(1, 3) {
            header::ATTRIBUTES_AT
        } else {
            HEADER_LEN
        };
        mutate(&mut rng, &mut bytes, from);
        bytes.resize(bytes.len().max(HEADER_LEN), 0);
        let length = (bytes.len() - header::BATCH_LENGTH_AT - 4) as i32;
        bytes[header::BATCH_LENGTH_AT..][..4].copy_from_slice(&length.to_be_bytes());
        let crc = crc32c::crc32c(&bytes[header::ATTRIBUTES_AT..]);
        bytes[header::CRC_AT..][..4].copy_from_slice(&crc.to_be_bytes());
        let bytes = Bytes::from(bytes);
        exercise(&bytes);
        let rules = rules(&mut rng);
        match validate(bytes, &rules, UnixMillis(2000)) {
            Err(_) => refused += 1,
            Ok(_) if rules.origin == Origin::Replica => {}
            Ok(got) => {
                got.batch.check_crc().unwrap();
                let records = got.batch.records(MAX).unwrap();
                let deltas = records.iter().map(|record| record.unwrap().offset_delta);
                assert!(deltas.eq(0..got.records_count));
                accepted += 1;
            }
        }
    }
    assert!(
        accepted > 1000 && refused > 1000,
        "{accepted} accepted, {refused} refused"
    );
}

#[test]
fn damaged_streams_never_panic_nor_pass_the_limit() {
    let mut rng = rng(3);
    let data: Vec<u8> = (0..3000u32).map(|i| (i / 9 * 7) as u8).collect();
    for codec in CompressionType::ALL {
        let packed = compression::compress(codec, codec.default_level(), &data);
        for _ in 0..10_000 {
            let mut bytes = packed.clone();
            mutate(&mut rng, &mut bytes, 0);
            if let Ok(unpacked) = compression::decompress(codec, &bytes, 5000) {
                assert!(unpacked.len() <= 5000);
            }
        }
    }
}

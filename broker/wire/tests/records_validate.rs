//! The checks around Kafka's `LogValidator` (whose own are in `records_golden.rs`): those of Produce, the log and the
//! decoder. Each test has a batch that just passes and one that just fails.

use brokkr_types::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, Sequence, UnixMillis};
use brokkr_wire::records::{
    Batch, BatchBuilder, BatchError, CORRUPT_MESSAGE, CompressionConfig, CompressionType, ControlType,
    DecompressError, INVALID_RECORD, INVALID_TIMESTAMP, MESSAGE_TOO_LARGE, Origin, RECORD_ERRORS_MAX,
    RecordError, RecordFault, Rules, TimestampType, UNSUPPORTED_COMPRESSION_TYPE, Validated, header,
    validate,
};
use bytes::Bytes;

const NOW: UnixMillis = UnixMillis(1_000_000);

const RULES: Rules = Rules {
    compaction: false,
    timestamp_type: TimestampType::CreateTime,
    timestamp_before_max_ms: i64::MAX,
    timestamp_after_max_ms: 3_600_000,
    max_message_bytes: 1_048_588,
    compression: CompressionConfig::Producer,
    origin: Origin::Client,
    zstd: true,
    decompressed_max: 1 << 20,
};

fn builder(n: i64) -> BatchBuilder {
    filled(BatchBuilder::new(), n)
}

fn filled(mut builder: BatchBuilder, n: i64) -> BatchBuilder {
    for i in 0..n {
        builder.push(UnixMillis(NOW.0 + i), Some(b"key"), Some(b"value"), &[]);
    }
    builder
}

/// The batch with other bytes at `at`, and a matching CRC.
fn patched(batch: &Batch, at: usize, value: &[u8]) -> Bytes {
    let mut bytes = batch.bytes.to_vec();
    bytes[at..at + value.len()].copy_from_slice(value);
    let crc = crc32c::crc32c(&bytes[header::ATTRIBUTES_AT..]);
    bytes[header::CRC_AT..][..4].copy_from_slice(&crc.to_be_bytes());
    Bytes::from(bytes)
}

fn judge(bytes: &[u8]) -> Result<Validated, RecordError> {
    judge_by(bytes, &RULES)
}

fn judge_by(bytes: &[u8], rules: &Rules) -> Result<Validated, RecordError> {
    validate(Bytes::copy_from_slice(bytes), rules, NOW)
}

#[track_caller]
fn refused(got: Result<Validated, RecordError>, error: RecordError, code: i16) {
    assert_eq!(error.code(), code, "{error}");
    assert_eq!(got, Err(error));
}

#[test]
fn a_valid_batch_keeps_its_bytes() {
    let bytes = builder(3).build().bytes;
    let got = validate(bytes.clone(), &RULES, NOW).unwrap();
    assert_eq!(got.batch.bytes.as_ptr(), bytes.as_ptr());
    assert_eq!(got.batch.bytes, bytes);
    assert!(!got.rebuilt);
    assert_eq!(got.log_append_time, UnixMillis::NONE);
    assert_eq!(
        (got.max_timestamp, got.offset_delta_of_max_timestamp),
        (UnixMillis(NOW.0 + 2), 2)
    );

    let append_time = Rules {
        timestamp_type: TimestampType::LogAppendTime,
        ..RULES
    };
    let got = judge_by(&bytes, &append_time).unwrap();
    assert_eq!((got.log_append_time, got.max_timestamp), (NOW, NOW));
    assert!(!got.rebuilt);
}

#[test]
fn there_is_exactly_one_batch() {
    let one = builder(1).build().bytes;
    refused(judge(&[]), RecordError::NoBatch, INVALID_RECORD);
    refused(judge(&one[..one.len() - 1]), RecordError::NoBatch, INVALID_RECORD);
    assert!(judge(&one).is_ok());
    let bit_more = [&one[..], &one[..one.len() - 1]].concat();
    assert_eq!(judge(&bit_more).unwrap().batch.bytes, one);
    refused(
        judge(&one.repeat(2)),
        RecordError::MoreThanOneBatch,
        INVALID_RECORD,
    );

    let mut old_second = one.repeat(2);
    old_second[one.len() + header::MAGIC_AT] = 1;
    refused(judge(&old_second), RecordError::MoreThanOneBatch, INVALID_RECORD);
    let mut bad_second = one.repeat(2);
    bad_second[one.len() + header::MAGIC_AT] = 9;
    refused(judge(&bad_second), BatchError::Magic(9).into(), CORRUPT_MESSAGE);
}

#[test]
fn it_is_of_format_2_and_undamaged() {
    let batch = builder(1).build();
    let magic = |magic: u8| judge(&patched(&batch, header::MAGIC_AT, &[magic]));
    assert!(magic(2).is_ok());
    refused(magic(0), BatchError::OldFormat(0).into(), INVALID_RECORD);
    refused(magic(1), BatchError::OldFormat(1).into(), INVALID_RECORD);
    refused(magic(3), BatchError::Magic(3).into(), CORRUPT_MESSAGE);

    let length = |length: i32| judge(&patched(&batch, header::BATCH_LENGTH_AT, &length.to_be_bytes()));
    assert!(length(batch.header.batch_length).is_ok());
    refused(length(48), BatchError::Length(48).into(), CORRUPT_MESSAGE);
    refused(
        length(batch.header.batch_length + 1),
        RecordError::NoBatch,
        INVALID_RECORD,
    );

    let mut damaged = batch.bytes.to_vec();
    *damaged.last_mut().unwrap() ^= 1;
    let error = judge(&damaged).unwrap_err();
    assert!(
        matches!(error, RecordError::Batch(BatchError::Crc { .. })),
        "{error}"
    );
    assert_eq!(error.code(), CORRUPT_MESSAGE);
    // The CRC does not cover offset and epoch: the leader writes them.
    let epoch = patched(&batch, header::PARTITION_LEADER_EPOCH_AT, &[0, 0, 0, 9]);
    assert_eq!(epoch[header::CRC_AT..][..4], batch.bytes[header::CRC_AT..][..4]);
    assert!(judge(&epoch).is_ok());
}

#[test]
fn a_produced_batch_begins_at_0() {
    let at_1 = filled(BatchBuilder::new().at(Offset(1), LeaderEpoch(0)), 1)
        .build()
        .bytes;
    refused(judge(&at_1), RecordError::BaseOffset(Offset(1)), INVALID_RECORD);
    assert!(
        judge_by(
            &at_1,
            &Rules {
                origin: Origin::Coordinator,
                ..RULES
            }
        )
        .is_ok()
    );
}

#[test]
fn it_is_not_larger_than_allowed_when_it_comes_nor_when_it_is_stored() {
    let bytes = builder(50).build().bytes;
    let size = bytes.len() as i32;
    assert!(
        judge_by(
            &bytes,
            &Rules {
                max_message_bytes: size,
                ..RULES
            }
        )
        .is_ok()
    );
    let too_large = |size_bytes: usize, max| RecordError::TooLarge { size_bytes, max };
    let less = Rules {
        max_message_bytes: size - 1,
        ..RULES
    };
    refused(
        judge_by(&bytes, &less),
        too_large(bytes.len(), size - 1),
        MESSAGE_TOO_LARGE,
    );
    // A follower accepts every batch that its leader accepted.
    assert!(
        judge_by(
            &bytes,
            &Rules {
                origin: Origin::Replica,
                ..less
            }
        )
        .is_ok()
    );

    let packed = filled(BatchBuilder::new().compression(CompressionType::Gzip, 9), 50)
        .build()
        .bytes;
    assert!(packed.len() < bytes.len() / 2);
    let uncompressed = Rules {
        compression: CompressionConfig::Uncompressed,
        ..RULES
    };
    let stored = judge_by(
        &packed,
        &Rules {
            max_message_bytes: size,
            ..uncompressed
        },
    )
    .unwrap();
    assert_eq!(stored.batch.bytes, bytes);
    assert!(stored.rebuilt);
    let less = Rules {
        max_message_bytes: size - 1,
        ..uncompressed
    };
    refused(
        judge_by(&packed, &less),
        too_large(bytes.len(), size - 1),
        MESSAGE_TOO_LARGE,
    );
    // A batch that arrives too large is refused, even if it would be stored smaller.
    let gzip = CompressionConfig::Fixed {
        codec: CompressionType::Gzip,
        level: 9,
    };
    let less = Rules {
        max_message_bytes: size - 1,
        compression: gzip,
        ..RULES
    };
    refused(
        judge_by(&bytes, &less),
        too_large(bytes.len(), size - 1),
        MESSAGE_TOO_LARGE,
    );
}

#[test]
fn its_codec_is_known_and_allowed() {
    let zstd = filled(BatchBuilder::new().compression(CompressionType::Zstd, 3), 1).build();
    assert!(judge(&zstd.bytes).is_ok());
    let early = Rules { zstd: false, ..RULES };
    refused(
        judge_by(&zstd.bytes, &early),
        RecordError::ZstdNotAllowed,
        UNSUPPORTED_COMPRESSION_TYPE,
    );
    let lz4 = filled(BatchBuilder::new().compression(CompressionType::Lz4, 9), 1).build();
    assert!(judge_by(&lz4.bytes, &early).is_ok());

    for id in 5..8 {
        let unknown = patched(&zstd, header::ATTRIBUTES_AT, &[0, id]);
        refused(
            judge(&unknown),
            BatchError::CompressionType(id).into(),
            UNSUPPORTED_COMPRESSION_TYPE,
        );
    }
    let mislabelled = patched(&zstd, header::ATTRIBUTES_AT, &[0, CompressionType::Gzip.id()]);
    let error = judge(&mislabelled).unwrap_err();
    let BatchError::Decompress(DecompressError::Corrupt {
        codec: CompressionType::Gzip,
        ..
    }) = (match &error {
        RecordError::Batch(e) => *e,
        other => panic!("{other}"),
    })
    else {
        panic!("{error}");
    };
    assert_eq!(error.code(), INVALID_RECORD);
}

#[test]
fn it_decompresses_to_no_more_than_allowed() {
    // An uncompressed batch has no limit except its size.
    assert!(
        judge_by(
            &builder(9).build().bytes,
            &Rules {
                decompressed_max: 0,
                ..RULES
            }
        )
        .is_ok()
    );
    for codec in &CompressionType::ALL[1..] {
        let builder = filled(
            BatchBuilder::new().compression(*codec, codec.default_level()),
            100,
        );
        let (batch, unpacked) = (builder.build(), builder.size_bytes() - header::HEADER_LEN);
        assert!(
            judge_by(
                &batch.bytes,
                &Rules {
                    decompressed_max: unpacked,
                    ..RULES
                }
            )
            .is_ok()
        );
        let max = unpacked - 1;
        let error = BatchError::Decompress(DecompressError::TooLarge { max });
        let less = Rules {
            decompressed_max: max,
            ..RULES
        };
        refused(judge_by(&batch.bytes, &less), error.into(), MESSAGE_TOO_LARGE);
    }
}

#[test]
fn records_are_as_many_as_it_says_and_offsets_follow_each_other() {
    let batch = builder(3).build();
    let with = |count: i32, delta: i32| {
        let counted = patched(&batch, header::RECORDS_COUNT_AT, &count.to_be_bytes());
        let counted = Batch::first(&counted).unwrap();
        judge(&patched(
            &counted,
            header::LAST_OFFSET_DELTA_AT,
            &delta.to_be_bytes(),
        ))
    };
    assert!(with(3, 2).is_ok());
    for (records_count, last_offset_delta) in [(3, 3), (2, 2), (0, -1), (-1, -2), (i32::MIN, i32::MAX)] {
        let error = RecordError::Count {
            records_count,
            last_offset_delta,
        };
        refused(with(records_count, last_offset_delta), error, INVALID_RECORD);
    }
    let cut_off = BatchError::Record {
        index: 3,
        fault: RecordFault::Varint,
    };
    refused(with(4, 3), cut_off.into(), INVALID_RECORD);
    refused(with(i32::MAX, i32::MAX - 1), cut_off.into(), INVALID_RECORD);
    let record = (batch.bytes.len() - header::HEADER_LEN) / 3;
    refused(
        with(2, 1),
        BatchError::TrailingBytes(record).into(),
        INVALID_RECORD,
    );

    let mut gap = BatchBuilder::new();
    gap.push_at(0, NOW, None, None, &[]);
    gap.push_at(2, NOW, None, None, &[]);
    let gap = patched(&gap.build(), header::LAST_OFFSET_DELTA_AT, &1i32.to_be_bytes());
    refused(
        judge(&gap),
        RecordError::OffsetDelta {
            index: 1,
            offset_delta: 2,
        },
        INVALID_RECORD,
    );
    // Compaction leaves gaps, and followers copy them.
    assert!(
        judge_by(
            &gap,
            &Rules {
                origin: Origin::Replica,
                ..RULES
            }
        )
        .is_ok()
    );
}

#[test]
fn a_producer_id_comes_with_a_sequence() {
    let with = |id, epoch, sequence, origin| {
        let builder = BatchBuilder::new().producer(ProducerId(id), ProducerEpoch(epoch), Sequence(sequence));
        judge_by(&filled(builder, 1).build().bytes, &Rules { origin, ..RULES })
    };
    assert!(with(7, 0, 0, Origin::Client).is_ok());
    assert!(with(7, i16::MAX, i32::MAX, Origin::Client).is_ok());
    assert!(with(-1, -1, -1, Origin::Client).is_ok());
    let error = RecordError::Producer(ProducerId(7));
    refused(with(7, 0, -1, Origin::Client), error, INVALID_RECORD);
    assert!(with(7, -1, 0, Origin::Client).is_ok());
    assert!(with(7, 0, -1, Origin::Coordinator).is_ok());

    let nobodys = filled(BatchBuilder::new().transactional(), 1).build().bytes;
    refused(judge(&nobodys), RecordError::Transactional, INVALID_RECORD);
    let someones = BatchBuilder::new()
        .producer(ProducerId(7), ProducerEpoch(0), Sequence(0))
        .transactional();
    assert!(judge(&filled(someones, 1).build().bytes).is_ok());
}

#[test]
fn producers_write_no_control_records() {
    let mut builder = BatchBuilder::new().control();
    builder.push_control(NOW, ControlType::LeaderChange, &[]);
    let bytes = builder.build().bytes;
    refused(judge(&bytes), RecordError::Control, INVALID_RECORD);
    assert!(
        judge_by(
            &bytes,
            &Rules {
                origin: Origin::Coordinator,
                ..RULES
            }
        )
        .is_ok()
    );
}

#[test]
fn bad_records_are_named_but_not_without_end() {
    let mut builder = BatchBuilder::new();
    for i in 0..3 * RECORD_ERRORS_MAX {
        builder.push(NOW, if i % 2 == 0 { Some(b"k") } else { None }, None, &[]);
    }
    let bytes = builder.build().bytes;
    assert!(judge(&bytes).is_ok());
    let error = judge_by(
        &bytes,
        &Rules {
            compaction: true,
            ..RULES
        },
    )
    .unwrap_err();
    assert_eq!(error.code(), INVALID_RECORD);
    let named: Vec<i32> = error.record_errors().iter().map(|(index, _)| *index).collect();
    assert_eq!(
        named,
        (0..RECORD_ERRORS_MAX as i32)
            .map(|i| 2 * i + 1)
            .collect::<Vec<_>>()
    );
    assert!(error.to_string().starts_with("1536 invalid records"), "{error}");

    let mut late = BatchBuilder::new();
    late.push(UnixMillis(NOW.0 + 3_600_000), None, None, &[]);
    assert!(judge(&late.build().bytes).is_ok());
    late.push(UnixMillis(NOW.0 + 3_600_001), None, None, &[]);
    let error = judge(&late.build().bytes).unwrap_err();
    assert_eq!(error.code(), INVALID_TIMESTAMP);
    assert_eq!(
        error
            .record_errors()
            .iter()
            .map(|(index, _)| *index)
            .collect::<Vec<_>>(),
        [1]
    );
    let append_time = Rules {
        timestamp_type: TimestampType::LogAppendTime,
        ..RULES
    };
    assert!(judge_by(&late.build().bytes, &append_time).is_ok());
}

#[test]
fn a_follower_takes_what_its_leader_took_unless_it_is_damaged() {
    let rules = Rules {
        origin: Origin::Replica,
        compaction: true,
        max_message_bytes: 0,
        ..RULES
    };
    let mut builder = BatchBuilder::new().control().at(Offset(99), LeaderEpoch(4));
    builder.push_control(NOW, ControlType::Abort, &[0; 6]);
    let batch = builder.build();
    let got = judge_by(&batch.bytes, &rules).unwrap();
    assert_eq!((got.batch, got.rebuilt), (batch.clone(), false));
    let mut damaged = batch.bytes.to_vec();
    damaged[header::PRODUCER_ID_AT] ^= 1;
    assert_eq!(judge_by(&damaged, &rules).unwrap_err().code(), CORRUPT_MESSAGE);
    let negative = patched(&batch, header::LAST_OFFSET_DELTA_AT, &(-1i32).to_be_bytes());
    assert_eq!(judge_by(&negative, &rules).unwrap_err().code(), INVALID_RECORD);
}

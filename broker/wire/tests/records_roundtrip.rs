//! Built batches are read back: any records, in every codec, through framing, iteration and placing.

use brokkr_types::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, Sequence, UnixMillis};
use brokkr_wire::records::{
    Batch, BatchBuilder, BatchError, CompressionType, HEADER_LEN, Header, RecordFault, TimestampType, batches,
};
use bytes::Bytes;
use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;

const MAX: usize = 1 << 20;

#[derive(Clone, PartialEq, Debug)]
struct Owned {
    timestamp: i64,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

fn bytes_up_to(len: usize) -> impl Strategy<Value = Vec<u8>> {
    // Runs and random bytes: compressible and incompressible parts.
    prop_oneof![
        vec(any::<u8>(), 0..len),
        (any::<u8>(), 0..len).prop_map(|(b, n)| vec![b; n])
    ]
}

fn records() -> impl Strategy<Value = Vec<Owned>> {
    let header = (bytes_up_to(20), of(bytes_up_to(40)));
    let record = (
        any::<i64>(),
        of(bytes_up_to(60)),
        of(bytes_up_to(2000)),
        vec(header, 0..4),
    )
        .prop_map(|(timestamp, key, value, headers)| Owned {
            timestamp,
            key,
            value,
            headers,
        });
    vec(record, 1..60)
}

fn codec() -> impl Strategy<Value = CompressionType> {
    prop::sample::select(&CompressionType::ALL[..])
}

fn build(builder: BatchBuilder, records: &[Owned]) -> Batch {
    let mut builder = builder;
    for record in records {
        let headers: Vec<Header<'_>> = record
            .headers
            .iter()
            .map(|(key, value)| Header {
                key,
                value: value.as_deref(),
            })
            .collect();
        let (key, value) = (record.key.as_deref(), record.value.as_deref());
        builder.push(UnixMillis(record.timestamp), key, value, &headers);
    }
    builder.build()
}

fn read(batch: &Batch) -> Vec<Owned> {
    let records = batch.records(MAX).unwrap();
    let read = records.iter().enumerate().map(|(i, record)| {
        let record = record.unwrap();
        assert_eq!(record.offset_delta as usize, i);
        assert_eq!(record.headers.len(), record.headers.iter().count());
        Owned {
            timestamp: batch.header.record_timestamp(record.timestamp_delta).0,
            key: record.key.map(<[u8]>::to_vec),
            value: record.value.map(<[u8]>::to_vec),
            headers: record
                .headers
                .iter()
                .map(|h| (h.key.to_vec(), h.value.map(<[u8]>::to_vec)))
                .collect(),
        }
    });
    read.collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) })]

    #[test]
    fn built_batches_are_read_back(records in records(), codec in codec(), id in -1..5i64, base in 0..i64::MAX / 2) {
        let builder = BatchBuilder::new()
            .compression(codec, codec.default_level())
            .producer(ProducerId(id), ProducerEpoch(3), Sequence(i32::MAX - 3))
            .at(Offset(base), LeaderEpoch(8));
        let batch = build(builder, &records);
        prop_assert_eq!(batch.check_crc(), Ok(()));
        prop_assert_eq!(Batch::first(&batch.bytes), Ok(batch.clone()));
        prop_assert_eq!(read(&batch), records.clone());
        let count = records.len() as i32;
        prop_assert_eq!(batch.header.records_count, count);
        prop_assert_eq!(batch.header.next_offset(), Offset(base + i64::from(count)));
        prop_assert_eq!(batch.header.last_sequence(), Sequence(i32::MAX - 3).plus(count - 1));
        let max = records.iter().map(|r| r.timestamp).max().unwrap().max(-1);
        prop_assert_eq!(batch.header.max_timestamp, UnixMillis(max));
    }

    #[test]
    fn placing_changes_offset_and_epoch_and_copies_nothing(
        records in records(), codec in codec(), offset in any::<i64>(), epoch in any::<i32>(),
    ) {
        let batch = build(BatchBuilder::new().compression(codec, codec.default_level()), &records);
        let parts = batch.placed(Offset(offset), LeaderEpoch(epoch));
        prop_assert_eq!(parts[1].as_ptr(), batch.bytes[16..].as_ptr());
        let placed = Batch::first(&Bytes::from(parts.concat())).unwrap();
        prop_assert_eq!(placed.check_crc(), Ok(()));
        prop_assert_eq!(placed.header, batch.header.placed(Offset(offset), LeaderEpoch(epoch)));
        prop_assert_eq!(&placed.bytes[16..], &batch.bytes[16..]);
    }

    #[test]
    fn stamping_changes_the_times_and_keeps_the_records(records in records(), codec in codec(), now in any::<i64>()) {
        let batch = build(BatchBuilder::new().compression(codec, codec.default_level()), &records);
        let stamped = batch.clone().stamped(TimestampType::LogAppendTime, UnixMillis(now));
        prop_assert_eq!(stamped.check_crc(), Ok(()));
        prop_assert_eq!(Batch::first(&stamped.bytes), Ok(stamped.clone()));
        prop_assert_eq!(&stamped.bytes[HEADER_LEN..], &batch.bytes[HEADER_LEN..]);
        prop_assert!(read(&stamped).iter().all(|record| record.timestamp == now));
        let back = stamped.stamped(TimestampType::CreateTime, batch.header.max_timestamp);
        prop_assert_eq!(back, batch);
    }

    #[test]
    fn a_cut_anywhere_is_told_from_damage(all in vec((records(), codec()), 1..4), cut in any::<prop::sample::Index>()) {
        let built: Vec<Batch> = all
            .iter()
            .map(|(records, codec)| build(BatchBuilder::new().compression(*codec, codec.default_level()), records))
            .collect();
        let joined = Bytes::from(built.iter().flat_map(|batch| batch.bytes.to_vec()).collect::<Vec<u8>>());
        let cut = cut.index(joined.len() + 1);

        let mut whole = 0;
        let mut split = batches(joined.slice(..cut));
        let mut last = None;
        for batch in split.by_ref() {
            match batch {
                Ok(batch) => {
                    prop_assert_eq!(&batch, &built[whole]);
                    whole += 1;
                }
                Err(e) => last = Some(e),
            }
        }
        let end: usize = built[..whole].iter().map(|batch| batch.bytes.len()).sum();
        prop_assert_eq!(split.position(), end);
        prop_assert_eq!(last.is_some(), cut > end);
        prop_assert!(last.is_none_or(|e| e.is_partial()), "{last:?}");
        prop_assert!(whole == built.len() || cut - end < built[whole].bytes.len());
    }
}

#[test]
fn bytes_that_can_not_begin_a_batch_are_damage() {
    let batch = build(
        BatchBuilder::new(),
        &[Owned {
            timestamp: 0,
            key: None,
            value: None,
            headers: vec![],
        }],
    );
    let changed = |at: usize, value: &[u8]| {
        let mut bytes = batch.bytes.to_vec();
        bytes[at..at + value.len()].copy_from_slice(value);
        let mut split = batches(Bytes::from(bytes));
        let first = split.next().unwrap();
        assert!(first.is_ok() || split.next().is_none(), "nothing after an error");
        first.map(|_| ())
    };
    assert_eq!(changed(16, &[2]), Ok(()));
    assert_eq!(changed(16, &[0]), Err(BatchError::OldFormat(0)));
    assert_eq!(changed(16, &[1]), Err(BatchError::OldFormat(1)));
    assert_eq!(changed(16, &[3]), Err(BatchError::Magic(3)));
    assert_eq!(changed(16, &[0xff]), Err(BatchError::Magic(-1)));
    assert_eq!(changed(8, &0i32.to_be_bytes()), Err(BatchError::Length(0)));
    assert_eq!(changed(8, &48i32.to_be_bytes()), Err(BatchError::Length(48)));
    assert_eq!(changed(8, &(-1i32).to_be_bytes()), Err(BatchError::Length(-1)));
    let huge = changed(8, &i32::MAX.to_be_bytes()).unwrap_err();
    assert!(huge.is_partial(), "{huge}");
    // Zeros, as a disk may return after the synced bytes.
    assert_eq!(
        batches(Bytes::from(vec![0; 4096])).next(),
        Some(Err(BatchError::Length(0)))
    );
}

#[test]
fn bytes_behind_the_last_record_are_told() {
    let record = Owned {
        timestamp: 0,
        key: None,
        value: Some(vec![1; 10]),
        headers: vec![],
    };
    let mut batch = build(BatchBuilder::new(), &vec![record; 3]);
    let record_bytes = (batch.bytes.len() - HEADER_LEN) / 3;
    batch.header.records_count = 2;
    let records = batch.records(MAX).unwrap();
    let mut records = records.iter().skip(2);
    assert_eq!(records.next(), Some(Err(BatchError::TrailingBytes(record_bytes))));
    assert_eq!(records.next(), None);

    batch.header.records_count = 5;
    let records = batch.records(MAX).unwrap();
    let mut records = records.iter().skip(3);
    let cut_off = BatchError::Record {
        index: 3,
        fault: RecordFault::Varint,
    };
    assert_eq!(records.next(), Some(Err(cut_off)));
    assert_eq!(records.next(), None);

    batch.header.records_count = -1;
    assert_eq!(batch.records(MAX).err(), Some(BatchError::RecordsCount(-1)));
}

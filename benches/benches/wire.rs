//! The codec: cost of a produce and of a fetch outside of the log.

use brokkr_types::UnixMillis;
use brokkr_wire::messages::fetch_response::{FetchResponse, FetchableTopicResponse, PartitionData};
use brokkr_wire::messages::produce_request::{PartitionProduceData, ProduceRequest, TopicProduceData};
use brokkr_wire::records::{BatchBuilder, CompressionType, Rules, batches, validate};
use brokkr_wire::{ApiKey, Message, Part, Reader, Str, frame};
use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;

const VERSION: i16 = 12;
const NOW: UnixMillis = UnixMillis(1_700_000_000_000);
const DECOMPRESSED_MAX: usize = 1 << 20;

/// 560 records of 100 bytes, as a producer with `batch.size=65536` sends them. The values are words, so that they compress.
fn batch(compression: CompressionType, level: i32) -> Bytes {
    let mut builder = BatchBuilder::new().compression(compression, level);
    for n in 0..560_u32 {
        let value: Vec<u8> = (0..25_u32)
            .flat_map(|i| {
                (n.wrapping_mul(2_654_435_761).rotate_left(i) % 1_000)
                    .to_string()
                    .into_bytes()
            })
            .chain(std::iter::repeat(b' '))
            .take(100)
            .collect();
        builder.push(NOW, None, Some(&value), &[]);
    }
    builder.build().bytes
}

fn joined(parts: Vec<Part>) -> Bytes {
    let mut all = Vec::new();
    for part in parts {
        let Part::Bytes(part) = part else {
            unreachable!("nothing external was given")
        };
        all.extend_from_slice(&part);
    }
    all.into()
}

fn produce_frame(partitions: i32, records: &Bytes) -> Bytes {
    let request = ProduceRequest {
        acks: -1,
        timeout_ms: 30_000,
        topic_data: vec![TopicProduceData {
            name: Str::from_static("topic"),
            partition_data: (0..partitions)
                .map(|index| PartitionProduceData {
                    index,
                    records: Some(records.clone().into()),
                    ..PartitionProduceData::default()
                })
                .collect(),
            ..TopicProduceData::default()
        }],
        ..ProduceRequest::default()
    };
    let parts = frame::encode_request(&request, VERSION, 7, None).expect("it can be encoded");
    joined(parts).slice(4..)
}

fn fetch_response(partitions: i32, records: &Bytes) -> FetchResponse {
    FetchResponse {
        responses: vec![FetchableTopicResponse {
            topic: Str::from_static("topic"),
            partitions: (0..partitions)
                .map(|partition_index| PartitionData {
                    partition_index,
                    high_watermark: 560,
                    last_stable_offset: 560,
                    records: Some(records.clone().into()),
                    ..PartitionData::default()
                })
                .collect(),
            ..FetchableTopicResponse::default()
        }],
        ..FetchResponse::default()
    }
}

fn codec(c: &mut Criterion) {
    let records = batch(CompressionType::None, 0);
    let mut group = c.benchmark_group("codec");
    for partitions in [1, 100] {
        let frame = produce_frame(partitions, &records);
        group.bench_function(
            format!("decode a produce request, {partitions} partitions"),
            |b| {
                b.iter_batched(
                    || Reader::new(frame.clone()),
                    |mut reader| {
                        let header = frame::decode_request_header(&mut reader).expect("a header");
                        (
                            header,
                            ProduceRequest::decode(&mut reader, VERSION).expect("a request"),
                        )
                    },
                    BatchSize::SmallInput,
                );
            },
        );
        let response = fetch_response(partitions, &records);
        group.bench_function(format!("encode a fetch response, {partitions} partitions"), |b| {
            b.iter(|| frame::encode_response(black_box(&response), ApiKey::Fetch, VERSION, 7));
        });
    }
    group.finish();
}

fn crc(c: &mut Criterion) {
    let mut group = c.benchmark_group("crc32c");
    for size in [100_usize, 1 << 10, 64 << 10] {
        let bytes: Vec<u8> = (0..size).map(|i| (i * 31) as u8).collect();
        group.throughput(Throughput::Bytes(size as u64));
        group.bench_function(format!("{size} bytes"), |b| {
            b.iter(|| crc32c::crc32c(black_box(&bytes)))
        });
    }
    group.finish();
}

fn records(c: &mut Criterion) {
    let mut group = c.benchmark_group("batch of 560 × 100 B");
    let codecs = [
        ("none", CompressionType::None, 0),
        ("gzip", CompressionType::Gzip, 6),
        ("snappy", CompressionType::Snappy, 0),
        ("lz4", CompressionType::Lz4, 9),
        ("zstd", CompressionType::Zstd, 3),
    ];
    group.throughput(Throughput::Bytes(batch(CompressionType::None, 0).len() as u64));
    for (name, codec, level) in codecs {
        let bytes = batch(codec, level);
        group.bench_function(format!("validate, {name}"), |b| {
            let rules = Rules::default();
            b.iter(|| validate(black_box(bytes.clone()), &rules, NOW).expect("a good batch"));
        });
        group.bench_function(format!("iterate, {name}"), |b| {
            b.iter(|| {
                let batch = batches(bytes.clone())
                    .next()
                    .expect("a batch")
                    .expect("a good batch");
                let records = batch.records(DECOMPRESSED_MAX).expect("records");
                records
                    .iter()
                    .map(|record| record.expect("a record").value.map_or(0, <[u8]>::len))
                    .sum::<usize>()
            });
        });
    }
    group.finish();
}

criterion_group!(benches, codec, crc, records);
criterion_main!(benches);

//! The memory budget bounds what peers make the broker hold.

#![expect(
    clippy::disallowed_methods,
    reason = "tests of the real world wait in threads"
)]

mod common;

use brokkr_types::UnixMillis;
use brokkr_wire::messages::describe_configs_request::DescribeConfigsResource;
use brokkr_wire::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use brokkr_wire::messages::produce_request::{PartitionProduceData, TopicProduceData};
use brokkr_wire::messages::{DescribeConfigsRequest, ListOffsetsRequest, ProduceRequest};
use brokkr_wire::records::{BatchBuilder, CompressionType};
use brokkr_wire::{ErrorCode, Str};
use bytes::Bytes;
use common::{Client, Running, fresh_dir, start};
use std::sync::atomic::{AtomicUsize, Ordering};

const MIB: usize = 1 << 20;

fn with_budget(name: &str, bytes: usize) -> Running {
    start(&fresh_dir(name), &["--set", &budget(bytes)])
}

fn budget(bytes: usize) -> String {
    format!("queued.max.request.bytes={bytes}")
}

/// The broker's peak memory.
fn peak_mib(broker: &Running) -> u64 {
    let status = format!("/proc/{}/status", broker.pid().as_raw_nonzero());
    let status = std::fs::read_to_string(status).expect("it lives");
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"));
    let kib = line.expect("it has memory").trim().trim_end_matches(" kB");
    kib.parse::<u64>().expect("a number") / 1024
}

/// Produces a batch to each of these partitions of `t`, and returns the result of each.
fn produce(client: &mut Client, batches: Vec<(i32, Bytes)>) -> Vec<(ErrorCode, String)> {
    let answer = client.call(&produce_request("t", batches), 9);
    let said = |message: Option<Str>| message.map(|m| m.as_str().to_owned()).unwrap_or_default();
    let partitions = answer.responses.into_iter().flat_map(|t| t.partition_responses);
    partitions
        .map(|p| (ErrorCode(p.error_code), said(p.error_message)))
        .collect()
}

fn produce_request(topic: &str, batches: Vec<(i32, Bytes)>) -> ProduceRequest {
    let data = |(index, records): (i32, Bytes)| PartitionProduceData {
        index,
        records: Some(records.into()),
        ..Default::default()
    };
    let topic = TopicProduceData {
        name: Str::copied(topic),
        partition_data: batches.into_iter().map(data).collect(),
        ..Default::default()
    };
    ProduceRequest {
        acks: -1,
        timeout_ms: 60_000,
        topic_data: vec![topic],
        ..Default::default()
    }
}

/// Each response is larger than the pool of responses, and all are requested at once.
#[test]
fn responses_larger_than_their_pool_are_built_one_at_a_time() {
    let broker = with_budget("peers-responses", 4 * MIB);
    let mut client = broker.client();
    let names: Vec<String> = (0..240).map(|n| format!("t{n}")).collect();
    for name in &names {
        assert_eq!(client.create(name, 1, &[]).0, ErrorCode::NONE);
    }
    let resource = |name: &String| DescribeConfigsResource {
        resource_type: 2,
        resource_name: Str::copied(name),
        ..Default::default()
    };
    let request = DescribeConfigsRequest {
        resources: names.iter().map(resource).collect(),
        include_synonyms: true,
        include_documentation: true,
        ..Default::default()
    };
    let answer = |client: &mut Client| client.frame().expect("an answer").len();
    assert!(client.try_send(&request, 4));
    let len = answer(&mut client);
    assert!(len > MIB, "{len}");
    let before = peak_mib(&broker);
    let mut clients: Vec<_> = (0..40).map(|_| broker.client()).collect();
    assert!(clients.iter_mut().all(|client| client.try_send(&request, 4)));
    std::thread::scope(|scope| {
        let answers = clients.iter_mut().map(|client| scope.spawn(|| answer(client)));
        let answers: Vec<_> = answers.collect();
        // On a very busy machine some are dropped as slow readers.
        let answered = answers.into_iter().filter_map(|a| a.join().ok());
        assert!(answered.filter(|len| *len > MIB).count() > 0);
    });
    let more = peak_mib(&broker) - before;
    assert!(more < 20, "{more} MiB more than one response took");
}

fn compressed(codec: CompressionType, values: &[usize]) -> Bytes {
    let mut builder = BatchBuilder::new().compression(codec, codec.default_level());
    for (at, bytes) in (1_700_000_000_000..).zip(values) {
        builder.push(UnixMillis(at), None, Some(&vec![0; *bytes]), &[]);
    }
    builder.build().bytes
}

#[test]
fn a_batch_that_decompresses_to_more_than_the_budget_is_rejected_with_the_limit() {
    // A quarter of the budget is for decompression.
    let broker = with_budget("peers-bombs", 32 * MIB);
    let mut client = broker.client();
    assert_eq!(
        client.create("t", 1, &[("retention.ms", "-1")]).0,
        ErrorCode::NONE
    );
    for (codec, most) in [(CompressionType::Gzip, 8 * MIB), (CompressionType::Zstd, 4 * MIB)] {
        let fits = produce(&mut client, vec![(0, compressed(codec, &[most - 1000]))]);
        assert_eq!(fits[0].0, ErrorCode::NONE, "{codec}");
        let refused = produce(&mut client, vec![(0, compressed(codec, &[most]))]);
        let why = format!("the records decompress to more than {most} bytes");
        assert_eq!(refused[0], (ErrorCode::MESSAGE_TOO_LARGE, why), "{codec}");
    }
}

fn offset_by_time(client: &mut Client, timestamp: i64) -> i64 {
    let partition = ListOffsetsPartition {
        timestamp,
        current_leader_epoch: -1,
        ..Default::default()
    };
    let topic = ListOffsetsTopic {
        name: Str::from("t"),
        partitions: vec![partition],
        ..Default::default()
    };
    let request = ListOffsetsRequest {
        replica_id: -1,
        topics: vec![topic],
        ..Default::default()
    };
    let mut answer = client.call(&request, 7).topics.remove(0);
    let found = answer.partitions.remove(0);
    assert_eq!(found.error_code, 0);
    found.offset
}

#[test]
fn a_timestamp_in_a_batch_larger_than_the_budget_finds_the_batch() {
    let path = fresh_dir("peers-time");
    let first_offset = |bytes: usize, produces: bool| {
        let broker = start(&path, &["--set", &budget(bytes)]);
        let mut client = broker.client();
        if produces {
            assert_eq!(
                client.create("t", 1, &[("retention.ms", "-1")]).0,
                ErrorCode::NONE
            );
            let batch = compressed(CompressionType::Zstd, &[5 * MIB, 5 * MIB]);
            assert_eq!(produce(&mut client, vec![(0, batch)])[0].0, ErrorCode::NONE);
        }
        let offset = offset_by_time(&mut client, 1_700_000_000_001);
        broker.terminate();
        offset
    };
    assert_eq!(first_offset(256 * MIB, true), 1, "the record itself");
    assert_eq!(
        first_offset(16 * MIB, false),
        0,
        "a reader that starts there misses nothing"
    );
}

/// The slowest input for gzip's level 9: the letters a and b, in a pattern that repeats beyond its window. Decompresses to
/// `bytes` bytes.
fn two_letters(bytes: usize) -> Bytes {
    let mut state = 1u32;
    let letters = std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        b'a' + (state >> 31) as u8
    });
    let pattern: Vec<u8> = letters.take(45_000).collect();
    let value: Vec<u8> = pattern.iter().copied().cycle().take(bytes).collect();
    let mut builder = BatchBuilder::new().compression(CompressionType::Zstd, 19);
    builder.push(UnixMillis(1_700_000_000_000), None, Some(&value), &[]);
    let batch = builder.build().bytes;
    assert!(batch.len() < bytes / 20, "{} bytes", batch.len());
    batch
}

#[test]
fn slow_compression_delays_neither_other_batches_nor_the_stop() {
    // One work slot for all.
    let broker = start(&fresh_dir("peers-turns"), &["--set", "num.io.threads=4"]);
    let mut client = broker.client();
    let slow = [
        ("compression.type", "gzip"),
        ("compression.gzip.level", "9"),
        ("retention.ms", "-1"),
    ];
    assert_eq!(client.create("slow", 1, &slow).0, ErrorCode::NONE);
    assert_eq!(
        client.create("t", 1, &[("retention.ms", "-1")]).0,
        ErrorCode::NONE
    );
    let request = produce_request("slow", vec![(0, two_letters(15_000_000))]);
    let mut hostile: Vec<_> = (0..2).map(|_| broker.client()).collect();
    assert!(hostile.iter_mut().all(|client| client.try_send(&request, 9)));
    let answered = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for client in &mut hostile {
            scope.spawn(|| {
                if client.frame().is_some() {
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for _ in 0..3 {
            let batch = compressed(CompressionType::Zstd, &[MIB, MIB]);
            assert_eq!(produce(&mut client, vec![(0, batch)])[0].0, ErrorCode::NONE);
        }
        assert_eq!(offset_by_time(&mut client, 1_700_000_000_001), 1);
        assert_eq!(answered.load(Ordering::Relaxed), 0, "they waited for the others");
        let (status, _, stderr) = broker.terminate();
        assert!(status.success(), "{stderr}");
    });
    assert_eq!(answered.into_inner(), 0, "the end waited for them");
}

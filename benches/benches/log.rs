//! One partition's log on real files: append, read, recovery.
//!
//! Files are under `target/tmp`; `RECOVERY_MIB` is the size of the partition to recover (1,024 by default).
#![expect(
    clippy::disallowed_methods,
    reason = "benchmarks use the real clock, and read the size from an environment variable"
)]

use brokkr_env::Env;
use brokkr_env::tokio::TokioEnv;
use brokkr_log::{Event, Log, LogCheckpoint, LogConfig, LogDir, UpTo};
use brokkr_types::{LeaderEpoch, Offset, UnixMillis, Uuid};
use brokkr_wire::records::{Batch, BatchBuilder, Origin};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

const FOLDER: &str = "t-0";
/// A log larger than this is replaced by an empty one, outside of the measured time.
const LOG_BYTES_MAX: u64 = 1 << 30;

fn batch(records: i32, value_bytes: usize) -> Batch {
    let mut builder = BatchBuilder::new();
    let value: Vec<u8> = (0..value_bytes).map(|i| (i * 31) as u8).collect();
    for _ in 0..records {
        builder.push(UnixMillis(1_700_000_000_000), None, Some(&value), &[]);
    }
    builder.build()
}

/// A runtime like the broker's, and an empty log directory.
struct Fixture {
    runtime: Runtime,
    env: TokioEnv,
    dir: LogDir<TokioEnv>,
}

impl Fixture {
    fn new(name: &str) -> Self {
        let runtime = Runtime::new().expect("a runtime");
        let path = format!("{}/bench-{name}", env!("CARGO_TARGET_TMPDIR"));
        match std::fs::remove_dir_all(&path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => panic!("{path}: {e}"),
            _ => {}
        }
        let env = TokioEnv::new(4);
        let dir = runtime.block_on(env.open_dir(&path)).expect("a directory");
        let dir = LogDir::new(env.clone(), dir, idle_files(64));
        Self { runtime, env, dir }
    }

    fn create(&self, flush_messages: u64) -> Log<TokioEnv> {
        let id = Uuid::from_random([7; 16]);
        self.runtime
            .block_on(Log::create(&self.dir, FOLDER, id, config(flush_messages)))
            .expect("a log")
    }

    /// Appends as the log's owner does: stages as much as fits, then applies completed disk operations.
    fn append(&self, log: &mut Log<TokioEnv>, batch: &Batch, count: u64) {
        self.runtime.block_on(async {
            for _ in 0..count {
                while !log.can_stage() {
                    apply_event(log).await;
                }
                let (now, wall) = (self.env.now(), self.env.wall());
                log.append(batch, Origin::Client, LeaderEpoch(0), now, wall)
                    .expect("staged");
            }
            let end = log.log_end();
            while log.ackable().offset() < end {
                apply_event(log).await;
            }
        });
    }
}

async fn apply_event(log: &mut Log<TokioEnv>) {
    if let Event::Failed { error, .. } = log.next_event().await {
        panic!("the disk: {error}");
    }
}

fn config(flush_messages: u64) -> LogConfig {
    LogConfig {
        flush_messages,
        file_delete_delay_ms: 0,
        ..LogConfig::default()
    }
}

fn append(c: &mut Criterion) {
    let mut group = c.benchmark_group("append");
    group.sample_size(10).measurement_time(Duration::from_secs(3));
    for (what, records, flush_messages) in [
        ("64 KiB batches, unflushed", 560, i64::MAX as u64),
        ("64 KiB batches, flushed", 560, 1),
        ("one-record batches, unflushed", 1, i64::MAX as u64),
        ("one-record batches, flushed", 1, 1),
    ] {
        let fixture = Fixture::new("append");
        let batch = batch(records, 100);
        let mut log = fixture.create(flush_messages);
        group.throughput(Throughput::Bytes(batch.bytes.len() as u64));
        group.bench_function(what, |b| {
            b.iter_custom(|count| {
                if log.size_bytes() > LOG_BYTES_MAX {
                    let fresh = || fixture.create(flush_messages);
                    replace(&fixture, &mut log, fresh);
                }
                let begin = Instant::now();
                fixture.append(&mut log, &batch, count);
                begin.elapsed()
            });
        });
    }
    group.finish();
}

/// Deletes a log and puts a new one in its place.
fn replace(fixture: &Fixture, log: &mut Log<TokioEnv>, fresh: impl FnOnce() -> Log<TokioEnv>) {
    // A log has one owner: a spare log under another name takes the old one's place until the new one exists.
    let spare = Uuid::from_random([8; 16]);
    let spare = fixture
        .runtime
        .block_on(Log::create(&fixture.dir, "spare-0", spare, config(1)))
        .expect("a log");
    let old = std::mem::replace(log, spare);
    fixture.runtime.block_on(old.delete()).expect("deleted");
    let spare = std::mem::replace(log, fresh());
    fixture.runtime.block_on(spare.delete()).expect("deleted");
}

fn read(c: &mut Criterion) {
    const BATCHES: u64 = 2_000;
    let fixture = Fixture::new("read");
    let mut log = fixture.create(i64::MAX as u64);
    let batch = batch(560, 100);
    fixture.append(&mut log, &batch, BATCHES);
    let reader = log.reader();
    let mut group = c.benchmark_group("read");
    let places = [
        ("found by the index, 64 KiB", 64 << 10, 560 * (BATCHES as i64 / 2)),
        ("found by the index, 1 MiB", 1 << 20, 560 * (BATCHES as i64 / 2)),
        ("the last batch, 64 KiB", 64 << 10, 560 * (BATCHES as i64 - 1)),
    ];
    for (what, bytes_max, offset) in places {
        group.bench_function(format!("range, {what}"), |b| {
            b.iter(|| {
                let read = reader.read(Offset(offset), UpTo::LogEnd, bytes_max, true);
                fixture
                    .runtime
                    .block_on(read)
                    .expect("readable")
                    .expect("something")
                    .range
                    .len()
            });
        });
    }
    group.throughput(Throughput::Bytes(1 << 20));
    group.bench_function("bytes, 1 MiB", |b| {
        b.iter(|| {
            let read = reader.read_bytes(Offset(560 * 1_000), UpTo::LogEnd, 1 << 20);
            fixture
                .runtime
                .block_on(read)
                .expect("readable")
                .expect("something")
                .len()
        });
    });
    group.finish();
}

fn recovery(c: &mut Criterion) {
    let mib =
        std::env::var("RECOVERY_MIB").map_or(1_024, |mib| mib.parse().expect("RECOVERY_MIB is a number"));
    let fixture = Fixture::new("recovery");
    let mut log = fixture.create(1);
    let batch = batch(560, 100);
    let count = (mib << 20) / batch.bytes.len() as u64;
    fixture.append(&mut log, &batch, count);
    let (checkpoint, end, size) = (log.checkpoint(), log.log_end(), log.size_bytes());
    // Dropped without a close, as after a kill.
    drop(log);
    let mut group = c.benchmark_group(format!("recovery of {mib} MiB"));
    group.sample_size(10).throughput(Throughput::Bytes(size));
    let nothing_known = LogCheckpoint::default();
    for (what, recorded) in [
        ("nothing recorded", nothing_known),
        ("all recorded as durable", checkpoint),
    ] {
        group.bench_function(what, |b| {
            b.iter(|| {
                let open = Log::open(&fixture.dir, FOLDER, config(1), &recorded);
                let (log, _) = fixture.runtime.block_on(open).expect("recovered");
                assert_eq!(log.log_end(), end, "all of it was durable");
            });
        });
    }
    group.finish();
}

criterion_group!(benches, append, read, recovery);
criterion_main!(benches);

fn idle_files(log_idle_files: usize) -> brokkr_log::LogLimits {
    brokkr_log::LogLimits {
        log_idle_files,
        ..Default::default()
    }
}

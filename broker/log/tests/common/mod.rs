//! Shared by the tests: an empty log directory on the real file system, batches, and the owner's loop.
#![allow(dead_code, reason = "each test binary uses its own part of it")]

use brokkr_env::tokio::TokioEnv;
use brokkr_env::{Dir, EntryKind, Env};
use brokkr_log::{AppendInfo, Event, Log, LogCheckpoint, LogConfig, LogDir, LogReader, Recovery, UpTo};
use brokkr_types::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, Sequence, UnixMillis, Uuid};
use brokkr_wire::records::{Batch, BatchBuilder, Origin, batches};

pub const FOLDER: &str = "t-0";

/// An empty directory for the test of this name.
pub async fn fresh(name: &str) -> LogDir<TokioEnv> {
    let env = TokioEnv::new(4);
    let dir = env
        .open_dir(&path(name))
        .await
        .expect("the target directory can be written");
    empty(&dir, "").await;
    LogDir::new(env, dir, idle_files(8))
}

/// The same directory, opened again as by another process.
pub async fn again(name: &str) -> LogDir<TokioEnv> {
    let env = TokioEnv::new(4);
    let dir = env.open_dir(&path(name)).await.expect("it is there");
    LogDir::new(env, dir, idle_files(8))
}

fn path(name: &str) -> String {
    format!("{}/{name}", env!("CARGO_TARGET_TMPDIR"))
}

async fn empty(dir: &Dir<TokioEnv>, path: &str) {
    for entry in dir.list(path).await.expect("listed") {
        let path = if path.is_empty() {
            entry.name
        } else {
            format!("{path}/{}", entry.name)
        };
        match entry.kind {
            EntryKind::File => dir.remove(&path).await.expect("removed"),
            EntryKind::Dir => {
                Box::pin(empty(dir, &path)).await;
                dir.remove_dir(&path).await.expect("removed");
            }
        }
    }
}

pub fn id() -> Uuid {
    Uuid::from_random([7; 16])
}

pub async fn create(dir: &LogDir<TokioEnv>, config: LogConfig) -> Log<TokioEnv> {
    Log::create(dir, FOLDER, id(), config).await.expect("created")
}

pub async fn open(
    dir: &LogDir<TokioEnv>,
    config: LogConfig,
    recorded: &LogCheckpoint,
) -> (Log<TokioEnv>, Recovery) {
    Log::open(dir, FOLDER, config, recorded).await.expect("opened")
}

/// A batch of `count` records; the values and timestamps count from `first`.
pub fn batch(first: i64, count: i64) -> Batch {
    build(BatchBuilder::new(), first, count)
}

/// The same from an idempotent producer, with sequences from `first`.
pub fn batch_of(producer: i64, first: i64, count: i64) -> Batch {
    let sequence = Sequence(first as i32);
    build(
        BatchBuilder::new().producer(ProducerId(producer), ProducerEpoch(0), sequence),
        first,
        count,
    )
}

pub fn build(mut builder: BatchBuilder, first: i64, count: i64) -> Batch {
    for n in first..first + count {
        builder.push(UnixMillis(1000 + n), None, Some(&n.to_be_bytes()), &[]);
    }
    builder.build()
}

pub fn stage(log: &mut Log<TokioEnv>, batch: &Batch) -> AppendInfo {
    append(log, batch).expect("staged")
}

pub fn append(log: &mut Log<TokioEnv>, batch: &Batch) -> Result<AppendInfo, brokkr_log::AppendError> {
    append_at(&TokioEnv::new(1), log, batch)
}

/// Appends at the time of `clock`. One clock for all appends, where the order of producers' last appends matters.
pub fn append_at(
    clock: &TokioEnv,
    log: &mut Log<TokioEnv>,
    batch: &Batch,
) -> Result<AppendInfo, brokkr_log::AppendError> {
    log.append(batch, Origin::Client, LeaderEpoch(3), clock.now(), clock.wall())
}

/// Polls events until the log may be acknowledged up to `end`.
pub async fn until(log: &mut Log<TokioEnv>, end: Offset) {
    while log.ackable().offset() < end {
        match log.next_event().await {
            Event::Ackable(_) => {}
            Event::Failed { from, error } => panic!("failed from {from}: {error}"),
        }
    }
}

pub async fn settle(log: &mut Log<TokioEnv>) {
    let end = log.log_end();
    until(log, end).await;
}

/// Every record of the log: offset and value.
pub async fn contents(reader: &LogReader<TokioEnv>) -> Vec<(i64, i64)> {
    let mut all = Vec::new();
    let mut at = reader.log_start();
    while let Some(bytes) = reader.read_bytes(at, UpTo::LogEnd, 1000).await.expect("readable") {
        for batch in batches(bytes) {
            let batch = batch.expect("whole batches");
            batch.check_crc().expect("undamaged");
            at = batch.header.next_offset();
            let records = batch.records(1 << 20).expect("records");
            for record in &records {
                let record = record.expect("a record");
                let value = record
                    .value
                    .and_then(|v| v.try_into().ok())
                    .map(i64::from_be_bytes);
                all.push((
                    batch.header.record_offset(record.offset_delta).0,
                    value.expect("a number"),
                ));
            }
        }
    }
    all
}

/// The result of [`contents`] if the values are the offsets.
pub fn identity(range: std::ops::Range<i64>) -> Vec<(i64, i64)> {
    range.map(|n| (n, n)).collect()
}

/// Every file of the log's folder, with its bytes.
pub async fn everything(dir: &LogDir<TokioEnv>) -> Vec<(String, bytes::Bytes)> {
    let mut all = Vec::new();
    for entry in dir.dir().list(FOLDER).await.expect("listed") {
        let path = format!("{FOLDER}/{}", entry.name);
        let bytes = dir.dir().read(&path, 1 << 24).await.expect("read");
        all.push((entry.name, bytes));
    }
    all
}

fn idle_files(log_idle_files: usize) -> brokkr_log::LogLimits {
    brokkr_log::LogLimits {
        log_idle_files,
        ..Default::default()
    }
}

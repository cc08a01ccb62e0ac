//! Rot in bytes that no CRC covers, wrong indexes, and files that shrink or vanish while a log is open: what can be
//! read is served, what can't is reported, and nothing is served at another offset.

mod common;

use brokkr_env::tokio::TokioEnv;
use brokkr_log::{Log, LogCheckpoint, LogConfig, LogDir, LogError, ReadError, UpTo};
use brokkr_types::{Instant, Offset, UnixMillis};
use brokkr_wire::records::Batch;
use common::*;

const BATCHES: i64 = 30;

fn config() -> LogConfig {
    LogConfig {
        segment_bytes: 1000,
        index_interval_bytes: 150,
        ..LogConfig::default()
    }
}

/// A log of batches of three records, whose values are their offsets, closed cleanly.
async fn closed(name: &str) -> LogCheckpoint {
    let dir = fresh(name).await;
    let mut log = create(&dir, config()).await;
    for i in 0..BATCHES {
        stage(&mut log, &batch(i * 3, 3));
        settle(&mut log).await;
    }
    assert!(log.segments() > 3);
    log.close().await.expect("closed")
}

async fn flip(dir: &LogDir<TokioEnv>, path: &str, at: u64, bit: u8) {
    let file = dir.dir().open(path).await.expect("opened");
    let byte = file.read_at(at, 1).await.expect("read")[0];
    file.write_at(at, vec![vec![byte ^ bit].into()])
        .await
        .expect("written");
}

async fn names(dir: &LogDir<TokioEnv>, suffix: &str) -> Vec<String> {
    let all = dir.dir().list(FOLDER).await.expect("listed");
    let all = all.into_iter().map(|e| format!("{FOLDER}/{}", e.name));
    all.filter(|n| n.ends_with(suffix)).collect()
}

/// A read of each batch's first offset: `Ok(true)` if it returns the batch that was written there.
async fn served(log: &mut Log<TokioEnv>) -> Vec<Result<bool, ReadError>> {
    let (reader, mut all) = (log.reader(), Vec::new());
    for i in 0..BATCHES {
        let read = reader.read_bytes(Offset(i * 3 + 1), UpTo::LogEnd, 1).await;
        all.push(read.map(|bytes| {
            let batch = bytes.and_then(|b| Batch::first(&b).ok());
            batch.is_some_and(|b| is_batch(i, &b))
        }));
    }
    all
}

/// Whether this is the batch that was written with number `i`.
fn is_batch(i: i64, batch: &Batch) -> bool {
    let records = batch.records(1 << 20).expect("records");
    let first = records.iter().next().expect("one").expect("sound");
    batch.check_crc().is_ok()
        && batch.header.base_offset == Offset(i * 3)
        && first.value == Some(&(i * 3).to_be_bytes()[..])
}

/// The same, read as a consumer does: the largest range at once, then from its end.
async fn served_in_ranges(log: &mut Log<TokioEnv>) -> Vec<Result<bool, ReadError>> {
    let (reader, mut all) = (log.reader(), Vec::new());
    while (all.len() as i64) < BATCHES {
        let offset = Offset(all.len() as i64 * 3);
        let range = match reader.read(offset, UpTo::LogEnd, 1 << 20, true).await {
            Err(why) => {
                all.push(Err(why));
                continue;
            }
            Ok(slice) => slice.expect("batches").range,
        };
        let bytes = range.file().read_at(range.at(), range.len()).await.expect("read");
        for batch in brokkr_wire::records::batches(bytes) {
            all.push(Ok(batch.is_ok_and(|b| is_batch(all.len() as i64, &b))));
        }
    }
    all
}

#[tokio::test]
async fn rot_outside_the_crc_is_reported_only_where_it_is() {
    let name = "rot_header";
    let recorded = closed(name).await;
    let dir = again(name).await;
    let (mut told, mut magic_or_length) = (0, 0);
    for path in names(&dir, ".log").await {
        let bytes = dir.dir().read(&path, 1 << 20).await.expect("read");
        let mut position = 0;
        for each in brokkr_wire::records::batches(bytes.clone()) {
            let each = each.expect("whole");
            let index = (each.header.base_offset.0 / 3) as usize;
            for at in 0..17u64 {
                let bit = 1 << ((at + index as u64) % 8);
                flip(&again(name).await, &path, position + at, bit).await;
                let (mut log, _) = open(&again(name).await, config(), &recorded).await;
                let ranges = served_in_ranges(&mut log).await;
                let once_more = served_in_ranges(&mut log).await;
                let served = served(&mut log).await;
                assert_eq!(
                    once_more, ranges,
                    "{path} batch {index} byte {at}: read once more"
                );
                assert_eq!(served, ranges, "{path} batch {index} byte {at}: read in ranges");
                assert!(
                    !served.contains(&Ok(false)),
                    "{path} batch {index} byte {at}: other records: {served:?}"
                );
                assert!(
                    matches!(served[index], Err(ReadError::Damaged(_))),
                    "{path} batch {index} byte {at} is not told: {:?}",
                    served[index]
                );
                told += 1;
                let lost = served.iter().filter(|s| s.is_err()).count();
                // A wrong length or magic hides the next batches up to the next index entry.
                match at {
                    8..12 => magic_or_length += lost - 1,
                    _ => assert_eq!(lost, 1, "{path} batch {index} byte {at}: {served:?}"),
                }
                flip(&again(name).await, &path, position + at, bit).await;
            }
            position += each.bytes.len() as u64;
        }
    }
    assert_eq!(told, BATCHES * 17);
    assert!(magic_or_length < BATCHES as usize * 4 * 2, "{magic_or_length}");
}

/// If the batch behind can't be read either, nothing confirms a base offset.
#[tokio::test]
async fn a_rotten_base_offset_before_a_missing_batch_is_reported() {
    let name = "rot_two";
    let recorded = closed(name).await;
    let dir = again(name).await;
    for path in names(&dir, ".log").await {
        let bytes = dir.dir().read(&path, 1 << 20).await.expect("read");
        let sizes: Vec<_> = brokkr_wire::records::batches(bytes.clone())
            .map(|each| each.expect("whole").bytes.len() as u64)
            .collect();
        let mut position = 0;
        for pair in sizes.windows(2) {
            let file = dir.dir().open(&path).await.expect("opened");
            // Increased by 8; the first bytes of the next batch are overwritten.
            flip(&again(name).await, &path, position + 7, 8).await;
            let behind = (position + pair[0]) as usize;
            file.write_at(behind as u64, vec![vec![0xff; 17].into()])
                .await
                .expect("written");
            let (mut log, _) = open(&again(name).await, config(), &recorded).await;
            let served = served_in_ranges(&mut log).await;
            assert!(!served.contains(&Ok(false)), "{path} at {position}: {served:?}");
            assert!(
                served.iter().filter(|s| s.is_err()).count() >= 2,
                "{path} at {position}"
            );
            flip(&again(name).await, &path, position + 7, 8).await;
            file.write_at(behind as u64, vec![bytes.slice(behind..behind + 17)])
                .await
                .expect("written");
            position += pair[0];
        }
    }
}

/// A read by timestamp skips batches by the timestamps in their headers: rot there must not hide a record.
#[tokio::test]
async fn a_read_by_timestamp_reports_a_batch_with_rotten_timestamps() {
    let name = "rot_times";
    let config = LogConfig {
        index_interval_bytes: 1 << 20,
        ..config()
    };
    let dir = fresh(name).await;
    let mut log = create(&dir, config.clone()).await;
    for i in 0..BATCHES {
        stage(&mut log, &batch(i * 3, 3));
        settle(&mut log).await;
    }
    let recorded = log.close().await.expect("closed");
    let (path, mut told) = (names(&dir, ".log").await.remove(0), 0);
    let bytes = dir.dir().read(&path, 1 << 20).await.expect("read");
    let mut position = 0;
    for each in brokkr_wire::records::batches(bytes.clone()) {
        let each = each.expect("whole");
        // The base timestamp and the largest timestamp.
        for at in 27..43 {
            flip(&again(name).await, &path, position + at, 1 << (at % 8)).await;
            let (mut log, _) = open(&again(name).await, config.clone(), &recorded).await;
            let reader = log.reader();
            for n in 0..BATCHES * 3 {
                let target = UnixMillis(1000 + n);
                match reader.offset_for_timestamp(target, UpTo::LogEnd, 1 << 20).await {
                    Ok(found) => {
                        let found = found.map(|f| (f.offset, f.timestamp));
                        assert_eq!(
                            found,
                            Some((Offset(n), target)),
                            "batch {}, byte {at}",
                            each.header.base_offset
                        );
                    }
                    Err(ReadError::Damaged(_)) => told += 1,
                    Err(e) => panic!("{e:?}"),
                }
            }
            flip(&again(name).await, &path, position + at, 1 << (at % 8)).await;
        }
        position += each.bytes.len() as u64;
    }
    assert!(told > 0);
}

/// The same, found by recovery: a wrong base offset must not look like a gap, nor the batches behind it like a torn
/// tail.
#[tokio::test]
async fn rot_outside_the_crc_is_no_torn_tail() {
    let name = "rot_recovered";
    let dir = fresh(name).await;
    let mut log = create(&dir, config()).await;
    let at_begin = log.checkpoint();
    for i in 0..BATCHES {
        // Four records: one bit moves the batch to where the next one begins.
        stage(&mut log, &batch(i * 4, 4));
        settle(&mut log).await;
    }
    let recorded = log.checkpoint();
    drop(log);
    let mut files = Vec::new();
    for path in names(&dir, "").await {
        let bytes = dir.dir().read(&path, 1 << 20).await.expect("read");
        files.push((path, bytes));
    }
    let (path, active) = files
        .iter()
        .rfind(|(path, _)| path.ends_with(".log"))
        .expect("a log");
    let (mut position, mut refused) = (0, 0);
    for each in brokkr_wire::records::batches(active.clone()) {
        let each = each.expect("whole");
        let bits_of = |at: u64| {
            if (6..8).contains(&at) {
                0..8
            } else {
                at % 8..at % 8 + 1
            }
        };
        let rots = (0..17).flat_map(|at| bits_of(at).map(move |bit| (at, bit)));
        // Below the recovery point, and above it.
        for ((at, bit), recorded) in rots.flat_map(|rot| [(rot, &recorded), (rot, &at_begin)]) {
            let dir = fresh(name).await;
            dir.dir().create_dir(FOLDER).await.expect("made");
            for (path, bytes) in &files {
                let file = dir.dir().create(path).await.expect("made");
                file.write_at(0, vec![bytes.clone()]).await.expect("written");
            }
            flip(&dir, path, position + at, 1 << bit).await;
            let point = recorded.recovery_point.unwrap_or_default();
            let what = format!(
                "batch {}, byte {at}, bit {bit}, durable to {point}",
                each.header.base_offset
            );
            match Log::open(&again(name).await, FOLDER, config(), recorded).await {
                Err(LogError::Damaged(damage)) => {
                    assert_eq!(&damage.file, path, "{what}");
                    refused += 1;
                }
                Err(error) => panic!("{what}: {error}"),
                Ok((mut log, _)) => {
                    let all: Vec<_> = (0..BATCHES * 4).map(|n| (n, n)).collect();
                    assert_eq!(contents(&log.reader()).await, all, "{what}");
                }
            }
        }
        position += each.bytes.len() as u64;
    }
    assert!(refused > 160, "{refused}");
}

/// Every way in which an index file can be wrong.
fn wrong(bytes: &[u8], other: &[u8], way: &str) -> Option<Vec<u8>> {
    Some(match way {
        "missing" => return None,
        "empty" => Vec::new(),
        "short" => bytes[..bytes.len() / 2].to_vec(),
        "zeroed" => vec![0; bytes.len()],
        "ones" => vec![0xff; bytes.len()],
        "another segment's" => other.to_vec(),
        "long" => [bytes, bytes].concat(),
        "backwards" => bytes.chunks(4).rev().flatten().copied().collect(),
        "random" => bytes
            .iter()
            .enumerate()
            .map(|(i, b)| b ^ (i as u8).wrapping_mul(151))
            .collect(),
        other => unreachable!("{other}"),
    })
}

const WAYS: [&str; 9] = [
    "missing",
    "empty",
    "short",
    "zeroed",
    "ones",
    "another segment's",
    "long",
    "backwards",
    "random",
];

async fn put(name: &str, path: &str, bytes: Option<Vec<u8>>) {
    let dir = again(name).await;
    match bytes {
        None => drop(dir.dir().remove(path).await),
        Some(bytes) => dir.dir().replace(path, bytes.into()).await.expect("replaced"),
    }
}

async fn all_is_found(log: &mut Log<TokioEnv>, what: &str) {
    let served = served(log).await;
    assert!(served.iter().all(|s| *s == Ok(true)), "{what}: {served:?}");
    let reader = log.reader();
    for n in 0..BATCHES * 3 {
        let found = reader
            .offset_for_timestamp(UnixMillis(1000 + n), UpTo::LogEnd, 1 << 20)
            .await;
        let found = found.expect("readable").map(|f| f.offset);
        assert_eq!(found, Some(Offset(n)), "{what}: by time");
    }
}

#[tokio::test]
async fn a_wrong_index_hides_no_record_and_is_rebuilt() {
    let name = "rot_index";
    let recorded = closed(name).await;
    let dir = again(name).await;
    for suffix in [".index", ".timeindex"] {
        let all = names(&dir, suffix).await;
        let mut bytes = Vec::new();
        for path in &all {
            bytes.push(dir.dir().read(path, 1 << 20).await.expect("read"));
        }
        for (i, path) in all.iter().enumerate() {
            for way in WAYS {
                let other = &bytes[(i + 1) % all.len()];
                put(name, path, wrong(&bytes[i], other, way)).await;
                for recorded in [
                    recorded.clone(),
                    LogCheckpoint {
                        clean: false,
                        ..recorded.clone()
                    },
                ] {
                    let what = format!("{path} {way} clean {}", recorded.clean);
                    let (mut log, _) = open(&again(name).await, config(), &recorded).await;
                    all_is_found(&mut log, &what).await;
                    // The owner rebuilds it when it is polled.
                    for _ in 0..20 {
                        tokio::select! { biased; _ = log.next_event() => {}, () = tokio::task::yield_now() => {} }
                    }
                    all_is_found(&mut log, &what).await;
                    drop(log);
                    put(name, path, wrong(&bytes[i], other, way)).await;
                }
                let (mut log, _) = open(&again(name).await, config(), &recorded).await;
                all_is_found(&mut log, way).await;
                log.close().await.expect("closed");
            }
        }
    }
}

#[tokio::test]
async fn a_zeroed_index_of_a_sealed_segment_is_rebuilt() {
    let name = "rot_zeroed";
    let recorded = closed(name).await;
    let dir = again(name).await;
    let path = names(&dir, ".index").await.remove(0);
    let right = dir.dir().read(&path, 1 << 20).await.expect("read");
    put(name, &path, Some(vec![0; right.len()])).await;
    let (mut log, _) = open(&dir, config(), &recorded).await;
    all_is_found(&mut log, "zeroed").await;
    let mut now = bytes::Bytes::new();
    for _ in 0..2000 {
        tokio::select! { biased; _ = log.next_event() => {}, () = tokio::task::yield_now() => {} }
        now = again(name)
            .await
            .dir()
            .read(&path, 1 << 20)
            .await
            .unwrap_or_default();
        if now == right {
            break;
        }
    }
    assert_eq!(now, right);
}

#[tokio::test]
async fn a_sealed_segment_that_shrinks_is_damage_at_a_clean_start() {
    let name = "rot_short_sealed";
    let recorded = closed(name).await;
    let dir = again(name).await;
    let path = names(&dir, ".log").await.remove(1);
    let file = dir.dir().open(&path).await.expect("opened");
    file.truncate(file.len() - 10).await.expect("cut");
    let opened = Log::open(&again(name).await, FOLDER, config(), &recorded).await;
    assert!(
        matches!(&opened, Err(LogError::Damaged(d)) if d.file == path),
        "{opened:?}"
    );
}

#[tokio::test]
async fn a_sealed_segment_that_shrinks_or_vanishes_while_it_is_open_is_damage() {
    for how in ["short", "gone"] {
        let name = format!("rot_while_open_{how}");
        let recorded = closed(&name).await;
        let dir = again(&name).await;
        let (mut log, _) = open(&dir, config(), &recorded).await;
        let path = names(&dir, ".log").await.remove(1);
        // By another process: this one's open files are unchanged.
        let other = again(&name).await;
        match how {
            "gone" => other.dir().remove(&path).await.expect("removed"),
            _ => {
                let file = other.dir().open(&path).await.expect("opened");
                file.truncate(file.len() - 10).await.expect("cut");
            }
        }
        let log_dir = LogDir::new(TokioEnv::new(2), dir.dir().clone(), idle_files(1));
        drop(log);
        let (mut second, _) = match Log::open(&log_dir, FOLDER, config(), &recorded).await {
            Ok(opened) => opened,
            Err(error) => {
                assert!(
                    matches!(&error, LogError::Damaged(d) if d.file == path),
                    "{error:?}"
                );
                continue;
            }
        };
        let served = served(&mut second).await;
        assert!(
            served
                .iter()
                .all(|s| matches!(s, Ok(true) | Err(ReadError::Damaged(_)))),
            "{served:?}"
        );
        log = second;
        drop(log);
    }
}

#[tokio::test]
async fn a_missing_segment_is_out_of_range_only_below_the_log_start() {
    let name = "rot_missing";
    let recorded = closed(name).await;
    // At most one file stays open, so each read opens the sealed segment again.
    let env = TokioEnv::new(2);
    let dir = LogDir::new(env.clone(), again(name).await.dir().clone(), idle_files(1));
    let (mut log, _) = open(&dir, config(), &recorded).await;
    let before = log.reader();
    let paths = names(&dir, ".log").await;
    let gone = format!("{}.moved", paths[1]);
    dir.dir().rename(&paths[1], &gone).await.expect("renamed");
    let end = log.log_end();
    let second = Offset(paths[1][FOLDER.len() + 1..][..20].parse().expect("a number"));
    let read = before.read_bytes(second, UpTo::LogEnd, 1).await;
    assert!(
        matches!(&read, Err(ReadError::Damaged(d)) if d.file == paths[1]),
        "{read:?}"
    );
    dir.dir().rename(&gone, &paths[1]).await.expect("renamed");
    log.set_high_watermark(end);
    log.advance_log_start(Offset(end.0 - 3)).await.expect("raised");
    log.enforce_retention(Instant::default(), UnixMillis(0))
        .await
        .expect("retired");
    let read = before.read_bytes(second, UpTo::LogEnd, 1).await;
    assert!(
        matches!(read, Err(ReadError::OutOfRange { log_start, .. }) if log_start == Offset(end.0 - 3)),
        "{read:?}"
    );
}

fn idle_files(log_idle_files: usize) -> brokkr_log::LogLimits {
    brokkr_log::LogLimits {
        log_idle_files,
        ..Default::default()
    }
}

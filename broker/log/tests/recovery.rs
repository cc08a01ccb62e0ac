//! Recovery after a crash: which batches are kept, which are cut, and what is damage. The tests drop the log and
//! change its files as a power loss would. (The simulator's disk covers every order of lost writes.)

mod common;

use brokkr_env::Env;
use brokkr_env::tokio::TokioEnv;
use brokkr_log::{Log, LogCheckpoint, LogConfig, LogDir, LogError, UpTo};
use brokkr_types::{LeaderEpoch, Offset, UnixMillis};
use bytes::Bytes;
use common::*;
use std::collections::BTreeSet;

fn config() -> LogConfig {
    LogConfig {
        segment_bytes: 1000,
        index_interval_bytes: 150,
        ..LogConfig::default()
    }
}

/// A log of 30 batches of 3 records of one producer, all durable, dropped without a clean stop. Returns its
/// checkpoint at the time when it had `recorded_at` batches.
async fn crashed(name: &str, recorded_at: i64) -> LogCheckpoint {
    let dir = fresh(name).await;
    let mut log = create(&dir, config()).await;
    let mut recorded = LogCheckpoint::default();
    for i in 0..30 {
        if i == recorded_at {
            let end = log.log_end();
            while log.recovery_point() < end {
                tokio::select! { biased; _ = log.next_event() => {}, () = tokio::task::yield_now() => {} }
            }
            recorded = log.checkpoint();
        }
        stage(&mut log, &batch_of(1, i * 3, 3));
        settle(&mut log).await;
    }
    assert_eq!(recorded.recovery_point, Some(Offset(recorded_at * 3)));
    recorded
}

async fn logs(dir: &LogDir<TokioEnv>) -> Vec<String> {
    let all = dir.dir().list(FOLDER).await.expect("listed");
    all.into_iter()
        .map(|e| format!("{FOLDER}/{}", e.name))
        .filter(|n| n.ends_with(".log"))
        .collect()
}

/// The segment that contains `offset`, and the position of its batch.
async fn place(dir: &LogDir<TokioEnv>, offset: i64) -> (String, u64) {
    for path in logs(dir).await.into_iter().rev() {
        let bytes = dir.dir().read(&path, 1 << 20).await.expect("read");
        let mut at = 0;
        for batch in brokkr_wire::records::batches(bytes) {
            let batch = batch.expect("whole");
            if batch.header.base_offset.0 == offset {
                return (path, at);
            }
            at += batch.bytes.len() as u64;
        }
    }
    panic!("offset {offset} is nowhere");
}

async fn overwrite(dir: &LogDir<TokioEnv>, path: &str, at: u64, bytes: impl Into<Bytes>) {
    let file = dir.dir().open(path).await.expect("opened");
    file.write_at(at, vec![bytes.into()]).await.expect("written");
}

async fn cut_file(dir: &LogDir<TokioEnv>, path: &str, len: u64) {
    dir.dir()
        .open(path)
        .await
        .expect("opened")
        .truncate(len)
        .await
        .expect("cut");
}

async fn reopen(
    name: &str,
    recorded: &LogCheckpoint,
) -> Result<(Log<TokioEnv>, brokkr_log::Recovery), LogError> {
    Log::open(&again(name).await, FOLDER, config(), recorded).await
}

fn damage(result: Result<(Log<TokioEnv>, brokkr_log::Recovery), LogError>) -> brokkr_log::Damage {
    match result {
        Err(LogError::Damaged(damage)) => damage,
        other => panic!("damage expected: {other:?}"),
    }
}

#[tokio::test]
async fn everything_durable_is_kept() {
    for recorded_at in [0, 1, 17, 29] {
        let name = format!("recovery_kept_{recorded_at}");
        let recorded = crashed(&name, recorded_at).await;
        let (mut log, recovery) = reopen(&name, &recorded).await.expect("opened");
        assert_eq!((recovery.cut_bytes, &recovery.cut), (0, &None));
        // Kept and rewritten: batches above the recovery point that are not in a listed segment.
        assert!(
            !recovery.clean && recovery.kept_batches >= 1 && recovery.kept_batches <= 12,
            "{recovery:?}"
        );
        assert_eq!(contents(&log.reader()).await, identity(0..90));
        assert_eq!(
            (log.durable_end(), log.recovery_point()),
            (Offset(90), Offset(90))
        );
        assert_eq!(log.latest_epoch(), Some(LeaderEpoch(3)));
        // The window was rebuilt by replay (P4).
        for i in 25..30 {
            assert_eq!(stage(&mut log, &batch_of(1, i * 3, 3)).base_offset, Offset(i * 3));
        }
        stage(&mut log, &batch_of(1, 90, 3));
        settle(&mut log).await;
        assert_eq!(contents(&log.reader()).await, identity(0..93));
    }
}

#[tokio::test]
async fn a_torn_tail_is_cut_and_its_offsets_are_assigned_again() {
    let name = "recovery_torn";
    let recorded = crashed(name, 20).await;
    let dir = again(name).await;
    let (path, at) = place(&dir, 87).await;
    cut_file(&dir, &path, at + 70).await;
    let (mut log, recovery) = reopen(name, &recorded).await.expect("opened");
    assert_eq!((recovery.cut_bytes, log.log_end()), (70, Offset(87)));
    assert_eq!(
        recovery.cut.map(|c| (c.position, c.offset)),
        Some((at, Offset(87)))
    );
    // The producer's last batch was cut with it, so it is no duplicate (P4, P7).
    let again = stage(&mut log, &batch_of(1, 87, 3));
    assert!(!again.duplicate && again.base_offset == Offset(87));
    settle(&mut log).await;
    assert_eq!(contents(&log.reader()).await, identity(0..90));
}

#[tokio::test]
async fn a_bad_batch_above_the_point_ends_the_log() {
    for (case, bytes, at) in [("crc", &[0xffu8][..], 65), ("zeros", &[0; 61][..], 0)] {
        let name = format!("recovery_bad_{case}");
        let recorded = crashed(&name, 10).await;
        let dir = again(&name).await;
        let (path, position) = place(&dir, 45).await;
        overwrite(&dir, &path, position + at, bytes).await;
        // The listed segments were durable; otherwise the recovery point counts.
        dir.dir().remove("t-0/brokkr-manifest").await.expect("removed");
        let before = logs(&dir).await.len();
        let (mut log, recovery) = reopen(&name, &recorded).await.expect("opened");
        assert_eq!(log.log_end(), Offset(45), "{case}");
        assert!(
            recovery.cut_segments > 0 && recovery.cut_bytes > 0,
            "{case}: {recovery:?}"
        );
        assert!(logs(&dir).await.len() < before);
        assert_eq!(contents(&log.reader()).await, identity(0..45));
    }
}

/// A torn write never leaves a batch whose only wrong bytes are those that its CRC does not cover.
#[tokio::test]
async fn a_batch_above_the_point_with_another_offset_is_damage() {
    let name = "recovery_bad_offset";
    let recorded = crashed(name, 10).await;
    let dir = again(name).await;
    let (path, position) = place(&dir, 45).await;
    overwrite(&dir, &path, position, vec![0; 8]).await;
    dir.dir().remove("t-0/brokkr-manifest").await.expect("removed");
    let before = dir.dir().open(&path).await.expect("opened").len();
    let found = damage(reopen(name, &recorded).await);
    assert_eq!((found.file, found.position), (path.clone(), position));
    assert_eq!(dir.dir().open(&path).await.expect("opened").len(), before);
}

/// A power loss that loses one sector and keeps the next can lose a part of a batch's first 17 bytes and nothing else
/// of it.
#[tokio::test]
async fn a_prefix_divided_by_a_sector_boundary_is_a_torn_write() {
    let mut tried = BTreeSet::new();
    for count in 1..700 {
        // A directory for each: a background write of a dropped log may still be on an IO thread.
        let name = &format!("recovery_divided_front_{count}");
        let dir = fresh(name).await;
        let mut log = create(&dir, LogConfig::default()).await;
        let at_begin = log.checkpoint();
        stage(&mut log, &batch(0, count));
        stage(&mut log, &batch(count, 3));
        settle(&mut log).await;
        drop(log);
        let dir = again(name).await;
        let (path, position) = place(&dir, count).await;
        let left = 512 - position % 512;
        // With 17 the boundary is right after them.
        if !(1..=17).contains(&left) || !tried.insert(left) {
            continue;
        }
        overwrite(&dir, &path, position, vec![0; left as usize]).await;
        let (log, recovery) = reopen(name, &at_begin).await.expect("opened");
        // Zeros in place of zeros change nothing.
        let end = if recovery.cut_bytes == 0 { count + 3 } else { count };
        assert_eq!(log.log_end(), Offset(end), "{left} bytes");
    }
    assert!(tried.len() > 2 && tried.contains(&17), "{tried:?}");
}

#[tokio::test]
async fn damage_below_the_point_is_reported_and_nothing_is_cut() {
    // In the segment with the recovery point: its batches are checked up to that point.
    let name = "recovery_damage_header";
    let recorded = crashed(name, 29).await;
    let dir = again(name).await;
    let (path, at) = place(&dir, 84).await;
    overwrite(&dir, &path, at + 8, vec![0, 0, 0, 0]).await;
    let before = dir.dir().open(&path).await.expect("opened").len();
    let found = damage(reopen(name, &recorded).await);
    assert_eq!(
        (found.file, found.position, found.offset),
        (path.clone(), at, Offset(84))
    );
    assert_eq!(dir.dir().open(&path).await.expect("opened").len(), before);
}

#[tokio::test]
async fn a_log_that_ends_before_the_point_is_damaged() {
    let name = "recovery_damage_short";
    let recorded = crashed(name, 29).await;
    let dir = again(name).await;
    let (path, at) = place(&dir, 84).await;
    cut_file(&dir, &path, at).await;
    let found = damage(reopen(name, &recorded).await);
    assert_eq!((found.file, found.offset), (path, Offset(84)));
}

#[tokio::test]
async fn a_sealed_segment_that_is_missing_or_shorter_is_damage() {
    let name = "recovery_damage_sealed";
    let recorded = crashed(name, 29).await;
    let dir = again(name).await;
    let second = logs(&dir).await.swap_remove(1);
    cut_file(&dir, &second, 500).await;
    assert_eq!(damage(reopen(name, &recorded).await).position, 500);
    dir.dir().remove(&second).await.expect("removed");
    assert_eq!(damage(reopen(name, &recorded).await).file, second);
}

#[tokio::test]
async fn lost_indexes_are_rebuilt() {
    let name = "recovery_indexes";
    let recorded = crashed(name, 15).await;
    let dir = again(name).await;
    for entry in dir.dir().list(FOLDER).await.expect("listed") {
        if entry.name.ends_with("index") {
            dir.dir()
                .remove(&format!("{FOLDER}/{}", entry.name))
                .await
                .expect("removed");
        }
    }
    let (mut log, recovery) = reopen(name, &recorded).await.expect("opened");
    assert!(recovery.indexes_rebuilt > 0);
    assert_eq!(contents(&log.reader()).await, identity(0..90));
}

/// For each offset, the batch that contains it; for each timestamp, the record.
async fn found(log: &mut Log<TokioEnv>) -> Vec<(i64, Option<i64>)> {
    let (reader, mut all) = (log.reader(), Vec::new());
    for n in 0..90 {
        let slice = reader.read(Offset(n), UpTo::LogEnd, 1, true).await;
        let first = slice.expect("it can be read").expect("it is there").first;
        let at = reader
            .offset_for_timestamp(UnixMillis(1000 + n), UpTo::LogEnd, 1 << 20)
            .await;
        all.push((first.0, at.expect("it can be read").map(|f| f.offset.0)));
    }
    all
}

#[tokio::test]
async fn reads_succeed_with_a_damaged_index() {
    let name = "recovery_index_rot";
    let dir = fresh(name).await;
    let mut log = create(&dir, config()).await;
    for i in 0..30 {
        stage(&mut log, &batch_of(1, i * 3, 3));
    }
    settle(&mut log).await;
    let healthy = found(&mut log).await;
    let recorded = log.close().await.expect("closed");
    let all = again(name).await.dir().list(FOLDER).await.expect("listed");
    let is_index = |name: &&str| name.ends_with(".index") || name.ends_with(".timeindex");
    for file in all.iter().map(|e| e.name.as_str()).filter(is_index).take(4) {
        let path = format!("{FOLDER}/{file}");
        let bytes = again(name).await.dir().read(&path, 4096).await.expect("read");
        for at in 0..bytes.len() {
            let mut rotten = bytes.to_vec();
            rotten[at] ^= 1 << (at % 8);
            overwrite(&again(name).await, &path, 0, rotten).await;
            let (mut log, recovery) = reopen(name, &recorded).await.expect("opened");
            assert_eq!(found(&mut log).await, healthy, "{path} byte {at}, {recovery:?}");
            drop(log);
            overwrite(&again(name).await, &path, 0, bytes.clone()).await;
        }
    }
}

#[tokio::test]
async fn a_lost_window_is_rebuilt_by_replay() {
    let name = "recovery_window";
    let dir = fresh(name).await;
    let mut log = create(&dir, config()).await;
    for i in 0..30 {
        stage(&mut log, &batch_of(1, i * 3, 3));
    }
    settle(&mut log).await;
    let recorded = log.close().await.expect("closed");
    let dir = again(name).await;
    let all = dir.dir().list(FOLDER).await.expect("listed");
    for entry in all.iter().filter(|e| e.name.ends_with(".window")) {
        dir.dir()
            .remove(&format!("{FOLDER}/{}", entry.name))
            .await
            .expect("removed");
    }
    let (mut log, recovery) = reopen(name, &recorded).await.expect("opened");
    assert!(recovery.clean && recovery.replayed_batches == 30, "{recovery:?}");
    for i in 25..30 {
        assert!(stage(&mut log, &batch_of(1, i * 3, 3)).duplicate);
    }
}

#[tokio::test]
async fn without_manifest_or_checkpoint_the_whole_log_is_scanned() {
    let name = "recovery_bare";
    crashed(name, 20).await;
    let dir = again(name).await;
    for file in ["brokkr-manifest", "leader-epoch-checkpoint"] {
        dir.dir()
            .remove(&format!("{FOLDER}/{file}"))
            .await
            .expect("removed");
    }
    let (mut log, recovery) = reopen(name, &LogCheckpoint::default()).await.expect("opened");
    assert_eq!((recovery.kept_batches, log.log_end()), (30, Offset(90)));
    assert_eq!(log.latest_epoch(), Some(LeaderEpoch(3)));
    assert_eq!(contents(&log.reader()).await, identity(0..90));
}

#[tokio::test]
async fn a_checkpoint_of_another_topic_is_ignored() {
    let name = "recovery_recreated";
    let mut recorded = crashed(name, 29).await;
    let dir = fresh(name).await;
    let mut log = create(&dir, config()).await;
    stage(&mut log, &batch(0, 1));
    settle(&mut log).await;
    assert!(
        matches!(reopen(name, &recorded).await, Err(LogError::Damaged(_))),
        "the same topic's would be short"
    );
    recorded.topic_id = brokkr_types::Uuid::from_random([9; 16]);
    assert!(reopen(name, &recorded).await.is_ok());
}

#[tokio::test]
async fn a_batch_of_an_earlier_epoch_never_follows_a_later_one() {
    let name = "recovery_epoch_order";
    let dir = fresh(name).await;
    let mut log = create(&dir, LogConfig::default()).await;
    let env = TokioEnv::new(1);
    for (offset, epoch) in [(0, 1), (1, 4), (2, 4)] {
        let batch = build(
            brokkr_wire::records::BatchBuilder::new().at(Offset(offset), LeaderEpoch(epoch)),
            offset,
            1,
        );
        log.append_replicated(&batch, env.now(), env.wall())
            .expect("staged");
    }
    settle(&mut log).await;
    drop(log);
    let dir = again(name).await;
    // The last batch's epoch becomes 2; the CRC does not cover it.
    let (path, at) = place(&dir, 2).await;
    overwrite(&dir, &path, at + 12, vec![0, 0, 0, 2]).await;
    let opened = Log::open(&dir, FOLDER, LogConfig::default(), &LogCheckpoint::default()).await;
    // A torn write never leaves a complete batch.
    let why = opened.map(drop).expect_err("a leader of before");
    assert!(
        matches!(&why, LogError::Damaged(damage) if damage.what.contains("epoch")),
        "{why:?}"
    );
}

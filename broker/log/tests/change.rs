//! Truncation, retention, DeleteRecords, deletion, leader epochs, reads by timestamp.

mod common;

use brokkr_env::tokio::TokioEnv;
use brokkr_env::{EntryKind, Env};
use brokkr_log::{
    EpochEnd, LogCheckpoint, LogConfig, LogDir, LogError, ReadError, TimestampOffset, UpTo, checkpoint,
};
use brokkr_types::{Instant, LeaderEpoch, NodeId, Offset, UnixMillis, Uuid};
use brokkr_wire::records::{BatchBuilder, CompressionType};
use common::*;
use std::collections::BTreeMap;

fn config() -> LogConfig {
    LogConfig {
        segment_bytes: 400,
        index_interval_bytes: 150,
        file_delete_delay_ms: 0,
        retention_ms: -1,
        ..LogConfig::default()
    }
}

async fn filled(name: &str, batches: i64) -> (LogDir<TokioEnv>, brokkr_log::Log<TokioEnv>) {
    let dir = fresh(name).await;
    let mut log = create(&dir, config()).await;
    for i in 0..batches {
        stage(&mut log, &batch_of(1, i * 3, 3));
    }
    settle(&mut log).await;
    let end = log.log_end();
    log.set_high_watermark(end);
    (dir, log)
}

#[tokio::test]
async fn a_truncation_removes_batches_and_their_producer_state() {
    for to in [0, 3, 30, 44, 45, 46, 47, 48, 87, 89] {
        let name = format!("change_truncate_{to}");
        let (_, mut log) = filled(&name, 30).await;
        log.truncate_to(Offset(to)).await.expect("cut");
        // A batch that contains the offset is removed whole.
        let end = to - to % 3;
        assert_eq!(
            (log.log_end(), log.durable_end(), log.high_watermark()),
            (Offset(end), Offset(end), Offset(end))
        );
        assert_eq!(contents(&log.reader()).await, identity(0..end));
        if end > 0 {
            assert!(stage(&mut log, &batch_of(1, end - 3, 3)).duplicate);
        }
        for i in end / 3..30 {
            let appended = stage(&mut log, &batch_of(1, i * 3, 3));
            assert!(
                !appended.duplicate && appended.base_offset == Offset(i * 3),
                "{to}: {appended:?}"
            );
        }
        settle(&mut log).await;
        assert_eq!(contents(&log.reader()).await, identity(0..90));
        // The same after a crash, even with a recovery point from before the truncation.
        let stale = LogCheckpoint {
            recovery_point: Some(Offset(90)),
            ..LogCheckpoint::default()
        };
        drop(log);
        let (mut log, _) = open(&again(&name).await, config(), &stale).await;
        assert_eq!(contents(&log.reader()).await, identity(0..90));
    }
}

#[tokio::test]
async fn a_recovery_point_from_before_a_truncation_is_no_damage() {
    let (dir, mut log) = filled("change_stale_point", 30).await;
    let recorded = LogCheckpoint {
        recovery_point: Some(Offset(90)),
        ..log.checkpoint()
    };
    log.truncate_to(Offset(45)).await.expect("cut");
    drop(log);
    let (log, recovery) = open(&dir, config(), &recorded).await;
    assert_eq!((log.log_end(), recovery.cut), (Offset(45), None));
    // One recorded after the truncation applies.
    let after = LogCheckpoint {
        recovery_point: Some(Offset(48)),
        ..log.checkpoint()
    };
    drop(log);
    let opened = brokkr_log::Log::open(&dir, FOLDER, config(), &after).await;
    assert!(matches!(opened, Err(LogError::Damaged(_))));
}

#[tokio::test]
async fn a_log_can_restart_at_any_offset() {
    let (dir, mut log) = filled("change_anew", 30).await;
    let recorded = LogCheckpoint {
        recovery_point: Some(Offset(90)),
        ..log.checkpoint()
    };
    log.truncate_fully_and_start_at(Offset(500)).await.expect("cut");
    assert_eq!(
        (log.log_start(), log.log_end(), log.segments()),
        (Offset(500), Offset(500), 1)
    );
    assert!(log.producers().is_empty() && log.latest_epoch().is_none());
    stage(&mut log, &batch_of(1, 7, 1));
    settle(&mut log).await;
    drop(log);
    let (mut log, _) = open(&dir, config(), &recorded).await;
    assert_eq!((log.log_start(), log.log_end()), (Offset(500), Offset(501)));
    assert_eq!(contents(&log.reader()).await, [(500, 7)]);
}

#[tokio::test]
async fn a_stale_snapshot_reads_no_other_bytes() {
    let (_, mut log) = filled("change_stale_reader", 3).await;
    let reader = log.reader();
    log.truncate_to(Offset(6)).await.expect("cut");
    stage(&mut log, &batch(100, 3));
    settle(&mut log).await;
    assert_eq!(log.segments(), 1, "the new batch stands where the old one did");
    let read = reader.read(Offset(6), UpTo::LogEnd, 1000, true).await;
    assert!(matches!(read, Err(ReadError::Stale)), "{read:?}");
}

#[tokio::test]
async fn retention_removes_whole_segments_below_the_high_watermark() {
    let (dir, mut log) = filled("change_retention_size", 30).await;
    let (all, size) = (log.segments(), log.size_bytes());
    log.set_config(LogConfig {
        retention_bytes: size as i64 / 2,
        ..config()
    });
    log.set_high_watermark(Offset(3));
    let none = log
        .enforce_retention(Instant::default(), UnixMillis(0))
        .await
        .expect("enforced");
    assert_eq!(none.segments, 0, "nothing is below the high watermark");
    log.set_high_watermark(Offset(90));
    let reader = log.reader();
    let retired = log
        .enforce_retention(Instant::default(), UnixMillis(0))
        .await
        .expect("enforced");
    assert!(retired.segments > 1 && log.segments() == all - retired.segments);
    assert!(log.size_bytes() >= size / 2 && log.size_bytes() - size / 2 < 400);
    let start = log.log_start().0;
    assert_eq!(contents(&log.reader()).await, identity(start..90));
    let gone = log.reader().read(Offset(0), UpTo::LogEnd, 100, true).await;
    assert!(matches!(gone, Err(ReadError::OutOfRange { .. })));
    // A reader of an older snapshot gets the same error, never other bytes.
    let late = reader.read(Offset(0), UpTo::LogEnd, 100, true).await;
    assert!(
        matches!(late, Err(ReadError::OutOfRange { .. }) | Ok(Some(_))),
        "{late:?}"
    );
    drop(log);
    let (mut log, _) = open(&dir, config(), &LogCheckpoint::default()).await;
    assert_eq!(log.log_start(), Offset(start));
    assert_eq!(contents(&log.reader()).await, identity(start..90));
}

#[tokio::test]
async fn retention_by_time_removes_the_active_segment_too() {
    let (_, mut log) = filled("change_retention_time", 30).await;
    log.set_config(LogConfig {
        retention_ms: 1000,
        ..config()
    });
    // The records' timestamps are 1000 to 1089.
    let wall = |n: i64| UnixMillis(2000 + n);
    let some = log
        .enforce_retention(Instant::default(), wall(40))
        .await
        .expect("enforced");
    assert!(some.segments > 0 && !some.rolling, "{some:?}");
    assert!(log.log_start() > Offset(0) && log.log_start() <= Offset(40));
    let rest = log
        .enforce_retention(Instant::default(), wall(90))
        .await
        .expect("enforced");
    assert!(rest.rolling);
    while log.size_bytes() > 0 {
        tokio::select! { biased; _ = log.next_event() => {}, () = tokio::task::yield_now() => {} }
        log.enforce_retention(Instant::default(), wall(90))
            .await
            .expect("enforced");
    }
    assert_eq!(
        (log.log_start(), log.log_end(), log.size_bytes()),
        (Offset(90), Offset(90), 0)
    );
    stage(&mut log, &batch(90, 2));
    settle(&mut log).await;
    assert_eq!(contents(&log.reader()).await, identity(90..92));
}

#[tokio::test]
async fn delete_records_survives_a_crash() {
    let (dir, mut log) = filled("change_delete_records", 30).await;
    log.set_high_watermark(Offset(50));
    let past = log.advance_log_start(Offset(51)).await;
    assert_eq!(past.map_err(|e| e.code()), Err(1));
    log.advance_log_start(Offset(40)).await.expect("raised");
    assert_eq!(log.log_start(), Offset(40));
    drop(log);
    let (mut log, _) = open(&dir, config(), &LogCheckpoint::default()).await;
    assert_eq!(log.log_start(), Offset(40));
    let before = log.segments();
    log.set_high_watermark(Offset(90));
    let retired = log
        .enforce_retention(Instant::default(), UnixMillis(0))
        .await
        .expect("enforced");
    assert!(retired.segments > 0 && log.segments() == before - retired.segments);
    assert_eq!(log.log_start(), Offset(40));
    assert!(matches!(
        log.reader().read(Offset(39), UpTo::LogEnd, 1, true).await,
        Err(ReadError::OutOfRange { .. })
    ));
    let slice = log
        .reader()
        .read(Offset(40), UpTo::LogEnd, 1, true)
        .await
        .expect("read")
        .expect("there");
    assert_eq!(slice.first, Offset(39), "the whole batch (W6)");
}

#[tokio::test]
async fn a_crash_during_retention_leaves_the_log_complete() {
    // The manifest was written; the files were not removed yet.
    let (dir, mut log) = filled("change_retention_crash", 30).await;
    log.set_config(LogConfig {
        retention_bytes: 1000,
        file_delete_delay_ms: 1 << 40,
        ..config()
    });
    log.enforce_retention(Instant::default(), UnixMillis(0))
        .await
        .expect("enforced");
    let start = log.log_start().0;
    drop(log);
    // Renames that were not durable are undone one by one: the first and third files are back.
    let all = dir.dir().list(FOLDER).await.expect("listed");
    let deleted: Vec<_> = all.iter().filter(|e| e.name.ends_with(".log.deleted")).collect();
    assert!(deleted.len() >= 3);
    for entry in [deleted[0], deleted[2]] {
        let from = format!("{FOLDER}/{}", entry.name);
        dir.dir()
            .rename(&from, from.trim_end_matches(".deleted"))
            .await
            .expect("renamed");
    }
    let (mut log, _) = open(&dir, config(), &LogCheckpoint::default()).await;
    assert_eq!(contents(&log.reader()).await, identity(start..90));
    let left = dir.dir().list(FOLDER).await.expect("listed");
    assert_eq!(
        left.iter().filter(|e| e.name.ends_with(".log")).count(),
        log.segments()
    );
    assert!(left.iter().all(|e| !e.name.ends_with(".deleted")));
}

#[tokio::test]
async fn a_file_that_can_t_be_renamed_is_retired_later() {
    let (dir, mut log) = filled("change_unretired", 30).await;
    let (first, in_its_way) = (
        format!("{FOLDER}/{:020}.log", 0),
        format!("{FOLDER}/{:020}.log.deleted", 0),
    );
    dir.dir().create_dir(&in_its_way).await.expect("made");
    log.advance_log_start(Offset(42)).await.expect("raised");
    let retired = log.enforce_retention(Instant::default(), UnixMillis(0)).await;
    assert!(retired.is_err(), "{retired:?}");
    // As the folder may be another log's by then, nothing removes the file by its own name later.
    let env = dir.env().clone();
    env.sleep_until(env.now() + std::time::Duration::from_millis(100))
        .await;
    assert!(exists(&dir, &first).await);
    dir.dir().remove_dir(&in_its_way).await.expect("removed");
    let retired = log
        .enforce_retention(Instant::default(), UnixMillis(0))
        .await
        .expect("retired");
    assert_eq!(retired.segments, 0);
    while exists(&dir, &first).await || exists(&dir, &in_its_way).await {
        env.sleep_until(env.now() + std::time::Duration::from_millis(1))
            .await;
    }
    assert_eq!(contents(&log.reader()).await, identity(42..90));
}

async fn exists(dir: &LogDir<TokioEnv>, path: &str) -> bool {
    let name = path.rsplit('/').next().expect("a name");
    let all = dir.dir().list(FOLDER).await.expect("listed");
    all.iter().any(|entry| entry.name == name)
}

#[tokio::test]
async fn an_epoch_is_known_before_anything_is_written_in_it() {
    let (dir, mut log) = filled("change_epochs", 3).await;
    log.assign_epoch(LeaderEpoch(5)).await.expect("noted");
    log.assign_epoch(LeaderEpoch(5)).await.expect("noted");
    let text = dir
        .dir()
        .read("t-0/leader-epoch-checkpoint", 100)
        .await
        .expect("read");
    assert_eq!(&text[..], b"0\n2\n3 0\n5 9\n");
    let end = |log: &brokkr_log::Log<TokioEnv>, epoch| log.end_offset_for_epoch(LeaderEpoch(epoch));
    let answer = |epoch, end| {
        Some(EpochEnd {
            epoch: LeaderEpoch(epoch),
            end: Offset(end),
        })
    };
    assert_eq!(
        (end(&log, 3), end(&log, 4), end(&log, 5)),
        (answer(3, 9), answer(3, 9), answer(5, 9))
    );
}

#[tokio::test]
async fn deleting_leaves_nothing() {
    let (dir, log) = filled("change_delete", 30).await;
    log.delete().await.expect("deleted");
    loop {
        let left = dir.dir().list("").await.expect("listed");
        assert!(left.iter().all(|e| e.name != FOLDER));
        if !left.iter().any(|e| e.kind == EntryKind::Dir) {
            break;
        }
        tokio::task::yield_now().await;
    }
    // What a crash left of it is removed by the next start.
    dir.dir()
        .create_dir("t-0.0123456789abcdef0123456789abcdef-delete")
        .await
        .expect("made");
    dir.dir()
        .create("t-0.0123456789abcdef0123456789abcdef-delete/x")
        .await
        .expect("made");
    dir.dir().create_dir("u-7").await.expect("made");
    assert_eq!(checkpoint::partitions(&dir).await, Ok(vec!["u-7".to_owned()]));
    while dir.dir().list("").await.expect("listed").len() > 1 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_timestamp_in_a_batch_too_large_to_decompress_returns_its_first_offset() {
    let dir = fresh("change_large_times").await;
    let config = LogConfig {
        segment_bytes: 2000,
        ..config()
    };
    let mut log = create(&dir, config).await;
    let large = vec![0; 1000];
    for i in 0..3i64 {
        let mut builder = BatchBuilder::new().compression(CompressionType::Zstd, 3);
        for n in i * 100..i * 100 + 100 {
            builder.push(UnixMillis(n), None, Some(&large), &[]);
        }
        stage(&mut log, &builder.build());
    }
    settle(&mut log).await;
    let reader = log.reader();
    let found = async |max| {
        let target = UnixMillis(150);
        let by_time = reader.offset_for_timestamp(target, UpTo::LogEnd, max).await;
        let youngest = reader.offset_of_max_timestamp(UpTo::LogEnd, max).await;
        [by_time, youngest].map(|found| {
            found
                .expect("readable")
                .map(|f| (f.offset.0, f.timestamp.0, f.exact))
        })
    };
    assert_eq!(
        found(1 << 20).await,
        [Some((150, 150, true)), Some((299, 299, true))]
    );
    assert_eq!(
        found(50_000).await,
        [Some((100, 199, false)), Some((200, 299, false))]
    );
}

#[tokio::test]
async fn timestamps_are_found_as_in_kafka() {
    let dir = fresh("change_times").await;
    let mut log = create(&dir, config()).await;
    // Not in order, every other batch compressed: record n has the timestamp 10 × (n with its last bit flipped).
    for i in 0..40i64 {
        let codec = if i % 2 == 0 {
            CompressionType::None
        } else {
            CompressionType::Lz4
        };
        let mut builder = BatchBuilder::new().compression(codec, 1);
        for n in i * 3..i * 3 + 3 {
            builder.push(UnixMillis((n ^ 1) * 10), None, Some(&n.to_be_bytes()), &[]);
        }
        stage(&mut log, &builder.build());
    }
    settle(&mut log).await;
    assert!(log.segments() > 3);
    log.set_high_watermark(Offset(100));
    let reader = log.reader();
    let times: Vec<i64> = (0..120).map(|n| (n ^ 1) * 10).collect();
    for target in (0..1210).step_by(5) {
        for (up_to, end) in [(UpTo::LogEnd, 120), (UpTo::HighWatermark, 100)] {
            let model = times
                .iter()
                .position(|t| *t >= target)
                .filter(|n| *n < end)
                .map(|n| TimestampOffset {
                    timestamp: UnixMillis(times[n]),
                    offset: Offset(n as i64),
                    epoch: LeaderEpoch(3),
                    exact: true,
                });
            let found = reader
                .offset_for_timestamp(UnixMillis(target), up_to, 1 << 20)
                .await;
            assert_eq!(found, Ok(model), "{target} {up_to:?}");
        }
    }
    let youngest = reader
        .offset_of_max_timestamp(UpTo::LogEnd, 1 << 20)
        .await
        .expect("read")
        .expect("there");
    assert_eq!(
        (youngest.timestamp, youngest.offset),
        (UnixMillis(1190), Offset(118))
    );
    assert_eq!(
        reader.offset_of_max_timestamp(UpTo::HighWatermark, 1 << 20).await,
        Ok(None)
    );
    log.advance_log_start(Offset(50)).await.expect("raised");
    let first = log
        .reader()
        .offset_for_timestamp(UnixMillis(0), UpTo::LogEnd, 1 << 20)
        .await
        .expect("read");
    assert_eq!(first.map(|f| f.offset), Some(Offset(50)));
}

#[tokio::test]
async fn a_clean_stop_counts_for_one_start() {
    let (dir, log) = filled("change_directory", 30).await;
    let meta = checkpoint::MetaProperties {
        cluster_id: "c".to_owned(),
        node_id: NodeId(1),
        directory_id: Some(Uuid::from_random([3; 16])),
    };
    assert_eq!(checkpoint::read_meta(&dir).await, Ok(None));
    checkpoint::write_meta(&dir, &meta).await.expect("written");
    assert_eq!(checkpoint::read_meta(&dir).await, Ok(Some(meta)));

    let recorded = log.close().await.expect("closed");
    let logs = BTreeMap::from([(FOLDER.to_owned(), recorded.clone())]);
    checkpoint::write_high_watermarks(&dir, &BTreeMap::from([(FOLDER.to_owned(), Offset(77))]))
        .await
        .expect("written");
    checkpoint::write_clean_stop(&dir, &logs, 42)
        .await
        .expect("written");

    let first = checkpoint::load_and_mark_unclean(&dir).await.expect("read");
    assert_eq!(first.clean.map(|c| c.broker_epoch), Some(Some(42)));
    assert_eq!(
        (&first.logs, first.high_watermarks.get(FOLDER)),
        (&logs, Some(&Offset(77)))
    );
    // A start that fails after this leaves a directory that was not stopped cleanly (P13).
    let second = checkpoint::load_and_mark_unclean(&dir).await.expect("read");
    assert!(second.clean.is_none() && second.logs.values().all(|r| !r.clean));
    let text = dir
        .dir()
        .read("recovery-point-offset-checkpoint", 100)
        .await
        .expect("read");
    assert_eq!(&text[..], b"0\n1\nt 0 90\n");
}

#[tokio::test]
async fn idle_producers_expire_by_this_nodes_clock() {
    let (_, mut log) = filled("change_expiry", 2).await;
    let env = TokioEnv::new(1);
    assert_eq!(log.producers().len(), 1);
    // The records' timestamps are of 1970; the wall clock is not used.
    log.enforce_retention(env.now(), env.wall())
        .await
        .expect("enforced");
    assert_eq!(log.producers().len(), 1);
    log.set_config(LogConfig {
        producer_id_expiration_ms: 0,
        ..config()
    });
    log.enforce_retention(env.now(), env.wall())
        .await
        .expect("enforced");
    assert!(log.producers().is_empty());
}

#[tokio::test]
async fn the_largest_timestamp_is_of_a_record_that_is_not_deleted() {
    // Batches of three records, all in one segment.
    for times in [
        [[5, 5, 5], [4, 4, 4], [1, 2, 3]],
        [[9, 1, 2], [8, 3, 1], [1, 1, 7]],
        [[1, 2, 3], [4, 5, 6], [7, 8, 9]],
        // The second of a batch is as old as a later record, and the first, which is younger, is deleted.
        [[9, 5, 1], [5, 2, 2], [1, 1, 1]],
    ] {
        let dir = fresh("change_largest_left").await;
        let config = LogConfig {
            segment_bytes: 1 << 20,
            ..config()
        };
        let mut log = create(&dir, config).await;
        for batch in times {
            let mut builder = BatchBuilder::new();
            for time in batch {
                builder.push(UnixMillis(time), None, Some(b"value"), &[]);
            }
            stage(&mut log, &builder.build());
        }
        settle(&mut log).await;
        log.set_high_watermark(Offset(9));
        let all = times.concat();
        for start in 0..=9 {
            log.advance_log_start(Offset(start as i64)).await.expect("raised");
            let largest = all[start..].iter().max();
            let model = largest.map(|time| {
                let place = all[start..].iter().position(|t| t == time);
                (*time, (start + place.expect("it is there")) as i64)
            });
            let found = log
                .reader()
                .offset_of_max_timestamp(UpTo::HighWatermark, 1 << 20)
                .await;
            let found = found.expect("read").map(|f| (f.timestamp.0, f.offset.0));
            assert_eq!(found, model, "{times:?} from {start}");
        }
        log.delete().await.expect("deleted");
    }
}

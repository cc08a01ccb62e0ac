//! Appending, group commit and reading, on real files.

mod common;

use brokkr_env::ErrorKind;
use brokkr_env::tokio::TokioEnv;
use brokkr_log::{
    AckableOffset, Event, Log, LogCheckpoint, LogConfig, LogDir, LogLimits, ProducerBudget, ReadError,
    SequenceError, UpTo,
};
use brokkr_types::{LeaderEpoch, Offset};
use common::*;

fn small_segments() -> LogConfig {
    LogConfig {
        segment_bytes: 1000,
        index_interval_bytes: 150,
        ..LogConfig::default()
    }
}

#[tokio::test]
async fn appended_batches_are_read_back_across_segments() {
    let dir = fresh("append_roundtrip").await;
    let mut log = create(&dir, small_segments()).await;
    for first in 0..100 {
        assert_eq!(
            stage(&mut log, &batch(first * 3, 3)).base_offset,
            Offset(first * 3)
        );
        if first % 7 == 0 {
            settle(&mut log).await;
        }
    }
    settle(&mut log).await;
    assert!(log.segments() > 8, "{} segments", log.segments());
    assert_eq!((log.durable_end(), log.written_end()), (Offset(300), Offset(300)));
    let reader = log.reader();
    assert_eq!(contents(&reader).await, identity(0..300));
    // From the middle of a batch: the whole batch (W6).
    for offset in 0..300 {
        let slice = reader
            .read(Offset(offset), UpTo::LogEnd, 1, true)
            .await
            .expect("read")
            .expect("there");
        assert_eq!(slice.first, Offset(offset - offset % 3), "asked for {offset}");
        let none = reader
            .read(Offset(offset), UpTo::LogEnd, 1, false)
            .await
            .expect("read");
        assert!(none.is_none(), "nothing fits in a byte");
    }
}

#[tokio::test]
async fn staged_batches_are_one_write() {
    let dir = fresh("append_group").await;
    let mut log = create(&dir, LogConfig::default()).await;
    for first in 0..50 {
        stage(&mut log, &batch(first, 1));
    }
    assert_eq!((log.log_end(), log.written_end()), (Offset(50), Offset(0)));
    // One event: it was one write and one sync.
    let event = log.next_event().await;
    assert!(matches!(event, Event::Ackable(a @ AckableOffset::Durable(_)) if a.offset() == Offset(50)));
    assert_eq!(log.durable_end(), Offset(50));
}

#[tokio::test]
async fn a_dropped_wait_loses_nothing() {
    let dir = fresh("append_cancel").await;
    let mut log = create(&dir, small_segments()).await;
    for first in 0..60 {
        stage(&mut log, &batch(first * 5, 5));
        // Polled once and dropped, in the middle of writes, syncs and rolls.
        tokio::select! { biased; _ = log.next_event() => {}, () = std::future::ready(()) => {} }
    }
    settle(&mut log).await;
    assert_eq!(contents(&log.reader()).await, identity(0..300));
}

#[tokio::test]
async fn unflushed_appends_are_acknowledged_when_they_are_written() {
    let dir = fresh("append_unflushed").await;
    let config = LogConfig {
        flush_messages: 10,
        ..LogConfig::default()
    };
    let mut log = create(&dir, config).await;
    for first in 0..9 {
        stage(&mut log, &batch(first, 1));
        let event = log.next_event().await;
        assert!(
            matches!(event, Event::Ackable(a @ AckableOffset::Unflushed(_)) if a.offset() == Offset(first + 1))
        );
        assert_eq!(log.durable_end(), Offset(0));
    }
    stage(&mut log, &batch(9, 1));
    settle(&mut log).await;
    // The tenth record makes a sync due; it ends while nothing else is in flight.
    while log.durable_end() < Offset(10) {
        tokio::select! {
            biased;
            _ = log.next_event() => {}
            () = tokio::task::yield_now() => {}
        }
    }
}

#[tokio::test]
async fn flush_ms_syncs_written_batches() {
    let dir = fresh("append_flush_ms").await;
    let config = LogConfig {
        flush_messages: u64::MAX,
        flush_ms: 1,
        ..LogConfig::default()
    };
    let mut log = create(&dir, config).await;
    stage(&mut log, &batch(0, 1));
    settle(&mut log).await;
    let synced = async {
        while log.durable_end() < Offset(1) {
            tokio::select! { biased; _ = log.next_event() => {}, () = tokio::task::yield_now() => {} }
        }
    };
    tokio::pin!(synced);
    synced.await;
}

#[tokio::test]
async fn reads_stop_at_their_limit() {
    let dir = fresh("append_limits").await;
    let mut log = create(&dir, small_segments()).await;
    for first in 0..40 {
        stage(&mut log, &batch(first * 2, 2));
        settle(&mut log).await;
    }
    for hw in [0, 2, 40, 60, 78, 80] {
        log.set_high_watermark(Offset(hw));
        let reader = log.reader();
        let mut at = 0;
        while let Some(slice) = reader
            .read(Offset(at), UpTo::HighWatermark, 1 << 20, true)
            .await
            .expect("read")
        {
            let bytes = slice
                .range
                .file()
                .read_at(slice.range.at(), slice.range.len())
                .await
                .expect("bytes");
            let last = brokkr_wire::records::batches(bytes)
                .map(|b| b.expect("whole"))
                .last()
                .expect("some");
            at = last.header.next_offset().0;
        }
        assert_eq!(at, hw);
        let above = reader
            .read(Offset(80), UpTo::HighWatermark, 100, true)
            .await
            .expect("not out of range");
        assert!(above.is_none());
        let limited = reader
            .read(Offset(10), UpTo::Offset(Offset(12)), 1 << 20, true)
            .await
            .expect("read");
        assert_eq!(
            limited.map(|s| s.range.len()),
            Some(batch(10, 2).bytes.len() as u32)
        );
    }
    let out = log.reader().read(Offset(81), UpTo::LogEnd, 100, true).await;
    assert!(matches!(out, Err(ReadError::OutOfRange { .. })));
}

#[tokio::test]
async fn a_duplicate_has_its_first_offset() {
    let dir = fresh("append_duplicate").await;
    let mut log = create(&dir, LogConfig::default()).await;
    for i in 0..5 {
        stage(&mut log, &batch_of(1, i * 2, 2));
        stage(&mut log, &batch(i, 1));
    }
    let again = stage(&mut log, &batch_of(1, 0, 2));
    assert!(again.duplicate);
    assert_eq!((again.base_offset, again.last_offset), (Offset(0), Offset(1)));
    assert_eq!(log.log_end(), Offset(15));
    let gap = append(&mut log, &batch_of(1, 12, 1)).expect_err("a gap");
    assert_eq!(gap.code(), 45);
    assert!(matches!(
        gap,
        brokkr_log::AppendError::Sequence(SequenceError::OutOfOrder { .. })
    ));
    assert_eq!(log.log_end(), Offset(15));
    settle(&mut log).await;
}

#[tokio::test]
async fn a_clean_stop_needs_no_scan() {
    let dir = fresh("append_clean").await;
    let mut log = create(&dir, small_segments()).await;
    for i in 0..40 {
        stage(&mut log, &batch_of(1, i * 3, 3));
    }
    settle(&mut log).await;
    let recorded = log.close().await.expect("a clean stop");
    assert_eq!(recorded.recovery_point, Some(Offset(120)));

    let dir = again("append_clean").await;
    let (mut log, recovery) = open(&dir, small_segments(), &recorded).await;
    assert!(recovery.clean && recovery.replayed_batches == 0, "{recovery:?}");
    assert_eq!((log.topic_id(), log.latest_epoch()), (id(), Some(LeaderEpoch(3))));
    assert_eq!(log.ackable().offset(), Offset(120));
    assert_eq!(contents(&log.reader()).await, identity(0..120));
    // The whole window is loaded, not only the last batch (P1, P4).
    for i in 35..40 {
        let again = stage(&mut log, &batch_of(1, i * 3, 3));
        assert!(again.duplicate && again.base_offset == Offset(i * 3));
    }
    stage(&mut log, &batch_of(1, 120, 3));
    settle(&mut log).await;
    assert_eq!(contents(&log.reader()).await, identity(0..123));
}

#[tokio::test]
async fn open_files_are_bounded() {
    let dir = fresh("append_files").await;
    let mut log = create(&dir, small_segments()).await;
    for first in 0..200 {
        stage(&mut log, &batch(first * 3, 3));
    }
    settle(&mut log).await;
    assert!(log.segments() > 20);
    assert_eq!(contents(&log.reader()).await.len(), 600);
    assert!(dir.open_files() <= 8, "{} open", dir.open_files());
}

#[tokio::test]
async fn a_log_is_created_once() {
    let dir = fresh("append_twice").await;
    create(&dir, LogConfig::default()).await;
    let twice = brokkr_log::Log::create(&dir, FOLDER, id(), LogConfig::default()).await;
    assert!(twice.is_err());
    let none = dir.dir().open("u-0/00000000000000000000.log").await;
    assert_eq!(none.err().map(|e| e.kind()), Some(ErrorKind::NotFound));
    let (log, recovery) = open(&dir, LogConfig::default(), &LogCheckpoint::default()).await;
    assert_eq!((log.log_end(), recovery.cut_bytes), (Offset(0), 0));
}

/// Producers that use a new id for each batch don't take unbounded memory, and other logs keep their producers.
#[tokio::test]
async fn producers_are_bounded_and_the_oldest_are_removed() {
    let room = ProducerBudget::new(100);
    let dir = fresh("append_room").await.with_producer_budget(room.clone());
    let clock = dir.env().clone();
    let append = |log: &mut _, batch: &_| append_at(&clock, log, batch);
    let mut other = Log::create(&dir, "t-1", id(), LogConfig::default())
        .await
        .expect("created");
    for producer in 0..5 {
        append(&mut other, &batch_of(producer, 0, 1)).expect("staged");
    }
    let mut log = create(&dir, LogConfig::default()).await;
    for producer in 0..1000 {
        append(&mut log, &batch_of(producer, 0, 1)).expect("staged");
        settle(&mut log).await;
        // A producer that continues is not removed: its last batch is a duplicate.
        if producer > 0 {
            let again = append(&mut log, &batch_of(5000, producer - 1, 1)).expect("known");
            assert!(again.duplicate, "{producer}");
        }
        append(&mut log, &batch_of(5000, producer, 1)).expect("staged");
        settle(&mut log).await;
        assert!(room.held() <= 100, "{}", room.held());
    }
    assert!(append(&mut log, &batch_of(999, 0, 1)).expect("known").duplicate);
    assert_eq!(other.producers().len(), 5);
    drop((log, other));
    assert_eq!(room.held(), 0);
}

#[tokio::test]
async fn without_flushing_a_log_syncs_once_many_bytes_are_unsynced() {
    let unflushed = LogConfig {
        flush_messages: u64::MAX,
        ..LogConfig::default()
    };
    for (name, log_unsynced_bytes, is_synced) in [
        ("append_early_sync", 500, true),
        ("append_no_early_sync", 1 << 20, false),
    ] {
        let dir = fresh(name).await.dir().clone();
        let limits = LogLimits {
            log_unsynced_bytes,
            ..LogLimits::default()
        };
        let dir = LogDir::new(TokioEnv::new(2), dir, limits);
        let mut log = create(&dir, unflushed.clone()).await;
        for first in 0..20 {
            stage(&mut log, &batch(first * 5, 5));
            settle(&mut log).await;
        }
        while is_synced && log.durable_end() == Offset(0) {
            tokio::select! { biased; _ = log.next_event() => {}, () = tokio::task::yield_now() => {} }
        }
        assert_eq!(log.durable_end() > Offset(0), is_synced, "{name}");
    }
}

//! Logs with gaps in their offsets, as compaction leaves them: appends, reads, recovery, truncation, replay.

mod common;

use brokkr_env::Env;
use brokkr_env::tokio::TokioEnv;
use brokkr_log::{AppendError, Log, LogCheckpoint, LogConfig, LogError, UpTo};
use brokkr_types::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, Sequence};
use brokkr_wire::records::{Batch, BatchBuilder, BatchHeader, HEADER_LEN, LOG_OVERHEAD};
use bytes::Bytes;
use common::*;

fn config() -> LogConfig {
    LogConfig {
        segment_bytes: 1000,
        index_interval_bytes: 150,
        ..LogConfig::default()
    }
}

/// Base offsets of the batches of [`sparse`]: each has two records, and up to seven offsets are missing before the
/// next.
fn bases() -> Vec<i64> {
    (0..30).map(|i| i * 5 + i * i % 4).collect()
}

fn values() -> Vec<(i64, i64)> {
    bases()
        .into_iter()
        .flat_map(|b| [(b, b), (b + 1, b + 1)])
        .collect()
}

fn at(base: i64) -> Batch {
    build(BatchBuilder::new().at(Offset(base), LeaderEpoch(1)), base, 2)
}

fn replicate(log: &mut Log<TokioEnv>, batch: &Batch) -> Result<(), AppendError> {
    let env = TokioEnv::new(1);
    log.append_replicated(batch, env.now(), env.wall()).map(drop)
}

/// A log with gaps, as a follower of a compacted leader writes it, dropped without a clean stop.
async fn sparse(name: &str) -> LogCheckpoint {
    let dir = fresh(name).await;
    let mut log = create(&dir, config()).await;
    log.allow_gaps().await.expect("noted");
    for base in bases() {
        replicate(&mut log, &at(base)).expect("staged");
        settle(&mut log).await;
    }
    assert!(log.segments() > 2);
    assert_eq!(contents(&log.reader()).await, values());
    log.checkpoint()
}

#[tokio::test]
async fn a_follower_takes_batches_with_gaps_and_none_that_overlap() {
    let name = "gaps_append";
    sparse(name).await;
    let (mut log, _) = open(&again(name).await, config(), &LogCheckpoint::default()).await;
    let end = log.log_end();
    for base in [0, end.0 - 1] {
        let refused = replicate(&mut log, &at(base));
        assert!(
            matches!(refused, Err(AppendError::UnexpectedOffset { .. })),
            "{refused:?}"
        );
    }
    replicate(&mut log, &at(end.0 + 100)).expect("a gap");
    settle(&mut log).await;
    assert_eq!(log.log_end(), Offset(end.0 + 102));
}

#[tokio::test]
async fn a_log_without_allow_gaps_refuses_gaps() {
    let dir = fresh("gaps_untold").await;
    let mut log = create(&dir, config()).await;
    replicate(&mut log, &at(0)).expect("it follows");
    let refused = replicate(&mut log, &at(5));
    assert!(
        matches!(refused, Err(AppendError::UnexpectedOffset { .. })),
        "{refused:?}"
    );
    log.allow_gaps().await.expect("noted");
    replicate(&mut log, &at(5)).expect("a gap");
}

#[tokio::test]
async fn every_offset_finds_the_next_batch_over_a_gap() {
    let name = "gaps_read";
    sparse(name).await;
    let (mut log, _) = open(&again(name).await, config(), &LogCheckpoint::default()).await;
    let (reader, bases) = (log.reader(), bases());
    for offset in 0..log.log_end().0 {
        let first = reader
            .read_bytes(Offset(offset), UpTo::LogEnd, 1)
            .await
            .expect("readable");
        let batch = Batch::first(&first.expect("there is one")).expect("whole");
        let expected = bases.iter().find(|b| **b + 1 >= offset);
        assert_eq!(Some(&batch.header.base_offset.0), expected, "at {offset}");
    }
}

#[tokio::test]
async fn a_crash_or_a_lost_manifest_costs_a_log_with_gaps_nothing() {
    for (case, keep_manifest, known) in [
        ("crash", true, true),
        ("unknown", true, false),
        ("kafkas", false, false),
    ] {
        let name = format!("gaps_crash_{case}");
        let recorded = sparse(&name).await;
        let dir = again(&name).await;
        if !keep_manifest {
            dir.dir().remove("t-0/brokkr-manifest").await.expect("removed");
        }
        let recorded = if known { recorded } else { LogCheckpoint::default() };
        let (mut log, recovery) = open(&dir, config(), &recorded).await;
        assert_eq!((recovery.cut_bytes, &recovery.cut), (0, &None), "{case}");
        assert_eq!(contents(&log.reader()).await, values(), "{case}");
        let closed = log.close().await.expect("closed");
        let (mut log, recovery) = open(&again(&name).await, config(), &closed).await;
        assert!(recovery.clean);
        assert_eq!(contents(&log.reader()).await, values(), "{case}");
    }
}

#[tokio::test]
async fn a_truncation_anywhere_leaves_a_log_that_recovery_takes() {
    for to in [0, 1, 3, 31, 32, 33, 34, 77, 78, 100, 140] {
        let name = format!("gaps_cut_{to}");
        sparse(&name).await;
        let (mut log, _) = open(&again(&name).await, config(), &LogCheckpoint::default()).await;
        log.truncate_to(Offset(to)).await.expect("cut");
        let left: Vec<_> = bases()
            .into_iter()
            .filter(|b| b + 1 < to)
            .flat_map(|b| [(b, b), (b + 1, b + 1)])
            .collect();
        assert_eq!(contents(&log.reader()).await, left, "cut at {to}");
        let recorded = log.checkpoint();
        drop(log);
        let (mut log, recovery) = open(&again(&name).await, config(), &recorded).await;
        assert_eq!(recovery.cut, None, "cut at {to}");
        assert_eq!(contents(&log.reader()).await, left, "cut at {to}");
        let next = log.log_end().0.max(to);
        replicate(&mut log, &at(next)).expect("staged");
        settle(&mut log).await;
    }
}

/// What compaction leaves of a batch if each of its keys has a later record.
fn emptied(header: BatchHeader) -> Batch {
    let mut header = header;
    header.batch_length = (HEADER_LEN - LOG_OVERHEAD) as i32;
    header.records_count = 0;
    header.crc = header.compute_crc(&[]);
    let mut bytes = [0; HEADER_LEN];
    header.encode(&mut bytes);
    Batch::first(&Bytes::copy_from_slice(&bytes)).expect("a batch without records")
}

#[tokio::test]
async fn an_empty_control_batch_changes_nothing() {
    let name = "gaps_empty_control";
    let dir = fresh(name).await;
    let mut log = create(&dir, config()).await;
    log.allow_gaps().await.expect("noted");
    stage(&mut log, &batch_of(7, 0, 3));
    let before = log.producers().clone();
    let mut header = build(BatchBuilder::new(), 3, 1)
        .header
        .placed(Offset(3), LeaderEpoch(3));
    (header.producer_id, header.producer_epoch) = (ProducerId(7), ProducerEpoch(0));
    header.base_sequence = Sequence::NONE;
    header.attributes = header.attributes.with_transactional(true).with_control(true);
    replicate(&mut log, &emptied(header)).expect("staged");
    settle(&mut log).await;
    assert_eq!(log.producers(), &before, "staged");
    drop(log);
    let (mut log, _) = open(&again(name).await, config(), &LogCheckpoint::default()).await;
    let state = log.producers().get(ProducerId(7)).expect("known");
    assert_eq!(
        (state.transaction_start, state.window.batches().len()),
        (None, 1),
        "replayed"
    );
    stage(&mut log, &batch_of(7, 3, 1));
}

/// A batch in message format 0 or 1, as Kafka before 0.11 wrote it: Kafka 4 reads it, this broker does not.
#[tokio::test]
async fn an_old_message_format_is_refused_and_the_log_is_unchanged() {
    let name = "gaps_old_format";
    sparse(name).await;
    let (log, _) = open(&again(name).await, config(), &LogCheckpoint::default()).await;
    log.close().await.expect("closed");
    let dir = again(name).await;
    for file in ["brokkr-manifest", "leader-epoch-checkpoint"] {
        dir.dir().remove(&format!("t-0/{file}")).await.expect("removed");
    }
    let all = dir.dir().list(FOLDER).await.expect("listed");
    let last = all.iter().rev().find(|e| e.name.ends_with(".log")).expect("one");
    let path = format!("{FOLDER}/{}", last.name);
    let mut old = vec![0; 40];
    old[7] = 200;
    old[11] = 28;
    old[16] = 1;
    let crc = crc32fast::hash(&old[16..]);
    old[12..16].copy_from_slice(&crc.to_be_bytes());
    let file = dir.dir().open(&path).await.expect("opened");
    file.write_at(file.len(), vec![old.into()])
        .await
        .expect("written");
    let before = everything(&dir).await;
    let opened = Log::open(&again(name).await, FOLDER, config(), &LogCheckpoint::default()).await;
    assert!(
        matches!(&opened, Err(LogError::Malformed { file, what }) if *file == path && what.contains("format v1")),
        "{opened:?}"
    );
    let names = |all: &[(String, Bytes)]| all.iter().map(|(n, b)| (n.clone(), b.len())).collect::<Vec<_>>();
    let after = everything(&again(name).await).await;
    assert_eq!(names(&after), names(&before));
    assert!(after == before, "something was changed");
}

/// A file that lost its last batch must not look like a compacted one.
#[tokio::test]
async fn a_segment_without_its_last_batch_is_no_compacted_one() {
    for known in [true, false] {
        let name = format!("gaps_lost_{known}");
        let dir = fresh(&name).await;
        // Without the manifest that the roll wrote, as after a power loss.
        let mut log = create(&dir, config()).await;
        log.allow_gaps().await.expect("noted");
        let manifest = dir
            .dir()
            .read("t-0/brokkr-manifest", 1 << 20)
            .await
            .expect("readable");
        for i in 0..30 {
            append(&mut log, &batch(i * 2, 2)).expect("staged");
            settle(&mut log).await;
        }
        let recorded = log.checkpoint();
        let (all, second) = (contents(&log.reader()).await, segments_of(&dir).await[1]);
        drop(log);
        let dir = again(&name).await;
        dir.dir()
            .replace("t-0/brokkr-manifest", manifest)
            .await
            .expect("replaced");
        let first = dir
            .dir()
            .open("t-0/00000000000000000000.log")
            .await
            .expect("there");
        let bytes = first.read_at(0, first.len() as u32).await.expect("readable");
        let (mut kept, mut at) = (0, 0);
        while let Ok(batch) = Batch::first(&bytes.slice(at..)) {
            (kept, at) = (at, at + batch.bytes.len());
        }
        first.truncate(kept as u64).await.expect("cut");
        drop(first);
        if known {
            let opened = Log::open(&dir, "t-0", config(), &recorded).await;
            assert!(matches!(opened, Err(LogError::Damaged(_))), "below the point");
            continue;
        }
        let nothing = LogCheckpoint {
            recovery_point: Some(Offset(0)),
            ..recorded
        };
        let (mut log, recovery) = open(&dir, config(), &nothing).await;
        assert!(recovery.cut_segments > 0, "{recovery:?}");
        let left = contents(&log.reader()).await;
        assert!(left.last().is_some_and(|(offset, _)| *offset < second));
        assert_eq!(left[..], all[..left.len()], "a prefix");
    }
}

async fn segments_of(dir: &brokkr_log::LogDir<TokioEnv>) -> Vec<i64> {
    let mut bases: Vec<i64> = dir
        .dir()
        .list("t-0")
        .await
        .expect("listed")
        .iter()
        .filter_map(|e| e.name.strip_suffix(".log")?.parse().ok())
        .collect();
    bases.sort_unstable();
    bases
}

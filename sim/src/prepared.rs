//! Prepared disks: logs as years of use leave them, so that limits are near without special code in the broker.

use brokkr::config::BrokerConfig;
use brokkr_env::{Env, UnixMillis};
use brokkr_log::{Log, LogCheckpoint, LogConfig, LogDir, LogError};
use brokkr_types::{LeaderEpoch, Offset};
use brokkr_wire::records::{Batch, BatchBuilder, BatchHeader, HEADER_LEN};
use brokkr_workloads::create_topics;
use bytes::Bytes;

use crate::check::folder_in;
use crate::env::SimEnv;
use crate::node::{self, Started};
pub use crate::plan::PreparedLog;
use crate::plan::{BROKER, FIRST_CLIENT};
use crate::shared::Shared;

/// Creates the topics, stops the broker, and prepares the logs.
///
/// # Panics
/// The disk can't be prepared.
pub(crate) async fn prepare(shared: &Shared) {
    let (plan, world) = (&shared.plan, &shared.world);
    if plan.prepared.is_empty() {
        return;
    }
    let (config, _) = BrokerConfig::new(plan.broker.clone()).expect("a plan's broker was checked");
    let (running, started) = node::start(world, BROKER, config);
    assert_eq!(started.await, Ok(Started::Ready), "a broker without faults");
    let made = create_topics(&world.env(FIRST_CLIENT - 1), &plan.workload).await;
    made.expect("a world without faults");
    running.opened().await.expect("a broker without faults");
    world.end_quietly(BROKER);
    let env = world.env(BROKER);
    for log in &plan.prepared {
        let folder = format!("{}-{}", log.topic, log.partition);
        let path = {
            let state = world.lock();
            let disk = state.disks.get(&BROKER).expect("the broker has a disk");
            folder_in(disk, &shared.roots, &folder)
        };
        let (root, _) = path.split_once('/').expect("a folder in a directory");
        let dir = env.open_dir(root).await.expect("it is there");
        let dir = LogDir::new(env.clone(), dir, idle_files(8));
        if let Err(error) = age(&env, &dir, &folder, log).await {
            panic!("{log:?} can't be prepared: {error}");
        }
    }
    world.end_quietly(BROKER);
}

async fn age(env: &SimEnv, dir: &LogDir<SimEnv>, folder: &str, to: &PreparedLog) -> Result<(), LogError> {
    let (config, recorded) = (LogConfig::default(), LogCheckpoint::default());
    let topic_id = dir.topic_id(folder).await?;
    let mut log = match dir.fresh(folder, topic_id, &recorded).await? {
        Some(fresh) => fresh.begin(config, LeaderEpoch(0)).await?,
        None => Log::open(dir, folder, config, &recorded).await?.0,
    };
    let next = Offset(to.next_offset);
    if to.compacted {
        let batch = emptied(next);
        let appended = log.append_replicated(&batch, env.now(), env.wall());
        appended.unwrap_or_else(|e| panic!("{to:?}: {e}"));
        while log.durable_end() < next {
            log.next_event().await;
        }
        log.set_high_watermark(next);
        log.advance_log_start(next).await?;
    } else {
        log.truncate_fully_and_start_at(next).await?;
    }
    log.close().await.map(drop)
}

/// A batch at offset 0 after compaction has removed all its records.
fn emptied(next: Offset) -> Batch {
    let mut builder = BatchBuilder::new().at(Offset(0), LeaderEpoch(0));
    builder.push(UnixMillis(0), None, None, &[]);
    let full: Bytes = builder.build().placed(Offset(0), LeaderEpoch(0)).concat().into();
    let mut header = BatchHeader::decode(&full).expect("it was just built");
    header.batch_length = (HEADER_LEN - brokkr_wire::records::LOG_OVERHEAD) as i32;
    header.last_offset_delta = i32::try_from(next.0 - 1).expect("a segment holds 2^31 offsets");
    header.records_count = 0;
    header.crc = header.compute_crc(&[]);
    let mut bytes = [0; HEADER_LEN];
    header.encode(&mut bytes);
    Batch::first(&Bytes::copy_from_slice(&bytes)).expect("a batch without records")
}

fn idle_files(log_idle_files: usize) -> brokkr_log::LogLimits {
    brokkr_log::LogLimits {
        log_idle_files,
        ..Default::default()
    }
}

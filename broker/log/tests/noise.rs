//! Repeated errors of a failing disk are logged once, not for every write, file or partition.

mod common;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use brokkr_env::Env;
use brokkr_env::tokio::TokioEnv;
use brokkr_log::{Log, LogConfig, LogDir};
use brokkr_types::{LeaderEpoch, Offset};
use brokkr_wire::records::Origin;
use common::*;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber, subscriber};

/// Collects warnings and errors, with their fields.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<String>>>);

struct Fields(String);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.0 += &format!("{field}={value:?} ");
    }
}

impl Subscriber for Lines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= Level::WARN
    }
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, event: &Event<'_>) {
        let mut fields = Fields(String::new());
        event.record(&mut fields);
        self.lock().push(fields.0);
    }
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

impl Lines {
    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<String>> {
        self.0.lock().expect("no panic under this lock")
    }

    /// The lines that contain this text.
    fn of(&self, what: &str) -> Vec<String> {
        self.lock().iter().filter(|l| l.contains(what)).cloned().collect()
    }
}

const TIMES: usize = 20;

/// Waits for such a line, and then for the time in which others would follow.
async fn lines_of(dir: &LogDir<TokioEnv>, lines: &Lines, what: &str) -> Vec<String> {
    let env = dir.env();
    for _ in 0..500 {
        if !lines.of(what).is_empty() {
            break;
        }
        env.sleep_until(env.now() + Duration::from_millis(10)).await;
    }
    env.sleep_until(env.now() + Duration::from_millis(300)).await;
    lines.of(what)
}

async fn make_dir(dir: &LogDir<TokioEnv>, path: &str) {
    dir.dir().create_dir(path).await.expect("made");
}

/// A directory has the name of the file.
#[tokio::test]
async fn leader_epochs_that_can_t_be_persisted() {
    let lines = Lines::default();
    let _here = subscriber::set_default(lines.clone());
    let dir = fresh("noise_epochs").await;
    let mut log = create(&dir, LogConfig::default()).await;
    let path = format!("{FOLDER}/leader-epoch-checkpoint");
    drop(dir.dir().remove(&path).await);
    make_dir(&dir, &path).await;
    for n in 0..TIMES {
        let (env, epoch) = (dir.env(), LeaderEpoch(n as i32));
        log.append(&batch(n as i64, 1), Origin::Client, epoch, env.now(), env.wall())
            .expect("staged");
        settle(&mut log).await;
    }
    assert_eq!(log.log_end(), Offset(TIMES as i64));
    let lines = lines_of(&dir, &lines, "leader epochs not persisted").await;
    assert_eq!(lines.len(), 1, "{lines:#?}");
    assert!(lines[0].contains(FOLDER), "{lines:?}");
}

/// Each folder contains another folder: only files are removed.
#[tokio::test]
async fn logs_that_can_t_be_removed() {
    let lines = Lines::default();
    let _here = subscriber::set_default(lines.clone());
    let dir = fresh("noise_deleted").await;
    for n in 0..TIMES {
        let folder = format!("t-{n}");
        drop(
            Log::create(&dir, &folder, id(), LogConfig::default())
                .await
                .expect("created"),
        );
        make_dir(&dir, &format!("{folder}/backup")).await;
        dir.delete_log(&folder, Duration::ZERO).await.expect("renamed");
    }
    let lines = lines_of(&dir, &lines, "log not removed").await;
    assert_eq!(lines.len(), 1, "{lines:#?}");
    assert!(lines[0].contains("-delete"), "{lines:?}");
}

/// A directory has the name of each segment's index.
#[tokio::test]
async fn files_of_a_log_that_can_t_be_removed() {
    let lines = Lines::default();
    let _here = subscriber::set_default(lines.clone());
    let dir = fresh("noise_retired").await;
    let config = LogConfig {
        segment_bytes: 100,
        file_delete_delay_ms: 0,
        ..LogConfig::default()
    };
    let mut log = create(&dir, config).await;
    for n in 0..TIMES {
        stage(&mut log, &batch(n as i64, 1));
        settle(&mut log).await;
    }
    let last = log.log_end().0 - 1;
    for n in 0..last {
        let path = format!("{FOLDER}/{n:020}.index");
        drop(dir.dir().remove(&path).await);
        make_dir(&dir, &path).await;
    }
    log.set_high_watermark(log.log_end());
    log.advance_log_start(Offset(last)).await.expect("raised");
    let (now, wall) = (dir.env().now(), dir.env().wall());
    log.enforce_retention(now, wall).await.expect("retired");
    let lines = lines_of(&dir, &lines, "file not removed").await;
    assert_eq!(lines.len(), 1, "{lines:#?}");
    assert!(lines[0].contains(".index.deleted"), "{lines:?}");
}

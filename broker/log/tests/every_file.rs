//! Every file of a log directory, damaged in every way, after a clean stop and after a kill.
//!
//! The table ([`outcome`]) lists the allowed outcomes: the log opens with every record; or it is refused with an
//! error that names the file, and nothing is lost; or single batches are reported as damaged. Nothing panics, and no
//! record is lost without a report.

mod common;

use std::collections::BTreeMap;

use brokkr_env::tokio::TokioEnv;
use brokkr_env::{EntryKind, Env};
use brokkr_log::{Log, LogConfig, LogDir, LogError, ReadError, UpTo, checkpoint};
use brokkr_types::{LeaderEpoch, Offset, UnixMillis};
use brokkr_wire::records::{Batch, Origin};
use bytes::Bytes;
use common::*;

const WAYS: [&str; 7] = [
    "missing",
    "empty",
    "shortened",
    "zeroed",
    "another's",
    "older",
    "a bit",
];

fn config() -> LogConfig {
    LogConfig {
        segment_bytes: 1000,
        index_interval_bytes: 150,
        ..LogConfig::default()
    }
}

type Files = BTreeMap<String, Bytes>;

/// All files of a directory, two levels deep.
async fn files(dir: &LogDir<TokioEnv>) -> Files {
    let mut all = Files::new();
    for entry in dir.dir().list("").await.expect("listed") {
        if entry.kind == EntryKind::File {
            let bytes = dir.dir().read(&entry.name, 1 << 24).await.expect("read");
            all.insert(entry.name, bytes);
            continue;
        }
        for file in dir.dir().list(&entry.name).await.expect("listed") {
            let path = format!("{}/{}", entry.name, file.name);
            let bytes = dir.dir().read(&path, 1 << 24).await.expect("read");
            all.insert(path, bytes);
        }
    }
    all
}

async fn put(name: &str, files: &Files) -> LogDir<TokioEnv> {
    let dir = fresh(name).await;
    for (path, bytes) in files {
        if let Some((folder, _)) = path.rsplit_once('/') {
            dir.dir().create_dir(folder).await.expect("made");
        }
        let file = dir.dir().create(path).await.expect("made");
        file.write_at(0, vec![bytes.clone()]).await.expect("written");
    }
    dir
}

/// Appends batches of two producers and without a producer, in two leader epochs, with a truncation. Values count
/// from `first`.
async fn fill(log: &mut Log<TokioEnv>, first: i64, from: i64, to: i64) {
    let env = TokioEnv::new(1);
    for i in from..to {
        let batch = match i % 3 {
            0 => batch(first + i * 3, 3),
            producer => batch_of(producer, first + i * 3, 3),
        };
        log.append(
            &batch,
            Origin::Coordinator,
            LeaderEpoch(3 + i as i32 / 20),
            env.now(),
            env.wall(),
        )
        .expect("staged");
        settle(log).await;
    }
}

const RECORDS: i64 = 40 * 3;

/// A directory at an early time, after a later clean stop, and as a kill just before that stop leaves it.
struct Directory {
    older: Files,
    clean: Files,
    killed: Files,
    another: Files,
}

async fn make(name: &str, folder: &str, id: brokkr_types::Uuid, first: i64) -> (Files, Files, Files) {
    let dir = fresh(name).await;
    checkpoint::load_and_mark_unclean(&dir).await.expect("begun");
    let mut log = Log::create(&dir, folder, id, config()).await.expect("created");
    fill(&mut log, first, 0, 25).await;
    log.truncate_to(Offset(60)).await.expect("cut");
    fill(&mut log, first, 20, 25).await;
    let record = |log: &Log<TokioEnv>| BTreeMap::from([(folder.to_owned(), log.checkpoint())]);
    checkpoint::write(&dir, &record(&log)).await.expect("written");
    let high = BTreeMap::from([(folder.to_owned(), Offset(10))]);
    checkpoint::write_high_watermarks(&dir, &high)
        .await
        .expect("written");
    let older = files(&dir).await;
    fill(&mut log, first, 25, 40).await;
    assert!(log.segments() > 4, "{log:?}");
    checkpoint::write(&dir, &record(&log)).await.expect("written");
    log.assign_epoch(LeaderEpoch(9)).await.expect("written");
    let killed = files(&dir).await;
    let recorded = log.close().await.expect("closed");
    checkpoint::write_clean_stop(&dir, &BTreeMap::from([(folder.to_owned(), recorded)]), 7)
        .await
        .expect("ended");
    (older, files(&dir).await, killed)
}

async fn directory(test: &str) -> Directory {
    let (older, clean, killed) = make(&format!("{test}_made"), FOLDER, id(), 0).await;
    let (_, another, _) = make(
        &format!("{test}_other"),
        "t-1",
        brokkr_types::Uuid::from_random([8; 16]),
        1000,
    )
    .await;
    Directory {
        older,
        clean,
        killed,
        another,
    }
}

/// The content of a file that is damaged this way (`None`: removed); `None` if the way does not apply.
fn wrong(path: &str, files: &Files, made: &Directory, way: &str) -> Option<Option<Bytes>> {
    let bytes = &files[path];
    let changed = match way {
        "missing" => return Some(None),
        "empty" => Bytes::new(),
        "shortened" => bytes.slice(..bytes.len() * 2 / 3),
        "zeroed" => vec![0; bytes.len()].into(),
        "another's" => made.another.get(&path.replace("t-0/", "t-1/"))?.clone(),
        "older" => made.older.get(path)?.clone(),
        _ => {
            let mut bytes = bytes.to_vec();
            let at = bytes.len() / 2;
            *bytes.get_mut(at)? ^= 0x04;
            bytes.into()
        }
    };
    (changed != *bytes).then_some(Some(changed))
}

/// An outcome.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Outcome {
    /// Every record is served. Derived files are rebuilt.
    Whole,
    /// The directory or the log is refused with an error that contains this text.
    Refused(&'static str),
    /// The log opens; batches that can't be read are reported, all others are served.
    Told,
}

/// The allowed outcomes, by the file's kind, the way it is damaged and the kind of stop.
fn outcome(path: &str, way: &str, clean: bool) -> &'static [Outcome] {
    use Outcome::{Refused, Told, Whole};
    let file = path.rsplit_once('/').map_or(path, |(_, file)| file);
    let suffix = file.rsplit_once('.').map_or(file, |(_, suffix)| suffix);
    match (file, suffix, way) {
        ("brokkr-checkpoint", _, "missing" | "empty" | "shortened" | "zeroed" | "a bit") => {
            &[Refused("brokkr-checkpoint")]
        }
        // A checkpoint of another log does not apply to this one; an older checkpoint is valid.
        ("brokkr-checkpoint", ..) => &[Whole],
        (".kafka_cleanshutdown", ..) => &[Whole],
        // Only Kafka reads these.
        (
            _,
            "recovery-point-offset-checkpoint"
            | "log-start-offset-checkpoint"
            | "replication-offset-checkpoint",
            _,
        ) => &[Whole],
        // Without it the log is scanned from its begin, and refused if a gap might be a lost segment.
        ("brokkr-manifest", _, "missing" | "empty" | "shortened" | "zeroed" | "a bit") => &[Whole],
        ("brokkr-manifest", _, "another's") => &[Refused("brokkr-manifest")],
        ("brokkr-manifest", ..) => &[Whole],
        ("partition.metadata", _, "another's") => &[Refused("partition.metadata")],
        // A flipped bit may result in another valid id.
        ("partition.metadata", _, "a bit") => &[Whole, Refused("partition.metadata")],
        ("partition.metadata", ..) => &[Whole],
        ("leader-epoch-checkpoint", ..) => &[Whole],
        (_, "index" | "timeindex" | "snapshot" | "window", _) => &[Whole],
        (_, "log", "missing" | "empty" | "shortened") => &[Refused(".log")],
        (_, "log", "another's") => &[Refused(".log")],
        // Sealed: found by a read. Active after a kill: found by recovery.
        (_, "log", "zeroed" | "a bit") if clean => &[Told],
        (_, "log", "zeroed" | "a bit") => &[Told, Refused(".log")],
        (_, "log", _) => &[Refused(".log")],
        other => panic!("no outcome is known of {other:?}"),
    }
}

/// Starts on the directory and returns the outcome. Fails the test if a record is neither served nor reported.
async fn start(dir: &LogDir<TokioEnv>, what: &str) -> (Outcome, String) {
    let remembered = match checkpoint::load_and_mark_unclean(dir).await {
        Ok(remembered) => remembered,
        Err(error) => return refused(&error),
    };
    let recorded = remembered.logs.get(FOLDER).cloned().unwrap_or_default();
    let mut log = match Log::open(dir, FOLDER, config(), &recorded).await {
        Ok((log, _)) => log,
        Err(error) => return refused(&error),
    };
    assert_eq!(log.topic_id(), id(), "{what}");
    let told = served(&mut log, what).await;
    // By timestamp, too: that uses the time index.
    let reader = log.reader();
    for n in (0..RECORDS).step_by(7) {
        let found = reader
            .offset_for_timestamp(UnixMillis(1000 + n), UpTo::LogEnd, 1 << 20)
            .await;
        match found {
            Ok(found) => assert!(
                told > 0 || found.map(|f| f.offset) == Some(Offset(n)),
                "{what}: time of {n}: {found:?}"
            ),
            Err(error) => assert!(told > 0, "{what}: {error}"),
        }
    }
    // The producers' windows are complete: their last batches are duplicates.
    if told == 0 {
        for i in 35..40 {
            if i % 3 != 0 {
                let again = append(&mut log, &batch_of(i % 3, i * 3, 3));
                assert!(
                    again.is_ok_and(|a| a.duplicate && a.base_offset == Offset(i * 3)),
                    "{what}: batch {i}"
                );
            }
        }
    }
    match told {
        0 => (Outcome::Whole, String::new()),
        _ => (Outcome::Told, String::new()),
    }
}

fn refused(error: &LogError) -> (Outcome, String) {
    (Outcome::Refused(""), error.to_string())
}

/// The number of batches that are reported as damaged; all others are served as they were written.
async fn served(log: &mut Log<TokioEnv>, what: &str) -> usize {
    let (reader, mut told) = (log.reader(), 0);
    assert_eq!(log.log_end(), Offset(RECORDS), "{what}");
    for base in (0..RECORDS).step_by(3) {
        match reader.read_bytes(Offset(base), UpTo::LogEnd, 1).await {
            Err(ReadError::Damaged(_)) => told += 1,
            Err(error) => panic!("{what}: offset {base}: {error}"),
            Ok(None) => panic!("{what}: nothing at offset {base}"),
            Ok(Some(bytes)) => match Batch::first(&bytes) {
                // Every client checks the CRC.
                Ok(batch) if batch.check_crc().is_err() => told += 1,
                Err(_) => told += 1,
                Ok(batch) => {
                    let records = batch.records(1 << 20).expect("records");
                    let first = records.iter().next().expect("one").expect("sound");
                    assert_eq!(batch.header.base_offset, Offset(base), "{what}");
                    assert_eq!(first.value, Some(&base.to_be_bytes()[..]), "{what}");
                }
            },
        }
    }
    told
}

#[tokio::test]
async fn every_file_may_be_wrong_in_every_way() {
    let made = directory("every_file").await;
    let mut cases = 0;
    let mut wrongs = Vec::new();
    // Every log was closed, but the marker was not written.
    let mut closed = made.clean.clone();
    closed.remove(".kafka_cleanshutdown");
    for (clean, files) in [(true, &made.clean), (false, &made.killed), (false, &closed)] {
        for path in files.keys() {
            for way in WAYS {
                let Some(changed) = wrong(path, files, &made, way) else {
                    continue;
                };
                let what = format!("{path} {way}, {}", if clean { "stopped" } else { "killed" });
                let mut these = files.clone();
                match changed {
                    None => drop(these.remove(path)),
                    Some(bytes) => drop(these.insert(path.clone(), bytes)),
                }
                let dir = put("every_file", &these).await;
                let (came, said) = start(&dir, &what).await;
                let fits = |o: &Outcome| match (o, came) {
                    (Outcome::Refused(name), Outcome::Refused(_)) => said.contains(name),
                    (o, came) => *o == came,
                };
                if !outcome(path, way, clean).iter().any(fits) {
                    wrongs.push(format!("{what}: {came:?} {said}"));
                }
                cases += 1;
            }
        }
    }
    assert!(wrongs.is_empty(), "of {cases}:\n{}", wrongs.join("\n"));
    assert!(cases > 300, "{cases}");
}

/// As if Apache Kafka had used the directory: the marker is of another stop, or the checkpoint of another time. The
/// sealed segments in the manifest must still be there.
#[tokio::test]
async fn a_missing_segment_is_reported_even_if_another_broker_ran() {
    let made = directory("every_file_foreign").await;
    let of_a_kill = made.killed["brokkr-checkpoint"].clone();
    let marker = |text: &'static str| Some((".kafka_cleanshutdown", Bytes::from_static(text.as_bytes())));
    let (mut cases, mut wrongs) = (0, Vec::new());
    for (state, files, stale) in [
        ("an empty marker", &made.clean, marker("")),
        (
            "a marker of Kafka's",
            &made.clean,
            marker("{\"version\":0,\"brokerEpoch\":99}"),
        ),
        ("a marker beside a kill", &made.killed, marker("")),
        (
            "an older checkpoint",
            &made.clean,
            Some(("brokkr-checkpoint", of_a_kill)),
        ),
    ] {
        let stale = stale.into_iter().map(|(name, bytes)| (name.to_owned(), bytes));
        let base: Files = files.clone().into_iter().chain(stale).collect();
        let (came, said) = start(&put("every_file_foreign", &base).await, state).await;
        assert_eq!(came, Outcome::Whole, "{state}: {said}");
        let logs: Vec<_> = base
            .keys()
            .filter(|path| path.ends_with(".log"))
            .cloned()
            .collect();
        for (at, path) in logs.iter().enumerate() {
            for way in ["missing", "empty", "shortened", "another's", "older"] {
                // Kafka's retention may have removed the first segment; behind the last sealed one nothing is
                // guaranteed after a kill.
                if at == 0 && way == "missing" || at + 1 == logs.len() && state.contains("kill") {
                    continue;
                }
                let Some(changed) = wrong(path, &base, &made, way) else {
                    continue;
                };
                let mut these = base.clone();
                match changed {
                    None => drop(these.remove(path)),
                    Some(bytes) => drop(these.insert(path.clone(), bytes)),
                }
                let dir = put("every_file_foreign", &these).await;
                let what = format!("{path} {way}, {state}");
                let (came, said) = start(&dir, &what).await;
                if !matches!(came, Outcome::Refused(_)) || !said.contains(".log") {
                    wrongs.push(format!("{what}: {came:?} {said}"));
                }
                cases += 1;
            }
        }
    }
    assert!(wrongs.is_empty(), "of {cases}:\n{}", wrongs.join("\n"));
    assert!(cases > 40, "{cases}");
}

/// An older copy is put over the directory: newer segments don't continue the log, and are kept aside.
#[tokio::test]
async fn a_segment_that_does_not_continue_the_log_is_set_aside() {
    let made = directory("every_file_aside").await;
    for newer in [&made.clean, &made.killed] {
        let mut these = newer.clone();
        these.extend(made.older.clone());
        these.remove(".kafka_cleanshutdown");
        let dir = put("every_file_aside", &these).await;
        let remembered = checkpoint::load_and_mark_unclean(&dir).await.expect("begun");
        let (log, _) = Log::open(&dir, FOLDER, config(), &remembered.logs[FOLDER])
            .await
            .expect("opened");
        drop(log);
        let after = files(&dir).await;
        let logs = these
            .iter()
            .filter(|(path, _)| path.ends_with(".log") && !made.older.contains_key(*path));
        for (path, bytes) in logs {
            assert_eq!(after.get(&format!("{path}.aside0")), Some(bytes), "{path}");
        }
        assert!(after.keys().any(|path| path.ends_with(".aside0")));
    }
}

#[tokio::test]
async fn other_files_in_the_folder_of_a_log_stay() {
    let made = directory("every_file_others").await;
    let mut these = made.clean.clone();
    let others = [
        "notes.tmp",
        "backup.deleted",
        "00000000000000000000.log.tmp",
        "old",
    ];
    for name in others {
        these.insert(format!("{FOLDER}/{name}"), Bytes::from_static(b"kept"));
    }
    let dir = put("every_file_others", &these).await;
    dir.dir()
        .create_dir(&format!("{FOLDER}/folder.tmp"))
        .await
        .expect("made");
    let (came, said) = start(&dir, "with others").await;
    assert_eq!(came, Outcome::Whole, "{said}");
    let after = dir.dir().list(FOLDER).await.expect("listed");
    for name in others.iter().chain(&["folder.tmp"]) {
        assert!(after.iter().any(|entry| entry.name == *name), "{name}");
    }
}

#[tokio::test]
async fn a_refused_log_is_complete_once_the_file_is_back() {
    let made = directory("every_file_back").await;
    for (clean, files) in [(true, &made.clean), (false, &made.killed)] {
        for path in files.keys() {
            let mut these = files.clone();
            these.remove(path);
            let dir = put("every_file_back", &these).await;
            let what = format!("{path} clean {clean}");
            if let (Outcome::Refused(_), _) = start(&dir, &what).await {
                let file = dir.dir().create(path).await.expect("made");
                file.write_at(0, vec![files[path].clone()])
                    .await
                    .expect("written");
                let (came, said) = start(
                    &LogDir::new(TokioEnv::new(2), dir.dir().clone(), idle_files(8)),
                    &what,
                )
                .await;
                assert_eq!(came, Outcome::Whole, "{what}: {said}");
            }
        }
    }
}

fn idle_files(log_idle_files: usize) -> brokkr_log::LogLimits {
    brokkr_log::LogLimits {
        log_idle_files,
        ..Default::default()
    }
}

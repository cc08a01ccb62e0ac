//! Damages every file of a broker's log directories in turn, in every way, after a clean stop and after a kill, with one log
//! directory and with two.
//!
//! The table ([`outcomes`]) lists the allowed outcomes: every record is served; or the start, a directory or a partition is refused
//! with a message that names the file, and everything is served once the file is restored; or a reader gets an error for the
//! damaged records. In every case all topics exist, and records that were served are served after a kill as well. A file without a
//! row fails the test. A log that belongs to no partition, all of it or one file, is set aside unchanged, and stays there.
//! (`broker/log/tests/every_file.rs` does the same for one partition's log, with its producers and timestamps.)

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Arc, Mutex};

use brokkr_env::EntryKind;
use brokkr_sim::disk::Disk;
use brokkr_sim::exec::Ended;
use brokkr_sim::node::{self, Started};
use brokkr_sim::reached::{self, ReachedStates};
use brokkr_sim::room;
use brokkr_sim::world::World;
use brokkr_types::Uuid;
use brokkr_wire::messages::alter_configs_request::{AlterConfigsResource, AlterableConfig};
use brokkr_wire::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
use brokkr_wire::messages::describe_configs_request::DescribeConfigsResource;
use brokkr_wire::messages::fetch_request::{FetchPartition, FetchTopic};
use brokkr_wire::messages::{
    AlterConfigsRequest, DeleteRecordsRequest, DescribeConfigsRequest, FetchRequest, MetadataRequest,
};
use brokkr_wire::records::batches;
use brokkr_wire::{ErrorCode, Str};
use bytes::Bytes;
use common::*;

/// Index entries for eight batches in each segment, and a metadata snapshot every few records.
const SETTINGS: [(&str, &str); 5] = [
    ("log.retention.ms", "-1"),
    ("log.index.interval.bytes", "0"),
    ("log.index.size.max.bytes", "96"),
    ("log.retention.check.interval.ms", "500"),
    ("metadata.log.max.record.bytes.between.snapshots", "700"),
];
const METADATA: &str = "__cluster_metadata-0";
/// A folder of a partition that doesn't exist.
const STRAY: &str = "gone-0";
/// How many bits of a small file are flipped, one at a time.
const BITS: usize = 8;
const SMALL_BYTES: usize = 1000;
/// The configuration of a topic.
const CONFIG: (&str, &str) = ("max.message.bytes", "123456");

/// A topic and the index of one of its partitions.
type Partition = (String, i32);

/// The outcome of a start: the error, or the partitions that are not served in full.
type Start = Result<Vec<(Partition, ObservedPartition)>, String>;

/// The contents of files, by path.
type Files = BTreeMap<String, Bytes>;

/// Values by offset.
type Records = BTreeMap<i64, String>;

/// Acknowledged topics and records.
#[derive(Clone, Default)]
struct Content {
    /// By name, the topic's id and its number of partitions.
    topics: BTreeMap<String, (Uuid, i32)>,
    /// The undeleted records of each partition.
    records: BTreeMap<Partition, Records>,
}

/// The contents of a broker's log directories, over its lives.
#[derive(Clone, Default)]
struct BrokerFiles {
    /// After a clean stop, and some time into the next life.
    older: [Files; 2],
    clean: Files,
    killed: Files,
    content: Content,
    /// Of a broker in another cluster.
    another: Files,
}

/// What a client read of a partition.
#[derive(Debug, PartialEq, Eq)]
enum ObservedPartition {
    /// Every record.
    Whole,
    /// Some records are missing: this many reads failed with an error, and this many batches have a wrong CRC.
    Damaged {
        errors: usize,
        batches: usize,
    },
    Offline,
}

/// The outcome of a damaged file.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Outcome {
    /// Every record is served.
    Whole,
    /// The start fails with an error that names the file.
    Refused,
    /// The start leaves the directory out and logs this file as the reason: its partitions are offline.
    LeftOut,
    /// The file's partition is offline, and the log names the file.
    Offline,
    /// Reads of some records of the file's partition fail, and the log names the file; or their batches have a wrong CRC.
    Damaged,
    /// Every record is served; the folder without a partition is set aside unchanged, and the log names it.
    SetAside,
}

impl Client {
    /// The topics, and the offline partitions.
    async fn topics(&self) -> (BTreeMap<String, (Uuid, i32)>, BTreeSet<Partition>) {
        let request = MetadataRequest {
            topics: None,
            ..Default::default()
        };
        let (mut topics, mut offline) = (BTreeMap::new(), BTreeSet::new());
        for topic in self.ask(request, 12).await.topics {
            let name = topic.name.as_ref().map_or("", |name| name.as_str()).to_owned();
            let of_it = topic.partitions.iter().filter(|p| p.error_code != 0);
            offline.extend(of_it.map(|p| (name.clone(), p.partition_index)));
            topics.insert(name, (topic.topic_id, topic.partitions.len() as i32));
        }
        (topics, offline)
    }

    /// Reads everything from an offset on, batch by batch.
    async fn read_all(&self, topic: &str, index: i32, expected: &Records, what: &str) -> ObservedPartition {
        let (mut errors, mut damaged, mut shown) = (0, 0, Records::new());
        let mut next = expected.keys().next().copied().unwrap_or(0);
        let end = expected.keys().next_back().map_or(next, |last| last + 1);
        while next < end {
            let partition = FetchPartition {
                partition: index,
                fetch_offset: next,
                partition_max_bytes: 1,
                ..Default::default()
            };
            let topics = vec![FetchTopic {
                topic: Str::copied(topic),
                partitions: vec![partition],
                ..Default::default()
            }];
            let request = FetchRequest {
                max_bytes: 1 << 20,
                topics,
                session_epoch: -1,
                ..Default::default()
            };
            let response = self.ask(request, 12).await.responses.remove(0);
            let data = &response.partitions[0];
            match ErrorCode(data.error_code) {
                ErrorCode::KAFKA_STORAGE_ERROR => {
                    (errors, next) = (errors + 1, next + 1);
                    continue;
                }
                ErrorCode::NONE => {}
                error => panic!("{what}: {topic}-{index} offset {next}: {error}"),
            }
            assert_eq!(data.high_watermark, end, "{what}: {topic}-{index}");
            let bytes = data.records.as_ref().and_then(|r| r.as_bytes().cloned());
            let batch = batches(bytes.unwrap_or_default()).next();
            let batch = batch.unwrap_or_else(|| panic!("{what}: {topic}-{index}: nothing at offset {next}"));
            // Clients verify the CRC.
            let batch = match batch {
                Ok(batch) if batch.check_crc().is_ok() => batch,
                _ => {
                    (damaged, next) = (damaged + 1, next + 1);
                    continue;
                }
            };
            let records = batch.records(1 << 20).expect("records");
            for record in records.iter() {
                let record = record.expect("sound");
                let value = String::from_utf8_lossy(record.value.expect("a value")).into_owned();
                shown.insert(batch.header.base_offset.0 + i64::from(record.offset_delta), value);
            }
            next = batch.header.next_offset().0;
        }
        for (offset, value) in shown.iter().filter(|(offset, _)| expected.contains_key(offset)) {
            assert_eq!(
                expected.get(offset),
                Some(value),
                "{what}: {topic}-{index} offset {offset}"
            );
        }
        let missing = expected.keys().filter(|offset| !shown.contains_key(offset));
        assert!(missing.count() <= errors + damaged, "{what}: {topic}-{index}");
        match (errors, damaged) {
            (0, 0) => ObservedPartition::Whole,
            (errors, batches) => ObservedPartition::Damaged { errors, batches },
        }
    }

    async fn delete_records(&self, topic: &str, partition_index: i32, offset: i64) {
        let partition = DeleteRecordsPartition {
            partition_index,
            offset,
            ..Default::default()
        };
        let request = DeleteRecordsRequest {
            topics: vec![DeleteRecordsTopic {
                name: Str::copied(topic),
                partitions: vec![partition],
                ..Default::default()
            }],
            timeout_ms: 10_000,
            ..Default::default()
        };
        let response = self.ask(request, 2).await;
        assert_eq!(response.topics[0].partitions[0].error_code, 0);
    }

    async fn configure(&self, topic: &str) {
        let request = AlterConfigsRequest {
            resources: vec![AlterConfigsResource {
                resource_type: 2,
                resource_name: Str::copied(topic),
                configs: vec![AlterableConfig {
                    name: Str::copied(CONFIG.0),
                    value: Some(Str::copied(CONFIG.1)),
                    ..Default::default()
                }],
                ..Default::default()
            }],
            ..Default::default()
        };
        assert_eq!(self.ask(request, 2).await.responses[0].error_code, 0);
    }

    async fn is_configured(&self, topic: &str) -> bool {
        let request = DescribeConfigsRequest {
            resources: vec![DescribeConfigsResource {
                resource_type: 2,
                resource_name: Str::copied(topic),
                configuration_keys: None,
                ..Default::default()
            }],
            ..Default::default()
        };
        let response = self.ask(request, 4).await;
        let mut configs = response.results[0].configs.iter();
        configs
            .any(|c| c.name.as_str() == CONFIG.0 && c.value.as_ref().is_some_and(|v| v.as_str() == CONFIG.1))
    }

    /// Produces batches of two records, and notes them.
    async fn fill(&self, content: &mut Content, topic: &str, index: i32, batches: i64) {
        let records = content.records.entry((topic.to_owned(), index)).or_default();
        for _ in 0..batches {
            let next = records.keys().next_back().map_or(0, |last| last + 1);
            let values = [next, next + 1].map(|n| format!("{topic}-{index} {n}"));
            let (error, base) = self.produce(topic, index, &[&values[0], &values[1]]).await;
            assert_eq!((error, base), (ErrorCode::NONE, next), "{topic}-{index}");
            records.extend((base..).zip(values));
        }
    }
}

/// Runs a script in its own world: returns its result.
fn play<T, F>(seed: u64, script: impl FnOnce(World) -> F + Send + 'static) -> T
where
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    room::run(seed, 600 * SECOND, move |world| {
        world.lock().disks.insert(SERVER, Disk::new(SERVER));
        let result = Arc::new(Mutex::new(None));
        let (inside, exec, script) = (Arc::clone(&result), world.exec().clone(), script(world.clone()));
        let life = exec.life(0);
        exec.clone().spawn(
            life,
            "script",
            Box::pin(async move {
                let returned = script.await;
                *inside.lock().expect("one task") = Some(returned);
                exec.stop();
            }),
        );
        Box::new(move |_, ended| {
            assert_eq!(ended, Ended::Stopped);
            let result = result.lock().expect("the task is gone").take();
            result.expect("the script ended")
        })
    })
}

fn on_disk<T>(world: &World, look: impl FnOnce(&mut Disk) -> T) -> T {
    look(world.lock().disks.get_mut(&SERVER).expect("its disk"))
}

/// All files under a path.
fn files(disk: &Disk, path: &str) -> Files {
    let mut all = Files::new();
    for entry in disk.list(path).expect("a directory") {
        let path = format!("{path}/{}", entry.name);
        match entry.kind {
            EntryKind::Dir => all.extend(files(disk, &path)),
            EntryKind::File => {
                let bytes = disk.peek(disk.file(&path).expect("it is there"));
                all.insert(path, Bytes::copy_from_slice(&bytes));
            }
        }
    }
    all
}

fn all_files(world: &World, dirs: &str) -> Files {
    on_disk(world, |d| dirs.split(',').flat_map(|dir| files(d, dir)).collect())
}

/// The contents of a broker's directories over two lives; the second ends by a stop or a kill.
fn make(seed: u64, dirs: &'static str) -> BrokerFiles {
    play(seed, move |world| async move {
        let mut made = BrokerFiles::default();
        let content = &mut made.content;
        let (running, started) = node::start(&world, SERVER, config(dirs, &SETTINGS));
        assert_eq!(started.await, Ok(Started::Ready));
        let client = Client::connected(&world).await;
        for (topic, partitions) in [("t", 2), ("u", 2)] {
            assert_eq!(client.create(topic, partitions).await, ErrorCode::NONE);
            for index in 0..partitions {
                client.fill(content, topic, index, 6).await;
            }
        }
        assert_eq!(running.stop().await, Ok(true));
        world.end_quietly(SERVER);
        made.older[0] = all_files(&world, dirs);
        let (running, started) = node::start(&world, SERVER, config(dirs, &SETTINGS));
        assert_eq!(started.await, Ok(Started::Ready));
        let client = Client::connected(&world).await;
        for (topic, index) in [("t", 0), ("u", 1)] {
            client.fill(content, topic, index, 10).await;
        }
        for index in 0..2 {
            client.delete_records("t", index, 5).await;
            let records = content.records.get_mut(&("t".to_owned(), index)).expect("filled");
            records.retain(|offset, _| *offset >= 5);
        }
        pause(&world, 7).await;
        made.older[1] = all_files(&world, dirs);
        client.configure("u").await;
        for (topic, partitions) in [("v", 1), ("w", 1)] {
            assert_eq!(client.create(topic, partitions).await, ErrorCode::NONE);
            client.fill(content, topic, 0, 2).await;
        }
        client.fill(content, "t", 0, 4).await;
        pause(&world, 7).await;
        content.topics = client.topics().await.0;
        made.killed = all_files(&world, dirs);
        assert_eq!(running.stop().await, Ok(true));
        world.end_quietly(SERVER);
        made.clean = all_files(&world, dirs);
        made
    })
}

/// One damaged file.
#[derive(Clone)]
struct Case {
    dirs: &'static str,
    path: String,
    way: String,
    clean: bool,
    /// The damaged contents; none if the file is missing.
    is: Option<Bytes>,
    was: Bytes,
    /// Further files, in [`STRAY`].
    stray: Files,
}

impl Case {
    /// The name that the log must contain.
    fn name(&self) -> &str {
        match self.stray.is_empty() {
            true => self.path.rsplit('/').next().unwrap_or_default(),
            false => STRAY,
        }
    }
}

impl std::fmt::Display for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let stop = if self.clean { "stopped" } else { "killed" };
        write!(f, "{} {}, {stop}", self.path, self.way)
    }
}

/// Every way in which a file can be damaged.
fn cases(dirs: &'static str, made: &BrokerFiles, path: &str, clean: bool) -> Vec<Case> {
    let was = if clean { &made.clean } else { &made.killed };
    let was = was[path].clone();
    let mut ways: Vec<(String, Option<Bytes>)> = vec![
        ("missing".to_owned(), None),
        ("empty".to_owned(), Some(Bytes::new())),
        ("shortened".to_owned(), Some(was.slice(..was.len() * 2 / 3))),
        ("zeroed".to_owned(), Some(vec![0; was.len()].into())),
    ];
    let mut others = vec![
        ("another cluster's", made.another.get(path)),
        ("older", made.older[1].get(path)),
        ("of the first life", made.older[0].get(path)),
    ];
    let neighbour = neighbour(path).and_then(|other| made.killed.get(&other));
    others.push(("another's", neighbour));
    for (way, bytes) in others {
        ways.extend(bytes.map(|bytes| (way.to_owned(), Some(bytes.clone()))));
    }
    if path.ends_with(".log") {
        let whole = batches(was.clone()).filter_map(Result::ok);
        let last = whole.last().map_or(0, |batch| batch.bytes.len());
        ways.push((
            "without its last batch".to_owned(),
            Some(was.slice(..was.len() - last)),
        ));
    }
    let bits = if was.len() < SMALL_BYTES { BITS } else { 3 };
    for i in 0..bits {
        let (at, mut bytes) = (was.len() * (2 * i + 1) / (2 * bits), was.to_vec());
        if let Some(byte) = bytes.get_mut(at) {
            *byte ^= if i % 2 == 0 { 0x04 } else { 0x01 };
            ways.push((format!("with another bit in byte {at}"), Some(bytes.into())));
        }
    }
    ways.retain(|(_, is)| is.as_ref() != Some(&was));
    let case = |(way, is)| Case {
        dirs,
        path: path.to_owned(),
        way,
        clean,
        is,
        was: was.clone(),
        stray: Files::new(),
    };
    let mut cases: Vec<Case> = ways.into_iter().map(case).collect();
    // One file of a log, or all of it, in a folder without a partition.
    let files = if clean { &made.clean } else { &made.killed };
    let strays = [("alone", path), ("with all of its log", "a/t-0/")];
    for (way, begin) in strays.into_iter().filter(|_| path.starts_with("a/t-0/")) {
        let of_it = files.iter().filter(|(path, _)| path.starts_with(begin));
        let moved = of_it.map(|(path, bytes)| (path.replace("/t-0/", &format!("/{STRAY}/")), bytes.clone()));
        let stray = Case {
            stray: moved.collect(),
            ..case((format!("{way} in {STRAY} too"), Some(was.clone())))
        };
        cases.push(stray);
    }
    cases
}

/// The file of the same name in another directory or partition.
fn neighbour(path: &str) -> Option<String> {
    let other = |a: &str, b: &str| path.strip_prefix(a).map(|rest| format!("{b}{rest}"));
    let in_one = other("a/t-0/", "a/t-1/").or_else(|| other("a/t-0/", "a/u-0/"));
    let of_dir = || (path.matches('/').count() == 1).then(|| other("a/", "b/").or_else(|| other("b/", "a/")));
    let of_metadata = || other("a/__cluster_metadata-0/", "a/t-0/");
    in_one.or_else(of_metadata).or_else(|| of_dir().flatten())
}

/// Writes files to an empty disk.
fn put(world: &World, these: &Files) {
    on_disk(world, |disk| {
        for (path, bytes) in these {
            let (folder, _) = path.rsplit_once('/').expect("a file in a directory");
            disk.create_dir(folder).expect("made");
            disk.restore_file(path, bytes.to_vec());
        }
    });
}

/// Starts a broker on it, and reads everything.
async fn start(world: &World, case: &Case, content: &Content) -> Start {
    let (_running, started) = node::start(world, SERVER, config(case.dirs, &SETTINGS));
    match started.await {
        Ok(Started::Ready) => {}
        Ok(Started::Failed(why)) => return Err(why),
        Err(_) => panic!("{case}: the broker ended"),
    }
    let client = Client::connected(world).await;
    let what = case.to_string();
    let (topics, offline) = client.topics().await;
    assert_eq!(topics, content.topics, "{case}");
    assert!(
        client.is_configured("u").await,
        "{case}: a topic's configuration is gone"
    );
    let mut seen = Vec::new();
    for ((topic, index), records) in &content.records {
        let partition = (topic.clone(), *index);
        let of_it = match offline.contains(&partition) {
            true => ObservedPartition::Offline,
            false => client.read_all(topic, *index, records, &what).await,
        };
        if of_it != ObservedPartition::Whole {
            seen.push((partition, of_it));
        }
    }
    Ok(seen)
}

/// Runs a case: returns its outcome, and the warnings.
fn run(case: Case, these: Files, content: Content) -> (Outcome, String) {
    play(7, move |world| async move {
        let names = reached::listen(&world, false);
        put(&world, &these);
        put(&world, &case.stray);
        on_disk(&world, |disk| match &case.is {
            Some(bytes) => disk.restore_file(&case.path, bytes.to_vec()),
            None => {
                disk.remove(&case.path, false).expect("it is there");
                let (folder, _) = case.path.rsplit_once('/').expect("a file in a directory");
                disk.sync_dir(folder).expect("synced");
            }
        });
        let first = start(&world, &case, &content).await;
        let (came, said) = judge(&case, first, &content);
        let said = format!("{said}\n{}", warnings(&names));
        if came == Outcome::Whole && !case.stray.is_empty() {
            let aside = set_aside(&world, &case);
            goes_on(&world, &case, &names, content).await;
            assert_eq!(set_aside(&world, &case), aside, "{case}: after another start");
            return (Outcome::SetAside, said);
        }
        if came == Outcome::Whole {
            goes_on(&world, &case, &names, content).await;
        } else {
            world.end_quietly(SERVER);
            on_disk(&world, |disk| disk.restore_file(&case.path, case.was.to_vec()));
            let again = start(&world, &case, &content).await;
            assert_eq!(again, Ok(vec![]), "{case}: and the file was put back");
        }
        (came, said)
    })
}

fn judge(case: &Case, first: Start, content: &Content) -> (Outcome, String) {
    let seen = match first {
        Err(why) => return (Outcome::Refused, why),
        Ok(seen) if seen.is_empty() => return (Outcome::Whole, String::new()),
        Ok(seen) => seen,
    };
    let said = format!("{seen:?}");
    let of_the_file = |(topic, index): &Partition| case.path.contains(&format!("/{topic}-{index}/"));
    if let [(partition, seen)] = &seen[..]
        && of_the_file(partition)
    {
        return match seen {
            ObservedPartition::Offline => (Outcome::Offline, said),
            _ => (Outcome::Damaged, said),
        };
    }
    assert!(
        seen.iter().all(|(_, seen)| *seen == ObservedPartition::Offline),
        "{case}: {said}"
    );
    assert!(seen.len() < content.records.len(), "{case}: nothing is served");
    (Outcome::LeftOut, said)
}

/// The present place of the folder without a partition, checked to hold all its files.
fn set_aside(world: &World, case: &Case) -> String {
    on_disk(world, |disk| {
        let folders = disk.list("a").expect("a directory").into_iter().map(|e| e.name);
        let its: Vec<_> = folders.filter(|name| name.starts_with(STRAY)).collect();
        let [aside] = &its[..] else {
            panic!("{case}: {its:?}")
        };
        let is_kafkas = aside.starts_with(&format!("{STRAY}.")) && aside.ends_with("-stray");
        assert!(is_kafkas, "{case}: {aside}");
        let back = |(path, bytes): (String, Bytes)| (path.replacen(aside, STRAY, 1), bytes);
        let now: Files = files(disk, &format!("a/{aside}")).into_iter().map(back).collect();
        assert!(now == case.stray, "{case}: {:?}", now.keys());
        aside.clone()
    })
}

/// A broker that serves everything writes, dies, and serves that too. If only that recovery finds the damage, it names the file.
async fn goes_on(world: &World, case: &Case, names: &ReachedStates, mut content: Content) {
    let client = Client::connected(world).await;
    let all: Vec<_> = content.records.keys().cloned().collect();
    for (topic, index) in all {
        client.fill(&mut content, &topic, index, 1).await;
    }
    assert_eq!(client.create("x", 2).await, ErrorCode::NONE, "{case}");
    client.fill(&mut content, "x", 0, 1).await;
    content.topics = client.topics().await.0;
    drop(client);
    world.end_quietly(SERVER);
    let again = start(world, case, &content).await;
    if again == Ok(vec![]) {
        return;
    }
    let (came, said) = judge(case, again, &content);
    let said = format!("{said}\n{}", warnings(names));
    assert!(
        said.contains(case.name()),
        "{case}: {came:?} after a kill, and nothing names the file: {said}"
    );
    assert!(
        case.way.starts_with("with another bit"),
        "{case}: {came:?} after a kill: {said}"
    );
    world.end_quietly(SERVER);
    on_disk(world, |disk| {
        let mut now = disk.peek(disk.file(&case.path).expect("it is there")).to_vec();
        let is = case.is.as_ref().expect("it has another bit");
        for ((now, is), was) in now.iter_mut().zip(is).zip(&case.was) {
            *now ^= is ^ was;
        }
        disk.restore_file(&case.path, now);
    });
    let again = start(world, case, &content).await;
    assert_eq!(
        again,
        Ok(vec![]),
        "{case}: after a kill, and the bit was put back"
    );
}

fn warnings(names: &ReachedStates) -> String {
    names.warnings().lock().expect("one thread").texts().join("\n")
}

/// The table: allowed outcomes by kind of file and kind of damage.
fn outcomes(case: &Case) -> &'static [Outcome] {
    use Outcome::{Damaged, LeftOut, Offline, Refused, SetAside, Whole};
    if !case.stray.is_empty() {
        return &[SetAside];
    }
    let (dir, rest) = case.path.split_once('/').expect("a file in a directory");
    let (folder, file) = rest.rsplit_once('/').unwrap_or(("", rest));
    let suffix = file.rsplit_once('.').map_or(file, |(_, suffix)| suffix);
    let way = match case.way.as_str() {
        way if way.starts_with("with another bit") => "a bit",
        way => way,
    };
    // Whether another file of its kind replaces the file.
    let foreign = matches!(way, "another cluster's" | "another's");
    match (folder, file, way) {
        // A foreign checkpoint has no entries for these logs; an older one promises nothing false.
        ("", "brokkr-checkpoint", "older" | "of the first life") => &[Whole],
        // After a kill it describes a continuation of this very metadata log that doesn't exist.
        ("", "brokkr-checkpoint", _) if foreign && dir == "a" => &[Whole, Refused],
        ("", "brokkr-checkpoint", _) if foreign => &[Whole],
        ("", "brokkr-checkpoint", _) if dir == "a" => &[Refused],
        ("", "brokkr-checkpoint", _) => &[LeftOut],
        ("", ".kafka_cleanshutdown", _) => &[Whole],
        // Written for Kafka only.
        ("", "recovery-point-offset-checkpoint" | "log-start-offset-checkpoint", _) => &[Whole],
        ("", "replication-offset-checkpoint", _) => &[Whole],
        ("", _, _) if file.starts_with("brokkr-reserve-") => &[Whole],
        // It has no checksum. A flipped bit may make the id of another cluster, which no other file contradicts; or, in a directory
        // without the metadata, the id of another directory.
        ("", "meta.properties", "a bit") if dir == "a" => &[Refused, Whole],
        ("", "meta.properties", "a bit") => &[Refused, LeftOut, Whole],
        ("", "meta.properties", "missing") => &[Refused],
        ("", "meta.properties", _) if dir == "a" || foreign => &[Refused],
        ("", "meta.properties", _) => &[LeftOut],
        (METADATA, "quorum-state", "missing" | "older" | "of the first life") => &[Whole],
        (METADATA, "quorum-state", _) if foreign => &[Whole],
        (METADATA, "quorum-state", "a bit") => &[Whole, Refused],
        (METADATA, "quorum-state", _) => &[Refused],
        (METADATA, "partition.metadata", "a bit") => &[Whole, Refused],
        (METADATA, "partition.metadata" | "brokkr-manifest", "another's") => &[Refused],
        (METADATA, ..) if suffix == "checkpoint" && foreign => &[Whole, Refused],
        (METADATA, ..) if suffix == "checkpoint" => &[Whole],
        // After a clean stop nothing below the latest snapshot is read.
        (METADATA, _, "a bit") if suffix == "log" => &[Whole, Refused],
        (METADATA, ..) if suffix == "log" => &[Refused],
        (METADATA, "brokkr-manifest", _) => &[Whole],
        // A flipped bit may make another id.
        (_, "partition.metadata", "a bit") => &[Whole, Offline],
        (_, "partition.metadata", _) if foreign => &[Offline],
        (_, "brokkr-manifest", _) if foreign => &[Offline],
        (_, "partition.metadata" | "brokkr-manifest" | "leader-epoch-checkpoint", _) => &[Whole],
        _ if matches!(suffix, "index" | "timeindex" | "snapshot" | "window") => &[Whole],
        // Found by a reader if the segment is sealed, or after a clean stop; otherwise by recovery. Below the log's start nothing
        // is read.
        (_, _, "a bit") if suffix == "log" => &[Whole, Damaged, Offline],
        (_, _, "zeroed") if suffix == "log" => &[Damaged, Offline],
        _ if suffix == "log" => &[Offline],
        _ => panic!("no outcome is known of {case}"),
    }
}

fn every_file(dirs: &'static str, clean: bool) {
    let made = BrokerFiles {
        another: make(6, dirs).killed,
        ..make(5, dirs)
    };
    let files = if clean { &made.clean } else { &made.killed };
    let (mut wrongs, mut n) = (Vec::new(), 0);
    let mut seen = BTreeSet::new();
    // The folders of the first directory are the same with one directory as with two.
    let is_same = |path: &&String| dirs != "a" && path.starts_with("a/") && path.matches('/').count() > 1;
    for path in files.keys().filter(|path| !is_same(path)) {
        for case in cases(dirs, &made, path, clean) {
            n += 1;
            let (may, what, name) = (outcomes(&case), case.to_string(), case.name().to_owned());
            let (files, content) = (files.clone(), made.content.clone());
            let played = panic::catch_unwind(AssertUnwindSafe(|| run(case, files, content)));
            let Ok((came, said)) = played else {
                wrongs.push(format!("{what}: see above"));
                continue;
            };
            // The client detects a wrong CRC by itself.
            let must_be_named = match came {
                Outcome::Whole => false,
                Outcome::Damaged => !said.contains("errors: 0"),
                _ => true,
            };
            seen.insert(came);
            if !may.contains(&came) {
                wrongs.push(format!("{what}: {came:?} {said}"));
            } else if must_be_named && !said.contains(&name) {
                wrongs.push(format!("{what}: {came:?}, and nothing names the file: {said}"));
            }
        }
    }
    assert!(wrongs.is_empty(), "of {n}:\n{}", wrongs.join("\n"));
    assert!(n > 100, "{n}");
    assert_eq!(seen.contains(&Outcome::SetAside), dirs == "a", "{seen:?}");
}

#[test]
fn after_a_clean_stop() {
    every_file("a", true);
}

#[test]
fn after_a_kill() {
    every_file("a", false);
}

#[test]
fn of_two_directories_after_a_clean_stop() {
    every_file("a,b", true);
}

#[test]
fn of_two_directories_after_a_kill() {
    every_file("a,b", false);
}

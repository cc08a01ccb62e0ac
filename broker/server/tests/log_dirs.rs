//! Several log directories: where partitions are, and starts with a directory that is missing, belongs to another broker,
//! or is listed twice.

#![expect(
    clippy::disallowed_methods,
    reason = "tests of the real world: processes, sockets, directories"
)]

mod common;

use std::path::{Path, PathBuf};

use brokkr_wire::messages::metadata_request::MetadataRequestTopic;
use brokkr_wire::messages::metadata_response::MetadataResponsePartition;
use brokkr_wire::messages::{DescribeLogDirsRequest, MetadataRequest};
use brokkr_wire::{ErrorCode, Str};
use common::{Client, Running, brokkr, fresh_dir, running, start_error, text, wait_until};

/// Two log directories in a directory of this name.
struct Dirs {
    root: PathBuf,
    a: PathBuf,
    b: PathBuf,
}

impl Dirs {
    fn new(name: &str) -> Self {
        let root = fresh_dir(name);
        std::fs::create_dir_all(&root).expect("made");
        let (a, b) = (root.join("a"), root.join("b"));
        Self { root, a, b }
    }

    fn setting(&self) -> String {
        format!("log.dirs={},{}", text(&self.a), text(&self.b))
    }

    fn start(&self) -> Running {
        let mut command = brokkr();
        command.args(["--listen", "127.0.0.1:0", "--set", &self.setting()]);
        running(&mut command, &self.root)
    }

    fn start_error(&self) -> String {
        let (code, why) = start_error(&["--listen", "127.0.0.1:0", "--set", &self.setting()]);
        assert_eq!(code, 1, "{why}");
        why
    }
}

/// The partition folders of a topic in a directory.
fn folders(dir: &Path, topic: &str) -> Vec<String> {
    let names = std::fs::read_dir(dir).expect("listed").map(|e| {
        let name = e.expect("listed").file_name();
        name.into_string().expect("UTF-8")
    });
    let mut names: Vec<String> = names.filter(|n| n.starts_with(&format!("{topic}-"))).collect();
    names.sort();
    names
}

fn metadata(client: &mut Client, topic: &str) -> Vec<MetadataResponsePartition> {
    let topic = MetadataRequestTopic {
        name: Some(Str::copied(topic)),
        ..Default::default()
    };
    let request = MetadataRequest {
        topics: Some(vec![topic]),
        ..Default::default()
    };
    client.call(&request, 12).topics.remove(0).partitions
}

/// Each directory: its error, whether its space is reported, and its partitions of `t`.
fn describe_log_dirs(client: &mut Client) -> Vec<(String, ErrorCode, bool, Vec<i32>)> {
    let request = DescribeLogDirsRequest {
        topics: None,
        ..Default::default()
    };
    let response = client.call(&request, 4);
    let each = response.results.into_iter().map(|dir| {
        let of_t = dir.topics.iter().filter(|t| t.name.as_str() == "t");
        let partitions = of_t.flat_map(|t| t.partitions.iter().map(|p| p.partition_index));
        let room = dir.total_bytes > 0 && dir.usable_bytes > 0;
        assert!(room || (dir.total_bytes, dir.usable_bytes) == (-1, -1));
        let name = dir.log_dir.as_str().to_owned();
        (name, ErrorCode(dir.error_code), room, partitions.collect())
    });
    each.collect()
}

/// Creates `t` with four partitions and a record in each.
fn create_filled_topic(broker: &Running) {
    let client = &mut broker.client();
    assert_eq!(client.create("t", 4, &[]), (ErrorCode::NONE, None));
    for partition in 0..4 {
        assert_eq!(client.produce("t", partition, b"first").base_offset, 0);
    }
}

fn assert_holds(client: &mut Client, topic: &str, partition: i32, count: usize) {
    let (records, _) = client.read(topic, partition, 0).expect("served");
    assert_eq!(records.len(), count, "{topic}-{partition}");
}

#[test]
fn partitions_are_spread_and_stay_in_their_directories() {
    let dirs = Dirs::new("dirs-spread");
    let broker = dirs.start();
    create_filled_topic(&broker);
    let client = &mut broker.client();
    let (a, b) = (text(&dirs.a).to_owned(), text(&dirs.b).to_owned());
    let expected = vec![
        (a, ErrorCode::NONE, true, vec![0, 2]),
        (b, ErrorCode::NONE, true, vec![1, 3]),
    ];
    assert_eq!(describe_log_dirs(client), expected);
    assert!(broker.terminate().0.success());
    assert_eq!(folders(&dirs.a, "t"), ["t-0", "t-2"]);
    assert_eq!(folders(&dirs.b, "t"), ["t-1", "t-3"]);
    assert_eq!(folders(&dirs.a, "__cluster_metadata"), ["__cluster_metadata-0"]);
    assert!(folders(&dirs.b, "__cluster_metadata").is_empty());
    let meta = |dir: &Path| std::fs::read_to_string(dir.join("meta.properties")).expect("read");
    let line = |text: &str, key: &str| {
        let found = text.lines().find(|l| l.starts_with(key));
        found.unwrap_or_else(|| panic!("{key} in {text}")).to_owned()
    };
    let (of_a, of_b) = (meta(&dirs.a), meta(&dirs.b));
    for key in ["cluster.id", "node.id", "version"] {
        assert_eq!(line(&of_a, key), line(&of_b, key));
    }
    assert_ne!(line(&of_a, "directory.id"), line(&of_b, "directory.id"));
    for file in [
        ".lock",
        ".kafka_cleanshutdown",
        "brokkr-checkpoint",
        "recovery-point-offset-checkpoint",
    ] {
        assert!(dirs.a.join(file).exists() && dirs.b.join(file).exists(), "{file}");
    }
    // The order of the directories does not matter to the partitions in them.
    let turned = format!("log.dirs={},{}", text(&dirs.b), text(&dirs.a));
    let of_metadata = format!("metadata.log.dir={}", text(&dirs.a));
    let mut command = brokkr();
    command.args(["--listen", "127.0.0.1:0", "--log", "info"]);
    command.args(["--set", &turned, "--set", &of_metadata]);
    let broker = running(&mut command, &dirs.root);
    let client = &mut broker.client();
    for partition in 0..4 {
        assert_eq!(client.produce("t", partition, b"second").base_offset, 1);
        assert_holds(client, "t", partition, 2);
    }
    assert!(!broker.log().contains("recovered"), "{}", broker.log());
    broker.kill();
    let broker = dirs.start();
    for partition in 0..4 {
        assert_holds(&mut broker.client(), "t", partition, 2);
    }
}

#[test]
fn a_missing_directory_takes_only_its_partitions_offline_and_they_are_not_created_again() {
    for replaced_by in ["nothing", "a new one", "a broken one"] {
        let dirs = Dirs::new("dirs-missing");
        let broker = dirs.start();
        create_filled_topic(&broker);
        broker.kill();
        let away = dirs.root.join("away");
        std::fs::rename(&dirs.b, &away).expect("moved");
        if replaced_by != "nothing" {
            std::fs::create_dir(&dirs.b).expect("made");
        }
        if replaced_by == "a broken one" {
            std::fs::create_dir(dirs.b.join("meta.properties")).expect("made");
        }
        let broker = dirs.start();
        let client = &mut broker.client();
        // The broker is ready before the owners of these have run.
        wait_until("the partitions without a directory are offline", || {
            let partitions = metadata(client, "t");
            partitions
                .iter()
                .all(|p| p.partition_index % 2 == 0 || p.error_code != 0)
        });
        for partition in metadata(client, "t") {
            let is_there = partition.partition_index % 2 == 0;
            let (code, leader, offline) = match is_there {
                true => (ErrorCode::NONE, 1, vec![]),
                false => (ErrorCode::LEADER_NOT_AVAILABLE, -1, vec![1]),
            };
            assert_eq!(ErrorCode(partition.error_code), code, "{replaced_by}");
            assert_eq!(
                (partition.leader_id, partition.offline_replicas),
                (leader, offline)
            );
            assert_eq!((partition.isr_nodes, partition.replica_nodes), (vec![1], vec![1]));
            let index = partition.partition_index;
            let produced = ErrorCode(client.produce("t", index, b"second").error_code);
            let read = client.read("t", index, 0).map(|(records, _)| records.len());
            if is_there {
                assert_eq!((produced, read), (ErrorCode::NONE, Ok(2)));
            } else {
                let failed = ErrorCode::KAFKA_STORAGE_ERROR;
                assert_eq!((produced, read), (failed, Err(failed)), "{replaced_by}");
            }
        }
        let of_b = describe_log_dirs(client).remove(1);
        let code = match replaced_by {
            "a broken one" => ErrorCode::KAFKA_STORAGE_ERROR,
            _ => ErrorCode::NONE,
        };
        assert_eq!((of_b.1, of_b.3), (code, vec![]), "{replaced_by}");
        assert_eq!(
            broker.lines_with("offline: its log directory is none of those"),
            1
        );
        // New topics go to the remaining directory.
        assert_eq!(client.create("u", 2, &[]).0, ErrorCode::NONE);
        for partition in 0..2 {
            assert_eq!(client.produce("u", partition, b"first").error_code, 0);
        }
        assert!(folders(&dirs.b, "t").is_empty(), "{replaced_by}");
        broker.kill();
        // The directory is back with all its records; the one in its place is missing now.
        if dirs.b.exists() {
            std::fs::remove_dir_all(&dirs.b).expect("removed");
        }
        std::fs::rename(&away, &dirs.b).expect("moved back");
        let broker = dirs.start();
        let client = &mut broker.client();
        for partition in 0..4 {
            let expected = if partition % 2 == 0 { 2 } else { 1 };
            assert_holds(client, "t", partition, expected);
            assert_eq!(client.produce("t", partition, b"third").error_code, 0);
        }
    }
}

/// As when the file system is unmounted: the path leads to an empty directory, or to none.
#[test]
fn a_directory_that_disappears_while_it_is_served_is_not_created_again() {
    for replaced_by in ["nothing", "an empty one"] {
        let dirs = Dirs::new("dirs-unmounted");
        let broker = dirs.start();
        create_filled_topic(&broker);
        let away = dirs.root.join("away");
        std::fs::rename(&dirs.b, &away).expect("moved");
        if replaced_by != "nothing" {
            std::fs::create_dir(&dirs.b).expect("made");
        }
        let client = &mut broker.client();
        // New partitions are in the remaining directory or fail; none is acknowledged and lost.
        assert_eq!(client.create("u", 4, &[]).0, ErrorCode::NONE);
        let acknowledged: Vec<i32> = (0..4)
            .filter(|p| client.produce("u", *p, b"first").error_code == 0)
            .collect();
        wait_until("its partitions are offline", || {
            client.produce("t", 1, b"lost").error_code == ErrorCode::KAFKA_STORAGE_ERROR.0
        });
        assert_eq!(client.produce("t", 0, b"second").error_code, 0, "{replaced_by}");
        assert!(
            broker.log().contains("unmounted, removed or replaced"),
            "{}",
            broker.log()
        );
        broker.kill();
        if dirs.b.exists() {
            let left: Vec<_> = std::fs::read_dir(&dirs.b).expect("listed").flatten().collect();
            assert!(left.is_empty(), "{left:?}");
            std::fs::remove_dir(&dirs.b).expect("removed");
        }
        std::fs::rename(&away, &dirs.b).expect("moved back");
        let broker = dirs.start();
        let client = &mut broker.client();
        acknowledged.iter().for_each(|p| assert_holds(client, "u", *p, 1));
        assert_holds(client, "t", 0, 2);
        assert_holds(client, "t", 3, 1);
        assert_eq!(client.produce("t", 1, b"third").error_code, 0, "{replaced_by}");
    }
}

#[test]
fn a_moved_folder_is_served_and_one_in_two_directories_is_rejected() {
    let dirs = Dirs::new("dirs-moved");
    let broker = dirs.start();
    create_filled_topic(&broker);
    assert!(broker.terminate().0.success());
    std::fs::rename(dirs.b.join("t-1"), dirs.a.join("t-1")).expect("moved");
    let broker = dirs.start();
    let client = &mut broker.client();
    assert_holds(client, "t", 1, 1);
    assert_eq!(client.produce("t", 1, b"second").base_offset, 1);
    assert_eq!(describe_log_dirs(client)[0].3, [0, 1, 2]);
    broker.kill();
    let broker = dirs.start();
    assert_holds(&mut broker.client(), "t", 1, 2);
    assert!(broker.terminate().0.success());
    let copied = std::process::Command::new("cp")
        .arg("-r")
        .args([dirs.a.join("t-1"), dirs.b.join("t-1")])
        .status();
    assert!(copied.expect("it runs").success());
    let (a, b) = (text(&dirs.a), text(&dirs.b));
    assert_eq!(
        dirs.start_error(),
        format!(
            "brokkr: log directories: t-1 is in {a} and in {b}: remove one of them, that of the directory that failed last"
        )
    );
}

#[test]
fn a_topic_deleted_while_its_directory_is_missing_stays_deleted() {
    let dirs = Dirs::new("dirs-deleted");
    let broker = dirs.start();
    create_filled_topic(&broker);
    broker.kill();
    let away = dirs.root.join("away");
    std::fs::rename(&dirs.b, &away).expect("moved");
    std::fs::create_dir_all(dirs.b.join("meta.properties")).expect("made");
    let broker = dirs.start();
    let client = &mut broker.client();
    assert_eq!(client.delete_topic("t"), ErrorCode::NONE);
    assert_eq!(client.create("t", 4, &[]).0, ErrorCode::NONE);
    for partition in 0..4 {
        assert_eq!(client.produce("t", partition, b"another").base_offset, 0);
    }
    broker.kill();
    std::fs::remove_dir_all(&dirs.b).expect("removed");
    std::fs::rename(&away, &dirs.b).expect("moved back");
    let broker = dirs.start();
    let client = &mut broker.client();
    for partition in 0..4 {
        let (records, _) = client.read("t", partition, 0).expect("served");
        assert_eq!(records[0].1, b"another");
    }
    assert_eq!(folders(&dirs.a, "t"), ["t-0", "t-1", "t-2", "t-3"]);
    assert!(
        !folders(&dirs.b, "t")
            .iter()
            .any(|name| name == "t-1" || name == "t-3")
    );
}

#[test]
fn directories_of_different_brokers_are_rejected() {
    let dirs = Dirs::new("dirs-foreign");
    assert!(dirs.start().terminate().0.success());
    let (a, b) = (text(&dirs.a).to_owned(), text(&dirs.b).to_owned());
    let meta_of_b = dirs.b.join("meta.properties");
    let meta = std::fs::read_to_string(&meta_of_b).expect("read");
    let turned = format!("log.dirs={b},{a}");
    let (_, why) = start_error(&["--listen", "127.0.0.1:0", "--set", &turned]);
    assert_eq!(
        why,
        format!(
            "brokkr: log directories: the metadata log is in {a}, but its directory is {b}: set metadata.log.dir"
        )
    );
    let (_, why) = start_error(&[
        "--listen",
        "127.0.0.1:0",
        "--set",
        &format!("log.dirs={b}new,{a}"),
    ]);
    assert!(why.contains("is new, but"), "{why}");
    std::fs::write(&meta_of_b, meta.replace("node.id=1", "node.id=2")).expect("written");
    assert!(dirs.start_error().contains("belongs to node.id 2"));
    let other = format!("cluster.id={}", "x".repeat(22));
    let lines = meta
        .lines()
        .map(|l| if l.starts_with("cluster.id") { &other } else { l });
    std::fs::write(&meta_of_b, lines.collect::<Vec<_>>().join("\n")).expect("written");
    assert!(dirs.start_error().contains("belongs to cluster xxx"));
    std::fs::copy(dirs.a.join("meta.properties"), &meta_of_b).expect("copied");
    assert!(dirs.start_error().contains("have the same directory.id"));
    std::fs::write(&meta_of_b, &meta).expect("written");
    assert!(dirs.start().terminate().0.success());
}

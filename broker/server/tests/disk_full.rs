//! A full disk: writes fail, reads succeed, deleting records and topics frees space, writes resume once there is some, and
//! no acknowledged record is lost.
//!
//! Two ways make a disk full. A small tmpfs in a user namespace is full for every process, to the last block; not every
//! machine allows users to mount one. A limit on file sizes (`RLIMIT_FSIZE`) works everywhere and fails every write, but
//! no deletion can free space.

#![expect(
    clippy::disallowed_methods,
    reason = "tests of the real world: processes, sockets, directories"
)]

mod common;

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use brokkr_wire::ErrorCode;
use common::{Client, Running, fresh_dir, running, start, wait_until};
use rustix::process::{Resource, Rlimit, prlimit};

/// Larger than the free space that a block, or all tail blocks of files, may have left.
static VALUE: [u8; 20_000] = [7; 20_000];

/// A small file system, visible to the processes started in it. Dropping it unmounts it.
struct Tmpfs {
    holder: Child,
    dir: PathBuf,
}

impl Tmpfs {
    /// `None` on a machine that does not allow it.
    fn mount(name: &str, mib: u32) -> Option<Self> {
        let dir = fresh_dir(name);
        std::fs::create_dir_all(&dir).expect("made");
        let mount = format!("mount -t tmpfs -o size={mib}m tmpfs \"$0\" && echo mounted && exec cat");
        let holder = Command::new("unshare")
            .args(["--user", "--map-root-user", "--mount", "sh", "-c", &mount])
            .arg(&dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn();
        let mut holder = match holder {
            Ok(holder) => holder,
            Err(e) => {
                eprintln!("left out, no tmpfs of our own: {e}");
                return None;
            }
        };
        let mut said = String::new();
        let stdout = holder.stdout.take().expect("its stdout");
        BufReader::new(stdout).read_line(&mut said).expect("UTF-8");
        let tmpfs = Self { holder, dir };
        if said == "mounted\n" {
            return Some(tmpfs);
        }
        eprintln!("left out, no tmpfs of our own: this machine doesn't let its users mount one");
        None
    }

    fn broker(&self, more: &[&str]) -> Running {
        let mut command = Command::new("nsenter");
        command
            .args(["--user", "--mount", "--preserve-credentials", "--target"])
            .arg(self.holder.id().to_string())
            .arg(env!("CARGO_BIN_EXE_brokkr"))
            .args(["--listen", "127.0.0.1:0", "--data-dir"])
            .arg(self.dir.join("data"))
            .args(more);
        running(&mut command, &self.dir)
    }

    /// The path of a file of the mount, as seen from outside.
    fn path(&self, name: &str) -> PathBuf {
        let dir = self.dir.strip_prefix("/").expect("an absolute path");
        PathBuf::from(format!("/proc/{}/root", self.holder.id()))
            .join(dir)
            .join(name)
    }

    /// Fills the file system to the last block.
    fn fill(&self) {
        let mut filler = OpenOptions::new()
            .append(true)
            .create(true)
            .open(self.path("filler"))
            .expect("opened");
        for size in [1 << 20, 4096, 1] {
            while filler.write_all(&vec![0; size]).is_ok() {}
        }
    }

    /// Frees the space again.
    fn free(&self) {
        std::fs::remove_file(self.path("filler")).expect("removed");
    }

    /// Waits until the broker has created its reserve.
    fn wait_for_reserve(&self) {
        let last = self.path("data/brokkr-reserve-3");
        wait_until("the reserve is there", || {
            File::open(&last).is_ok_and(|f| f.metadata().is_ok_and(|m| m.len() == 1 << 20))
        });
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        drop(self.holder.kill());
        drop(self.holder.wait());
    }
}

/// Produces records until one fails. The acknowledged values are 0, 1, 2 …, each in the first byte.
fn produce_until_error(client: &mut Client, topic: &str, at_most: i64) -> (i64, ErrorCode) {
    let mut value = vec![0; 100_000];
    for i in 0..at_most {
        value[..8].copy_from_slice(&i.to_be_bytes());
        let answer = client.produce(topic, 0, &value);
        if answer.error_code != 0 {
            return (i, ErrorCode(answer.error_code));
        }
        assert_eq!(answer.base_offset, i);
    }
    panic!("{at_most} records fit");
}

fn assert_holds(client: &mut Client, topic: &str, count: i64) {
    let (records, _) = client.read(topic, 0, 0).expect("served");
    let found: Vec<_> = records
        .iter()
        .map(|(offset, value)| (offset.0, value[0]))
        .collect();
    let expected: Vec<_> = (0..count).map(|i| (i, VALUE[0])).collect();
    assert_eq!(found, expected);
}

/// Checks that hold on every full disk.
fn check_writes_fail_reads_succeed_and_writes_resume(broker: &Running, fill: impl Fn(), free: impl Fn()) {
    let client = &mut broker.client();
    assert_eq!(client.create("t", 1, &[]), (ErrorCode::NONE, None));
    for i in 0..20 {
        assert_eq!(client.produce("t", 0, &VALUE).base_offset, i);
    }
    for round in 0..3 {
        fill();
        for _ in 0..3 {
            let refused = client.produce("t", 0, &VALUE);
            assert_eq!(ErrorCode(refused.error_code), ErrorCode::KAFKA_STORAGE_ERROR);
            assert_eq!(refused.base_offset, -1);
        }
        assert_holds(client, "t", 20 + round);
        // The metadata log is on the same disk.
        let (code, _) = client.create("large", 100, &[]);
        assert_eq!(code, ErrorCode::KAFKA_STORAGE_ERROR);
        assert_eq!(
            client.partitions("large"),
            Err(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION)
        );
        free();
        let resumed = client.produce("t", 0, &VALUE);
        assert_eq!((resumed.error_code, resumed.base_offset), (0, 20 + round));
        assert_holds(client, "t", 21 + round);
    }
    assert_eq!(client.create("large", 100, &[]), (ErrorCode::NONE, None));
    assert_eq!(client.partitions("large"), Ok(100));
}

#[test]
fn a_file_size_limit_fails_writes_until_it_is_lifted() {
    let dir = fresh_dir("full-limit");
    let broker = start(&dir, &[]);
    let limit = |current: Option<u64>| {
        let limit = Rlimit {
            current,
            maximum: None,
        };
        prlimit(Some(broker.pid()), Resource::Fsize, limit).expect("a process may limit its child");
    };
    check_writes_fail_reads_succeed_and_writes_resume(&broker, || limit(Some(0)), || limit(None));
    broker.kill();
    let broker = start(&dir, &[]);
    assert_holds(&mut broker.client(), "t", 23);
    assert!(broker.terminate().0.success());
}

/// Failed requests in a row.
const ERRORS: usize = 100;
/// Minimum time between two log lines of one kind of error.
const LINE_EVERY: Duration = Duration::from_secs(10);

#[test]
fn errors_of_a_full_disk_are_logged_once_per_kind() {
    let dir = fresh_dir("full-log");
    let broker = start(&dir, &[]);
    let client = &mut broker.client();
    // The metadata log is larger than the limit; the broker's stderr has room for many lines below it.
    assert_eq!(client.create("t", 200, &[]), (ErrorCode::NONE, None));
    assert_eq!(client.produce("t", 0, &[7; 100_000]).error_code, 0);
    let begun = Instant::now();
    let limit = Rlimit {
        current: Some(10 << 10),
        maximum: None,
    };
    prlimit(Some(broker.pid()), Resource::Fsize, limit).expect("a process may limit its child");
    for _ in 0..ERRORS {
        let failed = ErrorCode::KAFKA_STORAGE_ERROR;
        assert_eq!(client.create("u", 1, &[]).0, failed);
        assert_ne!(client.init_producer_id(-1, -1), ErrorCode::NONE);
        assert_eq!(ErrorCode(client.produce("t", 0, &VALUE).error_code), failed);
    }
    let lines_max = 1 + (begun.elapsed().as_secs() / LINE_EVERY.as_secs()) as usize;
    for kind in ["metadata not changed", "append failed"] {
        let lines = broker.lines_with(kind);
        assert!((1..=lines_max).contains(&lines), "{kind}: {lines} lines");
    }
    // Nothing else is logged for each error.
    assert!(broker.log().lines().count() < ERRORS, "{}", broker.log());
}

#[test]
fn a_full_disk_fails_writes_until_there_is_space() {
    let Some(disk) = Tmpfs::mount("full-room", 32) else {
        return;
    };
    let broker = disk.broker(&[]);
    disk.wait_for_reserve();
    check_writes_fail_reads_succeed_and_writes_resume(&broker, || disk.fill(), || disk.free());
    broker.kill();
    let broker = disk.broker(&[]);
    assert_holds(&mut broker.client(), "t", 23);
    assert!(broker.terminate().0.success());
}

#[test]
fn space_can_be_freed_on_a_disk_that_is_full_to_the_last_block() {
    let Some(disk) = Tmpfs::mount("full-delete", 32) else {
        return;
    };
    let soon = [
        "--set",
        "log.retention.check.interval.ms=100",
        "--set",
        "log.segment.delete.delay.ms=0",
    ];
    let broker = disk.broker(&soon);
    disk.wait_for_reserve();
    let client = &mut broker.client();
    for topic in ["a", "b"] {
        assert_eq!(
            client
                .create(topic, 1, &[("segment.bytes", "1048576"), ("retention.ms", "-1")])
                .0,
            ErrorCode::NONE
        );
    }
    for i in 0..50 {
        assert_eq!(client.produce("b", 0, &[7; 100_000]).base_offset, i);
    }
    let (count, code) = produce_until_error(client, "a", 1000);
    assert_eq!(code, ErrorCode::KAFKA_STORAGE_ERROR);
    disk.fill();

    // Delete records.
    assert_eq!(client.delete_records("a", 0, count - 20), Ok(count - 20));
    wait_until("there is room again", || {
        client.produce("a", 0, &VALUE).error_code == 0
    });
    let (records, log_start) = client.read("a", 0, count - 20).expect("served");
    assert_eq!(log_start, count - 20);
    assert!(records.len() >= 21, "{}", records.len());
    for ((offset, value), i) in records.iter().zip(count - 20..count) {
        assert_eq!((offset.0, &value[..8]), (i, &i.to_be_bytes()[..]));
    }

    // A start needs a few blocks, too.
    disk.fill();
    broker.kill();
    let broker = disk.broker(&soon);
    let client = &mut broker.client();
    assert_holds(client, "b", 50);

    // Delete a topic.
    disk.fill();
    assert_eq!(client.delete_topic("b"), ErrorCode::NONE);
    wait_until("there is room again", || {
        client.produce("a", 0, &VALUE).error_code == 0
    });
    assert_eq!(client.partitions("b"), Err(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION));
    assert!(broker.terminate().0.success());
}

//! A temporary lack of file descriptors: operations that need one fail and are retried, all others continue, and no
//! restart is needed.

#![expect(
    clippy::disallowed_methods,
    reason = "tests of the real world: processes, sockets, directories"
)]

mod common;

use std::time::{Duration, Instant};

use brokkr_wire::ErrorCode;
use brokkr_wire::messages::ApiVersionsRequest;
use common::{Client, Running, fresh_dir, start, wait_until};
use rustix::process::{Resource, Rlimit, getrlimit, prlimit};

const PARTITIONS: i32 = 20;
/// Minimum time between two log lines of one kind of error.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// Limits the broker's open files to fewer than it has, or to the limit at its start.
fn limit(broker: &Running, open_files_max: Option<u64>) {
    // The hard limit stays: not every user may raise it again.
    let at_start = getrlimit(Resource::Nofile).maximum;
    let limit = Rlimit {
        current: open_files_max.or(at_start),
        maximum: at_start,
    };
    prlimit(Some(broker.pid()), Resource::Nofile, limit).expect("a process may limit its child");
}

/// How many of these batches of 300,000 bytes are acknowledged. Segments of 1 MiB roll among them.
fn acknowledged(client: &mut Client, batches: usize) -> usize {
    let taken = (0..batches).filter(|_| {
        let code = ErrorCode(client.produce("old", 0, &[7; 300_000]).error_code);
        assert!(
            [ErrorCode::NONE, ErrorCode::KAFKA_STORAGE_ERROR].contains(&code),
            "{code}"
        );
        code == ErrorCode::NONE
    });
    taken.count()
}

fn assert_holds(client: &mut Client, topic: &str, partition: i32, records: usize) {
    let (found, _) = client.read(topic, partition, 0).expect("served");
    assert_eq!(found.len(), records, "{topic}-{partition}");
}

#[test]
fn after_a_lack_of_descriptors_creations_are_retried_and_nothing_is_poisoned() {
    let dir = fresh_dir("open-files");
    let broker = start(&dir, &[]);
    let client = &mut broker.client();
    let small = [("segment.bytes", "1048576")];
    assert_eq!(client.create("old", 1, &small).0, ErrorCode::NONE);
    let mut records = acknowledged(client, 10);
    assert_eq!(records, 10);

    let begun = Instant::now();
    limit(&broker, Some(3));
    assert_eq!(client.create("new", PARTITIONS, &[]).0, ErrorCode::NONE);
    for partition in 0..PARTITIONS {
        let refused = client.produce("new", partition, b"early");
        assert_eq!(ErrorCode(refused.error_code), ErrorCode::KAFKA_STORAGE_ERROR);
    }
    records += acknowledged(client, 10);
    // Accepted once a descriptor is free.
    let mut waiting = broker.client();
    assert!(waiting.try_send(&ApiVersionsRequest::default(), 0));
    let lines_max = 1 + (begun.elapsed().as_secs() / LINE_EVERY.as_secs()) as usize;
    let lines = broker.lines_with("offline: its log can't be opened now; tried again");
    assert!(
        (1..=lines_max).contains(&lines),
        "{lines} lines: {}",
        broker.log()
    );

    limit(&broker, None);
    assert!(waiting.frame().is_some());
    for partition in 0..PARTITIONS {
        wait_until("the new topic is served", || {
            client.produce("new", partition, b"value").error_code == 0
        });
        assert_holds(client, "new", partition, 1);
    }
    assert_eq!(acknowledged(client, 10), 10);
    records += 10;
    assert_holds(client, "old", 0, records);
    assert_eq!(client.create("third", 1, &[]).0, ErrorCode::NONE);
    assert_eq!(client.produce("third", 0, b"value").error_code, 0);
    assert_eq!(client.delete_topic("third"), ErrorCode::NONE);
    assert!(!broker.log().contains("poisoned"), "{}", broker.log());
    assert!(broker.terminate().0.success());

    let broker = start(&dir, &[]);
    let client = &mut broker.client();
    assert_holds(client, "old", 0, records);
    for partition in 0..PARTITIONS {
        assert_holds(client, "new", partition, 1);
    }
}

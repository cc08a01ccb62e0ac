//! Limits of one peer: connections, time, memory. A peer that exceeds one is disconnected; the others are served.

#![expect(clippy::disallowed_methods, reason = "tests of the real world wait in it")]

mod common;

use std::path::Path;
use std::time::{Duration, Instant};

use brokkr_wire::ErrorCode;
use brokkr_wire::messages::{ApiVersionsRequest, FetchRequest};
use common::{Client, Running, fresh_dir, start, wait_until};

fn with(name: &str, settings: &[&str]) -> Running {
    let sets: Vec<_> = settings.iter().flat_map(|s| ["--set", *s]).collect();
    start(&fresh_dir(name), &sets)
}

fn is_served(client: &mut Client) {
    assert_eq!(client.call(&ApiVersionsRequest::default(), 0).error_code, 0);
}

/// Whether a new connection is served and not closed at once.
fn can_connect(broker: &Running) -> bool {
    let mut client = broker.client();
    client.try_send(&ApiVersionsRequest::default(), 0) && client.frame().is_some()
}

#[test]
fn connections_are_limited_and_a_closed_one_frees_its_slot() {
    for (name, limit) in [
        ("limits-all", "max.connections=3"),
        ("limits-ip", "max.connections.per.ip=3"),
    ] {
        let broker = with(name, &[limit]);
        let mut served: Vec<_> = (0..3).map(|_| broker.client()).collect();
        served.iter_mut().for_each(is_served);
        for _ in 0..5 {
            assert!(!can_connect(&broker), "{limit}");
        }
        served.iter_mut().for_each(is_served);
        drop(served.pop());
        wait_until("the place is free", || can_connect(&broker));
        assert_eq!(
            broker.log().lines().count(),
            1,
            "one line for them all: {}",
            broker.log()
        );
    }
}

#[test]
fn idle_connections_are_closed_and_active_ones_are_not() {
    let broker = with("limits-idle", &["connections.max.idle.ms=600"]);
    let (mut idle, mut busy) = (broker.client(), broker.client());
    is_served(&mut idle);
    let begun = Instant::now();
    idle.set_nonblocking();
    wait_until("the idle one is dropped", || {
        is_served(&mut busy);
        idle.is_closed()
    });
    assert!(
        begun.elapsed() >= Duration::from_millis(500),
        "{:?}",
        begun.elapsed()
    );
    is_served(&mut busy);
    // An incomplete frame does not count as activity.
    let mut begun = broker.client();
    begun.raw(&[0, 0, 1, 0, 9]);
    begun.set_nonblocking();
    wait_until("a connection with an incomplete frame is closed", || {
        begun.is_closed()
    });
}

#[test]
fn a_peer_that_reads_no_responses_is_dropped() {
    let broker = with("limits-slow", &["connections.max.idle.ms=1000"]);
    let mut slow = broker.client();
    slow.set_nonblocking();
    let mut other = broker.client();
    wait_until("it is dropped", || {
        // As many as fit; a failed send does not matter here.
        while slow.try_send(&ApiVersionsRequest::default(), 0) {}
        is_served(&mut other);
        broker.log().contains("slow reader dropped")
    });
    assert!(broker.resident_mib() < 100, "{} MiB", broker.resident_mib());
}

#[test]
fn a_stalled_frame_is_evicted_and_small_requests_have_a_reserve() {
    let broker = with("limits-memory", &["queued.max.request.bytes=1000000"]);
    let (mut small, mut second) = (broker.client(), broker.client());
    assert!(small.create("t", 1, &[("retention.ms", "-1")]).0 == brokkr_wire::ErrorCode::NONE);
    // Holds most of the pool of buffers, and sends nothing more.
    let mut first = broker.client();
    first.raw(&900_000u32.to_be_bytes());
    first.raw(&[0; 200_000]);
    first.set_nonblocking();
    // Repeated: the second may arrive before the broker has read all of the first, or while both wait for each other. Then
    // the second is evicted, for the first is older.
    wait_until("the first gives way", || {
        is_served(&mut small);
        match second.try_produce("t", 0, &[1; 200_000]) {
            Some(answer) => assert_eq!(answer.error_code, 0),
            None => second = broker.client(),
        }
        first.is_closed()
    });
    assert_eq!(broker.client().produce("t", 0, &[1; 200_000]).error_code, 0);
}

/// Each holds memory that the others wait for: one at a time is evicted and retries.
#[test]
fn frames_that_wait_for_each_other_all_arrive() {
    check_all_arrive("limits-frames", 100_000);
}

/// None can arrive while another one holds a part of the pool.
#[test]
fn frames_larger_than_their_pool_all_arrive() {
    check_all_arrive("limits-large-frames", 400_000);
}

/// The pool of buffers has 187,500 bytes.
fn check_all_arrive(name: &str, bytes: usize) {
    let broker = with(name, &["queued.max.request.bytes=1000000"]);
    assert!(broker.client().create("t", 1, &[]).0 == brokkr_wire::ErrorCode::NONE);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let begun = Instant::now();
                let mut client = broker.client();
                for _ in 0..3 {
                    while client.try_produce("t", 0, &vec![1; bytes]).is_none() {
                        assert!(begun.elapsed() < common::PATIENCE, "nothing arrives");
                        client = broker.client();
                    }
                }
            });
        }
    });
    is_served(&mut broker.client());
}

#[test]
fn a_frame_above_the_limit_is_rejected() {
    let broker = with("limits-frame", &["socket.request.max.bytes=10000"]);
    let mut peer = broker.client();
    peer.raw(&10_001u32.to_be_bytes());
    assert_eq!(peer.frame(), None);
    is_served(&mut broker.client());
}

/// Open files of this process that were deleted.
fn open_without_name(broker: &Running, dir: &Path) -> Vec<String> {
    let open = format!("/proc/{}/fd", broker.pid().as_raw_nonzero());
    let open = std::fs::read_dir(open).expect("it lives").flatten();
    let paths =
        open.filter_map(|fd| Some(std::fs::read_link(fd.path()).ok()?.to_string_lossy().into_owned()));
    let dir = dir.to_string_lossy();
    paths
        .filter(|path| path.starts_with(&*dir) && path.ends_with("(deleted)"))
        .collect()
}

#[test]
fn deleted_files_are_closed_though_clients_stay_connected() {
    let path = fresh_dir("limits-deleted");
    let broker = start(&path, &["--set", "log.segment.delete.delay.ms=1"]);
    let mut client = broker.client();
    for name in ["kept", "gone"] {
        assert_eq!(client.create(name, 2, &[]).0, brokkr_wire::ErrorCode::NONE);
    }
    let mut idle: Vec<_> = (0..4).map(|_| broker.client()).collect();
    for (at, client) in idle.iter_mut().enumerate() {
        for name in ["kept", "gone"].iter().take(1 + at % 2) {
            assert_eq!(client.produce(name, 0, b"v").error_code, 0);
            client.call(&common::fetch_of(name, 0), 11);
        }
    }
    assert_eq!(client.delete_topic("gone"), brokkr_wire::ErrorCode::NONE);
    let is_of_it = |name: std::ffi::OsString| name.to_string_lossy().starts_with("gone-");
    let has_it = || {
        std::fs::read_dir(&path)
            .expect("the directory")
            .flatten()
            .any(|e| is_of_it(e.file_name()))
    };
    wait_until("it is deleted", || !has_it());
    wait_until("all of it is closed", || {
        open_without_name(&broker, &path).is_empty()
    });
    idle.iter_mut().for_each(is_served);
}

#[test]
fn a_fetch_of_many_partitions_waits_for_records() {
    // As with the default limit and a thousand partitions.
    let limit = "brokkr.limit.connection.decoded.bytes=1";
    let broker = start(&fresh_dir("limits-fetch-waits"), &["--set", limit]);
    let mut client = broker.client();
    assert_eq!(client.create("t", 1, &[]).0, ErrorCode::NONE);
    let request = FetchRequest {
        max_wait_ms: 500,
        min_bytes: 1,
        ..common::fetch_of("t", 0)
    };
    let begun = Instant::now();
    assert_eq!(client.call(&request, 11).error_code, 0);
    assert!(
        begun.elapsed() >= Duration::from_millis(500),
        "{:?}",
        begun.elapsed()
    );
}

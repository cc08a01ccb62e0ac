//! Slow peers, by the world's clock: the broker drops a peer that stops, and keeps one that makes progress.

mod common;

use std::time::Duration;

use brokkr_env::{Conn, Env, Part as EnvPart, ReadHalf, WriteHalf};
use brokkr_sim::env::{SimConn, SimEnv, SimReadHalf, SimWriteHalf};
use brokkr_sim::exec::Nanos;
use brokkr_sim::net::{BUFFER_BYTES, addr_of};
use brokkr_sim::world::World;
use brokkr_wire::frame::{decode_response_header, encode_request};
use brokkr_wire::messages::{DescribeLogDirsRequest, ProduceResponse};
use brokkr_wire::{ApiKey, ErrorCode, Message, Part, Reader, Request};
use bytes::{Bytes, BytesMut};
use common::*;

/// A connection that sends and reads raw bytes.
async fn raw(world: &World) -> (SimReadHalf, SimWriteHalf) {
    let host = addr_of(SERVER, PORT).ip().to_string();
    let conn: SimConn = world.env(CLIENT).connect(&host, PORT).await.expect("it listens");
    conn.split()
}

async fn send(write: &mut SimWriteHalf, bytes: Bytes) -> bool {
    write.write(vec![EnvPart::<SimEnv>::Bytes(bytes)]).await.is_ok()
}

/// The next bytes, at most `max`; `None` if the broker has closed the connection.
async fn read(read: &mut SimReadHalf, max: usize) -> Option<Bytes> {
    let mut buf = BytesMut::with_capacity(max);
    let n = read.read(&mut buf).await.ok()?;
    (n > 0).then(|| buf.freeze())
}

/// A request's frame, including its size field.
fn frame<R: Request>(request: &R, version: i16) -> Bytes {
    let mut frame = BytesMut::new();
    for part in encode_request(request, version, 1, None).expect("encodable") {
        let Part::Bytes(bytes) = part else {
            panic!("no file goes out here")
        };
        frame.extend_from_slice(&bytes);
    }
    frame.freeze()
}

/// A Produce of a batch of the topic's maximum size.
fn large_produce(world: &World, version: i16) -> Bytes {
    let batch = batch(world.env(CLIENT).wall(), None, &[7; 1_000_000]);
    frame(&produce_of("t", 0, batch, 30_000), version)
}

/// Sends a frame at this rate until the broker responds or closes the connection: returns the response, and the time it took.
async fn trickle(world: &World, mut frame: Bytes, bytes_per_s: usize) -> (Option<Bytes>, Nanos) {
    let (mut reads, mut writes) = raw(world).await;
    let begun = world.exec().now();
    let env = world.env(CLIENT);
    let sending = async {
        while !frame.is_empty() && send(&mut writes, frame.split_to(bytes_per_s.min(frame.len()))).await {
            env.sleep_until(env.now() + Duration::from_secs(1)).await;
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        biased;
        answer = read(&mut reads, 1000) => (answer, world.exec().now() - begun),
        () = sending => unreachable!("it ends never"),
    }
}

#[test]
fn a_slow_frame_ends_its_connection_at_its_deadline() {
    beside_a_broker(600, &[], |world, client| async move {
        assert_eq!(client.create("t", 1).await, ErrorCode::NONE);
        // 60 s, and a second for each 16 KiB.
        let deadline = 60 + large_produce(&world, 11).len() as u64 / (16 << 10);
        let (answer, took) = trickle(&world, large_produce(&world, 11), 1000).await;
        assert_eq!(answer, None);
        assert!(
            (deadline * SECOND..(deadline + 1) * SECOND).contains(&took),
            "{took} ns, not {deadline} s"
        );
        let (answer, took) = trickle(&world, large_produce(&world, 11), 9000).await;
        assert!((100 * SECOND..deadline * SECOND).contains(&took), "{took} ns");
        let mut r = Reader::new(answer.expect("it arrived in time").slice(4..));
        decode_response_header(&mut r, ApiKey::Produce, 11).expect("a header");
        let answer = produced(ProduceResponse::decode(&mut r, 11).expect("a body"));
        assert_eq!((answer.error_code, answer.base_offset), (0, 0));
    });
}

const IDLE_MAX_MS: &[(&str, &str)] = &[("connections.max.idle.ms", "3000")];

/// A connection with a response of about a megabyte in flight.
async fn with_a_response(world: &World) -> SimReadHalf {
    let (reads, mut writes) = raw(world).await;
    assert!(send(&mut writes, frame(&fetch_of("t", 0, 0, 0), 12)).await);
    // Only the peer's reads matter: this half stays open until the world ends.
    std::mem::forget(writes);
    reads
}

#[test]
fn only_a_reader_that_stops_is_dropped() {
    beside_a_broker(600, IDLE_MAX_MS, |world, client| async move {
        assert_eq!(client.create("t", 1).await, ErrorCode::NONE);
        let large = batch(world.env(CLIENT).wall(), None, &[7; 1_000_000]);
        assert_eq!(client.produce_batch("t", 0, large).await, ErrorCode::NONE);
        let mut slow = with_a_response(&world).await;
        let (mut got, mut size) = (0, None);
        while size.is_none_or(|size| got < size) {
            let bytes = read(&mut slow, 20_000).await.expect("it is not dropped");
            size = size.or_else(|| Some(4 + u32::from_be_bytes(*bytes.first_chunk()?) as usize));
            got += bytes.len();
            pause(&world, 1).await;
        }
        assert_eq!(size, Some(got));
        assert!(got > 1_000_000, "{got}");
        let mut stopped = with_a_response(&world).await;
        assert!(read(&mut stopped, 20_000).await.is_some());
        pause(&world, 8).await;
        let mut more = 0;
        while let Some(bytes) = read(&mut stopped, 1 << 20).await {
            more += bytes.len();
        }
        assert!(more <= BUFFER_BYTES, "{more} bytes came after all");
    });
}

#[test]
fn a_produce_to_a_topic_deleted_meanwhile_is_answered_in_every_version() {
    beside_a_broker(600, &[], |world, client| async move {
        let admin = Client::connected(&world).await;
        for version in 3..=12 {
            assert_eq!(admin.create("t", 1).await, ErrorCode::NONE);
            // The first append makes the log: that is not what is to be slow.
            let first = batch(world.env(CLIENT).wall(), None, &[7; 10]);
            assert_eq!(admin.produce_batch("t", 0, first).await, ErrorCode::NONE);
            // A megabyte takes two seconds now, and a change of the metadata less than one.
            let slow = |times| {
                let until = world.exec().now() + 3600 * SECOND;
                world.lock().disks.get_mut(&SERVER).expect("its disk").slow = (until, times);
            };
            slow(1000);
            let large = batch(world.env(CLIENT).wall(), None, &[7; 1_000_000]);
            let under_way = client.submit(produce_of("t", 0, large, 30_000), version);
            pause_ms(&world, 50).await;
            let deleted = admin.submit(delete_of("t"), 6);
            let answer = produced(under_way.await.expect("answered"));
            let code = ErrorCode(answer.error_code);
            assert_eq!(code, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, "version {version}");
            slow(1);
            assert_eq!(deleted.await.expect("answered").responses[0].error_code, 0);
        }
    });
}

#[test]
fn many_partitions_are_described_in_several_polls() {
    beside_a_broker(600, &[], |world, client| async move {
        const ASKS: u64 = 40;
        let polls_of_asks = async || {
            let before = world.exec().polls();
            for _ in 0..ASKS {
                let request = DescribeLogDirsRequest {
                    topics: None,
                    ..Default::default()
                };
                assert_eq!(client.ask(request, 4).await.results[0].error_code, 0);
            }
            world.exec().polls() - before
        };
        assert_eq!(client.create("few", 10).await, ErrorCode::NONE);
        let few = polls_of_asks().await;
        assert_eq!(client.create("many", 1200).await, ErrorCode::NONE);
        let many = polls_of_asks().await;
        // Four yields in 1,200 steps; the number of polls varies a little by chance.
        assert!(many > few + 3 * ASKS, "{few}, then {many} polls");
    });
}

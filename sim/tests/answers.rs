//! When the broker responds, by the world's clock, and the order in which requests of one connection take effect.

mod common;

use brokkr_env::Env;
use brokkr_sim::env::SimEnv;
use brokkr_sim::exec::Nanos;
use brokkr_sim::node::{self, Started};
use brokkr_sim::world::World;
use brokkr_wire::ErrorCode;
use brokkr_wire::Str;
use brokkr_wire::messages::fetch_response::PartitionData;
use brokkr_wire::messages::offset_for_leader_epoch_request::{
    OffsetForLeaderPartition, OffsetForLeaderTopic,
};
use brokkr_wire::messages::{FetchRequest, OffsetForLeaderEpochRequest};
use common::*;

fn env(world: &World) -> SimEnv {
    world.env(CLIENT)
}

/// A batch with the current timestamp.
fn now(world: &World, bytes: usize) -> bytes::Bytes {
    batch(env(world).wall(), None, &vec![7; bytes])
}

/// No disk operation of the broker completes for this many seconds.
fn hang(world: &World, secs: u64) {
    let until = world.exec().now() + secs * SECOND;
    let mut state = world.lock();
    state.disks.get_mut(&SERVER).expect("its disk").hangs_until = until;
}

/// The response to a fetch for its first partition, and how long it took.
async fn fetched(world: &World, client: &Client, request: FetchRequest) -> (PartitionData, Nanos) {
    let begun = world.exec().now();
    let mut response = client.ask(request, 12).await;
    let partition = response.responses.remove(0).partitions.remove(0);
    (partition, world.exec().now() - begun)
}

/// Like [`fetch_of`], from a fetcher with this last epoch in its log.
fn behind(fetch_offset: i64, last_fetched_epoch: i32) -> FetchRequest {
    let mut request = fetch_of("t", 0, fetch_offset, 10_000);
    request.topics[0].partitions[0].last_fetched_epoch = last_fetched_epoch;
    request
}

/// Topic `t` with three records of leader epoch 0, two of them deleted; its leader's epoch is 2, and epoch 1 has no records.
async fn with_epochs(world: &World, client: Client) -> Client {
    assert_eq!(client.create("t", 1).await, ErrorCode::NONE);
    for _ in 0..3 {
        assert_eq!(client.produce("t", 0, &["value"]).await.0, ErrorCode::NONE);
    }
    for _ in 0..2 {
        world.end_quietly(SERVER);
        let (_, started) = node::start(world, SERVER, config("data", &[]));
        assert_eq!(started.await, Ok(Started::Ready));
    }
    let client = Client::connected(world).await;
    let deleted = client.ask(delete_records_of("t", 0, 2), 2).await;
    assert_eq!(deleted.topics[0].partitions[0].low_watermark, 2);
    client
}

#[test]
fn a_diverging_fetch_is_answered_at_once() {
    beside_a_broker(60, &[], |world, client| async move {
        let client = with_epochs(&world, client).await;
        // There is nothing to read, so without the divergence each fetch would wait.
        for (offset, epoch, diverging) in [(3, 1, (0, 3)), (10, 2, (2, 3))] {
            let (found, took) = fetched(&world, &client, behind(offset, epoch)).await;
            let at = found.diverging_epoch;
            assert_eq!(
                (found.error_code, at.epoch, at.end_offset),
                (0, diverging.0, diverging.1)
            );
            assert!(took < SECOND, "{took} ns");
        }
        let (found, took) = fetched(&world, &client, behind(3, 2)).await;
        assert_eq!((found.error_code, found.diverging_epoch.epoch), (0, -1));
        assert!(took >= 10 * SECOND, "{took} ns");
    });
}

#[test]
fn a_fetch_before_the_log_start_is_out_of_range_even_if_it_diverges() {
    beside_a_broker(60, &[], |world, client| async move {
        let client = with_epochs(&world, client).await;
        let (found, _) = fetched(&world, &client, behind(2, 1)).await;
        assert_eq!((found.error_code, found.diverging_epoch.epoch), (0, 0));
        let (found, _) = fetched(&world, &client, behind(1, 1)).await;
        assert_eq!(ErrorCode(found.error_code), ErrorCode::OFFSET_OUT_OF_RANGE);
        assert_eq!(found.diverging_epoch.epoch, -1);
    });
}

#[test]
fn the_waits_of_pipelined_fetches_do_not_add_up() {
    beside_a_broker(60, &[], |world, client| async move {
        assert_eq!(client.create("t", 1).await, ErrorCode::NONE);
        let begun = world.exec().now();
        let replies: Vec<_> = (0..3)
            .map(|_| client.submit(fetch_of("t", 0, 0, 2000), 12))
            .collect();
        for reply in replies {
            reply.await.expect("answered");
            let took = world.exec().now() - begun;
            assert!((2 * SECOND..3 * SECOND).contains(&took), "{took} ns");
        }
    });
}

#[test]
fn the_timeouts_of_pipelined_produces_do_not_add_up() {
    beside_a_broker(60, &[], |world, client| async move {
        assert_eq!(client.create("t", 1).await, ErrorCode::NONE);
        hang(&world, 30);
        let begun = world.exec().now();
        let replies: Vec<_> = (0..3)
            .map(|_| client.submit(produce_of("t", 0, now(&world, 10), 2000), 11))
            .collect();
        for reply in replies {
            let answer = produced(reply.await.expect("answered"));
            assert_eq!(ErrorCode(answer.error_code), ErrorCode::REQUEST_TIMED_OUT);
            let took = world.exec().now() - begun;
            assert!((2 * SECOND..3 * SECOND).contains(&took), "{took} ns");
        }
    });
}

#[test]
fn pipelined_requests_take_effect_in_order() {
    beside_a_broker(60, &[], |world, client| async move {
        let produce = || client.submit(produce_of("t", 0, now(&world, 10), 30_000), 11);
        // Each request is sent before the response to the previous one.
        let create = client.submit(create_of("t", 1, 1, &[]), 7);
        let first = produce();
        let delete_records = client.submit(delete_records_of("t", 0, -1), 2);
        let second = produce();
        let delete = client.submit(delete_of("t"), 6);
        let into_nothing = produce();
        let again = client.submit(create_of("t", 1, 1, &[]), 7);
        let anew = produce();
        let code = |code: i16| ErrorCode(code);
        assert_eq!(
            code(create.await.expect("answered").topics[0].error_code),
            ErrorCode::NONE
        );
        let first = produced(first.await.expect("answered"));
        assert_eq!((code(first.error_code), first.base_offset), (ErrorCode::NONE, 0));
        let deleted = delete_records.await.expect("answered");
        assert_eq!(deleted.topics[0].partitions[0].low_watermark, 1);
        let second = produced(second.await.expect("answered"));
        assert_eq!(
            (code(second.error_code), second.base_offset),
            (ErrorCode::NONE, 1)
        );
        assert_eq!(second.log_start_offset, 1);
        assert_eq!(
            code(delete.await.expect("answered").responses[0].error_code),
            ErrorCode::NONE
        );
        let into_nothing = produced(into_nothing.await.expect("answered"));
        assert_eq!(
            code(into_nothing.error_code),
            ErrorCode::UNKNOWN_TOPIC_OR_PARTITION
        );
        assert_eq!(
            code(again.await.expect("answered").topics[0].error_code),
            ErrorCode::NONE
        );
        let anew = produced(anew.await.expect("answered"));
        assert_eq!((code(anew.error_code), anew.base_offset), (ErrorCode::NONE, 0));
    });
}

#[test]
fn a_fetch_of_a_quiet_partition_waits_although_another_is_unknown() {
    beside_a_broker(60, &[], |world, client| async move {
        assert_eq!(client.create("t", 1).await, ErrorCode::NONE);
        let both = |max_wait_ms| {
            let mut request = fetch_of("t", 7, 0, max_wait_ms);
            let quiet = fetch_of("t", 0, 0, 0).topics.remove(0).partitions.remove(0);
            request.topics[0].partitions.push(quiet);
            request
        };
        let (unknown, took) = fetched(&world, &client, both(5000)).await;
        assert_eq!(
            ErrorCode(unknown.error_code),
            ErrorCode::UNKNOWN_TOPIC_OR_PARTITION
        );
        assert!(took >= 5 * SECOND, "{took} ns");
        // The fetch waits for data of the quiet partition, not only for the timeout.
        let begun = world.exec().now();
        let waits = client.submit(both(20_000), 12);
        pause(&world, 1).await;
        let another = Client::connected(&world).await;
        assert_eq!(another.produce("t", 0, &["value"]).await.0, ErrorCode::NONE);
        let found = waits.await.expect("answered").responses.remove(0).partitions;
        assert!(world.exec().now() - begun < 3 * SECOND);
        assert_eq!(
            ErrorCode(found[0].error_code),
            ErrorCode::UNKNOWN_TOPIC_OR_PARTITION
        );
        assert!(
            found[1]
                .records
                .as_ref()
                .is_some_and(|records| !records.is_empty())
        );
    });
}

/// More than a log stages and its owner's queue holds: the last batch waits for all others.
const BATCHES_OF_A_CLIENT: usize = 6;
const BATCH_BYTES: usize = 1_000_000;

#[test]
fn log_append_time_is_the_time_of_the_append_and_not_of_the_arrival() {
    beside_a_broker(60, &[], |world, client| async move {
        let by_the_log = [("message.timestamp.type", "LogAppendTime")];
        assert_eq!(client.create_with("t", 1, 1, &by_the_log).await, ErrorCode::NONE);
        // The first append makes the log: that is not what is to hang.
        assert_eq!(client.produce("t", 0, &["first"]).await.0, ErrorCode::NONE);
        hang(&world, 10);
        let resumes = env(&world).wall().0 + 10_000;
        let (mut clients, mut large) = (Vec::new(), Vec::new());
        for _ in 0..4 {
            let client = Client::connected(&world).await;
            let produce = || client.submit(produce_of("t", 0, now(&world, BATCH_BYTES), 30_000), 11);
            large.extend((0..BATCHES_OF_A_CLIENT).map(|_| produce()));
            clients.push(client);
        }
        pause(&world, 5).await;
        let last = client
            .try_produce("t", 0, now(&world, 10))
            .await
            .expect("answered");
        assert_eq!((last.error_code, last.base_offset), (0, 25));
        assert!(
            last.log_append_time_ms >= resumes,
            "{} ms too early",
            resumes - last.log_append_time_ms
        );
        for reply in large {
            let answer = produced(reply.await.expect("answered"));
            assert_eq!(answer.error_code, 0);
            assert!(answer.log_append_time_ms <= last.log_append_time_ms);
        }
    });
}

/// The end of leader epoch 0 in OffsetForLeaderEpoch.
async fn end_of_epoch_0(client: &Client) -> i64 {
    let asked = OffsetForLeaderPartition {
        partition: 0,
        current_leader_epoch: -1,
        leader_epoch: 0,
        ..Default::default()
    };
    let topic = OffsetForLeaderTopic {
        topic: Str::from_static("t"),
        partitions: vec![asked],
        ..Default::default()
    };
    let request = OffsetForLeaderEpochRequest {
        topics: vec![topic],
        ..Default::default()
    };
    let told = client.ask(request, 4).await.topics.remove(0).partitions.remove(0);
    assert_eq!((told.error_code, told.leader_epoch), (0, 0));
    told.end_offset
}

#[test]
fn offset_for_leader_epoch_and_a_diverging_fetch_agree_on_the_log_end_past_the_high_watermark() {
    beside_a_broker(600, &[], |world, client| async move {
        assert_eq!(client.create("t", 1).await, ErrorCode::NONE);
        let reader = Client::connected(&world).await;
        let until = world.exec().now() + 600 * SECOND;
        world.lock().disks.get_mut(&SERVER).expect("its disk").slow = (until, 50);
        let mut past_the_high_watermark = 0;
        for _ in 0..30 {
            // The second batch is large enough that it is written while the first is synced.
            let first = client.submit(produce_of("t", 0, now(&world, 10), 30_000), 11);
            let second = client.submit(produce_of("t", 0, now(&world, 100_000), 30_000), 11);
            assert_eq!(produced(first.await.expect("answered")).error_code, 0);
            let (before, _) = fetched(&world, &reader, behind(1000, 0)).await;
            let end = end_of_epoch_0(&reader).await;
            let (after, _) = fetched(&world, &reader, behind(1000, 0)).await;
            let told = |found: &PartitionData| (found.high_watermark, found.diverging_epoch.end_offset);
            if told(&before) == told(&after) {
                let (high_watermark, end_of_fetch) = told(&before);
                assert_eq!(end, end_of_fetch);
                past_the_high_watermark += u64::from(end > high_watermark);
            }
            assert_eq!(produced(second.await.expect("answered")).error_code, 0);
        }
        assert!(past_the_high_watermark > 0, "they never differed");
    });
}

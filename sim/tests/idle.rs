//! A producer that stays connected without sending, and S1: files of the topics that it wrote to are deleted; the producer neither
//! holds them nor hides a leak.

mod common;

use brokkr_sim::leftovers::{self, LiveTopics};
use brokkr_sim::world::World;
use brokkr_wire::ErrorCode;
use common::*;

/// The producer's node.
const IDLE: u32 = 3;
/// Longer than `file.delete.delay.ms`, and than the interval of retention.
const DELAY_SECS: u64 = 100;

/// The leftovers, while these nodes have not left.
fn left(world: &World, live: &LiveTopics, nodes: &[u32]) -> Vec<String> {
    leftovers::in_world(world, &["data".to_owned()], live, nodes)
}

/// Topics of one partition, by name.
async fn live(client: &Client, names: &[&str]) -> LiveTopics {
    let mut live = LiveTopics::new();
    for name in names {
        live.insert((*name).to_owned(), (client.metadata(name).await.topic_id, 1));
    }
    live
}

#[test]
fn an_idle_producer_holds_no_deleted_files_and_hides_no_leak() {
    let more = &[
        ("log.retention.check.interval.ms", "1000"),
        ("log.retention.ms", "-1"),
    ];
    beside_a_broker(600, more, |world, client| async move {
        let small = [("segment.bytes", "1048576"), ("file.delete.delay.ms", "60000")];
        for topic in ["stays", "goes", "leaks"] {
            assert_eq!(client.create_with(topic, 1, 1, &small).await, ErrorCode::NONE);
        }
        let producer = Client::connected_from(IDLE, &world, PORT)
            .await
            .expect("it listens");
        let value = "x".repeat(400_000);
        for topic in ["stays", "goes", "leaks"] {
            for offset in 0..6 {
                assert_eq!(
                    producer.produce(topic, 0, &[&value]).await,
                    (ErrorCode::NONE, offset)
                );
            }
        }
        pause(&world, 5).await;
        let all = live(&client, &["stays", "goes", "leaks"]).await;
        assert_eq!(left(&world, &all, &[CLIENT, IDLE]), [""; 0]);

        // From here on it is idle, and all records that it wrote are deleted, except the end of one log.
        let records = delete_records_of("stays", 0, 6);
        assert_eq!(client.ask(records, 2).await.topics[0].partitions[0].error_code, 0);
        assert_eq!(client.ask(delete_of("goes"), 6).await.responses[0].error_code, 0);
        pause(&world, 5).await;
        let of_two = live(&client, &["stays", "leaks"]).await;
        let now = left(&world, &of_two, &[CLIENT, IDLE]);
        assert!(now.iter().any(|what| what.contains("folder goes-0.")), "{now:?}");
        assert!(now.iter().any(|what| what.contains("data/stays-0/")), "{now:?}");
        pause(&world, DELAY_SECS).await;
        assert_eq!(left(&world, &of_two, &[CLIENT, IDLE]), [""; 0]);

        // A leak: a file of a deleted topic stays open.
        let file = {
            let mut state = world.lock();
            let disk = state.disks.get_mut(&SERVER).expect("its disk");
            disk.open("data/leaks-0/00000000000000000000.log", false)
                .expect("it is there")
                .0
        };
        assert_eq!(client.ask(delete_of("leaks"), 6).await.responses[0].error_code, 0);
        pause(&world, DELAY_SECS).await;
        let of_one = live(&client, &["stays"]).await;
        let now = left(&world, &of_one, &[CLIENT, IDLE]);
        assert!(
            matches!(&now[..], [what] if what.contains("open and have no name")),
            "{now:?}"
        );
        world.lock().disks.get_mut(&SERVER).expect("its disk").close(file);
        assert_eq!(left(&world, &of_one, &[CLIENT, IDLE]), [""; 0]);

        // Its open connection is a leftover once it should have left.
        let now = left(&world, &of_one, &[CLIENT]);
        assert!(
            matches!(&now[..], [what] if what.starts_with("1 connections")),
            "{now:?}"
        );
        assert_eq!(
            producer.produce("stays", 0, &["again"]).await,
            (ErrorCode::NONE, 6)
        );
        drop(producer);
        pause(&world, 5).await;
        assert_eq!(left(&world, &of_one, &[CLIENT]), [""; 0]);
    });
}

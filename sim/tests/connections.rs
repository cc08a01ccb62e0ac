//! Connections of peers in virtual time: pipelined requests, parked fetches, disconnects.

mod common;

use std::future::Future;
use std::time::Duration;

use brokkr_env::{Conn, Env, Part, ReadHalf, WriteHalf};
use brokkr_sim::env::SimEnv;
use brokkr_sim::net::addr_of;
use brokkr_sim::world::World;
use brokkr_types::{UnixMillis, Uuid};
use brokkr_wire::frame::encode_request;
use brokkr_wire::messages::create_topics_request::CreatableTopic;
use brokkr_wire::messages::delete_topics_request::DeleteTopicState;
use brokkr_wire::messages::fetch_request::{FetchPartition, FetchTopic};
use brokkr_wire::messages::produce_request::{PartitionProduceData, TopicProduceData};
use brokkr_wire::messages::{CreateTopicsRequest, DeleteTopicsRequest, FetchRequest, ProduceRequest};
use brokkr_wire::{ErrorCode, Request, Str};
use bytes::BytesMut;
use common::*;

/// The longest wait that a fetch can ask for: 24.8 days.
const MAX_WAIT_MS: i32 = i32::MAX;

/// Runs `script` beside a broker that has a topic `quiet` of one partition.
fn play<F>(script: impl FnOnce(World, Client) -> F + Send + 'static)
where
    F: Future<Output = ()> + Send + 'static,
{
    beside_a_broker(120, &[], |world, client| async move {
        assert_eq!(client.create("quiet", 1).await, ErrorCode::NONE);
        script(world, client).await;
    });
}

/// A connection that sends without waiting for responses. Dropping it closes it.
struct Pipeline {
    read: <<SimEnv as Env>::Conn as Conn<SimEnv>>::Read,
    write: <<SimEnv as Env>::Conn as Conn<SimEnv>>::Write,
    sent: i32,
}

impl Pipeline {
    async fn connected(world: &World) -> Self {
        let host = addr_of(SERVER, PORT).ip().to_string();
        let connected = world.env(CLIENT).connect(&host, PORT).await;
        let (read, write) = connected.expect("it listens").split();
        Self { read, write, sent: 0 }
    }

    async fn send<R: Request>(&mut self, request: &R, version: i16) {
        self.sent += 1;
        let parts = encode_request(request, version, self.sent, None).expect("encodable");
        let bytes = |part| match part {
            brokkr_wire::Part::Bytes(bytes) => Part::Bytes(bytes),
            brokkr_wire::Part::External { .. } => panic!("no file goes out here"),
        };
        let sent = self.write.write(parts.into_iter().map(bytes).collect()).await;
        sent.expect("the broker is there");
    }

    /// Waits for `n` responses: returns their correlation ids.
    async fn answers(&mut self, n: usize) -> Vec<i32> {
        let (mut buf, mut ids) = (BytesMut::new(), Vec::new());
        while ids.len() < n {
            buf.reserve(4096);
            let came = self.read.read(&mut buf).await.expect("the broker is there");
            assert!(came > 0, "the broker hung up");
            while let Some(size) = buf.first_chunk().map(|size| u32::from_be_bytes(*size) as usize)
                && buf.len() >= 4 + size
            {
                let frame = buf.split_to(4 + size);
                ids.push(i32::from_be_bytes(frame[4..8].try_into().expect("four bytes")));
            }
        }
        ids
    }
}

/// A sessionless Fetch of these partitions from their start.
fn fetch_of(topic: &str, partitions: &[i32], max_wait_ms: i32) -> FetchRequest {
    let partition = |partition: &i32| FetchPartition {
        partition: *partition,
        partition_max_bytes: 1 << 20,
        ..Default::default()
    };
    let topic = FetchTopic {
        topic: Str::copied(topic),
        partitions: partitions.iter().map(partition).collect(),
        ..Default::default()
    };
    FetchRequest {
        max_wait_ms,
        min_bytes: i32::MAX,
        max_bytes: i32::MAX,
        topics: vec![topic],
        session_epoch: -1,
        ..Default::default()
    }
}

/// A CreateTopics that only validates.
fn validation() -> CreateTopicsRequest {
    let topic = CreatableTopic {
        name: Str::from("n"),
        num_partitions: 1,
        replication_factor: 1,
        ..Default::default()
    };
    CreateTopicsRequest {
        topics: vec![topic],
        timeout_ms: 1000,
        validate_only: true,
        ..Default::default()
    }
}

fn produce_to(topic: &str) -> ProduceRequest {
    let data = PartitionProduceData {
        index: 0,
        records: Some(batch(UnixMillis(1_700_000_000_000), None, b"value").into()),
        ..Default::default()
    };
    let topic = TopicProduceData {
        name: Str::copied(topic),
        partition_data: vec![data],
        ..Default::default()
    };
    ProduceRequest {
        acks: 1,
        timeout_ms: 1000,
        topic_data: vec![topic],
        ..Default::default()
    }
}

fn connections(world: &World) -> usize {
    world.lock().net.ends_of(SERVER).len()
}

/// The Produce waits for the CreateTopics, which waits behind the fetch.
async fn park_and_wait(connection: &mut Pipeline) {
    connection.send(&fetch_of("quiet", &[0], MAX_WAIT_MS), 12).await;
    connection.send(&validation(), 5).await;
    connection.send(&produce_to("quiet"), 9).await;
}

#[test]
fn a_connection_that_closes_behind_a_parked_fetch_and_a_waiting_produce_ends() {
    play(|world, client| async move {
        let before = connections(&world);
        for _ in 0..5 {
            park_and_wait(&mut Pipeline::connected(&world).await).await;
        }
        pause(&world, 5).await;
        assert_eq!(connections(&world), before);
        drop(client);
    });
}

#[test]
fn a_produce_behind_a_parked_fetch_ends_the_wait_of_the_fetch() {
    play(|world, _client| async move {
        let mut connection = Pipeline::connected(&world).await;
        let begun = world.exec().now();
        park_and_wait(&mut connection).await;
        assert_eq!(connection.answers(3).await, [1, 2, 3]);
        assert!(
            world.exec().now() < begun + SECOND,
            "not only when its time is up"
        );
        // Later fetches are parked again.
        let begun = world.exec().now();
        connection.send(&fetch_of("quiet", &[0], 3000), 12).await;
        assert_eq!(connection.answers(1).await, [4]);
        let took = Duration::from_nanos(world.exec().now() - begun);
        assert!(took >= Duration::from_secs(3), "{took:?}");
    });
}

/// A topic's name, with some of its partitions and an offset for each.
type TopicOffsets<'a> = (&'a str, &'a [(i32, i64)]);

/// Partitions in a response, each with whether it had records.
type FetchedPartitions = Vec<(i32, bool)>;

/// A Fetch of topics by name and id, with the offset of each partition.
fn fetch_from(id: Uuid, topics: &[TopicOffsets<'_>]) -> FetchRequest {
    let partition = |(partition, fetch_offset): &(i32, i64)| FetchPartition {
        partition: *partition,
        fetch_offset: *fetch_offset,
        partition_max_bytes: 1 << 20,
        ..Default::default()
    };
    let topic = |(name, partitions): &TopicOffsets<'_>| FetchTopic {
        topic: Str::copied(name),
        topic_id: id,
        partitions: partitions.iter().map(partition).collect(),
        ..Default::default()
    };
    FetchRequest {
        max_bytes: i32::MAX,
        topics: topics.iter().map(topic).collect(),
        ..Default::default()
    }
}

/// As in Kafka, which reads the list into a map: the last entry counts, at the first one's position.
#[test]
fn a_partition_listed_twice_in_a_fetch_is_answered_once() {
    play(|_world, client| async move {
        assert_eq!(client.create("t", 40).await, ErrorCode::NONE);
        for partition in [0, 1] {
            assert_eq!(
                client.produce("t", partition, &["value"]).await.0,
                ErrorCode::NONE
            );
        }
        let id = client.metadata("t").await.topic_id;
        let long: Vec<_> = (0..1000).map(|at| (at * 7 % 20, 0)).collect();
        let in_order: Vec<_> = (0..20).map(|at| at * 7 % 20).collect();
        let lists: [(&[TopicOffsets<'_>], FetchedPartitions); 4] = [
            (&[("t", &[(0, 0), (0, 1)])], vec![(0, false)]),
            (&[("t", &[(1, 1), (0, 0), (1, 0)])], vec![(1, true), (0, true)]),
            (
                &[("t", &[(0, 0)]), ("t", &[(1, 0), (0, 1)])],
                vec![(0, false), (1, true)],
            ),
            (
                &[("t", &long)],
                in_order.into_iter().map(|p| (p, p < 2)).collect(),
            ),
        ];
        for (topics, expected) in lists {
            // Sessionless, and with a new session.
            for (version, session_epoch) in [(4, -1), (12, -1), (12, 0), (13, -1), (17, 0)] {
                let (id, mut request) = match version {
                    13.. => (id, fetch_from(id, topics)),
                    _ => (Uuid::ZERO, fetch_from(Uuid::ZERO, topics)),
                };
                request.session_epoch = session_epoch;
                if version >= 13 {
                    request.topics.iter_mut().for_each(|t| t.topic = Str::default());
                } else if version < 7 {
                    request.session_epoch = -1;
                }
                let response = client.ask(request, version).await;
                assert_eq!(response.responses.len(), 1, "version {version}");
                assert_eq!(response.responses[0].topic_id, id);
                let partitions = response.responses[0].partitions.iter();
                let answered: Vec<_> = partitions
                    .map(|p| {
                        let records = p.records.as_ref().expect("records, or none");
                        (p.partition_index, !records.is_empty())
                    })
                    .collect();
                assert_eq!(answered, expected, "version {version}");
            }
        }
    });
}

/// As in Kafka, which resolves a topic id once, when the request arrives.
#[test]
fn a_parked_fetch_by_id_of_a_deleted_topic_returns_unknown_partition() {
    play(|world, client| async move {
        let id = client.metadata("quiet").await.topic_id;
        let (never, mut request) = (Uuid::from_random([7; 16]), fetch_from(id, &[("", &[(0, 0)])]));
        let unknown = fetch_from(never, &[("", &[(0, 0)])]).topics;
        request.topics.extend(unknown);
        (request.max_wait_ms, request.min_bytes, request.session_epoch) = (10_000, 1, -1);
        let other = Client::connected(&world).await;
        let deletion = async {
            pause(&world, 1).await;
            let topic = DeleteTopicState {
                name: Some(Str::from("quiet")),
                ..Default::default()
            };
            let request = DeleteTopicsRequest {
                topics: vec![topic],
                timeout_ms: 1000,
                ..Default::default()
            };
            let answer = other.ask(request, 6).await;
            assert_eq!(answer.responses[0].error_code, 0);
        };
        let (fetched, ()) = tokio::join!(client.ask(request.clone(), 13), deletion);
        let codes = |topics: &[brokkr_wire::messages::fetch_response::FetchableTopicResponse]| -> Vec<_> {
            let partitions = topics.iter().flat_map(|t| &t.partitions);
            partitions.map(|p| ErrorCode(p.error_code)).collect()
        };
        let gone = ErrorCode::UNKNOWN_TOPIC_OR_PARTITION;
        assert_eq!(codes(&fetched.responses), [gone, ErrorCode::UNKNOWN_TOPIC_ID]);
        request.max_wait_ms = 0;
        let fetched = client.ask(request, 13).await;
        assert_eq!(codes(&fetched.responses), [ErrorCode::UNKNOWN_TOPIC_ID; 2]);
    });
}

/// It reads again only the partitions that changed, so it must count the data of all.
#[test]
fn a_parked_fetch_of_many_partitions_is_answered_when_they_have_enough_together() {
    play(|world, client| async move {
        assert_eq!(client.create("many", 20).await, ErrorCode::NONE);
        let all: Vec<i32> = (0..20).collect();
        let other = Client::connected(&world).await;
        let mut request = fetch_of("many", &all, 30_000);
        // A batch of one value is 73 bytes.
        request.min_bytes = 3 * 73;
        let begun = world.exec().now();
        let produced = async {
            for partition in [3, 7, 3] {
                pause(&world, 1).await;
                assert_eq!(
                    other.produce("many", partition, &["value"]).await.0,
                    ErrorCode::NONE
                );
            }
        };
        let (fetched, ()) = tokio::join!(client.ask(request, 12), produced);
        let took = world.exec().now() - begun;
        assert!((3 * SECOND..4 * SECOND).contains(&took), "{took} ns");
        let lens = fetched.responses[0].partitions.iter();
        let lens: Vec<_> = lens.map(|p| p.records.as_ref().map_or(0, |r| r.len())).collect();
        let expected = (0..20).map(|p| [0, 73, 146][usize::from(p == 7) + 2 * usize::from(p == 3)]);
        assert_eq!(lens, expected.collect::<Vec<usize>>());
        // And at its timeout.
        let request = fetch_of("many", &all, 15_000);
        let begun = world.exec().now();
        let deleted = async {
            pause(&world, 1).await;
            let topic = DeleteTopicState {
                name: Some(Str::from("many")),
                ..Default::default()
            };
            let request = DeleteTopicsRequest {
                topics: vec![topic],
                timeout_ms: 1000,
                ..Default::default()
            };
            assert_eq!(other.ask(request, 6).await.responses[0].error_code, 0);
        };
        let (fetched, ()) = tokio::join!(client.ask(request, 12), deleted);
        assert!(world.exec().now() < begun + 2 * SECOND);
        let partitions = fetched.responses[0].partitions.iter();
        let gone = ErrorCode::UNKNOWN_TOPIC_OR_PARTITION.0;
        assert!(partitions.clone().all(|p| p.error_code == gone));
    });
}

//! librdkafka reads back its own records: every compression, every acks, by offset and by time, and through kill -9.

#![expect(
    clippy::disallowed_methods,
    reason = "a test with a real broker waits in real time"
)]

use std::collections::BTreeMap;
use std::time::Duration;

use brokkr_rdkafka::Broker;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Header, Headers, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};

const PATIENCE: Duration = Duration::from_secs(60);

fn config(broker: &Broker) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &broker.addr);
    config
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Runtime::new().expect("a runtime")
}

async fn create(broker: &Broker, topic: &str, partitions: i32) {
    let admin: AdminClient<DefaultClientContext> = config(broker).create().expect("a client");
    let new = NewTopic::new(topic, partitions, TopicReplication::Fixed(1)).set("retention.ms", "-1");
    let results = admin
        .create_topics([&new], &AdminOptions::new())
        .await
        .expect("an answer");
    results.into_iter().for_each(|r| drop(r.expect("a new topic")));
}

/// All records of a partition from `start` on: offset, timestamp, key, value, the header `n`.
fn read(
    broker: &Broker,
    topic: &str,
    partition: i32,
    start: Offset,
) -> Vec<(i64, i64, String, String, String)> {
    let consumer: BaseConsumer = config(broker)
        .set("group.id", "none")
        .set("enable.partition.eof", "true")
        .create()
        .expect("a client");
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, partition, start)
        .expect("a partition");
    consumer.assign(&list).expect("an assignment");
    let mut all = Vec::new();
    loop {
        match consumer.poll(PATIENCE) {
            Some(Ok(m)) => {
                let text =
                    |b: Option<&[u8]>| String::from_utf8(b.unwrap_or_default().to_vec()).expect("text");
                let header = m.headers().map(|h| text(h.get(0).value)).unwrap_or_default();
                let at = m.timestamp().to_millis().expect("a time");
                all.push((m.offset(), at, text(m.key()), text(m.payload()), header));
            }
            Some(Err(rdkafka::error::KafkaError::PartitionEOF(_))) => {
                // Closing it would wait for a group coordinator, which the broker doesn't have yet.
                std::mem::forget(consumer);
                return all;
            }
            Some(Err(e)) => panic!("{topic}: {e}"),
            None => panic!("{topic}: nothing came"),
        }
    }
}

#[test]
fn every_compression_and_acks_reads_back() {
    let broker = Broker::start("matrix");
    runtime().block_on(async {
        for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
            for (acks, idempotent) in [("0", "false"), ("1", "false"), ("all", "false"), ("all", "true")] {
                let topic = format!("{codec}-{acks}-{idempotent}");
                create(&broker, &topic, 1).await;
                let producer: FutureProducer = config(&broker)
                    .set("compression.type", codec)
                    .set("acks", acks)
                    .set("enable.idempotence", idempotent)
                    .set("linger.ms", "20")
                    .create()
                    .expect("a client");
                let mut sent = Vec::new();
                for i in 0..300i64 {
                    let (key, value) = (format!("k{}", i % 7), format!("value {i} ").repeat(5));
                    let n = i.to_string();
                    let headers = OwnedHeaders::new().insert(Header {
                        key: "n",
                        value: Some(&n),
                    });
                    let record = FutureRecord::to(&topic)
                        .key(&key)
                        .payload(&value)
                        .timestamp(1_000_000 + i)
                        .headers(headers);
                    sent.push(producer.send_result(record).map_err(|(e, _)| e).expect("room"));
                }
                for delivery in sent {
                    delivery
                        .await
                        .expect("an outcome")
                        .map_err(|(e, _)| e)
                        .expect("it is written");
                }
                // With acks=0 there is no acknowledgement to wait for.
                let deadline = std::time::Duration::from_millis(50);
                let mut all = read(&broker, &topic, 0, Offset::Beginning);
                for _ in 0..100 {
                    if all.len() == 300 {
                        break;
                    }
                    tokio::time::sleep(deadline).await;
                    all = read(&broker, &topic, 0, Offset::Beginning);
                }
                let want: Vec<_> = (0..300i64)
                    .map(|i| {
                        let value = format!("value {i} ").repeat(5);
                        (i, 1_000_000 + i, format!("k{}", i % 7), value, i.to_string())
                    })
                    .collect();
                assert_eq!(all, want, "{topic}");
            }
        }
    });
}

#[test]
fn reads_from_the_end_and_from_a_time() {
    let broker = Broker::start("where");
    runtime().block_on(async {
        create(&broker, "t", 1).await;
        let producer: FutureProducer = config(&broker).create().expect("a client");
        for i in 0..50i64 {
            let value = i.to_string();
            let record = FutureRecord::<(), _>::to("t")
                .payload(&value)
                .timestamp(1_000 * (i + 1));
            producer
                .send(record, PATIENCE)
                .await
                .map_err(|(e, _)| e)
                .expect("it is written");
        }
        assert_eq!(read(&broker, "t", 0, Offset::End), []);
        assert_eq!(read(&broker, "t", 0, Offset::OffsetTail(3)).len(), 3);
        let consumer: BaseConsumer = config(&broker)
            .set("group.id", "none")
            .create()
            .expect("a client");
        let mut times = TopicPartitionList::new();
        times
            .add_partition_offset("t", 0, Offset::Offset(20_500))
            .expect("a partition");
        let found = consumer.offsets_for_times(times, PATIENCE).expect("an answer");
        assert_eq!(found.elements()[0].offset(), Offset::Offset(20));
        assert_eq!(
            consumer.fetch_watermarks("t", 0, PATIENCE).expect("an answer"),
            (0, 50)
        );
        let left = read(&broker, "t", 0, Offset::Offset(20));
        assert_eq!((left.len(), left[0].3.as_str()), (30, "20"));
        std::mem::forget(consumer);
    });
}

#[test]
fn acknowledged_records_survive_kill_9_exactly_once_and_in_order() {
    let mut broker = Broker::start("kill");
    let runtime = runtime();
    runtime.block_on(create(&broker, "t", 2));
    let producer: FutureProducer = config(&broker)
        .set("enable.idempotence", "true")
        .set("linger.ms", "1")
        .set("batch.num.messages", "20")
        .set("reconnect.backoff.max.ms", "100")
        .create()
        .expect("a client");
    let mut sent = Vec::new();
    for i in 0..4_000u32 {
        if i % 1_000 == 700 {
            broker = broker.killed_and_restarted();
        }
        let value = i.to_string();
        let record = FutureRecord::<(), _>::to("t")
            .partition((i % 2) as i32)
            .payload(&value);
        sent.push((i, producer.send_result(record).map_err(|(e, _)| e).expect("room")));
    }
    let mut acked: BTreeMap<(i32, i64), u32> = BTreeMap::new();
    for (i, delivery) in sent {
        let at = runtime
            .block_on(delivery)
            .expect("an outcome")
            .map_err(|(e, _)| e)
            .expect("it is written");
        assert_eq!(
            acked.insert((at.partition, at.offset), i),
            None,
            "two records at one offset"
        );
    }
    for partition in 0..2 {
        let all = read(&broker, "t", partition, Offset::Beginning);
        let values: Vec<u32> = all.iter().map(|r| r.3.parse().expect("a number")).collect();
        let want: Vec<u32> = (0..4_000).filter(|i| i % 2 == partition as u32).collect();
        assert_eq!(values, want, "each once and in order");
        for (offset, _, _, value, _) in &all {
            let value: u32 = value.parse().expect("a number");
            assert_eq!(
                acked.get(&(partition, *offset)),
                Some(&value),
                "where it was said to be"
            );
        }
    }
}

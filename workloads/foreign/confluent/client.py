"""confluent-kafka (librdkafka): writes rows to a new topic, reads a topic back."""

import sys

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

import rows

TIMEOUT_S = 30


def create(args):
    admin = AdminClient({"bootstrap.servers": args.bootstrap})
    topic = NewTopic(args.topic, num_partitions=rows.PARTITIONS, replication_factor=1, config=rows.TOPIC_CONFIG)
    for future in admin.create_topics([topic]).values():
        future.result(TIMEOUT_S)


def produce(args):
    create(args)
    failures = []

    def delivered(error, _message):
        if error is not None:
            failures.append(error)

    producer = Producer({
        "bootstrap.servers": args.bootstrap,
        "enable.idempotence": True,
        "acks": "all",
        "compression.type": args.compression,
        "linger.ms": 20,
        "queue.buffering.max.messages": 1_000_000,
        "on_delivery": delivered,
    })
    for key, value, timestamp, headers in rows.read(args.data):
        producer.produce(args.topic, value, key, timestamp=timestamp, headers=headers)
        producer.poll(0)
    if producer.flush(60) or failures:
        sys.exit(f"{len(producer)} undelivered, {len(failures)} failed: {failures[:1]}")


def consume(args):
    consumer = Consumer({
        "bootstrap.servers": args.bootstrap,
        "group.id": "unused",  # the library wants one; nothing is committed or joined
        "enable.auto.commit": False,
    })
    assigned, ends = [], {}
    for partition in range(rows.PARTITIONS):
        low, high = consumer.get_watermark_offsets(TopicPartition(args.topic, partition), timeout=TIMEOUT_S)
        if low < high:
            assigned.append(TopicPartition(args.topic, partition, low))
            ends[partition] = high
    consumer.assign(assigned)
    with open(args.out, "w") as out:
        while ends:
            for message in consumer.consume(10_000, timeout=1):
                if message.error():
                    raise KafkaException(message.error())
                partition, offset = message.partition(), message.offset()
                if partition in ends and offset < ends[partition]:
                    out.write(rows.record(partition, offset, message.timestamp()[1], message.key(), message.value(),
                                          message.headers()))
                    if offset + 1 == ends[partition]:
                        del ends[partition]
    consumer.close()


args = rows.arguments(__doc__, "zstd", ("create", "produce", "consume"))
{"create": create, "produce": produce, "consume": consume}[args.command](args)

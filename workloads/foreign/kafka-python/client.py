"""kafka-python, in pure Python: writes rows to a new topic, reads a topic back."""

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition

import rows


def produce(args):
    admin = KafkaAdminClient(bootstrap_servers=args.bootstrap)
    admin.create_topics({args.topic: {
        "num_partitions": rows.PARTITIONS, "replication_factor": 1, "configs": rows.TOPIC_CONFIG,
    }})
    admin.close()
    producer = KafkaProducer(
        bootstrap_servers=args.bootstrap,
        enable_idempotence=True,
        acks="all",
        compression_type=None if args.compression == "none" else args.compression,
        batch_size=131_072,
        linger_ms=20,
    )
    sent = [
        producer.send(args.topic, value=value, key=key, headers=headers, timestamp_ms=timestamp)
        for key, value, timestamp, headers in rows.read(args.data)
    ]
    producer.flush(120)
    for future in sent:
        future.get(0)
    producer.close()


def consume(args):
    consumer = KafkaConsumer(bootstrap_servers=args.bootstrap, max_poll_records=10_000)
    partitions = [TopicPartition(args.topic, p) for p in range(rows.PARTITIONS)]
    consumer.assign(partitions)
    ends = consumer.end_offsets(partitions)
    consumer.seek_to_beginning()
    with open(args.out, "w") as out:
        while any(consumer.position(p) < end for p, end in ends.items()):
            for p, records in consumer.poll(timeout_ms=1000).items():
                out.writelines(
                    rows.record(p.partition, r.offset, r.timestamp, r.key, r.value, r.headers)
                    for r in records if r.offset < ends[p]
                )
    consumer.close()


args = rows.arguments(__doc__, "lz4")
{"produce": produce, "consume": consume}[args.command](args)

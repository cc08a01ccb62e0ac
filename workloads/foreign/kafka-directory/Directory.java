import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.zip.CRC32;

import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;

/** Fills a broker with a plain and a compacted topic, writes more, and lists every record: see {@code run} beside it. */
public final class Directory {
    private static final List<String> TOPICS = List.of("plain", "compacted");
    private static final int PARTITIONS = 2;
    private static final int KEYS = 50;
    private static final String GROUP = "readers";

    public static void main(String[] args) throws Exception {
        if (args.length != 2) {
            System.err.println("usage: fill|write|transact|read|committed|group HOST:PORT");
            System.exit(2);
        }
        String bootstrap = args[1];
        switch (args[0]) {
            case "fill" -> fill(bootstrap);
            case "write" -> write(bootstrap, 200_000, 300, 40);
            case "transact" -> transact(bootstrap);
            case "read" -> read(bootstrap, "read_uncommitted").forEach(System.out::println);
            case "committed" -> read(bootstrap, "read_committed").forEach(System.out::println);
            case "group" -> group(bootstrap);
            default -> throw new IllegalArgumentException(args[0]);
        }
    }

    /** Creates both topics; waits until the cleaner has left gaps in every partition of the compacted one. */
    private static void fill(String bootstrap) throws Exception {
        try (Admin admin = Admin.create(Map.of("bootstrap.servers", bootstrap))) {
            NewTopic plain = new NewTopic("plain", Optional.of(PARTITIONS), Optional.empty());
            plain.configs(Map.of("segment.bytes", "1048576", "retention.ms", "-1"));
            NewTopic compacted = new NewTopic("compacted", Optional.of(PARTITIONS), Optional.empty());
            compacted.configs(Map.of("cleanup.policy", "compact", "segment.bytes", "1048576",
                "min.cleanable.dirty.ratio", "0.01", "delete.retention.ms", "100"));
            admin.createTopics(List.of(plain, compacted)).all().get();
        }
        write(bootstrap, 0, 3000, 1000);
        long end = System.nanoTime() + Duration.ofSeconds(120).toNanos();
        while (!haveGaps(read(bootstrap, "read_uncommitted"))) {
            if (System.nanoTime() > end) {
                throw new IllegalStateException("the cleaner has not run");
            }
            Thread.sleep(500);
        }
        try (KafkaConsumer<String, String> consumer = consumer(bootstrap, Map.of("group.id", GROUP, "enable.auto.commit", "false"))) {
            consumer.subscribe(List.of("plain"));
            while (consumer.poll(Duration.ofMillis(500)).isEmpty()) { }
            consumer.commitSync(Map.of(new TopicPartition("plain", 0), new OffsetAndMetadata(7)));
        }
    }

    private static boolean haveGaps(List<String> records) {
        for (int partition = 0; partition < PARTITIONS; partition++) {
            String begin = "compacted " + partition + " ";
            long next = -1;
            boolean gap = false;
            for (String record : records) {
                if (record.startsWith(begin) && !record.contains(" end ")) {
                    long offset = Long.parseLong(record.split(" ")[2]);
                    gap |= next >= 0 && offset != next;
                    next = offset + 1;
                }
            }
            if (!gap) {
                return false;
            }
        }
        return true;
    }

    private static void write(String bootstrap, int from, int count, int padding) throws Exception {
        Map<String, Object> config = Map.of("bootstrap.servers", bootstrap, "acks", "all", "enable.idempotence", true, "linger.ms", 5);
        try (var producer = new KafkaProducer<>(config, new StringSerializer(), new StringSerializer())) {
            for (String topic : TOPICS) {
                for (int i = from; i < from + count; i++) {
                    // Some keys are written only once, so that their records remain with gaps around them.
                    String key = i % 41 < 2 ? "once-" + i : "key-" + i % KEYS;
                    producer.send(new ProducerRecord<>(topic, i % PARTITIONS, key, i + "." + "x".repeat(padding)));
                    if (i % 25 == 0) {
                        producer.flush();
                    }
                }
                producer.flush();
            }
        }
    }

    /** Two transactions: one that commits records and a group's offset, and one that is aborted. */
    private static void transact(String bootstrap) {
        Map<String, Object> config = Map.of("bootstrap.servers", bootstrap, "transactional.id", "mover");
        try (var producer = new KafkaProducer<>(config, new StringSerializer(), new StringSerializer());
             var reader = consumer(bootstrap, Map.of("group.id", GROUP))) {
            producer.initTransactions();
            for (String end : List.of("committed", "aborted")) {
                producer.beginTransaction();
                for (int i = 0; i < 10; i++) {
                    producer.send(new ProducerRecord<>("plain", i % PARTITIONS, end + "-" + i, end));
                }
                // An abort would drop records that are not sent yet.
                producer.flush();
                if (end.equals("committed")) {
                    var offsets = Map.of(new TopicPartition("plain", 1), new OffsetAndMetadata(11));
                    producer.sendOffsetsToTransaction(offsets, reader.groupMetadata());
                    producer.commitTransaction();
                } else {
                    producer.abortTransaction();
                }
            }
        }
    }

    private static KafkaConsumer<String, String> consumer(String bootstrap, Map<String, Object> more) {
        var config = new java.util.HashMap<String, Object>(more);
        config.put("bootstrap.servers", bootstrap);
        config.put("auto.offset.reset", "earliest");
        return new KafkaConsumer<>(config, new StringDeserializer(), new StringDeserializer());
    }

    /** Every record: topic, partition, offset, timestamp, key, checksum of the value; and each partition's end offset. */
    private static List<String> read(String bootstrap, String isolation) {
        List<String> lines = new ArrayList<>();
        try (KafkaConsumer<String, String> consumer = consumer(bootstrap, Map.of("isolation.level", isolation))) {
            for (String topic : TOPICS) {
                for (int partition = 0; partition < PARTITIONS; partition++) {
                    TopicPartition tp = new TopicPartition(topic, partition);
                    consumer.assign(List.of(tp));
                    consumer.seekToBeginning(List.of(tp));
                    long end = consumer.endOffsets(List.of(tp)).get(tp);
                    while (consumer.position(tp) < end) {
                        for (ConsumerRecord<String, String> record : consumer.poll(Duration.ofSeconds(1))) {
                            CRC32 crc = new CRC32();
                            crc.update(record.value().getBytes());
                            lines.add(String.join(" ", topic, "" + partition, "" + record.offset(), "" + record.timestamp(),
                                record.key(), Long.toHexString(crc.getValue())));
                        }
                    }
                    lines.add(topic + " " + partition + " end " + end);
                }
            }
        }
        return lines;
    }

    private static void group(String bootstrap) throws Exception {
        try (Admin admin = Admin.create(Map.of("bootstrap.servers", bootstrap))) {
            System.out.println(admin.listConsumerGroupOffsets(GROUP).partitionsToOffsetAndMetadata().get());
        }
    }
}

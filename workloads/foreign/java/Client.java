import java.io.BufferedReader;
import java.io.BufferedWriter;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.atomic.AtomicReference;

import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.internals.RecordHeader;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;

import static java.nio.charset.StandardCharsets.UTF_8;

/** Apache Kafka's own client: writes rows to a new topic, reads a topic back. rows.py beside it describes the formats. */
public final class Client {
    private static final int PARTITIONS = 6;

    public static void main(String[] args) throws Exception {
        Map<String, String> options = new HashMap<>(Map.of("compression", "snappy"));
        for (int i = 1; i + 1 < args.length; i += 2) {
            options.put(args[i].replaceFirst("^--", ""), args[i + 1]);
        }
        String command = args.length == 0 ? "--help" : args[0];
        switch (command) {
            case "produce" -> produce(options);
            case "consume" -> consume(options);
            default -> {
                System.err.println("usage: produce --bootstrap H:P --topic T --data FILE [--compression C]\n"
                    + "       consume --bootstrap H:P --topic T --out FILE");
                System.exit(command.equals("--help") ? 0 : 2);
            }
        }
    }

    private static void produce(Map<String, String> options) throws Exception {
        String bootstrap = options.get("bootstrap");
        String topic = options.get("topic");
        try (Admin admin = Admin.create(Map.of("bootstrap.servers", bootstrap))) {
            NewTopic created = new NewTopic(topic, Optional.of(PARTITIONS), Optional.empty());
            admin.createTopics(List.of(created.configs(Map.of("retention.ms", "-1")))).all().get();
        }
        Map<String, Object> config = Map.of("bootstrap.servers", bootstrap, "acks", "all", "enable.idempotence", true,
            "compression.type", options.get("compression"), "linger.ms", 20, "batch.size", 131_072);
        AtomicReference<Exception> failure = new AtomicReference<>();
        try (var producer = new KafkaProducer<>(config, new StringSerializer(), new StringSerializer());
             BufferedReader rows = Files.newBufferedReader(Path.of(options.get("data")))) {
            for (String row = rows.readLine(); row != null; row = rows.readLine()) {
                producer.send(record(topic, row.split("\t")), (metadata, error) -> {
                    if (error != null) {
                        failure.compareAndSet(null, error);
                    }
                });
            }
            producer.flush();
        }
        if (failure.get() != null) {
            throw failure.get();
        }
    }

    private static ProducerRecord<String, String> record(String topic, String[] row) {
        List<Header> headers = new ArrayList<>();
        for (String header : row[3].split(";")) {
            String[] pair = header.split("=", 2);
            headers.add(new RecordHeader(pair[0], pair[1].getBytes(UTF_8)));
        }
        String key = row[0].equals("\\N") ? null : row[0];
        return new ProducerRecord<>(topic, null, Long.parseLong(row[2]), key, row[1], headers);
    }

    private static void consume(Map<String, String> options) throws Exception {
        Map<String, Object> config = Map.of("bootstrap.servers", options.get("bootstrap"), "max.poll.records", 10_000);
        List<TopicPartition> partitions = new ArrayList<>();
        for (int p = 0; p < PARTITIONS; p++) {
            partitions.add(new TopicPartition(options.get("topic"), p));
        }
        try (var consumer = new KafkaConsumer<>(config, new StringDeserializer(), new StringDeserializer());
             BufferedWriter out = Files.newBufferedWriter(Path.of(options.get("out")))) {
            consumer.assign(partitions);
            Map<TopicPartition, Long> ends = consumer.endOffsets(partitions);
            consumer.seekToBeginning(partitions);
            while (partitions.stream().anyMatch(p -> consumer.position(p) < ends.get(p))) {
                for (ConsumerRecord<String, String> record : consumer.poll(Duration.ofSeconds(1))) {
                    if (record.offset() < ends.get(new TopicPartition(record.topic(), record.partition()))) {
                        out.write(line(record));
                    }
                }
            }
        }
    }

    private static String line(ConsumerRecord<String, String> record) {
        StringBuilder headers = new StringBuilder();
        for (Header header : record.headers()) {
            headers.append(headers.isEmpty() ? "" : ";").append(header.key()).append('=')
                .append(text(header.value() == null ? null : new String(header.value(), UTF_8)));
        }
        return record.partition() + "\t" + record.offset() + "\t" + record.timestamp() + "\t" + text(record.key()) + "\t"
            + text(record.value()) + "\t" + headers + "\n";
    }

    private static String text(String text) {
        return text == null ? "\\N" : text.replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n").replace("\r", "\\r");
    }
}

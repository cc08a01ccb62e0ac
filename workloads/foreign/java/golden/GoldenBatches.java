import java.io.BufferedReader;
import java.io.InputStream;
import java.io.InputStreamReader;
import java.lang.reflect.Proxy;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.HexFormat;
import java.util.List;
import java.util.StringJoiner;
import java.util.zip.CRC32C;

import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.compress.Compression;
import org.apache.kafka.common.errors.ApiException;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.internals.RecordHeader;
import org.apache.kafka.common.message.KRaftVersionRecord;
import org.apache.kafka.common.message.LeaderChangeMessage;
import org.apache.kafka.common.message.SnapshotFooterRecord;
import org.apache.kafka.common.message.SnapshotHeaderRecord;
import org.apache.kafka.common.message.VotersRecord;
import org.apache.kafka.common.protocol.Errors;
import org.apache.kafka.common.record.TimestampType;
import org.apache.kafka.common.record.internal.CompressionType;
import org.apache.kafka.common.record.internal.ControlRecordType;
import org.apache.kafka.common.record.internal.DefaultRecordBatch;
import org.apache.kafka.common.record.internal.EndTransactionMarker;
import org.apache.kafka.common.record.internal.MemoryRecords;
import org.apache.kafka.common.record.internal.MemoryRecordsBuilder;
import org.apache.kafka.common.record.internal.MutableRecordBatch;
import org.apache.kafka.common.record.internal.Record;
import org.apache.kafka.common.record.internal.RecordBatch;
import org.apache.kafka.common.record.internal.SimpleRecord;
import org.apache.kafka.common.utils.BufferSupplier;
import org.apache.kafka.common.utils.PrimitiveRef;
import org.apache.kafka.common.utils.Time;
import org.apache.kafka.storage.internals.log.AppendOrigin;
import org.apache.kafka.storage.internals.log.LogValidator;
import org.apache.kafka.storage.internals.log.RecordValidationException;

/**
 * Record batches made, or read, by Apache Kafka's own classes, with what they read in them:
 * <pre>
 * batch NAME
 * bytes HEX
 * header FIELD=VALUE ...
 * decompressed_crc CRC-32C of the records once decompressed
 * record ...             (left out where there are more than 20)
 * </pre>
 * <pre>
 * java -cp "$KAFKA_LIBS/*" GoldenBatches.java > broker/wire/tests/golden/batches.txt
 * java -cp "$KAFKA_LIBS/*" GoldenBatches.java validate > broker/wire/tests/golden/validated.txt
 * java -cp "$KAFKA_LIBS/*" GoldenBatches.java read < FILE     lines `batch` and `bytes`, as above, made elsewhere
 * </pre>
 * KAFKA_LIBS: what `workloads/foreign/install kafka` fetches, Apache Kafka 4.3.0 with what it needs.
 *
 * `validate` has LogValidator judge batches at 1,700,000,000,000 ms, and place those it accepts at offset 500 in epoch 11:
 * <pre>
 * validate NAME
 * rules FIELD=VALUE ...
 * bytes HEX
 * accepted HEX           or: refused CODE INDICES (-1: an exception without a code)
 * </pre>
 */
public class GoldenBatches {
    static final long TIME = 1_700_000_000_000L;
    static final HexFormat HEX = HexFormat.of();

    public static void main(String[] args) throws Exception {
        switch (args.length > 0 ? args[0] : "") {
            case "read" -> read();
            case "validate" -> validations();
            default -> batches();
        }
    }

    static void batches() throws Exception {
        for (CompressionType type : CompressionType.values()) {
            Compression compression = Compression.of(type).build();
            show("small-" + type.name, small(compression, TimestampType.CREATE_TIME, -1, (short) -1, -1, false));
            if (type != CompressionType.NONE) {
                show("large-" + type.name, large(compression));
            }
        }
        Compression none = Compression.of(CompressionType.NONE).build();
        show("append-time", small(none, TimestampType.LOG_APPEND_TIME, -1, (short) -1, -1, false));
        show("idempotent", small(none, TimestampType.CREATE_TIME, 4242, (short) 7, Integer.MAX_VALUE - 1, false));
        show("transactional", small(none, TimestampType.CREATE_TIME, 4243, (short) 0, 12, true));
        show("gaps", gaps(none));
        show("commit", marker(77, ControlRecordType.COMMIT));
        show("abort", marker(78, ControlRecordType.ABORT));
        quorum();
    }

    static MemoryRecords small(Compression compression, TimestampType type, long id, short epoch, int sequence, boolean txn) {
        MemoryRecordsBuilder builder = MemoryRecords.builder(ByteBuffer.allocate(1024), RecordBatch.MAGIC_VALUE_V2,
            compression, type, 100L, TIME + 99, id, epoch, sequence, txn, 5);
        builder.append(TIME, bytes("key"), bytes("value"));
        builder.append(TIME + 70_000, null, bytes("no key"));
        builder.append(TIME - 1, bytes("no value"), null);
        builder.append(TIME + 3, new byte[0], new byte[0], new Header[] {
            new RecordHeader("trace", new byte[] {0, 1, (byte) 0xff}),
            new RecordHeader("", (byte[]) null),
            new RecordHeader("schlüssel ☃", new byte[0]),
        });
        builder.append(TIME + 4, bytes("k".repeat(63)), bytes("v".repeat(300)));
        return builder.build();
    }

    /** More data than one block of any codec. */
    static MemoryRecords large(Compression compression) {
        MemoryRecordsBuilder builder = MemoryRecords.builder(ByteBuffer.allocate(1024), compression,
            TimestampType.CREATE_TIME, 0L);
        for (int i = 0; i < 300; i++) {
            builder.append(TIME + i, bytes("key-" + i % 10), bytes(("value " + i + " ").repeat(60)));
        }
        return builder.build();
    }

    static MemoryRecords gaps(Compression compression) {
        MemoryRecordsBuilder builder = MemoryRecords.builder(ByteBuffer.allocate(1024), compression,
            TimestampType.CREATE_TIME, 1000L);
        builder.appendWithOffset(1003L, TIME, bytes("a"), bytes("1"));
        builder.appendWithOffset(1200L, TIME + 1, bytes("b"), bytes("2"));
        builder.overrideLastOffset(1300L);
        return builder.build();
    }

    static MemoryRecords marker(long offset, ControlRecordType type) {
        return MemoryRecords.withEndTransactionMarker(offset, TIME, 3, 4243L, (short) 1, new EndTransactionMarker(type, 9));
    }

    static void quorum() throws Exception {
        LeaderChangeMessage change = new LeaderChangeMessage().setLeaderId(1)
            .setVoters(List.of(new LeaderChangeMessage.Voter().setVoterId(1)))
            .setGrantingVoters(List.of(new LeaderChangeMessage.Voter().setVoterId(1)));
        VotersRecord voters = new VotersRecord().setVoters(List.of(new VotersRecord.Voter().setVoterId(1)));
        show("leader-change", MemoryRecords.withLeaderChangeMessage(0L, TIME, 2, buffer(), change));
        show("snapshot-header", MemoryRecords.withSnapshotHeaderRecord(0L, TIME, 2, buffer(),
            new SnapshotHeaderRecord().setLastContainedLogTimestamp(TIME)));
        show("snapshot-footer", MemoryRecords.withSnapshotFooterRecord(9L, TIME, 2, buffer(), new SnapshotFooterRecord()));
        show("kraft-version", MemoryRecords.withKRaftVersionRecord(1L, TIME, 2, buffer(),
            new KRaftVersionRecord().setKRaftVersion((short) 1)));
        show("kraft-voters", MemoryRecords.withVotersRecord(2L, TIME, 2, buffer(), voters));
    }

    /** Settings of a topic, and the origin of an append. */
    record Rules(boolean compaction, TimestampType type, long before, long after, CompressionType compression, AppendOrigin origin) {
        static final Rules PLAIN =
            new Rules(false, TimestampType.CREATE_TIME, Long.MAX_VALUE, 3_600_000, null, AppendOrigin.CLIENT);

        Rules compact() {
            return new Rules(true, type, before, after, compression, origin);
        }

        Rules appendTime() {
            return new Rules(compaction, TimestampType.LOG_APPEND_TIME, before, after, compression, origin);
        }

        Rules within(long before, long after) {
            return new Rules(compaction, type, before, after, compression, origin);
        }

        Rules compressed(CompressionType compression) {
            return new Rules(compaction, type, before, after, compression, origin);
        }

        Rules from(AppendOrigin origin) {
            return new Rules(compaction, type, before, after, compression, origin);
        }
    }

    static void validations() throws Exception {
        Rules plain = Rules.PLAIN;
        for (CompressionType from : CompressionType.values()) {
            validate(from.name + "-as-it-is", produced(from), plain);
            validate(from.name + "-append-time", produced(from), plain.appendTime());
            for (CompressionType to : CompressionType.values()) {
                validate(from.name + "-to-" + to.name, produced(from), plain.compressed(to));
            }
            validate(from.name + "-to-gzip-append-time", produced(from), plain.appendTime().compressed(CompressionType.GZIP));
            validate(from.name + "-max-timestamp-wrong",
                stamped(produced(from), TimestampType.CREATE_TIME, TIME + 123_456), plain);
            validate(from.name + "-claims-append-time",
                stamped(produced(from), TimestampType.LOG_APPEND_TIME, TIME - 5), plain);
            validate(from.name + "-claims-append-time-to-zstd",
                stamped(produced(from), TimestampType.LOG_APPEND_TIME, TIME - 5), plain.compressed(CompressionType.ZSTD));
            validate(from.name + "-claims-append-time-on-append-time",
                stamped(produced(from), TimestampType.LOG_APPEND_TIME, TIME), plain.appendTime());
            validate(from.name + "-keys-missing", produced(from), plain.compact());
            validate(from.name + "-count-too-low", patched(produced(from), DefaultRecordBatch.RECORDS_COUNT_OFFSET, 2), plain);
            validate(from.name + "-count-too-high", patched(patched(produced(from), DefaultRecordBatch.RECORDS_COUNT_OFFSET, 4),
                DefaultRecordBatch.LAST_OFFSET_DELTA_OFFSET, 3), plain);
        }
        // Timestamps are TIME - 70,000, TIME and TIME + 3.
        validate("behind-just", produced(CompressionType.NONE), plain.within(70_000, 3));
        validate("behind-too-far", produced(CompressionType.NONE), plain.within(69_999, 3));
        validate("ahead-too-far", produced(CompressionType.NONE), plain.within(70_000, 2));
        validate("behind-on-append-time", produced(CompressionType.NONE), plain.within(0, 0).appendTime());
        validate("keyless-and-behind", produced(CompressionType.NONE), plain.within(69_999, 3).compact());
        validate("no-timestamp", timed(-1), plain.within(0, 0));
        validate("no-timestamp-on-append-time", timed(-1), plain.appendTime());
        validate("no-timestamp-but-append-time", stamped(timed(0), TimestampType.LOG_APPEND_TIME, -1), plain);
        validate("before-1970", patchedLong(timed(0), 27, -5), plain);
        validate("before-all-times", patchedLong(timed(0), 27, Long.MIN_VALUE), plain);
        validate("after-all-times", patchedLong(timed(0), 27, Long.MAX_VALUE), plain);
        Compression none = Compression.of(CompressionType.NONE).build();
        validate("tombstones-compacted", MemoryRecords.withRecords(none, new SimpleRecord(TIME, bytes("k"), null)), plain.compact());
        validate("idempotent", idempotent(9, (short) 1, 0, false), plain);
        validate("idempotent-sequence-missing", idempotent(9, (short) 1, -1, false), plain);
        validate("idempotent-to-lz4", idempotent(9, (short) 1, 5, false), plain.compressed(CompressionType.LZ4));
        validate("transactional", idempotent(9, (short) 1, 0, true), plain);
        validate("transactional-to-zstd", idempotent(9, (short) 1, 0, true), plain.compressed(CompressionType.ZSTD));
        validate("marker-of-client", marker(0, ControlRecordType.COMMIT), plain);
        validate("marker-of-coordinator", marker(0, ControlRecordType.COMMIT), plain.from(AppendOrigin.COORDINATOR));
        validate("marker-of-coordinator-to-gzip", marker(0, ControlRecordType.COMMIT),
            plain.from(AppendOrigin.COORDINATOR).compressed(CompressionType.GZIP));
        validate("no-records", patched(patched(produced(CompressionType.NONE), DefaultRecordBatch.RECORDS_COUNT_OFFSET, 0),
            DefaultRecordBatch.LAST_OFFSET_DELTA_OFFSET, -1), plain);
        validate("count-negative", patched(produced(CompressionType.NONE), DefaultRecordBatch.RECORDS_COUNT_OFFSET, -3), plain);
        for (CompressionType type : CompressionType.values()) {
            if (type != CompressionType.NONE) {
                validate(type.name + "-offsets-skewed", skewed(type), plain);
                MemoryRecords damaged = produced(type);
                validate(type.name + "-damaged", patched(damaged, damaged.sizeInBytes() - 4, 0x12345678), plain);
            }
        }
        validate("two-batches", both(produced(CompressionType.NONE), produced(CompressionType.NONE)), plain);
        validate("one-batch-and-a-bit", both(produced(CompressionType.NONE), MemoryRecords.readableRecords(
            produced(CompressionType.NONE).buffer().slice(0, 40))), plain);
    }

    static MemoryRecords produced(CompressionType type) {
        return MemoryRecords.withRecords(Compression.of(type).build(),
            new SimpleRecord(TIME - 70_000, bytes("a"), bytes("1")),
            new SimpleRecord(TIME + 3, null, bytes("22"), new Header[] {new RecordHeader("h", bytes("v"))}),
            new SimpleRecord(TIME, null, (byte[]) null));
    }

    static MemoryRecords timed(long timestamp) {
        return MemoryRecords.withRecords(Compression.of(CompressionType.NONE).build(),
            new SimpleRecord(timestamp, bytes("k"), bytes("v")));
    }

    static MemoryRecords idempotent(long id, short epoch, int sequence, boolean transactional) {
        MemoryRecordsBuilder builder = MemoryRecords.builder(ByteBuffer.allocate(1024), Compression.of(CompressionType.NONE).build(),
            TimestampType.CREATE_TIME, 0L);
        builder.append(TIME, bytes("a"), bytes("1"));
        builder.append(TIME, bytes("a"), bytes("2"));
        // The builder can't write a sequence below 0.
        builder.setProducerState(id, epoch, Math.max(sequence, 0), transactional);
        return patched(builder.build(), 53, sequence);
    }

    static MemoryRecords skewed(CompressionType type) {
        MemoryRecordsBuilder builder = MemoryRecords.builder(ByteBuffer.allocate(1024), Compression.of(type).build(),
            TimestampType.CREATE_TIME, 0L);
        builder.appendWithOffset(1, TIME, bytes("a"), bytes("1"));
        builder.appendWithOffset(2, TIME + 1, bytes("b"), bytes("2"));
        builder.overrideLastOffset(1);
        return builder.build();
    }

    static MemoryRecords both(MemoryRecords first, MemoryRecords second) {
        ByteBuffer both = ByteBuffer.allocate(first.sizeInBytes() + second.sizeInBytes());
        both.put(first.buffer().duplicate()).put(second.buffer().duplicate()).flip();
        return MemoryRecords.readableRecords(both);
    }

    static MemoryRecords stamped(MemoryRecords records, TimestampType type, long maxTimestamp) {
        records.batches().forEach(batch -> batch.setMaxTimestamp(type, maxTimestamp));
        return records;
    }

    static MemoryRecords patched(MemoryRecords records, int at, int value) {
        records.buffer().putInt(at, value);
        return sealed(records);
    }

    static MemoryRecords patchedLong(MemoryRecords records, int at, long value) {
        records.buffer().putLong(at, value);
        return sealed(records);
    }

    static MemoryRecords sealed(MemoryRecords records) {
        ByteBuffer buffer = records.buffer();
        CRC32C crc = new CRC32C();
        crc.update(buffer.slice(21, buffer.limit() - 21));
        buffer.putInt(17, (int) crc.getValue());
        return records;
    }

    static void validate(String name, MemoryRecords records, Rules rules) throws Exception {
        CompressionType source = records.batches().iterator().next().compressionType();
        CompressionType target = rules.compression == null ? source : rules.compression;
        System.out.println("validate " + name);
        System.out.println("rules compaction=" + rules.compaction + " append_time=" + (rules.type == TimestampType.LOG_APPEND_TIME)
            + " before=" + rules.before + " after=" + rules.after
            + " compression=" + (rules.compression == null ? "producer" : rules.compression.name)
            + " client=" + (rules.origin == AppendOrigin.CLIENT));
        System.out.println("bytes " + hex(array(records.buffer().duplicate())));
        // The log does this first.
        int valid = records.validBytes();
        records = MemoryRecords.readableRecords(records.buffer().slice(0, valid));
        Time time = proxy(Time.class);
        LogValidator validator = new LogValidator(records, new TopicPartition("t", 0), time, source,
            Compression.of(target).build(), rules.compaction, RecordBatch.MAGIC_VALUE_V2, rules.type, rules.before, rules.after,
            11, rules.origin);
        try {
            MemoryRecords validated = validator.validateMessagesAndAssignOffsets(PrimitiveRef.ofLong(500),
                proxy(LogValidator.MetricsRecorder.class), BufferSupplier.NO_CACHING).validatedRecords();
            System.out.println("accepted " + hex(array(validated.buffer().duplicate())));
        } catch (RecordValidationException e) {
            StringBuilder indices = new StringBuilder();
            e.recordErrors().forEach(error -> indices.append(' ').append(error.batchIndex));
            System.out.println("refused " + Errors.forException(e.invalidException()).code() + indices);
        } catch (ApiException e) {
            System.out.println("refused " + Errors.forException(e).code());
        } catch (RuntimeException e) {
            System.out.println("refused -1");
        }
        System.out.println();
    }

    /** Returns TIME for milliseconds, and otherwise does nothing. */
    static <T> T proxy(Class<T> type) {
        return type.cast(Proxy.newProxyInstance(type.getClassLoader(), new Class<?>[] {type}, (self, method, args) ->
            switch (method.getName()) {
                case "milliseconds" -> TIME;
                case "nanoseconds", "hiResClockMs" -> 0L;
                default -> null;
            }));
    }

    static void read() throws Exception {
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        String name = null;
        for (String line; (line = in.readLine()) != null; ) {
            if (line.startsWith("batch ")) {
                name = line.substring(6);
            } else if (line.startsWith("bytes ")) {
                show(name, MemoryRecords.readableRecords(ByteBuffer.wrap(HEX.parseHex(line.substring(6)))));
            }
        }
    }

    static void show(String name, MemoryRecords records) throws Exception {
        ByteBuffer buffer = records.buffer().duplicate();
        byte[] bytes = new byte[buffer.remaining()];
        buffer.get(bytes);
        System.out.println("batch " + name);
        System.out.println("bytes " + HEX.formatHex(bytes));
        for (MutableRecordBatch any : records.batches()) {
            DefaultRecordBatch batch = (DefaultRecordBatch) any;
            batch.ensureValid();
            System.out.println(header(batch));
            CRC32C crc = new CRC32C();
            try (InputStream in = batch.recordInputStream(BufferSupplier.NO_CACHING)) {
                crc.update(in.readAllBytes());
            }
            System.out.println("decompressed_crc " + crc.getValue());
            for (Record record : batch) {
                if (batch.countOrNull() <= 20) {
                    System.out.println(record(record));
                }
            }
        }
        System.out.println();
    }

    static String header(DefaultRecordBatch batch) {
        return "header base_offset=" + batch.baseOffset() + " next_offset=" + batch.nextOffset()
            + " size=" + batch.sizeInBytes() + " epoch=" + batch.partitionLeaderEpoch() + " crc=" + batch.checksum()
            + " compression=" + batch.compressionType().name
            + " append_time=" + (batch.timestampType() == TimestampType.LOG_APPEND_TIME)
            + " transactional=" + batch.isTransactional() + " control=" + batch.isControlBatch()
            + " base_timestamp=" + batch.baseTimestamp() + " max_timestamp=" + batch.maxTimestamp()
            + " producer_id=" + batch.producerId() + " producer_epoch=" + batch.producerEpoch()
            + " base_sequence=" + batch.baseSequence() + " last_sequence=" + batch.lastSequence()
            + " count=" + batch.countOrNull();
    }

    static String record(Record record) {
        StringJoiner headers = new StringJoiner(",");
        for (Header header : record.headers()) {
            headers.add(hex(bytes(header.key())) + ":" + hex(header.value()));
        }
        return "record offset=" + record.offset() + " timestamp=" + record.timestamp() + " key=" + hex(array(record.key()))
            + " value=" + hex(array(record.value())) + " headers=" + headers;
    }

    static ByteBuffer buffer() {
        return ByteBuffer.allocate(1024);
    }

    static byte[] bytes(String text) {
        return text.getBytes(StandardCharsets.UTF_8);
    }

    static byte[] array(ByteBuffer buffer) {
        if (buffer == null) {
            return null;
        }
        byte[] array = new byte[buffer.remaining()];
        buffer.get(array);
        return array;
    }

    static String hex(byte[] bytes) {
        return bytes == null ? "null" : HEX.formatHex(bytes);
    }
}

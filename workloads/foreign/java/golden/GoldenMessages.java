import java.io.IOException;
import java.io.PrintWriter;
import java.lang.reflect.Array;
import java.lang.reflect.Method;
import java.lang.reflect.Modifier;
import java.lang.reflect.ParameterizedType;
import java.lang.reflect.Type;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Collection;
import java.util.HexFormat;
import java.util.LinkedHashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;
import java.util.TreeSet;
import java.util.jar.JarFile;
import java.util.stream.Stream;

import org.apache.kafka.common.Uuid;
import org.apache.kafka.common.compress.Compression;
import org.apache.kafka.common.protocol.ByteBufferAccessor;
import org.apache.kafka.common.protocol.Message;
import org.apache.kafka.common.protocol.ObjectSerializationCache;
import org.apache.kafka.common.protocol.types.BoundField;
import org.apache.kafka.common.protocol.types.Field;
import org.apache.kafka.common.protocol.types.Schema;
import org.apache.kafka.common.protocol.types.TaggedFields;
import org.apache.kafka.common.record.internal.BaseRecords;
import org.apache.kafka.common.record.internal.MemoryRecords;
import org.apache.kafka.common.record.internal.SimpleRecord;

/**
 * Writes golden bytes of every message of Apache Kafka, as its own generated classes encode them:
 * <pre>MessageName version hex</pre>
 * one line an instance, sorted by name and version; an empty body is written as {@code -}. For each version that a
 * class supports there are up to three instances, in this order, each left out where an earlier one has the same bytes:
 * <ol>
 * <li>the defaults: a new instance, nothing set;
 * <li>filled: every field that the version has, away from its default, arrays and collections of two, nested ones too;
 * <li>nulls: filled as before, but null in every field that may be null in this version.
 * </ol>
 * What a version has, and may be null in it, is read from the schemas that the generated classes carry. Values are
 * drawn from a counter, so the output is a function of the jars alone. A frame's length and header are not part of a
 * message; headers are messages of their own here.
 *
 * <p>Usage: {@code java -cp 'LIB/*' GoldenMessages.java LIB OUT}
 */
public final class GoldenMessages {
    private enum Variant { DEFAULTS, FILLED, NULLS }

    /** Every so many strings one is longer than 127 bytes, so that its compact length takes two bytes. */
    private static final int LONG_STRING_EVERY = 23;

    private int counter;

    public static void main(String[] args) throws Exception {
        if (args.length != 2) {
            System.err.println("usage: GoldenMessages LIB OUT");
            System.exit(2);
        }
        Map<String, Class<? extends Message>> classes = messageClasses(Path.of(args[0]));
        int lines = 0;
        try (PrintWriter out = new PrintWriter(args[1], StandardCharsets.US_ASCII)) {
            for (Map.Entry<String, Class<? extends Message>> entry : classes.entrySet()) {
                Class<? extends Message> type = entry.getValue();
                short low = type.getField("LOWEST_SUPPORTED_VERSION").getShort(null);
                short high = type.getField("HIGHEST_SUPPORTED_VERSION").getShort(null);
                for (short version = low; version <= high; version++) {
                    for (String hex : instances(type, version)) {
                        out.println(entry.getKey() + " " + version + " " + (hex.isEmpty() ? "-" : hex));
                        lines++;
                    }
                }
            }
        }
        System.err.println(classes.size() + " messages, " + lines + " lines");
    }

    /** Every generated message in Kafka's jars, by the name of its schema. */
    private static Map<String, Class<? extends Message>> messageClasses(Path lib) throws Exception {
        Map<String, Class<? extends Message>> classes = new TreeMap<>();
        Set<Path> jars = new TreeSet<>();
        try (Stream<Path> files = Files.list(lib)) {
            files.filter(p -> p.getFileName().toString().matches("kafka[-_].*\\.jar")).forEach(jars::add);
        }
        for (Path jar : jars) {
            for (String name : classNames(jar)) {
                Class<?> type = Class.forName(name, false, GoldenMessages.class.getClassLoader());
                if (Message.class.isAssignableFrom(type) && hasField(type, "HIGHEST_SUPPORTED_VERSION")
                        && type.getDeclaringClass() == null && !Modifier.isAbstract(type.getModifiers())) {
                    String schema = type.getSimpleName().replaceFirst("(Request|Response|Header)Data$", "$1");
                    Class<?> other = classes.put(schema, type.asSubclass(Message.class));
                    if (other != null) {
                        throw new IllegalStateException(schema + " is both " + other + " and " + type);
                    }
                }
            }
        }
        return classes;
    }

    private static List<String> classNames(Path jar) throws IOException {
        try (JarFile file = new JarFile(jar.toFile())) {
            return file.stream().map(e -> e.getName())
                .filter(n -> n.matches("org/apache/kafka/(.*/generated|common/message|common/metadata)/.*\\.class"))
                .map(n -> n.substring(0, n.length() - ".class".length()).replace('/', '.'))
                .sorted().toList();
        }
    }

    private static boolean hasField(Class<?> type, String name) {
        return Stream.of(type.getFields()).anyMatch(f -> f.getName().equals(name));
    }

    private static Set<String> instances(Class<? extends Message> type, short version) throws Exception {
        Schema schema = (Schema) Array.get(type.getField("SCHEMAS").get(null), version);
        Set<String> distinct = new LinkedHashSet<>();
        for (Variant variant : Variant.values()) {
            Message message = type.getConstructor().newInstance();
            if (variant != Variant.DEFAULTS) {
                new GoldenMessages().fill(message, schema, variant);
            }
            distinct.add(encode(message, version));
        }
        return distinct;
    }

    private static String encode(Message message, short version) {
        ObjectSerializationCache cache = new ObjectSerializationCache();
        ByteBuffer buffer = ByteBuffer.allocate(message.size(cache, version));
        message.write(new ByteBufferAccessor(buffer), cache, version);
        if (buffer.hasRemaining()) {
            throw new IllegalStateException(message.getClass() + " v" + version + " is shorter than its size");
        }
        return HexFormat.of().formatHex(buffer.array());
    }

    /** Sets every field in the schema of one version, including tagged ones. */
    private void fill(Object struct, Schema schema, Variant variant) throws Exception {
        Map<String, Method> setters = setters(struct.getClass());
        for (BoundField bound : schema.fields()) {
            if (bound.def.type instanceof TaggedFields tagged) {
                for (Field field : new TreeMap<>(tagged.fields()).values()) {
                    set(struct, setters, field, variant);
                }
            } else {
                set(struct, setters, bound.def, variant);
            }
        }
    }

    private void set(Object struct, Map<String, Method> setters, Field field, Variant variant) throws Exception {
        Method setter = setters.get(field.name.replace("_", "").toLowerCase());
        if (setter == null) {
            throw new IllegalStateException(struct.getClass() + " has no setter for " + field.name);
        }
        Object value = null;
        if (setter.getParameterTypes()[0] == boolean.class) {
            value = !(boolean) struct.getClass().getMethod(getterName(setter)).invoke(struct);
        } else if (variant != Variant.NULLS || !field.type.isNullable()) {
            value = value(setter.getGenericParameterTypes()[0], field.type, field.name, variant);
        }
        setter.invoke(struct, value);
    }

    private static String getterName(Method setter) {
        String name = setter.getName().substring("set".length());
        return Character.toLowerCase(name.charAt(0)) + name.substring(1);
    }

    private static Map<String, Method> setters(Class<?> type) {
        Map<String, Method> setters = new LinkedHashMap<>();
        for (Method method : type.getMethods()) {
            if (method.getName().startsWith("set") && method.getParameterCount() == 1) {
                setters.put(method.getName().substring(3).toLowerCase(), method);
            }
        }
        return setters;
    }

    private Object value(Type java, org.apache.kafka.common.protocol.types.Type wire, String name, Variant variant)
            throws Exception {
        Class<?> raw = (Class<?>) (java instanceof ParameterizedType p ? p.getRawType() : java);
        if (Collection.class.isAssignableFrom(raw)) {
            return collection(java, raw, wire, name, variant);
        } else if (wire instanceof Schema schema) {
            Object struct = raw.getConstructor().newInstance();
            fill(struct, schema, variant);
            return struct;
        }
        return primitive(raw, wire, name, ++counter);
    }

    @SuppressWarnings("unchecked")
    private Object collection(Type java, Class<?> raw, org.apache.kafka.common.protocol.types.Type wire, String name,
            Variant variant) throws Exception {
        Collection<Object> collection = raw == List.class ? new ArrayList<>()
            : (Collection<Object>) raw.getConstructor().newInstance();
        ParameterizedType of = (ParameterizedType) (raw == List.class ? java : raw.getGenericSuperclass());
        for (int i = 0; i < 2; i++) {
            collection.add(value(of.getActualTypeArguments()[0], wire.arrayElementType().orElseThrow(), name, variant));
        }
        return collection;
    }

    /** A different value for each n, never a default of Kafka's schemas, using all bytes of its type. */
    private static Object primitive(Class<?> raw, org.apache.kafka.common.protocol.types.Type wire, String name, int n) {
        long wide = 0x0102030405060708L * n ^ (n % 2 == 0 ? Long.MIN_VALUE : 0);
        if (raw == byte.class || raw == Byte.class) {
            return (byte) (n % 2 == 0 ? -2 - n % 100 : 7 + n % 100);
        } else if (raw == short.class || raw == Short.class) {
            return (short) (wide >> 16);
        } else if (raw == int.class || raw == Integer.class) {
            boolean unsignedShort = wire == org.apache.kafka.common.protocol.types.Type.UINT16;
            return unsignedShort ? (0xC001 + n) & 0xFFFF : (int) (wide >> 8) | 0x10;
        } else if (raw == long.class || raw == Long.class) {
            boolean unsignedInt = wire == org.apache.kafka.common.protocol.types.Type.UNSIGNED_INT32;
            return unsignedInt ? wide & 0xFFFFFFFFL : wide;
        } else if (raw == double.class) {
            return n + 0.25;
        } else if (raw == String.class) {
            String text = n % 5 == 0 ? name + "-é-" + n : name + "-" + n;
            return n % LONG_STRING_EVERY == 0 ? text.repeat(130 / text.length() + 1) : text;
        } else if (raw == Uuid.class) {
            return new Uuid(wide, ~wide);
        } else if (raw == byte[].class) {
            return bytes(n);
        } else if (raw == ByteBuffer.class) {
            return ByteBuffer.wrap(bytes(n));
        } else if (BaseRecords.class.isAssignableFrom(raw)) {
            SimpleRecord record = new SimpleRecord(1_357_016_400_000L + n, bytes(n), bytes(n + 1));
            return MemoryRecords.withRecords(n, Compression.NONE, record, new SimpleRecord(null, bytes(n + 2)));
        }
        throw new IllegalStateException("no value for " + raw + " " + name);
    }

    private static byte[] bytes(int n) {
        byte[] bytes = new byte[1 + n % 4];
        for (int i = 0; i < bytes.length; i++) {
            bytes[i] = (byte) (0xF0 + n + i);
        }
        return bytes;
    }
}

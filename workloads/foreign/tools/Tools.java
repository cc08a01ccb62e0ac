import java.io.ByteArrayOutputStream;
import java.io.OutputStream;
import java.io.PrintStream;
import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Method;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeSet;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import java.util.stream.Collectors;
import java.util.stream.Stream;

import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.common.utils.Exit;

import static java.nio.charset.StandardCharsets.UTF_8;

/**
 * Runs Kafka's own tools, as listed in commands.txt, against a reference and a broker alternately, all in one JVM, and writes each
 * one's normalised output to its own transcript. Normalisation removes what may differ: ids, times, addresses, paths, byte counts
 * and speeds. APIs and settings that a broker doesn't serve are left out of both, but listed by name (see {@link #notServed}).
 *
 * <p>Usage: {@code Tools COMMANDS SCRATCH (BOOTSTRAP TRANSCRIPT){2}}, the reference first; or {@code Tools dump DIR}, which runs
 * all files of a data directory through DumpLogSegments and exits with 1 if it complains.
 */
public final class Tools {
    private static final long AGREE_MS_MAX = 5_000;

    /** APIs that must be advertised; any other API may be, and is then compared. */
    private static final Set<String> APIS_SERVED = Set.of("ApiVersions", "Metadata", "DescribeTopicPartitions",
        "DescribeCluster", "Produce", "Fetch", "ListOffsets", "OffsetForLeaderEpoch", "InitProducerId", "CreateTopics",
        "DeleteTopics", "CreatePartitions", "DeleteRecords", "DescribeConfigs", "AlterConfigs", "IncrementalAlterConfigs",
        "ListConfigResources", "DescribeLogDirs", "DescribeProducers");

    /** Settings that depend on the machine, or have a deliberately different default. */
    private static final String OWN_SETTINGS = "(log\\.flush\\.interval\\.messages|flush\\.messages|socket\\.send\\.buffer\\.bytes|listeners"
        + "|advertised\\.listeners|log\\.dirs?|metadata\\.log\\.dir|node\\.id|broker\\.id|controller\\.quorum\\.bootstrap\\.servers"
        + "|controller\\.listener\\.names|listener\\.security\\.protocol\\.map|process\\.roles)";

    /** The setting that Kafka does not have, as it is printed. */
    private static final String ADDED_SETTING = "  metrics.listen=";

    /** Thrown instead of exiting; tools that print every exception show its name, on a line that is filtered out. */
    private static final class ExitCalled extends RuntimeException {
        static final String NAME = "ExitCalled";

        ExitCalled() {
            super(NAME, null, false, false);
        }

        @Override
        public String toString() {
            return NAME;
        }
    }

    private record ToolOutput(String text, int status) { }

    private final Capture capture = new Capture();
    private final Map<String, Set<String>> notServed = new HashMap<>();
    private Integer status;

    private static final class Broker {
        final String at;
        final String node;
        final Path transcriptPath;
        final StringBuilder transcript = new StringBuilder();
        final Map<String, String> values = new HashMap<>();

        Broker(String at, String transcript) throws Exception {
            this.at = at;
            this.transcriptPath = Path.of(transcript);
            try (Admin admin = Admin.create(Map.of("bootstrap.servers", at))) {
                this.node = admin.describeCluster().nodes().get().iterator().next().idString();
            }
            values.put("{at}", at);
            values.put("{broker}", node);
        }

        String filled(String command) throws Exception {
            for (Map.Entry<String, String> value : values.entrySet()) {
                command = command.replace(value.getKey(), value.getValue());
            }
            Matcher id = Pattern.compile("\\{id:([^}]*)}").matcher(command);
            if (id.find()) {
                try (Admin admin = Admin.create(Map.of("bootstrap.servers", at))) {
                    String topic = id.group(1);
                    String uuid = admin.describeTopics(List.of(topic)).allTopicNames().get().get(topic).topicId().toString();
                    return id.replaceAll(Matcher.quoteReplacement(uuid));
                }
            }
            return command;
        }
    }

    public static void main(String[] args) throws Exception {
        int code = 0;
        try {
            code = args[0].equals("dump") ? new Tools().dump(Path.of(args[1])) : new Tools().run(args);
        } catch (Throwable failure) {
            failure.printStackTrace(Capture.REAL);
            code = 2;
        }
        // Tools leave threads running.
        Runtime.getRuntime().halt(code);
    }

    private Tools() {
        System.setOut(new PrintStream(capture, true, UTF_8));
        System.setErr(System.out);
        Exit.setExitProcedure((code, message) -> exit(code));
        Exit.setHaltProcedure((code, message) -> exit(code));
    }

    private int run(String[] args) throws Exception {
        Path scratch = Path.of(args[1]);
        List<Broker> brokers = List.of(new Broker(args[2], args[3]), new Broker(args[4], args[5]));
        String topics = "tools-" + ProcessHandle.current().pid();
        for (String line : Files.readAllLines(Path.of(args[0]))) {
            line = line.strip().replace("{T}", topics);
            if (line.startsWith("file ")) {
                String[] file = line.split(" ", 3);
                Files.writeString(scratch.resolve(file[1]), file[2].replace("\\n", "\n"));
                brokers.forEach(b -> b.values.put("{" + file[1] + "}", scratch.resolve(file[1]).toString()));
            } else if (!line.isEmpty() && !line.startsWith("#")) {
                both(line, brokers);
            }
        }
        for (Broker broker : brokers) {
            Files.writeString(broker.transcriptPath, broker.transcript.toString().replace(topics, "T"));
        }
        notServed.values().removeIf(Set::isEmpty);
        notServed.forEach((what, names) -> Capture.REAL.println("not served, not compared: " + what + ": " + names));
        return 0;
    }

    private void exit(int code) {
        if (status == null) {
            status = code;
        }
        throw new ExitCalled();
    }

    /** Runs one command against both brokers; repeats a reading one until they agree or the time is up. */
    private void both(String line, List<Broker> brokers) throws Exception {
        boolean reads = line.startsWith("?");
        boolean sorted = line.matches("\\??sorted .*");
        String command = line.replaceFirst("^\\??(sorted)? *", "");
        long until = System.nanoTime() + AGREE_MS_MAX * 1_000_000;
        List<String> output;
        do {
            List<ToolOutput> raw = new ArrayList<>();
            for (Broker broker : brokers) {
                raw.add(tool(broker.filled(command)));
            }
            Set<String> missing = missing(command, raw);
            output = new ArrayList<>();
            for (int i = 0; i < brokers.size(); i++) {
                output.add(normalised(raw.get(i), brokers.get(i), sorted, missing));
            }
        } while (reads && !output.get(0).equals(output.get(1)) && System.nanoTime() < until);
        for (int i = 0; i < brokers.size(); i++) {
            brokers.get(i).transcript.append("$ ").append(command).append('\n').append(output.get(i)).append('\n');
        }
    }

    private ToolOutput tool(String command) throws Exception {
        List<String> words = new ArrayList<>(Arrays.asList(command.split(" ")));
        String name = words.remove(0);
        if (name.equals("VerifiableProducer")) {
            return process("org.apache.kafka.tools." + name, words);
        }
        Method main = toolClass(name).getMethod("main", String[].class);
        status = null;
        capture.start();
        try {
            main.invoke(null, (Object) words.toArray(String[]::new));
        } catch (InvocationTargetException thrown) {
            if (!(thrown.getCause() instanceof ExitCalled)) {
                System.out.println(thrown.getCause());
                status = 1;
            }
        }
        return new ToolOutput(capture.stop(), status == null ? 0 : status);
    }

    /** Runs a tool in its own JVM, if it finishes its work in a shutdown hook. */
    private static ToolOutput process(String type, List<String> words) throws Exception {
        List<String> command = new ArrayList<>(List.of("java", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1",
            "-Dorg.slf4j.simpleLogger.defaultLogLevel=off", "-cp", System.getProperty("java.class.path"), type));
        command.addAll(words);
        Process process = new ProcessBuilder(command).redirectErrorStream(true).start();
        String text = new String(process.getInputStream().readAllBytes(), UTF_8);
        return new ToolOutput(text, process.waitFor());
    }

    private static Class<?> toolClass(String name) throws ClassNotFoundException {
        try {
            return Class.forName("org.apache.kafka.tools." + name);
        } catch (ClassNotFoundException e) {
            return Class.forName("kafka.admin." + name);
        }
    }

    /** Runs every file of every partition in a data directory through DumpLogSegments; counts records, prints complaints. */
    private int dump(Path data) throws Exception {
        List<Path> files;
        try (Stream<Path> found = Files.walk(data, 2)) {
            files = found.filter(f -> f.toString().matches(".*-\\d+/\\d+[-0-9]*\\.(log|index|timeindex|snapshot|checkpoint)")).sorted()
                .toList();
        }
        int complaints = 0;
        long records = 0;
        for (Path file : files) {
            boolean metadata = file.getParent().getFileName().toString().equals("__cluster_metadata-0");
            ToolOutput output = tool("DumpLogSegments --deep-iteration " + (metadata ? "--cluster-metadata-decoder" : "--print-data-log")
                + " --files " + file);
            records += output.text.lines().filter(l -> l.startsWith("| ")).count();
            List<String> bad = output.text.lines()
                .filter(l -> l.matches("(?i).*(mismatch|invalid|corrupt|could not|exception|isvalid: false|not found).*")).toList();
            if (output.status != 0 || !bad.isEmpty()) {
                complaints++;
                Capture.REAL.println(data.relativize(file) + ": exit " + output.status + " " + bad);
            }
        }
        Capture.REAL.println(files.size() + " files, " + records + " records, " + complaints + " files with complaints");
        return files.isEmpty() || complaints > 0 ? 1 : 0;
    }

    /** APIs or settings that the first broker lists and the second does not, where that is allowed. */
    private Set<String> missing(String command, List<ToolOutput> raw) {
        Set<String> missing = new TreeSet<>();
        if (command.startsWith("BrokerApiVersionsCommand")) {
            missing.addAll(names("(?m)^\t(\\w+)\\(\\d+\\): (?!UNSUPPORTED)", raw.get(0)));
            missing.removeAll(names("(?m)^\t(\\w+)\\(\\d+\\): (?!UNSUPPORTED)", raw.get(1)));
            missing.removeAll(APIS_SERVED);
            notServed.put("APIs", missing);
        } else if (command.startsWith("ConfigCommand") && command.contains("--broker ") && command.contains("--all")) {
            missing.addAll(names("(?m)^  ([\\w.]+)=", raw.get(0)));
            missing.removeAll(names("(?m)^  ([\\w.]+)=", raw.get(1)));
            notServed.put("broker settings", missing);
        }
        return missing;
    }

    private static Set<String> names(String pattern, ToolOutput output) {
        return Pattern.compile(pattern).matcher(output.text).results().map(m -> m.group(1)).collect(Collectors.toSet());
    }

    private static String normalised(ToolOutput output, Broker broker, boolean sorted, Set<String> missing) {
        Stream<String> lines = output.text.lines()
            .filter(l -> !l.startsWith("\tat ") && !l.isBlank() && !l.equals(ExitCalled.NAME))
            .filter(l -> !l.startsWith(ADDED_SETTING))
            .filter(l -> missing.stream().noneMatch(m -> l.startsWith("  " + m + "=") || l.startsWith("\t" + m + "(")));
        if (output.text.contains("\"logDirs\"")) {
            lines = lines.flatMap(l -> Stream.of(l.split("(?<=[\\[,])(?=\\{)|(?=\\])")).map(p -> p.replaceAll(",$", "")).sorted());
        }
        lines = lines.map(line -> normalisedLine(line, broker));
        String text = (sorted ? lines.sorted() : lines).collect(Collectors.joining("\n"));
        return text + (text.isEmpty() ? "" : "\n") + "exit " + output.status + "\n";
    }

    private static String normalisedLine(String line, Broker broker) {
        line = line.replace(broker.at, "HOST:PORT")
            .replaceAll("TopicId: \\S+", "TopicId: ID")
            .replaceAll("Cluster ID: \\S+", "Cluster ID: ID")
            .replaceAll("\\b(Leader|Replicas|Isr): " + broker.node + "\\b", "$1: NODE")
            .replaceAll("(?i)\\b(brokers?|node|id:?) " + broker.node + "\\b", "$1 NODE")
            .replaceAll("\"broker\":" + broker.node + "\\b", "\"broker\":NODE")
            .replaceAll("\"timestamp\":\\d+", "\"timestamp\":TIME")
            .replaceAll("Call\\(callName=(\\w+).*", "Call($1)")
            // The same call, if its time ran out between two attempts.
            .replaceAll("Timed out waiting for a node assignment\\. Call: (\\w+).*", "Call($1)")
            .replaceAll("\"avg_throughput\":[0-9.E]+", "\"avg_throughput\":SPEED")
            .replaceAll("\"size\":[1-9]\\d*", "\"size\":BYTES")
            .replaceAll("\"logDir\":\"[^\"]*\"", "\"logDir\":\"DIR\"")
            .replaceAll("^  " + OWN_SETTINGS + "=.*", "  $1=OWN")
            .replaceAll("^(\\d+ records sent, ).*", "$1SPEED");
        Matcher configs = Pattern.compile("Configs: (\\S+)").matcher(line); // in the order of the answer
        if (configs.find()) {
            line = configs.replaceFirst("Configs: " + Stream.of(configs.group(1).split(",(?=[a-z.]+=)")).sorted()
                .collect(Collectors.joining(",")));
        }
        if (line.matches("\\d+\\s+(127\\.\\S+|localhost)\\s+\\d+\\s+.*")) { // ClusterTool's endpoints
            line = line.replaceAll("^\\d+\\s+\\S+\\s+\\d+", "NODE HOST PORT");
        }
        if (line.matches("\\d+\\s+\\d+\\s+-?\\d+\\s+\\d+\\s+\\d+\\s+\\S+\\s*")) { // a producer: id, …, time, …
            line = line.replaceAll("^\\d+(\\s+\\d+\\s+-?\\d+\\s+\\d+\\s+)\\d+", "ID$1TIME");
        }
        return line.replaceAll("[ \t]{2,}", " "); // columns are as wide as what stands in them
    }

    /** Redirects output while capturing: tools keep the stream that they saw first. */
    private static final class Capture extends OutputStream {
        static final PrintStream REAL = System.err;
        private ByteArrayOutputStream into;

        synchronized void start() {
            into = new ByteArrayOutputStream();
        }

        synchronized String stop() {
            String text = into.toString(UTF_8);
            into = null;
            return text;
        }

        @Override
        public synchronized void write(int b) {
            if (into != null) {
                into.write(b);
            }
        }

        @Override
        public synchronized void write(byte[] bytes, int from, int length) {
            if (into != null) {
                into.write(bytes, from, length);
            }
        }
    }
}

//! The configurations that an inspector changes.

/// Configurations that it changes, with the values that it sets. The first is the default.
pub const INSPECTED_CONFIGS: [(&str, [&str; 3]); 5] = [
    ("max.message.bytes", ["1048588", "2000", "9000"]),
    (
        "message.timestamp.type",
        ["CreateTime", "LogAppendTime", "CreateTime"],
    ),
    ("compression.type", ["producer", "gzip", "uncompressed"]),
    ("min.insync.replicas", ["1", "2", "1"]),
    (
        "message.timestamp.after.max.ms",
        ["3600000", "7200000", "86400000"],
    ),
];
/// Defaults of the broker that it changes: the broker's key, the topic's, and the values that it sets, the first being Kafka's. They do no
/// harm to the topics of others.
pub const INSPECTED_DEFAULTS: [(&str, &str, [&str; 3]); 3] = [
    (
        "compression.type",
        "compression.type",
        ["producer", "gzip", "uncompressed"],
    ),
    (
        "log.message.timestamp.after.max.ms",
        "message.timestamp.after.max.ms",
        ["3600000", "7200000", "86400000"],
    ),
    // A key that nobody knows is a secret.
    (INSPECTED_SECRET, INSPECTED_SECRET, ["a", "b", "c"]),
];
/// A key of the broker that nobody knows.
pub const INSPECTED_SECRET: &str = "inspected.secret";

//! A topic's effective configuration: its own, else the broker's.

use brokkr_log::LogConfig;
use brokkr_metadata::config::resolve::Layers;
use brokkr_metadata::config::topic_key;
use brokkr_metadata::{ConfigResource, Image};
use brokkr_wire::Str;
use brokkr_wire::records::{
    CompressionConfig, CompressionType, DECOMPRESSED_MAX, Origin, Rules, TimestampType,
};

use super::broker::BrokerConfig;

/// A topic's resolved configuration.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TopicConfig {
    /// The configuration of its logs.
    pub log: LogConfig,
    /// The rules that batches must satisfy.
    pub rules: Rules,
    /// Whether `cleanup.policy` has `delete`.
    pub delete: bool,
    /// Whether `cleanup.policy` has `compact`.
    pub compact: bool,
    /// `min.insync.replicas`.
    pub min_insync_replicas: usize,
}

impl TopicConfig {
    /// Resolves the configuration of `topic` under the image.
    pub fn resolve(config: &BrokerConfig, image: &Image, topic: &Str) -> Self {
        let layers = layers(config, image);
        let own = image.topic_configs(topic);
        let value = |name: &'static str| {
            let key = topic_key(name).unwrap_or_else(|| panic!("{name} is in the table"));
            layers.topic_value(key, own).value
        };
        let int = |name| {
            value(name)
                .and_then(|v| v.as_integer())
                .unwrap_or_else(|| panic!("{name} is a number"))
        };
        let text = |name| {
            value(name)
                .and_then(|v| v.as_text().map(str::to_owned))
                .unwrap_or_default()
        };
        let policy = value("cleanup.policy")
            .and_then(|v| v.as_list().map(<[String]>::to_vec))
            .unwrap_or_default();
        let has = |p: &str| policy.iter().any(|have| have == p);
        let log = LogConfig {
            segment_bytes: u32::try_from(int("segment.bytes")).unwrap_or(u32::MAX),
            segment_ms: int("segment.ms"),
            segment_jitter_ms: int("segment.jitter.ms"),
            segment_index_bytes: u32::try_from(int("segment.index.bytes")).unwrap_or(u32::MAX),
            index_interval_bytes: u32::try_from(int("index.interval.bytes")).unwrap_or(u32::MAX),
            retention_ms: int("retention.ms"),
            retention_bytes: int("retention.bytes"),
            cleanup_delete: has("delete"),
            flush_messages: int("flush.messages").max(1) as u64,
            flush_ms: match int("flush.ms") {
                i64::MAX => u64::MAX,
                ms => ms.max(0) as u64,
            },
            file_delete_delay_ms: int("file.delete.delay.ms").max(0) as u64,
            producer_id_expiration_ms: i64::from(config.producer_id_expiration_ms),
        };
        let rules = Rules {
            compaction: has("compact"),
            timestamp_type: match text("message.timestamp.type").as_str() {
                "LogAppendTime" => TimestampType::LogAppendTime,
                _ => TimestampType::CreateTime,
            },
            timestamp_before_max_ms: int("message.timestamp.before.max.ms"),
            timestamp_after_max_ms: int("message.timestamp.after.max.ms"),
            max_message_bytes: int("max.message.bytes") as i32,
            compression: compression(&text("compression.type"), |codec| int(codec) as i32),
            origin: Origin::Client,
            zstd: true,
            decompressed_max: decompressed_max(int("max.message.bytes")),
        };
        let min_insync_replicas = int("min.insync.replicas").max(1) as usize;
        Self {
            log,
            rules,
            delete: has("delete"),
            compact: has("compact"),
            min_insync_replicas,
        }
    }
}

/// Limit of what a batch's records may decompress to: 32 times the largest batch, and 32 MiB at least. The producers' own
/// limits apply to uncompressed records, so more is a decompression bomb.
fn decompressed_max(max_message_bytes: i64) -> usize {
    const MIN: usize = 32 << 20;
    let bytes = usize::try_from(max_message_bytes).unwrap_or(0).saturating_mul(32);
    bytes.clamp(MIN, DECOMPRESSED_MAX)
}

fn compression(name: &str, level: impl Fn(&'static str) -> i32) -> CompressionConfig {
    let fixed = |codec, level| CompressionConfig::Fixed { codec, level };
    match name {
        "uncompressed" => CompressionConfig::Uncompressed,
        "gzip" => fixed(CompressionType::Gzip, level("compression.gzip.level")),
        "snappy" => fixed(CompressionType::Snappy, 0),
        "lz4" => fixed(CompressionType::Lz4, level("compression.lz4.level")),
        "zstd" => fixed(CompressionType::Zstd, level("compression.zstd.level")),
        _ => CompressionConfig::Producer,
    }
}

/// The layers that a value may come from.
pub fn layers<'a>(config: &'a BrokerConfig, image: &'a Image) -> Layers<'a> {
    Layers {
        broker: image.configs(&ConfigResource::broker(config.node_id)),
        cluster: image.configs(&ConfigResource::cluster()),
        file: Some(&config.set),
    }
}

#[cfg(test)]
mod tests {
    use brokkr_wire::records::compression::compress;

    use super::*;

    #[test]
    fn a_compression_level_has_an_effect_or_is_not_claimed() {
        let words = (0..20_000u32).map(|i| format!("{} ", i.wrapping_mul(2_654_435_761) % 5000));
        let data = words.collect::<String>().into_bytes();
        for (codec, low, high) in [
            (CompressionType::Gzip, 1, 9),
            (CompressionType::Lz4, 1, 17),
            (CompressionType::Zstd, 1, 19),
        ] {
            let name = format!("compression.{}.level", codec.name());
            let key = topic_key(&name).unwrap_or_else(|| panic!("{name} is in the table"));
            let [low, high] = [low, high].map(|level| {
                key.parse(&level.to_string()).expect("Kafka takes it");
                compress(codec, level, &data)
            });
            assert_eq!(low != high, key.implemented, "{name}");
        }
    }
}

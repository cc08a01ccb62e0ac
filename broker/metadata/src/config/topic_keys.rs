//! Kafka 4.3.0's topic keys, with the broker keys that give their defaults. Importance is medium throughout.
//!
//! A default of our own: `flush.messages` (1: acknowledged is durable).

use super::key::Type::{Boolean, Double, Int, List, Long, String};
use super::key::Valid::{Any, AtLeast, Between, GzipLevel, OneOf, ThrottledReplicas};
use super::key::{Importance, Key, NO, Scale, Type, Update, Valid, YES};

const ONE: Scale = Scale::ONE;
const MINUTES: Scale = Scale::MINUTES;
const HOURS: Scale = Scale::HOURS;

const fn topic(
    name: &'static str,
    ty: Type,
    default: Option<&'static str>,
    valid: Valid,
    implemented: bool,
    synonyms: &'static [(&'static str, Scale)],
) -> Key {
    Key {
        name,
        ty,
        default,
        importance: Importance::Medium,
        valid,
        update: Update::ClusterWide,
        implemented,
        synonyms,
    }
}

/// Sorted by name.
#[rustfmt::skip]
pub static TOPIC_KEYS: &[Key] = &[
    topic("cleanup.policy", List, Some("delete"), Valid::List { empty: true, null: false, of: &["compact", "delete"] }, YES, &[("log.cleanup.policy", ONE)]),
    topic("compression.gzip.level", Int, Some("-1"), GzipLevel, YES, &[("compression.gzip.level", ONE)]),
    topic("compression.lz4.level", Int, Some("9"), Between(1, 17), NO, &[("compression.lz4.level", ONE)]),
    topic("compression.type", String, Some("producer"), OneOf(&["uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"]), YES, &[("compression.type", ONE)]),
    topic("compression.zstd.level", Int, Some("3"), Between(-131072, 22), YES, &[("compression.zstd.level", ONE)]),
    topic("delete.retention.ms", Long, Some("86400000"), AtLeast(0), NO, &[("log.cleaner.delete.retention.ms", ONE)]),
    topic("file.delete.delay.ms", Long, Some("60000"), AtLeast(0), YES, &[("log.segment.delete.delay.ms", ONE)]),
    topic("flush.messages", Long, Some("1"), AtLeast(1), YES, &[("log.flush.interval.messages", ONE)]),
    topic("flush.ms", Long, Some("9223372036854775807"), AtLeast(0), YES, &[("log.flush.interval.ms", ONE), ("log.flush.scheduler.interval.ms", ONE)]),
    topic("follower.replication.throttled.replicas", List, Some(""), ThrottledReplicas, NO, &[]),
    topic("index.interval.bytes", Int, Some("4096"), AtLeast(0), YES, &[("log.index.interval.bytes", ONE)]),
    topic("leader.replication.throttled.replicas", List, Some(""), ThrottledReplicas, NO, &[]),
    topic("local.retention.bytes", Long, Some("-2"), AtLeast(-2), NO, &[("log.local.retention.bytes", ONE)]),
    topic("local.retention.ms", Long, Some("-2"), AtLeast(-2), NO, &[("log.local.retention.ms", ONE)]),
    topic("max.compaction.lag.ms", Long, Some("9223372036854775807"), AtLeast(1), NO, &[("log.cleaner.max.compaction.lag.ms", ONE)]),
    topic("max.message.bytes", Int, Some("1048588"), AtLeast(0), YES, &[("message.max.bytes", ONE)]),
    topic("message.timestamp.after.max.ms", Long, Some("3600000"), AtLeast(0), YES, &[("log.message.timestamp.after.max.ms", ONE)]),
    topic("message.timestamp.before.max.ms", Long, Some("9223372036854775807"), AtLeast(0), YES, &[("log.message.timestamp.before.max.ms", ONE)]),
    topic("message.timestamp.type", String, Some("CreateTime"), OneOf(&["CreateTime", "LogAppendTime"]), YES, &[("log.message.timestamp.type", ONE)]),
    topic("min.cleanable.dirty.ratio", Double, Some("0.5"), Between(0, 1), NO, &[("log.cleaner.min.cleanable.ratio", ONE)]),
    topic("min.compaction.lag.ms", Long, Some("0"), AtLeast(0), NO, &[("log.cleaner.min.compaction.lag.ms", ONE)]),
    topic("min.insync.replicas", Int, Some("1"), AtLeast(1), YES, &[("min.insync.replicas", ONE)]),
    topic("preallocate", Boolean, Some("false"), Any, NO, &[("log.preallocate", ONE)]),
    topic("remote.log.copy.disable", Boolean, Some("false"), Any, NO, &[]),
    topic("remote.log.delete.on.disable", Boolean, Some("false"), Any, NO, &[]),
    topic("remote.storage.enable", Boolean, Some("false"), Any, NO, &[]),
    topic("retention.bytes", Long, Some("-1"), Any, YES, &[("log.retention.bytes", ONE)]),
    topic("retention.ms", Long, Some("604800000"), AtLeast(-1), YES, &[("log.retention.ms", ONE), ("log.retention.minutes", MINUTES), ("log.retention.hours", HOURS)]),
    topic("segment.bytes", Int, Some("1073741824"), AtLeast(1048576), YES, &[("log.segment.bytes", ONE)]),
    topic("segment.index.bytes", Int, Some("10485760"), AtLeast(4), YES, &[("log.index.size.max.bytes", ONE)]),
    topic("segment.jitter.ms", Long, Some("0"), AtLeast(0), YES, &[("log.roll.jitter.ms", ONE), ("log.roll.jitter.hours", HOURS)]),
    topic("segment.ms", Long, Some("604800000"), AtLeast(1), YES, &[("log.roll.ms", ONE), ("log.roll.hours", HOURS)]),
    topic("unclean.leader.election.enable", Boolean, Some("false"), Any, NO, &[("unclean.leader.election.enable", ONE)]),
];

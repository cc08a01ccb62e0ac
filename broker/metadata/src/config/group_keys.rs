//! Kafka 4.3.0's keys of groups and of client metrics subscriptions (KIP-848, KIP-932, KIP-1071, KIP-714). Importance is
//! medium throughout. Groups and subscriptions are not implemented yet: their configurations are only stored.

use super::key::Type::{Boolean, Int, List, String};
use super::key::Valid::{Any, AtLeast, OffsetReset, OneOf};
use super::key::{Importance, Key, NO, Scale, Type, Update, Valid};

const fn key(
    name: &'static str,
    ty: Type,
    default: &'static str,
    valid: Valid,
    synonyms: &'static [(&'static str, Scale)],
) -> Key {
    Key {
        name,
        ty,
        default: Some(default),
        importance: Importance::Medium,
        valid,
        update: Update::ClusterWide,
        implemented: NO,
        synonyms,
    }
}

/// A key whose default is the broker's `group.` key of the same name.
macro_rules! of_broker {
    ($name:literal, $ty:expr, $default:literal, $valid:expr) => {
        key(
            $name,
            $ty,
            $default,
            $valid,
            &[(concat!("group.", $name), Scale::ONE)],
        )
    };
}

/// The keys of a group, sorted by name.
#[rustfmt::skip]
pub static GROUP_KEYS: &[Key] = &[
    of_broker!("consumer.assignment.interval.ms", Int, "1000", AtLeast(0)),
    of_broker!("consumer.heartbeat.interval.ms", Int, "5000", AtLeast(1)),
    of_broker!("consumer.session.timeout.ms", Int, "45000", AtLeast(1)),
    of_broker!("share.assignment.interval.ms", Int, "1000", AtLeast(0)),
    key("share.auto.offset.reset", String, "latest", OffsetReset, &[]),
    of_broker!("share.delivery.count.limit", Int, "5", AtLeast(2)),
    of_broker!("share.heartbeat.interval.ms", Int, "5000", AtLeast(1)),
    key("share.isolation.level", String, "read_uncommitted", OneOf(&["read_committed", "read_uncommitted"]), &[]),
    of_broker!("share.partition.max.record.locks", Int, "2000", AtLeast(100)),
    of_broker!("share.record.lock.duration.ms", Int, "30000", AtLeast(1000)),
    key("share.renew.acknowledge.enable", Boolean, "true", Any, &[]),
    of_broker!("share.session.timeout.ms", Int, "45000", AtLeast(1)),
    of_broker!("streams.assignment.interval.ms", Int, "1000", AtLeast(0)),
    of_broker!("streams.heartbeat.interval.ms", Int, "5000", AtLeast(1)),
    of_broker!("streams.initial.rebalance.delay.ms", Int, "3000", AtLeast(0)),
    of_broker!("streams.num.standby.replicas", Int, "0", AtLeast(0)),
    of_broker!("streams.session.timeout.ms", Int, "45000", AtLeast(1)),
];

/// The interval at which clients push their metrics.
pub(super) const INTERVAL_MS: std::ops::RangeInclusive<i64> = 100..=3_600_000;

/// The keys of a client metrics subscription, sorted by name.
#[rustfmt::skip]
pub static CLIENT_METRICS_KEYS: &[Key] = &[
    key("interval.ms", Int, "300000", Any, &[]),
    key("match", List, "", Valid::List { empty: true, null: false, of: &[] }, &[]),
    key("metrics", List, "", Valid::List { empty: true, null: false, of: &[] }, &[]),
];

/// The client attributes that `match` can test.
pub(super) const MATCHED: [&str; 6] = [
    "client_id",
    "client_instance_id",
    "client_software_name",
    "client_software_version",
    "client_source_address",
    "client_source_port",
];

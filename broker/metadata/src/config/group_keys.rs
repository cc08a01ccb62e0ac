//! Kafka 4.3.0's keys of groups and of client metrics subscriptions (KIP-848, KIP-932, KIP-1071, KIP-714). Importance is
//! medium throughout. Groups and subscriptions are not implemented yet: their configurations are only stored.

use super::Type::{Boolean, Int, List, String};
use super::Valid::{Any, AtLeast, OffsetReset, OneOf};
use super::{Importance, Key, NO, Scale, Type, Update, Valid};

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

/// Whether the text is a non-negative ISO 8601 duration that Java's `Duration` accepts (`P2DT3H4M5.6S`).
pub(super) fn is_duration(text: &str) -> bool {
    let text = text.to_ascii_uppercase();
    let Some(rest) = text.strip_prefix('+').unwrap_or(&text).strip_prefix('P') else {
        return false;
    };
    let (days, time) = match rest.split_once('T') {
        Some((days, time)) => (days, Some(time)),
        None => (rest, None),
    };
    let number = |s: &str| !s.is_empty() && s.len() <= 18 && s.bytes().all(|b| b.is_ascii_digit());
    let day = days.strip_suffix('D').is_some_and(number);
    match time {
        None => day,
        Some(time) if day || days.is_empty() => is_time(time),
        Some(_) => false,
    }
}

/// Hours, minutes and seconds, in this order; at least one of them.
fn is_time(mut rest: &str) -> bool {
    if rest.is_empty() {
        return false;
    }
    for unit in ['H', 'M', 'S'] {
        let Some((number, behind)) = rest.split_once(unit) else {
            continue;
        };
        let (whole, part) = match number.split_once('.') {
            Some((whole, part)) if unit == 'S' => (whole, part),
            _ => (number, ""),
        };
        let digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
        if whole.is_empty() || whole.len() > 15 || part.len() > 9 || !digits(whole) || !digits(part) {
            return false;
        }
        rest = behind;
    }
    rest.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_javas() {
        for good in ["PT1H", "P1D", "P1DT1S", "PT1H2M3.5S", "pt0s", "PT3.S", "+PT1M"] {
            assert!(is_duration(good), "{good}");
        }
        for bad in [
            "", "P", "PT", "P1DT", "PT1", "1H", "PTxH", "P1H", "PT1S1H", "PT1.5H", "-PT1H", "P1W",
        ] {
            assert!(!is_duration(bad), "{bad}");
        }
    }
}

//! Newtypes for the integers that Kafka's protocol speaks in.

use std::fmt;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($int:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        #[repr(transparent)]
        pub struct $name(pub $int);

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl From<$int> for $name {
            fn from(v: $int) -> Self {
                Self(v)
            }
        }

        impl From<$name> for $int {
            fn from(v: $name) -> Self {
                v.0
            }
        }
    };
}

id! {
    /// The position of a record in its partition, from 0.
    Offset(i64)
}
id! {
    /// The epoch of a partition's leader (KIP-101); each new leader incarnation has a higher one. `-1` if unknown.
    LeaderEpoch(i32)
}
id! {
    /// The id of an idempotent producer (KIP-98). `-1` is none.
    ProducerId(i64)
}
id! {
    /// The incarnation of a [`ProducerId`]; 0 to 32,767. `-1` is none.
    ProducerEpoch(i16)
}
id! {
    /// A node: broker or controller.
    NodeId(i32)
}
id! {
    /// One registration of a broker with the controller.
    BrokerEpoch(i64)
}
id! {
    /// A partition's index in its topic, from 0.
    PartitionIndex(i32)
}
id! {
    /// The sequence number of a record among those that a producer sent to one partition. Wraps from `i32::MAX` to 0.
    Sequence(i32)
}

impl Offset {
    /// The offset `n` higher.
    #[must_use]
    pub fn plus(self, n: i64) -> Self {
        Self(self.0 + n)
    }
}

impl LeaderEpoch {
    /// No known epoch.
    pub const NONE: Self = Self(-1);
}

impl ProducerId {
    /// The producer id of a batch from a producer that isn't idempotent.
    pub const NONE: Self = Self(-1);

    /// Whether this is the id of a producer.
    pub fn is_some(self) -> bool {
        self.0 >= 0
    }
}

impl Sequence {
    /// The sequence of a batch without one.
    pub const NONE: Self = Self(-1);

    /// The sequence `n` records later; wraps from `i32::MAX` to 0 (SCENARIOS P3).
    #[must_use]
    pub fn plus(self, n: i32) -> Self {
        let wide = i64::from(self.0) + i64::from(n);
        Self(wide.rem_euclid(1 << 31) as i32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sequence_wraps_to_zero() {
        assert_eq!(Sequence(i32::MAX).plus(1), Sequence(0));
        assert_eq!(Sequence(i32::MAX - 2).plus(5), Sequence(2));
        assert_eq!(Sequence(1).plus(-2), Sequence(i32::MAX));
        assert_eq!(Sequence(7).plus(0), Sequence(7));
    }
}

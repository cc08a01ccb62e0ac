//! Capacities, sizes and periods as knobs: one table declares a struct, its production defaults, and how small each may be.

use std::time::Duration;

/// A row of a table of limits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limit {
    /// Its name.
    pub name: &'static str,
    /// The unit of its values; empty for a count.
    pub unit: &'static str,
    /// The value in production.
    pub default: u64,
    /// The smallest value with which everything still works, if slowly.
    pub least: u64,
}

impl Limit {
    /// The largest value: a thousand times the default.
    pub const fn most(&self) -> u64 {
        self.default * 1000
    }
}

/// A type that a limit can have.
pub trait LimitValue {
    /// The unit of its values; empty for a count.
    const UNIT: &'static str;

    /// The limit of this value, which its table allows.
    fn from_number(number: u64) -> Self;
}

impl LimitValue for usize {
    const UNIT: &'static str = "";

    fn from_number(number: u64) -> Self {
        Self::try_from(number).unwrap_or(Self::MAX)
    }
}

impl LimitValue for u64 {
    const UNIT: &'static str = "";

    fn from_number(number: u64) -> Self {
        number
    }
}

impl LimitValue for u32 {
    const UNIT: &'static str = "";

    fn from_number(number: u64) -> Self {
        Self::try_from(number).unwrap_or(Self::MAX)
    }
}

impl LimitValue for Duration {
    const UNIT: &'static str = "ms";

    fn from_number(number: u64) -> Self {
        Self::from_millis(number)
    }
}

/// Declares a struct of limits: `field: type = default, least;`, durations in milliseconds.
///
/// The struct gets `Default` (production), `table()` and `set(name, number)`.
#[macro_export]
macro_rules! limits {
    (
        $(#[$attribute:meta])*
        pub struct $name:ident {
            $($(#[$field_attribute:meta])* $field:ident: $type:ty = $default:expr, $least:expr;)*
        }
    ) => {
        $(#[$attribute])*
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub struct $name {
            $($(#[$field_attribute])* pub $field: $type,)*
        }

        impl Default for $name {
            fn default() -> Self {
                Self { $($field: <$type as $crate::LimitValue>::from_number($default),)* }
            }
        }

        impl $name {
            /// All limits, in the order of their declaration.
            pub const fn table() -> &'static [$crate::Limit] {
                const {
                    &[$($crate::Limit {
                        name: stringify!($field),
                        unit: <$type as $crate::LimitValue>::UNIT,
                        default: $default,
                        least: $least,
                    },)*]
                }
            }

            /// Sets a limit that is in the table, to a value that the table allows. `false`: there is none of this name, or the value
            /// is out of its range.
            #[must_use]
            pub fn set(&mut self, name: &str, number: u64) -> bool {
                let row = Self::table().iter().find(|limit| limit.name == name);
                if !row.is_some_and(|limit| (limit.least..=limit.most()).contains(&number)) {
                    return false;
                }
                match name {
                    $(stringify!($field) => self.$field = <$type as $crate::LimitValue>::from_number(number),)*
                    _ => unreachable!("it is in the table"),
                }
                true
            }
        }
    };
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    crate::limits! {
        /// Two limits.
        pub struct Two {
            /// Requests that wait.
            queue: usize = 64, 1;
            /// How long one waits.
            wait: Duration = 1_000, 10;
        }
    }

    #[test]
    fn a_limit_is_set_by_its_name_within_its_range() {
        let mut two = Two::default();
        assert_eq!((two.queue, two.wait), (64, Duration::from_secs(1)));
        assert!(two.set("queue", 1) && two.set("wait", 1_000_000));
        assert_eq!((two.queue, two.wait), (1, Duration::from_secs(1000)));
        let refused = [("queue", 0), ("queue", 64_001), ("wait", 9), ("rest", 5)];
        assert!(refused.iter().all(|(name, number)| !two.set(name, *number)));
        assert_eq!((two.queue, two.wait), (1, Duration::from_secs(1000)));
        assert_eq!((Two::table()[1].unit, Two::table()[1].least), ("ms", 10));
    }
}

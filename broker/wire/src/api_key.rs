//! The API keys and their versions.

use std::fmt;
use std::ops::RangeInclusive;

/// A kind of listener that serves requests.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Listener {
    /// A broker's.
    Broker,
    /// A controller's.
    Controller,
}

/// A row of `schema/api_keys.txt` with the flexible versions of its two messages.
struct Info {
    name: &'static str,
    versions: (i16, i16),
    last_is_unstable: bool,
    request_flexible_from: i16,
    response_flexible_from: i16,
    listeners: &'static [Listener],
    forwardable: bool,
}

include!(concat!(env!("OUT_DIR"), "/api_key.rs"));

impl ApiKey {
    /// Kafka's name, as in `Fetch`.
    pub fn name(self) -> &'static str {
        self.info().name
    }

    /// The versions that Kafka 4.3.0 knows, unstable ones included. (Produce: a broker also advertises 0 to 2 and refuses
    /// them, KAFKA-18659.)
    pub fn versions(self) -> RangeInclusive<i16> {
        let (first, last) = self.info().versions;
        first..=last
    }

    /// The versions to advertise: without the last one if it is unstable.
    pub fn stable_versions(self) -> RangeInclusive<i16> {
        let (first, last) = self.info().versions;
        first..=last - i16::from(self.info().last_is_unstable)
    }

    /// The newest version to advertise.
    pub fn max_stable(self) -> i16 {
        *self.stable_versions().end()
    }

    /// The header version of a request in this version: 1, or 2 with tagged fields. Defined for unknown versions too: an
    /// ApiVersions request in any version must be answered.
    pub fn request_header_version(self, version: i16) -> i16 {
        if version >= self.info().request_flexible_from {
            2
        } else {
            1
        }
    }

    /// The header version of a response in this version: 0, or 1 with tagged fields. Always 0 for ApiVersions, which a
    /// client must be able to read before it knows the broker's versions (KIP-511).
    pub fn response_header_version(self, version: i16) -> i16 {
        i16::from(self != Self::ApiVersions && version >= self.info().response_flexible_from)
    }

    /// The listeners that serve it.
    pub fn listeners(self) -> &'static [Listener] {
        self.info().listeners
    }

    /// Whether a broker forwards it to the controller, in an envelope (KIP-590).
    pub fn forwardable(self) -> bool {
        self.info().forwardable
    }
}

impl fmt::Display for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

//! What requests there are.

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

    /// The versions that Kafka 4.3.0 knows, the unstable one included. (Produce: a broker advertises 0 to 2 besides and
    /// refuses them, KAFKA-18659.)
    pub fn versions(self) -> RangeInclusive<i16> {
        let (first, last) = self.info().versions;
        first..=last
    }

    /// The versions that are to be advertised: without the last one where that is not stable yet.
    pub fn stable_versions(self) -> RangeInclusive<i16> {
        let (first, last) = self.info().versions;
        first..=last - i16::from(self.info().last_is_unstable)
    }

    /// The newest version that is to be advertised.
    pub fn max_stable(self) -> i16 {
        *self.stable_versions().end()
    }

    /// Which header a request of this version has: 1, or 2 with tagged fields. Also for versions that don't exist: an
    /// ApiVersions request of any version must be answered.
    pub fn request_header_version(self, version: i16) -> i16 {
        if version >= self.info().request_flexible_from {
            2
        } else {
            1
        }
    }

    /// Which header a response of this version has: 0, or 1 with tagged fields. Always 0 for ApiVersions, which a client
    /// must be able to read before it knows what the broker speaks (KIP-511).
    pub fn response_header_version(self, version: i16) -> i16 {
        i16::from(self != Self::ApiVersions && version >= self.info().response_flexible_from)
    }

    /// Who serves it.
    pub fn listeners(self) -> &'static [Listener] {
        self.info().listeners
    }

    /// Whether a broker hands it to the controller, in an envelope (KIP-590).
    pub fn forwardable(self) -> bool {
        self.info().forwardable
    }
}

impl fmt::Display for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

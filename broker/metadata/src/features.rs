//! Features: their names and the levels that can be finalized.

use std::ops::RangeInclusive;

/// The feature whose level determines the record and request versions.
pub const METADATA_VERSION: &str = "metadata.version";

/// The supported levels of `metadata.version`: 3.3-IV3 to 4.3-IV0.
pub const METADATA_VERSIONS: RangeInclusive<i16> = 7..=30;

/// The level of `metadata.version` of a new cluster: 4.3-IV0.
pub const METADATA_VERSION_LATEST: i16 = 30;

/// The level of `kraft.version` in a new cluster: voters are records (KIP-853).
pub const KRAFT_VERSION: i16 = 1;

/// The supported levels of `kraft.version`.
pub const KRAFT_VERSIONS: RangeInclusive<i16> = 0..=1;

/// The features of a broker and its controller, with the levels that can be finalized.
pub const SUPPORTED_FEATURES: &[(&str, i16, i16)] = &[
    ("kraft.version", *KRAFT_VERSIONS.start(), *KRAFT_VERSIONS.end()),
    (
        METADATA_VERSION,
        *METADATA_VERSIONS.start(),
        *METADATA_VERSIONS.end(),
    ),
];

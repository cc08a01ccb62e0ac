//! Permanent damage to bytes that were durable, or that the disk reports as durable.
//!
//! A power loss reveals a misdirected or lost write: until then the page cache holds the intended bytes.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::platter::{Change, SECTOR};

/// What a disk silently does to a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Damage {
    /// A durable bit flips.
    BitRot,
    /// Up to 32 durable bits flip in an index. An index is derived, so nothing may suffer.
    IndexRot,
    /// A durable sector can't be read (EIO) until it is written again.
    Unreadable,
    /// The next write never reaches the platter.
    LostWrite,
    /// The next write reaches the platter at an earlier position.
    MisdirectedWrite,
}

impl Damage {
    /// Whether this damage applies to a file of this name.
    pub fn applies_to(self, name: &str) -> bool {
        match self {
            // No reader uses the time index here.
            Self::IndexRot => name.ends_with(".index"),
            _ => name.ends_with(".log"),
        }
    }

    /// The name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::BitRot => "bit rot",
            Self::IndexRot => "index rot",
            Self::Unreadable => "sector unreadable",
            Self::LostWrite => "write lost for good",
            Self::MisdirectedWrite => "write misdirected",
        }
    }

    /// The change that a misdirected or lost write becomes.
    pub(super) fn astray(self, at: u64, bytes: Bytes) -> Change {
        let landed = match self {
            // The position whose sector number has one bit less.
            Self::MisdirectedWrite if at >= SECTOR => {
                let sector = at / SECTOR;
                Some(((sector & (sector - 1)) * SECTOR + at % SECTOR, bytes.clone()))
            }
            _ => None,
        };
        Change::Astray {
            at,
            len: bytes.len() as u64,
            landed,
        }
    }
}

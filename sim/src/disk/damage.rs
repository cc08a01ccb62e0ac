//! Permanent damage to bytes that were durable, or that the disk reports as durable.
//!
//! A power loss reveals a misdirected or lost write: until then the page cache holds the intended bytes.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::platter::Change;
use super::{Disk, Inode, InodeId, SECTOR};
use crate::keyed::Keyed;

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

impl Inode {
    pub(super) fn is_unreadable(&self, from: u64, to: u64) -> bool {
        let first = from / SECTOR * SECTOR;
        self.unreadable.range(first..to.max(first)).next().is_some()
    }

    /// Makes a sector readable again if the write covers it whole, or up to the end of the file.
    pub(super) fn is_written(&mut self, at: u64, len: u64) {
        let (end, file_end) = (at + len, self.data.len() as u64);
        self.unreadable
            .retain(|sector| *sector < at || (*sector + SECTOR).min(file_end) > end);
    }
}

impl Disk {
    /// Damages a file: its durable bytes, or the next write to it. `false` if none of it is durable yet.
    pub fn damage(&mut self, id: InodeId, how: Damage, choices: &mut Keyed) -> bool {
        let (node, inode) = (self.node, self.inode_mut(id));
        let safe = match how {
            // Indexes are never synced.
            Damage::IndexRot => inode.data.len(),
            _ => inode.durable.len().min(inode.data.len()),
        } as u64;
        if safe == 0 {
            return false;
        }
        // Enough wrong entries in an index mislead some reader.
        let bits = match how {
            Damage::IndexRot => 1 + choices.below("damaged bits", node, 32),
            _ => 1,
        };
        match how {
            Damage::BitRot | Damage::IndexRot => {
                for _ in 0..bits {
                    let at = choices.below("damage at", node, safe) as usize;
                    let bit = 1 << choices.below("damaged bit", node, 8);
                    for image in [&mut inode.data, &mut inode.durable] {
                        image.flip(at, bit);
                    }
                }
                self.count_fault(how.name());
            }
            Damage::Unreadable => {
                let at = choices.below("damage at", node, safe);
                inode.unreadable.insert(at / SECTOR * SECTOR);
                self.count_fault(how.name());
            }
            // Counted when it takes effect.
            Damage::LostWrite | Damage::MisdirectedWrite => inode.goes_astray = Some(how),
        }
        true
    }
}

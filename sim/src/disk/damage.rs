//! Damage that lasts: to bytes that had been safe, or that the disk says are.
//!
//! A power loss makes a write that went astray visible: until then the page cache holds what was meant.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::platter::Change;
use super::{Disk, Inode, InodeId, SECTOR};
use crate::keyed::Keyed;

/// What a disk does to a file without a word.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Damage {
    /// A bit of what was durable is another one.
    BitRot,
    /// The same, of up to 32 bits, in an index, which is derived: then nothing at all may suffer.
    IndexRot,
    /// A sector of what was durable can't be read any more (EIO), until it is written again.
    Unreadable,
    /// The next write never reaches the platter.
    LostWrite,
    /// The next write reaches the platter somewhere before its place.
    MisdirectedWrite,
}

impl Damage {
    /// Whether a file of this name can be damaged so.
    pub fn befalls(self, name: &str) -> bool {
        match self {
            // Nobody asks for times here.
            Self::IndexRot => name.ends_with(".index"),
            _ => name.ends_with(".log"),
        }
    }

    /// As reports count it.
    pub fn name(self) -> &'static str {
        match self {
            Self::BitRot => "bit rot",
            Self::IndexRot => "index rot",
            Self::Unreadable => "sector unreadable",
            Self::LostWrite => "write lost for good",
            Self::MisdirectedWrite => "write misdirected",
        }
    }

    /// What a write becomes.
    pub(super) fn astray(self, at: u64, bytes: Bytes) -> Change {
        let landed = match self {
            // To where a sector number with one bit less leads.
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

    /// A sector that is written as a whole, or the end of the file is, can be read again.
    pub(super) fn is_written(&mut self, at: u64, len: u64) {
        let (end, file_end) = (at + len, self.data.len() as u64);
        self.unreadable
            .retain(|sector| *sector < at || (*sector + SECTOR).min(file_end) > end);
    }
}

impl Disk {
    /// Does that to a file: to what is durable of it, or to what is written next. `false`: nothing of it is durable yet.
    pub fn damage(&mut self, id: InodeId, how: Damage, choices: &mut Keyed) -> bool {
        let (node, inode) = (self.node, self.inode_mut(id));
        let safe = match how {
            // No index is ever synced.
            Damage::IndexRot => inode.data.len(),
            _ => inode.durable.len().min(inode.data.len()),
        } as u64;
        if safe == 0 {
            return false;
        }
        // An index that is wrong here and there misleads somebody at last.
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
                self.befalls(how.name());
            }
            Damage::Unreadable => {
                let at = choices.below("damage at", node, safe);
                inode.unreadable.insert(at / SECTOR * SECTOR);
                self.befalls(how.name());
            }
            // Counted when it happens.
            Damage::LostWrite | Damage::MisdirectedWrite => inode.goes_astray = Some(how),
        }
        true
    }
}

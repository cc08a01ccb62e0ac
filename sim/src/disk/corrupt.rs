//! Damages a file while the disk reports nothing.

use super::Disk;
use super::damage::Damage;
use super::inode::InodeId;
use super::platter::SECTOR;
use crate::keyed::Keyed;

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

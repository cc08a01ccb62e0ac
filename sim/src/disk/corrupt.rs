//! Damages a file while the disk reports nothing.

use brokkr_wire::records::{HEADER_LEN, LOG_OVERHEAD};

use super::Disk;
use super::damage::Damage;
use super::inode::InodeId;
use super::platter::SECTOR;
use crate::keyed::Keyed;

/// Where the batch at a position of a log begins and ends.
fn batch_at(log: &[u8], at: usize) -> Option<(usize, usize)> {
    let mut start = 0;
    loop {
        let length = log.get(start + LOG_OVERHEAD - 4..start + LOG_OVERHEAD)?;
        let length = u32::from_be_bytes(length.try_into().ok()?) as usize;
        let end = start.checked_add(LOG_OVERHEAD + length)?;
        if end > at {
            return Some((start, end));
        }
        start = end;
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
                // Half of them in the header of a batch: it is read more often than records, and in more places.
                let in_header = how == Damage::BitRot && choices.below("damaged header", node, 2) == 0;
                for _ in 0..bits {
                    let mut at = choices.below("damage at", node, safe) as usize;
                    if in_header && let Some((start, end)) = batch_at(&inode.data.whole(), at) {
                        let len = (end - start).min(HEADER_LEN) as u64;
                        at = start + choices.below("damage in header", node, len) as usize;
                    }
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

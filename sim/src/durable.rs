//! A check at every moment: what a client has just been told is durable on the broker's disk by then.
//!
//! With flushing on, an acknowledged batch (L1) and a record that was shown (L5: the high watermark never passes what is
//! durable) stand in whole batches on the platter, under names that are durable. So an ack before its sync is found the
//! moment it arrives, not by the power loss that would take it.

use std::collections::BTreeMap;

use brokkr_history::{MicroOp, Operation, Type};
use brokkr_wire::records::Batch;
use bytes::Bytes;

use crate::check::Violation;
use crate::disk::{Disk, InodeId};

/// How far a partition's log is known to be durable.
#[derive(Default, Clone, Copy)]
struct Known {
    segment: Option<(i64, InodeId)>,
    position: usize,
    next_offset: i64,
}

/// How far each log is known to be durable; looks further only when something newer was told.
#[derive(Default)]
pub struct DurableEnds {
    known: BTreeMap<String, Known>,
}

impl DurableEnds {
    /// Forgets what it knows: after a crash logs may be shorter and other.
    pub fn forget(&mut self) {
        self.known.clear();
    }

    /// Looks at what clients were just told.
    pub fn check(&mut self, told: &[Operation], disk: &Disk, root: &str) -> Vec<Violation> {
        let mut violations = Vec::new();
        for o in told.iter().filter(|o| o.type_ != Type::Invoke) {
            for micro in o.op.micro_ops() {
                match micro {
                    MicroOp::Send {
                        key,
                        offset: Some(offset),
                        value,
                    } => {
                        if !self.covers(disk, root, key.as_str(), *offset) {
                            let what = format!(
                                "{value} was acknowledged at {key} offset {offset} at {} ms, when it was not durable",
                                o.time / 1_000_000
                            );
                            violations.push(Violation::new("L1", what));
                        }
                    }
                    MicroOp::Poll(Some(polls)) => {
                        for (key, messages) in polls {
                            let Some((offset, value)) = messages.last() else {
                                continue;
                            };
                            if !self.covers(disk, root, key.as_str(), *offset) {
                                let what = format!(
                                    "process {} was shown {value} at {key} offset {offset} at {} ms, when it was not durable",
                                    o.process,
                                    o.time / 1_000_000
                                );
                                violations.push(Violation::new("L5", what));
                            }
                        }
                    }
                    MicroOp::Send { .. } | MicroOp::Poll(None) => {}
                }
            }
        }
        violations
    }

    fn covers(&mut self, disk: &Disk, root: &str, partition: &str, offset: i64) -> bool {
        let known = self.known.entry(partition.to_owned()).or_default();
        if offset < known.next_offset {
            return true;
        }
        let folder = format!("{root}/{partition}");
        let segments: BTreeMap<i64, InodeId> = disk
            .list(&folder)
            .unwrap_or_default()
            .into_iter()
            .filter_map(|e| {
                let base = e.name.strip_suffix(".log")?.parse().ok()?;
                Some((base, disk.file_durable(&format!("{folder}/{}", e.name))?))
            })
            .collect();
        // What stands in segments below that of the offset need not be walked.
        let Some((&base, &inode)) = segments.range(..=offset).next_back() else {
            return false;
        };
        if known.segment != Some((base, inode)) {
            *known = Known {
                segment: Some((base, inode)),
                position: 0,
                next_offset: base,
            };
        }
        let image = disk.peek_durable(inode);
        while let Some(rest) = image.get(known.position..).filter(|r| !r.is_empty()) {
            let Some(batch) = first_batch(rest) else { break };
            known.position += batch.bytes.len();
            known.next_offset = batch.header.next_offset().0;
        }
        offset < known.next_offset
    }
}

/// The whole batch at the front, if its checksum holds.
fn first_batch(rest: &[u8]) -> Option<Batch> {
    let size = rest.get(8..12)?.first_chunk().map(|b| i32::from_be_bytes(*b))?;
    let end = usize::try_from(size).ok()?.checked_add(12)?;
    let batch = Batch::first(&Bytes::copy_from_slice(rest.get(..end)?)).ok()?;
    batch.check_crc().is_ok().then_some(batch)
}

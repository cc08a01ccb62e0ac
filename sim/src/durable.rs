//! Checks at every moment that data is durable: whatever clients were just acknowledged or shown, and whatever the broker has just
//! recorded.
//!
//! With flushing on, an acknowledged batch (L1) and a record that was shown (L5: the high watermark never passes the durable end)
//! are in complete batches on the platter, under durable names; and the batch's leader epoch is on the platter, too, where replicas
//! look for it (L2). A recovery point covers only bytes that are on the platter when it is recorded (D1). So a missing sync is
//! found when the acknowledgement arrives, not at the power loss that would take the batch.

use std::collections::BTreeMap;

use brokkr_history::{MicroOp, Operation, Type};
use brokkr_types::Uuid;
use brokkr_wire::records::Batch;
use brokkr_workloads::ID_MARK;
use bytes::Bytes;

use crate::account::{Account, Rule, why};
use crate::check::{Violation, folder_in, topic_id};
use crate::disk::{Disk, InodeId};
use crate::judge::Place;
use crate::retention;

/// How far a partition's log is known to be durable.
#[derive(Default)]
struct KnownEnd {
    folder: String,
    segment: Option<(i64, InodeId)>,
    position: usize,
    next_offset: i64,
    /// The leader epoch of the last batch, and where it began in this segment.
    epoch: Option<(i32, i64)>,
    /// The latest epoch that was found on the platter, too.
    epoch_durable: Option<i32>,
}

/// How far each log is known to be durable; reads the disk only for newer offsets.
#[derive(Default)]
pub struct DurableEnds {
    known: BTreeMap<String, KnownEnd>,
    /// The file of recovery points that was last read, by log directory.
    recorded: BTreeMap<String, InodeId>,
    renamed: u64,
    /// Which answers and recovery points were judged.
    pub account: Account,
}

impl DurableEnds {
    /// Forgets all known ends: after a crash logs may be shorter and different.
    pub fn forget(&mut self) {
        self.known.clear();
    }

    /// Checks the responses that clients just received. Records below the offset that a client asked to delete (`deleted`) may be
    /// gone.
    pub fn check(
        &mut self,
        responses: &[Operation],
        disk: &Disk,
        roots: &[String],
        deleted: impl Fn(&str) -> i64,
    ) -> Vec<Violation> {
        let mut violations = Vec::new();
        for o in responses.iter().filter(|o| o.type_ != Type::Invoke) {
            for micro in o.op.micro_ops() {
                match micro {
                    MicroOp::Send {
                        key,
                        offset: Some(offset),
                        value,
                    } => {
                        let is_there = self.covers(disk, roots, key.as_str(), *offset);
                        if self.is_judged(is_there, *offset, || deleted(key.as_str())) && !is_there {
                            let what = format!(
                                "{value} was acknowledged at {key} offset {offset} at {} ms, when it was not durable",
                                o.time / 1_000_000
                            );
                            violations.push(Violation::new("L1", what));
                        }
                        let epoch = self.check_epoch(disk, key.as_str(), *offset);
                        violations.extend(epoch.filter(|_| *offset >= deleted(key.as_str())));
                    }
                    MicroOp::Poll(Some(polls)) => {
                        for (key, messages) in polls {
                            let Some((offset, value)) = messages.last() else {
                                continue;
                            };
                            let is_there = self.covers(disk, roots, key.as_str(), *offset);
                            if self.is_judged(is_there, *offset, || deleted(key.as_str())) && !is_there {
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

    /// Counts the rule as applied, unless the record is missing and below what may be gone.
    fn is_judged(&mut self, is_there: bool, offset: i64, deleted: impl Fn() -> i64) -> bool {
        let waiver = (!is_there && offset < deleted()).then_some(why::DELETED);
        self.account.judges(Rule::Durable, waiver)
    }

    /// Checks the recovery points, if they were written again: recovery assumes that everything below them is durable. Partitions
    /// that the disk `damaged` are exempt.
    pub fn check_recorded(
        &mut self,
        disk: &Disk,
        roots: &[String],
        damaged: impl Fn(&str) -> bool,
    ) -> Vec<Violation> {
        if std::mem::replace(&mut self.renamed, disk.renamed()) == disk.renamed() {
            return Vec::new();
        }
        let of_root = |root: &String| self.check_recorded_in(disk, roots, root, &damaged);
        roots.iter().flat_map(of_root).collect()
    }

    fn check_recorded_in(
        &mut self,
        disk: &Disk,
        roots: &[String],
        root: &str,
        damaged: &impl Fn(&str) -> bool,
    ) -> Vec<Violation> {
        let mut violations = Vec::new();
        let Some(file) = disk.file(&format!("{root}/brokkr-checkpoint")) else {
            return violations;
        };
        if self.recorded.insert(root.to_owned(), file) == Some(file) {
            return violations;
        }
        let points = recovery_points(&disk.peek(file));
        for (folder, id, point) in points.into_iter().flatten() {
            let path = format!("{root}/{folder}");
            // The recovery point may be of a deleted topic of the same name.
            if topic_id(disk, &path).is_none_or(|there| there != id) {
                continue;
            }
            // Records below the log's start need not exist.
            let start = retention::starts(disk, &path).map_or(0, |s| s.log_start);
            let begins = |(base, _)| base == point;
            let there = disk.segment_durable(&path, point).is_some_and(begins);
            let keyed = format_key(&folder, &id);
            let key = if self.known.contains_key(&keyed) || roots.len() > 1 {
                &keyed
            } else {
                &folder
            };
            if point <= start || there {
                self.account.judges(Rule::RecoveryPoint, None);
                continue;
            }
            let waiver = damaged(&folder).then_some(why::DAMAGED);
            if self.account.judges(Rule::RecoveryPoint, waiver) && !self.covers(disk, roots, key, point - 1) {
                let what =
                    format!("{folder}: recovery point {point} was recorded, when that was not durable");
                violations.push(Violation::new("D1", what));
            }
        }
        violations
    }

    /// Whether the log of `key` is durable past `offset`.
    fn covers(&mut self, disk: &Disk, roots: &[String], key: &str, offset: i64) -> bool {
        if !self.known.contains_key(key) {
            let folder = folder(disk, roots, key);
            let known = KnownEnd {
                folder,
                ..KnownEnd::default()
            };
            self.known.insert(key.to_owned(), known);
        }
        let known = self.known.get_mut(key).expect("it was inserted");
        if offset < known.next_offset {
            return true;
        }
        // Segments below the one of the offset need not be read.
        let Some((base, inode)) = disk.segment_durable(&known.folder, offset) else {
            return false;
        };
        if known.segment != Some((base, inode)) {
            known.segment = Some((base, inode));
            (known.position, known.next_offset) = (0, base);
        }
        let image = disk.peek_durable(inode);
        while let Some(rest) = image.get(known.position..).filter(|r| !r.is_empty()) {
            let Some(batch) = first_batch(rest) else { break };
            // A torn write may leave a batch without its base offset, which no checksum covers.
            if batch.header.base_offset.0 < known.next_offset {
                break;
            }
            known.position += batch.bytes.len();
            known.next_offset = batch.header.next_offset().0;
            let epoch = batch.header.partition_leader_epoch.0;
            if known.epoch.is_none_or(|(last, _)| last != epoch) {
                known.epoch = Some((epoch, batch.header.base_offset.0));
            }
        }
        offset < known.next_offset
    }

    /// Checks that the latest leader epoch of a log is on the platter as well. The broker records it there BEFORE any append of
    /// that epoch, so a replica that asks for an epoch's end never gets an older one (KIP-101).
    fn check_epoch(&mut self, disk: &Disk, key: &str, acked: i64) -> Option<Violation> {
        let known = self.known.get_mut(key)?;
        let (epoch, base) = known
            .epoch
            .filter(|(epoch, _)| known.epoch_durable != Some(*epoch))?;
        known.epoch_durable = Some(epoch);
        let path = format!("{}/leader-epoch-checkpoint", known.folder);
        let listed = disk.file_durable(&path).map(|inode| disk.peek_durable(inode));
        let listed = listed
            .and_then(|bytes| epochs(std::str::from_utf8(&bytes).ok()?))
            .unwrap_or_default();
        // Epochs below the log's start are removed.
        let forgotten = listed.first().is_some_and(|(_, start)| base < *start);
        let there = listed.iter().any(|(e, start)| *e == epoch && *start <= base);
        (!there && !forgotten).then(|| {
            let what = format!(
                "{key} offset {acked} was acknowledged, when leader epoch {epoch} was not durable: {listed:?}"
            );
            Violation::new("L2", what)
        })
    }
}

/// The first batch, if it is complete and its checksum is valid.
fn first_batch(rest: &[u8]) -> Option<Batch> {
    let size = rest.get(8..12)?.first_chunk().map(|b| i32::from_be_bytes(*b))?;
    let end = usize::try_from(size).ok()?.checked_add(12)?;
    let batch = Batch::first(&Bytes::copy_from_slice(rest.get(..end)?)).ok()?;
    batch.check_crc().is_ok().then_some(batch)
}

/// The offset past the last batch of a segment's bytes, if there is one.
pub(crate) fn end_of(mut bytes: &[u8]) -> Option<i64> {
    let mut end = None;
    while let Some(batch) = first_batch(bytes) {
        end = Some(batch.header.next_offset().0);
        bytes = &bytes[batch.bytes.len()..];
    }
    end
}

/// The folder of a history's key. Where topic names are used again, each log directory may have a folder of that name.
fn folder(disk: &Disk, roots: &[String], key: &str) -> String {
    let place = Place::of(key);
    let name = place.folder();
    let is_its = |path: &String| topic_id(disk, path).as_deref() == place.id;
    let mut paths = roots.iter().map(|root| format!("{root}/{name}"));
    let of_its_id = place.id.and_then(|_| paths.find(is_its));
    of_its_id.unwrap_or_else(|| folder_in(disk, roots, &name))
}

/// The key of a folder's log, for a topic name that is used again.
fn format_key(folder: &str, id: &str) -> String {
    let place = Place::of(folder);
    format!("{}{ID_MARK}{id}-{}", place.topic, place.partition)
}

/// Decodes `brokkr-checkpoint`: for each folder and topic id, the offset up to which recovery assumes the log durable.
pub(crate) fn recovery_points(bytes: &[u8]) -> Option<Vec<(String, String, i64)>> {
    let (version, rest) = bytes.strip_prefix(b"BKCP")?.split_first_chunk()?;
    // From version 2 on: whether it is of a clean stop, and the broker epoch.
    let rest = rest.get(if u16::from_be_bytes(*version) < 2 { 0 } else { 9 }..)?;
    let (count, mut rest) = rest.split_first_chunk::<4>()?;
    let mut points = Vec::new();
    for _ in 0..u32::from_be_bytes(*count) {
        let (len, more) = rest.split_first_chunk::<2>()?;
        let (folder, more) = more.split_at_checked(usize::from(u16::from_be_bytes(*len)))?;
        let (id, more) = more.split_first_chunk::<16>()?;
        let (point, more) = more.split_first_chunk::<8>()?;
        points.push((
            String::from_utf8(folder.to_vec()).ok()?,
            Uuid::from_bytes(*id).to_string(),
            i64::from_be_bytes(*point),
        ));
        // The rest: the log's start, its truncations and, from version 3 on, its active segment.
        rest = more.get(if u16::from_be_bytes(*version) < 3 { 16 } else { 28 }..)?;
    }
    Some(points)
}

/// Decodes a `leader-epoch-checkpoint`: epochs and their start offsets. `None` if it is incomplete or invalid.
fn epochs(text: &str) -> Option<Vec<(i32, i64)>> {
    let mut lines = text.lines();
    if lines.next() != Some("0") {
        return None;
    }
    let count: usize = lines.next()?.parse().ok()?;
    let each = lines.map(|line| {
        let (epoch, start) = line.split_once(' ')?;
        Some((epoch.parse().ok()?, start.parse().ok()?))
    });
    let all: Vec<_> = each.collect::<Option<_>>()?;
    (all.len() == count).then_some(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keyed::Keyed;
    use brokkr_history::Op;
    use brokkr_types::UnixMillis;
    use brokkr_wire::records::BatchBuilder;

    /// A disk with a log of one batch at offset 0, of leader epoch 0.
    fn disk() -> (Disk, InodeId) {
        let mut disk = Disk::new(1);
        disk.create_dir("data/t-0").expect("a folder");
        let log = file(&mut disk, "data/t-0/00000000000000000000.log", &batch());
        let id = Uuid::from_bytes([7; 16]);
        let named = format!("version: 0\ntopic_id: {id}");
        file(&mut disk, "data/t-0/partition.metadata", named.as_bytes());
        for folder in ["", "data", "data/t-0"] {
            disk.sync_dir(folder).expect("no fault");
        }
        (disk, log)
    }

    /// The log is in the second directory.
    fn roots() -> [String; 2] {
        ["other", "data"].map(str::to_owned)
    }

    fn batch() -> Bytes {
        let mut builder = BatchBuilder::new();
        builder.push(UnixMillis(0), None, Some(b"1"), &[]);
        let built = builder.build();
        let placed = built.placed(brokkr_types::Offset(0), brokkr_types::LeaderEpoch(0));
        placed.concat().into()
    }

    fn file(disk: &mut Disk, path: &str, bytes: &[u8]) -> InodeId {
        let (inode, _) = disk.open(path, true).expect("a new file");
        disk.write(inode, 0, &Bytes::copy_from_slice(bytes))
            .expect("there is room");
        inode
    }

    fn sync(disk: &mut Disk, inode: InodeId) {
        disk.sync_end(inode, disk.sync_begin(), &mut Keyed::new(0))
            .expect("no fault");
    }

    fn checkpoint(point: i64) -> Vec<u8> {
        let mut bytes = b"BKCP\0\x01\0\0\0\x01\0\x03t-0".to_vec();
        bytes.extend([7; 16]);
        bytes.extend(point.to_be_bytes());
        bytes.extend([0; 16]);
        bytes
    }

    #[test]
    fn a_recovery_point_covers_only_durable_bytes() {
        for (point, synced, ids) in [(0, false, 0), (1, false, 1), (1, true, 0), (2, true, 1)] {
            let (mut disk, log) = disk();
            if synced {
                sync(&mut disk, log);
            }
            file(&mut disk, "data/brokkr-checkpoint", &checkpoint(point));
            let mut ends = DurableEnds::default();
            let found = ends.check_recorded(&disk, &roots(), |_| false);
            assert_eq!(found.len(), ids, "point {point}, synced: {synced}: {found:?}");
            assert!(
                ends.check_recorded(&disk, &roots(), |_| false).is_empty(),
                "it is looked at once"
            );
        }
    }

    #[test]
    fn acknowledged_and_shown_records_are_durable_unless_deleted() {
        let sent = MicroOp::Send {
            key: "t-0".into(),
            offset: Some(0),
            value: 1.into(),
        };
        let shown = MicroOp::Poll(Some([("t-0".into(), vec![(0, 1.into())])].into()));
        let responses = [Op::Send(vec![sent]), Op::Poll(vec![shown])];
        let responses = responses.map(|op| Operation::new(0, 0, Type::Ok, 0, op));
        let ids = |deleted: i64| {
            let (disk, _) = disk();
            let found = DurableEnds::default().check(&responses, &disk, &roots(), |_| deleted);
            found.iter().map(|v| v.id).collect::<Vec<_>>()
        };
        assert_eq!(ids(0), ["L1", "L5"], "nothing was synced");
        assert_eq!(ids(1), [""; 0]);
    }

    #[test]
    fn the_epoch_of_an_acknowledged_batch_is_durable() {
        for (listed, ids) in [
            ("0\n1\n0 0\n", 0),
            ("0\n1\n3 0\n", 1),
            ("0\n2\n0 0\n", 1),
            ("", 1),
            // The log was deleted up to there.
            ("0\n1\n3 9\n", 0),
        ] {
            let (mut disk, log) = disk();
            sync(&mut disk, log);
            let path = "data/t-0/leader-epoch-checkpoint";
            let epochs = file(&mut disk, path, listed.as_bytes());
            sync(&mut disk, epochs);
            disk.sync_dir("data/t-0").expect("no fault");
            let mut ends = DurableEnds::default();
            assert!(ends.covers(&disk, &roots(), "t-0", 0));
            let found = ends.check_epoch(&disk, "t-0", 0);
            assert_eq!(found.iter().count(), ids, "{listed:?}: {found:?}");
        }
    }
}

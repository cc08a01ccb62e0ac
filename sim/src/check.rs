//! Checks over a disk: what a crash left against the state before it, and the logs as they are on the disk.

use std::collections::BTreeMap;

use brokkr_wire::records::{Batch, batches};
use bytes::Bytes;

use crate::account::{Account, Rule, why};
use crate::disk::Disk;
use crate::judge::Deleted;
use crate::retention;
pub use crate::violation::Violation;

/// A node's logs at a crash: the durable bytes of each file, and the bytes that the node saw.
#[derive(Default, Debug)]
pub struct AtCrash {
    /// Whether the durable bytes survive a power loss, too.
    durable: bool,
    files: BTreeMap<String, (Vec<u8>, Vec<u8>)>,
    /// The topic id of each folder.
    topics: BTreeMap<String, String>,
}

/// The id of the topic whose log is in this folder, as the node sees it.
pub fn topic_id(disk: &Disk, folder: &str) -> Option<String> {
    let file = disk.file(&format!("{folder}/partition.metadata"))?;
    let bytes = disk.peek(file);
    let text = std::str::from_utf8(&bytes).ok()?;
    let id = text.lines().find_map(|line| line.strip_prefix("topic_id: "))?;
    Some(id.to_owned())
}

/// The path of a partition's folder, in any log directory; in the first, if it is in none.
pub fn folder_in(disk: &Disk, roots: &[String], name: &str) -> String {
    let paths = roots.iter().map(|root| format!("{root}/{name}"));
    let there = paths.clone().find(|path| disk.list(path).is_ok());
    there.or_else(|| paths.clone().next()).unwrap_or_default()
}

/// The folder of a segment.
fn folder_of(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(folder, _)| folder)
}

/// A node's data partitions: each segment's path with its bytes. The metadata log is included.
fn segments(disk: &Disk, roots: &[String]) -> BTreeMap<String, u64> {
    let mut found = BTreeMap::new();
    let folders = roots.iter().flat_map(|root| {
        let entries = disk.list(root).unwrap_or_default().into_iter();
        entries.map(move |f| format!("{root}/{}", f.name))
    });
    for path in folders.filter(|path| !path.ends_with("-delete")) {
        let files = disk.list(&path).unwrap_or_default();
        for file in files.iter().filter(|f| f.name.ends_with(".log")) {
            let path = format!("{path}/{}", file.name);
            if let Some(inode) = disk.file(&path) {
                found.insert(path, inode);
            }
        }
    }
    found
}

impl AtCrash {
    /// Reads a disk, BEFORE the power loss.
    pub fn of(disk: &Disk, roots: &[String], power_loss: bool) -> Self {
        let files = segments(disk, roots).into_iter().map(|(path, inode)| {
            let seen = disk.peek(inode).to_vec();
            // Without a power loss the page cache stays: everything written counts as durable.
            let sure = match power_loss {
                // A file whose name is unsynced may vanish with its contents, so none of it is durable.
                true if disk.file_durable(&path) != Some(inode) => Vec::new(),
                true => disk.peek_durable(inode).to_vec(),
                false => seen.clone(),
            };
            (path, (sure, seen))
        });
        let files: BTreeMap<_, _> = files.collect();
        let folder = |path: &String| {
            let folder = folder_of(path);
            Some((folder.to_owned(), topic_id(disk, folder)?))
        };
        Self {
            durable: power_loss,
            topics: files.keys().filter_map(folder).collect(),
            files,
        }
    }

    /// What the node saw when the broker had stopped cleanly: all of it survives a power loss.
    pub fn stopped(disk: &Disk, roots: &[String]) -> Self {
        Self {
            durable: true,
            ..Self::of(disk, roots, false)
        }
    }

    /// Keeps only these folders: any client may have deleted records in the others.
    #[must_use]
    pub fn only(mut self, is_judged: impl Fn(&str) -> bool) -> Self {
        let name = |folder: &str| {
            let name = folder.rsplit('/').next().unwrap_or_default();
            // Nobody opens a log that was set aside.
            !name.ends_with("-stray") && is_judged(name)
        };
        self.files.retain(|path, _| name(folder_of(path)));
        self.topics.retain(|folder, _| name(folder));
        self
    }

    /// Adds the durable bytes of an earlier crash: they must survive this crash, too.
    #[must_use]
    pub fn with_sure_of(mut self, earlier: Self) -> Self {
        if self.durable && !earlier.durable {
            // Bytes that were only in the page cache after the kill may be lost by this power loss.
            return self;
        }
        for (path, (sure, seen)) in earlier.files {
            let folder = folder_of(&path);
            // Another topic since: recovery deleted the log of a deleted topic.
            let was = earlier.topics.get(folder);
            match (self.topics.get(folder), was) {
                (Some(now), _) if Some(now) != was => continue,
                (None, Some(was)) => drop(self.topics.insert(folder.to_owned(), was.clone())),
                _ => {}
            }
            let now = self.files.entry(path).or_insert_with(|| (Vec::new(), Vec::new()));
            if now.0.len() < sure.len() {
                now.0 = sure;
            }
            if now.1.len() < seen.len() {
                now.1 = seen;
            }
        }
        self
    }

    /// D1: each log after recovery is a prefix of what the node saw, and contains every complete batch that was durable. Records
    /// deleted on purpose, below an offset of each partition, may be gone; so may the whole log of a topic that a client asked to
    /// delete. Damaged partitions are exempt. With `failing` the disk has failed since: a log that could not be opened still ends
    /// as the crash left it, possibly with a torn write.
    pub fn check(
        &self,
        disk: &Disk,
        roots: &[String],
        deleted: &Deleted,
        failing: bool,
        account: &mut Account,
    ) -> Vec<Violation> {
        let now = segments(disk, roots);
        let mut violations = Vec::new();
        for (path, (sure, seen)) in &self.files {
            let folder = folder_of(path);
            let was = self.topics.get(folder).filter(|id| deleted.has_topic(id));
            let name = folder.rsplit('/').next().unwrap_or_default();
            let is_of_another = was.is_some_and(|id| topic_id(disk, folder).as_ref() != Some(id));
            let waiver = match () {
                () if deleted.is_damaged(name) => Some(why::DAMAGED),
                () => is_of_another.then_some(why::DELETED),
            };
            if !account.judges(Rule::Recovered, waiver) {
                continue;
            }
            let Some(inode) = now.get(path) else {
                // A missing segment was empty, or is below the log's start.
                let partition = path.rsplit('/').nth(1).unwrap_or_default();
                let below = deleted.below(partition);
                let end = last_batch(sure).map_or(0, |b| b.header.next_offset().0);
                if whole_len(path, sure) > 0 && end > below {
                    violations.push(Violation::new(
                        "D1",
                        format!("{path}: {} durable bytes are gone", sure.len()),
                    ));
                }
                continue;
            };
            let left = disk.peek(*inode);
            let keep = whole_len(path, sure);
            if left.len() < keep {
                let what = format!("{path}: {keep} durable bytes, {} left after recovery", left.len());
                violations.push(Violation::new("D1", what));
            } else if left[..keep] != sure[..keep] {
                violations.push(Violation::new("D1", format!("{path}: durable bytes changed")));
            }
            // Bytes past the seen ones were appended since; up to there they must be equal.
            let common = left.len().min(seen.len());
            if let Some(at) = (keep..common).find(|i| left[*i] != seen[*i]) {
                // Appends after the recovery may follow the cut.
                if failing || cut_before(path, &left, at) {
                    continue;
                }
                violations.push(Violation::new(
                    "D1",
                    format!("{path}: byte {at} was never written there"),
                ));
            }
        }
        violations
    }
}

/// Whether `at` is within complete batches with a valid CRC: appended after a cut.
fn cut_before(path: &str, bytes: &[u8], at: usize) -> bool {
    whole_len(path, bytes) > at
}

/// The last of the complete batches from the start.
fn last_batch(bytes: &[u8]) -> Option<Batch> {
    let good = batches(Bytes::copy_from_slice(bytes)).map_while(Result::ok);
    good.take_while(|b| b.check_crc().is_ok()).last()
}

/// How many bytes from the start of a segment are complete batches: with valid checksums, and each at the offset where the previous
/// one ends. (The checksum does not cover the base offset, and a sector of zeros may hold just that field.)
fn whole_len(path: &str, bytes: &[u8]) -> usize {
    let mut it = batches(Bytes::copy_from_slice(bytes));
    let mut end = 0;
    let mut next = base_of(path);
    while let Some(Ok(batch)) = it.next() {
        if batch.check_crc().is_err() || next.is_some_and(|next| batch.header.base_offset.0 != next) {
            break;
        }
        next = Some(batch.header.next_offset().0);
        end += batch.bytes.len();
    }
    end
}

/// The offset in a segment's name.
fn base_of(path: &str) -> Option<i64> {
    path.rsplit('/').next()?.strip_suffix(".log")?.parse().ok()
}

/// Decodes all batches of a partition from the disk, segment by segment.
pub fn read_partition(disk: &Disk, roots: &[String], partition: &str) -> (Vec<Batch>, Vec<Violation>) {
    let (mut all, mut violations) = (Vec::new(), Vec::new());
    let folder = folder_in(disk, roots, partition);
    let prefix = format!("{folder}/");
    // A segment that retention could not rename stays for a while.
    let first = retention::starts(disk, &folder).map_or(0, |start| start.first_base);
    let base = |path: &str| {
        path[prefix.len()..]
            .split('.')
            .next()
            .and_then(|n| n.parse::<i64>().ok())
    };
    for (path, inode) in segments(disk, roots)
        .into_iter()
        .filter(|(p, _)| p.starts_with(&prefix))
        .filter(|(p, _)| base(p).is_none_or(|base| base >= first))
    {
        for batch in batches(Bytes::copy_from_slice(&disk.peek(inode))) {
            match batch {
                Ok(batch) if batch.check_crc().is_ok() => all.push(batch),
                Ok(batch) => {
                    let what = format!(
                        "{path}: batch at offset {} fails its CRC",
                        batch.header.base_offset
                    );
                    violations.push(Violation::new("D2", what));
                    break;
                }
                Err(e) => {
                    violations.push(Violation::new("D2", format!("{path}: {e}")));
                    break;
                }
            }
        }
    }
    (all, violations)
}

/// L6, I1, I2 and I4 over a partition's batches: offsets are contiguous, no (producer, epoch, sequence) is stored twice, and, while
/// no producer is expired, none follows a gap or a batch of a later epoch.
pub fn check_batches(partition: &str, all: &[Batch], forgets: bool, account: &mut Account) -> Vec<Violation> {
    account.judges(Rule::Sequences, forgets.then_some(why::EXPIRED));
    let mut violations = Vec::new();
    let mut expected = all.first().map(|b| b.header.base_offset);
    let (mut sequences, mut last, mut epochs) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    for batch in all {
        let h = &batch.header;
        if let Some(want) = expected
            && h.base_offset != want
        {
            let what = format!("{partition}: offset {want} is followed by {}", h.base_offset);
            violations.push(Violation::new("L6", what));
        }
        expected = Some(h.next_offset());
        if h.has_producer_id() && !h.attributes.is_control() {
            let before = last.insert((h.producer_id, h.producer_epoch), h.last_sequence());
            if let Some(before) = before
                && h.base_sequence != before.plus(1)
                && !forgets
            {
                let what = format!(
                    "{partition}: producer {} epoch {}: sequence {before} is followed by {} at offset {}",
                    h.producer_id, h.producer_epoch, h.base_sequence, h.base_offset
                );
                violations.push(Violation::new("I2", what));
            }
            let latest = epochs.entry(h.producer_id).or_insert(h.producer_epoch);
            if h.producer_epoch < *latest && !forgets {
                let what = format!(
                    "{partition}: producer {} epoch {latest} is followed by epoch {} at offset {}",
                    h.producer_id, h.producer_epoch, h.base_offset
                );
                violations.push(Violation::new("I4", what));
            }
            *latest = h.producer_epoch.max(*latest);
            let key = (h.producer_id, h.producer_epoch, h.base_sequence);
            if let Some(first) = sequences.insert(key, h.base_offset) {
                let what = format!(
                    "{partition}: producer {} epoch {} sequence {} stands at offset {first} and {}",
                    h.producer_id, h.producer_epoch, h.base_sequence, h.base_offset
                );
                violations.push(Violation::new("I1", what));
            }
        }
    }
    violations
}

#[cfg(test)]
mod tests {
    use super::*;
    use brokkr_history::{Op, Operation, Type};
    use brokkr_types::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, Sequence, UnixMillis};
    use brokkr_wire::records::BatchBuilder;

    fn write(disk: &mut Disk, path: &str, bytes: &[u8]) {
        let (inode, _) = disk.open(path, true).expect("a new file");
        disk.write(inode, 0, &Bytes::copy_from_slice(bytes))
            .expect("there is room");
    }

    /// A disk with a log of the topic of this id, optionally with one batch.
    fn disk(id: &str, has_batch: bool) -> Disk {
        let mut disk = Disk::new(1);
        disk.create_dir("data/r-0").expect("a folder");
        let metadata = format!("version: 0\ntopic_id: {id}");
        write(&mut disk, "data/r-0/partition.metadata", metadata.as_bytes());
        let mut builder = BatchBuilder::new();
        builder.push(UnixMillis(0), None, Some(b"1"), &[]);
        let batch = builder.build().placed(Offset(0), LeaderEpoch(0)).concat();
        let log = if has_batch { &batch[..] } else { &[] };
        write(&mut disk, "data/r-0/00000000000000000000.log", log);
        disk
    }

    #[test]
    fn each_rule_over_batches_can_fail() {
        // (offset, epoch, sequence) of batches of one record each, of one producer.
        let ids = |batches: &[(i64, i16, i32)], forgets| {
            let batch = |(offset, epoch, sequence): &(i64, i16, i32)| {
                let (epoch, sequence) = (ProducerEpoch(*epoch), Sequence(*sequence));
                let mut builder = BatchBuilder::new().at(Offset(*offset), LeaderEpoch(0)).producer(
                    ProducerId(7),
                    epoch,
                    sequence,
                );
                builder.push(UnixMillis(0), None, Some(b"1"), &[]);
                builder.build()
            };
            let all: Vec<Batch> = batches.iter().map(batch).collect();
            let found = check_batches("t-0", &all, forgets, &mut Account::default());
            found.iter().map(|v| v.id).collect::<Vec<_>>()
        };
        assert_eq!(ids(&[(0, 0, 0), (1, 0, 1), (2, 1, 0)], false), [""; 0]);
        assert_eq!(ids(&[(0, 0, 0), (2, 0, 1)], false), ["L6"]);
        assert_eq!(ids(&[(0, 0, 0), (1, 0, 2)], false), ["I2"]);
        assert_eq!(ids(&[(0, 0, 0), (1, 0, 0)], true), ["I1"]);
        assert_eq!(ids(&[(0, 0, 0), (1, 1, 0), (2, 0, 1)], false), ["I4"]);
        assert_eq!(ids(&[(0, 0, 0), (1, 1, 0), (2, 0, 1)], true), [""; 0]);
    }

    /// The log is in the second directory.
    fn roots() -> [String; 2] {
        ["other", "data"].map(str::to_owned)
    }

    #[test]
    fn a_log_may_be_replaced_only_after_a_deletion_request() {
        let asked = serde_json::json!({"topic": "r", "id": "A"});
        let asked = Op::Other("delete_topic".to_owned(), asked);
        let asked = Deleted::requested(&[Operation::new(0, 0, Type::Invoke, 0, asked)]);
        let before = AtCrash::of(&disk("A", true), &roots(), false);
        for (now, deleted, found) in [
            (disk("A", true), Deleted::default(), 0),
            (disk("A", false), Deleted::default(), 1),
            (disk("B", false), Deleted::default(), 1),
            (disk("B", false), asked.clone(), 0),
            // The log is unchanged.
            (disk("A", false), asked.clone(), 1),
            (Disk::new(1), asked, 0),
            (Disk::new(1), Deleted::default(), 1),
        ] {
            let all = before.check(&now, &roots(), &deleted, false, &mut Account::default());
            assert_eq!(all.len(), found, "{all:?} {deleted:?}");
        }
        let nothing = AtCrash::of(&disk("A", true), &roots(), false).only(|folder| folder != "r-0");
        assert_eq!(
            nothing.check(
                &Disk::new(1),
                &roots(),
                &Deleted::default(),
                false,
                &mut Account::default()
            ),
            []
        );
        // Between two crashes recovery deleted the log of a deleted topic.
        let second = AtCrash::of(&disk("B", false), &roots(), false).with_sure_of(before);
        assert_eq!(
            second.check(
                &disk("B", false),
                &roots(),
                &Deleted::default(),
                false,
                &mut Account::default()
            ),
            []
        );
    }
}

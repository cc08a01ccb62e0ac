//! Checks what retention removes, at the moment when a log's start is raised: the broker records that BEFORE it removes any file.
//!
//! Each removed segment, oldest first, must be too old (`retention.ms`), or leave at least `retention.bytes` behind, or lie below
//! what a client asked to delete; and the active segment always stays. Sizes are the files' sizes at that moment. Ages are relative
//! to the latest time that the node's wall clock has ever shown: the clock steps, and while it was ahead, retention may have
//! removed records that are young by the present time. The check does not require retention to remove anything: it has no deadline.

use brokkr_wire::records::batches;
use brokkr_workloads::{TopicSpec, Workload};
use bytes::Bytes;

use crate::account::{Account, Rule, why};
use crate::disk::{Disk, InodeId};
use crate::violation::Violation;

/// A log with a retention limit.
struct WatchedLog {
    /// Its key in histories.
    key: String,
    folder: String,
    manifest: String,
    bytes_max: Option<u64>,
    age_max_ms: Option<i64>,
    seen: Option<InodeId>,
    starts: LogStart,
}

/// What the report says of a segment that retention should have removed.
pub const OVERDUE: &str = "beyond its topic's retention";

/// Where a log starts.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LogStart {
    /// Its first offset.
    pub log_start: i64,
    /// The base of its oldest segment.
    pub first_base: i64,
}

/// All logs with a retention limit.
#[derive(Default)]
pub struct Retention {
    logs: Vec<WatchedLog>,
    /// The latest time that the node's wall clock has shown.
    wall_ms: i64,
    /// Which removals were judged.
    pub account: Account,
}

/// Whether a topic has a retention limit.
pub fn is_retained(topic: &TopicSpec) -> bool {
    limit(topic, "retention.bytes").is_some() || limit(topic, "retention.ms").is_some()
}

/// A limit of a topic, if it has one.
fn limit(topic: &TopicSpec, name: &str) -> Option<i64> {
    let value = topic.configs.get(name)?.parse().ok()?;
    Some(value).filter(|v| *v >= 0)
}

/// The start of a folder's log, from its manifest.
pub fn starts(disk: &Disk, folder: &str) -> Option<LogStart> {
    parse(&disk.peek(disk.file(&format!("{folder}/brokkr-manifest"))?))
}

/// Decodes the two fields of a manifest that the check needs.
fn parse(bytes: &[u8]) -> Option<LogStart> {
    let (version, _) = bytes.strip_prefix(b"BKMF")?.split_first_chunk()?;
    // From version 2 on the topic id and the partition come first.
    let before = 4 + if u16::from_be_bytes(*version) < 2 { 19 } else { 39 };
    let (log_start, rest) = bytes.get(before..)?.split_first_chunk()?;
    Some(LogStart {
        log_start: i64::from_be_bytes(*log_start),
        first_base: i64::from_be_bytes(*rest.first_chunk()?),
    })
}

impl Retention {
    /// The logs of a workload's topics with a limit, in all log directories.
    pub fn of(workload: &Workload, roots: &[String]) -> Self {
        let retained = workload.topics.iter().filter(|t| is_retained(t));
        let log = |topic: &TopicSpec, root: &str, key: String| WatchedLog {
            folder: format!("{root}/{key}"),
            manifest: format!("{root}/{key}/brokkr-manifest"),
            key,
            bytes_max: limit(topic, "retention.bytes").map(|n| n as u64),
            age_max_ms: limit(topic, "retention.ms"),
            seen: None,
            starts: LogStart::default(),
        };
        let logs = retained.flat_map(|t| {
            let all = (0..t.partitions).flat_map(|p| roots.iter().map(move |root| (root, p)));
            all.map(|(root, p)| log(t, root, format!("{}-{p}", t.name)))
                .collect::<Vec<_>>()
        });
        Self {
            logs: logs.collect(),
            wall_ms: i64::MIN,
            account: Account::default(),
        }
    }

    /// Whether there is nothing to watch.
    pub fn is_empty(&self) -> bool {
        self.logs.is_empty()
    }

    /// Checks the log starts that were recorded since the last call. `deleted` returns the offset of a partition up to which a
    /// client asked to delete. Partitions that the disk `damaged` are exempt: their records' ages are unknown.
    pub fn check(
        &mut self,
        disk: &Disk,
        wall_ms: i64,
        deleted: impl Fn(&str) -> i64,
        damaged: impl Fn(&str) -> bool,
    ) -> Vec<Violation> {
        self.wall_ms = self.wall_ms.max(wall_ms);
        let mut found = Vec::new();
        for log in &mut self.logs {
            let Some(manifest) = disk.file(&log.manifest) else {
                continue;
            };
            if log.seen.replace(manifest) == Some(manifest) {
                continue;
            }
            let Some(now) = parse(&disk.peek(manifest)) else {
                continue;
            };
            let waiver = damaged(&log.key).then_some(why::DAMAGED);
            if now.log_start > log.starts.log_start && self.account.judges(Rule::Retained, waiver) {
                found.extend(log.raised(disk, now, self.wall_ms, deleted(&log.key)));
            }
            log.starts = now;
        }
        found
    }
}

impl WatchedLog {
    /// L1: retention removed too much, or too early.
    fn raised(&self, disk: &Disk, now: LogStart, wall_ms: i64, deleted: i64) -> Option<Violation> {
        let segments = segments(disk, &self.folder);
        let sizes: Vec<u64> = segments.iter().map(|(_, inode)| disk.len(*inode)).collect();
        let mut may = self.starts.log_start.max(deleted);
        for (i, (base, inode)) in segments.iter().enumerate() {
            // The last segment is the active one.
            let Some((next, _)) = segments.get(i + 1).filter(|_| *base < now.first_base) else {
                break;
            };
            let left: u64 = sizes[i + 1..].iter().sum();
            let too_much = self.bytes_max.is_some_and(|most| left >= most);
            let youngest = youngest(disk, *inode);
            let too_old = self
                .age_max_ms
                .is_some_and(|most| youngest.is_none_or(|t| wall_ms - t > most));
            if !(too_much || too_old || *next <= may) {
                break;
            }
            may = may.max(*next);
        }
        let LogStart {
            log_start,
            first_base,
        } = now;
        (log_start > may).then(|| {
            let (key, was) = (&self.key, self.starts.log_start);
            let all: Vec<_> = segments.iter().map(|(base, _)| *base).zip(&sizes).collect();
            let what = format!(
                "{key} starts at {log_start} (segments from {first_base}) and not at {was} any more; retention may take what is \
                 below {may}, of segments (base, bytes) {all:?}"
            );
            Violation::new("L1", what)
        })
    }
}

/// Segments that retention should have removed by now (S1): too old, or without which enough bytes are left. `wall_ms` is the wall
/// clock now, less a margin. An active segment stays.
pub fn overdue(disk: &Disk, workload: &Workload, roots: &[String], wall_ms: i64) -> Vec<String> {
    let mut found = Vec::new();
    for log in Retention::of(workload, roots).logs {
        let segments = segments(disk, &log.folder);
        let Some(((base, oldest), others)) = segments.split_first().filter(|(_, others)| !others.is_empty())
        else {
            continue;
        };
        let left: u64 = others.iter().map(|(_, inode)| disk.len(*inode)).sum();
        let too_much = log.bytes_max.is_some_and(|most| left >= most);
        let age = |t| wall_ms.saturating_sub(t);
        let youngest = youngest(disk, *oldest);
        let too_old = log
            .age_max_ms
            .is_some_and(|most| youngest.is_some_and(|t| age(t) > most));
        if too_much || too_old {
            found.push(format!(
                "{}: segment {base} is {OVERDUE}: {left} bytes without it, its youngest record is {:?} ms old",
                log.folder,
                youngest.map(age)
            ));
        }
    }
    found
}

/// The segments of a folder: bases and files, in order.
fn segments(disk: &Disk, folder: &str) -> Vec<(i64, InodeId)> {
    let entries = disk.list(folder).unwrap_or_default().into_iter();
    let segment = |name: String| {
        let base = name.strip_suffix(".log")?.parse().ok()?;
        Some((base, disk.file(&format!("{folder}/{name}"))?))
    };
    entries.filter_map(|e| segment(e.name)).collect()
}

/// The latest timestamp of a segment's records.
fn youngest(disk: &Disk, inode: InodeId) -> Option<i64> {
    let all = batches(Bytes::copy_from_slice(&disk.peek(inode))).map_while(Result::ok);
    all.map(|b| b.header.max_timestamp.0).max()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use brokkr_types::{LeaderEpoch, Offset, UnixMillis};
    use brokkr_wire::records::BatchBuilder;
    use brokkr_workloads::ClientSpec;

    /// Bytes of a segment of one record of that time.
    fn segment(base: i64, time: i64) -> Vec<u8> {
        let mut builder = BatchBuilder::new();
        builder.push(UnixMillis(time), None, Some(&[7; 30]), &[]);
        builder
            .build()
            .placed(Offset(base), LeaderEpoch(0))
            .concat()
            .to_vec()
    }

    fn write(disk: &mut Disk, path: &str, bytes: &[u8]) {
        let (inode, _) = disk.open(path, true).expect("a new file");
        disk.write(inode, 0, &Bytes::copy_from_slice(bytes))
            .expect("there is room");
    }

    fn record(disk: &mut Disk, log_start: i64, first_base: i64) {
        let mut bytes = b"BKMF".to_vec();
        bytes.extend([0; 19]);
        bytes.extend(log_start.to_be_bytes());
        bytes.extend(first_base.to_be_bytes());
        write(disk, "data/t-0/tmp", &bytes);
        disk.rename("data/t-0/tmp", "data/t-0/brokkr-manifest")
            .expect("it is there");
    }

    /// Violations when a log of four segments with one record each, at times 100 to 103, gets another start at time 200.
    fn raised(configs: &[(&str, i64)], log_start: i64, first_base: i64, deleted: i64) -> usize {
        let configs = configs.iter().map(|(k, v)| ((*k).to_owned(), v.to_string()));
        let topic = TopicSpec {
            name: "t".to_owned(),
            partitions: 1,
            replication_factor: 1,
            configs: configs.collect::<BTreeMap<_, _>>(),
        };
        let workload = Workload {
            client: ClientSpec::new("b", 1),
            topics: vec![topic],
            producers: Vec::new(),
            consumers: Vec::new(),
            admin: None,
            recreator: None,
            operator: None,
            inspector: None,
            visitor: None,
        };
        let mut disk = Disk::new(1);
        disk.create_dir("data/t-0").expect("a folder");
        for base in 0..4 {
            write(
                &mut disk,
                &format!("data/t-0/{base:020}.log"),
                &segment(base, 100 + base),
            );
        }
        let mut retention = Retention::of(&workload, &["other", "data"].map(str::to_owned));
        record(&mut disk, 0, 0);
        assert!(retention.check(&disk, 200, |_| deleted, |_| false).is_empty());
        record(&mut disk, log_start, first_base);
        let found = retention.check(&disk, 200, |_| deleted, |_| false).len();
        assert!(
            retention.check(&disk, 200, |_| deleted, |_| false).is_empty(),
            "it is looked at once"
        );
        found
    }

    #[test]
    fn retention_removes_only_old_or_excess_segments() {
        let size = segment(0, 100).len() as i64;
        for (bytes, goes) in [
            (4 * size, 0),
            (3 * size, 1),
            (2 * size + 1, 1),
            (2 * size, 2),
            (0, 3),
        ] {
            for upto in 0..=4 {
                let found = raised(&[("retention.bytes", bytes)], upto, upto, 0);
                assert_eq!(
                    found,
                    usize::from(upto > goes),
                    "{bytes} bytes stay, and it begins at {upto}"
                );
            }
        }
        for (ms, goes) in [(100, 0), (99, 1), (98, 2), (97, 3), (0, 3)] {
            for upto in 0..=4 {
                let found = raised(&[("retention.ms", ms)], upto, upto, 0);
                assert_eq!(
                    found,
                    usize::from(upto > goes),
                    "{ms} ms stay, and it begins at {upto}"
                );
            }
        }
        // Whole segments are removed, except for records deleted on request.
        let one = [("retention.bytes", 3 * size)];
        assert_eq!(raised(&one, 2, 1, 0), 1);
        assert_eq!(raised(&one, 2, 1, 2), 0);
        assert_eq!(raised(&one, 3, 1, 2), 1);
    }
}

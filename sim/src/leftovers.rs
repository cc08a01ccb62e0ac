//! S1: at the end of a run, everything on the broker's disk, and every open handle, belongs to something that exists.
//!
//! Once all faults and clients have ended, every folder belongs to an existing partition, every file has a place in its folder, no
//! open file lacks a name, no segment lies below its log's start or beyond its topic's retention, no connection of a client that left
//! is still open, and no byte of the memory budget is reserved. Deleted
//! files may stay for their delay, so the check repeats until nothing is left, at most for `PATIENCE`. It runs AFTER the run's
//! hash is taken: a run without leftovers costs one check.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use brokkr_client::{Client, ClientConfig};
use brokkr_env::{EntryKind, Env};
use brokkr_history::Operation;
use brokkr_types::Uuid;
use brokkr_wire::messages::MetadataRequest;

use crate::account::{Account, Rule, why};
use crate::check::{Violation, folder_in, topic_id};
use crate::disk::Disk;
use crate::env::WALL_START_MS;
use crate::exec::lock;
use crate::judge::{self, Deleted};
use crate::net::addr_of;
use crate::node::Running;
use crate::plan::{BROKER, FIRST_CLIENT, Kind, PORT};
use crate::retention::{self, OVERDUE};
use crate::rude::FIRST_RUDE;
use crate::shared::Shared;
use crate::world::World;

/// The node that queries the existing topics.
const QUERY_NODE: u32 = FIRST_CLIENT - 3;
/// `file.delete.delay.ms` (a minute), the interval of the deleting task, and a margin.
const PATIENCE: Duration = Duration::from_secs(150);
/// Interval between two checks.
const CHECK_INTERVAL: Duration = Duration::from_secs(4);
/// Leftovers that a report names.
const NAMED_MAX: usize = 5;
/// Snapshots of the metadata that are kept, plus one that is being written.
const SNAPSHOTS_MAX: usize = 3;
/// Prefix of files that reserve disk space.
const RESERVE: &str = "brokkr-reserve-";
const METADATA: &str = "__cluster_metadata-0";

const BELOW: &str = "segments below the log's start";
const RETENTION_EVERY: &str = "log.retention.check.interval.ms";

/// Files of the log directory itself: Kafka's, and Brokkr's.
const OF_THE_DIRECTORY: [&str; 9] = [
    "meta.properties",
    ".lock",
    ".kafka_cleanshutdown",
    "recovery-point-offset-checkpoint",
    "log-start-offset-checkpoint",
    "replication-offset-checkpoint",
    "cleaner-offset-checkpoint",
    "bootstrap.checkpoint",
    "brokkr-checkpoint",
];
/// Files of a partition that belong to no segment.
const OF_A_PARTITION: [&str; 3] = ["leader-epoch-checkpoint", "partition.metadata", "brokkr-manifest"];
/// Suffixes of a segment's files.
const OF_A_SEGMENT: [&str; 4] = ["log", "index", "timeindex", "txnindex"];
/// Producer state at an offset, which need not be a segment's base.
const OF_AN_OFFSET: [&str; 2] = ["snapshot", "window"];

/// The existing topics: their ids, and their numbers of partitions.
pub type LiveTopics = BTreeMap<String, (Uuid, usize)>;

/// Checks until nothing is left, or the patience ends.
pub(crate) async fn check(shared: &Shared, broker: Option<&Running>) {
    let env = shared.world.env(QUERY_NODE);
    for node in (FIRST_RUDE..).take(shared.plan.rude.len()) {
        shared.world.end_quietly(node);
    }
    let until = env.now() + PATIENCE;
    loop {
        // Queried each time: the clients' last requests may still be pending.
        let Some(live) = live_topics(&env).await else {
            let what = "the broker does not say which topics there are";
            return shared.violation(Violation::new("S1", what));
        };
        let (mut found, account) = look(shared, &live);
        found.extend(in_memory(broker).await);
        let is_last = found.is_empty() || env.now() >= until;
        if is_last {
            // Of one look, so that what stays counts once.
            lock(&shared.account).add(&account);
        }
        if found.is_empty() {
            return;
        }
        if is_last {
            let what = |what| shared.violation(Violation::new("S1", what));
            return found.into_iter().take(NAMED_MAX).for_each(what);
        }
        env.sleep_until(env.now() + CHECK_INTERVAL).await;
    }
}

async fn live_topics(env: &impl Env) -> Option<LiveTopics> {
    let host = addr_of(BROKER, PORT).ip().to_string();
    let client = Client::new(env, ClientConfig::new(&host, PORT));
    let request = MetadataRequest {
        topics: None,
        ..MetadataRequest::default()
    };
    let response = client.ask_any(request).await.ok()?;
    let topics = response.topics.into_iter().filter_map(|t| {
        let name = t.name?.as_str().to_owned();
        Some((name, (t.topic_id, t.partitions.len())))
    });
    Some(topics.collect())
}

fn look(shared: &Shared, live: &LiveTopics) -> (Vec<String>, Account) {
    // The connection of the query may not be closed yet.
    let mut found = in_world(&shared.world, &shared.roots, live, &[QUERY_NODE]);
    let state = shared.world.lock();
    let disk = state.disks.get(&BROKER).expect("the broker has a disk");
    let clock = state.clocks.get(&BROKER).copied().unwrap_or_default();
    let shown_ms = clock.shows(shared.world.exec().now()) / 1_000_000;
    let wall_ms = WALL_START_MS + clock.wall_ahead_ms + shown_ms as i64;
    found.extend(retention::overdue(
        disk,
        &shared.plan.workload,
        &shared.roots,
        wall_ms,
    ));
    let looks_seldom = looks_seldom(shared);
    let waiver = |what: &str| match () {
        // Leftovers of an operator's mistake are the operator's to remove, if the log names them.
        () if is_of_damage(shared, what) || was_offline_at_deletion(shared, disk, what) => Some(why::NAMED),
        () if looks_seldom
            && (what.contains(BELOW) || what.contains(OVERDUE))
            && !what.contains(METADATA) =>
        {
            Some(why::SELDOM)
        }
        () => None,
    };
    // Once for the run, whatever the number of leftovers.
    let waived = found.iter().find_map(|what| waiver(what));
    let mut account = Account::default();
    account.judges(Rule::Leftovers, waived);
    found.retain(|what| waiver(what).is_none());
    (found, account)
}

/// Bytes of the broker's memory budget that are still reserved, though no client is left.
async fn in_memory(broker: Option<&Running>) -> Vec<String> {
    let Some(broker) = broker else {
        return Vec::new();
    };
    let Ok(pools) = broker.memory().await else {
        return Vec::new();
    };
    let reserved = pools
        .into_iter()
        .filter(|pool| pool.used_bytes > 0 || pool.waiting > 0);
    reserved
        .map(|pool| {
            let (name, bytes, waiting) = (pool.name, pool.used_bytes, pool.waiting);
            format!(
                "{bytes} bytes of {name} are reserved and {waiting} tasks wait, and all clients have left"
            )
        })
        .collect()
}

/// Leftovers on the broker's disk (in these log directories) and among its open handles, given the existing topics and the nodes
/// that have not left.
pub fn in_world(world: &World, roots: &[String], live: &LiveTopics, nodes: &[u32]) -> Vec<String> {
    let state = world.lock();
    let disk = state.disks.get(&BROKER).expect("the broker has a disk");
    let mut found: Vec<String> = roots.iter().flat_map(|root| on_disk(disk, root, live)).collect();
    let open = disk.open_without_name();
    if !open.is_empty() {
        let bytes: u64 = open.iter().sum();
        found.push(format!(
            "{} files of {bytes} bytes are open and have no name",
            open.len()
        ));
    }
    let is_theirs = |peer| {
        state
            .net
            .ends
            .get(&peer)
            .is_some_and(|end| nodes.contains(&end.node))
    };
    let all = state.net.ends_of(BROKER).into_iter();
    let connections = all.filter(|(_, peer)| !is_theirs(*peer)).count();
    if connections > 0 {
        found.push(format!(
            "{connections} connections are open, and all clients have left"
        ));
    }
    found
}

/// Whether retention runs so rarely that the run ends before, in one of the broker's configurations.
fn looks_seldom(shared: &Shared) -> bool {
    let seldom = |config: &BTreeMap<String, String>, unless_said: bool| {
        config
            .get(RETENTION_EVERY)
            .and_then(|ms| ms.parse().ok())
            .map_or(unless_said, |ms: u64| ms > 10_000)
    };
    let others = shared.plan.faults.iter().filter_map(|f| match &f.kind {
        Kind::Restart { broker, .. } => Some(broker),
        _ => None,
    });
    seldom(&shared.plan.broker, true) || others.into_iter().any(|config| seldom(config, false))
}

/// Whether a damaged file is the reason for a leftover: an offline partition stays as it is.
fn is_of_damage(shared: &Shared, what: &str) -> bool {
    shared.plan.faults.iter().any(|f| {
        let folder = match &f.kind {
            Kind::DamageFile { file, .. } => file.split_once('/').map_or("", |(folder, _)| folder).to_owned(),
            Kind::Damage { topic, partition, .. } => format!("{topic}-{partition}"),
            _ => return false,
        };
        let is_stray = what.contains(&format!("folder {folder}.")) && what.contains("-stray");
        let is_in = |root: &String| {
            what.contains(&format!("{root}/{folder}/")) || what.contains(&format!("{root}/{folder}:"))
        };
        let is_in_it = shared.roots.iter().any(is_in) || what.contains(&format!("folder {folder}:"));
        !folder.is_empty() && shared.is_named(&folder) && (is_stray || is_in_it)
    })
}

/// Whether it is the log of a topic that was deleted while its log directory, one of several, had failed. Once a metadata snapshot
/// no longer contains the deletion, the broker can only set the log aside and log that.
fn was_offline_at_deletion(shared: &Shared, disk: &Disk, what: &str) -> bool {
    let name = what.strip_prefix("folder ").and_then(|rest| rest.split_once(':'));
    let Some((name, _)) = name.filter(|(name, _)| shared.roots.len() > 1 && name.ends_with("-stray")) else {
        return false;
    };
    let folder = folder_in(disk, &shared.roots, name);
    let partition = name.split_once('.').map_or(name, |(partition, _)| partition);
    let was_deleted = match topic_id(disk, &folder) {
        // Rude clients' deletions are not in the history.
        _ if !shared.is_judged(partition) => true,
        Some(id) => shared.recorder.history().look(Deleted::requested).has_topic(&id),
        // Nothing was appended to it, so its `partition.metadata` was not durable.
        None => {
            let topic = partition.rsplit_once('-').map_or(partition, |(topic, _)| topic);
            let deletes = |all: &[Operation]| judge::deletes(all, topic);
            shared.recorder.history().look(deletes) || disk.list(&folder).unwrap_or_default().is_empty()
        }
    };
    was_deleted && shared.is_named(name)
}

/// Leftovers on a disk.
pub(crate) fn on_disk(disk: &Disk, root: &str, live: &LiveTopics) -> Vec<String> {
    let mut found = Vec::new();
    for entry in disk.list(root).unwrap_or_default() {
        let path = format!("{root}/{}", entry.name);
        match entry.kind {
            EntryKind::Dir if entry.name == METADATA => found.extend(of_folder(disk, &path)),
            EntryKind::Dir => match orphan(disk, &path, &entry.name, live) {
                Some(why) => found.push(format!("folder {}: {why}", entry.name)),
                None => found.extend(of_folder(disk, &path)),
            },
            EntryKind::File if OF_THE_DIRECTORY.contains(&&*entry.name) => {}
            // Reserved disk space.
            EntryKind::File if entry.name.starts_with(RESERVE) => {}
            EntryKind::File => found.push(format!("file {}: unknown", entry.name)),
        }
    }
    found
}

/// Why a folder belongs to no existing partition.
fn orphan(disk: &Disk, path: &str, name: &str, live: &LiveTopics) -> Option<String> {
    let (topic, partition) = name.rsplit_once('-')?;
    let Ok(partition) = partition.parse::<usize>() else {
        return Some("of no partition".to_owned());
    };
    let Some((id, partitions)) = live.get(topic) else {
        return Some("its topic is gone".to_owned());
    };
    if partition >= *partitions {
        return Some(format!("its topic has {partitions} partitions"));
    }
    match topic_id(disk, path) {
        Some(said) if said.parse() != Ok(*id) => {
            Some(format!("it is of topic id {said}, and the topic's is {id}"))
        }
        _ => None,
    }
}

/// Files of a partition's folder that have no place in it.
fn of_folder(disk: &Disk, path: &str) -> Vec<String> {
    let files = disk.list(path).unwrap_or_default();
    let offset = |name: &str| {
        name.split_once('.')
            .and_then(|(n, end)| Some((n.parse::<i64>().ok()?, end.to_owned())))
    };
    let bases: Vec<i64> = files
        .iter()
        .filter_map(|f| offset(&f.name))
        .filter(|(_, end)| end == "log")
        .map(|(base, _)| base)
        .collect();
    let is_metadata = path.ends_with(METADATA);
    let has_place = |name: &str| match offset(name) {
        Some((base, end)) if OF_A_SEGMENT.contains(&&*end) => bases.contains(&base),
        Some((_, end)) => OF_AN_OFFSET.contains(&&*end),
        None => {
            OF_A_PARTITION.contains(&name)
                || is_metadata && (name == "quorum-state" || name.ends_with(".checkpoint"))
        }
    };
    let mut found: Vec<String> = files
        .iter()
        .filter(|f| !has_place(&f.name))
        .map(|f| format!("file {path}/{}: unknown", f.name))
        .collect();
    let snapshots = files.iter().filter(|f| f.name.ends_with(".checkpoint")).count();
    if is_metadata && snapshots > SNAPSHOTS_MAX {
        found.push(format!("{path}: {snapshots} snapshots of the metadata"));
    }
    found.extend(below_start(disk, path, &bases));
    // Producer state goes with the segment that begins there. A start keeps the latest if there is no other.
    let states = files
        .iter()
        .filter_map(|f| offset(&f.name))
        .filter(|(_, end)| OF_AN_OFFSET.contains(&&**end));
    let first = bases.iter().min().copied().unwrap_or(i64::MIN);
    let old: BTreeSet<i64> = states.map(|(at, _)| at).filter(|at| *at < first).collect();
    if old.len() > 1 {
        found.push(format!(
            "{path}: producer state of {} offsets below its first segment, {first}",
            old.len()
        ));
    }
    found
}

/// A segment whose records are all deleted.
fn below_start(disk: &Disk, path: &str, bases: &[i64]) -> Option<String> {
    let start = retention::starts(disk, path)?.log_start;
    let below = bases.windows(2).filter(|two| two[1] <= start).count();
    (below > 0).then(|| format!("{path}: {below} {BELOW}, {start}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    const ID: &str = "AAAAAAAAAAAAAAAAAAAAAQ";

    fn with(files: &[&str]) -> Disk {
        let mut disk = Disk::new(1);
        disk.create_dir("data").expect("a folder");
        for path in files {
            let (folder, _) = path.rsplit_once('/').expect("a file in a folder");
            disk.create_dir(folder).expect("a folder");
            let (inode, _) = disk.open(path, true).expect("a new file");
            let text = match path.ends_with("partition.metadata") {
                true => format!("version: 0\ntopic_id: {ID}"),
                false => "x".to_owned(),
            };
            disk.write(inode, 0, &Bytes::from(text.into_bytes()))
                .expect("there is room");
            disk.close(inode);
        }
        disk
    }

    fn found(files: &[&str]) -> Vec<String> {
        let id: Uuid = ID.parse().expect("an id");
        on_disk(&with(files), "data", &[("t".to_owned(), (id, 2))].into())
    }

    #[test]
    fn known_files_are_no_leftovers() {
        let base = "data/t-1/00000000000000000007";
        let files = ["log", "index", "timeindex", "snapshot", "window"].map(|end| format!("{base}.{end}"));
        let mut all: Vec<&str> = files.iter().map(|f| &**f).collect();
        all.extend([
            "data/meta.properties",
            "data/t-0/partition.metadata",
            "data/t-0/leader-epoch-checkpoint",
            "data/__cluster_metadata-0/00000000000000000000-0000000000.checkpoint",
            "data/__cluster_metadata-0/quorum-state",
        ]);
        assert_eq!(found(&all), [""; 0]);
    }

    #[test]
    fn each_leftover_is_found() {
        for left in [
            "data/what",
            "data/t-2/00000000000000000000.log",
            "data/u-0/00000000000000000000.log",
            "data/t-0.0123-delete/00000000000000000000.log",
            "data/t-0/00000000000000000000.index",
            "data/t-0/00000000000000000000.log.deleted",
            "data/t-0/brokkr-manifest.tmp",
        ] {
            assert_eq!(found(&[left]).len(), 1, "{left}");
        }
        let states = [1, 2, 7].map(|n| format!("data/t-0/{n:020}.window"));
        let mut states: Vec<&str> = states.iter().map(|s| &**s).collect();
        states.push("data/t-0/00000000000000000007.log");
        assert_eq!(found(&states).len(), 1);
        assert_eq!(found(&states[1..]).len(), 0);
        let snapshots =
            [0, 1, 2, 3].map(|n| format!("data/__cluster_metadata-0/{n:020}-0000000001.checkpoint"));
        let snapshots: Vec<&str> = snapshots.iter().map(|s| &**s).collect();
        assert_eq!(found(&snapshots).len(), 1);
    }

    #[test]
    fn folders_with_another_topic_id_and_segments_below_the_start_are_found() {
        let disk = with(&["data/t-0/partition.metadata"]);
        let other = Uuid::from_bytes([7; 16]);
        assert_eq!(
            on_disk(&disk, "data", &[("t".to_owned(), (other, 1))].into()).len(),
            1
        );

        let mut disk = with(&[
            "data/t-0/00000000000000000000.log",
            "data/t-0/00000000000000000005.log",
        ]);
        let manifest = |start: i64| [&b"BKMF"[..], &[0; 19], &start.to_be_bytes(), &[0; 8]].concat();
        let (inode, _) = disk.open("data/t-0/brokkr-manifest", true).expect("a new file");
        for (start, n) in [(4, 0), (5, 1)] {
            disk.write(inode, 0, &manifest(start).into())
                .expect("there is room");
            assert_eq!(
                below_start(&disk, "data/t-0", &[0, 5]).iter().count(),
                n,
                "{start}"
            );
        }
    }

    #[test]
    fn an_open_file_without_a_name_is_found() {
        let mut disk = with(&["data/t-0/00000000000000000000.log"]);
        let path = "data/t-0/00000000000000000000.log";
        let (inode, _) = disk.open(path, false).expect("it is there");
        disk.remove(path, false).expect("a file");
        disk.sync_dir("data/t-0").expect("a folder");
        assert_eq!(disk.open_without_name(), [1]);
        disk.close(inode);
        assert_eq!(disk.open_without_name(), [0; 0]);
    }
}

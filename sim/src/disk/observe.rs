//! The state of a disk, for people and tools.

use std::collections::BTreeMap;

use serde::Serialize;

use super::Disk;
use super::inode::{Inode, InodeId, ROOT};
use super::names::NameChange;
use super::platter::Change;
use crate::exec::Nanos;

/// Whether a power loss can take a file's name.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum NameState {
    /// The name is durable.
    Durable,
    /// The node sees the name, and a power loss may undo it.
    Pending,
    /// The node no longer sees the name, and a power loss may bring it back.
    Removed,
}

/// A file.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct FileState {
    /// Its path.
    pub path: String,
    /// Whether a power loss can take its name.
    pub name: NameState,
    /// Its length as the node sees it.
    pub len: u64,
    /// Its length on the platter.
    pub durable_len: u64,
    /// Writes and truncates that no completed sync covers.
    pub pending_changes: usize,
    /// The bytes of these writes.
    pub pending_bytes: u64,
    /// Open handles.
    pub handles: u32,
    /// Sectors that can't be read, by their start.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unreadable: Vec<u64>,
}

/// A disk.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct DiskState {
    /// Bytes that files occupy.
    pub used_bytes: u64,
    /// Its capacity; none without a limit.
    pub capacity_bytes: Option<u64>,
    /// The files by path.
    pub files: Vec<FileState>,
    /// Lengths of open files without a name.
    pub open_without_name: Vec<u64>,
    /// Changes of names that no sync covers, in order.
    pub pending_names: Vec<String>,
    /// What is wrong with it now.
    pub faults: Vec<String>,
}

fn pending_bytes(inode: &Inode) -> u64 {
    let len = |(_, change): &(u64, Change)| match change {
        Change::Write { bytes, .. } => bytes.len() as u64,
        Change::Astray { len, .. } => *len,
        Change::Truncate { .. } => 0,
    };
    inode.pending.iter().map(len).sum()
}

impl Disk {
    /// Its state at a time.
    pub fn observe(&self, now: Nanos) -> DiskState {
        let (seen, durable) = (self.paths(false), self.paths(true));
        let mut files = Vec::new();
        for (path, id) in &seen {
            let name = match durable.get(path) == Some(id) {
                true => NameState::Durable,
                false => NameState::Pending,
            };
            files.extend(self.file_state(path, *id, name));
        }
        for (path, id) in durable.iter().filter(|(path, id)| seen.get(*path) != Some(*id)) {
            files.extend(self.file_state(path, *id, NameState::Removed));
        }
        files.sort_by(|a, b| a.path.cmp(&b.path));
        // Of a directory that was renamed the durable name is known alone.
        let by_id = |paths: BTreeMap<String, InodeId>| paths.into_iter().map(|(path, id)| (id, path));
        let mut names: BTreeMap<InodeId, String> = by_id(durable).collect();
        names.extend(by_id(seen));
        DiskState {
            used_bytes: self.used,
            capacity_bytes: Some(self.capacity).filter(|c| *c < u64::MAX),
            files,
            open_without_name: self.open_without_name(),
            pending_names: self.names.iter().map(|c| name_text(c, &names)).collect(),
            faults: self.faults(now),
        }
    }

    /// The path of a file that the node sees, or its number.
    pub(crate) fn path_of(&self, id: InodeId) -> String {
        let found = self.paths(false).into_iter().find(|(_, i)| *i == id);
        found.map_or_else(|| format!("file {id}, without a name"), |(path, _)| path)
    }

    /// All paths with their inodes, as the node sees them or as they are durable.
    fn paths(&self, durable: bool) -> BTreeMap<String, InodeId> {
        let (mut all, mut folders) = (BTreeMap::new(), vec![(String::new(), ROOT)]);
        while let Some((folder, dir)) = folders.pop() {
            let dir = self.inode(dir);
            let entries = if durable {
                &dir.entries_durable
            } else {
                &dir.entries
            };
            for (name, id) in entries {
                let path = format!("{folder}/{name}").trim_start_matches('/').to_owned();
                if self.inode(*id).is_dir {
                    folders.push((path.clone(), *id));
                }
                all.insert(path, *id);
            }
        }
        all
    }

    fn file_state(&self, path: &str, id: InodeId, name: NameState) -> Option<FileState> {
        let inode = self.inode(id);
        (!inode.is_dir).then(|| FileState {
            path: path.to_owned(),
            name,
            len: inode.data.len() as u64,
            durable_len: inode.durable.len() as u64,
            pending_changes: inode.pending.len(),
            pending_bytes: pending_bytes(inode),
            handles: inode.handles,
            unreadable: inode.unreadable.iter().copied().collect(),
        })
    }

    fn faults(&self, now: Nanos) -> Vec<String> {
        let mut all = Vec::new();
        let mut put = |is: bool, text: String| all.extend(is.then_some(text));
        put(
            self.failing_syncs > 0,
            format!("the next {} syncs fail", self.failing_syncs),
        );
        put(
            self.failing_writes > 0,
            format!("the next {} writes fail", self.failing_writes),
        );
        if let Some(failing) = &self.failing {
            let error = if failing.no_space { "ENOSPC" } else { "EIO" };
            let (act, of) = (failing.act.name(), &failing.of);
            put(
                true,
                format!("the next {act} of the kind {of:?} fails with {error}"),
            );
        }
        if let Some(dir) = &self.failed_dir {
            put(true, format!("nothing in {dir} can be read, written or synced"));
        }
        let (until, times) = self.slow;
        let ms = |t: Nanos| format!("{}.{:03} s", t / 1_000_000_000, t % 1_000_000_000 / 1_000_000);
        put(
            now < until,
            format!("operations take {times} times as long until {}", ms(until)),
        );
        let hangs = self.hangs_until;
        put(
            now < hangs,
            format!("no operation completes before {}", ms(hangs)),
        );
        put(
            self.capacity < u64::MAX,
            format!("{} bytes are free", self.space().0),
        );
        all
    }
}

fn name_text(change: &NameChange, names: &BTreeMap<InodeId, String>) -> String {
    let path = |dir: &InodeId, name: &str| match names.get(dir) {
        Some(folder) => format!("{folder}/{name}"),
        None if *dir == ROOT => name.to_owned(),
        None => format!("a removed folder/{name}"),
    };
    match change {
        NameChange::Set { dir, name, .. } => format!("create {}", path(dir, name)),
        NameChange::Unset { dir, name } => format!("remove {}", path(dir, name)),
        NameChange::Move { from, to, .. } => {
            format!("rename {} to {}", path(&from.0, &from.1), path(&to.0, &to.1))
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::keyed::Keyed;

    #[test]
    fn what_a_power_loss_could_take_is_told_from_what_is_durable() {
        let mut disk = Disk::new(1);
        disk.create_dir("data").expect("a folder");
        let (kept, _) = disk.open("data/kept", true).expect("a new file");
        let (gone, _) = disk.open("data/gone", true).expect("a new file");
        disk.sync_dir("").expect("no fault");
        disk.sync_dir("data").expect("no fault");
        disk.write(kept, 0, &Bytes::from_static(b"0123"))
            .expect("there is room");
        let mark = disk.sync_begin();
        disk.sync_end(kept, mark, &mut Keyed::new(1)).expect("no fault");
        disk.write(kept, 4, &Bytes::from_static(b"45"))
            .expect("there is room");
        disk.remove("data/gone", false).expect("it is there");
        disk.close(gone);
        disk.open("data/new", true).expect("a new file");
        disk.failing_syncs = 2;
        let state = disk.observe(0);
        let files: Vec<_> = state
            .files
            .iter()
            .map(|f| {
                (
                    f.path.as_str(),
                    f.name,
                    f.len,
                    f.durable_len,
                    f.pending_bytes,
                    f.handles,
                )
            })
            .collect();
        assert_eq!(
            files,
            [
                ("data/gone", NameState::Removed, 0, 0, 0, 0),
                ("data/kept", NameState::Durable, 6, 4, 2, 1),
                ("data/new", NameState::Pending, 0, 0, 0, 1),
            ]
        );
        assert_eq!(state.pending_names, ["remove data/gone", "create data/new"]);
        assert_eq!(state.faults, ["the next 2 syncs fail"]);
        assert_eq!((state.used_bytes, state.capacity_bytes), (6, None));
    }
}

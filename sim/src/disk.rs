//! A node's disk: what is written is not durable.
//!
//! Every change to a file or a directory is applied to what the node sees and remembered until a sync covers it. A power
//! loss undoes all that no sync covered, then lets each of those changes survive or not, by itself: a write torn at
//! sectors, a longer length with zeros in place of data, a rename, create, remove or truncate that never happened. What
//! survived is durable. (DESIGN section 4; the file system this models is the weakest that POSIX allows.)

use std::collections::BTreeMap;

use brokkr_env::{Entry, EntryKind, Error, ErrorKind, Result};
use bytes::Bytes;

use crate::keyed::Keyed;

/// What the disk writes whole or not at all.
const SECTOR: u64 = 512;

/// A file or directory on the disk, whatever its name is.
pub type InodeId = u64;

const ROOT: InodeId = 0;

#[derive(Default)]
struct Inode {
    data: Vec<u8>,
    /// Changes that no sync covers, oldest first, each with its number.
    pending: Vec<(u64, Change)>,
    /// Of a directory: its entries as the node sees them, and as they survive.
    entries: BTreeMap<String, InodeId>,
    entries_durable: BTreeMap<String, InodeId>,
    is_dir: bool,
}

enum Change {
    Write {
        at: u64,
        bytes: Bytes,
        over: Vec<u8>,
        len_before: u64,
    },
    Truncate {
        to: u64,
        cut: Vec<u8>,
    },
}

#[derive(Clone)]
enum NameChange {
    Set {
        dir: InodeId,
        name: String,
        inode: InodeId,
    },
    Unset {
        dir: InodeId,
        name: String,
    },
    Move {
        from: (InodeId, String),
        to: (InodeId, String),
        inode: InodeId,
    },
}

impl NameChange {
    fn touches(&self, dir: InodeId) -> bool {
        match self {
            Self::Set { dir: d, .. } | Self::Unset { dir: d, .. } => *d == dir,
            Self::Move { from, to, .. } => from.0 == dir || to.0 == dir,
        }
    }
}

/// How often a power loss had something to choose, for the report.
#[derive(Default, Clone, Copy, Debug)]
pub struct Losses {
    /// Changes to files that were lost whole.
    pub lost: u64,
    /// Writes that were torn.
    pub torn: u64,
    /// Writes of which only the length survived.
    pub zeroed: u64,
    /// Truncates that were undone.
    pub untruncated: u64,
    /// Creates, renames and removes that were undone.
    pub names: u64,
}

/// One node's disk. Survives its node's lives.
pub struct Disk {
    node: u64,
    inodes: BTreeMap<InodeId, Inode>,
    next_inode: InodeId,
    next_change: u64,
    names: Vec<NameChange>,
    used: u64,
    /// Bytes it can hold.
    pub capacity: u64,
    /// Syncs that fail from now on; the pages they were to write count as lost, though the node sees them.
    pub failing_syncs: u64,
    /// Writes that fail from now on with an IO error of unknown extent.
    pub failing_writes: u64,
    /// What power losses did.
    pub losses: Losses,
}

fn not_found(path: &str) -> Error {
    Error::new(ErrorKind::NotFound, format!("{path}: no such file or directory"))
}

impl Disk {
    /// An empty disk.
    pub fn new(node: u32) -> Self {
        let root = Inode {
            is_dir: true,
            ..Inode::default()
        };
        Self {
            node: u64::from(node),
            inodes: BTreeMap::from([(ROOT, root)]),
            next_inode: 1,
            next_change: 0,
            names: Vec::new(),
            used: 0,
            capacity: u64::MAX,
            failing_syncs: 0,
            failing_writes: 0,
            losses: Losses::default(),
        }
    }

    fn walk(&self, path: &str) -> Option<InodeId> {
        path.split('/')
            .filter(|p| !p.is_empty())
            .try_fold(ROOT, |dir, name| self.inode(dir).entries.get(name).copied())
    }

    fn inode(&self, id: InodeId) -> &Inode {
        self.inodes.get(&id).expect("an inode that is named exists")
    }

    fn inode_mut(&mut self, id: InodeId) -> &mut Inode {
        self.inodes.get_mut(&id).expect("an inode that is named exists")
    }

    /// The directory that `path` is in, and its name there.
    fn place<'p>(&self, path: &'p str) -> Result<(InodeId, &'p str)> {
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        let dir = self
            .walk(parent)
            .filter(|d| self.inode(*d).is_dir)
            .ok_or_else(|| not_found(path))?;
        Ok((dir, name))
    }

    fn name(&mut self, change: NameChange) {
        apply_name(&mut self.inodes, &change, false);
        self.names.push(change);
    }

    fn make(&mut self, path: &str, is_dir: bool) -> Result<InodeId> {
        let (dir, name) = self.place(path)?;
        let inode = self.next_inode;
        self.next_inode += 1;
        self.inodes.insert(
            inode,
            Inode {
                is_dir,
                ..Inode::default()
            },
        );
        self.name(NameChange::Set {
            dir,
            name: name.to_owned(),
            inode,
        });
        Ok(inode)
    }

    /// Opens or makes a file: its inode and length.
    pub fn open(&mut self, path: &str, create: bool) -> Result<(InodeId, u64)> {
        match (self.walk(path), create) {
            (Some(_), true) => Err(Error::new(
                ErrorKind::AlreadyExists,
                format!("{path}: file exists"),
            )),
            (Some(id), false) if self.inode(id).is_dir => {
                Err(Error::new(ErrorKind::Io, format!("{path}: is a directory")))
            }
            (Some(id), false) => Ok((id, self.inode(id).data.len() as u64)),
            (None, true) => Ok((self.make(path, false)?, 0)),
            (None, false) => Err(not_found(path)),
        }
    }

    /// Makes a directory and its parents.
    pub fn create_dir(&mut self, path: &str) -> Result<()> {
        let mut at = String::new();
        for name in path.split('/').filter(|p| !p.is_empty()) {
            if !at.is_empty() {
                at.push('/');
            }
            at.push_str(name);
            match self.walk(&at) {
                Some(id) if !self.inode(id).is_dir => {
                    return Err(Error::new(ErrorKind::AlreadyExists, format!("{at}: is a file")));
                }
                Some(_) => {}
                None => drop(self.make(&at, true)?),
            }
        }
        Ok(())
    }

    /// Renames, replacing a file that is there.
    pub fn rename(&mut self, from: &str, to: &str) -> Result<()> {
        let inode = self.walk(from).ok_or_else(|| not_found(from))?;
        let (from_dir, from_name) = self.place(from)?;
        let (to_dir, to_name) = self.place(to)?;
        self.name(NameChange::Move {
            from: (from_dir, from_name.to_owned()),
            to: (to_dir, to_name.to_owned()),
            inode,
        });
        Ok(())
    }

    /// Removes a file, or an empty directory.
    pub fn remove(&mut self, path: &str, want_dir: bool) -> Result<()> {
        let inode = self.walk(path).ok_or_else(|| not_found(path))?;
        let it = self.inode(inode);
        if it.is_dir != want_dir || !it.entries.is_empty() {
            return Err(Error::new(
                ErrorKind::Io,
                format!("{path}: not a file, or not empty"),
            ));
        }
        let (dir, name) = self.place(path)?;
        self.name(NameChange::Unset {
            dir,
            name: name.to_owned(),
        });
        Ok(())
    }

    /// What is in a directory, sorted.
    pub fn list(&self, path: &str) -> Result<Vec<Entry>> {
        let dir = self
            .walk(path)
            .filter(|d| self.inode(*d).is_dir)
            .ok_or_else(|| not_found(path))?;
        let entry = |(name, id): (&String, &InodeId)| Entry {
            name: name.clone(),
            kind: if self.inode(*id).is_dir {
                EntryKind::Dir
            } else {
                EntryKind::File
            },
        };
        Ok(self.inode(dir).entries.iter().map(entry).collect())
    }

    /// Makes a directory's entries durable.
    pub fn sync_dir(&mut self, path: &str) -> Result<()> {
        let dir = self
            .walk(path)
            .filter(|d| self.inode(*d).is_dir)
            .ok_or_else(|| not_found(path))?;
        self.check_sync(path)?;
        let (covered, rest) = std::mem::take(&mut self.names)
            .into_iter()
            .partition(|c| c.touches(dir));
        self.names = rest;
        let covered: Vec<NameChange> = covered;
        for change in covered {
            apply_name(&mut self.inodes, &change, true);
        }
        Ok(())
    }

    fn check_sync(&mut self, what: &str) -> Result<()> {
        if self.failing_syncs > 0 {
            self.failing_syncs -= 1;
            return Err(Error::new(
                ErrorKind::Io,
                format!("sync {what}: input/output error"),
            ));
        }
        Ok(())
    }

    /// Bytes that files hold.
    pub fn used(&self) -> u64 {
        self.used
    }

    /// Free bytes, and bytes in all.
    pub fn space(&self) -> (u64, u64) {
        (self.capacity.saturating_sub(self.used), self.capacity)
    }

    /// How long a file is.
    pub fn len(&self, inode: InodeId) -> u64 {
        self.inode(inode).data.len() as u64
    }

    /// Bytes from `at` on, fewer at the end.
    pub fn read(&self, inode: InodeId, at: u64, len: u64) -> Bytes {
        let data = &self.inode(inode).data;
        let from = (at as usize).min(data.len());
        let to = ((at + len) as usize).min(data.len());
        Bytes::copy_from_slice(&data[from..to])
    }

    /// Writes. When there is no room, what fits is written; the error tells whether the extent is known.
    pub fn write(
        &mut self,
        inode: InodeId,
        at: u64,
        bytes: &Bytes,
    ) -> std::result::Result<(), (Error, bool)> {
        if self.failing_writes > 0 {
            self.failing_writes -= 1;
            self.put(inode, at, bytes.slice(..bytes.len() / 2));
            return Err((Error::new(ErrorKind::Io, "write: input/output error"), false));
        }
        let grows = (at + bytes.len() as u64).saturating_sub(self.len(inode));
        let room = self.capacity.saturating_sub(self.used);
        if grows > room {
            let fits = bytes.len() as u64 - (grows - room);
            self.put(inode, at, bytes.slice(..fits as usize));
            return Err((
                Error::new(ErrorKind::NoSpace, "write: no space left on device"),
                true,
            ));
        }
        self.put(inode, at, bytes.clone());
        Ok(())
    }

    fn put(&mut self, id: InodeId, at: u64, bytes: Bytes) {
        let number = self.next_change;
        self.next_change += 1;
        let inode = self.inode_mut(id);
        let len_before = inode.data.len() as u64;
        let end = at as usize + bytes.len();
        let over = inode.data[(at as usize).min(inode.data.len())..end.min(inode.data.len())].to_vec();
        lay(&mut inode.data, at, &bytes);
        let grown = inode.data.len() as u64 - len_before;
        inode.pending.push((
            number,
            Change::Write {
                at,
                bytes,
                over,
                len_before,
            },
        ));
        self.used += grown;
    }

    /// Cuts a file.
    pub fn truncate(&mut self, id: InodeId, to: u64) {
        let number = self.next_change;
        self.next_change += 1;
        let inode = self.inode_mut(id);
        let cut = inode.data.split_off((to as usize).min(inode.data.len()));
        let freed = cut.len() as u64;
        inode.pending.push((number, Change::Truncate { to, cut }));
        self.used -= freed;
    }

    /// Begins a sync: what it will cover.
    pub fn sync_begin(&self) -> u64 {
        self.next_change
    }

    /// Ends a sync that began at `mark`.
    pub fn sync_end(&mut self, id: InodeId, mark: u64) -> Result<()> {
        let result = self.check_sync("file");
        if result.is_ok() {
            self.inode_mut(id).pending.retain(|(number, _)| *number >= mark);
        }
        result
    }

    /// The power goes: of what no sync covered, any part survives.
    pub fn power_loss(&mut self, choices: &mut Keyed) {
        self.lose_names(choices);
        let (node, mut losses) = (self.node, self.losses);
        for inode in self.inodes.values_mut() {
            lose(inode, node, choices, &mut losses);
        }
        self.losses = losses;
        self.used = self.inodes.values().map(|i| i.data.len() as u64).sum();
    }

    fn lose_names(&mut self, choices: &mut Keyed) {
        for change in std::mem::take(&mut self.names) {
            if choices.one_in("name survives", self.node, 2) {
                apply_name(&mut self.inodes, &change, true);
            } else {
                self.losses.names += 1;
            }
        }
        for inode in self.inodes.values_mut() {
            inode.entries = inode.entries_durable.clone();
        }
    }

    /// All files below the root with what a crash now would leave for certain: path and durable length. For checks.
    pub fn file(&self, path: &str) -> Option<InodeId> {
        self.walk(path)
    }

    /// The file that a power loss now would certainly leave at this path, if it undid every change of names that no sync
    /// covers. For checks.
    pub fn file_durable(&self, path: &str) -> Option<InodeId> {
        path.split('/').filter(|p| !p.is_empty()).try_fold(ROOT, |dir, name| {
            self.inode(dir).entries_durable.get(name).copied()
        })
    }

    /// A file's bytes as the node sees them. For checks.
    pub fn peek(&self, id: InodeId) -> &[u8] {
        &self.inode(id).data
    }

    /// A file's bytes as a power loss now would certainly leave them, if it undid every change that no sync covers.
    pub fn peek_durable(&self, id: InodeId) -> Vec<u8> {
        let inode = self.inode(id);
        let mut data = inode.data.clone();
        undo(&mut data, &inode.pending);
        data
    }

    /// Flips bits, unseen by anyone: rot. For tests of detection.
    pub fn rot(&mut self, id: InodeId, at: u64) {
        if let Some(b) = self.inode_mut(id).data.get_mut(at as usize) {
            *b ^= 0x40;
        }
    }
}

fn apply_name(inodes: &mut BTreeMap<InodeId, Inode>, change: &NameChange, durable: bool) {
    let mut entries = |dir: InodeId, f: &mut dyn FnMut(&mut BTreeMap<String, InodeId>)| {
        if let Some(inode) = inodes.get_mut(&dir) {
            f(if durable {
                &mut inode.entries_durable
            } else {
                &mut inode.entries
            });
        }
    };
    match change {
        NameChange::Set { dir, name, inode } => entries(*dir, &mut |e| {
            e.insert(name.clone(), *inode);
        }),
        NameChange::Unset { dir, name } => entries(*dir, &mut |e| {
            e.remove(name);
        }),
        NameChange::Move { from, to, inode } => {
            // In the durable view the source may be missing (its create was lost) or be another file by now.
            entries(from.0, &mut |e| {
                if e.get(&from.1) == Some(inode) {
                    e.remove(&from.1);
                }
            });
            entries(to.0, &mut |e| {
                e.insert(to.1.clone(), *inode);
            });
        }
    }
}

fn lay(data: &mut Vec<u8>, at: u64, bytes: &[u8]) {
    let (at, end) = (at as usize, at as usize + bytes.len());
    if data.len() < end {
        data.resize(end, 0);
    }
    data[at..end].copy_from_slice(bytes);
}

fn undo(data: &mut Vec<u8>, pending: &[(u64, Change)]) {
    for (_, change) in pending.iter().rev() {
        match change {
            Change::Write {
                at, over, len_before, ..
            } => {
                data.truncate(*len_before as usize);
                if !over.is_empty() {
                    lay(data, *at, over);
                }
            }
            Change::Truncate { to, cut } => lay(data, *to, cut),
        }
    }
}

/// Undoes what is pending, then lets each change survive or not.
fn lose(inode: &mut Inode, node: u64, choices: &mut Keyed, losses: &mut Losses) {
    let pending = std::mem::take(&mut inode.pending);
    undo(&mut inode.data, &pending);
    for (_, change) in pending {
        match change {
            Change::Truncate { to, .. } => {
                if choices.one_in("truncate survives", node, 2) {
                    inode.data.truncate(to as usize);
                } else {
                    losses.untruncated += 1;
                }
            }
            Change::Write { at, bytes, .. } => match choices.below("write survives", node, 8) {
                0..3 => lay(&mut inode.data, at, &bytes),
                3..5 => losses.lost += 1,
                5 => {
                    losses.zeroed += 1;
                    let end = (at as usize + bytes.len()).max(inode.data.len());
                    inode.data.resize(end, 0);
                }
                _ => {
                    losses.torn += 1;
                    tear(&mut inode.data, at, &bytes, node, choices);
                }
            },
        }
    }
}

/// Some sectors of a write survive, others not.
fn tear(data: &mut Vec<u8>, at: u64, bytes: &[u8], node: u64, choices: &mut Keyed) {
    let end = at + bytes.len() as u64;
    let mut from = at;
    while from < end {
        let to = ((from / SECTOR + 1) * SECTOR).min(end);
        if choices.one_in("sector survives", node, 2) {
            lay(data, from, &bytes[(from - at) as usize..(to - at) as usize]);
        }
        from = to;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_file() -> (Disk, InodeId) {
        let mut disk = Disk::new(1);
        disk.create_dir("a").expect("a directory");
        disk.sync_dir("").expect("a sync");
        let (id, _) = disk.open("a/f", true).expect("a file");
        disk.sync_dir("a").expect("a sync");
        (disk, id)
    }

    #[test]
    fn what_a_sync_covers_survives_every_power_loss() {
        for seed in 0..50 {
            let (mut disk, id) = with_file();
            disk.write(id, 0, &Bytes::from(vec![7; 3000])).expect("room");
            let mark = disk.sync_begin();
            disk.write(id, 3000, &Bytes::from(vec![8; 3000])).expect("room");
            disk.sync_end(id, mark).expect("a sync");
            disk.power_loss(&mut Keyed::new(seed));
            let id = disk.file("a/f").expect("its name was synced");
            assert_eq!(disk.read(id, 0, 3000), vec![7; 3000]);
        }
    }

    #[test]
    fn what_no_sync_covers_is_kept_lost_torn_and_zeroed() {
        let (mut whole, mut shorter, mut torn, mut zeros, mut nameless) = (0, 0, 0, 0, 0);
        for seed in 0..200 {
            let (mut disk, id) = with_file();
            disk.write(id, 0, &Bytes::from(vec![7; 4096])).expect("room");
            disk.rename("a/f", "a/g").expect("a rename");
            disk.power_loss(&mut Keyed::new(seed));
            let Some(id) = disk.file("a/g") else {
                nameless += 1;
                assert!(disk.file("a/f").is_some(), "an undone rename leaves the old name");
                continue;
            };
            let left = disk.read(id, 0, 4096);
            let sevens = left.iter().filter(|b| **b == 7).count();
            match (left.len(), sevens) {
                (4096, 4096) => whole += 1,
                (0, 0) => shorter += 1,
                (4096, 0) => zeros += 1,
                _ => torn += 1,
            }
        }
        assert!(
            [whole, shorter, torn, zeros, nameless].iter().all(|n| *n > 5),
            "{whole} {shorter} {torn} {zeros}"
        );
    }

    #[test]
    fn a_truncate_that_no_sync_covers_may_be_undone() {
        let mut undone = 0;
        for seed in 0..100 {
            let (mut disk, id) = with_file();
            disk.write(id, 0, &Bytes::from(vec![7; 1000])).expect("room");
            let mark = disk.sync_begin();
            disk.sync_end(id, mark).expect("a sync");
            disk.truncate(id, 100);
            disk.power_loss(&mut Keyed::new(seed));
            undone += u32::from(disk.len(id) == 1000);
            assert!(matches!(disk.len(id), 100 | 1000));
        }
        assert!((20..80).contains(&undone), "{undone}");
    }

    #[test]
    fn a_name_is_sure_once_its_directory_is_synced() {
        let (mut disk, id) = with_file();
        assert_eq!(disk.file_durable("a/f"), Some(id));
        disk.rename("a/f", "a/g").expect("a rename");
        assert_eq!((disk.file_durable("a/f"), disk.file("a/f")), (Some(id), None));
        disk.sync_dir("a").expect("a sync");
        assert_eq!((disk.file_durable("a/f"), disk.file_durable("a/g")), (None, Some(id)));
    }

    #[test]
    fn a_full_disk_takes_what_fits() {
        let (mut disk, id) = with_file();
        disk.capacity = 1000;
        let (error, extent_known) = disk
            .write(id, 0, &Bytes::from(vec![1; 1500]))
            .expect_err("no room");
        assert_eq!(
            (error.kind(), extent_known, disk.len(id)),
            (ErrorKind::NoSpace, true, 1000)
        );
        disk.truncate(id, 0);
        assert_eq!(disk.space(), (1000, 1000));
    }
}

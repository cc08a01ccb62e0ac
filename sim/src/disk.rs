//! A node's disk: a written byte is not durable until it is synced.
//!
//! Each file has two images: what the node sees (the page cache over the platter) and what is durable. A change reaches the first
//! image at once, and the second when a sync covers it. At a power loss each pending change survives or not, independently: a write
//! whole, torn at sectors, or as a longer length with zeros in place of data; a rename, create, remove or truncate may never have
//! happened. The surviving changes are what the node sees from then on. (The model is the weakest file system
//! that POSIX allows.)
//!
//! A *failed* sync settles the changes that it covers at once: each reached the platter, in part or whole, or never will. The node
//! goes on seeing all of them, and no later sync covers them again: the pages count as clean (fsyncgate; Rebello et al., ATC 2020).
//! Only bytes that are written again can become durable. Name changes of a directory whose sync failed stay pending: a journal
//! keeps them.

mod corrupt;
mod damage;
mod files;
mod inode;
mod names;
mod observe;
mod platter;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use brokkr_env::{Entry, EntryKind, Error, ErrorKind, Result};
use bytes::Bytes;
use tokio::sync::Notify;

use crate::digest::Digest;
use crate::exec::Nanos;
use crate::keyed::Keyed;
use crate::trigger::{Act, kind_of};
pub use damage::Damage;
pub use files::FileDamage;
pub use inode::InodeId;
use inode::{Inode, ROOT};
use names::{NameChange, apply_name};
pub use observe::{DiskState, FileState, NameState};
pub use platter::SECTOR;
use platter::{Change, Image, apply, settle};

/// An operation that is about to fail.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FailingOperation {
    /// What is done.
    pub act: Act,
    /// To which kind of file.
    pub of: String,
    /// ENOSPC, instead of EIO.
    pub no_space: bool,
}

impl FailingOperation {
    fn error(&self, path: &str) -> Error {
        let (kind, what) = match self.no_space {
            true => (ErrorKind::NoSpace, "no space left on device"),
            false => (ErrorKind::Io, "input/output error"),
        };
        Error::new(kind, format!("{} {path}: {what}", self.act.name()))
    }

    /// Whether the disk is well afterwards: the operation may be tried again.
    pub fn may_be_repeated(&self) -> bool {
        self.no_space && self.act != Act::Sync
    }
}

/// One node's disk. It survives the node's lives.
pub struct Disk {
    node: u64,
    /// By their ids.
    inodes: Vec<Inode>,
    next_change: u64,
    names: Vec<NameChange>,
    /// How many times a path changed its target.
    renamed: u64,
    used: u64,
    /// Capacity in bytes.
    pub capacity: u64,
    /// How many of the next syncs fail.
    pub failing_syncs: u64,
    /// How many of the next writes fail with an IO error of unknown extent.
    pub failing_writes: u64,
    /// The next operation of this kind fails, without an effect.
    pub failing: Option<FailingOperation>,
    /// The path of a failed directory: nothing in it can be read, written or synced.
    pub failed_dir: Option<String>,
    /// Until then, every operation takes this many times as long.
    pub slow: (Nanos, u64),
    /// No operation completes before.
    pub hangs_until: Nanos,
    /// Faults that occurred, by family.
    pub fault_counts: BTreeMap<&'static str, u64>,
    /// Notified at each write to a log.
    pub log_written: Arc<Notify>,
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
            inodes: vec![root],
            next_change: 0,
            names: Vec::new(),
            renamed: 0,
            used: 0,
            capacity: u64::MAX,
            failing_syncs: 0,
            failing_writes: 0,
            failing: None,
            failed_dir: None,
            slow: (0, 1),
            hangs_until: 0,
            fault_counts: BTreeMap::new(),
            log_written: Arc::default(),
        }
    }

    fn walk(&self, path: &str) -> Option<InodeId> {
        path.split('/')
            .filter(|p| !p.is_empty())
            .try_fold(ROOT, |dir, name| self.inode(dir).entries.get(name).copied())
    }

    fn inode(&self, id: InodeId) -> &Inode {
        self.inodes
            .get(id as usize)
            .expect("an inode that is named exists")
    }

    fn inode_mut(&mut self, id: InodeId) -> &mut Inode {
        self.inodes
            .get_mut(id as usize)
            .expect("an inode that is named exists")
    }

    /// The directory of `path`, and the name in it.
    fn place<'p>(&self, path: &'p str) -> Result<(InodeId, &'p str)> {
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        let dir = self
            .walk(parent)
            .filter(|d| self.inode(*d).is_dir)
            .ok_or_else(|| not_found(path))?;
        Ok((dir, name))
    }

    fn name(&mut self, change: NameChange) {
        self.renamed += 1;
        apply_name(&mut self.inodes, &change, false);
        self.names.push(change);
    }

    fn make(&mut self, path: &str, is_dir: bool) -> Result<InodeId> {
        let (dir, name) = self.place(path)?;
        let inode = self.inodes.len() as InodeId;
        self.inodes.push(Inode {
            is_dir,
            is_log: name.ends_with(".log"),
            ..Inode::default()
        });
        self.name(NameChange::Set {
            dir,
            name: name.to_owned(),
            inode,
        });
        Ok(inode)
    }

    /// Opens or creates a file: returns its inode and length. The caller must call [`Disk::close`] for each handle.
    pub fn open(&mut self, path: &str, create: bool) -> Result<(InodeId, u64)> {
        let opened = self.find(path, create)?;
        self.inode_mut(opened.0).handles += 1;
        Ok(opened)
    }

    /// Drops a handle of a file.
    pub fn close(&mut self, id: InodeId) {
        let inode = self.inode_mut(id);
        inode.handles = inode.handles.saturating_sub(1);
        self.free_unless_used(id);
    }

    fn find(&mut self, path: &str, create: bool) -> Result<(InodeId, u64)> {
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

    /// Renames, replacing an existing file.
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

    /// The entries of a directory, sorted.
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
        let mut displaced = Vec::new();
        for change in covered {
            let (NameChange::Set { dir, name, .. }
            | NameChange::Unset { dir, name }
            | NameChange::Move { to: (dir, name), .. }) = &change;
            displaced.extend(self.inode(*dir).entries_durable.get(name).copied());
            apply_name(&mut self.inodes, &change, true);
        }
        displaced.into_iter().for_each(|id| self.free_unless_used(id));
        Ok(())
    }

    /// Frees a file's bytes once it has no name, visible or durable, no handle, and no pending change that could restore a name.
    fn free_unless_used(&mut self, id: InodeId) {
        let is_it = |of: &NameChange| match of {
            NameChange::Set { inode, .. } | NameChange::Move { inode, .. } => *inode == id,
            NameChange::Unset { .. } => false,
        };
        let inode = self.inode(id);
        let freed = inode.data.len() as u64;
        if inode.handles > 0
            || inode.links > 0
            || inode.is_dir
            || freed == 0 && inode.durable.len() == 0
            || self.names.iter().any(is_it)
        {
            return;
        }
        let inode = self.inode_mut(id);
        (inode.data, inode.durable, inode.pending) = (Image::default(), Image::default(), Vec::new());
        self.used -= freed;
    }

    fn count_fault(&mut self, what: &'static str) {
        *self.fault_counts.entry(what).or_insert(0) += 1;
    }

    fn check_sync(&mut self, what: &str) -> Result<()> {
        if self.failing_syncs > 0 {
            self.failing_syncs -= 1;
            self.count_fault("sync failed");
            return Err(Error::new(
                ErrorKind::Io,
                format!("sync {what}: input/output error"),
            ));
        }
        Ok(())
    }

    /// Whether `path` is the failed directory or inside it.
    pub fn has_failed(&self, path: &str) -> bool {
        let rest = self.failed_dir.as_deref().and_then(|dir| path.strip_prefix(dir));
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// Returns the error of an operation on a path, if it is in the failed directory.
    pub fn check_dir(&self, path: &str) -> Result<()> {
        match self.has_failed(path) {
            true => Err(Error::new(ErrorKind::Io, format!("{path}: input/output error"))),
            false => Ok(()),
        }
    }

    /// The error of an operation that a fault makes fail: this one, if it is of the fault's kind.
    pub fn check_operation(&mut self, act: Act, path: &str) -> Result<()> {
        let is_it = |f: &FailingOperation| f.act == act && f.of == kind_of(path);
        match self.failing.take_if(|f| is_it(f)) {
            None => Ok(()),
            Some(failing) => {
                self.count_fault(if failing.no_space {
                    "operation without space"
                } else {
                    "operation failed"
                });
                Err(failing.error(path))
            }
        }
    }

    /// As [`Disk::check_operation`], of a write: one that overwrites needs no space.
    pub fn check_write(&mut self, path: &str, grows: bool) -> Result<()> {
        match &self.failing {
            Some(failing) if failing.no_space && !grows => Ok(()),
            _ => self.check_operation(Act::Write, path),
        }
    }

    /// When an operation ends that begins now and normally takes `latency`.
    pub fn ends_at(&self, now: Nanos, latency: Nanos) -> Nanos {
        let (until, times) = self.slow;
        let latency = if now < until { latency * times } else { latency };
        (now + latency).max(self.hangs_until)
    }

    /// A digest of all names and contents, as the node sees them and as they are durable.
    pub fn digest(&self) -> u64 {
        let of = |inode: &Inode| {
            let (data, durable) = (inode.data.whole(), inode.durable.whole());
            (Digest::of(&&*data), Digest::of(&&*durable), inode.pending.len())
        };
        let names = |inode: &Inode| Digest::of(&(&inode.entries, &inode.entries_durable));
        let all: Vec<_> = self.inodes.iter().map(|i| (of(i), names(i))).collect();
        Digest::of(&all)
    }

    /// Bytes that files occupy.
    pub fn used(&self) -> u64 {
        self.used
    }

    /// Free bytes, and the capacity.
    pub fn space(&self) -> (u64, u64) {
        (self.capacity.saturating_sub(self.used), self.capacity)
    }

    /// The longest write to a log that no sync has covered yet.
    pub fn log_unsynced_bytes(&self) -> u64 {
        let changes = self.inodes.iter().filter(|i| i.is_log).flat_map(|i| &i.pending);
        let len = |(_, change): &(u64, Change)| match change {
            Change::Write { bytes, .. } => bytes.len() as u64,
            Change::Astray { len, .. } => *len,
            Change::Truncate { .. } => 0,
        };
        changes.map(len).max().unwrap_or(0)
    }

    /// The length of a file.
    pub fn len(&self, inode: InodeId) -> u64 {
        self.inode(inode).data.len() as u64
    }

    /// Bytes from `at` on; fewer at the end of the file.
    ///
    /// # Errors
    /// EIO, if one of the sectors can't be read.
    pub fn read(&mut self, id: InodeId, at: u64, len: u64) -> Result<Bytes> {
        let inode = self.inode(id);
        let from = (at as usize).min(inode.data.len());
        let to = ((at + len) as usize).min(inode.data.len());
        let bytes = inode.data.read(from, to);
        if inode.unreadable.is_empty() || !inode.is_unreadable(from as u64, to as u64) {
            return Ok(bytes);
        }
        self.count_fault("read failed");
        Err(Error::new(ErrorKind::Io, "read: input/output error"))
    }

    /// Writes. If the disk gets full, it writes the part that fits; the error tells whether the extent is known.
    pub fn write(
        &mut self,
        inode: InodeId,
        at: u64,
        bytes: &Bytes,
    ) -> std::result::Result<(), (Error, bool)> {
        if self.failing_writes > 0 {
            self.failing_writes -= 1;
            self.count_fault("write failed");
            self.put(inode, at, bytes.slice(..bytes.len() / 2));
            return Err((Error::new(ErrorKind::Io, "write: input/output error"), false));
        }
        let grows = (at + bytes.len() as u64).saturating_sub(self.len(inode));
        let room = self.capacity.saturating_sub(self.used);
        if grows > room {
            let fits = bytes.len() as u64 - (grows - room);
            self.count_fault("no space");
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
        inode.data.lay(at, &bytes);
        inode.is_written(at, bytes.len() as u64);
        let grown = inode.data.len() as u64 - len_before;
        let change = match inode.goes_astray.take() {
            None => Change::Write { at, bytes },
            Some(how) => {
                self.count_fault(how.name());
                how.astray(at, bytes)
            }
        };
        self.used += grown;
        let inode = self.inode_mut(id);
        inode.pending.push((number, change));
        if inode.is_log {
            self.log_written.notify_one();
        }
    }

    /// Truncates a file.
    pub fn truncate(&mut self, id: InodeId, to: u64) {
        let number = self.next_change;
        self.next_change += 1;
        let inode = self.inode_mut(id);
        let freed = (inode.data.len() as u64).saturating_sub(to);
        inode.data.truncate(to as usize);
        inode.pending.push((number, Change::Truncate { to }));
        self.used -= freed;
    }

    /// Begins a sync: returns a mark of the changes that it covers.
    pub fn sync_begin(&self) -> u64 {
        self.next_change
    }

    /// Ends a sync that began at `mark`. A failure settles the covered changes for good.
    pub fn sync_end(&mut self, id: InodeId, mark: u64, choices: &mut Keyed) -> Result<()> {
        self.sync_ends(id, mark, choices, Ok(()))
    }

    /// As [`Disk::sync_end`], with a failure that is known already.
    pub fn sync_ends(
        &mut self,
        id: InodeId,
        mark: u64,
        choices: &mut Keyed,
        given: Result<()>,
    ) -> Result<()> {
        let result = given.and_then(|()| self.check_sync("file"));
        let (node, inode) = (self.node, self.inode_mut(id));
        let covered = inode.pending.partition_point(|(number, _)| *number < mark);
        let covered: Vec<_> = inode.pending.drain(..covered).collect();
        match &result {
            Ok(()) => covered.iter().for_each(|(_, c)| apply(&mut inode.durable, c)),
            Err(_) => {
                let mut fault_counts = BTreeMap::new();
                settle(&mut inode.durable, &covered, node, choices, &mut fault_counts);
                if !covered.is_empty() {
                    self.count_fault("pages gone");
                }
            }
        }
        result
    }

    /// Power loss: any part of the unsynced changes survives.
    pub fn power_loss(&mut self, choices: &mut Keyed) {
        self.lose_names(choices);
        let (node, fault_counts) = (self.node, &mut self.fault_counts);
        for inode in &mut self.inodes {
            let pending = std::mem::take(&mut inode.pending);
            settle(&mut inode.durable, &pending, node, choices, fault_counts);
            inode.data.copy(&inode.durable);
        }
        self.used = self.inodes.iter().map(|i| i.data.len() as u64).sum();
    }

    fn lose_names(&mut self, choices: &mut Keyed) {
        self.renamed += 1;
        for change in std::mem::take(&mut self.names) {
            if choices.one_in("name survives", self.node, 2) {
                apply_name(&mut self.inodes, &change, true);
            } else {
                self.count_fault("name undone");
            }
        }
        for inode in &mut self.inodes {
            inode.entries = inode.entries_durable.clone();
            inode.links = 0;
        }
        for dir in 0..self.inodes.len() {
            let named: Vec<InodeId> = self.inodes[dir].entries.values().copied().collect();
            named.into_iter().for_each(|id| self.inode_mut(id).links += 2);
        }
    }

    /// The last segment of a folder with a base of at most `offset` whose name is durable: its base, and its file. For checks.
    pub fn segment_durable(&self, folder: &str, offset: i64) -> Option<(i64, InodeId)> {
        let seen = &self.inode(self.walk(folder)?).entries;
        let durable = &self.inode(self.file_durable(folder)?).entries_durable;
        // By name they are by base, too: it has 20 digits.
        seen.keys().rev().find_map(|name| {
            let base = name.strip_suffix(".log")?.parse().ok()?;
            Some((base, *durable.get(name)?)).filter(|_| base <= offset)
        })
    }

    /// The lengths of open files that have no visible name. For checks.
    pub fn open_without_name(&self) -> Vec<u64> {
        let named: BTreeSet<InodeId> = self
            .inodes
            .iter()
            .flat_map(|i| i.entries.values().copied())
            .collect();
        let open = self
            .inodes
            .iter()
            .enumerate()
            .filter(|(_, i)| i.handles > 0 && !i.is_dir);
        let nameless = open.filter(|(id, _)| !named.contains(&(*id as InodeId)));
        nameless.map(|(_, i)| i.data.len() as u64).collect()
    }

    /// A counter that changes whenever a path changes its target. For checks.
    pub fn renamed(&self) -> u64 {
        self.renamed
    }

    /// The file at a path, as the node sees it. For checks.
    pub fn file(&self, path: &str) -> Option<InodeId> {
        self.walk(path)
    }

    /// The file that a power loss now would certainly leave at this path, even if it undid every unsynced change of names. For
    /// checks.
    pub fn file_durable(&self, path: &str) -> Option<InodeId> {
        path.split('/')
            .filter(|p| !p.is_empty())
            .try_fold(ROOT, |dir, name| {
                self.inode(dir).entries_durable.get(name).copied()
            })
    }

    /// A file's bytes as the node sees them. For checks.
    pub fn peek(&self, id: InodeId) -> Cow<'_, [u8]> {
        self.inode(id).data.whole()
    }

    /// A file's bytes on the platter: what a power loss now would leave if no pending change survived. For checks.
    pub fn peek_durable(&self, id: InodeId) -> Cow<'_, [u8]> {
        self.inode(id).durable.whole()
    }
}

#[cfg(test)]
mod tests;

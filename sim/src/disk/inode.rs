//! Files and directories, whatever their names are.

use std::collections::{BTreeMap, BTreeSet};

use super::damage::Damage;
use super::platter::{Change, Image, SECTOR};

/// A file or directory on the disk, whatever its name is.
pub type InodeId = u64;

/// The root directory.
pub(super) const ROOT: InodeId = 0;

/// See [`InodeId`].
#[derive(Default)]
pub(super) struct Inode {
    pub(super) data: Image,
    /// The content on the platter.
    pub(super) durable: Image,
    /// Changes that no completed sync covers, oldest first, each with its number.
    pub(super) pending: Vec<(u64, Change)>,
    /// Entries of a directory, as the node sees them and as they are durable.
    pub(super) entries: BTreeMap<String, InodeId>,
    pub(super) entries_durable: BTreeMap<String, InodeId>,
    pub(super) is_dir: bool,
    /// Whether it was created as a segment of a log, the target of most faults.
    pub(super) is_log: bool,
    /// What the disk does to the next write while it reports success.
    pub(super) goes_astray: Option<Damage>,
    /// Unreadable sectors, by their start, until they are written again.
    pub(super) unreadable: BTreeSet<u64>,
    /// Open handles.
    pub(super) handles: u32,
    /// Names that refer to it, as the node sees them and as they are durable.
    pub(super) links: u32,
}

impl Inode {
    pub(super) fn is_unreadable(&self, from: u64, to: u64) -> bool {
        let first = from / SECTOR * SECTOR;
        self.unreadable.range(first..to.max(first)).next().is_some()
    }

    /// Makes a sector readable again if the write covers it whole, or up to the end of the file.
    pub(super) fn is_written(&mut self, at: u64, len: u64) {
        let (end, file_end) = (at + len, self.data.len() as u64);
        self.unreadable
            .retain(|sector| *sector < at || (*sector + SECTOR).min(file_end) > end);
    }
}

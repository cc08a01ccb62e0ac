//! Names of files, and their changes.

use super::inode::{Inode, InodeId};

/// A change of a directory's entries.
#[derive(Clone)]
pub(super) enum NameChange {
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
    pub(super) fn touches(&self, dir: InodeId) -> bool {
        match self {
            Self::Set { dir: d, .. } | Self::Unset { dir: d, .. } => *d == dir,
            Self::Move { from, to, .. } => from.0 == dir || to.0 == dir,
        }
    }
}

/// Makes a name refer to an inode, or to none, in the visible or in the durable view.
pub(super) fn set_name(inodes: &mut [Inode], dir: InodeId, name: &str, to: Option<InodeId>, durable: bool) {
    let dir = &mut inodes[dir as usize];
    let entries = if durable {
        &mut dir.entries_durable
    } else {
        &mut dir.entries
    };
    let before = match to {
        Some(inode) => entries.insert(name.to_owned(), inode),
        None => entries.remove(name),
    };
    if let Some(inode) = to {
        inodes[inode as usize].links += 1;
    }
    if let Some(inode) = before {
        inodes[inode as usize].links -= 1;
    }
}

/// Makes a change, in the visible or in the durable view.
pub(super) fn apply_name(inodes: &mut [Inode], change: &NameChange, durable: bool) {
    match change {
        NameChange::Set { dir, name, inode } => set_name(inodes, *dir, name, Some(*inode), durable),
        NameChange::Unset { dir, name } => set_name(inodes, *dir, name, None, durable),
        NameChange::Move { from, to, inode } => {
            // In the durable view the source may be missing (its create was lost), or be another file by now.
            let dir = &inodes[from.0 as usize];
            let entries = if durable {
                &dir.entries_durable
            } else {
                &dir.entries
            };
            if entries.get(&from.1) == Some(inode) {
                set_name(inodes, from.0, &from.1, None, durable);
            }
            set_name(inodes, to.0, &to.1, Some(*inode), durable);
        }
    }
}

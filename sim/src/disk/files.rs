//! Damage to whole files while no process has them open: an operator's mistake, a bad copy, a file system that lost its journal.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::Disk;
use super::inode::{InodeId, ROOT};
use super::names::{NameChange, set_name};
use super::platter::Image;
use crate::keyed::Keyed;

/// What happens to a file between two lives of the broker.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FileDamage {
    /// The file is missing.
    Missing,
    /// The file is empty.
    Emptied,
    /// Its end is gone.
    Shortened,
    /// The file keeps its length and is all zeros.
    Zeroed,
    /// The file is replaced by one of the same kind from another folder.
    Anothers,
    /// The file is replaced by an older version of itself.
    Older,
    /// One bit is flipped.
    FlippedBit,
}

impl FileDamage {
    /// All kinds.
    pub const ALL: [Self; 7] = [
        Self::Missing,
        Self::Emptied,
        Self::Shortened,
        Self::Zeroed,
        Self::Anothers,
        Self::Older,
        Self::FlippedBit,
    ];

    /// The name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Missing => "file missing",
            Self::Emptied => "file emptied",
            Self::Shortened => "file shortened",
            Self::Zeroed => "file zeroed",
            Self::Anothers => "file of another",
            Self::Older => "file of old",
            Self::FlippedBit => "file with another bit",
        }
    }

    /// The contents of a file of `bytes` after the damage; none if it is missing. `other` is its replacement.
    fn of(self, bytes: &[u8], other: &[u8], choices: &mut Keyed) -> Option<Vec<u8>> {
        let len = bytes.len() as u64;
        let mut bytes = bytes.to_vec();
        match self {
            Self::Missing => return None,
            Self::Emptied => bytes.clear(),
            Self::Shortened => bytes.truncate(choices.below("shortened to", 0, len.max(1)) as usize),
            Self::Zeroed => bytes.fill(0),
            Self::Anothers | Self::Older => bytes = other.to_vec(),
            Self::FlippedBit => {
                let at = choices.below("flipped at", 0, len.max(1)) as usize;
                let bit = 1 << choices.below("flipped bit", 0, 8);
                bytes.iter_mut().skip(at).take(1).for_each(|b| *b ^= bit);
            }
        }
        Some(bytes)
    }
}

impl Disk {
    /// The paths of the files that match `pattern`: one `*` in its last part matches anything.
    pub fn matching(&self, pattern: &str) -> Vec<String> {
        let (folder, name) = pattern.rsplit_once('/').unwrap_or(("", pattern));
        let (begin, end) = name.split_once('*').unwrap_or((name, ""));
        let is_it = |found: &str| match name.contains('*') {
            true => {
                found.len() >= begin.len() + end.len() && found.starts_with(begin) && found.ends_with(end)
            }
            false => found == name,
        };
        let entries = self.list(folder).unwrap_or_default().into_iter().map(|e| e.name);
        let paths = entries.filter(|n| is_it(n)).map(|n| format!("{folder}/{n}"));
        paths
            .filter(|p| self.file(p).is_some_and(|id| !self.inode(id).is_dir))
            .collect()
    }

    /// A log of these directories, in a folder of such a name, with a change that is not durable, and is older than this mark of a
    /// sync's begin.
    pub fn log_pending_since(
        &self,
        roots: &[String],
        mark: u64,
        is_judged: impl Fn(&str) -> bool,
    ) -> Option<String> {
        let folders = roots.iter().flat_map(|root| {
            let entries = self.list(root).unwrap_or_default();
            let judged = entries.into_iter().filter(|e| is_judged(&e.name));
            judged.map(|e| format!("{root}/{}", e.name)).collect::<Vec<_>>()
        });
        let mut logs = folders.flat_map(|folder| self.matching(&format!("{folder}/*.log")));
        logs.find(|path| {
            let file = self.file(path).map(|id| self.inode(id));
            let oldest = file.and_then(|inode| inode.pending.first());
            oldest.is_some_and(|(number, _)| *number < mark)
        })
    }

    /// Damages a file that is not open: on the platter and in the next life's view. `false` if it stayed as it was.
    pub fn damage_file(
        &mut self,
        path: &str,
        how: FileDamage,
        other: Option<&[u8]>,
        choices: &mut Keyed,
    ) -> bool {
        let Some(id) = self.file(path) else { return false };
        if matches!(how, FileDamage::Anothers | FileDamage::Older) && other.is_none() {
            return false;
        }
        let before = self.peek(id).into_owned();
        let after = how.of(&before, other.unwrap_or_default(), choices);
        if after.as_deref() == Some(&before) {
            return false;
        }
        match after {
            Some(after) => self.overwrite(id, after),
            None => self.lose_name(path, id),
        }
        self.count_fault(how.name());
        true
    }

    /// Restores a file's contents.
    pub fn restore_file(&mut self, path: &str, bytes: Vec<u8>) {
        match self.file(path) {
            Some(id) => self.overwrite(id, bytes),
            None => {
                if let Ok((id, _)) = self.find(path, true) {
                    self.overwrite(id, bytes);
                }
                // Durable, names included: no change is pending.
                let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
                drop(self.sync_dir(folder));
            }
        }
    }

    fn overwrite(&mut self, id: InodeId, bytes: Vec<u8>) {
        let bytes = Bytes::from(bytes);
        let inode = self.inode_mut(id);
        let before = inode.data.len() as u64;
        for image in [&mut inode.data, &mut inode.durable] {
            *image = Image::default();
            image.lay(0, &bytes);
        }
        inode.pending.clear();
        inode.unreadable.clear();
        self.used = self.used - before + bytes.len() as u64;
    }

    fn lose_name(&mut self, path: &str, id: InodeId) {
        let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
        let dir = self.walk(folder).unwrap_or(ROOT);
        self.renamed += 1;
        self.names.retain(|change| match change {
            NameChange::Set { dir: d, name: n, .. } | NameChange::Unset { dir: d, name: n } => {
                (*d, &**n) != (dir, name)
            }
            NameChange::Move { to: (d, n), .. } => (*d, &**n) != (dir, name),
        });
        set_name(&mut self.inodes, dir, name, None, false);
        set_name(&mut self.inodes, dir, name, None, true);
        self.free_unless_used(id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATH: &str = "data/t-0/x.index";

    fn disk() -> Disk {
        let mut disk = Disk::new(1);
        disk.create_dir("data/t-0").expect("a folder");
        let (id, _) = disk.open(PATH, true).expect("a new file");
        disk.write(id, 0, &Bytes::from_static(b"0123456789"))
            .expect("there is room");
        disk.close(id);
        for folder in ["", "data", "data/t-0"] {
            disk.sync_dir(folder).expect("a sync");
        }
        disk
    }

    #[test]
    fn each_damage_has_its_effect_and_lasts() {
        for how in FileDamage::ALL {
            let mut disk = disk();
            let mut choices = Keyed::new(5);
            assert!(
                disk.damage_file(PATH, how, Some(b"other"), &mut choices),
                "{how:?}"
            );
            disk.power_loss(&mut choices);
            let bytes = disk.file(PATH).map(|id| disk.peek(id).into_owned());
            match how {
                FileDamage::Missing => assert_eq!(bytes, None),
                FileDamage::Emptied => assert_eq!(bytes.as_deref(), Some(&b""[..])),
                FileDamage::Shortened => {
                    assert!(bytes.is_some_and(|b| b.len() < 10 && b"0123456789".starts_with(&b)))
                }
                FileDamage::Zeroed => assert_eq!(bytes.as_deref(), Some(&[0; 10][..])),
                FileDamage::Anothers | FileDamage::Older => assert_eq!(bytes.as_deref(), Some(&b"other"[..])),
                FileDamage::FlippedBit => {
                    let flipped: u32 = bytes
                        .expect("it is there")
                        .iter()
                        .zip(b"0123456789")
                        .map(|(a, b)| (a ^ b).count_ones())
                        .sum();
                    assert_eq!(flipped, 1);
                }
            }
            assert_eq!(
                disk.used(),
                disk.file(PATH).map_or(0, |id| disk.len(id)),
                "{how:?}"
            );
        }
    }

    #[test]
    fn a_restored_file_survives_a_power_loss() {
        let (mut disk, mut choices) = (disk(), Keyed::new(5));
        assert!(disk.damage_file(PATH, FileDamage::Missing, None, &mut choices));
        disk.restore_file(PATH, b"0123456789".to_vec());
        disk.power_loss(&mut choices);
        let id = disk.file(PATH).expect("it is there");
        assert_eq!(&*disk.peek(id), b"0123456789");
    }

    #[test]
    fn a_pattern_matches_files_of_one_folder() {
        let disk = disk();
        assert_eq!(disk.matching("data/t-0/*.index"), [PATH]);
        assert_eq!(disk.matching("data/t-0/x.index"), [PATH]);
        assert_eq!(disk.matching("data/t-0/*.log"), [""; 0]);
        assert_eq!(disk.matching("data/*"), [""; 0]);
        assert!(!disk.matching("data/t-0/*").is_empty());
    }
}

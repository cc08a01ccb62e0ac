//! Finds what a power loss did to a node's files, by comparing their contents.

use std::collections::BTreeMap;

use brokkr_env::EntryKind;
use bytes::Bytes;

use super::{EventKind, batches_in};
use crate::disk::Disk;

/// A node's files as it sees them.
pub struct Images(BTreeMap<String, Bytes>);

impl Images {
    /// Reads all files of a disk.
    pub fn of(disk: &Disk) -> Self {
        let (mut files, mut folders) = (BTreeMap::new(), vec![String::new()]);
        while let Some(folder) = folders.pop() {
            for entry in disk.list(&folder).unwrap_or_default() {
                let path = format!("{folder}/{}", entry.name).trim_matches('/').to_owned();
                match (entry.kind, disk.file(&path)) {
                    (EntryKind::File, Some(inode)) => {
                        drop(files.insert(path, Bytes::copy_from_slice(&disk.peek(inode))))
                    }
                    _ => folders.push(path),
                }
            }
        }
        Self(files)
    }

    /// The differences now, by file: bytes that are gone or changed, with the batches that contained them; files that are gone, and
    /// files that reappeared.
    pub fn lost(&self, disk: &Disk) -> Vec<EventKind> {
        let now = Self::of(disk);
        let mut all: Vec<EventKind> = self
            .0
            .iter()
            .flat_map(|(file, was)| changes(file, was, now.0.get(file)))
            .collect();
        for (file, is) in now.0.iter().filter(|(file, _)| !self.0.contains_key(*file)) {
            all.push(lost(file, 0, is.len(), "there again", is));
        }
        all
    }
}

fn changes(file: &str, was: &Bytes, is: Option<&Bytes>) -> Vec<EventKind> {
    let Some(is) = is else {
        return vec![lost(file, 0, was.len(), "gone with the file's name", was)];
    };
    let common = was.len().min(is.len());
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(first) = (at..common).find(|i| was[*i] != is[*i]) {
        // Changes with a few equal bytes in between are one change.
        let mut last = first;
        for i in first..common {
            if was[i] != is[i] {
                last = i;
            } else if i - last > CLOSE_BYTES_MAX {
                break;
            }
        }
        found.push(lost(file, first, last + 1 - first, "not what was written", was));
        at = last + 1;
    }
    if was.len() > is.len() {
        found.push(lost(file, common, was.len() - common, "gone", was));
    } else if is.len() > was.len() {
        found.push(lost(file, common, is.len() - common, "there again", is));
    }
    found
}

/// Changes that are closer together than this are reported as one.
const CLOSE_BYTES_MAX: usize = 512;

/// `image` holds the old or new bytes: its batches that contain any of the range are reported.
fn lost(file: &str, at: usize, len: usize, how: &'static str, image: &Bytes) -> EventKind {
    let mut batches = Vec::new();
    if file.ends_with(".log") {
        let mut position = 0;
        for batch in brokkr_wire::records::batches(image.clone()).map_while(Result::ok) {
            let end = position + batch.bytes.len();
            if position < at + len && end > at {
                batches.extend(batches_in(batch.bytes));
            }
            position = end;
        }
    }
    EventKind::Lost {
        file: file.to_owned(),
        at: at as u64,
        len: len as u64,
        how: how.into(),
        batches,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keyed::Keyed;

    #[test]
    fn power_loss_changes_are_reported_by_file_and_bytes() {
        let mut disk = Disk::new(1);
        disk.create_dir("d").expect("room");
        let (kept, _) = disk.open("d/kept", true).expect("room");
        let (gone, _) = disk.open("d/gone", true).expect("room");
        disk.write(kept, 0, &Bytes::from(vec![1; 100])).expect("room");
        disk.sync_dir("").expect("no fault");
        disk.sync_dir("d").expect("no fault");
        let (mark, mut choices) = (disk.sync_begin(), Keyed::new(1));
        disk.sync_end(kept, mark, &mut choices).expect("no fault");
        disk.write(gone, 0, &Bytes::from(vec![2; 10])).expect("room");
        for i in 0..20 {
            disk.write(kept, 100 + i * 600, &Bytes::from(vec![3; 600]))
                .expect("room");
        }
        let before = Images::of(&disk);
        assert!(before.lost(&disk).is_empty());
        disk.power_loss(&mut choices);
        let lost = before.lost(&disk);
        assert!(!lost.is_empty());
        for what in &lost {
            let EventKind::Lost { file, at, len, .. } = what else {
                panic!("{what}")
            };
            // Synced bytes are unchanged.
            assert!(file == "d/gone" || *at >= 100 && *len > 0, "{what}");
        }
        let (was, is) = (&before.0["d/kept"], Images::of(&disk).0["d/kept"].clone());
        let told_at = |i: usize| {
            lost.iter().any(|w| {
                matches!(w, EventKind::Lost { file, at, len, .. }
            if file == "d/kept" && (*at as usize..(*at + *len) as usize).contains(&i))
            })
        };
        let differs = (0..was.len().max(is.len())).filter(|i| was.get(*i) != is.get(*i));
        assert!(differs.clone().count() > 100 && differs.clone().all(told_at));
    }
}

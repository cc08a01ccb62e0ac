//! Files that something happens to while the broker is down.
//!
//! Afterwards either everything is served, or the log names what is not (D2). A broker that refuses to start has to name the file; then
//! the file is put back, and everything must be there: to refuse destroys nothing.

use super::{AGAIN, Act, Director};
use crate::check::Violation;
use crate::disk::Disk;
use crate::disk::FileDamage;
use crate::durable::{end_of, recovery_points};
use crate::keyed::{Keyed, mix};
use crate::plan::{BROKER, Kind};

pub(super) const METADATA: &str = "__cluster_metadata-0";

/// A file as it was before it was damaged.
pub(super) struct Broken {
    path: String,
    before: Vec<u8>,
}

impl Director {
    /// Keeps what the files are that a fault names: one of them may be as old as that later.
    pub(super) fn remember(&mut self, i: usize) {
        let Kind::DamageFile { file, .. } = &self.shared.plan.faults[i].kind else {
            return;
        };
        let found = self.on_disk(|d| {
            let read = |path: String| d.file(&path).map(|id| (path, d.peek(id).into_owned()));
            self.matching(d, file)
                .into_iter()
                .filter_map(read)
                .collect::<Vec<_>>()
        });
        self.remembered.extend(found);
    }

    /// BEFORE the broker starts again: damages the file, if there is one.
    pub(super) fn damage_files(&mut self) {
        for i in std::mem::take(&mut self.doomed) {
            let fault = self.shared.plan.faults[i].clone();
            let Kind::DamageFile { file, how, .. } = fault.kind else {
                continue;
            };
            let mut choices = Keyed::new(mix(self.shared.plan.seed, fault.id));
            let all = self.on_disk(|d| self.matching(d, &file));
            if all.is_empty() {
                continue;
            }
            let path = all[choices.below("damaged file", 0, all.len() as u64) as usize].clone();
            if !self.is_vouched_for(&path) {
                continue;
            }
            let other = self.other(&path, how);
            let before = self.on_disk(|d| d.file(&path).map(|id| d.peek(id).into_owned()));
            if self.on_disk(|d| d.damage_file(&path, how, other.as_deref(), &mut choices)) {
                self.suspect(&path, how);
                let before = before.unwrap_or_default();
                if self.is_of_metadata(&path) {
                    // Until it is put back: what is on record of it must not change meanwhile.
                    self.shared.damage(METADATA.to_owned());
                }
                self.broken = Some(Broken { path, before });
            }
        }
    }

    /// Whether it is on record how far the metadata in a file was durable. What is behind that nobody can tell from what was never
    /// synced.
    fn is_vouched_for(&self, path: &str) -> bool {
        if !self.is_of_metadata(path) || !path.ends_with(".log") {
            return true;
        }
        let (end, recorded) = self.on_disk(|d| {
            let read = |path: &str| d.file(path).map(|id| d.peek(id).into_owned()).unwrap_or_default();
            let recorded = recovery_points(&read(&format!("{}/brokkr-checkpoint", self.shared.roots[0])));
            (end_of(&read(path)), recorded.unwrap_or_default())
        });
        recorded
            .iter()
            .any(|(folder, _, point)| folder == METADATA && Some(*point) >= end)
    }

    /// Of a partition with an essential file that is damaged, not everything need be served. (Of the metadata, and of what is derived,
    /// all is judged.)
    fn suspect(&self, path: &str, how: FileDamage) {
        let mut parts = path.rsplit('/');
        let (name, folder) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let is_derived = [".index", ".timeindex", ".snapshot", ".window"]
            .iter()
            .any(|end| name.ends_with(end));
        let is_judged = self.shared.plan.workload.topics.iter().flat_map(|t| t.all());
        if !is_derived && is_judged.into_iter().any(|(t, p)| format!("{t}-{p}") == folder) {
            // A batch whose CRC fails tells whoever reads it; nobody has to look for it before.
            match how {
                FileDamage::FlippedBit if name.ends_with(".log") => self.shared.damage(folder.to_owned()),
                _ => self.shared.suspect(folder.to_owned()),
            }
        }
    }

    /// What stands in for a file.
    fn other(&self, path: &str, how: FileDamage) -> Option<Vec<u8>> {
        if how == FileDamage::Older {
            return self.remembered.get(path).cloned();
        }
        let (folder, name) = path.rsplit_once('/')?;
        let pattern = match name.rsplit_once('.') {
            Some((_, end)) => format!("*.{end}"),
            None => name.to_owned(),
        };
        let roots = &self.shared.roots;
        self.on_disk(|d| {
            let of_root = |root: &String| {
                let entries = d.list(root).unwrap_or_default().into_iter();
                let folders: Vec<_> = entries.map(|e| format!("{root}/{}", e.name)).collect();
                folders
            };
            let all: Vec<String> = match roots.iter().any(|root| root == folder) {
                true => roots.to_vec(),
                false => roots.iter().flat_map(of_root).collect(),
            };
            let others = all.into_iter().filter(|f| f != folder);
            let found = others
                .flat_map(|f| d.matching(&format!("{f}/{pattern}")))
                .next()?;
            Some(d.peek(d.file(&found)?).into_owned())
        })
    }

    /// The paths of the files that a fault names, in all log directories.
    fn matching(&self, disk: &Disk, file: &str) -> Vec<String> {
        let roots = self.shared.roots.iter();
        roots
            .flat_map(|root| disk.matching(&format!("{root}/{file}")))
            .collect()
    }

    fn is_of_metadata(&self, path: &str) -> bool {
        path.starts_with(&format!("{}/{METADATA}/", self.shared.roots[0]))
    }

    /// A broker that serves, but left out the directory in which a file of its own was damaged, and named both: the file is put back,
    /// and everything must be there after the next start. Whether that is so.
    pub(super) fn left_out(&mut self) -> bool {
        let Some(Broken { path, .. }) = &self.broken else {
            return false;
        };
        let (root, name) = path.rsplit_once('/').unwrap_or_default();
        let is_left_out = self.shared.roots[1..].iter().any(|of| of == root)
            && self.shared.is_named(&format!("log directory {root}: {name}"));
        if !is_left_out {
            return false;
        }
        let Some(Broken { path, before }) = self.broken.take() else {
            return false;
        };
        self.shared.world.count("directory left out for a file");
        // What is offline in it is as the last life left it: nothing of that is recovered yet.
        self.crash(0, false, 5);
        self.on_disk(|d| d.restore_file(&path, before));
        true
    }

    /// The start failed: it has to say because of which file, and then the operator puts it back. Whether that was the reason.
    pub(super) fn put_back(&mut self, why: &str) -> bool {
        let Some(Broken { path, before }) = self.broken.take() else {
            return false;
        };
        let name = path.rsplit('/').next().unwrap_or_default();
        if !why.contains(name) && !self.shared.is_named(name) {
            if self.disk_failed {
                // That may be why, and the file was not looked at.
                self.broken = Some(Broken { path, before });
                return false;
            }
            let what = format!("{path} was damaged, and the start that failed does not name it: {why}");
            self.shared.violation(Violation::new("D2", what));
        }
        self.shared.world.count("refused for a file");
        self.shared.world.end_quietly(BROKER);
        self.on_disk(|d| d.restore_file(&path, before));
        self.shared.mend(METADATA);
        self.at(self.now() + AGAIN, Act::Start);
        true
    }
}

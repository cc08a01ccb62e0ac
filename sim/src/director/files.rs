//! Faults that damage a file while the broker is down.
//!
//! Afterwards the broker either serves everything, or its log names the files that it can't serve (D2). A broker that refuses to
//! start must name the file. The director then restores the file, and the broker must serve everything: a refused start destroys
//! nothing.

use super::Director;
use super::action::{Action, START_RETRY_DELAY};
use super::damaged_file::{DamagedFile, METADATA};
use crate::check::Violation;
use crate::disk::Disk;
use crate::disk::FileDamage;
use crate::durable::{end_of, recovery_points};
use crate::keyed::{Keyed, mix};
use crate::plan::{BROKER, Kind};

impl Director {
    /// Saves the contents of the files that a fault names: the fault may later replace a file by this older version.
    pub(super) fn keep_contents(&mut self, i: usize) {
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
        self.kept_contents.extend(found);
    }

    /// Damages the file, if it exists. Called BEFORE the broker starts again.
    pub(super) fn damage_files(&mut self) {
        for i in std::mem::take(&mut self.files_to_damage) {
            if self.damaged_file.is_some() {
                continue;
            }
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
            if !self.is_durability_recorded(&path) {
                continue;
            }
            let replacement = self.replacement(&path, how);
            let before = self.on_disk(|d| d.file(&path).map(|id| d.peek(id).into_owned()));
            if self.on_disk(|d| d.damage_file(&path, how, replacement.as_deref(), &mut choices)) {
                self.suspect(&path, how);
                let before = before.unwrap_or_default();
                if self.is_of_metadata(&path) {
                    // Until the file is restored, the records about it must not change.
                    self.shared.damage(METADATA.to_owned());
                }
                self.damaged_file = Some(DamagedFile { path, before });
            }
        }
    }

    /// Whether a checkpoint records how far this metadata file was durable. The broker can't tell damage behind that point from
    /// data that was never synced.
    fn is_durability_recorded(&self, path: &str) -> bool {
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

    /// Exempts a partition whose essential file is damaged from the rule that everything is served. (The metadata and derived files
    /// are not exempt.)
    fn suspect(&self, path: &str, how: FileDamage) {
        let mut parts = path.rsplit('/');
        let (name, folder) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let is_derived = [".index", ".timeindex", ".snapshot", ".window"]
            .iter()
            .any(|end| name.ends_with(end));
        let is_judged = self.shared.plan.workload.topics.iter().flat_map(|t| t.all());
        if !is_derived && is_judged.into_iter().any(|(t, p)| format!("{t}-{p}") == folder) {
            // A reader detects a batch whose CRC fails; recovery need not look for it.
            match how {
                FileDamage::FlippedBit if name.ends_with(".log") => self.shared.damage(folder.to_owned()),
                _ => self.shared.suspect(folder.to_owned()),
            }
        }
    }

    /// The contents that replace a file.
    fn replacement(&self, path: &str, how: FileDamage) -> Option<Vec<u8>> {
        if how == FileDamage::Older {
            return self.kept_contents.get(path).cloned();
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

    /// Forgets the damage of a file, as the broker serves; but not if the broker may not have read it: a directory that fails, and
    /// records of the metadata that a snapshot holds too.
    pub(super) fn forget_damaged_file(&mut self) {
        let Some(DamagedFile { path, before }) = &self.damaged_file else {
            return;
        };
        let is_unread = self.on_disk(|d| {
            let of_failed = |root: &String| path.starts_with(&format!("{root}/"));
            let is_as_long = d.file(path).is_some_and(|id| d.peek(id).len() >= before.len());
            d.failed_dir.as_ref().is_some_and(of_failed)
                || self.is_of_metadata(path) && path.ends_with(".log") && is_as_long
        });
        if !is_unread {
            self.damaged_file = None;
            self.shared.mend(METADATA);
        }
    }

    /// The contents that a file had before it was damaged, and what was appended since.
    fn sound_contents(&self, path: &str, mut before: Vec<u8>) -> Vec<u8> {
        let now = self.on_disk(|d| d.file(path).map(|id| d.peek(id).into_owned()));
        before.extend(now.unwrap_or_default().into_iter().skip(before.len()));
        before
    }

    /// Handles a broker that serves, but left out the log directory with the damaged file and named both in its log: restores the
    /// file, so that the next start must serve everything. Returns whether this was the case.
    pub(super) fn handle_left_out_directory(&mut self) -> bool {
        let Some(DamagedFile { path, .. }) = &self.damaged_file else {
            return false;
        };
        let (root, name) = path.rsplit_once('/').unwrap_or_default();
        let is_left_out = self.shared.roots[1..].iter().any(|of| of == root)
            && self.shared.is_named(&format!("log directory {root}: {name}"));
        if !is_left_out {
            return false;
        }
        let Some(DamagedFile { path, before }) = self.damaged_file.take() else {
            return false;
        };
        self.shared.world.count("directory left out for a file");
        // The offline partitions in it are as the last life left them: they are not recovered yet.
        self.crash(0, false, 5);
        self.on_disk(|d| d.restore_file(&path, before));
        true
    }

    /// Handles a failed start: the broker must name the damaged file, and the operator restores it. Returns whether the file was
    /// the reason.
    pub(super) fn handle_refused_start(&mut self, why: &str) -> bool {
        let Some(DamagedFile { path, before }) = self.damaged_file.take() else {
            return false;
        };
        let name = path.rsplit('/').next().unwrap_or_default();
        if !why.contains(name) && !self.shared.is_named(name) {
            if self.disk_failed || self.full_until > 0 {
                // The failing disk may be the reason, and the broker may not have read the file.
                self.damaged_file = Some(DamagedFile { path, before });
                return false;
            }
            let what = format!("{path} was damaged, and the start that failed does not name it: {why}");
            self.shared.violation(Violation::new("D2", what));
        }
        self.shared.world.count("refused for a file");
        self.shared.world.end_quietly(BROKER);
        let sound = match self.is_of_metadata(&path) {
            true => self.sound_contents(&path, before),
            false => before,
        };
        self.on_disk(|d| d.restore_file(&path, sound));
        self.shared.mend(METADATA);
        self.at(self.now() + START_RETRY_DELAY, Action::Start);
        true
    }
}

//! Files and directories on a node's disk.

use std::sync::Arc;

use brokkr_env::{Done, Entry, Error, ErrorKind, RawDir, RawFile, Result, WriteFailure};
use bytes::Bytes;

use super::sim_env::{SimEnv, disk};
use crate::disk::InodeId;
use crate::trace::{EventKind, batches_in};
use crate::trigger::Act;
use crate::world::{State, World};

/// A file of a node's disk.
pub struct SimFile {
    pub(super) env: SimEnv,
    pub(super) inode: InodeId,
    /// Its path when it was opened.
    path: Arc<str>,
}

/// The error's text, for a trace.
fn error_of<T>(result: &Result<T>) -> Option<String> {
    result.as_ref().err().map(ToString::to_string)
}

impl Drop for SimFile {
    fn drop(&mut self) {
        let mut state = self.env.world.lock();
        disk(&mut state, self.env.life.node, |d| d.close(self.inode));
    }
}

impl RawFile for SimFile {
    fn write_at(&self, at: u64, parts: Vec<Bytes>, done: Done<std::result::Result<(), WriteFailure>>) {
        if self.env.dead() {
            return;
        }
        let whole = match &*parts {
            [one] => one.clone(),
            several => several.concat().into(),
        };
        let (life, inode, len) = (self.env.life, self.inode, whole.len() as u64);
        let mut state = self.env.world.lock();
        let id = World::write_begins(&mut state, life, inode, at, whole.clone());
        let act = (Act::Write, &*self.path);
        self.env.world.operation(&mut state, life.node, act, false);
        drop(state);
        let crc = crc32fast::hash(&whole);
        let exec = self.env.world.exec();
        exec.note(("write", id, inode, at, len, crc));
        self.env.tap().record(|| EventKind::Write {
            write: id,
            file: self.path.to_string(),
            at,
            len,
            crc,
            batches: if self.path.ends_with(".log") {
                batches_in(whole)
            } else {
                Vec::new()
            },
        });
        let (world, path) = (self.env.world.clone(), Arc::clone(&self.path));
        self.env.after(
            move |s| World::disk_latency(s, life.node, len),
            done,
            move |s| {
                let (inode, at, bytes) = World::write_ends(s, id).expect("a write that is under way");
                let failed = |(error, extent_known)| WriteFailure { error, extent_known };
                let written = disk(s, life.node, |d| {
                    d.check_dir(&path).map_err(|error| (error, false))?;
                    d.check_write(&path, at + len > d.len(inode)).map_err(|error| {
                        let extent_known = error.kind() == ErrorKind::NoSpace;
                        (error, extent_known)
                    })?;
                    d.write(inode, at, &bytes)
                });
                let written = written.map_err(failed);
                let error = written.as_ref().err().map(|w| w.error.to_string());
                world.operation(s, life.node, (Act::Write, &path), true);
                world.exec().note(("wrote", id, &error));
                world.exec().tap().record(|| EventKind::Wrote {
                    write: id,
                    file: path.to_string(),
                    at,
                    len,
                    error,
                });
                written
            },
        );
    }

    fn read_at(&self, at: u64, len: u32, done: Done<Result<Bytes>>) {
        let (node, inode) = (self.env.life.node, self.inode);
        let latency = move |s: &mut State| World::disk_latency(s, node, u64::from(len));
        self.tell_read(at, len, false);
        let path = Arc::clone(&self.path);
        self.env.after(latency, done, move |s| {
            disk(s, node, |d| {
                d.check_dir(&path)?;
                d.read(inode, at, u64::from(len))
            })
        });
    }

    fn read_resident(&self, at: u64, len: u32) -> Option<Bytes> {
        let (node, inode) = (self.env.life.node, self.inode);
        let mut state = self.env.world.lock();
        // Sometimes the bytes aren't resident, and the caller has to use `read_at`.
        if state.choices.one_in("read not resident", u64::from(node), 8) {
            return None;
        }
        self.tell_read(at, len, true);
        disk(&mut state, node, |d| d.read(inode, at, u64::from(len))).ok()
    }

    fn sync(&self, done: Done<Result<()>>) {
        if self.env.dead() {
            return;
        }
        let (node, inode) = (self.env.life.node, self.inode);
        let (mark, len) = {
            let mut state = self.env.world.lock();
            let act = (Act::Sync, &*self.path);
            self.env.world.operation(&mut state, node, act, false);
            disk(&mut state, node, |d| (d.sync_begin(), d.len(inode)))
        };
        let begun = self.env.tap().record(|| EventKind::Sync {
            file: self.path.to_string(),
            len: Some(len),
        });
        let (world, path) = (self.env.world.clone(), Arc::clone(&self.path));
        self.env.after(
            move |s| World::sync_latency(s, node),
            done,
            move |s| {
                let disk = s.disks.get_mut(&node).expect("a node that stores has a disk");
                let given = disk.check_dir(&path);
                let given = given.and_then(|()| disk.check_operation(Act::Sync, &path));
                let synced = disk.sync_ends(inode, mark, &mut s.choices, given);
                world.operation(s, node, (Act::Sync, &path), true);
                world.exec().note(("synced", &path, error_of(&synced)));
                world.exec().tap().record(|| EventKind::Synced {
                    file: path.to_string(),
                    begun,
                    error: error_of(&synced),
                });
                synced
            },
        );
    }

    fn truncate(&self, len: u64, done: Done<Result<()>>) {
        let (node, inode) = (self.env.life.node, self.inode);
        let (world, path) = (self.env.world.clone(), Arc::clone(&self.path));
        self.env.begins(Act::Truncate, &path);
        self.env.after(
            move |s| World::disk_latency(s, node, 0),
            done,
            move |s| {
                world.exec().note(("truncate", &path, len));
                world.exec().tap().record(|| EventKind::Truncate {
                    file: path.to_string(),
                    to: len,
                });
                let truncated = disk(s, node, |d| {
                    d.check_dir(&path)?;
                    d.check_operation(Act::Truncate, &path)?;
                    d.truncate(inode, len);
                    Ok(())
                });
                world.operation(s, node, (Act::Truncate, &path), true);
                truncated
            },
        );
    }
}

impl SimFile {
    fn tell_read(&self, at: u64, len: u32, resident: bool) {
        self.env.tap().record(|| EventKind::Read {
            file: self.path.to_string(),
            at,
            len: u64::from(len),
            resident,
        });
    }
}

/// A directory of a node's disk.
pub struct SimDir {
    pub(super) env: SimEnv,
    pub(super) root: Arc<str>,
}

impl SimDir {
    fn path(&self, path: &str) -> String {
        [&*self.root, path].join("/").trim_matches('/').to_owned()
    }

    /// Does something to the disk; `act` says what and to which path, if it changes anything.
    fn call<T: Send + 'static>(
        &self,
        act: Option<(Act, String)>,
        done: Done<Result<T>>,
        f: impl FnOnce(&mut crate::disk::Disk) -> Result<T> + Send + 'static,
    ) {
        let (node, root) = (self.env.life.node, Arc::clone(&self.root));
        if let Some((act, path)) = &act {
            self.env.begins(*act, path);
        }
        let world = self.env.world.clone();
        self.env.after(
            move |s| World::disk_latency(s, node, 0),
            done,
            move |s| {
                let result = disk(s, node, |d| {
                    d.check_dir(&root)?;
                    if let Some((act, path)) = &act {
                        d.check_operation(*act, path)?;
                    }
                    f(d)
                });
                if let Some((act, path)) = &act {
                    world.operation(s, node, (*act, path), true);
                }
                result
            },
        );
    }

    /// Changes names, and traces the change with its outcome.
    fn call_named(
        &self,
        (act, op): (Act, &'static str),
        (file, to): (String, Option<String>),
        done: Done<Result<()>>,
        f: impl FnOnce(&mut crate::disk::Disk) -> Result<()> + Send + 'static,
    ) {
        let world = self.env.world.clone();
        let path = to.clone().unwrap_or_else(|| file.clone());
        self.call(Some((act, path)), done, move |d| {
            let result = f(d);
            world.exec().note((op, &file, &to, error_of(&result)));
            world.exec().tap().record(|| EventKind::Name {
                op: op.into(),
                file,
                to,
                error: error_of(&result),
            });
            result
        });
    }
}

impl RawDir for SimDir {
    type File = SimFile;

    fn open(&self, path: &str, create: bool, done: Done<Result<(SimFile, u64)>>) {
        let (path, env) = (self.path(path), self.env.clone());
        let act = create.then(|| (Act::Create, path.clone()));
        self.call(act, done, move |d| {
            let (inode, len) = d.open(&path, create)?;
            env.world.exec().note(("open", &path, create, len));
            env.tap().record(|| EventKind::Open {
                file: path.clone(),
                made: create,
                len,
            });
            let path = path.into();
            Ok((SimFile { env, inode, path }, len))
        });
    }

    fn rename(&self, from: &str, to: &str, done: Done<Result<()>>) {
        let (from, to) = (self.path(from), self.path(to));
        let names = (from.clone(), Some(to.clone()));
        self.call_named((Act::Rename, "rename"), names, done, move |d| {
            d.rename(&from, &to)
        });
    }

    fn remove(&self, path: &str, done: Done<Result<()>>) {
        let path = self.path(path);
        let names = (path.clone(), None);
        self.call_named((Act::Remove, "remove"), names, done, move |d| {
            d.remove(&path, false)
        });
    }

    fn create_dir(&self, path: &str, done: Done<Result<()>>) {
        let path = self.path(path);
        let names = (path.clone(), None);
        self.call_named((Act::Create, "create_dir"), names, done, move |d| {
            d.create_dir(&path)
        });
    }

    fn remove_dir(&self, path: &str, done: Done<Result<()>>) {
        let path = self.path(path);
        let names = (path.clone(), None);
        self.call_named((Act::Remove, "remove_dir"), names, done, move |d| {
            d.remove(&path, true)
        });
    }

    fn list(&self, path: &str, done: Done<Result<Vec<Entry>>>) {
        let path = self.path(path);
        self.call(None, done, move |d| d.list(&path));
    }

    fn sync_dir(&self, path: &str, done: Done<Result<()>>) {
        let (path, node) = (self.path(path), self.env.life.node);
        self.env.begins(Act::Sync, &path);
        let begun = self.env.tap().record(|| EventKind::Sync {
            file: path.clone(),
            len: None,
        });
        let world = self.env.world.clone();
        self.env.after(
            move |s| World::sync_latency(s, node),
            done,
            move |s| {
                let synced = disk(s, node, |d| {
                    d.check_dir(&path)?;
                    d.check_operation(Act::Sync, &path)?;
                    d.sync_dir(&path)
                });
                world.operation(s, node, (Act::Sync, &path), true);
                world.exec().note(("synced", &path, error_of(&synced)));
                world.exec().tap().record(|| EventKind::Synced {
                    file: path,
                    begun,
                    error: error_of(&synced),
                });
                synced
            },
        );
    }

    fn space(&self, done: Done<Result<(u64, u64)>>) {
        self.call(None, done, |d| Ok(d.space()));
    }

    fn lock(&self, done: Done<Result<()>>) {
        let (life, root) = (self.env.life, self.root.to_string());
        self.env.after(
            move |s| World::disk_latency(s, life.node, 0),
            done,
            move |s| {
                let holder = *s.locks.entry((life.node, root.clone())).or_insert(life);
                if holder == life {
                    // A second lock by the same process is refused too, like flock on another descriptor.
                    let twice = s
                        .locks
                        .insert((life.node, format!("{root}#taken")), life)
                        .is_some();
                    if !twice {
                        return Ok(());
                    }
                }
                Err(Error::new(
                    ErrorKind::InUse,
                    format!("{root}: locked by another process"),
                ))
            },
        );
    }
}

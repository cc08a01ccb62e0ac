//! The raw files and directories that a world implements.

use std::sync::Mutex;

use ::tokio::sync::Notify;
use bytes::Bytes;

use crate::{Error, ErrorKind, Result};

/// The callback with which a world completes an operation, called once.
pub type Done<T> = Box<dyn FnOnce(T) + Send>;

/// A failed write.
#[derive(Debug, Clone)]
pub struct WriteFailure {
    /// The error.
    pub error: Error,
    /// Whether the file is certainly unchanged before the write's position, and holds at most a prefix of the write after
    /// it. If not, the directory is poisoned.
    pub extent_known: bool,
}

/// A raw file. Each call starts at once, on any thread of the world, and in no order: [`crate::File`] starts an operation
/// only after those that must precede it. `done` may be called from any thread, also before the call returns.
pub trait RawFile: Send + Sync + 'static {
    /// Writes all of `parts`, one after the other, from `at` on.
    fn write_at(&self, at: u64, parts: Vec<Bytes>, done: Done<std::result::Result<(), WriteFailure>>);

    /// Reads `len` bytes from `at` on; fewer only at the end of the file.
    fn read_at(&self, at: u64, len: u32, done: Done<Result<Bytes>>);

    /// The bytes, if they are available without waiting for a device: the caller is a runtime worker.
    fn read_resident(&self, at: u64, len: u32) -> Option<Bytes>;

    /// Makes all bytes written before the call durable.
    fn sync(&self, done: Done<Result<()>>);

    /// Cuts the file to `len` bytes.
    fn truncate(&self, len: u64, done: Done<Result<()>>);
}

/// The kind of an [`Entry`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum EntryKind {
    /// A file.
    File,
    /// A directory.
    Dir,
}

/// An entry of a directory.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// File or directory.
    pub kind: EntryKind,
}

/// A raw directory with everything below it. Paths are relative to it, parts separated by `/`, without `.` and `..`.
pub trait RawDir: Send + Sync + 'static {
    /// The raw file of this world.
    type File: RawFile;

    /// Opens a file and returns its length. With `create` it creates the file and fails if it exists.
    fn open(&self, path: &str, create: bool, done: Done<Result<(Self::File, u64)>>);
    /// Renames, replacing the target.
    fn rename(&self, from: &str, to: &str, done: Done<Result<()>>);
    /// Removes a file.
    fn remove(&self, path: &str, done: Done<Result<()>>);
    /// Creates a directory; succeeds if it exists.
    fn create_dir(&self, path: &str, done: Done<Result<()>>);
    /// Removes an empty directory.
    fn remove_dir(&self, path: &str, done: Done<Result<()>>);
    /// The entries of a directory, sorted by name.
    fn list(&self, path: &str, done: Done<Result<Vec<Entry>>>);
    /// Makes the entries of a directory (creates, renames, removes in it) durable.
    fn sync_dir(&self, path: &str, done: Done<Result<()>>);
    /// Free bytes, and bytes in total.
    fn space(&self, done: Done<Result<(u64, u64)>>);
    /// Locks the directory until the process ends or the [`RawDir`] is dropped.
    fn lock(&self, done: Done<Result<()>>);
}

/// The files of a world. [`crate::Env`] adds the rest.
pub trait Storage: Clone + Send + Sync + 'static {
    /// The raw file of this world.
    type RawFile: RawFile;
    /// The raw directory of this world.
    type RawDir: RawDir<File = Self::RawFile>;
}

/// Whether a directory is closed for writing. Everything opened through one [`crate::Dir`] shares it.
#[derive(Default)]
pub struct Poison {
    why: Mutex<Option<Error>>,
    set: Notify,
}

impl Poison {
    /// The reason why the directory is closed for writing, if it is.
    pub fn get(&self) -> Option<Error> {
        self.why.lock().expect("no panic under this lock").clone()
    }

    /// Closes the directory for writing. The first reason is kept.
    pub(crate) fn set(&self, why: &Error) {
        let mut reason = self.why.lock().expect("no panic under this lock");
        if reason.is_none() {
            tracing::error!(%why, "log directory poisoned: no writing until restart");
            *reason = Some(Error::new(
                ErrorKind::Poisoned,
                format!("not written since: {why}"),
            ));
            drop(reason);
            self.set.notify_waiters();
        }
    }

    /// Waits until the directory is closed for writing. Cancel-safe.
    pub(crate) async fn wait(&self) -> Error {
        loop {
            let mut set = std::pin::pin!(self.set.notified());
            // BEFORE the check: a later change then wakes this task.
            set.as_mut().enable();
            match self.get() {
                Some(why) => return why,
                None => set.await,
            }
        }
    }

    pub(crate) fn check(&self) -> Result<()> {
        self.get().map_or(Ok(()), Err)
    }
}

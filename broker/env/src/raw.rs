//! What a world implements: files and directories without any rule of ours.

use std::sync::Mutex;

use ::tokio::sync::Notify;
use bytes::Bytes;

use crate::dir::Entry;
use crate::{Error, ErrorKind, Result};

/// What a world calls, once, when an operation ended.
pub type Done<T> = Box<dyn FnOnce(T) + Send>;

/// How a write went wrong.
#[derive(Debug, Clone)]
pub struct WriteFailure {
    /// Why.
    pub error: Error,
    /// Whether the file is certainly unchanged before the place where the write began, and holds nothing but a prefix of
    /// it from there on. If not, the directory is poisoned.
    pub extent_known: bool,
}

/// A file of the world. Each call begins at once, on whatever thread the world has for it, and in no order: [`crate::File`]
/// begins one only when what must precede it has ended. `done` may be called from anywhere, also before the call returns.
pub trait RawFile: Send + Sync + 'static {
    /// Writes all of `parts`, one behind the other, from `at` on.
    fn write_at(&self, at: u64, parts: Vec<Bytes>, done: Done<std::result::Result<(), WriteFailure>>);

    /// Reads `len` bytes from `at` on; fewer only where the file ends.
    fn read_at(&self, at: u64, len: u32, done: Done<Result<Bytes>>);

    /// The bytes, if they can be had without waiting for a device: the caller is on a runtime's worker.
    fn read_resident(&self, at: u64, len: u32) -> Option<Bytes>;

    /// Makes all that was written before the call durable.
    fn sync(&self, done: Done<Result<()>>);

    /// Cuts the file to `len` bytes.
    fn truncate(&self, len: u64, done: Done<Result<()>>);
}

/// A directory of the world, with all below it. Paths are relative to it, parts separated by `/`, without `.` and `..`.
pub trait RawDir: Send + Sync + 'static {
    /// Its files.
    type File: RawFile;

    /// Opens a file and tells its length; with `create`, makes it, which fails if it exists.
    fn open(&self, path: &str, create: bool, done: Done<Result<(Self::File, u64)>>);
    /// Renames, replacing what is there.
    fn rename(&self, from: &str, to: &str, done: Done<Result<()>>);
    /// Removes a file.
    fn remove(&self, path: &str, done: Done<Result<()>>);
    /// Makes a directory; it is fine if it exists.
    fn create_dir(&self, path: &str, done: Done<Result<()>>);
    /// Removes an empty directory.
    fn remove_dir(&self, path: &str, done: Done<Result<()>>);
    /// What is in a directory, sorted by name.
    fn list(&self, path: &str, done: Done<Result<Vec<Entry>>>);
    /// Makes the entries of a directory (creates, renames, removes in it) durable.
    fn sync_dir(&self, path: &str, done: Done<Result<()>>);
    /// Bytes that can still be written, and bytes in all.
    fn space(&self, done: Done<Result<(u64, u64)>>);
    /// Takes the directory's lock until the owner dies or [`RawDir`] is dropped.
    fn lock(&self, done: Done<Result<()>>);
}

/// Whether a directory may still be written. Shared by all that hangs from one [`crate::Dir`].
#[derive(Default)]
pub struct Poison {
    why: Mutex<Option<Error>>,
    set: Notify,
}

impl Poison {
    /// Why it may not be written, if so.
    pub fn get(&self) -> Option<Error> {
        self.why.lock().expect("no panic under this lock").clone()
    }

    /// Forbids writing from now on. The first reason stays.
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

    /// Waits until it may not be written. Cancel-safe.
    pub(crate) async fn wait(&self) -> Error {
        loop {
            let mut set = std::pin::pin!(self.set.notified());
            // BEFORE it is looked at.
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

//! A log directory: its files, its lock, its poison.
//!
//! If another file system is mounted over a directory, or the directory is removed, its path leads elsewhere while its files
//! stay open. So every operation that creates, renames or removes a name first checks that the path still leads to the
//! locked directory ([`ErrorKind::Lost`]).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

use super::file::{File, FileId};
use super::raw::{Done, Entry, Poison, RawDir, Storage};
use crate::submitted::{Submitted, submitted};
use crate::{Error, ErrorKind, Result};

/// An open directory. Clones share it and its poison. Paths are relative to it, with `/` between their parts.
pub struct Dir<S: Storage> {
    raw: Arc<S::RawDir>,
    poison: Arc<Poison>,
    next_file: Arc<AtomicU64>,
}

impl<S: Storage> Clone for Dir<S> {
    fn clone(&self) -> Self {
        Self {
            raw: Arc::clone(&self.raw),
            poison: Arc::clone(&self.poison),
            next_file: Arc::clone(&self.next_file),
        }
    }
}

impl<S: Storage> Dir<S> {
    /// For worlds: wraps the raw directory.
    pub fn new(raw: S::RawDir) -> Self {
        Self {
            raw: Arc::new(raw),
            poison: Arc::default(),
            next_file: Arc::default(),
        }
    }

    /// The reason why the directory is closed for writing, if it is.
    pub fn poisoned(&self) -> Option<Error> {
        self.poison.get()
    }

    /// Waits until the directory is closed for writing. Cancel-safe.
    pub async fn until_poisoned(&self) -> Error {
        self.poison.wait().await
    }

    /// Opens an existing file.
    ///
    /// Its directory entry may not survive a power loss until the file's first sync.
    pub async fn open(&self, path: &str) -> Result<File<S>> {
        let (raw, len) = self.call(|d, done| d.open(path, false, done)).await?;
        Ok(self.file(raw, len, path))
    }

    /// Creates a file; fails if it exists. Its directory entry is durable with its first [`crate::Durable`].
    pub async fn create(&self, path: &str) -> Result<File<S>> {
        self.poison.check()?;
        let (raw, len) = self.call(|d, done| d.open(path, true, done)).await?;
        Ok(self.file(raw, len, path))
    }

    /// Opens a file, creating it if it doesn't exist.
    pub async fn open_or_create(&self, path: &str) -> Result<File<S>> {
        match self.open(path).await {
            Err(e) if e.kind() == ErrorKind::NotFound => self.create(path).await,
            other => other,
        }
    }

    fn file(&self, raw: S::RawFile, len: u64, path: &str) -> File<S> {
        self.file_with(raw, len, path, false)
    }

    fn file_with(&self, raw: S::RawFile, len: u64, path: &str, entry_durable: bool) -> File<S> {
        let id = FileId(self.next_file.fetch_add(1, Ordering::Relaxed));
        File::new(
            raw,
            len,
            Arc::clone(&self.raw),
            Arc::clone(&self.poison),
            path,
            id,
            entry_durable,
        )
    }

    /// Reads a whole file of at most `len_max` bytes.
    pub async fn read(&self, path: &str, len_max: u32) -> Result<Bytes> {
        let file = self.open(path).await?;
        match u32::try_from(file.len()) {
            Ok(len) if len <= len_max => file.read_at(0, len).await,
            _ => Err(Error::new(
                ErrorKind::Io,
                format!("{path}: {} bytes, at most {len_max}", file.len()),
            )),
        }
    }

    /// Replaces the file at `path`, or creates it, with these bytes: atomically and durably.
    ///
    /// Writes and syncs a temporary file BEFORE it renames it, and syncs the directory after (SCENARIOS R5).
    pub async fn replace(&self, path: &str, bytes: Bytes) -> Result<()> {
        self.replace_all(parent(path), vec![(path.to_owned(), bytes)])
            .await
    }

    /// [`Dir::replace`] for several files of one directory, `folder`, with concurrent syncs. Each file is replaced
    /// atomically; after a failure or a crash some may be replaced and others not. A failure leaves no temporary file, unless
    /// it can't be removed; a crash may.
    pub async fn replace_all(&self, folder: &str, files: Vec<(String, Bytes)>) -> Result<()> {
        let mut ended = Ok(());
        let mut writing = Vec::with_capacity(files.len());
        for (path, bytes) in files {
            assert_eq!(parent(&path), folder, "one directory is synced");
            let scratch = format!("{path}.tmp");
            match self.create_scratch(&scratch).await {
                Ok(file) => writing.push((scratch, path, file.write_at(0, vec![bytes]), file.sync())),
                Err(error) => {
                    ended = Err(error);
                    break;
                }
            }
        }
        // BEFORE a failure is returned: the result of every sync is examined.
        let mut names = Vec::with_capacity(writing.len());
        for (scratch, path, written, synced) in writing {
            let written = written.await;
            let synced = synced.await;
            ended = ended.and(written).and(synced.map(drop));
            names.push((scratch, path));
        }
        for (scratch, path) in names {
            ended = match ended {
                Ok(()) => self.rename(&scratch, &path).await,
                failed => failed,
            };
            if ended.is_err() {
                // What can't be removed either is removed by the next call.
                drop(self.remove(&scratch).await);
            }
        }
        ended?;
        self.sync_dir(folder).await
    }

    /// Creates an empty temporary file. Its name need not survive a crash: a directory is synced once, after the renames.
    async fn create_scratch(&self, scratch: &str) -> Result<File<S>> {
        match self.remove(scratch).await {
            Err(e) if e.kind() != ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        self.poison.check()?;
        let (raw, len) = self.call(|d, done| d.open(scratch, true, done)).await?;
        Ok(self.file_with(raw, len, scratch, true))
    }

    /// Renames a file or directory, replacing a file of that name. Durable with [`Dir::sync_dir`] of both parents.
    pub async fn rename(&self, from: &str, to: &str) -> Result<()> {
        self.poison.check()?;
        self.call(|d, done| d.rename(from, to, done)).await
    }

    /// Removes a file. Durable with [`Dir::sync_dir`] of its parent. Open handles stay valid.
    pub async fn remove(&self, path: &str) -> Result<()> {
        self.poison.check()?;
        self.call(|d, done| d.remove(path, done)).await
    }

    /// Creates a directory; succeeds if it exists. Durable with [`Dir::sync_dir`] of its parent.
    pub async fn create_dir(&self, path: &str) -> Result<()> {
        self.poison.check()?;
        self.call(|d, done| d.create_dir(path, done)).await
    }

    /// Removes a directory, which must be empty.
    pub async fn remove_dir(&self, path: &str) -> Result<()> {
        self.poison.check()?;
        self.call(|d, done| d.remove_dir(path, done)).await
    }

    /// The entries of a directory (`""` is this one), sorted by name.
    pub async fn list(&self, path: &str) -> Result<Vec<Entry>> {
        self.call(|d, done| d.list(path, done)).await
    }

    /// Makes creates, renames and removes in a directory durable. A failed sync poisons; a failure to open the directory for
    /// it ([`ErrorKind::Resources`]) does not.
    pub async fn sync_dir(&self, path: &str) -> Result<()> {
        self.poison.check()?;
        let result = self.call(|d, done| d.sync_dir(path, done)).await;
        if let Err(e) = &result
            && !matches!(e.kind(), ErrorKind::NotFound | ErrorKind::Resources)
        {
            self.poison.set(e);
        }
        result
    }

    /// Free bytes, and bytes in total.
    pub async fn space(&self) -> Result<(u64, u64)> {
        self.call(|d, done| d.space(done)).await
    }

    /// Locks the directory for this process; [`ErrorKind::InUse`] if another process holds the lock. The lock is released
    /// when the process ends.
    pub async fn lock(&self) -> Result<()> {
        self.call(|d, done| d.lock(done)).await
    }

    fn call<T: Send + 'static>(&self, f: impl FnOnce(&S::RawDir, Done<Result<T>>)) -> Submitted<T> {
        let (completer, handle) = submitted();
        let poison = Arc::clone(&self.poison);
        let done = move |result: Result<T>| {
            if let Err(e) = &result
                && e.kind() == ErrorKind::Lost
            {
                poison.set(e);
            }
            completer.complete(result);
        };
        f(&self.raw, Box::new(done));
        handle
    }
}

fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}
